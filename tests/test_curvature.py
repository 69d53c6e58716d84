"""Hessian-vector products against differences and PyTorch; eigenvalues and descent where known."""

import itertools
import zlib
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.activations import NAMES as ACTIVATIONS
from fastmlp.activations import Activation
from fastmlp.curvature import (
    Lipschitz,
    hessian_vector_product,
    smoothness,
    verify_descent,
)
from fastmlp.datasets import load_mnist157
from fastmlp.losses import NAMES as LOSSES
from fastmlp.losses import Loss
from fastmlp.norms import BatchNorm, LayerNorm
from fastmlp.optimizers import GradientDescent
from fastmlp.training import fit

Array = np.ndarray
NORMS = [None, "batch", "layer"]


class Problem:
    """A float64 network with random parameters, samples for it, and two directions."""

    def __init__(self, name: str, sizes: list[int], samples: int, **settings: Any) -> None:
        self.rng = rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.net = net = fm.MLP(sizes, dtype="float64", seed=3, **settings)
        self.fill(net.theta, 0.5)
        for gain in net.gains:
            gain += 1.0
        for mean, variance in zip(net.running_means, net.running_variances, strict=True):
            mean[...] = rng.normal(size=mean.shape)
            variance[...] = rng.uniform(0.5, 2.0, variance.shape)
        self.X = rng.normal(size=(samples, sizes[0]))
        if net.loss.name == "softmax_cross_entropy":
            self.y = rng.integers(0, sizes[-1], samples)
        else:
            self.y = rng.uniform(size=(samples, sizes[-1]))
        self.weights = rng.uniform(0.1, 2.0, samples)
        self.u, self.v = (self.fill(np.zeros_like(net.theta), 1.0) for _ in range(2))

    def fill(self, flat: Array, size: float) -> Array:
        flat[...] = 0.0
        for tensor in self.net.layout.tensors:
            tensor.view(flat)[...] = size * self.rng.normal(size=tensor.shape)
        self.net.layout.spread(flat)
        return flat

    def product(self, v: Array, training: bool = True) -> Array:
        product = hessian_vector_product(
            self.net, self.X, self.y, v, sample_weight=self.weights, training=training
        )
        return product.flat

    def differences(self, v: Array, training: bool = True, step: float = 1e-6) -> Array:
        """The gradient's central difference along v."""
        net, theta = self.net.clone(), self.net.theta
        gradients = []
        for sign in (1.0, -1.0):
            net.theta[...] = theta + sign * step * v
            gradients.append(
                net.loss_and_gradient(
                    self.X, self.y, sample_weight=self.weights, training=training
                )[1].flat
            )
        return (gradients[0] - gradients[1]) / (2.0 * step)


def check(problem: Problem, training: bool = True) -> None:
    """The product agrees with differences to 1e-7, and u . H v = v . H u to 1e-10."""
    product = problem.product(problem.v, training)
    exact = problem.differences(problem.v, training)
    assert np.linalg.norm(exact) > 0
    assert np.linalg.norm(product - exact) < 1e-7 * np.linalg.norm(exact)
    other = problem.product(problem.u, training)
    left, right = gathered(problem, problem.u) @ product, gathered(problem, problem.v) @ other
    assert abs(left - right) < 1e-10 * np.linalg.norm(problem.u) * np.linalg.norm(product)


def gathered(problem: Problem, flat: Array) -> Array:
    flat = flat.copy()
    problem.net.layout.gather(flat)
    return flat


@pytest.mark.jit
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", [*ACTIVATIONS, Activation("prelu", per_unit=True)], ids=str)
def test_products_of_every_activation_and_norm(
    activation: Any, norm: str | None, training: bool
) -> None:
    problem = Problem(
        f"{activation} {norm} {training}",
        [5, 18, 7, 3],
        30,
        activation=activation,
        norm=norm,
        dropout=[0.2, 0.3, 0.1],
        l2=[0.1, 0.0, 0.3],
        l1=0.01,
    )
    check(problem, training)


@pytest.mark.jit
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_products_of_every_loss(loss: str, norm: str | None) -> None:
    check(Problem(f"{loss} {norm}", [4, 9, 5], 20, activation="softplus", loss=loss, norm=norm))


@pytest.mark.jit
@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("softmax_cross_entropy", {"class_weight": [0.5, 2.0, 3.0], "label_smoothing": 0.1}),
        ("binary_cross_entropy", {"class_weight": [0.5, 2.0], "label_smoothing": 0.1}),
        ("huber", {"delta": 0.3}),
        ("pinball", {"quantile": [0.1, 0.5, 0.9]}),
    ],
)
def test_products_of_losses_with_options(loss: str, settings: dict[str, Any]) -> None:
    check(Problem(loss, [4, 9, 3], 20, activation="tanh", loss=Loss(loss, **settings)))


@pytest.mark.jit
@pytest.mark.parametrize(
    ("samples", "norm"),
    [(n, norm) for n in [1, 2, 255, 256, 257, 700] for norm in NORMS if n > 2 or norm != "batch"],
)
def test_products_of_any_number_of_rows(samples: int, norm: str | None) -> None:
    check(Problem(f"{samples}", [3, 6, 5, 2], samples, activation="gelu", norm=norm, dropout=0.2))


@pytest.mark.jit
@pytest.mark.parametrize(
    "sizes",
    [[3, 2], [20, 70], [1, 1, 2], [16, 33, 65], [90, 17, 64], [4, 5, 6, 7, 8, 9], [2, 130, 100]],
    ids=str,
)
def test_products_of_any_shape(sizes: list[int]) -> None:
    check(Problem(str(sizes), sizes, 12, activation="silu", norm="layer", dropout=0.1))


@pytest.mark.jit
@pytest.mark.parametrize("norm", [BatchNorm(epsilon=0.5), LayerNorm(epsilon=0.5)])
def test_products_with_a_large_epsilon(norm: Any) -> None:
    check(Problem("epsilon", [4, 9, 3], 20, activation="tanh", norm=norm))


def test_a_small_product_without_the_compiler() -> None:
    check(Problem("small", [2, 3, 2], 4, activation="prelu", norm="layer", dropout=0.2))


def test_the_whole_hessian_is_symmetric_and_its_padding_zero() -> None:
    problem = Problem("whole", [2, 3, 2], 5, activation="tanh")
    where = np.flatnonzero(problem.v)
    rows = []
    for index in where:
        unit = np.zeros_like(problem.v)
        unit[index] = 1.0
        product = problem.product(unit)
        assert not product[problem.v == 0].any()
        rows.append(product[where])
    matrix = np.array(rows)
    np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-15 * np.abs(matrix).max())


@pytest.mark.jit
@pytest.mark.parametrize("norm", NORMS)
def test_bits_do_not_depend_on_threads(norm: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("bits", [7, 20, 5], 1500, activation="gelu", norm=norm, dropout=0.3)
    products = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("FASTMLP_NUM_THREADS", threads)
        products.append(problem.product(problem.v).tobytes())
    assert len(set(products)) == 1


@pytest.mark.jit
def test_float32_is_within_its_roundings() -> None:
    problem = Problem("float32", [20, 30, 5], 600, activation="softplus", norm="layer")
    net = problem.net.astype("float32")
    exact = problem.product(problem.v)
    view = np.zeros_like(net.theta)
    for a, b in zip(problem.net.layout.tensors, net.layout.tensors, strict=True):
        b.view(view)[...] = a.view(problem.v)
    product = hessian_vector_product(
        net, problem.X.astype("float32"), problem.y, view, sample_weight=problem.weights
    )
    for weight, tensor in zip(product.weights, problem.net.layout.weights(exact), strict=True):
        assert weight.dtype == np.float32
        assert np.linalg.norm(weight - tensor) < 2e-5 * np.linalg.norm(tensor)


@pytest.mark.jit
def test_nothing_changes_and_a_gradient_is_a_direction() -> None:
    problem = Problem("same", [4, 9, 3], 20, activation="prelu", norm="batch", dropout=0.2)
    net, theta, running = problem.net, problem.net.theta.copy(), problem.net.running.copy()
    _, gradient = net.loss_and_gradient(problem.X, problem.y)
    given = hessian_vector_product(net, problem.X, problem.y, gradient)
    padded = gradient.flat.copy()
    padded[np.setdiff1d(np.arange(len(padded)), true_entries(net))] = np.nan
    again = hessian_vector_product(net, problem.X, problem.y, padded)
    np.testing.assert_array_equal(given.flat, again.flat)
    np.testing.assert_array_equal(net.theta, theta)
    np.testing.assert_array_equal(net.running, running)


def true_entries(net: fm.MLP) -> Array:
    numbers = np.arange(net.layout.length)
    return np.concatenate([tensor.view(numbers).ravel() for tensor in net.layout.tensors])


# --- PyTorch: its own double backward pass


def torch_product(problem: Problem) -> Array:
    """H v, in the layout of theta, by PyTorch's autograd."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
    F = torch.nn.functional
    net = problem.net
    tensors = net.layout.tensors
    values = {t.name: torch.tensor(t.view(net.theta).copy(), requires_grad=True) for t in tensors}
    functions = {
        "identity": lambda z: z,
        "softplus": lambda z: torch.logaddexp(z, torch.zeros_like(z)),
        "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    }
    a = torch.tensor(problem.X)
    for layer in range(len(net.layer_sizes) - 1):
        z = a @ values[f"layers.{layer}.weight"] + values[f"layers.{layer}.bias"]
        if layer == len(net.layer_sizes) - 2:
            break
        norm, f = net.norm[layer], net.activation[layer]
        if norm is not None:
            axis = 0 if isinstance(norm, BatchNorm) else 1
            centered = z - z.mean(axis, keepdim=True)
            variance = (centered**2).mean(axis, keepdim=True)
            z = centered / torch.sqrt(variance + norm.epsilon)
            z = z * values[f"layers.{layer}.gain"] + values[f"layers.{layer}.shift"]
        if f.name == "prelu":
            a = F.prelu(z, values[f"layers.{layer}.slope"])
        elif f.name in functions:
            a = functions[f.name](z)
        elif f.alpha is not None:
            a = getattr(F, f.name)(z, f.alpha)
        else:
            a = getattr(F, f.name)(z)
    y, weights = torch.tensor(problem.y), torch.tensor(problem.weights)
    rows = {
        "softmax_cross_entropy": lambda: F.cross_entropy(z, y, reduction="none"),
        "binary_cross_entropy": lambda: F.binary_cross_entropy_with_logits(
            z, y, reduction="none"
        ).sum(1),
        "squared_error": lambda: ((z - y) ** 2).sum(1),
        "half_squared_error": lambda: ((z - y) ** 2).sum(1) / 2,
        "huber": lambda: F.huber_loss(z, y, reduction="none").sum(1),
        "absolute_error": lambda: (z - y).abs().sum(1),
        "pinball": lambda: (z - y).abs().sum(1) / 2,
        "poisson": lambda: (z.exp() - y * z).sum(1),
    }[net.loss.name]()
    loss = (weights * rows).sum() / weights.sum()
    for layer, l2 in enumerate(net.l2):
        loss = loss + l2 / 2 * (values[f"layers.{layer}.weight"] ** 2).sum()
    parameters = list(values.values())
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    along = sum(
        (g * torch.tensor(t.view(problem.v).copy())).sum()
        for g, t in zip(gradients, tensors, strict=True)
    )
    products = torch.autograd.grad(along, parameters, allow_unused=True)
    flat = np.zeros_like(net.theta)
    for tensor, product in zip(tensors, products, strict=True):
        tensor.view(flat)[...] = 0.0 if product is None else product.numpy()
    return flat


@pytest.mark.jit
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        *zip([*ACTIVATIONS, Activation("prelu", per_unit=True)], itertools.cycle(LOSSES)),
        *zip(itertools.cycle(["softplus", "mish", "prelu"]), LOSSES),
    ],
    ids=str,
)
def test_products_against_pytorch(activation: Any, loss: str, norm: str | None) -> None:
    name = f"torch {activation} {loss} {norm}"
    problem = Problem(name, [6, 19, 8, 4], 300, activation=activation, loss=loss, norm=norm, l2=0.2)
    exact = torch_product(problem)
    assert np.linalg.norm(problem.product(problem.v) - exact) < 1e-10 * np.linalg.norm(exact)


# --- eigenvalues


def linear_problem(seed: int = 0) -> tuple[fm.MLP, Array, Array, Array]:
    """Least squares with one output: the Hessian is 2/n A^T A with A = [X 1]."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(50, 6)), rng.normal(size=(50, 1))
    A = np.hstack([X, np.ones((50, 1))])
    net = fm.MLP([6, 1], loss="squared_error", dtype="float64", seed=seed)
    return net, X, y, np.linalg.eigvalsh(2.0 / 50.0 * A.T @ A)


def test_eigenvalues_of_least_squares() -> None:
    net, X, y, exact = linear_problem()
    result = smoothness(net, X, y, tolerance=1e-12)
    assert result.converged
    assert result.eigenvalue == pytest.approx(exact[-1], rel=1e-10)
    assert result.smallest == pytest.approx(exact[0], rel=1e-10)
    assert result.eigenvalue == result.L
    assert result.step_bound == 2.0 / result.L
    q = result.eigenvector
    assert np.linalg.norm(q.flat) == pytest.approx(1.0, rel=1e-12)
    product = hessian_vector_product(net, X, y, q).flat
    np.testing.assert_allclose(product, result.eigenvalue * q.flat, atol=1e-10)


@pytest.mark.parametrize("activation", ["tanh", "prelu"])
def test_eigenvalues_of_a_network(activation: str) -> None:
    """Of both signs, against the whole matrix; a layer's one slope is one parameter."""
    problem = Problem("eigen", [2, 4, 2], 8, activation=activation, loss="squared_error")
    net, X, y = problem.net, problem.X, problem.y
    entries = true_entries(net)
    columns = []
    for index in entries:
        unit = np.zeros_like(net.theta)
        unit[index] = 1.0
        columns.append(hessian_vector_product(net, X, y, unit).flat[entries])
    exact = np.linalg.eigvalsh(np.array(columns))
    assert exact[0] < 0
    result = smoothness(net, X, y, tolerance=1e-10)
    assert result.eigenvalue == pytest.approx(exact[-1], rel=1e-8)
    assert result.smallest == pytest.approx(exact[0], rel=1e-8)
    assert pytest.approx(np.abs(exact).max(), rel=1e-8) == result.L


def test_too_few_iterations_are_told() -> None:
    net, X, y, exact = linear_problem()
    result = smoothness(net, X, y, tolerance=1e-12, max_iterations=2)
    assert not result.converged
    assert result.iterations == 2
    assert "NOT CONVERGED" in str(result)
    assert exact[0] < result.smallest < result.eigenvalue < exact[-1]


def test_one_parameter_alone_and_no_curvature() -> None:
    net = fm.MLP([1, 1], loss="absolute_error", dtype="float64")
    result = smoothness(net, [[2.0]], [3.0])
    assert (result.L, result.converged) == (0.0, True)
    assert result.step_bound == np.inf


# --- the descent lemma


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 1.5, 1.99])
def test_descent_of_least_squares(factor: float) -> None:
    """A quadratic function's L is the same everywhere, and every step below 2 / L descends."""
    net, X, y, exact = linear_problem()
    report = verify_descent(net, X, y, factor / exact[-1], exact[-1])
    assert report.holds
    assert not report.exceeding
    assert report.promised == pytest.approx(
        factor * (2 - factor) / (2 * exact[-1]) * report.gradient_norm**2, rel=1e-12
    )
    assert report.occurred >= report.promised > 0
    assert all(value == pytest.approx(exact[-1], rel=2e-3) for _, value in report.L_along)


def test_descent_along_the_top_eigenvector_is_what_was_promised() -> None:
    net = fm.MLP([1, 1], loss="half_squared_error", dtype="float64")
    report = verify_descent(net, [[1.0], [-1.0]], [3.0, -1.0], 0.25)
    assert report.occurred == pytest.approx(report.promised, rel=1e-12)


@pytest.mark.jit
def test_descent_of_logistic_regression() -> None:
    """Convex: the lemma holds with the L found along the step."""
    problem = Problem("convex", [6, 3], 80)
    net, theta = problem.net, problem.net.theta.copy()
    L = smoothness(net, problem.X, problem.y).L
    for alpha in (0.1 / L, 1.0 / L, 1.9 / L):
        report = verify_descent(net, problem.X, problem.y, alpha, sample_weight=problem.weights)
        assert report.holds
        assert max(value for _, value in report.L_along) == report.L
    np.testing.assert_array_equal(net.theta, theta)


def test_descent_fails_where_the_curvature_is_larger() -> None:
    net, X, y, exact = linear_problem()
    report = verify_descent(net, X, y, 1.0 / exact[-1], L=0.01 * exact[-1])
    assert not report.holds
    assert [t for t, _ in report.exceeding] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert "FAILS" in str(report)
    assert "exceeded at theta - 0.25 alpha g" in str(report)


@pytest.mark.jit
def test_lipschitz_steps_decrease_the_loss_of_the_digits_in_each_epoch() -> None:
    data = load_mnist157()
    net = fm.MLP([784, 12, 3], activation="softplus", seed=1)
    history = fit(
        net,
        data.X_train[:2000],
        data.y_train[:2000],
        optimizer=GradientDescent("lipschitz"),
        epochs=15,
    )
    assert (np.diff(history.loss) < 0).all()
    assert history.loss[-1] < 0.5 * history.loss[0]


@pytest.mark.jit
@pytest.mark.parametrize("settings", [{"norm": "batch"}, {"activation": "prelu"}, {"l2": 0.1}])
def test_lipschitz_steps_decrease_what_is_trained(settings: dict[str, Any]) -> None:
    problem = Problem("lipschitz", [5, 8, 2], 60, **{"activation": "tanh", **settings})
    net, X, y = problem.net, problem.X, problem.y
    losses = [net.loss_and_gradient(X, y)[0]]
    fit(
        net, X, y, optimizer=GradientDescent("lipschitz"), epochs=8,
        callbacks=[lambda training: losses.append(training.net.loss_and_gradient(X, y)[0])],
    )  # fmt: skip
    assert (np.diff(losses) < 0).all()


@pytest.mark.jit
def test_a_lipschitz_rate_at_a_minimum_is_finite() -> None:
    net = fm.MLP([1, 1], loss="squared_error", dtype="float64")
    X, y = [[1.0], [2.0]], [0.0, 0.0]
    net.theta[...] = 0.0
    fit(net, X, y, optimizer=GradientDescent("lipschitz"), epochs=3)
    assert not net.theta.any()


# --- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 0.1}, "without dropout"),
        ({"loss": "absolute_error"}, "needs a loss with curvature, not absolute_error"),
        ({"loss": "pinball"}, "needs a loss with curvature, not pinball"),
    ],
)
def test_networks_without_a_lipschitz_rate(settings: dict[str, Any], message: str) -> None:
    problem = Problem("none", [3, 4, 2], 6, **settings)
    with pytest.raises(ValueError, match=message):
        Lipschitz(problem.net, problem.net._checked(problem.X, problem.y))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda n, X, y: hessian_vector_product(n, X, y, [1.0]), ValueError, "v must have the"),
        (lambda n, X, y: hessian_vector_product(n, X, y, np.nan * n.theta), ValueError, "v must"),
        (lambda n, X, y: hessian_vector_product(n, X, y, ["a"]), TypeError, "v must be a Gradient"),
        (lambda n, X, y: hessian_vector_product(n, X[:3], y, n.theta), ValueError, "y must have"),
        (
            lambda n, X, y: hessian_vector_product(n, X, y, n.theta, training=1),
            TypeError,
            "training must be True or False",
        ),
        (lambda n, X, y: smoothness("net", X, y), TypeError, "net must be an MLP, got str"),
        (lambda n, X, y: smoothness(n, X, y, tolerance=0.0), ValueError, "tolerance must be"),
        (lambda n, X, y: smoothness(n, X, y, max_iterations=0), ValueError, "max_iterations must"),
        (lambda n, X, y: smoothness(n, X, y, seed=-1), ValueError, "seed must be"),
        (lambda n, X, y: verify_descent(n, X, y, 0.0), ValueError, "alpha must be"),
        (lambda n, X, y: verify_descent(n, X, y, "1"), TypeError, "alpha must be a number"),
        (lambda n, X, y: verify_descent(n, X, y, 0.1, L=-1.0), ValueError, "L must be"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    net, X, y, _ = linear_problem()
    with pytest.raises(error, match=message):
        call(net, X, y)


@pytest.mark.jit
def test_a_hessian_that_is_not_finite() -> None:
    net = fm.MLP([1, 1], loss="poisson", dtype="float64")
    net.weights[0][...] = 1.0
    with pytest.raises(FloatingPointError, match="the Hessian of the loss is not finite"):
        smoothness(net, [[800.0]], [1.0])
