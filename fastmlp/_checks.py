"""Checks of what users pass in: every array is checked here before a kernel sees it."""

import ctypes
import math
import os
import reprlib
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import BLOCK, Rows, array_of, blocks, column_label, rows_of


def check_inputs(
    X: ArrayLike, features: int, dtype: np.dtype[Any], name: str = "X"
) -> NDArray[Any]:
    """Return X as a C-contiguous [n, features] array of `dtype`, n >= 1, all finite."""
    return check_finite(dense(open_inputs(X, features, name), dtype), dtype, name, X)


def open_inputs(X: ArrayLike, features: int, name: str = "X") -> Rows:
    """Return X [n, features], n >= 1, for one who takes its rows himself, by `dense`."""
    rows = rows_of(X, name)
    if isinstance(rows, np.ndarray):
        _check_numeric(rows, name)
    if len(rows.shape) != 2 or rows.shape[1] != features:
        raise ValueError(
            f"{name} must have shape (n, {features}) to match layer_sizes[0], got {rows.shape}"
        )
    if rows.shape[0] == 0:
        raise ValueError(f"{name} must hold at least one sample, got shape {rows.shape}")
    return rows


def is_input(X: ArrayLike, features: int, dtype: np.dtype[Any]) -> TypeGuard[NDArray[Any]]:
    """Return whether `open_inputs` and `dense` would return X itself: no more than a look at it."""
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and X.shape[1] == features
        and X.size > 0
        and _is_in_form(X, dtype)
    )


def dense(rows: Rows, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the rows in a form that kernels take: itself an array of that form, else a copy.

    Beside a copy, there are never more than a few blocks of rows in memory.
    """
    if isinstance(rows, np.ndarray):
        return _converted(rows, dtype)
    array = np.empty(rows.shape, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for part in blocks(rows.shape):
            array[part] = rows[part]
    return array


def is_ready(rows: Rows, dtype: np.dtype[Any]) -> bool:
    """Return whether `dense` would copy nothing, or a block at most."""
    if not isinstance(rows, np.ndarray):
        return False
    return rows.size <= BLOCK or _is_in_form(rows, dtype)


def check_labels(y: ArrayLike, samples: int, classes: int, name: str = "y") -> NDArray[np.int64]:
    """Return y as int64 [n] of labels 0 to classes - 1."""
    array = array_of(y, name)
    if array.dtype.kind not in "iub":
        raise TypeError(
            f"{name} must be integer class labels 0 to {classes - 1}, got dtype {array.dtype}"
        )
    _check_shape(array, (samples,), name)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(
            f"{name} must hold labels 0 to {classes - 1} (layer_sizes[-1] is {classes}), "
            f"found {wrong} at index {int(np.flatnonzero(array == wrong)[0])}"
        )
    return _writable(np.ascontiguousarray(array, np.int64))


def check_targets(
    y: ArrayLike, samples: int, outputs: int, dtype: np.dtype[Any], name: str = "y"
) -> NDArray[Any]:
    """Return y as `dtype` [n, outputs]; [n] is taken for one output."""
    array = _numeric(y, name)
    if array.ndim == 1 and outputs == 1:
        array = array.reshape(-1, 1)
    _check_shape(array, (samples, outputs), name)
    return check_finite(array, dtype, name)


def is_table(y: ArrayLike, name: str = "y") -> bool:
    """Return whether y has two dimensions and more than one column."""
    shape = array_of(y, name).shape
    return len(shape) == 2 and shape[1] != 1


def check_distributions(
    y: ArrayLike, samples: int, classes: int, dtype: np.dtype[Any], name: str = "y"
) -> NDArray[Any]:
    """Return y as `dtype` [n, classes], rows of probabilities whose sum is 1 within 1e-5."""
    array = check_targets(y, samples, classes, dtype, name)
    check_within(array, 0.0, np.inf, name)
    sums = array.sum(axis=1, dtype=np.float64)
    wrong = np.abs(sums - 1.0) > 1e-5
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{name} must have rows whose sum is 1, row {row} has {sums[row]}")
    return array


def check_within(array: NDArray[Any], low: float, high: float, name: str) -> None:
    """Raise ValueError if a number in the array is below `low` or above `high`."""
    wrong = (array < low) | (array > high)
    if wrong.any():
        where = np.unravel_index(int(np.argmax(wrong)), array.shape)
        place = ", ".join(str(int(i)) for i in where)
        limits = f"at least {low:g}" if high == np.inf else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be {limits}, found {array[where]} at index [{place}]")


def check_number(
    value: Any,
    name: str,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    closed_high: bool = False,
) -> float:
    """Return a real number in [low, high), without `low` or with `high` as the flags say."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an integer of Python's may be larger than any float
        number = math.inf
    above = low < number if open_low else low <= number
    below = number <= high if closed_high else number < high
    if not (above and below and math.isfinite(number)):
        left, right = "(" if open_low else "[", "]" if closed_high else ")"
        found = reprlib.repr(value)
        raise ValueError(f"{name} must be in {left}{low:g}, {high:g}{right}, got {found}")
    return number


def check_weights(weights: ArrayLike, samples: int, name: str) -> NDArray[np.float64]:
    """Return the samples' weights as float64 [n]: finite, none below 0, not all 0."""
    array = _numeric(weights, name)
    _check_shape(array, (samples,), name)
    array = check_finite(array, np.dtype(np.float64), name)
    check_within(array, 0.0, np.inf, name)
    if not array.any():
        raise ValueError(f"{name} must not be zero for every sample")
    return array


def check_whole(value: Any, name: str, low: int, high: int = 2**31) -> int:
    """Return a whole number in [low, high)."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if not low <= value < high:
        raise ValueError(f"{name} must be at least {low} and below {high}, got {value}")
    return int(value)


def check_flag(value: Any, name: str) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def check_sequence(value: Any, name: str) -> tuple[Any, ...]:
    """Return the items of a sequence that is not a text."""
    if not is_sequence(value):
        raise TypeError(f"{name} must be a sequence, got {value!r}")
    return tuple(value)


def is_sequence(value: Any) -> bool:
    """Return whether a value has items, and is not a text."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def check_path(value: Any, name: str = "path") -> str:
    """Return a path as text."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{name} must be a path, got {value!r}") from None


def _numeric(values: ArrayLike, name: str) -> NDArray[Any]:
    array = array_of(values, name)
    _check_numeric(array, name)
    return array


def _check_numeric(array: NDArray[Any], name: str) -> None:
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of real numbers, got dtype {array.dtype}")


def _check_shape(array: NDArray[Any], expected: tuple[int, ...], name: str) -> None:
    if array.shape != expected:
        raise ValueError(
            f"{name} must have shape {expected} to match the samples and outputs, got {array.shape}"
        )


def _is_in_form(array: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    return array.dtype == dtype and array.flags.carray


def _converted(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array in a form that kernels take, itself if it is in that form."""
    if _is_in_form(array, dtype):
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return _writable(np.ascontiguousarray(array, dtype))


def check_finite(
    array: NDArray[Any], dtype: np.dtype[Any], name: str, source: ArrayLike = (), first_row: int = 0
) -> NDArray[Any]:
    """Return the array as `dtype`, all finite; rows `first_row` and on of `source`."""
    array = _converted(array, dtype)
    flat = array.reshape(-1)
    for first in range(0, flat.size, BLOCK):
        block = flat[first : first + BLOCK]
        with np.errstate(over="ignore", invalid="ignore"):
            # a finite sum needs finite terms, and costs no temporary array; the reverse is not true
            if np.isfinite(block.sum()) or (finite := np.isfinite(block)).all():
                continue
        where = np.unravel_index(first + int(np.argmin(finite)), array.shape)
        row, *rest = (int(i) for i in where)
        place = ", ".join(map(str, (first_row + row, *rest)))
        column = column_label(source, rest[0]) if rest else ""
        raise ValueError(
            f"{name} must be finite in {dtype}, found {array[where]} at index [{place}]{column}"
        )
    return array


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """Return an alias that claims to be writable: a read-only type would compile the kernels again.

    The kernels write to no input.
    """
    if array.flags.writeable and array.flags.aligned:
        return array
    if not array.flags.aligned:
        return array.copy()
    memory: Any = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    memory.owner = array  # keeps the original alive as long as the alias
    alias: NDArray[Any] = np.frombuffer(memory, array.dtype).reshape(array.shape)
    return alias
