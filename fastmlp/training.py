"""Training from outside: its arguments, checked and put together for the loop in `_loop.py`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ._checks import check_flag, check_number, check_whole
from ._execution import Batch, Procedure
from ._held_out import Validation, split, validation_batch
from ._loop import Training
from ._schedule import Schedule, as_schedule
from ._state import TrainingState, initial
from ._stream import LARGEST, Batches, Source
from .history import History
from .kernels import clip
from .mlp import MLP, check_network
from .optimizers import LBFGS, Adam, Optimizer, check_optimizer
from .rates import Factors, rate_factors
from .stopping import MONITORS, EarlyStopping
from .threads import resolve

if TYPE_CHECKING:
    from ._callback import Callback

__all__ = ["Settings", "Training", "fit", "train"]

Callbacks = Sequence["Callback | Callable[[Training], object]"]


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

    def check(self) -> None:
        """Check what takes no network and no samples to check.

        Raises TypeError or ValueError if a setting is not what it should be.
        """
        optimizer = check_optimizer(self.optimizer)
        check_flag(self.shuffle, "shuffle")
        check_whole(self.epochs, "epochs", 1)
        if not (self.batch_size is None or optimizer.is_full_batch):
            check_whole(self.batch_size, "batch_size", 1)
        if not (self.early_stopping is None or isinstance(self.early_stopping, EarlyStopping)):
            raise TypeError(f"early_stopping must be an EarlyStopping, got {self.early_stopping!r}")
        check_whole(self.accumulate, "accumulate", 1)
        check_whole(self.checkpoint_every, "checkpoint_every", 1)
        if self.seed is not None:
            check_whole(self.seed, "seed", 0, 2**63)
        code, _ = _norm_clip(self.clip_norm, self.clip_global_norm)
        if _bound(self.clip_value, "clip_value") and code != clip.NONE:
            raise ValueError("clip_value excludes clip_norm and clip_global_norm")
        if _bound(self.average, "average", 1.0) and _rate_of(optimizer) == "lipschitz":
            raise ValueError("average excludes learning_rate='lipschitz', which is of one network")
        if self.learning_rate_factors is not None and _rate_of(optimizer) == "lipschitz":
            raise ValueError(
                "learning_rate_factors excludes learning_rate='lipschitz', one for all"
            )

    def procedure(self, net: MLP, samples: int) -> Procedure:
        """Return the settings as the program takes them, for a network and a number of samples.

        Raises TypeError or ValueError if one of them is not what it should be.
        """
        self.check()
        self.optimizer.hyper(net.dtype)
        size = samples
        if self.batch_size is not None and not self.optimizer.is_full_batch:
            size = min(int(self.batch_size), samples)
        accumulate = min(int(self.accumulate), -(-samples // size))
        code, limit = _norm_clip(self.clip_norm, self.clip_global_norm)
        normalizes_batches = net.architecture.has_batch_norm
        return Procedure(
            batch_size=size,
            optimizer=self.optimizer,
            accumulate=accumulate,
            shuffled=self.shuffle and samples > size * (1 if normalizes_batches else accumulate),
            seed=self.seed_for(net),
            clip=code,
            limit=limit,
            clip_value=_bound(self.clip_value, "clip_value"),
            average=_bound(self.average, "average", 1.0),
            checkpoint_every=int(self.checkpoint_every),
            rates=rate_factors(self.learning_rate_factors, net.layout),
        )

    def seed_for(self, net: MLP) -> int:
        """The seed of shuffles, dropout and the split."""
        return net.seed if self.seed is None else int(self.seed)


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
) -> Training:
    """Check all arguments of `train`; the network is as before."""
    check_network(net)
    check_flag(progress, "progress")
    watchers = checked_callbacks(callbacks)
    team_size = resolve(threads)
    settings.check()
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
            missing = "X" if X is None else "y"
            raise TypeError(f"{missing} must be given where there are no batches, got None")
        samples = net._checked(X, y, sample_weight)
        return split(net, samples, validation, settings.seed_for(net))
    if not (X is None and y is None and sample_weight is None):
        raise ValueError("batches excludes X, y and sample_weight, which they hold")
    if validation is not None and not isinstance(validation, tuple):
        raise ValueError(f"validation must be (X, y) where batches are given, got {validation!r}")
    if settings.optimizer.is_full_batch:
        name = type(settings.optimizer).__name__
        raise ValueError(f"{name} takes all samples in a step: it needs X and y, not batches")
    source = Source(net, batches, settings.accumulate, settings.epochs)
    return source, None if validation is None else validation_batch(net, validation)


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
