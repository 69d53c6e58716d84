"""Values and gradients against PyTorch's autograd, which shares nothing with the kernels.

FASTMLP_TEST_CASES=5000 takes so many random networks, instead of 500.
"""

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from networks import Case
from numpy.typing import NDArray

import fastmlp as fm
from fastmlp import activations, losses, threads
from fastmlp.kernels import machine

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
from torch_model import CASES, DEEPEST, TorchMLP, mean_loss, undone_biases, wide_case  # noqa: E402

pytestmark = pytest.mark.jit  # some hundred networks of up to 700 samples

Array = NDArray[Any]
TOLERANCE = 1e-12
SHARE = 0.01  # of the whole gradient: the scale of a tensor whose own is smaller


def autograd(case: Case, training: bool) -> tuple[TorchMLP, float, float, Array, Array]:
    """The model after `backward`, loss with and without penalty, outputs, and gradient by X."""
    model = TorchMLP(case.net)
    x = torch.tensor(case.X, requires_grad=True)
    weight = None if case.sample_weight is None else torch.tensor(case.sample_weight)
    z = model.outputs(x, training=training)
    loss = mean_loss(case.net.loss, z, torch.tensor(case.y), weight)
    total = loss + model.penalty()
    total.backward()
    return model, total.item(), loss.item(), z.detach().numpy(), x.grad.numpy()


def relative_error(values: Array | float, exact: Array | float, scale: float = 1e-300) -> float:
    """Norm of the difference relative to that of the exact values, or to the scale if larger."""
    difference = np.linalg.norm(np.subtract(values, exact))
    return float(difference / max(float(np.linalg.norm(exact)), scale))


def gradient_errors(net: fm.MLP, flat: Array, exact: dict[str, Array]) -> dict[str, float]:
    """Each tensor's error, relative to its own norm or to SHARE of the whole gradient's."""
    scale = SHARE * float(np.sqrt(sum((g**2).sum() for g in exact.values())))
    return {
        tensor.name: relative_error(tensor.view(flat), exact[tensor.name], scale)
        for tensor in net.layout.tensors
    }


def errors_in_training(case: Case) -> dict[str, float]:
    """With dropout and the statistics of the batch: loss and gradients of all parameters."""
    net = case.net
    loss, gradient = net.loss_and_gradient(
        **case.samples, training=True, checkpoint_every=case.checkpoint_every
    )
    model, exact_loss, *_ = autograd(case, training=True)
    errors = gradient_errors(net, gradient.flat, model.gradients())
    tensors = {tensor.name: tensor for tensor in net.layout.tensors}
    for name in undone_biases(net):
        errors[name] = float(np.abs(tensors[name].view(gradient.flat)).max())
    return errors | {"loss": relative_error(loss, exact_loss)}


def errors_in_prediction(case: Case) -> dict[str, float]:
    """Without dropout, with running statistics: also the outputs, and the gradient by X."""
    net = case.net
    loss, gradient = net.loss_and_gradient(
        **case.samples, training=False, checkpoint_every=case.checkpoint_every
    )
    model, exact_loss, exact_mean, outputs, by_inputs = autograd(case, training=False)
    exact = model.gradients()
    scale = SHARE * float(np.sqrt(sum((g**2).sum() for g in exact.values())))
    return gradient_errors(net, gradient.flat, exact) | {
        "loss": relative_error(loss, exact_loss),
        "evaluate": relative_error(net.evaluate(**case.samples).loss, exact_mean),
        "outputs": relative_error(net.decision_function(case.X), outputs),
        "input_gradient": relative_error(net.input_gradient(**case.samples), by_inputs, scale),
    }


@pytest.mark.parametrize("seed", range(CASES))
def test_float64(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.VARIABLE, str(1 + seed % 3))
    case = wide_case(seed)
    for errors in (errors_in_training(case), errors_in_prediction(case)):
        assert {name: error for name, error in errors.items() if not error < TOLERANCE} == {}


def test_cases_cover_what_they_should() -> None:
    cases = [wide_case(seed) for seed in range(500)]
    nets = [case.net for case in cases]
    assert {(net.loss.name, len(net.activation)) for net in nets} == {
        (loss, depth) for loss in losses.NAMES for depth in range(DEEPEST + 1)
    }
    pairs = {
        (f.name, f.per_unit, type(norm))
        for net in nets
        for f, norm in zip(net.activation, net.norm, strict=True)
    }
    assert pairs == {
        (name, per_unit, norm)
        for name in activations.NAMES
        for per_unit in ({False, True} if name == "prelu" else {False})
        for norm in (type(None), fm.BatchNorm, fm.LayerNorm)
    }
    options = {
        (net.loss.name, net.loss.label_smoothing > 0, net.loss.class_weight is not None, y.ndim)
        for net, y in ((case.net, case.y) for case in cases)
    }
    assert len([o for o in options if o[0] == "softmax_cross_entropy"]) == 8
    assert len([o for o in options if o[0] == "binary_cross_entropy"]) == 4
    assert {net.layer_sizes[-1] > machine.NARROW_OUTPUT for net in nets} == {True, False}
    assert {len(case.X) > machine.MICRO_BATCH for case in cases} == {True, False}
    assert {case.sample_weight is None for case in cases} == {True, False}
    assert {case.checkpoint_every for case in cases} == {1, 2, 3, 5}
    assert {net.architecture.input_scale for net in nets} == {True, False}
    for kind in ("dropout", "l2", "l1"):
        assert {any(getattr(net, kind)) for net in nets} == {True, False}


@pytest.mark.parametrize("seed", range(0, 150, 3))
def test_float32(seed: int) -> None:
    """Within 2e-5, about 200 roundings of 6e-8, of the exact gradient at the same parameters."""
    case = wide_case(seed)
    net, X = case.net.astype("float32"), case.X.astype("float32")
    y = case.y if case.y.dtype == np.int64 else case.y.astype("float32")
    loss, gradient = net.loss_and_gradient(X, y)
    net64 = net.astype("float64")
    exact_loss, exact = net64.loss_and_gradient(X, y.astype(case.y.dtype))
    assert loss == pytest.approx(exact_loss, rel=2e-5)
    scale = SHARE * float(np.linalg.norm(exact.flat))
    pairs = zip(net.layout.tensors, net64.layout.tensors, strict=True)
    for tensor, wider in pairs:
        ours, theirs = tensor.view(gradient.flat), wider.view(exact.flat)
        assert ours.dtype == np.float32
        assert relative_error(ours, theirs, scale) < 2e-5


def exact_cross_entropy(z: np.ndarray, label: int) -> tuple[float, np.ndarray]:
    """Loss and gradient of one row of logits in 120 digits: PyTorch's loss saturates at 0 here."""
    with localcontext() as context:
        context.prec = 120
        e = [Decimal(float(x)).exp() for x in z]
        loss = sum(e).ln() - Decimal(float(z[label]))
        gradient = [float(x / sum(e) - (k == label)) for k, x in enumerate(e)]
    return float(loss), np.array(gradient)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [30.0, 1e2, 1e4])
@pytest.mark.parametrize("label", range(5))
@pytest.mark.parametrize(
    "pattern",
    [
        [1, -1, 0, 0.5, -0.5],
        [-1, 1, -1, -1, -1],
        [1, 1, 1, 1, 1],
        [-1, -1, -1, -1, -1],
        [0, 0, 0, 0, 1],
        [1, 1, -1, 1, 0],
    ],
)
def test_extreme_logits(pattern: list[float], label: int, size: float, dtype: str) -> None:
    """Where exp overflows and log(p + epsilon) saturates, the loss is still exact."""
    net = fm.MLP([5, 5], dtype=dtype)
    net.weights[0][...] = np.eye(5)
    X = size * np.array([pattern])
    loss, gradient = net.loss_and_gradient(X, [label])
    exact_loss, exact = exact_cross_entropy(X[0], label)
    rounding, tiny = (1e-14, 1e-300) if dtype == "float64" else (5e-7, 1e-37)
    assert loss == pytest.approx(exact_loss, rel=rounding, abs=tiny)
    np.testing.assert_allclose(gradient.biases[0], exact, rtol=rounding, atol=tiny)
    assert net.evaluate(X, [label]).loss == loss


@pytest.mark.parametrize("name", activations.NAMES)
def test_large_pre_activations(name: str) -> None:
    """Saturated, overflowing nowhere: relative to the largest entry, as f' is there."""
    rng = np.random.default_rng(0)
    net = fm.MLP([3, 20, 2], activation=name, loss="huber", dtype="float64", seed=1)
    X, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    for size in (10.0, 300.0, 1e4):
        net.weights[0][...] = rng.normal(size=(3, 20)) * size
        case = Case(net, X, y, None, 1)
        loss, gradient = net.loss_and_gradient(X, y)
        model, exact_loss, *_ = autograd(case, training=True)
        assert loss == pytest.approx(exact_loss, rel=1e-12)
        exact = model.gradients()
        scale = max(np.abs(g).max() for g in exact.values())
        for tensor in net.layout.tensors:
            ours, theirs = tensor.view(gradient.flat), exact[tensor.name]
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14 * scale)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_norm_of_a_single_number_learns_its_shift_alone(norm: str) -> None:
    """One row of batch norm, one unit of layer norm: xhat is 0."""
    rng = np.random.default_rng(0)
    net = fm.MLP([4, 1, 2], norm=norm, activation="tanh", dtype="float64", seed=1)
    net.shifts[0][...] = 0.3
    rows = 1 if norm == "batch" else 9
    X, y = rng.normal(size=(rows, 4)), rng.integers(0, 2, rows)
    _, gradient = net.loss_and_gradient(X, y)
    model, *_ = autograd(Case(net, X, y, None, 1), training=True)
    assert not gradient.weights[0].any()
    assert not gradient.gains[0].any()
    exact = model.gradients()["layers.0.shift"]
    assert gradient.shifts[0] == pytest.approx(exact, rel=1e-13)
