"""What a model file remembers of the data it was trained on, in the model's metadata."""

import json
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

import fastmlp as fm

__all__ = [
    "class_names",
    "columns",
    "names_for",
    "read_labelled",
    "remember",
    "target",
    "targets",
]


def remember(net: fm.MLP, names: Sequence[str], columns: Sequence[str], target: str | None) -> None:
    """Keep in the model what evaluate and predict need to know of the data."""
    if names:
        net.metadata["class_names"] = json.dumps(names)
    if columns:
        net.metadata["columns"] = json.dumps(columns)
        if target is not None:
            net.metadata["target"] = target


def columns(net: fm.MLP) -> tuple[str, ...]:
    """Return the columns of a table that are the model's features; empty if there was no table."""
    return _recall(net, "columns")


def target(net: fm.MLP) -> str | None:
    """Return the column of a table that the model has learnt."""
    return net.metadata.get("target")


def class_names(net: fm.MLP) -> tuple[str, ...]:
    """Return the names of the classes; 0, 1, ... if the model was not trained by a command."""
    return _saved_class_names(net) or tuple(map(str, range(_n_classes(net))))


def read_labelled(
    net: fm.MLP, data: str, column: str | None
) -> "tuple[fm.datasets.Samples, tuple[str, ...]]":
    """Return the samples to compare a model with, and the names of its classes.

    They are the test part of the data, or all of it if it has none.
    """
    from fastmlp.datasets._read import is_table

    if column is None and is_table(data):
        column = target(net)
    source = fm.datasets.read(data, target=column, classes=net.is_classifier, columns=columns(net))
    part = source.train if source.test is None else source.test
    return part, names_for(net, part) if net.is_classifier else ()


def names_for(net: fm.MLP, samples: "fm.datasets.Samples") -> tuple[str, ...]:
    """Return the names of a model's classes; one without names takes them from the samples."""
    names = _saved_class_names(net) or samples.class_names
    return names if len(names) == _n_classes(net) else class_names(net)


def targets(samples: "fm.datasets.Samples", names: Sequence[str]) -> NDArray[Any]:
    """Return what a network compares its outputs with: labels, or numbers if there are no names."""
    return samples.encode(names) if names else samples.y


def _n_classes(net: fm.MLP) -> int:
    return max(net.layer_sizes[-1], 2)  # one output tells two classes apart


def _recall(net: fm.MLP, key: str) -> tuple[str, ...]:
    names = json.loads(net.metadata.get(key, "[]"))
    if not isinstance(names, list):
        raise ValueError(f"the model's metadata {key!r} must be a list of names, got {names!r}")
    return tuple(map(str, names))


def _saved_class_names(net: fm.MLP) -> tuple[str, ...]:
    names = _recall(net, "class_names")
    if names and len(names) != _n_classes(net):
        raise ValueError(
            f"the model must have {_n_classes(net)} class names, got {len(names)}: "
            f"{', '.join(names)}"
        )
    return names
