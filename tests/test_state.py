"""A training can stop between any two steps and go on with the same bits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp._state import TrainingState
from fastmlp.training import Settings, train

N = 75
rng = np.random.default_rng(5)
X = rng.normal(size=(N, 6)).astype(np.float32)
Y = (X[:, 0] + 0.3 * rng.normal(size=N) > 0).astype(np.int64) + (X[:, 1] > 1)


def network(**options: Any) -> fm.MLP:
    return fm.MLP([6, 9, 7, 3], activation="tanh", seed=2, **options)


def bits(state: TrainingState) -> dict[str, Any]:
    """All of a state but the times."""
    vectors = {
        name: getattr(state, name).tobytes()
        for name in ("theta", "running", "first", "second", "average")
    }
    history = replace(state.history, seconds=0.0, samples_per_second=0.0, compile_seconds=0.0)
    return {**vectors, "position": state.position, "history": history}


@pytest.mark.parametrize(
    ("net", "settings"),
    [
        ({}, {"optimizer": fm.Adam(0.01)}),
        ({"dropout": 0.2, "norm": "batch"}, {"optimizer": fm.SGD(0.02, momentum=0.9)}),
        ({"dtype": "float64"}, {"optimizer": fm.NAdam(), "average": 0.9, "shuffle": False}),
        ({}, {"optimizer": fm.Adagrad(), "accumulate": 2, "clip_global_norm": 0.1}),
        ({}, {"optimizer": fm.RMSProp(fm.schedules.ReduceOnPlateau(0.1, patience=1))}),
        ({}, {"optimizer": fm.Adam(0.1), "early_stopping": fm.EarlyStopping(patience=2)}),
    ],
)
def test_epoch_by_epoch_is_all_at_once(net: dict[str, Any], settings: dict[str, Any]) -> None:
    at_once, in_parts = network(**net), network(**net)
    how = Settings(**{"batch_size": 16, "epochs": 7, **settings})
    expected = train(at_once, X, Y, how, validation=0.2)
    state = None
    for epochs in (1, 4, 5, 7):
        state = train(in_parts, X, Y, replace(how, epochs=epochs), validation=0.2, state=state)
    assert state is not None
    state.history.stopped_early = expected.history.stopped_early  # of the last part alone
    assert bits(state) == bits(expected)
    assert in_parts.theta.tobytes() == at_once.theta.tobytes()


def test_a_state_is_left_alone() -> None:
    net = network()
    how = Settings(batch_size=16, epochs=2)
    state = train(net, X, Y, how)
    before = bits(state)
    longer = train(net, X, Y, replace(how, epochs=3), state=state)
    assert bits(state) == before
    assert (len(state.history), len(longer.history)) == (2, 3)


def test_other_samples_in_the_next_epoch() -> None:
    """Moments and step count stay, as in scikit-learn's partial_fit."""
    net = network()
    how = Settings(batch_size=16, shuffle=False)
    state = train(net, X[:32], Y[:32], replace(how, epochs=1))
    state = train(net, X[32:], Y[32:], replace(how, epochs=2), state=state)
    assert (state.position.epochs, state.position.steps) == (2, 2 + 3)


def test_a_state_that_does_not_suit() -> None:
    state = train(network(), X, Y, Settings(epochs=1))
    with pytest.raises(ValueError, match="first has 400 entries, not 0"):
        train(network(), X, Y, Settings(optimizer=fm.SGD(), epochs=2), state=state)
