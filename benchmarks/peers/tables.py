"""Tables in Markdown, and how ratios are written."""

from collections.abc import Sequence
from statistics import median


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Return the ratios within the rounds: what slows a round down slows both of its sides."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def with_range(values: Sequence[float]) -> str:
    """Return the median, and the lowest and the highest."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def duration(seconds: float) -> str:
    """Return a time in the unit in which it is easily read."""
    if seconds >= 0.1:
        return f"{seconds:.3f} s"
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.2f} µs"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, aligned: the first column left, numbers right."""
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]

    def text(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return f"| {first[0]:<{first[1]}} | " + "".join(f"{c:>{w}} | " for c, w in others).rstrip()

    rule = f"|{'-' * (widths[0] + 2)}|" + "".join(f"{'-' * (w + 1)}:|" for w in widths[1:])
    return "\n".join([text(columns), rule, *map(text, rows)])
