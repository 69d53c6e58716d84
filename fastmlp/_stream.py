"""Batches from anywhere: a thread fills one buffer while the team trains on another.

A buffer holds whole steps of the optimizer, so that one call of the program does many of them. It
is handed over when the team wants it, full or not: where the cuts are changes no bit.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Never, Protocol

import numpy as np
from numpy.typing import NDArray

from ._checks import check_whole
from ._execution import Batch, Execution, Procedure, Rates
from ._schedule import Schedule
from ._state import Position, TrainingState
from .kernels import program
from .threads import POLL_SECONDS, closed_lock, open_lock

if TYPE_CHECKING:
    from .mlp import MLP

BUFFER_BYTES = 16 * 2**20  # or one step, if that is larger
LARGEST = 2**31 - 1  # a number of samples or steps that no epoch reaches

Array = NDArray[Any]
Step = Sequence[Batch]
BATCH = "(X, y) or (X, y, sample_weight)"
Batches = Iterable[Sequence[Any]] | Callable[[], Iterable[Sequence[Any]]]


class Steps(Protocol):
    """Where the steps of a training come from.

    Attributes
    ----------
    size, accumulate, wants_one_size
        Samples of a batch, batches of a step, and whether a pass is a batch, not less.
    samples_per_epoch, steps_per_epoch
        None if nobody knows.
    steps_skipped
        By the last `steps`.
    """

    size: int
    accumulate: int
    wants_one_size: bool
    samples_per_epoch: int | None
    steps_skipped: int

    @property
    def steps_per_epoch(self) -> int | None: ...

    def steps(self, epoch: int, samples: int) -> Generator[Step]:
        """Go through an epoch, counted from 0, of which so many samples are done."""
        ...


class Source:
    """Batches as the user gives them: checked, and put together to steps of the optimizer."""

    def __init__(self, net: "MLP", batches: Batches, accumulate: int, epochs: int) -> None:
        if not (hasattr(batches, "__iter__") or callable(batches)):
            raise TypeError(
                "batches must be an iterable of (X, y), or a function that returns one, "
                f"got {batches!r}"
            )
        if isinstance(batches, Iterator) and check_whole(epochs, "epochs", 1) > 1:
            raise ValueError(
                f"batches is an iterator, which gives one epoch, epochs is {epochs}: "
                "give a list, a DataLoader or a function that returns an iterator"
            )
        self._net, self._batches = net, batches
        self.accumulate = check_whole(accumulate, "accumulate", 1)
        # a pass is a batch then, and the program cuts a step into passes of one size
        self.wants_one_size = self.accumulate > 1 and net.architecture.has_batch_norm
        self.size = 0  # of the first batch
        self.samples_per_epoch: int | None = None
        self.steps_skipped = 0

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of an epoch, None if the batches have no length."""
        try:
            return -(-len(self._batches) // self.accumulate)  # type: ignore[arg-type]
        except TypeError:
            return None

    def check_schedule(self, schedule: Schedule) -> None:
        """Raise ValueError if the schedule needs the number of steps, and nobody knows it."""
        if self.steps_per_epoch is None:
            unknown: Any = _Unknown()
            schedule.rates(np.arange(1), unknown, LARGEST)

    def steps(self, epoch: int, samples: int) -> Generator[Step]:
        """Go through an epoch, counted from 0, of which so many samples are done."""
        self.steps_skipped = seen = 0
        step: list[Batch] = []
        for number, batch in enumerate(self._checked(), 1):
            self.size = self.size or len(batch)
            step.append(batch)
            self._check(step, number)
            seen += len(batch)
            if len(step) == self.accumulate:
                if seen > samples:
                    yield step
                else:
                    self.steps_skipped += 1
                step = []
        if step and seen > samples:
            yield step
        if not seen:
            raise ValueError(
                f"batches gave no batch in epoch {epoch + 1}: an iterator gives one epoch only"
            )

    def _checked(self) -> Iterator[Batch]:
        source: Any = self._batches
        found = source if hasattr(source, "__iter__") else source()
        if not hasattr(found, "__iter__"):
            raise TypeError(f"batches must return an iterable of (X, y), got {found!r}")
        for number, given in enumerate(found, 1):
            if not isinstance(given, (tuple, list)):
                kind = type(given).__name__
                raise TypeError(f"batch {number} must be {BATCH}, got a {kind}")
            if len(given) not in (2, 3):
                raise ValueError(f"batch {number} must be {BATCH}, got {len(given)} arrays")
            X, y, *weight = given
            of = f"of batch {number}"
            names = (f"X {of}", f"y {of}", f"sample_weight {of}")
            yield self._net._checked(X, y, weight[0] if weight else None, names)

    def _check(self, step: list[Batch], number: int) -> None:
        """Raise ValueError if the last batch of a step does not fit the others."""
        if _kinds(step[-1]) != _kinds(step[0]):
            raise ValueError(
                f"batch {number} must have weights and the same kind of targets as the batches "
                "that it is accumulated with, or none as they"
            )
        sizes = [len(batch) for batch in step]  # the last of a step may be smaller
        wrong = [i for i, size in enumerate(sizes[:-1]) if size != self.size]
        wrong += [len(sizes) - 1] * (sizes[-1] > self.size)
        if self.wants_one_size and wrong:
            raise ValueError(
                "accumulate with batch norm needs batches of one size: batch "
                f"{number - len(sizes) + 1 + wrong[0]} has {sizes[wrong[0]]} samples, the first "
                f"one has {self.size}"
            )


class _Unknown:
    """A number of steps that nobody knows: who computes with it is told so."""

    __array_ufunc__ = None  # NumPy leaves it to the methods here

    def _refuse(self, *_: Any) -> Never:
        raise ValueError(
            "the schedule of learning_rate needs the number of steps, and batches has no length: "
            "give the schedule its steps, or batches of which len() tells how many they are"
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __index__ = _refuse


class Streaming:
    """A training on batches from a source: what `Execution` is for samples in memory.

    It has an execution for steps as large as have come so far. When a larger one comes, it makes
    another one, which goes on from there.
    """

    def __init__(
        self,
        net: "MLP",
        source: Steps,
        *,
        procedure: Procedure,
        others: Batch | None,
        threads: int,
        state: TrainingState,
    ) -> None:
        self._net, self._source, self._others, self._threads = net, source, others, threads
        self._procedure = replace(procedure, batch_size=1, accumulate=1, shuffled=False)
        self._state = state
        one = Batch.of(np.zeros((1, net.layer_sizes[0]), net.dtype), net.layer_sizes[-1])
        self._execution = self._make_execution(one)
        self.begin = state.position
        self.history, self.learning_rates = np.zeros((0, program.HISTORY)), list[float]()
        self._samples_before = 0  # in the running epoch before the running call of the program
        self._samples_finished = 0  # in the finished epochs
        self._first_step = state.position.steps  # of the running epoch
        self._ahead: Ahead | None = None  # while an epoch is running
        self._block_rows = 0  # of the block at hand
        self._is_pausing = False
        self._between: Position | None = state.position  # what Ctrl-C finds between two blocks
        self._move_to(state.position)

    @property
    def position(self) -> Position:
        """Where the training has got to."""
        if self._between is not None:
            return self._between
        now = self._execution.position
        return replace(now, samples=self._samples_before + now.samples)

    @property
    def samples_seen(self) -> int:
        """Samples of all epochs so far."""
        return self._samples_finished + self.position.samples

    @property
    def samples_shown(self) -> int:
        """Where a progress bar is, in the running epoch if its length is known."""
        return self.position.samples if self._source.samples_per_epoch else self.samples_seen

    @property
    def steps_done(self) -> int:
        """Steps of the running epoch that are finished."""
        return self.position.steps - self._first_step

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch by the length of the batches, else what the finished epochs had."""
        epochs = self.position.epochs
        so_far = self._first_step // epochs if epochs else LARGEST
        return self._source.steps_per_epoch or so_far

    @property
    def diverged(self) -> bool:
        """Whether a loss that was not finite ended the call."""
        return self._execution.diverged

    @property
    def current_inputs(self) -> Array:
        """What goes into the network in the step that did not finish."""
        return self._execution.current_inputs

    def step_after(self, epochs: int) -> Any:
        """The number of the first step when so many epochs more are finished, if anybody knows."""
        per_epoch = self._source.steps_per_epoch
        return _Unknown() if per_epoch is None else self._first_step + epochs * per_epoch

    def train(
        self,
        epochs: int,
        rates: Rates,
        *,
        pause: int = 0,
        watch: Callable[[], None] | None = None,
        here: bool = False,
    ) -> bool:
        """Train to the end of the epoch, calling `watch` meanwhile; False if Ctrl-C ended it early.

        Or to `pause` steps of it, if `epochs` is 1; never further. `rates` gives the learning rates
        of steps. What the source raises is raised here. Whatever ends it, the parameters are those
        after the last whole step.
        """
        self.begin = self.position
        self.history, self.learning_rates = self.history[:0], []
        self._is_pausing = False
        # by its number, as how many of the epoch were done before is known with its first block
        last = self._first_step + (pause if epochs == 1 and pause else LARGEST)
        try:
            while self._has_block(watch):
                if self._is_pausing:
                    return True
                execution = self._execution
                steps = last - (self.position.steps - execution.steps_done)  # of the block
                steps = min(steps, execution.steps_per_epoch)
                if not execution.train(1, rates, pause=steps, watch=watch, here=here):
                    return False
                if self.diverged or self._is_pausing or self.position.steps >= last:
                    return True
            self._finish_epoch()
        except Exception:
            self.write_back()
            raise
        return True

    def pause(self) -> None:
        """Have the call end after the step that is running: a watcher may say so."""
        self._is_pausing = True
        self._execution.pause()

    def close(self) -> None:
        """End the thread that collects batches."""
        if self._ahead is not None:
            self._ahead.close()
        self._ahead = None

    def write_back(self) -> bool:
        """Copy the parameters to the network if they are finite; say whether they are."""
        return self._execution.write_back()

    def spoilt_layer(self) -> int | None:
        """The first layer, from 1, with a parameter that is not finite."""
        return self._execution.spoilt_layer()

    def vectors(self) -> dict[str, Array]:
        """Copies of what a `TrainingState` keeps."""
        return self._execution.vectors()

    def _has_block(self, watch: Callable[[], None] | None) -> bool:
        """Give the execution the next block if it is through with one; False if none is left."""
        if self._execution.samples_done < self._block_rows:
            return True
        position = self._between = self.position
        if self._ahead is None:
            self._ahead = Ahead(self._source.steps(position.epochs, position.samples))
        block = self._ahead.take(watch)
        if block is None:
            return False
        if self._block_rows == 0:
            self._first_step = position.steps - self._source.steps_skipped
        if block.step_rows > self._procedure.step_size:
            size, accumulate = block.step_rows, 1
            if self._source.wants_one_size:
                size, accumulate = self._source.size, self._source.accumulate
            self._procedure = replace(self._procedure, batch_size=size, accumulate=accumulate)
            vectors: dict[str, Any] = self.vectors()
            self._state = replace(self._state, **vectors)
            self._execution = self._make_execution(block.samples)
        self._execution.feed(block.samples, block.step_rows)
        self._block_rows = len(block.samples)
        self._move_to(position)
        return True

    def _finish_epoch(self) -> None:
        """Put down the means over the epoch, and validate."""
        self.close()
        end = self._between = self.position
        loss, right, weight = end.sums
        row = np.full((1, program.HISTORY), math.nan)
        row[0, program.LOSS] = loss / weight if weight > 0 else math.nan
        row[0, program.ACCURACY] = right / end.samples
        if self._others is not None and self.write_back():
            values = self._net._evaluate(self._others, self._threads)
            row[0, [program.VALIDATION_LOSS, program.VALIDATION_ACCURACY]] = values
        self.history, self.learning_rates = row, [end.learning_rate]
        self._samples_finished += end.samples
        self._block_rows = 0
        self._first_step = end.steps
        self._move_to(Position(end.epochs + 1, end.steps, learning_rate=end.learning_rate))

    def _move_to(self, position: Position) -> None:
        """Have the execution begin there: for it, the samples of the epoch begin with its own."""
        self._samples_before = position.samples
        self._execution.begin_at(replace(position, samples=0))
        self._between = None

    def _make_execution(self, samples: Batch) -> Execution:
        return Execution(
            self._net,
            procedure=self._procedure,
            samples=samples,
            threads=self._threads,
            state=self._state,
        )


class Block(NamedTuple):
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
        return [len(array) > 0 for array in self._arrays] == _kinds(step[0])

    def _allocate(self, step: Step) -> None:
        """Make arrays for as many steps as `BUFFER_BYTES` hold, at least for one."""
        arrays = _arrays(step[0])
        row_bytes = sum(a.nbytes // len(a) for a in arrays if len(a))
        rows = max(BUFFER_BYTES // (row_bytes * self._step_rows), 1) * self._step_rows
        self._arrays = tuple(
            np.empty((rows if len(a) else 0, *a.shape[1:]), a.dtype) for a in arrays
        )


class Ahead:
    """Blocks of the steps of one epoch, which a thread collects until the last one, or `close`.

    That waits for the step that the thread is collecting.
    """

    def __init__(self, steps: Generator[Step]) -> None:
        self._steps = steps
        self._filling, self._taken = Buffer(), Buffer()
        self._lock = threading.Lock()  # of all that is here
        # in place of a Condition and an Event, which Ctrl-C may leave locked, see `threads.Team`
        self._news, self._room, self._end = closed_lock(), closed_lock(), closed_lock()
        self._is_over = self._is_stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._collect, name="fastmlp-batches", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # Ctrl-C may come when the thread is there already
            self._stop()
            raise

    def close(self) -> None:
        """End the thread, and wait for it; once more if Ctrl-C cut it short."""
        self._stop()
        while not self._is_over:
            self._end.acquire(timeout=POLL_SECONDS)
        self._thread.join()

    def _stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            open_lock(self._room)

    def take(self, watch: Callable[[], None] | None = None) -> Block | None:
        """Return the next steps, None after the last; the block before is overwritten from now on.

        While there is nothing, `watch` is called about twenty times a second. What the iteration
        raises is raised here, after all steps before it.
        """
        while True:
            with self._lock:
                if len(self._filling):
                    self._taken.clear()
                    self._filling, self._taken = self._taken, self._filling
                    open_lock(self._room)
                    return self._taken.block()
                if self._is_over:
                    break
            if not self._news.acquire(timeout=POLL_SECONDS) and watch is not None:
                watch()
        if self._error is not None:
            raise self._error
        return None

    def _collect(self) -> None:
        try:
            with contextlib.closing(self._steps):
                for step in self._steps:
                    if not self._put(step):
                        break
        except BaseException as error:  # noqa: BLE001 - raised by `take` in the caller's thread
            self._error = error
        finally:
            with self._lock:
                self._is_over = True
                open_lock(self._news)
                open_lock(self._end)

    def _put(self, step: Step) -> bool:
        """Wait for room and copy the step there; False if nobody wants it any more."""
        while True:
            with self._lock:
                if self._is_stopped:
                    return False
                if self._filling.takes(step):
                    self._filling.add(step)
                    open_lock(self._news)
                    return True
            self._room.acquire()


def _rows(step: Step) -> int:
    return sum(map(len, step))


def _kinds(batch: Batch) -> list[bool]:
    """Which of the arrays are given."""
    return [len(array) > 0 for array in _arrays(batch)]


def _arrays(batch: Batch) -> tuple[Array, ...]:
    return batch.x, batch.labels, batch.targets, batch.weights
