"""The training loop: it checks, allocates, starts the team and reports; the kernels do the rest."""

import copy
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import kernels
from ._checks import check_flag, check_number, check_whole
from ._execution import Batch, Execution, Procedure
from ._minimize import minimize
from .errors import DivergenceError
from .history import History
from .kernels import clip, program
from .mlp import MLP
from .optimizers import LBFGS, Adam, Optimizer
from .progress import Progress
from .schedules import Schedule, as_schedule
from .stopping import MONITORS, EarlyStopping, Patience
from .threads import POLL_SECONDS, resolve

__all__ = ["fit"]

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
    after_epoch: Callable[[MLP, History], None] | None = None,
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
    if not isinstance(net, MLP):
        raise TypeError(f"net must be an MLP, got {type(net).__name__}")
    optimizer = Adam() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an Optimizer like Adam(), got {optimizer!r}")
    optimizer.hyper(net.dtype)
    for name, flag in (("shuffle", shuffle), ("progress", progress)):
        check_flag(flag, name)
    if after_epoch is not None and not callable(after_epoch):
        raise TypeError(f"after_epoch must be a function, got {after_epoch!r}")
    epochs = check_whole(epochs, "epochs", 1)
    seed = net.seed if seed is None else check_whole(seed, "seed", 0, 2**63)
    team_size = resolve(threads)
    train, held_out = _split(net, net._checked(X, y, sample_weight), validation, seed)
    if optimizer.is_full_batch:
        batch_size = None
    size = len(train) if batch_size is None else check_whole(batch_size, "batch_size", 1)
    size = min(size, len(train))
    accumulate = min(check_whole(accumulate, "accumulate", 1), -(-len(train) // size))
    code, limit = _norm_clip(clip_norm, clip_global_norm)
    if clip_value is not None and code != clip.NONE:
        raise ValueError("clip_value excludes clip_norm and clip_global_norm")
    if isinstance(optimizer, LBFGS):
        _refuse_for_lbfgs(
            early_stopping=early_stopping is not None,
            clip_value=clip_value is not None,
            clip_norm=clip_norm is not None,
            clip_global_norm=clip_global_norm is not None,
            average=average is not None,
            checkpoint_every=checkpoint_every != 1,
            after_epoch=after_epoch is not None,
        )
    schedule = schedule_of(optimizer, net, train)
    if average is not None and _rate_of(optimizer) == "lipschitz":
        raise ValueError("average excludes learning_rate='lipschitz', which is of one network")
    _check_stopping(early_stopping, schedule.monitor, held_out, net)
    normalizes_batches = net.architecture.has_batch_norm
    procedure = Procedure(
        batch_size=size,
        optimizer=optimizer,
        accumulate=accumulate,
        shuffled=shuffle and len(train) > size * (1 if normalizes_batches else accumulate),
        seed=seed,
        clip=code,
        limit=limit,
        clip_value=_bound(clip_value, "clip_value"),
        average=_bound(average, "average", 1.0),
        checkpoint_every=check_whole(checkpoint_every, "checkpoint_every", 1),
    )

    with Progress(
        progress,
        epochs=epochs,
        samples_per_epoch=len(train),
        classifier=net.is_classifier,
        validation=held_out is not None,
    ) as bar:
        try:
            compile_seconds = _compile(net, bar)
        except KeyboardInterrupt:
            return History(interrupted=True)
        history = History(compile_seconds=compile_seconds)
        if isinstance(optimizer, LBFGS):
            minimize(net, optimizer, train, held_out, epochs, team_size, history)
            return history
        run = _Run(
            net, procedure, schedule, train, held_out, team_size, epochs, history,
            bar if progress else None,
        )  # fmt: skip
        run.go(early_stopping, after_epoch)
        return history


class _Run:
    """One training: it goes back and forth between the compiled program and what Python decides."""

    def __init__(
        self,
        net: MLP,
        procedure: Procedure,
        schedule: Schedule,
        train: Batch,
        held_out: Batch | None,
        threads: int,
        epochs: int,
        history: History,
        bar: Progress | None,
    ) -> None:
        assert procedure.optimizer is not None
        self._net, self._optimizer, self._schedule = net, procedure.optimizer, schedule
        self._train, self._held_out = train, held_out
        self._epochs, self._history, self._bar = epochs, history, bar
        self._execution = Execution(
            net, procedure=procedure, samples=train, others=held_out, threads=threads
        )
        self._begin = time.perf_counter()

    def go(
        self, stopping: EarlyStopping | None, after_epoch: Callable[[MLP, History], None] | None
    ) -> None:
        """Train to the last epoch, or to where a rule or Ctrl-C ends it."""
        history = self._history
        patience = None if stopping is None else Patience(stopping)
        looks_at_each = not (
            stopping is None and after_epoch is None and self._schedule.monitor is None
        )
        count = 1
        try:
            while len(history) < self._epochs:
                before = time.perf_counter()
                if not self._advance(min(count, self._epochs - len(history))):
                    raise KeyboardInterrupt
                if after_epoch is not None:
                    after_epoch(self._net, history)
                if patience is not None and patience.is_over(self._net, history):
                    history.stopped_early = len(history) < self._epochs
                    break
                if not looks_at_each:
                    seconds = max(time.perf_counter() - before, 1e-6)
                    count = max(1, int(count * min(LOOK_SECONDS / seconds, 16.0)))
        except KeyboardInterrupt:
            self._execution.write_back()  # which it may have cut short
            history.interrupted = True
        if patience is not None:
            patience.restore(self._net)

    def _advance(self, epochs: int) -> bool:
        """Train for some epochs and record them; False if Ctrl-C ended it early."""
        net, execution = self._net, self._execution
        running = net.running.copy()
        table = self._table(len(self._history), epochs)
        complete = execution.train(epochs, table, self._show if self._bar else None)
        is_finite = execution.write_back()
        self._record(self._history)
        if self._bar is not None:
            self._bar.update(len(self._history), execution.samples_done, self._history)
        if execution.diverged or not is_finite:
            net.running[...] = running
            raise self._divergence()
        return complete

    def _table(self, done: int, count: int) -> NDArray[np.float64]:
        """The optimizer's numbers for the steps of the next epochs."""
        per_epoch = self._execution.steps_per_epoch
        steps = np.arange(done * per_epoch, (done + count) * per_epoch)
        rates = self._schedule.rates(steps, self._epochs * per_epoch, per_epoch)
        rates = np.asarray(rates, np.float64)
        if rates.shape != steps.shape or not (np.isfinite(rates) & (rates >= 0)).all():
            raise ValueError(
                "learning_rate must give a finite rate of at least 0 for each step, "
                f"{self._schedule!r} gave {rates}"
            )
        monitor = self._schedule.monitor
        if monitor is not None:
            rates = rates * self._schedule.multiplier(getattr(self._history, monitor))
        return self._optimizer.coefficients(int(steps[0]), rates)

    def _show(self) -> None:
        """Show the history so far while the team works."""
        shown = copy.deepcopy(self._history)
        self._record(shown)
        assert self._bar is not None
        self._bar.update(len(shown), self._execution.samples_done, shown)

    def _record(self, history: History) -> None:
        """Add what the execution has finished since it was called last."""
        rows, is_classifier = self._execution.history, self._net.is_classifier
        history.loss += rows[:, program.LOSS].tolist()
        if is_classifier:
            history.accuracy += rows[:, program.ACCURACY].tolist()
        if self._held_out is not None:
            history.val_loss += rows[:, program.VALIDATION_LOSS].tolist()
        if self._held_out is not None and is_classifier:
            history.val_accuracy += rows[:, program.VALIDATION_ACCURACY].tolist()
        history.seconds = time.perf_counter() - self._begin
        seen = len(history) * len(self._train) + self._execution.samples_done
        history.samples_per_second = seen / history.seconds

    def _divergence(self) -> DivergenceError:
        """Find the first layer whose values are not finite in the step that failed."""
        net, execution = self._net, self._execution
        layer = execution.spoilt_layer()
        if layer is None:
            values = net.activations(self._train.x[execution.current_rows]).pre_activations
            spoilt = [i for i, z in enumerate(values, 1) if not np.isfinite(z).all()]
            layer = spoilt[0] if spoilt else len(values)
        epoch, step = len(self._history) + 1, execution.samples_done // execution.step_rows + 1
        if not execution.diverged:
            epoch, step = len(self._history), execution.steps_per_epoch
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
