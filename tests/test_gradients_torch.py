"""Losses and gradients against PyTorch's autograd, which shares nothing with the kernels."""

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.kernels import machine

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")

pytestmark = pytest.mark.jit  # some hundred networks of up to 700 samples

ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    # PyTorch's own softplus turns into the identity above a threshold
    "softplus": lambda z: torch.logaddexp(z, torch.zeros_like(z)),
}
LOSSES = {
    "softmax_cross_entropy": torch.nn.functional.cross_entropy,
    "squared_error": lambda z, y: ((z - y) ** 2).sum(1).mean(),
    "half_squared_error": lambda z, y: ((z - y) ** 2).sum(1).mean() / 2,
}
EDGES = [1, 2, 15, 16, 17, 31, 33, 48, 64, 65, 90]  # around whole vectors and whole tiles
WIDE_OUTPUTS = [machine.NARROW_OUTPUT, machine.NARROW_OUTPUT + 1, 130]
BATCHES = [1, 2, 7, 8, 9, 64, 255, 256, 257, 512, 700]  # around micro-batches


def random_problem(seed: int) -> tuple[fm.MLP, np.ndarray, np.ndarray]:
    """A network of 0 to 4 hidden layers, each with its own activation, and samples for it."""
    rng = np.random.default_rng(seed)

    def width() -> int:
        return int(rng.choice(EDGES) if rng.random() < 0.5 else rng.integers(1, 91))

    depth = seed % 5
    loss = list(LOSSES)[seed // 5 % 3]
    outputs = int(rng.choice(WIDE_OUTPUTS)) if rng.random() < 0.3 else width()
    if loss == "softmax_cross_entropy":
        outputs = max(outputs, 2)
    batch = int(rng.choice(BATCHES) if rng.random() < 0.5 else rng.integers(1, 701))
    net = fm.MLP(
        [width(), *(width() for _ in range(depth)), outputs],
        activation=[str(name) for name in rng.choice(list(ACTIVATIONS), depth)],
        loss=loss,
        seed=seed,
        dtype="float64",
    )
    for bias in net.biases:
        bias[...] = rng.normal(size=bias.shape)
    X = rng.normal(size=(batch, net.layer_sizes[0]))
    if net.is_classifier:
        return net, X, rng.integers(0, outputs, batch)
    return net, X, rng.normal(size=(batch, outputs))


def autograd(net: fm.MLP, X: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """The loss and its gradients by weights, then biases, as PyTorch computes them."""
    weights = [torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in net.weights]
    biases = [torch.tensor(b, dtype=torch.float64, requires_grad=True) for b in net.biases]
    a = torch.tensor(X)
    for w, b, name in zip(weights, biases, [*net.activations, "identity"], strict=True):
        a = ACTIVATIONS[name](a @ w + b)
    loss = LOSSES[net.loss](a, torch.tensor(y))
    loss.backward()
    return loss.item(), [p.grad.numpy() for p in (*weights, *biases)]


def gradient_of(net: fm.MLP, X: np.ndarray, y: np.ndarray) -> tuple[float, list[Any]]:
    loss, gradient = net.loss_and_gradient(X, y)
    return loss, [*gradient.weights, *gradient.biases]


def relative_error(values: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(values - exact) / max(np.linalg.norm(exact), 1e-300))


@pytest.mark.parametrize("seed", range(150))
def test_float64(seed: int) -> None:
    net, X, y = random_problem(seed)
    loss, gradients = gradient_of(net, X, y)
    exact_loss, exact = autograd(net, X, y)
    assert loss == pytest.approx(exact_loss, rel=1e-12)
    assert net.evaluate(X, y).loss == pytest.approx(exact_loss, rel=1e-12)
    for ours, theirs in zip(gradients, exact, strict=True):
        assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("seed", range(0, 150, 3))
def test_float32(seed: int) -> None:
    """Within 2e-5, about 200 roundings of 6e-8, of the exact gradient at the same parameters."""
    net64, X, y = random_problem(seed)
    net = net64.astype("float32")
    X = X.astype("float32")
    y = y if net.is_classifier else y.astype("float32")
    loss, gradients = gradient_of(net, X, y)
    exact_loss, exact = gradient_of(net.astype("float64"), X, y)
    assert loss == pytest.approx(exact_loss, rel=2e-5)
    for ours, theirs in zip(gradients, exact, strict=True):
        assert ours.dtype == np.float32
        assert relative_error(ours, theirs) < 2e-5


def test_random_problems_cover_what_they_should() -> None:
    nets = [random_problem(seed)[0] for seed in range(150)]
    assert {len(net.activations) for net in nets} == {0, 1, 2, 3, 4}
    assert {(net.loss, len(net.activations)) for net in nets} == {
        (loss, depth) for loss in LOSSES for depth in range(5)
    }
    assert {name for net in nets for name in net.activations} == set(ACTIVATIONS)
    assert {net.layer_sizes[-1] > machine.NARROW_OUTPUT for net in nets} == {True, False}


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


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softplus"])
def test_saturated_activations(name: str) -> None:
    rng = np.random.default_rng(0)
    net = fm.MLP([3, 20, 2], activation=name, dtype="float64", seed=1)
    X, y = rng.normal(size=(30, 3)), rng.integers(0, 2, 30)
    for size in (10.0, 300.0, 1e4):
        net.weights[0][...] = rng.normal(size=(3, 20)) * size
        loss, gradients = gradient_of(net, X, y)
        exact_loss, exact = autograd(net, X, y)
        assert loss == pytest.approx(exact_loss, rel=1e-12)
        # f' is computed from the output, whose rounding 1 - f**2 and f (1 - f) see
        scale = max(np.abs(g).max() for g in exact)
        for ours, theirs in zip(gradients, exact, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14 * scale)
