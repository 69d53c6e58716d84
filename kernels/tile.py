"""The register tile: the one microkernel from which all matrix products are made.

A panel of one to three vectors of columns is swept by tiles of `machine.TILE_ROWS` rows. The tile's
sums stay in registers while k runs; each step of k loads one row of b and broadcasts one element of
a for each row of the tile. The depth is cut into blocks so that the panel's part of b stays in L1
while the tiles pass over it; between two blocks the sums rest in c, which rounds nothing.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import signature

from . import machine
from .simd import (
    Vector,
    broadcast_scalar,
    compiles_to,
    emit_fma,
    lanes,
    load_from,
    store_to,
    strides_of,
)

INT64 = ir.IntType(64)


def _product_panel(
    typing: Any, c: Any, j: Any, a: Any, b: Any, start: Any, vectors: Any, transposed: Any
) -> Any:
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    if not isinstance(transposed, types.BooleanLiteral):
        return None
    vector = Vector(c.dtype)
    width, is_transposed = vectors.literal_value, transposed.literal_value

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        column, zero, one = values[1], INT64(0), INT64(1)

        def operand(index: int, first: Any) -> tuple[Any, Any, Any, Any]:
            """Pointer to column `first`, strides between rows and between vectors, and shape."""
            kind = sig.args[index]
            view = context.make_array(kind)(context, builder, values[index])
            shape = cgutils.unpack_tuple(builder, view.shape)
            strides = strides_of(builder, kind, view)
            if kind.ndim == 2:
                return builder.gep(view.data, [first]), strides[0], INT64(vector.lanes), shape
            panel = builder.sdiv(first, INT64(vector.lanes))
            base = builder.gep(view.data, [builder.mul(panel, strides[0])])
            return base, strides[1], strides[0], shape[1:]

        c_base, c_stride, c_next, (rows, _) = operand(0, column)
        a_base, a_stride, _, a_shape = operand(2, zero)
        b_base, b_stride, b_next, _ = operand(3, column)
        start_base, start_stride, start_next, (start_rows, _) = operand(4, column)
        depth = a_shape[0 if is_transposed else 1]

        def at(base: Any, stride: Any, row: Any) -> Any:
            return builder.gep(base, [builder.mul(row, stride)])

        def factor_pointer(row: Any) -> Any:
            return builder.gep(a_base, [row]) if is_transposed else at(a_base, a_stride, row)

        def vectors_at(pointer: Any, next_vector: Any) -> list[Any]:
            offsets = [builder.mul(next_vector, INT64(x)) for x in range(width)]
            return [load_from(builder, vector, builder.gep(pointer, [x])) for x in offsets]

        def tile(row: Any, height: int, first_k: Any, end_k: Any, sums_from: Any) -> None:
            """c[row : row + height] = sums + a b over one block of the depth."""
            numbers = [builder.add(row, INT64(r)) for r in range(height)]
            base, stride, next_vector = sums_from
            initial = [vectors_at(at(base, stride, number), next_vector) for number in numbers]
            factors = [factor_pointer(number) for number in numbers]
            before = builder.block
            body = builder.append_basic_block("depth")
            done = builder.append_basic_block("done")
            builder.branch(body)
            builder.position_at_end(body)
            k = builder.phi(INT64)
            sums = [[builder.phi(vector.llvm) for _ in range(width)] for _ in range(height)]
            b_row = vectors_at(at(b_base, b_stride, k), b_next)
            a_step = builder.mul(k, a_stride) if is_transposed else k
            totals = []
            for r in range(height):
                factor = builder.load(builder.gep(factors[r], [a_step]))
                factor = broadcast_scalar(builder, vector.llvm, factor)
                totals.append(
                    [emit_fma(builder, vector, factor, b_row[x], sums[r][x]) for x in range(width)]
                )
            k_next = builder.add(k, one)
            k.add_incoming(first_k, before)
            k.add_incoming(k_next, body)
            for r in range(height):
                for x in range(width):
                    sums[r][x].add_incoming(initial[r][x], before)
                    sums[r][x].add_incoming(totals[r][x], body)
            builder.cbranch(builder.icmp_signed("<", k_next, end_k), body, done)
            builder.position_at_end(done)
            for r in range(height):
                for x in range(width):
                    across = builder.mul(c_next, INT64(x))
                    pointer = builder.gep(at(c_base, c_stride, numbers[r]), [across])
                    store_to(builder, vector, totals[r][x], pointer)

        is_row = builder.icmp_signed("==", start_rows, one)
        start_stride = builder.select(is_row, zero, start_stride)  # one row serves for all
        height = INT64(machine.TILE_ROWS)
        whole = builder.mul(builder.sdiv(rows, height), height)
        block = INT64(machine.DEPTH_BLOCK)
        with cgutils.for_range_slice(builder, zero, depth, block) as (first_k, _):
            end_k = builder.add(first_k, block)
            end_k = builder.select(builder.icmp_signed("<", end_k, depth), end_k, depth)
            is_first = builder.icmp_signed("==", first_k, zero)
            sums_from = (
                builder.select(is_first, start_base, c_base),
                builder.select(is_first, start_stride, c_stride),
                builder.select(is_first, start_next, c_next),
            )
            with cgutils.for_range_slice(builder, zero, whole, height) as (row, _):
                tile(row, machine.TILE_ROWS, first_k, end_k, sums_from)
            with cgutils.for_range_slice(builder, whole, rows, one) as (row, _):
                tile(row, 1, first_k, end_k, sums_from)
        return context.get_dummy_value()

    return signature(types.void, c, types.int64, a, b, start, vectors, transposed), codegen


@compiles_to(_product_panel)
def product_panel(
    c: Any, j: int, a: Any, b: Any, start: Any, vectors: int, transposed: bool
) -> None:
    """c[:, J] = start[:, J] + a @ b[:, J] for the `vectors` vectors of columns J from j.

    c, b and start are matrices, or panels of columns as `simd.panels` makes them; `start` may be c,
    or have one row, which serves for all. `transposed` says that `a` is given as its transpose.
    Each element is one chain of FMAs over ascending k, so its bits depend neither on the tile nor
    on who computes it. The depth must be at least 1. `vectors` and `transposed` are literals.
    """
    v = lanes(c)
    factors = a.T if transposed else a
    for x in range(j, j + vectors * v, v):
        total, columns = _vector_columns(start, x), _vector_columns(b, x)
        for k in range(factors.shape[1]):
            total = total + factors[:, k : k + 1] * columns[k]
        _vector_columns(c, x)[...] = total


def _vector_columns(m: Any, j: int) -> Any:
    """The columns j to j + lanes of a matrix or of panels."""
    return m[:, j : j + lanes(m)] if m.ndim == 2 else m[j // lanes(m)]
