"""Solvers "sgd" and "adam", or an optimizer of ours: scikit-learn's loop over the epochs."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .._schedule import as_schedule
from ..errors import DivergenceError
from ..mlp import MLP
from ..optimizers import Optimizer
from ..training import Settings, checked_callbacks
from .descent import Descent
from .heads import Data, Head
from .solvers import EarlyEpsilonAdam, NamedRate, ScheduledRate, Solver, sgd
from .tasks import Tasks
from .validation import score, set_aside

__all__ = ["Problem", "begin", "fit_stochastic"]

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and "
    "need to be preprocessed."
)


@dataclass(frozen=True)
class Problem:
    """What a fit is about: the samples, those to validate on if they were given, and chance."""

    head: Head
    data: Data
    given: Data | None
    rng: np.random.RandomState
    threads: int


def begin(estimator: Any) -> None:
    """Set what a new fit begins with; a warm start goes on with what is there."""
    estimator.loss_curve_ = []
    estimator.best_loss_ = None if estimator.early_stopping else math.inf
    estimator.validation_loss_curve_ = None
    estimator.validation_scores_ = None
    estimator.best_validation_score_ = None
    estimator._no_improvement_count = 0
    estimator._best = None


def fit_stochastic(estimator: Any, problem: Problem, tasks: Tasks, incremental: bool) -> None:
    """Train the estimator's network for `max_iter` epochs, or one, until nothing gets better."""
    if estimator.early_stopping and incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    net, train, held_out = estimator.network_, problem.data, problem.given
    if estimator.early_stopping and held_out is None:
        train, held_out = set_aside(estimator, train, problem.rng)
    if not (incremental and hasattr(estimator, "_optimizer")):
        estimator._optimizer = _solver_of(estimator)
    rate, epochs = estimator._optimizer.rate, 1 if incremental else estimator.max_iter
    log = _Log(estimator, problem.head, train, held_out, tasks)
    descent = Descent(
        net,
        estimator._optimizer,
        _settings(estimator, net, len(train.batch), epochs, problem.rng),
        train.batch,
        None if held_out is None else held_out.batch,
        alpha=float(estimator.alpha),
        rng=problem.rng if estimator.shuffle else None,
        log=log,
        callbacks=checked_callbacks(estimator.callbacks),
        progress=estimator.progress,
        threads=problem.threads,
    )
    estimator.n_iter_ = 0
    try:
        descent.run()
    except DivergenceError as error:
        log.note_divergence(descent)
        if not estimator.early_stopping or estimator.best_validation_score_ == -math.inf:
            raise ValueError(NOT_FINITE) from error
        _warn("the training diverged; the network is that of the best validation score")
    descent.finish()
    if descent.history.interrupted:
        _warn("Training interrupted by user.", UserWarning)
    elif not (incremental or descent.is_stopped or descent.diverged or rate.ends):
        _warn(
            f"Stochastic Optimizer: Maximum iterations ({epochs}) reached and the optimization "
            "hasn't converged yet."
        )
    if estimator.early_stopping:
        net.theta[...], net.running[...] = estimator._best


def _warn(message: str, category: type[Warning] = ConvergenceWarning, depth: int = 0) -> None:
    """Warn at the line that called `fit`, from `fit_stochastic` or so many calls deeper."""
    warnings.warn(message, category, stacklevel=6 + depth)


def _solver_of(estimator: Any) -> Solver:
    """What `solver` and the parameters that belong to it stand for, before its first step."""
    rule, rate = estimator.solver, estimator.learning_rate
    if isinstance(rule, Optimizer):
        if not isinstance(rate, str):
            raise ValueError(f"learning_rate must be given to the optimizer, got {rate!r}")
        return Solver(rule, ScheduledRate(as_schedule(getattr(rule, "learning_rate", None))))
    initial, power = float(estimator.learning_rate_init), float(estimator.power_t)
    if rule == "sgd":
        optimizer: Optimizer = sgd(estimator.momentum, estimator.nesterovs_momentum)
    else:
        optimizer = EarlyEpsilonAdam(
            beta1=estimator.beta_1, beta2=estimator.beta_2, epsilon=estimator.epsilon
        )
    if not isinstance(rate, str):
        return Solver(optimizer, ScheduledRate(as_schedule(rate)))
    name = rate if rule == "sgd" else "constant"
    return Solver(optimizer, NamedRate(name, initial, power, initial))


def _settings(
    estimator: Any, net: MLP, samples: int, epochs: int, rng: np.random.RandomState
) -> Settings:
    """How the training goes; the samples are shuffled by the generator, not by the program."""
    size = estimator.batch_size
    if size == "auto":
        size = min(200, samples)
    elif size > samples:
        _warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            UserWarning,
            depth=1,
        )
        size = samples
    return Settings(
        optimizer=estimator._optimizer.rule,
        batch_size=int(size),
        epochs=epochs,
        shuffle=False,
        clip_value=estimator.clip_value,
        clip_norm=estimator.clip_norm,
        clip_global_norm=estimator.clip_global_norm,
        seed=int(rng.randint(2**31 - 1)) if net.architecture.is_random else 0,
    )


class _Log:
    """What scikit-learn writes down of each epoch, and reads to see whether to stop."""

    def __init__(
        self, estimator: Any, head: Head, train: Data, held_out: Data | None, tasks: Tasks
    ) -> None:
        self._estimator, self._head, self._tasks = estimator, head, tasks
        self._samples, self._held_out = len(train.batch), held_out
        self._scale = head.scale(train.columns.shape[1])
        self._offset = head.offset(train)
        self._val_offset = 0.0 if held_out is None else head.offset(held_out)
        if held_out is not None and estimator.validation_scores_ is None:
            estimator.validation_scores_, estimator.validation_loss_curve_ = [], []
            estimator.best_validation_score_ = -math.inf
        if estimator.early_stopping and estimator._best is None:
            self._keep()

    def begin_epoch(self) -> None:
        """Tell scikit-learn's callbacks."""
        self._tasks.begin_epoch()

    def end_epoch(self, training: Descent) -> bool:
        """Write down an epoch, see whether it is better than those before; say whether to stop."""
        history = training.history
        val_loss = history.val_loss[-1] if history.val_loss else math.nan
        self._note(history.loss[-1], val_loss, training.penalty(), training.outputs)
        is_over = self._is_over()
        return self._tasks.end_epoch() or is_over

    def note_divergence(self, training: Descent) -> None:
        """Write down an epoch that could not be finished."""
        self._note(math.nan, math.nan, math.nan, np.full_like(training.outputs, math.nan))

    def _note(self, loss: float, val_loss: float, penalty: float, z: Any) -> None:
        estimator = self._estimator
        estimator.n_iter_ += 1
        estimator.t_ += self._samples
        estimator.loss_ = self._scale * loss + self._offset + penalty
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
        if self._held_out is not None:
            estimator.validation_loss_curve_.append(self._scale * val_loss + self._val_offset)
            estimator.validation_scores_.append(score(estimator, self._head, self._held_out, z))
            if estimator.verbose:
                print(f"Validation score: {estimator.validation_scores_[-1]:f}")

    def _is_over(self) -> bool:
        estimator = self._estimator
        has_improved = self._has_improved()
        count = 0 if has_improved else estimator._no_improvement_count + 1
        estimator._no_improvement_count = count
        rate = estimator._optimizer.rate
        rate.end_epoch(estimator.t_, estimator.loss_curve_, estimator.validation_loss_curve_)
        if count <= estimator.n_iter_no_change:
            return False
        action, stops = rate.end_plateau()
        if estimator.verbose:
            what = "Validation score" if estimator.early_stopping else "Training loss"
            print(
                f"{what} did not improve more than tol={estimator.tol:f} for "
                f"{estimator.n_iter_no_change} consecutive epochs. {action}"
            )
        if not stops:
            estimator._no_improvement_count = 0
        return bool(stops)

    def _has_improved(self) -> bool:
        """Whether the epoch is better than the best by more than `tol`; keep it if it is better."""
        estimator = self._estimator
        if self._held_out is not None:
            value, best = estimator.validation_scores_[-1], estimator.best_validation_score_
            if value > best:
                estimator.best_validation_score_ = value
                if estimator.early_stopping:
                    self._keep()
            if estimator.early_stopping:
                return bool(not value < best + estimator.tol)
        loss, best = estimator.loss_, estimator.best_loss_
        estimator.best_loss_ = min(loss, best)
        return bool(not loss > best - estimator.tol)

    def _keep(self) -> None:
        net = self._estimator.network_
        self._estimator._best = net.theta.copy(), net.running.copy()
