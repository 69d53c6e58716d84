"""Optimizers: frozen settings that tell the compiled step what to do with a gradient g."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kernels import optimizer as kernel_optimizer
from .layout import aligned_zeros

__all__ = ["SGD", "Adam", "Optimizer"]


def _check(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (low < value if open_low else low <= value) or not value < high:
        bracket = "(" if open_low else "["
        raise ValueError(f"{name} must be in {bracket}{low:g}, {high:g}), got {value!r}")


class Optimizer:
    """What all optimizers share: how the kernels are told about them."""

    @property
    def code(self) -> int:
        """The code by which the kernels know the rule."""
        raise NotImplementedError

    @property
    def moments(self) -> int:
        """How many vectors of state the rule keeps, each as long as the parameters."""
        raise NotImplementedError

    def hyperparameters(self, dtype: np.dtype[Any]) -> NDArray[np.float64]:
        """Return the numbers of the rule, in the order that the kernels expect.

        Raises ValueError if one of them is of no use to a network of this dtype.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent: full-batch, mini-batch or single-sample, as `fit`'s `batch_size` says.

    theta <- theta - learning_rate g, or with momentum
    m <- momentum m + g, theta <- theta - learning_rate m.

    Parameters
    ----------
    learning_rate
        Size of the step, above 0.
    momentum
        Decay of the velocity m, in [0, 1).

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number or out of its range.

    References
    ----------
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods" (1964).

    Examples
    --------
    >>> SGD(learning_rate=0.1)
    SGD(learning_rate=0.1, momentum=0.0)
    """

    learning_rate: float = 0.01
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _check("learning_rate", self.learning_rate, 0.0, math.inf, open_low=True)
        _check("momentum", self.momentum, 0.0, 1.0)

    @property
    def code(self) -> int:
        """The code by which the kernels know the rule."""
        return kernel_optimizer.CODES["momentum" if self.momentum else "sgd"]

    @property
    def moments(self) -> int:
        """One velocity with momentum, else nothing."""
        return 1 if self.momentum else 0

    def hyperparameters(self, dtype: np.dtype[Any]) -> NDArray[np.float64]:
        """Return learning rate and momentum."""
        return np.array([self.learning_rate, self.momentum, 0.0, 0.0])


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: steps from exponential means of the gradient and of its square.

    m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g**2,
    theta <- theta - learning_rate m^ / (sqrt(v^) + epsilon)
    with m^ = m / (1 - beta1**t), v^ = v / (1 - beta2**t) at step t = 1, 2, ...

    Parameters
    ----------
    learning_rate
        Size of the step, above 0.
    beta1, beta2
        Decays of the two means, in [0, 1).
    epsilon
        Added outside the root, above 0.

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number or out of its range.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    Examples
    --------
    >>> Adam(1e-3).beta2
    0.999
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _check("learning_rate", self.learning_rate, 0.0, math.inf, open_low=True)
        _check("beta1", self.beta1, 0.0, 1.0)
        _check("beta2", self.beta2, 0.0, 1.0)
        _check("epsilon", self.epsilon, 0.0, math.inf, open_low=True)

    @property
    def code(self) -> int:
        """The code by which the kernels know the rule."""
        return kernel_optimizer.CODES["adam"]

    @property
    def moments(self) -> int:
        """The two means."""
        return 2

    def hyperparameters(self, dtype: np.dtype[Any]) -> NDArray[np.float64]:
        """Return learning rate, beta1, beta2 and epsilon, which must not be 0 in the dtype."""
        if dtype.type(self.epsilon) == 0:
            raise ValueError(f"epsilon must be above 0 in {dtype}, got {self.epsilon!r}")
        return np.array([self.learning_rate, self.beta1, self.beta2, self.epsilon])


def moment_vectors(optimizer: Optimizer, like: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the zero vectors of state for parameters `like`; those not needed are empty."""
    return [aligned_zeros(len(like) if i < optimizer.moments else 0, like.dtype) for i in range(2)]
