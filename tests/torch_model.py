"""Any network in PyTorch, in float64: its own layers, losses and autograd, and our dropout masks.

`wide_case` draws networks and samples of all sizes; what else they are made of, `networks` draws.
FASTMLP_TEST_CASES sets how many random cases the tests against PyTorch take.
"""

import os
from typing import Any

import networks
import numpy as np
import pytest
from networks import Case
from numpy.typing import NDArray

import fastmlp as fm
from fastmlp import activations, losses
from fastmlp.kernels import machine
from fastmlp.kernels.dropout import draw_mask

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
F = torch.nn.functional
torch.set_num_threads(1)  # the matrices are small: more would mostly wait for each other

Array = NDArray[Any]
CASES = int(os.environ.get("FASTMLP_TEST_CASES", "500"))
LANES = 16  # draw_mask fills whole vectors
EDGES = [1, 2, 15, 16, 17, 31, 33, 48, 64, 65, 90]  # around whole vectors and whole tiles
WIDE_OUTPUTS = [machine.NARROW_OUTPUT, machine.NARROW_OUTPUT + 1, 130]
BATCHES = [1, 2, 7, 8, 9, 64, 255, 256, 257, 512, 700]  # around micro-batches
DEEPEST = 4

ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    # PyTorch's own softplus turns into the identity above a threshold
    "softplus": lambda z: torch.logaddexp(z, torch.zeros_like(z)),
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
}


def wide_case(
    seed: int, *, widest: int = max(EDGES), rows: tuple[int, int] = (1, max(BATCHES))
) -> Case:
    """The case of that number: depth and loss take turns, everything else is drawn.

    Hidden layers have at most `widest` units; `rows` are the least and the most samples.
    """
    rng = np.random.default_rng(seed)
    depth = seed % (DEEPEST + 1)
    loss = losses.NAMES[seed // (DEEPEST + 1) % len(losses.NAMES)]

    def one_of(edges: list[int], least: int, most: int) -> int:
        inside = [n for n in edges if least <= n <= most]
        return int(rng.choice(inside) if rng.random() < 0.5 else rng.integers(least, most + 1))

    norms = [networks.random_norm(rng) for _ in range(depth)]
    hidden = [one_of(EDGES, 3 if isinstance(norm, fm.LayerNorm) else 1, widest) for norm in norms]
    outputs = int(rng.choice(WIDE_OUTPUTS)) if rng.random() < 0.3 else one_of(EDGES, 2, widest)
    if loss != "softmax_cross_entropy" and rng.random() < 0.1:
        outputs = 1
    names = rng.choice(activations.NAMES, depth)
    net = fm.MLP(
        [one_of(EDGES, 1, widest), *hidden, outputs],
        activation=[networks.random_activation(rng, str(name)) for name in names],
        loss=networks.random_loss(rng, loss, outputs),
        norm=norms,
        dropout=[networks.random_dropout(rng) for _ in range(depth + 1)],
        l2=[networks.random_penalty(rng) for _ in range(depth + 1)],
        l1=[networks.random_penalty(rng) for _ in range(depth + 1)],
        input_scale=networks.random_scale(seed),
        seed=int(rng.integers(2**63)),
        dtype="float64",
    )
    networks.randomize(rng, net)
    samples = one_of(BATCHES, *rows)
    weights = None
    if rng.random() < 0.5:
        weights = rng.uniform(0.1, 3.0, samples)
        weights[1:][rng.random(samples - 1) < 0.1] = 0.0
    X = rng.normal(size=(samples, net.layer_sizes[0]))
    y = networks.random_targets(rng, loss, samples, outputs)
    return Case(net, X, y, weights, int(rng.choice([1, 2, 3, 5])))


def undone_biases(net: fm.MLP) -> set[str]:
    """Names of the biases that batch norm undoes: autograd leaves roundings where theirs is 0."""
    return {
        f"layers.{layer}.bias"
        for layer, norm in enumerate(net.norm)
        if isinstance(norm, fm.BatchNorm)
    }


class TorchMLP:
    """A PyTorch copy of a network, its parameters and running statistics by our tensors' names."""

    def __init__(self, net: fm.MLP) -> None:
        self.net = net
        self.parameters = {
            tensor.name: torch.tensor(tensor.view(net.theta), requires_grad=True)
            for tensor in net.layout.tensors
        }
        self.running = {
            tensor.name: torch.tensor(tensor.view(net.running)) for tensor in net.layout.running
        }

    def outputs(self, x: Any, *, training: bool, step: int = 0, first_row: int = 0) -> Any:
        """The last layer's outputs for rows first_row, first_row + 1 ... of a step.

        In training with the dropout of that step and the statistics of these rows, which the
        running ones follow.
        """
        net = self.net

        def dropped(a: Any, layer: int) -> Any:
            if not training or not net.dropout[layer]:
                return a
            mask = np.empty((len(a), -(-a.shape[1] // LANES) * LANES))
            draw_mask(mask, net.dropout[layer], net.seed, step, layer, first_row, 0)
            return a * torch.from_numpy(mask[:, : a.shape[1]])

        a = dropped(x * self.parameters.get("input_scale", 1.0), 0)
        for layer, f in enumerate(net.activation, 1):
            z = self._normalized(self._affine(a, layer), layer, training)
            a = dropped(self._activated(z, f, layer), layer)
        return self._affine(a, len(net.layer_sizes) - 1)

    def _of(self, layer: int, kind: str) -> Any:
        name = f"layers.{layer - 1}.{kind}"
        return self.running[name] if kind.startswith("running") else self.parameters[name]

    def _affine(self, a: Any, layer: int) -> Any:
        return torch.addmm(self._of(layer, "bias"), a, self._of(layer, "weight"))

    def _normalized(self, u: Any, layer: int, training: bool) -> Any:
        norm = self.net.norm[layer - 1]
        if norm is None:
            return u
        gain, shift = self._of(layer, "gain"), self._of(layer, "shift")
        if isinstance(norm, fm.LayerNorm):
            return F.layer_norm(u, u.shape[1:], gain, shift, norm.epsilon)
        if training and len(u) == 1:  # which PyTorch refuses
            return gain * (u - u) + shift
        mean, variance = self._of(layer, "running_mean"), self._of(layer, "running_variance")
        return F.batch_norm(u, mean, variance, gain, shift, training, norm.momentum, norm.epsilon)

    def _activated(self, z: Any, f: fm.Activation, layer: int) -> Any:
        if f.name == "prelu":
            return F.prelu(z, self._of(layer, "slope"))
        if f.name == "leaky_relu":
            return F.leaky_relu(z, f.alpha)
        if f.name == "elu":
            return F.elu(z, f.alpha)
        return ACTIVATIONS[f.name](z)

    def penalty(self) -> Any:
        """l2/2 sum W**2 + l1 sum abs(W) over the layers."""
        total = torch.zeros((), dtype=torch.float64)
        for layer, (l2, l1) in enumerate(zip(self.net.l2, self.net.l1, strict=True), 1):
            w = self._of(layer, "weight")
            total = total + l2 / 2 * w.square().sum() + l1 * w.abs().sum()
        return total

    def gradients(self) -> dict[str, Array]:
        """What `backward` has left, by our tensors' names."""
        return {
            name: np.zeros(p.shape) if p.grad is None else p.grad.numpy()
            for name, p in self.parameters.items()
        }


def losses_of(loss: fm.Loss, z: Any, y: Any) -> Any:
    """The loss [n] of each row, the sum over its outputs, by PyTorch's functions if it has them."""
    class_weight = None
    if loss.class_weight is not None:
        class_weight = torch.tensor(loss.class_weight, dtype=torch.float64)
    if loss.name == "softmax_cross_entropy":
        smoothing = loss.label_smoothing
        return F.cross_entropy(z, y, class_weight, reduction="none", label_smoothing=smoothing)
    if loss.name == "binary_cross_entropy":
        factor = None if class_weight is None else y * class_weight[1] + (1 - y) * class_weight[0]
        smoothed = y * (1 - loss.label_smoothing) + loss.label_smoothing / 2
        terms = F.binary_cross_entropy_with_logits(z, smoothed, factor, reduction="none")
    elif loss.name == "squared_error":
        terms = F.mse_loss(z, y, reduction="none")
    elif loss.name == "half_squared_error":
        terms = F.mse_loss(z, y, reduction="none") / 2
    elif loss.name == "huber":
        terms = F.huber_loss(z, y, delta=loss.delta, reduction="none")
    elif loss.name == "absolute_error":
        terms = F.l1_loss(z, y, reduction="none")
    elif loss.name == "pinball":
        q = torch.tensor(loss.quantile, dtype=torch.float64)
        terms = torch.maximum(q * (y - z), (q - 1) * (y - z))
    else:
        terms = F.poisson_nll_loss(z, y, log_input=True, full=False, reduction="none")
    return terms.sum(1)


def weights_of(loss: fm.Loss, y: Any, sample_weight: Any | None) -> tuple[Any, Any]:
    """What the rows' losses are multiplied by, and what the rows count in the mean, [n] both."""
    weights = torch.ones(len(y), dtype=torch.float64) if sample_weight is None else sample_weight
    if loss.name == "softmax_cross_entropy" and loss.class_weight is not None and y.dim() == 1:
        return weights, weights * torch.tensor(loss.class_weight, dtype=torch.float64)[y]
    return weights, weights


def mean_loss(loss: fm.Loss, z: Any, y: Any, sample_weight: Any | None = None) -> Any:
    """The weighted mean of the rows' losses."""
    weights, shares = weights_of(loss, y, sample_weight)
    return (weights * losses_of(loss, z, y)).sum() / shares.sum()
