"""The scale of the inputs, beyond what random networks compare: views, files, folding, bits."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmlp as fm


def network(**options: Any) -> fm.MLP:
    options = {"layer_sizes": [5, 8, 3], "dtype": "float64", "seed": 1} | options
    net = fm.MLP(input_scale=True, **options)
    net.input_scale[...] = [2.0, -0.5, 0.0, 1.0, 3.0]
    return net


def samples(rows: int = 30) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 5)), rng.integers(0, 3, rows)


def test_it_starts_at_one() -> None:
    net, plain = fm.MLP([5, 8, 3], input_scale=True), fm.MLP([5, 8, 3])
    np.testing.assert_array_equal(net.input_scale, np.ones(5, np.float32))
    assert net.n_parameters == plain.n_parameters + 5
    assert len(plain.input_scale) == len(plain.loss_and_gradient(*samples())[1].input_scale) == 0
    X, _ = samples()
    np.testing.assert_array_equal(net.decision_function(X), plain.decision_function(X))
    assert "input_scale=True" in repr(net)
    assert "input_scale" not in repr(plain)


@pytest.mark.parametrize("sizes", [[5, 3], [5, 8, 3], [5, 8, 6, 70]])
def test_it_multiplies_the_inputs(sizes: list[int]) -> None:
    net, (X, _) = network(layer_sizes=sizes), samples()
    y = np.zeros(len(X), int)
    plain = fm.MLP(sizes, dtype="float64", seed=1)
    scaled = X * net.input_scale
    np.testing.assert_array_equal(net.decision_function(X), plain.decision_function(scaled))
    loss, gradient = net.loss_and_gradient(X, y)
    expected_loss, expected = plain.loss_and_gradient(scaled, y)
    assert loss == expected_loss
    for mine, its in zip(gradient.weights, expected.weights, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-12, atol=1e-15)
    by_inputs = plain.input_gradient(scaled, y)
    np.testing.assert_allclose(gradient.input_scale, (X * by_inputs).sum(0), rtol=1e-11)
    found = net.input_gradient(X, y)
    np.testing.assert_allclose(found, by_inputs * net.input_scale, rtol=1e-12)


def test_a_factor_of_zero_is_left_again() -> None:
    """The gradient by a scale of 0 is not 0: it is no quotient of the weights' gradient."""
    net, (X, y) = network(), samples()
    _, gradient = net.loss_and_gradient(X, y)
    assert gradient.input_scale[2] != 0
    fm.fit(net, X, y, epochs=1)
    assert net.input_scale[2] != 0


@pytest.mark.jit  # without the compiler there is one thread
@pytest.mark.parametrize("sizes", [[100, 3], [100, 40, 3], [100, 40, 30, 70]])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.1}, {"batch_size": None}])
def test_threads_change_no_bit(sizes: list[int], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(600, 100)), rng.integers(0, 3, 600)
    X[:, 10:90] = 0  # which the first layer does not leave out here
    results = set()
    for threads in (1, 2, 3):
        net = fm.MLP(sizes, dropout=[0.1] + [0.2] * (len(sizes) - 2), input_scale=True)
        fm.fit(net, X, y, epochs=3, threads=threads, **options)
        assert (net.input_scale[10:90] == 1).all()
        assert (net.input_scale[:10] != 1).all()
        results.add(net.theta.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_folded_network_is_the_same_function(norm: Any) -> None:
    X, y = samples()
    net = network(norm=norm, activation="prelu", l2=0.1)
    fm.fit(net, X, y, epochs=2)
    net.metadata["of"] = "test"
    folded = net.fold_input_scale()
    assert (
        folded.architecture == fm.MLP([5, 8, 3], norm=norm, activation="prelu", l2=0.1).architecture
    )
    np.testing.assert_allclose(
        folded.decision_function(X), net.decision_function(X), rtol=1e-12, atol=1e-14
    )
    assert folded.metadata == net.metadata
    np.testing.assert_array_equal(folded.running, net.running)
    again = folded.fold_input_scale()
    np.testing.assert_array_equal(again.theta, folded.theta)
    assert not np.shares_memory(again.theta, folded.theta)


def test_copies_have_it(tmp_path: Path) -> None:
    net, (X, _) = network(), samples()
    net.save(tmp_path / "net.safetensors")
    for copy in (
        fm.MLP.load(tmp_path / "net.safetensors"),
        pickle.loads(pickle.dumps(net)),
        net.clone(),
        net.astype("float32").astype("float64"),
    ):
        np.testing.assert_array_equal(copy.input_scale, net.input_scale)
        assert not np.shares_memory(copy.input_scale, net.input_scale)
    np.testing.assert_array_equal(copy.decision_function(X).shape, (30, 3))


def test_second_derivatives_say_what_to_do() -> None:
    net, (X, y) = network(activation="tanh"), samples()
    for function in (
        lambda net: fm.hessian_vector_product(net, X, y, net.theta),
        lambda net: fm.smoothness(net, X, y),
        lambda net: fm.fit(net, X, y, optimizer=fm.GradientDescent("lipschitz"), epochs=1),
    ):
        with pytest.raises(ValueError, match="fold_input_scale"):
            function(net)
        function(net.fold_input_scale())


@pytest.mark.parametrize("norm", [None, "batch"])
def test_gradient_flow_is_that_of_the_folded_network(norm: Any) -> None:
    net, (X, y) = network(norm=norm), samples()
    flow = fm.gradient_flow(net, X, y)
    folded = fm.gradient_flow(net.fold_input_scale(), X, y)
    assert flow.loss == pytest.approx(folded.loss, rel=1e-12)
    for mine, its in zip(flow.layers, folded.layers, strict=True):
        assert mine.delta == pytest.approx(its.delta, rel=1e-10)


def test_it_costs_one_more_product() -> None:
    layers = fm.complexity([5, 8, 3], 10, input_scale=True).layers
    plain = fm.complexity([5, 8, 3], 10).layers
    assert [layer.forward for layer in layers] == [layer.forward for layer in plain]
    assert layers[0].backward == 2 * plain[0].backward
    assert layers[1] == plain[1]
    assert layers[0].parameters == plain[0].parameters + 5


def test_no_flag() -> None:
    with pytest.raises(TypeError, match="input_scale"):
        fm.MLP([5, 3], input_scale=2.0)  # type: ignore[arg-type]
