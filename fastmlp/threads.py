"""How many threads a computation uses, and the team that runs them."""

import os
import threading
import time
from collections.abc import Callable

from numba import config

from ._checks import check_whole
from .kernels import team as kernel_team

VARIABLE = "FASTMLP_NUM_THREADS"
POLL_SECONDS = 0.05


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
        If `threads` or the variable is not a whole number of at least 1.
    """
    count = _default() if threads is None else check_whole(threads, "threads", 1)
    return 1 if config.DISABLE_JIT else count  # plain Python has no atomic operations for a team


def _default() -> int:
    text = os.environ.get(VARIABLE)
    if text is None:
        return _available_cores()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE} must be a whole number of at least 1, got {text!r}")
    return int(text)


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Team:
    """Threads that each call one jitted function, while this one waits and may stop them.

    `state` is the int64 array through which the threads meet and are told to stop.
    """

    def __init__(self, work: Callable[[int], object], size: int, state: object) -> None:
        self._go = threading.Event()
        self._cancelled = False
        self._errors: list[BaseException] = []
        self._work = work
        self._state = state
        self._threads = [
            threading.Thread(target=self._member, args=(t,), name=f"fastmlp-{t}", daemon=True)
            for t in range(size)
        ]

    def _member(self, thread: int) -> None:
        self._go.wait()
        if self._cancelled:
            return
        try:
            self._work(thread)
        except BaseException as error:  # noqa: BLE001 - handed to the caller in `run`
            self._errors.append(error)
            self.stop()

    def stop(self) -> None:
        """Tell the threads to stop before their next step."""
        self._state[kernel_team.STOP] = 1  # type: ignore[index]

    def run(self, watch: Callable[[], None] | None = None) -> bool:
        """Run to the end, calling `watch` about twenty times a second; False after Ctrl-C.

        Threads that have begun meet at barriers, so they begin only when all could be started.
        """
        started = []
        try:
            for thread in self._threads:
                thread.start()
                started.append(thread)
        except BaseException:
            self._cancelled = True
            self._go.set()
            raise
        self._go.set()
        finished = self._wait(watch)
        if self._errors:
            raise self._errors[0]
        return finished

    def _wait(self, watch: Callable[[], None] | None) -> bool:
        interrupted = False
        while any(thread.is_alive() for thread in self._threads):
            try:
                deadline = time.monotonic() + POLL_SECONDS
                for thread in self._threads:
                    thread.join(max(0.0, deadline - time.monotonic()))
                if watch is not None and not interrupted:
                    watch()
            except KeyboardInterrupt:
                interrupted = True
                self.stop()
            except BaseException:
                self.stop()
                for thread in self._threads:
                    thread.join()
                raise
        return not interrupted
