"""Reading samples from whatever holds them: a data set, a folder, a file, standard input.

Whatever the input, its targets come as names of classes (text) or as numbers (float64). The order
of a model's class names turns names into the labels 0 to K-1, so labels mean the same whatever file
they come from.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmlp._checks import check_flag, check_path, check_sequence
from fastmlp.datasets import _arrays, _tables
from fastmlp.datasets._dataset import Dataset
from fastmlp.datasets._mnist import load_mnist, load_mnist157
from fastmlp.datasets._samples import Samples, Source

__all__ = ["LOADERS", "is_table", "read", "read_features"]

LOADERS: dict[str, Callable[[], Dataset]] = {"mnist157": load_mnist157, "mnist": load_mnist}
"""The data sets that have a name."""

_ENDINGS = (".npz", ".npy", *_tables.ENDINGS)
_IN_WORDS = "an .npz, .npy, .csv, .jsonl or .parquet file"

Data = str | os.PathLike[str]


def read(
    data: Data,
    *,
    target: Data | None = None,
    classes: bool | None = None,
    columns: Sequence[str] = (),
) -> Source:
    r"""Read samples with their targets.

    Parameters
    ----------
    data
        - "mnist157" or "mnist", which is downloaded if it is not there; ``./mnist`` is a file or
          folder of that name;
        - a folder with MNIST's IDX files, or with ``X_train.npy``, ``y_train.npy`` and perhaps
          ``X_test.npy``, ``y_test.npy``, or with ``X.npy``, ``y.npy``: these are mapped and not
          read, so they may be larger than memory;
        - an ``.npz`` file with arrays of these names, or an ``.npy`` file with the features;
        - a table in a ``.csv``, ``.jsonl`` or ``.parquet`` file (which needs the extra
          ``parquet``), or "-" for CSV or JSON lines on standard input. All but the target must be
          finite numbers; a CSV file starts with a row of names, JSON lines are objects.
    target
        The column of a table that holds the targets, or the ``.npy`` file with those of an
        ``.npy`` file.
    classes
        Whether the targets are classes. None decides by what they are: text and integers are
        classes, other numbers are not.
    columns
        The columns of a table that hold the features; without any, all but the target.

    Returns
    -------
    Source
        The samples, and a part for testing if the input has one.

    Raises
    ------
    ValueError
        The content is not what it should be; the message names the file and the place.
    OSError
        The input cannot be read.
    ImportError
        An extra is missing: ``parquet`` for Parquet, ``data`` to download MNIST.

    Examples
    --------
    >>> import tempfile
    >>> import fastmlp as fm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "insects.csv")
    ...     _ = path.write_text("length,width,insect\n1.5,0.3,bee\n0.4,0.1,ant\n")
    ...     insects = fm.datasets.read(path, target="insect")
    >>> insects.columns
    ('length', 'width')
    >>> insects.train.class_names
    ('ant', 'bee')
    >>> insects.train.encode(insects.train.class_names)
    array([1, 0])
    """
    data = check_path(data, "data")
    target = None if target is None else check_path(target, "target")
    columns = check_sequence(columns, "columns")
    if classes is not None:
        check_flag(classes, "classes")
    path, kind = Path(data), _kind(data)
    if kind in _tables.ENDINGS or kind == _tables.STANDARD_INPUT:
        features, X, y = _tables.read_table(data, target, classes, columns, labelled=True)
        assert y is not None
        name = "stdin" if kind == _tables.STANDARD_INPUT else path.stem
        return Source(name, Samples(X, y), columns=features)
    if kind == ".npy":
        if target is None:
            raise ValueError(f"{data} holds no targets: target must be the .npy file with them")
        arrays = {"X": _arrays.load_array(path), "y": _arrays.load_array(Path(target))}
        return _arrays.source_of(path, arrays, classes)
    if target is not None:
        raise ValueError(f"target names a column of a table, and {data} is none")
    if kind == ".npz":
        return _arrays.source_of(path, _arrays.load_arrays(path), classes)
    if kind == "name":
        return _from_dataset(data, LOADERS[data](), classes)
    mapped = _arrays.load_folder(path)
    if mapped is not None:
        return _arrays.source_of(path, mapped, classes)
    return _from_dataset(path.resolve().name, load_mnist(path), classes)


def read_features(data: Data, columns: Sequence[str] = ()) -> NDArray[Any]:
    """Read features only, ``[n, features]``: of the test part if there is one, else of all.

    Parameters and errors are those of `read`. Targets need not be there and are not looked at.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.datasets.read_features("mnist157").shape
    (3055, 784)
    """
    data = check_path(data, "data")
    columns = check_sequence(columns, "columns")
    path, kind = Path(data), _kind(data)
    if kind in _tables.ENDINGS or kind == _tables.STANDARD_INPUT:
        return _tables.read_table(data, None, None, columns, labelled=False)[1]
    if kind == ".npy":
        return _arrays.features_of(path, {"X": _arrays.load_array(path)})
    if kind == ".npz":
        return _arrays.features_of(path, _arrays.load_arrays(path))
    if kind == "name":
        return LOADERS[data]().X_test
    mapped = _arrays.load_folder(path)
    return load_mnist(path).X_test if mapped is None else _arrays.features_of(path, mapped)


def is_table(data: Data) -> bool:
    """Whether an input has named columns."""
    data = check_path(data, "data")
    return data == _tables.STANDARD_INPUT or Path(data).suffix.lower() in _tables.ENDINGS


def _kind(data: str) -> str:
    """Return "name", "-", "folder" or the ending of a file that can be read."""
    path = Path(data)
    suffix = path.suffix.lower()
    if data in LOADERS:
        return "name"
    if data == _tables.STANDARD_INPUT:
        return data
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no {data}: give {', '.join(LOADERS)}, a folder, or {_IN_WORDS}"
        )
    if suffix not in _ENDINGS:
        raise ValueError(
            f"cannot tell what {data} holds: its name must end in {', '.join(_ENDINGS)}"
        )
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
