"""A counter-based generator: a random number is a function of (seed, stream, index) alone.

So shuffles do not depend on threads, and any place in a run can be resumed. Philox-4x32-10 of
J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011).
"""

import numpy as np

from ._jit import kernel
from .simd import atomic_load

MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW = np.uint64(0xFFFFFFFF)
WORD = np.uint64(32)
POLL = 65_536  # draws between two looks at the stop flag


@kernel
def philox(c0, c1, c2, c3, k0, k1):
    """Philox-4x32-10: four 32-bit words (in uint64) from a counter of four and a key of two."""
    for _ in range(10):
        p0, p1 = MULTIPLIER_0 * c0, MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (p1 >> WORD) ^ c1 ^ k0, p1 & LOW, (p0 >> WORD) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + WEYL_0) & LOW, (k1 + WEYL_1) & LOW
    return c0, c1, c2, c3


@kernel
def below(limit, seed, stream, index):
    """Integer in [0, limit), limit < 2**32: 64 random bits times limit, divided by 2**64.

    The bias is below limit / 2**64 (D. Lemire, "Fast random integer generation in an interval",
    ACM TOMACS 2019).
    """
    i, s, k = np.uint64(index), np.uint64(stream), np.uint64(seed)
    r0, r1, _, _ = philox(i & LOW, i >> WORD, s & LOW, s >> WORD, k & LOW, k >> WORD)
    n = np.uint64(limit)
    return np.int64((r1 * n + ((r0 * n) >> WORD)) >> WORD)


@kernel
def shuffle(order, chosen, seed, epoch, team, stop):
    """order <- a permutation of `chosen` that depends on seed and epoch alone (Fisher and Yates).

    Left unfinished once team[stop] is set: the run is over then.
    """
    for i in range(order.shape[0]):
        order[i] = chosen[i]
    for i in range(order.shape[0] - 1, 0, -1):
        if i % POLL == 0 and atomic_load(team, stop):
            return
        j = below(i + 1, seed, epoch, i)
        order[i], order[j] = order[j], order[i]
