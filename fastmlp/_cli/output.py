"""What the commands print on standard output: text and tables, or one JSON object."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rich.box
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

import fastmlp as fm
from fastmlp.history import SERIES, format_number

if TYPE_CHECKING:
    from fastmlp.datasets import Source

__all__ = [
    "print_data",
    "print_facts",
    "print_json",
    "print_line",
    "print_network",
    "print_rows",
    "print_test",
    "print_training",
    "test_facts",
    "training_facts",
]

_MAX_CLASSES = 20
"""Most classes that are listed, and for which there is a confusion matrix."""

_console = Console(highlight=False)


def print_line(text: str) -> None:
    """Print one line as it is: not wrapped, and without reading markup in it."""
    _console.print(text, markup=False, soft_wrap=True)


def print_json(value: Mapping[str, object]) -> None:
    """Print a JSON object on one line; numbers that are not finite are null."""
    print(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False))


def print_data(source: "Source", n_train: int, n_test: int, classes: Sequence[str]) -> None:
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
    speed = history.samples_per_second  # 0 if what was resumed was over
    ending = f", {speed:,.0f} samples/s" if speed > 0 else ""
    print_line(f"trained {epochs} in {history.seconds:.2f} s{ending}")


def print_test(
    net: fm.MLP, X: NDArray[Any], y: NDArray[Any], classes: Sequence[str], what: str = ""
) -> None:
    """Test a network and print the outcome, for up to 20 classes with a confusion matrix.

    `what` says which samples they are, as in "test ".
    """
    result = net.evaluate(X, y)
    if result.accuracy is None:
        print_line(f"{what}loss {format_number(result.loss)} ({net.loss}) on {len(X):,} samples")
        return
    print_line(
        f"{what}accuracy {100.0 * result.accuracy:.2f} % on {len(X):,} samples, "
        f"loss {format_number(result.loss)}"
    )
    if len(classes) <= _MAX_CLASSES:
        print_line("confusion matrix, true classes in rows and predicted ones in columns:")
        _print_table(_confusion_table(y, net.predict(X), classes))


def test_facts(
    net: fm.MLP, X: NDArray[Any], y: NDArray[Any], classes: Sequence[str]
) -> dict[str, object]:
    """Test a network and return the outcome, for a classifier with a confusion matrix.

    Its rows are the true classes, its columns the predicted ones.
    """
    result = net.evaluate(X, y)
    facts: dict[str, object] = {"samples": len(X), "loss": result.loss}
    if result.accuracy is not None:
        counts = _confusion(y, net.predict(X), len(classes))
        facts |= {
            "accuracy": result.accuracy,
            "classes": list(classes),
            "confusion_matrix": counts.tolist(),
        }
    return facts


def training_facts(
    net: fm.MLP, history: fm.History, X: NDArray[Any], y: NDArray[Any]
) -> dict[str, object]:
    """Return what a training made, how it went, and how the network does on test samples."""
    result = net.evaluate(X, y)
    return {
        "layer_sizes": net.layer_sizes,
        "activation": list(map(str, net.activation)),
        "loss": str(net.loss),
        "dtype": net.dtype.name,
        "parameters": net.n_parameters,
        "epochs": len(history),
        "history": {name: getattr(history, name) for name in SERIES if getattr(history, name)},
        "compile_seconds": history.compile_seconds,
        "seconds": history.seconds,
        "samples_per_second": history.samples_per_second,
        "interrupted": history.interrupted,
        "stopped_early": history.stopped_early,
        "best_epoch": history.best_epoch,
        "test": {"samples": len(X), "loss": result.loss, "accuracy": result.accuracy},
    }


def print_rows(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: the first column on the left, the others on the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(titles):
        table.add_column(escape(title), justify="right" if column else "left")
    for row in rows:
        table.add_row(*(escape(_text(cell)) for cell in row))
    _print_table(table)


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
    counts = _confusion(y, predicted, len(classes))
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


def _confusion(y: NDArray[np.int64], predicted: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Count [n, n] true classes (rows) against predicted ones (columns)."""
    return np.bincount(y * n + predicted, minlength=n * n).reshape(n, n)


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


def _plain(value: object) -> object:
    """Return a value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
