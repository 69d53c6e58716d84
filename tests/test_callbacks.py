"""Callbacks: when they are called, what they see, and what those of the package do."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.callbacks import Training

RNG = np.random.default_rng(4)
X = RNG.normal(size=(50, 5)).astype(np.float32)
LABELS = RNG.integers(0, 3, 50)
HOW: dict[str, Any] = {"batch_size": 10, "epochs": 3, "threads": 1}  # five batches an epoch


def network(**options: Any) -> fm.MLP:
    return fm.MLP([5, 8, 3], seed=1, **options)


class Diary(fm.Callback):
    """Notes every call in a list that it may share with others."""

    def __init__(self, name: str, notes: list[str], every: int | None = None) -> None:
        self.name, self.notes, self.every = name, notes, every

    def note(self, what: str, training: Training) -> None:
        self.notes.append(f"{self.name} {what} {training.epoch}.{training.batch}")

    def on_train_begin(self, training: Training) -> None:
        self.note("begin", training)

    def on_epoch_end(self, training: Training) -> None:
        self.note("epoch", training)

    def on_batch_end(self, training: Training) -> None:
        self.note("batch", training)

    def on_train_end(self, training: Training) -> None:
        self.note("end", training)


def test_many_calls_without_a_look_at_the_epochs() -> None:
    class Counter(fm.Callback):
        every, calls = 1, 0

        def on_batch_end(self, training: Training) -> None:
            self.calls += 1

    counter = Counter()
    fm.fit(network(), X, LABELS, callbacks=[counter], batch_size=1, epochs=10, threads=1)
    assert counter.calls == 500


def test_order_of_calls() -> None:
    notes: list[str] = []
    watchers = [Diary("a", notes), Diary("b", notes, every=3), Diary("c", notes, every=5)]
    fm.fit(
        network(), X, LABELS, callbacks=watchers, batch_size=10, epochs=2, validation=(X, LABELS)
    )
    assert notes == [
        *("a begin 0.0", "b begin 0.0", "c begin 0.0"),
        *("b batch 0.3", "c batch 0.5", "a epoch 1.0", "b epoch 1.0", "c epoch 1.0"),
        *("b batch 1.1", "b batch 1.4", "c batch 1.5", "a epoch 2.0", "b epoch 2.0", "c epoch 2.0"),
        *("c end 2.0", "b end 2.0", "a end 2.0"),
    ]


@pytest.mark.parametrize("every", [1, 2, 5, 7, 15, 16])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_so_many_steps_and_nothing_changes(every: int, accumulate: int) -> None:
    how = {**HOW, "accumulate": accumulate, "validation": 0.1}
    net, watched = network(norm="batch", dropout=0.2), network(norm="batch", dropout=0.2)
    history = fm.fit(net, X, LABELS, **how)
    monitor = fm.LearningRateMonitor(every)
    other = fm.fit(watched, X, LABELS, callbacks=[monitor], **how)
    total = 3 * -(-5 // accumulate)
    assert monitor.steps == list(range(every, total + 1, every))
    assert watched.theta.tobytes() == net.theta.tobytes()
    assert watched.running.tobytes() == net.running.tobytes()
    assert (history.loss, history.accuracy) == (other.loss, other.accuracy)
    assert (history.val_loss, history.val_accuracy) == (other.val_loss, other.val_accuracy)


@pytest.mark.jit
def test_steps_on_a_memory_map(tmp_path: Path) -> None:
    """The thread that reads ahead goes home with the others, and comes again."""
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    net, watched = network(), network()
    fm.fit(net, X, LABELS, **HOW)
    monitor = fm.LearningRateMonitor(1)
    fm.fit(watched, mapped, LABELS, callbacks=[monitor], **HOW)
    assert len(monitor.steps) == 15
    assert watched.theta.tobytes() == net.theta.tobytes()


def test_what_a_callback_sees() -> None:
    seen: list[tuple[Any, ...]] = []

    class Look(fm.Callback):
        every = 2

        def on_batch_end(self, training: Training) -> None:
            theta = training.net.theta.copy()
            seen.append((training.step, training.learning_rate, len(training.history), theta))
            training.net.theta[...] = np.nan  # the training has parameters of its own

    rate = fm.schedules.Exponential(0.1, 0.5)
    net = network()
    how = {"optimizer": fm.SGD(rate), "shuffle": False, "batch_size": 10}
    history = fm.fit(net, X, LABELS, epochs=2, callbacks=[Look()], **how)
    assert [s[:3] for s in seen] == [
        *((2, 0.1, 0), (4, 0.1, 0)),
        *((6, 0.05, 1), (8, 0.05, 1), (10, 0.05, 1)),
    ]
    assert history.learning_rate == [0.1, 0.05]
    first_steps = network()
    fm.fit(first_steps, X[:20], LABELS[:20], epochs=1, **how)
    assert seen[0][3].tobytes() == first_steps.theta.tobytes()
    assert net.theta.tobytes() == seen[-1][3].tobytes()


@pytest.mark.parametrize("where", ["on_train_begin", "on_batch_end", "on_epoch_end"])
def test_stop(where: str) -> None:
    class Stop(fm.Callback):
        every = 7

    setattr(Stop, where, lambda self, training: training.stop())
    notes: list[str] = []
    net = network()
    history = fm.fit(net, X, LABELS, callbacks=[Stop(), Diary("d", notes, every=7)], **HOW)
    expected = {
        "on_train_begin": ["d begin 0.0", "d end 0.0"],
        "on_batch_end": ["d begin 0.0", "d epoch 1.0", "d batch 1.2", "d end 1.2"],
        "on_epoch_end": ["d begin 0.0", "d epoch 1.0", "d end 1.0"],
    }
    assert notes == expected[where]
    assert len(history) == (0 if where == "on_train_begin" else 1)
    assert history.stopped_early
    assert not history.interrupted
    assert (net.theta.tobytes() == network().theta.tobytes()) == (where == "on_train_begin")


def test_to_stop_after_the_last_epoch_is_not_early() -> None:
    history = fm.fit(network(), X, LABELS, callbacks=[lambda t: t.epoch == 3 and t.stop()], **HOW)
    assert not history.stopped_early


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["on_train_begin", "on_batch_end", "on_epoch_end"])
def test_what_a_callback_raises(where: str, error: type[BaseException]) -> None:
    """The caller gets it, or Ctrl-C ends the training; all that began come to an end."""

    class Fail(fm.Callback):
        every = 8

    def fail(self: Fail, training: Training) -> None:
        raise error("no")

    setattr(Fail, where, fail)
    notes: list[str] = []
    last: list[bytes] = []
    watchers = [
        Diary("a", notes, every=1),
        fm.LearningRateMonitor(1),
        Fail(),
        Diary("b", notes),
    ]

    class Keep(Diary):
        def on_batch_end(self, training: Training) -> None:
            last.append(training.net.theta.tobytes())

    watchers.insert(0, Keep("k", [], every=1))
    net = network()
    last.append(net.theta.tobytes())
    if error is RuntimeError:
        with pytest.raises(RuntimeError, match="no"):
            fm.fit(net, X, LABELS, callbacks=watchers, **HOW)
    else:
        assert fm.fit(net, X, LABELS, callbacks=watchers, **HOW).interrupted
    steps = {"on_train_begin": 0, "on_batch_end": 8, "on_epoch_end": 5}[where]
    assert len(last) == steps + 1
    assert net.theta.tobytes() == last[-1]
    assert notes[-1] == f"a end {steps // 5}.{steps % 5}"
    assert ("b end 0.0" in notes) == ("b begin 0.0" in notes and steps == 0)


def test_an_error_at_the_end_leaves_no_callback_out() -> None:
    class Fail(fm.Callback):
        def on_train_end(self, training: Training) -> None:
            raise RuntimeError("too late")

    notes: list[str] = []
    with pytest.raises(RuntimeError, match="too late"):
        fm.fit(network(), X, LABELS, callbacks=[Diary("a", notes), Fail()], **HOW)
    assert notes[-1] == "a end 3.0"


def test_divergence_is_told_at_the_end() -> None:
    ends: list[bool] = []

    class End(fm.Callback):
        def on_train_end(self, training: Training) -> None:
            ends.append(training.diverged and bool(np.isfinite(training.net.theta).all()))

    net = fm.MLP([5, 8, 3], loss="squared_error")
    with pytest.raises(fm.DivergenceError) as caught:
        fm.fit(
            net, X, RNG.normal(size=(50, 3)), optimizer=fm.SGD(1e30), callbacks=[End(), Every(2)]
        )
    assert ends == [True]
    assert caught.value.step > 1


class Every(fm.Callback):
    """Has the training come back after some steps."""

    def __init__(self, every: int) -> None:
        self.every = every


def test_early_stopping_has_looked_before_and_restored_before_the_end() -> None:
    best: list[int | None] = []
    thetas: list[bytes] = []

    class Look(fm.Callback):
        def on_epoch_end(self, training: Training) -> None:
            best.append(training.history.best_epoch)
            thetas.append(training.net.theta.tobytes())

        def on_train_end(self, training: Training) -> None:
            thetas.append(training.net.theta.tobytes())

    values = iter([3.0, 2.0, 4.0, 5.0])
    rule = fm.EarlyStopping(lambda net: next(values), patience=2)
    history = fm.fit(
        network(), X, LABELS, epochs=9, early_stopping=rule, callbacks=[Look()], batch_size=10
    )
    assert best == [1, 2, 2, 2]
    assert history.stopped_early
    assert thetas[-1] == thetas[1] != thetas[-2]


@pytest.mark.jit
def test_by_time() -> None:
    """After the step that is running, also within an epoch and where nobody else looks."""
    positions: list[tuple[int, int]] = []

    class Clock(fm.Callback):
        every_seconds = 0.05

        def on_batch_end(self, training: Training) -> None:
            positions.append((training.epoch, training.batch))

    rng = np.random.default_rng(0)
    big, labels = rng.normal(size=(20_000, 5)), rng.integers(0, 3, 20_000)
    net, alone = network(norm="batch"), network(norm="batch")
    how = {"batch_size": 2, "epochs": 3, "validation": 0.1, "threads": 1}
    history = fm.fit(net, big, labels, callbacks=[Clock()], **how)
    other = fm.fit(alone, big, labels, **how)
    assert net.theta.tobytes() == alone.theta.tobytes()
    assert net.running.tobytes() == alone.running.tobytes()
    assert (history.loss, history.val_loss) == (other.loss, other.val_loss)
    assert positions == sorted(set(positions))


def test_time_limit() -> None:
    history = fm.fit(network(), X, LABELS, epochs=10**6, callbacks=[fm.TimeLimit(0.1)])
    assert history.stopped_early
    assert 0.1 <= history.seconds < 10.0


@pytest.mark.jit  # too slow without
def test_target() -> None:
    how = {"optimizer": fm.Adam(0.02), "epochs": 500, "threads": 1}
    history = fm.fit(network(), X, LABELS, callbacks=[fm.TargetReached(0.9, "loss")], **how)
    assert history.loss[-1] <= 0.9 < min(history.loss[:-1])
    accuracy = fm.TargetReached(0.6, "accuracy")
    history = fm.fit(network(), X, LABELS, callbacks=[accuracy], **how)
    assert history.accuracy[-1] >= 0.6 > max(history.accuracy[:-1])
    with pytest.raises(ValueError, match=r"monitors 'val_loss', this training has loss, accuracy"):
        fm.fit(network(), X, LABELS, callbacks=[fm.TargetReached(0.1)])
    with pytest.raises(ValueError, match="monitor must be one of"):
        fm.TargetReached(0.1, "recall")


@pytest.mark.parametrize(
    ("every", "seconds", "error"),
    [(0, None, ValueError), (1.5, None, TypeError), (None, -1.0, ValueError)],
)
def test_bad_intervals(every: Any, seconds: Any, error: type[Exception]) -> None:
    callback = fm.Callback()
    callback.every, callback.every_seconds = every, seconds
    with pytest.raises(error, match="of Callback"):
        fm.fit(network(), X, LABELS, callbacks=[callback])


# Logs


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    seen: list[int] = []
    history = fm.fit(
        network(),
        X,
        LABELS,
        validation=0.2,
        callbacks=[fm.CSVLogger(path), lambda _: seen.append(len(rows_of(path)))],
        **HOW,
    )
    rows = rows_of(path)
    assert seen == [1, 2, 3]  # each as soon as it is over
    assert list(rows[0]) == [
        *("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
    ]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for name in ("loss", "val_accuracy", "learning_rate"):
        assert [float(row[name]) for row in rows] == getattr(history, name)


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    targets = RNG.normal(size=(50, 3))
    history = fm.fit(
        fm.MLP([5, 8, 3], loss="squared_error"),
        X,
        targets,
        validation=(X, 1e30 * targets),  # whose squares are infinite
        callbacks=[fm.JSONLinesLogger(path)],
        **HOW,
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["loss"] for row in rows] == history.loss
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["val_loss"] for row in rows] == [None] * 3
    assert "accuracy" not in rows[0]


@pytest.mark.parametrize("kind", [fm.CSVLogger, fm.JSONLinesLogger])
def test_logs_of_a_resumed_training(kind: Any, tmp_path: Path) -> None:
    """Epochs after the checkpoint come again, and a line that was cut off is gone."""

    def crash(training: Training) -> None:
        if training.epoch == 3:
            raise RuntimeError

    class Once(fm.Checkpoint):
        def on_train_end(self, training: Training) -> None: ...

    log, path = tmp_path / "log", tmp_path / "run"
    watchers = [Once(path, every_epochs=2), kind(log), crash]
    with pytest.raises(RuntimeError):
        fm.fit(network(), X, LABELS, batch_size=10, epochs=5, callbacks=watchers)
    assert len(log.read_text().splitlines()) == 3 + (kind is fm.CSVLogger)
    with open(log, "a") as file:
        file.write('{"epoch": 4, "lo')
    _, history = fm.resume(path, X, LABELS, callbacks=[kind(log)])
    lines = log.read_text().splitlines()
    if kind is fm.CSVLogger:
        rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    else:
        rows = [json.loads(line) for line in lines]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]
    assert [float(row["loss"]) for row in rows] == history.loss


def test_a_log_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("something else\n")
    fm.fit(network(), X, LABELS, epochs=1, callbacks=[fm.CSVLogger(path)])
    assert len(rows_of(path)) == 1


def test_tensorboard(tmp_path: Path) -> None:
    tensorboardX = pytest.importorskip("tensorboardX")
    history = fm.fit(
        network(), X, LABELS, validation=0.2, callbacks=[fm.TensorBoard(tmp_path)], **HOW
    )
    (file,) = tmp_path.iterdir()
    found: dict[str, list[float]] = {}
    content = file.read_bytes()
    while content:  # records: length, its checksum, an event, its checksum
        length = int.from_bytes(content[:8], "little")
        event = tensorboardX.proto.event_pb2.Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(value.simple_value)
        content = content[16 + length :]
    assert set(found) == {
        *("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
    }
    np.testing.assert_allclose(found["val_loss"], history.val_loss, rtol=1e-6)


def test_without_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'pip install "fastmlp\[tensorboard\]"'):
        fm.TensorBoard(tmp_path)


def test_norms_of_the_parameters() -> None:
    monitor, net = fm.LearningRateMonitor(), network()
    fm.fit(net, X, LABELS, callbacks=[monitor], **HOW)
    assert monitor.steps == [5, 10, 15]
    flat = np.concatenate([p.ravel() for p in (*net.weights, *net.biases)]).astype(np.float64)
    assert monitor.parameter_norms[-1] == pytest.approx(np.linalg.norm(flat), rel=1e-12)


def test_representation() -> None:
    """Settings as they are given, of a user's class too."""
    for text in (
        "Checkpoint(path='run', every_epochs=None, every_batches=5, every_seconds=None)",
        "CSVLogger(path='log.csv')",
        "LearningRateMonitor(every=None)",
        "TargetReached(target=0.5, monitor='loss')",
        "TimeLimit(seconds=2.0)",
    ):
        assert repr(eval(f"fm.{text}")) == text
    assert repr(fm.Callback()) == "Callback()"
    assert repr(Diary("one", [], every=3)) == "Diary(name='one', notes=[], every=3)"


def test_checkpoint_without_a_folder_fails_before_the_training(tmp_path: Path) -> None:
    net, checkpoint = network(), fm.Checkpoint(tmp_path / "none" / "run", every_epochs=100)
    before = net.theta.copy()
    with pytest.raises(FileNotFoundError, match=r"no folder for the checkpoint: '.*run'"):
        fm.fit(net, X, LABELS, callbacks=[checkpoint], **HOW)
    assert np.array_equal(net.theta, before)
