"""Linear maps, norms, activations and dropout, in the order of their application: a network.

Other programs put them in any order. An `MLP` has layers of a linear map, then at most one norm,
then an activation, then dropout. What comes too early for that gets a linear map of its own, the
identity: its products are exact, so predictions are the same.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import io
from ..activations import Activation
from ..losses import Loss
from ..losses import resolve as resolve_loss
from ..norms import BatchNorm, LayerNorm

if TYPE_CHECKING:
    from ..mlp import MLP

Array = NDArray[Any]
WIDEST = 2**13  # units of an identity, whose matrix has that many rows and columns


@dataclass
class Layer:
    """One layer; `arrays` are its tensors, by the kinds of `fastmlp.layout`."""

    arrays: dict[str, Array]
    norm: BatchNorm | LayerNorm | None = None
    activation: Activation | None = None
    dropout: float = 0.0
    is_closed: bool = False  # it has its activation: neither norm nor activation may follow

    @property
    def width(self) -> int:
        """Its outputs."""
        return int(self.arrays["weight"].shape[1])


@dataclass
class Chain:
    """A network in the making. Every method raises ValueError if shapes do not fit."""

    layers: list[Layer] = field(default_factory=list)
    input_dropout: float = 0.0
    scales: tuple[Array, Array] | None = None  # factor and offset that await a linear map

    @property
    def width(self) -> int | None:
        """The outputs so far, None if any number of inputs would do."""
        if self.scales is not None:
            return len(self.scales[0])
        return self.layers[-1].width if self.layers else None

    def linear(self, weight: ArrayLike, bias: ArrayLike | None = None) -> None:
        """A linear map x W + b with W [n_in, n_out]."""
        w = numbers(weight, "weight")
        if w.ndim != 2 or 0 in w.shape or self.width not in (None, len(w)):
            inputs = "n" if self.width is None else self.width
            raise ValueError(f"weight must have shape ({inputs}, outputs), got {w.shape}")
        b = np.zeros(w.shape[1], w.dtype) if bias is None else row(bias, w.shape[1], "bias")
        if self.scales is not None:
            factor, offset = self.scales
            self.scales = None
            w, b = factor[:, None] * w, b + offset @ w
        self.layers.append(Layer({"weight": w, "bias": b}))

    def scale(self, factor: ArrayLike, offset: ArrayLike) -> None:
        """Multiply and shift each number of a row: the next linear map takes that in."""
        f = numbers(factor, "scale")
        f = row(f, f.size if self.width is None else self.width, "scale")
        offset = row(offset, len(f), "offset")
        self._settle()
        self.scales = f, offset

    def norm(self, norm: BatchNorm | LayerNorm, width: int, **arrays: ArrayLike) -> None:
        """A norm of so many units, with its gain, shift, running_mean and running_variance."""
        self._settle()
        if self.width not in (None, width):
            raise ValueError(f"a norm must have {self.width} units, got {width}")
        layer = self.layers[-1] if self.layers else None
        if layer is None or layer.is_closed or layer.norm is not None:
            layer = self._identity(width)
        layer.norm = norm
        layer.arrays |= {kind: row(array, width, kind) for kind, array in arrays.items()}

    def activation(self, activation: Activation, slope: ArrayLike | None = None) -> None:
        """An activation; the slope of a prelu, one number or one for each unit."""
        self._settle()
        width = self.width
        if width is None:
            raise ValueError(f"there must be a linear map before the activation {activation}")
        layer = self.layers[-1] if not self.layers[-1].is_closed else self._identity(width)
        layer.activation, layer.is_closed = activation, True
        if slope is not None:
            layer.arrays["slope"] = row(slope, width if activation.per_unit else 1, "slope")

    def dropout(self, probability: float) -> None:
        """Dropout of the last layer's outputs, or of the inputs; an activation may still follow.

        Of two in a row, a unit must survive both.
        """
        self._settle()
        if not self.layers:
            self.input_dropout += probability - self.input_dropout * probability
            return
        layer = self.layers[-1]
        layer.dropout += probability - layer.dropout * probability

    def network(self, loss: str | Loss) -> "MLP":
        """Return the network: of float64 if one of its arrays is, else float32."""
        from ..mlp import MLP  # mlp.py imports this package

        self._settle()
        if not self.layers:
            raise ValueError("there is no linear map")
        last = self.layers[-1]
        if last.is_closed or last.norm is not None:
            last = self._identity(last.width)
        hidden = self.layers[:-1]
        arrays = {
            f"layers.{number}.{kind}": array
            for number, layer in enumerate(self.layers)
            for kind, array in layer.arrays.items()
        }
        io.check_values(arrays)
        net = MLP(
            [len(self.layers[0].arrays["weight"]), *(layer.width for layer in self.layers)],
            activation=[layer.activation or Activation("identity") for layer in hidden],
            loss=resolve_loss(loss),
            norm=[layer.norm for layer in hidden],
            dropout=[self.input_dropout, *(layer.dropout for layer in hidden)],
            initializer="zeros",
            dtype=np.result_type(np.float32, *arrays.values()),
        )
        for tensor, view in io.tensors_of(net):
            if tensor.name in arrays:  # else what a norm begins with: gain 1, shift 0
                view[...] = arrays[tensor.name]
        net.layout.spread(net.theta)
        return net

    def _settle(self) -> None:
        if self.scales is not None:
            self._identity(len(self.scales[0]))

    def _identity(self, width: int) -> Layer:
        if width > WIDEST:
            raise ValueError(
                f"it needs a linear map of its own, and {width} units are too many for one: "
                f"at most {WIDEST}"
            )
        self.linear(np.eye(width, dtype=np.float32))
        return self.layers[-1]


def numbers(values: ArrayLike, name: str) -> Array:
    """Return an array of floating-point numbers."""
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise ValueError(f"{name} must be an array of floating-point numbers, got {array.dtype}")
    return array


def row(values: ArrayLike, width: int, name: str) -> Array:
    """Return a vector of so many numbers; the array may be a matrix of one row."""
    array = numbers(values, name)
    if array.size != width or array.shape[-1:] not in ((width,), ()):
        raise ValueError(f"{name} must have shape ({width},), got {array.shape}")
    return array.reshape(width)
