"""Reading samples from tables with named columns: CSV, JSON lines and Parquet.

Of CSV and JSON lines every cell is a text; a row is turned into numbers as soon as it is read, so
that a file takes no more memory than its numbers. Parquet comes by columns, and with types.
"""

import csv
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmlp.datasets._samples import is_integer

__all__ = ["ENDINGS", "STANDARD_INPUT", "Table", "read_table"]

STANDARD_INPUT = "-"
ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet")

Rows = Iterator[tuple[int, list[str]]]
Table = tuple[tuple[str, ...], NDArray[Any], NDArray[Any] | None]
"""Names of the features, their values [n, features], and the targets if they are asked for."""


def read_table(
    data: str, target: str | None, classes: bool | None, columns: Sequence[str], *, labelled: bool
) -> Table:
    """Read a table, or the CSV or JSON lines that come on standard input.

    Parameters
    ----------
    data
        The file, or "-".
    target, classes, columns
        As in `fastmlp.datasets.read`.
    labelled
        Whether targets are wanted, so that `target` must be given.
    """
    if Path(data).suffix.lower() == ".parquet":
        return _read_parquet(data, target, classes, columns, labelled)
    rows, name = _rows(data)
    names = _header(rows, name)
    features = _choose(name, names, target, columns, labelled)
    X, y = _read_rows(name, names, rows, features, target, classes)
    return features, X, y


def _choose(
    name: str, names: Sequence[str], target: str | None, columns: Sequence[str], labelled: bool
) -> tuple[str, ...]:
    """Return the names of the features: those that are wanted, or all but the target."""
    if labelled and target is None:
        raise ValueError(
            f"target must name the column to predict; the columns of {name}: {', '.join(names)}"
        )
    for column in columns if target is None else [*columns, target]:
        if column not in names:
            raise ValueError(f"{name} has no column {column!r}; its columns: {', '.join(names)}")
    return tuple(columns) or tuple(column for column in names if column != target)


def _rows(data: str) -> tuple[Rows, str]:
    """Return the rows of a text file or of standard input, and what to call it in messages."""
    if data != STANDARD_INPUT:
        path = Path(data)
        return _text_rows(path, data, path.suffix.lower() != ".csv"), data
    name = "standard input"
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not in UTF-8: {error}") from error
    return _text_rows(io.StringIO(text, newline=""), name, text.lstrip().startswith("{")), name


def _text_rows(source: Path | io.StringIO, name: str, is_json: bool) -> Rows:
    """Yield the number, counted from 1, and the cells of each row that is not blank."""
    # utf-8-sig drops the mark that spreadsheet programs write at the start.
    file = source.open(newline="", encoding="utf-8-sig") if isinstance(source, Path) else source
    try:
        with file:
            yield from _json_rows(file, name) if is_json else _csv_rows(file)
    except (csv.Error, UnicodeDecodeError) as error:
        kind = "JSON lines" if is_json else "a CSV file"
        raise ValueError(f"{name} is not {kind} in UTF-8: {error}") from error


def _csv_rows(file: io.TextIOBase) -> Rows:
    for row, cells in enumerate(csv.reader(file), start=1):
        if cells:
            yield row, cells


def _json_rows(file: io.TextIOBase, name: str) -> Rows:
    """Yield the names of the first object, then the values of each object, in that order."""
    names: list[str] = []
    for row, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}, row {row} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f'{name}, row {row} must be an object such as {{"x": 1, "y": 2}}')
        if not names:
            names = list(values)
            yield row, names
        if values.keys() != set(names):
            wrong = ", ".join(sorted(values.keys() ^ set(names)))
            raise ValueError(f"{name}, row {row} must have the names of the first row: {wrong}")
        yield row, [_cell(name, row, column, values[column]) for column in names]


def _cell(name: str, row: int, column: str, value: object) -> str:
    if isinstance(value, dict | list):
        raise ValueError(f"{name}, row {row}, column {column!r} must hold a number or a text")
    return "" if value is None else value if isinstance(value, str) else repr(value)


def _header(rows: Rows, name: str) -> list[str]:
    for _, cells in rows:
        names = [cell.strip() for cell in cells]
        for column, count in Counter(names).items():
            if count > 1:
                raise ValueError(f"{name} has {count} columns {column!r}")
        return names
    raise ValueError(f"{name} is empty: it must start with a row of column names")


def _read_rows(
    name: str,
    names: Sequence[str],
    rows: Rows,
    features: Sequence[str],
    target: str | None,
    classes: bool | None,
) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    places = [names.index(column) for column in features]
    X: list[NDArray[np.float64]] = []
    targets: list[tuple[int, str]] = []
    for row, cells in rows:
        if len(cells) != len(names):
            raise ValueError(
                f"{name}, row {row} has {len(cells)} cells, but the header has {len(names)}"
            )
        X.append(_numbers(name, row, features, [cells[place] for place in places]))
        if target is not None:
            targets.append((row, cells[names.index(target)].strip()))
    if not X or not features:
        raise ValueError(f"{name} has a header, but no {'rows' if features else 'features'}")
    return np.stack(X), None if target is None else _targets(name, target, targets, classes)


def _numbers(
    name: str, row: int, columns: Sequence[str], cells: Sequence[str]
) -> NDArray[np.float64]:
    try:
        values = np.array(list(map(float, cells)))
    except ValueError:
        pass
    else:
        if np.isfinite(values).all():
            return values
    column, cell = next(
        pair for pair in zip(columns, cells, strict=True) if not _is_finite(pair[1])
    )
    raise ValueError(f"{name}, row {row}, column {column!r}: {cell!r} is not a finite number")


def _targets(
    name: str, column: str, cells: Sequence[tuple[int, str]], classes: bool | None
) -> NDArray[Any]:
    texts = [text for _, text in cells]
    if classes is None:
        classes = all(map(is_integer, texts)) or not all(map(_is_finite, texts))
    if not classes:
        return np.concatenate([_numbers(name, row, [column], [text]) for row, text in cells])
    for row, text in cells:
        if not text:
            raise ValueError(f"{name}, row {row}, column {column!r} is empty")
    return np.array(texts)


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _read_parquet(
    name: str, target: str | None, classes: bool | None, columns: Sequence[str], labelled: bool
) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ImportError(
            'reading Parquet needs pyarrow: pip install "fastmlp[parquet]"'
        ) from error
    try:
        names = parquet.read_schema(name).names
    except ArrowException as error:
        raise ValueError(f"{name} cannot be read as a Parquet file: {error}") from error
    features = _choose(name, names, target, columns, labelled)
    wanted = list(features) if target is None else list(dict.fromkeys([*features, target]))
    try:
        table = parquet.read_table(name, columns=wanted)
    except ArrowException as error:
        raise ValueError(f"{name} cannot be read as a Parquet file: {error}") from error
    if not table.num_rows or not features:
        raise ValueError(f"{name} has no {'rows' if features else 'features'}")
    X = np.column_stack([_parquet_numbers(name, column, table[column]) for column in features])
    if target is None:
        return features, X, None
    y = table[target].to_numpy()
    if classes is None:
        classes = y.dtype.kind != "f"
    if not classes:
        return features, X, _parquet_numbers(name, target, table[target]).astype(np.float64)
    if table[target].null_count:
        row = int(np.argmax(table[target].is_null().to_numpy())) + 1
        raise ValueError(f"{name}, row {row}, column {target!r} is empty")
    if y.dtype.kind == "f" and (y == np.round(y)).all():
        y = y.astype(np.int64)
    return features, X, y.astype(np.str_)


def _parquet_numbers(name: str, column: str, values: Any) -> NDArray[Any]:
    """Return a column that must hold finite numbers; missing ones come as NaN."""
    numbers: NDArray[Any] = values.to_numpy()
    if numbers.dtype.kind not in "fiub":
        raise ValueError(f"{name}, column {column!r} must hold numbers, got {values.type}")
    finite = np.isfinite(numbers)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(
            f"{name}, row {row + 1}, column {column!r}: {numbers[row]} is not a finite number"
        )
    return numbers
