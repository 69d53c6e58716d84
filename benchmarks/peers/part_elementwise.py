"""Activations and their ingredients, as `elementwise` measures them."""

import elementwise
from part import Figures, Options


def measure(options: Options) -> Figures:
    """Measure on one core."""
    return {"rows": elementwise.measure(options.rounds)}


def section(figures: Figures) -> str:
    """Return the table."""
    return f"## Elementwise functions\n\n{elementwise.table(figures['rows'])}"
