"""Sums over the rows of matrices [units, rows], and their making from samples."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastmlp.kernels import machine, turned

Array = NDArray[Any]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
UNITS = [1, 3, 4, 5, 13]


def amid_nan(values: Array) -> tuple[Array, Array]:
    """A matrix with NaN all around, and the view on it."""
    whole = np.full((len(values) + 2, values.shape[1] + 16), np.nan, values.dtype)
    view = whole[1:-1, : values.shape[1]]
    view[...] = values
    return whole, view


def lanes_of(dtype: type) -> int:
    return machine.VECTOR_BYTES // np.dtype(dtype).itemsize


def in_panels(values: Array) -> Array:
    """Values [units, rows] as turned passes have them, in one row: NaN where there are no units."""
    units, rows = values.shape
    v = lanes_of(values.dtype)
    panels = np.full((rows // v, turned.in_tiles(units), v), np.nan, values.dtype)
    panels[:, :units] = values.reshape(units, -1, v).swapaxes(0, 1)
    return panels.reshape(1, -1)


def matrix_of(panels: Array, units: int) -> Array:
    """The matrix [units, rows] again."""
    v = lanes_of(panels.dtype)
    return (
        panels.reshape(-1, turned.in_tiles(units), v)[:, :units].swapaxes(0, 1).reshape(units, -1)
    )


def scratch(dtype: type) -> Array:
    return np.full((4, 4), np.nan, dtype)


@DTYPES
@pytest.mark.parametrize("inputs", UNITS)
@pytest.mark.parametrize("outputs", [*UNITS, 37])
def test_multiply_units(outputs: int, inputs: int, dtype: type) -> None:
    """Both ways through packed weights, for a whole tile of vectors of rows and for fewer."""
    rng, v = np.random.default_rng(outputs), lanes_of(dtype)
    w = rng.normal(size=(inputs, outputs)).astype(dtype)
    bias = np.zeros((1, outputs + 16), dtype)
    bias[0, :outputs] = rng.normal(size=outputs)
    across = -(-outputs // v) * v
    wide = np.zeros((inputs, across), dtype)
    wide[:, :outputs] = w
    packed = wide.reshape(inputs, -1, v).swapaxes(0, 1).reshape(1, -1)
    axes = turned.Axis(inputs, v, v), turned.Axis(outputs, inputs, 1)
    for count in (1, 2, 3, 4):
        a = rng.normal(size=(inputs, count * v)).astype(dtype)
        z = in_panels(np.zeros((outputs, count * v), dtype))
        turned.multiply_units(z, in_panels(a), packed, bias, count, axes[1], axes[0])
        expected = w.T.astype(np.float64) @ a + bias[0, :outputs, None]
        eps = 100 * np.finfo(dtype).eps
        np.testing.assert_allclose(matrix_of(z, outputs), expected, rtol=0, atol=eps)
        dz, da = rng.normal(size=(outputs, count * v)).astype(dtype), in_panels(a)
        zeros = np.zeros((1, inputs + 16), dtype)
        turned.multiply_units(da, in_panels(dz), packed, zeros, count, *axes)
        expected = w.astype(np.float64) @ dz
        np.testing.assert_allclose(matrix_of(da, inputs), expected, rtol=0, atol=eps)


@DTYPES
@pytest.mark.parametrize("n", UNITS)
@pytest.mark.parametrize("m", UNITS)
def test_multiply_rows(m: int, n: int, dtype: type) -> None:
    rng = np.random.default_rng(m + n)
    a, b = (rng.normal(size=(units, 48)).astype(dtype) for units in (m, n))
    for low, end in ((0, n), (0, min(n, 4)), (4, n)):
        if low < end:
            whole, c = amid_nan(np.zeros((m, end - low), dtype))
            turned.multiply_rows(
                c, in_panels(a), m, in_panels(b), low, end, n, 48 // lanes_of(dtype), scratch(dtype)
            )
            np.testing.assert_allclose(c, a @ b[low:end].T, rtol=0, atol=200 * np.finfo(dtype).eps)
            c[...] = np.nan
            assert np.isnan(whole).all()


@DTYPES
@pytest.mark.parametrize("m", UNITS)
def test_add_rows(m: int, dtype: type) -> None:
    a = np.random.default_rng(m).normal(size=(m, 48)).astype(dtype)
    for low, end in ((0, m), (0, min(m, 4)), (4, m)):
        if low < end:
            whole, c = amid_nan(np.zeros((1, end - low), dtype))
            panels = in_panels(a)
            turned.add_rows(c, panels, low, end, m, 48 // lanes_of(dtype), scratch(dtype))
            expected = a[low:end].sum(axis=1)
            np.testing.assert_allclose(c[0], expected, rtol=0, atol=100 * np.finfo(dtype).eps)
            c[...] = np.nan
            assert np.isnan(whole).all()


@DTYPES
@pytest.mark.parametrize("size", [1, 3, 4, 5, 16, 19, 37])
def test_turn(size: int, dtype: type) -> None:
    """Also of the last samples, behind which nothing may be read."""
    rng, v = np.random.default_rng(size), lanes_of(dtype)
    x = rng.normal(size=(70, size)).astype(dtype)
    for rows in (rng.permutation(70)[:64], np.arange(6, 70), np.arange(64)):
        whole = np.full((48 // v + 2, -(-size // 16) * 16, v), np.nan, dtype)
        turned.turn(whole[1:-1], x, rows[16:])
        c = whole[1:-1].swapaxes(0, 1).reshape(-1, 48)
        np.testing.assert_array_equal(c[:size], x[rows[16:]].T)
        whole[1:-1] = np.nan
        assert np.isnan(whole).all()
