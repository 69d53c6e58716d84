"""Reading samples from NumPy's files: ``.npz``, ``.npy``, and folders of ``.npy`` files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmlp.datasets._samples import Samples, Source

__all__ = ["NAMES", "features_of", "load_array", "load_arrays", "load_folder", "source_of"]

NAMES = ("X_train", "y_train", "X_test", "y_test", "X", "y")
"""The arrays of ``.npz`` files and folders that are read; others are left alone."""

Arrays = Mapping[str, NDArray[Any]]


def load_array(path: Path) -> NDArray[Any]:
    """Return the array of an ``.npy`` file, mapped and not read: it may be larger than memory."""
    with path.open("rb"):
        pass  # what the system has against it, it says of the path
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # damaged files raise a dozen kinds, from SyntaxError to OSError
        raise _unreadable(path, error) from error


def load_arrays(path: Path) -> Arrays:
    """Return the arrays of an ``.npz`` file by name."""
    with path.open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            names = loaded.files
            arrays = {name: loaded[name] for name in names if name in NAMES}
        except Exception as error:  # as above, and OSError where zip archives are damaged
            raise _unreadable(path, error) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # np.load returns the bytes of other files
            raise ValueError(f"{path} cannot be read as a NumPy file: {name} is no array")
    if "X" not in arrays and "X_train" not in arrays:
        raise ValueError(
            f"{path} must hold the arrays X_train and y_train, or X and y; "
            f"it holds: {', '.join(names) or 'nothing'}"
        )
    return arrays


def load_folder(path: Path) -> Arrays | None:
    """Return the arrays of a folder's ``.npy`` files by name; None if there is no X among them."""
    files = {name: path / f"{name}.npy" for name in NAMES}
    arrays = {name: load_array(file) for name, file in files.items() if file.is_file()}
    return arrays if "X" in arrays or "X_train" in arrays else None


def features_of(path: Path, arrays: Arrays) -> NDArray[Any]:
    """Return the features of the test part if there is one, else of all."""
    return _checked_features(path, arrays, "_test" if "X_test" in arrays else _main_part(arrays))


def source_of(path: Path, arrays: Arrays, classes: bool | None) -> Source:
    """Return the samples that the arrays hold; `classes` as in `fastmlp.datasets.read`."""
    train = _samples(path, arrays, _main_part(arrays), classes)
    name = path.resolve().name if path.is_dir() else path.stem
    if "X_test" not in arrays:
        return Source(name, train)
    test = _samples(path, arrays, "_test", train.has_classes)
    for letter, a, b in (("X", train.X, test.X), ("y", train.y, test.y)):
        if a.shape[1:] != b.shape[1:]:
            raise ValueError(
                f"{path}: {letter}_test must be as wide as the {letter} to train on, "
                f"got the shapes {b.shape} and {a.shape}"
            )
    return Source(name, train, test)


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read as a NumPy file: {error}")


def _main_part(arrays: Arrays) -> str:
    """Return what follows "X" and "y" in the names of the arrays to train on."""
    return "_train" if "X_train" in arrays else ""


def _checked_features(path: Path, arrays: Arrays, part: str) -> NDArray[Any]:
    X = arrays[f"X{part}"]
    if X.ndim != 2 or X.size == 0 or X.dtype.kind not in "fiub":
        raise ValueError(
            f"{path}: X{part} must hold numbers in the shape (n, features), "
            f"got {X.dtype} in the shape {X.shape}"
        )
    return X


def _samples(path: Path, arrays: Arrays, part: str, classes: bool | None) -> Samples:
    X = _checked_features(path, arrays, part)
    y = arrays.get(f"y{part}")
    if y is None:
        raise ValueError(f"{path} has an array X{part}, but no y{part}")
    if y.shape[:1] != X.shape[:1]:
        raise ValueError(
            f"{path}: X{part} and y{part} must have equally many rows, "
            f"got the shapes {X.shape} and {y.shape}"
        )
    if y.dtype.kind == "f" and classes and np.isfinite(y).all() and (y == np.round(y)).all():
        y = y.astype(np.int64)
    if classes is None:
        classes = y.dtype.kind != "f"
    if classes and (y.ndim != 1 or y.dtype.kind not in "iubUS"):
        raise ValueError(
            f"{path}: y{part} must hold integers or text in the shape (n,) to name classes, got "
            f"{y.dtype} in the shape {y.shape}; numbers to predict need a loss like squared_error"
        )
    if not classes and (y.ndim > 2 or y.size == 0 or y.dtype.kind not in "fiub"):
        raise ValueError(
            f"{path}: y{part} must hold numbers in the shape (n,) or (n, outputs), "
            f"got {y.dtype} in the shape {y.shape}"
        )
    return Samples(X, y.astype(np.str_ if classes else np.float64))
