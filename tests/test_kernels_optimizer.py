"""What becomes of a gradient: each rule against its reference, and Adam against its paper."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastmlp.kernels import clip, machine, optimizer, reference
from fastmlp.kernels._jit import kernel
from fastmlp.kernels.optimizer import ADAM, ADD, KEEP, MOMENTUM, SCALED, SGD, Parameters, Rule
from fastmlp.kernels.simd import lanes, load, store

Array = NDArray[Any]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
LINE = 16  # elements: whole vectors of either dtype

PLAIN = Rule(
    code=SGD,
    rate=0.1,
    gradient_rate=0.0,
    root=1.0,
    shrink=1.0,
    decay_1=0.9,
    decay_2=0.99,
    gain_2=0.01,
    epsilon_inside=0.0,
    epsilon_outside=1e-8,
    clip=0.0,
    average_decay=0.0,
)
RULES = pytest.mark.parametrize(
    "rule",
    [
        PLAIN,
        PLAIN._replace(shrink=0.9),
        PLAIN._replace(gradient_rate=0.25),
        PLAIN._replace(root=3.0, epsilon_inside=0.5, epsilon_outside=0.0),
        PLAIN._replace(decay_1=0.0, decay_2=1.0, gain_2=1.0, epsilon_outside=0.25),
        PLAIN._replace(rate=0.0, gradient_rate=0.3, root=1.5, shrink=1.01),
    ],
    ids=["plain", "shrink", "gradient-rate", "inside", "sum", "all"],
)


def matrices(dtype: type, count: int, seed: int = 0) -> list[NDArray[Any]]:
    """Return random views [5, 32] of larger matrices, which are 7 elsewhere."""
    rng = np.random.default_rng(seed)
    views = []
    for _ in range(count):
        whole = np.full((7, 4 * LINE), 7.0, dtype)
        view = whole[1:6, LINE : 3 * LINE]
        view[...] = rng.normal(size=view.shape)
        views.append(view)
    return views


def assert_close(got: NDArray[Any], expected: NDArray[Any]) -> None:
    """Equal up to some roundings of numbers of the order of 1, around the views as well."""
    eps = 4 * np.finfo(got.dtype).eps
    np.testing.assert_allclose(got.base, expected.base, rtol=eps, atol=eps, strict=True)


def both(name: str, arrays: list[NDArray[Any]], *settings: Any) -> None:
    """Run the kernel on the arrays and the reference on copies, and compare all of them."""
    copies = [array.base.copy()[1:6, LINE : 3 * LINE] for array in arrays]
    getattr(optimizer, name)(*arrays, *settings)
    getattr(reference, name)(*copies, *settings)
    for got, expected in zip(arrays, copies, strict=True):
        assert_close(got, expected)


@DTYPES
@RULES
def test_sgd(dtype: type, rule: Rule) -> None:
    both("sgd", matrices(dtype, 2), rule)


@DTYPES
@RULES
def test_momentum(dtype: type, rule: Rule) -> None:
    both("momentum", matrices(dtype, 3), rule)


def with_squares(dtype: type, count: int) -> list[NDArray[Any]]:
    """Return matrices whose last but one is a second moment, not below 0.1."""
    arrays = matrices(dtype, count)
    arrays[-2][...] = arrays[-2] ** 2 + 0.1
    return arrays


@DTYPES
@RULES
def test_scaled(dtype: type, rule: Rule) -> None:
    both("scaled", with_squares(dtype, 3), rule)


@DTYPES
@RULES
def test_adam(dtype: type, rule: Rule) -> None:
    both("adam", with_squares(dtype, 4), rule)


@DTYPES
@pytest.mark.parametrize(("name", "moments"), [("momentum", 1), ("scaled", 1), ("adam", 2)])
def test_moments_are_never_subnormal(dtype: type, name: str, moments: int) -> None:
    """What decays without a gradient becomes 0, and not one step sooner."""
    least = np.finfo(dtype).tiny
    theta, g = np.ones((1, LINE), dtype), np.zeros((1, LINE), dtype)
    decaying = [np.full((1, LINE), least, dtype) for _ in range(moments)]
    getattr(optimizer, name)(theta, *decaying, g, PLAIN)
    assert not np.any(decaying)
    staying = [np.full((1, LINE), 1.2 * least, dtype) for _ in range(moments)]
    getattr(optimizer, name)(theta, *staying, g, PLAIN)
    for moment in staying:
        assert ((least <= moment) & (moment < 1.2 * least)).all()


@DTYPES
@pytest.mark.parametrize("limit", [1e-3, 1.0, 100.0])
def test_clamp(dtype: type, limit: float) -> None:
    (g,) = matrices(dtype, 1)
    g[0, :5] = np.nan, np.inf, -np.inf, 0.0, -0.0
    before = g.copy()
    optimizer.clamp(g, limit)
    limit = float(dtype(limit))
    expected = [x if np.isnan(x) else min(max(x, -limit), limit) for x in before.flat]
    np.testing.assert_array_equal(g, np.array(expected, dtype).reshape(g.shape))
    assert (g.base[0] == 7).all()
    assert (g.base[:, 3 * LINE :] == 7).all()


@DTYPES
@pytest.mark.parametrize(("l2", "l1"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_penalty(dtype: type, l2: float, l1: float) -> None:
    g, theta = matrices(dtype, 2)
    theta[1, ::3] = 0
    expected = np.zeros_like(g)
    reference.penalize(expected, theta, l2, l1)
    unchanged = theta.copy()
    optimizer.penalty(g, theta, l2, l1)
    eps = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(g, expected, rtol=eps, atol=eps)
    np.testing.assert_array_equal(theta, unchanged)
    assert (g.base[[0, 6]] == 7).all()


@DTYPES
def test_penalty_of_zero_is_zero(dtype: type) -> None:
    """So the padding stays zero."""
    g, theta = np.ones((2, LINE), dtype), np.zeros((2, LINE), dtype)
    optimizer.penalty(g, theta, 0.5, 0.5)
    assert not g.any()


@DTYPES
def test_scale(dtype: type) -> None:
    scaled, g = matrices(dtype, 2)
    optimizer.scale(scaled, g, 0.3)
    np.testing.assert_array_equal(scaled, g * dtype(0.3))
    assert (scaled.base[[0, 6]] == 7).all()
    optimizer.scale(g, g, 0.3)
    np.testing.assert_array_equal(g, scaled)


@DTYPES
@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_average(dtype: type, decay: float) -> None:
    both("average", matrices(dtype, 2), decay)


@DTYPES
def test_sum_of_squares_is_accurate(dtype: type) -> None:
    """In float64, of numbers whose squares neither exist nor add up in float32."""
    (g,) = matrices(dtype, 1)
    exact = sum(float(x) ** 2 for x in g.flat)
    np.testing.assert_allclose(clip.sum_of_squares(g), exact, rtol=1e-14)
    g *= dtype(1e-30)
    np.testing.assert_allclose(
        clip.sum_of_squares(g), sum(float(x) ** 2 for x in g.flat), rtol=1e-14
    )
    tall = np.ones((40, 4 * LINE), dtype)
    tall[0, 0] = 1e5
    assert clip.sum_of_squares(tall) == 1e10 + tall.size - 1


@DTYPES
def test_sum_of_squares_keeps_nan_and_infinity(dtype: type) -> None:
    (g,) = matrices(dtype, 1)
    g[3, 5] = np.inf
    assert clip.sum_of_squares(g) == np.inf
    g[3, 6] = np.nan
    assert np.isnan(clip.sum_of_squares(g))


def test_rule_takes_the_numbers_from_their_places() -> None:
    hyper = np.arange(1.0, 1 + optimizer.CONSTANTS)
    row = np.arange(10.0, 10 + optimizer.COLUMNS)
    assert optimizer.make_rule(ADAM, hyper, row) == Rule(
        code=ADAM,
        rate=row[optimizer.RATE],
        gradient_rate=row[optimizer.GRADIENT_RATE],
        root=row[optimizer.ROOT],
        shrink=row[optimizer.SHRINK],
        decay_1=hyper[optimizer.DECAY_1],
        decay_2=hyper[optimizer.DECAY_2],
        gain_2=hyper[optimizer.GAIN_2],
        epsilon_inside=hyper[optimizer.EPSILON_INSIDE],
        epsilon_outside=hyper[optimizer.EPSILON_OUTSIDE],
        clip=hyper[optimizer.CLIP],
        average_decay=hyper[optimizer.AVERAGE_DECAY],
    )


@DTYPES
def test_adam_over_many_steps_is_that_of_the_paper(dtype: type) -> None:
    """Algorithm 1 of Kingma and Ba (2015), in float64."""
    alpha, beta_1, beta_2, epsilon = 0.01, 0.9, 0.999, 1e-8
    theta, m, v, g = matrices(dtype, 4)
    m[...] = v[...] = 0
    expected, mean, square = theta.astype(np.float64), 0.0, 0.0
    rng = np.random.default_rng(1)
    for t in range(1, 21):
        g[...] = rng.normal(size=g.shape)
        wide = g.astype(np.float64)
        mean = beta_1 * mean + (1 - beta_1) * wide
        square = beta_2 * square + (1 - beta_2) * wide**2
        corrected = mean / (1 - beta_1**t), square / (1 - beta_2**t)
        expected -= alpha * corrected[0] / (np.sqrt(corrected[1]) + epsilon)
        rule = PLAIN._replace(
            rate=alpha / (1 - beta_1**t),
            root=1 / np.sqrt(1 - beta_2**t),
            decay_1=beta_1,
            gain_2=1 - beta_2,
            epsilon_outside=epsilon,
        )
        optimizer.adam(theta, m, v, g, rule)
    eps = 40 * np.finfo(dtype).eps
    np.testing.assert_allclose(theta, expected, rtol=eps, atol=eps)


@DTYPES
def test_first_step_of_adam_is_the_learning_rate(dtype: type) -> None:
    """Whatever the size of the gradient, as long as epsilon is small beside it."""
    theta, m, v, g = matrices(dtype, 4)
    theta[...] = m[...] = v[...] = 0
    g[...] = np.sign(g) * np.logspace(-4, 6, g.size).reshape(g.shape)
    rule = PLAIN._replace(rate=0.01 / 0.1, root=1 / np.sqrt(0.001), gain_2=0.001)
    optimizer.adam(theta, m, v, g, rule)
    np.testing.assert_allclose(theta, -0.01 * np.sign(g), rtol=1e-3)


@DTYPES
@pytest.mark.parametrize("code", [SGD, MOMENTUM, SCALED, ADAM])
def test_padding_stays_zero(dtype: type, code: int) -> None:
    """Where gradient and state are zero, the parameter stays what it is."""
    flat = [np.zeros(LINE, dtype) for _ in Parameters._fields]
    rule = PLAIN._replace(code=code, gradient_rate=0.1, shrink=0.9, clip=1.0, average_decay=0.5)
    optimizer.apply(rule, Parameters(*flat), 0, LINE, np.zeros((1, LINE), dtype))
    assert not np.any(flat)


@DTYPES
def test_keep_and_add(dtype: type) -> None:
    gradient, g = matrices(dtype, 2)
    before, surroundings = gradient.copy(), gradient.base.copy()
    optimizer.add(gradient, g)
    np.testing.assert_array_equal(gradient, before + g)
    optimizer.keep(gradient, g)
    np.testing.assert_array_equal(gradient, g)
    surroundings[1:6, LINE : 3 * LINE] = g
    np.testing.assert_array_equal(gradient.base, surroundings)


@DTYPES
@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("average_decay", [0.0, 0.75])
@pytest.mark.parametrize("code", [KEEP, ADD, SGD, MOMENTUM, SCALED, ADAM])
def test_block_of_the_flat_vectors(
    dtype: type, code: int, average_decay: float, clip: float
) -> None:
    """`apply` finds the block, hands it to the rule's kernel and touches nothing else."""
    rng = np.random.default_rng(2)
    offset, rows, stride = 3 * LINE, 4, 2 * LINE
    flat = [rng.uniform(1, 2, 20 * LINE).astype(dtype) for _ in Parameters._fields]
    expected = [vector.copy() for vector in flat]
    theta, gradient, m, v, mean = (
        vector[offset : offset + rows * stride].reshape(rows, stride)[:, :LINE]
        for vector in expected
    )
    g = rng.normal(size=(rows, LINE)).astype(dtype)
    rule = PLAIN._replace(code=code, shrink=0.9, clip=clip, average_decay=average_decay)
    optimizer.apply(rule, Parameters(*flat), offset, stride, given := g.copy())
    is_update = code not in (KEEP, ADD)
    if is_update and clip:
        np.clip(g, -clip, clip, out=g)
    if code == KEEP:
        optimizer.keep(gradient, g)
    elif code == ADD:
        optimizer.add(gradient, g)
    elif code == SGD:
        optimizer.sgd(theta, g, rule)
    elif code == MOMENTUM:
        optimizer.momentum(theta, m, g, rule)
    elif code == SCALED:
        optimizer.scaled(theta, v, g, rule)
    else:
        optimizer.adam(theta, m, v, g, rule)
    if is_update and average_decay:
        optimizer.average(mean, theta, average_decay)
    np.testing.assert_array_equal(flat, expected)
    np.testing.assert_array_equal(given, g)


@DTYPES
@pytest.mark.parametrize("code", [SGD, MOMENTUM, SCALED, ADAM])
def test_rows_and_one_long_row_give_the_same_bits(dtype: type, code: int) -> None:
    """Strip by strip, as in a fused step, or all at once, as in a two-phase one."""
    rng = np.random.default_rng(3)
    flat = [rng.uniform(1, 2, 12 * LINE).astype(dtype) for _ in Parameters._fields]
    pieces = [vector.copy() for vector in flat]
    g = rng.normal(size=12 * LINE).astype(dtype)
    rule = PLAIN._replace(code=code, gradient_rate=0.2, shrink=0.95, clip=0.7, average_decay=0.9)
    optimizer.apply(rule, Parameters(*flat), 0, 12 * LINE, g.copy().reshape(1, -1))
    for j in range(0, 4 * LINE, LINE):
        block = g.reshape(3, 4 * LINE)[:, j : j + LINE].copy()
        optimizer.apply(rule, Parameters(*pieces), j, 4 * LINE, block)
    np.testing.assert_array_equal(flat, pieces)


# Roots without the divider


@kernel
def twice_roots(roots, x, more):
    for j in range(0, x.shape[1], lanes(x)):
        store(roots, 0, j, optimizer.twice_root(load(x, 0, j), load(more, 0, j)))


def ulps(got: Array, exact: Array) -> float:
    """The largest error, in units of the last place of the float32 nearest to what is exact."""
    return float((np.abs(got - exact) / np.spacing(exact.astype(np.float32))).max())


@pytest.mark.parametrize(("size", "bound"), [(0.0, 0.8), (0.1, 1.3), (10.0, 1.3)])
def test_roots_are_accurate(size: float, bound: float) -> None:
    """Those of all normal numbers, alone and with what is added to them."""
    rng = np.random.default_rng(4)
    x = np.ldexp(rng.uniform(1, 4, (126, 1024)), np.arange(-126, 126, 2)[:, None])
    x = x.reshape(1, -1).astype(np.float32)
    exact = np.sqrt(x, dtype=np.float64)
    more = (size * rng.uniform(0, 1, x.shape) * exact).astype(np.float32)
    twice_roots(roots := np.empty_like(x), x, more)
    assert ulps(roots, 2 * exact + more) <= (bound if machine.HAS_FMA else bound + 0.2)


@DTYPES
@pytest.mark.parametrize("name", ["scaled", "adam"])
def test_parameters_rest_where_gradient_and_moments_are_zero(dtype: type, name: str) -> None:
    """The root of zero does no harm, even beside the smallest epsilon."""
    theta = np.ones((1, LINE), dtype)
    zeros = [np.zeros_like(theta) for _ in range(3 if name == "adam" else 2)]
    rule = PLAIN._replace(epsilon_outside=float(np.finfo(dtype).tiny), gradient_rate=0.1)
    getattr(optimizer, name)(theta, *zeros, rule)
    assert (theta == 1).all()
    assert not np.any(zeros)


@pytest.mark.parametrize("epsilon", [1e-30, 1e-8, 1.0])
@pytest.mark.parametrize("inside", [False, True])
def test_steps_of_adam_are_accurate(epsilon: float, inside: bool) -> None:
    """Also where moments are the smallest normal numbers, or as large as v can be."""
    rng = np.random.default_rng(5)
    exponents = np.arange(-126, 90).repeat(64)
    m = np.ldexp(rng.uniform(1, 2, (1, exponents.size)), exponents).astype(np.float32)
    v = np.ldexp(rng.uniform(1, 2, m.shape), rng.integers(-126, 127, m.shape)).astype(np.float32)
    theta, g = np.zeros_like(m), np.zeros_like(m)
    rule = PLAIN._replace(root=1.7, rate=0.03, decay_1=1.0, gain_2=0.0)
    rule = rule._replace(epsilon_inside=epsilon * inside, epsilon_outside=epsilon * (not inside))
    with np.errstate(over="ignore", invalid="ignore"):  # where nothing is compared
        optimizer.adam(theta, m, v, g, rule)
    squares = v.astype(np.float64) * 1.7**2 + epsilon * inside
    exact = 0.03 * m.astype(np.float64) / (np.sqrt(squares) + epsilon * (not inside))
    usual = (exact < 2.0**60) & (exact > 2.0**-126) & (squares > 2.0**-100)
    assert usual.sum() > m.size / 3
    assert ulps(-theta[usual], exact[usual]) <= 3.2


@DTYPES
@pytest.mark.parametrize("name", ["scaled", "adam"])
def test_mean_square_stays_finite(dtype: type, name: str) -> None:
    """A gradient whose square is infinite can be forgotten."""
    theta, m, v = (np.zeros((1, LINE), dtype) for _ in range(3))
    moments = [m, v] if name == "adam" else [v]
    for size in (10 * np.sqrt(np.finfo(dtype).max), 1.0):
        with np.errstate(over="ignore"):
            getattr(optimizer, name)(theta, *moments, np.full_like(theta, size), PLAIN)
        assert np.isfinite([theta, m, v]).all()
