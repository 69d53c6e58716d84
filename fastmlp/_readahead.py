"""Training from a memory map in random order: the rows of the next steps are asked for ahead.

Left alone, a system guesses that what lies beside a row is wanted next, reads megabytes for it, and
has the team wait for every row. Here it is told that the guess is wrong, and which rows are next.
What has come is touched, so that its pages are in the page table before the team wants them: each
that is not makes a thread of the team wait, and the others with it. None of this changes a value:
rows that nobody will take cost time, and nothing else.
"""

import contextlib
import mmap
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 64 * 2**20  # bytes ahead of the team, so also how much of a step is asked for
CHUNK = 1024  # rows between two looks at where the team is
POLL_SECONDS = 0.001


class MappedRows:
    """The rows of a C-contiguous array that lies in a memory map."""

    def __init__(self, array: NDArray[Any], mapping: mmap.mmap) -> None:
        self._mapping, self._bytes = mapping, np.frombuffer(mapping, np.uint8)
        self._offset = array.ctypes.data - self._bytes.ctypes.data
        self.row_bytes = array.nbytes // len(array)

    @classmethod
    def of(cls, array: NDArray[Any]) -> "MappedRows | None":
        """None if the array lies elsewhere, or the system takes no advice."""
        mapping = _mapping_of(array)
        if mapping is None or not len(array) or not hasattr(mapping, "madvise"):
            return None
        return cls(array, mapping)

    def advise(self, advice: int) -> None:
        """Tell the system how the whole map will be read."""
        self._mapping.madvise(advice)

    def will_need(self, rows: NDArray[np.int64]) -> None:
        """Ask the system to read these rows, without waiting for them."""
        for start, stop in self._runs(rows):
            self._mapping.madvise(mmap.MADV_WILLNEED, start, stop - start)

    def touch(self, rows: NDArray[np.int64]) -> None:
        """Read from each page of these rows, waiting for it if need be."""
        first = self._offset + np.sort(rows) * self.row_bytes
        for place in (*range(0, self.row_bytes, mmap.PAGESIZE), self.row_bytes - 1):
            np.take(self._bytes, first + place)

    def _runs(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Where in the map the rows lie: each from a page's begin, neighbours as one."""
        stops = self._offset + (np.sort(rows) + 1) * self.row_bytes
        starts = (stops - self.row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        is_apart = starts[1:] > stops[:-1]
        first, last = np.append(True, is_apart), np.append(is_apart, True)
        return zip(starts[first].tolist(), stops[last].tolist(), strict=True)


def _mapping_of(array: NDArray[Any]) -> mmap.mmap | None:
    """Return the map of the file that a `np.memmap`, or a view of one, lies in."""
    owner: Any = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        # `owner` is what an alias of `_checks` keeps alive
        owner = owner.base if isinstance(owner, np.ndarray) else getattr(owner, "owner", None)
    return owner


def read_ahead(
    arrays: list[MappedRows], order: NDArray[np.int64], progress: Callable[[], int | None]
) -> None:
    """Ask for the rows that a team takes next, until it is done.

    `order` has the rows in the order of the epoch; the team draws it anew as each epoch begins.
    `progress()` is how many of them it has taken, all of them while it evaluates, and None at the
    end.
    """
    with contextlib.suppress(OSError):  # advice that the system refuses
        try:
            _follow(arrays, order, progress)
        finally:
            for array in arrays:
                array.advise(mmap.MADV_NORMAL)


def _follow(
    arrays: list[MappedRows], order: NDArray[np.int64], progress: Callable[[], int | None]
) -> None:
    window = WINDOW // sum(array.row_bytes for array in arrays) + 1
    before, asked, touched, advice = len(order), 0, 0, mmap.MADV_NORMAL
    head = order[:0]
    while (done := progress()) is not None:
        if done < before:  # a new epoch
            asked = touched = 0
            head = order[:0]
        before = done
        wanted = mmap.MADV_RANDOM if done < len(order) else mmap.MADV_NORMAL
        if wanted != advice:  # an evaluation goes through the file in order
            advice = wanted
            for array in arrays:
                array.advise(advice)
        first = max(asked, done)
        rows = order[first : min(first + CHUNK, done + window)]
        is_drawn = done > 0 or np.array_equal(head, order[:window])  # it stayed for one look
        if not is_drawn:
            head = order[:window].copy()
        elif len(rows):
            for array in arrays:
                array.will_need(rows)
            asked = first + len(rows)
            continue
        else:  # half a window is time enough to arrive
            first = max(touched, done)
            rows = order[first : min(first + CHUNK, done + window // 2)]
            if len(rows):
                for array in arrays:
                    array.touch(rows)
                touched = first + len(rows)
                continue
        time.sleep(POLL_SECONDS)
