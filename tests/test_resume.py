"""A training that is resumed from a checkpoint goes on as if it had never stopped, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save as to_safetensors

import fastmlp as fm
from fastmlp import checkpoints, io
from fastmlp.checkpoints import PREVIOUS

RNG = np.random.default_rng(5)
X = RNG.normal(size=(150, 6)).astype(np.float32)
LABELS = (X[:, 0] + 0.3 * RNG.normal(size=150) > 0).astype(np.int64) + (X[:, 1] > 1)
TARGETS = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1)
WEIGHTS = RNG.random(150)
Net = dict[str, Any]
How = dict[str, Any]


def network(**options: Any) -> fm.MLP:
    return fm.MLP(**{"layer_sizes": [6, 9, 7, 3], "activation": "tanh", "seed": 2, **options})


def outcome(net: fm.MLP, history: fm.History) -> tuple[bytes, bytes, fm.History]:
    """Everything but the times."""
    times = {"seconds": 0.0, "samples_per_second": 0.0, "compile_seconds": 0.0}
    return net.theta.tobytes(), net.running.tobytes(), replace(history, **times)


class Killed(BaseException):
    """What ends a training in these tests."""


class KillAt(fm.Callback):
    """Ends the training without a word after a step."""

    def __init__(self, step: int) -> None:
        self.every = 1
        self._step = step

    def on_batch_end(self, training: fm.callbacks.Training) -> None:
        if training.step == self._step:
            raise Killed


class Silent(fm.Checkpoint):
    """A checkpoint that does not get to save when training ends, as after kill -9."""

    def on_train_end(self, training: fm.callbacks.Training) -> None:
        pass


CASES: dict[str, tuple[Net, How]] = {
    "sgd": ({}, {"optimizer": fm.SGD(0.1)}),
    "momentum": (
        {"norm": "batch", "dropout": 0.2},
        {"optimizer": fm.SGD(fm.schedules.OneCycle(0.1), momentum=0.9, nesterov=True)},
    ),
    "adam": ({"dropout": [0.1, 0.2, 0.0]}, {"optimizer": fm.Adam(0.01), "average": 0.9}),
    "adamw": (
        {"norm": "layer", "l2": 1e-3, "l1": 1e-4},
        {"optimizer": fm.AdamW(fm.schedules.Cosine(0.02)), "clip_global_norm": 0.5},
    ),
    "nadam": (
        {"dtype": "float64", "activation": "prelu"},
        {"optimizer": fm.NAdam(fm.schedules.WarmUp(0.01, 7)), "clip_value": 0.1},
    ),
    "rmsprop": (
        {},
        {
            "optimizer": fm.RMSProp(
                fm.schedules.ReduceOnPlateau(0.05, patience=0, min_delta=1.0), decay=0.9
            ),
            "clip_norm": 0.5,
            "accumulate": 3,
        },
    ),
    "adagrad": (
        {},
        {"optimizer": fm.Adagrad(initial_accumulator=0.1, epsilon_inside_root=True)},
    ),
    "gradient descent": (
        {"activation": "softplus"},
        {"optimizer": fm.GradientDescent("lipschitz")},
    ),
    "early stopping": (
        {"norm": "batch"},
        {
            "optimizer": fm.Adam(0.3),
            "early_stopping": fm.EarlyStopping("val_accuracy", patience=2),
        },
    ),
    "rate factors": (
        {"input_scale": True},
        {
            "optimizer": fm.Adam(fm.schedules.CosineLog(0.02, cycles=2)),
            "learning_rate_factors": {
                "weight": np.array([0.3, 0.2, 0.1]),
                "bias": (0.1, 0.1, np.float32(0.5)),
                "input_scale": 6,
            },
        },
    ),
    "in order": ({}, {"shuffle": False, "batch_size": 16, "seed": 9, "checkpoint_every": 2}),
    "accumulated batch norm": ({"norm": "batch"}, {"accumulate": 4, "batch_size": 10}),
}


@pytest.mark.parametrize("case", CASES)
def test_bit_for_bit(case: str, tmp_path: Path) -> None:
    """Killed within an epoch, after the last step of one, and when only validation is left."""
    options, how = CASES[case]
    how = {"batch_size": 32, "epochs": 4, "validation": 0.2, **how}
    net = network(**options)
    counter = fm.LearningRateMonitor(every=1)
    history = fm.fit(net, X, LABELS, callbacks=[counter], **how)
    expected, steps = outcome(net, history), counter.steps[-1]
    unwatched = network(**options)
    assert outcome(unwatched, fm.fit(unwatched, X, LABELS, **how)) == expected
    per_epoch = steps // len(history)
    path = tmp_path / "run"
    for kill, threads in ((1, 1), (per_epoch, 2), (2 * per_epoch + 1, 3), (steps, 1)):
        watchers = [Silent(path, every_batches=1), KillAt(kill)]
        with pytest.raises(Killed):
            fm.fit(network(**options), X, LABELS, callbacks=watchers, threads=threads, **how)
        assert outcome(*fm.resume(path, X, LABELS, threads=threads)) == expected
    assert outcome(*fm.resume(path, X, LABELS)) == expected  # nothing is left to do


@pytest.mark.parametrize(
    "settings",
    [
        {"every_epochs": 2},
        {"every_batches": 3},
        {"every_seconds": 1e-9},
        {"every_epochs": 1, "every_batches": 7, "every_seconds": 1e-9},
        {},
    ],
)
def test_it_goes_on_from_the_last_checkpoint(settings: dict[str, Any], tmp_path: Path) -> None:
    """With sample weights, given validation samples, a regression; resumed again and again."""
    how: How = {"sample_weight": WEIGHTS, "validation": (X[:20], TARGETS[:20], WEIGHTS[:20])}

    def regressor() -> fm.MLP:
        return network(layer_sizes=[6, 9, 2], loss="huber", norm="batch", dropout=0.1)

    net, path = regressor(), tmp_path / "run"
    expected = outcome(net, fm.fit(net, X, TARGETS, epochs=6, batch_size=16, **how))
    watchers = [Silent(path, **settings), KillAt(23)]
    with pytest.raises(Killed):
        fm.fit(regressor(), X, TARGETS, epochs=6, batch_size=16, callbacks=watchers, **how)
    with pytest.raises(Killed):
        fm.resume(path, X, TARGETS, callbacks=[Silent(path, **settings), KillAt(44)], **how)
    assert outcome(*fm.resume(path, X, TARGETS, **how)) == expected


def test_it_goes_on_saving(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(Killed):
        fm.fit(network(), X, LABELS, epochs=6, callbacks=[fm.Checkpoint(path), KillAt(7)])
    with pytest.raises(Killed):
        fm.resume(path, X, LABELS, callbacks=[KillAt(19)])
    steps: list[int] = []
    fm.resume(path, X, LABELS, callbacks=[lambda training: steps.append(training.step)])
    assert steps == [20, 25, 30]  # the nineteenth was saved as it ended
    assert {file.name for file in tmp_path.iterdir()} == {"run", "run" + PREVIOUS}


def test_more_epochs(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "run"
    fm.fit(net, X, LABELS, epochs=2, callbacks=[fm.Checkpoint(path)])
    at_once = network()
    expected = outcome(at_once, fm.fit(at_once, X, LABELS, epochs=5))
    assert outcome(*fm.resume(path, X, LABELS, epochs=5)) == expected


def test_what_no_file_can_hold_is_given_again(tmp_path: Path) -> None:
    rate, path, net = lambda step: 0.1 / (1 + step), tmp_path / "run", network()
    how: How = {
        "optimizer": fm.SGD(rate),
        "early_stopping": fm.EarlyStopping(lambda net: float(net.theta[0]), patience=3),
    }
    expected = outcome(net, fm.fit(net, X, LABELS, epochs=4, **how))
    watchers = [Silent(path, every_batches=1), KillAt(8)]
    with pytest.raises(Killed):
        fm.fit(network(), X, LABELS, epochs=4, callbacks=watchers, **how)
    with pytest.raises(ValueError, match="optimizer must be given"):
        fm.resume(path, X, LABELS)
    with pytest.raises(ValueError, match="early_stopping must be given"):
        fm.resume(path, X, LABELS, optimizer=how["optimizer"])
    assert outcome(*fm.resume(path, X, LABELS, **how)) == expected


def test_other_samples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    how: How = {"validation": (X[:9], LABELS[:9])}
    fm.fit(network(), X, LABELS, epochs=1, callbacks=[fm.Checkpoint(path)], **how)
    other, labels = X.copy(), LABELS.copy()
    other[0, 0] += 1
    labels[-1] = (labels[-1] + 1) % 3
    with pytest.raises(ValueError, match=r"X has shape \(149, 6\), not \(150, 6\)"):
        fm.resume(path, X[1:], LABELS[1:], **how)
    for samples in ((other, LABELS), (X, labels)):
        with pytest.raises(ValueError, match="the values of X, or of what belongs to them"):
            fm.resume(path, *samples, **how)
    with pytest.raises(ValueError, match="the values of X"):
        fm.resume(path, X, LABELS, sample_weight=WEIGHTS, **how)
    with pytest.raises(ValueError, match="validation must be given"):
        fm.resume(path, X, LABELS)
    with pytest.raises(ValueError, match="the values of the validation samples"):
        fm.resume(path, X, LABELS, validation=(X[1:10], LABELS[1:10]))
    assert len(fm.resume(path, X, LABELS, epochs=2, **how)[1]) == 2


# Files


def checkpoint(folder: Path) -> Path:
    path = folder / "run"
    with pytest.raises(Killed):
        fm.fit(network(), X, LABELS, epochs=3, callbacks=[Silent(path), KillAt(13)])
    return path


def test_a_damaged_file_gives_way_to_the_previous(tmp_path: Path) -> None:
    net, path = network(), checkpoint(tmp_path)
    expected = outcome(net, fm.fit(net, X, LABELS, epochs=3))
    whole, previous = path.read_bytes(), Path(f"{path}{PREVIOUS}")
    old = previous.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    for damaged in (b"", whole[:-1], whole[:50], bytes(flipped), b"x" * 100, None):
        previous.write_bytes(old)
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.warns(UserWarning, match=r"going on from .*run\.previous"):
            resumed = fm.resume(path, X, LABELS)
        assert outcome(*resumed) == expected


def test_without_a_sound_file(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    Path(f"{path}{PREVIOUS}").unlink()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"cannot read .*run' as a checkpoint"):
        fm.resume(path, X, LABELS)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        fm.resume(path, X, LABELS)
    network().save(path)
    with pytest.raises(ValueError, match="it has no 'fastmlp-checkpoint'"):
        fm.resume(path, X, LABELS)


def forge(path: Path, change: Any) -> None:
    """Change a file's header, and its digest with it."""
    with safe_open(path, framework="numpy") as content:
        header = json.loads(content.metadata()["fastmlp-checkpoint"])
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    del header["digest"]
    change(header, tensors)
    header["digest"] = checkpoints._digest(header, tensors)
    path.write_bytes(to_safetensors(tensors, {"fastmlp-checkpoint": io.to_json(header)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h, _: h.update(format="fastmlp-checkpoint-9"), "format"),
        (lambda h, _: h["position"].__setitem__(2, -32), "position"),
        (lambda h, _: h["position"].__setitem__(2, 7), "7 samples into an epoch of other samples"),
        (lambda h, _: h["position"].__setitem__(2, 10**9), "samples into an epoch"),
        (lambda h, _: h["position"].__setitem__(0, 1.5), "position"),
        (lambda h, _: h["position"].__setitem__(0, 3), "history is not of 3 epochs"),
        (lambda h, _: h["patience"].__setitem__(0, 50), "history is not of"),
        (lambda h, _: h["vectors"].remove("second"), "second has 0 entries"),
        (lambda h, _: h["vectors"].append("theta2"), "theta2.layers.0.weight"),
        (lambda h, _: h["optimizer"].update({"class": "system"}), "system"),
        (lambda h, _: h["optimizer"].update(beta1=2.0), "beta1"),
        (lambda h, _: h["optimizer"].update(gamma=2.0), "gamma"),
        (lambda h, _: h.update(optimizer=3), "must be an Optimizer"),
        (lambda h, _: h.update(early_stopping={"monitor": "loss", "patience": 0}), "patience"),
        (lambda h, _: h.update(every={"every_epochs": 0}), "every_epochs"),
        (lambda h, _: h.update(samples={}), "samples"),
        (lambda h, _: h.pop("samples"), "it has no 'samples'"),
        (lambda h, _: h["settings"].update(batch_size=0), "batch_size"),
        (lambda h, _: h["settings"].update(clip_norm="x"), "clip_norm"),
        (lambda h, _: h["network"].update(layer_sizes=[6, 9, 8, 3]), "must be float32 of shape"),
        (lambda h, t: t.update(numbers=np.zeros(3)), "not enough values"),
        (lambda h, t: t.pop("first.layers.1.bias"), "first.layers.1.bias"),
        (lambda h, t: t.update({"theta.layers.0.bias": np.zeros(9)}), "must be float32"),
    ],
)
def test_a_forged_file(change: Any, words: str, tmp_path: Path) -> None:
    """Whatever it says is checked before anything is done with it."""
    path = checkpoint(tmp_path)
    Path(f"{path}{PREVIOUS}").unlink()
    forge(path, change)
    with pytest.raises((ValueError, TypeError), match=words):
        fm.resume(path, X, LABELS)


def test_a_training_that_diverged_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(fm.DivergenceError):
        fm.fit(
            network(loss="squared_error"),
            X,
            RNG.normal(size=(150, 3)),
            optimizer=fm.SGD(1e30),
            callbacks=[fm.Checkpoint(path, every_epochs=1)],
        )
    assert not path.exists()


def test_ctrl_c_saves(tmp_path: Path) -> None:
    def interrupt(training: fm.callbacks.Training) -> None:
        if training.epoch == 2:
            raise KeyboardInterrupt

    def score(net: fm.MLP) -> float:
        scores.append(len(scores))
        return float(scores[-1])  # the first epoch is the best

    def bn() -> fm.MLP:
        return network(norm="batch")

    scores: list[int] = []
    how: How = {"early_stopping": fm.EarlyStopping(score), "epochs": 4, "validation": 0.2}
    net, path = bn(), tmp_path / "run"
    expected = outcome(net, fm.fit(net, X, LABELS, **how))
    scores.clear()
    watchers = [interrupt, fm.Checkpoint(path, every_epochs=100)]
    interrupted = bn()
    history = fm.fit(interrupted, X, LABELS, callbacks=watchers, **how)
    assert history.interrupted
    assert interrupted.running.tobytes() == net.running.tobytes()
    assert outcome(*fm.resume(path, X, LABELS, early_stopping=how["early_stopping"])) == expected


class Alarm(fm.Callback):
    """Sends a signal some seconds after the begin."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def on_train_begin(self, training: fm.callbacks.Training) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._seconds)


@pytest.mark.jit  # too slow without
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a signal at a given time")
# Python drops an interrupt that comes while a weak reference is cleaned up, as threads end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("size", [20, 1000])
def test_ctrl_c_at_any_moment(norm: str | None, size: int, tmp_path: Path) -> None:
    """In a pass, a shuffle, an evaluation or in Python: the state is that after a whole step."""
    rng = np.random.default_rng(0)
    many, labels = rng.normal(size=(9000, 6)).astype(np.float32), rng.integers(0, 3, 9000)
    how: How = {"batch_size": size, "validation": 0.5, "accumulate": 2, "threads": 1}
    how["early_stopping"] = fm.EarlyStopping(patience=9)  # the network gets back the best

    def net() -> fm.MLP:
        return network(norm=norm, dropout=0.1)

    whole, path = net(), tmp_path / "run"
    history = fm.fit(whole, many, labels, epochs=4, **how)
    expected, interrupted = outcome(whole, history), 0
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for delay in np.geomspace(0.001, history.seconds, 6):
            watchers = [fm.Checkpoint(path, every_epochs=100), Alarm(delay)]
            try:
                part = fm.fit(net(), many, labels, epochs=4, callbacks=watchers, **how)
            except KeyboardInterrupt:  # in what goes after the training itself
                continue
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            interrupted += part.interrupted
            assert outcome(*fm.resume(path, many, labels, threads=1)) == expected
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert interrupted > 0


@pytest.mark.jit
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each life")
def test_killed_at_random_moments() -> None:
    """Set FASTMLP_TEST_KILLS to have more than a few; run tests/kill_and_resume.py alone for 50."""
    kills = os.environ.get("FASTMLP_TEST_KILLS", "4")
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run(
        [sys.executable, script, kills], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["kills"] >= int(kills)
    assert results["different"] == 0 < results["trainings"]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"every_epochs": 0}, ValueError),
        ({"every_batches": 1.5}, TypeError),
        ({"every_seconds": 0}, ValueError),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        fm.Checkpoint("run", **settings)


def test_lbfgs_has_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="callbacks is of no use to LBFGS"):
        fm.fit(network(), X, LABELS, optimizer=fm.LBFGS(), callbacks=[fm.Checkpoint("run")])


def test_fewer_epochs_than_are_done(tmp_path: Path) -> None:
    X, y = np.zeros((8, 2)), np.arange(8) % 2
    fm.fit(fm.MLP([2, 2]), X, y, epochs=3, callbacks=[fm.Checkpoint(tmp_path / "run")])
    with pytest.raises(ValueError, match=r"epochs must be at least the 3 that .* has done, got 2"):
        fm.resume(tmp_path / "run", X, y, epochs=2)
    assert len(fm.resume(tmp_path / "run", X, y, epochs=3)[1]) == 3
