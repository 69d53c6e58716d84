"""``fastmlp datasets``: the data sets that have a name."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from fastmlp._cli.arguments import (
    DATASETS,
    Json,
    check_output,
    complete_files,
    complete_names,
    write_file,
)
from fastmlp._cli.base import group
from fastmlp._cli.output import print_facts, print_json, print_line, print_rows
from fastmlp._names import check_name

if TYPE_CHECKING:
    from fastmlp.datasets import Dataset

__all__ = ["app"]

app = group("List, describe, download and export data sets.")

_LICENSE = "CC BY-SA 3.0"
_SOURCE = "Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits"

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help=f"{' or '.join(DATASETS)}.",
        show_default=False,
        autocompletion=complete_names(lambda: DATASETS),
    ),
]


@dataclass(frozen=True)
class _Entry:
    """What is known of a data set before it is read."""

    title: str
    training_samples: int
    test_samples: int
    features: int
    classes: tuple[str, ...]


_ENTRIES = {
    "mnist157": _Entry(
        "the digits 1, 5 and 7 of MNIST, which come with the package",
        *(18_428, 3_055, 784, ("1", "5", "7")),
    ),
    "mnist": _Entry(
        "handwritten digits in 28 x 28 pixels", *(60_000, 10_000, 784, tuple("0123456789"))
    ),
}


@app.command("list")
def list_names(json: Json = False) -> None:
    """List the data sets that commands know by name."""
    if json:
        print_json({"datasets": list(_ENTRIES)})
    else:
        rows = [
            (name, f"{entry.training_samples:,}", f"{entry.test_samples:,}", entry.title)
            for name, entry in _ENTRIES.items()
        ]
        print_rows(("name", "training", "test", "what"), rows)


@app.command()
def info(name: Name, json: Json = False) -> None:
    """Say what a data set is, and where its files are."""
    entry, path = _entry(name), _path(name)
    facts = {
        "name": name,
        "what": entry.title,
        "training_samples": entry.training_samples,
        "test_samples": entry.test_samples,
        "features": entry.features,
        "classes": entry.classes,
        "source": _SOURCE,
        "license": _LICENSE,
        "path": path,
        "downloaded": _is_here(path),
    }
    (print_json if json else print_facts)(facts)


@app.command()
def download(name: Name, json: Json = False) -> None:
    """Download a data set, unless it is here already, and print where it is.

    That is a folder in the user's cache. The files are compared with their
    published checksums.
    """
    _load(name)
    path = _path(name)
    if json:
        print_json({"name": name, "path": path})
    else:
        print_line(str(path))


@app.command()
def export(
    name: Name,
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="The .npz or .csv file to write.",
            show_default=False,
            autocompletion=complete_files([".npz", ".csv"]),
        ),
    ],
    part: Annotated[
        str,
        typer.Option(
            help="What a .csv file gets: train or test. An .npz file has both.",
            autocompletion=complete_names(lambda: ("train", "test")),
        ),
    ] = "train",
    json: Json = False,
) -> None:
    """Write a data set to a file that other programs, and fastmlp, can read.

    NPZ holds X_train, y_train, X_test and y_test, CSV the features f0, f1, ...
    and the column class.
    """
    suffix = output.suffix.lower()
    if suffix not in (".npz", ".csv"):
        raise ValueError(f"OUTPUT must end in .npz or .csv, got {output}")
    if part not in ("train", "test"):
        raise ValueError(f"--part must be train or test, got {part!r}")
    check_output(output)
    data = _load(name)
    write_file(output, _npz(data) if suffix == ".npz" else _csv(data, part))
    if json:
        print_json({"name": name, "output": output})
    else:
        print_line(f"wrote {output}")


def _entry(name: str) -> _Entry:
    return _ENTRIES[check_name(name, "NAME", _ENTRIES)]


def _load(name: str) -> "Dataset":
    from fastmlp.datasets._read import LOADERS

    _entry(name)
    return LOADERS[name]()


def _path(name: str) -> Path | None:
    """Return where a data set is, or would be; None if only the extra data would know."""
    from fastmlp.datasets import _mnist

    if name == "mnist157":
        return _mnist.mnist157_file()
    try:
        return _mnist.mnist_folder()
    except ImportError:
        return None


def _is_here(path: Path | None) -> bool:
    """Whether all files of a data set are there."""
    from fastmlp.datasets._mnist import find_files

    if path is None or path.is_file():
        return path is not None
    try:
        find_files(path)
    except FileNotFoundError:
        return False
    return True


def _npz(data: "Dataset") -> bytes:
    names = np.array(data.class_names)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        X_train=data.X_train,
        y_train=names[data.y_train],
        X_test=data.X_test,
        y_test=names[data.y_test],
    )
    return buffer.getvalue()


def _csv(data: "Dataset", part: str) -> bytes:
    X, y = (data.X_train, data.y_train) if part == "train" else (data.X_test, data.y_test)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(f"f{i}" for i in range(X.shape[1])), "class"])
    for row, label in zip(X, y, strict=True):
        writer.writerow([*row.astype(np.str_), data.class_names[label]])
    return text.getvalue().encode()
