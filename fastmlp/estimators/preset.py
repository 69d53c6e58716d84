"""preset="tabular": an estimator's fit by `fastmlp.tabular`, from the table to the network."""

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import _check_sample_weight, _num_samples

from .. import tabular
from ..tabular_encoder import TabularEncoder
from .validation import are_given
from .workers import threads_of

__all__ = ["fit_preset"]

Array = NDArray[Any]
VALIDATION = 0.2
KEPT = {
    *("preset", "categorical_features", "class_weight", "random_state"),
    *("verbose", "callbacks", "progress", "n_jobs"),
}
"""Parameters that leave the network and its training alone, which the preset decides."""


def fit_preset(
    estimator: Any, X: Any, y: Any, sample_weight: Any, others: tuple[Any, Any, Any]
) -> None:
    """Fit the encoder to the table X and the network to what it makes of it.

    `others` are the samples to validate on, their targets and weights; if they are None, a fifth of
    the samples is set aside, by class if there is one label.
    """
    _refuse_others(estimator)
    rng = check_random_state(estimator.random_state)
    # the encoder looks at the table: for y, a table of as many rows will do
    _, y, columns = estimator._checked_targets(np.zeros((_num_samples(X), 1)), y, incremental=False)
    weight = None
    if sample_weight is not None:
        weight = _check_sample_weight(sample_weight, y, ensure_non_negative=True)
    of_classes = estimator._class_weight(y, False)
    if of_classes is not None:
        weight = of_classes if weight is None else weight * of_classes

    X_val, y_val, weight_val = others
    if not are_given(X_val, y_val, weight_val):
        stratify = y if is_classifier(estimator) and y.ndim == 1 else None
        kept, held_out = train_test_split(
            np.arange(len(y)), test_size=VALIDATION, stratify=stratify, random_state=rng
        )
        X_val, columns_val = _safe_indexing(X, held_out), columns[held_out]
        weight_val = None if weight is None else weight[held_out]
        X, columns = _safe_indexing(X, kept), columns[kept]
        weight = None if weight is None else weight[kept]
    else:
        columns_val = estimator._columns(np.asarray(y_val))

    encoder = TabularEncoder(estimator.categorical_features).fit(X)
    estimator.encoder_ = encoder
    estimator.n_features_in_ = encoder.n_features_in_
    if hasattr(encoder, "feature_names_in_"):
        estimator.feature_names_in_ = encoder.feature_names_in_
    head = estimator._head()
    targets, targets_val = columns, columns_val
    if not is_classifier(estimator):
        mean, spread = columns.mean(axis=0), columns.std(axis=0)
        spread[spread == 0] = 1.0
        targets, targets_val = (columns - mean) / spread, (columns_val - mean) / spread
    x = encoder.transform(X)
    name = "squared_error" if not is_classifier(estimator) else head.loss.name
    net = tabular.network(
        x.shape[1], columns.shape[1], name, seed=int(rng.randint(2**31 - 1)), dtype="float32"
    )
    validation = (encoder.transform(X_val), head.targets(targets_val, net.dtype))
    net, history = tabular.train(
        net,
        x,
        head.targets(targets, net.dtype),
        validation=validation if weight_val is None else (*validation, weight_val),
        sample_weight=weight,
        callbacks=estimator.callbacks,
        progress=bool(estimator.progress or estimator.verbose),
        threads=threads_of(estimator.n_jobs),
    )
    if not is_classifier(estimator):
        net = tabular.rescaled(net, mean, spread)
    estimator._adopt(net)
    estimator.n_outputs_, estimator.out_activation_ = columns.shape[1], head.activation
    estimator.n_layers_, estimator.n_iter_ = len(net.layer_sizes), len(history)
    estimator.t_ = len(history) * len(columns)
    estimator.loss_curve_, estimator.loss_ = history.loss, history.loss[-1]
    estimator.validation_loss_curve_ = history.val_loss
    estimator.validation_scores_ = history.val_accuracy or None
    estimator.best_validation_score_ = max(history.val_accuracy, default=None)
    estimator.best_loss_ = None


def _refuse_others(estimator: Any) -> None:
    """The preset decides them; what is set and not heeded would be a trap."""
    if getattr(estimator, "_skl_callbacks", None):
        raise ValueError("preset='tabular' takes fastmlp's callbacks, not those of set_callbacks")
    for name, parameter in inspect.signature(type(estimator).__init__).parameters.items():
        if name == "self" or name in KEPT:
            continue
        value = getattr(estimator, name)
        if not (value is parameter.default or value == parameter.default):
            raise ValueError(f"preset='tabular' decides {name}: leave it out, got {value!r}")
