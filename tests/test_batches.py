"""Training from batches: the bits of the same batches in memory; errors say what is wrong."""

import functools
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import Case, random_case

import fastmlp as fm
from fastmlp import _stream

Batches = list[tuple[Any, ...]]
RNG = np.random.default_rng(0)
FEATURES, CLASSES = 6, 3
X = RNG.normal(size=(200, FEATURES)).astype("f4")
Y = RNG.integers(0, CLASSES, 200)


def cut(*arrays: Any, size: int = 32) -> Batches:
    """The arrays in batches; the last one may be smaller."""
    given = [a for a in arrays if a is not None]
    return [tuple(a[i : i + size] for a in given) for i in range(0, len(arrays[0]), size)]


def classifier(**options: Any) -> fm.MLP:
    return fm.MLP([FEATURES, 8, CLASSES], **{"activation": "tanh", "seed": 1, **options})


def outcome(net: fm.MLP, history: fm.History) -> tuple[bytes, bytes, str]:
    return net.theta.tobytes(), net.running.tobytes(), str(history)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("fastmlp"):
            thread.join(5)  # a member of a team has said that it is done a moment before it is gone
            assert not thread.is_alive()


# The same bits

OPTIMIZERS = [
    *(fm.SGD(0.01), fm.SGD(0.01, momentum=0.9), fm.SGD(0.01, momentum=0.9, nesterov=True)),
    *(fm.Adagrad(), fm.RMSProp(0.001), fm.Adam(), fm.AdamW(), fm.NAdam()),
    *(fm.Adam(fm.schedules.Cosine(0.01)), fm.Adam(fm.schedules.Step(0.01, every=2))),
]
CLIPS: list[dict[str, float]] = [
    {},
    {"clip_value": 0.1},
    {"clip_norm": 0.1},
    {"clip_global_norm": 0.1},
]


@pytest.mark.jit  # without the compiler there is one thread
@pytest.mark.parametrize("seed", range(60))
def test_same_bits_as_in_memory(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    dtype = ["float32", "float64"][seed % 2]
    rows = int(rng.choice([1, 9, 40, 600]))
    size = int(rng.choice([1, 7, 32, 300])) if rows < 100 else int(rng.choice([64, 300]))
    settings: dict[str, Any] = {
        "optimizer": OPTIMIZERS[rng.integers(len(OPTIMIZERS))],
        "accumulate": int(rng.integers(1, 4)),
        "average": [None, 0.9][rng.integers(2)],
        **CLIPS[rng.integers(len(CLIPS))],
    }

    def trained(train: Callable[[Case], fm.History]) -> tuple[bytes, bytes, str]:
        case = random_case(seed, dtype=dtype, rows=rows)
        return outcome(case.net, train(case))

    def in_memory(case: Case) -> fm.History:
        options = {"epochs": 2, "validation": (case.X, case.y), **settings}
        return fm.fit(case.net, **case.samples, batch_size=size, shuffle=False, **options)

    def streamed(case: Case, threads: int) -> fm.History:
        batches = cut(case.X, case.y, case.sample_weight, size=size)
        options = {"epochs": 2, "validation": (case.X, case.y), **settings}
        return fm.fit(case.net, batches=batches, threads=threads, **options)

    expected = trained(in_memory)
    for buffer, threads in ((1, 1), (3000, 1 + seed % 3)):  # a step at a time, or several
        monkeypatch.setattr(_stream, "BUFFER_BYTES", buffer)
        assert trained(functools.partial(streamed, threads=threads)) == expected


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ([7, 3, 30, 30, 1, 64, 64, 300, 2], {}),
        ([300, 700, 8], {"clip_global_norm": 0.1}),
        ([7, 3, 30, 30, 1, 64], {"accumulate": 2}),
    ],
)
@pytest.mark.parametrize("network", [{}, {"norm": "batch"}, {"dropout": 0.2, "norm": "layer"}])
def test_batches_of_any_size(
    sizes: list[int], options: dict[str, Any], network: dict[str, Any]
) -> None:
    """Each is a step of its own: one that `fit` makes of it in memory, with its moments kept."""
    if "accumulate" in options and network.get("norm") == "batch":
        pytest.skip("batch norm wants batches of one size then")
    x = RNG.normal(size=(sum(sizes), FEATURES)).astype("f4")
    y = RNG.integers(0, CLASSES, len(x))
    ends = np.cumsum(sizes)
    batches = [(x[end - n : end], y[end - n : end]) for n, end in zip(sizes, ends, strict=True)]
    results = set()
    for threads, buffer in ((1, 1), (1, 2**24), (2, 5000), (3, 2**24)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_stream, "BUFFER_BYTES", buffer)
            net = classifier(**network)
            history = fm.fit(net, batches=batches, epochs=2, threads=threads, **options)
        results.add(outcome(net, history))
    assert len(results) == 1
    plain = classifier(**network)
    for x_part, y_part in batches:
        fm.fit(plain, x_part, y_part, batch_size=None, optimizer=fm.SGD(0.1), epochs=1)
    net = classifier(**network)
    if not options and "dropout" not in network:  # masks depend on the step's number
        fm.fit(net, batches=batches, optimizer=fm.SGD(0.1), epochs=1)
        assert np.array_equal(net.theta, plain.theta)


# What gives batches


class Again:
    """Begins anew each time, and has a length or not."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._batches)


SOURCES: dict[str, Callable[[Batches], Any]] = {
    "a list": list,
    "a tuple": tuple,
    "an iterable without a length": Again,
    "a function": lambda batches: lambda: iter(batches),
    "a generator function": lambda batches: lambda: (batch for batch in batches),
    "lists as batches": lambda batches: [list(batch) for batch in batches],
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources(source: str) -> None:
    expected = classifier()
    history = fm.fit(expected, X, Y, batch_size=32, shuffle=False, epochs=2)
    net = classifier()
    assert str(fm.fit(net, batches=SOURCES[source](cut(X, Y)), epochs=2)) == str(history)
    assert np.array_equal(net.theta, expected.theta)


def test_a_generator_is_good_for_one_epoch() -> None:
    expected, net = classifier(), classifier()
    fm.fit(expected, X, Y, batch_size=32, shuffle=False, epochs=1)
    fm.fit(net, batches=(batch for batch in cut(X, Y)), epochs=1)
    assert np.array_equal(net.theta, expected.theta)


@pytest.mark.parametrize("workers", [0, 1])
def test_dataloader(workers: int) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    # a loader that forks has no place beside threads
    how = {"num_workers": 1, "multiprocessing_context": "spawn"} if workers else {}
    loader = DataLoader(data, batch_size=32, **how)
    expected, net = classifier(), classifier()
    fm.fit(expected, X, Y, batch_size=32, shuffle=False, epochs=1)
    fm.fit(net, batches=loader, optimizer=fm.Adam(fm.schedules.Constant(1e-3)), epochs=1)
    assert np.array_equal(net.theta, expected.theta)


def test_frames_as_batches() -> None:
    pd = pytest.importorskip("pandas")
    expected, net = classifier(), classifier()
    fm.fit(expected, X, Y, batch_size=32, shuffle=False, epochs=1)
    fm.fit(net, batches=[(pd.DataFrame(x), pd.Series(y)) for x, y in cut(X, Y)], epochs=1)
    assert np.array_equal(net.theta, expected.theta)


# What goes on around it


def test_early_stopping_and_callbacks_see_each_epoch() -> None:
    seen = []
    rule = fm.EarlyStopping("val_loss", patience=2)
    options: dict[str, Any] = {
        "epochs": 60,
        "validation": (X, (Y + 1) % CLASSES),
        "early_stopping": rule,
        "optimizer": fm.Adam(0.05),
    }
    expected, net = classifier(), classifier()
    in_memory = fm.fit(expected, X, Y, batch_size=32, shuffle=False, **options)
    history = fm.fit(
        net, batches=cut(X, Y), callbacks=[lambda training: seen.append(training.epoch)], **options
    )
    assert history.stopped_early
    assert history.best_epoch == in_memory.best_epoch
    assert outcome(net, history) == outcome(expected, in_memory)
    assert seen == list(range(1, len(history) + 1))


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("every", [1, 3, 7, 10])
def test_callbacks_see_steps(every: int, has_length: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an epoch of seven steps, whatever lies in a buffer."""
    monkeypatch.setattr(_stream, "BUFFER_BYTES", 3000)

    class Note(fm.callbacks.Callback):
        def __init__(self) -> None:
            self.every = every
            self.seen: list[Any] = []

        def on_batch_end(self, training: fm.callbacks.Training) -> None:
            theta = training.net.theta.tobytes()
            place = training.epoch, training.batch, training.step, training.learning_rate
            self.seen.append((*place, theta))

        def on_epoch_end(self, training: fm.callbacks.Training) -> None:
            self.seen.append(training.epoch)

    in_memory, streamed = Note(), Note()
    optimizer = fm.SGD(fm.schedules.InverseScaling(0.1))
    options: dict[str, Any] = {"epochs": 3, "optimizer": optimizer, "validation": (X, Y)}
    fm.fit(classifier(), X, Y, batch_size=32, shuffle=False, callbacks=[in_memory], **options)
    batches = cut(X, Y) if has_length else Again(cut(X, Y))
    fm.fit(classifier(), batches=batches, callbacks=[streamed], **options)
    assert streamed.seen == in_memory.seen


def test_callbacks_see_steps_of_epochs_that_grow() -> None:
    """What an epoch had says nothing of the next one."""

    class Note(fm.callbacks.Callback):
        every = 3

        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []

        def on_batch_end(self, training: fm.callbacks.Training) -> None:
            self.seen.append((training.epoch, training.step))

    lengths, note = iter([1, 3, 7]), Note()
    fm.fit(classifier(), batches=lambda: cut(X, Y)[: next(lengths)], epochs=3, callbacks=[note])
    assert note.seen == [(1, 3), (2, 6), (2, 9)]


@pytest.mark.parametrize("schedule", ["Cosine", "Step"])
@pytest.mark.parametrize("stop", [1, 4, 7, 9])
@pytest.mark.parametrize("every", [{}, {"every_batches": 1}, {"every_batches": 5}])
def test_resume(every: dict[str, int], stop: int, schedule: str, tmp_path: Path) -> None:
    """The steps of the running epoch that are done are skipped."""

    class Stop(fm.callbacks.Callback):
        every = stop

        def on_batch_end(self, training: fm.callbacks.Training) -> None:
            training.stop()

    path = tmp_path / "run.safetensors"
    rate = {"Cosine": fm.schedules.Cosine(0.01), "Step": fm.schedules.Step(0.01, every=1)}[schedule]
    batches: Any = cut(X, Y) if schedule == "Cosine" else Again(cut(X, Y))
    options: dict[str, Any] = {"epochs": 3, "optimizer": fm.Adam(rate), "validation": (X, Y)}
    expected, net = classifier(dropout=0.2), classifier(dropout=0.2)
    history = fm.fit(expected, batches=batches, **options)
    fm.fit(net, batches=batches, callbacks=[fm.Checkpoint(path, **every), Stop()], **options)
    resumed, found = fm.resume(path, batches=batches, validation=(X, Y))
    assert outcome(resumed, found) == outcome(expected, history)
    with pytest.raises(ValueError, match="it was trained on batches"):
        fm.resume(path, X, Y, validation=(X, Y))


def test_schedules_of_batches_without_a_length() -> None:
    """Those that count epochs learn in the first one how many steps an epoch has."""
    for schedule in (
        fm.schedules.Step(0.05, every=1, factor=0.5),
        fm.schedules.Cosine(0.05, steps=12),
        fm.schedules.WarmUp(fm.schedules.Exponential(0.05, 0.5), steps=9),
        fm.schedules.ReduceOnPlateau(0.5, patience=0, min_delta=1.0, monitor="loss"),
        lambda step: 0.1 / (1 + step),
    ):
        expected, net = classifier(), classifier()
        options: dict[str, Any] = {"optimizer": fm.SGD(schedule), "epochs": 3}
        fm.fit(expected, X, Y, batch_size=32, shuffle=False, **options)
        fm.fit(net, batches=Again(cut(X, Y)), **options)
        assert np.array_equal(net.theta, expected.theta)


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    fm.fit(classifier(), batches=cut(X, Y), epochs=2, progress=True)
    fm.fit(classifier(), batches=Again(cut(X, Y)), epochs=2, progress=True)
    assert capsys.readouterr().err.count("epoch 2/2  loss") == 2


def test_divergence_names_epoch_and_step() -> None:
    batches = cut(X, Y)
    net = classifier(activation="relu")
    with pytest.raises(fm.DivergenceError) as caught:
        fm.fit(net, batches=batches, optimizer=fm.SGD(1e30), epochs=5)
    expected = classifier(activation="relu")
    with pytest.raises(fm.DivergenceError) as in_memory:
        fm.fit(expected, X, Y, shuffle=False, optimizer=fm.SGD(1e30), epochs=5)
    for name in ("epoch", "step", "layer"):
        assert getattr(caught.value, name) == getattr(in_memory.value, name)
    assert np.isfinite(net.theta).all()


def test_an_error_of_the_iteration_is_raised_with_its_traceback() -> None:
    def broken() -> Iterator[Any]:
        yield from cut(X, Y)
        raise OSError("the disk is gone")

    net, expected = classifier(), classifier()
    with pytest.raises(OSError, match="the disk is gone") as caught:
        fm.fit(net, batches=broken(), epochs=1)
    assert "in broken" in "".join(traceback.format_tb(caught.value.__traceback__))
    fm.fit(expected, X, Y, shuffle=False, epochs=1)
    assert np.array_equal(net.theta, expected.theta)  # what was trained before is kept


def test_an_interrupted_iteration_keeps_what_is_learnt() -> None:
    def interrupted() -> Iterator[Any]:
        yield from cut(X, Y)
        raise KeyboardInterrupt

    net, expected = classifier(), classifier()
    history = fm.fit(net, batches=interrupted(), epochs=1)
    assert history.interrupted
    assert len(history) == 0
    fm.fit(expected, X, Y, shuffle=False, epochs=1)
    assert np.array_equal(net.theta, expected.theta)


@pytest.mark.parametrize("buffer", [1, 10_000])  # both are trained on before that batch
def test_ctrl_c(buffer: int, ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stream, "BUFFER_BYTES", buffer)
    given = 0

    def endless() -> Iterator[Any]:
        nonlocal given
        while True:
            given += 1
            if given == 100:
                ctrl_c()
            yield X[:32], Y[:32]

    net = classifier()
    assert fm.fit(net, batches=endless(), epochs=1).interrupted
    assert np.isfinite(net.theta).all()
    assert not np.array_equal(net.theta, classifier().theta)


# What is refused: (arguments, error, words); the network stays as it was

BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "X too": ({"X": X, "y": Y}, ValueError, "batches excludes X, y and sample_weight"),
    "weights too": ({"sample_weight": Y}, ValueError, "batches excludes X, y and sample_weight"),
    "a share": ({"validation": 0.1}, ValueError, "validation must be (X, y) where batches are "),
    "no iterable": ({"batches": 3}, TypeError, "batches must be an iterable of (X, y), or a "),
    "a generator": (
        {"batches": iter(cut(X, Y)), "epochs": 2},
        ValueError,
        "batches is an iterator, which gives one epoch, epochs is 2",
    ),
    "none": ({"batches": []}, ValueError, "batches gave no batch in epoch 1"),
    "no pairs": ({"batches": [X]}, TypeError, "batch 1 must be (X, y) or (X, y, sample_weight)"),
    "four": ({"batches": [(X, Y, Y, Y)]}, ValueError, "batch 1 must be (X, y) or (X, y, samp"),
    "features": ({"batches": [(X[:, 1:], Y)]}, ValueError, "X of batch 1 must have shape (n, 6)"),
    "labels": ({"batches": [(X, Y + 1)]}, ValueError, "y of batch 1 must hold labels 0 to 2"),
    "nan": ({"batches": [(X * np.nan, Y)]}, ValueError, "X of batch 1 must be finite"),
    "negative weights": (
        {"batches": [(X, Y, -np.ones(len(X)))]},
        ValueError,
        "sample_weight of batch 1 must be at least 0",
    ),
    "full batches": (
        {"optimizer": fm.GradientDescent(0.1)},
        ValueError,
        "GradientDescent takes all samples in a step",
    ),
    "L-BFGS": ({"optimizer": fm.LBFGS()}, ValueError, "LBFGS takes all samples in a step"),
    "a schedule": (
        {"batches": Again(cut(X, Y)), "optimizer": fm.SGD(fm.schedules.Cosine(0.1))},
        ValueError,
        "needs the number of steps, and batches has no length",
    ),
    "one cycle": (
        {"batches": Again(cut(X, Y)), "optimizer": fm.SGD(fm.schedules.OneCycle(0.1))},
        ValueError,
        "needs the number of steps, and batches has no length",
    ),
    "early stopping": ({"early_stopping": fm.EarlyStopping()}, ValueError, "validation must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case: str) -> None:
    arguments, error, words = BAD[case]
    net = classifier()
    before = net.theta.tobytes()
    with pytest.raises(error) as caught:
        fm.fit(net, **{"batches": cut(X, Y), **arguments})
    assert words in str(caught.value)
    assert net.theta.tobytes() == before


def test_x_and_y_are_needed_without_batches() -> None:
    for arguments in ({}, {"X": X}, {"y": Y}):
        with pytest.raises(TypeError, match="must be given where there are no batches"):
            fm.fit(classifier(), **arguments)


def test_a_later_batch_that_is_wrong_has_its_number() -> None:
    batches = cut(X, Y)
    batches[4] = (X[:, :2], Y)
    with pytest.raises(ValueError, match=r"^X of batch 5 must have shape \(n, 6\)"):
        fm.fit(classifier(), batches=batches)


def test_a_source_that_is_exhausted() -> None:
    once = iter(cut(X, Y))
    with pytest.raises(ValueError, match="batches gave no batch in epoch 2"):
        fm.fit(classifier(), batches=lambda: once, epochs=2)


def test_batch_norm_accumulates_batches_of_one_size() -> None:
    net = classifier(norm="batch")
    fm.fit(net, batches=cut(X, Y, size=30), accumulate=3, epochs=2)
    batches = [(X[:30], Y[:30]), (X[:20], Y[:20]), (X[:30], Y[:30])]
    with pytest.raises(ValueError, match="batch 2 has 20 samples, the first one has 30"):
        fm.fit(net, batches=batches, accumulate=3, epochs=1)
