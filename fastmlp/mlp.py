"""The multilayer perceptron: a shape, one flat vector of parameters, and what it can compute."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import initializers, losses, norms
from ._arrays import Rows, blocks
from ._checks import (
    check_finite,
    check_flag,
    check_inputs,
    check_weights,
    check_whole,
    dense,
    is_ready,
    open_inputs,
)
from ._execution import Batch, Execution, Procedure
from ._prediction import Predictor
from .activations import Activation
from .architecture import Architecture
from .initializers import Initializer
from .kernels import Network, machine, resolve_dtype
from .kernels import plan as kernel_plan
from .layout import Layout, aligned_zeros
from .losses import Loss
from .norms import BatchNorm, LayerNorm
from .threads import threads_for

if TYPE_CHECKING:
    from .summary import Summary

__all__ = ["MLP", "Evaluation", "Gradient", "LayerValues"]

Array = NDArray[Any]
LARGEST_PASS = 1024  # rows of a pass whose workspace is read


@dataclass(frozen=True)
class Evaluation:
    """Mean loss over some samples, and for a classifier the share of right classes (else None)."""

    loss: float
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class Gradient:
    """Gradient of the mean loss: one flat vector in the layout of `MLP.theta`, and views of it.

    Attributes
    ----------
    flat
        All of it, padding included (which is zero).
    weights
        dL/dW_l [n_in, n_out] for each layer.
    biases
        dL/db_l [n_out] for each layer.
    slopes, gains, shifts
        Of the hidden layers: dL/dslope [1] or [n_out], dL/dgain and dL/dshift [n_out]; empty arrays
        where a layer has none.
    input_scale
        dL/ds [n_in] of the scale of the inputs; an empty array without one.
    """

    flat: Array
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    slopes: tuple[Array, ...]
    gains: tuple[Array, ...]
    shifts: tuple[Array, ...]
    input_scale: Array


@dataclass(frozen=True, eq=False)
class LayerValues:
    """What each layer computes for some samples, from the first hidden layer to the output.

    Attributes
    ----------
    pre_activations
        z [n, units]: W and b applied to what comes from below, and the norm if there is one.
    activations
        a = f(z) [n, units]; of the output layer, z itself.
    """

    pre_activations: tuple[Array, ...]
    activations: tuple[Array, ...]


class MLP:
    """A multilayer perceptron: A_0 = X, A_l = f_l(norm_l(A_{l-1} W_l + b_l)), the last one linear.

    With `input_scale` A_0 = X diag(s).

    Parameters
    ----------
    layer_sizes
        Units of each layer, inputs first and outputs last: at least two numbers.
    activation
        A name or an `Activation`: one for all hidden layers, or one for each. See
        `fastmlp.activations.resolve` for the names.
    loss
        A name or a `Loss`, which has the equations. "softmax_cross_entropy" (y: labels 0 to K-1),
        "binary_cross_entropy" and the losses of regressions.
    dropout
        Probability in [0, 1) with which a hidden unit is left out in training: one number, or one
        for the inputs and each hidden layer.
    norm
        "batch", "layer", a `BatchNorm`, a `LayerNorm` or None: one, or one for each hidden layer.
    l2, l1
        The loss that is trained has the penalty l2/2 sum W**2 + l1 sum abs(W) added, of the weights
        alone: one number, or one for each layer.
    input_scale
        Whether the inputs have a factor s each that is trained, first 1; see `fold_input_scale`.
    initializer
        Of the weights, see `fastmlp.initializers.resolve`; None chooses by the activation.
    seed
        Of the initial parameters, and of shuffles and dropout in `fit`.
    dtype
        "float32" or "float64".

    Attributes
    ----------
    theta
        All parameters in one 64-byte aligned vector, rows padded with zeros, see `layout`.
    weights, biases
        Views W_l [n_in, n_out] and b_l [n_out] of `theta`. Writing to them changes the network.
    slopes, gains, shifts
        Views of what hidden layers add: the slope of "prelu", [1] or [n_out], and the norm's gain
        and shift [n_out]; empty arrays where there is none.
    input_scale
        View of s [n_in]; an empty array if there is none.
    running_means, running_variances
        The statistics [n_out] that batch norm predicts with; empty where there is none.
    metadata
        Text that travels with the saved file.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind or out of its range.

    Examples
    --------
    >>> net = MLP([2, 8, 3], activation="tanh", seed=1)
    >>> net
    MLP([2, 8, 3], activation=['tanh'], loss='softmax_cross_entropy', dtype='float32', seed=1)
    >>> net.n_parameters
    51
    """

    def __init__(
        self,
        layer_sizes: Sequence[int],
        *,
        activation: str | Activation | Sequence[str | Activation] = "relu",
        loss: str | Loss = "softmax_cross_entropy",
        dropout: float | Sequence[float] = 0.0,
        norm: norms.Kind | Sequence[norms.Kind] = None,
        l2: float | Sequence[float] = 0.0,
        l1: float | Sequence[float] = 0.0,
        input_scale: bool = False,
        initializer: Initializer | Sequence[Initializer] | None = None,
        seed: int = 0,
        dtype: DTypeLike = "float32",
    ) -> None:
        self.architecture = Architecture.of(
            layer_sizes, activation, norm, dropout, l2, l1, input_scale
        )
        self.loss = losses.resolve(loss)
        self.loss.check_outputs(self.layer_sizes[-1])
        self.seed = check_whole(seed, "seed", 0, 2**63)
        self.dtype = resolve_dtype(dtype)
        self.metadata: dict[str, str] = {}
        self._allocate()
        rng = np.random.Generator(np.random.Philox(self.seed))
        names = [f.name for f in self.activation]
        initializers.initialize(self.weights, self.biases, names, rng, initializer)
        for slope, f in zip(self.slopes, self.activation, strict=True):
            slope[...] = f.alpha or 0.0
        for gain in self.gains:
            gain[...] = 1.0
        self.input_scale[...] = 1.0
        for variance in self.running_variances:
            variance[...] = 1.0
        self.layout.spread(self.theta)

    def _allocate(self) -> None:
        """Make the vectors of parameters and statistics, all zero, and the views of them."""
        self.layout = Layout.of(self.architecture, self.dtype)
        self.theta = aligned_zeros(self.layout.length, self.dtype)
        self.weights, self.biases = self.layout.weights(self.theta), self.layout.biases(self.theta)
        self.slopes = self.layout.views(self.theta, "slope")
        self.gains = self.layout.views(self.theta, "gain")
        self.shifts = self.layout.views(self.theta, "shift")
        self.input_scale = self.layout.input_scale(self.theta)
        self.running = aligned_zeros(self.layout.running_length, self.dtype)
        self.running_means = self.layout.views(self.running, "running_mean")
        self.running_variances = self.layout.views(self.running, "running_variance")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _DERIVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._allocate()
        self.theta[...] = state["theta"]
        self.running[...] = state["running"]

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Units of each layer, inputs first and outputs last."""
        return self.architecture.sizes

    @property
    def activation(self) -> tuple[Activation, ...]:
        """The activation of each hidden layer."""
        return self.architecture.activations

    @property
    def norm(self) -> tuple[BatchNorm | LayerNorm | None, ...]:
        """The norm of each hidden layer."""
        return self.architecture.norms

    @property
    def dropout(self) -> tuple[float, ...]:
        """The probability of dropout of the inputs and of each hidden layer."""
        return self.architecture.dropout

    @property
    def l2(self) -> tuple[float, ...]:
        """The l2 of each layer's weights."""
        return self.architecture.l2

    @property
    def l1(self) -> tuple[float, ...]:
        """The l1 of each layer's weights."""
        return self.architecture.l1

    @property
    def is_classifier(self) -> bool:
        """Whether the targets are classes."""
        return self.loss.is_classifier

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters, padding not counted."""
        return self.layout.n_parameters

    def decision_function(self, X: ArrayLike) -> Array:
        """Return the outputs of the last layer [n, O]: logits of the classes, or predictions.

        Raises
        ------
        TypeError, ValueError
            If X is not a finite numeric array of shape (n, layer_sizes[0]) with n >= 1.
        """
        return self._predictor(X)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the classes' probabilities softmax(z) [n, K].

        With "binary_cross_entropy" 1 / (1 + exp(-z)) of each label [n, O], or of both classes
        [n, 2] if there is one output.

        Raises
        ------
        TypeError, ValueError
            As `decision_function`, and ValueError if the network is no classifier.
        """
        if not self.is_classifier:
            raise ValueError(
                f"predict_proba needs a classifier, this network has loss {str(self.loss)!r}"
            )
        if self.loss.name == "softmax_cross_entropy":
            return self._predictor(X, softmax=True)
        z = self.decision_function(X)
        return _sigmoid(z if z.shape[1] > 1 else np.hstack([-z, z]))

    def predict(self, X: ArrayLike) -> Array:
        """Return the most probable class of each sample, int64 [n], or the predictions [n, O].

        With "binary_cross_entropy" 0 or 1, int64 [n], or [n, O] for several labels; with "poisson"
        the means exp(z).

        Raises
        ------
        TypeError, ValueError
            As `decision_function`.
        """
        z = self.decision_function(X)
        if self.loss.name == "softmax_cross_entropy":
            labels: Array = z.argmax(axis=1)
            return labels
        if self.loss.name == "binary_cross_entropy":
            labels = (z > 0).astype(np.int64)
            return labels[:, 0] if z.shape[1] == 1 else labels
        return np.exp(z) if self.loss.name == "poisson" else z

    def evaluate(
        self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> Evaluation:
        """Return mean loss, without penalty, and accuracy over the samples.

        Raises
        ------
        TypeError, ValueError
            If X is not as in `decision_function`, y is not what the loss needs (see `Loss`), or
            the weights are not finite numbers [n] of at least 0.
        """
        rows = open_inputs(X, self.layer_sizes[0])
        if is_ready(rows, self.dtype):
            loss, accuracy = self._evaluate(self._checked(X, y, sample_weight))
        else:
            loss, accuracy = self._evaluate_blocks(rows, X, y, sample_weight)
        return Evaluation(loss, accuracy if self.is_classifier else None)

    @property
    def penalty(self) -> float:
        """Sum over the layers of l2/2 sum W**2 + l1 sum abs(W), in float64."""
        total = 0.0
        for w, l2, l1 in zip(self.weights, self.l2, self.l1, strict=True):
            if l2:
                total += l2 / 2 * float(np.square(w, dtype=np.float64).sum())
            if l1:
                total += l1 * float(np.abs(w).sum(dtype=np.float64))
        return total

    def loss_and_gradient(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        training: bool = True,
        checkpoint_every: int = 1,
    ) -> tuple[float, Gradient]:
        """Return the mean loss over the samples plus penalty, and its gradient by all parameters.

        Parameters
        ----------
        X, y, sample_weight
            As in `evaluate`.
        training
            Whether dropout leaves out units, always those of step 0 of `seed`, and batch norm takes
            the statistics of these samples; else the function that `evaluate` computes. Running
            statistics do not change.
        checkpoint_every
            Every how many hidden layers the activations are kept, see `fit`.

        Raises
        ------
        TypeError, ValueError
            As `evaluate`.
        """
        check_flag(training, "training")
        batch = self._checked(X, y, sample_weight)
        every = check_whole(checkpoint_every, "checkpoint_every", 1)
        return self._loss_and_gradient(batch, training=training, checkpoint_every=every)

    def input_gradient(
        self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> Array:
        """Return the gradient [n, layer_sizes[0]] of the mean loss over the samples by X.

        Of the function that `evaluate` computes: without dropout, with running statistics.

        Raises
        ------
        TypeError, ValueError
            As `evaluate`.
        """
        batch = self._checked(X, y, sample_weight)
        gradient = np.empty_like(batch.x)
        weights = []
        for rows in _slices(len(batch)):
            part = batch.take(np.arange(rows.start, rows.stop))
            procedure = Procedure(len(part), training=False, input_gradient=True)
            execution = Execution(self, procedure=procedure, samples=part)
            loss, _ = execution.differentiate()
            gradient[rows] = execution.read(0, kernel_plan.DELTA)
            if not math.isfinite(loss):
                gradient[rows] = math.nan
            if self.architecture.input_scale:
                gradient[rows] *= self.input_scale
            gradient[rows] *= execution.weight
            weights.append(execution.weight)
        gradient /= sum(weights) or 1.0
        return gradient

    def activations(self, X: ArrayLike) -> LayerValues:
        """Return what each layer computes for the samples, as a prediction does.

        Raises
        ------
        TypeError, ValueError
            As `decision_function`.
        """
        x = check_inputs(X, self.layer_sizes[0], self.dtype)
        outputs = np.empty((len(x), self.layer_sizes[-1]), self.dtype)
        before = [np.empty((len(x), n), self.dtype) for n in self.layer_sizes[1:-1]]
        after = [np.empty_like(z) for z in before]
        for rows in _slices(len(x), machine.MICRO_BATCH):
            batch = Batch.of(x[rows], self.layer_sizes[-1])
            execution = Execution(self, others=batch, outputs=outputs[rows], keep=True)
            execution.evaluate()
            for layer, (z, a) in enumerate(zip(before, after, strict=True), 1):
                z[rows] = execution.read(layer, kernel_plan.SAVED)
                a[rows] = execution.read(layer, kernel_plan.OUTPUT)
        return LayerValues((*before, outputs), (*after, outputs))

    def jitted(self, *, softmax: bool = False) -> Network:
        """Return the network as arrays, for `fastmlp.kernels.predict` in jitted code.

        They are the network's own, so a prediction sees what training or writing to `weights` has
        changed. With `softmax`, the outputs are probabilities, as of `predict_proba`, and not those
        of `decision_function`.

        Raises
        ------
        TypeError, ValueError
            If `softmax` is no bool, or true and the loss is not "softmax_cross_entropy".

        Examples
        --------
        >>> import numpy as np
        >>> from numba import njit
        >>> from fastmlp import kernels
        >>> net = MLP([2, 8, 1], activation="tanh", loss="squared_error")
        >>> network = net.jitted()
        >>> work = np.empty(kernels.workspace_length(network), net.dtype)
        >>> @njit
        ... def largest(network, xs, out, work):
        ...     best = -np.inf
        ...     for i in range(len(xs)):
        ...         kernels.predict(out, xs[i : i + 1], network, work)
        ...         best = max(best, out[0, 0])
        ...     return best
        >>> xs, out = np.zeros((5, 2), net.dtype), np.empty((1, 1), net.dtype)
        >>> largest(network, xs, out, work)
        0.0
        """
        if check_flag(softmax, "softmax") and self.loss.name != "softmax_cross_entropy":
            raise ValueError(
                f"softmax needs a softmax_cross_entropy, this network has loss {str(self.loss)!r}"
            )
        return self._predictor.network(softmax)

    def clone(self) -> "MLP":
        """Return an equal network with memory of its own."""
        return self.astype(self.dtype)

    def astype(self, dtype: DTypeLike) -> "MLP":
        """Return a network with the same parameters rounded to `dtype`.

        Raises
        ------
        TypeError, ValueError
            If dtype is neither float32 nor float64.
        """
        other = object.__new__(MLP)
        other.__dict__.update(self.__getstate__())
        other.dtype = resolve_dtype(dtype)
        other.metadata = dict(self.metadata)
        other._allocate()
        for which, mine, its in (
            ("tensors", self.theta, other.theta),
            ("running", self.running, other.running),
        ):
            pairs = zip(getattr(self.layout, which), getattr(other.layout, which), strict=True)
            for from_tensor, to_tensor in pairs:
                to_tensor.view(its)[...] = from_tensor.view(mine)
        other.layout.spread(other.theta)
        return other

    def fold_input_scale(self) -> "MLP":
        """Return a network without input scale of the same function: W_1 <- diag(s) W_1.

        What a scale is good for is training; prediction, other programs' formats and second
        derivatives need none. The l2 and l1 of the first layer then concern diag(s) W_1.

        Examples
        --------
        >>> net = MLP([2, 3], input_scale=True)
        >>> net.input_scale[...] = [2.0, 0.5]
        >>> folded = net.fold_input_scale()
        >>> float(folded.weights[0][0, 0] / net.weights[0][0, 0]), len(folded.input_scale)
        (2.0, 0)
        """
        other = self.clone()
        other.architecture = dataclasses.replace(self.architecture, input_scale=False)
        other._allocate()
        for tensor in other.layout.tensors:
            mine = next(t for t in self.layout.tensors if t.name == tensor.name)
            tensor.view(other.theta)[...] = mine.view(self.theta)
        if self.architecture.input_scale:
            other.weights[0][...] *= self.input_scale[:, np.newaxis]
        other.running[...] = self.running
        other.layout.spread(other.theta)
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file, see `fastmlp.io.save`."""
        from . import io

        io.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a network from a file that `save` wrote, see `fastmlp.io.load`."""
        from . import io

        return io.load(path)  # type: ignore[return-value]

    def summary(self, batch: int = 32) -> "Summary":
        """Describe the layers in a table to print or show, see `fastmlp.summary.summary`."""
        from .summary import summary

        return summary(self, batch)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write what the network predicts to an ONNX file, see `fastmlp.exchange.to_onnx`."""
        from . import exchange

        exchange.to_onnx(self, path)

    @classmethod
    def from_onnx(cls, source: Any, *, loss: str | Loss | None = None) -> Self:
        """Read a network from an ONNX file, see `fastmlp.exchange.from_onnx`."""
        from . import exchange

        return exchange.from_onnx(source, loss=loss)  # type: ignore[return-value]

    @classmethod
    def from_torch(
        cls,
        source: Any,
        *,
        activation: str | Activation | Sequence[str | Activation] | None = None,
        loss: str | Loss | None = None,
    ) -> Self:
        """Take over PyTorch's ``nn.Sequential``, see `fastmlp.exchange.from_torch`."""
        from . import exchange

        return exchange.from_torch(  # type: ignore[return-value]
            source, activation=activation, loss=loss
        )

    @classmethod
    def from_sklearn(cls, estimator: Any) -> Self:
        """Take over scikit-learn's MLP, see `fastmlp.exchange.from_sklearn`."""
        from . import exchange

        return exchange.from_sklearn(estimator)  # type: ignore[return-value]

    def __repr__(self) -> str:
        options = {
            "dropout": self.dropout if any(self.dropout) else None,
            "norm": self.norm if any(self.norm) else None,
            "l2": self.l2 if any(self.l2) else None,
            "l1": self.l1 if any(self.l1) else None,
        }
        given = "".join(f", {name}={list(v)}" for name, v in options.items() if v is not None)
        given += ", input_scale=True" if self.architecture.input_scale else ""
        return (
            f"MLP({list(self.layer_sizes)}, activation={[str(f) for f in self.activation]}, "
            f"loss={str(self.loss)!r}{given}, dtype={self.dtype.name!r}, seed={self.seed})"
        )

    def _checked(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        names: tuple[str, str, str] = ("X", "y", "sample_weight"),
    ) -> Batch:
        """Check samples; the names are those of the arguments in errors."""
        outputs = self.layer_sizes[-1]
        x = check_inputs(X, self.layer_sizes[0], self.dtype, names[0])
        labels, targets = losses.targets_for(self.loss, y, len(x), outputs, self.dtype, names[1])
        weights = None
        if sample_weight is not None:
            weights = check_weights(sample_weight, len(x), names[2])
        return Batch.of(x, outputs, labels, targets, weights)

    def _gradient(self, flat: Array) -> Gradient:
        """Views of a vector in the layout of the parameters."""
        views = self.layout.views
        return Gradient(
            flat,
            views(flat, "weight"),
            views(flat, "bias"),
            views(flat, "slope"),
            views(flat, "gain"),
            views(flat, "shift"),
            self.layout.input_scale(flat),
        )

    def _loss_and_gradient(
        self,
        batch: Batch,
        *,
        training: bool = True,
        checkpoint_every: int = 1,
        threads: int | None = None,
    ) -> tuple[float, Gradient]:
        procedure = Procedure(
            batch_size=len(batch),
            seed=self.seed,
            training=training,
            checkpoint_every=checkpoint_every,
        )
        team_size = threads_for(len(batch), threads)
        execution = Execution(self, procedure=procedure, samples=batch, threads=team_size)
        loss, flat = execution.differentiate()
        return loss + self.penalty, self._gradient(flat)

    def _evaluate(self, batch: Batch, threads: int | None = None) -> tuple[float, float]:
        """Return mean loss and accuracy over the samples."""
        team_size = threads_for(len(batch), threads)
        return Execution(self, others=batch, threads=team_size).evaluate()

    def _evaluate_blocks(
        self, rows: Rows, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[float, float]:
        """Do the same, and convert no more rows of X at a time than a team takes; the same bits."""
        samples, outputs = rows.shape[0], self.layer_sizes[-1]
        labels, targets = losses.targets_for(self.loss, y, samples, outputs, self.dtype)
        weights = np.zeros(0)
        if sample_weight is not None:
            weights = check_weights(sample_weight, samples, "sample_weight")
        threads = threads_for(samples)
        sums = [0.0, 0.0, 0.0]
        for part in blocks(rows.shape, machine.MICRO_BATCH * threads):
            x = check_finite(dense(rows[part], self.dtype), self.dtype, "X", X, part.start)
            batch = Batch.of(x, outputs, labels[part], targets[part], weights[part])
            execution = Execution(self, others=batch, threads=threads)
            execution.evaluate()
            for scores in execution.scores.tolist():  # one by one, in the order of the passes
                sums = [total + score for total, score in zip(sums, scores, strict=True)]
        loss, right, weight = sums
        return loss / weight if weight > 0 else math.nan, right / samples

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.architecture, self.layout, self.theta, self.running)


def check_network(net: Any) -> MLP:
    """Return the network; TypeError if it is something else."""
    if not isinstance(net, MLP):
        raise TypeError(f"net must be an MLP, got {type(net).__name__}")
    return net


_DERIVED = {
    *("layout", "weights", "biases", "slopes", "gains", "shifts", "input_scale"),
    *("running_means", "running_variances", "_predictor"),
}


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    p: Array = np.where(z < 0, e, 1) / (1 + e)
    return p


def _slices(samples: int, size: int = LARGEST_PASS) -> Iterator[slice]:
    for first in range(0, samples, size):
        yield slice(first, min(first + size, samples))
