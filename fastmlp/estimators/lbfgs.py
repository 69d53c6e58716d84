"""Solver "lbfgs": SciPy's L-BFGS-B on the whole loss, as scikit-learn calls it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from sklearn.utils.optimize import _check_optimize_result

from .._execution import Execution, Procedure
from ..mlp import MLP
from ..optimizers import LBFGS
from ..threads import threads_for
from .heads import Data, Head
from .networks import half_squares
from .workers import is_short

__all__ = ["fit_lbfgs"]

Floats = NDArray[np.float64]
KINDS = ("weight", "bias", "slope", "gain", "shift")


def fit_lbfgs(estimator: Any, head: Head, data: Data, threads: int) -> None:
    """Minimise mean loss plus penalty; set `n_iter_` and `loss_`.

    The function is that whose gradient the stochastic solvers take: squared errors are added over
    the outputs. `loss_` is as they report it.
    """
    net, batch, solver = estimator.network_, data.batch, estimator.solver
    if net.architecture.is_random or net.architecture.has_batch_norm:
        raise ValueError("solver='lbfgs' needs a network without dropout and batch norm")
    team_size = threads_for(len(batch), threads)
    execution = Execution(net, procedure=Procedure(len(batch)), samples=batch, threads=team_size)
    here = is_short(net, len(batch))
    where = _order(net)
    weights = slice(0, sum(w.size for w in net.weights))
    total = len(batch) if data.weight is None else data.weight.sum()
    alpha, offset = estimator.alpha / total, head.offset(data)

    def value_and_gradient(values: Floats) -> tuple[float, Floats]:
        net.theta[where] = values
        execution.take_parameters()
        loss, flat = execution.differentiate(here)
        gradient = flat[where].astype(np.float64)
        gradient[weights] += alpha * values[weights]
        return loss + offset + 0.5 * alpha * float(values[weights] @ values[weights]), gradient

    settings = solver if isinstance(solver, LBFGS) else LBFGS(tolerance=estimator.tol)
    result = optimize.minimize(
        value_and_gradient,
        net.theta[where].astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxfun": estimator.max_fun,
            "maxiter": estimator.max_iter,
            "maxcor": settings.history,
            "gtol": settings.tolerance,
        },
    )
    estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    net.theta[where] = result.x
    penalty = alpha * half_squares(net.weights)
    estimator.loss_ = head.scale(data.columns.shape[1]) * (result.fun - offset - penalty)
    estimator.loss_ += offset + penalty


def _order(net: MLP) -> NDArray[np.int64]:
    """Where the parameters are in the flat vector: all weights first, then all biases, the rest."""
    places = np.arange(len(net.theta))
    views = [view.ravel() for kind in KINDS for view in net.layout.views(places, kind)]
    order: NDArray[np.int64] = np.concatenate(views)
    return order
