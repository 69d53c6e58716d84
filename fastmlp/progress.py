"""What `fit` shows: that it compiles and, if asked to, how it trains."""

import math
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from fastmlp.history import History, format_number

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress"]


class Progress:
    """Progress of one training run: a live bar if there is a place for one, else a line an epoch.

    On standard error: in a terminal the bar needs rich (the extra ``cli``), in a notebook tqdm (the
    extra ``notebook``); without them there are plain lines.
    The training loop calls :meth:`compiling` and :meth:`update` from one thread, as often as it
    likes; ten times a second is enough. Nothing is shown before the first call.

    A run that is not to be shown says one thing, if standard error is a terminal: that it compiles.

    Parameters
    ----------
    enabled
        Whether to show how the run goes on.
    epochs
        Number of epochs of the run.
    samples_per_epoch
        Number of training samples in an epoch; None if nobody knows.
    classifier
        Whether the history gets accuracies.
    validation
        Whether the history gets values for validation samples.
    begun
        Epochs that were finished, and shown, before.
    """

    def __init__(
        self,
        enabled: bool,
        *,
        epochs: int,
        samples_per_epoch: int | None,
        classifier: bool,
        validation: bool,
        begun: int = 0,
    ) -> None:
        run = _Run(epochs, samples_per_epoch, classifier=classifier, validation=validation)
        run.begun = begun
        self._view: _View = _choose_view(run) if enabled else _Notice()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._view.close()

    def compiling(self, text: str) -> None:
        """Show that kernels compile; `text` says how far that is."""
        self._view.compiling(text)

    def update(self, epoch: int, samples: int, history: History) -> None:
        """Show the state of the training.

        Parameters
        ----------
        epoch
            The running epoch, counted from 0.
        samples
            Number of its samples done so far; of all epochs if nobody knows how many it has.
        history
            The finished epochs. The object is read once more at the end of the run, so epochs
            that finish after the last update are shown too.
        """
        self._view.update(epoch, samples, history)


class _Run:
    """The state of the run that is shown, and the words for it."""

    def __init__(
        self, epochs: int, samples_per_epoch: int | None, *, classifier: bool, validation: bool
    ) -> None:
        self.epochs = epochs
        self.begun = 0
        self.epoch = 0
        self.done = 0
        self.total = None if samples_per_epoch is None else epochs * samples_per_epoch
        self._samples_per_epoch = samples_per_epoch
        self._classifier = classifier
        self._validation = validation
        self._history = History()
        self._first: tuple[float, int] | None = None

    def update(self, epoch: int, samples: int, history: History) -> None:
        self._history = history
        self.epoch = epoch
        self.done = epoch * (self._samples_per_epoch or 0) + samples
        if self._first is None:
            self._first = (time.perf_counter(), self.done)

    @property
    def started(self) -> bool:
        return self._first is not None

    def finished_epochs(self) -> int:
        """Return the number of epochs of which the history has every value."""
        history = self._history
        series = [history.loss]
        if self._classifier:
            series.append(history.accuracy)
        if self._validation:
            series.append(history.val_loss)
        if self._classifier and self._validation:
            series.append(history.val_accuracy)
        return min(map(len, series))

    def results(self, epoch: int) -> list[str]:
        """Say what came out of a finished epoch; validation accuracy goes before the other."""
        history = self._history
        results = [f"loss {format_number(history.loss[epoch])}"]
        if self._validation:
            results.append(f"val {format_number(history.val_loss[epoch])}")
        if self._classifier:
            accuracy = history.val_accuracy if self._validation else history.accuracy
            name = "val_acc" if self._validation else "acc"
            results.append(f"{name} {100.0 * accuracy[epoch]:.2f} %")
        return results

    def pace(self) -> list[str]:
        """Say how fast the run is and how long it will take."""
        if self._first is None:
            return []
        started, skipped = self._first
        seconds = time.perf_counter() - started
        if self.done == skipped or seconds == 0.0:
            return []
        speed = (self.done - skipped) / seconds
        pace = [f"{_count(speed)} samples/s"]
        if self.total is not None and self.done < self.total:
            pace.append(f"{_duration((self.total - self.done) / speed)} left")
        return pace


class _View(Protocol):
    def compiling(self, text: str) -> None: ...

    def update(self, epoch: int, samples: int, history: History) -> None: ...

    def close(self) -> None: ...


def _choose_view(run: _Run) -> _View:
    if "ipykernel" in sys.modules:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return _Lines(run)
        return _NotebookBar(run, tqdm)
    try:
        from rich.console import Console
    except ImportError:
        return _Lines(run)
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        return _Bar(run, console)
    return _Lines(run)


class _Notice:
    """One line about compiling, for somebody at a terminal who would wonder; no word else."""

    def __init__(self) -> None:
        self._is_due = sys.stderr is not None and sys.stderr.isatty()

    def compiling(self, text: str) -> None:
        if self._is_due:
            self._is_due = False
            print(f"fastmlp: {text.partition(':')[0]}", file=sys.stderr, flush=True)

    def update(self, epoch: int, samples: int, history: History) -> None:
        pass

    def close(self) -> None:
        pass


class _Lines:
    """One line on standard error for each finished epoch."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._announced = False
        self._printed = run.begun

    def compiling(self, text: str) -> None:
        if not self._announced:
            self._announced = True
            self._print(text.partition(":")[0])  # what follows changes all the time

    def update(self, epoch: int, samples: int, history: History) -> None:
        self._run.update(epoch, samples, history)
        self._print_finished()

    def close(self) -> None:
        self._print_finished()

    def _print_finished(self) -> None:
        for epoch in range(self._printed, self._run.finished_epochs()):
            words = "  ".join(self._run.results(epoch) + self._run.pace())
            self._print(f"epoch {epoch + 1}/{self._run.epochs}  {words}")
            self._printed = epoch + 1

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _Bar:
    """A live bar on a terminal."""

    def __init__(self, run: _Run, console: "Console") -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._run = run
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[words]}", markup=False),
            console=console,
            expand=True,
        )
        # A bar without a total pulses.
        self._task = self._bar.add_task("", total=None, words="")

    def compiling(self, text: str) -> None:
        self._bar.update(self._task, description=text)
        self._bar.start()

    def update(self, epoch: int, samples: int, history: History) -> None:
        self._run.update(epoch, samples, history)
        self._draw()
        self._bar.start()

    def close(self) -> None:
        if self._run.started:
            self._draw()
        self._bar.stop()

    def _draw(self) -> None:
        finished = self._run.finished_epochs()
        results = self._run.results(finished - 1) if finished else []
        self._bar.update(
            self._task,
            description=f"epoch {min(self._run.epoch + 1, self._run.epochs)}/{self._run.epochs}",
            total=self._run.total,
            completed=self._run.done,
            words=" ".join(results + self._run.pace()),
        )


class _NotebookBar:
    """A live bar by tqdm, which knows how a notebook shows one."""

    def __init__(self, run: _Run, tqdm: Any) -> None:
        self._run = run
        self._make_bar = tqdm
        self._bar: Any = None

    def compiling(self, text: str) -> None:
        self._opened().set_description_str(text)

    def update(self, epoch: int, samples: int, history: History) -> None:
        self._run.update(epoch, samples, history)
        self._draw()

    def close(self) -> None:
        if self._run.started:
            self._draw()
        if self._bar is not None:
            self._bar.close()

    def _opened(self) -> Any:
        if self._bar is None:
            self._bar = self._make_bar(total=self._run.total, unit=" samples", unit_scale=True)
        return self._bar

    def _draw(self) -> None:
        run, bar = self._run, self._opened()
        finished = run.finished_epochs()
        bar.set_description_str(f"epoch {min(run.epoch + 1, run.epochs)}/{run.epochs}", False)
        bar.set_postfix_str(" ".join(run.results(finished - 1)) if finished else "", False)
        bar.update(run.done - bar.n)
        bar.refresh()


def _count(value: float) -> str:
    """Format a speed in three digits: 512, 3.41k, 812k, 1.25M."""
    for unit in ("", "k"):
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000.0
    return f"{value:.3g}M"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
