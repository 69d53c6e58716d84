"""Normalisation of a hidden layer's sums before the activation."""

from collections.abc import Sequence
from dataclasses import dataclass

from ._checks import check_number, check_sequence
from ._names import check_name
from .kernels import plan as kernel_plan

__all__ = ["BatchNorm", "LayerNorm"]


@dataclass(frozen=True)
class Norm:
    """What both norms share; a layer is then A = f(gain xhat + shift)."""

    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        epsilon = check_number(self.epsilon, "epsilon", 0.0, open_low=True)
        object.__setattr__(self, "epsilon", epsilon)


@dataclass(frozen=True)
class BatchNorm(Norm):
    """Batch normalisation: xhat = (u - mean) / sqrt(var + epsilon) for each unit over a batch.

    In training, mean and (biased) variance are those of the batch, and running values follow:
    running <- (1 - momentum) running + momentum (mean, unbiased variance). Prediction uses the
    running values. A batch is normalised as a whole, however large it is; with one row, xhat is 0.
    The layer's bias is undone by the mean, so its gradient is zero in training.

    Parameters
    ----------
    epsilon
        Added to the variance, above 0.
    momentum
        Share of the batch in the running values, in [0, 1], as in PyTorch.

    Raises
    ------
    TypeError, ValueError
        If a setting is not a number or out of its range.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift", ICML 2015.

    Examples
    --------
    >>> BatchNorm(momentum=0.01)
    BatchNorm(epsilon=1e-05, momentum=0.01)
    """

    momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        momentum = check_number(self.momentum, "momentum", 0.0, 1.0, closed_high=True)
        object.__setattr__(self, "momentum", momentum)

    @property
    def code(self) -> int:
        """The code by which the kernels know the norm."""
        return kernel_plan.BATCH_NORM


@dataclass(frozen=True)
class LayerNorm(Norm):
    """Layer normalisation: xhat = (u - mean) / sqrt(var + epsilon) for each row over its units.

    Training and prediction do the same; the variance is the biased one.

    Parameters
    ----------
    epsilon
        Added to the variance, above 0.

    Raises
    ------
    TypeError, ValueError
        If epsilon is not a number or out of its range.

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", arXiv:1607.06450 (2016).

    Examples
    --------
    >>> LayerNorm()
    LayerNorm(epsilon=1e-05)
    """

    @property
    def code(self) -> int:
        """The code by which the kernels know the norm."""
        return kernel_plan.LAYER_NORM


NAMES: dict[str, BatchNorm | LayerNorm] = {"batch": BatchNorm(), "layer": LayerNorm()}
Kind = str | BatchNorm | LayerNorm | None


def resolve(
    norm: Kind | Sequence[Kind], hidden_layers: int
) -> tuple[BatchNorm | LayerNorm | None, ...]:
    """Return one norm, or None, for each hidden layer.

    Raises
    ------
    TypeError, ValueError
        If one is not "batch", "layer", None or a norm, or there are not as many as hidden layers.
    """
    if norm is None or isinstance(norm, (str, BatchNorm, LayerNorm)):
        return (_one(norm),) * hidden_layers
    given = tuple(_one(item) for item in check_sequence(norm, "norm"))
    if len(given) != hidden_layers:
        raise ValueError(
            f"norm must be one, or one for each of the {hidden_layers} hidden layers, "
            f"got {len(given)}"
        )
    return given


def _one(norm: Kind) -> BatchNorm | LayerNorm | None:
    if norm is None or isinstance(norm, (BatchNorm, LayerNorm)):
        return norm
    if not isinstance(norm, str):
        raise TypeError(f"norm must be a name, a BatchNorm, a LayerNorm or None, got {norm!r}")
    return NAMES[check_name(norm, "norm", NAMES)]
