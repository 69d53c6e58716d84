"""The pictures of the report: time against each peer and the limit, and time against work.

The background is transparent and no colour is near black or white, so that they can be read on
light pages and on dark ones. Same figures, same bytes.
"""

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from part import Figures
from scale import NETWORK_OF
from training import COMPILED, REFERENCE, Result

matplotlib.use("svg")

OURS, THEIRS, LIMIT, TEXT, FAINT = "#2f81d8", "#9aa3ad", "#dd6b20", "#747a82", "#74808c40"
SERIES = ("#2f81d8", "#2f9e6e", "#a66bd0")
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": TEXT,
    "axes.facecolor": "none",
    "axes.labelcolor": TEXT,
    "axes.titlecolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "svg.hashsalt": "fastmlp",  # or the ids of elements would be new each time
}
COLUMNS = 2
BAR, HEAD = 0.62, 0.55  # of a bar's place, and inches


def draw_training(figures: Figures, path: Path) -> None:
    """Draw a panel for each work: a bar for each library, as long as its time by ours."""
    results = [Result(**fields) for fields in figures["results"]]
    lines = -(-len(results) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        height = HEAD + 1.75 * lines
        figure = Figure(figsize=(9.4, height))
        panels = figure.subplots(lines, COLUMNS, squeeze=False).flat
        for panel, result in zip(panels, results, strict=False):
            _draw_bars(panel, result)
        for panel in list(panels)[len(results) :]:
            panel.set_axis_off()
        figure.text(
            *(0.012, 1 - 0.08 / height),
            "Training time as a multiple of fastmlp's: shorter is faster",
            va="top",
            fontsize=12.5,
            fontweight="bold",
        )
        figure.text(
            *(0.012, 1 - 0.36 / height),
            "dashed: all matrix products at the FMA peak measured in the same run; "
            "fastmlp skips inputs that are zero in a whole batch",
            color=LIMIT,
            va="top",
        )
        figure.tight_layout(rect=(0, 0, 1, 1 - HEAD / height), h_pad=1.4, w_pad=2.5)
        _save(figure, path)


def _draw_bars(panel: Axes, result: Result) -> None:
    ratios = {name: result.ratio(name) for name in _better_torch(result)}
    values = [median(ratios[name]) for name in ratios]
    places = range(len(ratios))
    colors = [OURS if name == REFERENCE else THEIRS for name in ratios]
    panel.barh(places, values, height=BAR, color=colors)
    widest = max(values)
    for place, value, (name, rounds) in zip(places, values, ratios.items(), strict=True):
        end = value
        if name != REFERENCE:
            end = max(rounds)
            panel.plot((min(rounds), end), (place, place), color=TEXT, linewidth=1.1)
        label = "1" if name == REFERENCE else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"
        panel.text(
            *(end + 0.018 * widest, place, label),
            va="center",
            color=OURS if name == REFERENCE else TEXT,
            fontweight="bold",
        )
        widest = max(widest, end)
    limit = result.limit(REFERENCE)
    panel.axvline(limit, color=LIMIT, linewidth=1.4, linestyle=(0, (4, 2)))
    panel.text(*(limit, -0.72, f"{limit:.2f}"), color=LIMIT, ha="center", va="bottom", fontsize=7.5)
    panel.set_yticks(places, list(ratios))
    panel.get_yticklabels()[0].set(color=OURS, fontweight="bold")
    panel.set_ylim(len(ratios) - 0.5, -0.62)
    panel.set_xlim(0, 1.12 * widest)
    panel.set_title(result.title, loc="left", fontsize=9, fontweight="bold", pad=12)
    panel.tick_params(length=0)
    panel.set_xticks([])
    for side in ("top", "right", "bottom"):
        panel.spines[side].set_visible(False)
    panel.spines["left"].set_color(FAINT)


def _better_torch(result: Result) -> list[str]:
    """The libraries of a result, of PyTorch's two ways the faster."""
    names = list(result.seconds)
    if COMPILED in names and "PyTorch" in names:
        names.remove(max("PyTorch", COMPILED, key=lambda name: median(result.seconds[name])))
    return names


def draw_growth(figures: Figures, path: Path) -> None:
    """Draw seconds of an epoch against its multiply-adds, and the limit."""
    growth = figures["growth"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 4.2))
        panel = figure.subplots()
        extent: list[float] = []
        for color, (name, points) in zip(SERIES, growth["series"].items(), strict=True):
            work = [point["multiply_adds"] for point in points]
            seconds = [point["seconds"] for point in points]
            low, high = points[0]["n"], points[-1]["n"]
            label = f"{name}: {NETWORK_OF[name]}, n = {low:,} to {high:,}"
            if name == "samples":
                label = f"samples: {NETWORK_OF[name]}, {low:,} to {high:,}"
            panel.plot(work, seconds, "o-", color=color, label=label, markersize=5)
            extent += work
        ends = (min(extent) / 1.5, 1.5 * max(extent))
        limit = [2 * end / growth["peak"] / 1e9 for end in ends]
        panel.plot(ends, limit, "--", color=LIMIT, label="FMA peak of the same run")
        panel.set(xscale="log", yscale="log", xlim=ends)
        panel.set_xlabel("multiply-adds of an epoch, as fastmlp.complexity counts them")
        panel.set_ylabel("seconds of an epoch")
        panel.grid(color=FAINT, linewidth=0.6)
        panel.tick_params(which="both", color=FAINT)
        for spine in panel.spines.values():
            spine.set_color(FAINT)
        panel.legend(frameon=False, fontsize=8)
        figure.tight_layout()
        _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, transparent=True, metadata={"Date": None})
