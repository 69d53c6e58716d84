"""Thousands of random networks: the gradient is right in all combinations."""

from typing import Any

import numpy as np
import pytest
from networks import Case, random_case, small_cases

import fastmlp as fm
from fastmlp.gradcheck_numeric import Model

BLOCK = 100
BLOCKS = range(21)


def check(case: Case, method: Any, **options: Any) -> fm.GradientCheckReport:
    """Check the network, which must pass."""
    report = fm.gradient_check(case.net, **case.samples, method=method, **options)
    assert report.ok, f"{case.net}\n{report}"
    return report


def worst(case: Case, method: Any, **options: Any) -> float:
    """Check the network, and return the largest error of a tensor."""
    return max(tensor.relative_error for tensor in check(case, method, **options).tensors)


def test_some_networks() -> None:
    for seed in range(3):
        assert worst(random_case(seed), "complex") < 1e-12
        assert worst(random_case(seed), "central") < 1e-7


@pytest.mark.jit
@pytest.mark.parametrize("block", BLOCKS)
def test_every_parameter(block: int) -> None:
    compared, excluded = 0, 0
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        case = random_case(seed)
        assert worst(case, "complex") < 1e-12
        report = check(case, "central")
        assert max(tensor.relative_error for tensor in report.tensors) < 1e-7
        compared += report.n_parameters
        excluded += report.excluded
    assert excluded < 0.02 * compared  # left out at kinks


@pytest.mark.jit
def test_richardson_is_better() -> None:
    cases = [random_case(seed, smooth=True) for seed in range(100)]
    errors = np.array([[worst(case, m) for m in ("central", "richardson")] for case in cases])
    assert errors[:, 1].max() < 1e-9
    assert np.median(errors[:, 1]) < np.median(errors[:, 0]) / 5


@pytest.mark.jit
def test_as_predicted() -> None:
    """Without dropout, and with the running statistics."""
    for seed in range(100):
        case = random_case(seed)
        assert worst(case, "complex", training=False) < 1e-12
        assert worst(case, "central", training=False) < 1e-7


@pytest.mark.jit
def test_float32_gradients() -> None:
    for seed in range(200):
        case = random_case(seed, dtype="float32")
        report = fm.gradient_check(case.net, **case.samples)
        assert report.ok, f"{case.net}\n{report}"
        assert all(tensor.single_error is not None for tensor in report.tensors)


@pytest.mark.jit
def test_several_micro_batches() -> None:
    for seed in range(40):
        rows = 257 + 5 * seed
        assert worst(random_case(seed, rows=rows), "directions") < 1e-12


@pytest.mark.jit
def test_checkpoints_change_no_bit() -> None:
    for seed in range(200):
        case = random_case(seed)
        loss, gradient = case.net.loss_and_gradient(**case.samples)
        again, other = case.net.loss_and_gradient(
            **case.samples, checkpoint_every=case.checkpoint_every
        )
        assert loss == again
        np.testing.assert_array_equal(gradient.flat, other.flat)


def test_reference_and_kernels_agree() -> None:
    cases = [*small_cases(), *(random_case(seed) for seed in range(20))]
    for case in cases:
        batch = case.net._checked(case.X, case.y, case.sample_weight)
        loss, gradient = Model(case.net, batch, True).loss_and_gradient()
        computed, found = case.net.loss_and_gradient(**case.samples)
        assert computed == pytest.approx(loss, rel=1e-13)
        scale = np.linalg.norm(gradient)
        np.testing.assert_allclose(found.flat, gradient, rtol=1e-11, atol=1e-13 * scale)


def test_same_seed_same_case() -> None:
    first, again, other = random_case(7), random_case(7), random_case(8)
    assert repr(first.net) == repr(again.net) != repr(other.net)
    np.testing.assert_array_equal(first.net.theta, again.net.theta)
    np.testing.assert_array_equal(first.X, again.X)
    np.testing.assert_array_equal(first.y, again.y)


@pytest.mark.jit
@pytest.mark.parametrize("sizes", [[70, 90, 10], [70, 90, 17], [70, 100, 17, 3]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("penalty", [{}, {"l2": 0.01}, {"l2": 0.01, "l1": 0.01}])
@pytest.mark.parametrize("rows", [200, 300])  # one pass, or two
def test_gradients_of_few_outputs(
    rows: int, penalty: dict[str, float], dtype: str, sizes: list[int]
) -> None:
    """Of more inputs than random networks have, in both dtypes, against NumPy."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(rows, sizes[0])).astype(dtype), rng.integers(0, sizes[-1], rows)
    net = fm.MLP(sizes, activation="tanh", dtype=dtype, seed=1, **penalty)
    _, gradient = net.loss_and_gradient(X, y)
    values = [X.astype(np.float64), *net.activations(X).activations]
    delta = (net.predict_proba(X) - np.eye(sizes[-1])[y]) / rows
    l2, l1 = penalty.get("l2", 0.0), penalty.get("l1", 0.0)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    for layer in reversed(range(len(net.weights))):
        w, a = net.weights[layer].astype(np.float64), values[layer]
        expected = a.T @ delta + l2 * w + l1 * np.sign(w)
        np.testing.assert_allclose(gradient.weights[layer], expected, atol=tolerance)
        delta = delta @ w.T * (1 - a**2)


def test_all_combinations_are_drawn() -> None:
    cases = [random_case(seed) for seed in range(400)]
    nets = [case.net for case in cases]
    functions = {(f.name, f.per_unit) for net in nets for f in net.activation}
    assert len(functions) == 14
    assert {net.loss.name for net in nets} == set(fm.losses.NAMES)
    assert {type(norm).__name__ for net in nets for norm in net.norm} == {
        "NoneType",
        "BatchNorm",
        "LayerNorm",
    }
    assert {len(net.norm) for net in nets} == {0, 1, 2, 3, 4}
    assert {net.layer_sizes[-1] > 64 for net in nets} == {True, False}
    assert {(net.architecture.input_scale, any(net.dropout[:1])) for net in nets} == {
        *((True, True), (True, False), (False, True), (False, False))
    }
    assert {case.checkpoint_every for case in cases} == {1, 2, 3}
    assert {case.sample_weight is None for case in cases} == {True, False}
