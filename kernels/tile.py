"""The register tile: the one microkernel from which all matrix products are made.

A panel of a few vectors of columns is swept by tiles of rows, as high as the registers allow
(`machine.ACCUMULATORS`). The tile's sums stay in registers while k runs; each step of k loads one
row of b and broadcasts one element of a for each row of the tile. What becomes of the sums, while
they are there, is the caller's: they are stored, or move the parameters.

A list may say that row k of the product's depth is not row k of b, but row chosen[k]; if `a` is
turned, that the product's row i is row chosen[i] of c. It leaves out what is known to be zero in
all of `a`; a `NonZero` lets each tile leave out the steps of k in which its part of `a` is zero.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import signature

from . import machine
from .simd import (
    TO_L1,
    TO_L2,
    TO_WRITE,
    ArrayParts,
    Vector,
    broadcast_scalar,
    compiles_to,
    emit_fma,
    emit_prefetch,
    fma,
    lanes,
    load_from,
    store_to,
    strides_of,
)

INT64 = ir.IntType(64)
EDGES = (8, 4, 2, 1)  # heights of the tiles for the rows that are left
AHEAD = 16  # rows between asking for parameters and changing them
ROWS_OF_BITS = 4  # that are looked at together
STEPS_AHEAD = 8  # of k between asking for a line of a turned `a` and reading it


class Ahead(NamedTuple):
    """What to ask memory for while tiles are made, a line at a time: it comes from afar.

    In step k of the tile whose first row is i, the line `step` i / 256 bytes behind the beginning
    of row rows[k] of a matrix at `address`, its rows `stride` bytes apart.
    """

    address: int
    stride: int
    step: int
    rows: Any


class NonZero(NamedTuple):
    """Which elements of an operand `a` are not zero: bit first + j of row i is set for a[i, j].

    words int64, `stride` of them for each row, the lowest bits first; a word is to spare at the end
    of each row, and `ROWS_OF_BITS` - 1 rows behind the last. Without words, nothing is known.
    """

    words: Any
    stride: int
    first: int


class _Operand:
    """A matrix, or panels of columns, seen from one of its vectors of columns."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any, column: Any) -> None:
        self._builder, self.vector = builder, Vector(kind.dtype)
        view = ArrayParts(context, builder, kind, value)
        strides, lanes = strides_of(builder, kind, view), INT64(self.vector.lanes)
        self.rows, self.columns = cgutils.unpack_tuple(builder, view.shape)[-2:]
        self.stride, self.across = strides[-2], lanes
        if kind.ndim == 3:
            self.across = strides[0]
            column = builder.mul(builder.sdiv(column, lanes), self.across)
        self.base = builder.gep(view.data, [column])

    def row(self, number: Any) -> Any:
        """Pointer to a row."""
        return self._builder.gep(self.base, [self._builder.mul(number, self.stride)])

    def pointers(self, number: Any, width: int) -> list[Any]:
        """Pointers to the first vectors of a row."""
        b, row = self._builder, self.row(number)
        return [b.gep(row, [b.mul(self.across, INT64(x))]) for x in range(width)]

    def load(self, number: Any, width: int) -> list[Any]:
        """The first vectors of a row."""
        return [
            load_from(self._builder, self.vector, place) for place in self.pointers(number, width)
        ]

    def store(self, values: list[Any], number: Any) -> None:
        """Replace the first vectors of a row."""
        for value, place in zip(values, self.pointers(number, len(values)), strict=True):
            store_to(self._builder, self.vector, value, place)


class _List:
    """Numbers of rows of b or c; without an array, 0, 1, 2 ..."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        self._builder, self._view = builder, None
        if isinstance(kind, types.Array):
            self._view = ArrayParts(context, builder, kind, value)

    def __getitem__(self, i: Any) -> Any:
        if self._view is None:
            return i
        return self._builder.load(self._builder.gep(self._view.data, [i]))


def _least(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _literal(kind: Any) -> Any:
    return kind.literal_value if isinstance(kind, types.Literal) else None


# for the first row of a tile, what gives the place to ask for in step k of that tile
_Asking = Callable[[Any], Callable[[Any], Any]]


def _next_block(builder: Any, b: _Operand, chosen: _List, width: int) -> _Asking:
    """Ask for the next block of b, each tile for one of the vectors.

    Behind the end that is in vain, but neither faults nor waits.
    """

    def of_tile(row: Any) -> Callable[[Any], Any]:
        vector = builder.srem(builder.sdiv(row, INT64(_height(width, False))), INT64(width))
        block = b.row(INT64(machine.DEPTH_BLOCK // width))
        first = builder.gep(block, [builder.mul(vector, b.across)])
        return lambda k: builder.gep(first, [builder.mul(chosen[k], b.stride)])

    return of_tile


def _asking(context: Any, builder: Any, kind: Any, value: Any) -> _Asking | None:
    """Ask for what an `Ahead` says; without one, for nothing."""
    if not isinstance(kind, types.NamedTuple):
        return None
    address, stride, step, rows = (builder.extract_value(value, n) for n in range(len(kind)))
    rows = _List(context, builder, kind[3], rows)

    def of_tile(row: Any) -> Callable[[Any], Any]:
        first = builder.add(address, builder.ashr(builder.mul(row, step), INT64(8)))
        return lambda k: builder.inttoptr(
            builder.add(first, builder.mul(rows[k], stride)), ir.IntType(8).as_pointer()
        )

    return of_tile


def _height(width: int, turned: bool) -> int:
    """Rows of a tile."""
    most = machine.TURNED_ROWS if turned else machine.TILE_ROWS
    return min(machine.ACCUMULATORS // width, most)


class _Panel:
    """Emits the loops of one product: over tiles of rows, and in each over k."""

    def __init__(
        self,
        builder: Any,
        width: int,
        turned: bool,
        a: _Operand,
        b: _Operand,
        chosen: _List,
        asking: _Asking | None,
        bits: "_Bits | None" = None,
    ) -> None:
        self._builder, self._width, self._turned = builder, width, turned
        self._a, self._b, self._chosen, self._asking = a, b, chosen, asking
        self._bits = bits
        self.depth, self.rows = (a.rows, a.columns) if turned else (a.columns, a.rows)
        self.height = machine.SKIPPING_ROWS if bits else _height(width, turned)

    def for_tiles(self, first: Any, end: Any, emit: Callable[[Any, int], None]) -> None:
        """Emit the loops over tiles of rows, lower ones at the end; `emit` gets row and height."""
        for height in (self.height, *(edge for edge in EDGES if edge < self.height)):
            step = INT64(height)
            count = self._builder.sdiv(self._builder.sub(end, first), step)
            last = self._builder.add(first, self._builder.mul(count, step))
            with cgutils.for_range_slice(self._builder, first, last, step) as (row, _):
                emit(row, height)
            first = last

    def rows_of_c(self, row: Any, height: int) -> list[Any]:
        """Which rows of c a tile has."""
        rows = [self._builder.add(row, INT64(r)) for r in range(height)]
        return [self._chosen[r] for r in rows] if self._turned else rows

    def sums(self, row: Any, initial: list[list[Any]], first_k: Any, end_k: Any) -> list[list[Any]]:
        """Emit the loop over k of a tile, whose sums stay in registers; return them."""
        builder, a = self._builder, self._a
        numbers = [builder.add(row, INT64(r)) for r in range(len(initial))]
        rows = [builder.gep(a.base, [n]) if self._turned else a.row(n) for n in numbers]
        ask = self._asking(row) if self._asking else None
        if self._bits:
            return self._sums_of_bits(self._bits, row, rows, ask, initial, first_k, end_k)
        before = builder.block
        body = builder.append_basic_block("depth")
        done = builder.append_basic_block("done")
        builder.branch(body)
        builder.position_at_end(body)
        k = builder.phi(INT64)
        sums = self._phis(initial, before)
        if ask:
            emit_prefetch(builder, ask(k), TO_L2)
        if self._turned:  # its rows are farther apart than the hardware's prefetchers follow
            self._ask_for_later(rows, k)
        totals = self._add_products(rows, k, sums)
        next_k = builder.add(k, INT64(1))
        k.add_incoming(first_k, before)
        k.add_incoming(next_k, body)
        self._come_from(body, sums, totals)
        builder.cbranch(builder.icmp_signed("<", next_k, end_k), body, done)
        builder.position_at_end(done)
        return totals

    def _sums_of_bits(
        self, known: "_Bits", row: Any, rows: list[Any], ask: Callable[[Any], Any] | None,
        initial: list[list[Any]], first_k: Any, end_k: Any,
    ) -> list[list[Any]]:  # fmt: skip
        """The same over those k alone that have a bit; they come in words of 64."""
        builder, height = self._builder, len(initial)
        before = builder.block
        word, body, after, done = map(
            builder.append_basic_block, ("word", "depth", "after", "done")
        )
        builder.branch(word)
        builder.position_at_end(word)
        base = builder.phi(INT64)
        outer = self._phis(initial, before)
        end = _least(builder, end_k, builder.add(base, INT64(64)))
        if self._turned:
            bits = known.of_columns(row, height, base, end, ask)
        else:
            bits = known.of_rows(row, height, base, end)
        entry = builder.block
        builder.cbranch(builder.icmp_unsigned("!=", bits, INT64(0)), body, after)
        builder.position_at_end(body)
        left = builder.phi(INT64)
        left.add_incoming(bits, entry)
        inner = self._phis(outer, entry)
        k = builder.add(base, builder.cttz(left, ir.IntType(1)(1)))
        if self._turned:
            self._ask_for_later(rows, k)
        elif ask:
            emit_prefetch(builder, ask(k), TO_L2)
        totals = self._add_products(rows, k, inner)
        rest = builder.and_(left, builder.sub(left, INT64(1)))
        left.add_incoming(rest, body)
        self._come_from(body, inner, totals)
        builder.cbranch(builder.icmp_unsigned("!=", rest, INT64(0)), body, after)
        builder.position_at_end(after)
        results = self._phis(outer, entry)
        self._come_from(body, results, totals)
        next_base = builder.add(base, INT64(64))
        base.add_incoming(first_k, before)
        base.add_incoming(next_base, after)
        self._come_from(after, outer, results)
        builder.cbranch(builder.icmp_signed("<", next_base, end_k), word, done)
        builder.position_at_end(done)
        return results

    def _phis(self, values: list[list[Any]], block: Any) -> list[list[Any]]:
        """Variables that have these values where one comes from a block."""
        phis = [[self._builder.phi(value.type) for value in row] for row in values]
        self._come_from(block, phis, values)
        return phis

    def _come_from(self, block: Any, phis: list[list[Any]], values: list[list[Any]]) -> None:
        """Let variables have these values where one comes from another block."""
        for row, incoming in zip(phis, values, strict=True):
            for phi, value in zip(row, incoming, strict=True):
                phi.add_incoming(value, block)

    def _ask_for_later(self, rows: list[Any], k: Any) -> None:
        later = self._builder.mul(self._builder.add(k, INT64(STEPS_AHEAD)), self._a.stride)
        emit_prefetch(self._builder, self._builder.gep(rows[0], [later]), TO_L1)

    def _add_products(self, rows: list[Any], k: Any, sums: list[list[Any]]) -> list[list[Any]]:
        """The sums of a tile, and a step of k."""
        builder, vector = self._builder, self._b.vector
        step = builder.mul(k, self._a.stride) if self._turned else k
        b_row = self._b.load(k if self._turned else self._chosen[k], self._width)
        totals = []
        for place, before_k in zip(rows, sums, strict=True):
            factor = broadcast_scalar(
                builder, vector.llvm, builder.load(builder.gep(place, [step]))
            )
            pairs = zip(b_row, before_k, strict=True)
            totals.append([emit_fma(builder, vector, factor, b, s) for b, s in pairs])
            if self._bits:
                totals[-1] = _keep_order(builder, totals[-1])
        return totals


def _keep_order(builder: Any, values: list[Any]) -> list[Any]:
    """Nothing, but that these are computed before what memory is read for later.

    LLVM would load all factors first, more than there are registers.
    """
    if not machine.HAS_AVX512:
        return values
    kinds, count = [value.type for value in values], len(values)
    results = kinds[0] if count == 1 else ir.LiteralStructType(kinds)
    names = [*["=v"] * count, *map(str, range(count)), "~{memory}"]
    nothing = ir.InlineAsm(ir.FunctionType(results, kinds), "", ",".join(names), side_effect=True)
    result = builder.call(nothing, values)
    return [result] if count == 1 else [builder.extract_value(result, n) for n in range(count)]


class _Bits:
    """The bits of a `NonZero`, put together for a tile: the k in which it is not all zero."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        words, self._stride, self._first = (builder.extract_value(value, n) for n in range(3))
        self._builder, self._data = builder, ArrayParts(context, builder, kind[0], words).data

    def _row(self, number: Any) -> Any:
        return self._builder.gep(self._data, [self._builder.mul(number, self._stride)])

    def of_rows(self, row: Any, height: int, first_k: Any, end_k: Any) -> Any:
        """A word of bits for first_k to end_k - 1, at most 64, of rows of `a`."""
        b, used = self._builder, INT64(0)
        at = b.add(first_k, self._first)
        for n in range(height):
            place = b.gep(self._row(b.add(row, INT64(n))), [b.ashr(at, INT64(6))])
            low, high = b.load(place), b.load(b.gep(place, [INT64(1)]))
            used = b.or_(used, b.call(_shift_right(b), [high, low, b.and_(at, INT64(63))]))
        return b.and_(used, _ones(b, b.sub(end_k, first_k)))

    def of_columns(
        self, column: Any, height: int, first_k: Any, end_k: Any, ask: Callable[[Any], Any] | None
    ) -> Any:
        """The same of columns of a turned `a`, whose rows are the k; asks for what is each k's."""
        b, count = self._builder, self._builder.sub(end_k, first_k)
        at = b.add(column, self._first)
        mask = b.shl(INT64((1 << height) - 1), b.and_(at, INT64(7)))
        offset = b.ashr(at, INT64(3))
        bits = cgutils.alloca_once(b, INT64)
        b.store(INT64(0), bits)
        with cgutils.for_range_slice(b, INT64(0), count, INT64(ROWS_OF_BITS)) as (n, _):
            row, together = self._row(b.add(first_k, n)), INT64(0)
            for i in range(ROWS_OF_BITS):
                place = b.gep(b.bitcast(row, ir.IntType(8).as_pointer()), [offset])
                word = b.load(b.bitcast(place, INT64.as_pointer()))
                word.align = 1
                bit = b.zext(b.icmp_unsigned("!=", b.and_(word, mask), INT64(0)), INT64)
                together = b.or_(together, b.shl(bit, INT64(i)))
                row = b.gep(row, [self._stride])
                if ask:
                    k = _least(b, b.add(n, INT64(i)), b.sub(count, INT64(1)))
                    emit_prefetch(b, ask(b.add(first_k, k)), TO_L2)
            b.store(b.or_(b.load(bits), b.shl(together, n)), bits)
        return b.and_(b.load(bits), _ones(b, count))


def _bits(context: Any, builder: Any, kind: Any, value: Any) -> _Bits | None:
    return _Bits(context, builder, kind, value) if isinstance(kind, types.NamedTuple) else None


def _ones(builder: Any, count: Any) -> Any:
    """The lowest 1 to 64 bits set."""
    return builder.lshr(INT64(-1), builder.sub(INT64(64), count))


def _shift_right(builder: Any) -> Any:
    kind = ir.FunctionType(INT64, [INT64] * 3)
    return cgutils.get_or_insert_function(builder.module, kind, "llvm.fshr.i64")


def _product_panel(
    typing: Any, c: Any, j: Any, a: Any, b: Any, start: Any, chosen: Any, ahead: Any, nonzero: Any,
    top: Any, bottom: Any, vectors: Any, turned: Any,
) -> Any:  # fmt: skip
    width, is_turned = _literal(vectors), _literal(turned)
    if width is None or is_turned is None or len({m.dtype for m in (c, a, b, start)}) > 1:
        return None

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        def operand(n: int, column: Any) -> _Operand:
            return _Operand(context, builder, sig.args[n], values[n], column)

        column, zero = values[1], INT64(0)
        to, b, start = operand(0, column), operand(3, column), operand(4, column)
        is_row = builder.icmp_signed("==", start.rows, INT64(1))
        start.stride = builder.select(is_row, zero, start.stride)  # one row serves for all
        chosen = _List(context, builder, sig.args[5], values[5])
        asking = _asking(context, builder, sig.args[6], values[6])
        if not is_turned:
            asking = _next_block(builder, b, chosen, width)
        bits = _bits(context, builder, sig.args[7], values[7])
        panel = _Panel(builder, width, is_turned, operand(2, zero), b, chosen, asking, bits)
        block = INT64(machine.DEPTH_BLOCK // width)
        with cgutils.for_range_slice(builder, zero, panel.depth, block) as (first_k, _):
            end_k = _least(builder, builder.add(first_k, block), panel.depth)
            is_first = builder.icmp_signed("==", first_k, zero)
            resting = operand(0, column)
            for name in ("base", "stride", "across"):
                chosen_place = builder.select(is_first, getattr(start, name), getattr(to, name))
                setattr(resting, name, chosen_place)

            def tile(row: Any, height: int) -> None:
                numbers = panel.rows_of_c(row, height)
                initial = [resting.load(number, width) for number in numbers]
                totals = panel.sums(row, initial, first_k, end_k)
                for number, total in zip(numbers, totals, strict=True):
                    to.store(total, number)

            panel.for_tiles(values[8], values[9], tile)
        return context.get_dummy_value()

    args = (
        c, types.int64, a, b, start, chosen, ahead, nonzero, types.int64, types.int64, vectors,
        turned,
    )  # fmt: skip
    return signature(types.void, *args), codegen


@compiles_to(_product_panel)
def product_panel(
    c: Any, j: int, a: Any, b: Any, start: Any, chosen: Any, ahead: Any, nonzero: Any, top: int,
    bottom: int, vectors: int, turned: bool,
) -> None:  # fmt: skip
    """c[I, J] = start[I, J] + a[I] @ b[:, J] for rows I and columns J.

    I are the rows top to bottom - 1, J the `vectors` vectors of columns from j.

    c, b and start are matrices, or panels of columns as `simd.panels` makes them; `start` may be c,
    or have one row, which serves for all. `turned` says that `a` is given as its transpose. With a
    list, row k of the depth is row chosen[k] of b, or if `a` is turned, the product's row i is row
    chosen[i] of c and start. The depth is cut into blocks so that the panel's part of b stays in L1
    while the tiles pass over it; between two blocks the sums rest in c, which rounds nothing. While
    the tiles pass over one block, the next is asked for; with a turned `a`, what `ahead` says. With
    a `NonZero`, which must know, a tile leaves out the k for which its part of `a` is zero.

    Each element is one chain of FMAs over ascending k, so its bits depend neither on the tile nor
    on who computes it (but for the sign of a zero, if zeros are left out). The depth must be at
    least 1. `vectors` and `turned` are literals.
    """
    v = lanes(c)
    rows = slice(top, bottom)
    factors = (a.T if turned else a)[rows]
    rows_of_b = slice(None) if chosen is None or turned else chosen
    rows_of_c = rows if chosen is None or not turned else chosen[rows]
    for x in range(j, j + vectors * v, v):
        first, columns, to = (_vector_columns(m, x) for m in (start, b, c))
        total = first if len(first) == 1 else first[rows_of_c]
        columns = columns[rows_of_b]
        for k in range(factors.shape[1]):
            total = total + factors[:, k : k + 1] * columns[k]
        to[rows_of_c] = total


def _descend_panel(
    typing: Any, c: Any, j: Any, a: Any, b: Any, rate: Any, chosen: Any, ahead: Any, nonzero: Any,
    vectors: Any,
) -> Any:  # fmt: skip
    width = _literal(vectors)
    if width is None or len({m.dtype for m in (c, a, b)}) > 1:
        return None

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        def operand(n: int, column: Any) -> _Operand:
            return _Operand(context, builder, sig.args[n], values[n], column)

        to, vector = operand(0, values[1]), Vector(c.dtype)
        chosen = _List(context, builder, sig.args[5], values[5])
        asking = _asking(context, builder, sig.args[6], values[6])
        a, b = operand(2, INT64(0)), operand(3, values[1])
        bits = _bits(context, builder, sig.args[7], values[7])
        panel = _Panel(builder, width, True, a, b, chosen, asking, bits)
        down = context.cast(builder, builder.fneg(values[4]), types.float64, c.dtype)
        down = broadcast_scalar(builder, vector.llvm, down)
        nothing = ir.Constant(vector.llvm, [0.0] * vector.lanes)
        last_row = builder.sub(panel.rows, INT64(1))

        def tile(row: Any, height: int) -> None:
            numbers = panel.rows_of_c(row, height)
            if height == panel.height:
                for r in range(AHEAD, AHEAD + height):
                    coming = chosen[_least(builder, builder.add(row, INT64(r)), last_row)]
                    for place in to.pointers(coming, width):
                        emit_prefetch(builder, place, TO_WRITE)
            totals = panel.sums(row, [[nothing] * width] * height, INT64(0), panel.depth)
            for number, total in zip(numbers, totals, strict=True):
                before = to.load(number, width)
                pairs = zip(total, before, strict=True)
                to.store([emit_fma(builder, vector, down, g, p) for g, p in pairs], number)

        panel.for_tiles(INT64(0), panel.rows, tile)
        return context.get_dummy_value()

    args = (c, types.int64, a, b, types.float64, chosen, ahead, nonzero, vectors)
    return signature(types.void, *args), codegen


@compiles_to(_descend_panel)
def descend_panel(
    c: Any, j: int, a: Any, b: Any, rate: float, chosen: Any, ahead: Any, nonzero: Any, vectors: int
) -> None:
    """c[chosen[i], J] -= rate (a^T @ b)[i, J]; J, `ahead` and `nonzero` as above; no list: row i.

    The same chains of FMAs from zero, and the same FMA with -rate as in `optimizer.sgd`, but the
    gradient never leaves the registers. The depth, the rows of `a`, is not cut.
    """
    v = lanes(c)
    rows = slice(None) if chosen is None else chosen
    for x in range(j, j + vectors * v, v):
        columns, to = _vector_columns(b, x), _vector_columns(c, x)
        total = np.zeros_like(to[rows])
        for k in range(a.shape[0]):
            total = total + a[k, :, None] * columns[k]
        to[rows] = fma(to.dtype.type(-rate), total, to[rows])


def _vector_columns(m: Any, j: int) -> Any:
    """The columns j to j + lanes of a matrix or of panels."""
    return m[:, j : j + lanes(m)] if m.ndim == 2 else m[j // lanes(m)]
