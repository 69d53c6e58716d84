"""A team of threads that walk through one program together: who owns what, and the barrier.

The state of a team is an int64 array, zero at the start, each entry on a cache line of its own.
Python starts the threads once per run; each calls the same jitted function, which releases the GIL.
"""

from numba import types

from . import machine
from ._jit import JIT_DISABLED, kernel
from .simd import atomic_add, atomic_load, atomic_store, pause

LINE = machine.CACHE_LINE // 8
(
    STOP,
    PAUSE,
    ARRIVED,
    GENERATION,
    ABORT_EVEN,
    ABORT_ODD,
    EPOCHS,
    SAMPLES,
    DIVERGED,
    LENGTH,
) = range(0, 10 * LINE, LINE)

SPINS, YIELDS = machine.SPINS, machine.YIELDS
NAP = 50  # microseconds

if JIT_DISABLED:  # a team of one: nobody waits
    _yield_core = _sleep = None
elif machine.IS_WINDOWS:
    _yield_core = types.ExternalFunction("SwitchToThread", types.int32())
    _sleep = types.ExternalFunction("Sleep", types.void(types.uint32))
else:
    _yield_core = types.ExternalFunction("sched_yield", types.int32())
    _sleep = types.ExternalFunction("usleep", types.int32(types.uint32))


@kernel
def barrier(team, threads):
    """Wait until all threads of the team are here: spin, then yield the core, then sleep."""
    if threads == 1:
        return
    generation = atomic_load(team, GENERATION)
    if atomic_add(team, ARRIVED, 1) == threads - 1:
        atomic_store(team, ARRIVED, 0)
        atomic_store(team, GENERATION, generation + 1)
        return
    looks = 0
    while atomic_load(team, GENERATION) == generation:
        looks += 1
        if looks < SPINS:
            pause()
        elif looks < SPINS + YIELDS:
            _yield_core()
        else:
            _sleep(NAP)


@kernel
def share(length, grain, thread, threads):
    """The thread's part [low, high) of 0 .. length, in whole grains, as even as they allow."""
    grains = (length + grain - 1) // grain
    low = thread * grains // threads * grain
    high = (thread + 1) * grains // threads * grain
    return min(low, length), min(high, length)
