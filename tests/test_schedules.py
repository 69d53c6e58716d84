"""Schedules: their curves, their units, and PyTorch's where it has the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastmlp.schedules import (
    Constant,
    Cosine,
    CosineLog,
    Exponential,
    InverseScaling,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    Step,
    WarmUp,
    as_schedule,
)

PER_EPOCH = 4


def curve(schedule: Schedule, total: int, per_epoch: int = PER_EPOCH) -> list[float]:
    rates = schedule.rates(np.arange(total), total, per_epoch)
    assert rates.dtype == np.float64
    assert rates.shape == (total,)
    assert isinstance(rates, np.ndarray)
    return [float(rate) for rate in rates]


ALL = [
    Constant(0.5),
    Step(0.5, every=2),
    Exponential(0.5, 0.9),
    InverseScaling(0.5),
    Cosine(0.5),
    Cosine(0.5, 0.1, steps=7),
    CosineLog(0.5),
    CosineLog(0.5, cycles=2, steps=7),
    WarmUp(Cosine(0.5), steps=6),
    WarmUp(Step(0.5, every=1), steps=6, start=0.25),
    OneCycle(0.5),
    OneCycle(0.5, steps=9),
    ReduceOnPlateau(0.5),
    as_schedule(lambda step: 1.0 / (1 + step)),
]


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_rates_of_some_steps_are_those_of_all(schedule: Schedule) -> None:
    """An epoch's rates do not depend on how the steps were asked for."""
    whole = np.array(curve(schedule, 24))
    for low, high in ((0, 4), (4, 8), (20, 24), (5, 6), (3, 3)):
        part = schedule.rates(np.arange(low, high), 24, PER_EPOCH)
        np.testing.assert_array_equal(part, whole[low:high])
    assert (whole >= 0).all()
    assert whole.max() <= 1.0


def test_step_counts_epochs() -> None:
    assert curve(Step(1.0, every=2, factor=0.5), 20) == [1.0] * 8 + [0.5] * 8 + [0.25] * 4


def test_exponential_counts_epochs() -> None:
    assert curve(Exponential(1.0, 0.5), 12) == [1.0] * 4 + [0.5] * 4 + [0.25] * 4


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_inverse_scaling_counts_steps(power: float) -> None:
    expected = [0.3 / t**power for t in range(1, 31)]
    np.testing.assert_allclose(curve(InverseScaling(0.3, power), 30), expected, rtol=1e-15)


def test_cosine_stays_at_its_minimum() -> None:
    rates = curve(Cosine(1.0, 0.25, steps=10), 20)
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.625, rel=1e-15)
    assert rates[10:] == [0.25] * 10
    assert rates[:11] == sorted(rates[:11], reverse=True)


def test_cosine_without_steps_takes_them_all() -> None:
    np.testing.assert_array_equal(curve(Cosine(1.0), 33), curve(Cosine(1.0, steps=33), 33))


def test_cosine_log_has_waves_each_twice_as_long() -> None:
    """The first ends after 1 of 15 parts, the second after 3, the third after 7."""
    rates = np.array(curve(CosineLog(2.0, steps=1500), 1600))
    np.testing.assert_allclose(rates[[0, 100, 300, 700]], 0.0, atol=1e-30)
    assert (rates[1500:] < 1e-30).all()
    tops = np.flatnonzero((rates[1:-1] > rates[:-2]) & (rates[1:-1] >= rates[2:])) + 1
    expected = [100 * (2 ** (wave + 0.5) - 1) for wave in range(4)]
    np.testing.assert_allclose(tops, expected, atol=1.0)
    np.testing.assert_allclose(rates[tops], 2.0, rtol=1e-3)


def test_warm_up_is_linear_and_wraps_anything() -> None:
    assert curve(WarmUp(2.0, steps=4), 6) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert curve(WarmUp(lambda step: 2.0**-step, steps=2, start=0.5), 4) == [
        0.5,
        0.375,
        0.25,
        0.125,
    ]


def test_one_cycle_rises_and_falls() -> None:
    rates = curve(OneCycle(1.0, rise=0.25, division=10.0, final_division=100.0, steps=40), 50)
    assert rates[0] == pytest.approx(0.1, rel=1e-14)
    assert rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[39:] == [0.001] * 11


@pytest.mark.parametrize("rise", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_one_cycle_may_be_short(rise: float, steps: int) -> None:
    rates = curve(OneCycle(1.0, rise=rise, steps=steps), 12)
    assert np.isfinite(rates).all()
    assert rates[steps - 1 :] == [1 / 25 / 1e4] * (13 - steps)


def test_functions_see_whole_numbers() -> None:
    seen: list[Any] = []
    as_schedule(lambda step: seen.append(step) or 0.1).rates(np.arange(5, 8), 20, 4)
    assert seen == [5, 6, 7]
    assert all(type(step) is int for step in seen)


@pytest.mark.parametrize(
    ("value", "error"),
    [(-0.1, ValueError), (np.nan, ValueError), (np.inf, ValueError), (None, TypeError)],
)
def test_functions_must_return_rates(value: Any, error: Any) -> None:
    schedule = as_schedule(lambda step: value if step == 2 else 0.1)
    with pytest.raises(error, match=r"learning_rate\(2\) must be"):
        schedule.rates(np.arange(4), 4, 4)


def test_a_function_may_return_zero() -> None:
    assert curve(as_schedule(lambda step: 0), 2) == [0.0, 0.0]


def test_as_schedule() -> None:
    schedule = Cosine(0.1)
    assert as_schedule(schedule) is schedule
    assert as_schedule(np.float32(0.5)) == Constant(0.5)
    assert as_schedule(2) == Constant(2.0)
    for value in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"^rate must be in \(0, inf\)"):
            as_schedule(value, "rate")
    for wrong in (None, "fast", True, 1j, Cosine, float, np.array([0.1])):
        with pytest.raises(TypeError, match=r"^rate must be a number"):
            as_schedule(wrong, "rate")


# --- reduction on plateaus


@pytest.mark.parametrize("schedule", [s for s in ALL if not isinstance(s, ReduceOnPlateau)])
def test_others_want_no_history(schedule: Schedule) -> None:
    assert schedule.monitor is None
    assert schedule.multiplier([1.0, 2.0, 3.0] * 10) == 1.0


def test_plateau_reduces_after_more_than_patience_epochs() -> None:
    schedule = ReduceOnPlateau(1.0, factor=0.5, patience=2)
    values = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0]
    multipliers = [schedule.multiplier(values[:n]) for n in range(len(values) + 1)]
    assert multipliers == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_plateau_ends_at_the_minimum() -> None:
    schedule = ReduceOnPlateau(0.1, factor=0.1, patience=0, minimum=0.004)
    assert 0.1 * schedule.multiplier([1.0] * 2) == pytest.approx(0.01)
    assert 0.1 * schedule.multiplier([1.0] * 9) == pytest.approx(0.004)


def test_plateau_takes_nan_for_no_progress() -> None:
    schedule = ReduceOnPlateau(0.1, factor=0.5, patience=1)
    assert schedule.multiplier([1.0, np.nan, np.nan]) == 0.5


def test_progress_must_be_more_than_min_delta() -> None:
    values = [1.0, 0.9, 0.8]
    assert ReduceOnPlateau(0.1, patience=1, min_delta=0.05).multiplier(values) == 1.0
    assert ReduceOnPlateau(0.1, patience=1, min_delta=0.5).multiplier(values) == 0.1


def test_warm_up_passes_the_plateaus_on() -> None:
    plateau = ReduceOnPlateau(0.1, patience=0, monitor="loss")
    schedule = WarmUp(plateau, steps=2)
    assert schedule.monitor == "loss"
    assert schedule.multiplier([1.0, 1.0]) == plateau.multiplier([1.0, 1.0]) == 0.1


# --- bad settings


@pytest.mark.parametrize(
    ("make", "name", "good", "bad"),
    [
        (Constant, "rate", [1e-300, 5.0], [0.0, -1.0, np.inf, np.nan]),
        (lambda **s: Step(**{"rate": 1.0, "every": 1, **s}), "rate", [0.5], [0.0]),
        (lambda **s: Step(**{"rate": 1.0, "every": 1, **s}), "every", [1, 9], [0, -1]),
        (lambda **s: Step(**{"rate": 1.0, "every": 1, **s}), "factor", [0.5, 2.0], [0.0, -1.0]),
        (lambda **s: Exponential(**{"rate": 1.0, "factor": 1.0, **s}), "rate", [0.5], [0.0]),
        (lambda **s: Exponential(**{"rate": 1.0, "factor": 1.0, **s}), "factor", [0.5], [0.0]),
        (lambda **s: InverseScaling(**{"rate": 1.0, **s}), "rate", [0.5], [0.0]),
        (lambda **s: InverseScaling(**{"rate": 1.0, **s}), "power", [0.0, 1.0], [-0.1]),
        (lambda **s: Cosine(**{"rate": 1.0, **s}), "rate", [0.5], [0.0]),
        (lambda **s: Cosine(**{"rate": 1.0, **s}), "minimum", [0.0, 1.0], [-0.1, 1.1]),
        (lambda **s: CosineLog(**{"rate": 1.0, **s}), "rate", [0.5], [0.0]),
        (lambda **s: WarmUp(**{"schedule": 1.0, "steps": 2, **s}), "schedule", [0.5], [0.0]),
        (lambda **s: WarmUp(**{"schedule": 1.0, "steps": 2, **s}), "steps", [1], [0]),
        (lambda **s: WarmUp(**{"schedule": 1.0, "steps": 2, **s}), "start", [0.0], [-0.1, 1.0]),
        (lambda **s: OneCycle(**{"maximum": 1.0, **s}), "maximum", [0.5], [0.0]),
        (lambda **s: OneCycle(**{"maximum": 1.0, **s}), "rise", [0.0, 0.9], [-0.1, 1.0]),
        (lambda **s: OneCycle(**{"maximum": 1.0, **s}), "division", [1.0], [0.0]),
        (lambda **s: OneCycle(**{"maximum": 1.0, **s}), "final_division", [1.0], [0.0]),
        (lambda **s: ReduceOnPlateau(**{"rate": 1.0, **s}), "rate", [0.5], [0.0]),
        (lambda **s: ReduceOnPlateau(**{"rate": 1.0, **s}), "factor", [0.5], [0.0, 1.0]),
        (lambda **s: ReduceOnPlateau(**{"rate": 1.0, **s}), "patience", [0, 3], [-1]),
        (lambda **s: ReduceOnPlateau(**{"rate": 1.0, **s}), "min_delta", [0.0], [-0.1, np.nan]),
        (lambda **s: ReduceOnPlateau(**{"rate": 1.0, **s}), "minimum", [0.0, 1.0], [-0.1, 2.0]),
    ],
)
def test_ranges(make: Callable[..., Schedule], name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert getattr(make(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(ValueError, match=f"^{name} must"):
            make(**{name: value})
    for value in ("much", True, 1j):
        with pytest.raises(TypeError, match=f"^{name} must"):
            make(**{name: value})


@pytest.mark.parametrize("make", [Cosine, CosineLog, OneCycle])
def test_steps(make: Any) -> None:
    for value in (0, -1):
        with pytest.raises(ValueError, match=r"^steps must be at least 1"):
            make(1.0, steps=value)
    for value in (2.0, "much", True):
        with pytest.raises(TypeError, match=r"^steps must be a whole number"):
            make(1.0, steps=value)


def test_monitor_is_a_loss() -> None:
    with pytest.raises(ValueError, match="monitor must be one of val_loss, loss, got 'accuracy'"):
        ReduceOnPlateau(0.1, monitor="accuracy")


# --- PyTorch


def torch_curve(
    make: Callable[[Any, Any], Any], total: int, every: int, rate: float
) -> list[float]:
    """The rates of the steps under PyTorch's scheduler, which advances every so many of them."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for step in range(total):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < total:
            scheduler.step()
    return rates


@pytest.mark.parametrize("seed", range(20))
def test_curves_are_those_of_pytorch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rate = float(10 ** rng.uniform(-4, 0))
    total, per_epoch = int(rng.integers(40, 200)), int(rng.integers(1, 9))
    stair, factor = int(rng.integers(1, 6)), float(rng.uniform(0.3, 0.99))
    steps, warm, start = total - 1, int(rng.integers(1, 30)), float(rng.uniform(0.01, 0.9))
    minimum = rate * float(rng.uniform(0.0, 1.0))
    rise = float(rng.uniform(0.05, 0.9))
    pairs: list[tuple[Schedule, int, Callable[[Any, Any], Any]]] = [
        (Step(rate, stair, factor), per_epoch, lambda s, o: s.StepLR(o, stair, factor)),
        (Exponential(rate, factor), per_epoch, lambda s, o: s.ExponentialLR(o, factor)),
        (
            Cosine(rate, minimum, steps),
            1,
            lambda s, o: s.CosineAnnealingLR(o, steps, eta_min=minimum),
        ),
        (
            WarmUp(Exponential(rate, factor), warm, start),
            1,
            lambda s, o: s.ChainedScheduler(
                [s.LinearLR(o, start, 1.0, warm), s.ExponentialLR(o, factor)]
            ),
        ),
        (
            OneCycle(rate, rise, 7.0, 300.0),
            1,
            lambda s, o: s.OneCycleLR(
                o,
                rate,
                total,
                pct_start=rise,
                div_factor=7.0,
                final_div_factor=300.0,
                cycle_momentum=False,
            ),
        ),
        (
            as_schedule(lambda step: rate / (1 + step)),
            1,
            lambda s, o: s.LambdaLR(o, lambda step: 1 / (1 + step)),
        ),
    ]
    for schedule, every, make in pairs:
        ours, theirs = curve(schedule, total, every), torch_curve(make, total, every, rate)
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-15, err_msg=str(schedule))


@pytest.mark.parametrize("seed", range(20))
def test_plateaus_are_those_of_pytorch(seed: int) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
    rng = np.random.default_rng(seed)
    rate, factor = float(10 ** rng.uniform(-4, 0)), float(rng.uniform(0.1, 0.9))
    patience, delta = int(rng.integers(0, 6)), float(rng.uniform(0.0, 0.3))
    minimum = rate * float(rng.uniform(0.0, 0.2))
    schedule = ReduceOnPlateau(rate, factor, patience, delta, minimum)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "min", factor, patience, delta, "abs", min_lr=minimum, eps=0.0
    )
    values = (3.0 / np.arange(1, 61) ** 0.3 + 0.3 * rng.normal(size=60)).tolist()
    for n, value in enumerate(values, 1):
        scheduler.step(value)
        ours = rate * schedule.multiplier(values[:n])
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert ours < rate
