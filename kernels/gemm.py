"""The three matrix products of an MLP, nearly all from one register tile.

Forward Z = A W + b is `multiply`, which is `multiply_narrow` for one vector of columns; backward
dA = dZ W^T is `multiply_by_transpose`, or for few rows or units made by `add_row_products`; the
weight gradient dW = A^T dZ is `multiply_transposed`, `multiply_transposed_narrow` for few outputs,
or `descend` where gradient descent takes it at once.

`a` is a row-major matrix. `c`, `b` and `start` are row-major matrices, or panels of columns
(`simd.panels`), whose widths are a multiple of the vector's lanes; `start` may have one row, which
serves for all, or be `c`. Rows and depth are free, the depth at least 1; no other operand may
overlap `c`. Each element of `c` is one chain of FMAs over ascending k, whatever the tile, so any
split of columns or rows between threads, or of the depth between calls, gives the same bits.

With a list `chosen`, `a` has only some features: row k of the depth is row chosen[k] of b, or of a
product with a^T, row i is row chosen[i] of c. So features that are zero in all rows can be left out
of `a`: they add nothing to a sum, and their rows of a gradient are zero. With a `NonZero`, wide
panels leave out more: in each half of a tile, those k for which it is zero. Columns of c behind the
first `used`, if it has any, are padding, zero in b and start, and become zero: a panel of two
vectors may leave out the last half. Products with a^T ask memory for what an `Ahead` says.
"""

from . import machine
from ._jit import glue, inlined, kernel
from .simd import (
    add_outer_product,
    address_of,
    ask_for,
    broadcast,
    fill,
    first_lanes,
    fma,
    lane_sums,
    lanes,
    load,
    panel_of,
    panels,
    panels_of,
    piece,
    store,
    transpose_columns,
)
from .tile import Ahead, NonZero, descend_panel, product_panel

PANEL_VECTORS = 4  # vectors that a panel is wide, at most
# but as wide for so few rows: one row of three vectors would wait for each sum to be ready
WIDE_VECTORS, WIDE_ROWS = 8, 3
WIDE_HALVES = 2 * WIDE_VECTORS
DEPTH_BLOCK, ROW_BLOCK = machine.DEPTH_BLOCK, machine.ROW_BLOCK
FEW_ROWS, FEW_UNITS, OUTPUTS_EACH = machine.FEW_ROWS, machine.FEW_UNITS, machine.OUTPUTS_EACH
SUMMED_VECTORS, CACHE_LINE = machine.SUMMED_VECTORS, machine.CACHE_LINE
NEAR_VECTORS, TRANSPOSED_VECTORS = machine.NEAR_VECTORS, machine.TRANSPOSED_VECTORS
COPIED_VECTORS, COPIED_FOR = machine.COPIED_VECTORS, machine.COPIED_FOR
MICRO_BATCH, PACKED_FROM = machine.MICRO_BATCH, machine.PACKED_FROM
HAS_HALVES = machine.HAS_HALVES
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


@glue
def ends_in_half(used, j, v):
    """Whether a panel of two vectors, from column j on, leaves out its last half: it is padding.

    And where that saves time.
    """
    if used is None or not HAS_HALVES:
        return False
    return used - j <= v + v // 2


@kernel
def ask_ahead(ahead, rows):
    """Ask for what an `Ahead` says in step 0 of the tiles of so many rows, each line once."""
    if ahead is not None:
        first = ahead.address + ahead.rows[0] * ahead.stride
        for place in range(first, first + ((rows * ahead.step) >> 8), CACHE_LINE):
            ask_for(place)


@kernel
def multiply_transposed_row(c, a, b, start, chosen, ahead):
    """`multiply_transposed` for a depth of one: there is more to write than to compute.

    So panel after panel is written, each from end to end.
    """
    ask_ahead(ahead, a.shape[1])
    last = start.shape[-2] - 1
    for j in range(0, vectors_of(c) * lanes(c), lanes(c)):
        panel, before, factor = panel_of(c, j), panel_of(start, j), load(panel_of(b, j), 0, 0)
        for i in range(a.shape[1]):
            row = i if chosen is None else chosen[i]
            total = load(before, min(row, last), 0)
            store(panel, row, 0, fma(broadcast(a, 0, i), factor, total))


@inlined
def eight_rows(first, last):
    """Eight rows from one on; in place of those behind the last, that one again."""
    m, n, o, p = first, min(first + 1, last), min(first + 2, last), min(first + 3, last)
    q, r, s = min(first + 4, last), min(first + 5, last), min(first + 6, last)
    return m, n, o, p, q, r, s, min(first + 7, last)


@inlined
def eight_factors(a, rows, k):
    """Element k of each of eight rows, in every lane."""
    m, n, o, p, q, r, s, t = rows
    first = broadcast(a, m, k), broadcast(a, n, k), broadcast(a, o, k), broadcast(a, p, k)
    return first + (broadcast(a, q, k), broadcast(a, r, k), broadcast(a, s, k), broadcast(a, t, k))


@inlined
def load_eight(c, rows):
    """The only vector of each of eight rows."""
    m, n, o, p, q, r, s, t = rows
    first = load(c, m, 0), load(c, n, 0), load(c, o, 0), load(c, p, 0)
    return first + (load(c, q, 0), load(c, r, 0), load(c, s, 0), load(c, t, 0))


@inlined
def store_eight(c, rows, values):
    """Replace them."""
    m, n, o, p, q, r, s, t = rows
    v0, v1, v2, v3, v4, v5, v6, v7 = values
    store(c, m, 0, v0)
    store(c, n, 0, v1)
    store(c, o, 0, v2)
    store(c, p, 0, v3)
    store(c, q, 0, v4)
    store(c, r, 0, v5)
    store(c, s, 0, v6)
    store(c, t, 0, v7)


@kernel
def multiply_narrow(c, a, b, start, chosen=None):
    """`multiply` for one vector of columns: c [M, v] = start + a [M, K] b [K, v].

    The same bits. Rows of b lie side by side, so nothing has to be asked for; in small products the
    asking would take longer than the FMAs.
    """
    last, last_start = a.shape[0] - 1, start.shape[0] - 1
    for m in range(0, a.shape[0], 8):
        if m < last:
            rows = eight_rows(m, last)
            sums = load_eight(start, eight_rows(min(m, last_start), last_start))
            for k in range(a.shape[1]):
                row = k if chosen is None else chosen[k]
                sums = add_outer_product(sums, eight_factors(a, rows, k), (load(b, row, 0),))
            store_eight(c, rows, sums)
        else:
            total = load(start, min(m, last_start), 0)
            for k in range(a.shape[1]):
                row = k if chosen is None else chosen[k]
                total = fma(broadcast(a, m, k), load(b, row, 0), total)
            store(c, m, 0, total)


def _product(turned):
    @kernel
    def panel_without_zeros(c, j, a, b, start, chosen, ahead, nonzero, top, end, width):
        if nonzero is None:
            return
        if width == 4:
            product_panel(c, j, a, b, start, chosen, ahead, nonzero, top, end, 2 * 4, turned)
        else:
            product_panel(c, j, a, b, start, chosen, ahead, nonzero, top, end, 2 * 3, turned)

    @kernel
    def product(c, a, b, start, chosen=None, ahead=None, nonzero=None, used=None):
        v, vectors = lanes(c), vectors_of(c)
        rows, depth = (a.shape[1], a.shape[0]) if turned else a.shape
        if turned and depth == 1:
            multiply_transposed_row(c, a, b, start, chosen, ahead)
            return
        # where b stays in L1 as a whole, blocks of rows would gain nothing
        block = max(rows, 1) if turned or vectors * depth <= DEPTH_BLOCK else ROW_BLOCK
        for top in range(0, rows, block):
            j, left, end = 0, vectors, min(top + block, rows)
            while left > 0:
                width = next_width(left)
                if width >= 3 and knows_zeros(nonzero):
                    panel_without_zeros(c, j, a, b, start, chosen, ahead, nonzero, top, end, width)
                elif not turned and left >= WIDE_VECTORS and rows <= WIDE_ROWS:
                    width = WIDE_VECTORS
                    product_panel(
                        c, j, a, b, start, chosen, ahead, None, top, end, WIDE_HALVES, turned
                    )
                elif width == 4:
                    product_panel(c, j, a, b, start, chosen, ahead, None, top, end, 2 * 4, turned)
                elif width == 3:
                    product_panel(c, j, a, b, start, chosen, ahead, None, top, end, 2 * 3, turned)
                elif width == 2 and ends_in_half(used, j, v):
                    product_panel(
                        c, j, a, b, start, chosen, ahead, None, top, end, 2 * 2 - 1, turned
                    )
                elif width == 2:
                    product_panel(c, j, a, b, start, chosen, ahead, None, top, end, 2 * 2, turned)
                else:
                    product_panel(c, j, a, b, start, chosen, ahead, None, top, end, 2 * 1, turned)
                j, left = j + width * v, left - width

    return product


multiply_wide = _product(turned=False)
multiply_transposed = _product(turned=True)  # c [M, N] = start [M, N] + a^T b, a [K, M], b [K, N]


@glue
def multiply(c, a, b, start, chosen=None, ahead=None, nonzero=None, used=None):
    """c [M, N] = start [M, N] + a [M, K] b [K, N]."""
    if vectors_of(c) == 1:
        multiply_narrow(panel_of(c, 0), a, panel_of(b, 0), panel_of(start, 0), chosen)
    else:
        multiply_wide(c, a, b, start, chosen, ahead, nonzero, used)


@glue
def columns_ahead(a, every):
    """Ask for the columns of `a` that the next tiles of a product with a^T read.

    The hardware does not: there are as many streams as rows. every: 0, 1, 2 ... as far as both go.
    """
    return Ahead(address_of(a, 0, COLUMNS_AHEAD), a.strides[0], a.itemsize << 8, every)


@inlined
def is_packed(rows, columns):
    """Whether b is packed for products with a^T, `a` [rows, columns].

    It is read once for each tile, so for few columns of `a` that would take longer than it saves;
    and few rows of b lie together anyway.
    """
    return rows > FEW_ROWS and columns >= PACKED_FROM


@inlined
def columns_together(rows, columns, width, v):
    """Of how many columns of `a` products with a^T, `width` wide, take a copy at a time.

    All, and so none is taken, unless `a` is larger than L2 (see `layout.allocate` too) and several
    panels pass over it. A block of columns in place would not stay there: far apart, its rows share
    few of the cache's sets.
    """
    is_far = rows * columns >= 2 * NEAR_VECTORS * v and rows <= MICRO_BATCH
    if is_far and width > COPIED_FOR * v:
        return COPIED_VECTORS * v // MICRO_BATCH
    return max(columns, 1)


@kernel
def descend(c, a, b, rate, l2, chosen, ahead=None, nonzero=None):
    """c[chosen] -= rate (l2 c[chosen] + a^T b), a [K, M] and b [K, N] at most four vectors wide.

    K times the vectors of b should fit L1: the depth is not cut.
    """
    width = vectors_of(c)
    if a.shape[0] == 1:
        descend_by_row(c, a, b, rate, l2, chosen, ahead)
    elif width >= 3 and knows_zeros(nonzero):
        descend_without_zeros(c, a, b, rate, l2, chosen, ahead, nonzero, width)
    elif width == 4:
        descend_panel(c, 0, a, b, rate, l2, chosen, ahead, None, 4)
    elif width == 3:
        descend_panel(c, 0, a, b, rate, l2, chosen, ahead, None, 3)
    elif width == 2:
        descend_panel(c, 0, a, b, rate, l2, chosen, ahead, None, 2)
    else:
        descend_panel(c, 0, a, b, rate, l2, chosen, ahead, None, 1)


@kernel
def descend_without_zeros(c, a, b, rate, l2, chosen, ahead, nonzero, width):
    """The same for three or four vectors; each half of a tile leaves out its zero rows."""
    if nonzero is None:
        return
    if width == 4:
        descend_panel(c, 0, a, b, rate, l2, chosen, ahead, nonzero, 4)
    else:
        descend_panel(c, 0, a, b, rate, l2, chosen, ahead, nonzero, 3)


@kernel
def descend_by_row(c, a, b, rate, l2, chosen, ahead):
    """`descend` for a depth of one: panel after panel, as `multiply_transposed_row`."""
    ask_ahead(ahead, a.shape[1])
    for j in range(0, vectors_of(c) * lanes(c), lanes(c)):
        panel, factor = panel_of(c, j), load(panel_of(b, j), 0, 0)
        for i in range(a.shape[1]):
            before = load(panel, chosen[i], 0)
            begin = fill(factor, l2) * before if l2 != 0.0 else fill(factor, 0.0)
            step = fma(broadcast(a, 0, i), factor, begin)
            store(panel, chosen[i], 0, fma(fill(factor, -rate), step, before))


@kernel
def transpose(dst, src, columns):
    """dst <- src^T: panels [Q, N, v] of a matrix [N, M'] from panels [P, M, v] of [M, P v].

    Of the columns of src, at least the first `columns` are taken, whole pieces; columns M to
    M' = Q v of dst are set to zero.
    """
    v = lanes(dst)
    for q in range(dst.shape[0]):
        first, count = q * v, src.shape[1] - q * v
        if count >= v:
            for n in range(0, columns, piece(dst)):
                transpose_columns(dst[q], n, 0, src[n // v], first, n % v, None)
        else:
            for n in range(0, columns, piece(dst)):
                transpose_columns(dst[q], n, 0, src[n // v], first, n % v, count)


@kernel
def multiply_by_transpose(c, a, b, start, every, memory, place):
    """c [M, N] = start + a [M, K] b^T for b [N', K'] in panels, N' <= N and K <= K' = P v.

    b is transposed in blocks, as deep and then as many panels of the product wide as stay in L1.
    Where a and c are too large to stay in L2 from block to block, these are larger: at most
    `TRANSPOSED_VECTORS`, so much scratch is in `memory` from `place` on.
    every: 0, 1, 2 ... up to K.
    """
    v, j, depth = lanes(c), 0, a.shape[1]
    are_far = a.shape[0] * (depth + c.shape[1]) > NEAR_VECTORS * v
    deepest = min((depth + v - 1) // v * v, DEPTH_BLOCK)
    room = TRANSPOSED_VECTORS if are_far else DEPTH_BLOCK
    while j < c.shape[1]:
        left = (c.shape[1] - j) // v
        width = next_width(left)
        most = DEPTH_BLOCK if are_far else DEPTH_BLOCK // width
        while width < left and (width + PANEL_VECTORS) * deepest <= room:
            width += next_width(left - width)
        blocks = (depth + most - 1) // most
        most = ((depth + blocks - 1) // blocks + v - 1) // v * v
        end = j + width * v
        columns, before = c[:, j:end], start[:, j:end]
        for k in range(0, depth, most):
            stop = min(k + most, depth)
            count = (stop - k + v - 1) // v
            block = panels(memory, place, width, count * v, count * v * v, v)
            transpose(block, b[k // v : k // v + count, j:end], stop - k)
            nothing = nothing_known(every)
            multiply(
                columns, a[:, k:stop], block, before, every[: stop - k], None, nothing,
                b.shape[1] - j,
            )  # fmt: skip
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
def takes_narrow_product(rows, inputs, units, columns, v):
    """Whether dW = A^T dZ [inputs, columns], of which `units` are not zero, is made as dZ^T A.

    Lanes are inputs there, and none is empty. It has to be transposed, which costs too much with
    few rows or inputs; and the scratch, for packed deltas, has four vectors for each row.
    """
    is_narrow = columns <= PANEL_VECTORS * v and 3 * units <= 2 * columns
    return is_narrow and 2 * columns <= rows and PANEL_VECTORS * v <= inputs


@kernel
def multiply_transposed_narrow(c, a, b, units, every, memory, place, is_first):
    """c [M, N] = a^T b, or unless `is_first` c + a^T b, for a [K, M] and b [K, N], as b^T a.

    Of b only the first `units` columns are read, the others being zero; N is at most four vectors.
    The same bits as of `multiply_transposed`. (4 N + 1) vectors of scratch are in `memory` from
    `place` on; every: 0, 1, 2 ... up to K, M and N.
    """
    v, (count, rows) = lanes(c), c.shape[:2]
    columns, whole = count * v, rows // v * v
    zeros = panels(memory, place + PANEL_VECTORS * columns * v, PANEL_VECTORS, 1, 0, v)
    zero = fill(load(zeros[0], 0, 0), 0.0)
    store(zeros[0], 0, 0, zero)
    across = panels(memory, place, PANEL_VECTORS, columns, columns * v, v)
    for x in range(PANEL_VECTORS):
        for n in range(units, columns):
            store(across[x], n, 0, zero)
    i, nothing = 0, nothing_known(every)
    while i < whole:
        width = next_width((whole - i) // v)
        part, sums = c[:, i : i + width * v], across[:width]
        own, start = sums[:, :units], zeros[:width]
        if not is_first:
            transpose(sums, part, columns)
            start = own
        inputs, ahead = panels_of(a, i, width), columns_ahead(b, every)  # no padding, all used
        multiply_transposed(
            own, b[:, :units], inputs, start, every[:units], ahead, nothing, width * v
        )
        transpose(part, sums, width * v)
        i += width * v
    if whole < rows:
        rest, factors, outputs = c[:, whole:], a[:, whole:], panels_of(b, 0, count)
        start = zeros[:count] if is_first else rest
        ahead = columns_ahead(factors, every)
        chosen = every[: rows - whole]
        multiply_transposed(rest, factors, outputs, start, chosen, ahead, nothing, units)


@inlined
def four_vectors(m, row, j):
    """Four neighbouring vectors of a row."""
    v = lanes(m)
    return load(m, row, j), load(m, row, j + v), load(m, row, j + 2 * v), load(m, row, j + 3 * v)


@glue
def takes_products_of_rows(rows, units, outputs):
    """Whether dA [rows, units] = dZ W^T is made without W^T; outputs include the padding.

    So it is where W^T would serve few rows, or would be no wider than a vector.
    """
    few_rows = rows <= FEW_ROWS and rows * OUTPUTS_EACH <= outputs
    return few_rows or (units <= FEW_UNITS and units * OUTPUTS_EACH <= outputs)


@inlined
def units_summed(rows, v):
    """Of how many units at a time the sums for so few rows are made: whole vectors of them."""
    return max(SUMMED_VECTORS // rows // v, 1) * v


@inlined
def add_four_products(total, x, y):
    """The total and four products, one after the other."""
    (x0, x1, x2, x3), (y0, y1, y2, y3) = x, y
    return fma(x3, y3, fma(x2, y2, fma(x1, y1, fma(x0, y0, total))))


@kernel
def add_row_products(sums, a, b, is_first):
    """Add to sums [M, N v] the products of rows of a [M, K] and rows of b [N, K], in panels.

    Products a b^T without a transposition: each is a vector of sums, in every lane over ascending
    vectors of columns; `store_row_products` adds up the lanes. They begin with zero if `is_first`;
    there is at least one panel. Panels are read from end to end, four at a time, since each is read
    once for every four rows of a, and lies far from the next.
    """
    v, zero = lanes(a), fill(load(sums, 0, 0), 0.0)
    four_rows, four_panels = a.shape[0] // 4 * 4, b.shape[0] // 4 * 4
    for q in range(0, four_panels, 4):
        b0, b1, b2, b3 = b[q], b[q + 1], b[q + 2], b[q + 3]
        begins = is_first and q == 0
        for m in range(0, four_rows, 4):
            x, y = four_vectors(a, m, q * v), four_vectors(a, m + 1, q * v)
            z, t = four_vectors(a, m + 2, q * v), four_vectors(a, m + 3, q * v)
            for n in range(b.shape[1]):
                w, at = (load(b0, n, 0), load(b1, n, 0), load(b2, n, 0), load(b3, n, 0)), n * v
                p0, p1, p2, p3 = zero, zero, zero, zero
                if not begins:
                    p0, p1 = load(sums, m, at), load(sums, m + 1, at)
                    p2, p3 = load(sums, m + 2, at), load(sums, m + 3, at)
                store(sums, m, at, add_four_products(p0, x, w))
                store(sums, m + 1, at, add_four_products(p1, y, w))
                store(sums, m + 2, at, add_four_products(p2, z, w))
                store(sums, m + 3, at, add_four_products(p3, t, w))
        for m in range(four_rows, a.shape[0]):
            x = four_vectors(a, m, q * v)
            for n in range(b.shape[1]):
                w = load(b0, n, 0), load(b1, n, 0), load(b2, n, 0), load(b3, n, 0)
                total = zero if begins else load(sums, m, n * v)
                store(sums, m, n * v, add_four_products(total, x, w))
    if four_panels < b.shape[0]:
        add_last_products(sums, a, b, four_panels, is_first and four_panels == 0)


@kernel
def add_last_products(sums, a, b, q, begins):
    """The same of the last panels, one to three, from number q on: together, as sums are stored."""
    v, last, zero = lanes(a), b.shape[0] - 1, fill(load(sums, 0, 0), 0.0)
    q1, q2 = min(q + 1, last), min(q + 2, last)
    b0, b1, b2 = b[q], b[q1], b[q2]
    for m in range(a.shape[0]):
        x, y, z = load(a, m, q * v), load(a, m, q1 * v), load(a, m, q2 * v)
        for n in range(b.shape[1]):
            total = fma(x, load(b0, n, 0), zero if begins else load(sums, m, n * v))
            if q < q1:
                total = fma(y, load(b1, n, 0), total)
            if q1 < q2:
                total = fma(z, load(b2, n, 0), total)
            store(sums, m, n * v, total)


@kernel
def store_row_products(c, sums, count):
    """c <- the sums over their lanes, `count` of each row, and zeros behind them."""
    v = lanes(c)
    for m in range(c.shape[0]):
        for n in range(0, c.shape[1], v):
            total = lane_sums(sums, m, n * v)
            store(c, m, n, first_lanes(count - n, total, fill(total, 0.0)))
