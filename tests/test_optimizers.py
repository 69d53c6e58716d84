"""Settings of the optimizers: what they tell the kernels, and what they refuse."""

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from fastmlp import optimizers
from fastmlp.kernels import optimizer as kernel
from fastmlp.optimizers import (
    LBFGS,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    GradientDescent,
    NAdam,
    Optimizer,
    RMSProp,
    moment_vectors,
)
from fastmlp.schedules import Cosine

COMPILED = [SGD, GradientDescent, Adagrad, RMSProp, Adam, AdamW, NAdam]
ADAPTIVE = [Adagrad, RMSProp, Adam, AdamW, NAdam]
FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
RATES = np.array([0.1, 0.2, 0.0, 0.4])


@pytest.mark.parametrize(
    ("optimizer", "code", "moments"),
    [
        (SGD(), kernel.SGD, (False, False)),
        (SGD(momentum=0.9), kernel.MOMENTUM, (True, False)),
        (SGD(momentum=0.9, nesterov=True), kernel.MOMENTUM, (True, False)),
        (GradientDescent(), kernel.SGD, (False, False)),
        (Adagrad(), kernel.SCALED, (False, True)),
        (RMSProp(), kernel.SCALED, (False, True)),
        (Adam(), kernel.ADAM, (True, True)),
        (AdamW(), kernel.ADAM, (True, True)),
        (NAdam(), kernel.ADAM, (True, True)),
        (LBFGS(), kernel.KEEP, (False, False)),
    ],
)
def test_rule_and_moments(optimizer: Optimizer, code: int, moments: tuple[bool, bool]) -> None:
    assert optimizer.code == code
    assert optimizer.moments == moments
    like = np.ones(32, np.float32)
    for vector, needed in zip(moment_vectors(optimizer, like), moments, strict=True):
        assert vector.dtype == like.dtype
        np.testing.assert_array_equal(vector, np.zeros(32 if needed else 0))


def test_initial_accumulator_is_the_first_sum_of_squares() -> None:
    first, second = moment_vectors(Adagrad(initial_accumulator=0.3), np.ones(16, np.float32))
    assert len(first) == 0
    np.testing.assert_array_equal(second, np.full(16, np.float32(0.3)))


@pytest.mark.parametrize("optimizer", [cls() for cls in COMPILED] + [LBFGS()])
def test_full_batch(optimizer: Optimizer) -> None:
    assert optimizer.is_full_batch == isinstance(optimizer, (GradientDescent, LBFGS))


@pytest.mark.parametrize("cls", COMPILED)
def test_settings_cannot_change(cls: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        cls().learning_rate = 1.0


@pytest.mark.parametrize("rate", [0.1, np.float32(0.1), 1, Cosine(0.1), lambda step: 0.1])
@pytest.mark.parametrize("cls", COMPILED)
def test_learning_rates(cls: Any, rate: Any) -> None:
    assert cls(learning_rate=rate).learning_rate is rate


@pytest.mark.parametrize("cls", COMPILED)
def test_clip_and_average_are_left_to_fit(cls: Any) -> None:
    hyper = cls().hyper(FLOAT32)
    assert hyper.dtype == np.float64
    assert hyper.shape == (kernel.CONSTANTS,)
    assert hyper[kernel.CLIP] == 0
    assert hyper[kernel.AVERAGE_DECAY] == 0


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (SGD(), {}),
        (SGD(momentum=0.7), {kernel.DECAY_1: 0.7}),
        (Adagrad(epsilon=0.1), {kernel.DECAY_2: 1, kernel.GAIN_2: 1, kernel.EPSILON_OUTSIDE: 0.1}),
        (
            RMSProp(decay=0.75, epsilon=0.1),
            {kernel.DECAY_2: 0.75, kernel.GAIN_2: 0.25, kernel.EPSILON_OUTSIDE: 0.1},
        ),
        (
            NAdam(beta1=0.7, beta2=0.75, epsilon=0.1, epsilon_inside_root=True),
            {
                kernel.DECAY_1: 0.7,
                kernel.DECAY_2: 0.75,
                kernel.GAIN_2: 0.25,
                kernel.EPSILON_INSIDE: 0.1,
            },
        ),
    ],
)
def test_constants(optimizer: Optimizer, expected: dict[int, float]) -> None:
    entries = [expected.get(i, 0.0) for i in range(kernel.CONSTANTS)]
    np.testing.assert_array_equal(optimizer.hyper(FLOAT64), entries)


@pytest.mark.parametrize(
    "optimizer",
    [SGD(), SGD(momentum=0.9), GradientDescent(), Adagrad(), RMSProp(), RMSProp(decay=0.0)],
)
def test_coefficients_without_corrections(optimizer: Optimizer) -> None:
    table = optimizer.coefficients(3, RATES)
    np.testing.assert_array_equal(table, [[rate, 0.0, 1.0, 1.0] for rate in RATES])


def test_coefficients_of_nesterov() -> None:
    table = SGD(momentum=0.5, nesterov=True).coefficients(3, RATES)
    np.testing.assert_array_equal(table, [[rate / 2, rate, 1.0, 1.0] for rate in RATES])


@pytest.mark.parametrize("first_step", [0, 1, 1000])
def test_coefficients_of_adam(first_step: int) -> None:
    beta1, beta2, decay = 0.8, 0.99, 0.3
    expected = [
        [rate / (1 - beta1**t), 0.0, (1 - beta2**t) ** -0.5, 1 - rate * decay]
        for t, rate in enumerate(RATES, first_step + 1)
    ]
    table = AdamW(beta1=beta1, beta2=beta2, weight_decay=decay).coefficients(first_step, RATES)
    np.testing.assert_allclose(table, expected, rtol=1e-13)
    table = Adam(beta1=beta1, beta2=beta2).coefficients(first_step, RATES)
    np.testing.assert_allclose(table[:, :3], np.array(expected)[:, :3], rtol=1e-13)
    np.testing.assert_array_equal(table[:, 3], 1.0)


@pytest.mark.parametrize("first_step", [0, 1, 1000])
def test_coefficients_of_nadam(first_step: int) -> None:
    optimizer = NAdam(beta1=0.8, beta2=0.99, momentum_decay=0.1)

    def mu(t: int) -> float:
        return 0.8 * (1 - 0.5 * 0.96 ** (0.1 * t))

    expected = []
    for t, rate in enumerate(RATES, first_step + 1):
        product = float(np.prod([mu(s) for s in range(1, t + 1)]))
        expected.append(
            [
                rate * mu(t + 1) / (1 - product * mu(t + 1)),
                rate * (1 - mu(t)) / (1 - product),
                (1 - 0.99**t) ** -0.5,
                1.0,
            ]
        )
    np.testing.assert_allclose(optimizer.coefficients(first_step, RATES), expected, rtol=1e-13)


@pytest.mark.parametrize("cls", COMPILED)
@pytest.mark.parametrize("cut", [0, 1, 7, 200, 500])
def test_coefficients_do_not_depend_on_where_epochs_begin(cls: Any, cut: int) -> None:
    rates = np.random.default_rng(0).uniform(0.1, 1.0, 500)
    whole = cls().coefficients(0, rates)
    parts = cls().coefficients(0, rates[:cut]), cls().coefficients(cut, rates[cut:])
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("cls", [Adam, AdamW, NAdam])
@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.0), (0.999999, 0.9999999)])
def test_coefficients_at_the_ends_of_the_range(cls: Any, beta1: float, beta2: float) -> None:
    table = cls(beta1=beta1, beta2=beta2).coefficients(0, np.full(10_000, 0.1))
    assert np.isfinite(table).all()
    assert (table >= 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("cls", ADAPTIVE)
def test_epsilon_inside_or_outside_the_root(cls: Any, inside: bool, dtype: Any) -> None:
    """The first step from zero: g**2 under the root, corrected, beside a large epsilon."""
    optimizer = cls(learning_rate=1.0, epsilon=2.0, epsilon_inside_root=inside)
    theta, g = np.zeros(16, dtype), np.linspace(-3, 3, 16).astype(dtype)
    hyper, row = optimizer.hyper(theta.dtype), optimizer.coefficients(0, np.ones(1))[0]
    first, second = moment_vectors(optimizer, theta)
    parameters = kernel.Parameters(theta, np.zeros(0, dtype), first, second, np.zeros(0, dtype))
    rule = kernel.make_rule(optimizer.code, hyper, row)
    kernel.apply(rule, parameters, 0, 16, g.reshape(1, -1).copy())
    wide = g.astype(np.float64)
    square = wide**2 * (0.01 if cls is RMSProp else 1.0)
    divisor = np.sqrt(square + 2.0) if inside else np.sqrt(square) + 2.0
    if cls is NAdam:
        mu, following = (0.9 * (1 - 0.5 * 0.96 ** (0.004 * t)) for t in (1, 2))
        wide = wide * (following * 0.1 / (1 - mu * following) + 1)
    eps = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(theta, -wide / divisor, rtol=eps, atol=eps)


@pytest.mark.parametrize("cls", ADAPTIVE)
def test_epsilon_must_not_vanish_in_the_dtype(cls: Any) -> None:
    for inside in (False, True):
        optimizer = cls(epsilon=1e-50, epsilon_inside_root=inside)
        assert optimizer.hyper(FLOAT64).max() > 0
        with pytest.raises(ValueError, match="epsilon must be above 0 in float32, got 1e-50"):
            optimizer.hyper(FLOAT32)


def nan() -> float:
    return float("nan")


RANGES = [
    (SGD, "momentum", [0.0, 0.99], [-0.1, 1.0, nan()]),
    (Adagrad, "epsilon", [1e-300, 3.0], [0.0, -1.0, np.inf]),
    (Adagrad, "initial_accumulator", [0.0, 3.0], [-0.1, np.inf]),
    (RMSProp, "decay", [0.0, 0.99], [-0.1, 1.0]),
    (RMSProp, "epsilon", [1e-300, 3.0], [0.0, nan()]),
    *[
        (cls, name, *values)
        for cls in (Adam, AdamW, NAdam)
        for name, values in {
            "beta1": ([0.0, 0.99], [-0.1, 1.0]),
            "beta2": ([0.0, 0.99], [-0.1, 1.0, nan()]),
            "epsilon": ([1e-300, 3.0], [0.0, -1.0]),
        }.items()
    ],
    (AdamW, "weight_decay", [0.0, 3.0], [-0.1, np.inf]),
    (NAdam, "momentum_decay", [0.0, 3.0], [-0.1, nan()]),
    (LBFGS, "tolerance", [0.0, 3.0], [-0.1, nan()]),
    (LBFGS, "history", [1, 100], [0, -1]),
    *[(cls, "learning_rate", [1e-300, 3.0], [0.0, -1.0, np.inf, nan()]) for cls in COMPILED],
]


@pytest.mark.parametrize(("cls", "name", "good", "bad"), RANGES)
def test_ranges(cls: Any, name: str, good: list[float], bad: list[float]) -> None:
    for value in good:
        assert getattr(cls(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(ValueError, match=f"^{name} must be "):
            cls(**{name: value})
    for value in (None, "much", True, 1j, [0.5]):
        error = ValueError if cls is GradientDescent and value == "much" else TypeError
        with pytest.raises(error, match=f"^{name} must be "):
            cls(**{name: value})


@pytest.mark.parametrize(
    ("cls", "name"), [(SGD, "nesterov"), *[(cls, "epsilon_inside_root") for cls in ADAPTIVE]]
)
def test_flags(cls: Any, name: str) -> None:
    for value in (None, 1, "yes", 0.0):
        with pytest.raises(TypeError, match=f"^{name} must be True or False"):
            cls(**{name: value})


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match="nesterov needs a momentum above 0"):
        SGD(nesterov=True)


def test_lipschitz_is_the_only_word_for_a_rate() -> None:
    assert GradientDescent("lipschitz").learning_rate == "lipschitz"
    with pytest.raises(ValueError, match="learning_rate must be a rate or 'lipschitz', got 'lip'"):
        GradientDescent("lip")
    with pytest.raises(TypeError, match="learning_rate must be"):
        SGD("lipschitz")  # type: ignore[arg-type]


def test_every_optimizer_is_public() -> None:
    assert set(optimizers.__all__) == {
        "Optimizer",
        "LBFGS",
        *(cls.__name__ for cls in COMPILED),
    }
