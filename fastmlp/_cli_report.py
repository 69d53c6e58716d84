"""What the commands of the command line print on standard output."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.box
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

import fastmlp as fm
from fastmlp._cli_data import Source
from fastmlp.history import format_number

__all__ = [
    "print_data",
    "print_facts",
    "print_line",
    "print_network",
    "print_test",
    "print_training",
]

_MAX_CLASSES = 20
"""Most classes that are listed, and for which there is a confusion matrix."""

_console = Console(highlight=False)


def print_line(text: str) -> None:
    """Print one line as it is: not wrapped, and without reading markup in it."""
    _console.print(text, markup=False, soft_wrap=True)


def print_data(source: Source, n_train: int, n_test: int, classes: Sequence[str]) -> None:
    """Say how many samples, features and classes there are to learn from."""
    text = f"{source.name}: {n_train:,} training samples, {n_test:,} test samples"
    if source.test is None:
        text += " (held out)"
    text += f", {source.train.X.shape[1]:,} features"
    if classes:
        text += f", {len(classes)} classes"
        if len(classes) <= _MAX_CLASSES:
            text += f": {', '.join(classes)}"
    print_line(text)


def print_network(net: fm.MLP) -> None:
    """Say what the network is made of."""
    sizes = "-".join(map(str, net.layer_sizes))
    words = [sizes, *dict.fromkeys(map(str, net.activation)), str(net.loss)]
    print_line(f"network {', '.join(words)}, {net.dtype}: {net.n_parameters:,} parameters")


def print_training(history: fm.History) -> None:
    """Say how long the training took; print the epochs of an interrupted one."""
    epochs = "1 epoch" if len(history) == 1 else f"{len(history)} epochs"
    if history.interrupted:
        print_line(f"interrupted after {epochs}")
        if len(history):
            print_line(str(history))
    print_line(f"kernels compiled or loaded in {history.compile_seconds:.2f} s")
    print_line(
        f"trained {epochs} in {history.seconds:.2f} s, {history.samples_per_second:,.0f} samples/s"
    )


def print_test(net: fm.MLP, X: NDArray[Any], y: NDArray[Any], classes: Sequence[str]) -> None:
    """Test a network and print the outcome, for up to 20 classes with a confusion matrix."""
    result = net.evaluate(X, y)
    if result.accuracy is None:
        print_line(f"test loss {format_number(result.loss)} ({net.loss}) on {len(X):,} samples")
        return
    print_line(
        f"test accuracy {100.0 * result.accuracy:.2f} % on {len(X):,} samples, "
        f"loss {format_number(result.loss)}"
    )
    if len(classes) <= _MAX_CLASSES:
        print_line("confusion matrix, true classes in rows and predicted ones in columns:")
        _print_table(_confusion_table(y, net.predict(X), classes))


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values in two columns."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in facts.items():
        table.add_row(escape(name.replace("_", " ")), escape(_text(value)))
    _print_table(table)


def _confusion_table(
    y: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]
) -> Table:
    """Count true classes (rows) against predicted ones (columns)."""
    n = len(classes)
    counts = np.bincount(y * n + predicted, minlength=n * n).reshape(n, n)
    table = Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("")
    for name in classes:
        table.add_column(escape(name), justify="right")
    table.add_column("correct", justify="right")
    for label, (name, row) in enumerate(zip(classes, counts, strict=True)):
        cells = [f"{count:,}" if count else "·" for count in row]
        cells[label] = f"[green]{cells[label]}[/]"
        correct = f"{100.0 * row[label] / row.sum():.1f} %" if row.any() else ""
        table.add_row(f"[bold]{escape(name)}[/]", *cells, correct)
    return table


def _print_table(table: Table) -> None:
    """Print a table in its full width, also where that is unknown (a pipe) or too small."""
    unlimited = _console.options.update(width=10_000)
    width = Measurement.get(_console, unlimited, table).maximum
    Console(highlight=False, width=max(width, _console.width)).print(table, crop=False)


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(part)}" for name, part in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
