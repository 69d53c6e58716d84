"""Teams of threads: the same bits for any size, and none left behind when something goes wrong."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastmlp as fm
from fastmlp._execution import Batch, Execution, Procedure
from fastmlp.kernels import machine
from fastmlp.kernels import team as kernel_team
from fastmlp.progress import Progress
from fastmlp.threads import Team, resolve

pytestmark = pytest.mark.jit  # without the compiler there is one thread

Array = np.ndarray

TEAMS = [1, 2, 3, 5]  # more threads than most machines of continuous integration have cores


def problem(
    layer_sizes: list[int],
    samples: int,
    loss: str = "softmax_cross_entropy",
    dtype: str = "float32",
) -> tuple[fm.MLP, Array, Array]:
    rng = np.random.default_rng(4)
    names = ["softplus", "tanh", "relu", "sigmoid"]
    hidden = len(layer_sizes) - 2
    net = fm.MLP(layer_sizes, activation=names[:hidden], loss=loss, seed=2, dtype=dtype)
    X = rng.normal(size=(samples, layer_sizes[0])).astype(dtype)
    if net.is_classifier:
        return net, X, rng.integers(0, layer_sizes[-1], samples)
    return net, X, rng.normal(size=(samples, layer_sizes[-1])).astype(dtype)


def running() -> list[str]:
    """Names of the threads that this package has started and that have not ended."""
    return [t.name for t in threading.enumerate() if t.name.startswith("fastmlp-")]


def none_left(seconds: float = 5.0) -> bool:
    """Whether no thread is left, or ends within the time."""
    deadline = time.monotonic() + seconds
    while running() and time.monotonic() < deadline:
        time.sleep(0.005)
    return not running()


@pytest.fixture(autouse=True)
def no_thread_is_left_running() -> Iterator[None]:
    yield
    assert none_left(), running()


# The same bits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("samples", "batch_size", "epochs"), [(25, 1, 2), (90, 32, 3), (650, 300, 2), (700, None, 3)]
)
@pytest.mark.parametrize(
    "layer_sizes",
    [
        [50, 3],
        [5, 90],  # wide output: no rows of it are split between threads
        [40, 130, 3],
        [9, 40, 100],
        [9, 16, 64],
        [20, 17, 33, 10],
        [7, 65, 2, 130],
        [8, 33, 70, 48, 5],
    ],
)
def test_training(
    layer_sizes: list[int], samples: int, batch_size: int | None, epochs: int, dtype: str
) -> None:
    start, X, y = problem(layer_sizes, samples, dtype=dtype)
    others = X[: samples // 2] + 1, y[: samples // 2]
    runs = []
    for threads in TEAMS:
        net = start.clone()
        history = fm.fit(
            net,
            X,
            y,
            optimizer=fm.Adam(0.01),
            batch_size=batch_size,
            epochs=epochs,
            validation=others,
            threads=threads,
        )
        runs.append(
            (net.theta.tobytes(), history.loss, history.accuracy, history.val_loss, len(history))
        )
    assert runs[0][0] != start.theta.tobytes()
    assert all(run == runs[0] for run in runs)


@settings(max_examples=40, deadline=None)
@given(
    layer_sizes=st.lists(st.integers(1, 140), min_size=2, max_size=5),
    samples=st.integers(1, 300),
    batch_size=st.none() | st.integers(5, 400),
    loss=st.sampled_from(["softmax_cross_entropy", "squared_error"]),
    momentum=st.sampled_from([0.0, 0.9]),
    threads=st.integers(2, 6),
)
def test_training_of_any_network(
    layer_sizes: list[int],
    samples: int,
    batch_size: int | None,
    loss: str,
    momentum: float,
    threads: int,
) -> None:
    layer_sizes[-1] += 1
    alone, X, y = problem(layer_sizes, samples, loss)
    together = alone.clone()
    options: dict[str, Any] = {
        "optimizer": fm.SGD(1e-3, momentum),
        "batch_size": batch_size,
        "epochs": 2,
    }
    history = fm.fit(alone, X, y, threads=1, **options)
    same_history = fm.fit(together, X, y, threads=threads, **options)
    assert together.theta.tobytes() == alone.theta.tobytes()
    np.testing.assert_array_equal(same_history.loss, history.loss)  # NaN too, should it diverge


def test_more_threads_than_there_is_work_for() -> None:
    net, X, y = problem([2, 3, 2], 5)
    crowded = net.clone()
    fm.fit(net, X, y, epochs=2, threads=1)
    fm.fit(crowded, X, y, epochs=2, threads=20)
    assert crowded.theta.tobytes() == net.theta.tobytes()


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("layer_sizes", [[30, 90, 10], [30, 70, 50, 80]])
def test_threads_write_far_from_each_other(layer_sizes: list[int], threads: int) -> None:
    """What prefetchers fetch behind a thread's own part is not another's."""
    net, X, y = problem(layer_sizes, 40)
    samples = Batch.of(X, layer_sizes[-1], labels=y)
    execution = Execution(net, procedure=Procedure(20), samples=samples, threads=threads)
    execution.differentiate()  # in two passes: these use different buffers
    apart, shared = execution.team.plan.apart, execution.workspaces[0][0].shared
    assert shared.ctypes.data % machine.PAGE == apart * shared.itemsize % machine.PAGE == 0
    for part in shared[: threads * apart].reshape(threads, apart):
        written = np.flatnonzero(part)
        assert written[0] * shared.itemsize < machine.PAGE
        assert (apart - written[-1]) * shared.itemsize > machine.PREFETCHED


@pytest.mark.parametrize("layer_sizes", [[30, 4], [12, 50, 3], [12, 20, 30, 80]])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
def test_one_call_computations(
    monkeypatch: pytest.MonkeyPatch, loss: str, layer_sizes: list[int]
) -> None:
    """Gradients, predictions and evaluations of several micro-batches use many threads too."""
    net, X, y = problem(layer_sizes, 5 * machine.MICRO_BATCH + 3, loss)
    results = []
    for threads in TEAMS:
        monkeypatch.setenv("FASTMLP_NUM_THREADS", str(threads))
        mean_loss, gradient = net.loss_and_gradient(X, y)
        results.append(
            (
                mean_loss,
                gradient.flat.tobytes(),
                net.predict(X).tobytes(),
                net.decision_function(X).tobytes(),
                net.evaluate(X, y),
            )
        )
    assert all(result == results[0] for result in results)


def test_predictions_do_not_depend_on_the_other_rows() -> None:
    net, X, _ = problem([12, 50, 3], 2 * machine.MICRO_BATCH + 3)
    together = net.decision_function(X)
    for rows in (slice(0, 1), slice(250, 270), slice(-3, None)):
        assert net.decision_function(X[rows]).tobytes() == together[rows].tobytes()


# How many threads


def test_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTMLP_NUM_THREADS", raising=False)
    if hasattr(os, "sched_getaffinity"):
        assert resolve() == len(os.sched_getaffinity(0))
    assert resolve() >= 1
    assert resolve(7) == 7
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "3")
    assert resolve() == resolve(None) == 3
    assert resolve(7) == 7


@pytest.mark.parametrize("text", ["", "0", "-1", "2.5", "two", "1e1", "²", " "])
def test_resolve_refuses_the_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FASTMLP_NUM_THREADS", text)
    with pytest.raises(ValueError, match=r"FASTMLP_NUM_THREADS must be a whole number") as caught:
        resolve()
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("threads", "error"),
    [(0, ValueError), (-2, ValueError), (1.0, TypeError), ("2", TypeError), (True, TypeError)],
)
def test_resolve_refuses_the_argument(threads: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"threads must be .*, got ") as caught:
        resolve(threads)
    assert repr(threads) in str(caught.value)


def test_fit_uses_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def count(self: threading.Thread) -> None:
        started.append(self.name)
        start(self)

    net, X, y = problem([2, 3, 2], 5)
    fm.kernels.warmup("float32")
    monkeypatch.setattr(threading.Thread, "start", count)
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "3")
    fm.fit(net, X, y, epochs=1)
    assert started == ["fastmlp-0", "fastmlp-1", "fastmlp-2"]
    fm.fit(net, X, y, epochs=1, threads=2)
    assert started[3:] == ["fastmlp-0", "fastmlp-1"]


# Many callers


def test_concurrent_callers() -> None:
    start, X, y = problem([20, 40, 3], 600)

    def train(seed: int) -> bytes:
        net = start.clone()
        fm.fit(net, X[:200], y[:200], batch_size=32, epochs=2, threads=2, seed=seed)
        return net.theta.tobytes()

    def predict(seed: int) -> bytes:
        return start.decision_function(X[seed:]).tobytes()

    def differentiate(seed: int) -> bytes:
        return start.loss_and_gradient(X[seed:], y[seed:])[1].flat.tobytes()

    tasks = [(task, seed) for seed in range(8) for task in (train, predict, differentiate)]
    expected = [task(seed) for task, seed in tasks]
    assert len(set(expected)) == len(expected)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda task: task[0](task[1]), tasks))
    assert results == expected


SCRIPT_OF_CHILDREN = """
import faulthandler
import hashlib
import multiprocessing

import numpy as np

import fastmlp as fm


def train(_):
    faulthandler.dump_traceback_later(60, exit=True)
    net = fm.MLP([6, 20, 3], seed=1)
    X, y = np.linspace(-1, 1, 600).reshape(100, 6), np.arange(100) % 3
    fm.fit(net, X, y, epochs=2, threads=2, validation=0.2)
    net.predict(np.tile(X, (6, 1)))
    faulthandler.cancel_dump_traceback_later()
    return hashlib.sha256(net.theta.tobytes()).hexdigest()


if __name__ == "__main__":
    here = train(0)  # the parent has had threads of its own
    for method in METHODS:
        with multiprocessing.get_context(method).Pool(2) as pool:
            results = pool.map_async(train, range(3), chunksize=1).get(timeout=90)
        assert results == [here] * 3, method
        print(method, "ok")
"""


def test_child_processes(tmp_path: Path) -> None:
    """In a process of its own: a fork of this one, which has had other threads, is not at issue."""
    methods = multiprocessing.get_all_start_methods()
    script = tmp_path / "children.py"
    script.write_text(SCRIPT_OF_CHILDREN.replace("METHODS", repr(methods)))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"{method} ok" for method in methods]


# When something goes wrong


def test_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    net, X, y = problem([4, 9, 3], 40)
    fm.kernels.warmup("float32")
    before = net.theta.tobytes()
    start, started = threading.Thread.start, []

    def fail(self: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            fm.fit(net, X, y, epochs=3, threads=3)
    assert len(started) == 1
    assert none_left()
    assert net.theta.tobytes() == before
    assert len(fm.fit(net, X, y, epochs=3, threads=3)) == 3


def test_error_while_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the progress bar raises ends the run and reaches the caller."""
    net, X, y = problem([4, 9, 3], 400_000)  # whose epoch takes longer than a look
    calls = []

    def fail(self: Progress, *_: Any) -> None:
        calls.append(running())
        raise BrokenPipeError("nobody listens")

    monkeypatch.setattr(Progress, "update", fail)
    with pytest.raises(BrokenPipeError, match="nobody listens"):
        fm.fit(net, X, y, batch_size=2, epochs=10**6, threads=2, progress=True)
    assert calls == [["fastmlp-0", "fastmlp-1"]]
    assert not running()
    assert np.isfinite(net.theta).all()


SCRIPT_OF_FAILURE = """
import threading

import numpy as np

import fastmlp as fm
from fastmlp import _execution

allocate, lock, count = _execution.aligned_zeros, threading.Lock(), 0


def fail(*arguments):
    global count
    with lock:
        count += 1
        if count == failing:
            raise MemoryError("no room")
    return allocate(*arguments)


X, y = np.ones((40, 4)), [0] * 40
net = fm.MLP([4, 9, 3])
before = net.theta.copy()
_execution.aligned_zeros = fail
failures = 0
while failures < 100:
    failing, count = failures + 1, 0
    try:
        fm.fit(net, X, y, epochs=1, threads=2, validation=(X, y))
    except MemoryError as error:
        assert str(error) == "no room"
        assert np.array_equal(net.theta, before)
        failures += 1
    else:
        break
print(failures, "failures")
"""


def test_lack_of_memory() -> None:
    """Wherever an allocation fails, the run ends: no thread waits for one that has gone."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT_OF_FAILURE], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    failures, _ = done.stdout.split()
    assert 4 <= int(failures) < 100


# Ctrl-C


def test_interruption_at_any_line() -> None:
    """A signal reaches the main thread between two lines: no thread stays behind at any of them."""
    lines: list[int] = []
    leaks: list[int] = []
    for count in range(1, 1000):
        state = np.zeros(kernel_team.LENGTH, np.int64)
        release = threading.Event()
        looks: list[None] = []

        def work(_: int, state: Array = state, release: threading.Event = release) -> None:
            while not state[kernel_team.STOP] and not release.is_set():
                time.sleep(0.001)

        def watch(release: threading.Event = release, looks: list[None] = looks) -> None:
            looks.append(None)
            if len(looks) == 2:
                release.set()

        def trace(frame: Any, event: str, _: Any, count: int = count) -> Any:
            if frame.f_code.co_filename != sys.modules["fastmlp.threads"].__file__:
                return None
            if event == "line":
                lines.append(frame.f_lineno)
                if len(lines) == count:
                    raise KeyboardInterrupt
            return trace

        lines.clear()
        team = Team(work, 2, state)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            finished = team.run(watch)
        except KeyboardInterrupt:
            finished = False
        finally:
            sys.settrace(before)
        if not none_left(2.0):
            leaks.append(lines[-1])
            release.set()
            team._open_gates()
            assert none_left()
        if len(lines) < count:
            break
        assert not finished
    assert finished
    assert 20 < count < 999
    assert not leaks, f"threads stay behind after Ctrl-C at lines {leaks} of threads.py"


CASES: dict[str, dict[str, Any]] = {
    "mini-batches, 1 thread": {"threads": 1, "batch_size": 32},
    "mini-batches, 3 threads": {"threads": 3, "batch_size": 32},
    "long steps, 1 thread": {"threads": 1, "batch_size": 256, "hidden": [900, 900]},
    "long steps, 2 threads": {"threads": 2, "batch_size": 256, "hidden": [900, 900]},
    "full batch, 1 thread": {"threads": 1, "batch_size": None},
    "full batch, 3 threads": {"threads": 3, "batch_size": None},
    "full batch of one pass, 3 threads": {"threads": 3, "batch_size": None, "samples": 200},
    "validation, 3 threads": {"threads": 3, "batch_size": None, "samples": 40, "validation": 9000},
    "progress, 2 threads": {"threads": 2, "batch_size": 32, "progress": True, "samples": 20_000},
}

SCRIPT_OF_INTERRUPTION = """
import json, signal, sys, threading, time
import numpy as np
import fastmlp as fm

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
rng = np.random.default_rng(0)
fm.kernels.warmup("float32")


def tell_when_it_runs():
    while not any(thread.name == "fastmlp-0" for thread in threading.enumerate()):
        time.sleep(0.001)
    time.sleep(0.2)
    print("running", flush=True)


for case in json.loads(sys.argv[1]):
    n = case.pop("samples", 1700)
    X, y = rng.normal(size=(n, 30)).astype(np.float32), rng.integers(0, 4, n)
    start = fm.MLP([30, *case.pop("hidden", [60]), 4], activation="tanh", seed=1)
    options = {"optimizer": fm.SGD(0.01), "shuffle": False, **case}
    if "validation" in case:
        m = case["validation"]
        options["validation"] = rng.normal(size=(m, 30)), rng.integers(0, 4, m)
    net = start.clone()
    threading.Thread(target=tell_when_it_runs).start()
    history = fm.fit(net, X, y, epochs=10**6, **options)
    ended = time.monotonic()
    left = net.theta.copy()
    time.sleep(0.1)

    # the same steps again: first the finished epochs, then the part of the last one
    again, options = start.clone(), {**options, "progress": False}
    loss = []
    if len(history):
        loss = fm.fit(again, X, y, epochs=len(history), **options).loss
    more = round(history.samples_per_second * history.seconds) - len(history) * n
    if more:
        fm.fit(again, X[:more], y[:more], epochs=1, **options)
    print(json.dumps({
        "ended": ended,
        "interrupted": history.interrupted,
        "epochs": len(history),
        "finite": bool(np.isfinite(net.theta).all()),
        "changed": bool((net.theta != start.theta).any()),
        "left alone": net.theta.tobytes() == left.tobytes(),
        "same bits": again.theta.tobytes() == net.theta.tobytes(),
        "same losses": loss == history.loss,
        "lengths": [len(history.loss), len(history.accuracy), len(history.val_loss)],
        "threads": [t.name for t in threading.enumerate() if t.name.startswith("fastmlp-")],
    }), flush=True)
"""


@pytest.fixture(scope="module")
def interruptions() -> dict[str, Any]:
    """What came out of each case, in one process that is sent SIGINT in the middle of each run."""
    results = {}
    command = [sys.executable, "-c", SCRIPT_OF_INTERRUPTION, json.dumps(list(CASES.values()))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        killer = threading.Timer(120.0, child.kill)
        killer.start()
        try:
            for name in CASES:
                if child.stdout.readline() != "running\n":
                    break
                sent = time.monotonic()
                child.send_signal(signal.SIGINT)
                results[name] = json.loads(child.stdout.readline() or "{}")
                results[name]["seconds"] = results[name].get("ended", np.inf) - sent
        finally:
            killer.cancel()
            child.stdout.close()
            errors = child.stderr.read()
    assert len(results) == len(CASES), errors
    assert child.returncode == 0, errors
    return results


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to another process")
@pytest.mark.parametrize("case", CASES)
def test_interruption(interruptions: dict[str, Any], case: str) -> None:
    result = interruptions[case]
    print(f"{case}: stopped {1e3 * result['seconds']:.0f} ms after the signal")
    assert result["interrupted"]
    assert result["seconds"] < 2.0  # some milliseconds, unless the machine has other things to do
    assert result["finite"]
    assert result["changed"]
    assert result["left alone"]  # nobody goes on after `fit` has returned
    assert result["same losses"]
    assert result["same bits"]  # the parameters are those after the last whole step
    assert result["lengths"] == [result["epochs"]] * 2 + [
        result["epochs"] if "validation" in CASES[case] else 0
    ]
    assert result["threads"] == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a signal at a given time")
def test_interrupted_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    net, X, _ = problem([16, 1024, 1024, 4], 20_000)
    fm.kernels.warmup("float32")
    before = net.theta.tobytes()
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "1")
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            net.predict(X)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)
    assert none_left(2.0)
    assert net.theta.tobytes() == before
