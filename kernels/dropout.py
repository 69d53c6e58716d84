"""Dropout: each unit of each row is left out with probability p, the others are divided by 1 - p.

N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple way to
prevent neural networks from overfitting" (JMLR 2014), in the inverted form: prediction changes
nothing. Whether a unit is kept is a function of seed, step, layer, row and unit alone, so it does
not depend on threads, on the cut into passes, or on being computed a second time.
"""

import numpy as np

from ._jit import kernel
from .random import LOW, WORD, philox
from .simd import lanes, load, store

WORDS = 4  # that one call of the generator gives


@kernel
def draw_mask(mask, p, seed, step, layer, start, unit):
    """mask [B, W] <- 0 with probability p, else 1 / (1 - p); row b is row start + b of the step.

    `unit` is the number of the first column. Layer l draws from stream l + 1 of the generator: the
    shuffles have stream 0.
    """
    limit = np.uint64(p * 2.0**32)
    k0, k1 = np.uint64(seed) & LOW, np.uint64(seed) >> WORD
    c2, c3 = np.uint64(step) & LOW, np.uint64(layer + 1)
    keep = mask.dtype.type(1.0 / (1.0 - p))
    drop = mask.dtype.type(0.0)
    for b in range(mask.shape[0]):
        c1 = np.uint64(start + b)
        for q in range(mask.shape[1] // WORDS):
            c0 = np.uint64(unit // WORDS + q)
            r0, r1, r2, r3 = philox(c0, c1, c2, c3, k0, k1)
            mask[b, WORDS * q] = keep if r0 >= limit else drop
            mask[b, WORDS * q + 1] = keep if r1 >= limit else drop
            mask[b, WORDS * q + 2] = keep if r2 >= limit else drop
            mask[b, WORDS * q + 3] = keep if r3 >= limit else drop


@kernel
def multiply_by(a, x, mask):
    """a <- x mask, element by element; a may be x."""
    for b in range(a.shape[0]):
        for j in range(0, a.shape[1], lanes(a)):
            store(a, b, j, load(x, b, j) * load(mask, b, j))
