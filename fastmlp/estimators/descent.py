"""A training whose steps and epochs mean what they mean to scikit-learn."""

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import sklearn.utils
from numpy.typing import NDArray

from .._execution import Batch, Execution
from .._schedule import Constant
from .._state import Position, TrainingState, initial
from ..kernels.plan import L2
from ..mlp import MLP
from ..training import Settings, Training
from .networks import half_squares
from .solvers import NamedRate, Solver
from .workers import is_short

__all__ = ["Descent", "Log"]


class Log(Protocol):
    """What is told of the epochs of a `Descent`."""

    def begin_epoch(self) -> None:
        """Before an epoch."""

    def end_epoch(self, training: "Descent") -> bool:
        """After an epoch; return whether to stop."""


class Descent(Training):
    """A training with the shuffles, the penalty and the learning rates of scikit-learn.

    It minimises a batch's weighted mean loss plus alpha/2 sum W**2 over the batch's sum of weights.
    So the network's own l2 is 0, and the kernels are given alpha over the weight of a batch, taken
    to be its rows times the mean weight.

    Attributes
    ----------
    outputs
        Those [n, O] of the samples to validate on, after the last epoch.
    """

    steps_per_epoch: int
    _samples: Batch
    _execution: Execution

    def __init__(
        self,
        net: MLP,
        solver: Solver,
        settings: Settings,
        samples: Batch,
        held_out: Batch | None,
        *,
        alpha: float,
        rng: np.random.RandomState | None,
        log: Log,
        callbacks: Any,
        progress: bool,
        threads: int,
    ) -> None:
        state = initial(net, solver.rule, averages=False)
        if solver.steps:
            state = replace(state, first=solver.first, second=solver.second)
        super().__init__(
            net,
            settings,
            settings.procedure(net, len(samples)),
            Constant(1.0),  # `_rates` does not ask it
            samples,
            held_out,
            None,
            replace(state, position=Position(steps=solver.steps)),
            callbacks,
            progress,
            threads,
        )
        self._is_short, self._seen = is_short(net, len(samples)), 0
        self._solver, self._alpha, self._rng, self._log = solver, alpha, rng, log
        self._rest = len(samples) % self._procedure.batch_size
        weights = samples.weights[samples.chosen] if len(samples.weights) else None
        self._weight = float(len(samples) if weights is None else weights.sum())
        self._squares = half_squares(net.weights) if alpha else 0.0
        held_out_rows = len(held_out) if held_out is not None else 0
        self.outputs = np.empty((held_out_rows, net.layer_sizes[-1]), net.dtype)

    def state(self) -> TrainingState:
        """No: the estimator's generator is not in it."""
        raise TypeError("an estimator cannot be resumed from a Checkpoint; use joblib.dump")

    def penalty(self) -> float:
        """The mean of the penalty over the steps of the last epoch.

        A step counts with the weights before its update. They are known at both ends of the epoch,
        and their squares taken to change evenly between: exact with one step an epoch.
        """
        if not self._alpha:
            return 0.0
        steps = self.steps_per_epoch
        before, self._squares = self._squares, half_squares(self.net.weights)
        mean = before + (self._squares - before) * (steps - 1) / (2 * steps)
        return self._alpha * steps * mean / self._weight

    def finish(self) -> None:
        """Put the optimizer's steps and moments into the solver, so that it can go on."""
        if self._initial is not None:  # Ctrl-C came while kernels were compiled
            return
        self._hand_over_rate()
        vectors = self._execution.vectors()
        self._solver.first, self._solver.second = vectors["first"], vectors["second"]
        self._solver.steps = self.step

    def _make_execution(self, state: TrainingState) -> Execution:
        return Execution(
            self.net,
            procedure=self._procedure,
            samples=self._samples,
            others=self._held_out,
            outputs=self.outputs,
            threads=self._threads,
            state=state,
        )

    def _advance(self, epochs: int) -> bool:
        """Train to the end of an epoch, or to its last batch if that is smaller."""
        if self.batch == 0:
            self._begin_epoch()
        is_rest = self._rest and self.batch == self.steps_per_epoch - 1
        rows = self._rest if is_rest else self._procedure.batch_size
        mean_weight = self._weight / len(self._samples)
        self._execution.team.plan.numbers[1:, L2] = self._alpha / (rows * mean_weight)
        return super()._advance(1)

    def _begin_epoch(self) -> None:
        self._log.begin_epoch()
        self._hand_over_rate()
        chosen = self._samples.chosen
        if self._rng is not None:  # the program reads the order from this array
            chosen[...] = sklearn.utils.shuffle(chosen, random_state=self._rng)

    def _extent(self, epochs: int) -> tuple[int, int]:
        """Up to the last batch if that is smaller: its penalty is larger."""
        epochs, pause = super()._extent(1)
        last = self.steps_per_epoch - 1
        if self._alpha and self._rest and self.batch < last and not 0 < pause <= last:
            return 1, last
        return epochs, pause

    def _rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        per_epoch = self.steps_per_epoch
        return self._solver.rate.rates(steps, self.settings.epochs * per_epoch, per_epoch)

    def _look(self) -> None:
        """After an epoch, let the log see it, and stop if it says so."""
        if self.epoch > self._seen:
            self._seen = self.epoch
            if self._log.end_epoch(self):
                self.stop()

    def _hand_over_rate(self) -> None:
        """Leave the velocity what it was when the rate has changed."""
        rate = self._solver.rate
        if isinstance(rate, NamedRate) and rate.change != 1.0:
            self._execution.scale_velocity(rate.change)
            rate.change = 1.0
