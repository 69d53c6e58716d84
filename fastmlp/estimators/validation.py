"""The samples that are looked at after each epoch: set aside, or given."""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split

from .heads import Data, Head

__all__ = ["are_given", "score", "set_aside"]

Array = NDArray[Any]


def are_given(X: Any, y: Any, weight: Any) -> bool:
    """Return whether `fit` was given samples to validate on; ValueError if a part is missing."""
    if X is None and y is None and weight is None:
        return False
    if X is None or y is None:
        raise ValueError("X_val and y_val must be given together")
    return True


def set_aside(estimator: Any, data: Data, rng: np.random.RandomState) -> tuple[Data, Data]:
    """The samples to train on, and those that early stopping looks at, as scikit-learn draws them.

    Stratified if there is one column of classes.
    """
    should_stratify = is_classifier(estimator) and data.columns.shape[1] == 1
    kept, held_out = train_test_split(
        np.arange(len(data.columns)),
        random_state=rng,
        test_size=estimator.validation_fraction,
        stratify=data.columns if should_stratify else None,
    )
    if len(held_out) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' "
            "or the size of your dataset."
        )
    return data.take(kept), data.take(held_out)


def score(estimator: Any, head: Head, data: Data, z: Array) -> float:
    """The score of the samples whose outputs are z: by `scoring`, else accuracy or R²."""
    if estimator.scoring is None:
        return head.score(z, data)
    scorer = check_scoring(estimator, estimator.scoring)
    nameless = copy.copy(estimator)  # these samples have lost the names of their features
    vars(nameless).pop("feature_names_in_", None)
    weight = {} if data.weight is None else {"sample_weight": data.weight}
    return float(scorer(nameless, data.batch.x[data.batch.chosen], data.y, **weight))
