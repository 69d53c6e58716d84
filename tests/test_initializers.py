"""Starting values: right distribution for each layer, equal for all dtypes."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.initializers import (
    NAMES,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    initialize,
    lecun_normal,
    lecun_uniform,
    orthogonal,
    resolve,
    zeros,
)
from fastmlp.kernels import activation as kernel_activation


def philox(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.mark.parametrize(("n_in", "n_out"), [(300, 200), (200, 300)])
@pytest.mark.parametrize(
    ("draw", "variance"),
    [
        (lecun_normal, lambda n_in, n_out: 1 / n_in),
        (he_normal, lambda n_in, n_out: 2 / n_in),
        (glorot_normal, lambda n_in, n_out: 2 / (n_in + n_out)),
    ],
)
def test_normal_distributions(draw: Any, variance: Any, n_in: int, n_out: int) -> None:
    weights = draw(philox(), n_in, n_out)
    assert weights.shape == (n_in, n_out)
    assert weights.dtype == np.float64
    scaled = weights / math.sqrt(variance(n_in, n_out))
    assert abs(scaled.mean()) < 0.02
    assert abs(scaled.std() - 1.0) < 0.02
    assert abs((scaled**4).mean() - 3.0) < 0.1  # the fourth moment tells normal from uniform


@pytest.mark.parametrize(("n_in", "n_out"), [(300, 200), (200, 300)])
@pytest.mark.parametrize(
    ("draw", "variance"),
    [
        (lecun_uniform, lambda n_in, n_out: 1 / n_in),
        (he_uniform, lambda n_in, n_out: 2 / n_in),
        (glorot_uniform, lambda n_in, n_out: 2 / (n_in + n_out)),
    ],
)
def test_uniform_distributions(draw: Any, variance: Any, n_in: int, n_out: int) -> None:
    weights = draw(philox(), n_in, n_out)
    assert weights.shape == (n_in, n_out)
    assert weights.dtype == np.float64
    scaled = weights / math.sqrt(3 * variance(n_in, n_out))
    assert 0.999 < abs(scaled).max() <= 1.0
    assert abs(scaled.mean()) < 0.02
    assert abs((scaled**2).mean() - 1 / 3) < 0.01
    assert abs((scaled**4).mean() - 1 / 5) < 0.01


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (7, 7), (20, 5), (5, 20), (64, 1), (1, 64)])
@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_orthogonal_has_orthonormal_rows_or_columns(n_in: int, n_out: int, gain: float) -> None:
    weights = orthogonal(philox(), n_in, n_out, gain)
    assert weights.shape == (n_in, n_out)
    thin = weights if n_in >= n_out else weights.T
    np.testing.assert_allclose(
        thin.T @ thin, gain**2 * np.eye(min(n_in, n_out)), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize(("n_in", "n_out"), [(3, 3), (5, 3), (3, 5)])
def test_orthogonal_is_uniform(n_in: int, n_out: int) -> None:
    """Every entry has mean 0 and variance 1 / max(n), and so has a rotation of the matrix.

    QR alone gives Householder's signs, which are not symmetric.
    """
    rng = philox()
    draws = np.array([orthogonal(rng, n_in, n_out) for _ in range(20_000)])
    variance = 1 / max(n_in, n_out)
    for sample in (draws, draws.transpose(0, 2, 1) @ orthogonal(philox(1), n_in, n_in)):
        assert abs(sample.mean(axis=0)).max() < 0.02
        assert abs(sample.var(axis=0) / variance - 1).max() < 0.05
    trace = np.trace(draws, axis1=1, axis2=2)
    assert abs(trace.var() - variance * min(n_in, n_out)) < 0.05


def test_zeros_draw_nothing() -> None:
    rng = philox()
    np.testing.assert_array_equal(zeros(rng, 3, 2), np.zeros((3, 2)))
    assert rng.random() == philox().random()


def test_he_keeps_the_signal_of_a_deep_relu_network() -> None:
    rng = philox()
    signal = rng.normal(size=(100, 256))
    for _ in range(20):
        signal = np.maximum(signal, 0.0) @ he_normal(rng, 256, 256)
    assert 0.2 < (signal**2).mean() < 5.0


def test_layers_get_the_initializer_of_their_activation() -> None:
    activations = ["relu", "sigmoid", "softplus", "tanh", "identity"]
    sizes = [8, 7, 6, 5, 4, 3, 2]
    net = fm.MLP(sizes, activation=activations, seed=9, dtype="float64")
    rng = philox(9)
    draws = [he_normal, glorot_uniform, he_normal, *[glorot_uniform] * 3]
    for draw, n_in, n_out, weight in zip(draws, sizes, sizes[1:], net.weights, strict=False):
        np.testing.assert_array_equal(weight, draw(rng, n_in, n_out))
    assert not any(bias.any() for bias in net.biases)


def test_dtypes_agree_up_to_rounding() -> None:
    single, double = (
        fm.MLP([20, 30, 10], activation="relu", seed=4, dtype=dtype)
        for dtype in ("float32", "float64")
    )
    for narrow, wide in zip(single.weights, double.weights, strict=True):
        np.testing.assert_array_equal(narrow, wide.astype(np.float32), strict=True)


def test_seed_decides() -> None:
    first, again, other = (fm.MLP([6, 5, 4], seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.theta, again.theta)
    for a, b in zip(first.weights, other.weights, strict=True):
        assert not (a == b).any()


def test_only_the_views_are_written() -> None:
    """Weights are views with padding between the rows; biases may hold anything before."""
    padded = np.full((4, 16), 7.0)
    bias = np.full(3, np.nan)
    initialize([padded[:, :3]], [bias], [], philox())
    np.testing.assert_array_equal(padded[:, :3], glorot_uniform(philox(), 4, 3))
    assert (padded[:, 3:] == 7.0).all()
    np.testing.assert_array_equal(bias, np.zeros(3))


# --- choice


def started(
    initializer: Any, sizes: tuple[int, ...] = (4, 3, 2), dtype: Any = np.float64
) -> list[np.ndarray]:
    """The weights of a tanh network whose biases were NaN."""
    weights = [np.full(shape, np.nan, dtype) for shape in itertools.pairwise(sizes)]
    biases = [np.full(n, np.nan, dtype) for n in sizes[1:]]
    initialize(weights, biases, ["tanh"] * (len(sizes) - 2), philox(), initializer)
    assert not np.any([bias.any() for bias in biases])
    return weights


HALVING = ["relu", "leaky_relu", "prelu", "elu", "gelu", "gelu_tanh", "silu", "mish", "softplus"]


@pytest.mark.parametrize("activation", sorted({*kernel_activation.CODES, *HALVING, "selu"}))
def test_default_is_by_the_activation(activation: str) -> None:
    weights, biases = [np.empty((4, 3)), np.empty((3, 2))], [np.empty(3), np.empty(2)]
    initialize(weights, biases, [activation], philox())
    draw = glorot_uniform
    if activation in HALVING:
        draw = he_normal
    if activation == "selu":
        draw = lecun_normal
    rng = philox()
    np.testing.assert_array_equal(weights[0], draw(rng, 4, 3))
    np.testing.assert_array_equal(weights[1], glorot_uniform(rng, 3, 2))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_for_all_layers(name: str) -> None:
    rng = philox()
    for weight, shape in zip(started(name), [(4, 3), (3, 2)], strict=True):
        np.testing.assert_array_equal(weight, NAMES[name](rng, *shape))


def test_names() -> None:
    assert NAMES["xavier_uniform"] is NAMES["glorot_uniform"] is glorot_uniform
    assert NAMES["xavier_normal"] is NAMES["glorot_normal"] is glorot_normal
    for name, draw in NAMES.items():
        assert draw.__name__ in (name, name.replace("xavier", "glorot"))


@pytest.mark.parametrize("kind", [list, tuple])
def test_each_layer_may_have_its_own(kind: Any) -> None:
    given = np.arange(6.0).reshape(3, 2)
    ours = kind([None, given, lambda rng, n_in, n_out: np.full((n_in, n_out), 0.5), "he_uniform"])
    weights = started(ours, (4, 3, 2, 5, 6))
    rng = philox()
    np.testing.assert_array_equal(weights[0], glorot_uniform(rng, 4, 3))
    np.testing.assert_array_equal(weights[1], given)
    np.testing.assert_array_equal(weights[2], np.full((2, 5), 0.5))
    np.testing.assert_array_equal(weights[3], he_uniform(rng, 5, 6))


def test_an_array_is_copied_and_rounded() -> None:
    given = np.random.default_rng(0).normal(size=(4, 3))
    (weight,) = started(given, (4, 3), np.float32)
    np.testing.assert_array_equal(weight, given.astype(np.float32))
    assert not np.shares_memory(weight, given)


def test_resolve_of_one_for_all() -> None:
    assert resolve(None, 3) == (None, None, None)
    assert resolve("zeros", 2) == (zeros, zeros)
    assert resolve(zeros, 2) == (zeros, zeros)
    assert resolve([], 0) == ()


def test_numbers_of_layers_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        initialize([np.empty((2, 2))], [np.empty(2)], ["relu"], philox())
    for wrong in (["zeros"], ["zeros"] * 3, []):
        with pytest.raises(ValueError, match=f"each of the 2 layers, got {len(wrong)}"):
            resolve(wrong, 2)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"initializer must be one of lecun_normal, .*, got 'he'"):
        resolve("he", 2)
    with pytest.raises(ValueError, match=r"initializer\[1\] must be one of .*, got 'he'"):
        resolve(["zeros", "he"], 2)


@pytest.mark.parametrize("wrong", [1, 0.5, True, object(), {}])
def test_wrong_kinds(wrong: Any) -> None:
    with pytest.raises(TypeError, match="initializer must be None, a name, a function"):
        resolve(wrong, 2)
    with pytest.raises(TypeError, match=r"initializer\[0\] must be None, a name, a function"):
        resolve([wrong, None], 2)


def as_given(array: Any) -> Any:
    return array


def as_returned(array: Any) -> Any:
    return lambda rng, n_in, n_out: array


@pytest.mark.parametrize("way", [as_given, as_returned])
@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros((4, 3)), ValueError, r"must give shape \(3, 2\), got \(4, 3\)"),
        (np.zeros(6), ValueError, r"must give shape \(3, 2\), got \(6,\)"),
        (np.full((3, 2), np.nan), ValueError, "must give numbers that are finite in float32"),
        (np.full((3, 2), 1e300), ValueError, "must give numbers that are finite in float32"),
        (np.full((3, 2), 1j), TypeError, "must give an array of real numbers, got dtype complex"),
        (np.full((3, 2), "a"), TypeError, "must give an array of real numbers, got dtype <U1"),
    ],
)
def test_arrays_are_checked_before_anything_is_written(
    way: Any, array: Any, error: Any, message: str
) -> None:
    weights = [np.ones((4, 3), np.float32), np.ones((3, 2), np.float32)]
    biases = [np.ones(3, np.float32), np.ones(2, np.float32)]
    with pytest.raises(error, match="initializer of layer 2 " + message):
        initialize(weights, biases, ["relu"], philox(), [None, way(array)])
    assert all((vector == 1).all() for vector in (*weights, *biases))
