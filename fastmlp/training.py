"""The training loop: it checks, allocates, starts the team and reports; the kernels do the rest."""

import copy
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import kernels
from ._checks import check_flag, check_number, check_whole
from ._execution import Batch, Execution, Procedure
from ._minimize import minimize
from ._state import TrainingState, initial
from .errors import DivergenceError
from .history import History
from .kernels import clip, program
from .mlp import MLP
from .optimizers import LBFGS, Adam, Optimizer
from .progress import Progress
from .schedules import Schedule, as_schedule
from .stopping import MONITORS, EarlyStopping
from .threads import POLL_SECONDS, resolve

__all__ = ["Settings", "fit", "train"]

AfterEpoch = Callable[[MLP, History], None]
Validation = float | tuple[ArrayLike, ...] | None
LOOK_SECONDS = 0.2  # how often a run without stopping rules comes back to Python, at most


def fit(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    *,
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
    checkpoint_every: int = 1,
    after_epoch: AfterEpoch | None = None,
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
        Share of the samples in (0, 1) to set aside (by class for a classifier), or (X, y) or
        (X, y, sample_weight) of others: loss and accuracy on them are recorded after each epoch.
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
    checkpoint_every
        Every how many hidden layers the activations are kept for the backward pass; the others are
        computed again. More saves memory and costs time; the results are the same, bit for bit.
    after_epoch
        Called as after_epoch(net, history) after each epoch, in this thread. Training goes on with
        parameters of its own: what the function changes in `net` is overwritten.
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
        checkpoint_every=checkpoint_every,
        seed=seed,
    )
    state = train(
        net,
        X,
        y,
        settings,
        sample_weight=sample_weight,
        validation=validation,
        after_epoch=after_epoch,
        progress=progress,
        threads=threads,
    )
    return state.history


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
        )

    def seed_for(self, net: MLP) -> int:
        """The seed of shuffles, dropout and the split."""
        return net.seed if self.seed is None else check_whole(self.seed, "seed", 0, 2**63)


def train(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    settings: Settings,
    *,
    sample_weight: ArrayLike | None = None,
    validation: Validation = None,
    state: TrainingState | None = None,
    after_epoch: AfterEpoch | None = None,
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
    if not isinstance(net, MLP):
        raise TypeError(f"net must be an MLP, got {type(net).__name__}")
    check_flag(progress, "progress")
    if after_epoch is not None and not callable(after_epoch):
        raise TypeError(f"after_epoch must be a function, got {after_epoch!r}")
    team_size = resolve(threads)
    samples = net._checked(X, y, sample_weight)
    samples, held_out = _split(net, samples, validation, settings.seed_for(net))
    procedure = settings.procedure(net, len(samples))
    optimizer, stopping = settings.optimizer, settings.early_stopping
    if isinstance(optimizer, LBFGS):
        _refuse_for_lbfgs(
            early_stopping=stopping is not None,
            clip_value=settings.clip_value is not None,
            clip_norm=settings.clip_norm is not None,
            clip_global_norm=settings.clip_global_norm is not None,
            average=settings.average is not None,
            checkpoint_every=settings.checkpoint_every != 1,
            after_epoch=after_epoch is not None,
            state=state is not None,
        )
    schedule = schedule_of(optimizer, net, samples)
    _check_stopping(stopping, schedule.monitor, held_out, net)
    start = initial(net, optimizer, settings.average is not None)
    state = start if state is None else state
    _check_state(state, start)
    if state.position.samples > len(samples):
        raise ValueError(
            f"the state is {state.position.samples} samples into an epoch of other samples than "
            f"these {len(samples)}"
        )
    history = copy.deepcopy(state.history)
    history.interrupted = history.stopped_early = False
    state = replace(state, history=history)

    with Progress(
        progress,
        epochs=settings.epochs,
        samples_per_epoch=len(samples),
        classifier=net.is_classifier,
        validation=held_out is not None,
    ) as bar:
        try:
            history.compile_seconds += _compile(net, bar)
        except KeyboardInterrupt:
            history.interrupted = True
            return copy.deepcopy(state)
        if isinstance(optimizer, LBFGS):
            minimize(net, optimizer, samples, held_out, settings.epochs, team_size, history)
            return copy.deepcopy(state)
        run = _Run(
            net, procedure, schedule, stopping, samples, held_out, team_size, settings.epochs,
            state, bar if progress else None,
        )  # fmt: skip
        run.go(after_epoch)
        return run.state()


def _check_state(state: TrainingState, start: TrainingState) -> None:
    """A state has the vectors of one that the network and the settings begin with."""
    for name in ("theta", "running", "first", "second", "average"):
        found, expected = len(getattr(state, name)), len(getattr(start, name))
        if found != expected:
            raise ValueError(
                f"the state is that of another network or other settings: {name} has {found} "
                f"entries, not {expected}"
            )


class _Run:
    """One training: it goes back and forth between the compiled program and what Python decides."""

    def __init__(
        self,
        net: MLP,
        procedure: Procedure,
        schedule: Schedule,
        stopping: EarlyStopping | None,
        samples: Batch,
        held_out: Batch | None,
        threads: int,
        epochs: int,
        state: TrainingState,
        bar: Progress | None,
    ) -> None:
        assert procedure.optimizer is not None
        self._net, self._optimizer, self._schedule = net, procedure.optimizer, schedule
        self._samples, self._held_out = samples, held_out
        self._epochs, self._bar = epochs, bar
        self._stopping, self._patience = stopping, state.patience
        self._history = state.history
        self._start, self._seconds_before = state.position, state.history.seconds
        net.theta[...], net.running[...] = state.theta, state.running
        self._execution = Execution(
            net, procedure=procedure, samples=samples, others=held_out, threads=threads, state=state
        )
        self._begin = time.perf_counter()

    def go(self, after_epoch: AfterEpoch | None) -> None:
        """Train to the last epoch, or to where a rule or Ctrl-C ends it."""
        history, net = self._history, self._net
        looks_at_each = not (
            self._stopping is None and after_epoch is None and self._schedule.monitor is None
        )
        count = 1
        try:
            while len(history) < self._epochs and not self._is_out_of_patience:
                before = time.perf_counter()
                if not self._advance(min(count, self._epochs - len(history))):
                    raise KeyboardInterrupt
                if self._stopping is not None:
                    self._patience = self._patience.after(self._stopping, net, history)
                if after_epoch is not None:
                    after_epoch(net, history)
                if not looks_at_each:
                    seconds = max(time.perf_counter() - before, 1e-6)
                    count = max(1, int(count * min(LOOK_SECONDS / seconds, 16.0)))
        except KeyboardInterrupt:
            self._execution.write_back()  # which it may have cut short
            self._record()
            history.interrupted = True
        history.stopped_early = self._is_out_of_patience and len(history) < self._epochs
        self._patience.restore(net)

    def state(self) -> TrainingState:
        """All that a training needs to go on from here."""
        return TrainingState(
            **self._execution.vectors(),
            position=self._execution.position,
            patience=self._patience,
            history=copy.deepcopy(self._history),
        )

    @property
    def _is_out_of_patience(self) -> bool:
        return self._stopping is not None and self._patience.waited >= self._stopping.patience

    def _advance(self, epochs: int) -> bool:
        """Train to the end of some epochs and record them; False if Ctrl-C ended it early."""
        net, execution = self._net, self._execution
        running = net.running.copy()
        complete = execution.train(epochs, self._rates(epochs), watch=self._show)
        is_finite = execution.write_back()
        self._record()
        self._show()
        if execution.diverged or not is_finite:
            net.running[...] = running
            raise self._divergence()
        return complete

    def _rates(self, epochs: int) -> NDArray[np.float64]:
        """The learning rates of the steps to the end of some epochs."""
        position, per_epoch = self._execution.position, self._execution.steps_per_epoch
        first = position.steps - self._execution.steps_of(position.samples)  # of the running epoch
        steps = np.arange(position.steps, first + epochs * per_epoch)
        if not len(steps):
            return np.zeros(0)
        total = first + (self._epochs - position.epochs) * per_epoch
        rates = np.asarray(self._schedule.rates(steps, total, per_epoch), np.float64)
        if rates.shape != steps.shape or not (np.isfinite(rates) & (rates >= 0)).all():
            raise ValueError(
                "learning_rate must give a finite rate of at least 0 for each step, "
                f"{self._schedule!r} gave {rates}"
            )
        monitor = self._schedule.monitor
        if monitor is not None:
            rates = rates * self._schedule.multiplier(getattr(self._history, monitor))
        return rates

    def _show(self) -> None:
        """Show the history so far, also while the team works."""
        if self._bar is not None:
            self._record()
            self._bar.update(len(self._history), self._execution.samples_done, self._history)

    def _record(self) -> None:
        """Enter what the call has finished; as often as one likes."""
        history, execution = self._history, self._execution
        rows, first = execution.history, execution.begin.epochs
        columns = {"loss": program.LOSS}
        if self._net.is_classifier:
            columns["accuracy"] = program.ACCURACY
        if self._held_out is not None:
            columns["val_loss"] = program.VALIDATION_LOSS
        if self._held_out is not None and self._net.is_classifier:
            columns["val_accuracy"] = program.VALIDATION_ACCURACY
        for name, column in columns.items():
            getattr(history, name)[first:] = rows[:, column].tolist()
        history.learning_rate[first:] = execution.learning_rates
        elapsed = time.perf_counter() - self._begin
        history.seconds = self._seconds_before + elapsed
        seen = (len(history) - self._start.epochs) * len(self._samples)
        seen += execution.samples_done - self._start.samples
        history.samples_per_second = seen / elapsed

    def _divergence(self) -> DivergenceError:
        """Find the first layer whose values are not finite in the step that failed."""
        net, execution = self._net, self._execution
        layer = execution.spoilt_layer()
        if layer is None:
            values = net.activations(self._samples.x[execution.current_rows]).pre_activations
            spoilt = [i for i, z in enumerate(values, 1) if not np.isfinite(z).all()]
            layer = spoilt[0] if spoilt else len(values)
        epoch, step = len(self._history) + 1, execution.steps_of(execution.samples_done)
        if execution.diverged:
            step += 1
        elif not step:  # seen when the epoch was over
            epoch, step = epoch - 1, execution.steps_per_epoch
        return DivergenceError(epoch, step, layer, self._history)


def schedule_of(optimizer: Optimizer, net: MLP, train: Batch) -> Schedule:
    """The learning rates of an optimizer, for these samples if they depend on them."""
    rate = _rate_of(optimizer)
    if rate == "lipschitz":
        from .curvature import Lipschitz  # and with it the kernels of the Hessian

        return Lipschitz(net, train)
    return as_schedule(rate)


def _rate_of(optimizer: Optimizer) -> Any:
    """What an optimizer has as its learning rate; 1 if it has none."""
    return getattr(optimizer, "learning_rate", 1.0)


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
        if len(validation) not in (2, 3):
            raise ValueError(
                "validation must be a share, a pair (X, y) or (X, y, sample_weight), "
                f"got {len(validation)} arrays"
            )
        X, y, *weight = validation
        names = ("validation[0]", "validation[1]", "validation[2]")
        return batch, net._checked(X, y, weight[0] if weight else None, names)
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
