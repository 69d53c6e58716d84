"""Training from a memory map: the bits of an array in memory, advice given, nothing left behind."""

import mmap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp import _readahead
from fastmlp._checks import check_inputs
from fastmlp._readahead import MappedRows, read_ahead

pytestmark = pytest.mark.skipif(
    not hasattr(mmap.mmap, "madvise"), reason="this system takes no advice on memory"
)
SAMPLES, FEATURES = 3_000, 50


@pytest.fixture
def inputs() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(SAMPLES, FEATURES)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path, inputs: np.ndarray) -> Path:
    np.save(tmp_path / "X.npy", inputs)
    return tmp_path / "X.npy"


Advice = tuple[Any, ...]
TOUCH = "touch"


@pytest.fixture
def advice(monkeypatch: pytest.MonkeyPatch) -> list[Advice]:
    """What maps are told, in place of telling them: mmap's own method cannot be watched."""
    given: list[Advice] = []
    monkeypatch.setattr(MappedRows, "advise", lambda self, how: given.append((how,)))
    monkeypatch.setattr(
        MappedRows, "will_need", lambda self, rows: given.append((mmap.MADV_WILLNEED, *rows))
    )
    monkeypatch.setattr(MappedRows, "touch", lambda self, rows: given.append((TOUCH, *rows)))
    return given


def trained(X: np.ndarray, y: np.ndarray | None = None, **options: Any) -> np.ndarray:
    loss = "softmax_cross_entropy" if y is None else "squared_error"
    net = fm.MLP([FEATURES, 16, 3 if y is None else y.shape[1]], loss=loss, seed=2)
    y = np.arange(len(X)) % 3 if y is None else y
    fm.fit(net, X, y, **{"epochs": 3, **options})
    return net.theta


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("options", [{}, {"validation": 0.2}, {"shuffle": False}], ids=str)
def test_same_bits_as_in_memory(
    path: Path, inputs: np.ndarray, mode: Any, options: dict[str, Any]
) -> None:
    mapped = np.load(path, mmap_mode=mode)
    before = threading.active_count()
    assert np.array_equal(trained(mapped, **options), trained(inputs, **options))
    assert np.array_equal(trained(mapped[7:], **options), trained(inputs[7:], **options))
    assert threading.active_count() == before


def test_targets_may_be_mapped(path: Path, inputs: np.ndarray, advice: list[Advice]) -> None:
    mapped = np.load(path, mmap_mode="r")
    assert np.array_equal(trained(inputs, mapped), trained(inputs, inputs))
    assert (mmap.MADV_RANDOM,) in advice


def test_advice_is_given_and_taken_back(path: Path, advice: list[Advice]) -> None:
    trained(np.load(path, mmap_mode="r"), epochs=200)
    assert advice[0] == (mmap.MADV_RANDOM,)
    assert advice[-1] == (mmap.MADV_NORMAL,)
    assert any(how == mmap.MADV_WILLNEED for how, *_ in advice)


def test_advice_is_taken_back_after_divergence(path: Path, advice: list[Advice]) -> None:
    before = threading.active_count()
    with pytest.raises(fm.DivergenceError):
        trained(np.load(path, mmap_mode="r"), optimizer=fm.SGD(1e30))
    assert advice[-1] == (mmap.MADV_NORMAL,)
    assert threading.active_count() == before


def test_nothing_to_advise(path: Path, inputs: np.ndarray, advice: list[Advice]) -> None:
    trained(inputs)
    trained(np.load(path, mmap_mode="r"), shuffle=False)
    trained(np.load(path, mmap_mode="r").astype(np.float64))
    assert not advice


def test_refused_advice_does_no_harm(
    path: Path, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: MappedRows, how: int) -> None:
        raise OSError("no")

    monkeypatch.setattr(MappedRows, "advise", refuse)
    assert np.array_equal(trained(np.load(path, mmap_mode="r")), trained(inputs))


def test_each_row_is_asked_for_once_and_in_time(
    path: Path, advice: list[Advice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team that takes 100 rows between two looks, for two epochs of different order."""
    monkeypatch.setattr(_readahead, "WINDOW", 400 * FEATURES * 4)
    rows = MappedRows.of(np.load(path, mmap_mode="r"))
    assert rows is not None
    rng = np.random.default_rng(0)
    order = np.arange(SAMPLES)
    late = []

    def progress() -> Any:
        for _ in range(2):
            advice.clear()
            yield 0
            for _ in range(3):  # while the order is drawn
                rng.shuffle(order)
                yield 0
            yield 0
            for done in range(0, SAMPLES, 100):
                yield done
                yield done
                yield done
                asked, touched = (
                    [row for how, *rows in advice if how == kind for row in rows]
                    for kind in (mmap.MADV_WILLNEED, TOUCH)
                )
                late.append(set(order[: done + 100]) - set(touched))
                assert len(asked) == len(set(asked)) <= done + 401
                assert len(touched) == len(set(touched)) <= done + 201
                assert set(touched) <= set(asked)
            yield SAMPLES
            yield SAMPLES
            assert asked == order.tolist()
            assert advice[-1] == (mmap.MADV_NORMAL,)
        yield None

    steps = progress()
    read_ahead([rows], order, lambda: next(steps))
    assert not any(late)


@pytest.mark.parametrize("first", [0, 5])
def test_pages_of_rows(tmp_path: Path, first: int) -> None:
    """Of what is asked for, every range begins a page, and together they hold the rows alone."""
    row = mmap.PAGESIZE  # rows lie across pages, because of the file's header
    np.save(tmp_path / "bytes.npy", np.zeros((50, row), np.uint8))
    array = np.load(tmp_path / "bytes.npy", mmap_mode="r")[first:]
    mapped = MappedRows.of(array)
    assert mapped is not None
    header = 128
    start = header + first * row
    runs = list(mapped._runs(np.array([30, 2, 3, 31, 9])))
    for begin, _ in runs:
        assert begin % mmap.PAGESIZE == 0
    assert runs == [
        ((start + low * row) // row * row, start + (high + 1) * row)
        for low, high in ((2, 3), (9, 9), (30, 31))
    ]
    mapped.will_need(np.arange(len(array)))  # the system takes it
    mapped.touch(np.arange(len(array)))


def test_checks_copy_nothing(path: Path) -> None:
    for mode in ("r", "r+", "c"):
        mapped: Any = np.load(path, mmap_mode=mode)
        assert np.shares_memory(check_inputs(mapped, FEATURES, mapped.dtype), mapped)
