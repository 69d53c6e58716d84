"""One result, bit for bit: whatever the threads, the checkpoints, and how often Python looks."""

from typing import Any

import numpy as np
import pytest
from networks import random_case

import fastmlp as fm

pytestmark = pytest.mark.jit  # without the compiler there is one thread

OPTIMIZERS = [
    *(fm.SGD(0.01), fm.SGD(0.01, momentum=0.9), fm.SGD(0.01, momentum=0.9, nesterov=True)),
    *(fm.Adagrad(), fm.RMSProp(0.001), fm.Adam(), fm.AdamW(), fm.NAdam()),
    fm.Adam(fm.schedules.Cosine(0.01)),
]
CLIPS: list[dict[str, float]] = [
    {},
    {"clip_value": 0.1},
    {"clip_norm": 0.1},
    {"clip_global_norm": 0.1},
]


def training(seed: int, dtype: str, **how: Any) -> tuple[bytes, bytes, str]:
    """Parameters, statistics and history after training a random network somehow."""
    rng = np.random.default_rng(seed)
    case = random_case(seed, dtype=dtype, rows=int(rng.choice([1, 9, 40, 300, 600])))
    net = case.net
    settings: dict[str, Any] = {
        "optimizer": OPTIMIZERS[rng.integers(len(OPTIMIZERS))],
        "batch_size": int(rng.choice([1, 7, 32, 300])),
        "accumulate": int(rng.integers(1, 4)),
        "average": [None, 0.9][rng.integers(2)],
        **CLIPS[rng.integers(len(CLIPS))],
    }
    if len(case.X) > 100:
        settings["batch_size"] = max(settings["batch_size"], 7)
    history = fm.fit(
        net,
        case.X,
        case.y,
        sample_weight=case.sample_weight,
        validation=(case.X, case.y),
        epochs=3,
        **settings,
        **how,
    )
    return net.theta.tobytes(), net.running.tobytes(), str(history)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(60))
def test_trainings(seed: int, dtype: str) -> None:
    expected = training(seed, dtype, threads=1)
    assert training(seed, dtype, threads=1) == expected
    assert training(seed, dtype, threads=2) == expected
    assert training(seed, dtype, threads=3, checkpoint_every=2) == expected
    assert (
        training(seed, dtype, threads=2, checkpoint_every=3, callbacks=[print_nothing]) == expected
    )


def print_nothing(training: fm.callbacks.Training) -> None:
    """Have `fit` come back to Python after each epoch."""


@pytest.mark.parametrize("rows", [5, 300, 700])
@pytest.mark.parametrize("seed", range(30))
def test_gradients(seed: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(seed, rows=rows)
    results = set()
    for threads in "123":
        monkeypatch.setenv("FASTMLP_NUM_THREADS", threads)
        for every in (1, 2):
            loss, gradient = case.net.loss_and_gradient(**case.samples, checkpoint_every=every)
            results.add((loss, gradient.flat.tobytes()))
    assert len(results) == 1


@pytest.mark.parametrize("rows", [1, 2, 7, 9])
def test_few_rows_of_wide_layers(rows: int) -> None:
    """Their deltas are made without transposing W: the same for any team, and as of many rows."""
    rng = np.random.default_rng(rows)
    X, y = rng.normal(size=(rows, 7)), rng.integers(5, size=rows)

    def wide() -> fm.MLP:
        return fm.MLP([7, 130, 401, 390, 5], activation="tanh", dtype="float64", seed=rows)

    results = []
    for threads in (1, 2, 3):
        net = wide()
        fm.fit(net, X, y, batch_size=rows, epochs=3, threads=threads)
        results.append(net.theta.tobytes())
    assert results[0] == results[1] == results[2]
    _, few = wide().loss_and_gradient(X, y)
    _, many = wide().loss_and_gradient(np.tile(X, (16, 1)), np.tile(y, 16))
    np.testing.assert_allclose(few.flat, many.flat, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("seed", range(40))
def test_padding_stays_zero(seed: int) -> None:
    case = random_case(seed, dtype="float32")
    fm.fit(case.net, case.X, case.y, sample_weight=case.sample_weight, epochs=3)
    rest = case.net.theta.copy()
    for tensor in case.net.layout.tensors:
        tensor.view(rest)[...] = 0
    case.net.layout.gather(rest)  # the copies of a slope that is a whole layer's
    assert not rest.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("penalty", [{}, {"l2": 0.01}, {"l1": 0.01}, {"l2": [0.0, 0.1], "l1": 0.1}])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_updates_at_once_or_of_the_whole_gradient(
    optimizer: fm.Optimizer, penalty: dict[str, Any], dtype: str
) -> None:
    """A norm that no gradient has clips nothing, but has to be known before the update."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 131)) * (rng.random((90, 131)) < 0.1)
    X[:, 20:60], y = 0.0, rng.integers(0, 4, 90)
    results = []
    for clip in ({}, {"clip_global_norm": 1e30}, {"clip_norm": 1e30}):
        for batch_size in (1, 16, 80):
            net = fm.MLP([131, 70, 4], seed=1, dtype=dtype, **penalty)
            fm.fit(net, X, y, optimizer=optimizer, batch_size=batch_size, epochs=2, **clip)
            results.append(net.theta.tobytes())
    assert len(set(results)) == 3


@pytest.mark.parametrize("sizes", [[70, 90, 10], [70, 90, 17], [70, 100, 17, 3]])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_trainings_of_few_outputs(optimizer: fm.Optimizer, sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(150, sizes[0])), rng.integers(0, sizes[-1], 150)
    results = set()
    for threads in (1, 2, 3):
        net = fm.MLP(sizes, dtype="float32", l2=0.01, seed=1)
        fm.fit(net, X, y, optimizer=optimizer, batch_size=75, epochs=3, threads=threads)
        results.add(net.theta.tobytes())
    assert len(results) == 1
