"""exp, expm1, log1p and the activations, in units in the last place (ULP) of the exact value."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastmlp.kernels import activation, elementwise, reference
from fastmlp.kernels._jit import kernel
from fastmlp.kernels.simd import lanes, load, store

DTYPES = [np.float32, np.float64]
WIDER = {np.float32: np.float64, np.float64: np.longdouble}

# The largest errors found over dense samples, with and without fused multiply-add, rounded up.
FORWARD_BOUNDS = {
    "exp": 1.0,
    "expm1": 1.0,
    "log1p": 1.0,
    "relu": 0.0,
    "sigmoid": 2.5,
    "tanh": 2.6,
    "softplus": 1.7,
}
BACKWARD_BOUNDS = {"relu": 0.0, "sigmoid": 2.0, "tanh": 2.0, "softplus": 1.8}
DOMAINS = {"expm1": (-np.inf, 0.0), "log1p": (0.0, 1.0)}

# Where exp overflows, and where its results become subnormal numbers and then 0.
THRESHOLDS = [17.0, 60.0, 87.33, 88.72, 88.73, 103.9, 104.0, 104.5, 105.0, 106.0, 708.3, 709.78]
THRESHOLDS += [709.79, 745.1, 745.2, 749.0, 750.0, 751.0, 1e5, 1e30, np.inf]
SPECIALS = [0.0, 5e-324, 1e-310, 1.4e-45, 1e-40, 1e-38, 1e-10, 0.34657, 0.34658, 0.5, 1.0, 2.0]
SPECIALS += THRESHOLDS


def loop_over(function: Callable[..., Any]) -> Callable[..., None]:
    @kernel
    def loop(x):
        for j in range(0, x.shape[1], lanes(x)):
            store(x, 0, j, function(load(x, 0, j)))

    return loop


CORES = {name: loop_over(getattr(elementwise, name)) for name in ("exp", "expm1", "log1p")}


def compute(name: str, x: np.ndarray) -> np.ndarray:
    """Return f(x), by the kernels; the length of x is a multiple of 16."""
    values = x.reshape(1, -1).copy()
    if name in CORES:
        CORES[name](values)
    else:
        activation.activation_forward(values, activation.CODES[name])
    return values[0]


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """Return f(x) computed with the next longer floating-point numbers."""
    function = getattr(np, name) if name in CORES else reference.ACTIVATIONS[name][0]
    with np.errstate(all="ignore"):
        return function(x.astype(WIDER[x.dtype.type]))


def ulps(computed: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the errors in units in the last place; infinity, zero and NaN must be in place."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = exact.astype(computed.dtype)
        errors = np.abs(computed - exact) / np.spacing(np.abs(rounded))
    same = (computed == rounded) | (np.isnan(computed) & np.isnan(rounded))
    return np.where(same & ~np.isfinite(rounded), 0.0, errors.astype(np.float64))


def within(name: str, x: np.ndarray) -> np.ndarray:
    """Return the part of x that a function is made for, padded with ones to whole vectors."""
    low, high = DOMAINS.get(name, (-np.inf, np.inf))
    x = x[(low <= x) & (x <= high)]
    return np.append(x, np.full(-len(x) % 16, min(high, 1.0))).astype(x.dtype)


def dense(name: str, dtype: type, count: int = 300_000) -> np.ndarray:
    """Return samples of both signs, uniform and over all exponents, where f changes at all."""
    rng = np.random.default_rng(1)
    limit = 110.0 if dtype is np.float32 else 760.0
    smallest = -150.0 if dtype is np.float32 else -1075.0
    uniform = [rng.uniform(0.0, top, count) for top in (1.0, 20.0, limit)]
    powers = [np.exp2(rng.uniform(low, np.log2(limit), count)) for low in (-5.0, -30.0, smallest)]
    x = np.concatenate(uniform + powers).astype(dtype)
    return within(name, np.concatenate([x, -x]))


def specials(dtype: type) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.array([*SPECIALS, *(-x for x in SPECIALS)], dtype)


@pytest.fixture(params=DTYPES, ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> type:
    if np.finfo(WIDER[request.param]).nmant < np.finfo(request.param).nmant + 10:
        pytest.skip("the platform has no floating-point numbers longer than float64")
    return request.param


@pytest.mark.jit
@pytest.mark.parametrize("name", FORWARD_BOUNDS)
def test_errors_over_dense_samples(name: str, dtype: type) -> None:
    x = dense(name, dtype)
    errors = ulps(compute(name, x), exact(name, x))
    worst = int(np.argmax(errors))
    assert errors[worst] <= FORWARD_BOUNDS[name], f"{errors[worst]:.3f} ULP at {x[worst]!r}"


@pytest.mark.jit
@pytest.mark.parametrize("name", FORWARD_BOUNDS)
def test_special_values(name: str, dtype: type) -> None:
    """Zeros, subnormal numbers, infinities, and where exp begins to overflow and underflow."""
    x = within(name, specials(dtype))
    np.testing.assert_array_less(ulps(compute(name, x), exact(name, x)), 3.0, err_msg=repr(x))


@pytest.mark.jit
@pytest.mark.parametrize("name", FORWARD_BOUNDS)
def test_nan_stays_nan(name: str, dtype: type) -> None:
    x = np.full(16, 0.0, dtype)
    x[5] = np.nan
    np.testing.assert_array_equal(np.isnan(compute(name, x)), np.isnan(x))


@pytest.mark.parametrize("name", FORWARD_BOUNDS)
def test_errors_of_a_few_samples(name: str, dtype: type) -> None:
    x = within(name, np.linspace(-20.0, 20.0, 81).astype(dtype))
    np.testing.assert_array_less(ulps(compute(name, x), exact(name, x)), 3.0)


def outputs(name: str, dtype: type) -> np.ndarray:
    """Return activations that occur, those near the ends of their range included."""
    return compute(name, dense(name, dtype, 50_000))


def backward(name: str, da: np.ndarray, a: np.ndarray) -> np.ndarray:
    gradient = da.reshape(1, -1).copy()
    activation.activation_backward(gradient, a.reshape(1, -1), activation.CODES[name])
    return gradient[0]


@pytest.mark.jit
@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "softplus"])
def test_errors_of_derivatives_from_outputs(name: str, dtype: type) -> None:
    a = outputs(name, dtype)
    da = np.random.default_rng(2).normal(size=a.shape).astype(dtype)
    derivative = reference.ACTIVATIONS[name][1](a.astype(WIDER[dtype]))
    errors = ulps(backward(name, da, a), da * derivative)
    worst = int(np.argmax(errors))
    assert errors[worst] <= BACKWARD_BOUNDS[name], f"{errors[worst]:.3f} ULP at {a[worst]!r}"


@pytest.mark.parametrize("name", BACKWARD_BOUNDS)
def test_derivatives_are_those_of_the_functions(name: str, dtype: type) -> None:
    """f'(z) from the output, as it is rounded: right to some units of rounding of 1."""
    z = np.linspace(-30.0, 30.0, 128).astype(dtype)
    expected = reference.ACTIVATIONS[name][1](exact(name, z))
    derivative = backward(name, np.ones_like(z), compute(name, z))
    np.testing.assert_allclose(derivative, expected, rtol=0, atol=3 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", BACKWARD_BOUNDS)
def test_gradient_that_is_nan_stays_nan(name: str, dtype: type) -> None:
    da = np.full(16, np.nan, dtype)
    assert np.isnan(backward(name, da, np.full(16, 0.5, dtype))).all()


def test_identity_changes_nothing(dtype: type) -> None:
    x = np.linspace(-1.0, 1.0, 16).astype(dtype)
    np.testing.assert_array_equal(compute("identity", x), x)
    np.testing.assert_array_equal(backward("identity", x, x), x)


def test_relu_at_zero(dtype: type) -> None:
    """The derivative at 0 is 0."""
    np.testing.assert_array_equal(backward("relu", np.ones(16, dtype), np.zeros(16, dtype)), 0.0)


@pytest.mark.parametrize("name", activation.CODES)
def test_reference_in_place(name: str, dtype: type) -> None:
    """The kernels and their reference do the same to rows of a larger matrix."""
    rng = np.random.default_rng(3)
    ours, theirs = (np.full((4, 48), 7.0, dtype) for _ in range(2))
    ours[1:3, 16:32] = theirs[1:3, 16:32] = rng.normal(size=(2, 16))
    da = rng.normal(size=(2, 16)).astype(dtype)
    gradient = da.copy()
    activation.activation_forward(ours[1:3, 16:32], activation.CODES[name])
    reference.activation_forward(theirs[1:3, 16:32], name)
    a = ours[1:3, 16:32]
    activation.activation_backward(gradient, a, activation.CODES[name])
    reference.activation_backward(da, a, name)
    for got, expected in ((ours, theirs), (gradient, da)):
        tolerance = 4 * np.finfo(dtype).eps
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance, strict=True)
