"""The losses against their reference."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fastmlp as fm
from fastmlp.kernels import loss, loss_curvature, machine, reference

Array = NDArray[Any]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
NAMES = pytest.mark.parametrize("name", loss.CODES)
LINE = 16  # elements: whole vectors of either dtype
NOTHING = np.zeros(0)


class Rows:
    """Logits z [B, O] and what they are compared with, all in the midst of NaN.

    Row b is sample rows[b]; y, labels [B] or targets [B, O], and weights [B] are in the order of
    the rows. The samples that are in no row are of no use: label -1, all else NaN.
    """

    def __init__(self, z: Array, y: Array, weights: Array | None = None, seed: int = 0) -> None:
        self.batch, self.outputs = z.shape
        self.values, self.y, self.row_weights = z, y, weights
        self.width = -(-self.outputs // LINE) * LINE
        self.rows = np.random.default_rng(seed).permutation(2 * self.batch)[: self.batch]
        self.whole, self.z = self.amid_nan(z)
        self.scratch, self.row = self.amid_nan(np.full((1, self.width), np.nan, z.dtype))
        self.labels, self.targets = np.zeros(0, np.int64), np.zeros((0, self.outputs), z.dtype)
        if y.ndim == 1:
            self.labels = np.full(2 * self.batch, -1)
            self.labels[self.rows] = y
        else:
            self.targets = np.full((2 * self.batch, self.outputs), np.nan, z.dtype)
            self.targets[self.rows] = y
        self.weights = NOTHING
        if weights is not None:
            self.weights = np.full(2 * self.batch, np.nan)
            self.weights[self.rows] = weights
        self.scores = np.full((3, self.batch), -1.0)

    def amid_nan(self, values: Array) -> tuple[Array, Array]:
        """A matrix with NaN all around, and the view whose rows are padded to `width`."""
        whole = np.full((len(values) + 2, self.width + LINE), np.nan, values.dtype)
        view = whole[1:-1, : self.width]
        view[:, : values.shape[1]] = values
        return whole, view

    def backward(
        self, objective: loss.Objective, scale: float = 1.0, low: int = 0, high: int | None = None
    ) -> "Rows":
        high = self.batch if high is None else high
        with np.errstate(all="ignore"):  # of the padding, which is not used
            loss.loss_backward(
                objective,
                self.z,
                self.outputs,
                self.labels,
                self.targets,
                self.weights,
                self.rows,
                low,
                high,
                scale,
                self.row,
                self.scores,
            )
        return self


def cross_entropy(logits: Array, y: Array, **options: Any) -> Rows:
    return Rows(logits, y).backward(
        fm.losses.Loss("softmax_cross_entropy", **options).objective(logits.shape[1])
    )


def binary(logits: Array, y: Array, **options: Any) -> Rows:
    return Rows(logits, y).backward(
        fm.losses.Loss("binary_cross_entropy", **options).objective(logits.shape[1])
    )


def options_of(name: str, outputs: int, rng: np.random.Generator) -> dict[str, Any]:
    """Random options of a loss."""
    options: dict[str, Any] = {}
    if name.endswith("cross_entropy"):
        options["label_smoothing"] = float(rng.choice([0.0, 0.25]))
        if rng.random() < 0.5:
            classes = outputs if name == "softmax_cross_entropy" else 2
            options["class_weight"] = rng.uniform(0.25, 2.0, classes)
    elif name == "huber":
        options["delta"] = 0.75
    elif name == "pinball":
        options["quantile"] = rng.uniform(0.1, 0.9, outputs)
    return options


def random_targets(name: str, batch: int, outputs: int, rng: np.random.Generator) -> Array:
    if name == "softmax_cross_entropy":
        labels = rng.integers(0, outputs, batch)
        return labels if rng.random() < 0.5 else rng.dirichlet(np.ones(outputs), batch)
    if name == "binary_cross_entropy":
        return rng.random((batch, outputs)).round(int(rng.integers(2)))
    if name == "poisson":
        return rng.poisson(2.0, (batch, outputs)).astype(float)
    return rng.normal(size=(batch, outputs))


@DTYPES
@NAMES
@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 40),
    outputs=st.integers(1, 40),
    spread=st.sampled_from([0.01, 1.0, 10.0]),
    weighted=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_loss_backward(
    dtype: type,
    name: str,
    batch: int,
    outputs: int,
    spread: float,
    weighted: bool,
    seed: int,
    data: st.DataObject,
) -> None:
    """Rows low to high are as the reference has them; everything else is untouched."""
    rng = np.random.default_rng(seed)
    outputs += name == "softmax_cross_entropy"
    chosen = fm.losses.Loss(name, **options_of(name, outputs, rng))
    z = (spread * rng.normal(size=(batch, outputs))).astype(dtype)
    y = random_targets(name, batch, outputs, rng)
    y = y if y.ndim == 1 else y.astype(dtype)
    weights = rng.uniform(0.5, 2.0, batch) if weighted else None
    low = data.draw(st.integers(0, batch))
    high = data.draw(st.integers(low, batch))
    ours = Rows(z, y, weights, seed).backward(chosen.objective(outputs), 0.125, low, high)

    theirs = reference.Loss(
        name, chosen.label_smoothing, chosen.delta, chosen.quantile, chosen.class_weight
    )
    z, y = z.astype(np.float64), y if y.ndim == 1 else y.astype(np.float64)
    losses, gradient = reference.sample_losses(theirs, z, y)
    w = np.ones(batch) if weights is None else weights
    expected, view = ours.amid_nan(ours.values)
    view[low:high] = 0
    view[low:high, :outputs] = 0.125 * (w[:, None] * gradient)[low:high]
    terms = np.abs(gradient).max(axis=1) + np.abs(y if y.ndim == 2 else z).max(axis=1)
    eps = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(ours.whole, expected, rtol=eps, atol=eps * terms.max())
    scores = np.full((3, batch), -1.0)
    shares = reference.row_weights(theirs, y, weights)
    scores[:, low:high] = np.array([w * losses, reference.answers(theirs, z, y), shares])[
        :, low:high
    ]
    size = np.abs(losses)
    if name == "poisson":  # e**z - y z cancels
        size = (np.exp(z) + np.abs(z * y)).sum(axis=1)
    np.testing.assert_allclose(ours.scores, scores, rtol=eps, atol=eps * size.max())
    assert np.isnan(ours.scratch[[0, -1]]).all()
    assert np.isnan(ours.scratch[:, ours.width :]).all()


@DTYPES
@NAMES
def test_weights_of_one_change_no_bit(dtype: type, name: str) -> None:
    rng = np.random.default_rng(2)
    z, y = rng.normal(size=(6, 11)).astype(dtype), random_targets(name, 6, 11, rng)
    objective = fm.losses.Loss(name).objective(11)
    plain = Rows(z, y).backward(objective)
    weighted = Rows(z, y, np.ones(6)).backward(objective)
    np.testing.assert_array_equal(plain.whole, weighted.whole)
    np.testing.assert_array_equal(plain.scores, weighted.scores)
    if name == "softmax_cross_entropy":
        labels = rng.integers(0, 11, 6)
        plain = cross_entropy(z, labels)
        weighted = cross_entropy(z, labels, class_weight=np.ones(11))
        np.testing.assert_array_equal(plain.whole, weighted.whole)
        np.testing.assert_array_equal(plain.scores, weighted.scores)


@DTYPES
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_of_a_sure_network(dtype: type, soft: bool) -> None:
    """Small losses and gradients keep their relative accuracy, where log(p) and p - 1 are 0."""
    margins = np.array([10.0, 20.0, 40.0, 80.0], dtype)
    logits = np.zeros((4, 3), dtype)
    logits[:, 1] = margins
    y = np.full(4, 1)
    ours = cross_entropy(logits, np.eye(3, dtype=dtype)[y] if soft else y)
    wide = margins.astype(np.float64)
    rest = 2 * np.exp(-wide)
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(ours.scores[0], np.log1p(rest), rtol=tolerance)
    np.testing.assert_allclose(ours.z[:, 1], -rest / (1 + rest), rtol=tolerance)
    np.testing.assert_allclose(ours.z[:, 0], rest / 2 / (1 + rest), rtol=tolerance)


@DTYPES
@pytest.mark.parametrize("answer", [0, 1])
def test_binary_cross_entropy_of_a_sure_network(dtype: type, answer: int) -> None:
    """ln(1 + e**-m) and sigmoid(z) - 1 = -sigmoid(-z), where a sigmoid has long become 1."""
    margins = np.array([[1.0, 10.0, 20.0, 40.0, 80.0]], dtype)
    sign = 2 * answer - 1
    ours = binary(sign * margins, np.full((1, 5), answer, dtype))
    small = np.exp(-margins.astype(np.float64))
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(ours.z[:, :5], -sign * small / (1 + small), rtol=tolerance)
    np.testing.assert_allclose(ours.scores[0], np.log1p(small).sum(), rtol=tolerance)
    assert ours.scores[1, 0] == 1


@DTYPES
def test_huge_logits(dtype: type) -> None:
    """Nothing overflows: the loss is the margin, the gradient 1 and -1."""
    big = np.finfo(dtype).max / 8
    logits = np.array([[big, -big, 0.0]] * 2, dtype)
    labels = np.array([0, 1])
    for y in (labels, np.eye(3, dtype=dtype)[labels]):
        ours = cross_entropy(logits, y)
        np.testing.assert_allclose(ours.scores[0], [0.0, 2.0 * float(big)])
        np.testing.assert_array_equal(ours.z[:, :3], [[0, 0, 0], [1, -1, 0]])
    ours = binary(logits, np.array([[1, 0, 1], [0, 1, 0]], dtype))
    np.testing.assert_allclose(ours.scores[0], [np.log(2), 2.0 * float(big)])
    np.testing.assert_array_equal(ours.z[:, :3], [[0, 0, -0.5], [1, -1, 0.5]])
    ours = cross_entropy(logits, labels, label_smoothing=0.3)
    np.testing.assert_allclose(ours.scores[0], [0.3 * float(big), 1.7 * float(big)], rtol=1e-6)


@DTYPES
@pytest.mark.parametrize("classes", [2, 16, 17])
def test_cross_entropy_of_ties(dtype: type, classes: int) -> None:
    """Equal logits: p = 1/K, and the first class counts as the answer."""
    ours = cross_entropy(np.full((2, classes), 3.0, dtype), np.array([0, 1]))
    np.testing.assert_allclose(ours.scores, [[np.log(classes)] * 2, [1.0, 0.0], [1.0, 1.0]])
    expected = np.full((2, classes), 1 / classes)
    expected[[0, 1], [0, 1]] -= 1
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(ours.z[:, :classes], expected, rtol=eps)


@DTYPES
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_gradients_sum_to_zero(dtype: type, smoothing: float) -> None:
    logits = np.random.default_rng(0).normal(size=(8, 10)).astype(dtype)
    ours = cross_entropy(logits, np.arange(8), label_smoothing=smoothing)
    np.testing.assert_allclose(ours.z.sum(axis=1), 0.0, atol=4 * np.finfo(dtype).eps)


@DTYPES
@pytest.mark.parametrize("name", ["absolute_error", "pinball"])
def test_gradients_at_a_kink_are_zero(dtype: type, name: str) -> None:
    z = np.array([[1.0, -2.0, 0.0]], dtype)
    ours = Rows(z, z.copy()).backward(fm.losses.Loss(name).objective(3))
    np.testing.assert_array_equal(ours.z, 0)
    np.testing.assert_array_equal(ours.scores[:, 0], [0, 0, 1])


@pytest.mark.jit
@DTYPES
@NAMES
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_no_numbers(dtype: type, name: str, bad: float, place: int) -> None:
    """A logit that is NaN or infinite shows in the loss, and NaN in the gradient."""
    z, y = np.zeros((1, 3), dtype), np.array([[0.25, 0.5, 0.25]], dtype)
    z[0, place] = bad
    ours = Rows(z, y).backward(fm.losses.Loss(name).objective(3))
    assert not np.isfinite(ours.scores[0, 0])
    if np.isnan(bad):
        assert np.isnan(ours.z[0, place])
    if name == "softmax_cross_entropy":
        ours = cross_entropy(z, np.array([1]))
        assert not np.isfinite(ours.scores[0, 0])
        assert not np.isfinite(ours.z).all()


@DTYPES
@NAMES
@pytest.mark.parametrize("outputs", [2, 16, 21])
def test_curvature(dtype: type, name: str, outputs: int) -> None:
    """H r is the derivative of the gradient along r, by complex steps if the gradient is smooth."""
    rng = np.random.default_rng([outputs, loss.CODES[name]])
    chosen = fm.losses.Loss(name, **options_of(name, outputs, rng))
    z, y = rng.normal(size=(5, outputs)).astype(dtype), random_targets(name, 5, outputs, rng)
    y = y if y.ndim == 1 else y.astype(dtype)
    r = rng.normal(size=z.shape).astype(dtype)
    weights = rng.uniform(0.5, 2.0, 5)
    ours, direction = Rows(z, y, weights), Rows(r, y)
    before = ours.whole.copy()
    with np.errstate(all="ignore"):  # of the padding
        loss_curvature.loss_curvature(
            chosen.objective(outputs),
            direction.z,
            ours.z,
            outputs,
            ours.labels,
            ours.targets,
            ours.weights,
            ours.rows,
            5,
            0.25,
            ours.row,
        )
    theirs = reference.Loss(
        name, chosen.label_smoothing, chosen.delta, chosen.quantile, chosen.class_weight
    )
    moved = z.astype(np.float64) + 1e-100j * r.astype(np.float64)
    _, gradient = reference.sample_losses(theirs, moved, y if y.ndim == 1 else y.astype(np.float64))
    expected, view = direction.amid_nan(r)
    view[...] = 0
    view[:, :outputs] = 0.25 * weights[:, None] * gradient.imag / 1e-100
    eps = 16 * np.finfo(dtype).eps
    np.testing.assert_allclose(direction.whole, expected, rtol=eps, atol=eps)
    np.testing.assert_array_equal(ours.whole, before)


@DTYPES
def test_curvature_of_a_sure_network(dtype: type) -> None:
    """p (r - p r) keeps its relative accuracy where p is almost 1."""
    z, r = np.array([[40.0, 0.0, 0.0]], dtype), np.array([[3.0, 1.0, -1.0]], dtype)
    ours, direction = Rows(z, np.array([0])), Rows(r, np.array([0]))
    with np.errstate(all="ignore"):  # of the padding
        loss_curvature.loss_curvature(
            fm.losses.Loss("softmax_cross_entropy").objective(3),
            direction.z,
            ours.z,
            3,
            ours.labels,
            ours.targets,
            NOTHING,
            ours.rows,
            1,
            1.0,
            ours.row,
        )
    small = np.exp(-40.0)
    exact = small * np.array([2 + 4, -2, -4])  # p_0 (3 - p r), with p r = 3 - 6 small; and so on
    np.testing.assert_allclose(direction.z[0, :3], exact, rtol=8 * np.finfo(dtype).eps)


@DTYPES
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [1, 5, 37])
@pytest.mark.parametrize("name", [name for name in loss.CODES if name != "softmax_cross_entropy"])
def test_turned(name: str, outputs: int, weighted: bool, dtype: type) -> None:
    """With a row in each lane: the same slopes, the same scores but for the order of a sum."""
    rng = np.random.default_rng(outputs)
    batch, whole = 21, 32
    y = rng.uniform(size=(batch, outputs)).astype(dtype)
    if name == "binary_cross_entropy":
        y = np.round(y)
    weights = rng.uniform(0.5, 2.0, batch) if weighted else None
    z = rng.normal(size=(batch, outputs)).astype(dtype)
    z[:, 0] = np.where(np.arange(batch) % 2, y[:, 0] - 0.5, z[:, 0])  # right answers too
    objective = fm.losses.Loss(name).objective(outputs)
    expected = Rows(z, y, weights).backward(objective, scale=0.25)

    filled = np.minimum(np.arange(whole), batch - 1)  # the last one again
    turned, targets = in_panels(z[filled]), in_panels(y[filled])
    scores, row = np.full((3, whole), np.nan), np.full((1, 16), np.nan, dtype)
    loss.turned_sum_over_outputs(
        objective,
        turned,
        outputs,
        targets,
        expected.weights,
        expected.rows[filled],
        0,
        batch,
        0.25,
        row,
        scores,
    )
    slopes = turned.swapaxes(1, 2).reshape(whole, outputs)
    np.testing.assert_array_equal(slopes[:batch], expected.z[:, :outputs])
    assert not slopes[batch:].any()
    np.testing.assert_allclose(scores[0, :batch], expected.scores[0], rtol=40 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(scores[1:, :batch], expected.scores[1:])


def in_panels(values: Array) -> Array:
    """Values [rows, outputs] with a row in each lane: [Q, outputs, v]."""
    v = machine.VECTOR_BYTES // values.itemsize
    return np.ascontiguousarray(values.reshape(-1, v, values.shape[1]).swapaxes(1, 2))
