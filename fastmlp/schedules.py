"""Learning rates that change while training.

A schedule is a function of the step's number alone, so the rates of an epoch are known before it
begins. Steps count from 0, one for each batch; epochs count from 0 too. `ReduceOnPlateau` also
looks at what the finished epochs have brought.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import check_number, check_whole
from ._names import check_name
from ._schedule import Constant, RateLike, Rates, Schedule, as_schedule

__all__ = [
    "Constant",
    "Cosine",
    "CosineLog",
    "Exponential",
    "InverseScaling",
    "OneCycle",
    "ReduceOnPlateau",
    "Schedule",
    "Step",
    "WarmUp",
    "as_schedule",
]


@dataclass(frozen=True)
class Step(Schedule):
    """rate factor**(epoch // every): a staircase, PyTorch's StepLR.

    Parameters
    ----------
    rate
        Learning rate of the first epochs, above 0.
    every
        Epochs between two stairs.
    factor
        On the rate at each stair, above 0.

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number or out of its range.

    Examples
    --------
    >>> Step(1.0, every=2, factor=0.5).rates(np.arange(6), 6, 1).tolist()
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_number(self.rate, "rate", 0.0, open_low=True)
        check_whole(self.every, "every", 1)
        check_number(self.factor, "factor", 0.0, open_low=True)

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return the rate of each step."""
        return np.asarray(self.rate * float(self.factor) ** (steps // per_epoch // self.every))


@dataclass(frozen=True)
class Exponential(Schedule):
    """rate factor**epoch: constant within an epoch, PyTorch's ExponentialLR.

    Parameters
    ----------
    rate
        Learning rate of the first epoch, above 0.
    factor
        On the rate after each epoch, above 0.

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number or out of its range.

    Examples
    --------
    >>> Exponential(1.0, 0.5).rates(np.arange(6), 6, 2).tolist()
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    rate: float
    factor: float

    def __post_init__(self) -> None:
        check_number(self.rate, "rate", 0.0, open_low=True)
        check_number(self.factor, "factor", 0.0, open_low=True)

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return the rate of each step."""
        return np.asarray(self.rate * float(self.factor) ** (steps // per_epoch))


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """rate / t**power at step t = 1, 2, ...

    scikit-learn's "invscaling", except that t counts steps, where scikit-learn counts the samples
    of the finished epochs. A power in (1/2, 1] meets the conditions of Robbins and Monro.

    Parameters
    ----------
    rate
        Learning rate of the first step, above 0.
    power
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number or out of its range.

    References
    ----------
    H. Robbins, S. Monro, "A stochastic approximation method" (1951).

    Examples
    --------
    >>> InverseScaling(1.0).rates(np.array([0, 3]), 4, 1).tolist()
    [1.0, 0.5]
    """

    rate: float
    power: float = 0.5

    def __post_init__(self) -> None:
        check_number(self.rate, "rate", 0.0, open_low=True)
        check_number(self.power, "power", 0.0)

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return the rate of each step."""
        return np.asarray(self.rate / (steps + 1.0) ** self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """minimum + (rate - minimum)(1 + cos(pi s / steps)) / 2 at step s = 0, 1, ...

    After `steps` steps the rate stays at the minimum. Up to there it is PyTorch's
    CosineAnnealingLR, stepped after each batch.

    Parameters
    ----------
    rate
        Learning rate of the first step, above 0.
    minimum
        The last rate, at least 0 and not above `rate`.
    steps
        Steps until the minimum; None: the whole training.

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number or out of its range.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    equation 5, without restarts.

    Examples
    --------
    >>> Cosine(1.0).rates(np.array([0, 2, 4]), 4, 1).tolist()
    [1.0, 0.5, 0.0]
    """

    rate: float
    minimum: float = 0.0
    steps: int | None = None

    def __post_init__(self) -> None:
        check_number(self.rate, "rate", 0.0, open_low=True)
        _check_minimum(self.minimum, self.rate)
        if self.steps is not None:
            check_whole(self.steps, "steps", 1)

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return the rate of each step."""
        return _anneal(self.rate, self.minimum, steps / (self.steps or total))


@dataclass(frozen=True)
class CosineLog(Schedule):
    """rate (1 - cos(2 pi log2(1 + (2**cycles - 1) s / steps))) / 2 at step s = 0, 1, ...

    As many waves from 0 to the rate and back, each twice as long as the one before: the large rates
    come early, and several times the network comes to rest. The first step has rate 0, and so have
    those after `steps`.

    Parameters
    ----------
    rate
        The largest learning rate, above 0.
    cycles
        Waves, at least 1; with 4 it is the paper's coslog4.
    steps
        Steps of all waves; None: the whole training.

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number or out of its range.

    References
    ----------
    D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and
    boosted trees on tabular data", NeurIPS 2024.

    Examples
    --------
    >>> CosineLog(1.0, cycles=2).rates(np.arange(7), 6, 1).round(3).tolist()
    [0.0, 0.93, 0.0, 0.718, 0.93, 0.324, 0.0]
    """

    rate: float
    cycles: int = 4
    steps: int | None = None

    def __post_init__(self) -> None:
        check_number(self.rate, "rate", 0.0, open_low=True)
        check_whole(self.cycles, "cycles", 1)
        if self.steps is not None:
            check_whole(self.steps, "steps", 1)

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return the rate of each step."""
        share = np.minimum(steps / (self.steps or total), 1.0)
        waves = np.log2(1.0 + (2.0**self.cycles - 1.0) * share)
        return np.asarray(self.rate * 0.5 * (1.0 - np.cos(2.0 * math.pi * waves)))


@dataclass(frozen=True)
class WarmUp(Schedule):
    """Another schedule, times a factor that rises linearly from `start` to 1 over `steps` steps.

    The other schedule counts from the first step on, as in PyTorch's ChainedScheduler of a
    LinearLR and it.

    Parameters
    ----------
    schedule
        The other one, or its constant rate, or a function of the step's number.
    steps
        Steps until the factor is 1.
    start
        The factor of the first step, in [0, 1). PyTorch's is 1/3.

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be.

    References
    ----------
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017), 2.2.

    Examples
    --------
    >>> WarmUp(1.0, steps=4).rates(np.arange(6), 6, 1).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    schedule: RateLike
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        as_schedule(self.schedule, "schedule")
        check_whole(self.steps, "steps", 1)
        check_number(self.start, "start", 0.0, 1.0)

    @property
    def monitor(self) -> str | None:
        """What the other schedule monitors."""
        return as_schedule(self.schedule).monitor

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return the rate of each step."""
        factor = self.start + (1.0 - self.start) * np.minimum(steps / self.steps, 1.0)
        return factor * as_schedule(self.schedule).rates(steps, total, per_epoch)

    def multiplier(self, values: Sequence[float]) -> float:
        """Return the other schedule's factor."""
        return as_schedule(self.schedule).multiplier(values)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """One rise to the maximum and one fall to almost nothing, both along half a cosine.

    From maximum / division up to the maximum at step `rise` `steps` - 1, from there down to
    maximum / (division final_division) at step `steps` - 1, where it stays. PyTorch's OneCycleLR
    with two phases and without its cycle of the momentum.

    Parameters
    ----------
    maximum
        The largest learning rate, above 0.
    rise
        Share of the steps in which the rate rises, in [0, 1).
    division, final_division
        What the maximum, and then the first rate, are divided by; above 0.
    steps
        Steps of the cycle; None: the whole training.

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number or out of its range.

    References
    ----------
    L. N. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large
    learning rates" (2018).

    Examples
    --------
    >>> OneCycle(1.0).rates(np.array([0, 2, 9]), 10, 1).round(6).tolist()
    [0.04, 1.0, 4e-06]
    """

    maximum: float
    rise: float = 0.3
    division: float = 25.0
    final_division: float = 1e4
    steps: int | None = None

    def __post_init__(self) -> None:
        check_number(self.maximum, "maximum", 0.0, open_low=True)
        check_number(self.rise, "rise", 0.0, 1.0)
        check_number(self.division, "division", 0.0, open_low=True)
        check_number(self.final_division, "final_division", 0.0, open_low=True)
        if self.steps is not None:
            check_whole(self.steps, "steps", 1)

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return the rate of each step."""
        first = self.maximum / self.division
        last = (self.steps or total) - 1
        top = self.rise * (last + 1) - 1
        fall = _anneal(self.maximum, first / self.final_division, (steps - top) / (last - top))
        if top <= 0:
            return fall
        return np.where(steps < top, _anneal(first, self.maximum, steps / top), fall)


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """The rate times `factor` whenever `patience` epochs have passed without progress.

    An epoch has made progress if its value is below the best so far by more than `min_delta`. After
    more than `patience` epochs without, the rate of the next epoch is max(factor rate, minimum) and
    the count begins anew: PyTorch's ReduceLROnPlateau with threshold_mode="abs" and eps=0.

    Parameters
    ----------
    rate
        Learning rate of the first epochs, above 0.
    factor
        In (0, 1).
    patience
        Epochs without progress that are put up with, at least 0.
    min_delta
        At least 0.
    minimum
        Of the rate, at least 0 and not above `rate`.
    monitor
        "val_loss" or "loss".

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be.

    Examples
    --------
    >>> schedule = ReduceOnPlateau(0.1, patience=1)
    >>> [schedule.multiplier([3.0, 2.0, 2.5, 2.0][:n]) for n in range(5)]
    [1.0, 1.0, 1.0, 1.0, 0.1]
    """

    rate: float
    factor: float = 0.1
    patience: int = 10
    min_delta: float = 1e-4
    minimum: float = 0.0
    monitor: str = "val_loss"

    def __post_init__(self) -> None:
        check_number(self.rate, "rate", 0.0, open_low=True)
        check_number(self.factor, "factor", 0.0, 1.0, open_low=True)
        check_whole(self.patience, "patience", 0)
        check_number(self.min_delta, "min_delta", 0.0)
        _check_minimum(self.minimum, self.rate)
        check_name(self.monitor, "monitor", ("val_loss", "loss"))

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return the rate before any reduction, for each step."""
        return np.full(len(steps), self.rate, np.float64)

    def multiplier(self, values: Sequence[float]) -> float:
        """Return the factor on the rates of the next epoch, from the monitored values so far."""
        multiplier, best, waited = 1.0, math.inf, 0
        for value in values:
            if value < best - self.min_delta:
                best, waited = value, 0
            else:
                waited += 1
            if waited > self.patience:
                multiplier, waited = max(multiplier * self.factor, self.minimum / self.rate), 0
        return multiplier


def _check_minimum(minimum: float, rate: float) -> None:
    check_number(minimum, "minimum", 0.0)
    if minimum > rate:
        raise ValueError(f"minimum must not be above the rate {rate!r}, got {minimum!r}")


def _anneal(start: float, end: float, share: NDArray[np.floating[Any]]) -> Rates:
    """From start to end along half a cosine; the end beyond share 1."""
    return np.asarray(end + (start - end) * 0.5 * (1.0 + np.cos(math.pi * np.minimum(share, 1.0))))
