"""Starting values of the parameters.

Values are drawn in float64, layer by layer, and then cast to the network's dtype: networks of
one seed agree in float32 and float64 up to rounding. Every function here takes a source of random
numbers, the inputs and the outputs of a layer, and returns a new array ``(n_in, n_out)``; one of
your own may do the same.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._names import check_name

__all__ = [
    "NAMES",
    "Initializer",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "initialize",
    "lecun_normal",
    "lecun_uniform",
    "orthogonal",
    "resolve",
    "zeros",
]

Draw = Callable[[np.random.Generator, int, int], ArrayLike]
Initializer = str | Draw | NDArray[Any] | None
"""Of one layer: by the activation (None), by name, by a function, or the weights themselves."""

_RECTIFIERS = frozenset(
    {
        "relu",
        "leaky_relu",
        "prelu",
        "elu",
        "gelu",
        "gelu_tanh",
        "silu",
        "mish",
        "softplus",
    }
)
"""Activations that pass about half of a centred input, for which He et al. derive the factor 2."""


def lecun_normal(rng: np.random.Generator, n_in: int, n_out: int) -> NDArray[np.float64]:
    """Draw ``W[i, o] ~ N(0, 1 / n_in)``: a linear layer keeps the variance of its inputs.

    SELU's fixed point needs it.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller: Efficient BackProp. 1998.

    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter: Self-Normalizing Neural Networks.
    NeurIPS 2017.

    Examples
    --------
    >>> weights = lecun_normal(np.random.default_rng(0), 400, 100)
    >>> round(float(weights.std()), 2)
    0.05
    """
    return rng.normal(0.0, math.sqrt(1.0 / n_in), size=(n_in, n_out))


def lecun_uniform(rng: np.random.Generator, n_in: int, n_out: int) -> NDArray[np.float64]:
    """Draw ``W[i, o] ~ U(-limit, limit)``, ``limit = sqrt(3 / n_in)``: variance ``1 / n_in``.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller: Efficient BackProp. 1998.

    Examples
    --------
    >>> weights = lecun_uniform(np.random.default_rng(0), 300, 100)
    >>> bool(abs(weights).max() <= 0.1)
    True
    """
    return _uniform(rng, 3.0 / n_in, n_in, n_out)


def glorot_normal(rng: np.random.Generator, n_in: int, n_out: int) -> NDArray[np.float64]:
    """Draw ``W[i, o] ~ N(0, 2 / (n_in + n_out))``: the variance of `glorot_uniform`.

    References
    ----------
    X. Glorot, Y. Bengio: Understanding the difficulty of training deep feedforward neural networks.
    AISTATS 2010.

    Examples
    --------
    >>> weights = glorot_normal(np.random.default_rng(0), 150, 50)
    >>> round(float(weights.std()), 2)
    0.1
    """
    return rng.normal(0.0, math.sqrt(2.0 / (n_in + n_out)), size=(n_in, n_out))


def he_normal(rng: np.random.Generator, n_in: int, n_out: int) -> NDArray[np.float64]:
    """Draw weights from a normal distribution, for layers that a rectifier follows.

    ``W[i, o] ~ N(0, 2 / n_in)``: the variance of the signal stays the same from layer to layer
    when half of it is cut off by a rectifier.

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

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun: Delving Deep into Rectifiers: Surpassing Human-Level
    Performance on ImageNet Classification. ICCV 2015, equation 10.

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
    between keeping the variance of the signal forward and of the gradient backward.

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

    References
    ----------
    X. Glorot, Y. Bengio: Understanding the difficulty of training deep feedforward neural networks.
    AISTATS 2010, equation 16.

    Examples
    --------
    >>> rng = np.random.Generator(np.random.Philox(0))
    >>> weights = glorot_uniform(rng, 400, 200)
    >>> weights.shape, bool(abs(weights).max() <= 0.1)
    ((400, 200), True)
    """
    return _uniform(rng, 6.0 / (n_in + n_out), n_in, n_out)


def he_uniform(rng: np.random.Generator, n_in: int, n_out: int) -> NDArray[np.float64]:
    """Draw ``W[i, o] ~ U(-limit, limit)``, ``limit = sqrt(6 / n_in)``: variance ``2 / n_in``.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun: Delving Deep into Rectifiers: Surpassing Human-Level
    Performance on ImageNet Classification. ICCV 2015.

    Examples
    --------
    >>> weights = he_uniform(np.random.default_rng(0), 600, 100)
    >>> bool(abs(weights).max() <= 0.1)
    True
    """
    return _uniform(rng, 6.0 / n_in, n_in, n_out)


def orthogonal(
    rng: np.random.Generator, n_in: int, n_out: int, gain: float = 1.0
) -> NDArray[np.float64]:
    """Draw ``gain`` times a matrix with orthonormal rows or columns, whichever are fewer.

    Of all such matrices, each is equally probable: it is the Q of a normal matrix's factors Q R,
    with signs such that R has a positive diagonal (F. Mezzadri, Notices of the AMS 54, 2007).

    References
    ----------
    A. M. Saxe, J. L. McClelland, S. Ganguli: Exact solutions to the nonlinear dynamics of learning
    in deep linear neural networks. ICLR 2014.

    Examples
    --------
    >>> weights = orthogonal(np.random.default_rng(0), 5, 3)
    >>> np.allclose(weights.T @ weights, np.eye(3))
    True
    """
    q, r = np.linalg.qr(rng.normal(size=(max(n_in, n_out), min(n_in, n_out))))
    q *= gain * np.where(np.diag(r) < 0, -1.0, 1.0)
    return np.asarray(q if n_in >= n_out else q.T)


def zeros(rng: np.random.Generator, n_in: int, n_out: int) -> NDArray[np.float64]:
    """Return zeros, without a draw: for a network without hidden layers.

    Hidden units that begin equal stay equal.

    Examples
    --------
    >>> zeros(np.random.default_rng(0), 1, 2)
    array([[0., 0.]])
    """
    return np.zeros((n_in, n_out))


NAMES: dict[str, Draw] = {
    "lecun_normal": lecun_normal,
    "lecun_uniform": lecun_uniform,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "xavier_normal": glorot_normal,
    "xavier_uniform": glorot_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "orthogonal": orthogonal,
    "zeros": zeros,
}
"""The functions that a name may stand for."""


def resolve(
    initializer: Initializer | Sequence[Initializer], layers: int
) -> tuple[Initializer, ...]:
    """Return the initializer of each layer, names replaced by their functions.

    Parameters
    ----------
    initializer
        For all layers: None (see `initialize`), a name in `NAMES`, a function ``(rng, n_in, n_out)
        -> array``, or a NumPy array of the weights. Or a sequence with one of these for each layer.
    layers
        How many layers the network has, the output layer included.

    Raises
    ------
    TypeError, ValueError
        If an initializer is none of these, a name is unknown, or there are not as many as layers.

    Examples
    --------
    >>> first, second = resolve([None, "zeros"], 2)
    >>> first is None, second is zeros
    (True, True)
    """
    if isinstance(initializer, str) or not isinstance(initializer, Sequence):
        return (_resolve_one(initializer, "initializer"),) * layers
    if len(initializer) != layers:
        raise ValueError(
            f"initializer must be one for all, or one for each of the {layers} layers, "
            f"got {len(initializer)}"
        )
    return tuple(_resolve_one(one, f"initializer[{i}]") for i, one in enumerate(initializer))


def initialize(
    weights: Sequence[NDArray[np.floating[Any]]],
    biases: Sequence[NDArray[np.floating[Any]]],
    activations: Sequence[str],
    rng: np.random.Generator,
    initializer: Initializer | Sequence[Initializer] = None,
) -> None:
    """Overwrite weights and biases with the starting values of a network. Biases are zero.

    A layer whose initializer is None gets :func:`he_normal` if its activation is relu, leaky_relu,
    prelu, elu, gelu, gelu_tanh, silu, mish or softplus, :func:`lecun_normal` if it is selu, and
    :func:`glorot_uniform` otherwise and for the output layer.

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
    initializer
        Of all layers, or a list with one for each, see :func:`resolve`.

    Raises
    ------
    TypeError, ValueError
        As :func:`resolve`, and if the weights that are given, or that a function returns, are not
        finite numbers of the layer's shape; nothing is written then.

    Examples
    --------
    >>> weights, biases = [np.empty((4, 3)), np.empty((3, 2))], [np.empty(3), np.empty(2)]
    >>> initialize(weights, biases, ["relu"], np.random.Generator(np.random.Philox(0)))
    >>> biases[1]
    array([0., 0.])
    """
    initializers = resolve(initializer, len(weights))
    values = []
    for layer, (weight, activation, chosen) in enumerate(
        zip(weights, [*activations, "identity"], initializers, strict=True)
    ):
        draw = _by_activation(activation) if chosen is None else chosen
        value = draw(rng, *weight.shape) if callable(draw) else draw
        values.append(_checked(value, weight, f"initializer of layer {layer + 1}"))
    for weight, bias, value in zip(weights, biases, values, strict=True):
        weight[...] = value
        bias[...] = 0.0


def _uniform(
    rng: np.random.Generator, limit_squared: float, n_in: int, n_out: int
) -> NDArray[np.float64]:
    limit = math.sqrt(limit_squared)
    return rng.uniform(-limit, limit, size=(n_in, n_out))


def _by_activation(activation: str) -> Draw:
    if activation in _RECTIFIERS:
        return he_normal
    return lecun_normal if activation == "selu" else glorot_uniform


def _resolve_one(initializer: Initializer, name: str) -> Initializer:
    if isinstance(initializer, str):
        return NAMES[check_name(initializer, name, NAMES)]
    if initializer is None or callable(initializer) or isinstance(initializer, np.ndarray):
        return initializer
    raise TypeError(
        f"{name} must be None, a name, a function (rng, n_in, n_out) -> array or a NumPy array, "
        f"got {initializer!r}"
    )


def _checked(
    values: ArrayLike, weight: NDArray[np.floating[Any]], name: str
) -> NDArray[np.floating[Any]]:
    """Return the values in the dtype of the weights, after checks of shape and finiteness."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must give an array of real numbers, got dtype {array.dtype}")
    if array.shape != weight.shape:
        raise ValueError(f"{name} must give shape {weight.shape}, got {array.shape}")
    with np.errstate(over="ignore"):
        array = array.astype(weight.dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must give numbers that are finite in {weight.dtype}")
    return array
