"""Batches are collected ahead by a thread: every step once, in order, and nothing left behind."""

import itertools
import linecache
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp import _stream
from fastmlp._execution import Batch
from fastmlp._stream import Ahead, Block, Step


def batch(first: int, rows: int, *, weights: bool = False, labels: bool = True) -> Batch:
    """Samples that are numbered from `first` on."""
    numbers = np.arange(first, first + rows)
    x = numbers[:, None].astype("f4")
    return Batch.of(
        x,
        1,
        labels=numbers if labels else None,
        targets=None if labels else x + 0.5,
        weights=numbers + 1.0 if weights else None,
    )


def batches(sizes: Sequence[int], **kinds: Any) -> Iterator[Batch]:
    first = 0
    for rows in sizes:
        yield batch(first, rows, **kinds)
        first += rows


def steps_of(batches: Iterator[Batch], accumulate: int) -> Generator[Step]:
    """So many batches in a step, the last one has what is left."""
    while step := list(itertools.islice(batches, accumulate)):
        yield step


def collect(steps: Generator[Step], *, pause: float = 0.0) -> list[Block]:
    """All blocks, copied, by one who needs some time for each."""
    blocks = []
    with closing(Ahead(steps)) as ahead:
        while (block := ahead.take()) is not None:
            copies = [a.copy() for a in (block.samples.x, block.samples.labels)]
            copies += [a.copy() for a in (block.samples.targets, block.samples.weights)]
            blocks.append(Block(Batch(*copies, block.samples.chosen), block.step_rows))
            time.sleep(pause)
    return blocks


def step_sizes(blocks: list[Block]) -> list[int]:
    """The steps that the program makes of the blocks."""
    sizes = []
    for block in blocks:
        starts = range(0, len(block.samples), block.step_rows)
        sizes += [min(block.step_rows, len(block.samples) - start) for start in starts]
    return sizes


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize(("size", "pause"), [(1, 0.0), (200, 0.0), (200, 0.001), (2**20, 0.0)])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(
    "sizes",
    [[7] * 40, [7] * 40 + [3], [5, 9, 2, 2, 9, 9, 1, 30], [1] * 100, [4]],
    ids=["equal", "a smaller last", "any", "single", "one"],
)
def test_every_step_comes_once_and_in_order(
    sizes: list[int], accumulate: int, size: int, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stream, "BUFFER_BYTES", size)
    for kinds in ({}, {"labels": False, "weights": True}):
        blocks = collect(steps_of(batches(sizes, **kinds), accumulate), pause=pause)
        everything = batch(0, sum(sizes), **kinds)
        for name in ("x", "labels", "targets", "weights"):
            parts = [getattr(block.samples, name) for block in blocks]
            assert np.array_equal(np.concatenate(parts), getattr(everything, name))
        expected = [sum(sizes[i : i + accumulate]) for i in range(0, len(sizes), accumulate)]
        assert step_sizes(blocks) == expected


def test_kinds_may_change() -> None:
    given = [batch(0, 4), batch(4, 4, weights=True), batch(8, 4, labels=False), batch(12, 4)]
    blocks = collect(steps_of(iter(given), 1))
    kinds = [(len(b.samples.labels) > 0, len(b.samples.weights) > 0) for b in blocks]
    assert kinds == [(True, False), (True, True), (False, False), (True, False)]


def test_no_more_is_collected_than_two_buffers_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stream, "BUFFER_BYTES", 12 * 50)  # 12 bytes a row
    given = 0

    def steps() -> Generator[Step]:
        nonlocal given
        for each in batches([10] * 100):
            given += len(each)
            yield [each]

    with closing(Ahead(steps())) as ahead:
        done = 0
        while (block := ahead.take()) is not None:
            assert len(block.samples) <= 50
            time.sleep(0.001)
            assert given <= done + 50 + 50 + 10  # the one at work, the other, and the step at hand
            done += len(block.samples)
    assert done == given == 1000


def test_an_error_comes_after_the_steps_before_it_with_its_traceback() -> None:
    def broken() -> Generator[Step]:
        yield [batch(0, 4)]
        yield [batch(4, 4)]
        raise RuntimeError("the disk is gone")

    done = 0

    def work() -> None:
        nonlocal done
        with closing(Ahead(broken())) as ahead:
            while (block := ahead.take()) is not None:
                done += len(block.samples)

    with pytest.raises(RuntimeError, match="the disk is gone") as caught:
        work()
    assert done == 8
    assert "in broken" in "".join(traceback.format_tb(caught.value.__traceback__))


def test_who_leaves_early_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stream, "BUFFER_BYTES", 1)
    ended = threading.Event()

    def endless() -> Generator[Step]:
        try:
            while True:
                yield [batch(0, 4)]
        finally:
            ended.set()

    with closing(Ahead(endless())) as ahead:
        assert ahead.take() is not None
    assert ended.wait(5)


def test_a_watcher_is_called_while_there_is_nothing() -> None:
    go = threading.Event()

    def slow() -> Generator[Step]:
        go.wait(5)
        yield [batch(0, 4)]

    with closing(Ahead(slow())) as ahead:
        assert ahead.take(go.set) is not None
        assert ahead.take() is None
    assert go.is_set()


class _Stop(fm.callbacks.Callback):
    """At the beginning of the second epoch."""

    every = 4

    def on_batch_end(self, training: Any) -> None:
        training.stop()


def test_interruption_at_any_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal reaches the main thread between two lines: no thread stays behind at any of them."""
    monkeypatch.setattr(_stream, "BUFFER_BYTES", 1)  # the thread waits after each step
    X, y = np.ones((12, 2), np.float32), np.zeros(12, int)
    stop = _Stop()
    lines: list[int] = []
    leaks: list[int] = []

    def given() -> Iterator[tuple[Any, Any]]:
        for i in range(0, 12, 4):
            yield X[i : i + 4], y[i : i + 4]

    for count in range(1, 10_000):

        def trace(frame: Any, event: str, _: Any, count: int = count) -> Any:
            if frame.f_code.co_filename != _stream.__file__:
                return None
            line = linecache.getline(_stream.__file__, frame.f_lineno)
            # a tracer is called before a lock is released, where Python takes no signal
            if event == "line" and "with self._lock" not in line:
                lines.append(frame.f_lineno)
                if len(lines) == count:
                    raise KeyboardInterrupt
            return trace

        lines.clear()
        interrupted = False
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            history = fm.fit(fm.MLP([2, 2]), batches=given, epochs=2, callbacks=[stop])
            interrupted = history.interrupted
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(before)
        if any(thread.name == "fastmlp-batches" for thread in threading.enumerate()):
            leaks.append(lines[-1])
        if len(lines) < count:
            break
        assert interrupted
    assert not interrupted
    assert 100 < count < 9_999
    assert not leaks, f"threads stay behind after Ctrl-C at lines {sorted(set(leaks))}"
