"""A small network's step of several passes: each thread takes whole ones, in groups."""

from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp._execution import Batch, Execution, Procedure
from fastmlp.kernels import machine
from fastmlp.kernels.plan import Plan

PASS, GROUPS = machine.MICRO_BATCH, machine.PASS_GROUPS
SMALL = [4, 32, 16, 4]
OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"activation": "tanh"}, {}),
    ({"activation": "gelu", "dropout": [0.1, 0.2, 0.0]}, {"clip_norm": 0.1}),
    ({"activation": "prelu", "l2": 0.01, "l1": 0.001}, {"clip_global_norm": 0.1}),
    ({"norm": "layer"}, {"clip_value": 0.01, "average": 0.9, "checkpoint_every": 2}),
    ({"norm": "batch"}, {"accumulate": 2}),  # which is shared by the pass
    ({"activation": ["gelu", "softplus"], "l2": 0.01}, {"clip_norm": 0.1, "checkpoint_every": 2}),
    ({"activation": ["leaky_relu", "relu"], "l1": 0.001}, {"clip_value": 0.01, "average": 0.9}),
]


def samples(rows: int, features: int = 4, outputs: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets that are learnt."""
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, features))
    return x, np.tanh(x @ rng.normal(size=(features, outputs)))


def plan_of(net: fm.MLP, rows: int) -> Plan:
    """The plan of a full batch."""
    x, y = (a.astype(net.dtype) for a in samples(rows, net.layer_sizes[0], net.layer_sizes[-1]))
    batch = Batch.of(x, net.layer_sizes[-1], targets=y)
    return Execution(net, procedure=Procedure(rows), samples=batch).team.plan


def groups_of(net: fm.MLP, rows: int) -> int:
    """In how many groups the passes of a full batch are cut."""
    return plan_of(net, rows).groups


def is_turned(net: fm.MLP, rows: int) -> bool:
    """Whether these passes have their rows across the lanes."""
    return bool(plan_of(net, rows).turned)


def test_groups() -> None:
    small = fm.MLP(SMALL, loss="squared_error")
    assert groups_of(small, PASS) == 1
    assert groups_of(small, PASS + 1) == 2
    assert groups_of(small, (GROUPS + 3) * PASS) == GROUPS
    assert groups_of(fm.MLP(SMALL, norm="batch", loss="squared_error"), 3 * PASS) == 1
    assert groups_of(fm.MLP([64, 256, 4], loss="squared_error"), 3 * PASS) == 1


@pytest.mark.jit  # without the compiler there is one thread
@pytest.mark.parametrize(("of_net", "of_fit"), OPTIONS)
@pytest.mark.parametrize(
    ("rows", "batch_size"),
    # a last step of one pass; more passes than groups; fewer passes than threads
    [(9 * PASS + 5, 4 * PASS), ((GROUPS + 3) * PASS + 7, None), (PASS + 1, None)],
)
def test_bits(
    rows: int, batch_size: int | None, of_net: dict[str, Any], of_fit: dict[str, Any]
) -> None:
    x, y = samples(rows)
    results = set()
    for threads in (1, 2, 3, 5):
        net = fm.MLP(SMALL, loss="squared_error", seed=1, **of_net)
        history = fm.fit(
            net, x, y, batch_size=batch_size, epochs=3, threads=threads, validation=(x, y), **of_fit
        )
        results.add((net.theta.tobytes(), str(history)))
    assert len(results) == 1


def test_gradient_is_the_mean_of_the_passes() -> None:
    x, y = samples((GROUPS + 3) * PASS)
    net = fm.MLP(SMALL, activation="tanh", loss="squared_error", dtype="float64")
    loss, gradient = net.loss_and_gradient(x, y)
    parts = [
        net.loss_and_gradient(x[first : first + PASS], y[first : first + PASS])
        for first in range(0, len(x), PASS)
    ]
    assert loss == pytest.approx(np.mean([part for part, _ in parts]), rel=1e-14)
    mean = np.mean([part.flat for _, part in parts], axis=0)
    np.testing.assert_allclose(gradient.flat, mean, rtol=1e-12, atol=1e-15)


TURNED = [
    ([4, 32, 16, 4], ["tanh", "gelu"], "squared_error"),
    ([3, 17, 33, 18], ["softplus", "leaky_relu"], "softmax_cross_entropy"),
    ([20, 2], [], "softmax_cross_entropy"),
    ([2, 20, 1], ["relu"], "pinball"),
    ([5, 3, 40], ["elu"], "binary_cross_entropy"),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("sizes", "activation", "loss"), TURNED)
def test_turned_passes(sizes: list[int], activation: list[str], loss: str, dtype: str) -> None:
    """The same gradient as of single passes, with weights and a last pass of few rows."""
    rng = np.random.default_rng(0)
    rows = 3 * PASS + 7
    x = rng.normal(size=(rows, sizes[0])).astype(dtype)
    y: Any = rng.integers(2, size=(rows, sizes[-1])).astype(dtype)
    if loss == "softmax_cross_entropy":
        y = rng.integers(sizes[-1], size=rows)
    weights = rng.uniform(0.5, 2.0, rows)
    net = fm.MLP(sizes, activation=activation, loss=loss, dtype=dtype, l2=0.01, seed=1)
    assert is_turned(net, rows)
    value, gradient = net.loss_and_gradient(x, y, sample_weight=weights)
    shares, values, parts = [], [], []
    for first in range(0, rows, PASS):
        part = slice(first, first + PASS)
        assert not is_turned(net, len(x[part]))
        loss_of_part, of_part = net.loss_and_gradient(x[part], y[part], sample_weight=weights[part])
        shares.append(weights[part].sum() / weights.sum())
        values.append(loss_of_part)
        parts.append(of_part.flat)
    eps = float(np.finfo(dtype).eps)
    assert value == pytest.approx(np.dot(shares, values), rel=8 * eps)
    mean = np.tensordot(shares, parts, axes=1)
    np.testing.assert_allclose(gradient.flat, mean, rtol=0, atol=8 * eps * abs(mean).max())


@pytest.mark.parametrize("is_soft", [False, True])
def test_cross_entropy_of_smoothed_or_soft_targets(is_soft: bool) -> None:
    """Computed by rows, also of a network whose other passes are turned."""
    rng, rows = np.random.default_rng(0), 2 * PASS
    x, y = rng.normal(size=(rows, 4)), rng.integers(3, size=rows)
    targets = rng.dirichlet([1.0, 1.0, 1.0], rows) if is_soft else y
    loss = (
        "softmax_cross_entropy"
        if is_soft
        else fm.losses.Loss("softmax_cross_entropy", label_smoothing=0.2)
    )
    net = fm.MLP([4, 9, 3], loss=loss, dtype="float64")
    assert is_turned(net, rows)
    value, gradient = net.loss_and_gradient(x, targets)
    halves = [net.loss_and_gradient(x[i::2], targets[i::2]) for i in range(2)]
    assert value == pytest.approx((halves[0][0] + halves[1][0]) / 2, rel=1e-14)
    mean = (halves[0][1].flat + halves[1][1].flat) / 2
    np.testing.assert_allclose(gradient.flat, mean, rtol=1e-12, atol=1e-15)


def test_which_passes_are_turned() -> None:
    rows = PASS + 1
    assert is_turned(fm.MLP(SMALL, loss="squared_error"), rows)
    for options in (
        {"norm": "layer"},
        {"dropout": 0.1},
        {"activation": "prelu"},
        {"input_scale": True},
    ):
        assert not is_turned(fm.MLP(SMALL, loss="squared_error", **options), rows)
    many = machine.SKIPPED_FEATURES
    assert is_turned(fm.MLP([many - 1, 4], loss="squared_error"), rows)
    assert not is_turned(fm.MLP([many, 4], loss="squared_error"), rows)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("bad", [0, PASS + 7, 9 * PASS])
def test_one_pass_that_diverges_stops_all(threads: int, bad: int) -> None:
    x, y = samples(9 * PASS + 5)
    y[bad] = 1e30  # whose square is infinite
    net = fm.MLP(SMALL, loss="squared_error")
    before = net.theta.copy()
    with pytest.raises(fm.DivergenceError):
        fm.fit(net, x, y, batch_size=None, epochs=2, threads=threads)
    np.testing.assert_array_equal(net.theta, before)
