"""Activations and their ingredients, as `elementwise` measures them."""

from dataclasses import asdict

import elementwise
from part import Figures, Options
from tables import table


def measure(options: Options) -> Figures:
    """Measure on one core."""
    return {"rows": [asdict(row) for row in elementwise.measure(options.rounds)]}


def section(figures: Figures) -> str:
    """Return the table."""
    rows = [elementwise.Row(**row).cells() for row in figures["rows"]]
    return (
        "## Elementwise functions\n\nNanoseconds an element on one core, and the largest error of "
        "float32 in units in the last place.\n\n" + table(elementwise.COLUMNS, rows)
    )
