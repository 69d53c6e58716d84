"""Settings of activations, and their reference against differences and complex steps."""

import math

import numpy as np
import pytest

from fastmlp.activations import NAMES, Activation, resolve
from fastmlp.kernels import activation, reference

ALPHA = 0.375
SMOOTH = [name for name in NAMES if activation.CODES[name] not in activation.KINKED]
POINTS = np.concatenate([np.linspace(-12.03, 12.03, 400), [-1.19, -0.75, -1.28]])


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_against_complex_steps(name: str, order: int) -> None:
    """Im f(z + ih) / h is f'(z), without cancellation; and so for f' and f''."""
    h = 1e-100
    f, derivative = reference.ACTIVATIONS[name][order : order + 2]
    with np.errstate(under="ignore"):
        step = f(POINTS + 1j * h, ALPHA)
    slope = np.imag(step) / h
    np.testing.assert_allclose(slope, derivative(POINTS, ALPHA), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_against_differences(name: str, order: int) -> None:
    """Central differences, whose error is of the order h**2."""
    h = 1e-5
    f, derivative = reference.ACTIVATIONS[name][order : order + 2]
    difference = (f(POINTS + h, ALPHA) - f(POINTS - h, ALPHA)) / (2 * h)
    np.testing.assert_allclose(difference, derivative(POINTS, ALPHA), rtol=0, atol=2e-9)


@pytest.mark.parametrize("name", NAMES)
def test_real_and_complex_values_agree(name: str) -> None:
    """Absolutely: log1p of complex numbers has no relative accuracy near 0."""
    f = reference.ACTIVATIONS[name][0]
    values = f(POINTS, ALPHA)
    assert not np.iscomplexobj(values)
    np.testing.assert_allclose(f(POINTS + 0j, ALPHA), values, rtol=1e-14, atol=1e-14)


def test_definitions() -> None:
    """Each function by its equation, where that is harmless."""
    z = np.linspace(-4.0, 4.0, 81)
    value = {name: reference.ACTIVATIONS[name][0](z, ALPHA) for name in NAMES}
    logistic = 1 / (1 + np.exp(-z))
    cubic = math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)
    normal = np.array([(1 + math.erf(x / math.sqrt(2))) / 2 for x in z])
    expected = {
        "identity": z,
        "relu": np.maximum(z, 0),
        "sigmoid": logistic,
        "tanh": np.tanh(z),
        "softplus": np.log(1 + np.exp(z)),
        "leaky_relu": np.maximum(z, ALPHA * z),
        "prelu": np.maximum(z, ALPHA * z),
        "elu": np.where(z > 0, z, ALPHA * (np.exp(z) - 1)),
        "selu": 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * (np.exp(z) - 1)),
        "gelu": z * normal,
        "gelu_tanh": 0.5 * z * (1 + np.tanh(cubic)),
        "silu": z * logistic,
        "mish": z * np.tanh(np.log(1 + np.exp(z))),
    }
    assert list(expected) == list(NAMES)
    for name in NAMES:
        np.testing.assert_allclose(value[name], expected[name], rtol=0, atol=2e-15, err_msg=name)


def test_selu_keeps_mean_and_variance() -> None:
    """Its two constants make (0, 1) a fixed point: E f(z) = 0, E f(z)**2 = 1 for normal z."""
    z = np.linspace(-12.0, 12.0, 240_001)
    weight = reference.normal_density(z) * (z[1] - z[0])
    a = reference.ACTIVATIONS["selu"][0](z, None)
    assert abs((weight * a).sum()) < 1e-9
    assert abs((weight * a**2).sum() - 1) < 1e-9


def test_codes_are_stable() -> None:
    """Files and the layer table hold them: a new activation goes to the end."""
    assert [activation.CODES[name] for name in NAMES] == list(range(13))
    assert NAMES[:5] == ("identity", "relu", "sigmoid", "tanh", "softplus")


@pytest.mark.parametrize("name", NAMES)
def test_defaults(name: str) -> None:
    default = {"leaky_relu": 0.01, "prelu": 0.25, "elu": 1.0}.get(name)
    choice = Activation(name)
    assert (choice.name, choice.alpha, choice.per_unit) == (name, default, False)
    assert choice.code == activation.CODES[name]
    assert str(choice) == (name if default is None else f"{name}({default})")


@pytest.mark.parametrize("alpha", [0, -0.5, np.float32(0.25), np.int64(2), 1e30])
def test_alpha_becomes_a_float(alpha: float) -> None:
    choice = Activation("leaky_relu", alpha=alpha)
    assert type(choice.alpha) is float
    assert choice.alpha == alpha
    assert hash(choice) == hash(Activation("leaky_relu", float(alpha)))


def test_text() -> None:
    assert str(Activation("leaky_relu", np.float64(0.2))) == "leaky_relu(0.2)"
    assert str(Activation("prelu", 0.1, per_unit=True)) == "prelu(0.1, per_unit)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": 3}, TypeError, "activation must be a name"),
        ({"name": "swish"}, ValueError, "activation must be one of identity, relu"),
        ({"name": "relu", "alpha": 0.1}, ValueError, "alpha is a setting of leaky_relu"),
        ({"name": "selu", "alpha": 1.0}, ValueError, "alpha is a setting of leaky_relu"),
        ({"name": "elu", "alpha": "1"}, TypeError, "alpha must be a number"),
        ({"name": "elu", "alpha": True}, TypeError, "alpha must be a number"),
        ({"name": "elu", "alpha": 1j}, TypeError, "alpha must be a number"),
        ({"name": "elu", "alpha": np.complex64(1)}, TypeError, "alpha must be a number"),
        ({"name": "elu", "alpha": math.nan}, ValueError, "alpha must be in"),
        ({"name": "prelu", "alpha": -math.inf}, ValueError, "alpha must be in"),
        ({"name": "leaky_relu", "per_unit": True}, ValueError, "per_unit is a setting of prelu"),
        ({"name": "prelu", "per_unit": 1}, TypeError, "per_unit must be True or False"),
    ],
)
def test_bad_settings(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Activation(**arguments)


def test_resolve() -> None:
    elu = Activation("elu", 0.5)
    assert resolve("relu", 2) == (Activation("relu"),) * 2
    assert resolve(elu, 3) == (elu,) * 3
    assert resolve(["tanh", elu], 2) == (Activation("tanh"), elu)
    assert resolve(("mish",), 1) == (Activation("mish"),)
    assert resolve("relu", 0) == resolve([], 0) == ()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (["relu"], ValueError, "one for each of the 2 hidden layers, got 1"),
        (["relu"] * 3, ValueError, "one for each of the 2 hidden layers, got 3"),
        (["relu", "swish"], ValueError, "activation must be one of"),
        (["relu", 1], TypeError, "activation must be a name, got 1"),
        (None, TypeError, "activation must be a sequence"),
        ({"relu"}, TypeError, "activation must be a sequence"),
    ],
)
def test_resolve_bad_input(value: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(value, 2)
