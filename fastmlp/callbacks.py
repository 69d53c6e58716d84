"""What looks at a training while it goes on: pass it to `fit` as ``callbacks=[...]``.

Between two looks the compiled program runs alone, so a callback costs what it does itself and some
tenths of a millisecond for each call. A plain function is called after each epoch::

    fm.fit(net, X, y, callbacks=[lambda training: print(training.epoch, training.history.loss[-1])])
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from ._callback import Callback
from ._checks import check_number, check_path, check_whole
from ._files import replace_file
from ._names import check_name
from .checkpoints import Checkpoint
from .stopping import MONITORS
from .training import Training

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "JSONLinesLogger",
    "LearningRateMonitor",
    "TargetReached",
    "TensorBoard",
    "TimeLimit",
    "Training",
]

Path = str | os.PathLike[str]


class TimeLimit(Callback):
    """Stops a training when its time is over, after the step that is running.

    Parameters
    ----------
    seconds
        Above 0; of this call of `fit` or `resume`, without compilation.

    Raises
    ------
    TypeError, ValueError
        If it is not a number above 0.

    Examples
    --------
    >>> TimeLimit(3600)
    TimeLimit(seconds=3600.0)
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = check_number(seconds, "seconds", 0.0, open_low=True)
        self.every_seconds = self.seconds

    def on_batch_end(self, training: Training) -> None:
        """Stop."""
        training.stop()


class TargetReached(Callback):
    """Stops a training after the epoch in which a value is as good as wanted.

    Parameters
    ----------
    target
        The value at which to stop: a loss of at most, or an accuracy of at least that.
    monitor
        "val_loss", "val_accuracy", "loss" or "accuracy".

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be; ValueError when training begins, if it will not have
        what is monitored.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> X, y = np.array([[0.0], [1.0]] * 20), [0, 1] * 20
    >>> rule = TargetReached(0.95, "accuracy")
    >>> fm.fit(fm.MLP([1, 8, 2]), X, y, epochs=10000, callbacks=[rule]).stopped_early
    True
    """

    def __init__(self, target: float, monitor: str = "val_loss") -> None:
        self.target = check_number(target, "target", -math.inf, open_low=True)
        self.monitor = check_name(monitor, "monitor", MONITORS)

    def on_train_begin(self, training: Training) -> None:
        """Make sure that there will be something to look at."""
        if self.monitor not in training.columns:
            raise ValueError(
                f"TargetReached monitors {self.monitor!r}, this training has "
                f"{', '.join(training.columns)}"
            )

    def on_epoch_end(self, training: Training) -> None:
        """Look at the last epoch."""
        value = getattr(training.history, self.monitor)[-1]
        if MONITORS[self.monitor] * (value - self.target) >= 0:
            training.stop()


class LearningRateMonitor(Callback):
    """Notes learning rates and the size of the parameters, for a picture of them.

    The rate of each epoch's last step is in `History.learning_rate` without it.

    Parameters
    ----------
    every
        Steps between two notes; None: one after each epoch.

    Attributes
    ----------
    steps, learning_rates, parameter_norms
        Of each note: steps done so far, the rate of the last, and the Euclidean norm of all
        parameters.

    Raises
    ------
    TypeError, ValueError
        If `every` is not a whole number of at least 1.

    Examples
    --------
    >>> import fastmlp as fm
    >>> monitor = LearningRateMonitor(every=2)
    >>> rate = fm.schedules.Exponential(0.1, 0.5)
    >>> X, y = [[0.0], [1.0]] * 20, [0, 1] * 20
    >>> net = fm.MLP([1, 8, 2])
    >>> history = fm.fit(
    ...     net, X, y, optimizer=fm.SGD(rate), batch_size=10, epochs=2, callbacks=[monitor]
    ... )
    >>> monitor.steps, monitor.learning_rates
    ([2, 4, 6, 8], [0.1, 0.1, 0.05, 0.05])
    """

    def __init__(self, every: int | None = None) -> None:
        self.every = None if every is None else check_whole(every, "every", 1)
        self.steps: list[int] = []
        self.learning_rates: list[float] = []
        self.parameter_norms: list[float] = []

    def on_epoch_end(self, training: Training) -> None:
        """Take a note."""
        if self.every is None:
            self._note(training)

    def on_batch_end(self, training: Training) -> None:
        """Take a note."""
        self._note(training)

    def _note(self, training: Training) -> None:
        squares = np.square(training.net.theta, dtype=np.float64)
        self.steps.append(training.step)
        self.learning_rates.append(training.learning_rate)
        self.parameter_norms.append(math.sqrt(squares.sum()))


class _LogFile(Callback):
    """A line of text for each epoch; of a training that is resumed, those it has already stay."""

    def __init__(self, path: Path) -> None:
        self.path = check_path(path)
        self._file: Any = None

    def on_train_begin(self, training: Training) -> None:
        """Open the file: empty, or without the epochs that will come again."""
        lines: list[str] = []
        if training.epoch > 0 and os.path.exists(self.path):
            with open(self.path, encoding="utf-8", newline="") as file:
                lines = self._kept(file, training.epoch)
        replace_file(self.path, "".join(lines).encode())
        self._file = open(self.path, "a", encoding="utf-8", newline="")  # noqa: SIM115 - see below
        self._is_empty = not lines

    def on_epoch_end(self, training: Training) -> None:
        """Write the last epoch, so that it is in the file at once."""
        self._write(_last_epoch(training))
        self._file.flush()

    def on_train_end(self, training: Training) -> None:
        """Close the file."""
        self._file.close()

    def _kept(self, lines: Iterable[str], epochs: int) -> list[str]:
        raise NotImplementedError

    def _write(self, values: dict[str, Any]) -> None:
        raise NotImplementedError


class CSVLogger(_LogFile):
    """Writes a CSV file with a row for each epoch, as soon as it is over.

    The columns are epoch (from 1), loss, accuracy, val_loss and val_accuracy as far as the history
    has them, learning_rate and seconds. A training that is resumed goes on in the same file, and
    takes out the epochs that come again.

    Parameters
    ----------
    path
        The file to create or replace.

    Raises
    ------
    OSError
        When training begins, if the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import fastmlp as fm
    >>> X, y = [[0.0], [1.0]] * 20, [0, 1] * 20
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = CSVLogger(f"{folder}/log.csv")
    ...     history = fm.fit(fm.MLP([1, 8, 2]), X, y, epochs=2, callbacks=[log])
    ...     with open(log.path) as file:
    ...         print(file.readline().strip())
    epoch,loss,accuracy,learning_rate,seconds
    """

    def _kept(self, lines: Iterable[str], epochs: int) -> list[str]:
        header, *rows = lines if (lines := list(lines)) else [""]
        kept = [row for row in rows if row.endswith("\n") and _is_within(row.split(",")[0], epochs)]
        return [header, *kept] if header.endswith("\n") else []

    def _write(self, values: dict[str, Any]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(values), lineterminator="\n")
        if self._is_empty:
            writer.writeheader()
            self._is_empty = False
        writer.writerow(values)
        self._file.write(text.getvalue())


class JSONLinesLogger(_LogFile):
    """Writes a file with a JSON object for each epoch, one a line, as soon as it is over.

    The keys are the columns of `CSVLogger`; a value that is not finite is null.

    Parameters
    ----------
    path
        The file to create or replace.

    Raises
    ------
    OSError
        When training begins, if the file cannot be written.

    Examples
    --------
    >>> JSONLinesLogger("log.jsonl")
    JSONLinesLogger(path='log.jsonl')
    """

    def _kept(self, lines: Iterable[str], epochs: int) -> list[str]:
        whole = (line for line in lines if line.endswith("}\n"))
        return [line for line in whole if _is_within(json.loads(line).get("epoch"), epochs)]

    def _write(self, values: dict[str, Any]) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps(finite) + "\n")


class TensorBoard(Callback):
    """Writes the history for TensorBoard, by the package tensorboardX (extra ``tensorboard``).

    The scalars are those of `CSVLogger` but for the epoch, which is their step. To see them:
    ``pip install tensorboard`` and ``tensorboard --logdir FOLDER``.

    Parameters
    ----------
    folder
        Where the event files go, one for each training.

    Raises
    ------
    ImportError
        If tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                'TensorBoard needs tensorboardX: pip install "fastmlp[tensorboard]"'
            ) from error
        self.folder = check_path(folder, "folder")
        self._make_writer = SummaryWriter

    def on_train_begin(self, training: Training) -> None:
        """Open an event file, in which what a resumed training repeats counts no more."""
        purge = training.epoch + 1 if training.epoch > 0 else None
        self._writer = self._make_writer(self.folder, purge_step=purge)

    def on_epoch_end(self, training: Training) -> None:
        """Write the last epoch."""
        values = _last_epoch(training)
        epoch = values.pop("epoch")
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def on_train_end(self, training: Training) -> None:
        """Close the event file."""
        self._writer.close()


def _last_epoch(training: Training) -> dict[str, Any]:
    """What the history has of the last epoch."""
    history = training.history
    names = (*training.columns, "learning_rate")
    values = {name: getattr(history, name)[-1] for name in names}
    return {"epoch": training.epoch, **values, "seconds": round(history.seconds, 6)}


def _is_within(epoch: Any, epochs: int) -> bool:
    """Whether this is the number of one of the first epochs."""
    return str(epoch).isdecimal() and 1 <= int(epoch) <= epochs
