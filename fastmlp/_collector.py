"""Have the garbage collector pause while much is made and nothing thrown away."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Keep the collector from looking through all that an import makes, then and afterwards."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()  # and back: what there is now is old, and not looked through at once
            gc.unfreeze()
        if was_on:
            gc.enable()
