"""Which limit of the machine binds a training step, and how near fastmlp comes to it.

The limits are measured beside the steps, on as many threads, each with an array of its own: FMAs on
registers, reading and updating (load, FMA, store) arrays of each level of memory, activations
forward and backward and Adam's update on arrays in the cache, the team's barrier and its start. A
step's needs are counted from the layers' sizes, for one thread of the team:

- **FMA**: Z = A W, dW = A^T dZ and above layer 1 dA = dZ W^T; layer 1 without what fastmlp skips,
  the inputs that are zero in all rows of a pass, and in half of a tile the steps in which its part
  of A is zero: their shares are taken from the data.
- **Cache**: weights are read once a pass, above layer 1 twice, and updated once a step with their
  moments; in steps of several passes a gradient is updated in each. Gathered inputs are written
  once and read twice, and so are each hidden layer's own activations and deltas. All of that
  together, its *set*, lies in the first level that is large enough.
- **Rows** of the data, which every thread gathers for itself, come from the level that can hold all
  data, and the activations, deltas and logits of other threads at the bandwidth of L3.
- Where threads take **whole passes**, each has all weights and gathers its own rows alone. A few
  rows at a time go through all layers in L1; what they leave is written to the set's level, and
  read there once, for dW. Of other threads come the gradients of their groups of passes.
- **Functions**: each hidden unit's activation, forward and backward.
- **Adam**: the arithmetic of its update, of numbers in L1; that of gradient descent is one FMA.
- **Barriers**, when all arrive together, and the **start** of one team for the measured steps.

Left out: what the register tile reads again from L1 and L2, the search for inputs that are zero,
W^T's place, padding, the loss, the shuffle, and waiting for threads that are late. Each share of a
step is what it would take if there were that limit alone: FMAs, loads and stores can overlap,
barriers and functions hardly. So a sum far below 100 % says how much time goes where nothing is
counted, and one above it that limits do overlap.
"""

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from part import Figures, Options
from peer_fastmlp import Fastmlp
from suite import activate, adapt, differentiate, fma_peak, meet, read_all, update_all
from tables import duration, table
from training import WORKS
from work import Data, Order, Work

from fastmlp import Adam
from fastmlp.kernels.activation import CODES
from fastmlp.kernels.features import FINDS_ZEROS
from fastmlp.kernels.machine import (
    MICRO_BATCH,
    NARROW_OUTPUT,
    SKIPPED_FEATURES,
    SKIPPING_ROWS,
)
from fastmlp.kernels.team import LENGTH
from fastmlp.layout import aligned_zeros, groups_of
from fastmlp.threads import Team

Array = NDArray[np.float32]
KB, MB = 1 << 10, 1 << 20
BYTES = 4  # of a float
L1, L2, L3, MEMORY = LEVELS = ("L1", "L2", "L3", "memory")
CACHES = {L1: 48 * KB, L2: MB}  # where Linux does not tell
BEYOND = 16 * MB  # a thread: what is larger counts as memory, whatever L3 a shared host has
VOLUME = 256 * MB  # that a thread moves in one measurement
FUNCTIONS = ("softplus", "tanh")
CROSSINGS = 20_000


def cache_sizes() -> dict[str, int]:
    """Return the bytes of a core's first two levels."""
    sizes = dict(CACHES)
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level, kind, size = (
            (index / name).read_text().strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction" and f"L{level}" in sizes:
            sizes[f"L{level}"] = int(size.removesuffix("K")) * KB
    return sizes


SIZES = cache_sizes() | {L3: BEYOND}


def level_of(size: float) -> str:
    """Return the first level that holds so many bytes."""
    return next((level for level in SIZES if size <= SIZES[level]), MEMORY)


@dataclass(frozen=True)
class Limits:
    """Of all threads together: GFLOP/s; GB/s by level; of one: seconds, also by element."""

    fma: float
    read: dict[str, float]
    update: dict[str, float]
    functions: dict[str, float]
    adam: float
    barrier: float
    start: float


class Machine:
    """Measures the limits for so many threads."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        sizes = {L1: SIZES[L1] // 2, L2: SIZES[L2] // 2, L3: BEYOND, MEMORY: 256 * MB}
        self._arrays = {
            level: [_ones(size) for _ in range(threads)] for level, size in sizes.items()
        }
        self._pool = ThreadPoolExecutor(threads)

    def limits(self) -> Limits:
        return Limits(
            fma_peak("float32", self._threads),
            {level: self._bandwidth(read_all, arrays) for level, arrays in self._arrays.items()},
            {level: self._bandwidth(update_all, arrays) for level, arrays in self._arrays.items()},
            {name: _function(CODES[name]) for name in FUNCTIONS},
            _adam(),
            self._barrier(),
            median(self._start() for _ in range(50)),
        )

    def _bandwidth(self, kernel: Callable[[Array, int], None], arrays: list[Array]) -> float:
        """GB of arrays a second, the best of three; an update counts them once."""
        times = VOLUME // arrays[0].nbytes
        seconds = min(self._together(kernel, arrays, [times] * self._threads) for _ in range(3))
        return self._threads * times * arrays[0].nbytes / seconds / 1e9

    def _barrier(self) -> float:
        team, threads = np.zeros(LENGTH, np.int64), self._threads
        return (
            self._together(meet, [team] * threads, [threads] * threads, [CROSSINGS] * threads)
            / CROSSINGS
        )

    def _together(self, kernel: Callable[..., None], *arguments: list[Any]) -> float:
        begin = time.perf_counter()
        list(self._pool.map(kernel, *arguments))
        return time.perf_counter() - begin

    def _start(self) -> float:
        team = Team(lambda thread: None, self._threads, np.zeros(LENGTH, np.int64))
        begin = time.perf_counter()
        team.run()
        return time.perf_counter() - begin


def _ones(size: int) -> Array:
    x: Array = aligned_zeros(size // BYTES, np.dtype(np.float32))
    x[:] = 1.0
    return x


def _function(code: int) -> float:
    """Seconds for one element, forward and backward, on one core."""
    rows, columns = shape = MICRO_BATCH, 256
    z, a, da = (_ones(rows * columns * BYTES) for _ in range(3))
    seconds = []
    for _ in range(20):
        da[:] = 1.0
        begin = time.perf_counter()
        activate(a, z, code, *shape)
        differentiate(da, a, code, *shape)
        seconds.append(time.perf_counter() - begin)
    return median(seconds) / a.size


def _adam() -> float:
    """Seconds for one parameter, on one core."""
    state, times = [_ones(SIZES[L1] // 8) for _ in range(4)], 200
    rule, seconds = Adam(), []
    constants = rule.hyper(state[0].dtype), rule.coefficients(0, np.ones(1))[0]
    for _ in range(20):
        begin = time.perf_counter()
        adapt(*state, *constants, times)
        seconds.append(time.perf_counter() - begin)
    return median(seconds) / times / state[0].size


@dataclass(frozen=True)
class Need:
    """What a step takes of one thread: multiply-adds, bytes read and updated by level, and so on.

    `set_bytes`: of weights, moments, gradient and the activations of a pass.
    """

    dense: float
    multiplied: float
    set_bytes: float
    read: dict[str, float]
    update: dict[str, float]
    elements: float
    adapted: float
    barriers: int

    @classmethod
    def of(cls, work: Work, rows_of_data: int, shares: "Shares", threads: int) -> "Need":
        """Count for the inputs that take part."""
        used = shares.used
        batch, sizes, others = work.batch_size, work.sizes, threads - 1
        passes, rows = -(-batch // MICRO_BATCH), min(batch, MICRO_BATCH)
        weights = [n * m for n, m in itertools.pairwise(sizes)]
        kept = [used * weights[0], *weights[1:]]
        inputs, hidden, above = used * sizes[0], sum(sizes[1:-1]), sum(weights[1:])
        moments = 2 if work.optimizer == "Adam" else 0

        read, update = Counter[str](), Counter[str]()
        parameters, groups = sum(weights), groups_in(work, passes)
        if groups > 1:
            values = inputs + 2 * hidden
            own_set = parameters * (1 + groups / threads) + rows * values
            near = level_of(BYTES * own_set)
            read[near] += batch * values / threads
            update[near] += (batch * values + (passes + 1 + moments) * parameters) / threads
            read[level_of(BYTES * rows_of_data * sizes[0])] += batch * sizes[0] / threads
            read[L3] += groups * parameters * others / threads**2
            barriers = 3
        else:
            copies = 1 + moments + (passes > 1)
            updated = sum(kept) if moments == 0 else (1 + moments) * parameters
            if passes > 1:
                updated = (passes + 1 + moments) * parameters
            own_set = parameters * copies / threads + rows * (inputs + 2 * hidden / threads)
            near = level_of(BYTES * own_set)
            read[near] += passes * (sum(kept) + above) / threads
            read[near] += 2 * batch * (inputs + 2 * hidden / threads)
            update[near] += updated / threads + batch * (inputs + 2 * hidden / threads)
            read[level_of(BYTES * rows_of_data * sizes[0])] += batch * sizes[0]
            read[L3] += batch * others * _exchanged(sizes) / threads
            barriers = passes * _barriers(len(sizes) - 1, is_narrow(sizes))
            barriers += 2 if passes > 1 else 0
        return cls(
            batch * (2 * parameters + above) / threads,
            batch * (shares.taken * weights[0] + 3 * above) / threads,
            BYTES * own_set,
            {level: BYTES * read[level] for level in LEVELS},
            {level: BYTES * update[level] for level in LEVELS},
            batch * hidden / threads,
            parameters / threads if moments else 0.0,
            barriers,
        )

    def seconds(
        self, limits: Limits, activation: str, threads: int, steps: int
    ) -> dict[str, float]:
        """Return the time of each kind of need at its limit."""
        at_peak = 2e-9 * threads / limits.fma
        seconds = {level: self._at(limits, level) * threads for level in LEVELS}
        return {
            "FMA, dense": self.dense * at_peak,
            "FMA": self.multiplied * at_peak,
            **seconds,
            "functions": self.elements * limits.functions[activation],
            "Adam": self.adapted * limits.adam,
            "barriers": self.barriers * limits.barrier if threads > 1 else 0.0,
            "start": limits.start / steps,
        }

    def _at(self, limits: Limits, level: str) -> float:
        """Seconds of reads and updates, were all of a level's bandwidth this thread's."""
        reads, updates = (
            self.read[level] / limits.read[level],
            self.update[level] / limits.update[level],
        )
        return (reads + updates) / 1e9


def groups_in(work: Work, passes: int) -> int:
    """Groups of passes that threads take whole; 1: they share each pass."""
    net = work.network()
    return groups_of(net.architecture, net.layout, passes, training=True)


def is_narrow(sizes: Sequence[int]) -> bool:
    return sizes[-1] <= NARROW_OUTPUT


def _exchanged(sizes: Sequence[int]) -> int:
    """Numbers of a row that threads read of each other: activations, then deltas, and logits."""
    last = len(sizes) - 1 if is_narrow(sizes) else len(sizes)
    return sum(sizes[1 : last - 1]) + sum(sizes[2:last]) + sizes[-1]


def _barriers(layers: int, narrow: bool) -> int:
    """Barriers of a fused pass of a plain network, see the table in docs/design.md."""
    if not narrow:
        return 2 * layers
    return 1 if layers == 2 else 2 * (layers - 1)


def measure(options: Options) -> Figures:
    """Measure limits and a step of every work on one thread and, if there are more, on two."""
    machines = {threads: Machine(threads) for threads in (1, 2)[: options.threads]}
    for machine in machines.values():
        machine.limits()  # compiles
    rows = []
    for work in options.works or map(Work.parse, WORKS):
        print(f"  {work}", flush=True)
        data = Data.of(work, options.samples, options.mnist)
        shares = Shares.of(work, data)
        for threads, machine in machines.items():
            rows.append(
                {
                    "work": str(work),
                    "threads": threads,
                    "used": shares.used,
                    **_step(work, data, shares, threads, machine, options.rounds),
                }
            )
    return {"sizes": SIZES, "rows": rows}


def _step(
    work: Work, data: Data, shares: "Shares", threads: int, machine: Machine, rounds: int
) -> Figures:
    """Train; the limits are those of the moment, since a machine's speed drifts."""
    peer = Fastmlp(work, data, threads)
    peer.train(Order.draw(len(data), 0))  # warms up
    limits = machine.limits()
    steps = work.epochs * math.ceil(len(data) / work.batch_size)
    need = Need.of(work, len(data), shares, threads)
    epochs = [peer.train(Order.draw(len(data), number)) for number in range(1, rounds + 1)]
    return {
        "step": median(epochs) / steps,
        "times": need.seconds(limits, work.activation, threads, steps),
        "limits": asdict(limits),
        "need": asdict(need),
    }


@dataclass(frozen=True)
class Shares:
    """How many of the inputs take part in a pass, as parts of all.

    `used` are not zero in all rows of a pass; `taken` is the sum of what tiles take of them in the
    forward product and in the gradient, see `kernels.tile.NonZero`.
    """

    used: float
    taken: float

    @classmethod
    def of(cls, work: Work, data: Data) -> "Shares":
        """Return the means over some passes."""
        order, rows = Order.draw(len(data), 1).rows, min(work.batch_size, MICRO_BATCH)
        starts = range(0, len(data) - rows + 1, rows)[:50]
        found = [cls._of_pass(data.X[order[s : s + rows]] != 0) for s in starts]
        return cls(*(float(share) for share in np.mean(found, axis=0)))

    @staticmethod
    def _of_pass(nonzero: NDArray[np.bool_]) -> tuple[float, float]:
        inputs = nonzero.shape[1]
        kept = nonzero[:, nonzero.any(0)]
        used = kept.shape[1] / inputs
        if not FINDS_ZEROS or inputs < SKIPPED_FEATURES or kept.mean() >= 0.5:
            return used, 2 * used
        half = SKIPPING_ROWS // 2  # of a tile leaves out zeros of its own
        forward = np.logical_or.reduceat(kept, range(0, len(kept), half), axis=0)
        gradient = np.logical_or.reduceat(kept, range(0, kept.shape[1], half), axis=1)
        return used, used * (forward.mean() + gradient.mean())


def section(figures: Figures) -> str:
    """Return the limits, and what each of them takes of every work's step."""
    return "\n\n".join(
        [
            "## What binds",
            "What a step needs at least of each limit of the machine, as time and as a share of "
            "the measured step; the largest share is what binds. What is counted is in "
            "`benchmarks/peers/roofline.py`. *FMA, dense*: if no input were skipped.",
            table(*_steps(figures["rows"])),
            "The limits, medians over the works: GFLOP/s and GB/s of all threads together, reading "
            "and updating.",
            table(*_machine(figures["rows"])),
        ]
    )


def _steps(rows: Sequence[Figures]) -> tuple[list[str], list[list[str]]]:
    kinds = [kind for kind in rows[0]["times"] if any(row["times"][kind] > 0 for row in rows)]
    cells = []
    for row in rows:
        times = row["times"]
        limits = {kind: t for kind, t in times.items() if kind != "FMA, dense"}
        binds = max(limits, key=limits.__getitem__)
        level = level_of(row["need"]["set_bytes"])
        cells.append(
            [
                row["work"],
                str(row["threads"]),
                f"{row['used']:.0%}",
                f"{row['need']['set_bytes'] / KB:,.0f} KB, {level}",
                duration(row["step"]),
                *(f"{duration(times[kind])} ({times[kind] / row['step']:.0%})" for kind in kinds),
                f"{sum(limits.values()) / row['step']:.0%}",
                binds,
            ]
        )
    return ["network", "threads", "inputs used", "set", "step", *kinds, "sum", "binds"], cells


def _machine(rows: Sequence[Figures]) -> tuple[list[str], list[list[str]]]:
    cells = []
    for threads in sorted({row["threads"] for row in rows}):
        found = [row["limits"] for row in rows if row["threads"] == threads]

        def middle(kind: str, key: str, found: list[Figures] = found) -> float:
            return median(limits[kind][key] for limits in found)

        cells.append(
            [
                str(threads),
                f"{median(limits['fma'] for limits in found):.0f}",
                *(f"{middle('read', k):.0f} / {middle('update', k):.0f}" for k in LEVELS),
                *(f"{middle('functions', name) * 1e9:.2f} ns" for name in FUNCTIONS),
                f"{median(limits['adam'] for limits in found) * 1e9:.2f} ns",
                duration(median(limits["barrier"] for limits in found)),
                duration(median(limits["start"] for limits in found)),
            ]
        )
    return ["threads", "FMA", *LEVELS, *FUNCTIONS, "Adam", "barrier", "start"], cells
