"""The training loop: the team runs, and in between Python records, shows, calls and decides."""

import contextlib
import copy
import math
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import kernels
from ._execution import Batch, Execution, Procedure
from ._minimize import minimize
from ._schedule import Schedule, checked_rates
from ._state import TrainingState
from ._stream import LARGEST, Source, Streaming
from .errors import DivergenceError
from .kernels import program
from .mlp import MLP
from .optimizers import LBFGS
from .progress import Progress
from .threads import POLL_SECONDS

if TYPE_CHECKING:
    from ._callback import Callback
    from .training import Settings

__all__ = ["Training"]

COLUMNS = {
    "loss": program.LOSS,
    "accuracy": program.ACCURACY,
    "val_loss": program.VALIDATION_LOSS,
    "val_accuracy": program.VALIDATION_ACCURACY,
}
LOOK_SECONDS = 0.2  # how often a run without stopping rules comes back to Python, at most


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
        settings: "Settings",
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
                    for _ in range(2):  # Ctrl-C may cut the first one short
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
        if "mmap" in sys.modules:  # who has not imported it has no memory map
            from ._readahead import ShuffledRows

            rows = ShuffledRows.of(self.net, samples, self._procedure)
            if rows is not None:
                return Streaming(self.net, rows, **how)
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
