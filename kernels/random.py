"""A counter-based generator: a random number is a function of (seed, stream, index) alone.

So shuffles do not depend on threads, and any place in a run can be resumed. Philox-4x32-10 of
J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature

from ._jit import kernel
from .simd import Vector, atomic_load, broadcast_scalar, compiles_to, element_pointer, store_to

M0, M1, W0, W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(M0), np.uint64(M1)
WEYL_0, WEYL_1 = np.uint64(W0), np.uint64(W1)
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


def _choose_by_draws(
    typing: Any, dst: Any, b: Any, j: Any, counter: Any, key: Any, limit: Any, yes: Any
) -> Any:
    vector = Vector(dst.dtype)
    words = ir.VectorType(ir.IntType(32), vector.lanes)
    products = ir.VectorType(ir.IntType(64), vector.lanes)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        def spread(value: Any) -> Any:
            return broadcast_scalar(builder, words, builder.trunc(value, ir.IntType(32)))

        def high_and_low(factor: int, x: Any) -> tuple[Any, Any]:
            wide = ir.Constant(products, [factor] * vector.lanes)
            product = builder.mul(builder.zext(x, products), wide)
            high = builder.lshr(product, ir.Constant(products, [32] * vector.lanes))
            return builder.trunc(high, words), builder.trunc(product, words)

        places = ir.Constant(words, list(range(vector.lanes)))
        c0, c1, c2, c3 = (spread(builder.extract_value(values[3], i)) for i in range(4))
        c0 = builder.add(c0, places)
        k0, k1 = (spread(builder.extract_value(values[4], i)) for i in range(2))
        for _ in range(10):
            (high_0, low_0), (high_1, low_1) = high_and_low(M0, c0), high_and_low(M1, c2)
            c0, c1 = builder.xor(builder.xor(high_1, c1), k0), low_1
            c2, c3 = builder.xor(builder.xor(high_0, c3), k1), low_0
            k0 = builder.add(k0, ir.Constant(words, [W0] * vector.lanes))
            k1 = builder.add(k1, ir.Constant(words, [W1] * vector.lanes))
        bound = spread(values[5])
        chosen = context.cast(builder, values[6], sig.args[6], vector.dtype)
        chosen = broadcast_scalar(builder, vector.llvm, chosen)
        zero = ir.Constant(vector.llvm, [0.0] * vector.lanes)
        place, stride = element_pointer(context, builder, sig.args[0], *values[:3])
        for word in (c0, c1, c2, c3):
            is_chosen = builder.icmp_unsigned(">=", word, bound)
            store_to(builder, vector, builder.select(is_chosen, chosen, zero), place)
            place = builder.gep(place, [stride])
        return context.get_dummy_value()

    counters, keys = types.UniTuple(types.uint64, 4), types.UniTuple(types.uint64, 2)
    args = (dst, types.int64, types.int64, counters, keys, types.uint64, types.float64)
    return signature(types.void, *args), codegen


@compiles_to(_choose_by_draws)
def choose_by_draws(
    dst: Any, b: int, j: int, counter: Any, key: Any, limit: int, yes: float
) -> None:
    """dst[b + w, j + i] = yes if word w of the draw at counter + (i, 0, 0, 0) is >= limit, else 0.

    For the four words w of a draw and the lanes i of a vector: ten rounds, all lanes at once.
    """
    for i in range(int(dst.shape[1] - j)):
        words = philox(counter[0] + np.uint64(i), *counter[1:], *key)
        dst[b : b + 4, j + i] = [yes if word >= limit else 0 for word in words]


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
