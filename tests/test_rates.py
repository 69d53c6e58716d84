"""Learning-rate factors: who gets which, what they change, and the NTK parametrisation by them."""

from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.rates import rate_factors

SIZES = [5, 12, 9, 3]


def network(**options: Any) -> fm.MLP:
    """Every kind of parameter."""
    options = {
        "activation": ["prelu", "tanh"],
        "norm": ["layer", None],
        "input_scale": True,
        "dtype": "float64",
    } | options
    return fm.MLP(SIZES, seed=1, **options)


def samples(rows: int = 40) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, SIZES[0])), rng.integers(0, SIZES[-1], rows)


def step(net: fm.MLP, **options: Any) -> dict[str, Any]:
    """How each tensor moves in one step of gradient descent."""
    X, y = samples()
    after = net.clone()
    fm.fit(after, X, y, optimizer=fm.SGD(0.1), batch_size=None, epochs=1, **options)
    return {t.name: t.view(after.theta) - t.view(net.theta) for t in net.layout.tensors}


@pytest.mark.parametrize("options", [{}, {"clip_global_norm": 1e6}], ids=["fused", "two-phase"])
@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({"weight": 0.5}, {"layers.0.weight": 0.5, "layers.1.weight": 0.5, "layers.2.weight": 0.5}),
        ({"weight": [1, 0, 3]}, {"layers.1.weight": 0.0, "layers.2.weight": 3.0}),
        ({"bias": np.array([0.1, 1.0, 2.0])}, {"layers.0.bias": 0.1, "layers.2.bias": 2.0}),
        ({"slope": [0.25, 1.0], "gain": 4}, {"layers.0.slope": 0.25, "layers.0.gain": 4.0}),
        ({"shift": [8.0, 1.0], "input_scale": 6.0}, {"layers.0.shift": 8.0, "input_scale": 6.0}),
    ],
)
def test_a_step_is_so_many_times_as_long(
    factors: dict[str, Any], expected: dict[str, float], options: dict[str, Any]
) -> None:
    net = network()
    plain, other = step(net), step(net, learning_rate_factors=factors, **options)
    for name in plain:
        assert plain[name].any()
        np.testing.assert_allclose(
            other[name], expected.get(name, 1.0) * plain[name], rtol=1e-9, atol=1e-15
        )


@pytest.mark.parametrize("optimizer", [fm.SGD(0.1), fm.SGD(0.1, momentum=0.9), fm.AdamW(0.6)])
def test_factors_of_one_change_no_bit(optimizer: fm.Optimizer) -> None:
    X, y = samples()
    nets = [network(dtype="float32") for _ in range(2)]
    ones = dict.fromkeys(("weight", "bias", "slope", "gain", "shift", "input_scale"), 1.0)
    for net, factors in zip(nets, (None, ones), strict=True):
        fm.fit(net, X, y, optimizer=optimizer, epochs=3, learning_rate_factors=factors)
    assert nets[0].theta.tobytes() == nets[1].theta.tobytes()


@pytest.mark.parametrize("optimizer", [fm.SGD(0.1), fm.AdamW(0.05), fm.RMSProp(0.01)])
def test_update_at_once_and_in_two_phases_give_the_same_bits(optimizer: fm.Optimizer) -> None:
    X, y = samples()
    factors = {"weight": [0.3, 0.2, 0.1], "bias": 0.1, "input_scale": 6.0, "gain": 3.0}
    results = set()
    for options in ({}, {"clip_global_norm": 1e9}):
        net = network(dtype="float32")
        how: Any = {"optimizer": optimizer, "learning_rate_factors": factors, **options}
        fm.fit(net, X, y, epochs=3, **how)
        results.add(net.theta.tobytes())
    assert len(results) == 1


def test_what_has_factor_zero_stays_even_with_weight_decay() -> None:
    net, (X, y) = network(), samples()
    before = net.clone()
    fm.fit(net, X, y, optimizer=fm.AdamW(weight_decay=0.5), learning_rate_factors={"weight": 0.0})
    for old, new in zip(before.weights, net.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert (net.biases[0] != before.biases[0]).all()


@pytest.mark.jit  # without the compiler there is one thread
def test_threads_change_no_bit() -> None:
    X, y = samples(600)
    factors = {"weight": [0.3, 0.2, 0.1], "bias": 0.1, "input_scale": 6.0, "gain": 3.0}
    for options in ({"batch_size": 64}, {"batch_size": None}, {"clip_norm": 0.1}):
        results = set()
        for threads in (1, 2, 3):
            net = network(dtype="float32")
            how: Any = {
                "learning_rate_factors": factors,
                "threads": threads,
                "epochs": 3,
                **options,
            }
            fm.fit(net, X, y, **how)
            results.add(net.theta.tobytes())
        assert len(results) == 1


def test_ntk_parametrisation() -> None:
    """z = V a / sqrt(n_in) with Adam on V is z = W a at the rate / sqrt(n_in), up to epsilon.

    Written out for one linear layer, from the same W = V / sqrt(n_in).
    """
    rng = np.random.default_rng(3)
    X, targets = rng.normal(size=(50, 16)), rng.normal(size=(50, 2))
    V, rate, (beta1, beta2), epsilon = rng.normal(size=(16, 2)), 0.04, (0.9, 0.95), 1e-30
    factor = 1.0 / np.sqrt(len(V))
    net = fm.MLP([16, 2], loss="squared_error", initializer=factor * V, dtype="float64")
    options = {
        "batch_size": None,
        "epochs": 30,
        "learning_rate_factors": {"weight": factor, "bias": 0},
    }
    fm.fit(net, X, targets, optimizer=fm.Adam(rate, beta1, beta2, epsilon), **options)
    m, v = np.zeros_like(V), np.zeros_like(V)
    for t in range(1, 31):
        z = factor * X @ V
        g = factor * X.T @ (2 * (z - targets) / len(X))
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        V = V - rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
    np.testing.assert_allclose(net.weights[0], factor * V, rtol=1e-11)


def test_table() -> None:
    table = rate_factors({"weight": [1, 2, 3], "input_scale": 6, "gain": 0.5}, network().layout)
    assert table.tolist() == [
        [1, 1, 1, 6, 1],
        [1, 1, 1, 0.5, 1],
        [2, 1, 1, 1, 1],
        [3, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize(
    ("factors", "error", "message"),
    [
        (0.1, TypeError, "learning_rate_factors must be a dict by kind, got 0.1"),
        ({"weights": 1.0}, ValueError, "must be one of weight, .*, input_scale, got 'weights'"),
        ({"weight": -1.0}, ValueError, r"learning_rate_factors\['weight'\] must be .*-1.0"),
        ({"weight": "1"}, TypeError, r"learning_rate_factors\['weight'\] must be"),
        ({"weight": np.nan}, ValueError, r"learning_rate_factors\['weight'\] must be .*nan"),
        ({"bias": [1.0, 2.0]}, ValueError, "one number or one for each of 3 layers"),
        ({"bias": [1.0, 2.0, None]}, TypeError, r"learning_rate_factors\['bias'\]\[2\] must be"),
        ({"slope": [1.0]}, ValueError, "one number or one for each of 2 layers"),
        ({"input_scale": [1.0, 2.0]}, ValueError, "one number or one for each of 1 layers"),
    ],
)
def test_wrong_factors(factors: Any, error: type[Exception], message: str) -> None:
    net, (X, y) = network(), samples()
    before = net.theta.copy()
    with pytest.raises(error, match=message):
        fm.fit(net, X, y, learning_rate_factors=factors)
    np.testing.assert_array_equal(net.theta, before)


@pytest.mark.parametrize("kind", ["slope", "gain", "shift", "input_scale"])
def test_kinds_that_the_network_lacks(kind: str) -> None:
    with pytest.raises(ValueError, match=f"the network has no {kind}"):
        fm.fit(fm.MLP(SIZES), *samples(), learning_rate_factors={kind: 1.0})


@pytest.mark.parametrize("optimizer", [fm.LBFGS(), fm.GradientDescent("lipschitz")])
def test_optimizers_without_rates(optimizer: fm.Optimizer) -> None:
    with pytest.raises(ValueError, match="learning_rate_factors"):
        fm.fit(
            fm.MLP([5, 3]), *samples(), optimizer=optimizer, learning_rate_factors={"weight": 1.0}
        )
