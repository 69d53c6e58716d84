"""A network from scikit-learn's `MLPClassifier` or `MLPRegressor`."""

import json
from typing import TYPE_CHECKING, Any

from ..activations import Activation
from .chain import Chain

if TYPE_CHECKING:
    from ..mlp import MLP

__all__ = ["from_sklearn"]

ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
LOSSES = {
    "softmax": "softmax_cross_entropy",
    "logistic": "binary_cross_entropy",
    "identity": "half_squared_error",
    "exp": "poisson",
}


def from_sklearn(estimator: Any) -> "MLP":
    """Return the network of a fitted MLP of scikit-learn, with its parameters and its loss.

    `predict_proba` of a classifier and `predict` of a regressor are the estimator's, in its dtype,
    up to rounding; of one target, `predict` gives [n, 1] here. `predict` of a classifier gives
    numbers of classes, whose names are in the metadata as ``class_names`` if they are others. The
    penalty `alpha` is not taken over, as it belongs to a batch size: it is l2 times that.

    Parameters
    ----------
    estimator
        A fitted ``sklearn.neural_network.MLPClassifier`` or ``MLPRegressor``, or any object with
        their fitted attributes. Of an estimator of fastmlp's it is the network itself, norms and
        all; with ``preset="tabular"`` it takes what ``encoder_.transform`` gives.

    Returns
    -------
    MLP
        A network of its own: later changes of the estimator do not concern it.

    Raises
    ------
    TypeError
        The estimator is not such an object, or not fitted.
    ValueError
        Its activation is unknown, or its parameters are not finite.

    References
    ----------
    https://scikit-learn.org/stable/modules/neural_networks_supervised.html

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> fitted = SimpleNamespace(  # as an MLPRegressor
    ...     activation="tanh",
    ...     out_activation_="identity",
    ...     coefs_=[np.ones((2, 3)), np.ones((3, 1))],
    ...     intercepts_=[np.zeros(3), np.zeros(1)],
    ... )
    >>> from_sklearn(fitted)
    MLP([2, 3, 1], activation=['tanh'], loss='half_squared_error', dtype='float64', seed=0)
    """
    net = _own_network(estimator) or _network(estimator)
    names = [str(name) for name in getattr(estimator, "classes_", ())]
    if names != [str(number) for number in range(len(names))]:
        net.metadata["class_names"] = json.dumps(names)
    return net


def _own_network(estimator: Any) -> "MLP | None":
    """A copy of the network that an estimator of fastmlp's has; None of any other."""
    from ..mlp import MLP  # mlp.py imports this package

    if not isinstance(getattr(estimator, "network_", None), MLP):
        return None
    net: MLP = estimator._network().clone()
    return net


def _network(estimator: Any) -> "MLP":
    try:
        hidden, end = estimator.activation, estimator.out_activation_
        weights, biases = estimator.coefs_, estimator.intercepts_
    except AttributeError as error:
        raise TypeError(
            f"estimator must be a fitted MLPClassifier or MLPRegressor, got {estimator!r}"
        ) from error
    if hidden not in ACTIVATIONS or end not in LOSSES:
        raise ValueError(f"activations must be known, got {hidden!r}, and {end!r} of the outputs")
    chain = Chain()
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if number > 0:
            chain.activation(Activation(ACTIVATIONS[hidden]))
        chain.linear(weight, bias)
    return chain.network(LOSSES[end])
