"""Norms and dropout, kernel by kernel, against their definitions in NumPy."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastmlp.kernels import clip, dropout, norm, reference

Array = NDArray[Any]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ROWS = pytest.mark.parametrize("rows", [1, 2, 7, 64, 65, 300])
WIDTH, UNITS = 32, 29  # whole vectors of either dtype, the last three columns padding
EPSILON = 1e-3


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def padded(values: Array) -> Array:
    """The units' columns, and zeros beyond."""
    result = np.zeros((len(values), WIDTH), values.dtype)
    result[:, :UNITS] = values
    return result


def close(ours: Array, exact: Array, scale: float = 1.0) -> None:
    tolerance = 64 * np.finfo(ours.dtype).eps * scale
    np.testing.assert_allclose(ours, exact, rtol=tolerance, atol=tolerance)


class Layer:
    """Sums u of a layer, and gain and shift, as the kernels take them."""

    def __init__(self, rows: int, dtype: type) -> None:
        r = rng()
        self.u = (3 + 2 * r.normal(size=(rows, UNITS))).astype(dtype)
        self.gain = padded((1 + 0.3 * r.normal(size=(1, UNITS))).astype(dtype))
        self.shift = padded(r.normal(size=(1, UNITS)).astype(dtype))
        self.dz = padded(r.normal(size=(rows, UNITS)).astype(dtype))
        self.z = padded(self.u)
        self.normed = np.full_like(self.z, np.nan)
        self.mean = padded(r.normal(size=(1, UNITS)).astype(dtype))
        self.var = padded((1 + r.random((1, UNITS))).astype(dtype))
        self.dgain, self.dshift = np.full_like(self.mean, np.nan), np.full_like(self.mean, np.nan)

    def xhat(self, axis: int) -> Array:
        u = self.u.astype(np.float64)
        centered = u - u.mean(axis, keepdims=True)
        return np.asarray(centered / np.sqrt(u.var(axis, keepdims=True) + EPSILON))

    def check(self, xhat: Array) -> None:
        gain, shift = self.gain[:, :UNITS], self.shift[:, :UNITS]
        close(self.normed[:, :UNITS], xhat, 8)
        close(self.z[:, :UNITS], gain * xhat + shift, 16)
        assert not self.z[:, UNITS:].any()

    def check_backward(self, xhat: Array, axis: int) -> None:
        """dL/du of L = sum dz z, by the derivative of xhat, with both means."""
        dz = self.dz_before.astype(np.float64)
        close(self.dgain[0, :UNITS], (dz * xhat).sum(0), len(dz))
        close(self.dshift[0, :UNITS], dz.sum(0), len(dz))
        g = dz * self.gain[:, :UNITS]
        sigma = np.sqrt(self.u.astype(np.float64).var(axis, keepdims=True) + EPSILON)
        mean_g = g.mean(axis, keepdims=True)
        mean_gx = (g * xhat).mean(axis, keepdims=True)
        close(self.dz[:, :UNITS], (g - mean_g - xhat * mean_gx) / sigma, 64)
        assert not self.dz[:, UNITS:].any()

    @property
    def dz_before(self) -> Array:
        return Layer(len(self.u), self.u.dtype.type).dz[:, :UNITS]


@DTYPES
@ROWS
def test_batch_norm(rows: int, dtype: type) -> None:
    layer = Layer(rows, dtype)
    spread = np.full_like(layer.mean, np.nan)
    mean, var = layer.mean.copy(), layer.var.copy()
    norm.batch_norm_forward(
        layer.z, layer.normed, spread, layer.mean, layer.var, layer.gain, layer.shift, EPSILON,
        0.25, 1,
    )  # fmt: skip
    xhat = layer.xhat(0)
    layer.check(xhat)
    if rows == 1:
        np.testing.assert_array_equal(layer.mean, mean)
        np.testing.assert_array_equal(layer.var, var)
    else:
        u = layer.u.astype(np.float64)
        close(layer.mean[0, :UNITS], 0.75 * mean[0, :UNITS] + 0.25 * u.mean(0))
        close(layer.var[0, :UNITS], 0.75 * var[0, :UNITS] + 0.25 * u.var(0, ddof=1), 4)
    norm.batch_norm_backward(
        layer.dz, layer.normed, spread, layer.gain, layer.dgain, layer.dshift, 1
    )
    layer.check_backward(xhat, 0)


@DTYPES
def test_batch_norm_of_a_prediction(dtype: type) -> None:
    layer = Layer(7, dtype)
    spread, mean, var = np.full_like(layer.mean, np.nan), layer.mean.copy(), layer.var.copy()
    norm.batch_norm_forward(
        layer.z, layer.normed, spread, layer.mean, layer.var, layer.gain, layer.shift, EPSILON,
        0.25, 0,
    )  # fmt: skip
    sigma = np.sqrt(var[0, :UNITS].astype(np.float64) + EPSILON)
    layer.check((layer.u - mean[0, :UNITS]) / sigma)
    np.testing.assert_array_equal(layer.mean, mean)
    np.testing.assert_array_equal(layer.var, var)
    norm.batch_norm_backward(
        layer.dz, layer.normed, spread, layer.gain, layer.dgain, layer.dshift, 0
    )
    close(layer.dz[:, :UNITS], layer.dz_before * layer.gain[:, :UNITS] / sigma, 4)


@DTYPES
@pytest.mark.parametrize("grain", [16, 32])
def test_layer_norm_from_blocks(grain: int, dtype: type) -> None:
    """Moments over blocks of units give the same as over all, in forward and backward pass."""
    layer = Layer(9, dtype)
    blocks = range(0, WIDTH, grain)
    spread = np.full((1, 9), np.nan, dtype)
    moments = np.full((9, 2 * len(blocks)), np.nan, dtype)
    for low in blocks:
        part = layer.z[:, low : low + grain]
        norm.row_moments(moments, low // grain, part, min(grain, UNITS - low))
    norm.layer_norm_forward(
        layer.z, layer.normed, spread, moments, layer.gain, layer.shift, grain, UNITS, EPSILON
    )
    xhat = layer.xhat(1)
    layer.check(xhat)
    norm.layer_norm_gradients(layer.dz, layer.normed, layer.gain, layer.dgain, layer.dshift)
    for low in blocks:
        part = slice(low, low + grain)
        norm.row_sums(
            moments, low // grain, layer.dz[:, part], layer.normed[:, part], min(grain, UNITS - low)
        )
    norm.layer_norm_backward(layer.dz, layer.normed, spread, moments, UNITS, UNITS)
    layer.check_backward(xhat, 1)


@DTYPES
def test_merged_moments_do_not_cancel(dtype: type) -> None:
    """The variance of numbers far from zero, where mean square less squared mean is lost."""
    values = (1e4 + rng().normal(size=(1, 32))).astype(dtype)
    moments = np.zeros((1, 4), dtype)
    for block in range(2):
        norm.row_moments(moments, block, values[:, 16 * block : 16 * block + 16], 16)
    mean, variance = norm.merge_moments(moments, 0, 16, 32)
    exact = values.astype(np.float64)
    assert mean == pytest.approx(exact.mean(), rel=4 * float(np.finfo(dtype).eps))
    assert variance == pytest.approx(exact.var(), rel=2e-3 if dtype == np.float32 else 1e-11)


# Dropout


@DTYPES
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.99])
def test_mask_is_its_definition(p: float, dtype: type) -> None:
    seed, step, layer, start, unit = 2**40 + 3, 77, 2, 5, 16
    mask = np.full((9, 32), np.nan, dtype)
    dropout.draw_mask(mask, p, seed, step, layer, start, unit)
    for row in range(9):
        for column in range(32):
            counter = (unit + column, (start + row) // 4, step, layer + 1)
            words = reference.philox(*counter, seed & reference.MASK, seed >> 32)
            kept = words[(start + row) % 4] >= int(p * 2**32)
            assert mask[row, column] == (dtype(1 / (1 - p)) if kept else 0)


def test_masks_of_parts_make_up_the_whole() -> None:
    whole = np.zeros((12, 64), np.float32)
    dropout.draw_mask(whole, 0.5, 1, 3, 1, 0, 0)
    for rows, columns in [(slice(4, 9), slice(16, 48)), (slice(11, 12), slice(0, 64))]:
        part = np.zeros_like(whole[rows, columns])
        dropout.draw_mask(part, 0.5, 1, 3, 1, rows.start, columns.start)
        np.testing.assert_array_equal(part, whole[rows, columns])


# Clipping


@pytest.mark.parametrize(
    ("squares", "limit", "factor"),
    [([9.0, 16.0], 10.0, 1.0), ([9.0, 16.0], 2.5, 0.5), ([0.0], 1.0, 1.0), ([25.0], 5.0, 1.0)],
)
def test_factor(squares: list[float], limit: float, factor: float) -> None:
    assert clip.factor(np.array(squares), limit) == factor
