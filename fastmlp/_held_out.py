"""Samples to validate on: given, or a share of those to train on."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._execution import Batch
from .mlp import MLP

__all__ = [
    "Validation",
    "check_share",
    "held_out_rows",
    "random_share",
    "split",
    "validation_batch",
]

Validation = float | tuple[ArrayLike, ...] | None


def split(net: MLP, batch: Batch, validation: Validation, seed: int) -> tuple[Batch, Batch | None]:
    """The samples to train on, and those to validate on if any."""
    if validation is None:
        return batch, None
    if isinstance(validation, tuple):
        return batch, validation_batch(net, validation)
    held_out = held_out_rows(batch, check_share(validation), seed)
    kept = np.setdiff1d(batch.chosen, held_out)
    for rows in (kept, held_out):
        if len(rows) and len(batch.weights) and not batch.weights[rows].any():
            raise ValueError(
                f"validation={validation!r} leaves a part whose sample_weight is all zero"
            )
    if not len(held_out) or not len(kept):
        raise ValueError(
            f"validation={validation!r} of {len(batch)} samples leaves none to "
            f"{'train' if not len(kept) else 'validate'} on"
        )
    return batch.take(kept), batch.take(held_out)


def check_share(validation: Any) -> float:
    """Return a share of the samples in (0, 1)."""
    if isinstance(validation, bool) or not isinstance(validation, (int, float, np.floating)):
        raise TypeError(
            f"validation must be a share or a tuple (X, y), got a {type(validation).__name__}"
            if isinstance(validation, (list, np.ndarray))
            else f"validation must be a share or a tuple (X, y), got {validation!r}"
        )
    if not 0.0 < validation < 1.0:
        raise ValueError(f"validation must be a share in (0, 1), got {validation!r}")
    return float(validation)


def validation_batch(net: MLP, given: tuple[ArrayLike, ...]) -> Batch:
    """Check samples to validate on."""
    if len(given) not in (2, 3):
        raise ValueError(
            "validation must be a share, a pair (X, y) or (X, y, sample_weight), "
            f"got {len(given)} arrays"
        )
    X, y, *weight = given
    names = ("validation[0]", "validation[1]", "validation[2]")
    return net._checked(X, y, weight[0] if weight else None, names)


def held_out_rows(batch: Batch, share: float, seed: int) -> NDArray[np.int64]:
    """Return sorted rows of a random share of the samples: of each class, if there are classes."""
    rng = np.random.Generator(np.random.Philox(seed))
    classes = batch.labels if len(batch.labels) else np.zeros(len(batch), np.int64)
    return random_share(rng, classes, share)


def random_share(
    rng: np.random.Generator, classes: NDArray[Any], share: float
) -> NDArray[np.int64]:
    """Return sorted rows of a random share of each class; `classes` [n] names each row's."""
    groups = [np.flatnonzero(classes == name) for name in np.unique(classes)]
    taken = [rng.permutation(group)[: round(share * len(group))] for group in groups]
    return np.sort(np.concatenate(taken))
