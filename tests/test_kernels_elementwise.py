"""exp, expm1, log1p, the normal tail and the activations, in units in the last place (ULP)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastmlp.kernels import activation, elementwise, machine, reference
from fastmlp.kernels._jit import inlined, kernel
from fastmlp.kernels.activation import CODES, KINKED, NEEDS_INPUT
from fastmlp.kernels.activation_curvature import activation_derivatives
from fastmlp.kernels.elementwise import GELU_OFFSET, TANH_SCALE
from fastmlp.kernels.simd import fill, lanes, load, store

DTYPES = [np.float32, np.float64]
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
PARAMETER = 0.375  # of leaky_relu and elu, in tests
GATED = ["gelu", "gelu_tanh", "silu", "mish"]

# The largest errors found over dense samples, with and without fused multiply-add, rounded up.
FORWARD_BOUNDS = {
    "exp": 1.0,
    "expm1": 0.9,
    "log1p": 1.0,
    "gaussian": 1.0,
    "normal_tail": 4.1,
    "relu": 0.0,
    "sigmoid": 1.0,
    "tanh": 1.1,
    "softplus": 1.1,
    "leaky_relu": 0.5,
    "prelu": 0.5,
    "elu": 1.2,
    "selu": 1.3,
    "gelu": 4.3,
    "gelu_tanh": 4.8,
    "silu": 1.6,
    "mish": 2.8,
}
# The same with fused multiply-add, and with the tables of AVX-512 besides.
FMA_BOUNDS = {"tanh": 0.8, "elu": 0.8, "selu": 1.0, "gelu_tanh": 1.7, "silu": 1.2, "mish": 1.1}
TABLE_BOUNDS = {"exp": 0.62, "sigmoid": 0.8, "softplus": 1.0, "silu": 0.8, "mish": 0.9}
# a factor and an offset that put them on segments: between 1 and 16, eight in each octave
SEGMENTED = (("tanh", TANH_SCALE, 1.0), ("gelu", 1.0, GELU_OFFSET))
BACKWARD_BOUNDS = {"relu": 0.0, "sigmoid": 1.5, "tanh": 1.6, "softplus": 1.0, "selu": 0.7}
# of f'(z), computed from z: in ULP for z < -3, and everywhere in units of rounding of 1
INPUT_BOUNDS = {
    "leaky_relu": (0.0, 0.0),
    "prelu": (0.0, 0.0),
    "elu": (0.9, 0.3),
    "gelu": (2.8, 1.3),
    "gelu_tanh": (5.2, 1.0),
    "silu": (2.6, 0.7),
    "mish": (5.4, 1.1),
}
# of f'(z) and f''(z) for second-order work, in units of rounding of 1
CURVATURE_BOUNDS = {
    "identity": (0.0, 0.0),
    "relu": (0.0, 0.0),
    "sigmoid": (0.5, 0.4),
    "tanh": (1.9, 2.2),
    "softplus": (0.5, 0.5),
    "leaky_relu": (0.0, 0.0),
    "prelu": (0.0, 0.0),
    "elu": (0.3, 0.3),
    "selu": (1.6, 1.6),
    "gelu": (1.3, 0.9),
    "gelu_tanh": (1.0, 2.7),
    "silu": (0.7, 1.4),
    "mish": (1.1, 2.3),
}
DOMAINS = {"expm1": (-np.inf, 0.0), "log1p": (0.0, 1.0)}

# Where exp overflows, and where its results become subnormal numbers and then 0.
THRESHOLDS = [12.0, 14.2, 15.0, 17.0, 22.0, 37.5, 38.5, 39.0, 60.0, 87.33, 88.72, 88.73, 103.9]
THRESHOLDS += [104.0, 104.5, 105.0, 106.0, 119.0, 120.0, 121.0, 708.3, 709.78, 709.79, 745.1]
THRESHOLDS += [745.2, 749.0, 750.0, 751.0, 759.0, 760.0, 761.0, 1e5, 1e30, np.inf]
SPECIALS = [0.0, 5e-324, 1e-310, 1.4e-45, 1e-40, 1e-38, 1e-10, 0.34657, 0.34658, 0.5, 1.0, 2.0]
SPECIALS += THRESHOLDS

# the slope of selu for x > 0, and what e**x - 1 is multiplied by else
SELU_CONSTANTS = "1.0507009873554804934193349852946", "1.7580993408473768599402175208123"

# Phi(-t) to 25 digits
NORMAL_TAILS = {
    0.5: "0.3085375387259868963622954",
    1.0: "0.1586552539314570514147675",
    5.0: "2.866515718791939116737523e-7",
    10.0: "7.619853024160526065973343e-24",
}


@inlined
def gaussian(t):
    return elementwise.gaussian_times(fill(t, 1.0), t)


@inlined
def normal_tail(t):
    return elementwise.gaussian_times(elementwise.tail_ratio(t), t)


def loop_over(function: Callable[..., Any]) -> Callable[..., None]:
    @kernel
    def loop(x):
        for j in range(0, x.shape[1], lanes(x)):
            store(x, 0, j, function(load(x, 0, j)))

    return loop


CORES = {
    "exp": loop_over(elementwise.exp),
    "expm1": loop_over(elementwise.expm1),
    "log1p": loop_over(elementwise.log1p),
    "gaussian": loop_over(gaussian),
    "normal_tail": loop_over(normal_tail),
}


def slopes_of(columns: int, dtype: type) -> np.ndarray:
    """Return slopes of prelu, of both signs and different in neighbouring columns."""
    return np.resize(np.array([0.25, -0.5, 0.0, 1.5, 0.125], dtype), (1, columns))


def compute(name: str, x: np.ndarray) -> np.ndarray:
    """Return f(x), by the kernels; the length of x is a multiple of 16."""
    values = x.reshape(1, -1).copy()
    if name in CORES:
        CORES[name](values)
    else:
        slopes = slopes_of(len(x), x.dtype.type)
        activation.activation_forward(values, values, CODES[name], PARAMETER, slopes)
    return values[0]


def exact_normal_tail(t: np.ndarray) -> np.ndarray:
    """Return Phi(-t) for t >= 0, by the series of Phi around 0, or Laplace's continued fraction."""
    two_pi = 8 * np.arctan(t.dtype.type(1))
    density = np.exp(-t * t / 2) / np.sqrt(two_pi)
    near = np.minimum(t, 2)
    term, total = near, near
    for k in range(3, 81, 2):
        term = term * near * near / k
        total = total + term
    far = np.maximum(t, 2)
    fraction = far
    for k in range(120, 0, -1):
        fraction = far + k / fraction
    return np.where(t < 2, 0.5 - density * total, density / fraction)


def exact_normal(z: np.ndarray) -> np.ndarray:
    """Return Phi(z)."""
    tail = exact_normal_tail(np.abs(z))
    return np.where(z < 0, tail, 1 - tail)


def exact(name: str, x: np.ndarray, order: int = 0) -> np.ndarray:
    """Return f(x) or a derivative of f, computed with the next longer floating-point numbers."""
    wide = x.astype(WIDER[x.dtype.type])
    with np.errstate(all="ignore"):
        if name == "gaussian":
            return np.exp(-wide * wide / 2)
        if name == "normal_tail":
            return exact_normal_tail(wide)
        if name in CORES:
            return getattr(np, name)(wide)
        if name == "selu" and order == 0:
            right, left = map(WIDER[x.dtype.type], SELU_CONSTANTS)
            return np.where(wide > 0, right * wide, left * np.expm1(np.minimum(wide, 0)))
        if name == "gelu" and order < 2:
            normal = exact_normal(wide)
            value = normal + wide * reference.normal_density(wide) if order else wide * normal
        else:
            parameter = slopes_of(len(x), x.dtype.type)[0] if name == "prelu" else PARAMETER
            value = reference.ACTIVATIONS[name][order](wide, parameter)
    if name in GATED:  # the limits, where the equations say infinity times 0
        value = np.where(np.isinf(x), np.where(x > 0, [np.inf, 1, 0][order], 0), value)
    return value


def ulps(computed: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the errors in units in the last place; infinity, zero and NaN must be in place.

    The unit is the distance of the numbers on both sides of the exact value; just below a power of
    two it is the smaller one.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = exact.astype(computed.dtype)
        size = np.abs(rounded)
        below = np.where(size > np.abs(exact), np.nextafter(size, size.dtype.type(0)), size)
        errors = np.abs(computed - exact) / np.spacing(below)
    same = (computed == rounded) | (np.isnan(computed) & np.isnan(rounded))
    return np.where(same & ~np.isfinite(rounded), 0.0, errors.astype(np.float64))


def unit_errors(computed: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the errors in units of rounding of 1."""
    return (np.abs(computed - exact) / np.finfo(computed.dtype).eps).astype(np.float64)


def conditioned(name: str, x: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Errors of gelu_tanh in its tail e**-s, where a rounding of s counts s times."""
    if name != "gelu_tanh":
        return errors
    with np.errstate(over="ignore", invalid="ignore"):
        s = np.abs(reference.tanh_exponent(x.astype(np.longdouble))).astype(np.float64)
    return errors / np.where(x < 0, np.maximum(1, s / 2), 1)


def within(name: str, x: np.ndarray) -> np.ndarray:
    """Return the part of x that a function is made for, padded with ones to whole vectors."""
    low, high = DOMAINS.get(name, (-np.inf, np.inf))
    if name in ("gaussian", "normal_tail"):
        low, high = 0.0, activation.NORMAL_LIMITS[x.dtype == np.float64]
    x = x[(low <= x) & (x <= high)]
    return np.append(x, np.full(-len(x) % 80, min(high, 1.0))).astype(x.dtype)


def dense(name: str, dtype: type, count: int = 200_000) -> np.ndarray:
    """Return samples of both signs, uniform and over all exponents, where f changes at all."""
    rng = np.random.default_rng(1)
    limit = 110.0 if dtype is np.float32 else 760.0
    smallest = -150.0 if dtype is np.float32 else -1075.0
    uniform = [rng.uniform(0.0, top, count) for top in (1.0, 20.0, 40.0, limit)]
    powers = [np.exp2(rng.uniform(low, np.log2(limit), count)) for low in (-5.0, -30.0, smallest)]
    x = np.concatenate(uniform + powers).astype(dtype)
    return within(name, np.concatenate([x, -x]))


def specials(dtype: type) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.array([*SPECIALS, *(-x for x in SPECIALS)], dtype)


def bound_of(name: str, dtype: type) -> float:
    """Return the bound for what the kernels make of this CPU."""
    bounds = dict(FORWARD_BOUNDS)
    if machine.HAS_FMA:
        bounds |= FMA_BOUNDS
    if machine.HAS_AVX512:
        bounds |= TABLE_BOUNDS
        if dtype is np.float32:
            bounds |= {"gelu": 1.0, "tanh": 0.515}
    return bounds[name]


def check(errors: np.ndarray, bound: float, x: np.ndarray) -> None:
    """All errors are within the bound; NaN is not."""
    worst = int(np.argmax(errors))
    assert errors[worst] <= bound, f"{errors[worst]:.3f} at {x[worst]!r}"


@pytest.fixture(params=DTYPES, ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> type:
    if np.finfo(WIDER[request.param]).nmant < np.finfo(request.param).nmant + 10:
        pytest.skip("the platform has no floating-point numbers longer than float64")
    return request.param


@pytest.mark.jit
@pytest.mark.parametrize("name", FORWARD_BOUNDS)
def test_errors_over_dense_samples(name: str, dtype: type) -> None:
    x = dense(name, dtype)
    errors = conditioned(name, x, ulps(compute(name, x), exact(name, x)))
    check(errors, bound_of(name, dtype), x)


@pytest.mark.parametrize(("name", "factor", "offset"), SEGMENTED)
def test_errors_where_segments_meet(name: str, factor: float, offset: float) -> None:
    """Of the tables for float32: around each edge, on both sides of 0."""
    octaves = np.exp2(np.arange(4, dtype=np.float32))[:, None]
    edges = ((octaves * np.linspace(1, 2, 8, endpoint=False)).ravel() - offset) / factor
    steps = np.arange(-40, 40, dtype=np.float32) * np.finfo(np.float32).eps / 4
    x = np.abs(edges[:, None] + steps * (1 + edges[:, None])).ravel().astype(np.float32)
    x = np.concatenate([x, -x])
    check(ulps(compute(name, x), exact(name, x)), bound_of(name, np.float32), x)


@pytest.mark.jit
@pytest.mark.parametrize("name", FORWARD_BOUNDS)
def test_special_values(name: str, dtype: type) -> None:
    """Zeros, subnormal numbers, infinities, and where exp begins to overflow and underflow."""
    x = within(name, specials(dtype))
    errors = ulps(compute(name, x), exact(name, x))
    check(conditioned(name, x, errors), max(3.0, FORWARD_BOUNDS[name]), x)


@pytest.mark.jit
def test_tanh_reaches_one(dtype: type) -> None:
    x = np.array([9.2 if dtype is np.float32 else 19.1, 20.0, 88.0, np.inf], dtype)
    x = np.tile(np.concatenate([x, -x]), 16)
    np.testing.assert_array_equal(compute("tanh", x), np.sign(x))


@pytest.mark.jit
@pytest.mark.parametrize("name", FORWARD_BOUNDS)
def test_nan_stays_nan(name: str, dtype: type) -> None:
    x = np.full(16, 0.0, dtype)
    x[5] = np.nan
    np.testing.assert_array_equal(np.isnan(compute(name, x)), np.isnan(x))


@pytest.mark.parametrize("name", FORWARD_BOUNDS)
def test_errors_of_a_few_samples(name: str, dtype: type) -> None:
    x = within(name, np.linspace(-11.0, 11.0, 81).astype(dtype))
    errors = conditioned(name, x, ulps(compute(name, x), exact(name, x)))
    check(errors, max(3.0, FORWARD_BOUNDS[name]) + 1.0, x)


@pytest.mark.parametrize("t", NORMAL_TAILS)
def test_normal_tail_against_literature(t: float, dtype: type) -> None:
    value = np.full(16, WIDER[dtype](NORMAL_TAILS[t]))
    x = np.full(16, t, dtype)
    check(ulps(compute("normal_tail", x), value), FORWARD_BOUNDS["normal_tail"], x)
    np.testing.assert_allclose(exact("normal_tail", x), value, rtol=1e-12)


def backward(name: str, da: np.ndarray, saved: np.ndarray) -> np.ndarray:
    gradient = da.reshape(1, -1).copy()
    slopes = slopes_of(len(da), da.dtype.type)
    activation.activation_backward(gradient, saved.reshape(1, -1), CODES[name], PARAMETER, slopes)
    return gradient[0]


def saved(name: str, z: np.ndarray) -> np.ndarray:
    """Return what a layer keeps for its backward pass."""
    return z if CODES[name] in NEEDS_INPUT else compute(name, z)


def slope_from_output(name: str, a: np.ndarray) -> np.ndarray:
    """Return f'(z) for a = f(z)."""
    return {
        "relu": lambda: np.where(a > 0, 1.0, 0.0),
        "sigmoid": lambda: a * (1 - a),
        "tanh": lambda: (1 - a) * (1 + a),
        "softplus": lambda: -np.expm1(-a),
        "selu": lambda: np.where(a > 0, activation.SELU_SCALE, a + activation.SELU_LEFT),
    }[name]()


@pytest.mark.jit
@pytest.mark.parametrize("name", BACKWARD_BOUNDS)
def test_errors_of_derivatives_from_outputs(name: str, dtype: type) -> None:
    """The derivative as a function of the output: that of selu in units of rounding of 1."""
    a = compute(name, dense(name, dtype, 50_000))
    expected = slope_from_output(name, a.astype(WIDER[dtype]))
    derivative = backward(name, np.ones_like(a), a)
    errors = unit_errors if name == "selu" else ulps
    check(errors(derivative, expected), BACKWARD_BOUNDS[name], a)


@pytest.mark.jit
@pytest.mark.parametrize("name", INPUT_BOUNDS)
def test_errors_of_derivatives_from_inputs(name: str, dtype: type) -> None:
    """Absolutely everywhere, and relatively in the tail on the left."""
    z = dense(name, dtype, 50_000)
    derivative, expected = backward(name, np.ones_like(z), z), exact(name, z, 1)
    tail_bound, bound = INPUT_BOUNDS[name]
    check(unit_errors(derivative, expected), bound, z)
    tail = z < -3
    errors = conditioned(name, z[tail], ulps(derivative[tail], expected[tail]))
    check(errors, tail_bound, z[tail])


@pytest.mark.jit
@pytest.mark.parametrize("name", CODES)
def test_errors_of_both_derivatives(name: str, dtype: type) -> None:
    z = dense(name, dtype, 50_000)
    for order, computed in enumerate(derivatives(name, z), 1):
        errors = unit_errors(computed, exact(name, z, order))
        check(errors, CURVATURE_BOUNDS[name][order - 1], z)


def derivatives(name: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.full_like(z, np.nan), np.full_like(z, np.nan)
    activation_derivatives(
        first.reshape(1, -1),
        second.reshape(1, -1),
        z.reshape(1, -1),
        CODES[name],
        PARAMETER,
        slopes_of(len(z), z.dtype.type),
    )
    return first, second


@pytest.mark.jit
@pytest.mark.parametrize("name", CODES)
def test_derivatives_at_special_values(name: str, dtype: type) -> None:
    z = within(name, specials(dtype))
    computed = (backward(name, np.ones_like(z), saved(name, z)), *derivatives(name, z))
    for order, values in zip((1, 1, 2), computed, strict=True):
        check(unit_errors(values, exact(name, z, order)), 3.0, z)


@pytest.mark.parametrize("name", CODES)
def test_derivatives_are_those_of_the_functions(name: str, dtype: type) -> None:
    """Right to some units of rounding of 1, from the rounded output too."""
    z = np.linspace(-11.0, 11.0, 80).astype(dtype)
    computed = (backward(name, np.ones_like(z), saved(name, z)), *derivatives(name, z))
    for order, values in zip((1, 1, 2), computed, strict=True):
        check(unit_errors(values, exact(name, z, order)), 3.0, z)


@pytest.mark.parametrize("name", [name for name in CODES if name != "identity"])
def test_gradient_that_is_nan_stays_nan(name: str, dtype: type) -> None:
    da = np.full(16, np.nan, dtype)
    assert np.isnan(backward(name, da, np.full(16, 0.5, dtype))).all()


def test_identity_changes_nothing(dtype: type) -> None:
    x = np.linspace(-1.0, 1.0, 16).astype(dtype)
    np.testing.assert_array_equal(compute("identity", x), x)
    np.testing.assert_array_equal(backward("identity", x, x), x)


@pytest.mark.parametrize("name", CODES)
def test_kinks(name: str, dtype: type) -> None:
    """The derivative jumps at 0 for the codes in KINKED alone, and at 0 it is that on the left."""
    z = np.zeros(80, dtype)
    z[1], z[2] = -1e-30, 1e-30
    slopes = np.full_like(z, PARAMETER)[None]
    saved = z.reshape(1, -1).copy()
    if CODES[name] not in NEEDS_INPUT:
        activation.activation_forward(saved, saved, CODES[name], PARAMETER, slopes)
    da = np.ones_like(saved)
    activation.activation_backward(da, saved, CODES[name], PARAMETER, slopes)
    at, left, right = da[0, :3]
    assert at == left
    assert (left != right) == (CODES[name] in KINKED)


@pytest.mark.parametrize("name", CODES)
def test_reference(name: str, dtype: type) -> None:
    """The kernels and their reference do the same to rows of a larger matrix, in place or not."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(2, 16)).astype(dtype)
    da = rng.normal(size=(2, 16)).astype(dtype)
    slopes = slopes_of(16, dtype)
    tolerance = 4 * np.finfo(dtype).eps
    for in_place in (True, False):
        ours, theirs = (np.full((4, 48), 7.0, dtype) for _ in range(2))
        a, expected = ours[1:3, 16:32], theirs[1:3, 16:32]
        a[...] = z
        source = a if in_place else z
        activation.activation_forward(a, source, CODES[name], PARAMETER, slopes)
        reference.activation_forward(expected, z, name, PARAMETER, slopes)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, strict=True)
    ours, theirs = (np.full((4, 48), 7.0, dtype) for _ in range(2))
    ours[1:3, 16:32] = theirs[1:3, 16:32] = da
    kept = z if CODES[name] in NEEDS_INPUT else a
    activation.activation_backward(ours[1:3, 16:32], kept, CODES[name], PARAMETER, slopes)
    reference.activation_backward(theirs[1:3, 16:32], z, name, PARAMETER, slopes)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, strict=True)
    ours, theirs = (np.full((4, 48), 7.0, dtype) for _ in range(2))
    for matrix, function, key in (
        (ours, activation_derivatives, CODES[name]),
        (theirs, reference.activation_derivatives, name),
    ):
        function(matrix[:2, 16:32], matrix[2:, :16], z, key, PARAMETER, slopes)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, strict=True)


@pytest.mark.parametrize("rows", [1, 3, 256])
def test_gradient_of_slopes(rows: int, dtype: type) -> None:
    """Sums over the rows, within a larger matrix whose other columns stay."""
    rng = np.random.default_rng(rows)
    z, da = (rng.normal(size=(rows, 48)).astype(dtype) for _ in range(2))
    z[0, 16] = 0.0
    ours, theirs = (np.full((1, 48), 7.0, dtype) for _ in range(2))
    activation.slope_backward(ours[:, 16:32], da[:, 16:32], z[:, 16:32])
    reference.slope_backward(theirs[:, 16:32], da[:, 16:32], z[:, 16:32])
    tolerance = rows * np.finfo(dtype).eps
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, strict=True)


def test_gradient_of_slopes_keeps_nan(dtype: type) -> None:
    z = np.full((2, 16), 1.0, dtype)
    z[1, 3] = np.nan
    sums = np.zeros((1, 16), dtype)
    activation.slope_backward(sums, np.ones_like(z), z)
    np.testing.assert_array_equal(np.isnan(sums[0]), np.isnan(z[1]))
