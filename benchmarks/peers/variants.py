"""What our own choices cost: activations, threads, regularization, the optimizer.

Each variant and what it is compared with train in turn, an epoch each, on the same data; the ratio
is of times within a round. The hidden layers are softplus where nothing else is said.
"""

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from part import Figures, Options
from tables import duration, ratios, table, with_range
from work import Data, Work

import fastmlp as fm

SMALL, MEDIUM, LARGE = "784-128-10:32", "784-128-10:128", "784-512-512-10:256"
SAMPLES = 30_000  # enough: nothing is compiled or started in an epoch


@dataclass(frozen=True)
class Variant:
    """How a network is made and trained, beyond the work's own choices."""

    network: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)


NONE = Variant()
RELU = Variant(network={"activation": "relu"})
ONE_THREAD = Variant(fit={"threads": 1})
ADAM = Variant(fit={"optimizer": fm.Adam()})
DROPOUT = Variant(network={"dropout": 0.2})
BATCH_NORM = Variant(network={"norm": "batch"})
L2_AND_CLIP = Variant(network={"l2": 1e-4}, fit={"clip_global_norm": 1.0})

COMPARISONS = (
    *(
        (f"{name} against ReLU", LARGE, Variant(network={"activation": name}), RELU)
        for name in ("softplus", "gelu", "tanh")
    ),
    *(("one thread against two", work, ONE_THREAD, NONE) for work in (SMALL, LARGE)),
    *(("Adam against SGD", work, ADAM, NONE) for work in (SMALL, MEDIUM, LARGE)),
    *(("dropout 0.2 against none", work, DROPOUT, NONE) for work in (SMALL, LARGE)),
    *(("batch norm against none", work, BATCH_NORM, NONE) for work in (SMALL, LARGE)),
    *(("L2 and clip_global_norm against none", work, L2_AND_CLIP, NONE) for work in (SMALL, LARGE)),
)


def measure(options: Options) -> Figures:
    """Train each pair in turn."""
    rows = []
    for title, text, variant, other in COMPARISONS:
        work = Work.parse(text)
        if "threads" in variant.fit and options.threads != 2:
            continue
        print(f"  {work}: {title}", flush=True)
        data = Data.of(work, min(options.samples, SAMPLES), options.mnist)
        pair = [_Training(work, data, options.threads, which) for which in (variant, other)]
        for training in pair:
            training.epoch()
        seconds = [[training.epoch() for training in pair] for _ in range(options.rounds)]
        rows.append({"title": title, "work": text, "seconds": seconds})
    return {"rows": rows}


class _Training:
    def __init__(self, work: Work, data: Data, threads: int, variant: Variant) -> None:
        self._net = work.network(**variant.network)
        self._data = data
        self._options: dict[str, Any] = {
            "optimizer": work.rule(),
            "batch_size": work.batch_size,
            "threads": threads,
        } | variant.fit

    def epoch(self) -> float:
        return fm.fit(self._net, self._data.X, self._data.y, epochs=1, **self._options).seconds


def section(figures: Figures) -> str:
    """Return a table, a row for each pair."""
    rows = []
    for row in figures["rows"]:
        variant, other = zip(*row["seconds"], strict=True)
        rows.append(
            (
                row["title"],
                row["work"].replace(":", ", batch "),
                duration(median(variant)),
                duration(median(other)),
                with_range(ratios(variant, other)),
            )
        )
    return "\n\n".join(
        [
            "## What choices cost",
            f"fastmlp alone: an epoch of {SAMPLES:,} samples with and without, in turn. Softplus "
            "and SGD where nothing else is said.",
            table(("choice", "network", "with", "without", "ratio (range)"), rows),
        ]
    )
