"""The three products of a layer against GEMM of OpenBLAS and MKL, over a grid of shapes.

Ours are those of training, on its layouts: forward adds the bias, backward transposes W first (or,
for few rows, takes products of rows), and on two threads both meet after each product; GEMM of the
libraries is the product alone, on row-major matrices. Every side runs in compiled loops and, given
two threads, may use one alone: the libraries decide by themselves, ours takes the faster.
"""

import itertools
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import geometric_mean, median
from typing import Any

import numpy as np
from blas import Blas, libraries, use_threads
from part import Figures, Options
from suite import PRODUCTS, Layer, fma_peak
from tables import ratios, table

BATCHES = (1, 8, 32, 128, 256, 1024)
WIDTHS = (10, 64, 256, 784, 2048)
LAYERS = (
    *itertools.product(WIDTHS, WIDTHS),
    *((784, 128), (128, 10), (512, 512), (1024, 1024)),
)
DTYPES = ("float32", "float64")
SECONDS = 1e-3  # of one measurement at least: a product is computed again and again
TRIALS = 5  # of one thread and of two, in turn: the best of each decides, not what disturbed one
WAKING = 0.03  # seconds that threads which slept may take to be on a core each
LARGE = 256  # sizes from which on a product should come near the peak


def measure(options: Options) -> Figures:
    """Measure all shapes on one thread and, if there are more, on two."""
    cells = []
    peers = libraries()
    if not peers:
        raise ModuleNotFoundError("neither NumPy's OpenBLAS nor MKL is here")
    for threads in (1, 2)[: options.threads]:
        use_threads(threads)
        for dtype, (inputs, outputs) in itertools.product(DTYPES, LAYERS):
            print(f"  {inputs} x {outputs} {dtype}, {threads} threads", flush=True)
            cells += _Grid(inputs, outputs, np.dtype(dtype), threads, peers).measure(options.rounds)
    return {"libraries": [peer.name for peer in peers], "cells": cells}


class _Grid:
    """One layer's products for all batches, by all libraries."""

    def __init__(
        self, inputs: int, outputs: int, dtype: np.dtype[Any], threads: int, peers: list[Blas]
    ) -> None:
        self._layer = (inputs, outputs)
        self._dtype, self._threads, self._peers = dtype, threads, peers
        self._pools = [None] if threads == 1 else [None, ThreadPoolExecutor(threads - 1)]
        rng = np.random.default_rng(0)
        largest = max(BATCHES)
        sizes = (largest * inputs, inputs * outputs, largest * outputs)
        self._arrays = tuple(rng.random(size, dtype) for size in sizes)

    def measure(self, rounds: int) -> list[Figures]:
        """Take turns: all products by one side, then by the next."""
        whole = Layer(max(BATCHES), *self._layer, self._dtype)
        ours = {batch: whole.of(batch) for batch in BATCHES}
        shapes = list(itertools.product(PRODUCTS, BATCHES))
        times, pools = {}, {}
        self._wake(lambda: whole.seconds("forward", 1, self._pools[-1]))
        for product, batch in shapes:
            layer = ours[batch]
            layer.seconds(product, 1)
            times[product, batch] = count = math.ceil(SECONDS / layer.seconds(product, 1))
            trials = [
                [layer.seconds(product, count, pool) for pool in self._pools] for _ in range(TRIALS)
            ]
            best = [min(seconds) for seconds in zip(*trials, strict=True)]
            pools[product, batch] = self._pools[best.index(min(best))]
        calls = {
            (peer.name, *shape): peer.product(shape[0], self._arrays, (shape[1], *self._layer))
            for peer in self._peers
            for shape in shapes
        }
        for call in calls.values():
            call(1)
        seconds: dict[Any, list[float]] = {}
        peaks = []
        for _ in range(rounds):
            peaks.append(fma_peak(self._dtype, self._threads, 200_000, 3))
            self._wake(lambda: whole.seconds("forward", 1, self._pools[-1]))
            for product, batch in shapes:
                count = times[product, batch]
                taken = ours[batch].seconds(product, count, pools[product, batch])
                seconds.setdefault(("fastmlp", product, batch), []).append(taken / count)
            for peer in self._peers:
                self._wake(partial(calls[peer.name, "forward", max(BATCHES)], 1))
                for product, batch in shapes:
                    count = times[product, batch]
                    begin = time.perf_counter()
                    calls[peer.name, product, batch](count)
                    taken = time.perf_counter() - begin
                    seconds.setdefault((peer.name, product, batch), []).append(taken / count)
                if self._threads > 1:
                    time.sleep(peer.seconds_to_rest)
        return [self._cell(product, batch, seconds, peaks) for product, batch in shapes]

    def _wake(self, compute: Callable[[], object]) -> None:
        """Compute, unmeasured, for a while: two threads that slept may begin on the same core."""
        end = time.perf_counter() + (WAKING if self._threads > 1 else 0.0)
        while time.perf_counter() < end:
            compute()

    def _cell(
        self, product: str, batch: int, seconds: dict[Any, list[float]], peaks: list[float]
    ) -> Figures:
        """The figures of one product and shape."""
        inputs, outputs = self._layer
        ours = seconds["fastmlp", product, batch]
        rate = 2 * batch * inputs * outputs / 1e9
        return {
            "product": product,
            "dtype": self._dtype.name,
            "threads": self._threads,
            "shape": [batch, inputs, outputs],
            "seconds": median(ours),
            "ratios": {
                peer.name: median(ratios(seconds[peer.name, product, batch], ours))
                for peer in self._peers
            },
            "of_peak": median(rate / s / peak for s, peak in zip(ours, peaks, strict=True)),
        }


def section(figures: Figures) -> str:
    """Return the geometric means of the ratios, by batch and in all, and the worst shapes."""
    cells = figures["cells"]
    groups = list(itertools.product(DTYPES, (1, 2), PRODUCTS))
    summary, worst = [], []
    for dtype, threads, product in groups:
        chosen = [
            cell
            for cell in cells
            if (cell["dtype"], cell["threads"], cell["product"]) == (dtype, threads, product)
        ]
        if not chosen:
            continue
        by_batch = [
            geometric_mean(better(cell) for cell in chosen if cell["shape"][0] == batch)
            for batch in BATCHES
        ]
        lowest = min(chosen, key=better)
        large = [cell["of_peak"] for cell in chosen if min(cell["shape"]) >= LARGE]
        name = f"{product}, {dtype}, {threads} thread{'s' * (threads > 1)}"
        summary.append(
            (
                name,
                f"{geometric_mean(map(better, chosen)):.2f}",
                *(f"{value:.2f}" for value in by_batch),
                f"{sum(better(cell) < 0.8 for cell in chosen)} of {len(chosen)}",
                f"{median(large):.0%} ({min(large):.0%} to {max(large):.0%})",
            )
        )
        shape = " x ".join(map(str, lowest["shape"]))
        worst.append((name, shape, f"{better(lowest):.2f}", f"{lowest['seconds'] * 1e6:.2f}"))
    peers = " and ".join(figures["libraries"])
    columns = ("product", "all", *(f"batch {n}" for n in BATCHES), "under 0.8", "of FMA peak")
    return "\n\n".join(
        [
            "## Matrix products",
            f"Speed as a multiple of that of the better of {peers}: geometric means over layers "
            f"({', '.join(f'{i} x {o}' for i, o in LAYERS)}). The share of the FMA peak: where "
            f"batch, inputs and outputs are at least {LARGE}.",
            table(columns, summary),
            "The shapes, batch x inputs x outputs, where the ratio is lowest:",
            table(("product", "shape", "ratio", "our µs"), worst),
        ]
    )


def better(cell: Figures) -> float:
    """Our speed as a multiple of that of the best library."""
    return float(min(cell["ratios"].values()))
