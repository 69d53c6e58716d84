"""Checks of what training computes: the gradient, the second derivative, a step of an optimizer."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import array_of
from ._checks import check_number, check_whole
from ._names import check_name
from ._schedule import as_schedule
from .gradcheck_numeric import Model, central_differences, complex_steps, richardson
from .gradcheck_report import GradientCheckReport, Part, TensorCheck, judge
from .kernels import reference
from .kernels.optimizer import ADAM, MOMENTUM, SCALED, SGD, make_rule
from .layout import Tensor
from .mlp import MLP, check_network
from .optimizers import Optimizer, check_optimizer

__all__ = [
    "GradientCheckReport",
    "TensorCheck",
    "gradient_check",
    "hessian_check",
    "optimizer_check",
]

Array = NDArray[Any]
Method = Literal["central", "richardson", "complex", "directions"]

EPSILONS = {"central": 1e-5, "richardson": 3e-4, "complex": 1e-40, "directions": 1e-40}
TOLERANCES = {"central": 1e-7, "richardson": 1e-9, "complex": 1e-12, "directions": 1e-12}


def gradient_check(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    method: Method = "central",
    epsilon: float | None = None,
    tolerance: float | None = None,
    training: bool = True,
    directions: int = 8,
    seed: int = 0,
) -> GradientCheckReport:
    """Compare the gradient of the loss, penalty included, with one made without a backward pass.

    ============ ============================================== ======= ========= =================
    method       derivative by a parameter p, h = epsilon       epsilon tolerance of
    ============ ============================================== ======= ========= =================
    "central"    D(h) = (L(p + h) - L(p - h)) / 2h              1e-5    1e-7      the kernels' loss
    "richardson" (4 D(h) - D(2h)) / 3                           3e-4    1e-9      the kernels' loss
    "complex"    Im L(p + ih) / h                               1e-40   1e-12     the NumPy model
    "directions" the same along random vectors of -1 and 1,     1e-40   1e-12     the NumPy model
                 some in each tensor, instead of each p
    ============ ============================================== ======= ========= =================

    Differences are off by a derivative times h**2 (Richardson's h**4) and by rounding, of the order
    of 1e-16 L / h. A complex step has neither error, but its loss is that of the model of the
    network in `kernels.reference`. Differences compute again, compiled, only what follows from a
    parameter; "directions" takes the time of a few forward passes.

    Everything is in float64, on a copy: `net` is never modified. A float32 network is checked with
    its parameters converted, and its own gradient must agree with that of the copy within 1e-3.

    **Kinks.** Where f or the loss has one (relu, leaky_relu, prelu, elu, selu; absolute_error,
    pinball, huber; l1), a difference across it is no derivative. Parameters whose step takes a unit
    or an output across its kink, or that are at one, are left out and counted.

    Differences with a step of any size are wrong where the loss bends within it, as it does below a
    layer norm of two or three units: only complex steps tell there.

    **The floor.** The error of a tensor is relative to ||numeric|| + ||analytic||, but at least to
    a hundredth of the norm of the whole numeric gradient, and to what makes the differences' own
    rounding error, estimated from the losses, pass with the default tolerance. So a tensor whose
    gradient is zero does not fail, and an error passes only if it is below tolerance / 100 times
    the whole gradient, or no larger than rounding.

    Parameters
    ----------
    net
        The network to check.
    X, y, sample_weight
        Samples, as `MLP.evaluate` takes them.
    method
        See above.
    epsilon, tolerance
        h, and the relative error at and above which the check has failed; None: as above.
    training
        Whether with dropout, masks those of step 0 of the network's seed, and the statistics of the
        batch for batch norm; else as in prediction.
    directions, seed
        How many random vectors there are for each tensor, and their seed.

    Returns
    -------
    GradientCheckReport
        ``report.ok`` tells the result. A failed check raises nothing.

    Raises
    ------
    TypeError, ValueError
        As `MLP.evaluate` for bad samples; or if an option is not what it should be.

    References
    ----------
    W. Squire, G. Trapp, "Using complex variables to estimate derivatives of real functions", SIAM
    Review 40 (1998). L. F. Richardson, "The approximate arithmetical solution by finite
    differences of physical problems", Phil. Trans. Royal Society A 210 (1911).

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> net = fm.MLP([3, 5, 2], activation="tanh", loss="squared_error", seed=0)
    >>> X = np.linspace(-1.0, 1.0, 12).reshape(4, 3)
    >>> fm.gradient_check(net, X, np.sin(X[:, :2])).ok
    True
    >>> fm.gradient_check(net, X, np.sin(X[:, :2]), method="complex").relative_error < 1e-15
    True
    """
    check_name(method, "method", EPSILONS)
    epsilon = _positive(epsilon, "epsilon", EPSILONS[method])
    tolerance = _positive(tolerance, "tolerance", TOLERANCES[method])
    directions = check_whole(directions, "directions", 1)
    seed = check_whole(seed, "seed", 0, 2**63)
    probe = check_network(net).astype("float64")
    batch = probe._checked(X, y, sample_weight)
    analytic = _gradient(probe, X, y, sample_weight, training)
    tensors = probe.layout.tensors
    singles: list[Array | None] = [None] * len(tensors)
    if net.dtype == np.float32:
        flat = _gradient(net, X, y, sample_weight, training)
        singles = [
            mine.view(flat) - its.view(analytic)
            for mine, its in zip(net.layout.tensors, tensors, strict=True)
        ]
    factors = _factors(len(batch))
    if method == "directions":
        model, rng = Model(probe, batch, training, epsilon), np.random.default_rng(seed)
        parts = [
            _directions(model, tensor, analytic, directions, rng, factors, single)
            for tensor, single in zip(tensors, singles, strict=True)
        ]
        rounding = 0.0
    else:
        if method == "complex":
            numeric = complex_steps(probe, batch, training, epsilon)
        else:
            differences = central_differences if method == "central" else richardson
            numeric = differences(probe, batch, training, epsilon)
        parts = _parts(probe, analytic, numeric.values, numeric.bent, factors, singles)
        rounding = numeric.rounding
    return judge(parts, method, tolerance, epsilon, rounding / TOLERANCES[method])


def hessian_check(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    *,
    product: Callable[..., Any] | None = None,
    sample_weight: ArrayLike | None = None,
    tolerance: float = 1e-10,
    training: bool = True,
    seed: int = 0,
) -> GradientCheckReport:
    """Compare a product H v of the loss's Hessian with one by complex steps, in float64.

    v is random, of norm 1. The other product is Im g(theta + ihv) / h with h = 1e-40, where g is
    the gradient of the model of the network in `kernels.reference`. At kinks the Hessian is that
    of the branch that the gradient takes.

    Parameters
    ----------
    net, X, y, sample_weight, training
        As in `gradient_check`.
    product
        Called as product(net, X, y, v, sample_weight=, training=), v in the layout of `net.theta`;
        gives H v in this layout, or a `Gradient`. None: `fastmlp.hessian_vector_product`.
    tolerance
        The relative error at and above which the check has failed.
    seed
        Of v.

    Returns
    -------
    GradientCheckReport
        "Analytic" is the product, "numeric" the one by complex steps.

    Raises
    ------
    TypeError, ValueError
        As `gradient_check`.

    Examples
    --------
    A linear network with half the squared error has the Hessian x x^T, here of W and b:

    >>> import numpy as np
    >>> import fastmlp as fm
    >>> net = fm.MLP([1, 1], loss="half_squared_error", dtype="float64")
    >>> def product(net, X, y, v, **_):
    ...     hv = np.zeros_like(v)
    ...     hv[net.layout.tensors[0].offset] = 4 * v[0] + 2 * v[8]
    ...     hv[net.layout.tensors[1].offset] = 2 * v[0] + v[8]
    ...     return hv
    >>> fm.gradcheck.hessian_check(net, [[2.0]], [[1.0]], product=product).ok
    True
    """
    tolerance = check_number(tolerance, "tolerance", 0.0, open_low=True)
    rng = np.random.default_rng(check_whole(seed, "seed", 0, 2**63))
    if not (product is None or callable(product)):
        raise TypeError(f"product must be a function or None, got {product!r}")
    if product is None:
        product = importlib.import_module("fastmlp.curvature").hessian_vector_product
    probe = check_network(net).astype("float64")
    batch = probe._checked(X, y, sample_weight)
    v = np.zeros_like(probe.theta)
    for tensor in probe.layout.tensors:
        tensor.view(v)[...] = rng.normal(size=tensor.shape)
    v /= np.linalg.norm(v)
    found: Any = product(probe, X, y, v.copy(), sample_weight=sample_weight, training=training)
    found = array_of(getattr(found, "flat", found), "what product gives")
    if found.shape != v.shape or found.dtype.kind not in "fiu":
        raise ValueError(
            f"product must give numbers of shape {v.shape}, as net.theta, "
            f"got dtype {found.dtype} of shape {found.shape}"
        )
    numeric = Model(probe, batch, training).hessian_product(v)
    nothing = np.zeros(len(v), bool)
    parts = _parts(probe, found, numeric, nothing, _factors(len(batch)))
    return judge(parts, "Hessian", tolerance, 1e-40, 0.0)


def optimizer_check(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    optimizer: Optimizer,
    *,
    sample_weight: ArrayLike | None = None,
    tolerance: float = 1e-9,
) -> GradientCheckReport:
    """Compare steps of `fit` with the optimizer's formula in `kernels.reference`, in float64.

    Three steps, each on all samples, of a copy of the network (one step if it has dropout, whose
    masks change). The formula takes the gradient of the backward pass at the parameters before the
    step, so only the update itself is judged.

    Parameters
    ----------
    net, X, y, sample_weight
        As in `gradient_check`.
    optimizer
        One that takes steps by a rule; not L-BFGS.
    tolerance
        The relative error of all changes together at and above which the check has failed.

    Returns
    -------
    GradientCheckReport
        "Analytic" is the change of the parameters by `fit`, "numeric" that by the formula.

    Raises
    ------
    TypeError, ValueError
        As `gradient_check`, or if the optimizer is none or has no such rule.

    Examples
    --------
    >>> import fastmlp as fm
    >>> net = fm.MLP([1, 4, 1], activation="tanh", loss="squared_error", seed=1)
    >>> fm.gradcheck.optimizer_check(net, [[1.0], [2.0]], [[0.0], [1.0]], fm.Adam(0.1)).ok
    True
    """
    from .training import fit

    check_optimizer(optimizer)
    if optimizer.code not in RULES:
        raise ValueError(f"optimizer must take its steps by a rule, {optimizer!r} does not")
    tolerance = check_number(tolerance, "tolerance", 0.0, open_low=True)
    trained = check_network(net).astype("float64")
    batch = trained._checked(X, y, sample_weight)
    steps = 1 if trained.architecture.is_random else 3
    thetas = [trained.theta.copy()]
    fit(
        trained,
        X,
        y,
        optimizer=optimizer,
        batch_size=None,
        epochs=steps,
        shuffle=False,
        sample_weight=sample_weight,
        callbacks=[lambda training: thetas.append(training.net.theta.copy())],
    )
    rule: Any = optimizer  # those with rules have a learning rate
    rates = as_schedule(rule.learning_rate).rates(np.arange(steps), steps, 1)
    table, hyper = optimizer.coefficients(0, rates), optimizer.hyper(np.dtype(np.float64))
    first = np.zeros_like(thetas[0])
    second = np.full_like(first, optimizer.initial_second)
    before, total = net.astype("float64"), np.zeros_like(first)
    for theta, row in zip(thetas, table, strict=False):
        before.theta[...] = theta
        gradient = _gradient(before, X, y, sample_weight, True)
        moved = theta.copy()
        RULES[optimizer.code](moved, first, second, gradient, make_rule(optimizer.code, hyper, row))
        total += moved - theta
    rounding = steps * 2.0**-52 * float(np.abs(thetas[0]).max())
    nothing = np.zeros(len(first), bool)
    parts = _parts(before, thetas[-1] - thetas[0], total, nothing, _factors(len(batch)))
    return judge(parts, type(optimizer).__name__, tolerance, 0.0, rounding / 1e-9)


Rule = Callable[[Array, Array, Array, Array, Any], None]
RULES: dict[int, Rule] = {
    SGD: lambda theta, m, v, g, rule: reference.sgd(theta, g, rule),
    MOMENTUM: lambda theta, m, v, g, rule: reference.momentum(theta, m, g, rule),
    SCALED: lambda theta, m, v, g, rule: reference.scaled(theta, v, g, rule),
    ADAM: reference.adam,
}


def _positive(value: float | None, name: str, default: float) -> float:
    return default if value is None else check_number(value, name, 0.0, open_low=True)


def _gradient(
    net: MLP, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, training: bool
) -> Array:
    """The gradient of the backward pass in the layout of theta."""
    _, gradient = net.loss_and_gradient(X, y, sample_weight=sample_weight, training=training)
    return gradient.flat


def _factors(samples: int) -> dict[str, float]:
    """By what a gradient is off if a thing well known went wrong."""
    factors = {"the sign": -1.0, "a factor of 2": 2.0, "a factor of 1/2": 0.5}
    if samples > 2:
        factors["a factor of B: 1/B is missing"] = float(samples)
        factors["a factor of 1/B: it is applied twice"] = 1.0 / samples
    return factors


def _parts(
    net: MLP,
    analytic: Array,
    numeric: Array,
    bent: Array,
    factors: dict[str, float],
    singles: Sequence[Array | None] | None = None,
) -> list[Part]:
    """Two gradients in the layout of theta, tensor by tensor."""
    tensors = net.layout.tensors
    return [
        Part(
            tensor.name,
            tensor.shape,
            tensor.view(analytic),
            tensor.view(numeric),
            tensor.view(bent),
            tensor.view(net.theta),
            factors,
            single,
        )
        for tensor, single in zip(tensors, singles or [None] * len(tensors), strict=True)
    ]


def _directions(
    model: Model,
    tensor: Tensor,
    gradient: Array,
    count: int,
    rng: np.random.Generator,
    factors: dict[str, float],
    single: Array | None,
) -> Part:
    """Derivatives along random vectors of -1 and 1 in a tensor, as large as its gradient."""
    size = int(np.prod(tensor.shape))
    numeric, bent = np.zeros(count), np.zeros(count, bool)
    analytic = np.zeros(count)
    for i in range(count):
        direction = rng.choice([-1.0, 1.0], (1, size))
        (numeric[i],), (bent[i],) = model.slopes(tensor, direction)
        analytic[i] = direction[0] @ tensor.view(gradient).ravel()
    return Part(tensor.name, tensor.shape, analytic, numeric, bent, np.zeros(0), factors, single)
