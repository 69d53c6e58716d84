"""Check of the gradient against central differences."""

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from .mlp import MLP

__all__ = ["GradientCheckReport", "TensorCheck", "gradient_check"]


@dataclass(frozen=True)
class TensorCheck:
    """Comparison of the two gradients of one weight or bias.

    Attributes
    ----------
    name
        The parameter, as in saved files: ``layers.0.weight``, ``layers.0.bias`` and so on.
    shape
        Its shape, without padding.
    relative_error
        ``||numeric - analytic|| / (||numeric|| + ||analytic|| + 1e-12)`` over the whole tensor.
    max_abs_difference
        Largest ``|numeric - analytic|`` of one entry.
    worst_index
        Index of that entry.
    analytic, numeric
        Its two derivatives.
    """

    name: str
    shape: tuple[int, ...]
    relative_error: float
    max_abs_difference: float
    worst_index: tuple[int, ...]
    analytic: float
    numeric: float


@dataclass(frozen=True)
class GradientCheckReport:
    """Result of :func:`gradient_check`; ``str(report)`` is a table.

    Attributes
    ----------
    tensors
        One comparison per weight and bias, from the first layer to the last.
    relative_error
        The relative error over all parameters together.
    tolerance, epsilon
        The arguments of the check.
    n_parameters
        Number of parameters, all of which were compared.
    """

    tensors: tuple[TensorCheck, ...]
    relative_error: float
    tolerance: float
    epsilon: float
    n_parameters: int

    @property
    def ok(self) -> bool:
        """Whether the relative error of every tensor and of all together is below tolerance."""
        # NaN compares as false, so a gradient that is not finite never passes.
        return all(
            error < self.tolerance
            for error in (self.relative_error, *(tensor.relative_error for tensor in self.tensors))
        )

    def __str__(self) -> str:
        width = max(len(tensor.name) for tensor in self.tensors)
        lines = [
            f"gradient check {'passed' if self.ok else 'FAILED'}: "
            f"relative error {self.relative_error:.1e}, tolerance {self.tolerance:.0e}, "
            f"{self.n_parameters} parameters, epsilon {self.epsilon:.0e}",
            f"  {'tensor':<{width}}  {'shape':>12}  {'rel. error':>10}  "
            f"{'max. diff.':>10}  {'at':>12}  {'analytic':>13}  {'numeric':>13}",
        ]
        for tensor in self.tensors:
            mark = " " if tensor.relative_error < self.tolerance else "!"
            lines.append(
                f"{mark} {tensor.name:<{width}}  {tensor.shape!s:>12}  "
                f"{tensor.relative_error:>10.1e}  {tensor.max_abs_difference:>10.1e}  "
                f"{tensor.worst_index!s:>12}  {tensor.analytic:>13.6e}  {tensor.numeric:>13.6e}"
            )
        return "\n".join(lines)


def gradient_check(
    net: "MLP", X: ArrayLike, y: ArrayLike, *, epsilon: float = 1e-5, tolerance: float = 1e-7
) -> GradientCheckReport:
    """Compare the gradient of the loss with central differences, for every parameter.

    For each parameter p: ``(L(p + epsilon) - L(p - epsilon)) / (2 epsilon)``, with the mean loss L
    over the batch. Everything is computed in float64 on a copy: a float32 network is checked with
    its parameters converted, and `net` is never modified.

    The cost is two forward passes per parameter, so a small network and a few rows are enough.

    Parameters
    ----------
    net
        The network to check.
    X
        Samples, shape ``(n, layer_sizes[0])``.
    y
        Targets as the network's loss wants them.
    epsilon
        Size of the perturbation. The differences are off by the order of ``epsilon**2`` (curvature)
        plus ``1e-16 / epsilon`` (rounding); the default balances the two.
    tolerance
        The relative error at and above which the check has failed.

    Returns
    -------
    GradientCheckReport
        ``report.ok`` tells the result. A failed check raises nothing.

    Raises
    ------
    ValueError, TypeError
        As ``net.evaluate(X, y)`` does for bad `X` or `y`; `epsilon` or `tolerance` is not a
        positive number.

    Notes
    -----
    ReLU has no derivative at 0. A parameter whose perturbation carries a unit's input across that
    kink shows a large difference although the gradient is right. Such parameters are not left out:
    check again with other data or with a smaller `epsilon` before suspecting the gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> net = fm.MLP([3, 5, 2], activation="tanh", loss="squared_error", seed=0)
    >>> X = np.linspace(-1.0, 1.0, 12).reshape(4, 3)
    >>> fm.gradient_check(net, X, np.sin(X[:, :2])).ok
    True
    """
    _check_positive("epsilon", epsilon)
    _check_positive("tolerance", tolerance)
    probe = net.astype("float64")
    _, gradient = probe.loss_and_gradient(X, y)
    batch = probe._checked(X, y)

    def loss() -> float:
        return probe._loss(batch)

    names: list[str] = []
    analytic: list[NDArray[np.float64]] = []
    numeric: list[NDArray[np.float64]] = []
    for layer, (weight, bias) in enumerate(zip(probe.weights, probe.biases, strict=True)):
        names += [f"layers.{layer}.weight", f"layers.{layer}.bias"]
        analytic += [gradient.weights[layer], gradient.biases[layer]]
        numeric += [_central_differences(loss, part, epsilon) for part in (weight, bias)]
    # A loss that overflows gives inf - inf: no warning, the report shows the NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        return GradientCheckReport(
            tensors=tuple(map(_compare, names, analytic, numeric)),
            relative_error=_relative_error(_concatenate(analytic), _concatenate(numeric)),
            tolerance=tolerance,
            epsilon=epsilon,
            n_parameters=sum(part.size for part in numeric),
        )


def _central_differences(
    loss: Callable[[], float], parameters: NDArray[np.float64], epsilon: float
) -> NDArray[np.float64]:
    """Differentiate `loss` by each entry of `parameters`, which it reads; all are restored."""
    differences = np.empty(parameters.shape)
    for index in np.ndindex(parameters.shape):
        value = parameters[index]
        parameters[index] = value + epsilon
        above = loss()
        parameters[index] = value - epsilon
        below = loss()
        parameters[index] = value
        differences[index] = (above - below) / (2.0 * epsilon)
    return differences


def _compare(name: str, analytic: NDArray[np.float64], numeric: NDArray[np.float64]) -> TensorCheck:
    difference = np.abs(numeric - analytic)
    # argmax stops at the first NaN, so a value that is not finite is the one reported.
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
    return TensorCheck(
        name=name,
        shape=numeric.shape,
        relative_error=_relative_error(analytic, numeric),
        max_abs_difference=float(difference[worst]),
        worst_index=worst,
        analytic=float(analytic[worst]),
        numeric=float(numeric[worst]),
    )


def _relative_error(analytic: NDArray[np.float64], numeric: NDArray[np.float64]) -> float:
    """Return ``||numeric - analytic|| / (||numeric|| + ||analytic|| + 1e-12)``."""
    distance = np.linalg.norm(numeric - analytic)
    return float(distance / (np.linalg.norm(numeric) + np.linalg.norm(analytic) + 1e-12))


def _concatenate(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([part.ravel() for part in parts])


def _check_positive(name: str, value: float) -> None:
    if not (isinstance(value, numbers.Real) and 0.0 < value < math.inf):
        raise ValueError(f"{name} must be a positive number, got {value!r}")
