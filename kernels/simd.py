"""Vectors, matrices over raw memory, and atomics: the seam between the kernels and LLVM.

A kernel's code is written once, in terms of the operations below; how many lanes a vector has is
decided here, from the machine table. Each operation has two definitions side by side: the LLVM
instruction it compiles to, and a line of NumPy that says what it means and stands in for it when
the JIT is off (NUMBA_DISABLE_JIT=1).

Matrices are 2-D views of a flat array whose rows are contiguous (`strides[1] == itemsize`); they
own nothing and count no references, so the caller keeps the memory alive. No operation here checks
bounds: that is done in Python before a kernel is called.
"""

import functools
import hashlib
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing.templates import (
    AbstractTemplate,
    AttributeTemplate,
    infer_getattr,
    infer_global,
    signature,
)
from numba.extending import (
    intrinsic,
    lower_builtin,
    lower_getattr_generic,
    models,
    register_model,
)

from . import machine
from ._jit import JIT_DISABLED, inlined

INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
# what AVX-512's "range" shall do: the lesser magnitude, without its sign
SMALLER_MAGNITUDE = 0b1010


class Vector(types.Type):  # type: ignore[misc]
    """Numba type of a register of `lanes` floats, as many as fit unless that is said."""

    def __init__(self, dtype: types.Float, lanes: int | None = None) -> None:
        self.dtype = dtype
        self.lanes = lanes_of(dtype) if lanes is None else lanes
        super().__init__(name=f"vector({dtype} x {self.lanes})")

    @property
    def half(self) -> "Vector":
        return Vector(self.dtype, self.lanes // 2)

    @property
    def llvm(self) -> ir.VectorType:
        return ir.VectorType(_scalar(self.dtype), self.lanes)

    @property
    def llvm_integers(self) -> ir.VectorType:
        return ir.VectorType(ir.IntType(self.dtype.bitwidth), self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


def lanes_of(dtype: types.Float) -> int:
    return machine.VECTOR_BYTES * 8 // int(dtype.bitwidth)


def _scalar(dtype: types.Float) -> ir.Type:
    return ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()


def compiles_to(lowering: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Give a Python definition its lowering: (typing context, *types) -> (signature, codegen)."""

    def decorate(meaning: Callable[..., Any]) -> Any:
        if JIT_DISABLED:
            return meaning
        operation = intrinsic(prefer_literal=True)(lowering)
        operation.__doc__ = meaning.__doc__
        return operation

    return decorate


# --- arithmetic: + - * / and negation between vectors


def _operator(symbol: Callable[..., Any], instruction: str) -> None:
    @infer_global(symbol)
    class _Typing(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if all(isinstance(a, Vector) and a == args[0] for a in args):
                return signature(args[0], *args)
            return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)

    arity = 1 if symbol is operator.neg else 2
    lower_builtin(symbol, *[Vector] * arity)(lower)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
    (operator.neg, "fneg"),
):
    _operator(_symbol, _instruction)


def _llvm_function(name: str) -> Callable[..., Any]:
    """Lowering to the LLVM intrinsic `name` on one vector."""

    def lowering(typing: Any, a: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            return _call(builder, name, sig.args[0], values)

        return signature(a, a), codegen

    return lowering


def _call(builder: Any, name: str, vector: Vector, values: Any) -> Any:
    kind = ir.FunctionType(vector.llvm, [vector.llvm] * len(values))
    full = f"llvm.{name}.v{vector.lanes}f{vector.dtype.bitwidth}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, full), values)


def emit_fma(builder: Any, vector: Vector, a: Any, b: Any, c: Any) -> Any:
    if machine.HAS_FMA:
        return _call(builder, "fma", vector, [a, b, c])
    return builder.fadd(builder.fmul(a, b), c)


def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return emit_fma(builder, sig.args[0], *values)

    return signature(a, a, b, c), codegen


@compiles_to(_fma)
def fma(a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once (twice where the CPU has no FMA instruction)."""
    if a.dtype == np.float32:  # whose products are exact in float64
        return (a.astype(np.float64) * b + c).astype(np.float32)
    return a * b + c


def _add_outer_product(typing: Any, sums: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        before, left, right = (cgutils.unpack_tuple(builder, value) for value in values)
        pairs = ((x, y) for x in left for y in right)
        after = [
            emit_fma(builder, sums.dtype, x, y, total)
            for (x, y), total in zip(pairs, before, strict=True)
        ]
        return context.make_tuple(builder, sig.return_type, after)

    return signature(sums, sums, a, b), codegen


@compiles_to(_add_outer_product)
def add_outer_product(sums: Any, a: Any, b: Any) -> Any:
    """sums[i, j] + a[i] b[j] for tuples of vectors, `sums` row by row: a tile of registers."""
    pairs = ((x, y) for x in a for y in b)
    return tuple(fma(x, y, total) for (x, y), total in zip(pairs, sums, strict=True))


@compiles_to(_llvm_function("sqrt"))
def square_root(a: Any) -> Any:
    """Correctly rounded square root of each lane."""
    return np.sqrt(a)


@compiles_to(_llvm_function("fabs"))
def absolute(a: Any) -> Any:
    """|a| in each lane."""
    return np.abs(a)


def _smaller_magnitude(typing: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vector = sig.args[0]
        if machine.HAS_AVX512:
            every, current_rounding = ir.IntType(vector.lanes)(-1), INT32(4)
            values = [*values, INT32(SMALLER_MAGNITUDE), values[0], every, current_rounding]
            return _call_avx512(builder, vector, "mask.range", values)
        a, b = (_call(builder, "fabs", vector, [value]) for value in values)
        return builder.select(builder.fcmp_ordered("<", a, b), a, b)

    return signature(a, a, b), codegen


@compiles_to(_smaller_magnitude)
def smaller_magnitude(a: Any, b: Any) -> Any:
    """The smaller one of |a| and |b| in each lane, |b| where a is NaN."""
    return np.where(np.abs(a) < np.abs(b), np.abs(a), np.abs(b))


def _copy_sign(typing: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return _call(builder, "copysign", sig.args[0], values)

    return signature(a, a, b), codegen


@compiles_to(_copy_sign)
def copy_sign(a: Any, b: Any) -> Any:
    """|a| with the sign of b in each lane."""
    return np.copysign(a, b)


def _fill(typing: Any, like: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vector = sig.args[0]
        cast = context.cast(builder, values[1], sig.args[1], vector.dtype)
        return broadcast_scalar(builder, vector.llvm, cast)

    return signature(like, like, types.unliteral(value)), codegen


def broadcast_scalar(builder: Any, kind: ir.VectorType, scalar: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, INT32(0))
    zeros = ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, undefined, zeros)


def first_elements(builder: Any, value: Any, count: int) -> Any:
    """A vector of the first elements of another."""
    if value.type.count == count:
        return value
    numbers = ir.Constant(ir.VectorType(INT32, count), list(range(count)))
    return builder.shuffle_vector(value, value, numbers)


@compiles_to(_fill)
def fill(like: Any, value: float) -> Any:
    """A vector of the type of `like` with `value`, rounded to its dtype, in each lane."""
    return np.full_like(like, value)


def polynomial(single: Sequence[float], double: Sequence[float]) -> Any:
    """The operation x -> c[0] + c[1] x + ..., by Horner's rule, with coefficients of each dtype."""

    def lowering(typing: Any, x: Any) -> Any:
        coefficients = double if x.dtype.bitwidth == 64 else single

        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            vector = sig.args[0]
            *rest, total = (ir.Constant(vector.llvm, [c] * vector.lanes) for c in coefficients)
            for c in reversed(rest):
                total = emit_fma(builder, vector, total, values[0], c)
            return total

        return signature(x, x), codegen

    @compiles_to(lowering)
    def evaluate(x: Any) -> Any:
        *rest, total = (np.full_like(x, c) for c in (double if is_double(x) else single))
        for c in reversed(rest):
            total = fma(total, x, c)
        return total

    return evaluate


def table(single: Sequence[float], double: Sequence[float] = (), shift: int = 0) -> Any:
    """The operation x -> values[bits of x >> shift], of whose low bits as many count as are needed.

    The values, for each dtype, fill one or two vectors. With AVX-512 alone.
    """

    def lowering(typing: Any, x: Any) -> Any:
        values = double if x.dtype.bitwidth == 64 else single

        def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            vector = sig.args[0]
            kind, count = vector.llvm_integers, vector.lanes
            bits = builder.bitcast(arguments[0], kind)
            bits = builder.lshr(bits, ir.Constant(kind, [shift] * count))
            first, *second = (
                ir.Constant(vector.llvm, values[n : n + count])
                for n in range(0, len(values), count)
            )
            if second:
                return _call_avx512(builder, vector, "vpermi2var", [first, bits, *second])
            name = f"llvm.x86.avx512.permvar.{'s' if count == 16 else 'd'}f.512"
            function = ir.FunctionType(vector.llvm, [vector.llvm, kind])
            function = cgutils.get_or_insert_function(builder.module, function, name)
            return builder.call(function, [first, bits])

        return signature(x, x), codegen

    @compiles_to(lowering)
    def look_up(x: Any) -> Any:
        values = np.array(double if is_double(x) else single, x.dtype)
        bits = x.view(f"u{x.itemsize}") >> shift
        return values[bits & (len(values) - 1)]

    return look_up


def _choose_less(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", values[0], values[1]), values[2], values[3])

    return signature(a, a, b, yes, no), codegen


@compiles_to(_choose_less)
def choose_less(a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Lane by lane: `yes` where a < b, else `no` (so also where a or b is NaN)."""
    return np.where(a < b, yes, no)


def _any_less(typing: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        bits = ir.IntType(sig.args[0].lanes)
        less = builder.bitcast(builder.fcmp_ordered("<", *values), bits)
        return builder.icmp_unsigned("!=", less, bits(0))

    return signature(types.boolean, a, b), codegen


@compiles_to(_any_less)
def any_less(a: Any, b: Any) -> bool:
    """Whether a < b in any lane."""
    return bool(np.any(a < b))


def _choose_normal(typing: Any, x: Any, yes: Any, no: Any) -> Any:
    # No float is compared, since subnormal ones are slow: only their exponent is zero.
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vector = sig.args[0]
        kind, (mantissa, bias) = vector.llvm_integers, _exponent(vector)
        exponents = ir.Constant(kind, [(2 * bias + 1) << mantissa] * vector.lanes)
        bits = builder.and_(builder.bitcast(values[0], kind), exponents)
        is_normal = builder.icmp_unsigned("!=", bits, ir.Constant(kind, [0] * vector.lanes))
        return builder.select(is_normal, *values[1:])

    return signature(x, x, yes, no), codegen


@compiles_to(_choose_normal)
def choose_normal(x: Any, yes: Any, no: Any) -> Any:
    """Lane by lane: `no` where x is smaller than every normal number, else `yes`."""
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, no, yes)


def _add_shifted_bits(typing: Any, a: Any, b: Any, shift: Any) -> Any:
    if not isinstance(shift, types.Literal):
        return None

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vector = sig.args[0]
        kind = vector.llvm_integers
        a, b = (builder.bitcast(value, kind) for value in values[:2])
        b = builder.shl(b, ir.Constant(kind, [shift.literal_value] * vector.lanes))
        return builder.bitcast(builder.add(a, b), vector.llvm)

    return signature(a, a, b, shift), codegen


@compiles_to(_add_shifted_bits)
def add_shifted_bits(a: Any, b: Any, shift: int) -> Any:
    """The float whose bits are those of a plus those of b << shift, a literal."""
    kind = f"u{a.itemsize}"
    return (a.view(kind) + (b.view(kind) << shift)).view(a.dtype)


def _call_avx512(builder: Any, vector: Vector, name: str, values: Sequence[Any]) -> Any:
    """Call the instruction of that name on whole 64-byte vectors."""
    suffix = "ps" if vector.dtype.bitwidth == 32 else "pd"
    kind = ir.FunctionType(vector.llvm, [value.type for value in values])
    full_name = f"llvm.x86.avx512.{name}.{suffix}.512"
    function = cgutils.get_or_insert_function(builder.module, kind, full_name)
    return builder.call(function, values)


def _exponent(vector: Vector) -> tuple[int, int]:
    """Bits of the mantissa, and the bias of the exponent."""
    return (23, 127) if vector.dtype.bitwidth == 32 else (52, 1023)


def _emit_power_of_two(builder: Any, vector: Vector, n: Any) -> Any:
    # Adding 1.5 * 2**mantissa leaves n + bias in the low bits; the shift makes it the exponent.
    if machine.HAS_AVX512:
        ones = ir.Constant(vector.llvm, [1.0] * vector.lanes)
        return _scale_instruction(builder, vector, ones, n)
    mantissa, bias = _exponent(vector)
    magic = ir.Constant(vector.llvm, [1.5 * 2.0**mantissa + bias] * vector.lanes)
    bits = builder.bitcast(builder.fadd(n, magic), vector.llvm_integers)
    shift = ir.Constant(vector.llvm_integers, [mantissa] * vector.lanes)
    return builder.bitcast(builder.shl(bits, shift), vector.llvm)


def _power_of_two(typing: Any, n: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return _emit_power_of_two(builder, sig.args[0], *values)

    return signature(n, n), codegen


@compiles_to(_power_of_two)
def power_of_two(n: Any) -> Any:
    """2**n for integral n within the range of normal numbers."""
    return np.ldexp(np.ones_like(n), n.astype(np.int32))


def _guess(magic_of: dict[int, int], shift: int, instruction: str) -> Callable[..., Any]:
    """Lowering to an instruction, or to magic - (bits >> shift), read as a float."""

    def lowering(typing: Any, a: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            vector = sig.args[0]
            if machine.HAS_AVX512:
                mask = ir.IntType(vector.lanes)
                return _call_avx512(builder, vector, instruction, [*values, *values, mask(-1)])
            kind, count = vector.llvm_integers, vector.lanes
            bits = builder.bitcast(values[0], kind)
            bits = builder.lshr(bits, ir.Constant(kind, [shift] * count))
            magic = ir.Constant(kind, [magic_of[vector.dtype.bitwidth]] * count)
            return builder.bitcast(builder.sub(magic, bits), vector.llvm)

        return signature(a, a), codegen

    return lowering


INVERSE_ROOT = {32: 0x5F3759DF, 64: 0x5FE6EB50C7B537A9}
RECIPROCAL = {32: 0x7EF311C7, 64: 0x7FDE623822FC16E6}
# relative errors of guesses
GUESS_ROOT = 2.0**-14 if machine.HAS_AVX512 else 0.035
GUESS_RECIPROCAL = 2.0**-14 if machine.HAS_AVX512 else 0.13


def _meaning_of_guess(a: Any, exact: Any, magic_of: dict[int, int], shift: int) -> Any:
    if machine.HAS_AVX512:
        return exact
    kind = np.dtype(f"u{a.itemsize}")
    return (kind.type(magic_of[8 * a.itemsize]) - (a.view(kind) >> kind.type(shift))).view(a.dtype)


@compiles_to(_guess(INVERSE_ROOT, 1, "rsqrt14"))
def guess_inverse_root(a: Any) -> Any:
    """1 / sqrt(a) within `GUESS_ROOT` for normal a > 0.

    Without an instruction after C. Lomont, "Fast inverse square root" (2003).
    """
    return _meaning_of_guess(a, 1 / np.sqrt(a), INVERSE_ROOT, 1)


@compiles_to(_guess(RECIPROCAL, 0, "rcp14"))
def guess_reciprocal(a: Any) -> Any:
    """1 / a within `GUESS_RECIPROCAL` for normal a > 0 whose 1 / a is normal too.

    Without an instruction the exponent changes its sign, and the mantissa is mirrored.
    """
    return _meaning_of_guess(a, 1 / a, RECIPROCAL, 0)


def _scale(typing: Any, a: Any, n: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vector = sig.args[0]
        if machine.HAS_AVX512:
            return _scale_instruction(builder, vector, *values)
        # Two powers, since 2**n alone may lie outside the normal numbers where the result does not.
        magic = ir.Constant(vector.llvm, [1.5 * 2.0 ** _exponent(vector)[0]] * vector.lanes)
        halves = ir.Constant(vector.llvm, [0.5] * vector.lanes)
        half = builder.fsub(builder.fadd(builder.fmul(values[1], halves), magic), magic)
        first = _emit_power_of_two(builder, vector, half)
        second = _emit_power_of_two(builder, vector, builder.fsub(values[1], half))
        return builder.fmul(builder.fmul(values[0], first), second)

    return signature(a, a, n), codegen


def _scale_instruction(builder: Any, vector: Vector, a: Any, n: Any) -> Any:
    every, current_rounding = ir.IntType(vector.lanes)(-1), INT32(4)
    return _call_avx512(builder, vector, "mask.scalef", [a, n, a, every, current_rounding])


@compiles_to(_scale)
def scale(a: Any, n: Any) -> Any:
    """a 2**n for integral n, rounded once; a 2**(n / 2) must be a normal number, or a zero.

    With AVX-512, n may be any number, and is rounded down.
    """
    return np.ldexp(a, np.floor(n).astype(np.int32))


def _is_double(typing: Any, a: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return ir.IntType(1)(int(sig.args[0].dtype.bitwidth == 64))

    return signature(types.boolean, a), codegen


@compiles_to(_is_double)
def is_double(a: Any) -> bool:
    """Whether a vector's or array's dtype is float64: a constant once compiled."""
    return bool(a.dtype == np.float64)


def by_dtype(single: Any, double: Any) -> Any:
    """The operation that is one kernel for vectors of float32 and another one for float64."""

    def lowering(typing: Any, x: Any) -> Any:
        kernel = typing.resolve_value_type(double if x.dtype.bitwidth == 64 else single)
        resolved = typing.resolve_function_type(kernel, (x,), {})

        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            function = context.get_function(kernel, resolved)
            return function(builder, values)

        return resolved, codegen

    @compiles_to(lowering)
    def call(x: Any) -> Any:
        return double(x) if is_double(x) else single(x)

    return call


def _check_dtype(typing: Any, array: Any, like: Any) -> Any:
    if array.dtype != like.dtype:
        raise TypingError(f"the network's dtype is {like.dtype}, got an array of {array.dtype}")

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return context.get_dummy_value()

    return signature(types.void, array, like), codegen


@compiles_to(_check_dtype)
def check_dtype(array: Any, like: Any) -> None:
    """Refuse to compile for an array of another dtype than `like`'s; costs nothing at run time."""
    if array.dtype != like.dtype:
        raise TypeError(f"the network's dtype is {like.dtype}, got an array of {array.dtype}")


# --- reductions across the lanes, always in the same order: halves are combined until one is left


def fold(builder: Any, value: Any, lanes: int, combine: Callable[..., Any]) -> Any:
    """Emit the combination of the lanes of a vector."""
    while lanes > 1:
        lanes //= 2
        indices = ir.VectorType(INT32, lanes)
        low = ir.Constant(indices, list(range(lanes)))
        high = ir.Constant(indices, list(range(lanes, 2 * lanes)))
        halves = (builder.shuffle_vector(value, value, half) for half in (low, high))
        value = combine(*halves)
    return builder.extract_element(value, INT32(0))


def _fold(combine: Callable[..., Any]) -> Callable[..., Any]:
    def lowering(typing: Any, a: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            return fold(builder, values[0], sig.args[0].lanes, functools.partial(combine, builder))

        return signature(a.dtype, a), codegen

    return lowering


def _halve(a: Any, combine: Callable[..., Any]) -> Any:
    while len(a) > 1:
        a = combine(a[: len(a) // 2], a[len(a) // 2 :])
    return a[0]


@compiles_to(_fold(lambda builder, low, high: builder.fadd(low, high)))
def lane_sum(a: Any) -> Any:
    """Sum of the lanes."""
    return _halve(a, np.add)


@compiles_to(_fold(lambda b, low, high: b.select(b.fcmp_ordered("<", low, high), high, low)))
def lane_max(a: Any) -> Any:
    """Largest lane (any lane if one is NaN)."""
    return _halve(a, lambda low, high: np.where(low < high, high, low))


def _first_lanes(typing: Any, count: Any, inside: Any, outside: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return _choose_first(builder, sig.args[1], *values)

    return signature(inside, types.int64, inside, outside), codegen


def _choose_first(builder: Any, vector: Vector, count: Any, inside: Any, outside: Any) -> Any:
    integers = ir.VectorType(INT64, vector.lanes)
    limits = broadcast_scalar(builder, integers, count)
    numbers = ir.Constant(integers, list(range(vector.lanes)))
    return builder.select(builder.icmp_signed("<", numbers, limits), inside, outside)


@compiles_to(_first_lanes)
def first_lanes(count: int, inside: Any, outside: Any) -> Any:
    """`inside` in the first `count` lanes, `outside` in the others."""
    return np.where(np.arange(len(inside)) < count, inside, outside)


def _either(typing: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vector = sig.args[0]
        bits = [builder.bitcast(value, vector.llvm_integers) for value in values]
        return builder.bitcast(builder.or_(*bits), vector.llvm)

    return signature(a, a, b), codegen


@compiles_to(_either)
def either(a: Any, b: Any) -> Any:
    """The bits of a or b; a lane is zero where both are."""
    kind = f"u{a.itemsize}"
    return (a.view(kind) | b.view(kind)).view(a.dtype)


def _nonzero_lanes(typing: Any, a: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vector = sig.args[0]
        zeros = ir.Constant(vector.llvm, [0.0] * vector.lanes)
        lanes = builder.fcmp_unordered("!=", values[0], zeros)
        return builder.zext(builder.bitcast(lanes, ir.IntType(vector.lanes)), INT64)

    return signature(types.int64, a), codegen


@compiles_to(_nonzero_lanes)
def nonzero_lanes(a: Any) -> int:
    """An integer whose bit n says that lane n is not zero."""
    return sum(1 << n for n, value in enumerate(a) if value != 0)


def _compress(typing: Any, a: Any, mask: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vector = sig.args[0]
        bits = ir.VectorType(ir.IntType(1), vector.lanes)
        chosen = builder.bitcast(builder.trunc(values[1], ir.IntType(vector.lanes)), bits)
        name = f"llvm.experimental.vector.compress.v{vector.lanes}f{vector.dtype.bitwidth}"
        kind = ir.FunctionType(vector.llvm, [vector.llvm, bits, vector.llvm])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        zeros = ir.Constant(vector.llvm, [0.0] * vector.lanes)
        return builder.call(function, [values[0], chosen, zeros])

    return signature(a, a, types.int64), codegen


@compiles_to(_compress)
def compress(a: Any, mask: int) -> Any:
    """The lanes whose bit of a mask is set, side by side, then zeros; slow without AVX-512."""
    chosen = [n for n in range(len(a)) if mask >> n & 1]
    out = np.zeros_like(a)
    out[: len(chosen)] = a[chosen]
    return out


def _count_bits(typing: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    return signature(types.int64, types.int64), codegen


@compiles_to(_count_bits)
def count_bits(bits: int) -> int:
    """How many bits of an int64 are set."""
    return (int(bits) & (1 << 64) - 1).bit_count()


SQUARE_SUMS = 8  # sums that do not wait for each other


def _square_sum(typing: Any, m: Any, row: Any) -> Any:
    wide = Vector(types.float64)
    narrow = ir.VectorType(_scalar(m.dtype), wide.lanes)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        view = ArrayParts(context, builder, sig.args[0], values[0])
        columns = cgutils.unpack_tuple(builder, view.shape)[1]
        nothing = ir.Constant(wide.llvm, [0.0] * wide.lanes)
        totals = [cgutils.alloca_once_value(builder, nothing) for _ in range(SQUARE_SUMS)]

        def add_square(total: Any, j: Any) -> None:
            pointer, _ = element_pointer(context, builder, sig.args[0], values[0], values[1], j)
            place = builder.bitcast(pointer, narrow.as_pointer())
            x = builder.load(place, align=m.dtype.bitwidth // 8)
            x = x if m.dtype.bitwidth == 64 else builder.fpext(x, wide.llvm)
            builder.store(emit_fma(builder, wide, x, x, builder.load(total)), total)

        step = INT64(SQUARE_SUMS * wide.lanes)
        end = builder.mul(builder.sdiv(columns, step), step)
        with cgutils.for_range_slice(builder, INT64(0), end, step) as (j, _):
            for n, total in enumerate(totals):
                add_square(total, builder.add(j, INT64(n * wide.lanes)))
        with cgutils.for_range_slice(builder, end, columns, INT64(wide.lanes)) as (j, _):
            add_square(totals[0], j)
        sums = [builder.load(total) for total in totals]
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [builder.fadd(*pair) for pair in zip(sums[:half], sums[half:], strict=True)]
        return fold(builder, sums[0], wide.lanes, builder.fadd)

    return signature(types.float64, m, types.int64), codegen


@compiles_to(_square_sum)
def square_sum(m: Any, row: int) -> float:
    """Sum of the squares of a row, in float64: vectors in turn to eight sums, then all lanes.

    The first of the sums takes what is left over.
    """
    parts = np.square(m[row].astype(np.float64)).reshape(-1, machine.VECTOR_BYTES // 8)
    whole = len(parts) // SQUARE_SUMS * SQUARE_SUMS
    sums = parts[:whole].reshape(-1, SQUARE_SUMS, parts.shape[1]).sum(axis=0)
    sums[0] += parts[whole:].sum(axis=0)
    return float(_halve(_halve(sums, np.add), np.add))


# --- memory


class ArrayParts:
    """The data, shape and strides in an array's structure, each taken out when it is asked for.

    Numba's `make_array` would copy the structure to memory.
    """

    def __init__(self, context: Any, builder: Any, kind: types.Array, value: Any) -> None:
        self._model, self._builder, self._value = context.data_model_manager[kind], builder, value

    def __getattr__(self, name: str) -> Any:
        return self._model.get(self._builder, self._value, name)


class Borrowed(types.Type):  # type: ignore[misc]
    """Numba type of a named tuple in the memory of a caller, handed on as one pointer.

    By value it would be taken apart for each call, into as many as nine numbers for an array.
    """

    def __init__(self, kind: types.BaseNamedTuple) -> None:
        self.kind = kind
        self.fields = dict(zip(kind.fields, map(_borrowed_type, kind.types), strict=True))
        self._places: dict[str, int] = {}
        digest = hashlib.sha256(kind.name.encode()).hexdigest()[:12]  # the name itself is long
        super().__init__(name=f"{kind.instance_class.__name__}({digest})")

    def place_of(self, context: Any, field: str) -> int:
        """Where a field begins, in words of 8 bytes; behind the last is the end."""
        if not self._places:
            place = 0
            for name, kind in self.fields.items():
                self._places[name] = place
                place += (context.get_abi_sizeof(context.get_value_type(kind)) + 7) // 8
            self._places[""] = place
        return self._places[field]


@register_model(Borrowed)
class _BorrowedModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Borrowed) -> None:
        super().__init__(manager, kind, INT64.as_pointer())


def _field_pointer(context: Any, builder: Any, kind: Borrowed, value: Any, field: str) -> Any:
    pointer = builder.gep(value, [INT64(kind.place_of(context, field))])
    return builder.bitcast(pointer, context.get_value_type(kind.fields[field]).as_pointer())


@infer_getattr
class _BorrowedFields(AttributeTemplate):  # type: ignore[misc]
    key = Borrowed

    def generic_resolve(self, kind: Borrowed, field: str) -> Any:
        return kind.fields.get(field)


@lower_getattr_generic(Borrowed)
def _load_field(context: Any, builder: Any, kind: Borrowed, value: Any, field: str) -> Any:
    return builder.load(_field_pointer(context, builder, kind, value, field))


def _borrowed_type(kind: Any) -> Any:
    return Borrowed(kind) if isinstance(kind, types.BaseNamedTuple) else kind


def _emit_borrow(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if not isinstance(kind, types.BaseNamedTuple):
        return value
    result = Borrowed(kind)
    words = ir.ArrayType(INT64, result.place_of(context, ""))
    memory = builder.bitcast(cgutils.alloca_once(builder, words), INT64.as_pointer())
    for i, (name, field) in enumerate(zip(kind.fields, kind.types, strict=True)):
        part = _emit_borrow(context, builder, field, builder.extract_value(value, i))
        builder.store(part, _field_pointer(context, builder, result, memory, name))
    return memory


def _borrow(typing: Any, owned: Any) -> Any:
    if not isinstance(owned, types.BaseNamedTuple):
        return None

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return _emit_borrow(context, builder, sig.args[0], values[0])

    return signature(Borrowed(owned), owned), codegen


@compiles_to(_borrow)
def borrow(owned: Any) -> Any:
    """A named tuple, and those within it, in memory of this function, handed on as one pointer.

    Each call in the source has one memory: what it borrowed before, in a loop, is gone.
    """
    return owned


def _view(context: Any, builder: Any, result: Any, data: Any, shape: Any, strides: Any) -> Any:
    """A view without an owner on memory; strides are in elements."""
    size, nobody = INT64(result.dtype.bitwidth // 8), cgutils.get_null_value(cgutils.voidptr_t)
    parts = {
        "meminfo": nobody,
        "parent": nobody,
        "nitems": functools.reduce(builder.mul, shape),
        "itemsize": size,
        "data": data,
        "shape": cgutils.pack_array(builder, shape),
        "strides": cgutils.pack_array(builder, [builder.mul(x, size) for x in strides]),
    }
    model = context.data_model_manager[result]
    view = ir.Constant(model.get_value_type(), ir.Undefined)
    for name, part in parts.items():
        view = model.set(builder, view, part, name)
    return view


def _matrix(typing: Any, flat: Any, offset: Any, rows: Any, columns: Any, stride: Any) -> Any:
    result = types.Array(flat.dtype, 2, "A")

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        flat, offset, rows, columns, stride = values
        source = ArrayParts(context, builder, sig.args[0], flat)
        data = builder.gep(source.data, [offset])
        return _view(context, builder, result, data, [rows, columns], [stride, INT64(1)])

    integers = [types.int64] * 4
    return signature(result, flat, *integers), codegen


@compiles_to(_matrix)
def matrix(flat: Any, offset: int, rows: int, columns: int, stride: int) -> Any:
    """View [rows, columns] of a flat array from `offset`, rows `stride` elements apart.

    The view owns nothing: the flat array must outlive it.
    """
    size = flat.itemsize
    return np.lib.stride_tricks.as_strided(
        flat.reshape(-1)[offset:], (rows, columns), (stride * size, size)
    )


def _words(typing: Any, flat: Any, offset: Any, count: Any) -> Any:
    result = types.Array(types.int64, 1, "C")

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        flat, offset, count = values
        source = ArrayParts(context, builder, sig.args[0], flat)
        data = builder.bitcast(builder.gep(source.data, [offset]), INT64.as_pointer())
        return _view(context, builder, result, data, [count], [INT64(1)])

    return signature(result, flat, types.int64, types.int64), codegen


@compiles_to(_words)
def words(flat: Any, offset: int, count: int) -> Any:
    """View int64 [count] of the memory of a flat array from element `offset` on."""
    end = offset + count * 8 // flat.itemsize
    return flat[offset:end].view(np.int64)


def _panels(
    typing: Any, flat: Any, offset: Any, count: Any, rows: Any, panel_stride: Any, row_stride: Any
) -> Any:
    result = types.Array(flat.dtype, 3, "A")
    width = INT64(lanes_of(flat.dtype))

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        flat, offset, count, rows, panel_stride, row_stride = values
        source = ArrayParts(context, builder, sig.args[0], flat)
        data = builder.gep(source.data, [offset])
        strides = [panel_stride, row_stride, INT64(1)]
        return _view(context, builder, result, data, [count, rows, width], strides)

    integers = [types.int64] * 5
    return signature(result, flat, *integers), codegen


@compiles_to(_panels)
def panels(
    flat: Any, offset: int, count: int, rows: int, panel_stride: int, row_stride: int
) -> Any:
    """View [count, rows, lanes] of a flat array: panels of columns, each one vector wide.

    With strides (lanes, ld) it is a row-major matrix of row stride ld; with (rows * lanes, lanes) a
    packed one, whose panels are contiguous. The view owns nothing.
    """
    size = flat.itemsize
    return np.lib.stride_tricks.as_strided(
        flat.reshape(-1)[offset:],
        (count, rows, lanes(flat)),
        (panel_stride * size, row_stride * size, size),
    )


def _panels_of(typing: Any, m: Any, column: Any, count: Any) -> Any:
    result = types.Array(m.dtype, 3, "A")
    width = INT64(lanes_of(m.dtype))

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        m, column, count = values
        view = ArrayParts(context, builder, sig.args[0], m)
        rows = cgutils.unpack_tuple(builder, view.shape)[0]
        stride = strides_of(builder, sig.args[0], view)[0]
        shape, strides = [count, rows, width], [width, stride, INT64(1)]
        data = builder.gep(view.data, [column])
        return _view(context, builder, result, data, shape, strides)

    return signature(result, m, types.int64, types.int64), codegen


@compiles_to(_panels_of)
def panels_of(m: Any, column: int, count: int) -> Any:
    """View [count, rows, lanes] of a matrix: panels of its columns from one on, where they lie."""
    width = lanes(m)
    strides = (width * m.itemsize, *m.strides)
    return np.lib.stride_tricks.as_strided(m[:, column:], (count, len(m), width), strides)


def _panel_of(typing: Any, m: Any, column: Any) -> Any:
    result = types.Array(m.dtype, 2, "A")
    width = INT64(lanes_of(m.dtype))

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        m, column = values
        view = ArrayParts(context, builder, sig.args[0], m)
        strides = strides_of(builder, sig.args[0], view)
        if len(strides) == 3:
            column = builder.mul(builder.sdiv(column, width), strides[0])
        rows = cgutils.unpack_tuple(builder, view.shape)[-2]
        data = builder.gep(view.data, [column])
        return _view(context, builder, result, data, [rows, width], [strides[-2], INT64(1)])

    return signature(result, m, types.int64), codegen


@compiles_to(_panel_of)
def panel_of(m: Any, column: int) -> Any:
    """View [rows, lanes] of a matrix, or of panels: the columns of the vector that begins there."""
    width = lanes(m)
    return m[column // width] if m.ndim == 3 else m[:, column : column + width]


def element_pointer(
    context: Any, builder: Any, kind: Any, value: Any, row: Any, column: Any
) -> Any:
    """Pointer to element (row, column) of a matrix, and its row stride in elements."""
    view = ArrayParts(context, builder, kind, value)
    stride = strides_of(builder, kind, view)[0]
    return builder.gep(view.data, [builder.add(builder.mul(row, stride), column)]), stride


def strides_of(builder: Any, kind: Any, view: Any) -> list[Any]:
    """The strides of an array in elements."""
    shift = INT64(2 if kind.dtype.bitwidth == 32 else 3)
    return [builder.ashr(x, shift) for x in cgutils.unpack_tuple(builder, view.strides)]


def load_from(builder: Any, vector: Vector, pointer: Any) -> Any:
    return builder.load(
        builder.bitcast(pointer, vector.llvm.as_pointer()), align=vector.dtype.bitwidth // 8
    )


def store_to(builder: Any, vector: Vector, value: Any, pointer: Any) -> None:
    builder.store(
        value,
        builder.bitcast(pointer, vector.llvm.as_pointer()),
        align=vector.dtype.bitwidth // 8,
    )


def _lanes(typing: Any, array: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return INT64(lanes_of(sig.args[0].dtype))

    return signature(types.int64, array), codegen


@compiles_to(_lanes)
def lanes(array: Any) -> int:
    """Lanes of a vector of the array's dtype."""
    return int(machine.VECTOR_BYTES // array.itemsize)


def _load(typing: Any, m: Any, row: Any, column: Any) -> Any:
    vector = Vector(m.dtype)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pointer, _ = element_pointer(context, builder, sig.args[0], *values)
        return load_from(builder, vector, pointer)

    return signature(vector, m, types.int64, types.int64), codegen


@compiles_to(_load)
def load(m: Any, row: int, column: int) -> Any:
    """The vector at m[row, column : column + lanes]."""
    return m[row, column : column + lanes(m)].copy()


@compiles_to(_load)
def load_across(m: Any, row: int, column: int) -> Any:
    """The vector that begins at m[row, column] of a contiguous matrix, also across the row's end.

    The row must be below `rows_across(m, column + lanes(m))`.
    """
    first = row * m.shape[1] + column
    return m.reshape(-1)[first : first + lanes(m)].copy()


@inlined
def rows_across(m: Any, width: int) -> Any:
    """From how many rows of a contiguous matrix `width` elements can be read, also across the end.

    All but the last few, if the rows are shorter.
    """
    return m.shape[0] + 1 - (width + m.shape[1] - 1) // m.shape[1]


def _broadcast(typing: Any, m: Any, row: Any, column: Any) -> Any:
    vector = Vector(m.dtype)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pointer, _ = element_pointer(context, builder, sig.args[0], *values)
        return broadcast_scalar(builder, vector.llvm, builder.load(pointer))

    return signature(vector, m, types.int64, types.int64), codegen


@compiles_to(_broadcast)
def broadcast(m: Any, row: int, column: int) -> Any:
    """A vector with m[row, column] in each lane."""
    return np.full(lanes(m), m[row, column])


def _store(typing: Any, m: Any, row: Any, column: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pointer, _ = element_pointer(context, builder, sig.args[0], *values[:3])
        store_to(builder, sig.args[3], values[3], pointer)
        return context.get_dummy_value()

    return signature(types.void, m, types.int64, types.int64, value), codegen


@compiles_to(_store)
def store(m: Any, row: int, column: int, value: Any) -> None:
    """m[row, column : column + lanes] = value."""
    m[row, column : column + lanes(m)] = value


def _sums_of_lanes(builder: Any, vector: Vector, rest: list[Any]) -> list[Any]:
    """Emit the sums of the lanes of vectors, a multiple of `lanes` of them, all together."""
    parts, indices = 1, ir.VectorType(INT32, vector.lanes)
    while parts < vector.lanes:
        # Each vector has `parts` sums to come, of as many neighbouring lanes: halve all of two.
        half = vector.lanes // parts // 2
        low = [2 * half * part + n for part in range(2 * parts) for n in range(half)]
        first, second = (ir.Constant(indices, [n + offset for n in low]) for offset in (0, half))
        pairs = zip(rest[::2], rest[1::2], strict=True)
        rest = [
            builder.fadd(builder.shuffle_vector(a, b, first), builder.shuffle_vector(a, b, second))
            for a, b in pairs
        ]
        parts *= 2
    return rest


def _lane_sums(typing: Any, m: Any, row: Any, column: Any) -> Any:
    vector = Vector(m.dtype)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pointer, _ = element_pointer(context, builder, sig.args[0], *values)
        places = [builder.gep(pointer, [INT64(n * vector.lanes)]) for n in range(vector.lanes)]
        vectors = [load_from(builder, vector, place) for place in places]
        return _sums_of_lanes(builder, vector, vectors)[0]

    return signature(vector, m, types.int64, types.int64), codegen


@compiles_to(_lane_sums)
def lane_sums(m: Any, row: int, column: int) -> Any:
    """A vector of the `lane_sum` of each of `lanes` vectors, the first at m[row, column].

    All are added up together, which takes less than half as many instructions.
    """
    n = lanes(m)
    vectors = m[row, column : column + n * n].reshape(n, n)
    return np.array([_halve(vector, np.add) for vector in vectors])


def _store_lane_sums(typing: Any, m: Any, row: Any, column: Any, values: Any) -> Any:
    vector = values.dtype

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        vectors = list(cgutils.unpack_tuple(builder, arguments[3]))
        rest = _sums_of_lanes(builder, vector, vectors)
        at, stride = element_pointer(context, builder, sig.args[0], *arguments[:3])
        width = min(4, vector.lanes)  # of the pieces that rows of four come in
        kind = ir.VectorType(vector.llvm.element, width)
        for n in range(0, len(rest) * vector.lanes, width):
            sums, first_lane = rest[n // vector.lanes], n % vector.lanes
            lanes = ir.Constant(
                ir.VectorType(INT32, width), [first_lane + lane for lane in range(width)]
            )
            place = builder.gep(at, [builder.add(builder.mul(stride, INT64(n // 4)), INT64(n % 4))])
            builder.store(
                builder.shuffle_vector(sums, sums, lanes),
                builder.bitcast(place, kind.as_pointer()),
                align=vector.dtype.bitwidth // 8,
            )
        return context.get_dummy_value()

    return signature(types.void, m, types.int64, types.int64, values), codegen


@compiles_to(_store_lane_sums)
def store_lane_sums(m: Any, row: int, column: int, values: Any) -> None:
    """m[row + i, column + j] = `lane_sum` of the vector 4 i + j of a tuple, as `lane_sums` adds up.

    The tuple has a multiple of `lanes` vectors.
    """
    for n, value in enumerate(values):
        m[row + n // 4, column + n % 4] = _halve(value, np.add)


def _add_wide(typing: Any, m: Any, row: Any, column: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vector = sig.args[3]
        wide, x = ir.VectorType(ir.DoubleType(), vector.lanes), values[3]
        if vector.dtype.bitwidth == 32:
            x = builder.fpext(x, wide)
        pointer, _ = element_pointer(context, builder, sig.args[0], *values[:3])
        pointer = builder.bitcast(pointer, wide.as_pointer())
        builder.store(builder.fadd(builder.load(pointer, align=8), x), pointer, align=8)
        return context.get_dummy_value()

    return signature(types.void, m, types.int64, types.int64, value), codegen


@compiles_to(_add_wide)
def add_wide(m: Any, row: int, column: int, value: Any) -> None:
    """m[row, column : column + lanes] += value for m of float64, lanes those of the value."""
    m[row, column : column + len(value)] += value


# How a line is asked for: whether to be written, and how near (3: to L1, 2: to L2)
TO_L1, TO_L2, TO_WRITE = (0, 3), (0, 2), (1, 3)


def emit_prefetch(builder: Any, pointer: Any, how: tuple[int, int]) -> None:
    address = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [address.type, INT32, INT32, INT32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [address, INT32(how[0]), INT32(how[1]), INT32(1)])


def _ask_to_write(typing: Any, m: Any, row: Any, column: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pointer, _ = element_pointer(context, builder, sig.args[0], *values)
        emit_prefetch(builder, pointer, TO_WRITE)
        return context.get_dummy_value()

    return signature(types.void, m, types.int64, types.int64), codegen


@compiles_to(_ask_to_write)
def ask_to_write(m: Any, row: int, column: int) -> None:
    """Have the line of m[row, column], which may lie beyond the matrix, come to be written."""


def _ask_for(typing: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        place = builder.inttoptr(values[0], ir.IntType(8).as_pointer())
        emit_prefetch(builder, place, TO_L2)
        return context.get_dummy_value()

    return signature(types.void, types.int64), codegen


@compiles_to(_ask_for)
def ask_for(address: int) -> None:
    """Ask for the cache line with an address."""


def _address_of(typing: Any, m: Any, row: Any, column: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pointer, _ = element_pointer(context, builder, sig.args[0], *values)
        return builder.ptrtoint(pointer, INT64)

    return signature(types.int64, m, types.int64, types.int64), codegen


@compiles_to(_address_of)
def address_of(m: Any, row: int, column: int) -> int:
    """Where m[row, column] lies in memory, or would lie."""
    return int(m.ctypes.data) + row * int(m.strides[0]) + column * int(m.itemsize)


# --- transposition, in registers


PIECE_BYTES = 16  # of a row: the most within which every CPU exchanges elements at full speed


def _piece(typing: Any, m: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return INT64(_elements_of_piece(sig.args[0].dtype))

    return signature(types.int64, m), codegen


def _elements_of_piece(dtype: types.Float) -> int:
    return PIECE_BYTES * 8 // int(dtype.bitwidth)


@compiles_to(_piece)
def piece(m: Any) -> int:
    """How many columns are transposed together."""
    return PIECE_BYTES // int(m.itemsize)


def side_by_side(builder: Any, parts: list[Any]) -> Any:
    """One vector of several short ones, a power of two."""
    while len(parts) > 1:
        count = 2 * parts[0].type.count
        order = ir.Constant(ir.VectorType(INT32, count), list(range(count)))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [builder.shuffle_vector(a, b, order) for a, b in pairs]
    return parts[0]


def _interleaved(builder: Any, rows: list[Any]) -> list[Any]:
    """Emit what transposes each of the square blocks that lie side by side in rows.

    In each round row r and row r + half are interleaved: of blocks of two, a0 a1 a2 a3 and
    b0 b1 b2 b3 become a0 b0 a2 b2 and a1 b1 a3 b3.
    """
    size, count = len(rows), rows[0].type.count
    orders = [
        [
            block + n + of_row
            for block in range(0, count, size)
            for n in part
            for of_row in (0, count)
        ]
        for part in (range(size // 2), range(size // 2, size))
    ]
    orders = [ir.Constant(ir.VectorType(INT32, count), order) for order in orders]
    for _ in range(size.bit_length() - 1):
        pairs = zip(rows[: size // 2], rows[size // 2 :], strict=True)
        rows = [builder.shuffle_vector(a, b, order) for a, b in pairs for order in orders]
    return rows


def _first_columns(builder: Any, vector: Vector, places: list[Any]) -> list[Any]:
    """As many columns as a piece has of the rows, `lanes` of them, that begin at these places."""
    width = _elements_of_piece(vector.dtype)
    kind = ir.VectorType(vector.llvm.element, width).as_pointer()
    pieces = [
        builder.load(builder.bitcast(place, kind), align=vector.dtype.bitwidth // 8)
        for place in places
    ]
    return _interleaved(builder, [side_by_side(builder, pieces[r::width]) for r in range(width)])


def _store_rows(context: Any, builder: Any, sig: Any, values: Any, rows: list[Any]) -> Any:
    """Store rows where the first three arguments say."""
    to, stride = element_pointer(context, builder, sig.args[0], *values[:3])
    for r, row in enumerate(rows):
        place = builder.gep(to, [builder.mul(stride, INT64(r))])
        store_to(builder, Vector(sig.args[0].dtype), row, place)
    return context.get_dummy_value()


def _transpose_block(typing: Any, dst: Any, i: Any, j: Any, src: Any, row: Any, column: Any) -> Any:
    vector = Vector(dst.dtype)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        at, stride = element_pointer(context, builder, sig.args[3], *values[3:])
        rows = [builder.gep(at, [builder.mul(stride, INT64(r))]) for r in range(vector.lanes)]
        columns = []
        for n in range(0, vector.lanes, _elements_of_piece(vector.dtype)):
            places = [builder.gep(row, [INT64(n)]) for row in rows]
            columns += _first_columns(builder, vector, places)
        return _store_rows(context, builder, sig, values, columns)

    integers = [types.int64] * 2
    return signature(types.void, dst, *integers, src, *integers), codegen


@compiles_to(_transpose_block)
def transpose_block(dst: Any, i: int, j: int, src: Any, row: int, column: int) -> None:
    """dst[i:, j:] = src[row:, column:].T for a square block of `lanes` rows; it may be in place."""
    n = lanes(dst)
    dst[i : i + n, j : j + n] = src[row : row + n, column : column + n].T


def _transpose_columns(
    typing: Any, dst: Any, i: Any, j: Any, src: Any, row: Any, column: Any, count: Any
) -> Any:
    vector, is_whole = Vector(dst.dtype), isinstance(count, types.NoneType)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        at, stride = element_pointer(context, builder, sig.args[3], *values[3:6])
        numbers = [INT64(r) for r in range(vector.lanes)]
        if not is_whole:
            last = builder.sub(values[6], INT64(1))
            numbers = [builder.select(builder.icmp_signed("<", r, last), r, last) for r in numbers]
        places = [builder.gep(at, [builder.mul(stride, r)]) for r in numbers]
        columns = _first_columns(builder, vector, places)
        if not is_whole:
            nothing = ir.Constant(vector.llvm, [0.0] * vector.lanes)
            columns = [_choose_first(builder, vector, values[6], c, nothing) for c in columns]
        return _store_rows(context, builder, sig, values, columns)

    integers = [types.int64] * 2
    last = count if is_whole else types.int64
    return signature(types.void, dst, *integers, src, *integers, last), codegen


@compiles_to(_transpose_columns)
def transpose_columns(
    dst: Any, i: int, j: int, src: Any, row: int, column: int, count: int | None
) -> None:
    """dst[i:, j:] = src[row:, column:].T for `lanes` rows and `piece` columns.

    With a count, src has only so many rows from that one on, and zeros are in place of the others.
    If that is 0 or less it has none, but as many fewer before; at least one there must be.
    """
    n, width = lanes(dst), piece(dst)
    rows = n if count is None else min(max(count, 0), n)
    dst[i : i + width, j : j + n] = 0
    dst[i : i + width, j : j + rows] = src[row : row + rows, column : column + width].T


def _transpose_rows(
    typing: Any, dst: Any, i: Any, j: Any, src: Any, column: Any, rows: Any, first: Any
) -> Any:
    vector = Vector(dst.dtype)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        numbers = context.make_array(sig.args[5])(context, builder, values[5])
        listed, places = builder.gep(numbers.data, [values[6]]), []
        for r in range(vector.lanes):
            row = builder.load(builder.gep(listed, [INT64(r)]))
            place, _ = element_pointer(context, builder, sig.args[3], values[3], row, values[4])
            places.append(place)
        columns = _first_columns(builder, vector, places)
        return _store_rows(context, builder, sig, values, columns)

    integer = types.int64
    return signature(types.void, dst, integer, integer, src, integer, rows, integer), codegen


@compiles_to(_transpose_rows)
def transpose_rows(dst: Any, i: int, j: int, src: Any, column: int, rows: Any, first: int) -> None:
    """`transpose_columns` of the rows of a contiguous matrix that `rows` lists from `first` on.

    They must be below `rows_across(src, column + piece)`.
    """
    width = piece(dst)
    for r in range(lanes(dst)):
        dst[i : i + width, j + r] = load_across(src, rows[first + r], column)[:width]


# --- atomics on an int64 array, sequentially consistent, and a hint for a waiting core


def _atomic(operation: Callable[..., Any], arity: int) -> Callable[..., Any]:
    def lowering(typing: Any, array: Any, index: Any, *value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            view = ArrayParts(context, builder, sig.args[0], values[0])
            pointer = builder.gep(view.data, [values[1]])
            result = operation(builder, pointer, *values[2:])
            return context.get_dummy_value() if result is None else result

        returns = types.void if operation is _emit_store else types.int64
        return signature(returns, array, types.int64, *[types.int64] * len(value)), codegen

    if arity == 0:
        return lambda typing, array, index: lowering(typing, array, index)
    return lambda typing, array, index, value: lowering(typing, array, index, value)


def _emit_store(builder: Any, pointer: Any, value: Any) -> None:
    builder.store_atomic(value, pointer, "seq_cst", 8)


@compiles_to(_atomic(lambda builder, pointer: builder.load_atomic(pointer, "seq_cst", 8), 0))
def atomic_load(array: Any, index: int) -> int:
    """array[index], seen in one order by all threads."""
    return int(array[index])


@compiles_to(_atomic(_emit_store, 1))
def atomic_store(array: Any, index: int, value: int) -> None:
    """array[index] = value, seen in one order by all threads."""
    array[index] = value


@compiles_to(
    _atomic(lambda builder, pointer, value: builder.atomic_rmw("add", pointer, value, "seq_cst"), 1)
)
def atomic_add(array: Any, index: int, value: int) -> int:
    """Add to array[index] and return what was there before."""
    before = int(array[index])
    array[index] += value
    return before


def _pause(typing: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        if machine.IS_X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause")
            builder.call(hint, [])
        return context.get_dummy_value()

    return signature(types.void), codegen


@compiles_to(_pause)
def pause() -> None:
    """Tell the core that it is spinning."""
