"""The three matrix products of an MLP, from one register tile.

Forward Z = A W + b is `multiply`; backward dA = dZ W^T is `multiply_by_transpose`, or for few rows
of dZ made by `add_row_products`; the weight gradient dW = A^T dZ is `multiply_transposed`, or
`descend` where gradient descent takes it at once.

`a` is a row-major matrix. `c`, `b` and `start` are row-major matrices, or panels of columns
(`simd.panels`), whose widths are a multiple of the vector's lanes; `start` may have one row, which
serves for all, or be `c`. Rows and depth are free, the depth at least 1; no other operand may
overlap `c`. Each element of `c` is one chain of FMAs over ascending k, whatever the tile, so any
split of columns or rows between threads, or of the depth between calls, gives the same bits.

With a list `chosen`, `a` has only some features: row k of the depth is row chosen[k] of b, or of a
product with a^T, row i is row chosen[i] of c. So features that are zero in all rows can be left out
of `a`: they add nothing to a sum, and their rows of a gradient are zero. With a `NonZero`, wide
panels leave out more: in each tile, those k for which it is zero. Products with a^T ask memory for
what an `Ahead` says.
"""

from . import machine
from ._jit import glue, inlined, kernel
from .simd import address_of, fill, fma, lane_sum, lanes, load, panels, store, transpose_block
from .tile import Ahead, NonZero, descend_panel, product_panel

PANEL_VECTORS = 4  # vectors that a panel is wide, at most
# but as wide for so few rows: one row of three vectors would wait for each sum to be ready
WIDE_VECTORS, WIDE_ROWS = 8, 3
DEPTH_BLOCK, ROW_BLOCK = machine.DEPTH_BLOCK, machine.ROW_BLOCK
NEAR_VECTORS, TRANSPOSED_VECTORS = machine.NEAR_VECTORS, machine.TRANSPOSED_VECTORS
COLUMNS_AHEAD = 24  # a tile and a cache line or two


@glue
def vectors_of(c):
    """How many vectors wide a matrix or a set of panels is."""
    return c.shape[1] // lanes(c) if c.ndim == 2 else c.shape[0]


@kernel
def next_width(left):
    """How many vectors the next panel has: three, or four where that leaves no narrow one."""
    return 4 if left % 4 == 0 else min(left, 3)


@glue
def nothing_known(every):
    """A `NonZero` that says nothing of an operand."""
    return NonZero(every[:0], 0, 0)


@glue
def knows_zeros(nonzero):
    """Whether it is known which elements of an operand are zero."""
    if nonzero is None:
        return False
    return nonzero.words.shape[0] > 0


def _product(turned):
    @kernel
    def panel_without_zeros(c, j, a, b, start, chosen, ahead, nonzero, top, end, width):
        if nonzero is None:
            return
        if width == 4:
            product_panel(c, j, a, b, start, chosen, ahead, nonzero, top, end, 4, turned)
        else:
            product_panel(c, j, a, b, start, chosen, ahead, nonzero, top, end, 3, turned)

    @kernel
    def product(c, a, b, start, chosen=None, ahead=None, nonzero=None):
        v, vectors = lanes(c), vectors_of(c)
        rows, depth = (a.shape[1], a.shape[0]) if turned else a.shape
        # where b stays in L1 as a whole, blocks of rows would gain nothing
        block = max(rows, 1) if turned or vectors * depth <= DEPTH_BLOCK else ROW_BLOCK
        for top in range(0, rows, block):
            j, left, end = 0, vectors, min(top + block, rows)
            while left > 0:
                width = next_width(left)
                if not turned and left >= WIDE_VECTORS and rows <= WIDE_ROWS:
                    width = WIDE_VECTORS
                    product_panel(
                        c, j, a, b, start, chosen, ahead, None, top, end, WIDE_VECTORS, turned
                    )
                elif width >= 3 and knows_zeros(nonzero):
                    panel_without_zeros(c, j, a, b, start, chosen, ahead, nonzero, top, end, width)
                elif width == 4:
                    product_panel(c, j, a, b, start, chosen, ahead, None, top, end, 4, turned)
                elif width == 3:
                    product_panel(c, j, a, b, start, chosen, ahead, None, top, end, 3, turned)
                elif width == 2:
                    product_panel(c, j, a, b, start, chosen, ahead, None, top, end, 2, turned)
                else:
                    product_panel(c, j, a, b, start, chosen, ahead, None, top, end, 1, turned)
                j, left = j + width * v, left - width

    return product


multiply = _product(turned=False)  # c [M, N] = start [M, N] + a [M, K] b [K, N]
multiply_transposed = _product(turned=True)  # the same with a^T, for a [K, M]


@glue
def columns_ahead(a, every):
    """Ask for the columns of `a` that the next tiles of a product with a^T read.

    The hardware does not: there are as many streams as rows. every: 0, 1, 2 ... as far as both go.
    """
    return Ahead(address_of(a, 0, COLUMNS_AHEAD), a.strides[0], a.itemsize << 8, every)


@kernel
def descend(c, a, b, rate, chosen, ahead=None, nonzero=None):
    """c[chosen] -= rate a^T b for a [K, M] and b [K, N], at most four vectors wide.

    K times the vectors of b should fit L1: the depth is not cut.
    """
    width = vectors_of(c)
    if width >= 3 and knows_zeros(nonzero):
        descend_without_zeros(c, a, b, rate, chosen, ahead, nonzero, width)
    elif width == 4:
        descend_panel(c, 0, a, b, rate, chosen, ahead, None, 4)
    elif width == 3:
        descend_panel(c, 0, a, b, rate, chosen, ahead, None, 3)
    elif width == 2:
        descend_panel(c, 0, a, b, rate, chosen, ahead, None, 2)
    else:
        descend_panel(c, 0, a, b, rate, chosen, ahead, None, 1)


@kernel
def descend_without_zeros(c, a, b, rate, chosen, ahead, nonzero, width):
    """The same for three or four vectors; each tile leaves out the rows in which it is zero."""
    if nonzero is None:
        return
    if width == 4:
        descend_panel(c, 0, a, b, rate, chosen, ahead, nonzero, 4)
    else:
        descend_panel(c, 0, a, b, rate, chosen, ahead, nonzero, 3)


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
            for n in range(v):  # what is there, and zeros below it
                line = load(src[p], min(q * v + n, rows - 1), 0)
                store(dst[q], p * v + n, 0, line if q * v + n < rows else fill(line, 0.0))
            transpose_block(dst[q], p * v, 0, dst[q], p * v, 0)


@kernel
def multiply_by_transpose(c, a, b, start, every, memory, place):
    """c [M, N] = start + a [M, K] b^T for b [N', K'] in panels, N' <= N and K <= K' = P v.

    b is transposed in blocks, each as wide as a panel of the product and so deep that it stays in
    L1. Where a and c are too large to stay in L2 from block to block, these are larger, several
    panels wide: at most `TRANSPOSED_VECTORS`, so much scratch is in `memory` from `place` on.
    every: 0, 1, 2 ... up to K.
    """
    v, j, depth = lanes(c), 0, a.shape[1]
    are_far = a.shape[0] * (depth + c.shape[1]) > NEAR_VECTORS * v
    deepest = min((depth + v - 1) // v * v, DEPTH_BLOCK)
    while j < c.shape[1]:
        left = (c.shape[1] - j) // v
        width = next_width(left)
        most = DEPTH_BLOCK if are_far else DEPTH_BLOCK // width
        while are_far and width < left and (width + PANEL_VECTORS) * deepest <= TRANSPOSED_VECTORS:
            width += next_width(left - width)
        end = j + width * v
        columns, before = c[:, j:end], start[:, j:end]
        for k in range(0, depth, most):
            stop = min(k + most, depth)
            count = (stop - k + v - 1) // v
            block = panels(memory, place, width, count * v, count * v * v, v)
            transpose(block, b[k // v : k // v + count, j:end])
            nothing = nothing_known(every)
            multiply(columns, a[:, k:stop], block, before, every[: stop - k], None, nothing)
            before = columns
        j = end


@kernel
def pack(dst, src, j):
    """dst <- src[:, j:], panels of as many vectors of columns as dst has, each contiguous."""
    v = lanes(dst)
    for x in range(dst.shape[0]):
        for i in range(src.shape[0]):
            store(dst[x], i, 0, load(src, i, j + x * v))


@inlined
def no_row_products(a):
    """Eight vectors of zeros for `add_row_products`, of the kind that `a` is made of."""
    zero = fill(load(a, 0, 0), 0.0)
    return zero, zero, zero, zero, zero, zero, zero, zero


@inlined
def add_row_products(sums, a, m, b, n):
    """Add to eight sums the products of rows m, m + 1 of a with rows n to n + 3 of b, in panels.

    Products of a b^T for few rows of a, without a transposition: each is a sum in every lane over
    ascending vectors of columns. In place of rows behind the last, the last is taken.
    """
    s0, s1, s2, s3, t0, t1, t2, t3 = sums
    v, last = lanes(a), b.shape[1] - 1
    next_m = min(m + 1, a.shape[0] - 1)
    n0, n1, n2, n3 = min(n, last), min(n + 1, last), min(n + 2, last), min(n + 3, last)
    for q in range(b.shape[0]):
        x, y = load(a, m, q * v), load(a, next_m, q * v)
        w = load(b[q], n0, 0)
        s0, t0 = fma(x, w, s0), fma(y, w, t0)
        w = load(b[q], n1, 0)
        s1, t1 = fma(x, w, s1), fma(y, w, t1)
        w = load(b[q], n2, 0)
        s2, t2 = fma(x, w, s2), fma(y, w, t2)
        w = load(b[q], n3, 0)
        s3, t3 = fma(x, w, s3), fma(y, w, t3)
    return s0, s1, s2, s3, t0, t1, t2, t3


@inlined
def store_row_products(c, m, n, sums, count):
    """c[m:m + 2, n:n + 4] <- the eight sums over their lanes; zero from column n + count on."""
    s0, s1, s2, s3, t0, t1, t2, t3 = sums
    c[m, n] = lane_sum(s0) if count > 0 else 0.0
    c[m, n + 1] = lane_sum(s1) if count > 1 else 0.0
    c[m, n + 2] = lane_sum(s2) if count > 2 else 0.0
    c[m, n + 3] = lane_sum(s3) if count > 3 else 0.0
    if m + 1 < c.shape[0]:
        c[m + 1, n] = lane_sum(t0) if count > 0 else 0.0
        c[m + 1, n + 1] = lane_sum(t1) if count > 1 else 0.0
        c[m + 1, n + 2] = lane_sum(t2) if count > 2 else 0.0
        c[m + 1, n + 3] = lane_sum(t3) if count > 3 else 0.0
