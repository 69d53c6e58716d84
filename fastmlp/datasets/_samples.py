"""Samples with their targets, as files hold them: names of classes, or numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmlp._checks import check_number, check_whole
from fastmlp._held_out import random_share

__all__ = ["Samples", "Source", "is_integer"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples and their targets.

    Attributes
    ----------
    X
        Features ``[n, features]``, of any real dtype.
    y
        Names of classes, text ``[n]``; or numbers, float64 ``[n]`` or ``[n, outputs]``.

    Examples
    --------
    >>> samples = Samples(np.eye(3), np.array(["no", "yes", "no"]))
    >>> samples.class_names
    ('no', 'yes')
    >>> samples.encode(samples.class_names)
    array([0, 1, 0])
    """

    X: NDArray[Any]
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.X)

    @property
    def has_classes(self) -> bool:
        """Whether the targets are names of classes."""
        return self.y.dtype.kind == "U"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The distinct names of classes: in numeric order if all are integers, else as text.

        Empty if the targets are numbers.
        """
        if not self.has_classes:
            return ()
        names = [str(name) for name in np.unique(self.y)]
        return tuple(sorted(names, key=int) if all(map(is_integer, names)) else names)

    def encode(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the label of each sample, int64 ``[n]``: the place of its class in `names`.

        Raises
        ------
        ValueError
            A class is not in `names`.
        """
        labels = {name: label for label, name in enumerate(names)}
        found, inverse = np.unique(self.y, return_inverse=True)
        for name in found:
            if name not in labels:
                raise ValueError(
                    f"class {str(name)!r} is unknown; the classes are {', '.join(names)}"
                )
        return np.array([labels[name] for name in found], dtype=np.int64)[inverse]

    def take(self, rows: NDArray[Any]) -> "Samples":
        """Return the samples at these rows, or for which `rows` is true."""
        return Samples(self.X[rows], self.y[rows])

    def hold_out(self, share: float, seed: int) -> "tuple[Samples, Samples]":
        """Split at random into a part to keep and a part of the given share to hold out.

        Classes are split one by one, so that both parts have them in the same proportions. Equal
        seeds give equal parts. Samples keep their order.

        Raises
        ------
        TypeError, ValueError
            The share is not in (0, 1), the seed no whole number of at least 0, or there are too few
            samples for that.
        """
        share = check_number(share, "share", 0.0, 1.0, open_low=True)
        seed = check_whole(seed, "seed", 0, 2**63)
        classes = self.y if self.has_classes else np.zeros(len(self))
        held = np.zeros(len(self), dtype=np.bool_)
        held[random_share(np.random.default_rng(seed), classes, share)] = True
        if not held.any():
            raise ValueError(f"{len(self)} samples are too few to hold out a part for testing")
        return self.take(~held), self.take(held)


@dataclass(frozen=True, eq=False)
class Source:
    """Everything that one input holds, see `read`.

    Attributes
    ----------
    name
        The name of the data set or of the folder; the name of the file without its ending.
    train
        The training samples, or all samples of an input without parts.
    test
        The test samples, if the input has a part for them.
    columns
        Names of the features, from a table's header.
    """

    name: str
    train: Samples
    test: Samples | None = None
    columns: tuple[str, ...] = ()


def is_integer(text: str) -> bool:
    """Whether a text is a whole number."""
    try:
        int(text)
    except ValueError:
        return False
    return True
