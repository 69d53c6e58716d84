"""Sums over the rows of matrices [units, rows], and their making from samples."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastmlp.kernels import turned

Array = NDArray[Any]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
UNITS = [1, 3, 4, 5, 13]


def amid_nan(values: Array) -> tuple[Array, Array]:
    """A matrix with NaN all around, and the view on it."""
    whole = np.full((len(values) + 2, values.shape[1] + 16), np.nan, values.dtype)
    view = whole[1:-1, : values.shape[1]]
    view[...] = values
    return whole, view


def scratch(dtype: type) -> Array:
    return np.full((1, 16), np.nan, dtype)


@DTYPES
@pytest.mark.parametrize("n", UNITS)
@pytest.mark.parametrize("m", UNITS)
def test_row_products(m: int, n: int, dtype: type) -> None:
    rng = np.random.default_rng(m + n)
    _, a = amid_nan(rng.normal(size=(m, 48)).astype(dtype))
    _, b = amid_nan(rng.normal(size=(n, 48)).astype(dtype))
    whole, c = amid_nan(np.zeros((m, n), dtype))
    turned.row_products(c, a, b, scratch(dtype))
    np.testing.assert_allclose(c, a @ b.T, rtol=0, atol=200 * np.finfo(dtype).eps)
    c[...] = np.nan
    assert np.isnan(whole).all()


@DTYPES
@pytest.mark.parametrize("m", UNITS)
def test_row_totals(m: int, dtype: type) -> None:
    _, a = amid_nan(np.random.default_rng(m).normal(size=(m, 48)).astype(dtype))
    whole, c = amid_nan(np.zeros((1, m), dtype))
    turned.row_totals(c, a, scratch(dtype))
    np.testing.assert_allclose(c[0], a.sum(axis=1), rtol=0, atol=100 * np.finfo(dtype).eps)
    c[...] = np.nan
    assert np.isnan(whole).all()


@DTYPES
@pytest.mark.parametrize("size", [1, 3, 4, 5, 16, 19, 37])
def test_turn(size: int, dtype: type) -> None:
    """Also of the last samples, behind which nothing may be read."""
    rng = np.random.default_rng(size)
    x = rng.normal(size=(70, size)).astype(dtype)
    for rows in (rng.permutation(70)[:64], np.arange(6, 70), np.arange(64)):
        whole, c = amid_nan(np.zeros((-(-size // 16) * 16, 64), dtype))
        turned.turn(c, x, rows)
        np.testing.assert_array_equal(c[:size], x[rows].T)
        c[...] = np.nan
        assert np.isnan(whole).all()
