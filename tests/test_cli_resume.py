"""``fastmlp train --checkpoint`` and ``fastmlp resume``."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import error_of, insect_rows, run, write_csv

import fastmlp as fm
from fastmlp._cli.logs import read_log

SMALL = ("--hidden", "6", "--batch-size", "8", "--dropout", "0.1", "--quiet", "--seed", "3")


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "insects.csv", insect_rows())


def train(*options: object) -> None:
    run("train", "insects.csv", "--target", "insect", *SMALL, *options)


def test_resumed_training_gives_the_same_file() -> None:
    train("--epochs", "5", "--save", "whole", "--log", "whole.csv")
    train("--epochs", "2", "--save", "part", "--checkpoint", "run", "--log", "part.csv")
    result = run("resume", "run", "--epochs", "5", "--save", "part", "--log", "part.csv")
    assert Path("part").read_bytes() == Path("whole").read_bytes()
    assert "trained 5 epochs" in result.stdout
    assert "epoch 5/5" in result.stderr
    assert result.stdout.endswith("saved part\nlogged part.csv\n")
    assert read_log(Path("part.csv")) == read_log(Path("whole.csv"))


def test_from_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train("--epochs", "2", "--checkpoint", "run")
    before = Path("insects.safetensors").read_bytes()
    Path("insects.safetensors").unlink()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    facts = run("resume", "../run", "--quiet", "--save", "m", "--json").json
    assert (facts["epochs"], facts["model"], facts["checkpoint"]) == (2, "m", "../run")
    assert Path("m").read_bytes() == before


def test_checkpoints_do_not_tell_where_to_write() -> None:
    """Who is sent a checkpoint must not lose a file by resuming it."""
    train("--epochs", "1", "--checkpoint", "run", "--save", "precious", "--log", "precious.csv")
    content = Path("run").read_bytes()
    assert b"insects.csv" in content
    assert b"precious" not in content


def test_models_do_not_tell_where_the_data_was() -> None:
    train("--epochs", "1", "--checkpoint", "run")
    assert b"insects.csv" in Path("run").read_bytes()
    assert b"insects.csv" not in Path("insects.safetensors").read_bytes()


def test_data_that_has_moved() -> None:
    train("--epochs", "1", "--checkpoint", "run")
    content = Path("insects.csv").read_bytes()
    os.rename("insects.csv", "moved.csv")
    assert "there is no " in error_of("resume", "run")
    run("resume", "run", "moved.csv", "--epochs", "2", "--quiet")
    run("resume", "run", "-", "--epochs", "3", "--quiet", stdin=content)
    write_csv(Path("insects.csv"), insect_rows(57))
    assert "must be those that 'run' was trained on" in error_of("resume", "run", "--quiet")


def test_damaged_checkpoint() -> None:
    train("--epochs", "3", "--checkpoint", "run", "--save", "whole")
    damaged = bytearray(Path("run").read_bytes())
    damaged[-1] ^= 1
    Path("run").write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = run("resume", "run", "--quiet", "--save", "again")
    assert result.stderr.startswith("warning: cannot read 'run' as a checkpoint")
    assert result.stderr.count("\n") == 1
    assert Path("again").read_bytes() == Path("whole").read_bytes()


def test_what_cannot_be_resumed() -> None:
    assert error_of("resume", "nothing") == "nothing: No such file or directory"
    train("--epochs", "1")
    assert "cannot read 'insects.safetensors' as a checkpoint" in error_of(
        "resume", "insects.safetensors"
    )
    train("--epochs", "2", "--checkpoint", "run")
    Path("insects.csv").unlink()  # epochs are checked before the data is read
    assert error_of("resume", "run", "--epochs", "0").startswith("epochs must be at least 1")
    message = error_of("resume", "run", "--epochs", "1")
    assert message == "epochs must be at least the 2 that 'run' has done, got 1"
    net = fm.MLP([2, 2])
    fm.fit(net, np.eye(2), [0, 1], epochs=1, callbacks=[fm.Checkpoint("api")])
    message = error_of("resume", "api")
    assert message == "the checkpoint was not made by fastmlp train: use fm.resume"
    for job in ("[]", "3", "{", '{"data": 1, "target": null}'):
        net.metadata["job"] = job
        fm.fit(net, np.eye(2), [0, 1], epochs=1, callbacks=[fm.Checkpoint("api")])
        assert "the checkpoint" in error_of("resume", "api")


def test_files_that_cannot_be_written() -> None:
    options: tuple[Any, ...] = ("insects.csv", "--target", "insect", *SMALL)
    assert "no folder no" in error_of("train", *options, "--checkpoint", "no/run")
    assert "replace an input" in error_of("train", *options, "--checkpoint", "insects.csv")
    message = error_of("train", *options, "--checkpoint", "insects.safetensors")
    assert message == ("save and checkpoint must be different files, both are insects.safetensors")
    assert not Path("insects.safetensors").exists()


@pytest.mark.jit
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGKILL")
def test_killed_training_goes_on(tmp_path: Path) -> None:
    options = ("--hidden", "4", "--epochs", "6", "--threads", "1", "--quiet")
    run("train", "mnist157", *options, "--save", "whole")
    command = [sys.executable, "-m", "fastmlp.cli", "train", "mnist157", *options]
    with subprocess.Popen([*command, "--checkpoint", "run", "--save", "part"]) as it:
        while not Path("run").exists():
            assert it.poll() is None
            time.sleep(0.002)
        it.send_signal(signal.SIGKILL)
    assert it.returncode == -signal.SIGKILL
    assert not Path("part").exists()
    run("resume", "run", "--save", "part", "--quiet")
    assert Path("part").read_bytes() == Path("whole").read_bytes()
