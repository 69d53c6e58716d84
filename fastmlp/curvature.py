"""Second order: products with the Hessian of the loss, its ends, and the descent lemma."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import check_flag, check_number, check_whole
from ._execution import Array, Batch
from ._schedule import Rates, Schedule
from .kernels import hessian, machine
from .kernels import plan as kernel_plan
from .kernels import team as kernel_team
from .kernels.hessian import Tangents
from .kernels.plan import Workspace
from .layout import aligned_zeros, allocate, alone, feature_lists, round_up
from .mlp import MLP, Gradient, check_network
from .threads import Team, resolve

__all__ = [
    "DescentReport",
    "Lipschitz",
    "Smoothness",
    "hessian_vector_product",
    "smoothness",
    "verify_descent",
]

Vector = NDArray[np.float64]
# before which Lanczos may not have met a lone eigenvalue beside thousands near 0
LEAST_PRODUCTS = 20
PARTS = 16  # fixed parts of the samples, each with a sum of its own, whatever the threads
POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of a step, where its L is looked for


def hessian_vector_product(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    v: Gradient | ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    training: bool = True,
) -> Gradient:
    """Return H v, the derivative of the gradient along v, exact up to rounding.

    H is the matrix of second derivatives of what `MLP.loss_and_gradient` returns for the same
    arguments, by all parameters. The product costs about four gradients; H itself is never formed.
    At a kink of an activation or of the loss, its derivatives are those on the left.

    Parameters
    ----------
    net
        The network; it does not change.
    X, y, sample_weight, training
        As in `MLP.loss_and_gradient`.
    v
        The direction: a `Gradient`, or a vector in the layout of `net.theta`, whose padding does
        not matter.

    Raises
    ------
    TypeError, ValueError
        As `MLP.loss_and_gradient`, or if v is not such a vector of finite numbers.

    References
    ----------
    B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994).

    Examples
    --------
    The loss (w - 1)**2 has the second derivative 2:

    >>> net = MLP([1, 1], loss="squared_error", dtype="float64")
    >>> direction = np.zeros_like(net.theta)
    >>> direction[0] = 1.0
    >>> hessian_vector_product(net, [[1.0]], [1.0], direction).weights[0]
    array([[2.]])
    """
    operator = _Hessian(check_network(net), net._checked(X, y, sample_weight), training)
    return net._gradient(operator.product(_check_direction(net, v)))


@dataclass(frozen=True)
class Smoothness:
    """Ends of the spectrum of the Hessian; `str` gives them in a line.

    Attributes
    ----------
    eigenvalue, smallest
        The largest and the smallest eigenvalue.
    L
        The larger of their magnitudes: near these parameters the gradient has this Lipschitz
        constant.
    step_bound
        2 / L: gradient descent with a larger step leaves a minimum of this curvature.
    residual
        ||H q - lambda q|| of the worse of both pairs: so far from each is an eigenvalue.
    iterations
        Products with the Hessian that it took.
    converged
        Whether the residual is at most tolerance times L.
    eigenvector
        Of the largest eigenvalue, of norm 1.
    """

    eigenvalue: float
    smallest: float
    L: float
    step_bound: float
    residual: float
    iterations: int
    converged: bool
    eigenvector: Gradient

    def __str__(self) -> str:
        return (
            f"eigenvalues {self.smallest:.4g} to {self.eigenvalue:.4g} "
            f"(residual {self.residual:.1e}, {self.iterations} products), L = {self.L:.4g}, "
            f"2/L = {self.step_bound:.4g}{'' if self.converged else ', NOT CONVERGED'}"
        )


def smoothness(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    training: bool = True,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
) -> Smoothness:
    """Return the largest and smallest eigenvalue of the Hessian, hence L and the bound 2 / L.

    By Lanczos' method with full reorthogonalisation from a random vector. The eigenvalues it gives
    lie inside the spectrum, so L is a lower bound, as a rule by far less than the residual. An end
    that is small beside L is known to that absolute accuracy alone.

    Parameters
    ----------
    net, X, y, sample_weight, training
        As in `hessian_vector_product`.
    tolerance
        The residual, relative to L, at which both ends have converged.
    max_iterations
        Products with the Hessian, at most.
    seed
        Of the first vector.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be.
    FloatingPointError
        If the Hessian is not finite.

    References
    ----------
    C. Lanczos, "An iteration method for the solution of the eigenvalue problem of linear
    differential and integral operators" (1950). G. H. Golub, C. F. Van Loan, "Matrix computations",
    4th ed. (2013), chapter 10.

    Examples
    --------
    >>> net = MLP([2, 1], loss="squared_error", dtype="float64")
    >>> result = smoothness(net, [[2.0, 0.0], [0.0, 1.0]], [1.0, 1.0], tolerance=1e-10)
    >>> round(result.eigenvalue, 6), round(result.step_bound, 6)
    (5.302776, 0.377161)
    """
    tolerance = check_number(tolerance, "tolerance", 0.0, open_low=True)
    max_iterations = check_whole(max_iterations, "max_iterations", 1)
    seed = check_whole(seed, "seed", 0, 2**63)
    batch = check_network(net)._checked(X, y, sample_weight)
    return _smoothness(net, batch, training, tolerance, max_iterations, seed, least=LEAST_PRODUCTS)


@dataclass(frozen=True)
class DescentReport:
    """A step of gradient descent beside what the descent lemma says of it; `str` is a table.

    Attributes
    ----------
    alpha
        The step.
    L
        The Lipschitz constant of the gradient that the promise is made with.
    L_along
        (t, L) at some points theta - t alpha g of the step, from t = 0 to t = 1.
    loss_before, loss_after, gradient_norm
        At theta, at theta - alpha g, and ||g|| at theta.
    promised
        alpha (2 - alpha L) / 2 ||g||**2, which is negative for alpha > 2 / L.
    occurred
        loss_before - loss_after.
    """

    alpha: float
    L: float
    L_along: tuple[tuple[float, float], ...]
    loss_before: float
    loss_after: float
    gradient_norm: float
    promised: float
    occurred: float

    @property
    def holds(self) -> bool:
        """Whether the loss fell by at least what was promised, up to rounding of the losses."""
        rounding = 64 * np.finfo(np.float64).eps * (abs(self.loss_before) + abs(self.loss_after))
        return bool(self.occurred >= self.promised - rounding)

    @property
    def exceeding(self) -> tuple[tuple[float, float], ...]:
        """The points (t, L) of the step where the curvature is larger than L: the lemma's gaps.

        Larger by more than 1%, as exactly as the L along the step are known.
        """
        return tuple((t, value) for t, value in self.L_along if value > 1.01 * self.L)

    def __str__(self) -> str:
        along = ", ".join(f"{value:.4g}" for _, value in self.L_along)
        lines = [
            f"descent lemma {'holds' if self.holds else 'FAILS'}: "
            f"alpha {self.alpha:.4g}, L {self.L:.4g}, 2/L {_inverse(self.L, 2.0):.4g}",
            f"  loss      {self.loss_before:.8g} -> {self.loss_after:.8g}, "
            f"||g|| {self.gradient_norm:.4g}",
            f"  promised  {self.promised:.6g}",
            f"  occurred  {self.occurred:.6g}",
            f"  L along   {along}",
        ]
        lines += [
            f"  L is exceeded at theta - {t:g} alpha g: {value:.4g}" for t, value in self.exceeding
        ]
        return "\n".join(lines)


def verify_descent(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    alpha: float,
    L: float | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    training: bool = True,
) -> DescentReport:
    """Compare a step of gradient descent with the decrease that the descent lemma promises.

    If the gradient has the Lipschitz constant L on the way from theta to theta - alpha g, then
    loss(theta - alpha g) <= loss(theta) - alpha (2 - alpha L) / 2 ||g||**2. Everything is computed
    in float64 on a copy.

    Parameters
    ----------
    net, X, y, sample_weight, training
        As in `hessian_vector_product`.
    alpha
        The step, above 0.
    L
        None: the largest that `smoothness` finds at five points along the step. A smaller one may
        fail; the report says where the curvature exceeds it.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be.
    FloatingPointError
        If loss or Hessian is not finite somewhere on the way.

    References
    ----------
    Y. Nesterov, "Introductory lectures on convex optimization" (2004), lemma 1.2.3.

    Examples
    --------
    >>> net = MLP([1, 1], loss="squared_error", dtype="float64")
    >>> report = verify_descent(net, [[1.0], [-1.0]], [1.0, 1.0], alpha=0.5)
    >>> report.holds, round(report.L, 6)
    (True, 2.0)
    """
    alpha = check_number(alpha, "alpha", 0.0, open_low=True)
    check_flag(training, "training")
    if L is not None:
        L = check_number(L, "L", 0.0)
    probe = check_network(net).astype("float64")
    batch = probe._checked(X, y, sample_weight)
    theta = probe.theta.copy()
    before, gradient = probe._loss_and_gradient(batch, training=training)
    along = []
    for t in POINTS:
        _move(probe, theta, gradient.flat, t * alpha)
        along.append((t, _smoothness(probe, batch, training).L))
    after, _ = probe._loss_and_gradient(batch, training=training)
    if not math.isfinite(before - after):
        raise FloatingPointError(f"the loss is not finite after a step of alpha = {alpha:g}")
    L = max(value for _, value in along) if L is None else L
    norm = float(np.linalg.norm(gradient.flat))
    promised = _promise(alpha, L, norm)
    return DescentReport(alpha, L, tuple(along), before, after, norm, promised, before - after)


class Lipschitz(Schedule):
    """The rate 1 / L of each epoch of full-batch gradient descent, L at its parameters.

    The curvature may rise on the way, so L is doubled until the step brings what the descent lemma
    promises, a decrease by ||g||**2 / (2 L). This is what ``learning_rate="lipschitz"`` means.

    Raises
    ------
    ValueError
        If the network has dropout, so that no two steps have the same loss, or a loss without
        curvature.
    """

    def __init__(self, net: MLP, batch: Batch) -> None:
        if net.architecture.is_random:
            raise ValueError("learning_rate='lipschitz' needs a network without dropout")
        if net.loss.name in ("absolute_error", "pinball"):
            raise ValueError(
                f"learning_rate='lipschitz' needs a loss with curvature, not {net.loss.name}"
            )
        self._net, self._batch = net, batch

    @property
    def monitor(self) -> str | None:
        """The losses, so that each epoch has a rate of its own."""
        return "loss"

    def rates(self, steps: NDArray[np.int64], total: int, per_epoch: int) -> Rates:
        """Return 1 for each step: the rate is the multiplier."""
        return np.ones(len(steps))

    def multiplier(self, values: Sequence[float]) -> float:
        """Return 1 / L at the network's parameters."""
        net, batch, eps = self._net, self._batch, float(np.finfo(self._net.dtype).eps)
        L = max(_smoothness(net, batch, tolerance=1e-2).L, eps)
        before, gradient = net._loss_and_gradient(batch)
        squares = float(np.square(gradient.flat, dtype=np.float64).sum())
        trial, rounding = net.clone(), 8 * eps * abs(before)
        while True:
            _move(trial, net.theta, gradient.flat, 1.0 / L)
            after, _ = trial._loss_and_gradient(batch)
            if before - after >= squares / (2.0 * L) - rounding or squares / L < rounding:
                return 1.0 / L
            L *= 2.0


class _Hessian:
    """The Hessian of the mean loss plus penalty at a network's present parameters."""

    def __init__(self, net: MLP, batch: Batch, training: bool = True) -> None:
        check_flag(training, "training")
        if net.architecture.input_scale:
            raise ValueError(
                "second derivatives need a network without input_scale, "
                "such as net.fold_input_scale() returns"
            )
        self._net, self._samples = net, batch.as_samples()
        net.layout.spread(net.theta)
        rows = net.architecture.rows_of_pass(len(batch), training)
        allocation = alone(
            allocate(
                net.architecture,
                net.layout,
                net.dtype,
                rows=rows,
                training=training,
                seed=net.seed,
                keep=True,
            )
        )
        self._plan, self._length = allocation.plan, allocation.shared
        self._plan.numbers[:, kernel_plan.MOMENTUM] = 0  # running statistics stay
        self._places, self._tangents = self._place(rows)
        self._objective = net.loss.objective(net.layer_sizes[-1])
        self._scale = 1.0 / weight if (weight := _weight(net, batch)) > 0 else 0.0
        passes = -(-len(batch) // rows)
        parts = min(PARTS, passes)
        self._bounds = [passes * part // parts for part in range(parts + 1)]
        self._threads = min(resolve(), parts)
        self._scratch = [self._make_scratch() for _ in range(self._threads)]

    def product(self, v: Array) -> Array:
        """H v in the layout of the parameters, from a vector of that layout."""
        net, layout = self._net, self._net.layout
        direction = aligned_zeros(layout.length, net.dtype)
        for tensor in layout.tensors:
            tensor.view(direction)[...] = tensor.view(v)
        layout.spread(direction)
        parts = len(self._bounds) - 1
        products = [aligned_zeros(layout.length, net.dtype) for _ in range(parts)]
        state = np.zeros(kernel_team.LENGTH, np.int64)

        def member(thread: int) -> None:
            work, values = self._scratch[thread]
            for part in range(thread, parts, self._threads):
                hessian.hessian_product(
                    self._objective,
                    self._plan,
                    work,
                    state,
                    self._samples,
                    net.theta,
                    Tangents(direction, products[part], values, self._places),
                    *self._bounds[part : part + 2],
                    self._scale,
                )

        if not Team(member, self._threads, state).run():
            raise KeyboardInterrupt
        total = products[0]
        for product in products[1:]:
            total += product
        for tensor in layout.tensors:
            if tensor.copies > 1:
                copies = slice(tensor.offset, tensor.offset + tensor.copies)
                total[tensor.offset] = total[copies].sum()
            elif tensor.kind == "weight":
                tensor.view(total)[...] += net.l2[tensor.layer - 1] * tensor.view(direction)
        layout.gather(total)
        return total

    def _place(self, rows: int) -> tuple[NDArray[np.int64], int]:
        """Offsets of the tangents' regions, and their length. Deltas take turns, f' shares."""
        strides = self._net.layout.strides
        region = rows * max(strides[1:])
        places = np.zeros((len(strides), hessian.REGIONS), np.int64)
        places[:, hessian.DELTA] = region * (np.arange(len(strides)) % 2)
        places[:, hessian.FIRST], places[:, hessian.SECOND] = 2 * region, 3 * region
        length = 4 * region
        line = machine.CACHE_LINE // self._net.dtype.itemsize
        for layer in range(1, len(strides) - 1):
            columns = [hessian.OUTPUT, hessian.INPUT]
            if self._net.norm[layer - 1] is not None:
                columns.append(hessian.NORMED_TANGENT)
                places[layer, hessian.MOMENT] = length
                length += round_up(max(rows, strides[layer]), line)
            for column in columns:
                places[layer, column] = length
                length += rows * strides[layer]
        return places, length

    def _make_scratch(self) -> tuple[Workspace, Array]:
        """A thread's workspace of the passes, and its tangents."""
        dtype, rows = self._net.dtype, self._plan.rows
        array = aligned_zeros(self._length, dtype)
        work = Workspace(
            0,
            0,
            array,
            array,
            self._net.running,
            np.zeros(rows, np.int64),
            np.zeros((3, rows)),
            np.zeros((0, 3)),
            np.zeros(0),
            *feature_lists(self._net.layout, rows),
        )
        return work, aligned_zeros(self._tangents, dtype)


def _smoothness(
    net: MLP,
    batch: Batch,
    training: bool = True,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
    least: int = 1,
) -> Smoothness:
    start = np.zeros(net.layout.length)
    rng = np.random.Generator(np.random.Philox(seed))
    for tensor in net.layout.tensors:
        tensor.view(start)[...] = rng.standard_normal(tensor.shape)
    operator = _Hessian(net, batch, training)
    limit = min(max_iterations, net.n_parameters)
    values, residuals, vector, iterations = _lanczos(
        operator.product, start, tolerance, min(least, limit), limit
    )
    L, residual = max(abs(values[0]), abs(values[-1])), max(residuals)
    flat = aligned_zeros(net.layout.length, net.dtype)
    flat[...] = vector
    return Smoothness(
        eigenvalue=values[-1],
        smallest=values[0],
        L=L,
        step_bound=_inverse(L, 2.0),
        residual=residual,
        iterations=iterations,
        converged=residual <= tolerance * L,
        eigenvector=net._gradient(flat),
    )


def _lanczos(
    product: Callable[[Array], Array], start: Vector, tolerance: float, least: int, limit: int
) -> tuple[tuple[float, float], tuple[float, float], Vector, int]:
    """Smallest and largest eigenvalue, their residuals, the latter's vector, and the iterations."""
    basis = [start / np.linalg.norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        w = product(basis[-1]).astype(np.float64)
        if not np.isfinite(w).all():
            raise FloatingPointError("the Hessian of the loss is not finite at these parameters")
        diagonal.append(float(basis[-1] @ w))
        for _ in range(2):  # twice is enough (B. N. Parlett, W. Kahan)
            for q in basis:
                w -= (q @ w) * q
        norm = float(np.linalg.norm(w))
        T = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        values, vectors = np.linalg.eigh(T)
        ends = float(values[0]), float(values[-1])
        residuals = norm * abs(float(vectors[-1, 0])), norm * abs(float(vectors[-1, -1]))
        size = max(abs(ends[0]), abs(ends[1]))
        is_accurate = len(basis) >= least and max(residuals) <= tolerance * size
        if is_accurate or norm == 0 or len(basis) == limit:
            vector = np.asarray(basis).T @ vectors[:, -1]
            return ends, residuals, vector, len(basis)
        beside.append(norm)
        basis.append(w / norm)


def _weight(net: MLP, batch: Batch) -> float:
    """Sum of the weights that the mean loss is divided by."""
    weights = batch.weights[batch.chosen] if len(batch.weights) else np.ones(len(batch))
    if len(batch.labels) and net.loss.class_weight is not None:
        weights = weights * np.asarray(net.loss.class_weight)[batch.labels[batch.chosen]]
    return float(weights.sum())


def _move(net: MLP, theta: Array, gradient: Array, alpha: float) -> None:
    """Set the parameters to theta - alpha gradient."""
    net.theta[...] = theta - net.dtype.type(alpha) * gradient
    net.layout.spread(net.theta)


def _promise(alpha: float, L: float, gradient_norm: float) -> float:
    return alpha * (2.0 - alpha * L) / 2.0 * gradient_norm**2


def _inverse(L: float, numerator: float) -> float:
    return numerator / L if L > 0 else math.inf


def _check_direction(net: MLP, v: Gradient | ArrayLike) -> Array:
    flat = np.asarray(v.flat if isinstance(v, Gradient) else v)
    if flat.dtype.kind not in "iuf":
        raise TypeError(f"v must be a Gradient or a vector of numbers, got dtype {flat.dtype}")
    if flat.shape != net.theta.shape:
        raise ValueError(f"v must have the shape of net.theta, {net.theta.shape}, got {flat.shape}")
    if not all(np.isfinite(tensor.view(flat)).all() for tensor in net.layout.tensors):
        raise ValueError("v must be finite")
    return flat
