"""How many threads a computation uses, and the team that runs them."""

import os
import threading
from collections.abc import Callable

import numpy as np
from numba import config
from numpy.typing import NDArray

from ._checks import check_whole
from .kernels import machine
from .kernels import team as kernel_team

VARIABLE = "FASTMLP_NUM_THREADS"
POLL_SECONDS = 0.05
MOST = 1024  # threads; a slip of the keyboard could ask for more than the system can start


def resolve(threads: int | None = None) -> int:
    """Return the number of threads to use.

    Parameters
    ----------
    threads
        None: the environment variable FASTMLP_NUM_THREADS if it is set, else all cores that this
        process may use.

    Raises
    ------
    TypeError, ValueError
        If `threads` or the variable is not a whole number from 1 to 1024.
    """
    count = _default() if threads is None else check_whole(threads, "threads", 1, MOST + 1)
    return 1 if config.DISABLE_JIT else count  # plain Python has no atomic operations for a team


def threads_for(samples: int, count: int | None = None) -> int:
    """Return `resolve(count)`, but no more threads than there are micro-batches to share out."""
    return min(resolve(count), -(-samples // machine.MICRO_BATCH))


def _default() -> int:
    text = os.environ.get(VARIABLE)
    if text is None:
        return machine.available_cores()
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise ValueError(f"{VARIABLE} must be a whole number from 1 to {MOST}, got {text!r}")
    return int(text)


class Team:
    """Threads that each call one function, while this one waits and may stop them.

    `state` is the int64 array through which the threads meet; `stop` is its entry that tells them
    to leave.
    """

    def __init__(
        self,
        work: Callable[[int], object],
        size: int,
        state: NDArray[np.int64],
        stop: int = kernel_team.STOP,
    ) -> None:
        self._work = work
        self._state = state
        self._stop = stop
        self._is_complete = False
        self._running = size
        self._lock = threading.Lock()
        # Closed locks in place of Event and Thread.join: interrupted by Ctrl-C, an Event may leave
        # its own lock closed, and `join` take a thread for finished that is not (CPython 3.11).
        # Who is interrupted with one of these does no harm: the count tells when all have left.
        self._gates = [closed_lock() for _ in range(size)]
        self._end = closed_lock()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._member, args=(t,), name=f"fastmlp-{t}", daemon=True)
            for t in range(size)
        ]

    def _member(self, thread: int) -> None:
        self._gates[thread].acquire()
        if not self._is_complete:
            return
        try:
            self._work(thread)
        except BaseException as error:  # noqa: BLE001 - raised by `run` in the caller's thread
            self._errors.append(error)
            self.stop()
        finally:
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self._end.release()

    def stop(self) -> None:
        """Tell the threads to leave."""
        self._state[self._stop] = 1

    def run(self, watch: Callable[[], None] | None = None) -> bool:
        """Run to the end, calling `watch` about twenty times a second; False after Ctrl-C.

        Ctrl-C may reach this thread between any two lines, so the team is dismissed twice: once
        more if the first time was what it interrupted.
        """
        try:
            try:
                self._start()
                self._wait(watch)
            finally:
                self._dismiss()
        except KeyboardInterrupt:
            self._dismiss()
            return False
        if self._errors:
            raise self._errors[0]
        return True

    def _start(self) -> None:
        """Let the threads begin, which meet at barriers, only when all of them could be started."""
        for thread in self._threads:
            thread.start()
        self._is_complete = True
        self._open_gates()

    def _open_gates(self) -> None:
        for gate in self._gates:
            open_lock(gate)

    def _wait(self, watch: Callable[[], None] | None = None) -> None:
        while self._running > 0:
            if not self._end.acquire(timeout=POLL_SECONDS) and watch is not None:
                watch()

    def _dismiss(self) -> None:
        """Stop what still runs and wait for it."""
        self.stop()
        self._open_gates()
        if self._is_complete:
            self._wait()


def closed_lock() -> threading.Lock:
    """Return a lock that one waits for until somebody releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def open_lock(lock: threading.Lock) -> None:
    """Let through who waits for a closed lock, or will; by one thread at a time."""
    if lock.locked():
        lock.release()
