"""How signals and gradients flow through a network: what is too small, too large or dead."""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._callback import Callback
from ._checks import check_whole
from ._execution import Execution, Procedure
from .activations import Activation
from .history import format_table
from .initializers import Initializer
from .kernels import plan as kernel_plan
from .mlp import MLP, check_network
from .norms import BatchNorm, LayerNorm
from .training import Training

__all__ = ["FlowRecorder", "GradientFlow", "LayerFlow", "explore_flow", "gradient_flow"]

Array = NDArray[Any]

RATIO = 1e3  # between the first and the last hidden layer: more has vanished or exploded
SATURATED = 1e-3  # of abs(f'): a unit below it hardly learns
NEARLY_ALL = 0.99  # of the samples
MANY = 0.25  # of a layer's units
LARGEST_UPDATE, SMALLEST_UPDATE = 1.0, 1e-6  # of the weights' norm, in an epoch


@dataclass(frozen=True)
class LayerFlow:
    """What flows through one layer; each rms is the root of the mean square over all entries.

    Attributes
    ----------
    name
        The activation, or "output".
    pre_activation, activation
        rms of z [n, units] and of a = f(z) [n, units]; of the output layer both are z.
    delta
        rms of dL/du [n, units], where u = A W + b are the layer's sums before the norm, if there
        is one; without norm, z = u.
    weight_gradient
        rms of dL/dW [n_in, units].
    dead
        Share of the units with a = 0 for all samples; None for the output layer.
    saturated
        Share of the units with abs(f'(z)) < 0.001 for at least 99 % of the samples; None unless
        the activation is sigmoid or tanh.
    weight_update, relative_update
        rms of W - W' and ||W - W'|| / ||W'|| in the Frobenius norm, where W' are the weights that a
        `FlowRecorder` saw before; None without them, the latter also if they were zero.
    """

    name: str
    pre_activation: float
    activation: float
    delta: float
    weight_gradient: float
    dead: float | None
    saturated: float | None
    weight_update: float | None = None
    relative_update: float | None = None


@dataclass(frozen=True)
class GradientFlow:
    """Result of `gradient_flow`; ``str(flow)`` is a table.

    Attributes
    ----------
    layers
        From the first hidden layer to the output.
    loss
        Mean loss over the samples, without penalty; NaN if it is not finite.
    """

    layers: tuple[LayerFlow, ...]
    loss: float

    @property
    def warnings(self) -> list[str]:
        """What is wrong, each with its remedy; empty if nothing is.

        Rules of thumb: signals or deltas of the first and the last hidden layer differ by more than
        a factor of 1000; more than a quarter of a layer's units are dead or saturated; an update is
        more than W itself or less than a millionth of it; the loss is not finite.
        """
        unknown = "the loss is not finite; take smaller initial weights or a smaller learning rate"
        return [
            *([] if np.isfinite(self.loss) else [unknown]),
            *_compare("activations", [layer.activation for layer in self.layers[:-1]]),
            *_compare("deltas", [layer.delta for layer in self.layers[-2::-1]]),
            *(
                text
                for number, layer in enumerate(self.layers, 1)
                for text in _judge(number, layer)
            ),
        ]

    def __str__(self) -> str:
        rows = [["layer", "", "z", "a", "delta", "dW", "dead", "saturated", "update"]]
        for number, layer in enumerate(self.layers, 1):
            rms = (layer.pre_activation, layer.activation, layer.delta, layer.weight_gradient)
            shares = (layer.dead, layer.saturated)
            update = "" if layer.relative_update is None else f"{layer.relative_update:.1e}"
            rows.append(
                [
                    *(str(number), layer.name),
                    *(f"{value:.1e}" for value in rms),
                    *("" if share is None else f"{share:.0%}" for share in shares),
                    update,
                ]
            )
        lines = [line.rstrip() for line in format_table(rows)]
        return "\n".join([*lines, *(f"! {warning}" for warning in self.warnings)])


def gradient_flow(
    net: MLP, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> GradientFlow:
    r"""Measure activations, deltas and gradients layer by layer, in one pass over the samples.

    The pass is one of training, so batch norm takes the statistics of these samples, but nothing is
    dropped out. L is the weighted mean loss over the samples, and

        dL/dW_l = A_{l-1}^T delta_l + l2 W_l + l1 sign(W_l),
        delta_{l-1} = (delta_l W_l^T) f'(z_{l-1}),

    the latter taken back through the norm, if there is one. If every layer multiplies delta by
    much less than 1, the gradients of the first layers vanish; by much more, they explode [1]_
    [2]_.

    Parameters
    ----------
    net
        The network; it is not changed.
    X, y, sample_weight
        As in `MLP.evaluate`. The memory this takes is for all samples at once; some hundred tell
        enough.

    Returns
    -------
    GradientFlow
        With what is wrong, and remedies, in its `warnings`.

    Raises
    ------
    TypeError, ValueError
        If net is no MLP, and as `MLP.evaluate`.

    References
    ----------
    .. [1] S. Hochreiter: Untersuchungen zu dynamischen neuronalen Netzen. TU München, 1991.
    .. [2] X. Glorot, Y. Bengio: Understanding the difficulty of training deep feedforward neural
       networks. AISTATS 2010.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> net = fm.MLP([4, 8, 8, 3], seed=0)
    >>> X = np.random.default_rng(0).normal(size=(50, 4))
    >>> flow = fm.gradient_flow(net, X, np.arange(50) % 3)
    >>> [layer.name for layer in flow.layers], flow.warnings
    (['relu', 'relu', 'output'], [])
    """
    check_network(net)
    batch = net._checked(X, y, sample_weight)
    with np.errstate(over="ignore", invalid="ignore"):  # a flow that is not finite is a finding
        probe = _for_samples(net, batch.x)
        values = probe.activations(batch.x)
        procedure = Procedure(len(batch), input_gradient=True)
        execution = Execution(probe, procedure=procedure, samples=batch)
        loss, flat = execution.differentiate()
        if execution.diverged:  # there was no backward pass
            loss = np.nan
            deltas = gradients = [np.array(np.nan)] * len(net.weights)
        else:
            hidden = range(1, len(net.weights))
            deltas = [execution.read(layer, kernel_plan.DELTA) for layer in hidden]
            deltas.append(_output_delta(net, values.activations[-1], y, sample_weight))
            gradients = list(net.layout.weights(flat))
        layers = [
            LayerFlow(name, _rms(z), _rms(a), _rms(delta), _rms(dw), *shares)
            for name, z, a, delta, dw, shares in zip(
                [*map(str, net.activation), "output"],
                values.pre_activations,
                values.activations,
                deltas,
                gradients,
                [*map(_shares, net.activation, values.activations[:-1]), (None, None)],
                strict=True,
            )
        ]
    return GradientFlow(tuple(layers), loss)


class FlowRecorder(Callback):
    """Records the flow after each epoch: pass it to `fit` as ``callbacks=[recorder]``.

    Called before `fit` as ``recorder(net)``, it records the flow at the start as well. From the
    second flow on, layers have the size of the update of their weights since the flow before.

    Parameters
    ----------
    X, y, sample_weight
        The samples, always the same, see `gradient_flow`.

    Attributes
    ----------
    flows
        A `GradientFlow` for each call.

    Raises
    ------
    TypeError, ValueError
        When it is called, or training begins: as `gradient_flow`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> X = np.random.default_rng(0).normal(size=(90, 4))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> net, recorder = fm.MLP([4, 8, 2], seed=0), FlowRecorder(X, y)
    >>> recorder(net)
    >>> history = fm.fit(net, X, y, epochs=2, callbacks=[recorder])
    >>> len(recorder.flows), recorder.flows[0].layers[0].relative_update is None
    (3, True)
    """

    def __init__(
        self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> None:
        self.flows: list[GradientFlow] = []
        self._samples = X, y, sample_weight
        self._before: list[Array] = []

    def on_train_begin(self, training: Training) -> None:
        """Make sure that the samples are of the network's kind: now, not after an epoch."""
        X, y, sample_weight = self._samples
        training.net._checked(X, y, sample_weight)

    def on_epoch_end(self, training: Training) -> None:
        """Record the flow through the network after the epoch."""
        self(training.net)

    def __call__(self, net: MLP) -> None:
        """Record the flow through the network as it is now."""
        X, y, sample_weight = self._samples
        flow = gradient_flow(net, X, y, sample_weight=sample_weight)
        if self._before:
            updated = (
                dataclasses.replace(
                    layer,
                    weight_update=_rms(w - old),
                    relative_update=_rms(w - old) / _rms(old) if old.any() else None,
                )
                for layer, w, old in zip(flow.layers, net.weights, self._before, strict=True)
            )
            flow = dataclasses.replace(flow, layers=tuple(updated))
        self.flows.append(flow)
        self._before = [w.copy() for w in net.weights]


def explore_flow(
    depth: int,
    width: int = 100,
    activation: str | Activation = "relu",
    initializer: Initializer = None,
    *,
    norm: str | BatchNorm | LayerNorm | None = None,
    samples: int = 256,
    seed: int = 0,
) -> GradientFlow:
    """Measure the flow through a new network, to see gradients vanish or explode.

    The network has `depth` hidden layers; inputs, hidden layers and outputs are of one width. It
    is float32; inputs and targets are drawn from N(0, 1), the loss is "half_squared_error".

    Parameters
    ----------
    depth, width
        At least 1.
    activation, initializer, norm
        Of all layers, as in `MLP`.
    samples
        How many rows are drawn.
    seed
        Of the weights and of the samples.

    Returns
    -------
    GradientFlow
        See `gradient_flow`.

    Raises
    ------
    TypeError, ValueError
        As `MLP`, and if depth, width or samples is not a whole number of at least 1.

    Examples
    --------
    >>> for warning in explore_flow(10, activation="sigmoid").warnings:
    ...     print(warning.split(":")[0])
    deltas vanish
    >>> explore_flow(10, activation="relu", initializer="he_normal").warnings
    []
    """
    depth, width = check_whole(depth, "depth", 1), check_whole(width, "width", 1)
    net = MLP(
        [width] * (depth + 2),
        activation=activation,
        initializer=initializer,
        norm=norm,
        loss="half_squared_error",
        seed=seed,
    )
    rng = np.random.Generator(np.random.Philox(net.seed))
    X, y = rng.normal(size=(2, check_whole(samples, "samples", 1), width))
    return gradient_flow(net, X, y)


def _for_samples(net: MLP, x: Array) -> MLP:
    """A copy without dropout, whose batch norms predict with the statistics of the samples."""
    probe = copy.copy(net)
    probe.architecture = dataclasses.replace(
        net.architecture, dropout=(0.0,) * len(net.architecture.dropout)
    )
    inputs = x * net.input_scale if net.architecture.input_scale else x
    for i, norm in enumerate(net.norm):
        if isinstance(norm, BatchNorm):
            below = probe.activations(x).activations[i - 1] if i else inputs
            u = below @ net.weights[i] + net.biases[i]
            probe.running_means[i][...] = u.mean(axis=0, dtype=np.float64)
            probe.running_variances[i][...] = u.var(axis=0, dtype=np.float64)
    return probe


def _output_delta(net: MLP, z: Array, y: ArrayLike, sample_weight: ArrayLike | None) -> Array:
    """dL/dz of the outputs z: the gradient by its inputs of a network that passes them on."""
    outputs = net.layer_sizes[-1]
    identity = MLP([outputs] * 2, loss=net.loss, initializer=np.eye(outputs), dtype=net.dtype)
    return identity.input_gradient(z, y, sample_weight=sample_weight)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _shares(activation: Activation, a: Array) -> tuple[float, float | None]:
    """The share of units that are dead, and of those that are saturated if they can be."""
    dead = float((a == 0).all(axis=0).mean())
    if activation.name == "sigmoid":
        is_flat = a * (1 - a) < SATURATED
    elif activation.name == "tanh":
        is_flat = 1 - a * a < SATURATED
    else:
        return dead, None
    return dead, float((is_flat.mean(axis=0) >= NEARLY_ALL).mean())


def _compare(what: str, sizes: list[float]) -> list[str]:
    """Warn if a size at the end of the way differs much from that at its beginning."""
    ratio = sizes[-1] / sizes[0] if len(sizes) > 1 and sizes[0] > 0 else 1.0
    if np.isnan(ratio):  # beyond all numbers on the way
        ratio = np.inf
    if 1 / RATIO <= ratio <= RATIO:
        return []
    verb = "vanish" if ratio < 1 else "explode"
    fits = 'he_normal with "relu", glorot_uniform with "tanh", lecun_normal with "selu"'
    remedy = "another activation" if ratio < 1 else "clip_global_norm in fit"
    return [
        f"{what} {verb}: from one end of the hidden layers to the other they change by a factor of "
        f"{ratio:.0e}; take an initializer that fits the activation ({fits}), a norm or {remedy}"
    ]


def _judge(layer: int, flow: LayerFlow) -> list[str]:
    """Warnings about one layer."""
    found = []
    if flow.dead is not None and flow.dead > MANY:
        found.append(
            f"layer {layer}: {flow.dead:.0%} of the units are 0 for all samples; take another "
            'activation, such as "leaky_relu", a smaller learning rate or a norm'
        )
    if flow.saturated is not None and flow.saturated > MANY:
        found.append(
            f"layer {layer}: {flow.saturated:.0%} of the units are saturated; scale the inputs, "
            'take initializer "glorot_uniform", a norm or another activation, such as "relu"'
        )
    update = flow.relative_update
    if update is not None and update > LARGEST_UPDATE:
        found.append(
            f"layer {layer}: the weights have changed by {update:.1f} times their norm; take a "
            "smaller learning rate"
        )
    if update is not None and update < SMALLEST_UPDATE:
        found.append(
            f"layer {layer}: the weights hardly change, by {update:.0e} of their norm; take a "
            "larger learning rate"
        )
    return found
