"""What tests of several files are given."""

import _thread
import signal
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """A function that interrupts the main thread, also where Python was started without Ctrl-C.

    A shell's background jobs ignore it, and their children; then Python has no handler, and nothing
    would be raised. With the handler, children start as usual.
    """
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield _thread.interrupt_main
    signal.signal(signal.SIGINT, handler)
