"""Training from a memory map: the bits of an array in memory, and nothing left behind."""

import gc
import mmap
import os
import platform
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp import _readahead
from fastmlp._checks import check_inputs
from fastmlp._direct import CALLS, EVENT, DirectRows, MappedFile
from fastmlp._readahead import AdvisedRows, HeldRows, ShuffledRows, reader_of
from fastmlp.training import Settings, train

pytestmark = pytest.mark.skipif(
    not hasattr(mmap.mmap, "madvise"), reason="this system takes no advice on memory"
)
SAMPLES, FEATURES = 3_000, 50


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    gc.collect()  # a map has its file open, also those of earlier tests
    threads, files = threading.active_count(), _open_files()
    yield
    gc.collect()
    assert threading.active_count() <= threads
    assert _open_files() <= files


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


@pytest.fixture
def inputs() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(SAMPLES, FEATURES)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path, inputs: np.ndarray) -> Path:
    np.save(tmp_path / "X.npy", inputs)
    return tmp_path / "X.npy"


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """No memory map is in memory; the readers that are made."""
    made: list[type] = []

    def recorded(array: np.ndarray) -> Any:
        reader = reader_of(array)
        made.append(type(reader))
        return reader

    monkeypatch.setattr(MappedFile, "is_in_memory", lambda self, rows: False)
    monkeypatch.setattr(_readahead, "reader_of", recorded)
    return made


@pytest.fixture(params=["direct", "advised"])
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """Direct reads where they can be had, or none."""
    if request.param == "direct":
        return DirectRows
    monkeypatch.setattr(DirectRows, "of", lambda file, array: None)
    return AdvisedRows


def mapped(path: Path, mode: Any = "r") -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode=mode)
    return array


def direct(path: Path) -> DirectRows:
    """Direct reads of a file, if the test's file system has them."""
    array = mapped(path)
    file = MappedFile.of(array)
    rows = None if file is None else DirectRows.of(file, array)
    if rows is None:
        pytest.skip("no direct reads here")
    return rows


def network(outputs: int | None = None, **options: Any) -> fm.MLP:
    loss = "softmax_cross_entropy" if outputs is None else "squared_error"
    return fm.MLP([FEATURES, 16, outputs or 3], loss=loss, seed=2, **options)


def trained(X: np.ndarray, y: np.ndarray | None = None, **options: Any) -> np.ndarray:
    net = network(None if y is None else y.shape[1], **options.pop("net", {}))
    y = np.arange(len(X)) % 3 if y is None else y
    weights = np.linspace(1, 2, len(X)) if options.pop("weighted", False) else None
    history = fm.fit(net, X, y, sample_weight=weights, **{"epochs": 3, **options})
    return np.concatenate([net.theta, net.running, history.loss, history.val_loss])


OPTIONS: list[dict[str, Any]] = [
    {},
    {"validation": 0.2},
    {"weighted": True, "batch_size": 7},
    {"batch_size": 700},
    {"batch_size": 100, "accumulate": 4, "net": {"norm": "batch"}},
    {"batch_size": 100, "accumulate": 4, "net": {"dropout": 0.2}},
    {"shuffle": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_same_bits_as_in_memory(
    path: Path, inputs: np.ndarray, options: dict[str, Any], reads: type, outside: list[type]
) -> None:
    X = mapped(path)
    assert np.array_equal(trained(X, **options), trained(inputs, **options))
    assert np.array_equal(trained(X[7:], **options), trained(inputs[7:], **options))
    assert bool(outside) == options.get("shuffle", True)
    assert reads is DirectRows or DirectRows not in outside


@pytest.mark.parametrize("mode", ["r+", "c"])
def test_what_was_written_to_the_map_counts(
    path: Path, inputs: np.ndarray, mode: str, outside: list[type]
) -> None:
    X = mapped(path, mode)
    X[::3] += 1
    inputs[::3] += 1
    assert np.array_equal(trained(X), trained(inputs))
    assert outside
    assert mode == "r+" or DirectRows not in outside  # it is not in the file


def test_targets_may_be_mapped(
    path: Path, inputs: np.ndarray, reads: type, outside: list[type]
) -> None:
    X = mapped(path)
    assert np.array_equal(trained(inputs, X), trained(inputs, inputs))
    assert np.array_equal(trained(X, X), trained(inputs, inputs))
    assert HeldRows in outside


def test_training_goes_on_within_an_epoch(
    path: Path, inputs: np.ndarray, outside: list[type]
) -> None:
    class Stop(fm.callbacks.Callback):
        every = 20

        def on_batch_end(self, training: Any) -> None:
            training.stop()

    y = np.arange(SAMPLES) % 3
    settings = Settings(epochs=2, batch_size=200, seed=3)
    net = network()
    state = train(net, mapped(path), y, settings, callbacks=[Stop()])
    assert state.position.samples == 20 * 200 - SAMPLES
    state = train(net, mapped(path), y, settings, state=state)
    whole = train(network(), inputs, y, settings)
    assert np.array_equal(state.theta, whole.theta)
    assert state.history.loss == whole.history.loss
    settings = replace(settings, epochs=3)
    assert train(net, mapped(path), y, settings, state=state).position.epochs == 3


def test_divergence(path: Path, outside: list[type]) -> None:
    with pytest.raises(fm.DivergenceError):
        trained(mapped(path), optimizer=fm.SGD(1e30))
    assert outside


def test_an_error_reaches_the_caller(
    path: Path, monkeypatch: pytest.MonkeyPatch, outside: list[type]
) -> None:
    def fail(self: HeldRows) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(HeldRows, "take", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        trained(mapped(path))


def test_who_is_read_ahead(path: Path, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    net, y = network(), np.arange(SAMPLES) % 3

    def rows(X: np.ndarray, **options: Any) -> ShuffledRows | None:
        procedure = Settings(**options).procedure(net, len(X))
        return ShuffledRows.of(net, net._checked(X, y, None), procedure)

    is_here = False
    monkeypatch.setattr(MappedFile, "is_in_memory", lambda self, rows: is_here)
    assert rows(mapped(path)) is not None
    assert rows(inputs) is None
    assert rows(mapped(path).astype(np.float64)) is None
    assert rows(mapped(path), shuffle=False) is None
    monkeypatch.setattr(_readahead, "LARGEST_STEP", 32 * (FEATURES * 4 + 8))
    assert rows(mapped(path), batch_size=32) is not None
    assert rows(mapped(path), batch_size=33) is None
    is_here = True
    assert (rows(mapped(path), batch_size=32) is None) == (platform.system() == "Linux")


def test_refused_advice_does_no_harm(
    path: Path, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = mapped(path)
    reader = AdvisedRows(array, _readahead._mapping_of(array))
    monkeypatch.setattr(mmap, "MADV_WILLNEED", 12345)
    reader.ask(np.array([3, 1]))
    assert np.array_equal(reader.take(), inputs[[3, 1]])
    reader.close()


@pytest.mark.parametrize("first", [0, 5])
def test_pages_of_rows(tmp_path: Path, first: int) -> None:
    """Of what is asked for, every range begins a page, and together they hold the rows alone."""
    row = mmap.PAGESIZE  # rows lie across pages, because of the file's header
    np.save(tmp_path / "bytes.npy", np.zeros((50, row), np.uint8))
    array = mapped(tmp_path / "bytes.npy")[first:]
    reader = AdvisedRows(array, _readahead._mapping_of(array))
    header = 128
    start = header + first * row
    runs = list(reader._runs(np.array([30, 2, 3, 31, 9])))
    for begin, _ in runs:
        assert begin % mmap.PAGESIZE == 0
    assert runs == [
        ((start + low * row) // row * row, start + (high + 1) * row)
        for low, high in ((2, 3), (9, 9), (30, 31))
    ]
    reader.close()


# Direct reads


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("features", [1, 50, 784, 5_000])
def test_rows_are_those_of_the_file(tmp_path: Path, features: int, dtype: str) -> None:
    rng = np.random.default_rng(features)
    array = rng.integers(1_000, size=(400, features)).astype(dtype)
    np.save(tmp_path / "X.npy", array)
    reader = direct(tmp_path / "X.npy")
    for _ in range(3):
        rows = rng.permutation(400)[: rng.integers(1, reader.count + 1)]
        reader.ask(rows)
        taken = reader.take()
        assert taken.dtype == array.dtype
        assert np.array_equal(taken, array[rows])
    reader.ask(rows)  # and never taken
    reader.close()


def test_a_file_that_was_cut_off(path: Path) -> None:
    reader = direct(path)
    os.truncate(path, 128 + 2_000 * FEATURES * 4 + 100)
    reader.ask(np.array([1_999]))
    reader.take()
    for row in (2_000, 2_900):
        reader.ask(np.array([5, row]))
        with pytest.raises(OSError, match=r"X\.npy ends within the rows"):
            reader.take()
    reader.close()


def test_an_error_of_the_disk(path: Path) -> None:
    reader = direct(path)
    reader.ask(np.arange(2))
    reader.take()
    events = np.zeros(2, EVENT)
    events["request"] = reader._requests.ctypes.data
    events["result"] = 4096, -5
    with pytest.raises(OSError, match=r"Input/output error.*X\.npy"):
        reader._check(events)
    reader.close()


def test_the_file_of_a_map(path: Path, inputs: np.ndarray) -> None:
    array = mapped(path)
    if platform.system() != "Linux" or platform.machine() not in CALLS:
        assert MappedFile.of(array) is None
        return
    file, part = MappedFile.of(array), MappedFile.of(array[7:])
    assert file is not None
    assert part is not None
    assert file.path == part.path == str(path)
    assert (file.offset, part.offset) == (128, 128 + 7 * FEATURES * 4)
    assert MappedFile.of(mapped(path, "c")) is None
    assert MappedFile.of(inputs) is None
    np.save(path.with_name("other.npy"), inputs)
    path.with_name("other.npy").replace(path)  # the map is of the file that had this name before
    assert MappedFile.of(array) is None
    path.unlink()
    assert MappedFile.of(array) is None


@pytest.mark.parametrize(
    ("error", "is_there"), [(None, True), (BlockingIOError(), False), (OSError("never"), True)]
)
def test_what_is_in_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None, is_there: bool
) -> None:
    file = MappedFile.of(mapped(path))
    if file is None:
        pytest.skip("the system does not tell the file of a map")
    asked = []

    def preadv(number: int, buffers: list[Any], offset: int, flags: int) -> int:
        asked.append(offset)
        if error is not None and len(asked) == 100:
            raise error
        return 1

    path.read_bytes()
    assert file.is_in_memory(SAMPLES)
    monkeypatch.setattr(os, "preadv", preadv)
    assert file.is_in_memory(SAMPLES) == is_there
    last = 128 + (SAMPLES - 1) * FEATURES * 4
    assert asked[0] == 128
    assert error is not None or asked[-1] == last


def test_checks_copy_nothing(path: Path) -> None:
    for mode in ("r", "r+", "c"):
        array = mapped(path, mode)
        assert np.shares_memory(check_inputs(array, FEATURES, array.dtype), array)
