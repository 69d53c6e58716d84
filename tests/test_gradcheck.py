"""The gradient check passes right gradients and finds wrong ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastmlp as fm

ACTIVATIONS = ["identity", "relu", "sigmoid", "tanh", "softplus"]
LOSSES = ["softmax_cross_entropy", "squared_error", "half_squared_error"]
NAMES = [f"layers.{layer}.{part}" for layer in range(3) for part in ("weight", "bias")]


def example(
    activation: str = "tanh", loss: str = "softmax_cross_entropy", dtype: str = "float64"
) -> tuple[fm.MLP, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    net = fm.MLP([3, 5, 4, 2], activation=activation, loss=loss, seed=1, dtype=dtype)
    for bias in net.biases:
        bias[...] = rng.normal(size=bias.shape)
    X = rng.normal(size=(6, 3)).astype(dtype)
    if loss == "softmax_cross_entropy":
        return net, X, np.array([0, 1, 1, 0, 1, 0])
    return net, X, rng.normal(size=(6, 2)).astype(dtype)


def spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[fm.Gradient], None]) -> None:
    """Let every network give a gradient that `change` has made wrong."""
    right = fm.MLP.loss_and_gradient

    def wrong(self: fm.MLP, X: Any, y: Any) -> tuple[float, fm.Gradient]:
        loss, gradient = right(self, X, y)
        change(gradient)
        return loss, gradient

    monkeypatch.setattr(fm.MLP, "loss_and_gradient", wrong)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_right_gradients_pass(activation: str, loss: str, dtype: str) -> None:
    net, X, y = example(activation, loss, dtype)
    report = fm.gradient_check(net, X, y)
    assert report.ok, str(report)
    assert report.relative_error < 1e-7
    assert [tensor.name for tensor in report.tensors] == NAMES
    assert [tensor.shape for tensor in report.tensors] == [(3, 5), (5,), (5, 4), (4,), (4, 2), (2,)]
    assert report.n_parameters == net.n_parameters == 3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2


def test_network_without_hidden_layers() -> None:
    net = fm.MLP([2, 3], loss="softmax_cross_entropy", seed=0)
    report = fm.gradient_check(net, np.eye(2), [2, 0])
    assert report.ok, str(report)
    assert [tensor.name for tensor in report.tensors] == NAMES[:2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_network_is_not_modified(dtype: str) -> None:
    net, X, y = example(dtype=dtype)
    before = net.theta.copy(), X.copy(), y.copy()
    fm.gradient_check(net, X, y)
    assert net.dtype == dtype
    for array, copy in zip((net.theta, X, y), before, strict=True):
        np.testing.assert_array_equal(array, copy, strict=True)


def test_numeric_gradient_is_that_of_the_loss() -> None:
    net, X, y = example(loss="squared_error")
    worst = fm.gradient_check(net, X, y).tensors[3]
    (index,) = worst.worst_index
    losses = []
    for step in (1e-5, -1e-5):
        moved = net.clone()
        moved.biases[1][index] += step
        losses.append(moved.evaluate(X, y).loss)
    assert worst.numeric == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-8)


@pytest.mark.parametrize("tensor", range(6))
def test_sign_error_in_one_tensor_is_found(monkeypatch: pytest.MonkeyPatch, tensor: int) -> None:
    layer, is_bias = divmod(tensor, 2)

    def flip(gradient: fm.Gradient) -> None:
        values = (gradient.biases if is_bias else gradient.weights)[layer]
        values *= -1.0

    spoil(monkeypatch, flip)
    report = fm.gradient_check(*example())
    assert not report.ok
    assert [part.name for part in report.tensors if part.relative_error > 1e-7] == [NAMES[tensor]]
    assert report.tensors[tensor].relative_error == pytest.approx(1.0)


def test_sign_error_in_one_entry_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def flip(gradient: fm.Gradient) -> None:
        gradient.weights[1][2, 3] *= -1.0

    spoil(monkeypatch, flip)
    report = fm.gradient_check(*example())
    assert not report.ok
    wrong = report.tensors[2]
    assert (wrong.name, wrong.worst_index) == ("layers.1.weight", (2, 3))
    assert wrong.analytic == pytest.approx(-wrong.numeric)
    assert wrong.max_abs_difference == pytest.approx(2.0 * abs(wrong.numeric))
    (marked,) = (line for line in str(report).splitlines() if line.startswith("!"))
    assert "layers.1.weight" in marked
    assert "(2, 3)" in marked


def test_small_tensor_fails_the_check_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong tensor cannot hide behind the others' larger gradients."""

    def scale(gradient: fm.Gradient) -> None:
        gradient.biases[0][...] *= 1.001

    spoil(monkeypatch, scale)
    report = fm.gradient_check(*example(), tolerance=4e-4)
    assert report.relative_error < 4e-4
    assert not report.ok


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradient_that_is_not_finite_fails(monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    def damage(gradient: fm.Gradient) -> None:
        gradient.biases[2][1] = bad

    spoil(monkeypatch, damage)
    report = fm.gradient_check(*example())
    assert not report.ok
    assert report.tensors[5].worst_index == (1,)
    assert not np.isfinite(report.tensors[5].max_abs_difference)
    assert f"{bad}" in str(report)


@pytest.mark.jit  # without the compiler NumPy warns of the overflow
def test_loss_that_overflows_fails() -> None:
    net, X, y = example("identity", "squared_error")
    net.weights[0][...] = 1e300
    report = fm.gradient_check(net, X, y)
    assert not report.ok
    assert "nan" in str(report)


def test_kink_of_relu_is_reported() -> None:
    """A unit whose input is exactly 0: the difference sees half of each side's slope."""
    net = fm.MLP([1, 1, 1], activation="relu", loss="squared_error", dtype="float64")
    net.weights[0][...], net.weights[1][...] = 0.0, 1.0
    assert not fm.gradient_check(net, [[1.0]], [[1.0]]).ok


def test_report_as_text() -> None:
    report = fm.gradient_check(*example())
    title, columns, *rows = str(report).splitlines()
    assert title.startswith("gradient check passed: relative error ")
    assert title.endswith("tolerance 1e-07, 54 parameters, epsilon 1e-05")
    assert columns.split()[:2] == ["tensor", "shape"]
    assert [row.split()[0] for row in rows] == NAMES
    assert len({len(line) for line in (columns, *rows)}) == 1


def test_epsilon_and_tolerance_are_used() -> None:
    net, X, y = example()
    coarse = fm.gradient_check(net, X, y, epsilon=0.1)
    assert not coarse.ok
    assert coarse.epsilon == 0.1
    assert fm.gradient_check(net, X, y, epsilon=0.1, tolerance=0.1).ok


@pytest.mark.parametrize("value", [0.0, -1e-5, np.nan, np.inf, "1e-5", None])
@pytest.mark.parametrize("name", ["epsilon", "tolerance"])
def test_bad_numbers(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive number, got {value!r}"):
        fm.gradient_check(*example(), **{name: value})


def test_bad_data() -> None:
    net, X, y = example()
    with pytest.raises(ValueError, match="X must have shape"):
        fm.gradient_check(net, X[:, :2], y)
    with pytest.raises(ValueError, match="y "):
        fm.gradient_check(net, X, y + 5)
    with pytest.raises(ValueError, match="X "):
        fm.gradient_check(net, np.full_like(X, np.nan), y)
