"""Optimizers: frozen settings that tell the compiled step what to do with a gradient g.

A learning rate is a number above 0, a `Schedule`, or a function of the step's number 0, 1, ...;
step t of an equation counts from 1. Defaults are PyTorch's unless said otherwise.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ._checks import check_flag, check_number, check_whole
from ._names import meant
from ._schedule import RateLike, as_schedule
from .kernels import optimizer as kernel_optimizer
from .kernels.optimizer import (
    DECAY_1,
    DECAY_2,
    EPSILON_INSIDE,
    EPSILON_OUTSIDE,
    GAIN_2,
    GRADIENT_RATE,
    RATE,
    ROOT,
    SHRINK,
)
from .layout import aligned_zeros

__all__ = [
    "LBFGS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "GradientDescent",
    "NAdam",
    "Optimizer",
    "RMSProp",
]

_NAMES = [name for name in __all__ if name != "Optimizer"]

Table = NDArray[np.float64]


class Optimizer:
    """What all optimizers share: how the kernels are told about them."""

    is_full_batch: ClassVar[bool] = False
    """Whether every step takes all samples, whatever `batch_size` says."""

    @property
    def code(self) -> int:
        """The code by which the kernels know the rule."""
        raise NotImplementedError

    @property
    def moments(self) -> tuple[bool, bool]:
        """Whether the rule keeps a first and a second moment."""
        return False, False

    @property
    def initial_second(self) -> float:
        """What the second moments are before the first step."""
        return 0.0

    def hyper(self, dtype: np.dtype[Any]) -> Table:
        """Return the constants of the rule, at the indices that the kernels name.

        Raises ValueError if one of them is of no use to a network of this dtype.
        """
        return np.zeros(kernel_optimizer.CONSTANTS)

    def coefficients(self, first_step: int, rates: Table) -> Table:
        """Return a row of the kernels' table for each of the steps first_step + 1, ...

        Parameters
        ----------
        first_step
            Steps that were done before.
        rates
            Learning rate of each step, float64 [n].

        Returns
        -------
        NDArray[np.float64]
            [n, 4]: rate of the moment, rate of the gradient, factor on the root, factor on theta.
        """
        table = np.zeros((len(rates), kernel_optimizer.COLUMNS))
        table[:, RATE] = rates
        table[:, ROOT] = table[:, SHRINK] = 1.0
        return table


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent: full-batch, mini-batch or single-sample, as `fit`'s `batch_size` says.

    theta <- theta - learning_rate g, or with momentum
    m <- momentum m + g, theta <- theta - learning_rate m, or Nesterov's
    m <- momentum m + g, theta <- theta - learning_rate (momentum m + g).

    Parameters
    ----------
    learning_rate
        Size of the step. PyTorch's is 0.001.
    momentum
        Decay of the velocity m, in [0, 1).
    nesterov
        Whether the gradient is taken as if at the point where the velocity leads; needs momentum.

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be.

    References
    ----------
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods" (1964).
    I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML
    2013; the variables are PyTorch's, which stand at the point ahead.

    Examples
    --------
    >>> SGD(learning_rate=0.1, momentum=0.9, nesterov=True)
    SGD(learning_rate=0.1, momentum=0.9, nesterov=True)
    """

    learning_rate: RateLike = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        as_schedule(self.learning_rate)
        check_number(self.momentum, "momentum", 0.0, 1.0)
        check_flag(self.nesterov, "nesterov")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")

    @property
    def code(self) -> int:
        """The code by which the kernels know the rule."""
        return kernel_optimizer.MOMENTUM if self.momentum else kernel_optimizer.SGD

    @property
    def moments(self) -> tuple[bool, bool]:
        """The velocity, with momentum."""
        return bool(self.momentum), False

    def hyper(self, dtype: np.dtype[Any]) -> Table:
        """Return the constants: the decay of the velocity."""
        hyper = super().hyper(dtype)
        hyper[DECAY_1] = self.momentum
        return hyper

    def coefficients(self, first_step: int, rates: Table) -> Table:
        """Return a row of the kernels' table for each of the steps first_step + 1, ..."""
        table = super().coefficients(first_step, rates)
        if self.nesterov:
            table[:, RATE] = self.momentum * rates
            table[:, GRADIENT_RATE] = rates
        return table


@dataclass(frozen=True)
class GradientDescent(Optimizer):
    """Gradient descent on all samples at once: theta <- theta - learning_rate g.

    Parameters
    ----------
    learning_rate
        Size of the step. "lipschitz": 1 / L, where L bounds the curvature of the loss, so that no
        step can raise it; `fit` computes L and says for which networks it can.

    Raises
    ------
    TypeError, ValueError
        If the learning rate is not what it should be.

    References
    ----------
    Y. Nesterov, "Introductory lectures on convex optimization" (2004), section 1.2.3.

    Examples
    --------
    >>> GradientDescent("lipschitz").is_full_batch
    True
    """

    is_full_batch: ClassVar[bool] = True

    learning_rate: RateLike | str = 0.01

    def __post_init__(self) -> None:
        if not isinstance(self.learning_rate, str):
            as_schedule(self.learning_rate)
        elif self.learning_rate != "lipschitz":
            raise ValueError(
                f"learning_rate must be a rate or 'lipschitz', got {self.learning_rate!r}"
            )

    @property
    def code(self) -> int:
        """The code by which the kernels know the rule."""
        return kernel_optimizer.SGD


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Adagrad: steps divided by the root of the sum of all squared gradients so far.

    v <- v + g**2, theta <- theta - learning_rate g / (sqrt(v) + epsilon).

    Parameters
    ----------
    learning_rate
        Size of the step.
    epsilon
        Above 0.
    initial_accumulator
        v before the first step, at least 0.
    epsilon_inside_root
        Whether the divisor is sqrt(v + epsilon), as in the paper, instead.

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be.

    References
    ----------
    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12 (2011).

    Examples
    --------
    >>> Adagrad(0.1).epsilon
    1e-10
    """

    learning_rate: RateLike = 0.01
    epsilon: float = 1e-10
    initial_accumulator: float = 0.0
    epsilon_inside_root: bool = False

    def __post_init__(self) -> None:
        as_schedule(self.learning_rate)
        check_number(self.epsilon, "epsilon", 0.0, open_low=True)
        check_number(self.initial_accumulator, "initial_accumulator", 0.0)
        check_flag(self.epsilon_inside_root, "epsilon_inside_root")

    @property
    def code(self) -> int:
        """The code by which the kernels know the rule."""
        return kernel_optimizer.SCALED

    @property
    def moments(self) -> tuple[bool, bool]:
        """The sum of squares."""
        return False, True

    @property
    def initial_second(self) -> float:
        """What the sums of squares are before the first step."""
        return float(self.initial_accumulator)

    def hyper(self, dtype: np.dtype[Any]) -> Table:
        """Return the constants; ValueError if epsilon is 0 in the dtype."""
        hyper = super().hyper(dtype)
        hyper[DECAY_2] = hyper[GAIN_2] = 1.0
        _set_epsilon(hyper, self.epsilon, self.epsilon_inside_root, dtype)
        return hyper


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """RMSProp: steps divided by the root of the exponential mean of squared gradients.

    v <- decay v + (1 - decay) g**2, theta <- theta - learning_rate g / (sqrt(v) + epsilon).

    Parameters
    ----------
    learning_rate
        Size of the step.
    decay
        Of the mean, in [0, 1). PyTorch calls it alpha; in the lecture it is 0.9.
    epsilon
        Above 0.
    epsilon_inside_root
        Whether the divisor is sqrt(v + epsilon) instead.

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be.

    References
    ----------
    T. Tieleman, G. Hinton, "Lecture 6.5: RMSProp", Coursera: Neural networks for machine learning
    (2012).

    Examples
    --------
    >>> RMSProp(1e-3).decay
    0.99
    """

    learning_rate: RateLike = 0.01
    decay: float = 0.99
    epsilon: float = 1e-8
    epsilon_inside_root: bool = False

    def __post_init__(self) -> None:
        as_schedule(self.learning_rate)
        check_number(self.decay, "decay", 0.0, 1.0)
        check_number(self.epsilon, "epsilon", 0.0, open_low=True)
        check_flag(self.epsilon_inside_root, "epsilon_inside_root")

    @property
    def code(self) -> int:
        """The code by which the kernels know the rule."""
        return kernel_optimizer.SCALED

    @property
    def moments(self) -> tuple[bool, bool]:
        """The mean of squares."""
        return False, True

    def hyper(self, dtype: np.dtype[Any]) -> Table:
        """Return the constants; ValueError if epsilon is 0 in the dtype."""
        hyper = super().hyper(dtype)
        hyper[DECAY_2], hyper[GAIN_2] = self.decay, 1.0 - self.decay
        _set_epsilon(hyper, self.epsilon, self.epsilon_inside_root, dtype)
        return hyper


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: steps from exponential means of the gradient and of its square.

    m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g**2,
    theta <- theta - learning_rate m^ / (sqrt(v^) + epsilon)
    with m^ = m / (1 - beta1**t), v^ = v / (1 - beta2**t) at step t = 1, 2, ...

    Parameters
    ----------
    learning_rate
        Size of the step.
    beta1, beta2
        Decays of the two means, in [0, 1).
    epsilon
        Above 0.
    epsilon_inside_root
        Whether the divisor is sqrt(v^ + epsilon) instead.

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    Examples
    --------
    >>> Adam(1e-3).beta2
    0.999
    """

    learning_rate: RateLike = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_inside_root: bool = False

    def __post_init__(self) -> None:
        as_schedule(self.learning_rate)
        check_number(self.beta1, "beta1", 0.0, 1.0)
        check_number(self.beta2, "beta2", 0.0, 1.0)
        check_number(self.epsilon, "epsilon", 0.0, open_low=True)
        check_flag(self.epsilon_inside_root, "epsilon_inside_root")

    @property
    def code(self) -> int:
        """The code by which the kernels know the rule."""
        return kernel_optimizer.ADAM

    @property
    def moments(self) -> tuple[bool, bool]:
        """The two means."""
        return True, True

    def hyper(self, dtype: np.dtype[Any]) -> Table:
        """Return the constants; ValueError if epsilon is 0 in the dtype."""
        hyper = super().hyper(dtype)
        hyper[DECAY_1] = self.beta1
        hyper[DECAY_2], hyper[GAIN_2] = self.beta2, 1.0 - self.beta2
        _set_epsilon(hyper, self.epsilon, self.epsilon_inside_root, dtype)
        return hyper

    def coefficients(self, first_step: int, rates: Table) -> Table:
        """Return a row of the kernels' table for each of the steps first_step + 1, ..."""
        table = super().coefficients(first_step, rates)
        t = first_step + 1.0 + np.arange(len(rates))
        table[:, RATE] = rates / (1.0 - self.beta1**t)
        table[:, ROOT] = 1.0 / np.sqrt(1.0 - self.beta2**t)
        return table


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: theta shrinks by itself, not through the gradient.

    theta <- (1 - learning_rate weight_decay) theta, then Adam's step. Every parameter shrinks, the
    biases too.

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon, epsilon_inside_root
        As `Adam`.
    weight_decay
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be.

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2; the
    decay is multiplied by the learning rate, as in PyTorch.

    Examples
    --------
    >>> AdamW(weight_decay=0.1).coefficients(0, np.array([0.5]))[0, 3]
    np.float64(0.95)
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.weight_decay, "weight_decay", 0.0)

    def coefficients(self, first_step: int, rates: Table) -> Table:
        """Return a row of the kernels' table for each of the steps first_step + 1, ..."""
        table = super().coefficients(first_step, rates)
        table[:, SHRINK] = 1.0 - rates * self.weight_decay
        return table


@dataclass(frozen=True)
class NAdam(Adam):
    """Adam with Nesterov's momentum, whose decay mu_t rises from about beta1 / 2 to beta1.

    m and v as in Adam, theta <- theta - learning_rate m^ / (sqrt(v^) + epsilon) with
    m^ = mu_{t+1} m / (1 - mu_1 ... mu_{t+1}) + (1 - mu_t) g / (1 - mu_1 ... mu_t),
    mu_t = beta1 (1 - 0.96**(t momentum_decay) / 2).

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon, epsilon_inside_root
        As `Adam`; the learning rate is 0.002 by default.
    momentum_decay
        How fast mu_t rises, at least 0.

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be.

    References
    ----------
    T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.

    Examples
    --------
    >>> NAdam().learning_rate
    0.002
    """

    learning_rate: RateLike = 2e-3
    momentum_decay: float = 4e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.momentum_decay, "momentum_decay", 0.0)

    def coefficients(self, first_step: int, rates: Table) -> Table:
        """Return a row of the kernels' table for each of the steps first_step + 1, ..."""
        table = super().coefficients(first_step, rates)
        t = np.arange(1.0, first_step + len(rates) + 2.0)
        mu = self.beta1 * (1.0 - 0.5 * 0.96 ** (t * self.momentum_decay))
        product = np.cumprod(mu)
        table[:, RATE] = rates * (mu / (1.0 - product))[first_step + 1 :]
        table[:, GRADIENT_RATE] = rates * ((1.0 - mu) / (1.0 - product))[first_step:-1]
        return table


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """L-BFGS on all samples at once: quasi-Newton steps with a line search, by SciPy.

    An epoch is an iteration of the method, which needs no learning rate.

    Parameters
    ----------
    history
        Pairs of steps and differences of gradients that make up the model of the curvature.
    tolerance
        Training ends early when no entry of the gradient is larger, at least 0.

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be.

    References
    ----------
    D. C. Liu, J. Nocedal, "On the limited memory BFGS method for large scale optimization" (1989).

    Examples
    --------
    >>> LBFGS(history=20)
    LBFGS(history=20, tolerance=1e-09)
    """

    is_full_batch: ClassVar[bool] = True

    history: int = 10
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        check_whole(self.history, "history", 1)
        check_number(self.tolerance, "tolerance", 0.0)

    @property
    def code(self) -> int:
        """KEEP: the kernels compute the gradient and leave the parameters alone."""
        return kernel_optimizer.KEEP


def check_optimizer(value: Any) -> Optimizer:
    """Return the optimizer; TypeError if it is none, with what may be meant."""
    if isinstance(value, Optimizer):
        return value
    name = getattr(value, "__name__", value)  # of the class, or a name as elsewhere
    kind = meant(name, _NAMES) if isinstance(name, str) else None
    hint = "" if kind is None else f"; did you mean {kind}()?"
    raise TypeError(f"optimizer must be an Optimizer like Adam(), got {value!r}{hint}")


def moment_vectors(optimizer: Optimizer, like: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the first and second moments before step 1 for parameters `like`.

    Those that are not needed are empty.
    """
    first, second = (
        aligned_zeros(len(like) if needed else 0, like.dtype) for needed in optimizer.moments
    )
    second += like.dtype.type(optimizer.initial_second)
    return [first, second]


def _set_epsilon(hyper: Table, epsilon: float, inside: bool, dtype: np.dtype[Any]) -> None:
    """Enter epsilon, which must not be 0 in the dtype: zero gradients divide zero by it."""
    if dtype.type(epsilon) == 0:
        raise ValueError(f"epsilon must be above 0 in {dtype}, got {epsilon!r}")
    hyper[EPSILON_INSIDE if inside else EPSILON_OUTSIDE] = epsilon
