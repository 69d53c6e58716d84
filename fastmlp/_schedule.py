"""What a schedule of learning rates is: a number, a function or an object of `schedules.py`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import check_number

Rates = NDArray[np.float64]


class Schedule:
    """What all schedules share."""

    @property
    def monitor(self) -> str | None:
        """The column of the history that `multiplier` wants to see; None: it wants none."""
        return None

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return the learning rate of each step.

        Parameters
        ----------
        steps
            Numbers of the steps, from 0.
        total
            Steps of the whole training.
        per_epoch
            Steps of an epoch.
        """
        raise NotImplementedError

    def multiplier(self, values: Sequence[float]) -> float:
        """Return the factor on the rates of the next epoch, from the monitored values so far."""
        return 1.0


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate at every step.

    Parameters
    ----------
    rate
        The learning rate, above 0.

    Raises
    ------
    TypeError, ValueError
        If the rate is not a number or out of its range.

    Examples
    --------
    >>> Constant(0.1).rates(np.arange(3), 3, 1).tolist()
    [0.1, 0.1, 0.1]
    """

    rate: float

    def __post_init__(self) -> None:
        check_number(self.rate, "rate", 0.0, open_low=True)

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return the rate of each step."""
        return np.full(len(steps), self.rate, np.float64)


@dataclass(frozen=True)
class _Function(Schedule):
    """The rates that a function of the step's number returns."""

    function: Callable[[int], float]
    name: str

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        values = [self.function(int(step)) for step in steps]
        for step, value in zip(steps, values, strict=True):
            check_number(value, f"{self.name}({step})", 0.0)
        return np.array(values, np.float64)


RateLike = float | Schedule | Callable[[int], float]


def checked_rates(
    schedule: Schedule, steps: NDArray[np.int64], total: int, per_epoch: int
) -> Rates:
    """Return what a schedule, which users may write, gives; ValueError if that is no rate each."""
    rates = np.asarray(schedule.rates(steps, total, per_epoch), np.float64)
    if rates.shape != steps.shape or not (np.isfinite(rates) & (rates >= 0)).all():
        raise ValueError(
            "learning_rate must give a finite rate of at least 0 for each step, "
            f"{schedule!r} gave {rates}"
        )
    return rates


def as_schedule(value: Any, name: str = "learning_rate") -> Schedule:
    """Return the schedule that is meant: a schedule, a number, or a function step -> rate.

    The function's steps count from 0. What it returns is checked when it is called.

    Raises
    ------
    TypeError, ValueError
        If the value is none of them, or a number that is not above 0; `name` is the argument's.

    Examples
    --------
    >>> as_schedule(0.1)
    Constant(rate=0.1)
    >>> as_schedule(lambda step: 0.5**step).rates(np.arange(3), 3, 1).tolist()
    [1.0, 0.5, 0.25]
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, (int, float, np.integer, np.floating)):
        check_number(value, name, 0.0, open_low=True)
        return Constant(float(value))
    if callable(value) and not isinstance(value, type):
        return _Function(value, name)
    raise TypeError(f"{name} must be a number, a Schedule or a function of the step, got {value!r}")
