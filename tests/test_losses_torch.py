"""Every loss, its gradient and its curvature against PyTorch, with all options, in float64."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastmlp.kernels import loss as kernels
from fastmlp.kernels import reference
from fastmlp.kernels.loss_curvature import loss_curvature
from fastmlp.losses import NAMES, Loss

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
from torch_model import losses_of  # noqa: E402

F = torch.nn.functional

pytestmark = pytest.mark.jit  # some thousand rows

Array = NDArray[Any]
LINE = 8  # elements of float64 in a cache line
SEEDS = range(60)


@dataclass
class Case:
    """A loss, logits [B, O] and what they are compared with: labels or targets, and weights."""

    loss: Loss
    z: Array
    labels: Array
    targets: Array
    weights: Array

    @property
    def y(self) -> Array:
        return self.labels if len(self.labels) else self.targets


def random_case(name: str, seed: int) -> Case:
    """All options, with and without weights; small, usual and large outputs."""
    rng = np.random.default_rng([NAMES.index(name), seed])
    batch, outputs = int(rng.integers(1, 9)), int(rng.integers(1, 40))
    outputs += name == "softmax_cross_entropy"
    z = rng.normal(size=(batch, outputs)) * rng.choice([0.01, 1.0, 5.0, 30.0])
    labels, targets = np.zeros(0, np.int64), rng.normal(size=(batch, outputs))
    options: dict[str, Any] = {}
    if name.endswith("cross_entropy"):
        options["label_smoothing"] = float(rng.choice([0.0, 0.1, 0.7]))
        classes = outputs if name == "softmax_cross_entropy" else 2
        if rng.random() < 0.5:
            options["class_weight"] = rng.uniform(0.1, 3.0, classes)
    if name == "softmax_cross_entropy":
        if rng.random() < 0.5:
            labels, targets = rng.integers(0, outputs, batch), np.zeros((0, outputs))
        else:
            targets = rng.dirichlet(np.full(outputs, rng.choice([0.1, 1.0])), batch)
    elif name == "binary_cross_entropy":
        targets = rng.random((batch, outputs))
        targets = targets.round() if rng.random() < 0.5 else targets
    elif name == "poisson":
        targets = rng.poisson(3.0, (batch, outputs)).astype(float)
    elif name == "huber":
        options["delta"] = float(rng.choice([0.1, 1.0, 3.0]))
    elif name == "pinball":
        options["quantile"] = rng.uniform(0.05, 0.95, outputs) if rng.random() < 0.5 else 0.9
    weights = rng.uniform(0.2, 3.0, batch) if rng.random() < 0.5 else np.zeros(0)
    return Case(Loss(name, **options), z, labels, targets, weights)


def padded(values: Array) -> Array:
    """Return [B, O] in whole cache lines, NaN in the padding."""
    whole = np.full((len(values), -(-values.shape[1] // LINE) * LINE), np.nan)
    whole[:, : values.shape[1]] = values
    return whole


def kernel_gradient(case: Case) -> tuple[Array, Array, float]:
    """Gradient of the weighted sum, the shares of the rows, and the sum, by the kernel."""
    batch, outputs = case.z.shape
    z, scores = padded(case.z), np.zeros((3, batch))
    kernels.loss_backward(
        case.loss.objective(outputs),
        z,
        outputs,
        case.labels,
        case.targets,
        case.weights,
        np.arange(batch),
        0,
        batch,
        1.0,
        np.full((1, z.shape[1]), np.nan),
        scores,
    )
    assert not z[:, outputs:].any()
    return z[:, :outputs], scores[2], float(scores[0].sum())


def torch_sum(case: Case, z: Any) -> Any:
    """The weighted sum of the samples' losses."""
    weights = torch.tensor(case.weights if len(case.weights) else np.ones(len(z)))
    return (weights * losses_of(case.loss, z, torch.tensor(case.y))).sum()


def torch_gradient(case: Case) -> tuple[Array, float]:
    z = torch.tensor(case.z, requires_grad=True)
    value = torch_sum(case, z)
    value.backward()
    return z.grad.numpy(), value.item()


def reference_loss(loss: Loss) -> reference.Loss:
    return reference.Loss(
        loss.name, loss.label_smoothing, loss.delta, loss.quantile, loss.class_weight
    )


def assert_close(ours: Array, exact: Array) -> None:
    """To 1e-12 of the largest entry."""
    np.testing.assert_allclose(ours, exact, rtol=1e-12, atol=1e-12 * max(np.abs(exact).max(), 1e-3))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient(name: str, seed: int) -> None:
    case = random_case(name, seed)
    gradient, shares, value = kernel_gradient(case)
    exact, exact_value = torch_gradient(case)
    assert_close(gradient, exact)
    assert value == pytest.approx(exact_value, rel=1e-12, abs=1e-12)

    theirs, weights = reference_loss(case.loss), case.weights if len(case.weights) else None
    total = shares.sum()
    np.testing.assert_array_equal(shares, reference.row_weights(theirs, case.y, weights))
    assert_close(reference.loss_gradient(theirs, case.z, case.y, weights) * total, exact)
    mean = reference.loss_of(theirs, case.z, case.y, weights)
    assert mean == pytest.approx(exact_value / total, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_mean_is_that_of_torch(soft: bool, smoothing: float) -> None:
    """PyTorch divides by the weights of the labels' classes, or by the samples if y is soft."""
    rng = np.random.default_rng(1)
    z, class_weight = rng.normal(size=(20, 5)), rng.uniform(0.1, 3.0, 5)
    y = rng.dirichlet(np.ones(5), 20) if soft else rng.integers(0, 5, 20)
    loss = Loss("softmax_cross_entropy", label_smoothing=smoothing, class_weight=class_weight)
    labels, targets = (np.zeros(0, np.int64), y) if soft else (y, np.zeros((0, 5)))
    _, shares, value = kernel_gradient(Case(loss, z, labels, targets, np.zeros(0)))
    exact = F.cross_entropy(
        torch.tensor(z), torch.tensor(y), torch.tensor(class_weight), label_smoothing=smoothing
    )
    assert value / shares.sum() == pytest.approx(exact.item(), rel=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMES)
def test_curvature(name: str, seed: int) -> None:
    """The Hessian's product with a direction, by differentiating PyTorch's gradient again."""
    case = random_case(name, seed)
    batch, outputs = case.z.shape
    direction = np.random.default_rng(seed).normal(size=case.z.shape)
    rz, z = padded(direction), padded(case.z)
    loss_curvature(
        case.loss.objective(outputs),
        rz,
        z,
        outputs,
        case.labels,
        case.targets,
        case.weights,
        np.arange(batch),
        batch,
        0.5,
        np.full((1, z.shape[1]), np.nan),
    )
    assert not rz[:, outputs:].any()
    np.testing.assert_array_equal(z, padded(case.z))
    _, exact = torch.autograd.functional.hvp(
        lambda z: torch_sum(case, z) / 2, torch.tensor(case.z), torch.tensor(direction)
    )
    assert_close(rz[:, :outputs], exact.numpy())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMES)
def test_complex_steps_of_the_reference(name: str, seed: int) -> None:
    """Im L(z + ih dz) / h is the derivative along dz, with no difference to lose digits in."""
    case = random_case(name, seed)
    theirs, step = reference_loss(case.loss), 1e-100
    direction = np.random.default_rng(seed).normal(size=case.z.shape)
    moved = case.z + 1j * step * direction
    derivative = reference.loss_of(theirs, moved, case.y).imag / step
    terms = reference.loss_gradient(theirs, case.z, case.y) * direction
    assert derivative == pytest.approx(terms.sum(), rel=1e-12, abs=1e-12 * np.abs(terms).sum())


def test_cases_cover_the_options() -> None:
    cases = [random_case(name, seed) for name in NAMES for seed in SEEDS]
    smooth = {
        (
            c.loss.name,
            c.loss.label_smoothing > 0,
            c.loss.class_weight is not None,
            len(c.labels) > 0,
        )
        for c in cases
        if c.loss.is_classifier
    }
    assert len(smooth) == 12  # labels or soft, smoothed or not, weighted or not; binary: one kind
    assert {(c.loss.name, len(c.weights) > 0) for c in cases} == {
        (name, weighted) for name in NAMES for weighted in (True, False)
    }
    assert {type(c.loss.quantile) for c in cases} == {float, tuple}
