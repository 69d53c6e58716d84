"""The three matrix products of an MLP, from one register tile.

Forward Z = A W + b and backward dA = dZ W^T are `multiply` (the latter with W^T made by
`transpose`); the weight gradient dW = A^T dZ is `multiply_transposed`.

Matrices are row-major views with contiguous rows. Widths of `c` and `b` are a multiple of the
vector's lanes; rows and depth are free, the depth at least 1. No operand may overlap `c`.
Each element of `c` is one chain of FMAs over ascending k, whatever the tile, so any split of the
columns or rows between threads gives the same bits.
"""

from . import machine
from ._jit import kernel
from .simd import lanes, transpose_block
from .tile import product_panel

TILE_VECTORS = machine.TILE_VECTORS
assert TILE_VECTORS == 3, (
    "multiply and multiply_transposed spell out the panels of 3, 2 and 1 vectors"
)


@kernel
def multiply(c, a, b, start):
    """c [M, N] = start [1, N] + a [M, K] b [K, N]."""
    v = lanes(c)
    j, left = 0, c.shape[1] // v
    while left > 0:
        if left == 3 or left > 4:
            product_panel(c, j, a, b, start, 3, False)
            j, left = j + 3 * v, left - 3
        elif left > 1:
            product_panel(c, j, a, b, start, 2, False)
            j, left = j + 2 * v, left - 2
        else:
            product_panel(c, j, a, b, start, 1, False)
            j, left = j + v, left - 1


@kernel
def multiply_transposed(c, a, b, start):
    """c [M, N] = start [1, N] + a^T b for a [K, M], b [K, N]."""
    v = lanes(c)
    j, left = 0, c.shape[1] // v
    while left > 0:
        if left == 3 or left > 4:
            product_panel(c, j, a, b, start, 3, True)
            j, left = j + 3 * v, left - 3
        elif left > 1:
            product_panel(c, j, a, b, start, 2, True)
            j, left = j + 2 * v, left - 2
        else:
            product_panel(c, j, a, b, start, 1, True)
            j, left = j + v, left - 1


@kernel
def transpose(dst, src):
    """dst [N, M'] = src [M, N]^T, columns M to M' (up to a multiple of the lanes) zero.

    N and the width of `dst` are multiples of the lanes.
    """
    v = lanes(dst)
    rows, columns = src.shape
    whole = rows // v * v
    for j in range(0, columns, v):
        for i in range(0, whole, v):
            transpose_block(dst, j, i, src, i, j)
    for j in range(columns):
        for i in range(whole, dst.shape[1]):
            dst[j, i] = src[i, j] if i < rows else 0.0
