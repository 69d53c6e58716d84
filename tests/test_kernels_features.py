"""The features that are not zero in all rows, and their copies, against NumPy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastmlp.kernels.features import FINDS_ZEROS, gather_features

Array = NDArray[Any]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
UNTOUCHED = -7.0


def gather(x: Array, rows: Array, width: int) -> tuple[Array, Array, Array]:
    """Call the kernel; return the features, their copies, and what is behind the inputs' rows.

    Which of the copies are zero must be right as well.
    """
    count, size = len(rows), x.shape[1]
    flat = np.full((count + 1) * width, UNTOUCHED, x.dtype)
    inputs = flat[: count * width].reshape(count, width)
    features = np.zeros(2 + size + 1, np.int64)
    nonzero = np.full((size // 64 + 2, count), 2**63 - 5)  # what an earlier batch has left there
    gather_features(inputs, x, rows, features, nonzero.ravel(), count)
    used = features[2 : 2 + features[0]]
    copies = inputs[:, : len(used)]
    of_rows = np.ascontiguousarray(nonzero.T).view(np.uint8)
    bits = np.unpackbits(of_rows, axis=1, bitorder="little")
    assert features[1] == (FINDS_ZEROS and 2 * np.count_nonzero(copies) < copies.size)
    if FINDS_ZEROS:
        np.testing.assert_array_equal(bits[:, : len(used)] != 0, copies != 0)
    return used, copies, flat[count * width :]


def expected(x: Array, rows: Array) -> Array:
    used = np.flatnonzero((x[rows] != 0).any(axis=0))
    return used if len(used) else np.zeros(1, np.int64)


def placed(x: Array, before: int, behind_row: int) -> Array:
    """Return a copy that begins `before` elements behind a cache line, its rows farther apart."""
    samples, size = x.shape
    flat = np.full(16 + before + samples * (size + behind_row), np.nan, x.dtype)
    before += -flat.ctypes.data % 64 // x.itemsize
    rows = flat[before : before + samples * (size + behind_row)].reshape(samples, -1)
    rows[:, :size] = x
    return rows[:, :size]


@DTYPES
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_against_numpy(dtype: type, data: st.DataObject) -> None:
    size, samples = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 20))
    behind_row, before = data.draw(st.sampled_from([0, -size % 16])), data.draw(st.integers(0, 16))
    count = data.draw(st.integers(1, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    share = data.draw(st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
    x = np.where(rng.random((samples, size)) < share, rng.normal(size=(samples, size)), 0)
    x = placed(x.astype(dtype), before, behind_row)
    rows = rng.integers(0, samples, count)
    used, copies, behind = gather(x, rows, -(-size // 16) * 16)
    np.testing.assert_array_equal(used, expected(x, rows))
    np.testing.assert_array_equal(copies, x[rows][:, used])
    assert (behind == UNTOUCHED).all()


@DTYPES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "subnormal"])
def test_what_is_not_zero_is_never_left_out(dtype: type, value: Any) -> None:
    """Wherever it is: in whole blocks and behind the last."""
    number = np.finfo(dtype).smallest_subnormal if value == "subnormal" else dtype(value)
    for place in range(150):
        x = np.zeros((3, 150), dtype)
        x[2, place] = number
        used, copies, _ = gather(x, np.array([0, 2, 1]), 160)
        assert used.tolist() == [place]
        np.testing.assert_array_equal(copies[:, 0], [0, number, 0])


@DTYPES
def test_negative_zeros_are_zero(dtype: type) -> None:
    x = np.zeros((2, 150), dtype)
    x[0], x[1, 3] = -0.0, 1.0
    used, copies, _ = gather(x, np.array([0, 1]), 160)
    assert used.tolist() == [3]
    np.testing.assert_array_equal(copies, [[-0.0], [1.0]])
    assert np.signbit(copies[0, 0])
