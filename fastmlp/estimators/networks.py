"""The network of an estimator: a new one with scikit-learn's initial values, or one kept."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..architecture import Architecture
from ..mlp import MLP

__all__ = ["continued", "started"]

OF_SCIKIT_LEARN = {"identity", "sigmoid", "tanh", "relu"}


def started(settings: dict[str, Any], dtype: Any, rng: np.random.RandomState) -> MLP:
    """Make a network, with the initial values that scikit-learn draws from the generator.

    Those are uniform in ±sqrt(6 / (n_in + n_out)), or ±sqrt(2 / ...) with logistic units, of
    weights and biases alike (X. Glorot, Y. Bengio, AISTATS 2010). If there is an activation that
    scikit-learn does not know, the values are those of `MLP`, which suit it.
    """
    net = MLP(**settings, dtype=dtype)
    names = {f.name for f in net.activation}
    if not names <= OF_SCIKIT_LEARN:
        return MLP(**settings, dtype=dtype, seed=int(rng.randint(2**31 - 1)))
    factor = 2.0 if names == {"sigmoid"} else 6.0
    for weights, biases in zip(net.weights, net.biases, strict=True):
        bound = np.sqrt(factor / sum(weights.shape))
        weights[...] = rng.uniform(-bound, bound, weights.shape)
        biases[...] = rng.uniform(-bound, bound, biases.shape)
    return net


def continued(settings: dict[str, Any], old: MLP) -> MLP:
    """Return the network that is fitted, or if settings have changed a new one with its values."""
    sizes, activation, norm, dropout = (
        settings[name] for name in ("layer_sizes", "activation", "norm", "dropout")
    )
    architecture = Architecture.of(sizes, activation, norm, dropout)
    if old.architecture == architecture and old.loss == settings["loss"]:
        return old
    net = MLP(**settings, dtype=old.dtype)
    if net.layout.tensors != old.layout.tensors:
        raise ValueError(
            f"going on needs the layers of the fit before, {list(old.layer_sizes)} with their "
            f"parameters, got {list(net.layer_sizes)}"
        )
    net.theta[...], net.running[...] = old.theta, old.running
    return net


def half_squares(weights: tuple[NDArray[Any], ...]) -> float:
    """Half the sum of the squares of all weights, in float64; infinite if it is too large."""
    with np.errstate(over="ignore"):
        return 0.5 * sum(float(np.square(w, dtype=np.float64).sum()) for w in weights)
