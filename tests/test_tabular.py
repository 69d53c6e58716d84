"""The preset for tables: the paper's formulas in plain NumPy, and the training in PyTorch."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import fastmlp as fm

tabular = fm.tabular


def table(rows: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, 5)) ** 3


def test_network() -> None:
    net = tabular.network(4, 3, dtype="float64", seed=3)
    assert net.layer_sizes == (4, 256, 256, 256, 3)
    assert {f.name for f in net.activation} == {"selu"}
    assert net.loss == fm.Loss("softmax_cross_entropy", label_smoothing=0.1)
    assert {f.name for f in tabular.network(4, 1, "squared_error").activation} == {"mish"}
    assert (net.input_scale == 1).all()
    for w, b in zip(net.weights[:-1], net.biases[:-1], strict=True):
        assert w.std() * math.sqrt(len(w)) == pytest.approx(1.0, abs=0.03)
        assert b.std() == pytest.approx(1.0, abs=0.15)
        assert abs(b.mean()) < 0.2
    assert not net.weights[-1].any()
    assert not net.biases[-1].any()
    other = tabular.network(4, 3, dtype="float64", seed=4)
    assert (other.biases[0] != net.biases[0]).all()


def test_settings() -> None:
    net = tabular.network(9, 1, "squared_error")
    chosen = tabular.settings(net, 1000)
    assert chosen == {
        "optimizer": fm.Adam(fm.schedules.CosineLog(0.07, cycles=4), beta2=0.95),
        "epochs": 256,
        "batch_size": 250,
        "learning_rate_factors": {
            "weight": [1 / 3, 1 / 16, 1 / 16, 1 / 16],
            "bias": [0.1] * 4,
            "input_scale": 6.0,
        },
    }
    assert tabular.settings(tabular.network(9, 2), 10)["optimizer"].learning_rate.rate == 0.04
    for samples in (1, 2, 255, 256, 257, 511, 513, 5000):
        size = tabular.settings(net, samples)["batch_size"]
        assert size <= 256
        assert math.ceil(samples / size) == math.ceil(samples / 256)  # no more steps than needed
        assert -samples % size < math.ceil(samples / size)  # and the last batch as large, nearly


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [("softmax_cross_entropy", 3), ("binary_cross_entropy", 1), ("squared_error", 2)],
)
def test_training_is_pytorchs_with_ntk_parametrisation(loss: str, outputs: int) -> None:
    """The paper's layers and groups of parameters in PyTorch; softmax also for two classes.

    Epsilon is almost 0, which it has to be for the two parametrisations to be the same.
    """
    torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
    rng = np.random.default_rng(1)
    rows, epochs = 60, 8
    X = rng.normal(size=(rows, 5))
    is_classifier = loss != "squared_error"
    y = rng.integers(0, max(outputs, 2), rows) if is_classifier else rng.normal(size=(rows, 2))
    net = tabular.network(5, outputs, loss, dtype="float64", seed=1)
    chosen = tabular.settings(net, rows) | {"batch_size": 20, "epochs": epochs, "shuffle": False}
    chosen["optimizer"] = dataclasses.replace(chosen["optimizer"], epsilon=1e-30)

    def tensor(values: Any) -> Any:
        return torch.tensor(np.asarray(values), requires_grad=True)

    scale = tensor(net.input_scale)
    V = [tensor(w * math.sqrt(len(w))) for w in net.weights]
    b = [tensor(bias) for bias in net.biases]
    if loss == "binary_cross_entropy":
        V[-1], b[-1] = tensor(np.zeros((256, 2))), tensor(np.zeros(2))
    f = torch.nn.functional.selu if is_classifier else torch.nn.functional.mish

    def forward(x: Any) -> Any:
        a = x * scale
        for v, bias in zip(V[:-1], b[:-1], strict=True):
            a = f(a @ v / math.sqrt(len(v)) + bias)
        return a @ V[-1] / math.sqrt(len(V[-1])) + b[-1]

    criterion = (
        torch.nn.CrossEntropyLoss(label_smoothing=0.1) if is_classifier else torch.nn.MSELoss()
    )
    groups = [{"params": [scale]}, {"params": V}, {"params": b}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95), eps=1e-30)
    x, targets = torch.tensor(X), torch.tensor(y)
    for step in range(epochs * 3):
        t = step / (epochs * 3)
        wave = 0.5 - 0.5 * math.cos(2 * math.pi * math.log2(1 + 15 * t))
        for group, factor in zip(optimizer.param_groups, (6.0, 1.0, 0.1), strict=True):
            group["lr"] = factor * wave * (0.04 if is_classifier else 0.07)
        part = slice(step % 3 * 20, step % 3 * 20 + 20)
        optimizer.zero_grad()
        criterion(forward(x[part]), targets[part]).backward()
        optimizer.step()

    fm.fit(net, X, y, **chosen)
    with torch.no_grad():
        theirs = forward(x).numpy()
    if loss == "binary_cross_entropy":
        theirs = theirs[:, 1:] - theirs[:, :1]
    ours = net.decision_function(X)
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(net.input_scale, scale.detach().numpy(), rtol=1e-7)
    for w, v in zip(net.weights[:-1], V[:-1], strict=True):
        np.testing.assert_allclose(w, v.detach().numpy() / math.sqrt(len(v)), rtol=1e-6, atol=1e-9)


def test_best_epoch_is_the_last_of_the_best() -> None:
    """Of the history's values, and its network gives that accuracy again."""
    X = table(150)
    y = (X.sum(axis=1) > 0).astype(int)
    net = tabular.network(5, 2, seed=1)
    trained, history = tabular.train(net, X[:100], y[:100], validation=(X[100:], y[100:]), epochs=9)
    best = max(history.val_accuracy)
    assert history.best_epoch == max(
        epoch for epoch, value in enumerate(history.val_accuracy, 1) if value == best
    )
    assert trained.evaluate(X[100:], y[100:]).accuracy == best
    assert len(trained.input_scale) == 0
    np.testing.assert_allclose(
        trained.decision_function(X), net.decision_function(X), rtol=1e-4, atol=1e-4
    )


def test_best_epoch_of_a_regression_has_the_least_loss() -> None:
    X = table(120)
    y = np.tanh(X[:, :2])
    net = tabular.network(5, 2, "squared_error", dtype="float64")
    mean, spread = y[:90].mean(axis=0), y[:90].std(axis=0)
    z = (y - mean) / spread
    trained, history = tabular.train(net, X[:90], z[:90], validation=(X[90:], z[90:]), epochs=9)
    assert trained.evaluate(X[90:], z[90:]).loss == pytest.approx(min(history.val_loss), rel=1e-9)
    back = tabular.rescaled(trained, mean, spread)
    np.testing.assert_allclose(back.predict(X), trained.predict(X) * spread + mean, rtol=1e-9)


@pytest.mark.parametrize("validation", [0.2, None, [1, 2]])
def test_validation_must_be_given(validation: Any) -> None:
    X, y = table(20), np.zeros(20, int)
    with pytest.raises(TypeError, match="validation must be a tuple of arrays"):
        tabular.train(tabular.network(5, 2), X, y, validation=validation)
