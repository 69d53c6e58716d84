"""The multilayer perceptron: a shape, one flat vector of parameters, and what it can compute."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import activations, initializers, losses, threads
from ._checks import check_inputs, check_labels, check_sequence, check_targets, check_whole
from ._execution import Batch, Execution
from .kernels import loss as kernel_loss
from .kernels import machine, resolve_dtype
from .kernels import optimizer as kernel_optimizer
from .kernels.program import Job
from .layout import Layout, aligned_zeros

__all__ = ["MLP", "Evaluation", "Gradient"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Evaluation:
    """Mean loss over some samples, and for a classifier the share of right classes (else None)."""

    loss: float
    accuracy: float | None


@dataclass(frozen=True)
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
    """

    flat: Array
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]


class MLP:
    """A multilayer perceptron: A_0 = X, A_l = f_l(A_{l-1} W_l + b_l), the last layer linear.

    Parameters
    ----------
    layer_sizes
        Units of each layer, inputs first and outputs last: at least two numbers.
    activation
        "identity", "relu", "sigmoid", "tanh" or "softplus": one name for all hidden layers, or one
        for each.
    loss
        "softmax_cross_entropy" (y: labels 0 to K-1), "squared_error" (mean over samples of
        ||z - y||**2) or "half_squared_error" (half of that).
    seed
        Of the initial parameters, and of the shuffles in `fit`.
    dtype
        "float32" or "float64".

    Attributes
    ----------
    theta
        All parameters in one 64-byte aligned vector, rows padded with zeros, see `layout`.
    weights, biases
        Views W_l [n_in, n_out] and b_l [n_out] of `theta`. Writing to them changes the network.
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
        activation: str | Sequence[str] = "relu",
        loss: str = "softmax_cross_entropy",
        seed: int = 0,
        dtype: DTypeLike = "float32",
    ) -> None:
        sizes = tuple(
            check_whole(n, f"layer_sizes[{i}]", 1)
            for i, n in enumerate(check_sequence(layer_sizes, "layer_sizes"))
        )
        if len(sizes) < 2:
            raise ValueError(
                f"layer_sizes must name the inputs and the outputs at least, got {list(sizes)}"
            )
        self.layer_sizes = sizes
        self.activations = activations.resolve(activation, len(sizes) - 2)
        self.loss = losses.resolve(loss)
        if self.is_classifier and sizes[-1] < 2:
            raise ValueError(f"layer_sizes[-1] must be at least 2 for {loss}, got {sizes[-1]}")
        self.seed = check_whole(seed, "seed", 0, 2**63)
        self.dtype = resolve_dtype(dtype)
        self.metadata: dict[str, str] = {}
        self._allocate()
        rng = np.random.Generator(np.random.Philox(self.seed))
        initializers.initialize(self.weights, self.biases, self.activations, rng)

    def _allocate(self) -> None:
        """Make the vector of parameters, all zero, and the views of it."""
        self.layout = Layout.of(self.layer_sizes, self.dtype)
        self.theta = aligned_zeros(self.layout.length, self.dtype)
        self.weights = self.layout.weights(self.theta)
        self.biases = self.layout.biases(self.theta)

    def __getstate__(self) -> dict[str, Any]:
        views = ("layout", "weights", "biases")
        return {name: value for name, value in self.__dict__.items() if name not in views}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._allocate()
        self.theta[...] = state["theta"]

    @property
    def is_classifier(self) -> bool:
        """Whether the targets are class labels."""
        return losses.is_classification(self.loss)

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases, padding not counted."""
        return sum(
            (n + 1) * m for n, m in zip(self.layer_sizes, self.layer_sizes[1:], strict=False)
        )

    def decision_function(self, X: ArrayLike) -> Array:
        """Return the outputs of the last layer [n, O]: logits of the classes, or predictions.

        Raises
        ------
        TypeError, ValueError
            If X is not a finite numeric array of shape (n, layer_sizes[0]) with n >= 1.
        """
        x = check_inputs(X, self.layer_sizes[0], self.dtype)
        outputs = np.empty((len(x), self.layer_sizes[-1]), self.dtype)
        self._forward(Batch.of(x, None, self.layer_sizes[-1]), outputs)
        return outputs

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the classes' probabilities softmax(z) [n, K].

        Raises
        ------
        TypeError, ValueError
            As `decision_function`, and ValueError if the network is no classifier.
        """
        if not self.is_classifier:
            raise ValueError(
                f"predict_proba needs a classifier, this network has loss {self.loss!r}"
            )
        z = self.decision_function(X)
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
        return z

    def predict(self, X: ArrayLike) -> Array:
        """Return the most probable class of each sample, int64 [n], or the predictions [n, O].

        Raises
        ------
        TypeError, ValueError
            As `decision_function`.
        """
        z = self.decision_function(X)
        return z.argmax(axis=1) if self.is_classifier else z

    def evaluate(self, X: ArrayLike, y: ArrayLike) -> Evaluation:
        """Return mean loss and accuracy over the samples.

        Raises
        ------
        TypeError, ValueError
            If X is not as in `decision_function`, or y not labels 0 to K-1 [n] for a classifier,
            else finite targets [n, O].
        """
        scores = self._forward(self._checked(X, y), None)
        return Evaluation(float(scores[2]), float(scores[3]) if self.is_classifier else None)

    def loss_and_gradient(self, X: ArrayLike, y: ArrayLike) -> tuple[float, Gradient]:
        """Return the mean loss over the samples and its gradient by all parameters.

        Raises
        ------
        TypeError, ValueError
            As `evaluate`.
        """
        batch = self._checked(X, y)
        job = Job(self._loss_code, kernel_optimizer.KEEP, 1, len(batch), 0, 0)
        execution = Execution(
            self.layout,
            self.activations,
            self.theta,
            job,
            samples=batch,
            threads=self._threads_for(len(batch)),
        )
        _finish(execution, len(batch))
        flat = execution.gradient
        gradient = Gradient(flat, self.layout.weights(flat), self.layout.biases(flat))
        return float(execution.history[0, 0]), gradient

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
        other = MLP(
            self.layer_sizes,
            activation=self.activations if self.activations else "identity",
            loss=self.loss,
            seed=self.seed,
            dtype=dtype,
        )
        for mine, its in zip(
            (*self.weights, *self.biases), (*other.weights, *other.biases), strict=True
        ):
            its[...] = mine
        other.metadata = dict(self.metadata)
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

    def __repr__(self) -> str:
        return (
            f"MLP({list(self.layer_sizes)}, activation={list(self.activations)}, "
            f"loss={self.loss!r}, dtype={self.dtype.name!r}, seed={self.seed})"
        )

    @property
    def _loss_code(self) -> int:
        return kernel_loss.CODES[self.loss]

    def _checked(self, X: ArrayLike, y: ArrayLike, x_name: str = "X", y_name: str = "y") -> Batch:
        """Check samples; the names are those of the arguments in errors."""
        outputs = self.layer_sizes[-1]
        x = check_inputs(X, self.layer_sizes[0], self.dtype, x_name)
        if self.is_classifier:
            return Batch.of(x, check_labels(y, len(x), outputs, y_name), outputs)
        return Batch.of(x, check_targets(y, len(x), outputs, self.dtype, y_name), outputs)

    def _loss(self, batch: Batch) -> float:
        """Mean loss over checked samples."""
        return float(self._forward(batch, None)[2])

    def _forward(self, batch: Batch, outputs: Array | None) -> Array:
        """Fill `outputs` [n, O] if given; return [_, _, mean loss, accuracy] if y is known."""
        job = Job(self._loss_code, kernel_optimizer.KEEP, 0, 1, 0, 0)
        execution = Execution(
            self.layout,
            self.activations,
            self.theta,
            job,
            others=batch,
            outputs=outputs,
            threads=self._threads_for(len(batch)),
        )
        _finish(execution, len(batch))
        row: Array = execution.history[0]
        return row

    def _threads_for(self, samples: int) -> int:
        """No more threads than there are micro-batches to share out."""
        return min(threads.resolve(), -(-samples // machine.MICRO_BATCH))


def _finish(execution: Execution, samples: int) -> None:
    """Run to the end: here if one micro-batch is all there is, else in a team."""
    if samples <= machine.MICRO_BATCH:
        execution.run_here()
    elif not execution.run():
        raise KeyboardInterrupt
