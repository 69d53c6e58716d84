"""Starting values of the parameters.

Values are drawn in float64, layer by layer, and then cast to the network's dtype: networks of
one seed agree in float32 and float64 up to rounding.

References
----------
.. [1] X. Glorot, Y. Bengio: Understanding the difficulty of training deep feedforward neural
   networks. AISTATS 2010.
.. [2] K. He, X. Zhang, S. Ren, J. Sun: Delving Deep into Rectifiers: Surpassing Human-Level
   Performance on ImageNet Classification. ICCV 2015.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["glorot_uniform", "he_normal", "initialize"]

_RECTIFIERS = frozenset({"relu", "softplus"})
"""Activations that pass about half of a centred input, for which He et al. derive the factor 2."""


def he_normal(rng: np.random.Generator, n_in: int, n_out: int) -> NDArray[np.float64]:
    """Draw weights from a normal distribution, for layers that a rectifier follows.

    ``W[i, o] ~ N(0, 2 / n_in)``: the variance of the signal stays the same from layer to layer
    when half of it is cut off by a rectifier (He et al. 2015, equation 10).

    Parameters
    ----------
    rng
        Source of the random numbers; it advances by ``n_in * n_out`` normal draws.
    n_in, n_out
        Inputs and outputs of the layer.

    Returns
    -------
    NDArray[np.float64]
        New array of shape ``(n_in, n_out)``.

    Examples
    --------
    >>> rng = np.random.Generator(np.random.Philox(0))
    >>> weights = he_normal(rng, 200, 100)
    >>> weights.shape, round(float(weights.std()), 2)
    ((200, 100), 0.1)
    """
    return rng.normal(0.0, math.sqrt(2.0 / n_in), size=(n_in, n_out))


def glorot_uniform(rng: np.random.Generator, n_in: int, n_out: int) -> NDArray[np.float64]:
    """Draw weights from a uniform distribution, for symmetric or linear layers.

    ``W[i, o] ~ U(-limit, limit)`` with ``limit = sqrt(6 / (n_in + n_out))``: the compromise
    between keeping the variance of the signal forward and of the gradient backward
    (Glorot and Bengio 2010, equation 16).

    Parameters
    ----------
    rng
        Source of the random numbers; it advances by ``n_in * n_out`` uniform draws.
    n_in, n_out
        Inputs and outputs of the layer.

    Returns
    -------
    NDArray[np.float64]
        New array of shape ``(n_in, n_out)``.

    Examples
    --------
    >>> rng = np.random.Generator(np.random.Philox(0))
    >>> weights = glorot_uniform(rng, 400, 200)
    >>> weights.shape, bool(abs(weights).max() <= 0.1)
    ((400, 200), True)
    """
    limit = math.sqrt(6.0 / (n_in + n_out))
    return rng.uniform(-limit, limit, size=(n_in, n_out))


def initialize(
    weights: Sequence[NDArray[np.floating[Any]]],
    biases: Sequence[NDArray[np.floating[Any]]],
    activations: Sequence[str],
    rng: np.random.Generator,
) -> None:
    """Overwrite weights and biases with the starting values of a network.

    Hidden layers with relu or softplus get :func:`he_normal`; hidden layers with another
    activation and the linear output layer get :func:`glorot_uniform`. Biases are zero.

    Parameters
    ----------
    weights
        One array ``[n_in, n_out]`` per layer, written in place in its own dtype.
    biases
        One array ``[n_out]`` per layer, written in place.
    activations
        One name per hidden layer, so one fewer than layers.
    rng
        Source of the random numbers, ``np.random.Generator(np.random.Philox(seed))`` in a network.

    Examples
    --------
    >>> weights, biases = [np.empty((4, 3)), np.empty((3, 2))], [np.empty(3), np.empty(2)]
    >>> initialize(weights, biases, ["relu"], np.random.Generator(np.random.Philox(0)))
    >>> biases[1]
    array([0., 0.])
    """
    for weight, bias, activation in zip(weights, biases, [*activations, "identity"], strict=True):
        draw = he_normal if activation in _RECTIFIERS else glorot_uniform
        weight[...] = draw(rng, *weight.shape)
        bias[...] = 0.0
