"""The training loop: it checks, allocates, starts the team and reports; the kernels do the rest."""

import contextlib
import copy
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import kernels
from ._checks import check_flag, check_number, check_whole
from ._execution import Batch, Execution, Procedure
from ._minimize import minimize
from ._state import TrainingState, initial
from ._stream import LARGEST, Batches, Source, Streaming
from .errors import DivergenceError
from .history import History
from .kernels import clip, program
from .mlp import MLP
from .optimizers import LBFGS, Adam, Optimizer
from .progress import Progress
from .rates import Factors, rate_factors
from .schedules import Schedule, as_schedule, checked_rates
from .stopping import MONITORS, EarlyStopping
from .threads import POLL_SECONDS, resolve

if TYPE_CHECKING:
    from ._callback import Callback

__all__ = ["Settings", "Training", "fit", "train"]

Callbacks = Sequence["Callback | Callable[[Training], object]"]
Validation = float | tuple[ArrayLike, ...] | None
COLUMNS = {
    "loss": program.LOSS,
    "accuracy": program.ACCURACY,
    "val_loss": program.VALIDATION_LOSS,
    "val_accuracy": program.VALIDATION_ACCURACY,
}
LOOK_SECONDS = 0.2  # how often a run without stopping rules comes back to Python, at most


def fit(
    net: MLP,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    batches: Batches | None = None,
    optimizer: Optimizer | None = None,
    batch_size: int | None = 32,
    epochs: int = 10,
    shuffle: bool = True,
    sample_weight: ArrayLike | None = None,
    validation: Validation = None,
    early_stopping: EarlyStopping | None = None,
    accumulate: int = 1,
    clip_value: float | None = None,
    clip_norm: float | None = None,
    clip_global_norm: float | None = None,
    average: float | None = None,
    learning_rate_factors: Factors | None = None,
    checkpoint_every: int = 1,
    callbacks: Callbacks = (),
    progress: bool = False,
    threads: int | None = None,
    seed: int | None = None,
) -> History:
    """Train the network in place and return what happened, epoch by epoch.

    A step is theta <- optimizer(theta, gradient of the mean loss over a batch, plus penalty). The
    result depends on the arguments alone, bit for bit, not on the number of threads.

    Parameters
    ----------
    net
        The network; its parameters change.
    X
        Inputs [n, layer_sizes[0]].
    y
        Labels 0 to K-1 [n], or targets [n, O], as the loss asks (see `Loss`).
    batches
        In place of X and y: an iterable of (X, y) or (X, y, sample_weight), each of them a batch,
        or a function that returns one anew for each epoch. A thread collects them ahead, so they
        may be more than memory holds. They are taken in their order and size: `batch_size` and
        `shuffle` say nothing then. What the iteration raises is raised here, and the network keeps
        what it has learnt.
    optimizer
        See `fastmlp.optimizers`; None: `Adam()`.
    batch_size
        Samples in a step; 1 for stochastic gradient descent, None for the full batch. The last
        batch of an epoch may be smaller.
    epochs
        Passes over the samples, at most.
    shuffle
        Whether each epoch takes the samples in a new random order.
    sample_weight
        Weights [n] of the samples, at least 0; a batch's loss is the weighted mean.
    validation
        Share of the samples in (0, 1) to set aside (by class for a classifier; not of `batches`),
        or (X, y) or (X, y, sample_weight) of others: loss and accuracy on them are recorded after
        each epoch.
    early_stopping
        When to stop before the last epoch, see `EarlyStopping`.
    accumulate
        Batches whose gradients are put together, as one mean over their samples, in each step.
    clip_value, clip_norm, clip_global_norm
        Bounds above 0, one of them at most: on the size of each entry of the gradient, on the norm
        of the gradient by each parameter array (weights, biases, slopes, gains, shifts of a layer),
        or on the norm of all of it.
    average
        Decay in (0, 1) of an exponential moving average of the parameters, which is what the
        network has, and what is validated, after each epoch.
    learning_rate_factors
        Factors of at least 0 on the learning rate, by kind of parameter: "weight", "bias", "slope",
        "gain", "shift", each one number or one for each layer that may have it (the last three:
        each hidden layer), and "input_scale", a number. Those not named have 1; with 0 a parameter
        stays as it is. The decay of `AdamW` is multiplied too.
    checkpoint_every
        Every how many hidden layers the activations are kept for the backward pass; the others are
        computed again. More saves memory and costs time; the results are the same, bit for bit.
    callbacks
        Each a `Callback`, or a function that is called as function(training) after each epoch; see
        `fastmlp.callbacks`. Training goes on with parameters of its own: what a callback changes
        in the network is overwritten.
    progress
        Whether to show a progress bar on standard error. In any case a terminal is told when
        kernels have to be compiled first.
    threads
        None: FASTMLP_NUM_THREADS, or all cores this process may use.
    seed
        Of the shuffles, of dropout and of the split; None: the network's.

    Returns
    -------
    History
        Of the epochs that were finished. After Ctrl-C, which stops before the next step, that is
        the history so far; the network keeps what it has learnt.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; the network is as before then.
    DivergenceError
        If a loss or the parameters are not finite any more.
    Exception
        What a callback raises; the network keeps what it has learnt.
    FloatingPointError
        If learning_rate="lipschitz" meets a curvature that is not finite.
    ImportError
        If the optimizer is `LBFGS` and SciPy is not installed.
    """
    settings = Settings(
        optimizer=Adam() if optimizer is None else optimizer,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=shuffle,
        early_stopping=early_stopping,
        accumulate=accumulate,
        clip_value=clip_value,
        clip_norm=clip_norm,
        clip_global_norm=clip_global_norm,
        average=average,
        learning_rate_factors=learning_rate_factors,
        checkpoint_every=checkpoint_every,
        seed=seed,
    )
    training = prepare(
        net, X, y, settings, batches=batches, sample_weight=sample_weight, validation=validation,
        state=None, callbacks=callbacks, progress=progress, threads=threads,
    )  # fmt: skip
    training.run()
    return training.history


@dataclass(frozen=True)
class Settings:
    """The arguments of `fit` that, with network, samples and start, decide what comes out."""

    optimizer: Optimizer = field(default_factory=Adam)
    batch_size: int | None = 32
    epochs: int = 10
    shuffle: bool = True
    early_stopping: EarlyStopping | None = None
    accumulate: int = 1
    clip_value: float | None = None
    clip_norm: float | None = None
    clip_global_norm: float | None = None
    average: float | None = None
    learning_rate_factors: Factors | None = None
    checkpoint_every: int = 1
    seed: int | None = None

    def procedure(self, net: MLP, samples: int) -> Procedure:
        """Check the settings for a network and a number of samples.

        Raises TypeError or ValueError if one of them is not what it should be.
        """
        optimizer = self.optimizer
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer like Adam(), got {optimizer!r}")
        optimizer.hyper(net.dtype)
        check_flag(self.shuffle, "shuffle")
        check_whole(self.epochs, "epochs", 1)
        batch_size = None if optimizer.is_full_batch else self.batch_size
        size = samples if batch_size is None else check_whole(batch_size, "batch_size", 1)
        size = min(size, samples)
        accumulate = min(check_whole(self.accumulate, "accumulate", 1), -(-samples // size))
        code, limit = _norm_clip(self.clip_norm, self.clip_global_norm)
        if self.clip_value is not None and code != clip.NONE:
            raise ValueError("clip_value excludes clip_norm and clip_global_norm")
        if self.average is not None and _rate_of(optimizer) == "lipschitz":
            raise ValueError("average excludes learning_rate='lipschitz', which is of one network")
        if self.learning_rate_factors is not None and _rate_of(optimizer) == "lipschitz":
            raise ValueError(
                "learning_rate_factors excludes learning_rate='lipschitz', one for all"
            )
        normalizes_batches = net.architecture.has_batch_norm
        return Procedure(
            batch_size=size,
            optimizer=optimizer,
            accumulate=accumulate,
            shuffled=self.shuffle and samples > size * (1 if normalizes_batches else accumulate),
            seed=self.seed_for(net),
            clip=code,
            limit=limit,
            clip_value=_bound(self.clip_value, "clip_value"),
            average=_bound(self.average, "average", 1.0),
            checkpoint_every=check_whole(self.checkpoint_every, "checkpoint_every", 1),
            rates=rate_factors(self.learning_rate_factors, net.layout),
        )

    def seed_for(self, net: MLP) -> int:
        """The seed of shuffles, dropout and the split."""
        return net.seed if self.seed is None else check_whole(self.seed, "seed", 0, 2**63)


def train(
    net: MLP,
    X: ArrayLike | None,
    y: ArrayLike | None,
    settings: Settings,
    *,
    batches: Batches | None = None,
    sample_weight: ArrayLike | None = None,
    validation: Validation = None,
    state: TrainingState | None = None,
    callbacks: Callbacks = (),
    progress: bool = False,
    threads: int | None = None,
) -> TrainingState:
    """Do what `fit` does, from a state on if one is given, and return the state at the end.

    ``settings.epochs`` counts all epochs, those of the state included. Training 3 epochs and then
    from there to 5 gives the bits of training 5 at once, if the schedule does not depend on their
    number. Between epochs the samples may change, also their number; within one they must be the
    same. So an epoch more, with the optimizer's moments and step count kept, is::

        settings = replace(settings, epochs=state.position.epochs + 1)
        state = train(net, X, y, settings, state=state)

    The network gets the state's parameters; `state` itself and its history are left alone. The
    optimizer's kind and averaging must be those that the state was made with. Raises what `fit`
    raises.
    """
    training = prepare(
        net, X, y, settings, batches=batches, sample_weight=sample_weight, validation=validation,
        state=state, callbacks=callbacks, progress=progress, threads=threads,
    )  # fmt: skip
    training.run()
    return training.state()


def prepare(
    net: MLP,
    X: ArrayLike | None,
    y: ArrayLike | None,
    settings: Settings,
    *,
    batches: Batches | None,
    sample_weight: ArrayLike | None,
    validation: Validation,
    state: TrainingState | None,
    callbacks: Callbacks,
    progress: bool,
    threads: int | None,
) -> "Training":
    """Check all arguments of `train`; the network is as before."""
    if not isinstance(net, MLP):
        raise TypeError(f"net must be an MLP, got {type(net).__name__}")
    check_flag(progress, "progress")
    watchers = checked_callbacks(callbacks)
    team_size = resolve(threads)
    samples, held_out = _data(net, X, y, sample_weight, batches, validation, settings)
    procedure = settings.procedure(net, LARGEST if isinstance(samples, Source) else len(samples))
    optimizer, stopping = settings.optimizer, settings.early_stopping
    if isinstance(optimizer, LBFGS):
        _refuse_for_lbfgs(
            early_stopping=stopping is not None,
            clip_value=settings.clip_value is not None,
            clip_norm=settings.clip_norm is not None,
            clip_global_norm=settings.clip_global_norm is not None,
            average=settings.average is not None,
            learning_rate_factors=settings.learning_rate_factors is not None,
            checkpoint_every=settings.checkpoint_every != 1,
            callbacks=bool(watchers),
            state=state is not None,
        )
    schedule = schedule_of(optimizer, net, samples)
    if isinstance(samples, Source):
        samples.check_schedule(schedule)
    _check_stopping(stopping, schedule.monitor, held_out, net)
    start = initial(net, optimizer, settings.average is not None)
    state = start if state is None else state
    _check_state(state, start)
    if isinstance(samples, Batch):
        _check_place(state.position.samples, len(samples), procedure.step_size)
    share = validation if isinstance(validation, (float, np.floating)) else None
    return Training(
        net, settings, procedure, schedule, samples, held_out, share, state, watchers, progress,
        team_size,
    )  # fmt: skip


def _check_state(state: TrainingState, start: TrainingState) -> None:
    """A state has the vectors of one that the network and the settings begin with."""
    for name in ("theta", "running", "first", "second", "average"):
        found, expected = len(getattr(state, name)), len(getattr(start, name))
        if found != expected:
            raise ValueError(
                f"the state is that of another network or other settings: {name} has {found} "
                f"entries, not {expected}"
            )


def _check_place(done: int, samples: int, step_size: int) -> None:
    """A state that is within an epoch is between two steps of it."""
    if done not in (0, samples) and (done > samples or done % step_size):
        raise ValueError(
            f"the state is {done} samples into an epoch of other samples than these {samples}"
        )


class Training:
    """A training as callbacks see it, between two steps.

    Attributes
    ----------
    net
        The network, with the parameters that it has now.
    settings
        The arguments of `fit` as they are.
    history
        Of the finished epochs.
    steps_per_epoch
        Batches of an epoch, with `accumulate` of so many batches each; None if what is given as
        `batches` has no length.
    diverged
        Whether a `DivergenceError` is what ends it.
    """

    def __init__(
        self,
        net: MLP,
        settings: Settings,
        procedure: Procedure,
        schedule: Schedule,
        samples: Batch | Source,
        held_out: Batch | None,
        share: float | None,
        state: TrainingState,
        callbacks: "list[Callback]",
        progress: bool,
        threads: int,
    ) -> None:
        self.net, self.settings = net, settings
        self.history = copy.deepcopy(state.history)
        self.history.interrupted = self.history.stopped_early = False
        self.steps_per_epoch = (
            samples.steps_per_epoch
            if isinstance(samples, Source)
            else -(-len(samples) // procedure.step_size)
        )
        self.diverged = False
        self._procedure, self._schedule = procedure, schedule
        self._samples, self._held_out, self._share = samples, held_out, share
        self._initial: TrainingState | None = state
        self._patience = state.patience
        self._callbacks, self._threads = callbacks, threads
        self._has_bar, self._is_stopped = progress, False
        self._is_short = False

    @property
    def epoch(self) -> int:
        """Epochs that are finished."""
        return self._execution.position.epochs

    @property
    def batch(self) -> int:
        """Batches of the running epoch that are done; 0 between two epochs."""
        return self._execution.steps_done

    @property
    def step(self) -> int:
        """Steps of the optimizer that are done, of all epochs."""
        return self._execution.position.steps

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return self._execution.position.learning_rate

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the history that an epoch fills."""
        kinds = ("loss", "accuracy") if self.net.is_classifier else ("loss",)
        return kinds if self._held_out is None else (*kinds, *(f"val_{kind}" for kind in kinds))

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has called `stop`."""
        return self._is_stopped

    def stop(self) -> None:
        """End the training when all callbacks have had their turn."""
        self._is_stopped = True

    def state(self) -> TrainingState:
        """All that a training needs to go on from here."""
        if self._initial is not None:
            return copy.deepcopy(replace(self._initial, history=self.history))
        return TrainingState(
            **self._execution.vectors(),
            position=self._execution.position,
            patience=self._patience,
            history=copy.deepcopy(self.history),
        )

    def run(self) -> None:
        """Train to the last epoch, or to where a rule, a callback or Ctrl-C ends it."""
        net, history, optimizer = self.net, self.history, self.settings.optimizer
        with Progress(
            self._has_bar,
            epochs=self.settings.epochs,
            samples_per_epoch=len(self._samples) if isinstance(self._samples, Batch) else None,
            classifier=net.is_classifier,
            validation=self._held_out is not None,
            begun=len(history),
        ) as bar:
            try:
                history.compile_seconds += _compile(net, bar)
            except KeyboardInterrupt:
                history.interrupted = True
                return
            if isinstance(optimizer, LBFGS):
                assert isinstance(self._samples, Batch)
                minimize(
                    net, optimizer, self._samples, self._held_out, self.settings.epochs,
                    self._threads, history,
                )  # fmt: skip
                return
            self._begin()
            self._bar = bar if self._has_bar else None
            with contextlib.ExitStack() as ends:
                if isinstance(self._execution, Streaming):
                    ends.callback(self._execution.close)
                try:
                    for callback in self._callbacks:
                        callback.on_train_begin(self)
                        ends.callback(callback.on_train_end, self)
                    self._go()
                except KeyboardInterrupt:
                    self._execution.write_back()  # which it may have cut short
                    self._record()
                    history.interrupted = True
                is_early = self._is_stopped or self._is_out_of_patience
                history.stopped_early = is_early and self.epoch < self.settings.epochs
                self._patience.restore(net)

    def _begin(self) -> None:
        """Allocate everything, and give the network the parameters of the state."""
        net, state = self.net, self._initial
        assert state is not None
        self._execution = self._make_execution(state)
        net.theta[...] = state.average if len(state.average) else state.theta
        net.running[...] = state.running
        self._seen_before = self._execution.samples_seen
        self._seconds_before = state.history.seconds
        self._initial = None  # its memory is free
        self._begin_time = time.perf_counter()

    def _make_execution(self, state: TrainingState) -> Execution | Streaming:
        samples = self._samples
        how: dict[str, Any] = {
            "procedure": self._procedure,
            "others": self._held_out,
            "threads": self._threads,
            "state": state,
        }
        if isinstance(samples, Source):
            return Streaming(self.net, samples, **how)
        return Execution(self.net, samples=samples, **how)

    def _go(self) -> None:
        """Go from one place where somebody wants to look to the next."""
        callbacks = self._callbacks
        looks_at_each = (
            self.settings.early_stopping is not None
            or self._schedule.monitor is not None
            or any(callback.looks_at_epochs for callback in callbacks)
        )
        self._due = [
            self._begin_time + (math.inf if c.every_seconds is None else c.every_seconds)
            for c in callbacks
        ]
        count = 1
        self._look()
        while not (self._is_stopped or self._is_out_of_patience or self._is_complete):
            before, epoch, step = time.perf_counter(), self.epoch, self.step
            complete = self._advance(count)
            self._look()
            if not complete:
                raise KeyboardInterrupt
            if self.epoch > epoch:
                for callback in callbacks:
                    callback.on_epoch_end(self)
            if self.step > step:
                self._call_at_batch()
            if not looks_at_each:
                seconds = max(time.perf_counter() - before, 1e-6)
                count = max(1, int(count * min(LOOK_SECONDS / seconds, 16.0)))
                count = min(count, self.settings.epochs)

    def _call_at_batch(self) -> None:
        """Call those whose number of steps, or of seconds, is reached."""
        for i, callback in enumerate(self._callbacks):
            is_turn = callback.every is not None and self.step % callback.every == 0
            if callback.every_seconds is not None and time.perf_counter() >= self._due[i]:
                self._due[i] = time.perf_counter() + callback.every_seconds
                is_turn = True
            if is_turn:
                callback.on_batch_end(self)

    def _look(self) -> None:
        """Let early stopping see the last epoch, if it has not."""
        rule = self.settings.early_stopping
        if rule is not None and self._patience.epochs < len(self.history):
            self._patience = self._patience.after(rule, self.net, self.history)

    @property
    def _is_out_of_patience(self) -> bool:
        rule = self.settings.early_stopping
        return rule is not None and self._patience.waited >= rule.patience

    @property
    def _is_complete(self) -> bool:
        return self.epoch >= self.settings.epochs

    def _advance(self, epochs: int) -> bool:
        """Train for some epochs, or to the next step that a callback wants to see, and record.

        False if Ctrl-C ended it early.
        """
        execution = self._execution
        epochs, pause = self._extent(min(epochs, self.settings.epochs - self.epoch))
        complete = execution.train(
            epochs, self._rates, pause=pause, watch=self._watch, here=self._is_short
        )
        is_finite = execution.write_back()
        self._record()
        self._show()
        if execution.diverged or not is_finite:
            self.diverged = True
            raise self._divergence()
        return complete

    def _extent(self, epochs: int) -> tuple[int, int]:
        """Epochs of the next call, and after how many batches of the last it pauses (0: never)."""
        done, per_epoch = self.batch, self.steps_per_epoch or LARGEST
        looks = [done + c.every - self.step % c.every for c in self._callbacks if c.every]
        target = min(looks, default=epochs * per_epoch + 1)  # counted from the running epoch on
        if target > epochs * per_epoch:
            return epochs, 0
        epoch, batch = divmod(target - 1, per_epoch)
        return epoch + 1, batch + 1

    def _rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """The learning rates of steps that come next."""
        if not len(steps):
            return np.zeros(0)
        execution = self._execution
        total = execution.step_after(self.settings.epochs - execution.position.epochs)
        per_epoch = execution.steps_per_epoch
        rates = checked_rates(self._schedule, steps, total, per_epoch)
        monitor = self._schedule.monitor
        if monitor is not None:
            rates = rates * self._schedule.multiplier(getattr(self.history, monitor))
        return rates

    def _watch(self) -> None:
        """While the team works: show how far it is, and have it pause for whoever is due."""
        self._show()
        if time.perf_counter() >= min(self._due, default=math.inf):
            self._execution.pause()

    def _show(self) -> None:
        if self._bar is not None:
            self._record()
            self._bar.update(len(self.history), self._execution.samples_shown, self.history)

    def _record(self) -> None:
        """Enter what the call has finished; as often as one likes."""
        history, execution = self.history, self._execution
        rows, first = execution.history, execution.begin.epochs
        for name in self.columns:
            getattr(history, name)[first:] = rows[:, COLUMNS[name]].tolist()
        history.learning_rate[first:] = execution.learning_rates
        elapsed = time.perf_counter() - self._begin_time
        history.seconds = self._seconds_before + elapsed
        history.samples_per_second = (execution.samples_seen - self._seen_before) / elapsed

    def _divergence(self) -> DivergenceError:
        """Find the first layer whose values are not finite in the step that failed."""
        net, execution = self.net, self._execution
        layer = execution.spoilt_layer()
        if layer is None:
            values = net.activations(execution.current_inputs).pre_activations
            spoilt = [i for i, z in enumerate(values, 1) if not np.isfinite(z).all()]
            layer = spoilt[0] if spoilt else len(values)
        epoch, step = len(self.history) + 1, execution.steps_done
        if execution.diverged:
            step += 1
        elif not step:  # seen when the epoch was over
            epoch, step = epoch - 1, execution.steps_per_epoch
        return DivergenceError(epoch, step, layer, self.history)


def _data(
    net: MLP,
    X: ArrayLike | None,
    y: ArrayLike | None,
    sample_weight: ArrayLike | None,
    batches: Batches | None,
    validation: Validation,
    settings: Settings,
) -> tuple[Batch | Source, Batch | None]:
    """What to train on, and what to validate on if anything."""
    if batches is None:
        if X is None or y is None:
            raise TypeError("fit needs X and y, or batches")
        samples = net._checked(X, y, sample_weight)
        return _split(net, samples, validation, settings.seed_for(net))
    if not (X is None and y is None and sample_weight is None):
        raise ValueError("batches excludes X, y and sample_weight, which they hold")
    if validation is not None and not isinstance(validation, tuple):
        raise ValueError(f"validation must be (X, y) where batches are given, got {validation!r}")
    if isinstance(settings.optimizer, Optimizer) and settings.optimizer.is_full_batch:
        name = type(settings.optimizer).__name__
        raise ValueError(f"{name} takes all samples in a step: it needs X and y, not batches")
    source = Source(net, batches, settings.accumulate, settings.epochs)
    return source, None if validation is None else _validation(net, validation)


def schedule_of(optimizer: Optimizer, net: MLP, train: Batch | Source) -> Schedule:
    """The learning rates of an optimizer, for these samples if they depend on them."""
    rate = _rate_of(optimizer)
    if rate == "lipschitz":
        assert isinstance(train, Batch)  # as the rule is full-batch
        from .curvature import Lipschitz  # and with it the kernels of the Hessian

        return Lipschitz(net, train)
    return as_schedule(rate)


def _rate_of(optimizer: Optimizer) -> Any:
    """What an optimizer has as its learning rate; 1 if it has none."""
    return getattr(optimizer, "learning_rate", 1.0)


def checked_callbacks(callbacks: Callbacks) -> "list[Callback]":
    """All of them as objects, functions wrapped."""
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"callbacks must be a list, got {callbacks!r}")
    if not callbacks:
        return []
    from ._callback import as_callback  # only here: it is not needed by most

    return [as_callback(callback) for callback in callbacks]


def _refuse_for_lbfgs(**given: bool) -> None:
    """SciPy's loop knows nothing of these arguments."""
    for name, is_given in given.items():
        if is_given:
            raise ValueError(f"{name} is of no use to LBFGS")


def _bound(value: float | None, name: str, high: float = math.inf) -> float:
    return 0.0 if value is None else check_number(value, name, 0.0, high, open_low=True)


def _norm_clip(clip_norm: float | None, clip_global_norm: float | None) -> tuple[int, float]:
    """The kernels' code and bound for clipping by norms."""
    if clip_norm is not None and clip_global_norm is not None:
        raise ValueError("clip_norm excludes clip_global_norm")
    if clip_norm is not None:
        return clip.EACH, _bound(clip_norm, "clip_norm")
    if clip_global_norm is not None:
        return clip.ALL, _bound(clip_global_norm, "clip_global_norm")
    return clip.NONE, 0.0


def _check_stopping(
    stopping: EarlyStopping | None, schedule_monitor: str | None, held_out: Batch | None, net: MLP
) -> None:
    """What is monitored must be recorded."""
    if stopping is not None and not isinstance(stopping, EarlyStopping):
        raise TypeError(f"early_stopping must be an EarlyStopping, got {stopping!r}")
    for monitor in (stopping.monitor if stopping else None, schedule_monitor):
        if not isinstance(monitor, str):
            continue
        if monitor not in MONITORS:
            raise ValueError(f"learning_rate monitors {monitor!r}, not {' or '.join(MONITORS)}")
        who = "early_stopping" if stopping and monitor is stopping.monitor else "learning_rate"
        if monitor.startswith("val_") and held_out is None:
            raise ValueError(f"{who} monitors {monitor!r}, so validation must be given")
        if monitor.endswith("accuracy") and not net.is_classifier:
            raise ValueError(f"{who} monitors {monitor!r}, which a {net.loss.name} does not have")


def _compile(net: MLP, bar: Progress) -> float:
    """Have the kernels ready, in a thread so that the bar moves; return the seconds it took."""
    if kernels.compiled(net.dtype):
        return 0.0
    cold = not kernels.is_warm(net.dtype)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            kernels.compiled_run(net.dtype)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    begin = time.perf_counter()
    thread = threading.Thread(target=work, name="fastmlp-compile", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        if cold:
            seconds = time.perf_counter() - begin
            bar.compiling(f"compiling kernels ({net.dtype}), once on this machine: {seconds:.1f} s")
    if failures:
        raise failures[0]
    return time.perf_counter() - begin


def _split(net: MLP, batch: Batch, validation: Validation, seed: int) -> tuple[Batch, Batch | None]:
    """The samples to train on, and those to validate on if any."""
    if validation is None:
        return batch, None
    if isinstance(validation, tuple):
        return batch, _validation(net, validation)
    if isinstance(validation, bool) or not isinstance(validation, (int, float, np.floating)):
        raise TypeError(
            f"validation must be a share or a tuple (X, y), got a {type(validation).__name__}"
            if isinstance(validation, (list, np.ndarray))
            else f"validation must be a share or a tuple (X, y), got {validation!r}"
        )
    if not 0.0 < validation < 1.0:
        raise ValueError(f"validation must be a share in (0, 1), got {validation!r}")
    held_out = held_out_rows(batch, float(validation), seed)
    kept = np.setdiff1d(batch.chosen, held_out)
    for rows in (kept, held_out):
        if len(rows) and len(batch.weights) and not batch.weights[rows].any():
            raise ValueError(
                f"validation={validation!r} leaves a part whose sample_weight is all zero"
            )
    if not len(held_out) or not len(kept):
        raise ValueError(
            f"validation={validation!r} of {len(batch)} samples leaves none to "
            f"{'train' if not len(kept) else 'validate'} on"
        )
    return batch.take(kept), batch.take(held_out)


def _validation(net: MLP, given: tuple[ArrayLike, ...]) -> Batch:
    """Check samples to validate on."""
    if len(given) not in (2, 3):
        raise ValueError(
            "validation must be a share, a pair (X, y) or (X, y, sample_weight), "
            f"got {len(given)} arrays"
        )
    X, y, *weight = given
    names = ("validation[0]", "validation[1]", "validation[2]")
    return net._checked(X, y, weight[0] if weight else None, names)


def held_out_rows(batch: Batch, share: float, seed: int) -> NDArray[np.int64]:
    """Return sorted rows of a random share of the samples: of each class, if there are classes."""
    rng = np.random.Generator(np.random.Philox(seed))
    classes = batch.labels if len(batch.labels) else np.zeros(len(batch), np.int64)
    return random_share(rng, classes, share)


def random_share(
    rng: np.random.Generator, classes: NDArray[Any], share: float
) -> NDArray[np.int64]:
    """Return sorted rows of a random share of each class; `classes` [n] names each row's."""
    groups = [np.flatnonzero(classes == name) for name in np.unique(classes)]
    taken = [rng.permutation(group)[: round(share * len(group))] for group in groups]
    return np.sort(np.concatenate(taken))
