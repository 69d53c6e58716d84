"""Reading the inputs of the command line: bundled data, MNIST folders, NumPy files and CSV files.

Whatever the input, its targets come as names of classes (text) or as numbers (float64). Commands
turn names into the labels 0..K-1 of a network by the order of its class names, which are saved
with the model. So labels mean the same whatever file they come from.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmlp.datasets import Dataset, load_mnist, load_mnist157
from fastmlp.training import random_share

__all__ = [
    "Samples",
    "Source",
    "class_names",
    "encode",
    "hold_out",
    "learnable_classes",
    "read",
    "read_features",
]

_BUNDLED = {"mnist157": load_mnist157}

_ARRAYS = ("X_train", "y_train", "X_test", "y_test", "X", "y")
"""The arrays of .npz files that are read; others are left alone."""

_PLAUSIBLE_CLASSES = 20
"""More classes than this are taken for a mistake when hardly two samples share one."""


@dataclass(frozen=True)
class Samples:
    """Samples and their targets.

    Attributes
    ----------
    X
        Features, shape ``(n, features)``, of any real dtype.
    y
        Names of classes, text of shape ``(n,)``; or numbers, float64 of shape ``(n,)`` or
        ``(n, outputs)``.
    """

    X: NDArray[Any]
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.X)

    @property
    def has_classes(self) -> bool:
        """Whether the targets are names of classes."""
        return self.y.dtype.kind == "U"

    def take(self, rows: NDArray[np.bool_]) -> "Samples":
        """Return the samples for which `rows` is true."""
        return Samples(self.X[rows], self.y[rows])


@dataclass(frozen=True)
class Source:
    """Everything that one input holds.

    Attributes
    ----------
    name
        The name of the bundled data or of the folder; the name of the file without its ending.
    train
        The training samples, or all samples of an input without parts.
    test
        The test samples, if the input has a part for them.
    columns
        Names of the features, from the header of a CSV file.
    """

    name: str
    train: Samples
    test: Samples | None = None
    columns: tuple[str, ...] = ()


def read(
    data: str,
    *,
    target: str | None = None,
    classes: bool | None = None,
    columns: Sequence[str] = (),
) -> Source:
    """Read samples with their targets.

    Parameters
    ----------
    data
        A bundled name, a folder with the MNIST files, or an ``.npz`` or ``.csv`` file.
    target
        The column of a CSV file that holds the targets.
    classes
        Whether the targets are classes. None decides by what they are: text and integers are
        classes, other numbers are not.
    columns
        The columns of a CSV file that hold the features; without any, all but the target.

    Raises
    ------
    ValueError
        The content is not what it should be; the message names the file and the place.
    OSError
        The input cannot be read.
    """
    path = Path(data)
    kind = _kind(data)
    if target is not None and kind != ".csv":
        raise ValueError(f"--target names a column of a CSV file, and {data} is none")
    match kind:
        case "bundled":
            return _from_dataset(data, _BUNDLED[data](), classes)
        case "folder":
            return _from_dataset(path.resolve().name, load_mnist(path), classes)
        case ".npz":
            return _read_npz(path, classes)
        case ".csv":
            return _read_csv(path, target, classes, columns)
    raise ValueError(f"{data} holds no targets: an .npz or .csv file is needed")


def read_features(data: str, columns: Sequence[str] = ()) -> NDArray[Any]:
    """Read features only, shape ``(n, features)``: of the test part if there is one, else of all.

    Parameters and errors are those of :func:`read`. An ``.npy`` file with such an array will do
    too; targets need not be there and are not looked at.
    """
    path = Path(data)
    match _kind(data):
        case "bundled":
            return _BUNDLED[data]().X_test
        case "folder":
            return load_mnist(path).X_test
        case ".csv":
            return _csv_table(path, columns, None)[1]
    arrays = _load_arrays(path)
    return _checked_features(path, arrays, "_test" if "X_test" in arrays else _main_part(arrays))


def class_names(y: NDArray[Any]) -> tuple[str, ...]:
    """Return the distinct names in `y`: in numeric order if all are integers, else as text."""
    names = [str(name) for name in np.unique(y)]
    return tuple(sorted(names, key=int) if all(map(_is_integer, names)) else names)


def learnable_classes(y: NDArray[Any]) -> tuple[str, ...]:
    """Return the class names of a target to learn.

    Raises
    ------
    ValueError
        There is only one, or there are so many that `y` hardly holds classes.
    """
    names = class_names(y)
    if len(names) == 1:
        raise ValueError(f"the target is {names[0]!r} in all samples, there is nothing to learn")
    if len(names) > max(_PLAUSIBLE_CLASSES, len(y) // 2):
        raise ValueError(
            f"the target has {len(names)} distinct values in {len(y)} samples, too many for "
            "classes; if it is a number to predict, give --loss squared_error"
        )
    return names


def encode(y: NDArray[Any], names: Sequence[str]) -> NDArray[np.int64]:
    """Return the index in `names` of each entry of `y`.

    Raises
    ------
    ValueError
        An entry is not in `names`.
    """
    labels = {name: label for label, name in enumerate(names)}
    found, inverse = np.unique(y, return_inverse=True)
    for name in found:
        if name not in labels:
            raise ValueError(f"class {str(name)!r} is unknown; the classes are {', '.join(names)}")
    return np.array([labels[name] for name in found], dtype=np.int64)[inverse]


def hold_out(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Split samples at random into a part to keep and a part of the given share to hold out.

    Classes are split one by one, so that both parts have them in the same proportions. Equal
    seeds give equal parts. Samples keep their order.

    Raises
    ------
    ValueError
        There are too few samples for that.
    """
    classes = samples.y if samples.has_classes else np.zeros(len(samples))
    held = np.zeros(len(samples), dtype=np.bool_)
    held[random_share(np.random.default_rng(seed), classes, share)] = True
    if not held.any():
        raise ValueError(f"{len(samples)} samples are too few to hold out a part for testing")
    return samples.take(~held), samples.take(held)


def _kind(data: str) -> str:
    """Return "bundled", "folder" or the ending of a file that can be read."""
    path = Path(data)
    suffix = path.suffix.lower()
    if data in _BUNDLED:
        return "bundled"
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no {data}: give {', '.join(_BUNDLED)}, a folder with the MNIST files, "
            "or an .npz, .npy or .csv file"
        )
    if suffix not in (".npz", ".npy", ".csv"):
        raise ValueError(f"cannot tell what {data} holds: its name must end in .npz, .npy or .csv")
    return suffix


def _from_dataset(name: str, data: Dataset, classes: bool | None) -> Source:
    if classes is False:
        raise ValueError(f"{name} holds classes: the loss must be softmax_cross_entropy")
    names = np.array(data.class_names)
    return Source(
        name,
        Samples(data.X_train, names[data.y_train]),
        Samples(data.X_test, names[data.y_test]),
    )


def _read_npz(path: Path, classes: bool | None) -> Source:
    arrays = _load_arrays(path)
    train = _numpy_samples(path, arrays, _main_part(arrays), classes)
    if "X_test" not in arrays:
        return Source(path.stem, train)
    test = _numpy_samples(path, arrays, "_test", train.has_classes)
    for name, a, b in (("X", train.X, test.X), ("y", train.y, test.y)):
        if a.shape[1:] != b.shape[1:]:
            raise ValueError(
                f"{path}: {name}_test must be as wide as the {name} to train on, "
                f"got the shapes {b.shape} and {a.shape}"
            )
    return Source(path.stem, train, test)


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by name; the array of an .npy file is called X."""
    with path.open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"X": loaded}
            names = loaded.files
            arrays = {name: loaded[name] for name in names if name in _ARRAYS}
        except Exception as error:  # damaged files raise a dozen kinds, from SyntaxError to OSError
            raise ValueError(f"{path} cannot be read as a NumPy file: {error}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # np.load returns the bytes of other files
            raise ValueError(f"{path} cannot be read as a NumPy file: {name} is no array")
    if "X" not in arrays and "X_train" not in arrays:
        raise ValueError(
            f"{path} must hold the arrays X_train and y_train, or X and y; "
            f"it holds: {', '.join(names) or 'nothing'}"
        )
    return arrays


def _main_part(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return what follows "X" and "y" in the names of the arrays to train on."""
    return "_train" if "X_train" in arrays else ""


def _checked_features(path: Path, arrays: Mapping[str, NDArray[Any]], part: str) -> NDArray[Any]:
    X = arrays[f"X{part}"]
    if X.ndim != 2 or X.size == 0 or X.dtype.kind not in "fiub":
        raise ValueError(
            f"{path}: X{part} must hold numbers in the shape (n, features), "
            f"got {X.dtype} in the shape {X.shape}"
        )
    return X


def _numpy_samples(
    path: Path, arrays: Mapping[str, NDArray[Any]], part: str, classes: bool | None
) -> Samples:
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
            f"{y.dtype} in the shape {y.shape}; for numbers to predict give --loss squared_error"
        )
    if not classes and (y.ndim > 2 or y.size == 0 or y.dtype.kind not in "fiub"):
        raise ValueError(
            f"{path}: y{part} must hold numbers in the shape (n,) or (n, outputs), "
            f"got {y.dtype} in the shape {y.shape}"
        )
    return Samples(X, y.astype(np.str_ if classes else np.float64))


def _read_csv(
    path: Path, target: str | None, classes: bool | None, columns: Sequence[str]
) -> Source:
    if target is None:
        raise ValueError(
            f"name the column to predict with --target; "
            f"the columns of {path}: {', '.join(_csv_header(_csv_rows(path), path))}"
        )
    features, X, cells = _csv_table(path, columns, target)
    return Source(
        path.stem, Samples(X, _csv_targets(path, target, cells, classes)), columns=features
    )


def _csv_table(
    path: Path, columns: Sequence[str], target: str | None
) -> tuple[tuple[str, ...], NDArray[np.float64], list[tuple[int, str]]]:
    """Return the names of the features, their values, and row number and text of each target."""
    rows = _csv_rows(path)
    names = _csv_header(rows, path)
    for name in columns if target is None else [*columns, target]:
        if name not in names:
            raise ValueError(f"{path} has no column {name!r}; its columns: {', '.join(names)}")
    features = tuple(columns) or tuple(name for name in names if name != target)
    places = [names.index(name) for name in features]
    X: list[NDArray[np.float64]] = []
    targets: list[tuple[int, str]] = []
    for row, cells in rows:
        if len(cells) != len(names):
            raise ValueError(
                f"{path}, row {row} has {len(cells)} cells, but the header has {len(names)}"
            )
        X.append(_csv_numbers(path, row, features, [cells[place] for place in places]))
        if target is not None:
            targets.append((row, cells[names.index(target)].strip()))
    if not X or not features:
        raise ValueError(f"{path} has a header, but no {'rows' if features else 'features'}")
    return features, np.stack(X), targets


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number, counted from 1, and the cells of each row that is not blank."""
    try:
        # utf-8-sig drops the mark that spreadsheet programs write at the start.
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row, cells in enumerate(csv.reader(file), start=1):
                if cells:
                    yield row, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error


def _csv_header(rows: Iterator[tuple[int, list[str]]], path: Path) -> list[str]:
    for _, cells in rows:
        names = [cell.strip() for cell in cells]
        for name, count in Counter(names).items():
            if count > 1:
                raise ValueError(f"{path} has {count} columns {name!r}")
        return names
    raise ValueError(f"{path} is empty: it must start with a row of column names")


def _csv_numbers(
    path: Path, row: int, columns: Sequence[str], cells: Sequence[str]
) -> NDArray[np.float64]:
    try:
        values = np.array(list(map(float, cells)))
    except ValueError:
        pass
    else:
        if np.isfinite(values).all():
            return values
    name, cell = next(pair for pair in zip(columns, cells, strict=True) if not _is_finite(pair[1]))
    raise ValueError(f"{path}, row {row}, column {name!r}: {cell!r} is not a finite number")


def _csv_targets(
    path: Path, column: str, cells: Sequence[tuple[int, str]], classes: bool | None
) -> NDArray[Any]:
    texts = [text for _, text in cells]
    if classes is None:
        classes = all(map(_is_integer, texts)) or not all(map(_is_finite, texts))
    if not classes:
        return np.concatenate([_csv_numbers(path, row, [column], [text]) for row, text in cells])
    for row, text in cells:
        if not text:
            raise ValueError(f"{path}, row {row}, column {column!r} is empty")
    return np.array(texts)


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_integer(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True
