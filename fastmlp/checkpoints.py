"""Checkpoints: a training as one safetensors file, from which it goes on as if never stopped.

The tensors of a file, without padding, little-endian:

- ``theta.NAME``, ``running.NAME``, ``first.NAME``, ``second.NAME``, ``average.NAME`` and
  ``best.NAME``: the vectors of a `TrainingState`, NAME as in `fastmlp.io`; those that the training
  has;
- ``history.COLUMN`` float64 [epochs];
- ``numbers`` float64: sums of loss, right answers and weight over the running epoch, learning rate
  of the last step, best value of early stopping, seconds of training.

The header's metadata has under ``fastmlp-checkpoint`` a JSON object: the network as in a model
file, the arguments of `fit`, how far it is, what the samples were, and a digest of all tensors.
Shuffles and dropout are functions of the seed and the place, so there is no generator to save.
Optimizers, schedules and stopping rules are names of this package's classes and their numbers;
nothing else can be made from a file, and no code is run.
"""

import dataclasses
import errno
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from . import io, optimizers, schedules
from ._callback import Callback
from ._checks import check_number, check_path, check_whole
from ._execution import Batch
from ._files import replace_file
from ._state import Position, TrainingState
from ._stream import Batches, Source
from .history import SERIES, History
from .layout import Layout, Tensor, aligned_zeros
from .mlp import MLP
from .optimizers import Optimizer
from .stopping import EarlyStopping, Patience
from .training import Callbacks, Settings, Training, checked_callbacks, prepare

__all__ = ["Checkpoint", "resume"]

FORMAT = "fastmlp-checkpoint-1"
PREVIOUS = ".previous"  # what the name of the file before the last one ends with
LOOKED_AT = 256  # rows of the samples that are compared

_HEADER_KEY = "fastmlp-checkpoint"
_VECTORS = ("theta", "running", "first", "second", "average", "best")
_CLASSES: dict[str, type[Any]] = {
    name: getattr(module, name)
    for module in (optimizers, schedules)
    for name in module.__all__
    if isinstance(getattr(module, name), type)
}

_UNSOUND = (SafetensorError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)

Array = NDArray[Any]
Path = str | os.PathLike[str]


class Checkpoint(Callback):
    """Saves the training so that `resume` can go on with it, bit for bit, after whatever ended it.

    The file is replaced as a whole: it is the one before or the one after, also if the process is
    killed or the power fails meanwhile. The one before is kept, with ".previous" at the end of its
    name. When `fit` ends, by itself or by Ctrl-C or an exception, the last state is saved too, but
    not one that has diverged.

    Parameters
    ----------
    path
        The file to create or replace; ``.safetensors`` is the usual ending.
    every_epochs, every_batches, every_seconds
        How often: after each so many epochs, after each so many batches (with `accumulate`: steps),
        when so many seconds have passed, also within an epoch. Any of them may be given; if none
        is, after each epoch.

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be; when training begins, if it is an estimator's, which
        has a generator of its own; while training, if the network's metadata is not text.
    OSError
        When training begins, if there is no folder for the file or it is one; while training, if
        the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import fastmlp as fm
    >>> X, y = [[0.0], [1.0]] * 20, [0, 1] * 20
    >>> net = fm.MLP([1, 8, 2])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/run.safetensors"
    ...     history = fm.fit(net, X, y, epochs=2, callbacks=[fm.Checkpoint(path)])
    ...     again, history = fm.resume(path, X, y, epochs=3)
    >>> len(history)
    3
    """

    def __init__(
        self,
        path: Path,
        *,
        every_epochs: int | None = None,
        every_batches: int | None = None,
        every_seconds: float | None = None,
    ) -> None:
        self.path = check_path(path)
        if every_epochs is None and every_batches is None and every_seconds is None:
            every_epochs = 1
        if every_epochs is not None:
            every_epochs = check_whole(every_epochs, "every_epochs", 1)
        if every_batches is not None:
            every_batches = check_whole(every_batches, "every_batches", 1)
        if every_seconds is not None:
            every_seconds = check_number(every_seconds, "every_seconds", 0.0, open_low=True)
        self.every_epochs, self.every_seconds = every_epochs, every_seconds
        self.every_batches = self.every = every_batches
        self._saved: tuple[int, int] | None = None

    @property
    def looks_at_epochs(self) -> bool:
        """Whether it saves by epochs."""
        return self.every_epochs is not None

    def on_train_begin(self, training: Training) -> None:
        """Note what is there: what it was resumed from need not be saved again."""
        target = os.path.realpath(self.path)
        if not os.path.isdir(os.path.dirname(target)):  # now, not after hours
            raise FileNotFoundError(errno.ENOENT, "no folder for the checkpoint", self.path)
        if os.path.isdir(target):
            raise IsADirectoryError(errno.EISDIR, "a folder in the checkpoint's place", self.path)
        training.state()  # which an estimator's training refuses
        self._samples = _describe_samples(training)
        self._saved = (training.epoch, training.step) if training.step else None

    def on_epoch_end(self, training: Training) -> None:
        """Save after each so many epochs."""
        if self.every_epochs is not None and training.epoch % self.every_epochs == 0:
            self._save(training)

    def on_batch_end(self, training: Training) -> None:
        """Save; the training knows when."""
        self._save(training)

    def on_train_end(self, training: Training) -> None:
        """Save where it ended, if that is new."""
        if not training.diverged and self._saved != (training.epoch, training.step):
            self._save(training)

    def _save(self, training: Training) -> None:
        every = {
            "every_epochs": self.every_epochs,
            "every_batches": self.every_batches,
            "every_seconds": self.every_seconds,
        }
        content = _to_bytes(training, {"every": every, "samples": self._samples})
        replace_file(self.path, content, PREVIOUS)
        self._saved = training.epoch, training.step


def resume(
    path: Path,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    batches: Batches | None = None,
    sample_weight: ArrayLike | None = None,
    validation: tuple[ArrayLike, ...] | None = None,
    optimizer: Optimizer | None = None,
    early_stopping: EarlyStopping | None = None,
    epochs: int | None = None,
    callbacks: Callbacks = (),
    progress: bool = False,
    threads: int | None = None,
) -> tuple[MLP, History]:
    """Go on with a training from the file of a `Checkpoint`, as if it had never stopped.

    On a machine of the same kind, parameters and history (but for the times) are those of an
    uninterrupted `fit`, bit for bit. It goes on to save in the same file as often as before, unless
    the callbacks have a `Checkpoint`. If the file is damaged or missing, the one before is taken,
    with a warning.

    Parameters
    ----------
    path
        The file.
    X, y, sample_weight
        What `fit` was given. Shapes and a sample of the rows are compared.
    batches
        In their place, if `fit` was given that. They must be the same again; those of the running
        epoch that are done are skipped. Nothing is compared.
    validation
        (X, y) or (X, y, sample_weight), if `fit` was given that; a share is in the file.
    optimizer, early_stopping
        None: those of the file. They must be given again where the file cannot hold them: where a
        learning rate or what is monitored is a function, or a class that is not fastmlp's.
    epochs
        All epochs, those that are finished included; None: as many as `fit` was asked for.
        Schedules that depend on the number, like `Cosine`, follow the new one.
    callbacks, progress, threads
        As in `fit`; callbacks are not saved.

    Returns
    -------
    MLP, History
        The network, and the history from the first epoch on.

    Raises
    ------
    ValueError
        If file and previous file cannot be read as a checkpoint, if the samples are others, or if
        an argument is missing.
    FileNotFoundError
        If there is neither file.
    TypeError, DivergenceError, OSError
        As `fit` and `Checkpoint`.

    Examples
    --------
    See `Checkpoint`.
    """
    path, watchers = check_path(path), list(checked_callbacks(callbacks))
    file = read(path)
    changes: dict[str, Any] = {"optimizer": optimizer, "early_stopping": early_stopping}
    for name in file.missing:
        if changes[name] is None:
            raise ValueError(f"{name} must be given as to fit: {path!r} cannot hold all of it")
    file.check_epochs(epochs, path)
    changes["epochs"] = epochs
    changes = {name: value for name, value in changes.items() if value is not None}
    if file.samples["others"] and file.samples["share"] is None and validation is None:
        raise ValueError(f"validation must be given as to fit: {path!r} does not hold the samples")
    if not any(isinstance(callback, Checkpoint) for callback in watchers):
        watchers.append(Checkpoint(path, **file.every))
    share = file.samples["share"]
    training = prepare(
        file.net, X, y, dataclasses.replace(file.settings, **changes),
        batches=batches,
        sample_weight=sample_weight,
        validation=validation if share is None else share,
        state=file.state,
        callbacks=watchers,
        progress=progress,
        threads=threads,
    )  # fmt: skip
    found = _describe_samples(training)
    if found != file.samples:
        raise ValueError(
            f"X, y, sample_weight and validation must be those that {path!r} was trained on: "
            f"{_difference(found, file.samples)}"
        )
    training.run()
    return file.net, training.history


@dataclasses.dataclass(frozen=True)
class File:
    """What a file holds, checked; `missing` are the arguments that it cannot hold."""

    net: MLP
    state: TrainingState
    settings: Settings
    missing: list[str]
    every: dict[str, Any]
    samples: dict[str, Any]

    def check_epochs(self, epochs: int | None, path: str) -> None:
        """Raise TypeError or ValueError if that cannot be all epochs of what is resumed."""
        done = self.state.position.epochs
        if epochs is not None and check_whole(epochs, "epochs", 1) < done:
            raise ValueError(
                f"epochs must be at least the {done} that {path!r} has done, got {epochs}"
            )


def _to_bytes(training: Training, header: dict[str, Any]) -> bytes:
    """The whole file; `header` has what the checkpoint adds of its own."""
    net, settings, state = training.net, training.settings, training.state()
    position, patience, history = state.position, state.patience, state.history
    vectors: dict[str, Array] = {
        name: getattr(state, name) for name in _VECTORS if hasattr(state, name)
    }
    if patience.kept is not None:
        vectors["best"], vectors["best.running"] = patience.kept
    tensors = {
        name: np.ascontiguousarray(tensor.view(vectors[vector]))
        for name, vector, tensor in _places(net.layout, [v for v, f in vectors.items() if len(f)])
    }
    for name in SERIES:
        tensors[f"history.{name}"] = np.array(getattr(history, name), np.float64)
    numbers = (*position.sums, position.learning_rate, patience.best, history.seconds)
    tensors["numbers"] = np.array(numbers, np.float64)
    rule = settings.early_stopping
    header = {
        **header,
        "format": FORMAT,
        "network": io.describe(net),
        "optimizer": _describe(settings.optimizer),
        "early_stopping": None if rule is None else _fields(rule),
        "settings": {
            name: value
            for name, value in _fields(settings).items()
            if name not in ("optimizer", "early_stopping")
        },
        "position": [position.epochs, position.steps, position.samples],
        "patience": [patience.epochs, patience.waited],
        "best_epoch": history.best_epoch,
        "vectors": [name for name, flat in vectors.items() if len(flat)],
    }
    header["digest"] = _digest(header, tensors)
    return to_safetensors(tensors, {_HEADER_KEY: io.to_json(header)})


def _places(layout: Layout, vectors: list[str]) -> Iterator[tuple[str, str, Tensor]]:
    """Each tensor's name in a file, the vector it is of, and its place there."""
    for vector in vectors:
        prefix, _, _ = vector.partition(".")
        is_running = vector in ("running", "best.running")
        for tensor in layout.running if is_running else layout.tensors:
            yield f"{prefix}.{tensor.name}", vector, tensor


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Array]) -> str:
    """What changes if a bit of the file does."""
    digest = hashlib.blake2b(io.to_json(dict(header)).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def read(path: str) -> File:
    """Read the file, or the one before it if that cannot be done."""
    previous = os.path.realpath(path) + PREVIOUS
    try:
        return _load(path)
    except (OSError, ValueError) as error:
        if not os.path.exists(previous):
            raise
        file = _load(previous)
        warnings.warn(f"{error}; going on from {previous!r}", UserWarning, stacklevel=3)
        return file


def _load(path: str) -> File:
    """Read and check one file; ValueError if it is no sound checkpoint."""
    with open(path, "rb"):
        pass  # safetensors reports a folder or a file without permission less clearly
    try:
        opened: Any = safe_open(path, framework="numpy")
        with opened as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in list(content.keys())}
        header = json.loads(metadata[_HEADER_KEY])
        if header["format"] != FORMAT:
            raise ValueError(f"its format must be {FORMAT!r}, got {header['format']!r}")
        if header.pop("digest") != _digest(header, tensors):
            raise ValueError("its content does not match its digest")
        net, samples = io.build(header["network"]), header["samples"]
        if samples.keys() != {"train", "others", "share"}:
            raise ValueError(f"it describes samples by {', '.join(samples)}")
        state = _state(header, net, tensors)
        return File(net, state, *_settings(header), header["every"], samples)
    except KeyError as error:
        raise ValueError(f"cannot read {path!r} as a checkpoint: it has no {error}") from error
    except _UNSOUND as error:
        raise ValueError(f"cannot read {path!r} as a checkpoint: {error}") from error


def _state(header: dict[str, Any], net: MLP, tensors: dict[str, Array]) -> TrainingState:
    layout = net.layout
    vectors = {
        name: aligned_zeros(
            layout.running_length if name in ("running", "best.running") else layout.length,
            net.dtype,
        )
        for name in header["vectors"]
    }
    for name, vector, tensor in _places(layout, list(vectors)):
        found = tensors[name]
        if (found.dtype, found.shape) != (net.dtype, tensor.shape):
            raise ValueError(
                f"tensor {name} must be {net.dtype} of shape {tensor.shape}, "
                f"got {found.dtype} of shape {found.shape}"
            )
        tensor.view(vectors[vector])[...] = found
    empty = aligned_zeros(0, net.dtype)
    for name, flat in vectors.items():
        if name not in ("running", "best.running"):
            layout.spread(flat)
    loss, right, weight, rate, best, seconds = tensors["numbers"].tolist()
    epochs, steps, samples = (check_whole(n, "position", 0, 2**62) for n in header["position"])
    seen, waited = (check_whole(n, "patience", 0, 2**62) for n in header["patience"])
    series = {name: tensors[f"history.{name}"].tolist() for name in SERIES}
    if any(len(values) not in (0, epochs) for values in series.values()) or epochs < seen:
        raise ValueError(f"its history is not of {epochs} epochs")
    kept = None
    if "best" in vectors:
        kept = vectors["best"], vectors.get("best.running", empty)
    return TrainingState(
        theta=vectors["theta"],
        running=vectors.get("running", empty),
        first=vectors.get("first", empty),
        second=vectors.get("second", empty),
        average=vectors.get("average", empty),
        position=Position(epochs, steps, samples, (loss, right, weight), rate),
        patience=Patience(seen, best, waited, kept),
        history=History(
            **series,
            seconds=seconds,
            best_epoch=header["best_epoch"],
        ),
    )


def _settings(header: dict[str, Any]) -> tuple[Settings, list[str]]:
    """The arguments of `fit`, and the names of those that have to be given again."""
    optimizer, rule, missing = _build(header["optimizer"]), header["early_stopping"], []
    if optimizer is None:
        missing.append("optimizer")
    if rule is not None and rule["monitor"] is None:
        missing.append("early_stopping")
        rule = None
    stopping = None if rule is None else EarlyStopping(**rule)
    settings = Settings(
        **header["settings"], optimizer=optimizer or optimizers.Adam(), early_stopping=stopping
    )
    return settings, missing


def _describe(value: Any) -> Any:
    """A setting for JSON, as `_build` reads it; None for what no file can hold, or has it in it."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):  # learning_rate_factors
        return {kind: np.asarray(factor).tolist() for kind, factor in value.items()}
    if type(value).__name__ not in _CLASSES or type(value) is not _CLASSES[type(value).__name__]:
        return None
    fields = _fields(value)
    if any(fields[name] is None and getattr(value, name) is not None for name in fields):
        return None
    return {"class": type(value).__name__, **fields}


def _fields(settings: Any) -> dict[str, Any]:
    return {f.name: _describe(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def _build(description: Any) -> Any:
    if not isinstance(description, dict):
        return description
    fields = {name: _build(value) for name, value in description.items()}
    return _CLASSES[fields.pop("class")](**fields)


def _describe_samples(training: Training) -> dict[str, Any]:
    """What there is to tell the samples from others by."""
    samples, held_out = training._samples, training._held_out
    return {
        "train": None if isinstance(samples, Source) else _fingerprint(samples),
        "others": None if held_out is None else _fingerprint(held_out),
        "share": training._share,
    }


def _fingerprint(batch: Batch) -> dict[str, Any]:
    """Shape of X, number of rows that take part, and a digest of some rows of all arrays."""
    rows = np.linspace(0, len(batch.x) - 1, LOOKED_AT).astype(np.int64)
    digest = hashlib.blake2b(digest_size=16)
    for array in (batch.x, batch.labels, batch.targets, batch.weights):
        if len(array):
            digest.update(np.ascontiguousarray(array[rows]).tobytes())
    return {"shape": list(batch.x.shape), "rows": len(batch), "digest": digest.hexdigest()}


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The first thing in which two descriptions of samples differ, in words."""
    for name, what in (("train", "X"), ("others", "the validation samples")):
        mine, theirs = found[name], expected[name]
        if name == "train" and (mine is None) != (theirs is None):
            return f"it was trained on {'X and y' if mine is None else 'batches'}"
        if not mine or not theirs:
            continue
        if mine["shape"] != theirs["shape"]:
            return f"{what} has shape {tuple(mine['shape'])}, not {tuple(theirs['shape'])}"
        if mine != theirs:
            return f"the values of {what}, or of what belongs to them, are others"
    return "validation is not what it was"
