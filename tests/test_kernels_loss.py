"""The losses against their reference, and the reference's whole step against differences."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fastmlp as fm
from fastmlp.kernels import loss, reference

Array = NDArray[Any]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
LINE = 16  # elements: whole vectors of either dtype
ACTIVATIONS = ["identity", "relu", "sigmoid", "tanh", "softplus"]


class Rows:
    """Outputs z [B, K] in a wider matrix, the numbers of their samples, and scores to be filled."""

    def __init__(self, values: Array, seed: int = 0) -> None:
        self.batch, self.outputs = values.shape
        self.width = -(-self.outputs // LINE) * LINE
        self.whole = np.full((self.batch + 2, self.width + LINE), 7.0, values.dtype)
        self.z = self.whole[1:-1, : self.width]
        self.z[:, : self.outputs] = values
        self.rows = np.random.default_rng(seed).permutation(2 * self.batch)[: self.batch]
        self.scores = np.full((2, self.batch), -1.0)

    def copy(self) -> "Rows":
        other = Rows(self.z[:, : self.outputs])
        other.rows = self.rows
        return other


def cross_entropy(
    logits: Array, y: Array, scale: float = 1.0, low: int = 0, high: int | None = None
) -> tuple[Rows, Rows]:
    """Run kernel and reference on the rows low to high; y has a label for each row."""
    ours = Rows(logits)
    labels = np.full(2 * ours.batch, -1)
    labels[ours.rows] = y
    theirs = ours.copy()
    high = ours.batch if high is None else high
    for module, rows in ((loss, ours), (reference, theirs)):
        with np.errstate(over="ignore"):  # e**z in the padding, which is not used
            module.softmax_cross_entropy(
                rows.z, rows.outputs, labels, rows.rows, low, high, scale, rows.scores
            )
    return ours, theirs


def assert_same(ours: Rows, theirs: Rows, scale: float = 1.0) -> None:
    """Gradients agree to some roundings each, scores too; everything else is untouched."""
    eps = 4 * np.finfo(ours.z.dtype).eps
    np.testing.assert_allclose(ours.whole, theirs.whole, rtol=eps, atol=eps * abs(scale))
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=eps, atol=eps)


@DTYPES
@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 9),
    classes=st.integers(2, 40),
    spread=st.sampled_from([0.01, 1.0, 10.0, 1000.0]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_cross_entropy(
    dtype: type, batch: int, classes: int, spread: float, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    logits = (spread * rng.normal(size=(batch, classes))).astype(dtype)
    low = data.draw(st.integers(0, batch))
    high = data.draw(st.integers(low, batch))
    assert_same(*cross_entropy(logits, rng.integers(0, classes, batch), 0.125, low, high), 0.125)


@DTYPES
def test_cross_entropy_of_a_sure_network(dtype: type) -> None:
    """Small losses and gradients keep their relative accuracy, where log(p) and p - 1 are 0."""
    margins = np.array([10.0, 20.0, 40.0, 80.0], dtype)
    logits = np.zeros((4, 3), dtype)
    logits[:, 1] = margins
    ours, _ = cross_entropy(logits, np.full(4, 1))
    wide = margins.astype(np.float64)
    rest = 2 * np.exp(-wide)
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(ours.scores[0], np.log1p(rest), rtol=tolerance)
    np.testing.assert_allclose(ours.z[:, 1], -rest / (1 + rest), rtol=tolerance)
    np.testing.assert_allclose(ours.z[:, 0], rest / 2 / (1 + rest), rtol=tolerance)


@DTYPES
def test_cross_entropy_of_huge_logits(dtype: type) -> None:
    """Nothing overflows: the loss is the margin, the gradient 1 and -1."""
    big = np.finfo(dtype).max / 4
    ours, _ = cross_entropy(np.array([[big, -big, 0.0]] * 2, dtype), np.array([0, 1]))
    np.testing.assert_allclose(ours.scores[0], [0.0, 2.0 * float(big)])
    np.testing.assert_array_equal(ours.z[:, :3], [[0, 0, 0], [1, -1, 0]])


@DTYPES
@pytest.mark.parametrize("classes", [2, 16, 17])
def test_cross_entropy_of_ties(dtype: type, classes: int) -> None:
    """Equal logits: p = 1/K, and the first class counts as the answer."""
    ours, _ = cross_entropy(np.full((2, classes), 3.0, dtype), np.array([0, 1]))
    np.testing.assert_allclose(ours.scores, [[np.log(classes)] * 2, [1.0, 0.0]])
    expected = np.full((2, classes), 1 / classes)
    expected[[0, 1], [0, 1]] -= 1
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(ours.z[:, :classes], expected, rtol=eps)


@DTYPES
def test_cross_entropy_gradients_sum_to_zero(dtype: type) -> None:
    logits = np.random.default_rng(0).normal(size=(8, 10)).astype(dtype)
    ours, _ = cross_entropy(logits, np.arange(8))
    np.testing.assert_allclose(ours.z.sum(axis=1), 0.0, atol=4 * np.finfo(dtype).eps)


@pytest.mark.jit
@DTYPES
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_cross_entropy_of_no_numbers(dtype: type, bad: float, place: int) -> None:
    """A logit that is NaN or infinite shows in the loss, whichever class it is of."""
    z, scores = np.zeros((1, LINE), dtype), np.zeros((2, 1))
    z[0, place] = bad
    loss.softmax_cross_entropy(z, 3, np.array([1]), np.array([0]), 0, 1, 1.0, scores)
    assert not np.isfinite(scores[0, 0])
    assert not np.isfinite(z).all()


@DTYPES
@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 9),
    outputs=st.integers(1, 40),
    weight=st.sampled_from([1.0, 0.5]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_squared_error(
    dtype: type, batch: int, outputs: int, weight: float, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    ours = Rows(rng.normal(size=(batch, outputs)).astype(dtype))
    targets = rng.normal(size=(2 * batch, outputs)).astype(dtype)
    theirs = ours.copy()
    low = data.draw(st.integers(0, batch))
    high = data.draw(st.integers(low, batch))
    for module, rows in ((loss, ours), (reference, theirs)):
        module.squared_error(
            rows.z, outputs, targets, rows.rows, low, high, 0.25, weight, rows.scores
        )
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", loss.CODES)
def test_codes(name: str) -> None:
    """`loss_backward` finds the loss by its code."""
    rng = np.random.default_rng(3)
    ours = Rows(rng.normal(size=(4, 5)))
    labels, targets = rng.integers(0, 5, 8), rng.normal(size=(8, 5))
    theirs = ours.copy()
    loss.loss_backward(
        loss.CODES[name], ours.z, 5, labels, targets, ours.rows, 0, 4, 0.25, ours.scores
    )
    y = (labels if name == "softmax_cross_entropy" else targets)[theirs.rows]
    mean = reference.output_gradient(name, theirs.z[:, :5], y)
    np.testing.assert_allclose(ours.z[:, :5], theirs.z[:, :5], rtol=1e-14, atol=1e-16)
    assert ours.scores[0].mean() == pytest.approx(mean, rel=1e-14)
    assert not ours.z[:, 5:].any()


def example(name: str, activations: list[str]) -> tuple[fm.MLP, Array, Array]:
    net = fm.MLP(
        [4, *(5 for _ in activations), 3],
        activation=activations,
        loss=name,
        seed=1,
        dtype="float64",
    )
    rng = np.random.default_rng(4)
    for bias in net.biases:
        bias[...] = rng.normal(size=bias.shape)
    labels, targets = rng.integers(0, 3, 7), rng.normal(size=(7, 3))
    return net, rng.normal(size=(7, 4)), labels if net.is_classifier else targets


@pytest.mark.parametrize("name", loss.CODES)
def test_reference_step_has_the_gradient_of_its_loss(name: str) -> None:
    """Central differences of the reference's own loss, every parameter."""
    net, X, y = example(name, ["tanh", "softplus"])
    arguments = net.weights, net.biases, net.activations, name, X, y
    _, *gradients = reference.loss_and_gradient(*arguments)
    for parameters, parts in zip((net.weights, net.biases), gradients, strict=True):
        for parameter, gradient in zip(parameters, parts, strict=True):
            for index in np.ndindex(parameter.shape):
                value, losses = parameter[index], []
                for moved in (value + 1e-5, value - 1e-5):
                    parameter[index] = moved
                    losses.append(reference.loss_and_gradient(*arguments)[0])
                parameter[index] = value
                difference = (losses[0] - losses[1]) / 2e-5
                assert gradient[index] == pytest.approx(difference, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("name", loss.CODES)
@pytest.mark.parametrize("activations", [[], *([a] for a in ACTIVATIONS), ["relu", "sigmoid"]])
def test_compiled_step_is_the_reference_step(name: str, activations: list[str]) -> None:
    net, X, y = example(name, activations)
    value, gradient = net.loss_and_gradient(X, y)
    mean, dweights, dbiases = reference.loss_and_gradient(
        net.weights, net.biases, net.activations, name, X, y
    )
    assert value == pytest.approx(mean, rel=1e-13)
    for got, expected in zip(
        (*gradient.weights, *gradient.biases), (*dweights, *dbiases), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)
