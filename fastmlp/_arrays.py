"""What users keep numbers in - frames, sparse matrices, tensors - as NumPy arrays.

No package is imported for it: what is given can be of a package's class only if somebody has
imported that package.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLOCK = 2**20  # entries that are looked at, or converted, together: X may be larger than memory

_FRAMES = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table"}
_SERIES = {"pandas": "Series", "polars": "Series", "pyarrow": "ChunkedArray"}


class Frame:
    """A frame of pandas or polars, or a table of pyarrow: its rows as arrays."""

    def __init__(self, frame: Any, name: str) -> None:
        self._name, self._columns = name, columns_of(frame)
        self.shape = len(frame), len(self._columns)

    def __getitem__(self, rows: slice) -> Array:
        """Return the rows [n, columns], of a dtype that holds all columns' numbers."""
        first = rows.indices(self.shape[0])[0]
        parts = [
            _numbers(getattr(column, "iloc", column)[rows], self._name, first, label)
            for label, column in self._columns
        ]
        return np.stack(parts, axis=1)


class Sparse:
    """A sparse matrix of SciPy: its rows as arrays."""

    def __init__(self, matrix: Any, name: str) -> None:
        if matrix.dtype.kind not in "fiub":
            raise TypeError(f"{name} must be an array of real numbers, got dtype {matrix.dtype}")
        self._matrix = matrix.tocsr()
        self.shape: tuple[int, ...] = matrix.shape

    def __getitem__(self, rows: slice) -> Array:
        """Return the rows [n, columns]."""
        array: Array = self._matrix[rows].toarray()
        return array


Rows = Array | Frame | Sparse


def rows_of(values: Any, name: str) -> Rows:
    """Return what has a shape and gives arrays for slices of rows: an array itself, if it can be.

    Raises
    ------
    TypeError, ValueError
        If that is impossible, or something is missing; `name` is that of the argument.
    """
    if type(values) is np.ndarray:
        return values
    if _is_of(values, _FRAMES):
        # pandas keeps columns of one dtype as one array
        is_array = _is_of(values, {"pandas": "DataFrame"}) and _is_uniform(values)
        return values.to_numpy() if is_array else Frame(values, name)
    if _is_of(values, _SERIES):
        return _numbers(values, name)
    if (sparse := sys.modules.get("scipy.sparse")) is not None and sparse.issparse(values):
        return Sparse(values, name)
    if _is_of(values, {"numpy.ma": "MaskedArray"}) and values.mask.any():
        where = np.argwhere(np.broadcast_to(values.mask, values.shape))[0].tolist()
        raise ValueError(f"{name} must not hold masked values, found one at index {where}")
    return _as_array(values, name)


def array_of(values: Any, name: str) -> Array:
    """Return the values as one array; `rows_of` has the errors."""
    rows = rows_of(values, name)
    return rows if isinstance(rows, np.ndarray) else rows[:]


def blocks(shape: tuple[int, ...], grain: int = 1) -> Iterator[slice]:
    """Slices of rows that together hold about BLOCK entries, a multiple of `grain` rows."""
    count = max(BLOCK // max(shape[1], 1) // grain, 1) * grain
    for first in range(0, shape[0], count):
        yield slice(first, min(first + count, shape[0]))


def column_label(values: Any, column: int) -> str:
    """Return the column's name for a message; nothing if it has none."""
    if not _is_of(values, _FRAMES):
        return ""
    return f", column {columns_of(values)[column][0]!r}"


def columns_of(frame: Any) -> list[tuple[Any, Any]]:
    """Names and columns of a frame, or of a table of pyarrow."""
    if hasattr(frame, "items"):  # pandas
        return list(frame.items())
    names = frame.columns if hasattr(frame, "get_columns") else frame.column_names
    columns = frame.get_columns() if hasattr(frame, "get_columns") else frame.columns
    return list(zip(names, columns, strict=True))


def type_of(column: Any) -> str:
    """What a column holds, in its library's words."""
    return str(column.dtype if hasattr(column, "dtype") else column.type)


def _numbers(column: Any, name: str, first: int = 0, label: Any = None) -> Array:
    """A column, or a part of one from row `first`, as an array of numbers."""
    where = "" if label is None else f"column {label!r} "
    is_missing = np.asarray(column.isna() if hasattr(column, "isna") else column.is_null())
    if is_missing.any():
        row = first + int(is_missing.argmax())
        raise ValueError(f"{name} must not hold missing values, {where}has one in row {row}")
    array = np.asarray(column)
    if array.dtype.kind not in "fiub" or (label is not None and array.ndim != 1):
        raise TypeError(
            f"{name} must be an array of real numbers, {where}has type {type_of(column)}"
        )
    return array


def _is_uniform(frame: Any) -> bool:
    dtypes = set(frame.dtypes)
    return len(dtypes) == 1 and isinstance(dtype := dtypes.pop(), np.dtype) and dtype.kind in "fiub"


def _is_of(values: Any, classes: dict[str, str]) -> bool:
    """Whether the values are of one of the classes, by the name of its module."""
    found = (getattr(sys.modules.get(module), name, ()) for module, name in classes.items())
    return isinstance(values, tuple(found))


def _as_array(values: Any, name: str) -> Array:
    try:
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            return np.from_dlpack(values)
        return np.asarray(values)
    except ValueError as error:  # ragged nested sequences
        raise ValueError(f"{name} must be an array of numbers: {error}") from None
    except (BufferError, RuntimeError, TypeError) as error:  # tensors elsewhere, or with a gradient
        raise TypeError(f"{name} must be an array of numbers: {error}") from None
