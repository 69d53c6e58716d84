"""How memory and time grow: with parameters, samples, width and depth, and beyond the memory.

Memory is measured in fresh processes, by what Linux says of them; the memory-mapped array is read
by a process whose control group has a quarter of the array's size, which needs root.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from memory import enter, forget_peak, limited, status
from part import Figures, Options
from suite import fma_peak
from tables import duration, ratios, table, with_range

import fastmlp as fm

BATCH = 256
NETWORKS = ((784, 128, 10), (784, 512, 512, 10), (784, 2048, 2048, 10))
MB = 1e6

# By what grows: its value, the network and the samples, the smallest first.
SERIES: dict[str, list[tuple[int, tuple[int, ...], int]]] = {
    "samples": [(n, (784, 128, 10), n) for n in (7_500, 15_000, 30_000, 60_000)],
    "width": [(n, (n, n, n, 10), 8_192) for n in (128, 256, 512, 1024, 2048)],
    "depth": [(n, (256, *(256,) * n, 10), 8_192) for n in (1, 2, 4, 8, 16)],
}
NETWORK_OF = {
    "samples": "784-128-10",
    "width": "n-n-n-10 on 8,192 samples",
    "depth": "n hidden layers of 256 on 8,192 samples",
}

MAPPED_SIZES, MAPPED_BYTES, LIMIT = (784, 512, 512, 10), 2_000_000_000, 500_000_000
MAPPED_ROUNDS = 3  # an epoch over the file takes seconds
ORDERS = {"in the file's order": False, "shuffled": True}


def measure(options: Options) -> Figures:
    """Measure memory, growth, and a memory-mapped array."""
    return {
        "memory": [_alone(_memory, sizes, options.threads) for sizes in NETWORKS],
        "growth": _growth(options),
        "mapped": _mapped(options),
    }


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def _memory(sizes: tuple[int, ...], threads: int) -> Figures:
    """Peak memory of two epochs of `fit` with Adam beyond what was there before, in bytes."""
    rng = np.random.default_rng(0)
    X, y = rng.random((20_000, sizes[0]), np.float32), rng.integers(sizes[-1], size=20_000)
    fm.kernels.warmup()
    net = fm.MLP(sizes)
    fm.fit(fm.MLP([4, 4, 2]), X[:10, :4], y[:10] % 2, threads=threads, epochs=1)
    forget_peak()
    before = status("VmRSS")
    fm.fit(net, X, y, batch_size=BATCH, epochs=2, threads=threads)
    cost = fm.complexity(sizes, BATCH, threads=threads)
    return {
        "sizes": sizes,
        "measured": status("VmHWM") - before,
        "parameters": net.theta.nbytes,
        "workspace": cost.activations + cost.workspace,
    }


def _growth(options: Options) -> Figures:
    """Seconds of an epoch, and multiply-adds as `complexity` counts them."""
    runs = {
        (name, i): _Epoch(sizes, samples, options.threads)
        for name, points in SERIES.items()
        for i, (_, sizes, samples) in enumerate(points)
    }
    peaks = []
    for _ in range(options.rounds):
        peaks.append(fma_peak("float32", options.threads))
        for run in runs.values():
            run.measure()
    return {
        "peak": median(peaks),
        "series": {
            name: [
                {
                    "n": n,
                    "multiply_adds": runs[name, i].multiply_adds,
                    "seconds": median(runs[name, i].seconds),
                }
                for i, (n, _, _) in enumerate(points)
            ]
            for name, points in SERIES.items()
        },
    }


class _Epoch:
    """An epoch of SGD, again and again."""

    def __init__(self, sizes: tuple[int, ...], samples: int, threads: int) -> None:
        rng = np.random.default_rng(0)
        self._X = rng.random((samples, sizes[0]), np.float32)
        self._y = rng.integers(sizes[-1], size=samples)
        self._net, self._threads = fm.MLP(sizes), threads
        cost = fm.complexity(sizes, BATCH, optimizer=fm.SGD(), threads=threads)
        self.multiply_adds = (cost.forward + cost.backward) * samples / BATCH
        self.seconds: list[float] = []
        self._train()

    def measure(self) -> None:
        self.seconds.append(self._train())

    def _train(self) -> float:
        history = fm.fit(
            *(self._net, self._X, self._y),
            optimizer=fm.SGD(1e-3),
            batch_size=BATCH,
            epochs=1,
            threads=self._threads,
        )
        return history.seconds


def _mapped(options: Options) -> Figures:
    """Train on an array in memory and, with less memory than that, on the same in a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "X.npy"
        _write(path)
        rounds: dict[str, list[tuple[Figures, Figures]]] = {order: [] for order in ORDERS}
        try:
            for _ in range(min(options.rounds, MAPPED_ROUNDS)):
                for order, pairs in rounds.items():
                    run = partial(_alone, _train_on_file, path, options.threads, ORDERS[order])
                    inside = run(None)
                    with limited(LIMIT) as group:
                        pairs.append((run(group), inside))
        except OSError as error:
            return {"skipped": f"{type(error).__name__}: {error}"}
    return {"rounds": rounds}


def _write(path: Path) -> None:
    """Write a file of random samples and let the system forget it."""
    samples = MAPPED_BYTES // (4 * MAPPED_SIZES[0])
    array = np.lib.format.open_memmap(path, "w+", np.float32, (samples, MAPPED_SIZES[0]))
    rng = np.random.default_rng(0)
    for first in range(0, samples, 10_000):
        part = array[first : first + 10_000]
        part[:] = rng.random(part.shape, np.float32)
    array.flush()


def _train_on_file(path: Path, threads: int, shuffle: bool, group: Path | None) -> Figures:
    """Train an epoch on a file: mapped and in a group of little memory, or loaded."""
    fm.kernels.warmup()
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # it comes from the disk
    if group is not None:
        enter(group)
    X = np.load(path, mmap_mode=None if group is None else "r")
    y = np.arange(len(X)) % MAPPED_SIZES[-1]
    begin = time.perf_counter()
    history = fm.fit(
        *(fm.MLP(MAPPED_SIZES), X, y),
        optimizer=fm.SGD(1e-3),
        batch_size=BATCH,
        epochs=1,
        shuffle=shuffle,
        threads=threads,
    )
    call = time.perf_counter() - begin
    return {"seconds": history.seconds, "call": call, "peak": status("VmHWM")}


def section(figures: Figures) -> str:
    """Return the tables of memory and growth, and what the mapped array took."""
    return "\n\n".join(
        [
            "## Memory and scale",
            "Peak memory of `fit` with Adam, batch 256, beyond what was there before:",
            _memory_table(figures["memory"]),
            "Seconds of an epoch (ReLU, SGD, batch 256) against the multiply-adds that "
            "`fastmlp.complexity` counts, both as multiples of the first:",
            _growth_table(figures["growth"]),
            _mapped_text(figures["mapped"]),
        ]
    )


def _memory_table(rows: list[Figures]) -> str:
    cells = []
    for row in rows:
        bound = 4 * row["parameters"] + row["workspace"]
        sizes = (row["measured"], row["parameters"], row["workspace"], bound)
        cells.append(("-".join(map(str, row["sizes"])), *(f"{size / MB:.1f}" for size in sizes)))
    columns = ("network", "measured, MB", "parameters", "workspace", "4 parameters + workspace")
    return table(columns, cells)


def _growth_table(growth: Figures) -> str:
    cells = []
    for name, points in growth["series"].items():
        first = points[0]
        for point in points:
            rate = 2 * point["multiply_adds"] / point["seconds"] / 1e9
            cells.append(
                (
                    f"{name}: {NETWORK_OF[name]}",
                    f"{point['n']:,}",
                    duration(point["seconds"]),
                    f"{point['multiply_adds'] / first['multiply_adds']:.2f}",
                    f"{point['seconds'] / first['seconds']:.2f}",
                    f"{rate / growth['peak']:.0%}",
                )
            )
    columns = ("what grows", "n", "epoch", "multiply-adds", "time", "of FMA peak")
    return table(columns, cells)


def _mapped_text(mapped: Figures) -> str:
    if "skipped" in mapped:
        return f"A memory-mapped array: left out, {mapped['skipped']}."
    return (
        f"A memory-mapped array of {MAPPED_BYTES / MB:,.0f} MB, read from the disk by a process in "
        f"a control group of {LIMIT / MB:,.0f} MB, {'-'.join(map(str, MAPPED_SIZES))}, batch "
        f"{BATCH}: an epoch, and the call with its check of all samples, in parts of the speed in "
        "memory; peak memory in MB, pages of the file included.\n\n"
        + _mapped_table(mapped["rounds"])
    )


def _mapped_table(rounds: dict[str, list[tuple[Figures, Figures]]]) -> str:
    cells = []
    for order, pairs in rounds.items():
        files, loaded = zip(*pairs, strict=True)
        speeds = (
            with_range(ratios([run[key] for run in loaded], [run[key] for run in files]))
            for key in ("seconds", "call")
        )
        peaks = (f"{max(run['peak'] for run in runs) / MB:,.0f}" for runs in (files, loaded))
        cells.append((order, *speeds, *peaks))
    return table(("order", "epoch", "call", "peak", "peak if loaded"), cells)
