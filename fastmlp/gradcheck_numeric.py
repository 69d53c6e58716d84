"""Derivatives of a network's loss without a backward pass: by differences and by complex steps."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._execution import Batch
from .kernels import gradcheck as kernel_gradcheck
from .kernels import reference
from .kernels.activation import CODES, KINKED
from .layout import Tensor, aligned_zeros, allocate
from .norms import BatchNorm

if TYPE_CHECKING:
    from .mlp import MLP

Array = NDArray[Any]

STACK = 2**20  # complex numbers of the networks computed at once
UNIT = 2.0**-53
SAFETY = 8.0  # roundings of a loss, in units of its last place


@dataclass(frozen=True)
class Numeric:
    """Derivatives in the layout of theta, which of them met a kink, and the error of rounding."""

    values: Array
    bent: Array
    rounding: float


def central_differences(net: "MLP", batch: Batch, training: bool, epsilon: float) -> Numeric:
    """Central differences by all parameters of a float64 network; theta is as it was in the end."""
    theta, layout = net.theta, net.layout
    layout.spread(theta)
    count, widest = len(batch), max(layout.strides)
    plan = allocate(
        net.architecture, layout, net.dtype, rows=count, training=training, seed=net.seed
    ).plan
    sizes = count * kernel_gradcheck.REGIONS * np.array(layout.strides)
    numeric, bent = np.zeros(layout.length), np.zeros(layout.length, np.int8)
    bench = kernel_gradcheck.Bench(
        plan,
        theta,
        net.running,
        batch.as_samples(),
        net.loss.objective(layout.sizes[-1]),
        np.cumsum([0, *sizes[:-1]]),
        aligned_zeros(int(sizes.sum()), net.dtype),
        aligned_zeros(3 * count + (count + 1) * widest, net.dtype),
        np.arange(count),
        np.zeros((3, count)),
        np.zeros(count),
        np.zeros((1, layout.strides[-1])),
    )
    size = kernel_gradcheck.differences(bench, epsilon, numeric, bent)
    scale = 1.0 / _weight(net, batch)
    values, kinks = numeric * scale, bent.astype(bool)
    for tensor in layout.tensors:
        l2, l1 = net.l2[tensor.layer - 1], net.l1[tensor.layer - 1]
        if tensor.kind == "weight" and (l2 or l1):
            w = tensor.view(theta)
            up, down = w + epsilon, w - epsilon
            penalties = l2 / 2 * (up**2 - down**2) + l1 * (np.abs(up) - np.abs(down))
            tensor.view(values)[...] += penalties / (up - down)
            tensor.view(kinks)[...] |= bool(l1) & (np.abs(w) <= epsilon)
    return Numeric(values, kinks, SAFETY * UNIT * float(size) * scale / epsilon)


def richardson(net: "MLP", batch: Batch, training: bool, epsilon: float) -> Numeric:
    """Central differences of two steps, so combined that the error of second order cancels."""
    fine = central_differences(net, batch, training, epsilon)
    coarse = central_differences(net, batch, training, 2 * epsilon)
    values = (4 * fine.values - coarse.values) / 3
    return Numeric(values, fine.bent | coarse.bent, 2 * fine.rounding)


def complex_steps(net: "MLP", batch: Batch, training: bool, epsilon: float) -> Numeric:
    """Im L(theta + ih) / h by all parameters, from the reference in NumPy."""
    model = Model(net, batch, training, epsilon)
    values = np.zeros(net.layout.length)
    bent = np.zeros(net.layout.length, bool)
    for tensor in net.layout.tensors:
        shape = (1, tensor.shape[0]) if len(tensor.shape) == 1 else tensor.shape
        size = int(np.prod(shape))
        found, kinks = np.zeros(size), np.zeros(size, bool)
        for first in range(0, size, chunk := model.networks_at_once(tensor)):
            entries = np.arange(first, min(first + chunk, size))
            directions = np.zeros((len(entries), size))
            directions[np.arange(len(entries)), entries] = 1.0
            found[entries], kinks[entries] = model.slopes(tensor, directions)
        tensor.view(values)[...] = found.reshape(tensor.shape)
        tensor.view(bent)[...] = kinks.reshape(tensor.shape)
    return Numeric(values, bent, 0.0)


def _weight(net: "MLP", batch: Batch) -> float:
    """What the sum of the losses is divided by."""
    model = Model.loss_of(net)
    y = batch.labels if len(batch.labels) else batch.targets
    weights = batch.weights if len(batch.weights) else None
    return float(reference.row_weights(model, y, weights).sum())


class Model:
    """A network as the reference in NumPy has it, with its samples; `epsilon` for complex steps.

    The square of epsilon must be nothing beside 1, but epsilon times a derivative not underflow.
    """

    def __init__(self, net: "MLP", batch: Batch, training: bool, epsilon: float = 1e-40) -> None:
        self._net, self._training, self._epsilon = net, training, epsilon
        self._loss = self.loss_of(net)
        self._x = batch.x.astype(np.float64)
        self._y = batch.labels if len(batch.labels) else batch.targets
        self._weights = batch.weights if len(batch.weights) else None
        self._masks = [self._mask(layer) for layer in range(len(net.dropout))]
        self._layers = [self._layer(layer) for layer in range(1, len(net.layer_sizes))]

    @staticmethod
    def loss_of(net: "MLP") -> reference.Loss:
        """The loss as the reference takes it."""
        loss = net.loss
        return reference.Loss(
            loss.name, loss.label_smoothing, loss.delta, loss.quantile, loss.class_weight
        )

    def loss_and_gradient(self) -> tuple[float, Array]:
        """Loss and gradient of the reference, the latter in the layout of theta."""
        loss, gradients = self._differentiate(self._layers)
        return float(loss), self._flat(gradients)

    def hessian_product(self, v: Array) -> Array:
        """H v = Im g(theta + ihv) / h, where g is the gradient of the reference."""
        layers = list(self._layers)
        for tensor in self._net.layout.tensors:
            layer = layers[tensor.layer - 1]
            moved = getattr(layer, tensor.kind) + 1j * self._epsilon * tensor.view(v)
            layers[tensor.layer - 1] = replace(layer, **{tensor.kind: moved})
        product: Array = self._flat(self._differentiate(layers)[1]).imag / self._epsilon
        return product

    def _differentiate(self, layers: list[reference.Layer]) -> Any:
        x = self._x * self._masks[0]
        return reference.loss_and_gradient(layers, self._loss, x, self._y, self._weights)

    def _flat(self, gradients: list[dict[str, Array]]) -> Array:
        flat = np.zeros(self._net.layout.length, gradients[0]["weight"].dtype)
        for tensor in self._net.layout.tensors:
            tensor.view(flat)[...] = gradients[tensor.layer - 1][tensor.kind]
        return flat

    def slopes(self, tensor: Tensor, directions: Array) -> tuple[Array, Array]:
        """Derivatives along directions [P, entries] of a tensor, and which are at a kink."""
        parameters = tensor.view(self._net.theta)
        steps = self._epsilon * directions.reshape(-1, *tensor.shape)
        layers = list(self._layers)
        moved = {tensor.kind: parameters + 1j * steps}
        layers[tensor.layer - 1] = replace(layers[tensor.layer - 1], **moved)
        values = reference.forward(layers, self._x * self._masks[0])
        loss = reference.mean_loss(self._loss, values[-1].z, self._y, self._weights)
        loss = loss + reference.penalty(layers)
        bent = np.zeros(len(directions), bool)
        for distance in self._distances(layers, values):
            bent |= ((distance.real == 0) & (distance.imag != 0)).any((-2, -1))
        return np.broadcast_to(loss.imag, len(directions)) / self._epsilon, bent

    def _distances(
        self, layers: list[reference.Layer], values: list[reference.Values]
    ) -> list[Array]:
        """How far from a kink everything is that has one."""
        distances = [
            value.z
            for value, layer in zip(values, layers, strict=True)
            if CODES[layer.activation] in KINKED
        ]
        if self._loss.name in ("absolute_error", "pinball"):
            distances.append(values[-1].z - self._y)
        if self._loss.name == "huber":
            difference = values[-1].z - self._y
            distances += [difference - self._loss.delta, difference + self._loss.delta]
        return distances + [layer.weight for layer in layers if layer.l1]

    def networks_at_once(self, tensor: Tensor) -> int:
        """How many networks that differ in a tensor fit into a stack."""
        each = int(np.prod(tensor.shape)) + len(self._x) * sum(
            self._net.layer_sizes[tensor.layer :]
        )
        return max(1, STACK // each)

    def _mask(self, layer: int) -> Any:
        net = self._net
        p, size = net.dropout[layer], net.layer_sizes[layer]
        if not (self._training and p > 0):
            return 1.0
        return reference.draw_mask(p, net.seed, 0, layer, len(self._x), size)

    def _layer(self, layer: int) -> reference.Layer:
        net, before = self._net, layer - 1
        plain = reference.Layer(
            net.weights[before], net.biases[before], l2=net.l2[before], l1=net.l1[before]
        )
        if layer == 1 and net.architecture.input_scale:
            plain = replace(plain, input_scale=net.input_scale)
        if layer == len(net.layer_sizes) - 1:
            return plain
        activation, norm = net.activation[before], net.norm[before]
        more: dict[str, Any] = {
            "activation": activation.name,
            "parameter": activation.alpha,
            "slope": net.slopes[before],
            "mask": self._masks[layer],
        }
        if norm is not None:
            more |= {"norm": "layer", "epsilon": norm.epsilon}
            more |= {"gain": net.gains[before], "shift": net.shifts[before]}
        if isinstance(norm, BatchNorm):
            more["norm"] = "batch"
            if not self._training:
                more["mean"] = net.running_means[before]
                more["variance"] = net.running_variances[before]
        return replace(plain, **more)
