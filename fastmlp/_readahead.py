"""Training from a memory map in random order: a thread brings the rows of the next steps.

Left to themselves, the threads of the team would wait for each row that is not in memory, and the
system would read what lies beside it, guessing that it is wanted next. So the samples come as
batches from elsewhere do (`_stream`), in the order that the program would draw.
"""

import contextlib
import mmap
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ._direct import DEPTH, DirectRows, MappedFile
from ._execution import Batch, Execution, Procedure

if TYPE_CHECKING:
    from .mlp import MLP

LARGEST_STEP = 64 * 2**20  # bytes of a step; there are some copies of it

Array = NDArray[Any]
Rows = NDArray[np.int64]


class Reader(Protocol):
    """Takes some rows of an array, at most `count`, that it was asked for a while before."""

    count: int

    def ask(self, rows: Rows) -> None: ...

    def take(self) -> Array: ...

    def close(self) -> None: ...


class HeldRows:
    """Rows that are in memory."""

    count = DEPTH

    def __init__(self, array: Array) -> None:
        self._array = array

    def ask(self, rows: Rows) -> None:
        """Remember which ones."""
        self._wanted = rows

    def take(self) -> Array:
        """Return a copy of the rows that were asked for; of no array at all, nothing."""
        rows: Array = self._array[self._wanted] if len(self._array) else self._array
        return rows

    def close(self) -> None:
        """Do nothing."""


class AdvisedRows(HeldRows):
    """Rows of a memory map, where direct reads are not to be had."""

    def __init__(self, array: Array, mapping: mmap.mmap) -> None:
        super().__init__(array)
        self._mapping = mapping
        self._offset = array.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
        self._row_bytes = array.nbytes // len(array)
        self._advise(mmap.MADV_RANDOM)

    def ask(self, rows: Rows) -> None:
        """Ask the system to read these rows, without waiting for them."""
        super().ask(rows)
        for start, stop in self._runs(rows):
            self._advise(mmap.MADV_WILLNEED, start, stop - start)

    def close(self) -> None:
        """Let the system guess again what is wanted next."""
        self._advise(mmap.MADV_NORMAL)

    def _advise(self, advice: int, *place: int) -> None:
        with contextlib.suppress(OSError):  # a system may refuse it
            self._mapping.madvise(advice, *place)

    def _runs(self, rows: Rows) -> Iterator[tuple[int, int]]:
        """Where in the map the rows lie: each from a page's begin, neighbours as one."""
        stops = self._offset + (np.sort(rows) + 1) * self._row_bytes
        starts = (stops - self._row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        is_apart = starts[1:] > stops[:-1]
        first, last = np.append(True, is_apart), np.append(is_apart, True)
        return zip(starts[first].tolist(), stops[last].tolist(), strict=True)


def is_outside(array: Array) -> bool:
    """Whether an array lies in a memory map, and memory does not hold all of it."""
    mapping = _mapping_of(array)
    if mapping is None or not len(array) or not hasattr(mapping, "madvise"):
        return False
    file = MappedFile.of(array)
    return file is None or not file.is_in_memory(len(array))


def reader_of(array: Array) -> Reader:
    """Return what reads single rows of an array best."""
    if not is_outside(array):
        return HeldRows(array)
    file, mapping = MappedFile.of(array), _mapping_of(array)
    assert mapping is not None
    direct = None if file is None else DirectRows.of(file, array)
    return AdvisedRows(array, mapping) if direct is None else direct


def _mapping_of(array: Array) -> mmap.mmap | None:
    """Return the map of the file that a `np.memmap`, or a view of one, lies in."""
    owner: Any = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        # `owner` is what an alias of `_checks` keeps alive
        owner = owner.base if isinstance(owner, np.ndarray) else getattr(owner, "owner", None)
    return owner


class ShuffledRows:
    """The steps of a training on shuffled samples, as `_stream.Source` has those of batches."""

    def __init__(self, net: "MLP", samples: Batch, procedure: Procedure) -> None:
        self._samples, self._seed = samples, procedure.seed
        self._step_size = procedure.step_size
        self.size, self.accumulate = procedure.batch_size, procedure.accumulate
        self.wants_one_size = self.accumulate > 1 and net.architecture.has_batch_norm
        self.samples_per_epoch: int | None = len(samples)
        self.steps_per_epoch = -(-len(samples) // self._step_size)
        self.steps_skipped = 0

    @classmethod
    def of(cls, net: "MLP", samples: Batch, procedure: Procedure) -> "ShuffledRows | None":
        """None where the team had better take the samples from where they are."""
        arrays = [array for array in _arrays(samples) if len(array)]
        step_bytes = procedure.step_size * sum(a.nbytes // len(a) for a in arrays)
        if not procedure.shuffled or step_bytes > LARGEST_STEP:
            return None
        return cls(net, samples, procedure) if any(map(is_outside, arrays)) else None

    def steps(self, epoch: int, samples: int) -> Generator[list[Batch]]:
        """Go through an epoch, counted from 0, of which so many samples are done."""
        self.steps_skipped = -(-samples // self._step_size)
        left = len(self._samples) - samples
        step: list[Batch] = []
        for piece in self._pieces(self._order(epoch)[samples:]):
            for first in range(0, len(piece), self._step_size):
                step.append(_part(piece, first, self._step_size))
                left -= len(step[-1])
                if left == 0 or sum(map(len, step)) == self._step_size:
                    yield step
                    step = []

    def _order(self, epoch: int) -> Rows:
        """The rows of an epoch as the program draws them."""
        from .mlp import MLP

        net = MLP([1, 2], dtype=self._samples.x.dtype)  # any will do
        samples = Batch.of(np.zeros((1, 1), net.dtype), 2).take(self._samples.chosen)
        procedure = Procedure(1, shuffled=True, seed=self._seed)
        return Execution(net, procedure=procedure, samples=samples).draw(epoch)

    def _pieces(self, order: Rows) -> Iterator[Batch]:
        """Some whole steps, or parts of one: while one is at work, the next is being read."""
        with contextlib.ExitStack() as ends:
            pair: list[list[Reader]] = [[], []]
            for readers in pair:
                for array in _arrays(self._samples):
                    readers.append(reader_of(array))
                    ends.callback(readers[-1].close)
            parts = list(_cut(order, self._step_size, min(reader.count for reader in pair[0])))
            for number, rows in enumerate(parts):
                for reader in pair[number % 2]:
                    reader.ask(rows)
                if number > 0:
                    yield _batch(pair[(number - 1) % 2])
            if parts:
                yield _batch(pair[(len(parts) - 1) % 2])


def _cut(order: Rows, size: int, count: int) -> Iterator[Rows]:
    """Parts of at most `count` rows, each of some whole steps or within one."""
    several = max(count // size, 1) * size
    for first in range(0, len(order), several):
        steps = order[first : first + several]
        for start in range(0, len(steps), count):
            yield steps[start : start + count]


def _batch(readers: list[Reader]) -> Batch:
    x, labels, targets, weights = (reader.take() for reader in readers)
    return Batch(x, labels, targets, weights, np.arange(len(x)))


def _part(batch: Batch, first: int, rows: int) -> Batch:
    x, labels, targets, weights = (array[first : first + rows] for array in _arrays(batch))
    return Batch(x, labels, targets, weights, np.arange(len(x)))


def _arrays(batch: Batch) -> tuple[Array, ...]:
    return batch.x, batch.labels, batch.targets, batch.weights
