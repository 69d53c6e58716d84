"""Starting values: right distribution for each layer, equal for all dtypes."""

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.initializers import glorot_uniform, he_normal, initialize


def philox(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def test_he_normal_distribution() -> None:
    weights = he_normal(philox(), 300, 200)
    assert weights.shape == (300, 200)
    assert weights.dtype == np.float64
    scaled = weights / np.sqrt(2 / 300)
    assert abs(scaled.mean()) < 0.02
    assert abs(scaled.std() - 1.0) < 0.02
    assert abs((scaled**4).mean() - 3.0) < 0.1  # the fourth moment tells normal from uniform


def test_glorot_uniform_distribution() -> None:
    weights = glorot_uniform(philox(), 300, 200)
    assert weights.shape == (300, 200)
    assert weights.dtype == np.float64
    scaled = weights / np.sqrt(6 / 500)
    assert 0.999 < abs(scaled).max() <= 1.0
    assert abs(scaled.mean()) < 0.02
    assert abs((scaled**2).mean() - 1 / 3) < 0.01
    assert abs((scaled**4).mean() - 1 / 5) < 0.01


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


def test_numbers_of_layers_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        initialize([np.empty((2, 2))], [np.empty(2)], ["relu"], philox())
