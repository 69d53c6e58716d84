"""Training: it learns, takes exactly the steps it says, and records what happened."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastmlp as fm
from fastmlp._held_out import held_out_rows
from fastmlp.kernels import machine

Array = np.ndarray

OPTIMIZERS = [fm.SGD(0.05), fm.SGD(0.02, momentum=0.9), fm.Adam(0.01)]
LOSSES = ["softmax_cross_entropy", "squared_error", "half_squared_error"]


def problem(
    layer_sizes: list[int],
    samples: int,
    loss: str = "softmax_cross_entropy",
    dtype: str = "float64",
    activation: Any = "tanh",
) -> tuple[fm.MLP, Array, Array]:
    """A network with biases that are not zero, and random samples for it."""
    rng = np.random.default_rng(7)
    net = fm.MLP(layer_sizes, activation=activation, loss=loss, seed=3, dtype=dtype)
    for bias in net.biases:
        bias[...] = 0.3 * rng.normal(size=bias.shape)
    X = rng.normal(size=(samples, layer_sizes[0])).astype(dtype)
    if net.is_classifier:
        return net, X, rng.integers(0, layer_sizes[-1], samples)
    return net, X, rng.normal(size=(samples, layer_sizes[-1])).astype(dtype)


def blobs(dtype: str) -> tuple[Array, Array]:
    """Three classes of points in the plane, far from one another."""
    rng = np.random.default_rng(1)
    y = np.arange(90) % 3
    centres = np.array([[0.0, 3.0], [3.0, -2.0], [-3.0, -2.0]])
    return (centres[y] + 0.5 * rng.normal(size=(90, 2))).astype(dtype), y


# An independent implementation: the formulas of the documentation, in plain NumPy and float64

FORWARD: dict[str, Callable[[Array], Array]] = {
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0.0),
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
    "tanh": np.tanh,
    "softplus": lambda z: np.logaddexp(0.0, z),
}
DERIVATIVE: dict[str, Callable[[Array], Array]] = {
    "identity": np.ones_like,
    "relu": lambda z: (z > 0.0).astype(float),
    "sigmoid": lambda z: 1.0 / (2.0 + np.exp(z) + np.exp(-z)),
    "tanh": lambda z: 1.0 / np.cosh(z) ** 2,
    "softplus": lambda z: 1.0 / (1.0 + np.exp(-z)),
}


class Reference:
    """A network and its optimizer; `parameters` are all weights, then all biases."""

    def __init__(self, net: fm.MLP, optimizer: fm.Optimizer) -> None:
        self.parameters = [np.array(p, np.float64) for p in (*net.weights, *net.biases)]
        self.activations = (*(f.name for f in net.activation), "identity")
        self.loss = net.loss.name
        self.optimizer = optimizer
        self.steps = 0
        self.first = [np.zeros_like(p) for p in self.parameters]
        self.second = [np.zeros_like(p) for p in self.parameters]

    def gradient(self, X: Array, y: Array) -> tuple[float, int, list[Array]]:
        """Mean loss, number of right answers and the gradients of the mean loss."""
        depth = len(self.activations)
        weights, biases = self.parameters[:depth], self.parameters[depth:]
        inputs, sums = [X], []
        for w, b, name in zip(weights, biases, self.activations, strict=True):
            sums.append(inputs[-1] @ w + b)
            inputs.append(FORWARD[name](sums[-1]))
        z, right = inputs[-1], 0
        if self.loss == "softmax_cross_entropy":
            p = np.exp(z - z.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            target = np.eye(z.shape[1])[y]
            loss = -np.log((p * target).sum(1)).mean()
            delta = (p - target) / len(X)
            right = int((z.argmax(1) == y).sum())
        else:
            weight = {"squared_error": 1.0, "half_squared_error": 0.5}[self.loss]
            loss = weight * ((z - y) ** 2).sum(1).mean()
            delta = 2.0 * weight * (z - y) / len(X)
        d_weights, d_biases = [], []
        for layer in reversed(range(depth)):
            delta = delta * DERIVATIVE[self.activations[layer]](sums[layer])
            d_weights.insert(0, inputs[layer].T @ delta)
            d_biases.insert(0, delta.sum(0))
            delta = delta @ weights[layer].T
        return float(loss), right, d_weights + d_biases

    def step(self, X: Array, y: Array) -> tuple[float, int]:
        loss, right, gradients = self.gradient(X, y)
        self.steps += 1
        rule, t = self.optimizer, self.steps
        for i, g in enumerate(gradients):
            if isinstance(rule, fm.SGD):
                self.first[i] = rule.momentum * self.first[i] + g
                self.parameters[i] -= rule.learning_rate * self.first[i]
            elif isinstance(rule, fm.Adam):
                self.first[i] = rule.beta1 * self.first[i] + (1 - rule.beta1) * g
                self.second[i] = rule.beta2 * self.second[i] + (1 - rule.beta2) * g**2
                m = self.first[i] / (1 - rule.beta1**t)
                v = self.second[i] / (1 - rule.beta2**t)
                self.parameters[i] -= rule.learning_rate * m / (np.sqrt(v) + rule.epsilon)
        return loss, right

    def fit(
        self, X: Array, y: Array, batch_size: int, epochs: int
    ) -> tuple[list[float], list[float]]:
        """Losses and accuracies by epoch, of samples in their order."""
        losses, accuracies = [], []
        for _ in range(epochs):
            total, right = 0.0, 0
            for first in range(0, len(X), batch_size):
                batch = slice(first, first + batch_size)
                loss, hits = self.step(X[batch], y[batch])
                total += loss * len(X[batch])
                right += hits
            losses.append(total / len(X))
            accuracies.append(right / len(X))
        return losses, accuracies

    def distance(self, net: fm.MLP) -> float:
        """The largest relative difference of a tensor."""
        return max(
            float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))
            for ours, exact in zip((*net.weights, *net.biases), self.parameters, strict=True)
        )


# Learning happens


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [1, 16, None])
@pytest.mark.parametrize("optimizer", [fm.SGD(0.05), fm.SGD(0.02, 0.9), fm.Adam(0.02)])
def test_separable_blobs(optimizer: fm.Optimizer, batch_size: int | None, dtype: str) -> None:
    X, y = blobs(dtype)
    net = fm.MLP([2, 12, 3], activation="softplus", seed=0, dtype=dtype)
    epochs = 60 if batch_size is None else 8
    history = fm.fit(net, X, y, optimizer=optimizer, batch_size=batch_size, epochs=epochs)
    assert net.evaluate(X, y).accuracy == 1.0
    assert np.array_equal(net.predict(X), y)
    assert history.loss[-1] < history.loss[0]


def test_xor() -> None:
    X, y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0]
    net = fm.MLP([2, 8, 2], activation="tanh", seed=0)
    history = fm.fit(net, X, y, optimizer=fm.Adam(0.05), batch_size=None, epochs=200)
    assert net.predict(X).tolist() == y
    assert history.loss[-1] < 0.02 < 0.5 < history.loss[0]


@pytest.mark.jit  # many steps
@pytest.mark.parametrize("loss", ["squared_error", "half_squared_error"])
def test_regression(loss: str) -> None:
    X = np.linspace(-2.0, 2.0, 200).reshape(-1, 1)
    y = np.sin(2.0 * X)
    net = fm.MLP([1, 24, 1], activation="tanh", loss=loss, seed=0)
    fm.fit(net, X, y, optimizer=fm.Adam(0.01), batch_size=20, epochs=150)
    assert np.abs(net.predict(X) - y).max() < 0.1
    assert net.evaluate(X, y).accuracy is None


def test_linear_regression_finds_the_solution() -> None:
    """Without hidden layers the loss has one minimum, which least squares finds too."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    net = fm.MLP([3, 2], loss="squared_error", dtype="float64")
    fm.fit(net, X, y, optimizer=fm.SGD(0.1), batch_size=None, epochs=400)
    exact = np.linalg.lstsq(np.column_stack([X, np.ones(60)]), y, rcond=None)[0]
    np.testing.assert_allclose(net.weights[0], exact[:3], atol=1e-12)
    np.testing.assert_allclose(net.biases[0], exact[3], atol=1e-12)


# The steps


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("layer_sizes", "activation", "loss", "samples", "batch_size", "epochs"),
    [
        ([7, 19, 5], "softplus", "softmax_cross_entropy", 50, 16, 4),  # last batch of 2
        ([7, 19, 5], "relu", "softmax_cross_entropy", 23, 1, 2),
        ([6, 3], [], "softmax_cross_entropy", 40, 40, 5),
        ([5, 17, 9, 2], ["sigmoid", "relu"], "squared_error", 33, 32, 4),  # last batch of 1
        ([5, 8, 16, 1], ["identity", "tanh"], "half_squared_error", 20, 100, 4),
        ([4, 33, 18, 70], ["softplus", "tanh"], "softmax_cross_entropy", 30, 7, 3),
        ([3, 66], [], "squared_error", 30, 7, 3),
    ],
)
def test_trajectory(
    layer_sizes: list[int],
    activation: Any,
    loss: str,
    samples: int,
    batch_size: int,
    epochs: int,
    optimizer: fm.Optimizer,
) -> None:
    net, X, y = problem(layer_sizes, samples, loss, activation=activation)
    reference = Reference(net, optimizer)
    losses, accuracies = reference.fit(X, y, batch_size, epochs)
    history = fm.fit(
        net, X, y, optimizer=optimizer, batch_size=batch_size, epochs=epochs, shuffle=False
    )
    assert reference.distance(net) < 1e-10
    assert history.loss == pytest.approx(losses, rel=1e-10)
    assert history.accuracy == pytest.approx(accuracies if net.is_classifier else [], abs=1e-12)


LARGE = 2 * machine.MICRO_BATCH + 77


@pytest.mark.jit
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("samples", "batch_size"),
    [
        (LARGE, LARGE),
        (LARGE, machine.MICRO_BATCH + 1),  # one batch adds up two passes, the next is one pass
        (2 * LARGE, LARGE - 1),
        (machine.MICRO_BATCH + 1, machine.MICRO_BATCH),
    ],
)
def test_trajectory_of_batches_larger_than_a_pass(
    samples: int, batch_size: int, loss: str, optimizer: fm.Optimizer
) -> None:
    net, X, y = problem([6, 21, 10, 4], samples, loss, activation=["softplus", "tanh"])
    reference = Reference(net, optimizer)
    losses, _ = reference.fit(X, y, batch_size, 4)
    history = fm.fit(net, X, y, optimizer=optimizer, batch_size=batch_size, epochs=4, shuffle=False)
    assert reference.distance(net) < 1e-10
    assert history.loss == pytest.approx(losses, rel=1e-10)


@pytest.mark.jit
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_trajectory_of_wide_layers(optimizer: fm.Optimizer) -> None:
    """A team of one makes their gradients from copies of some activations, larger ones not."""
    widths, samples = [1503, 1290, 300, 3], machine.MICRO_BATCH
    net, X, y = problem(widths, samples)
    X[np.random.default_rng(0).random(X.shape) < 0.7] = 0.0  # so tiles leave out steps
    X[:, ::5] = X[:, -20:] = 0.0
    for inputs in ((X != 0.0).any(axis=0).sum(), *widths[1:-2]):
        assert samples * inputs * 8 > 2 * machine.NEAR_VECTORS * machine.VECTOR_BYTES
    assert min(widths[1:-1]) * 8 > machine.COPIED_FOR * machine.VECTOR_BYTES
    others = [net.clone(), net.clone()]
    reference = Reference(net, optimizer)
    reference.fit(X, y, samples, 2)
    for threads, trained in enumerate([net, *others], start=1):
        fm.fit(trained, X, y, optimizer=optimizer, batch_size=None, epochs=2, threads=threads)
        assert reference.distance(trained) < 1e-10
        assert trained.theta.tobytes() == net.theta.tobytes()


@pytest.mark.jit
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("layer_sizes", [[64, 3], [65, 40, 5], [64, 20, 35, 70], [66, 90]])
def test_fused_and_two_phase_steps_have_the_same_bits(
    layer_sizes: list[int], optimizer: fm.Optimizer, dtype: str
) -> None:
    """All samples twice in a batch of two passes: each pass gives half of the gradient, exactly.

    Not where such passes are turned: their sums over rows have an order of their own.
    """
    net, X, y = problem(layer_sizes, machine.MICRO_BATCH, dtype=dtype)
    twice = net.clone()
    options: dict[str, Any] = {"optimizer": optimizer, "batch_size": None, "epochs": 5}
    once_history = fm.fit(net, X, y, **options)
    twice_history = fm.fit(twice, np.vstack([X, X]), np.hstack([y, y]), **options)
    assert twice.theta.tobytes() == net.theta.tobytes()
    assert twice_history.loss == pytest.approx(once_history.loss, rel=1e-14)
    assert twice_history.accuracy == once_history.accuracy


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    activation=st.sampled_from(list(FORWARD)),
    loss=st.sampled_from(LOSSES),
    samples=st.integers(1, 30),
)
def test_gradient(sizes: list[int], activation: str, loss: str, samples: int) -> None:
    sizes[-1] += 1  # a classifier has two classes at least
    net, X, y = problem(sizes, samples, loss, activation=activation)
    exact_loss, _, exact = Reference(net, fm.SGD()).gradient(X, y)
    mean_loss, gradient = net.loss_and_gradient(X, y)
    assert mean_loss == pytest.approx(exact_loss, rel=1e-12)
    for ours, theirs in zip((*gradient.weights, *gradient.biases), exact, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)


def test_gradient_step_is_along_loss_and_gradient() -> None:
    net, X, y = problem([5, 12, 3], 20)
    before = net.clone()
    _, gradient = net.loss_and_gradient(X, y)
    fm.fit(net, X, y, optimizer=fm.SGD(0.5), batch_size=None, epochs=1)
    np.testing.assert_allclose(net.theta, before.theta - 0.5 * gradient.flat, rtol=0, atol=1e-16)


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    epochs=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_two_runs_are_one_long_run(samples: int, batch_size: int, epochs: tuple[int, int]) -> None:
    """Plain gradient descent has no state but the parameters."""
    long, X, y = problem([3, 9, 4], samples, dtype="float32")
    short = long.clone()
    options: dict[str, Any] = {
        "optimizer": fm.SGD(0.1),
        "batch_size": batch_size,
        "shuffle": False,
    }
    whole = fm.fit(long, X, y, epochs=sum(epochs), **options)
    parts = [fm.fit(short, X, y, epochs=n, **options) for n in epochs]
    assert short.theta.tobytes() == long.theta.tobytes()
    assert parts[0].loss + parts[1].loss == whole.loss


# Order of the samples and seeds


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1, 70), batch_size=st.integers(1, 80), seed=st.integers(0, 2**63 - 1))
def test_an_epoch_takes_each_sample_once(samples: int, batch_size: int, seed: int) -> None:
    """With steps too small to change a bit, an epoch's loss is that of the whole set."""
    net, X, y = problem([3, 4, 2], samples, "squared_error")
    before = net.theta.tobytes()
    exact = net.evaluate(X, y).loss
    history = fm.fit(net, X, y, optimizer=fm.SGD(1e-30), batch_size=batch_size, epochs=2, seed=seed)
    assert net.theta.tobytes() == before
    assert history.loss == pytest.approx([exact] * 2, rel=1e-13)


def test_samples_are_taken_in_their_order_without_shuffle() -> None:
    net, X, y = problem([4, 6, 3], 30)
    same, backwards, shuffled = net.clone(), net.clone(), net.clone()
    options: dict[str, Any] = {"optimizer": fm.SGD(0.1), "batch_size": 4, "epochs": 2}
    fm.fit(net, X, y, shuffle=False, **options)
    fm.fit(same, X, y, shuffle=False, seed=99, **options)
    fm.fit(backwards, X[::-1], y[::-1], shuffle=False, **options)
    fm.fit(shuffled, X, y, **options)
    assert same.theta.tobytes() == net.theta.tobytes()  # the seed is of no consequence
    assert backwards.theta.tobytes() != net.theta.tobytes()
    assert shuffled.theta.tobytes() != net.theta.tobytes()


def test_each_epoch_has_its_own_order() -> None:
    """One epoch after the other, with the first epoch's order each time, gives something else."""
    net, X, y = problem([4, 6, 3], 30)
    again = net.clone()
    options: dict[str, Any] = {"optimizer": fm.SGD(0.1), "batch_size": 4, "seed": 5}
    fm.fit(net, X, y, epochs=2, **options)
    for _ in range(2):
        fm.fit(again, X, y, epochs=1, **options)
    assert again.theta.tobytes() != net.theta.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_seed_decides_the_bits(optimizer: fm.Optimizer, dtype: str) -> None:
    start, X, y = problem([4, 20, 3], 60, dtype=dtype)

    def train(seed: int | None) -> tuple[bytes, fm.History]:
        net = start.clone()
        history = fm.fit(
            net, X, y, optimizer=optimizer, batch_size=8, epochs=3, validation=0.2, seed=seed
        )
        return net.theta.tobytes(), history

    bits, history = train(11)
    again, same_history = train(11)
    assert again == bits
    assert same_history.loss == history.loss
    assert same_history.val_loss == history.val_loss
    assert train(12)[0] != bits
    assert train(None)[0] == train(start.seed)[0] != bits


def test_seed_of_the_network_decides_its_parameters() -> None:
    thetas = [fm.MLP([4, 5, 3], seed=seed).theta.tobytes() for seed in (0, 0, 1)]
    assert thetas[0] == thetas[1] != thetas[2]


# The history


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("epochs", [1, 4])
def test_what_the_history_holds(epochs: int, validated: bool, loss: str) -> None:
    net, X, y = problem([4, 9, 3], 40, loss)
    share = 0.25 if validated else None
    history = fm.fit(net, X, y, epochs=epochs, batch_size=16, validation=share)
    classified = loss == "softmax_cross_entropy"
    assert len(history) == len(history.loss) == epochs
    assert len(history.accuracy) == epochs * classified
    assert len(history.val_loss) == epochs * validated
    assert len(history.val_accuracy) == epochs * (validated and classified)
    values = history.loss + history.accuracy + history.val_loss + history.val_accuracy
    assert all(isinstance(value, float) for value in values)
    assert not history.interrupted
    assert history.seconds > 0.0
    samples = len(X) - (len(held_out_rows(net._checked(X, y), share, net.seed)) if share else 0)
    assert history.samples_per_second == pytest.approx(epochs * samples / history.seconds)
    assert fm.fit(net, X, y, epochs=1).compile_seconds == 0.0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_validation_is_the_evaluation_after_the_epoch(dtype: str, loss: str) -> None:
    net, X, y = problem([4, 9, 3], 60, loss, dtype)
    others = X[40:], y[40:]
    options: dict[str, Any] = {"optimizer": fm.SGD(0.1), "batch_size": 16, "shuffle": False}
    epoch_by_epoch = net.clone()
    history = fm.fit(net, X[:40], y[:40], epochs=3, validation=others, **options)
    for epoch in range(3):
        fm.fit(epoch_by_epoch, X[:40], y[:40], epochs=1, **options)
        after = epoch_by_epoch.evaluate(*others)
        assert history.val_loss[epoch] == pytest.approx(after.loss, rel=1e-6)
        if net.is_classifier:
            assert history.val_accuracy[epoch] == after.accuracy
    assert history.val_loss[-1] == pytest.approx(net.evaluate(*others).loss, rel=1e-6)


@pytest.mark.jit
def test_validation_of_many_samples() -> None:
    """More than one micro-batch, the last one partial."""
    net, X, y = problem([4, 9, 3], 50, dtype="float32")
    _, X_val, y_val = problem([4, 9, 3], 2 * machine.MICRO_BATCH + 5, dtype="float32")
    history = fm.fit(net, X, y, epochs=2, validation=(X_val, y_val), threads=3)
    after = net.evaluate(X_val, y_val)
    assert history.val_loss[-1] == pytest.approx(after.loss, rel=1e-6)
    assert history.val_accuracy[-1] == after.accuracy
    assert after.accuracy == pytest.approx(np.mean(net.predict(X_val) == y_val), abs=1e-12)


def test_validation_does_not_change_the_training() -> None:
    net, X, y = problem([4, 9, 3], 40)
    alone = net.clone()
    history = fm.fit(net, X, y, epochs=3, batch_size=8, validation=(X[:7], y[:7]))
    other_history = fm.fit(alone, X, y, epochs=3, batch_size=8)
    assert net.theta.tobytes() == alone.theta.tobytes()
    assert history.loss == other_history.loss


# The validation split


@pytest.mark.parametrize("loss", LOSSES)
def test_split_is_that_of_given_arrays(loss: str) -> None:
    """The rows held out are validated on, all the others trained on."""
    net, X, y = problem([4, 9, 3], 40, loss)
    given_arrays = net.clone()
    held_out = held_out_rows(net._checked(X, y), 0.3, 8)
    kept = np.setdiff1d(np.arange(40), held_out)
    options: dict[str, Any] = {"batch_size": 8, "epochs": 3, "shuffle": False}
    history = fm.fit(net, X, y, validation=0.3, seed=8, **options)
    other = fm.fit(given_arrays, X[kept], y[kept], validation=(X[held_out], y[held_out]), **options)
    assert given_arrays.theta.tobytes() == net.theta.tobytes()
    assert (history.loss, history.accuracy) == (other.loss, other.accuracy)
    assert (history.val_loss, history.val_accuracy) == (other.val_loss, other.val_accuracy)


def test_rows_held_out_are_never_trained_on() -> None:
    net, X, y = problem([4, 9, 3], 40)
    held_out = held_out_rows(net._checked(X, y), 0.3, 8)
    spoilt, different = X.copy(), X.copy()
    spoilt[held_out] = 1e6
    different[np.setdiff1d(np.arange(40), held_out)[0]] += 1.0
    bits = []
    for inputs in (X, spoilt, different):
        trained = net.clone()
        fm.fit(trained, inputs, y, validation=0.3, seed=8, batch_size=8, epochs=2)
        bits.append(trained.theta.tobytes())
    assert bits[0] == bits[1] != bits[2]


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=3, max_size=3).filter(any),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63 - 1),
)
def test_split_is_stratified(counts: list[int], share: float, seed: int) -> None:
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(3), counts))
    batch = fm.MLP([1, 3])._checked(np.ones((len(y), 1)), y)
    rows = held_out_rows(batch, share, seed)
    assert np.all(np.diff(rows) > 0)
    assert np.bincount(y[rows], minlength=3).tolist() == [round(share * n) for n in counts]


def test_split_is_random() -> None:
    batch = fm.MLP([1, 2])._checked(np.ones((100, 1)), np.arange(100) % 2)
    splits = [held_out_rows(batch, 0.3, seed).tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert splits[0] != list(range(len(splits[0])))


# Memory


def padding_is_zero(net: fm.MLP, flat: Array) -> bool:
    rest = flat.copy()
    for view in (*net.layout.weights(rest), *net.layout.biases(rest)):
        view[...] = 0.0
    return not rest.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_padding_stays_zero(loss: str, optimizer: fm.Optimizer, dtype: str) -> None:
    for layer_sizes in ([5, 3], [3, 19, 70], [7, 17, 33, 2]):
        # units of padding would not be silent: sigmoid(0) and softplus(0) are not 0
        activation = ["sigmoid", "softplus"][: len(layer_sizes) - 2]
        net, X, y = problem(layer_sizes, 20, loss, dtype, activation)
        assert padding_is_zero(net, net.theta)
        assert padding_is_zero(net, net.loss_and_gradient(X, y)[1].flat)
        fm.fit(net, X, y, optimizer=optimizer, batch_size=8, epochs=3)
        assert padding_is_zero(net, net.theta)
        assert all(np.isfinite(w).all() and w.any() for w in net.weights)


@pytest.mark.jit
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_padding_stays_zero_in_large_batches(optimizer: fm.Optimizer) -> None:
    net, X, y = problem([7, 17, 33, 2], LARGE, activation=["sigmoid", "softplus"])
    fm.fit(net, X, y, optimizer=optimizer, batch_size=None, epochs=3)
    assert padding_is_zero(net, net.theta)


@pytest.mark.jit  # without the compiler NumPy warns of the overflow
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch_size", [8, None])
def test_diverging_run_ends(batch_size: int | None, loss: str, threads: int) -> None:
    net, X, y = problem([4, 9, 3], 40, loss, "float32", "relu")
    with pytest.raises(fm.DivergenceError, match="layer") as caught:
        fm.fit(
            net,
            X,
            y,
            optimizer=fm.SGD(1e30),
            batch_size=batch_size,
            epochs=20,
            validation=(X, y),
            threads=threads,
        )
    error = caught.value
    assert error.epoch == len(error.history) + 1
    assert error.epoch + error.step > 2
    assert error.layer in (1, 2)
    assert np.isfinite(net.theta).all()
    assert np.isfinite(error.history.loss).all()


# Inputs of any kind


def variants(X: Array) -> Iterator[tuple[str, Array]]:
    """The same values of another dtype, in another place, in another order."""
    yield "float64", X.astype(np.float64)
    yield "float16", X.astype(np.float16)
    yield "uint8", X.astype(np.uint8)
    yield "int64", X.astype(np.int64)
    yield "big-endian", X.astype(">f4")
    yield "Fortran order", np.asfortranarray(X)
    wide = np.full((2 * len(X), 3 * X.shape[1]), 7, np.float32)
    wide[::2, ::3] = X
    yield "strided", wide[::2, ::3]
    yield "reversed", X[::-1, ::-1].copy()[::-1, ::-1]
    read_only = X.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only
    yield "bytes", np.frombuffer(X.tobytes(), np.float32).reshape(X.shape)
    raw = np.zeros(X.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(X.shape)
    unaligned[...] = X
    yield "unaligned", unaligned
    yield "list", X.tolist()
    yield "binary", X > 0


def test_inputs_of_any_kind_give_the_same_bits() -> None:
    rng = np.random.default_rng(2)
    X, y = rng.integers(0, 2, (40, 5)).astype(np.float32), rng.integers(0, 3, 40)
    start = fm.MLP([5, 9, 3], seed=0)
    targets = rng.normal(size=(40, 3)).astype(np.float32)
    regressor = fm.MLP([5, 9, 3], loss="squared_error", seed=0)

    def results(inputs: Any, labels: Any, outputs: Any) -> list[bytes]:
        nets = start.clone(), regressor.clone()
        fm.fit(nets[0], inputs, labels, epochs=2, batch_size=8, validation=0.2)
        fm.fit(nets[1], inputs, outputs, epochs=2, batch_size=8, validation=0.2)
        return [net.theta.tobytes() for net in nets] + [
            nets[0].predict_proba(inputs).tobytes(),
            nets[1].loss_and_gradient(inputs, outputs)[1].flat.tobytes(),
        ]

    expected = results(X, y, targets)
    for name, inputs in variants(X):
        assert results(inputs, y, targets) == expected, name
    read_only = y.astype(np.uint8)
    read_only.flags.writeable = False
    for labels in (y.astype(np.int8), y.astype(">i4"), y.tolist(), np.repeat(y, 2)[::2], read_only):
        assert results(X, labels, targets) == expected
    read_only = targets.copy()
    read_only.flags.writeable = False
    for outputs in (targets.astype(np.float64), np.asfortranarray(targets), read_only):
        assert results(X, y, outputs) == expected


def test_inputs_are_not_changed() -> None:
    net, X, y = problem([4, 9, 3], 40, dtype="float32")
    copies = X.copy(), y.copy()
    fm.fit(net, X, y, epochs=2, validation=(X, y))
    net.predict(X)
    assert np.array_equal(X, copies[0])
    assert np.array_equal(y, copies[1])


def test_one_output_takes_targets_in_one_dimension() -> None:
    net, X, y = problem([4, 9, 1], 40, "squared_error")
    same = net.clone()
    fm.fit(net, X, y, epochs=2)
    fm.fit(same, X, y[:, 0], epochs=2)
    assert same.theta.tobytes() == net.theta.tobytes()


def test_views_follow_the_training() -> None:
    """`theta`, `weights` and `biases` are one memory before and after."""
    net, X, y = problem([4, 9, 3], 40)
    theta, weight = net.theta, net.weights[1]
    before = weight.copy()
    fm.fit(net, X, y, epochs=1)
    assert net.theta is theta
    assert net.weights[1] is weight
    assert np.shares_memory(weight, theta)
    assert not np.array_equal(weight, before)


@pytest.mark.parametrize(
    "duplicate",
    [
        fm.MLP.clone,
        copy.deepcopy,
        lambda net: pickle.loads(pickle.dumps(net)),
        lambda net: net.astype("float64"),
    ],
    ids=["clone", "deepcopy", "pickle", "astype"],
)
def test_duplicates_are_networks(duplicate: Callable[[fm.MLP], fm.MLP]) -> None:
    """Their views are views of their own parameters, in aligned memory that is theirs alone."""
    net, X, y = problem([4, 9, 3], 40, dtype="float32")
    net.metadata["made"] = "by hand"
    before = net.theta.tobytes()
    twin = duplicate(net)
    assert (repr(twin).replace("64", "32"), twin.metadata) == (repr(net), net.metadata)
    assert np.array_equal(twin.predict(X), net.predict(X))
    assert twin.theta.ctypes.data % machine.CACHE_LINE == 0
    assert all(np.shares_memory(view, twin.theta) for view in (*twin.weights, *twin.biases))
    fm.fit(twin, X, y, epochs=1)
    twin.metadata["made"] = "by training"
    assert net.theta.tobytes() == before
    assert net.metadata["made"] == "by hand"


# Inputs that are zero throughout a batch


@pytest.mark.jit
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": fm.SGD(0.1)},
        {"optimizer": fm.SGD(0.1, momentum=0.9)},
        {"optimizer": fm.Adam(0.01)},
        {"optimizer": fm.SGD(0.1), "clip_global_norm": 0.5},
        {"optimizer": fm.SGD(0.1), "accumulate": 2, "average": 0.9},
    ],
    ids=["sgd", "momentum", "adam", "clip", "average"],
)
@pytest.mark.parametrize("l2", [0.0, 0.01])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_that_are_never_zero_change_nothing_when_added_to(
    settings: dict[str, Any], l2: float, dtype: str
) -> None:
    """What is left out as zero is as if it were there: tiny numbers are not left out."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(90, 131)).astype(dtype)
    X *= rng.random(131) < np.linspace(0, 0.6, 131)  # whole columns are zero
    X *= rng.random(X.shape) < 0.1  # and many in a batch
    y, tiny = rng.integers(0, 4, 90), np.where(X == 0, np.asarray(1e-30, dtype), X)
    trained = []
    for inputs, threads in ((X, 1), (X, 2), (X, 3), (tiny, 2)):
        net = fm.MLP([131, 70, 4], activation="tanh", l2=l2, seed=1, dtype=dtype)
        fm.fit(net, inputs, y, batch_size=16, epochs=3, threads=threads, **settings)
        trained.append(net)
    skipped, two, three, all_there = (net.theta for net in trained)
    np.testing.assert_array_equal(skipped, two)
    np.testing.assert_array_equal(skipped, three)
    np.testing.assert_allclose(skipped, all_there, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(trained[0].weights[0], fm.MLP([131, 70, 4], seed=1).weights[0])


@pytest.mark.jit
def test_rows_of_zeros_alone() -> None:
    net = fm.MLP([100, 8, 3], seed=0, dtype="float64")
    X, y = np.zeros((20, 100)), np.arange(20) % 3
    before = net.weights[0].copy()
    fm.fit(net, X, y, optimizer=fm.SGD(0.1), epochs=2)
    np.testing.assert_array_equal(net.weights[0], before)
    assert np.isfinite(net.theta).all()
    assert net.biases[1].any()
