"""The formulas of activations and norms: as `to_onnx` writes them, and as others do.

Those of float32 are the operators that every runtime has. ONNX Runtime lacks some of them in
float64, and attributes are float32 whatever the graph is; so those of float64 are made of
operators without attributes. Erf is float32 in both: there is no other.
"""

import math
from collections.abc import Callable

from ..kernels.activation import SELU_LEFT, SELU_SCALE
from .expressions import Operand, Operator, op

Formula = Callable[[Operand, Operand], Operand]
SINGLE, DOUBLE = 1, 11  # onnx.TensorProto.FLOAT and DOUBLE


def below(z: Operand) -> Operand:
    """min(z, 0)."""
    return op("Min", z, 0.0)


def leaky(z: Operand, slope: Operand) -> Operand:
    """max(z, 0) + slope min(z, 0)."""
    return op("Add", op("Relu", z), op("Mul", slope, below(z)))


def softplus(z: Operand) -> Operand:
    """max(z, 0) + ln(1 + e**-|z|)."""
    decay = op("Exp", op("Neg", op("Abs", z)))
    return op("Add", op("Relu", z), op("Log", op("Add", decay, 1.0)))


def elu(z: Operand, alpha: Operand) -> Operand:
    """max(z, 0) + alpha (e**min(z, 0) - 1)."""
    return op("Add", op("Relu", z), op("Mul", alpha, op("Sub", op("Exp", below(z)), 1.0)))


def gelu(z: Operand, erf: Operand) -> Operand:
    """Write z (1 + erf) / 2, in the order of factors that ONNX Runtime makes one kernel of."""
    return op("Mul", op("Mul", z, op("Add", erf, 1.0)), 0.5)


def erf_of(z: Operand) -> Operand:
    """erf(z / sqrt(2))."""
    return op("Erf", op("Div", z, math.sqrt(2)))


def tanh_of(z: Operand, cube: Operand) -> Operand:
    """tanh(sqrt(2 / pi) (z + 0.044715 z**3))."""
    sum_ = op("Add", z, op("Mul", 0.044715, cube))
    return op("Tanh", op("Mul", math.sqrt(2 / math.pi), sum_))


def cube(z: Operand) -> Operand:
    """z**3."""
    return op("Mul", z, op("Mul", z, z))


def single_erf(z: Operand) -> Operand:
    """erf(z / sqrt(2)) of a float64 z, but to the accuracy of float32."""
    argument = op("Cast", op("Div", z, math.sqrt(2)), to=SINGLE)
    return op("Cast", op("Erf", argument), to=DOUBLE)


# name -> formula of (z, parameter): the alpha of leaky_relu and elu, the slopes of prelu
WRITTEN: dict[str, Formula] = {
    "identity": lambda z, _: z,
    "relu": lambda z, _: op("Relu", z),
    "sigmoid": lambda z, _: op("Sigmoid", z),
    "tanh": lambda z, _: op("Tanh", z),
    "softplus": lambda z, _: op("Softplus", z),
    "leaky_relu": lambda z, alpha: op("LeakyRelu", z, alpha=alpha),
    "prelu": lambda z, slope: op("PRelu", z, slope),
    "elu": lambda z, alpha: op("Elu", z, alpha=alpha),
    "selu": lambda z, _: op("Selu", z),
    "gelu": lambda z, _: gelu(z, erf_of(z)),
    "gelu_tanh": lambda z, _: op("Mul", 0.5, op("Mul", z, op("Add", 1.0, tanh_of(z, cube(z))))),
    "silu": lambda z, _: op("Mul", z, op("Sigmoid", z)),
    "mish": lambda z, _: op("Mul", z, op("Tanh", op("Softplus", z))),
}
WRITTEN_DOUBLE: dict[str, Formula] = {
    **WRITTEN,
    "softplus": lambda z, _: softplus(z),
    "leaky_relu": leaky,
    "prelu": leaky,
    "elu": elu,
    "selu": lambda z, _: op(
        "Add",
        op("Mul", SELU_SCALE, op("Relu", z)),
        op("Mul", SELU_LEFT, op("Sub", op("Exp", below(z)), 1.0)),
    ),
    "gelu": lambda z, _: gelu(z, single_erf(z)),
    "mish": lambda z, _: op("Mul", z, op("Tanh", softplus(z))),
}
# what the exporters of PyTorch and newer versions of ONNX write instead
FOREIGN: list[tuple[str, Formula]] = [
    ("softplus", lambda z, _: op("Where", op("Greater", z, 20.0), z, op("Softplus", z))),
    ("gelu", lambda z, _: op("Gelu", z, approximate=b"none")),
    ("gelu", lambda z, _: op("Mul", z, op("Mul", 0.5, op("Add", erf_of(z), 1.0)))),
    ("gelu_tanh", lambda z, _: op("Gelu", z, approximate=b"tanh")),
    (
        "gelu_tanh",
        lambda z, _: op("Mul", z, op("Mul", 0.5, op("Add", tanh_of(z, op("Pow", z, 3.0)), 1.0))),
    ),
    ("mish", lambda z, _: op("Mish", z)),
]


def normed(
    u: Operand, mean: Operand, variance: Operand, epsilon: Operand, gain: Operand, shift: Operand
) -> Operand:
    """Gain (u - mean) / sqrt(variance + epsilon) + shift."""
    sigma = op("Sqrt", op("Add", variance, epsilon))
    return op("Add", op("Mul", op("Div", op("Sub", u, mean), sigma), gain), shift)


def layer_mean(u: Operand) -> Operator:
    """The mean of each row."""
    return op("ReduceMean", u, axes=[-1], keepdims=1)


def layer_variance(u: Operand) -> Operator:
    """The biased variance of each row."""
    difference = op("Sub", u, layer_mean(u))
    return op("ReduceMean", op("Mul", difference, difference), axes=[-1], keepdims=1)


def layer_variance_by_power(u: Operand) -> Operator:
    """The same, as PyTorch writes it."""
    square = op("Pow", op("Sub", u, layer_mean(u)), 2.0)
    return op("ReduceMean", square, axes=[-1], keepdims=1)
