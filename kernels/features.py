"""The features that are not zero in all rows of a batch: which they are, and their copies.

Many inputs are zero throughout a small batch, as the borders of images are. What is zero adds
nothing to a sum, so products take the others alone, by a list. Of those, most are zero in most of
the rows: a bit for each tells the tiles of the products which steps they can leave out (`tile.py`).
"""

import numpy as np

from ._jit import JIT_DISABLED, inlined, kernel
from .machine import HAS_AVX512
from .simd import address_of, compress, count_bits, either, fill, lanes, load, nonzero_lanes, store

BLOCK = 4  # vectors of features that are looked at together
LOW_BITS = 2**63 - 1
FINDS_ZEROS = HAS_AVX512 and not JIT_DISABLED  # NumPy's products do not skip them


@kernel
def gather_features(inputs, x, rows, features, nonzero, stride):
    """inputs[b, k] <- x[rows[b], f] for the k-th feature f that is not zero in all B rows.

    features int64 [2 + I] <- how many these are, at least one, so that no product is without depth;
    whether `nonzero` is to be used; and which they are. nonzero int64 <- a bit for each element of
    `inputs` that is not zero, see `tile.NonZero`, which says what `stride` is. Block by block, so
    that x is still in L1 when it is copied.
    """
    v, size, count = lanes(x), x.shape[1], inputs.shape[0]
    unaligned = lanes_before_line(x)
    features[0], first = 0, 0
    for n in range(count):
        nonzero[n] = 0
    while first + v <= size:
        at, left = features[0], size - first
        if first >= unaligned and left >= BLOCK * v:
            a, b, c, d = used_lanes_of_block(x, rows, count, first)
            at_b = at + count_bits(a)
            at_c = at_b + count_bits(b)
            at_d = at_c + count_bits(c)
            features[0] = at_d + count_bits(d)
            used = a | b << v | c << 2 * v | d << 3 * v
            list_bits(features, at, used, first)
            if FINDS_ZEROS and used != 0:  # what a vector has too much, the next one overwrites
                words, others = words_at(nonzero, stride, at)
                for n in range(count):
                    row = rows[n]
                    bits = compress_to(inputs, n, at, load(x, row, first), a)
                    of_b = compress_to(inputs, n, at_b, load(x, row, first + v), b)
                    of_c = compress_to(inputs, n, at_c, load(x, row, first + 2 * v), c)
                    of_d = compress_to(inputs, n, at_d, load(x, row, first + 3 * v), d)
                    bits |= of_b << (at_b - at) | of_c << (at_c - at) | of_d << (at_d - at)
                    add_bits(words, others, n, at, bits)
            taken = BLOCK * v
        else:
            taken = unaligned if first < unaligned else v
            mask = used_lanes(x, rows, count, first) & ((1 << taken) - 1)
            features[0] = at + count_bits(mask)
            list_bits(features, at, mask, first)
            if FINDS_ZEROS:
                words, others = words_at(nonzero, stride, at)
                for n in range(count):
                    bits = compress_to(inputs, n, at, load(x, rows[n], first), mask)
                    add_bits(words, others, n, at, bits)
        if not FINDS_ZEROS:
            copy_listed(inputs, x, rows, features, at)
        first += taken
    at = features[0]
    for i in range(first, size):
        is_used = False
        for n in range(count):
            is_used |= x[rows[n], i] != 0
        if is_used:
            features[2 + features[0]] = i
            features[0] += 1
    if features[0] == 0:
        features[0], features[2] = 1, 0
    copy_listed(inputs, x, rows, features, at)
    features[1] = 0
    if FINDS_ZEROS:
        total = 0
        for k in range(at, features[0]):
            words, others = words_at(nonzero, stride, k)
            for n in range(count):
                add_bits(words, others, n, k, np.int64(inputs[n, k] != 0))
        for word in range((features[0] + 63) // 64):
            for n in range(count):
                total += count_bits(nonzero[word * stride + n])
        features[1] = 2 * total < features[0] * count


@inlined
def lanes_before_line(x):
    """How many elements of each row lie before the first that begins a vector in memory."""
    vector_bytes = lanes(x) * x.itemsize
    if x.strides[0] % vector_bytes != 0:
        return 0
    return (-address_of(x, 0, 0) & (vector_bytes - 1)) // x.itemsize


@inlined
def compress_to(inputs, n, at, vector, mask):
    """Store the lanes of a mask in row n from column `at` on; return which are not zero."""
    together = compress(vector, mask)
    store(inputs, n, at, together)
    return nonzero_lanes(together)


@inlined
def words_at(nonzero, stride, at):
    """Of each row, the word of bit number `at`, and the next one."""
    begin = (at >> 6) * stride
    return nonzero[begin : begin + stride], nonzero[begin + stride : begin + 2 * stride]


@inlined
def add_bits(words, others, n, at, bits):
    """Put up to 64 bits behind the first `at` of row n; the next word begins with the rest."""
    place = at & 63
    words[n] |= bits << place
    others[n] = ((bits >> 1) & LOW_BITS) >> (63 - place)


@inlined
def used_lanes(x, rows, count, first):
    """The lanes of the vector that begins with a feature which are not zero in all rows."""
    a = fill(load(x, rows[0], first), 0.0)
    for n in range(count):
        a = either(a, load(x, rows[n], first))
    return nonzero_lanes(a)


@inlined
def used_lanes_of_block(x, rows, count, first):
    """The same for each vector of a block."""
    v = lanes(x)
    a = fill(load(x, rows[0], first), 0.0)
    b, c, d = a, a, a
    for n in range(count):
        row = rows[n]
        a, b = either(a, load(x, row, first)), either(b, load(x, row, first + v))
        c, d = either(c, load(x, row, first + 2 * v)), either(d, load(x, row, first + 3 * v))
    return nonzero_lanes(a), nonzero_lanes(b), nonzero_lanes(c), nonzero_lanes(d)


@inlined
def list_bits(features, at, bits, first):
    """Put the features first + n for each bit n into the list, behind the first `at` of it."""
    while bits != 0:
        features[2 + at] = first + count_bits(~bits & (bits - 1))  # the lowest bit's
        bits &= bits - 1
        at += 1


@inlined
def copy_listed(inputs, x, rows, features, at):
    """Copy the features of the list from number `at` on."""
    for n in range(inputs.shape[0]):
        for k in range(at, features[0]):
            inputs[n, k] = x[rows[n], features[2 + k]]
