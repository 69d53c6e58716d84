"""Dropout: each unit of each row is left out with probability p, the others are divided by 1 - p.

N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple way to
prevent neural networks from overfitting" (JMLR 2014), in the inverted form: prediction changes
nothing. Whether a unit is kept is a function of seed, step, layer, row and unit alone, so it does
not depend on threads, on the cut into passes, or on being computed a second time.
"""

import numpy as np

from ._jit import kernel
from .random import LOW, WORD, choose_by_draws, philox
from .simd import lanes, load, store

WORDS = 4  # that one draw of the generator gives, one for each of as many rows


@kernel
def draw_mask(mask, p, seed, step, layer, start, unit):
    """mask [B, W] <- 0 with probability p, else 1 / (1 - p); row b is row start + b of the step.

    `unit` is the number of the first column, W is in whole vectors. Layer l draws from stream l + 1
    of the generator: the shuffles have stream 0.
    """
    limit, keep = np.uint64(p * 2.0**32), 1.0 / (1.0 - p)
    key = np.uint64(seed) & LOW, np.uint64(seed) >> WORD
    step, stream = np.uint64(step) & LOW, np.uint64(layer + 1)
    rows, columns = mask.shape
    for group in range(start // WORDS, (start + rows - 1) // WORDS + 1):
        b = group * WORDS - start
        if b >= 0 and b + WORDS <= rows:
            for j in range(0, columns, lanes(mask)):
                counter = np.uint64(unit + j), np.uint64(group), step, stream
                choose_by_draws(mask, b, j, counter, key, limit, keep)
            continue
        for j in range(columns):
            words = philox(np.uint64(unit + j), np.uint64(group), step, stream, key[0], key[1])
            for w in range(WORDS):
                if 0 <= b + w < rows:
                    mask[b + w, j] = keep if words[w] >= limit else 0.0


@kernel
def multiply_by(a, x, mask):
    """a <- x mask, element by element; a may be x."""
    for b in range(a.shape[0]):
        for j in range(0, a.shape[1], lanes(a)):
            store(a, b, j, load(x, b, j) * load(mask, b, j))
