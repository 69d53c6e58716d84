"""Optimizers against PyTorch's, 100 steps each, from random starts and with random settings."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fastmlp import optimizers
from fastmlp.kernels import optimizer as kernel
from fastmlp.optimizers import Optimizer, moment_vectors
from fastmlp.schedules import as_schedule

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")

pytestmark = pytest.mark.jit  # some 100 000 updates

STEPS = 100
CASES = 100  # for each pair
LANES = 16


def uniform(low: float, high: float) -> Callable[[np.random.Generator], float]:
    return lambda rng: float(rng.uniform(low, high))


def logarithmic(low: float, high: float) -> Callable[[np.random.Generator], float]:
    return lambda rng: float(10 ** rng.uniform(np.log10(low), np.log10(high)))


RATE = logarithmic(1e-4, 0.1)
ADAM = {
    "beta1": uniform(0.0, 0.99),
    "beta2": uniform(0.5, 0.9999),
    "epsilon": logarithmic(1e-10, 1e-2),
}

# our class, its settings and where they come from, PyTorch's class, and its names for them
PAIRS: dict[str, tuple[Any, dict[str, Any], Any, Callable[..., dict[str, Any]]]] = {
    "sgd": (optimizers.SGD, {}, torch.optim.SGD, lambda: {}),
    "full batch": (optimizers.GradientDescent, {}, torch.optim.SGD, lambda: {}),
    "momentum": (
        optimizers.SGD,
        {"momentum": uniform(0.1, 0.99)},
        torch.optim.SGD,
        lambda momentum: {"momentum": momentum},
    ),
    "nesterov": (
        optimizers.SGD,
        {"momentum": uniform(0.1, 0.99), "nesterov": lambda rng: True},
        torch.optim.SGD,
        lambda momentum, nesterov: {"momentum": momentum, "nesterov": nesterov},
    ),
    "adagrad": (
        optimizers.Adagrad,
        {"epsilon": logarithmic(1e-10, 1e-2), "initial_accumulator": uniform(0.0, 1.0)},
        torch.optim.Adagrad,
        lambda epsilon, initial_accumulator: {
            "eps": epsilon,
            "initial_accumulator_value": initial_accumulator,
        },
    ),
    "rmsprop": (
        optimizers.RMSProp,
        {"decay": uniform(0.5, 0.999), "epsilon": logarithmic(1e-10, 1e-2)},
        torch.optim.RMSprop,
        lambda decay, epsilon: {"alpha": decay, "eps": epsilon},
    ),
    "adam": (
        optimizers.Adam,
        ADAM,
        torch.optim.Adam,
        lambda beta1, beta2, epsilon: {"betas": (beta1, beta2), "eps": epsilon},
    ),
    "adamw": (
        optimizers.AdamW,
        {**ADAM, "weight_decay": logarithmic(1e-4, 1.0)},
        torch.optim.AdamW,
        lambda beta1, beta2, epsilon, weight_decay: {
            "betas": (beta1, beta2),
            "eps": epsilon,
            "weight_decay": weight_decay,
        },
    ),
    "nadam": (
        optimizers.NAdam,
        {**ADAM, "momentum_decay": logarithmic(1e-4, 1.0)},
        torch.optim.NAdam,
        lambda beta1, beta2, epsilon, momentum_decay: {
            "betas": (beta1, beta2),
            "eps": epsilon,
            "momentum_decay": momentum_decay,
        },
    ),
}


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """PyTorch keeps NAdam's product of momenta in its default dtype, whatever the parameters'."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Problem:
    """A noisy quadratic of random size and curvature; some gradients are zero at some steps.

    The noise outweighs the curvature, or else Adam's quotients would magnify every rounding.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        n = LANES * int(rng.integers(1, 5))
        self.start = rng.normal(size=n)
        self.curvature = 10 ** rng.uniform(-3, 0, n)
        self.noise = rng.normal(size=(STEPS, n)) * 10 ** rng.uniform(-1, 2, n)
        self.seen = rng.random((STEPS, n)) < 0.9

    def gradient(self, theta: Any, t: int) -> Any:
        return (self.curvature * theta + self.noise[t]) * self.seen[t]


def our_path(optimizer: Optimizer, problem: Problem) -> np.ndarray:
    """The parameters after each step, by the kernels."""
    theta = problem.start.copy()
    first, second = moment_vectors(optimizer, theta)
    parameters = kernel.Parameters(theta, np.zeros(0), first, second, np.zeros(0))
    hyper = optimizer.hyper(theta.dtype)
    steps = np.arange(STEPS)
    rates = as_schedule(optimizer.learning_rate).rates(steps, STEPS, STEPS)
    table = np.concatenate(  # in two parts, as of two epochs
        [optimizer.coefficients(0, rates[:37]), optimizer.coefficients(37, rates[37:])]
    )
    path = []
    for t in range(STEPS):
        rule = kernel.make_rule(optimizer.code, hyper, table[t])
        g = problem.gradient(theta, t).reshape(1, -1)
        kernel.apply(rule, parameters, 0, len(theta), g)
        path.append(theta.copy())
    return np.array(path)


def their_path(
    make: Callable[..., Any],
    problem: Problem,
    settings: dict[str, Any],
    schedule: Callable[[Any], Any] = lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1.0
    ),
) -> np.ndarray:
    theta = torch.tensor(problem.start, requires_grad=True)
    optimizer = make([theta], **settings)
    scheduler = schedule(optimizer)
    path = []
    for t in range(STEPS):
        theta.grad = torch.from_numpy(problem.gradient(theta.detach().numpy(), t))
        optimizer.step()
        scheduler.step()
        path.append(theta.detach().numpy().copy())
    return np.array(path)


@pytest.mark.parametrize("name", PAIRS)
def test_paths_are_those_of_pytorch(name: str) -> None:
    ours, sources, theirs, translate = PAIRS[name]
    for case in range(CASES):
        rng = np.random.default_rng(case)
        rate = RATE(rng)
        settings = {setting: draw(rng) for setting, draw in sources.items()}
        problem = Problem(rng)
        np.testing.assert_allclose(
            our_path(ours(learning_rate=rate, **settings), problem),
            their_path(theirs, problem, {"lr": rate, **translate(**settings)}),
            rtol=1e-10,
            atol=1e-10,
            err_msg=f"case {case}: learning_rate {rate}, {settings}",
        )


@pytest.mark.parametrize("name", PAIRS)
def test_defaults_are_those_of_pytorch(name: str) -> None:
    ours, sources, theirs, translate = PAIRS[name]
    mine = ours()
    defaults = theirs([torch.zeros(1)]).defaults
    if ours not in (optimizers.SGD, optimizers.GradientDescent):  # the literature's is larger
        assert mine.learning_rate == defaults["lr"]
    for setting, value in translate(**{name: getattr(mine, name) for name in sources}).items():
        assert defaults[setting] == value


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (optimizers.SGD, torch.optim.SGD, {"momentum": 0.9}),
        (optimizers.SGD, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (optimizers.AdamW, torch.optim.AdamW, {"weight_decay": 0.3}),
        (optimizers.NAdam, torch.optim.NAdam, {}),
    ],
)
def test_a_rate_that_changes_with_every_step(
    ours: Any, theirs: Any, settings: dict[str, Any]
) -> None:
    """Momentum's velocity holds gradients, not steps, so a new rate acts at once."""
    problem = Problem(np.random.default_rng(0))
    expected = their_path(
        theirs,
        problem,
        {"lr": 0.1, **settings},
        lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    )
    optimizer = ours(learning_rate=lambda step: 0.1 * 0.9**step, **settings)
    np.testing.assert_allclose(our_path(optimizer, problem), expected, rtol=1e-10, atol=1e-10)
