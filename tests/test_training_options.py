"""What `fit` and the network do beyond plain descent: each against its definition."""

import pickle
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.callbacks import Training
from fastmlp.kernels import machine

Array = np.ndarray
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
LABELS = RNG.integers(0, 3, 60)
TARGETS = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1)


def classifier(**options: Any) -> fm.MLP:
    return fm.MLP([4, 8, 7, 3], **{"activation": "tanh", "dtype": "float64", **options})


def regressor(**options: Any) -> fm.MLP:
    return fm.MLP([4, 8, 2], loss="half_squared_error", dtype="float64", **options)


def one_step(net: fm.MLP, y: Array, rate: float, **settings: Any) -> Array:
    """theta before minus theta after a step of plain gradient descent, over the rate."""
    before = net.theta.copy()
    fm.fit(net, X, y, optimizer=fm.GradientDescent(rate), epochs=1, **settings)
    return (before - net.theta) / rate


# Weights of samples, and batches put together


def test_a_weight_of_two_is_the_sample_twice() -> None:
    weights = 1.0 + (np.arange(60) % 2)
    twice = np.repeat(np.arange(60), weights.astype(int))
    net = classifier(l2=0.1)
    loss, gradient = net.loss_and_gradient(X, LABELS, sample_weight=weights)
    again, other = net.loss_and_gradient(X[twice], LABELS[twice])
    assert loss == pytest.approx(again, rel=1e-14)
    np.testing.assert_allclose(gradient.flat, other.flat, rtol=1e-12, atol=1e-15)
    evaluation = net.evaluate(X, LABELS, sample_weight=weights)
    assert evaluation.loss == pytest.approx(net.evaluate(X[twice], LABELS[twice]).loss, rel=1e-14)


def test_samples_without_weight_do_not_count() -> None:
    weights = np.where(np.arange(60) < 20, 1.0, 0.0)
    first, second = classifier(), classifier()
    settings: dict[str, Any] = {"shuffle": False, "epochs": 3, "batch_size": 20}
    fm.fit(first, X, LABELS, sample_weight=weights, optimizer=fm.SGD(0.1), **settings)
    fm.fit(second, X[:20], LABELS[:20], optimizer=fm.SGD(0.1), **settings)
    np.testing.assert_array_equal(first.theta, second.theta)  # whole batches of zeros do nothing


@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_accumulated_batches_are_one_larger_batch(accumulate: int) -> None:
    first, second = classifier(), classifier()
    fm.fit(first, X, LABELS, batch_size=7, accumulate=accumulate, epochs=4, seed=5)
    fm.fit(second, X, LABELS, batch_size=7 * accumulate, epochs=4, seed=5)
    np.testing.assert_array_equal(first.theta, second.theta)


def test_accumulation_normalizes_each_batch_by_itself() -> None:
    net = fm.MLP([4, 6, 2], norm="batch", loss="half_squared_error", dtype="float64")
    step = one_step(net.clone(), TARGETS, 0.1, shuffle=False)  # one batch of 60
    parts = []
    for low in (0, 30):
        part = slice(low, low + 30)
        parts.append(net.loss_and_gradient(X[part], TARGETS[part])[1].flat)
    clone = net.clone()
    before = clone.theta.copy()
    fm.fit(
        clone, X, TARGETS, optimizer=fm.SGD(0.1), batch_size=30, accumulate=2, epochs=1,
        shuffle=False,
    )  # fmt: skip
    accumulated = (before - clone.theta) / 0.1
    np.testing.assert_allclose(accumulated, np.mean(parts, axis=0), rtol=1e-9, atol=1e-12)
    assert np.abs(accumulated - step).max() > 1e-6


# Penalties


def test_penalties_by_layer() -> None:
    net = classifier(l2=[0.1, 0.0, 0.3], l1=[0.0, 0.2, 0.0])
    plain = classifier()
    loss, gradient = net.loss_and_gradient(X, LABELS)
    bare, without = plain.loss_and_gradient(X, LABELS)
    w = net.weights
    penalty = 0.05 * (w[0] ** 2).sum() + 0.2 * np.abs(w[1]).sum() + 0.15 * (w[2] ** 2).sum()
    assert net.penalty == pytest.approx(penalty, rel=1e-14)
    assert loss == pytest.approx(bare + penalty, rel=1e-14)
    expected = [0.1 * w[0], 0.2 * np.sign(w[1]), 0.3 * w[2]]
    for ours, data, extra in zip(gradient.weights, without.weights, expected, strict=True):
        np.testing.assert_allclose(ours, data + extra, rtol=1e-12, atol=1e-15)
    for ours, data in zip(gradient.biases, without.biases, strict=True):
        np.testing.assert_array_equal(ours, data)
    assert net.evaluate(X, LABELS).loss == plain.evaluate(X, LABELS).loss


# Clipping and averaging


def test_clipping_by_value() -> None:
    gradient = classifier().loss_and_gradient(X, LABELS)[1].flat
    limit = float(np.quantile(np.abs(gradient), 0.9))
    step = one_step(classifier(), LABELS, 0.5, clip_value=limit)
    np.testing.assert_allclose(step, np.clip(gradient, -limit, limit), rtol=1e-9, atol=1e-13)


def test_clipping_by_global_norm() -> None:
    gradient = classifier().loss_and_gradient(X, LABELS)[1].flat
    norm = np.linalg.norm(gradient)
    step = one_step(classifier(), LABELS, 0.5, clip_global_norm=norm / 3)
    np.testing.assert_allclose(step, gradient / 3, rtol=1e-9, atol=1e-13)
    untouched = one_step(classifier(), LABELS, 0.5, clip_global_norm=norm * 1.001)
    np.testing.assert_allclose(untouched, gradient, rtol=1e-9, atol=1e-13)


def test_clipping_by_the_norm_of_each_tensor() -> None:
    net = fm.MLP([4, 8, 3], activation="prelu", norm="layer", dtype="float64")
    gradient = net.loss_and_gradient(X, LABELS)[1]
    norms = [np.linalg.norm(tensor.view(gradient.flat)) for tensor in net.layout.tensors]
    limit = float(np.median(norms))
    step = one_step(net.clone(), LABELS, 0.5, clip_norm=limit)
    clipped = 0
    for tensor in net.layout.tensors:
        g = tensor.view(gradient.flat)
        norm = np.linalg.norm(g)
        clipped += norm > limit
        expected = g * min(1.0, limit / norm)
        np.testing.assert_allclose(tensor.view(step), expected, rtol=1e-8, atol=1e-12)
    assert 0 < clipped < len(net.layout.tensors)


def test_averaged_parameters() -> None:
    thetas: list[Array] = []
    net = regressor()
    start = net.theta.copy()
    raw = net.clone()
    settings: dict[str, Any] = {"optimizer": fm.SGD(0.05), "batch_size": None, "epochs": 5}
    fm.fit(raw, X, TARGETS, callbacks=[lambda t: thetas.append(t.net.theta.copy())], **settings)
    history = fm.fit(net, X, TARGETS, average=0.8, validation=(X, TARGETS), **settings)
    mean = start
    for theta in thetas:
        mean = 0.8 * mean + 0.2 * theta
    np.testing.assert_allclose(net.theta, mean, rtol=1e-12, atol=1e-14)
    assert history.val_loss[-1] == pytest.approx(net.evaluate(X, TARGETS).loss, rel=1e-14)


# When to stop


def test_early_stopping_restores_the_best() -> None:
    seen: list[tuple[float, Array]] = []

    def record(training: Training) -> None:
        seen.append((training.history.val_loss[-1], training.net.theta.copy()))

    net = classifier(seed=4)
    history = fm.fit(
        net,
        X[:30],
        LABELS[:30],
        optimizer=fm.Adam(0.05),
        epochs=200,
        validation=(X[30:], LABELS[30:]),
        early_stopping=fm.EarlyStopping(patience=4),
        callbacks=[record],
    )
    best = int(np.argmin([loss for loss, _ in seen]))
    assert history.stopped_early
    assert history.best_epoch == best + 1
    assert len(history) == len(seen) == best + 1 + 4
    np.testing.assert_array_equal(net.theta, seen[best][1])
    assert net.evaluate(X[30:], LABELS[30:]).loss == pytest.approx(min(history.val_loss))


@pytest.mark.parametrize("monitor", ["loss", "accuracy", "val_loss", "val_accuracy", "function"])
def test_anything_can_be_monitored(monitor: str) -> None:
    rule = fm.EarlyStopping(
        (lambda net: float(np.abs(net.theta).sum())) if monitor == "function" else monitor,
        patience=2,
        min_delta=100.0,  # nothing is an improvement after the first epoch
    )
    history = fm.fit(classifier(), X, LABELS, epochs=50, validation=0.3, early_stopping=rule)
    assert len(history) == 3
    assert history.best_epoch == 1


def test_last_weights_are_kept_if_asked() -> None:
    rule = fm.EarlyStopping("loss", patience=1, min_delta=100.0, restore_best=False)
    first, second = classifier(), classifier()
    fm.fit(first, X, LABELS, epochs=9, early_stopping=rule)
    fm.fit(second, X, LABELS, epochs=2)
    np.testing.assert_array_equal(first.theta, second.theta)


def test_plateau() -> None:
    schedule = fm.schedules.ReduceOnPlateau(0.1, patience=0, min_delta=100.0, monitor="loss")
    net, other = regressor(), regressor()
    fm.fit(net, X, TARGETS, optimizer=fm.GradientDescent(schedule), epochs=3)
    rates = iter([0.1, 0.1, 0.01])  # the first epoch is progress, from infinity
    fm.fit(other, X, TARGETS, optimizer=fm.GradientDescent(lambda _: next(rates)), epochs=3)
    np.testing.assert_allclose(net.theta, other.theta, rtol=1e-13)


@pytest.mark.parametrize("chunk_seconds", [0.0, 1e9])
def test_coming_back_to_python_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, chunk_seconds: float
) -> None:
    monkeypatch.setattr("fastmlp._loop.LOOK_SECONDS", chunk_seconds)
    options: dict[str, Any] = {"dropout": 0.3, "norm": "batch"}
    settings: dict[str, Any] = {"epochs": 12, "optimizer": fm.NAdam(), "batch_size": 16}
    net, each = classifier(**options), classifier(**options)
    history = fm.fit(net, X, LABELS, **settings)
    other = fm.fit(each, X, LABELS, callbacks=[lambda _: None], **settings)
    np.testing.assert_array_equal(net.theta, each.theta)
    np.testing.assert_array_equal(net.running, each.running)
    assert history.loss == other.loss


def test_divergence_names_the_layer_and_keeps_finite_weights() -> None:
    net = fm.MLP([4, 6, 6, 2], loss="poisson", dtype="float32", seed=1)
    X_large = np.float32(X) * 1e4
    with pytest.raises(fm.DivergenceError, match=r"epoch 1, step 1: layer 3 .* learning_rate") as e:
        fm.fit(net, X_large, np.ones((60, 2)), epochs=3)
    assert (e.value.epoch, e.value.step, e.value.layer) == (1, 1, 3)
    assert len(e.value.history) == 0
    np.testing.assert_array_equal(net.theta, fm.MLP([4, 6, 6, 2], loss="poisson", seed=1).theta)


def test_running_statistics_survive_divergence() -> None:
    net = fm.MLP([4, 6, 2], norm="batch", loss="squared_error", dtype="float32")
    with pytest.raises(fm.DivergenceError):
        fm.fit(net, X, TARGETS, optimizer=fm.SGD(1e30), epochs=10, batch_size=8)
    assert np.isfinite(net.theta).all()
    assert np.isfinite(net.running).all()


# Norms and dropout


def test_running_statistics_follow_the_batches() -> None:
    norm = fm.BatchNorm(momentum=0.25, epsilon=1e-3)
    net = fm.MLP([4, 5, 2], norm=norm, loss="squared_error", dtype="float64")
    u = X @ net.weights[0] + net.biases[0]
    fm.fit(net, X, TARGETS, batch_size=None, epochs=1)
    np.testing.assert_allclose(net.running_means[0], 0.25 * u.mean(0), rtol=1e-12)
    expected = 0.75 + 0.25 * u.var(0, ddof=1)
    np.testing.assert_allclose(net.running_variances[0], expected, rtol=1e-12)
    before = net.running.copy()
    net.loss_and_gradient(X, TARGETS)
    net.evaluate(X, TARGETS)
    np.testing.assert_array_equal(net.running, before)


def test_batch_norm_takes_a_whole_batch_of_many_passes() -> None:
    rng = np.random.default_rng(3)
    large = rng.normal(size=(2 * machine.MICRO_BATCH + 50, 4))
    net = fm.MLP([4, 5, 2], norm="batch", loss="squared_error", dtype="float64")
    fm.fit(net, large, large[:, :2], batch_size=None, epochs=1, optimizer=fm.SGD(1e-300))
    u = large @ net.weights[0] + net.biases[0]
    np.testing.assert_allclose(net.running_means[0], 0.1 * u.mean(0), rtol=1e-10)


def test_a_batch_of_one_row_is_normalized_to_the_shift() -> None:
    net = fm.MLP([4, 5, 2], norm="batch", loss="squared_error", dtype="float64")
    net.shifts[0][...] = np.arange(5.0)
    loss, _ = net.loss_and_gradient(X[:1], TARGETS[:1])
    z = np.maximum(np.arange(5.0), 0) @ net.weights[1]
    assert loss == pytest.approx(((z - TARGETS[0]) ** 2).sum(), rel=1e-12)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_leaves_out_a_share_and_keeps_the_mean(p: float) -> None:
    inputs = np.ones((2000, 50))
    net = fm.MLP([50, 1], loss="squared_error", dropout=[p], dtype="float64")
    net.weights[0][...] = 1.0 / 50
    # the loss is the mean square of the outputs, each a mean of 50 masks of mean 1
    loss, _ = net.loss_and_gradient(inputs, np.zeros((2000, 1)))
    variance = p / (1 - p) / 50
    assert loss == pytest.approx(1 + variance, abs=6 * np.sqrt(4 * variance / 2000) + 1e-3)
    assert net.evaluate(inputs, np.zeros((2000, 1))).loss == pytest.approx(1.0)


def test_dropout_differs_from_step_to_step_and_with_the_seed() -> None:
    def losses(seed: int) -> list[float]:
        net = classifier(dropout=0.5)
        options: dict[str, Any] = {"batch_size": None, "epochs": 4, "seed": seed}
        return fm.fit(net, X, LABELS, optimizer=fm.SGD(1e-300), **options).loss

    assert len(set(losses(0))) == 4
    assert losses(0) == losses(0)
    assert not set(losses(0)) & set(losses(1))


# What the network says about itself


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_activations_of_each_layer(norm: str | None) -> None:
    net = fm.MLP([4, 8, 70, 3], activation=["gelu", "relu"], norm=norm, dtype="float64")
    fm.fit(net, X, LABELS, epochs=2)
    many = np.concatenate([X] * 10)
    values = net.activations(many)
    np.testing.assert_array_equal(values.activations[-1], net.decision_function(many))
    np.testing.assert_array_equal(values.activations[1], np.maximum(values.pre_activations[1], 0))
    z = values.activations[1] @ net.weights[2] + net.biases[2]
    np.testing.assert_allclose(values.pre_activations[2], z, rtol=1e-12, atol=1e-13)
    if norm is None:
        np.testing.assert_allclose(
            values.pre_activations[0], many @ net.weights[0] + net.biases[0], rtol=1e-12, atol=1e-13
        )


@pytest.mark.parametrize("layer_sizes", [[4, 3], [4, 9, 3], [4, 9, 70]])
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_input_gradient(layer_sizes: list[int], norm: str | None) -> None:
    net = fm.MLP(layer_sizes, activation="silu", norm=norm, dropout=0.2, dtype="float64")
    y = LABELS % layer_sizes[-1]
    gradient = net.input_gradient(X, y, sample_weight=np.arange(60.0))
    h = 1e-6
    for row, column in [(0, 0), (7, 3), (59, 1)]:
        differences = []
        for sign in (1, -1):
            moved = X.copy()
            moved[row, column] += sign * h
            differences.append(net.evaluate(moved, y, sample_weight=np.arange(60.0)).loss)
        numeric = (differences[0] - differences[1]) / (2 * h)
        assert gradient[row, column] == pytest.approx(numeric, rel=1e-5, abs=1e-9)


def test_checkpointing_takes_less_memory_and_gives_the_same_bits() -> None:
    sizes = [4, *[40] * 20, 3]
    net = fm.MLP(sizes, activation="tanh", norm="layer", dropout=0.1, dtype="float64")
    loss, gradient = net.loss_and_gradient(X, LABELS)
    for every in (2, 4, 7, 30):
        again, other = net.loss_and_gradient(X, LABELS, checkpoint_every=every)
        assert again == loss
        np.testing.assert_array_equal(other.flat, gradient.flat)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "poisson"])
def test_predictions_of_other_losses(loss: str) -> None:
    net = fm.MLP([4, 6, 1], loss=loss, dtype="float64", seed=1)
    z = net.decision_function(X)
    if loss == "poisson":
        np.testing.assert_allclose(net.predict(X), np.exp(z))
        return
    p = 1 / (1 + np.exp(-z[:, 0]))
    np.testing.assert_array_equal(net.predict(X), (p > 0.5).astype(int))
    np.testing.assert_allclose(net.predict_proba(X), np.stack([1 - p, p], axis=1), rtol=1e-12)
    labels = fm.MLP([4, 6, 3], loss=loss, seed=1)
    assert labels.predict(X).shape == labels.predict_proba(X).shape == (60, 3)


# L-BFGS


def test_lbfgs_finds_the_minimum() -> None:
    net = fm.MLP([4, 2], loss="half_squared_error", l2=0.1, dtype="float64")
    history = fm.fit(net, X, TARGETS, optimizer=fm.LBFGS(), epochs=100, validation=(X, TARGETS))
    _, gradient = net.loss_and_gradient(X, TARGETS)
    assert np.abs(gradient.flat).max() < 1e-8
    assert len(history) == len(history.val_loss) < 100
    inputs = np.c_[X, np.ones(60)]
    ridge = np.diag([60 * 0.1] * 4 + [0.0])
    exact = np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ TARGETS)
    np.testing.assert_allclose(net.weights[0], exact[:4], atol=1e-7)
    np.testing.assert_allclose(net.biases[0], exact[4], atol=1e-7)


def test_lbfgs_refuses_what_it_cannot_minimize() -> None:
    for options in ({"dropout": 0.1}, {"norm": "batch"}):
        with pytest.raises(ValueError, match="without dropout and batch norm"):
            fm.fit(classifier(**options), X, LABELS, optimizer=fm.LBFGS())


@pytest.mark.parametrize(
    "given",
    [
        {"early_stopping": fm.EarlyStopping("loss")},
        {"clip_value": 1.0},
        {"clip_norm": 1.0},
        {"clip_global_norm": 1.0},
        {"average": 0.9},
        {"checkpoint_every": 2},
        {"callbacks": [print]},
    ],
)
def test_lbfgs_refuses_what_it_would_ignore(given: dict[str, Any]) -> None:
    name = next(iter(given))
    with pytest.raises(ValueError, match=f"{name} is of no use to LBFGS"):
        fm.fit(classifier(), X, LABELS, optimizer=fm.LBFGS(), **given)


def test_lbfgs_ends_with_a_finite_loss_where_trials_overflow() -> None:
    counts = RNG.poisson(2.0, (60, 1))
    for seed in range(10):
        net = fm.MLP([4, 8, 1], loss="poisson", dtype="float64", seed=seed)
        before = net.evaluate(X, counts).loss
        fm.fit(net, X, counts, optimizer=fm.LBFGS(), epochs=20)
        assert net.evaluate(X, counts).loss <= before


# What is not finite


def test_a_loss_that_overflows_is_infinite_and_its_gradient_not_a_number() -> None:
    net = fm.MLP([4, 6, 1], loss="poisson", dtype="float64")
    net.biases[1][...] = 2000.0
    for rows in (20, 60):
        y = np.ones((rows, 1))
        loss, gradient = net.loss_and_gradient(X[:rows], y)
        assert loss == np.inf == net.evaluate(X[:rows], y).loss
        assert np.isnan(gradient.weights[0]).all()
        assert np.isnan(net.input_gradient(X[:rows], y)).all()


def test_divergence_can_be_pickled() -> None:
    error = fm.DivergenceError(3, 4, 2, fm.History(loss=[1.0]))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.epoch, again.step, again.layer) == (3, 4, 2)
    assert again.history == error.history


def test_a_step_that_spoils_the_parameters_is_named() -> None:
    net = fm.MLP([4, 6, 2], loss="squared_error", dtype="float32")
    with pytest.raises(fm.DivergenceError) as caught:
        fm.fit(net, X, TARGETS, optimizer=fm.SGD(3e38), batch_size=None, epochs=1)
    assert (caught.value.epoch, caught.value.step) == (1, 1)
    assert np.isfinite(net.theta).all()


# Python between the epochs


@pytest.mark.parametrize("where", ["callbacks", "monitor"])
def test_ctrl_c_in_a_users_function_ends_the_run(where: str) -> None:
    def interrupt(where: Any) -> float:
        seen.append(getattr(where, "net", where).theta.copy())
        if len(seen) == 3:
            raise KeyboardInterrupt
        return -float(len(seen))

    seen: list[Array] = []
    how: dict[str, Any] = {"callbacks": [interrupt]}
    if where == "monitor":
        how = {"early_stopping": fm.EarlyStopping(interrupt, restore_best=False)}
    net = classifier()
    history = fm.fit(net, X, LABELS, epochs=10, **how)
    assert history.interrupted
    assert len(history) == 3
    np.testing.assert_array_equal(net.theta, seen[-1])


def test_a_function_that_is_false_is_called_after_each_epoch() -> None:
    class Recorder(list[int]):
        def __call__(self, training: Training) -> None:
            self.append(len(training.history))

    recorder = Recorder()
    fm.fit(classifier(), X, LABELS, epochs=20, callbacks=[recorder])
    assert recorder == list(range(1, 21))


class Odd(fm.schedules.Schedule):
    """A user's schedule that returns whatever it is given."""

    def __init__(self, rates: Any, monitor: str | None = None) -> None:
        self._rates, self._monitor = rates, monitor

    @property
    def monitor(self) -> str | None:
        return self._monitor

    def rates(self, steps: Array, total: int, per_epoch: int) -> Any:
        return [self._rates] * len(steps)


def test_a_users_schedule_is_checked() -> None:
    fm.fit(classifier(), X, LABELS, optimizer=fm.AdamW(Odd(0.1)), epochs=1)
    for rate in (np.nan, -1.0, np.inf):
        with pytest.raises(ValueError, match="learning_rate must give a finite rate"):
            fm.fit(classifier(), X, LABELS, optimizer=fm.AdamW(Odd(rate)), epochs=1)
    with pytest.raises(ValueError, match="learning_rate monitors 'foo'"):
        fm.fit(classifier(), X, LABELS, optimizer=fm.SGD(Odd(0.1, "foo")))


def test_a_split_without_weight_is_refused() -> None:
    weights = np.zeros(60)
    weights[0] = 1.0
    with pytest.raises(ValueError, match="sample_weight is all zero"):
        fm.fit(classifier(), X, LABELS, sample_weight=weights, validation=0.5)


def test_batches_that_are_normalized_alone_are_shuffled() -> None:
    losses = []
    for shuffle in (False, True):
        net = classifier(norm="batch")
        options: dict[str, Any] = {"batch_size": 20, "accumulate": 3, "shuffle": shuffle}
        losses.append(fm.fit(net, X, LABELS, epochs=2, **options).loss)
    assert losses[0] != losses[1]


# The network's settings


def test_settings_cannot_be_set_by_halves() -> None:
    net = classifier(l2=0.1)
    for name in ("layer_sizes", "activation", "norm", "dropout", "l2", "l1"):
        with pytest.raises(AttributeError):
            setattr(net, name, getattr(net, name))


def test_copies_are_equal_bit_for_bit() -> None:
    net = fm.MLP([4, 9, 3], activation="prelu", norm="batch", dtype="float64")
    fm.fit(net, X, LABELS, epochs=2)
    for other in (net.clone(), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other.theta, net.theta)
        np.testing.assert_array_equal(other.running, net.running)
