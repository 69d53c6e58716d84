"""What the tests of the command line share: running commands, and data for them."""

import csv
import io
import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.main import get_command

from fastmlp._cli import app

SMALL = ("--hidden", "6", "--epochs", "2", "--batch-size", "8")
INSECTS = ("ant", "bee", "[red]cat[/]")  # the last would vanish if it were read as markup


@dataclass(frozen=True)
class Result:
    """What a command wrote; of the text, colours are left out."""

    raw: bytes
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def json(self) -> dict[str, Any]:
        """The object on standard output, where there must be nothing else."""
        assert self.stdout.count("\n") == 1
        value: dict[str, Any] = json.loads(self.stdout)
        return value


def run(*args: object, exit_code: int = 0, stdin: bytes = b"") -> Result:
    """Run a command in this process."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2)]
    given = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    # Not by typer's CliRunner: with older versions it cannot tell the two streams apart.
    with (
        mock.patch.object(sys, "stdin", given),
        redirect_stdout(streams[0]),
        redirect_stderr(streams[1]),
        pytest.raises(SystemExit) as end,
    ):
        get_command(app)([str(arg) for arg in args])
    for stream in streams:
        stream.flush()
    raw, errors = (stream.detach().getvalue() for stream in streams)  # type: ignore[attr-defined]
    # Without colors, which the environment may have forced when the package was imported.
    texts = (re.sub(r"\x1b\[[\d;]*m", "", s.decode(errors="replace")) for s in (raw, errors))
    result = Result(raw, *texts)
    assert end.value.code == exit_code, result.output
    return result


def error_of(*args: object, exit_code: int = 2, stdin: bytes = b"") -> str:
    """Run a command that must fail because of its user; return what it says."""
    result = run(*args, exit_code=exit_code, stdin=stdin)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").rstrip()


def write_csv(path: Path, rows: list[list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def insect_rows(n: int = 60) -> list[list[Any]]:
    """Return a header and rows of two features and a class that is easy to tell from them."""
    rng = np.random.default_rng(7)
    labels = np.arange(n) % 3
    X = np.array([[0, 0], [4, 0], [0, 4]])[labels] + rng.normal(scale=0.3, size=(n, 2))
    body = [[*map(repr, x.tolist()), INSECTS[k]] for x, k in zip(X, labels, strict=True)]
    return [["length", "width", "insect"], *body]
