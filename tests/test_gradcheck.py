"""The gradient check passes right gradients and finds wrong ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from networks import random_case, small_cases

import fastmlp as fm
from fastmlp.activations import NAMES as ACTIVATIONS
from fastmlp.gradcheck import hessian_check, optimizer_check
from fastmlp.gradcheck_numeric import Model
from fastmlp.losses import NAMES as LOSSES
from fastmlp.optimizers import LBFGS, Adagrad, AdamW, NAdam, RMSProp

METHODS = ["central", "richardson", "complex", "directions"]
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
    return net, X, rng.random(size=(6, 2)).astype(dtype)


def spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[fm.Gradient], None]) -> None:
    """Let every network give a gradient that `change` has made wrong."""
    right = fm.MLP.loss_and_gradient

    def wrong(self: fm.MLP, X: Any, y: Any, **options: Any) -> tuple[float, fm.Gradient]:
        loss, gradient = right(self, X, y, **options)
        change(gradient)
        return loss, gradient

    monkeypatch.setattr(fm.MLP, "loss_and_gradient", wrong)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_right_gradients_pass(activation: str, loss: str, dtype: str) -> None:
    net, X, y = example(activation, loss, dtype)
    for method in METHODS:
        report = fm.gradient_check(net, X, y, method=method)  # type: ignore[arg-type]
        assert report.ok, str(report)
        assert report.method == method
        assert report.n_parameters == net.n_parameters
        names = [tensor.name for tensor in report.tensors]
        assert [name for name in names if not name.endswith("slope")] == NAMES
        assert [tensor.shape for tensor in report.tensors] == [t.shape for t in net.layout.tensors]


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


@pytest.mark.parametrize("method", METHODS)
def test_parameters_at_a_kink_are_left_out_and_counted(method: Any) -> None:
    """A unit whose input is exactly 0: only the output's bias does not depend on the kink."""
    net = fm.MLP([1, 1, 1], activation="relu", loss="squared_error", dtype="float64")
    net.weights[0][...], net.weights[1][...] = 0.0, 1.0
    report = fm.gradient_check(net, [[1.0]], [[1.0]], method=method)
    assert report.ok, str(report)
    each = 8 if method == "directions" else 1
    assert [tensor.excluded for tensor in report.tensors] == [each, each, 0, 0]
    assert report.excluded == 2 * each
    assert "left out at kinks" in str(report)


@pytest.mark.parametrize("loss", ["absolute_error", "pinball", "huber"])
@pytest.mark.parametrize("method", METHODS)
def test_kinks_of_losses_are_left_out(method: Any, loss: str) -> None:
    net = fm.MLP([1, 1], loss=loss, dtype="float64")
    net.weights[0][...], net.biases[0][...] = 1.0, 0.0
    at_kink = 1.0 if loss == "huber" else 0.0
    report = fm.gradient_check(net, [[2.0], [2.0]], [[2.0 - at_kink], [5.0]], method=method)
    assert all(tensor.excluded for tensor in report.tensors)
    assert not report.ok  # nothing is left
    assert fm.gradient_check(net, [[2.0], [2.0]], [[2.7], [5.0]], method=method).ok


@pytest.mark.parametrize("method", METHODS)
def test_kink_of_the_penalty_is_left_out(method: Any) -> None:
    net = fm.MLP([2, 2], loss="squared_error", l1=0.1, dtype="float64", seed=1)
    net.weights[0][0, 1] = 0.0
    report = fm.gradient_check(net, [[1.0, 2.0]], [[0.3, 0.4]], method=method)
    assert report.ok, str(report)
    assert report.tensors[0].excluded == (8 if method == "directions" else 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: -w, "the sign"),
        (lambda w: 2 * w, "a factor of 2"),
        (lambda w: 6 * w, "a factor of B: 1/B is missing"),
        (lambda w: w / 6, "a factor of 1/B: it is applied twice"),
        (lambda w: 1.3 * w, "a factor of 1.3"),
        (lambda w: 0 * w, "it is zero: the gradient is missing"),
        (lambda w: w.T, "transposed"),
        (lambda w: w + np.eye(4), "a term is wrong or missing"),
        (lambda w: w + np.outer([0, 1, 0, 0], [1, 2, 3, 4]), "row 1 alone"),
        (lambda w: w + np.outer([1, 2, 3, 4], [0, 0, 1, 0]), "column 2 alone"),
        (lambda w: w + np.outer([0, 1, 0, 0], [0, 0, 1, 0]), "one entry alone, row 1, column 2"),
        (lambda w: w * np.nan, "not finite"),
    ],
)
def test_guesses(monkeypatch: pytest.MonkeyPatch, change: Any, expected: str) -> None:
    def break_it(gradient: fm.Gradient) -> None:
        gradient.weights[1][...] = change(gradient.weights[1].copy())

    spoil(monkeypatch, break_it)
    rng = np.random.default_rng(3)
    net = fm.MLP([3, 4, 4, 2], activation="tanh", dtype="float64", seed=1)
    report = fm.gradient_check(net, rng.normal(size=(6, 3)), [0, 1, 1, 0, 1, 0])
    assert [tensor.guess for tensor in report.tensors] == ["", "", expected, "", "", ""]
    assert f"guess: {expected}" in str(report)


@pytest.mark.parametrize("kind", ["l2", "l1"])
def test_guess_of_a_missing_penalty(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    options: dict[str, Any] = {kind: 0.3}
    net = fm.MLP([3, 4, 2], activation="tanh", dtype="float64", seed=1, **options)

    def forget(gradient: fm.Gradient) -> None:
        w = net.weights[0]
        gradient.weights[0][...] -= 0.3 * (w if kind == "l2" else np.sign(w))

    spoil(monkeypatch, forget)
    report = fm.gradient_check(net, np.eye(3), [0, 1, 1])
    assert report.tensors[0].guess == f"a wrong or missing {kind} penalty"


def test_gradient_that_should_be_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bias before batch norm: rounding does not fail the check, a real gradient does."""
    net = fm.MLP([3, 4, 2], activation="tanh", norm="batch", dtype="float64", seed=1)
    X, y = np.random.default_rng(1).normal(size=(6, 3)), [0, 1, 1, 0, 1, 0]
    for method in METHODS:
        assert fm.gradient_check(net, X, y, method=method).ok  # type: ignore[arg-type]

    def disturb(gradient: fm.Gradient) -> None:
        gradient.biases[0][1] = 1e-6

    spoil(monkeypatch, disturb)
    for method in METHODS:
        report = fm.gradient_check(net, X, y, method=method)  # type: ignore[arg-type]
        assert [tensor.name for tensor in report.tensors if tensor.guess] == ["layers.0.bias"]
        assert not report.ok
    assert fm.gradient_check(net, X, y, method="complex").tensors[1].guess == "it should be zero"


def test_float32_gradient_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def shift(gradient: fm.Gradient) -> None:
        if gradient.flat.dtype == np.float32:
            gradient.weights[1][...] *= 1.01

    spoil(monkeypatch, shift)
    for method in METHODS:
        report = fm.gradient_check(*example(dtype="float32"), method=method)  # type: ignore[arg-type]
        assert not report.ok
        assert report.relative_error < report.tolerance
        assert "float32 gradient is off by" in str(report)
    assert fm.gradient_check(*example()).tensors[0].single_error is None


def test_hessian() -> None:
    for case in (*small_cases()[:8], *(random_case(seed) for seed in range(10))):
        batch = case.net._checked(case.X, case.y, case.sample_weight)

        def product(net: fm.MLP, X: Any, y: Any, v: Any, **options: Any) -> Any:
            """Differences of the gradient."""
            gradients = []
            for step in (1e-6, -1e-6):
                moved = net.clone()
                moved.theta += step * v
                gradients.append(moved.loss_and_gradient(X, y, **options)[1].flat)
            return (gradients[0] - gradients[1]) / 2e-6

        report = hessian_check(case.net, **case.samples, product=product, tolerance=1e-5)
        assert report.ok, f"{case.net}\n{report}"

        def wrong(*arguments: Any, **options: Any) -> Any:
            return 1.01 * product(*arguments, **options)

        assert not hessian_check(case.net, **case.samples, product=wrong, tolerance=1e-5).ok
        assert len(batch) == len(case.X)


def test_hessian_is_symmetric_in_the_reference() -> None:
    rng = np.random.default_rng(1)
    for case in small_cases()[:8]:
        batch = case.net._checked(case.X, case.y, case.sample_weight)
        model = Model(case.net, batch, True)
        u, v = np.zeros_like(case.net.theta), np.zeros_like(case.net.theta)
        for tensor in case.net.layout.tensors:
            tensor.view(u)[...], tensor.view(v)[...] = rng.normal(size=(2, *tensor.shape))
        assert u @ model.hessian_product(v) == pytest.approx(
            v @ model.hessian_product(u), rel=1e-10
        )


OPTIMIZERS = [
    fm.SGD(0.1),
    fm.SGD(0.1, momentum=0.9),
    fm.SGD(0.1, momentum=0.9, nesterov=True),
    Adagrad(0.1),
    RMSProp(0.1),
    fm.Adam(0.1),
    AdamW(0.1),
    NAdam(0.1),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_steps_of_optimizers(optimizer: fm.Optimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    for case in small_cases()[:5]:
        report = optimizer_check(case.net, **case.samples, optimizer=optimizer)
        assert report.ok, str(report)
    net = small_cases()[3].net

    def halve(gradient: fm.Gradient) -> None:
        gradient.flat[...] = gradient.flat**3

    spoil(monkeypatch, halve)
    case = small_cases()[3]
    assert not optimizer_check(net, **case.samples, optimizer=optimizer).ok


def test_optimizers_without_a_rule() -> None:
    net, X, y = example()
    with pytest.raises(ValueError, match="optimizer must take its steps by a rule"):
        optimizer_check(net, X, y, LBFGS())
    with pytest.raises(TypeError, match="optimizer must be an Optimizer"):
        optimizer_check(net, X, y, "adam")  # type: ignore[arg-type]


def test_report_as_text() -> None:
    report = fm.gradient_check(*example())
    title, columns, *rows = str(report).splitlines()
    assert title.startswith("gradient check passed: central, relative error ")
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


@pytest.mark.parametrize("value", [0.0, -1e-5, np.nan, np.inf])
@pytest.mark.parametrize("name", ["epsilon", "tolerance"])
def test_bad_numbers(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be in"):
        fm.gradient_check(*example(), **{name: value})


def test_bad_options() -> None:
    with pytest.raises(TypeError, match="epsilon must be a number"):
        fm.gradient_check(*example(), epsilon="1e-5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method must be one of central"):
        fm.gradient_check(*example(), method="forward")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="directions must be at least 1"):
        fm.gradient_check(*example(), directions=0)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        fm.gradient_check(*example(), seed=-1)


def test_bad_data() -> None:
    net, X, y = example()
    with pytest.raises(ValueError, match="X must have shape"):
        fm.gradient_check(net, X[:, :2], y)
    with pytest.raises(ValueError, match="y "):
        fm.gradient_check(net, X, y + 5)
    with pytest.raises(ValueError, match="X "):
        fm.gradient_check(net, np.full_like(X, np.nan), y)
