"""The three matrix products of an MLP, from one register tile.

Forward Z = A W + b and backward dA = dZ W^T are `multiply` (the latter with W^T made by
`transpose`); the weight gradient dW = A^T dZ is `multiply_transposed`.

`a` is a row-major matrix. `c`, `b` and `start` are row-major matrices, or panels of columns
(`simd.panels`), whose widths are a multiple of the vector's lanes; `start` may have one row, which
serves for all, or be `c`. Rows and depth are free, the depth at least 1; no other operand may
overlap `c`. Each element of `c` is one chain of FMAs over ascending k, whatever the tile, so any
split of columns or rows between threads, or of the depth between calls, gives the same bits.
"""

from . import machine
from ._jit import glue, kernel
from .simd import lanes, transpose_block
from .tile import product_panel

TILE_VECTORS = machine.TILE_VECTORS
assert TILE_VECTORS == 3, "a product spells out its panels of 3, 2 and 1 vectors"


@glue
def vectors_of(c):
    """How many vectors wide a matrix or a set of panels is."""
    return c.shape[1] // lanes(c) if c.ndim == 2 else c.shape[0]


def _product(transposed):
    @kernel
    def product(c, a, b, start):
        v = lanes(c)
        j, left = 0, vectors_of(c)
        while left > 0:
            if left == 3 or left > 4:
                product_panel(c, j, a, b, start, 3, transposed)
                j, left = j + 3 * v, left - 3
            elif left > 1:
                product_panel(c, j, a, b, start, 2, transposed)
                j, left = j + 2 * v, left - 2
            else:
                product_panel(c, j, a, b, start, 1, transposed)
                j, left = j + v, left - 1

    return product


multiply = _product(transposed=False)  # c [M, N] = start [M, N] + a [M, K] b [K, N]
multiply_transposed = _product(transposed=True)  # the same with a^T, for a [K, M]


@kernel
def transpose(dst, src):
    """dst <- src^T: panels [Q, N, v] of a matrix [N, M'] from panels [P, M, v] of [M, N].

    N = P v; columns M to M' = Q v of `dst` are set to zero.
    """
    v = lanes(dst)
    rows = src.shape[1]
    for q in range(dst.shape[0]):
        for p in range(src.shape[0]):
            if (q + 1) * v <= rows:
                transpose_block(dst[q], p * v, 0, src[p], q * v, 0)
                continue
            for n in range(v):
                for m in range(v):
                    dst[q, p * v + n, m] = src[p, q * v + m, n] if q * v + m < rows else 0.0
