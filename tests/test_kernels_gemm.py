"""The matrix products: right, the same bits whoever computes what, and nothing else written.

All operands of a case are views into one array that is NaN elsewhere: a read outside of an operand
would spoil the result, a write outside of it a NaN.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp.kernels import gemm, machine, optimizer, reference
from fastmlp.kernels._jit import JIT_DISABLED, glue, kernel
from fastmlp.kernels.features import FINDS_ZEROS
from fastmlp.kernels.simd import lanes, matrix, panels
from fastmlp.kernels.tile import WORDS_TOGETHER, NonZero, product_panel

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


class Place(NamedTuple):
    """Where a matrix lies in an array: in panels of `lanes` columns, `panel_stride` apart.

    A row-major matrix is one whose panels are side by side, `lanes` apart.
    """

    offset: int
    rows: int
    columns: int
    row_stride: int
    panel_stride: int
    lanes: int

    def indices(self) -> np.ndarray:
        """Return the indices [rows, columns] of the elements in the array."""
        rows, columns = np.indices((self.rows, self.columns))
        panels, within = np.divmod(columns, self.lanes)
        return self.offset + rows * self.row_stride + panels * self.panel_stride + within

    def part(self, rows: slice = slice(None), columns: slice = slice(None)) -> "Place":
        """Return the place of a block of the matrix."""
        top, bottom, _ = rows.indices(self.rows)
        left, right, _ = columns.indices(self.columns)
        offset = int(self.indices()[top, left])
        return self._replace(offset=offset, rows=bottom - top, columns=right - left)


@glue
def matrix_at(memory, place):
    return matrix(memory, place.offset, place.rows, place.columns, place.row_stride)


@glue
def panels_at(memory, place):
    count = place.columns // place.lanes
    return panels(memory, place.offset, count, place.rows, place.panel_stride, place.row_stride)


@kernel
def multiply(memory, c, a, b, start):
    """As forward and backward use it: b, the weights, in panels."""
    gemm.multiply(
        matrix_at(memory, c), matrix_at(memory, a), panels_at(memory, b), matrix_at(memory, start)
    )


@kernel
def multiply_used(memory, c, a, b, start, used):
    """The same where only some columns are needed."""
    c, a, b = matrix_at(memory, c), matrix_at(memory, a), panels_at(memory, b)
    gemm.multiply(c, a, b, matrix_at(memory, start), None, None, None, used)


@kernel
def multiply_transposed_used(memory, c, a, b, start, used):
    c, a, b = panels_at(memory, c), matrix_at(memory, a), matrix_at(memory, b)
    gemm.multiply_transposed(c, a, b, matrix_at(memory, start), None, None, None, used)


@kernel
def multiply_wide(memory, c, a, b, start, chosen):
    """In panels, however few vectors there are."""
    a, b, start = matrix_at(memory, a), panels_at(memory, b), matrix_at(memory, start)
    gemm.multiply_wide(matrix_at(memory, c), a, b, start, chosen)


@kernel
def multiply_narrow(memory, c, a, b, start, chosen):
    """As `multiply` does with a single vector."""
    a, b, start = matrix_at(memory, a), panels_at(memory, b), matrix_at(memory, start)
    gemm.multiply_narrow(matrix_at(memory, c), a, b[0], start, chosen)


@kernel
def multiply_transposed(memory, c, a, b, start):
    """As the gradient of weights uses it: c in panels."""
    gemm.multiply_transposed(
        panels_at(memory, c), matrix_at(memory, a), matrix_at(memory, b), matrix_at(memory, start)
    )


@kernel
def multiply_transposed_narrow(memory, c, a, b, units, every, scratch, is_first):
    """As the gradient of a narrow output layer's weights is made."""
    c, a, b = panels_at(memory, c), matrix_at(memory, a), matrix_at(memory, b)
    gemm.multiply_transposed_narrow(c, a, b, units, every, memory, scratch.offset, is_first)


@kernel
def multiply_chosen(memory, c, a, b, start, chosen, nonzero=None):
    """As the first layer uses it, some of whose inputs are left out."""
    gemm.multiply(
        matrix_at(memory, c),
        matrix_at(memory, a),
        panels_at(memory, b),
        matrix_at(memory, start),
        chosen,
        None,
        nonzero,
    )


@kernel
def multiply_transposed_chosen(memory, c, a, b, start, chosen, every, nonzero=None):
    """The product for few of c's rows; meanwhile columns of a are asked for."""
    a = matrix_at(memory, a)
    gemm.multiply_transposed(
        panels_at(memory, c),
        a,
        panels_at(memory, b),
        matrix_at(memory, start),
        chosen,
        gemm.columns_ahead(a, every),
        nonzero,
    )


@kernel
def descend(memory, c, a, b, rate, l2, chosen, every, nonzero=None):
    a, ahead = matrix_at(memory, a), gemm.columns_ahead(matrix_at(memory, a), every)
    gemm.descend(panels_at(memory, c), a, panels_at(memory, b), rate, l2, chosen, ahead, nonzero)


@kernel
def descend_by_penalty(memory, c, chosen, first, end, rule, l2):
    optimizer.descend_by_penalty(panels_at(memory, c), chosen, first, end, rule, l2)


@kernel
def multiply_rows(memory, c, a, b, sums, cut):
    """As the deltas of few rows are made: a b^T, the columns of both cut in two."""
    c, a, b = matrix_at(memory, c), matrix_at(memory, a), panels_at(memory, b)
    sums, middle = matrix_at(memory, sums), cut * lanes(a)
    gemm.add_row_products(sums, a[:, :middle], b[:cut], True)
    gemm.add_row_products(sums, a[:, middle:], b[cut:], False)
    gemm.store_row_products(c, sums, b.shape[1])


@kernel
def multiply_by_transpose(memory, c, a, b, start, every, scratch):
    """As the deltas of the layer below are made: b, the weights, in panels."""
    c, a, start = matrix_at(memory, c), matrix_at(memory, a), matrix_at(memory, start)
    b = panels_at(memory, b)
    gemm.multiply_by_transpose(c, a, b, start, every, memory, scratch.offset)


@kernel
def pack(memory, dst, src, j):
    gemm.pack(panels_at(memory, dst), matrix_at(memory, src), j)


@kernel
def transpose(memory, dst, src, columns):
    gemm.transpose(panels_at(memory, dst), panels_at(memory, src), columns)


class Memory:
    """An array of NaN with matrices in it."""

    def __init__(self, dtype: type, rng: np.random.Generator, size: int = 600_000) -> None:
        self.array = np.full(size, np.nan, dtype)
        self.lanes = vector_lanes(dtype)
        self._rng = rng
        self._end = 0

    def place(
        self, rows: int, columns: int, values: np.ndarray | None = None, *, packed: bool = False
    ) -> Place:
        """Return a new place with gaps before it and in it, and fill it."""
        gap, pad = (int(n) for n in self._rng.integers(1, 20, 2))
        strides = (columns + pad, self.lanes)
        if packed:
            strides = (self.lanes, rows * self.lanes + pad)
        place = Place(self._end + gap, rows, columns, *strides, self.lanes)
        self._end = int(place.indices().max()) + pad
        assert self._end + 64 < len(self.array)
        if values is not None:
            self[place] = values
        return place

    def __getitem__(self, place: Place) -> np.ndarray:
        return self.array[place.indices()]

    def __setitem__(self, place: Place, values: np.ndarray) -> None:
        self.array[place.indices()] = values

    def copy(self) -> "Memory":
        other = object.__new__(Memory)
        other.__dict__.update(self.__dict__, array=self.array.copy())
        return other


def assert_same(got: Memory, expected: Memory) -> None:
    """All of both arrays agrees, bit for bit."""
    np.testing.assert_array_equal(got.array.view(np.uint8), expected.array.view(np.uint8))


def vector_lanes(dtype: type) -> int:
    return machine.VECTOR_BYTES // np.dtype(dtype).itemsize


def whole_numbers(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Small whole numbers: sums of their products are exact in any order."""
    return rng.integers(-8, 9, (rows, columns))


EVERY = np.arange(420)  # as far as rows and depths go below
PRODUCTS = pytest.mark.parametrize("product", [multiply, multiply_transposed])


@DTYPES
@PRODUCTS
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 4) | st.integers(1, 40),
    depth=st.just(1) | st.integers(1, 70) | st.integers(120, 300),
    vectors=st.integers(1, 9) | st.integers(15, 18),
    packed=st.booleans(),
    start_rows=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_products(
    product: Callable[..., None],
    dtype: type,
    rows: int,
    depth: int,
    vectors: int,
    packed: bool,
    start_rows: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    transposed, columns = product is multiply_transposed, vectors * vector_lanes(dtype)
    memory = Memory(dtype, rng)
    a = memory.place(*((depth, rows) if transposed else (rows, depth)))
    b = memory.place(depth, columns, packed=packed and not transposed)
    start = memory.place(rows if start_rows else 1, columns)
    for operand in (a, b, start):
        memory[operand] = whole_numbers(rng, operand.rows, operand.columns)
    c = memory.place(rows, columns, packed=packed and transposed)  # NaN: written without being read
    expected = memory.copy()
    product(memory.array, c, a, b, start)
    result = np.empty((rows, columns))
    oracle = reference.multiply_transposed if transposed else reference.multiply
    oracle(result, expected[a], expected[b], expected[start])
    expected[c] = result
    assert_same(memory, expected)


@DTYPES
@pytest.mark.parametrize("product", [multiply_used, multiply_transposed_used])
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    depth=st.integers(1, 40) | st.integers(380, 420),
    vectors=st.just(2) | st.integers(1, 6),
    fraction=st.floats(0, 1),
    start_rows=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_columns_that_are_not_used_are_zero(
    product: Callable[..., None],
    dtype: type,
    rows: int,
    depth: int,
    vectors: int,
    fraction: float,
    start_rows: bool,
    seed: int,
) -> None:
    rng, columns = np.random.default_rng(seed), vectors * vector_lanes(dtype)
    memory, used = Memory(dtype, rng), 1 + int(fraction * (columns - 1))
    transposed, is_used = product is multiply_transposed_used, np.arange(columns) < used
    a = memory.place(*((depth, rows) if transposed else (rows, depth)))
    memory[a] = rng.normal(size=(a.rows, a.columns))
    b = memory.place(depth, columns, np.where(is_used, rng.normal(size=(depth, columns)), 0))
    count = rows if start_rows else 1
    start = memory.place(count, columns, np.where(is_used, rng.normal(size=(count, columns)), 0))
    c = memory.place(rows, columns, packed=transposed)
    expected = memory.copy()
    product(expected.array, c, a, b, start, columns)
    product(memory.array, c, a, b, start, used)
    assert not memory[c][:, used:].any()
    assert_same(memory, expected)


@kernel
def three_halves(memory, c, a, b, start):
    """A panel of two vectors without its last half, which products take on some CPUs only."""
    c, a, b = matrix_at(memory, c), matrix_at(memory, a), panels_at(memory, b)
    product_panel(c, 0, a, b, matrix_at(memory, start), None, None, None, 0, a.shape[0], 3, False)


@DTYPES
@pytest.mark.parametrize("vectors", [2, 5])
def test_no_column_that_is_used_is_left_out(dtype: type, vectors: int) -> None:
    rng, v = np.random.default_rng(vectors), vector_lanes(dtype)
    columns = vectors * v
    for used in range(columns - 2 * v + 1, columns + 1):
        memory, is_used = Memory(dtype, rng, 20_000), np.arange(columns) < used
        a = memory.place(11, 5, whole_numbers(rng, 11, 5))
        b = memory.place(5, columns, whole_numbers(rng, 5, columns) * is_used, packed=True)
        start = memory.place(1, columns, whole_numbers(rng, 1, columns) * is_used)
        c = memory.place(11, columns)
        expected = memory.copy()
        expected[c] = expected[start] + expected[a] @ expected[b]
        multiply_used(memory.array, c, a, b, start, used)
        assert_same(memory, expected)
        if vectors == 2 and used <= v + v // 2:
            memory[c] = np.nan
            three_halves(memory.array, c, a, b, start)
            assert_same(memory, expected)


@pytest.mark.jit
@DTYPES
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    depth=st.integers(1, 40) | st.integers(380, 420),
    start=st.sampled_from(["one row", "rows", "c"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_narrow_product_has_the_bits_of_any_other(
    dtype: type, rows: int, depth: int, start: str, seed: int
) -> None:
    rng, columns = np.random.default_rng(seed), vector_lanes(dtype)
    memory = Memory(dtype, rng)
    a = memory.place(rows, depth, rng.normal(size=(rows, depth)))
    b = memory.place(2 * depth, columns, rng.normal(size=(2 * depth, columns)), packed=True)
    chosen = np.flatnonzero(rng.permutation(2 * depth) < depth)
    c = memory.place(rows, columns)
    begin = c
    if start == "c":
        memory[c] = rng.normal(size=(rows, columns))
    else:
        count = rows if start == "rows" else 1
        begin = memory.place(count, columns, rng.normal(size=(count, columns)))
    expected = memory.copy()
    multiply_wide(expected.array, c, a, b, begin, chosen)
    multiply_narrow(memory.array, c, a, b, begin, chosen)
    assert_same(memory, expected)


@pytest.mark.jit
@DTYPES
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 200),
    depth=st.integers(1, 70) | st.integers(380, 420),
    vectors=st.integers(1, gemm.PANEL_VECTORS),
    is_first=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_few_outputs_have_the_bits_of_many(
    dtype: type, rows: int, depth: int, vectors: int, is_first: bool, seed: int
) -> None:
    rng, columns = np.random.default_rng(seed), vectors * vector_lanes(dtype)
    units = int(rng.integers(1, columns + 1))
    memory = Memory(dtype, rng)
    a = memory.place(depth, rows, rng.normal(size=(depth, rows)))
    b = memory.place(depth, columns, padded(rng.normal(size=(depth, units)), columns))
    c = memory.place(rows, columns, packed=True)
    before = padded(rng.normal(size=(rows, units)), columns) * (not is_first)
    start = memory.place(rows, columns, before)
    if not is_first:
        memory[c] = before
    vectors_of_scratch = gemm.PANEL_VECTORS * columns + 1
    scratch = memory.place(1, vectors_of_scratch * vector_lanes(dtype))
    expected = memory.copy()
    multiply_transposed(expected.array, c, a, b, start)
    multiply_transposed_narrow(memory.array, c, a, b, units, EVERY, scratch, is_first)
    memory[scratch] = np.nan
    assert_same(memory, expected)


def padded(values: np.ndarray, columns: int) -> np.ndarray:
    """The values, and zeros behind them in each row."""
    return np.hstack([values, np.zeros((len(values), columns - values.shape[1]))])


@DTYPES
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    inputs=st.integers(1, 70) | st.integers(380, 420),
    depth=st.just(1) | st.integers(1, 40) | st.integers(380, 420),
    vectors=st.integers(1, 9),
    start_rows=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_products_of_chosen_features(
    dtype: type, rows: int, inputs: int, depth: int, vectors: int, start_rows: bool, seed: int
) -> None:
    """Rows of b, or of c and start, that are not in the list are neither read nor written."""
    rng = np.random.default_rng(seed)
    columns = vectors * vector_lanes(dtype)
    chosen = np.flatnonzero(rng.random(inputs) < 0.6)
    chosen = chosen if len(chosen) else np.array([inputs - 1])
    memory = Memory(dtype, rng)
    start = memory.place(1, columns, whole_numbers(rng, 1, columns))
    a = memory.place(rows, len(chosen), whole_numbers(rng, rows, len(chosen)))
    b = memory.place(inputs, columns, packed=True)
    values = memory[b]  # NaN
    values[chosen] = whole_numbers(rng, len(chosen), columns)
    memory[b] = values
    c = memory.place(rows, columns)
    expected = memory.copy()
    multiply_chosen(memory.array, c, a, b, start, chosen)
    result = np.empty((rows, columns))
    reference.multiply(result, expected[a], expected[b], expected[start], chosen)
    expected[c] = result
    assert_same(memory, expected)

    memory = Memory(dtype, rng)
    start = memory.place(inputs if start_rows else 1, columns)
    values = memory[start]  # NaN
    used = chosen if start_rows and inputs > 1 else [0]
    values[used] = whole_numbers(rng, len(used), columns)
    memory[start] = values
    a = memory.place(depth, len(chosen), whole_numbers(rng, depth, len(chosen)))
    b = memory.place(depth, columns, whole_numbers(rng, depth, columns), packed=True)
    c = memory.place(inputs, columns, packed=True)
    expected = memory.copy()
    multiply_transposed_chosen(memory.array, c, a, b, start, chosen, EVERY)
    result = expected[c]
    reference.multiply_transposed(result, expected[a], expected[b], expected[start], chosen)
    expected[c] = result
    assert_same(memory, expected)


def bits_of(a: np.ndarray, first: int) -> NonZero:
    """Return the bits of a matrix as the gather makes them, behind `first` others in each row."""
    words = (first + a.shape[1]) // 64 + 2
    bits = np.ones((len(a), 64 * words), bool)
    bits[:, first : first + a.shape[1]] = a != 0
    of_rows = np.packbits(bits, axis=1, bitorder="little").view(np.int64)
    behind = np.full(WORDS_TOGETHER - 1, -1)
    return NonZero(np.concatenate([of_rows.T.ravel(), behind]), len(a), first)


@pytest.mark.jit
@DTYPES
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 70),
    inputs=st.integers(1, 150) | st.integers(380, 420),
    vectors=st.integers(1, 9),
    first=st.integers(0, 130),
    density=st.sampled_from([0.0, 0.02, 0.2, 0.6, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_products_without_zeros_have_the_same_bits(
    dtype: type, rows: int, inputs: int, vectors: int, first: int, density: float, seed: int
) -> None:
    """And what belongs to zeros alone is not even read, where panels are wide enough."""
    rng = np.random.default_rng(seed)
    columns = vectors * vector_lanes(dtype)
    values = rng.normal(size=(rows, inputs)) * (rng.random((rows, inputs)) < density)
    chosen, nonzero = np.arange(inputs), bits_of(values.astype(dtype), first)
    memory = Memory(dtype, rng)
    start = memory.place(1, columns, rng.normal(size=(1, columns)))
    a = memory.place(rows, inputs, values)
    b = memory.place(inputs, columns, rng.normal(size=(inputs, columns)), packed=True)
    dz = memory.place(rows, columns, rng.normal(size=(rows, columns)), packed=True)
    c = memory.place(rows, columns)
    dw = memory.place(inputs, columns, np.zeros((inputs, columns)), packed=True)
    w = dw._replace(columns=min(vectors, 4) * vector_lanes(dtype))
    rate = 0.3
    expected = memory.copy()
    multiply_chosen(expected.array, c, a, b, start, chosen)
    multiply_transposed_chosen(expected.array, dw, a, dz, start, chosen, EVERY)
    descend(expected.array, w, a, dz, rate, 0.5, chosen, EVERY)
    multiply_chosen(memory.array, c, a, b, start, chosen, nonzero)
    multiply_transposed_chosen(memory.array, dw, a, dz, start, chosen, EVERY, nonzero)
    descend(memory.array, w, a, dz, rate, 0.5, chosen, EVERY, nonzero)
    assert_same(memory, expected)

    if vectors % 4 == 0:
        unused = memory[b]
        unused[~values.any(axis=0)] = np.nan
        memory[b] = unused
        multiply_chosen(memory.array, c, a, b, start, chosen, nonzero)
        np.testing.assert_array_equal(memory[c], expected[c])
    if vectors % 4 == 0 and rows > 1:
        unused = memory[dz]
        unused[~values.any(axis=1)] = np.nan
        memory[dz] = unused
        multiply_transposed_chosen(memory.array, dw, a, dz, start, chosen, EVERY, nonzero)
        assert not np.isnan(memory[dw]).any()


@pytest.mark.jit
@pytest.mark.skipif(not FINDS_ZEROS, reason="nothing tells of zeros here")
@DTYPES
@pytest.mark.parametrize("rows", [5, 7, 70])
def test_half_a_tile_leaves_out_zeros_of_its_own(dtype: type, rows: int) -> None:
    """What belongs to the zeros of one half is not used there, though the other half uses it."""
    rng = np.random.default_rng(rows)
    inputs, columns, half = 70, 4 * vector_lanes(dtype), machine.SKIPPING_ROWS // 2
    used_rows, used_inputs = (np.flatnonzero(np.arange(n) // half % 2 == 0) for n in (rows, inputs))
    values, infinite_rows, infinite_inputs = rng.uniform(0.5, 1.0, (rows, inputs)), [0], [0, 4, 69]
    values[np.ix_(np.delete(np.arange(rows), used_rows), infinite_inputs)] = 0.0
    values[np.ix_(infinite_rows, np.delete(np.arange(inputs), used_inputs))] = 0.0
    chosen, nonzero = np.arange(inputs), bits_of(values.astype(dtype), 0)
    memory = Memory(dtype, rng)
    start = memory.place(1, columns, np.zeros((1, columns)))
    a = memory.place(rows, inputs, values)
    b_values, dz_values = np.ones((inputs, columns)), np.ones((rows, columns))
    b_values[infinite_inputs] = dz_values[infinite_rows] = np.inf
    b = memory.place(inputs, columns, b_values, packed=True)
    dz = memory.place(rows, columns, dz_values, packed=True)
    c = memory.place(rows, columns)
    dw, w = (memory.place(inputs, columns, np.zeros((inputs, columns)), packed=True) for _ in "12")
    multiply_chosen(memory.array, c, a, b, start, chosen, nonzero)
    multiply_transposed_chosen(memory.array, dw, a, dz, start, chosen, EVERY, nonzero)
    descend(memory.array, w, a, dz, 0.3, 0.0, chosen, EVERY, nonzero)
    for place, used in ((c, used_rows), (dw, used_inputs), (w, used_inputs)):
        assert np.isinf(memory[place][used]).all()
        assert np.isfinite(np.delete(memory[place], used, axis=0)).all()


def with_zeros(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return random numbers, a third of them zeros of either sign."""
    numbers = rng.normal(size=(rows, columns))
    return np.where(rng.random((rows, columns)) < 0.3, np.copysign(0.0, numbers), numbers)


@DTYPES
@settings(max_examples=40, deadline=None)
@given(
    inputs=st.integers(1, 70),
    depth=st.just(1) | st.integers(1, 70),
    vectors=st.integers(1, 4),
    l2=st.sampled_from([0.0, 0.01]),
    seed=st.integers(0, 2**32 - 1),
)
def test_descent_has_the_bits_of_product_and_step(
    dtype: type, inputs: int, depth: int, vectors: int, l2: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    columns, rate = vectors * vector_lanes(dtype), float(rng.uniform(0.01, 1.0))
    chosen = np.flatnonzero(rng.random(inputs) < 0.6)
    memory = Memory(dtype, rng)
    a = memory.place(depth, len(chosen) or 1, rng.normal(size=(depth, len(chosen) or 1)))
    a = a.part(columns=slice(0, len(chosen))) if len(chosen) else a._replace(columns=0)
    b = memory.place(depth, columns, with_zeros(rng, depth, columns), packed=True)
    c = memory.place(inputs, columns, with_zeros(rng, inputs, columns), packed=True)
    penalty = dtype(l2) * memory[c] if l2 > 0.0 else np.zeros((inputs, columns))
    start = memory.place(inputs, columns, penalty)
    g = memory.place(inputs, columns, penalty, packed=True)
    before, rule = memory[c], optimizer.Rule(optimizer.SGD, rate, 0.0, 0.0, 1.0, *[0.0] * 7)
    multiply_transposed_chosen(memory.array, g, a, b, start, chosen, EVERY)
    gradient, expected = memory[g], memory.copy()
    descend(memory.array, c, a, b, rate, l2, chosen, EVERY)
    after_descent = memory[c]
    untouched = np.setdiff1d(np.arange(inputs), chosen)
    np.testing.assert_array_equal(after_descent[untouched], before[untouched])
    if l2 > 0.0:
        descend_by_penalty(memory.array, c, chosen, 0, inputs, rule, l2)
        np.testing.assert_array_equal(memory[c][chosen], after_descent[chosen])
    result = memory[c]
    expected[c] = result
    assert_same(memory, expected)
    theta = before.copy()
    optimizer.sgd(theta, gradient, rule)
    np.testing.assert_array_equal(result, theta)
    np.testing.assert_array_equal(np.signbit(result), np.signbit(theta))
    exact = before.astype(np.float64)
    exact[untouched] -= rate * l2 * exact[untouched]
    if len(chosen):
        reference.descend(exact, memory[a], memory[b], rate, l2, chosen)
    eps = 4 * depth * np.finfo(dtype).eps
    np.testing.assert_allclose(result, exact, rtol=eps, atol=20 * eps)


@DTYPES
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    units=st.integers(1, 40),
    vectors=st.integers(1, 9),
    data=st.data(),
)
def test_products_of_rows(
    dtype: type, rows: int, units: int, vectors: int, data: st.DataObject
) -> None:
    """Exact, zero in the padding, nothing else written, wherever the columns are cut."""
    rng = np.random.default_rng(rows + units)
    columns = vectors * vector_lanes(dtype)
    memory = Memory(dtype, rng)
    a = memory.place(rows, columns, whole_numbers(rng, rows, columns))
    b = memory.place(units, columns, whole_numbers(rng, units, columns), packed=True)
    v = vector_lanes(dtype)
    padding = data.draw(st.integers(0, 2))  # vectors
    c = memory.place(rows, (-(-units // v) + padding) * v)
    sums = memory.place(rows, c.columns * v)  # NaN
    expected = memory.copy()
    multiply_rows(memory.array, c, a, b, sums, data.draw(st.integers(1, vectors)))
    expected[sums] = memory[sums]
    result = np.zeros((rows, c.columns))
    result[:, :units] = expected[a] @ expected[b].T
    expected[c] = result
    assert_same(memory, expected)


@DTYPES
def test_sums_of_few_rows_fit(dtype: type) -> None:
    """In `SUMMED_VECTORS` vectors, of at least one vector of units."""
    for rows in range(1, machine.FEW_ROWS + 1):
        units = gemm.units_summed(rows, vector_lanes(dtype))
        assert units > 0
        assert units % vector_lanes(dtype) == 0
        assert rows * units <= machine.SUMMED_VECTORS


@pytest.mark.jit
@DTYPES
@pytest.mark.parametrize(
    ("rows", "units", "outputs"),
    [(1, 3, 5), (9, 40, 33), (70, 100, 400), (256, 650, 400), (256, 640, 390), (260, 100, 1000)],
)
def test_products_with_a_transpose(dtype: type, rows: int, units: int, outputs: int) -> None:
    """Exact, zero in the padding, nothing else written; also in blocks several panels wide."""
    rng, v = np.random.default_rng(rows), vector_lanes(dtype)
    memory = Memory(dtype, rng, 2_000_000)
    a = memory.place(rows, outputs, whole_numbers(rng, rows, outputs))
    across = -(-outputs // v) * v
    b = memory.place(units, across, whole_numbers(rng, units, across), packed=True)
    c = memory.place(rows, -(-units // v) * v)
    start = memory.place(1, c.columns, np.zeros((1, c.columns)))
    scratch = memory.place(gemm.TRANSPOSED_VECTORS, v, packed=True)
    expected = memory.copy()
    multiply_by_transpose(memory.array, c, a, b, start, np.arange(outputs + v), scratch)
    expected[scratch] = memory[scratch]
    result = np.zeros((rows, c.columns))
    result[:, :units] = expected[a] @ expected[b][:, :outputs].T
    expected[c] = result
    assert_same(memory, expected)


@DTYPES
def test_pack(dtype: type) -> None:
    rng = np.random.default_rng(9)
    v = vector_lanes(dtype)
    memory = Memory(dtype, rng)
    src = memory.place(7, 5 * v, rng.normal(size=(7, 5 * v)))
    dst = memory.place(7, 3 * v, packed=True)
    expected = memory.copy()
    pack(memory.array, dst, src, v)
    expected[dst] = expected[src][:, v : 4 * v]
    assert_same(memory, expected)


def rounded(value: Fraction, dtype: type) -> Fraction:
    """Return the nearest number with the dtype's precision, the even one of two."""
    if value == 0:
        return value
    exponent = math.floor(math.log2(abs(value))) + 1
    unit = Fraction(2) ** (exponent - np.finfo(dtype).nmant - 1)
    return round(value / unit) * unit


@DTYPES
@PRODUCTS
def test_each_element_is_one_chain(product: Callable[..., None], dtype: type) -> None:
    """c = start, then c = fma(a[k], b[k], c) for each k in turn, with one rounding each."""
    rng = np.random.default_rng(6)
    rows, depth, columns = machine.TILE_ROWS + 1, 19, vector_lanes(dtype)
    memory = Memory(dtype, rng)
    a = rng.normal(size=(rows, depth)).astype(dtype)
    b = rng.normal(size=(depth, columns)).astype(dtype)
    start = rng.normal(size=(1, columns)).astype(dtype)
    factors = a.T if product is multiply_transposed else a
    places = [memory.place(*operand.shape, operand) for operand in (factors, b, start)]
    c = memory.place(rows, columns)
    product(memory.array, c, *places)
    result = memory[c]
    is_fused = dtype is np.float32 if JIT_DISABLED else machine.HAS_FMA
    for i in range(rows):
        for j in range(columns):
            total = Fraction(float(start[0, j]))
            for k in range(depth):
                term = Fraction(float(a[i, k])) * Fraction(float(b[k, j]))
                total = rounded((term if is_fused else rounded(term, dtype)) + total, dtype)
            assert float(result[i, j]) == float(total), (i, j)


@DTYPES
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    depth=st.integers(1, 70) | st.just(2 * machine.DEPTH_BLOCK + 1),
    vectors=st.integers(1, 9),
    data=st.data(),
)
def test_bits_do_not_depend_on_the_split(
    dtype: type, rows: int, depth: int, vectors: int, data: st.DataObject
) -> None:
    """Blocks of rows, columns and depth, computed apart and by either product: as the whole."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    v = vector_lanes(dtype)
    columns = vectors * v
    memory = Memory(dtype, rng)
    values = [rng.normal(size=shape) for shape in ((rows, depth), (depth, columns), (1, columns))]
    a, b, start = (memory.place(*value.shape, value) for value in values)
    a_transposed = memory.place(depth, rows, values[0].T)
    c = memory.place(rows, columns)
    whole = memory.copy()
    multiply(whole.array, c, a, b, start)
    row, column = data.draw(st.integers(0, rows)), v * data.draw(st.integers(0, vectors))
    for high in (slice(0, row), slice(row, rows)):
        for wide in (slice(0, column), slice(column, columns)):
            if high.start == high.stop or wide.start == wide.stop:
                continue
            part, first = c.part(high, wide), start.part(columns=wide)
            if data.draw(st.booleans()):
                factors, others = a_transposed.part(columns=high), b.part(columns=wide)
                multiply_transposed(memory.array, part, factors, others, first)
                continue
            middle = data.draw(st.integers(0, depth - 1))
            for deep in (slice(0, middle), slice(middle, depth)):
                if deep.start < deep.stop:
                    factors, others = a.part(high, deep), b.part(deep, wide)
                    multiply(memory.array, part, factors, others, first)
                    first = part  # goes on from there
    assert_same(memory, whole)


@DTYPES
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_bad_factor_spoils_its_row_alone(dtype: type, bad: float) -> None:
    rng = np.random.default_rng(7)
    v, rows = vector_lanes(dtype), 2 * machine.TILE_ROWS
    memory = Memory(dtype, rng)
    values = rng.uniform(1, 2, size=(rows, 5))
    values[3, 4] = bad
    a, b = memory.place(rows, 5, values), memory.place(5, 4 * v, rng.uniform(1, 2, (5, 4 * v)))
    start, c = memory.place(1, 4 * v, np.zeros(4 * v)), memory.place(rows, 4 * v)
    multiply(memory.array, c, a, b, start)
    finite = np.isfinite(memory[c])
    assert not finite[3].any()
    assert np.delete(finite, 3, axis=0).all()


@DTYPES
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 64),
    spare=st.integers(0, 3),
    packed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_transpose(
    dtype: type, rows: int, columns: int, spare: int, packed: bool, seed: int
) -> None:
    """Of as many columns as asked for, in whole pieces; `spare` vectors of rows are not there."""
    rng = np.random.default_rng(seed)
    v, width = vector_lanes(dtype), 16 // np.dtype(dtype).itemsize
    memory, whole = Memory(dtype, rng), -(-columns // v) * v
    src = memory.place(rows, whole, rng.normal(size=(rows, whole)), packed=packed)
    dst = memory.place(whole, (-(-rows // v) + spare) * v, packed=True)
    expected = memory.copy()
    transpose(memory.array, dst, src, columns)
    result, taken = expected[dst].copy(), -(-columns // width) * width
    reference.transpose(result[:taken], expected[src][:, :taken])
    expected[dst] = result
    assert_same(memory, expected)
