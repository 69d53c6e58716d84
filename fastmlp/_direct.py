"""Rows of a file that come past the system's page cache: Linux's asynchronous, direct reads.

A row of a memory map that is not in memory costs the system a page fault, pages that it puts into
its tables and takes out again, and interrupts to all threads that use the map. A direct read is one
request that the disk answers into a buffer here. See io_submit(2) and open(2), O_DIRECT.
"""

import ctypes
import errno
import os
import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENTS = 512, 4096  # bytes: what direct reads begin and end at, by the disk
DEPTH = 256  # reads at a time; more than that, disks do not take
CHUNK_BYTES = 4 * 2**20  # all of them together, or one
LOOKS = 128  # rows by which one sees whether a file is in memory

# numbers of io_setup, io_destroy, io_getevents and io_submit
CALLS = {
    "x86_64": (206, 207, 208, 209),
    "aarch64": (0, 1, 4, 2),
    "riscv64": (0, 1, 4, 2),
}
# struct iocb of linux/aio_abi.h, little-endian, and struct io_event
REQUEST = np.dtype(
    [
        ("data", "u8"),
        ("key", "u4"),
        ("flags", "u4"),
        ("operation", "u2"),  # 0 reads
        ("priority", "u2"),
        ("file", "u4"),
        ("buffer", "u8"),
        ("bytes", "u8"),
        ("offset", "i8"),
        ("reserved", "u8", 2),
    ]
)
EVENT = np.dtype([("data", "u8"), ("request", "u8"), ("result", "i8"), ("more", "i8")])


class MappedFile:
    """The file behind a C-contiguous array in a shared memory map, as Linux knows it."""

    def __init__(self, path: str, offset: int, row_bytes: int) -> None:
        self.path, self.offset, self.row_bytes = path, offset, row_bytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> "MappedFile | None":
        """None if there is none, it has another name now, or the map may differ from it.

        Nor where nobody can tell what of it is in memory.
        """
        if not hasattr(os, "RWF_NOWAIT"):
            return None
        address = array.ctypes.data
        try:
            with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
                for line in maps:
                    place, rights, offset, device, inode, *path = line.rstrip("\n").split(None, 5)
                    start, stop = (int(number, 16) for number in place.split("-"))
                    if start <= address < stop:
                        break
                else:
                    return None
            if rights[3] != "s" or not path:  # what is written to a private map is not in the file
                return None
            found = os.stat(path[0])
        except OSError:
            return None
        major, minor = (int(number, 16) for number in device.split(":"))
        if (found.st_dev, found.st_ino) != (os.makedev(major, minor), int(inode)):
            return None
        return cls(path[0], int(offset, 16) + address - start, array.nbytes // len(array))

    def is_in_memory(self, rows: int) -> bool:
        """Whether all of some rows are there without a look at the disk."""
        chosen = np.linspace(0, rows - 1, LOOKS, dtype=np.int64)
        buffer = bytearray(1)
        try:
            with open(self.path, "rb", buffering=0) as file:
                for place in (self.offset + chosen * self.row_bytes).tolist():
                    os.preadv(file.fileno(), [buffer], place, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:  # such as that of a file system without a disk
            return True
        return True


class DirectRows:
    """Some rows of a file at a time: asked for, and a while later taken."""

    def __init__(self, file: MappedFile, array: NDArray[Any], alignment: int) -> None:
        self._file, self._alignment = file, alignment
        self._setup, self._destroy, self._get, self._submit = CALLS[platform.machine()]
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long
        slot = -(-file.row_bytes // alignment) * alignment + alignment
        self.count = max(1, min(DEPTH, CHUNK_BYTES // slot))
        self._places = np.arange(self.count) * slot
        memory = np.zeros(self.count * slot + alignment, np.uint8)
        memory = memory[-memory.ctypes.data % alignment :][: self.count * slot]
        # every row that can lie there, whatever its place in a slot
        shape = ((len(memory) - file.row_bytes) // array.itemsize + 1, *array.shape[1:])
        strides = (array.itemsize, *array.strides[1:])
        self._rows: NDArray[Any] = np.ndarray(shape, array.dtype, memory.data, 0, strides)
        self._requests = np.zeros(self.count, REQUEST)
        self._requests["buffer"] = memory.ctypes.data + self._places
        self._pointers = self._requests.ctypes.data + np.arange(self.count) * REQUEST.itemsize
        self._events = np.zeros(self.count, EVENT)
        self._skipped = self._places[:0]
        self._open_file = self._context = -1
        try:
            self._open_file = os.open(file.path, os.O_RDONLY | os.O_DIRECT)
            self._requests["file"] = self._open_file
            context = ctypes.c_ulong(0)
            self._call(self._setup, self.count, ctypes.addressof(context))
            self._context = context.value
        except BaseException:
            self.close()
            raise

    @classmethod
    def of(cls, file: MappedFile, array: NDArray[Any]) -> "DirectRows | None":
        """None where there are no direct reads, or they do not find what is in the array."""
        if platform.machine() not in CALLS or not hasattr(os, "O_DIRECT"):
            return None
        ends = np.array([0, len(array) - 1])
        for alignment in ALIGNMENTS:
            try:
                rows = cls(file, array, alignment)
            except OSError:
                continue
            try:
                rows.ask(ends[: rows.count])
                if np.array_equal(rows.take(), array[ends[: rows.count]]):
                    return rows
            except OSError:
                pass
            rows.close()
        return None

    def ask(self, rows: NDArray[np.int64]) -> None:
        """Have the disk read at most `count` rows, which `take` waits for."""
        first = self._file.offset + rows * self._file.row_bytes
        self._skipped = first % self._alignment
        requests = self._requests[: len(rows)]
        requests["offset"] = first - self._skipped
        least = self._skipped + self._file.row_bytes
        requests["bytes"] = -(-least // self._alignment) * self._alignment
        asked = 0
        while asked < len(rows):
            pointers = self._pointers[asked : len(rows)]
            asked += self._call(self._submit, self._context, len(pointers), pointers.ctypes.data)

    def take(self) -> NDArray[Any]:
        """Return a copy of the rows that were asked for."""
        count, came = len(self._skipped), 0
        while came < count:
            events = self._events[came:count]
            came += self._call(
                self._get, self._context, len(events), len(events), events.ctypes.data, 0
            )
        self._check(self._events[:count])
        rows: NDArray[Any] = self._rows[
            (self._places[:count] + self._skipped) // self._rows.itemsize
        ]
        return rows

    def close(self) -> None:
        """Wait for what was asked for, and let go of the file."""
        if self._context != -1:
            self._call(self._destroy, self._context)
        if self._open_file != -1:
            os.close(self._open_file)
        self._context = self._open_file = -1

    def _check(self, events: NDArray[Any]) -> None:
        """Raise OSError if a row did not come, or not as a whole."""
        results = events["result"]
        if (results < 0).any():
            error = -int(results.min())
            raise OSError(error, os.strerror(error), self._file.path)
        slots = (events["request"] - self._requests.ctypes.data) // REQUEST.itemsize
        least = self._skipped[slots.astype(np.int64)] + self._file.row_bytes
        if (results < least).any():
            raise OSError(f"{self._file.path} ends within the rows that it had when it was mapped")

    def _call(self, number: int, *arguments: int) -> int:
        """A system call, which lets other threads of Python's run."""
        while (result := self._libc.syscall(*map(ctypes.c_long, (number, *arguments)))) < 0:
            error = ctypes.get_errno()
            if error != errno.EINTR:
                raise OSError(error, os.strerror(error), self._file.path)
        return int(result)
