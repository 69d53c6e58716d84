"""The features that are not zero in all rows of a batch: which they are, and their copies.

Many inputs are zero throughout a small batch, as the borders of images are. What is zero adds
nothing to a sum, so products take the others alone, by a list (`tile.py`).
"""

import numpy as np

from ._jit import inlined, kernel
from .machine import HAS_AVX512
from .simd import compress, either, fill, lanes, load, nonzero_lanes, store

BLOCK = 4  # vectors of features that are looked at together


@kernel
def gather_features(inputs, x, rows, features):
    """inputs[b, k] <- x[rows[b], f] for the k-th feature f that is not zero in all B rows.

    features int64 [1 + I] <- how many these are, at least one, so that no product is without depth,
    and which. Block by block, so that x is still in L1 when it is copied.
    """
    v, size, count = lanes(x), x.shape[1], inputs.shape[0]
    whole = size // (BLOCK * v) * BLOCK * v
    features[0] = 0
    for first in range(0, whole, BLOCK * v):
        a, b, c, d = used_lanes(x, rows, count, first)
        at = features[0]
        at_b = append(features, a, first, v)
        at_c = append(features, b, first + v, v)
        at_d = append(features, c, first + 2 * v, v)
        append(features, d, first + 3 * v, v)
        if HAS_AVX512:  # what a vector has too much, the next one overwrites
            for n in range(count):
                row = rows[n]
                store(inputs, n, at, compress(load(x, row, first), a))
                store(inputs, n, at_b, compress(load(x, row, first + v), b))
                store(inputs, n, at_c, compress(load(x, row, first + 2 * v), c))
                store(inputs, n, at_d, compress(load(x, row, first + 3 * v), d))
        else:
            copy_listed(inputs, x, rows, features, at)
    at = features[0]
    for i in range(whole, size):
        is_used = np.int64(0)
        for n in range(count):
            is_used |= x[rows[n], i] != 0
        append(features, is_used, i, 1)
    if features[0] == 0:
        append(features, 1, 0, 1)
    copy_listed(inputs, x, rows, features, at)


@inlined
def used_lanes(x, rows, count, first):
    """For each vector of the block that begins with a feature, its lanes not zero in all rows."""
    v = lanes(x)
    a = fill(load(x, rows[0], first), 0.0)
    b, c, d = a, a, a
    for n in range(count):
        row = rows[n]
        a, b = either(a, load(x, row, first)), either(b, load(x, row, first + v))
        c, d = either(c, load(x, row, first + 2 * v)), either(d, load(x, row, first + 3 * v))
    return nonzero_lanes(a), nonzero_lanes(b), nonzero_lanes(c), nonzero_lanes(d)


@inlined
def append(features, mask, first, count):
    """Append to the list the features first + n for each bit n of `count`; return its length."""
    length = features[0]
    for n in range(count):
        features[1 + length] = first + n
        length += (mask >> n) & 1
    features[0] = length
    return length


@inlined
def copy_listed(inputs, x, rows, features, at):
    """Copy the features of the list from number `at` on."""
    for n in range(inputs.shape[0]):
        for k in range(at, features[0]):
            inputs[n, k] = x[rows[n], features[1 + k]]
