"""The register tile: the one microkernel from which nearly all matrix products are made.

A panel of a few vectors of columns is swept by tiles of rows, as high as the registers allow
(`machine.ACCUMULATORS`). The tile's sums stay in registers while k runs; each step of k loads one
row of b and broadcasts one element of a for each row of the tile. What becomes of the sums, while
they are there, is the caller's: they are stored, or move the parameters.

A list may say that row k of the product's depth is not row k of b, but row chosen[k]; if `a` is
turned, that the product's row i is row chosen[i] of c. It leaves out what is known to be zero in
all of `a`; a `NonZero` lets each half of a tile leave out the steps of k in which its part of `a`
is zero. Of a panel's last vector the upper half may be left out: it is padding.
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
    first_elements,
    fma,
    lanes,
    load_from,
    panel_of,
    side_by_side,
    store_to,
    strides_of,
)

INT64 = ir.IntType(64)
WORDS_TOGETHER = 8  # of bits that are looked at
WORDS = ir.VectorType(INT64, WORDS_TOGETHER)
LINE_BYTES = 64  # of a cache
EDGES = (8, 4, 2, 1)  # heights of the tiles for the rows that are left
AHEAD = 16  # rows between asking for parameters and changing them
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
    """Which elements of an operand `a` are not zero.

    words int64: the first 64 columns of each row, then the next 64 of each, `stride` words between
    these, the lowest bits first. Bit first + j of row i is set for a[i, j]. Behind the last column
    with a bit are 64 to spare, and `WORDS_TOGETHER` - 1 words. Without words, nothing is known.
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

    def load(self, number: Any, kinds: list[Vector]) -> list[Any]:
        """The first vectors of a row."""
        places = self.pointers(number, len(kinds))
        return [load_from(self._builder, k, p) for k, p in zip(kinds, places, strict=True)]

    def store(self, values: list[Any], number: Any) -> None:
        """Replace the first vectors of a row; behind half a vector come zeros."""
        for value, place in zip(values, self.pointers(number, len(values)), strict=True):
            if value.type != self.vector.llvm:
                nothing = ir.Constant(value.type, [0.0] * value.type.count)
                value = side_by_side(self._builder, [value, nothing])
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


def _even_blocks(builder: Any, length: Any, most: int) -> Any:
    """The size of as few blocks as there can be of at most so many, when all are alike."""
    blocks = builder.sdiv(builder.add(length, INT64(most - 1)), INT64(most))
    return builder.sdiv(builder.sub(builder.add(length, blocks), INT64(1)), blocks)


def _literal(kind: Any) -> Any:
    return kind.literal_value if isinstance(kind, types.Literal) else None


class _NextBlock:
    """Asks for the next block of b, `distance` rows on, each tile for one of the vectors.

    Nothing behind the end, where another thread's may lie: of the last block for itself, in vain.
    """

    def __init__(self, builder: Any, b: _Operand, chosen: _List, width: int, distance: Any) -> None:
        self._builder, self._b, self._chosen, self._width = builder, b, chosen, width
        self._next = b.row(distance)

    def of_tile(self, row: Any, height: int) -> Callable[[Any], Any]:
        """Of the tile that begins with a row: what gives the place to ask for in step k."""
        builder, b, width = self._builder, self._b, self._width
        vector = builder.srem(builder.sdiv(row, INT64(height)), INT64(width))
        first = builder.gep(self._next, [builder.mul(vector, b.across)])
        return lambda k: builder.gep(first, [builder.mul(self._chosen[k], b.stride)])


class _Lines:
    """Asks for what an `Ahead` says."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        address, stride, step, rows = (builder.extract_value(value, n) for n in range(len(kind)))
        self._builder, self._address, self._stride, self._step = builder, address, stride, step
        self._rows = _List(context, builder, kind[3], rows)

    def of_tile(self, row: Any, height: int) -> Callable[[Any], Any]:
        """The same; the height does not matter."""
        builder = self._builder
        first = builder.add(self._address, builder.ashr(builder.mul(row, self._step), INT64(8)))
        return lambda k: builder.inttoptr(
            builder.add(first, builder.mul(self._rows[k], self._stride)), ir.IntType(8).as_pointer()
        )

    def for_steps(self, row: Any, height: int, first_k: Any, end_k: Any) -> None:
        """Emit the asking of a tile for all steps; where tiles share lines, for a part of them."""
        builder, ask = self._builder, self.of_tile(row, height)
        bytes_of_tile = builder.mul(self._step, INT64(height))
        parts = INT64(1)
        for count in (2, 4):
            fits = builder.icmp_signed("<=", bytes_of_tile, INT64((LINE_BYTES << 8) // count))
            parts = builder.select(fits, INT64(count), parts)
        tile = builder.sdiv(row, INT64(height))
        own = builder.and_(tile, builder.sub(parts, INT64(1)))
        first = builder.add(first_k, own)
        with cgutils.for_range_slice(builder, first, end_k, parts, inc=True) as (k, _):
            emit_prefetch(builder, ask(k), TO_L2)


def _kinds(vector: Vector, halves: int) -> list[Vector]:
    """The vectors in a row of a panel, so many halves wide."""
    return [vector] * (halves // 2) + [vector.half] * (halves % 2)


def _height(width: int, turned: bool, skips: bool) -> int:
    """Rows of a tile."""
    if skips:
        return machine.SKIPPING_ROWS
    most = machine.TURNED_ROWS if turned else machine.TILE_ROWS
    return min(machine.ACCUMULATORS // width, most)


def _parts(height: int) -> list[slice]:
    """The rows of a tile that leave out steps together: a half of them each, or the only one."""
    half = max(height // 2, 1)
    return [slice(first, first + half) for first in range(0, height, half)]


class _Panel:
    """Emits the loops of one product: over tiles of rows, and in each over k."""

    def __init__(
        self,
        builder: Any,
        kinds: list[Vector],
        turned: bool,
        a: _Operand,
        b: _Operand,
        chosen: _List,
        asking: _NextBlock | _Lines | None,
        bits: "_Bits | None" = None,
    ) -> None:
        self._builder, self._kinds, self._turned = builder, kinds, turned
        self._a, self._b, self._chosen, self._asking = a, b, chosen, asking
        self._bits = bits
        self.depth, self.rows = (a.rows, a.columns) if turned else (a.columns, a.rows)
        self.height = _height(len(kinds), turned, bits is not None)

    def for_tiles(
        self, first: Any, end: Any, first_k: Any, end_k: Any, emit: Callable[[Any, int], None]
    ) -> None:
        """Emit the loops over tiles of rows, lower ones at the end; `emit` gets row and height.

        Their sums are over steps first_k to end_k - 1.
        """
        builder, last_row = self._builder, self._builder.sub(end, INT64(1))
        for height in (self.height, *(edge for edge in EDGES if edge < self.height)):
            step = INT64(height)
            count = builder.sdiv(builder.sub(end, first), step)
            last = builder.add(first, builder.mul(count, step))
            if self._bits:
                with builder.if_then(builder.icmp_signed("<", first, last)):
                    self._bits.come(first, height, first_k, end_k)
            with cgutils.for_range_slice(builder, first, last, step) as (row, _):
                self._next_row = _least(builder, builder.add(row, step), last_row)
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
        if self._bits:
            return self._sums_of_bits(self._bits, row, rows, initial, first_k, end_k)
        ask = self._asking.of_tile(row, self.height) if self._asking else None
        before = builder.block
        body = builder.append_basic_block("depth")
        done = builder.append_basic_block("done")
        builder.branch(body)
        builder.position_at_end(body)
        k = builder.phi(INT64)
        sums = self.phis(initial, before)
        if ask:
            emit_prefetch(builder, ask(k), TO_L2)
        if self._turned:  # its rows are farther apart than the hardware's prefetchers follow
            self._ask_for_later(rows, k)
        totals = self._add_products(rows, k, sums)
        next_k = builder.add(k, INT64(1))
        k.add_incoming(first_k, before)
        k.add_incoming(next_k, body)
        self.come_from(body, sums, totals)
        builder.cbranch(builder.icmp_signed("<", next_k, end_k), body, done)
        builder.position_at_end(done)
        return totals

    def _sums_of_bits(
        self, known: "_Bits", row: Any, rows: list[Any], initial: list[list[Any]], first_k: Any,
        end_k: Any,
    ) -> list[list[Any]]:  # fmt: skip
        """The same over those k alone that have a bit; they come in words of 64.

        The next word, of this tile or the next, is put together before the products of this one,
        so that nothing waits for it. While both parts of a tile have steps left they go together,
        each with its own k: so there are sums enough that none waits for the one before it.
        """
        builder, height, ask = self._builder, len(initial), None
        if isinstance(self._asking, _Lines):
            self._asking.for_steps(row, height, first_k, end_k)
        elif self._asking:
            ask = self._asking.of_tile(row, self.height)
        before = builder.block
        word, done = map(builder.append_basic_block, ("word", "done"))
        builder.branch(word)
        builder.position_at_end(word)
        base = builder.phi(INT64)
        outer = self.phis(initial, before)
        next_base = builder.add(base, INT64(64))
        is_last = builder.icmp_signed(">=", next_base, end_k)
        parts = _parts(height)
        left = [builder.load(coming) for coming in known.coming[: len(parts)]]
        next_row = builder.select(is_last, self._next_row, row)
        known.come(next_row, height, builder.select(is_last, first_k, next_base), end_k)
        results, numbers = outer, list(range(len(parts)))
        for together in [numbers, *([n] for n in numbers if len(parts) > 1)]:
            left, results = self._steps(rows, base, parts, together, left, results, ask)
        base.add_incoming(first_k, before)
        base.add_incoming(next_base, builder.block)
        self.come_from(builder.block, outer, results)
        builder.cbranch(is_last, done, word)
        builder.position_at_end(done)
        return results

    def _steps(
        self, rows: list[Any], base: Any, parts: list[slice], together: list[int],
        bits: list[Any], sums: list[list[Any]], ask: Callable[[Any], Any] | None,
    ) -> tuple[list[Any], list[list[Any]]]:  # fmt: skip
        """Emit steps of some parts while each has a bit left; return what is left, and the sums."""
        builder = self._builder
        entry = builder.block
        body, after = map(builder.append_basic_block, ("depth", "after"))
        builder.cbranch(self._have_all(bits, together), body, after)
        builder.position_at_end(body)
        (left,), inner = self.phis([bits], entry), self.phis(sums, entry)
        rest, totals = list(left), list(inner)
        for n in together:
            own = rows[parts[n]]
            k = builder.add(base, builder.cttz(left[n], ir.IntType(1)(1)))
            if ask:
                emit_prefetch(builder, ask(k), TO_L2)
            if self._turned:
                self._ask_for_later(own, k)
            totals[parts[n]] = self._add_products(own, k, inner[parts[n]])
            rest[n] = builder.and_(left[n], builder.sub(left[n], INT64(1)))
        self.come_from(body, [left, *inner], [rest, *totals])
        builder.cbranch(self._have_all(rest, together), body, after)
        builder.position_at_end(after)
        (left_over,), results = self.phis([bits], entry), self.phis(sums, entry)
        self.come_from(body, [left_over, *results], [rest, *totals])
        return left_over, results

    def _have_all(self, words: list[Any], numbers: list[int]) -> Any:
        """Whether each of the words with these numbers has a bit."""
        have = [self._builder.icmp_unsigned("!=", words[n], INT64(0)) for n in numbers]
        return have[0] if len(have) == 1 else self._builder.and_(*have)

    def phis(self, values: list[list[Any]], block: Any) -> list[list[Any]]:
        """Variables that have these values where one comes from a block."""
        phis = [[self._builder.phi(value.type) for value in row] for row in values]
        self.come_from(block, phis, values)
        return phis

    def come_from(self, block: Any, phis: list[list[Any]], values: list[list[Any]]) -> None:
        """Let variables have these values where one comes from another block."""
        for row, incoming in zip(phis, values, strict=True):
            for phi, value in zip(row, incoming, strict=True):
                phi.add_incoming(value, block)

    def _ask_for_later(self, rows: list[Any], k: Any) -> None:
        builder, last = self._builder, self._builder.sub(self.depth, INT64(1))
        later = _least(builder, builder.add(k, INT64(STEPS_AHEAD)), last)
        emit_prefetch(builder, builder.gep(rows[0], [builder.mul(later, self._a.stride)]), TO_L1)

    def _add_products(self, rows: list[Any], k: Any, sums: list[list[Any]]) -> list[list[Any]]:
        """The sums of a tile, and a step of k."""
        builder, vector = self._builder, self._b.vector
        step = builder.mul(k, self._a.stride) if self._turned else k
        b_row = self._b.load(k if self._turned else self._chosen[k], self._kinds)
        totals = []
        for place, before_k in zip(rows, sums, strict=True):
            scalar = builder.load(builder.gep(place, [step]))
            factor = broadcast_scalar(builder, vector.llvm, scalar)
            if self._kinds[-1] != vector:
                factor = _hide_origin(builder, factor)
            vectors = zip(self._kinds, b_row, before_k, strict=True)
            totals.append(
                [
                    emit_fma(builder, x, first_elements(builder, factor, x.lanes), b, s)
                    for x, b, s in vectors
                ]
            )
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


def _hide_origin(builder: Any, value: Any) -> Any:
    """The value itself; LLVM would make it anew where a half of it is used."""
    if not machine.HAS_AVX512:
        return value
    kind = ir.FunctionType(value.type, [value.type])
    return builder.call(ir.InlineAsm(kind, "", "=v,0"), [value])


class _Bits:
    """The bits of a `NonZero`, put together for each part of a tile: where it is not all zero."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any, turned: bool) -> None:
        words, self._stride, self._first = (builder.extract_value(value, n) for n in range(3))
        self._builder, self._data = builder, ArrayParts(context, builder, kind[0], words).data
        self._turned = turned
        self.coming = [cgutils.alloca_once_value(builder, INT64(0)) for _ in range(2)]

    def come(self, row: Any, height: int, first_k: Any, end_k: Any) -> None:
        """Put together the next word: bits for up to 64 steps from first_k on."""
        end = _least(self._builder, end_k, self._builder.add(first_k, INT64(64)))
        of_tile = self._of_columns if self._turned else self._of_rows
        for n, word in enumerate(of_tile(row, _parts(height), first_k, end)):
            self._builder.store(word, self.coming[n])

    def _words(self, column: Any, row: Any) -> Any:
        """Where the words of a column are, from a row on."""
        b = self._builder
        word = b.mul(b.ashr(column, INT64(6)), self._stride)
        return b.gep(self._data, [b.add(word, row)])

    def _of_rows(self, row: Any, parts: list[slice], first_k: Any, end_k: Any) -> list[Any]:
        """A word of bits for first_k to end_k - 1, at most 64, of each part of rows of `a`."""
        b, at = self._builder, self._builder.add(first_k, self._first)
        words = []
        for part in parts:
            low, high = INT64(0), INT64(0)
            for n in range(part.start, part.stop):
                place = self._words(at, b.add(row, INT64(n)))
                low = b.or_(low, b.load(place))
                high = b.or_(high, b.load(b.gep(place, [self._stride])))
            used = b.call(_shift_right(b), [high, low, b.and_(at, INT64(63))])
            words.append(b.and_(used, _ones(b, b.sub(end_k, first_k))))
        return words

    def _of_columns(self, column: Any, parts: list[slice], first_k: Any, end_k: Any) -> list[Any]:
        """The same of columns of a turned `a`, whose rows are the k."""
        b, count = self._builder, self._builder.sub(end_k, first_k)
        at, zero = b.add(column, self._first), self._spread(INT64(0))
        place, words, masks = b.and_(at, INT64(63)), self._words(at, first_k), []
        for part in parts:
            ones = (1 << part.stop) - (1 << part.start)
            low = self._spread(b.shl(INT64(ones), place))
            high = self._spread(b.lshr(INT64(ones >> 1), b.sub(INT64(63), place)))
            masks.append((low, high, cgutils.alloca_once_value(b, INT64(0))))
        with cgutils.for_range_slice(b, INT64(0), count, INT64(WORDS_TOGETHER)) as (n, _):
            of_low = b.gep(words, [n])
            first, second = self._load(of_low), self._load(b.gep(of_low, [self._stride]))
            for low, high, bits in masks:
                used = b.or_(b.and_(first, low), b.and_(second, high))
                used = b.icmp_unsigned("!=", used, zero)
                used = b.zext(b.bitcast(used, ir.IntType(WORDS_TOGETHER)), INT64)
                b.store(b.or_(b.load(bits), b.shl(used, n)), bits)
        return [b.and_(b.load(bits), _ones(b, count)) for *_, bits in masks]

    def _spread(self, word: Any) -> Any:
        return broadcast_scalar(self._builder, WORDS, word)

    def _load(self, place: Any) -> Any:
        together = self._builder.load(self._builder.bitcast(place, WORDS.as_pointer()))
        together.align = 8
        return together


def _lines(context: Any, builder: Any, kind: Any, value: Any) -> _Lines | None:
    return _Lines(context, builder, kind, value) if isinstance(kind, types.NamedTuple) else None


def _bits(context: Any, builder: Any, kind: Any, value: Any, turned: bool) -> _Bits | None:
    if not isinstance(kind, types.NamedTuple):
        return None
    return _Bits(context, builder, kind, value, turned)


def _ones(builder: Any, count: Any) -> Any:
    """The lowest 1 to 64 bits set."""
    return builder.lshr(INT64(-1), builder.sub(INT64(64), count))


def _shift_right(builder: Any) -> Any:
    kind = ir.FunctionType(INT64, [INT64] * 3)
    return cgutils.get_or_insert_function(builder.module, kind, "llvm.fshr.i64")


def _product_panel(
    typing: Any, c: Any, j: Any, a: Any, b: Any, start: Any, chosen: Any, ahead: Any, nonzero: Any,
    top: Any, bottom: Any, halves: Any, turned: Any,
) -> Any:  # fmt: skip
    count, is_turned = _literal(halves), _literal(turned)
    if count is None or is_turned is None or len({m.dtype for m in (c, a, b, start)}) > 1:
        return None
    kinds = _kinds(Vector(c.dtype), count)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        def operand(n: int, column: Any) -> _Operand:
            return _Operand(context, builder, sig.args[n], values[n], column)

        column, zero = values[1], INT64(0)
        to, b, start = operand(0, column), operand(3, column), operand(4, column)
        is_row = builder.icmp_signed("==", start.rows, INT64(1))
        start.stride = builder.select(is_row, zero, start.stride)  # one row serves for all
        chosen = _List(context, builder, sig.args[5], values[5])
        a = operand(2, zero)
        depth = a.rows if is_turned else a.columns
        block = _even_blocks(builder, depth, machine.DEPTH_BLOCK // len(kinds))
        bits = _bits(context, builder, sig.args[7], values[7], is_turned)
        lines = _lines(context, builder, sig.args[6], values[6])
        with cgutils.for_range_slice(builder, zero, depth, block) as (first_k, _):
            end_k = _least(builder, builder.add(first_k, block), depth)
            distance = _least(builder, block, builder.sub(depth, end_k))
            asking: _NextBlock | _Lines | None = lines
            if not is_turned:
                asking = _NextBlock(builder, b, chosen, len(kinds), distance)
            panel = _Panel(builder, kinds, is_turned, a, b, chosen, asking, bits)
            is_first = builder.icmp_signed("==", first_k, zero)
            resting = operand(0, column)
            for name in ("base", "stride", "across"):
                chosen_place = builder.select(is_first, getattr(start, name), getattr(to, name))
                setattr(resting, name, chosen_place)

            def tile(row: Any, height: int) -> None:
                numbers = panel.rows_of_c(row, height)
                initial = [resting.load(number, kinds) for number in numbers]
                totals = panel.sums(row, initial, first_k, end_k)
                for number, total in zip(numbers, totals, strict=True):
                    to.store(total, number)

            panel.for_tiles(values[8], values[9], first_k, end_k, tile)
        return context.get_dummy_value()

    args = (
        c, types.int64, a, b, start, chosen, ahead, nonzero, types.int64, types.int64, halves,
        turned,
    )  # fmt: skip
    return signature(types.void, *args), codegen


@compiles_to(_product_panel)
def product_panel(
    c: Any, j: int, a: Any, b: Any, start: Any, chosen: Any, ahead: Any, nonzero: Any, top: int,
    bottom: int, halves: int, turned: bool,
) -> None:  # fmt: skip
    """c[I, J] = start[I, J] + a[I] @ b[:, J] for rows I and columns J.

    I are the rows top to bottom - 1, J the columns from j in so many `halves` of a vector; if that
    is odd, those in the last vector's upper half are padding, and set to zero in c.

    c, b and start are matrices, or panels of columns as `simd.panels` makes them; `start` may be c,
    or have one row, which serves for all. `turned` says that `a` is given as its transpose. With a
    list, row k of the depth is row chosen[k] of b, or if `a` is turned, the product's row i is row
    chosen[i] of c and start. The depth is cut into blocks so that the panel's part of b stays in L1
    while the tiles pass over it; between two blocks the sums rest in c, which rounds nothing. While
    the tiles pass over one block, the next is asked for; with a turned `a`, what `ahead` says. With
    a `NonZero`, which must know, half a tile leaves out the k for which its part of `a` is zero.

    Each element is one chain of FMAs over ascending k, so its bits depend neither on the tile nor
    on who computes it (but for the sign of a zero, if zeros are left out). The depth must be at
    least 1. `halves` and `turned` are literals.
    """
    v = lanes(c)
    rows = slice(top, bottom)
    factors = (a.T if turned else a)[rows]
    rows_of_b = slice(None) if chosen is None or turned else chosen
    rows_of_c = rows if chosen is None or not turned else chosen[rows]
    for x in range(j, j + halves * v // 2, v):
        first, columns, to = (panel_of(m, x) for m in (start, b, c))
        total = first if len(first) == 1 else first[rows_of_c]
        columns = columns[rows_of_b]
        for k in range(factors.shape[1]):
            total = fma(factors[:, k : k + 1], columns[k], total)
        to[rows_of_c] = total
    if halves % 2 == 1:
        to[rows_of_c, v // 2 :] = 0


def _descend_panel(
    typing: Any, c: Any, j: Any, a: Any, b: Any, rate: Any, l2: Any, chosen: Any, ahead: Any,
    nonzero: Any, vectors: Any,
) -> Any:  # fmt: skip
    width = _literal(vectors)
    if width is None or len({m.dtype for m in (c, a, b)}) > 1:
        return None

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        def operand(n: int, column: Any) -> _Operand:
            return _Operand(context, builder, sig.args[n], values[n], column)

        def in_all_lanes(number: Any) -> Any:
            number = context.cast(builder, number, types.float64, c.dtype)
            return broadcast_scalar(builder, vector.llvm, number)

        to, vector = operand(0, values[1]), Vector(c.dtype)
        kinds = [vector] * width
        chosen = _List(context, builder, sig.args[6], values[6])
        asking = _lines(context, builder, sig.args[7], values[7])
        a, b = operand(2, INT64(0)), operand(3, values[1])
        bits = _bits(context, builder, sig.args[8], values[8], True)
        panel = _Panel(builder, kinds, True, a, b, chosen, asking, bits)
        down, shrinking = in_all_lanes(builder.fneg(values[4])), in_all_lanes(values[5])
        is_penalized = builder.fcmp_ordered("!=", values[5], values[5].type(0.0))
        nothing = ir.Constant(vector.llvm, [0.0] * vector.lanes)
        last_row = builder.sub(panel.rows, INT64(1))

        def penalty(numbers: list[Any]) -> list[list[Any]]:
            """What the sums begin with: nothing, or l2 c."""
            sums = [[nothing] * width] * len(numbers)
            before = builder.block
            with builder.if_then(is_penalized):
                rows = [to.load(number, kinds) for number in numbers]
                scaled = [[builder.fmul(shrinking, p) for p in row] for row in rows]
                inside = builder.block
            begin = panel.phis(sums, before)
            panel.come_from(inside, begin, scaled)
            return begin

        def tile(row: Any, height: int) -> None:
            numbers = panel.rows_of_c(row, height)
            if height == panel.height:
                for r in range(AHEAD, AHEAD + height):
                    coming = chosen[_least(builder, builder.add(row, INT64(r)), last_row)]
                    for place in to.pointers(coming, width):
                        emit_prefetch(builder, place, TO_WRITE)
            totals = panel.sums(row, penalty(numbers), INT64(0), panel.depth)
            for number, total in zip(numbers, totals, strict=True):
                before = to.load(number, kinds)
                pairs = zip(total, before, strict=True)
                to.store([emit_fma(builder, vector, down, g, p) for g, p in pairs], number)

        panel.for_tiles(INT64(0), panel.rows, INT64(0), panel.depth, tile)
        return context.get_dummy_value()

    numbers = types.float64, types.float64
    args = (c, types.int64, a, b, *numbers, chosen, ahead, nonzero, vectors)
    return signature(types.void, *args), codegen


@compiles_to(_descend_panel)
def descend_panel(
    c: Any, j: int, a: Any, b: Any, rate: float, l2: float, chosen: Any, ahead: Any, nonzero: Any,
    vectors: int,
) -> None:  # fmt: skip
    """c[I, J] -= rate (l2 c[I, J] + (a^T @ b)[:, J]) for rows I = chosen; without a list, all.

    J, `ahead` and `nonzero` as above. The same chains of FMAs, from zero or the penalty's gradient,
    and the same FMA with -rate as in `optimizer.sgd`, but the gradient never leaves the registers.
    The depth, the rows of `a`, is not cut.
    """
    v = lanes(c)
    rows = slice(None) if chosen is None else chosen
    for x in range(j, j + vectors * v, v):
        columns, to = panel_of(b, x), panel_of(c, x)
        total = to.dtype.type(l2) * to[rows] if l2 != 0.0 else np.zeros_like(to[rows])
        for k in range(a.shape[0]):
            total = fma(a[k, :, None], columns[k], total)
        to[rows] = fma(to.dtype.type(-rate), total, to[rows])
