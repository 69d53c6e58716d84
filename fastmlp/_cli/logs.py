"""Files with a row for each epoch of a training: CSV, or JSON lines."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import fastmlp as fm
from fastmlp.history import SERIES

__all__ = ["check_log", "logger", "read_log"]

_ENDINGS = (".csv", ".jsonl")


def check_log(path: Path) -> None:
    """Raise ValueError if the name does not tell the format."""
    if path.suffix.lower() not in _ENDINGS:
        raise ValueError(f"a log's name must end in {' or '.join(_ENDINGS)}, got {path}")


def logger(path: Path) -> "fm.CSVLogger | fm.JSONLinesLogger":
    """Return the callback that writes the log."""
    check_log(path)
    return fm.CSVLogger(path) if path.suffix.lower() == ".csv" else fm.JSONLinesLogger(path)


def read_log(path: Path) -> fm.History:
    """Return the epochs of a log; columns that are not of a `fastmlp.History` are left alone.

    Raises
    ------
    ValueError
        It is no such file, or a value is missing or no number.
    """
    check_log(path)
    rows: list[dict[str, Any]]
    with path.open(newline="", encoding="utf-8") as file:
        try:
            if path.suffix.lower() == ".jsonl":
                rows = [json.loads(line) for line in file if line.strip()]
            else:
                rows = list(csv.DictReader(file))
            names = [name for name in SERIES if rows and rows[0].get(name, "") != ""]
            columns = {name: [_number(row[name]) for row in rows] for name in names}
        except (ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
            raise ValueError(f"{path} is not a log of a training: {error!r}") from error
    if "loss" not in columns:
        raise ValueError(f"{path} is not a log of a training: it has no loss")
    history = fm.History()
    for name, values in columns.items():
        setattr(history, name, values)
    return history


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)  # JSON has no number for it
