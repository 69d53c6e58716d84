"""Random networks and samples, drawn from all combinations of what a network can be.

`random_case(seed)` gives the same case for the same seed. Every choice is made for itself, so any
combination may occur: see `Case` for what is drawn. Numbers are of the order of 1 and the networks
well conditioned, so that a comparison of two right programs can be strict.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import fastmlp as fm
from fastmlp.activations import NAMES as ACTIVATIONS
from fastmlp.activations import Activation
from fastmlp.losses import NAMES as LOSSES
from fastmlp.losses import Loss
from fastmlp.norms import BatchNorm, LayerNorm

Rng = np.random.Generator
# f, and the loss, have derivatives of every order: complex steps and differences meet no kink
SMOOTH_ACTIVATIONS = (
    "identity", "sigmoid", "tanh", "softplus", "gelu", "gelu_tanh", "silu", "mish",
)  # fmt: skip
SMOOTH_LOSSES = (
    "softmax_cross_entropy", "squared_error", "half_squared_error", "binary_cross_entropy",
    "poisson",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A network with samples for it.

    Depth 0 to 4; any activation with any parameter, in each layer another; any loss with any
    options; no norm, batch or layer norm in each layer; dropout of inputs and layers; l2 and l1 of
    each layer; a scale of the inputs in a third; weights of the samples or none; `checkpoint_every`
    1 to 3. One case in `WIDE` has
    more than 64 outputs, which the kernels split otherwise.
    """

    net: fm.MLP
    X: Any
    y: Any
    sample_weight: Any
    checkpoint_every: int

    @property
    def samples(self) -> dict[str, Any]:
        """What to call `loss_and_gradient` and its like with, beside the network."""
        return {"X": self.X, "y": self.y, "sample_weight": self.sample_weight}


WIDE = 20


def random_case(
    seed: int, *, dtype: str = "float64", smooth: bool = False, rows: int | None = None
) -> Case:
    """A random case; `smooth`: no kinks; `rows` beyond a micro-batch make several of them."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(0, 5))
    sizes = [int(n) for n in rng.integers(1, 7, depth + 2)]
    if seed % WIDE == WIDE - 1:
        sizes[-1] = int(rng.integers(65, 80))
        sizes = [sizes[0], *sizes[-2:]] if depth else sizes
        depth = len(sizes) - 2
    loss_name = str(rng.choice(SMOOTH_LOSSES if smooth else LOSSES))
    if loss_name == "softmax_cross_entropy":
        sizes[-1] = max(sizes[-1], 2)
    norms = [random_norm(rng) for _ in range(depth)]
    for layer, norm in enumerate(norms, 1):
        if isinstance(norm, LayerNorm):  # of two units, the normed ones are always about 1 and -1
            sizes[layer] = max(sizes[layer], 3)
    names = SMOOTH_ACTIVATIONS if smooth else ACTIVATIONS
    net = fm.MLP(
        sizes,
        activation=[random_activation(rng, str(rng.choice(names))) for _ in range(depth)],
        loss=random_loss(rng, loss_name, sizes[-1]),
        norm=norms,
        dropout=[random_dropout(rng) for _ in range(depth + 1)],
        l2=[random_penalty(rng) for _ in range(depth + 1)],
        l1=[0.0 if smooth else random_penalty(rng) for _ in range(depth + 1)],
        input_scale=random_scale(seed),
        seed=int(rng.integers(2**63)),
        dtype=dtype,
    )
    randomize(rng, net)
    count = int(rng.integers(4, 13)) if rows is None else rows
    X = rng.normal(size=(count, sizes[0])).astype(dtype)
    y = random_targets(rng, net.loss.name, count, sizes[-1])
    if y.dtype != np.int64:
        y = y.astype(dtype)
    weights = rng.uniform(0.2, 2.0, count) if rng.random() < 0.5 else None
    return Case(net, X, y, weights, int(rng.integers(1, 4)))


def random_activation(rng: Rng, name: str) -> Activation:
    """An activation with a random parameter, if it has one."""
    if name == "prelu":
        return Activation(name, alpha=rng.uniform(0.1, 0.6), per_unit=bool(rng.integers(2)))
    if name in ("leaky_relu", "elu"):
        return Activation(name, alpha=rng.uniform(0.1, 1.5))
    return Activation(name)


def random_loss(rng: Rng, name: str, outputs: int) -> Loss:
    """A loss with random options, each of them in half of the cases."""
    options: dict[str, Any] = {}
    if name in ("softmax_cross_entropy", "binary_cross_entropy"):
        classes = outputs if name == "softmax_cross_entropy" else 2
        if rng.random() < 0.5:
            options["label_smoothing"] = rng.uniform(0.05, 0.5)
        if rng.random() < 0.5:
            options["class_weight"] = tuple(rng.uniform(0.5, 2.0, classes))
    if name == "huber":
        options["delta"] = rng.uniform(0.3, 2.0)
    if name == "pinball":
        per_output = rng.random() < 0.5
        quantiles = rng.uniform(0.1, 0.9, outputs)
        options["quantile"] = tuple(quantiles) if per_output else float(quantiles[0])
    return Loss(name, **options)


def random_norm(rng: Rng) -> BatchNorm | LayerNorm | None:
    """None in half of the cases; epsilon is large enough to keep the network well conditioned."""
    kind = rng.integers(4)
    epsilon = rng.uniform(0.1, 0.5)
    return None if kind < 2 else BatchNorm(epsilon) if kind == 2 else LayerNorm(epsilon)


def random_dropout(rng: Rng) -> float:
    """0 in half of the cases."""
    return float(rng.uniform(0.05, 0.5)) if rng.random() < 0.5 else 0.0


def random_penalty(rng: Rng) -> float:
    """0 in half of the cases."""
    return float(rng.uniform(0.01, 0.2)) if rng.random() < 0.5 else 0.0


def random_scale(seed: int) -> bool:
    """True in a third of the cases, whatever else is drawn."""
    return bool(np.random.default_rng([seed, 3]).random() < 1 / 3)


def randomize(rng: Rng, net: fm.MLP) -> None:
    """Random parameters and running statistics, so that none has its special initial value."""
    for parameters in (*net.biases, *net.shifts):
        parameters[...] = rng.normal(size=parameters.shape) / 2
    for gains in (*net.gains, *net.running_variances):
        gains[...] = rng.uniform(0.5, 1.5, gains.shape)
    net.input_scale[...] = rng.uniform(0.5, 1.5, net.input_scale.shape)
    for slopes in net.slopes:
        slopes[...] = slopes * rng.uniform(0.8, 1.2, slopes.shape)
    for means in net.running_means:
        means[...] = rng.normal(size=means.shape) / 2


def random_targets(rng: Rng, loss: str, count: int, outputs: int) -> Any:
    """Labels or probabilities of a classifier, else numbers that the loss can be compared with."""
    if loss == "softmax_cross_entropy":
        if rng.random() < 0.5:
            return rng.integers(0, outputs, count)
        return rng.dirichlet(np.ones(outputs), count)
    if loss == "binary_cross_entropy":
        is_hard = rng.random() < 0.5
        return (
            rng.integers(0, 2, (count, outputs)) * 1.0 if is_hard else rng.random((count, outputs))
        )
    if loss == "poisson":
        return rng.poisson(1.5, (count, outputs)) * 1.0
    return rng.normal(size=(count, outputs))


def small_cases() -> list[Case]:
    """A few networks that between them have everything that could be wrong in a backward pass."""
    softmax = Loss("softmax_cross_entropy", label_smoothing=0.2, class_weight=(0.5, 2.0, 1.0))
    binary = Loss("binary_cross_entropy", class_weight=(0.5, 2.0))
    steep, bent = Activation("leaky_relu", alpha=0.3), Activation("elu", alpha=0.3)
    return [
        small_case("softmax_cross_entropy", ["relu", "sigmoid"], l2=0.1, l1=0.05),
        small_case("squared_error", ["tanh", "softplus"], dropout=0.4),
        small_case(softmax, [steep, bent], norm="batch"),
        small_case(binary, ["selu", "gelu"], norm="layer"),
        small_case(Loss("huber", delta=0.7), ["gelu_tanh", "silu"]),
        small_case("absolute_error", ["mish", Activation("prelu", per_unit=True)]),
        small_case(Loss("pinball", quantile=0.3), ["prelu"]),
        small_case("poisson", ["tanh"]),
        small_case("half_squared_error", [], count=300),
        small_case("softmax_cross_entropy", ["sigmoid"], count=260, l2=0.1),
        small_case("squared_error", ["tanh"], count=260),
        small_case("softmax_cross_entropy", ["tanh"], count=20, inputs=64),
        small_case("poisson", ["tanh"], inputs=19, dropout=[0.4, 0.0], input_scale=True),
    ]


def small_case(
    loss: str | Loss,
    activation: list[str | Activation],
    count: int = 5,
    inputs: int = 2,
    **options: Any,
) -> Case:
    """A network of 3 outputs and 4 units in each hidden layer, with weighted samples.

    All inputs but the first and the last two are zero.
    """
    rng = np.random.default_rng(1)
    sizes = [inputs, *[4] * len(activation), 3]
    net = fm.MLP(sizes, activation=activation, loss=loss, dtype="float64", seed=2, **options)
    randomize(rng, net)
    y = random_targets(rng, net.loss.name, count, 3)
    if net.loss == Loss("softmax_cross_entropy"):
        y = rng.integers(0, 3, count)
    X = rng.normal(size=(count, inputs))
    X[:, 1:-2] = 0
    return Case(net, X, y, rng.uniform(0.2, 2.0, count), 1)
