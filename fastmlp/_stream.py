"""Batches from anywhere: a thread fills one buffer while the team trains on another.

A buffer holds whole steps of the optimizer, so that one call of the program does many of them. It
is handed over when the team wants it, full or not: where the cuts are changes no bit.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ._execution import Batch
from .threads import POLL_SECONDS

BUFFER_BYTES = 16 * 2**20  # or one step, if that is larger

Array = NDArray[Any]
Step = Sequence[Batch]


@dataclass(frozen=True)
class Block:
    """Steps side by side: each of `step_rows` samples, the last may have fewer."""

    samples: Batch
    step_rows: int


class Buffer:
    """Memory for the samples of some steps."""

    def __init__(self) -> None:
        self._arrays: tuple[Array, ...] = ()  # x, labels, targets, weights
        self._used = self._step_rows = 0

    def __len__(self) -> int:
        return self._used

    def clear(self) -> None:
        """Forget the samples; the memory stays."""
        self._used = 0

    def takes(self, step: Step) -> bool:
        """Return whether the step can lie behind those that are here."""
        if self._used == 0:
            return True
        rows = _rows(step)
        are_whole = self._used % self._step_rows == 0 and rows <= self._step_rows
        return are_whole and self._used + rows <= len(self._arrays[0]) and self._is_like(step)

    def add(self, step: Step) -> None:
        """Copy a step's samples behind the others."""
        if self._used == 0:
            self._step_rows = _rows(step)
            if not self._is_like(step) or len(self._arrays[0]) < self._step_rows:
                self._allocate(step)
        for batch in step:
            rows = slice(self._used, self._used + len(batch))
            for mine, its in zip(self._arrays, _arrays(batch), strict=True):
                if len(its):
                    mine[rows] = its
            self._used = rows.stop

    def block(self) -> Block:
        """Return what is here; it is overwritten after `clear`."""
        x, labels, targets, weights = (array[: self._used] for array in self._arrays)
        return Block(Batch(x, labels, targets, weights, np.arange(self._used)), self._step_rows)

    def _is_like(self, step: Step) -> bool:
        """Whether the same things are given: labels or targets, weights or none."""
        return [len(a) > 0 for a in self._arrays] == [len(a) > 0 for a in _arrays(step[0])]

    def _allocate(self, step: Step) -> None:
        """Make arrays for as many steps as `BUFFER_BYTES` hold, at least for one."""
        arrays = _arrays(step[0])
        row_bytes = sum(a.nbytes // len(a) for a in arrays if len(a))
        rows = max(BUFFER_BYTES // (row_bytes * self._step_rows), 1) * self._step_rows
        self._arrays = tuple(
            np.empty((rows if len(a) else 0, *a.shape[1:]), a.dtype) for a in arrays
        )


class Ahead:
    """Blocks of the steps of one epoch, which a thread collects: a context manager.

    The thread ends with the context, as soon as the step that it collects is there.
    """

    def __init__(self, steps: Callable[[], Iterator[Step]]) -> None:
        self._steps = steps
        self._filling, self._taken = Buffer(), Buffer()
        self._changed = threading.Condition()
        self._is_over = self._is_stopped = False
        self._error: BaseException | None = None
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._collect, name="fastmlp-batches", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except BaseException:  # Ctrl-C may come when the thread is there already
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        self._finished.wait()

    def _stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify()

    def take(self, watch: Callable[[], None] | None = None) -> Block | None:
        """Return the next steps, None after the last; the block before is overwritten from now on.

        While there is nothing, `watch` is called about twenty times a second. What the iteration
        raises is raised here, after all steps before it.
        """
        with self._changed:
            self._taken.clear()
            while not len(self._filling) and not self._is_over:
                if not self._changed.wait(POLL_SECONDS) and watch is not None:
                    watch()
            if len(self._filling):
                self._filling, self._taken = self._taken, self._filling
                self._changed.notify()
                return self._taken.block()
        if self._error is not None:
            raise self._error
        return None

    def _collect(self) -> None:
        try:
            for step in self._steps():
                if not self._put(step):
                    break
        except BaseException as error:  # noqa: BLE001 - raised by `take` in the caller's thread
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify()
            self._finished.set()

    def _put(self, step: Step) -> bool:
        """Wait for room and copy the step there; False if nobody wants it any more."""
        with self._changed:
            while not self._is_stopped and not self._filling.takes(step):
                self._changed.wait()
            if not self._is_stopped:
                self._filling.add(step)
                self._changed.notify()
            return not self._is_stopped


def steps_of(batches: Iterable[Batch], accumulate: int) -> Iterator[Step]:
    """Put batches together to steps, the last one of fewer if there are no more."""
    step: list[Batch] = []
    for batch in batches:
        step.append(batch)
        if len(step) == accumulate:
            yield step
            step = []
    if step:
        yield step


def _rows(step: Step) -> int:
    return sum(map(len, step))


def _arrays(batch: Batch) -> tuple[Array, ...]:
    return batch.x, batch.labels, batch.targets, batch.weights
