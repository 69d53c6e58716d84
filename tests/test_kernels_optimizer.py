"""What becomes of a gradient: each rule against its reference, and Adam against its paper."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastmlp.kernels import optimizer, reference
from fastmlp.kernels.optimizer import ADAM, ADD, KEEP, MOMENTUM, SGD, Parameters, Rule

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
LINE = 16  # elements: whole vectors of either dtype

ALPHA, BETA_1, BETA_2, EPSILON = 0.01, 0.9, 0.999, 1e-8
HYPERPARAMETERS = np.array([ALPHA, BETA_1, BETA_2, EPSILON])


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
def test_sgd(dtype: type) -> None:
    both("sgd", matrices(dtype, 2), 0.1)


@DTYPES
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_momentum(dtype: type, decay: float) -> None:
    both("momentum", matrices(dtype, 3), 0.1, decay)


@DTYPES
@pytest.mark.parametrize("step", [1, 2, 1000])
def test_adam(dtype: type, step: int) -> None:
    theta, m, v, g = matrices(dtype, 4)
    np.square(v, out=v)
    rule = optimizer.make_rule(ADAM, HYPERPARAMETERS, step)
    both("adam", [theta, m, v, g], rule)


@DTYPES
@pytest.mark.parametrize("step", [1, 10, 100_000])
def test_rule_of_adam_corrects_the_bias(dtype: type, step: int) -> None:
    rule = optimizer.make_rule(ADAM, HYPERPARAMETERS, step)
    expected = Rule(
        ADAM, ALPHA / (1 - BETA_1**step), BETA_1, BETA_2, EPSILON, np.sqrt(1 - BETA_2**step)
    )
    np.testing.assert_allclose(rule, expected, rtol=1e-13)


@pytest.mark.parametrize("code", [KEEP, ADD, SGD, MOMENTUM])
def test_other_rules_pass_the_hyperparameters_on(code: int) -> None:
    rule = optimizer.make_rule(code, HYPERPARAMETERS, 3)
    assert tuple(rule) == (code, ALPHA, BETA_1, BETA_2, EPSILON, 1.0)


@DTYPES
def test_adam_over_many_steps_is_that_of_the_paper(dtype: type) -> None:
    """Algorithm 1 of Kingma and Ba (2015), in float64."""
    theta, m, v, g = matrices(dtype, 4)
    m[...] = v[...] = 0
    expected, mean, square = theta.astype(np.float64), 0.0, 0.0
    rng = np.random.default_rng(1)
    for t in range(1, 21):
        g[...] = rng.normal(size=g.shape)
        wide = g.astype(np.float64)
        mean = BETA_1 * mean + (1 - BETA_1) * wide
        square = BETA_2 * square + (1 - BETA_2) * wide**2
        corrected = mean / (1 - BETA_1**t), square / (1 - BETA_2**t)
        expected -= ALPHA * corrected[0] / (np.sqrt(corrected[1]) + EPSILON)
        optimizer.adam(theta, m, v, g, optimizer.make_rule(ADAM, HYPERPARAMETERS, t))
    eps = 40 * np.finfo(dtype).eps
    np.testing.assert_allclose(theta, expected, rtol=eps, atol=eps)


@DTYPES
def test_first_step_of_adam_is_the_learning_rate(dtype: type) -> None:
    """Whatever the size of the gradient, as long as epsilon is small beside it."""
    theta, m, v, g = matrices(dtype, 4)
    theta[...] = m[...] = v[...] = 0
    g[...] = np.sign(g) * np.logspace(-4, 6, g.size).reshape(g.shape)
    optimizer.adam(theta, m, v, g, optimizer.make_rule(ADAM, HYPERPARAMETERS, 1))
    np.testing.assert_allclose(theta, -ALPHA * np.sign(g), rtol=1e-3)


@DTYPES
@pytest.mark.parametrize("code", [SGD, MOMENTUM, ADAM])
def test_padding_stays_zero(dtype: type, code: int) -> None:
    """Where gradient and state are zero, the parameter stays what it is."""
    flat = [np.zeros(LINE, dtype) for _ in range(4)]
    rule = optimizer.make_rule(code, HYPERPARAMETERS, 1)
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
@pytest.mark.parametrize("code", [KEEP, ADD, SGD, MOMENTUM, ADAM])
def test_block_of_the_flat_vectors(dtype: type, code: int) -> None:
    """`apply` finds the block, hands it to the rule's kernel and touches nothing else."""
    rng = np.random.default_rng(2)
    offset, rows, stride = 3 * LINE, 4, 2 * LINE
    flat = [rng.uniform(1, 2, 20 * LINE).astype(dtype) for _ in range(4)]
    expected = [vector.copy() for vector in flat]
    theta, gradient, m, v = (
        vector[offset : offset + rows * stride].reshape(rows, stride)[:, :LINE]
        for vector in expected
    )
    g = rng.normal(size=(rows, LINE)).astype(dtype)
    rule = optimizer.make_rule(code, HYPERPARAMETERS, 2)
    optimizer.apply(rule, Parameters(*flat), offset, stride, g)
    if code == KEEP:
        optimizer.keep(gradient, g)
    elif code == ADD:
        optimizer.add(gradient, g)
    elif code == SGD:
        optimizer.sgd(theta, g, rule.rate)
    elif code == MOMENTUM:
        optimizer.momentum(theta, m, g, rule.rate, rule.decay_1)
    else:
        optimizer.adam(theta, m, v, g, rule)
    np.testing.assert_array_equal(flat, expected)
