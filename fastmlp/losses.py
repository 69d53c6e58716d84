"""The losses: what they are, what their targets must be, and how the kernels are told of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import array_of
from ._checks import (
    check_distributions,
    check_labels,
    check_number,
    check_sequence,
    check_targets,
    check_within,
    is_sequence,
    is_table,
)
from ._names import check_name
from .kernels import loss as kernel_loss

__all__ = ["NAMES", "Loss", "resolve", "targets_for"]

NAMES = tuple(kernel_loss.CODES)
OPTIONS = {
    "softmax_cross_entropy": ("label_smoothing", "class_weight"),
    "binary_cross_entropy": ("label_smoothing", "class_weight"),
    "huber": ("delta",),
    "pinball": ("quantile",),
}


@dataclass(frozen=True)
class Loss:
    """A loss of the outputs z of a network, which are its last layer's and linear.

    The loss of a sample is a sum over its outputs k. That of a batch is the weighted mean over its
    samples i, sum_i w_i L_i / sum_i w_i, where w_i = 1 unless there are weights.

    ===================== ======================================= ========================== =====
    name                  a term of L, with d = z - y             its derivative by z_k      notes
    ===================== ======================================= ========================== =====
    softmax_cross_entropy -sum_k t_k ln p_k, p = softmax(z)       p_k sum_j t_j - t_k        1
    binary_cross_entropy  -t ln p - (1 - t) ln(1 - p),            p - t                      2
                          p = 1 / (1 + exp(-z))
    squared_error         d**2                                    2 d
    half_squared_error    d**2 / 2                                d
    huber                 d**2 / 2 if abs(d) <= delta,            d, cut to [-delta, delta]  3
                          else delta (abs(d) - delta / 2)
    absolute_error        abs(d)                                  sign of d                  4
    pinball               (1 - quantile) d if d > 0,              1 - quantile or -quantile  4, 5
                          else -quantile d
    poisson               exp(z) - y z                            exp(z) - y                 6
    ===================== ======================================= ========================== =====

    1. y [n] are labels 0 to K - 1, so q = onehot(y); or y [n, K] are probabilities q. Then
       t_k = c_k ((1 - s) q_k + s / K), with label smoothing s and class weights c. Labels have
       w_i = c_y in the denominator of the mean, as in PyTorch's `cross_entropy`. An answer is
       right if the first of the largest z is that of the largest q.
    2. Outputs are independent labels, y 0, 1 or a probability between. t = (1 - s) y + s / 2. With
       class weights (negative, positive) a term is multiplied by y positive + (1 - y) negative;
       the mean divides by the samples' weights alone. PyTorch's `binary_cross_entropy_with_logits`
       has that factor as `weight`. An answer is right if z > 0 just where y > 1/2.
    3. PyTorch's `huber_loss`.
    4. The derivative at the kink, d = 0, is 0.
    5. The minimum is the quantile of y. scikit-learn: `mean_pinball_loss` with `alpha`.
    6. ln of the mean is z; y >= 0. PyTorch: `poisson_nll_loss` without its constant terms;
       scikit-learn: half of `mean_poisson_deviance`, up to terms of y alone.

    PyTorch and scikit-learn take means over the outputs where this takes sums.

    Parameters
    ----------
    name
        One of the names above.
    label_smoothing
        s of the cross-entropies, in [0, 1).
    class_weight
        Weights above 0 of the cross-entropies: one for each class; of the binary one, two.
    delta
        Where the Huber loss turns from a parabola to lines, above 0.
    quantile
        Of the pinball loss, between 0 and 1: one number, or one for each output.

    Raises
    ------
    TypeError, ValueError
        If the name is unknown, or an option is not one of this loss or out of its range.

    References
    ----------
    R. Müller, S. Kornblith, G. Hinton, "When does label smoothing help?", NeurIPS 2019.
    P. J. Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35 (1964).
    R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46 (1978).
    P. McCullagh, J. A. Nelder, *Generalized linear models* (1989), chapter 6.

    Examples
    --------
    >>> print(Loss("huber", delta=2))
    huber(delta=2.0)
    >>> Loss("softmax_cross_entropy", class_weight=[1, 2, 2]).is_classifier
    True
    """

    name: str
    label_smoothing: float = 0.0
    class_weight: Sequence[float] | None = None
    delta: float = 1.0
    quantile: float | Sequence[float] = 0.5

    def __post_init__(self) -> None:
        check_name(self.name, "loss", NAMES)
        self._set(
            "label_smoothing", check_number(self.label_smoothing, "label_smoothing", 0.0, 1.0)
        )
        self._set("delta", check_number(self.delta, "delta", 0.0, math.inf, open_low=True))
        if self.class_weight is not None:
            self._set_numbers("class_weight", self.class_weight, math.inf)
        if is_sequence(self.quantile):
            self._set_numbers("quantile", self.quantile, 1.0)
        else:
            self._set("quantile", check_number(self.quantile, "quantile", 0.0, 1.0, open_low=True))
        for option in self._given():
            if option not in OPTIONS.get(self.name, ()):
                raise ValueError(f"{option} is not an option of the loss {self.name}")

    def _set(self, option: str, value: Any) -> None:
        object.__setattr__(self, option, value)

    def _set_numbers(self, option: str, values: Any, high: float) -> None:
        items = check_sequence(values, option)
        if not items:
            raise ValueError(f"{option} must not be empty")
        numbers = (
            check_number(x, f"{option}[{i}]", 0.0, high, open_low=True) for i, x in enumerate(items)
        )
        self._set(option, tuple(numbers))

    def _given(self) -> dict[str, Any]:
        """The options that are not what they are by default."""
        options = {field.name: field.default for field in fields(self)[1:]}
        return {
            k: getattr(self, k) for k, default in options.items() if getattr(self, k) != default
        }

    def __str__(self) -> str:
        """Return the name, with the options that were given."""
        given = ", ".join(f"{option}={value}" for option, value in self._given().items())
        return f"{self.name}({given})" if given else self.name

    @property
    def code(self) -> int:
        """The code by which the kernels know the loss."""
        return kernel_loss.CODES[self.name]

    @property
    def is_classifier(self) -> bool:
        """Whether answers are classes, so right or wrong."""
        return self.name in ("softmax_cross_entropy", "binary_cross_entropy")

    def check_outputs(self, outputs: int) -> None:
        """Raise ValueError if a network of so many outputs cannot have this loss."""
        is_softmax = self.name == "softmax_cross_entropy"
        if is_softmax and outputs < 2:
            raise ValueError(f"layer_sizes[-1] must be at least 2 for {self.name}, got {outputs}")
        classes = outputs if is_softmax else 2
        if self.class_weight is not None and len(self.class_weight) != classes:
            raise ValueError(
                f"class_weight must have one weight for each of the {classes} classes, "
                f"got {len(self.class_weight)}"
            )
        if isinstance(self.quantile, tuple) and len(self.quantile) != outputs:
            raise ValueError(
                f"quantile must be one number, or one for each of the {outputs} outputs, "
                f"got {len(self.quantile)}"
            )

    def objective(self, outputs: int) -> kernel_loss.Objective:
        """Return the loss as the kernels of a network with so many outputs take it."""
        self.check_outputs(outputs)
        quantiles = np.full(outputs if self.name == "pinball" else 0, self.quantile, np.float64)
        class_weights = np.array(self.class_weight or (), np.float64)
        return kernel_loss.Objective(
            self.code, self.label_smoothing, self.delta, quantiles, class_weights
        )


def resolve(loss: str | Loss) -> Loss:
    """Return the loss of that name, or the loss itself.

    Raises
    ------
    ValueError
        If it is neither, or the name is unknown.
    """
    return loss if isinstance(loss, Loss) else Loss(loss)


def targets_for(
    loss: Loss,
    y: ArrayLike,
    samples: int,
    outputs: int,
    dtype: np.dtype[Any],
    name: str = "y",
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return labels int64 [n] and targets [n, outputs] of the dtype; what does not apply is empty.

    Raises
    ------
    TypeError, ValueError
        If y, called `name`, is not what the loss compares `samples` rows of outputs with.

    Examples
    --------
    >>> targets_for(Loss("softmax_cross_entropy"), [0, 1], 2, 2, np.dtype("float32"))[0]
    array([0, 1])
    """
    y = array_of(y, name)
    labels, targets = np.zeros(0, np.int64), np.zeros((0, outputs), dtype)
    if loss.name == "softmax_cross_entropy":
        if is_table(y, name):
            targets = check_distributions(y, samples, outputs, dtype, name)
        else:
            labels = check_labels(y, samples, outputs, name)
        return labels, targets
    targets = check_targets(y, samples, outputs, dtype, name)
    if loss.name == "binary_cross_entropy":
        check_within(targets, 0.0, 1.0, name)
    elif loss.name == "poisson":
        check_within(targets, 0.0, math.inf, name)
    return labels, targets
