"""Files: whatever is written is on the disk before its name is, and its name before we say so."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fastmlp as fm
from fastmlp._files import replace_file

posix = pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX only")

X, Y = np.eye(8, 3), np.arange(8) % 2


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to files from now on: what is synced, what is renamed to what."""
    done: list[str] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def note_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        done.append("sync folder" if stat.S_ISDIR(status.st_mode) else f"sync {status.st_size}")
        fsync(descriptor)

    def note_link(source: str, target: str) -> None:
        done.append(f"keep {Path(target).name}")
        link(source, target)

    def note_replace(source: str, target: str) -> None:
        done.append(f"replace {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    monkeypatch.setattr(os, "replace", note_replace)
    return done


@posix
def test_order(tmp_path: Path, steps: list[str]) -> None:
    path = tmp_path / "file"
    replace_file(path, b"one")
    assert steps == ["sync 3", "replace file", "sync folder"]
    steps.clear()
    replace_file(path, b"three", previous=".previous")
    assert steps == ["sync 5", "keep file.previous", "replace file", "sync folder"]
    assert path.read_bytes() == b"three"
    assert path.with_name("file.previous").read_bytes() == b"one"
    assert len(list(tmp_path.iterdir())) == 2


def train(callback: fm.Callback) -> None:
    fm.fit(fm.MLP([3, 4, 2]), X, Y, epochs=1, callbacks=[callback])


WRITERS: dict[str, Callable[[Path], object]] = {
    "net.safetensors": lambda path: fm.MLP([3, 4, 2]).save(path),
    "net.onnx": lambda path: fm.MLP([3, 4, 2]).to_onnx(path),
    "run": lambda path: train(fm.Checkpoint(path)),
    "log.csv": lambda path: train(fm.CSVLogger(path)),
    "log.jsonl": lambda path: train(fm.JSONLinesLogger(path)),
    "picture.png": lambda path: fm.plot_history(fm.History(loss=[1.0]), path),
}


@posix
@pytest.mark.parametrize("name", WRITERS)
def test_all_that_write(name: str, tmp_path: Path, steps: list[str]) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnx")
    WRITERS[name](tmp_path / name)
    size = 0 if name.startswith("log") else (tmp_path / name).stat().st_size  # before the epochs
    assert steps == [f"sync {size}", f"replace {name}", "sync folder"]


@posix
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES])
def test_folders_that_cannot_be_synced(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems cannot; the file is written all the same."""
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    replace_file(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


@posix
def test_disk_that_fails_at_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, path = os.fsync, tmp_path / "file"

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="input/output") as raised:
        replace_file(path, b"content")
    assert raised.value.filename == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
