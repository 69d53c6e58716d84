"""Full-batch training by SciPy's L-BFGS on the same loss and gradient."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._execution import Batch
from .errors import DivergenceError
from .history import History
from .optimizers import LBFGS

if TYPE_CHECKING:
    from .mlp import MLP

__all__ = ["minimize"]


def minimize(
    net: "MLP",
    optimizer: LBFGS,
    train: Batch,
    held_out: Batch | None,
    epochs: int,
    threads: int,
    history: History,
) -> None:
    """Run at most `epochs` iterations of L-BFGS in place; each is an epoch of the history.

    Raises ValueError if the loss is not a function of the parameters alone, DivergenceError if it
    is not finite at the start, ImportError without SciPy.
    """
    try:
        from scipy import optimize
    except ImportError as error:
        raise ImportError('LBFGS needs SciPy: pip install "fastmlp[scipy]"') from error
    if net.architecture.is_random or net.architecture.has_batch_norm:
        raise ValueError("LBFGS needs a network without dropout and batch norm")
    where = np.concatenate([_indices(tensor, net.theta) for tensor in net.layout.tensors])

    def value_and_gradient(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        net.theta[where] = values
        loss, gradient = net._loss_and_gradient(train, threads=threads)
        return loss, gradient.flat[where].astype(np.float64)

    begin = time.perf_counter()

    def record(intermediate_result: Any) -> None:
        net.theta[where] = accepted[...] = intermediate_result.x
        loss, accuracy = net._evaluate(train, threads)
        history.loss.append(loss)
        if net.is_classifier:
            history.accuracy.append(accuracy)
        if held_out is not None:
            val_loss, val_accuracy = net._evaluate(held_out, threads)
            history.val_loss.append(val_loss)
            if net.is_classifier:
                history.val_accuracy.append(val_accuracy)
        history.seconds = time.perf_counter() - begin
        history.samples_per_second = len(history) * len(train) / history.seconds

    accepted = net.theta[where].astype(np.float64)
    if not np.isfinite(net._evaluate(train, threads)[0]):
        raise DivergenceError(1, 1, len(net.weights), history)
    try:
        optimize.minimize(
            value_and_gradient,
            accepted.copy(),
            jac=True,
            method="L-BFGS-B",
            callback=record,
            options={
                "maxiter": epochs,
                "maxfun": 20 * epochs,
                "maxcor": optimizer.history,
                "gtol": optimizer.tolerance,
                "ftol": 0.0,
            },
        )
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        net.theta[where] = accepted  # a line search may have been looking elsewhere


def _indices(tensor: Any, theta: NDArray[Any]) -> NDArray[np.int64]:
    """Where the true entries of a tensor are in the flat vector."""
    indices: NDArray[np.int64] = tensor.view(np.arange(len(theta))).ravel()
    return indices
