"""Prediction, as `predict` measures it, on one thread and on all."""

import predict
from part import Figures, Options


def measure(options: Options) -> Figures:
    """Measure with each number of threads."""
    counts = sorted({1, options.threads})
    rows = [row for n in counts for row in predict.measure(options.rounds, n, options.mnist)]
    return {"rows": rows}


def section(figures: Figures) -> str:
    """Return the table."""
    return f"## Prediction\n\n784-128-10, called from Python.\n\n{predict.table(figures['rows'])}"
