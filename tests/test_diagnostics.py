"""Gradient flow: every number against NumPy or PyTorch, every warning where it belongs."""

from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.activations import Activation
from fastmlp.kernels import machine
from fastmlp.losses import Loss
from fastmlp.norms import BatchNorm, LayerNorm

pytestmark = pytest.mark.jit


def rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def samples(n: int, features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, features)), rng.integers(0, 3, n)


@pytest.mark.parametrize("outputs", [3, machine.NARROW_OUTPUT + 6])
@pytest.mark.parametrize("n", [1, 50, 700])
def test_flow_against_numpy(n: int, outputs: int) -> None:
    rng = np.random.default_rng(n)
    net = fm.MLP(
        [5, 17, 9, outputs],
        activation=["tanh", "relu"],
        loss="squared_error",
        dropout=0.5,
        l2=0.1,
        l1=0.01,
        dtype="float64",
    )
    for bias in net.biases:
        bias[...] = rng.normal(size=bias.shape)
    X, y = rng.normal(size=(n, 5)), rng.normal(size=(n, outputs))
    weights = rng.uniform(0.5, 2.0, n)
    before = net.theta.copy()
    flow = fm.gradient_flow(net, X, y, sample_weight=weights)

    w, b = net.weights, net.biases
    z1 = X @ w[0] + b[0]
    a1 = np.tanh(z1)
    z2 = a1 @ w[1] + b[1]
    a2 = np.maximum(z2, 0)
    z3 = a2 @ w[2] + b[2]
    share = weights[:, None] / weights.sum()
    delta3 = share * 2 * (z3 - y)
    delta2 = delta3 @ w[2].T * (z2 > 0)
    delta1 = delta2 @ w[1].T * (1 - a1**2)
    rows = [
        ("tanh", z1, a1, delta1, X.T @ delta1 + 0.1 * w[0] + 0.01 * np.sign(w[0])),
        ("relu", z2, a2, delta2, a1.T @ delta2 + 0.1 * w[1] + 0.01 * np.sign(w[1])),
        ("output", z3, z3, delta3, a2.T @ delta3 + 0.1 * w[2] + 0.01 * np.sign(w[2])),
    ]
    for layer, (name, *arrays) in zip(flow.layers, rows, strict=True):
        assert layer.name == name
        measured = layer.pre_activation, layer.activation, layer.delta, layer.weight_gradient
        np.testing.assert_allclose(measured, [rms(a) for a in arrays], rtol=1e-12)
    assert flow.loss == pytest.approx(float((share * (z3 - y) ** 2).sum()), rel=1e-12)
    assert flow.layers[0].dead == 0
    assert flow.layers[1].dead == (a2 == 0).all(axis=0).mean()
    assert flow.layers[0].saturated == ((1 - a1**2 < 1e-3).mean(axis=0) >= 0.99).mean()
    assert (flow.layers[1].saturated, flow.layers[2].saturated, flow.layers[2].dead) == (None,) * 3
    np.testing.assert_array_equal(net.theta, before)


@pytest.mark.parametrize("norm", [BatchNorm(1e-3), LayerNorm(1e-3)])
def test_flow_through_norms_against_pytorch(norm: BatchNorm | LayerNorm) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
    rng = np.random.default_rng(1)
    net = fm.MLP([4, 9, 6, 3], activation="softplus", norm=norm, dropout=0.3, dtype="float64")
    for view in (*net.biases, *net.gains, *net.shifts, *net.running_means):
        view[...] = rng.normal(size=view.shape)
    before = net.theta.copy(), net.running.copy()
    X, y = samples(60, 4)
    flow = fm.gradient_flow(net, X, y)
    for then, now in zip(before, (net.theta, net.running), strict=True):
        np.testing.assert_array_equal(now, then)

    axis = 0 if isinstance(norm, BatchNorm) else 1
    a, sums, inputs = torch.tensor(X), [], []
    weights = [torch.tensor(w, requires_grad=True) for w in net.weights]
    for i in range(3):
        u = a @ weights[i] + torch.tensor(net.biases[i])
        u.retain_grad()
        sums.append(u)
        z = u
        if i < 2:
            centred = u - u.mean(axis, keepdim=True)
            xhat = centred / torch.sqrt((centred**2).mean(axis, keepdim=True) + norm.epsilon)
            z = xhat * torch.tensor(net.gains[i]) + torch.tensor(net.shifts[i])
            a = torch.logaddexp(z, torch.zeros_like(z))
        inputs.append((z, a if i < 2 else z))
    loss = torch.nn.functional.cross_entropy(sums[-1], torch.tensor(y))
    loss.backward()
    assert flow.loss == pytest.approx(loss.item(), rel=1e-12)
    for layer, u, w, (z, a) in zip(flow.layers, sums, weights, inputs, strict=True):
        measured = layer.pre_activation, layer.activation, layer.delta, layer.weight_gradient
        expected = [rms(t.detach()) for t in (z, a, u.grad, w.grad)]
        np.testing.assert_allclose(measured, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (Loss("softmax_cross_entropy", label_smoothing=0.1, class_weight=[1, 2, 3]), "labels"),
        (Loss("binary_cross_entropy"), "shares"),
        (Loss("huber", delta=0.3), "shares"),
        (Loss("pinball", quantile=[0.1, 0.5, 0.9]), "shares"),
        (Loss("poisson"), "shares"),
    ],
    ids=str,
)
def test_output_delta_of_every_kind_of_loss(loss: Loss, target: str) -> None:
    X, y = samples(40, 4)
    Y = np.random.default_rng(2).random((40, 3)) if target == "shares" else y
    net = fm.MLP([4, 6, 3], loss=loss, dtype="float64", seed=3)
    net.biases[-1][...] = np.random.default_rng(3).normal(size=3)
    z = net.decision_function(X)
    head = fm.MLP([3, 3], loss=loss, initializer=np.eye(3), dtype="float64")
    layer = fm.gradient_flow(net, X, Y).layers[-1]
    squares, step = 0.0, 1e-6
    for i, k in np.ndindex(z.shape):
        near = [z.copy(), z.copy()]
        near[0][i, k] -= step
        near[1][i, k] += step
        low, high = (head.evaluate(moved, Y).loss for moved in near)
        squares += ((high - low) / (2 * step)) ** 2
    assert layer.delta == pytest.approx(np.sqrt(squares / z.size), rel=1e-6)


def test_network_without_hidden_layers() -> None:
    X, y = samples(30, 4)
    flow = fm.gradient_flow(fm.MLP([4, 3]), X, y)
    (layer,) = flow.layers
    assert (layer.name, layer.dead, layer.saturated) == ("output", None, None)
    assert min(layer.delta, layer.weight_gradient, layer.activation) > 0
    assert flow.warnings == []


def test_float32_agrees_with_float64() -> None:
    X, y = samples(30, 4)
    net = fm.MLP([4, 8, 8, 3], activation="gelu", norm="batch")
    narrow, wide = (fm.gradient_flow(net.astype(d), X, y) for d in ("float32", "float64"))
    for a, b in zip(narrow.layers, wide.layers, strict=True):
        assert a.delta == pytest.approx(b.delta, rel=1e-4)
        assert a.weight_gradient == pytest.approx(b.weight_gradient, rel=1e-4)


# Warnings


def wild(rng: np.random.Generator, n_in: int, n_out: int) -> np.ndarray:
    return rng.normal(size=(n_in, n_out))


def kinds(flow: fm.GradientFlow) -> set[str]:
    return {" ".join(text.split(":")[0].split()[:2]) for text in flow.warnings}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"activation": "relu"}, set()),
        ({"activation": "selu"}, set()),
        ({"activation": "tanh"}, set()),
        ({"activation": "sigmoid"}, {"deltas vanish"}),
        ({"activation": "sigmoid", "norm": "batch"}, set()),
        ({"activation": "relu", "initializer": wild}, {"activations explode", "deltas explode"}),
        ({"activation": "relu", "initializer": wild, "norm": "layer"}, set()),
        ({"activation": "tanh", "initializer": wild}, {"deltas explode"}),
        (
            {"activation": "identity", "initializer": lambda r, i, o: wild(r, i, o) / i},
            {"activations vanish", "deltas vanish"},
        ),
    ],
)
def test_vanishing_and_exploding(options: dict[str, Any], expected: set[str]) -> None:
    assert kinds(fm.explore_flow(10, **options)) == expected


@pytest.mark.parametrize("depth", [40, 60])  # the loss overflows, the activations do
def test_loss_that_is_not_finite(depth: int) -> None:
    flow = fm.explore_flow(depth, initializer=wild)
    assert np.isnan(flow.loss)
    assert all(np.isnan([layer.delta, layer.weight_gradient]).all() for layer in flow.layers)
    assert {"the loss", "activations explode"} <= kinds(flow)
    assert not any(kind.startswith("deltas") for kind in kinds(flow))
    assert "nan" in str(flow)


def test_dead_units() -> None:
    X, y = samples(50, 4)
    net = fm.MLP([4, 10, 3], seed=1)
    net.biases[0][:4] = -100
    flow = fm.gradient_flow(net, X, y)
    assert flow.layers[0].dead == 0.4
    (warning,) = flow.warnings
    assert warning.startswith("layer 1: 40% of the units are 0 for all samples; take another")
    assert "leaky_relu" in warning
    net.biases[0][2:4] = 0
    assert fm.gradient_flow(net, X, y).warnings == []


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_saturated_units(activation: str) -> None:
    X, y = samples(50, 4)
    net = fm.MLP([4, 10, 3], activation=activation, seed=1)
    net.biases[0][:3] = [-1000, 1000, 1000]
    flow = fm.gradient_flow(net, X, y)
    assert flow.layers[0].saturated == 0.3
    assert flow.layers[0].dead == (0.1 if activation == "sigmoid" else 0.0)
    (warning,) = flow.warnings
    assert warning.startswith("layer 1: 30% of the units are saturated; scale the inputs")


def test_table() -> None:
    net = fm.MLP([4, 5, 6, 3], activation=["tanh", Activation("elu")])
    X, y = samples(20, 4)
    flow = fm.gradient_flow(net, X, y)
    lines = str(flow).splitlines()
    assert lines[0].split() == ["layer", "z", "a", "delta", "dW", "dead", "saturated", "update"]
    first, second, third = (line.split() for line in lines[1:4])
    assert first[:3] == ["1", "tanh", f"{flow.layers[0].pre_activation:.1e}"]
    assert first[-2:] == ["0%", "0%"]
    assert second[1] == "elu(1.0)"
    assert third[1] == "output"
    net.biases[0][...] = 100
    assert "\n! layer 1: 100% of the units are saturated" in str(fm.gradient_flow(net, X, y))


# Along a training


def test_recorder() -> None:
    X, y = samples(60, 4)
    net, recorder = fm.MLP([4, 6, 3]), fm.FlowRecorder(X[:20], y[:20])
    seen = [[w.copy() for w in net.weights]]
    recorder(net)
    recorder(net)

    fm.fit(
        net,
        X,
        y,
        epochs=3,
        callbacks=[recorder, lambda t: seen.append([w.copy() for w in t.net.weights])],
    )
    assert len(recorder.flows) == 5
    assert recorder.flows[-1] != recorder.flows[-2]
    assert recorder.flows[0].layers[0].weight_update is None
    assert [layer.weight_update for layer in recorder.flows[1].layers] == [0.0, 0.0]
    assert [text.split(",")[0] for text in recorder.flows[1].warnings] == [
        f"layer {n}: the weights hardly change" for n in (1, 2)
    ]
    for epoch in (1, 2, 3):
        for i, layer in enumerate(recorder.flows[epoch + 1].layers):
            new, old = (seen[t][i].astype(np.float64) for t in (epoch, epoch - 1))
            assert layer.weight_update == pytest.approx(rms(new - old), rel=1e-5)
            relative = np.linalg.norm(new - old) / np.linalg.norm(old)
            assert layer.relative_update == pytest.approx(relative, rel=1e-5)
    assert recorder.flows[-1].loss == pytest.approx(net.evaluate(X[:20], y[:20]).loss, rel=1e-5)


def test_recorder_is_what_fit_calls() -> None:
    X, y = samples(60, 4)
    weights = np.arange(1.0, 61.0)
    net, recorder = fm.MLP([4, 6, 3]), fm.FlowRecorder(X, y, sample_weight=weights)
    fm.fit(net, X, y, epochs=2, optimizer=fm.SGD(100.0), callbacks=[recorder])
    assert len(recorder.flows) == 2
    assert any("smaller learning rate" in text for text in recorder.flows[1].warnings)
    alone = fm.gradient_flow(net, X, y, sample_weight=weights)
    assert alone.loss == recorder.flows[1].loss


def test_weights_that_were_zero_have_no_relative_update() -> None:
    X, y = samples(60, 4)
    net, recorder = fm.MLP([4, 3], initializer="zeros"), fm.FlowRecorder(X, y)
    recorder(net)
    fm.fit(net, X, y, epochs=1, callbacks=[recorder])
    (layer,) = recorder.flows[1].layers
    assert layer.relative_update is None
    assert layer.weight_update > 0


# Errors


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"net": "net"}, TypeError, "net must be an MLP, got str"),
        ({"X": np.ones((3, 5))}, ValueError, "X must have shape"),
        ({"X": np.full((3, 4), np.nan)}, ValueError, "X must be finite"),
        ({"y": [0, 1, 7]}, ValueError, "y must hold labels 0 to 2"),
        ({"sample_weight": [1, 2]}, ValueError, "sample_weight must have shape"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"net": fm.MLP([4, 2, 3]), "X": np.ones((3, 4)), "y": [0, 1, 2], **change}
    with pytest.raises(error, match=message):
        fm.gradient_flow(**arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"depth": 0}, ValueError, "depth must be at least 1"),
        ({"depth": 2.0}, TypeError, "depth must be a whole number"),
        ({"width": 0}, ValueError, "width must be at least 1"),
        ({"samples": 0}, ValueError, "samples must be at least 1"),
        ({"activation": "swoosh"}, ValueError, "activation must be one of"),
        ({"initializer": "swoosh"}, ValueError, "initializer must be one of"),
        ({"norm": "swoosh"}, ValueError, "norm must be one of"),
        ({"seed": -1}, ValueError, "seed must be"),
    ],
)
def test_bad_exploration(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fm.explore_flow(**{"depth": 2, **options})
