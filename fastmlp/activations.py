"""Activation functions of hidden layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ._checks import check_number, check_sequence
from ._names import check_name
from .kernels import activation as kernel_activation

__all__ = ["NAMES", "Activation", "resolve"]

NAMES = tuple(kernel_activation.CODES)
_DEFAULTS = {"leaky_relu": 0.01, "prelu": 0.25, "elu": 1.0}


@dataclass(frozen=True)
class Activation:
    """An activation function a = f(z), applied to every output z of a hidden layer.

    ========== ====================================== ============================== ======
    name       f(z)                                   f'(z)                          source
    ========== ====================================== ============================== ======
    identity   z                                      1
    relu       max(z, 0)                              1 if z > 0 else 0              [1]_
    sigmoid    s(z) = 1 / (1 + exp(-z))               s(z) (1 - s(z))
    tanh       tanh(z)                                1 - tanh(z)**2
    softplus   ln(1 + exp(z))                         s(z)                           [2]_
    leaky_relu z if z > 0 else alpha z                1 if z > 0 else alpha          [3]_
    prelu      z if z > 0 else p z, p is learnt       1 if z > 0 else p              [4]_
    elu        z if z > 0 else alpha (exp(z) - 1)     1 if z > 0 else alpha exp(z)   [5]_
    selu       1.0507 times elu with alpha = 1.6733   1.0507 times that of elu       [6]_
    gelu       z Phi(z)                               Phi(z) + z phi(z)              [7]_
    gelu_tanh  z (1 + tanh(r)) / 2                    (1 + tanh(r)) / 2              [7]_
                                                      + z r' (1 - tanh(r)**2) / 2
    silu       z s(z)                                 s(z) + z s(z) (1 - s(z))       [7]_
    mish       z g with g = tanh(ln(1 + exp(z)))      g + z s(z) (1 - g**2)          [8]_
    ========== ====================================== ============================== ======

    Phi and phi are the normal distribution function and its density; r = sqrt(2/pi) (z + 0.044715
    z**3) makes gelu_tanh an approximation of gelu. At a kink, z = 0, f' is the slope on the left: 0
    for relu, alpha for leaky_relu and elu, p for prelu, 1.7581 for selu. The gradient by p at z = 0
    is 0.

    Parameters
    ----------
    name
        One of the names above.
    alpha
        Slope of leaky_relu (0.01 unless given), alpha of elu (1), or p of prelu before training
        (0.25). Other activations have none.
    per_unit
        Whether each unit of a prelu layer has a p of its own; otherwise one p serves the layer.

    Raises
    ------
    TypeError
        If the name is no string, alpha no number, or per_unit no bool.
    ValueError
        If the name is unknown, alpha is not finite, or the activation has no such setting.

    References
    ----------
    .. [1] V. Nair, G. E. Hinton: Rectified linear units improve restricted Boltzmann machines.
       ICML 2010.
    .. [2] C. Dugas et al.: Incorporating second-order functional knowledge for better option
       pricing. NIPS 2000.
    .. [3] A. L. Maas, A. Y. Hannun, A. Y. Ng: Rectifier nonlinearities improve neural network
       acoustic models. ICML 2013.
    .. [4] K. He, X. Zhang, S. Ren, J. Sun: Delving deep into rectifiers: surpassing human-level
       performance on ImageNet classification. ICCV 2015.
    .. [5] D.-A. Clevert, T. Unterthiner, S. Hochreiter: Fast and accurate deep network learning
       by exponential linear units (ELUs). ICLR 2016.
    .. [6] G. Klambauer et al.: Self-normalizing neural networks. NIPS 2017.
    .. [7] D. Hendrycks, K. Gimpel: Gaussian error linear units (GELUs). arXiv:1606.08415, 2016.
    .. [8] D. Misra: Mish: a self regularized non-monotonic activation function. BMVC 2020.

    Examples
    --------
    >>> Activation("leaky_relu", alpha=0.2)
    Activation(name='leaky_relu', alpha=0.2, per_unit=False)
    >>> print(Activation("leaky_relu"), Activation("prelu", per_unit=True), Activation("mish"))
    leaky_relu(0.01) prelu(0.25, per_unit) mish
    """

    name: str
    alpha: float | None = None
    per_unit: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"activation must be a name, got {self.name!r}")
        check_name(self.name, "activation", NAMES)
        if not isinstance(self.per_unit, bool):
            raise TypeError(f"per_unit must be True or False, got {self.per_unit!r}")
        if self.per_unit and self.name != "prelu":
            raise ValueError(f"per_unit is a setting of prelu, {self.name} has none")
        if self.alpha is None:
            object.__setattr__(self, "alpha", _DEFAULTS.get(self.name))
            return
        alpha = check_number(self.alpha, "alpha", -math.inf, open_low=True)
        if self.name not in _DEFAULTS:
            raise ValueError(f"alpha is a setting of {', '.join(_DEFAULTS)}; {self.name} has none")
        object.__setattr__(self, "alpha", alpha)

    def __str__(self) -> str:
        if self.alpha is None:
            return self.name
        return f"{self.name}({self.alpha!r}{', per_unit' if self.per_unit else ''})"

    @property
    def code(self) -> int:
        """The code by which the kernels know the activation."""
        return kernel_activation.CODES[self.name]


def resolve(
    activation: str | Activation | Sequence[str | Activation], hidden_layers: int
) -> tuple[Activation, ...]:
    """Return one activation for each hidden layer, from one for all of them or one for each.

    Raises
    ------
    TypeError
        If one of them is neither a name nor an `Activation`.
    ValueError
        If a name is unknown, or there are not as many as hidden layers.

    Examples
    --------
    >>> [str(a) for a in resolve(["relu", Activation("elu", alpha=0.5)], 2)]
    ['relu', 'elu(0.5)']
    """
    if isinstance(activation, (str, Activation)):
        return (_activation(activation),) * hidden_layers
    given = tuple(_activation(item) for item in check_sequence(activation, "activation"))
    if len(given) != hidden_layers:
        raise ValueError(
            "activation must be one for all, or one for each of the "
            f"{hidden_layers} hidden layers, got {len(given)}"
        )
    return given


def _activation(value: str | Activation) -> Activation:
    return value if isinstance(value, Activation) else Activation(value)
