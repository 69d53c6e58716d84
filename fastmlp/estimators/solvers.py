"""What scikit-learn calls a solver and a learning rate, as optimizers and rates of ours."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._schedule import Constant, Schedule, checked_rates
from ..kernels.optimizer import RATE
from ..optimizers import SGD, Adam, Optimizer, Table

__all__ = ["EarlyEpsilonAdam", "NamedRate", "ScheduledRate", "Solver"]

Floats = NDArray[np.float64]
Losses = Sequence[float]
LARGEST_MOMENTUM = 1.0 - 2.0**-53  # scikit-learn allows 1, `SGD` what is below: this rounds to it
SMALLEST_RATE = 1e-6  # an adaptive rate that has come here becomes no smaller


@dataclass(frozen=True)
class EarlyEpsilonAdam(Adam):
    """Adam that adds epsilon before the bias correction, as scikit-learn does.

    theta <- theta - a_t m / (sqrt(v) + epsilon),
    a_t = learning_rate sqrt(1 - beta2**t) / (1 - beta1**t), m and v as in `Adam`: the more
    efficient order of D. P. Kingma, J. Ba, ICLR 2015, end of section 2.
    """

    def coefficients(self, first_step: int, rates: Table) -> Table:
        """Return a row of the kernels' table for each of the steps first_step + 1, ..."""
        table = Optimizer.coefficients(self, first_step, rates)
        t = first_step + 1.0 + np.arange(len(rates))
        table[:, RATE] = rates * np.sqrt(1.0 - self.beta2**t) / (1.0 - self.beta1**t)
        return table


def sgd(momentum: float, nesterov: bool) -> SGD:
    """The rule of solver="sgd"."""
    momentum = min(float(momentum), LARGEST_MOMENTUM)
    return SGD(momentum=momentum, nesterov=bool(nesterov and momentum))


@dataclass
class NamedRate:
    """The rate of learning_rate="constant", "invscaling" or "adaptive": it changes between epochs.

    `current` is that of the next epoch. In scikit-learn the velocity has the rate inside, v <-
    momentum v - rate g, here outside: `change` tells by what a velocity is to be multiplied when
    the rate has changed, so that it stays the same velocity.
    """

    name: str
    initial: float
    power: float
    current: float
    change: float = 1.0
    ends: ClassVar[bool] = False

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Floats:
        """Return the rate of each step of an epoch."""
        return np.full(len(steps), self.current)

    def end_epoch(self, samples: int, losses: Losses, val_losses: Losses | None) -> None:
        """Scale inversely to the samples seen so far, if that is the way."""
        if self.name == "invscaling":
            self._set(self.initial / (samples + 1) ** self.power)

    def end_plateau(self) -> tuple[str, bool]:
        """Do something about losses that fall no more; say what, and whether it is to stop."""
        if self.name != "adaptive":
            return "Stopping.", True
        if self.current <= SMALLEST_RATE:
            return "Learning rate too small. Stopping.", True
        self._set(self.current / 5.0)
        return f"Setting learning rate to {self.current:f}", False

    def _set(self, rate: float) -> None:
        self.change *= self.current / rate
        self.current = rate


@dataclass
class ScheduledRate:
    """The rate of a `Schedule`."""

    schedule: Schedule
    current: float = float("nan")
    multiplier: float = 1.0

    @property
    def ends(self) -> bool:
        """Whether the last epoch is where it was meant to end, converged or not."""
        return not isinstance(self.schedule, Constant)

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Floats:
        """Return the rate of each step of an epoch."""
        rates = checked_rates(self.schedule, steps, total, per_epoch) * self.multiplier
        self.current = float(rates[-1])
        return rates

    def end_epoch(self, samples: int, losses: Losses, val_losses: Losses | None) -> None:
        """Let the schedule look at the losses, if it wants to."""
        monitor = self.schedule.monitor
        if monitor is not None:
            values = losses if monitor == "loss" else val_losses
            if values is None:
                raise ValueError(
                    f"learning_rate monitors {monitor!r}: set early_stopping or give X_val, y_val"
                )
            self.multiplier = self.schedule.multiplier(values)

    def end_plateau(self) -> tuple[str, bool]:
        """Stop: the schedule has its own ways."""
        return "Stopping.", True


@dataclass
class Solver:
    """An optimizer between two steps: its rule and rate, its steps so far, and its moments.

    The moments are in the layout of `MLP.theta`, empty where the rule has none or before step 1.
    """

    rule: Optimizer
    rate: NamedRate | ScheduledRate
    steps: int = 0
    first: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    second: NDArray[Any] = field(default_factory=lambda: np.zeros(0))

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next epoch, or of the last step if a schedule decides."""
        return self.rate.current
