"""Each vector operation against NumPy, with the compiler and without; the atomics between threads.

The expectations are written in NumPy here, so they hold both what the operations compile to and,
with NUMBA_DISABLE_JIT=1, the line of NumPy beside each.
"""

import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastmlp.kernels import machine
from fastmlp.kernels import team as kernel_team
from fastmlp.kernels._jit import JIT_DISABLED, kernel
from fastmlp.kernels.simd import (
    GUESS_RECIPROCAL,
    GUESS_ROOT,
    absolute,
    add_outer_product,
    add_shifted_bits,
    add_wide,
    address_of,
    any_less,
    atomic_add,
    atomic_load,
    atomic_store,
    broadcast,
    by_dtype,
    choose_less,
    compress,
    copy_sign,
    count_bits,
    either,
    fill,
    first_lanes,
    fma,
    guess_inverse_root,
    guess_reciprocal,
    is_double,
    lane_max,
    lane_sum,
    lane_sums,
    lanes,
    load,
    matrix,
    nonzero_lanes,
    panel_of,
    panels,
    pause,
    polynomial,
    power_of_two,
    scale,
    smaller_magnitude,
    square_root,
    square_sum,
    store,
    store_lane_sums,
    table,
    transpose_block,
    transpose_columns,
    transpose_rows,
)
from fastmlp.kernels.team import barrier, share

Array = NDArray[Any]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def vector_lanes(dtype: type) -> int:
    return machine.VECTOR_BYTES // np.dtype(dtype).itemsize


def whole_numbers(dtype: type, rows: int, seed: int = 0) -> Array:
    """Return whole numbers, one row a vector: sums of their products are exact."""
    rng = np.random.default_rng(seed)
    return rng.integers(-50, 50, (rows, vector_lanes(dtype))).astype(dtype)


# --- vectors: each operation is a kernel that fills out from a, b and c, one vector each


def elementwise(operation: Callable[..., Any]) -> Callable[[Array, Array], None]:
    """Compile operation(a, b, c) on vectors into a function of matrices, x having three rows."""

    @kernel
    def run(out, x):
        store(out, 0, 0, operation(load(x, 0, 0), load(x, 1, 0), load(x, 2, 0)))

    return run


@kernel
def guesses(roots, reciprocals, x):
    for j in range(0, x.shape[1], lanes(x)):
        store(roots, 0, j, guess_inverse_root(load(x, 0, j)))
        store(reciprocals, 0, j, guess_reciprocal(load(x, 0, j)))


@DTYPES
def test_guesses(dtype: type) -> None:
    """Over all exponents at which the results are normal numbers, and all of a mantissa's range."""
    exponents = np.arange(np.finfo(dtype).minexp + 2, np.finfo(dtype).maxexp - 2)
    x = np.ldexp(np.linspace(1, 2, 64, dtype=dtype), exponents[:, None]).reshape(1, -1)
    roots, reciprocals = np.empty_like(x), np.empty_like(x)
    guesses(roots, reciprocals, x)
    np.testing.assert_allclose(roots * np.sqrt(x), 1, rtol=GUESS_ROOT)
    np.testing.assert_allclose(reciprocals * x, 1, rtol=GUESS_RECIPROCAL)


@kernel
def square_sums(out, x):
    for i in range(x.shape[0]):
        out[i] = square_sum(x, i)


@DTYPES
def test_square_sum(dtype: type) -> None:
    x = np.random.default_rng(3).normal(size=(5, 22 * vector_lanes(dtype))).astype(dtype)
    out = np.empty(5)
    square_sums(out, x)
    np.testing.assert_allclose(out, np.square(x, dtype=np.float64).sum(axis=1), rtol=1e-14)


def as_integers(x: Array) -> Array:
    return x.view(f"i{x.itemsize}")


trinomial = polynomial(single=(3.0, 0.0, -2.0), double=(-1.0, 4.0, 1.0, 2.0))
doubled_or_negated = by_dtype(kernel(lambda a: a + a), kernel(lambda a: -a))

OPERATIONS = {
    "add": (elementwise(kernel(lambda a, b, c: a + b)), lambda a, b, c: a + b),
    "subtract": (elementwise(kernel(lambda a, b, c: a - b)), lambda a, b, c: a - b),
    "multiply": (elementwise(kernel(lambda a, b, c: a * b)), lambda a, b, c: a * b),
    "divide": (elementwise(kernel(lambda a, b, c: a / b)), lambda a, b, c: a / b),
    "negate": (elementwise(kernel(lambda a, b, c: -a)), lambda a, b, c: -a),
    "fma": (elementwise(kernel(lambda a, b, c: fma(a, b, c))), lambda a, b, c: a * b + c),
    "square_root": (
        elementwise(kernel(lambda a, b, c: square_root(absolute(a)))),
        lambda a, b, c: np.sqrt(abs(a)),
    ),
    "absolute": (elementwise(kernel(lambda a, b, c: absolute(a))), lambda a, b, c: abs(a)),
    "fill": (
        elementwise(kernel(lambda a, b, c: fill(a, 0.1))),
        lambda a, b, c: np.full_like(a, 0.1),
    ),
    "fill_whole": (
        elementwise(kernel(lambda a, b, c: fill(a, 3))),
        lambda a, b, c: np.full_like(a, 3),
    ),
    "choose_less": (
        elementwise(kernel(lambda a, b, c: choose_less(a, b, c, -c))),
        lambda a, b, c: np.where(a < b, c, -c),
    ),
    "power_of_two": (
        elementwise(kernel(lambda a, b, c: power_of_two(a))),
        lambda a, b, c: np.exp2(a),
    ),
    "scale": (
        elementwise(kernel(lambda a, b, c: scale(b, a))),
        lambda a, b, c: np.ldexp(b, a.astype(int)),
    ),
    "copy_sign": (
        elementwise(kernel(lambda a, b, c: copy_sign(a, b))),
        lambda a, b, c: np.copysign(a, b),
    ),
    "smaller_magnitude": (
        elementwise(kernel(lambda a, b, c: smaller_magnitude(a, b))),
        lambda a, b, c: np.minimum(abs(a), abs(b)),
    ),
    "add_shifted_bits": (
        elementwise(kernel(lambda a, b, c: add_shifted_bits(a, b, 3))),
        lambda a, b, c: (as_integers(a) + 8 * as_integers(b)).view(a.dtype),
    ),
    "polynomial": (
        elementwise(kernel(lambda a, b, c: trinomial(a))),
        lambda a, b, c: 3 - 2 * a**2 if a.dtype == np.float32 else -1 + 4 * a + a**2 + 2 * a**3,
    ),
    "by_dtype": (
        elementwise(kernel(lambda a, b, c: doubled_or_negated(a))),
        lambda a, b, c: 2 * a if a.dtype == np.float32 else -a,
    ),
    "is_double": (
        elementwise(kernel(lambda a, b, c: b if is_double(a) else c)),
        lambda a, b, c: b if a.dtype == np.float64 else c,
    ),
}


@DTYPES
@pytest.mark.parametrize("name", OPERATIONS)
def test_elementwise_operation(name: str, dtype: type) -> None:
    compiled, meaning = OPERATIONS[name]
    x = whole_numbers(dtype, 3)
    x[x == 0] = 1  # nothing is divided by zero
    x[1, 0] = x[0, 0]  # one pair is equal
    out = np.full((1, x.shape[1]), np.nan, dtype)
    compiled(out, x)
    np.testing.assert_array_equal(out, [meaning(*x)])


@DTYPES
def test_smaller_magnitude_of_infinity_and_nan(dtype: type) -> None:
    compiled, _ = OPERATIONS["smaller_magnitude"]
    x = np.full((3, vector_lanes(dtype)), 2.0, dtype)
    for number, magnitude in ((-np.inf, 2.0), (np.nan, 2.0), (-0.0, 0.0), (-1.0, 1.0)):
        x[0] = number
        out = np.full((1, x.shape[1]), np.nan, dtype)
        compiled(out, x)
        np.testing.assert_array_equal(out[0], magnitude)
        assert not np.signbit(out).any()


with_tables = pytest.mark.skipif(not machine.HAS_AVX512, reason="tables need AVX-512")
NUMBERS = [float(n) ** 2 for n in range(32)]
TABLES = {
    # entries of float32, shift
    "one vector": (16, 0),
    "two vectors": (32, 0),
    "shifted": (32, 20),
}


@with_tables
@DTYPES
@pytest.mark.parametrize("name", TABLES)
def test_table(name: str, dtype: type) -> None:
    """For any bits of x, with half as many entries for float64."""
    count, shift = TABLES[name]
    look_up = elementwise(kernel(_of_first(table(NUMBERS[:count], NUMBERS[: count // 2], shift))))
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    shape = 3, vector_lanes(dtype)
    x = np.random.default_rng(1).integers(0, np.iinfo(unsigned).max, shape, unsigned)
    out = np.full((1, x.shape[1]), np.nan, dtype)
    look_up(out, x.view(dtype))
    count = count if dtype is np.float32 else count // 2
    np.testing.assert_array_equal(out[0], np.square((x[0] >> shift) % count).astype(dtype))


def _of_first(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b, c: operation(a)


@with_tables
@DTYPES
def test_scale_rounds_fractions_down(dtype: type) -> None:
    compiled, _ = OPERATIONS["scale"]
    x = np.ones((3, vector_lanes(dtype)), dtype)
    x[0] = np.linspace(-2, 2, x.shape[1], endpoint=False)
    out = np.zeros((1, x.shape[1]), dtype)
    compiled(out, x)
    np.testing.assert_array_equal(out[0], np.exp2(np.floor(x[0])))


@DTYPES
def test_power_of_two_over_all_normal_numbers(dtype: type) -> None:
    compiled, _ = OPERATIONS["power_of_two"]
    information = np.finfo(dtype)
    v = vector_lanes(dtype)
    exponents = np.arange(information.minexp, information.maxexp, dtype=dtype)
    x, out = np.zeros((3, v), dtype), np.zeros((1, v), dtype)
    for first in range(0, len(exponents), v):
        part = exponents[first : first + v]
        x[0, : len(part)] = part
        compiled(out, x)
        np.testing.assert_array_equal(out[0, : len(part)], np.ldexp(dtype(1), part.astype(int)))


@DTYPES
def test_scale_rounds_once(dtype: type) -> None:
    """Into subnormal numbers, to 0 and to infinity: as one exact product, rounded."""
    compiled, _ = OPERATIONS["scale"]
    information = np.finfo(dtype)
    v = vector_lanes(dtype)
    mantissas = np.random.default_rng(0).uniform(0.7, 1.5, v).astype(dtype)
    out = np.zeros((1, v), dtype)
    lowest = information.minexp - information.nmant
    for n in (
        lowest - 3,
        lowest,
        lowest + 7,
        information.minexp - 1,
        -1,
        0,
        information.maxexp + 1,
    ):
        x = np.stack([np.full(v, n, dtype), mantissas, mantissas])
        with np.errstate(over="ignore", under="ignore"):
            compiled(out, x)
            np.testing.assert_array_equal(out[0], np.ldexp(mantissas, n))


@DTYPES
def test_fma_rounds_once(dtype: type) -> None:
    if not machine.HAS_FMA:
        pytest.skip("the kernels are compiled without fused multiply-add")
    if JIT_DISABLED and dtype is np.float64:
        pytest.skip("NumPy has no fused multiply-add")
    eps = np.finfo(dtype).eps
    x = np.ones((3, vector_lanes(dtype)), dtype)
    x[0], x[1], x[2] = 1 + eps, 1 - eps, -1
    out = np.zeros((1, x.shape[1]), dtype)
    OPERATIONS["fma"][0](out, x)
    np.testing.assert_array_equal(out, -(float(eps) ** 2))


@pytest.mark.jit
@DTYPES
def test_choose_less_takes_the_other_for_nan(dtype: type) -> None:
    x = np.ones((3, vector_lanes(dtype)), dtype)
    out = np.zeros((1, x.shape[1]), dtype)
    for row in (0, 1):
        x[:2] = 1
        x[row] = np.nan
        OPERATIONS["choose_less"][0](out, x)
        np.testing.assert_array_equal(out, -1)


@kernel
def sum_of_lanes(out, x):
    out[0, 0] = lane_sum(load(x, 0, 0))


@kernel
def largest_lane(out, x):
    out[0, 0] = lane_max(load(x, 0, 0))


@DTYPES
def test_reductions(dtype: type) -> None:
    """The sum has one order: halves are added until one lane is left."""
    rng = np.random.default_rng(1)
    x, out = rng.normal(size=(1, vector_lanes(dtype))).astype(dtype), np.zeros((1, 1), dtype)
    halves = x[0]
    while len(halves) > 1:
        halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
    sum_of_lanes(out, x)
    assert out[0, 0] == halves[0]
    for place in range(x.shape[1]):
        x[0, place] = 10.0 + place
        largest_lane(out, x)
        assert out[0, 0] == x.max()


@kernel
def choose_first_lanes(out, x, count):
    store(out, 0, 0, first_lanes(count, load(x, 0, 0), load(x, 1, 0)))


@DTYPES
def test_first_lanes(dtype: type) -> None:
    x = whole_numbers(dtype, 2)
    v = x.shape[1]
    out = np.zeros((1, v), dtype)
    for count in range(-1, v + 3):
        choose_first_lanes(out, x, count)
        np.testing.assert_array_equal(out[0], np.where(np.arange(v) < count, x[0], x[1]))


@kernel
def bits_in(number):
    return count_bits(number)


def test_count_bits() -> None:
    for number in (0, 1, 6, -1, -(2**63), 2**63 - 1, 0x5555555555555555):
        assert bits_in(np.int64(number)) == bin(number % 2**64).count("1")


@kernel
def compress_lanes(out, x):
    mask = nonzero_lanes(either(load(x, 0, 0), load(x, 1, 0)))
    store(out, 0, 0, compress(load(x, 2, 0), mask))
    return mask


@DTYPES
def test_lanes_that_are_not_zero_side_by_side(dtype: type) -> None:
    rng = np.random.default_rng(6)
    for density in (0.0, 0.1, 0.5, 1.0):
        x = whole_numbers(dtype, 3)
        x[:2] *= rng.random(x[:2].shape) < density
        out = np.full((1, x.shape[1]), np.nan, dtype)
        used = (x[0] != 0) | (x[1] != 0)
        assert compress_lanes(out, x) == sum(1 << n for n in np.flatnonzero(used).tolist())
        np.testing.assert_array_equal(out[0, : used.sum()], x[2, used])
        assert not out[0, used.sum() :].any()


@kernel
def is_less_somewhere(x):
    return any_less(load(x, 0, 0), load(x, 1, 0))


@DTYPES
def test_any_less(dtype: type) -> None:
    x = np.ones((2, vector_lanes(dtype)), dtype)
    assert not is_less_somewhere(x)
    x[1, 1] = np.nan
    assert not is_less_somewhere(x)
    x[1, 1] = 1.0
    for place in (0, x.shape[1] - 1):
        x[0] = 1.0
        x[0, place] = -2.0
        assert is_less_somewhere(x)


# --- memory


@kernel
def copy_vector(flat, to, source, rows, columns, stride, row, column):
    """Copy a vector between two matrices that lie in one flat array; return the number of lanes."""
    m = matrix(flat, source, rows, columns, stride)
    store(matrix(flat, to, rows, columns, stride), row, column, load(m, row, column))
    return lanes(m)


@DTYPES
def test_load_and_store_of_unaligned_vectors(dtype: type) -> None:
    v = vector_lanes(dtype)
    flat = np.arange(20 * v, dtype=dtype)
    expected = flat.copy()
    rows, columns, stride = 2, v + 1, v + 3
    source, to, at = 1, 10 * v + 1, stride + 1
    expected[to + at : to + at + v] = expected[source + at : source + at + v]
    assert copy_vector(flat, to, source, rows, columns, stride, 1, 1) == v
    np.testing.assert_array_equal(flat, expected)


@kernel
def shape_of_matrix(flat, offset, rows, columns, stride):
    m = matrix(flat, offset, rows, columns, stride)
    m[rows - 1, columns - 1] = -1.0
    return m.shape, m.strides, m.size, m.itemsize


@DTYPES
def test_matrix_is_a_view(dtype: type) -> None:
    flat, size = np.zeros(40, dtype), np.dtype(dtype).itemsize
    assert shape_of_matrix(flat, 3, 4, 2, 7) == ((4, 2), (7 * size, size), 8, size)
    assert np.flatnonzero(flat) == 3 + 3 * 7 + 1


@kernel
def fill_panels(flat, offset, count, rows, panel_stride, row_stride):
    m = panels(flat, offset, count, rows, panel_stride, row_stride)
    for p in range(count):
        for r in range(rows):
            store(m[p], r, 0, fill(load(m[p], r, 0), 10 * p + r))
    return m.shape, m.strides, m.size


@DTYPES
def test_panels(dtype: type) -> None:
    """With strides (lanes, columns), the panels are those of a row-major matrix."""
    v, size = vector_lanes(dtype), np.dtype(dtype).itemsize
    flat = np.zeros(3 + 2 * 3 * v, dtype)
    shape = fill_panels(flat, 3, 3, 2, v, 3 * v)
    assert shape == ((3, 2, v), (v * size, 3 * v * size, size), 6 * v)
    row = np.repeat([0, 10, 20], v)
    np.testing.assert_array_equal(flat[3:].reshape(2, -1), [row, row + 1])
    assert not flat[:3].any()


@kernel
def mark_column(flat, offset, count, rows, column):
    """Fill the vector of a column twice: of a matrix, and of packed panels of the same shape."""
    v = lanes(flat)
    one = panel_of(matrix(flat, 0, rows, count * v, count * v), column)
    two = panel_of(panels(flat, offset, count, rows, rows * v, v), column)
    for r in range(rows):
        store(one, r, 0, fill(load(one, r, 0), 1 + r))
        store(two, r, 0, fill(load(two, r, 0), 1 + r))
    return one.shape, two.shape


@DTYPES
def test_panel_of(dtype: type) -> None:
    v, count, rows = vector_lanes(dtype), 3, 2
    size = count * rows * v
    flat = np.zeros(2 * size, dtype)
    assert mark_column(flat, size, count, rows, v) == ((rows, v), (rows, v))
    expected = np.zeros((rows, count * v))
    expected[:, v : 2 * v] = np.arange(1, rows + 1)[:, None]
    np.testing.assert_array_equal(flat[:size].reshape(rows, -1), expected)
    packed = flat[size:].reshape(count, rows, v).transpose(1, 0, 2).reshape(rows, -1)
    np.testing.assert_array_equal(packed, expected)


@DTYPES
@pytest.mark.jit
def test_matrix_holds_no_reference(dtype: type) -> None:
    """The flat array is released when its owner lets it go."""
    flat = np.zeros(20 * vector_lanes(dtype), dtype)
    before = sys.getrefcount(flat)
    for _ in range(100):
        copy_vector(flat, 0, 0, 2, 16, 16, 0, 0)
        shape_of_matrix(flat, 0, 2, 2, 2)
    assert sys.getrefcount(flat) == before


@kernel
def address_in(m, i, j):
    return address_of(m, i, j)


@DTYPES
def test_address_of_counts_bytes_from_the_first_element(dtype: type) -> None:
    m = whole_numbers(dtype, 3)
    place = address_in(m, 1, 1)
    assert place == m[1:, 1:].ctypes.data
    assert address_in(m, 2, 0) - place == m.strides[0] - m.strides[1]


@kernel
def transpose_one_block(dst, i, j, src, row, column):
    transpose_block(dst, i, j, src, row, column)


@DTYPES
def test_transpose_block(dtype: type) -> None:
    v = vector_lanes(dtype)
    rng = np.random.default_rng(2)
    src, dst = (rng.normal(size=(v + 5, v + n)).astype(dtype) for n in (4, 9))
    expected = dst.copy()
    expected[3 : 3 + v, 2 : 2 + v] = src[1 : 1 + v, 4 : 4 + v].T
    transpose_one_block(dst, 3, 2, src, 1, 4)
    np.testing.assert_array_equal(dst, expected)


@kernel
def transpose_some_columns(dst, i, j, src, row, column):
    transpose_columns(dst, i, j, src, row, column, None)


@kernel
def transpose_some_rows(dst, i, j, src, row, column, count):
    transpose_columns(dst, i, j, src, row, column, count)


@DTYPES
def test_transpose_columns(dtype: type) -> None:
    v, width = vector_lanes(dtype), 16 // np.dtype(dtype).itemsize
    rng = np.random.default_rng(4)
    src, before = (rng.normal(size=(v + 5, v + n)).astype(dtype) for n in (4, 9))
    after, expected = before.copy(), before.copy()
    expected[3 : 3 + width, 2 : 2 + v] = src[1 : 1 + v, 4 : 4 + width].T
    transpose_some_columns(after, 3, 2, src, 1, 4)
    np.testing.assert_array_equal(after, expected)
    for count in range(-1, v + 1):
        after[:], lacking = before, slice(2 + max(count, 0), 2 + v)
        some = expected.copy()
        some[3 : 3 + width, lacking] = 0
        transpose_some_rows(after, 3, 2, np.ascontiguousarray(src[: 2 + count]), 2, 4, count)
        some[3 : 3 + width, 2 : lacking.start] = src[2 : 2 + max(count, 0), 4 : 4 + width].T
        np.testing.assert_array_equal(after, some)


@kernel
def transpose_listed_rows(dst, i, j, src, column, rows, first):
    transpose_rows(dst, i, j, src, column, rows, first)


@DTYPES
def test_transpose_rows(dtype: type) -> None:
    v, width = vector_lanes(dtype), 16 // np.dtype(dtype).itemsize
    rng = np.random.default_rng(3)
    src, dst = rng.normal(size=(40, 3)).astype(dtype), rng.normal(size=(20, v + 9)).astype(dtype)
    rows = rng.integers(40 - v, size=v + 5)
    expected = dst.copy()
    for lane, row in enumerate(rows[2 : 2 + v]):
        expected[3 : 3 + width, 2 + lane] = src.ravel()[3 * row + 1 : 3 * row + 1 + width]
    transpose_listed_rows(dst, 3, 2, src, 1, rows, 2)
    np.testing.assert_array_equal(dst, expected)


@kernel
def sums_of_sixteen_rows(dst, i, j, src):
    store_lane_sums(
        dst, i, j,
        (
            load(src, 0, 0), load(src, 1, 0), load(src, 2, 0), load(src, 3, 0),
            load(src, 4, 0), load(src, 5, 0), load(src, 6, 0), load(src, 7, 0),
            load(src, 8, 0), load(src, 9, 0), load(src, 10, 0), load(src, 11, 0),
            load(src, 12, 0), load(src, 13, 0), load(src, 14, 0), load(src, 15, 0),
        ),
    )  # fmt: skip


@kernel
def sums_one_by_one(dst, i, j, src):
    for row in range(16):
        dst[i + row // 4, j + row % 4] = lane_sum(load(src, row, 0))


@DTYPES
def test_store_lane_sums(dtype: type) -> None:
    src = np.random.default_rng(4).normal(size=(16, vector_lanes(dtype))).astype(dtype)
    together, one_by_one = np.full((2, 6, 20), 7, dtype)
    sums_of_sixteen_rows(together, 1, 2, src)
    sums_one_by_one(one_by_one, 1, 2, src)
    np.testing.assert_array_equal(together, one_by_one)  # the same bits


@kernel
def sums_in_memory(dst, src, i, j):
    store(dst, 1, 2, lane_sums(src, i, j))


@DTYPES
def test_lane_sums(dtype: type) -> None:
    v = vector_lanes(dtype)
    src = np.full((3, v * v + 2), np.nan, dtype)
    vectors = src[1, 1 : 1 + v * v].reshape(v, v)
    vectors[...] = np.random.default_rng(4).normal(size=(v, v))
    dst, one_by_one = np.full((2, 3, v + 3), 7, dtype)
    sums_in_memory(dst, src, 1, 1)
    for lane, vector in enumerate(vectors):
        sum_of_lanes(one_by_one[1:, 2 + lane :], vector[None])
    np.testing.assert_array_equal(dst, one_by_one)  # the same bits


@kernel
def outer_product(out, start, a, b):
    x, y, before = load(a, 0, 0), broadcast(a, 1, 2), load(start, 0, 0)
    sums = before, before, before, before
    p, q, r, s = add_outer_product(sums, (x, y), (load(b, 0, 0), load(b, 1, 0)))
    for n, value in enumerate((p, q, r, s)):
        store(out, n, 0, value)


@DTYPES
def test_add_outer_product(dtype: type) -> None:
    v = vector_lanes(dtype)
    start, a, b = (whole_numbers(dtype, v, n)[:2] for n in range(3))
    a = np.ascontiguousarray(np.hstack([a, a, a]))
    out = np.full((4, v), np.nan, dtype)
    outer_product(out, start, a, b)
    expected = [start[0] + x * y for x in (a[0, :v], a[1, 2]) for y in b]
    np.testing.assert_array_equal(out, expected)


@kernel
def add_a_row(m, i, j, row):
    add_wide(m, i, j, load(row, 0, 0))


@DTYPES
def test_add_wide(dtype: type) -> None:
    v = vector_lanes(dtype)
    rng = np.random.default_rng(5)
    m, row = rng.normal(size=(3, v + 4)), rng.normal(size=(1, v)).astype(dtype)
    expected = m.copy()
    expected[1, 3 : 3 + v] += row[0]
    add_a_row(m, 1, 3, row)
    np.testing.assert_array_equal(m, expected)


# --- between threads


def run_together(function: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
    """Call function(*arguments, thread) in `count` threads at once, and return the results."""
    results: list[Any] = [None] * count

    def work(thread: int) -> None:
        results[thread] = function(*arguments, thread)

    threads = [threading.Thread(target=work, args=(t,), daemon=True) for t in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "the threads wait for one another"
    return results


@kernel
def count_up(state, seen, rounds, thread):
    for i in range(rounds):
        seen[thread, i] = atomic_add(state, 0, 1)


@pytest.mark.jit
def test_atomic_add_of_two_threads() -> None:
    """No addition is lost, and no two threads saw the same number before theirs."""
    rounds = 100_000
    state, seen = np.zeros(1, np.int64), np.zeros((2, rounds), np.int64)
    count_up(state, seen, 0, 0)  # compiled before the threads start
    run_together(count_up, 2, state, seen, rounds)
    assert state[0] == 2 * rounds
    np.testing.assert_array_equal(np.sort(seen, axis=None), np.arange(2 * rounds))
    assert (np.diff(seen) > 0).all()


def test_atomics_of_one_thread() -> None:
    state, seen = np.zeros(1, np.int64), np.zeros((1, 3), np.int64)
    count_up(state, seen, 3, 0)
    np.testing.assert_array_equal(seen, [[0, 1, 2]])
    set_and_get(state, 5)
    assert state[0] == 6


@kernel
def set_and_get(state, value):
    atomic_store(state, 0, value)
    pause()
    atomic_store(state, 0, atomic_load(state, 0) + 1)


@kernel
def take_turns(team, threads, message, rounds, thread):
    """Pass a plain number round the threads by way of an atomic turn; count what went wrong."""
    wrong = 0
    for i in range(rounds):
        turn = i * threads + thread
        while atomic_load(team, kernel_team.SAMPLES) != turn:
            pause()
        wrong += message[0] != turn
        message[0] = turn + 1
        atomic_store(team, kernel_team.SAMPLES, turn + 1)
    return wrong


@pytest.mark.jit
def test_atomic_store_publishes_what_was_written_before() -> None:
    team, message = np.zeros(kernel_team.LENGTH, np.int64), np.zeros(1, np.int64)
    take_turns(team, 1, message, 0, 0)
    assert run_together(take_turns, 2, team, 2, message, 100) == [0, 0]
    assert message[0] == 200


@kernel
def meet(team, threads, numbers, rounds, thread):
    """Write this round's number, meet, and count those of the others that are not there yet."""
    missing = 0
    for i in range(rounds):
        numbers[thread] = i
        barrier(team, threads)
        for other in range(threads):
            missing += numbers[other] != i
        barrier(team, threads)
    return missing


@pytest.mark.jit
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_barrier(threads: int) -> None:
    """Also with more threads than cores, when those that wait must make room."""
    team, numbers = np.zeros(kernel_team.LENGTH, np.int64), np.zeros(threads, np.int64)
    meet(team, 1, numbers, 0, 0)
    rounds = 1000
    assert run_together(meet, threads, team, threads, numbers, rounds) == [0] * threads
    assert team[kernel_team.ARRIVED] == 0
    assert team[kernel_team.GENERATION] == (2 * rounds if threads > 1 else 0)


@settings(deadline=None)
@given(length=st.integers(0, 2000), grain=st.integers(1, 100), threads=st.integers(1, 20))
def test_share(length: int, grain: int, threads: int) -> None:
    """The parts follow one another, cover everything, and differ by one grain at most."""
    parts = [share(length, grain, thread, threads) for thread in range(threads)]
    assert parts[0][0] == 0
    assert parts[-1][1] == length
    for (_, end), (begin, _) in pairwise(parts):
        assert end == begin
    assert all(low % grain == 0 for low, _ in parts if low < length)
    grains = [-(-(high - low) // grain) for low, high in parts]
    assert max(grains) - min(grains) <= 1
