"""What ``train`` and ``resume`` share: where the data comes from and where the results go."""

import json as json_module
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import typer

import fastmlp as fm
from fastmlp._cli import models
from fastmlp._cli.arguments import DATASETS, check_output
from fastmlp._cli.base import INTERRUPTED, errors
from fastmlp._cli.logs import check_log, logger
from fastmlp._cli.output import (
    print_json,
    print_line,
    print_test,
    print_training,
    training_facts,
)

if TYPE_CHECKING:
    from fastmlp.datasets import Samples, Source

__all__ = ["JOB", "Job", "data_of", "split"]

JOB = "job"
"""Key of the network's metadata under which a checkpoint, but no model, says where the data is.

It does not say where results go: nobody's file should decide what is overwritten.
"""

_TEST_SHARE = 0.2
"""Share of the samples that is held out for testing when the data has no test part."""


@dataclass(frozen=True)
class Job:
    """The files of a training.

    Attributes
    ----------
    data, target
        What is learnt from, as DATA and --target.
    save
        The model; None for a file with the name of the data.
    log, plot, checkpoint
        What else is written, or None.
    """

    data: str
    target: str | None = None
    save: Path | None = None
    log: Path | None = None
    plot: Path | None = None
    checkpoint: Path | None = None

    @classmethod
    def of(cls, settings: dict[str, Any], checkpoint: "fm.Checkpoint | None") -> Self:
        """Return the job that is in the settings."""
        files = {key: _path(settings[key]) for key in ("save", "log", "plot")}
        path = None if checkpoint is None else Path(checkpoint.path)
        return cls(settings["data"], settings["target"], **files, checkpoint=path)

    def to_json(self) -> str:
        """Return what `resume` needs to find the data, also from another folder, as text."""
        data, target = self.data, self.target
        if data not in (*DATASETS, "-"):
            data = os.path.abspath(data)
            if target is not None and data.lower().endswith(".npy"):
                target = os.path.abspath(target)
        return json_module.dumps({"data": data, "target": target})

    def check(self, optimizer: fm.Optimizer | None = None) -> None:
        """Raise an error if something cannot be written, before any work is done for it."""
        if self.plot is not None:
            from fastmlp.plotting import image_format

            image_format(self.plot)
        if self.log is not None:
            check_log(self.log)
        for output in (self.save, self.log, self.plot, self.checkpoint):
            check_output(output, inputs=[self.data])
        if isinstance(optimizer, fm.LBFGS) and (self.log or self.checkpoint):
            raise ValueError("log and checkpoint are of no use to lbfgs, which SciPy runs")

    def read(self, classes: bool | None, columns: Sequence[str] = ()) -> "Source":
        """Read the data, see `fastmlp.datasets.read`."""
        source = fm.datasets.read(self.data, target=self.target, classes=classes, columns=columns)
        check_output(self._model(source), inputs=[self.data])
        outputs = {
            "save": self._model(source),
            **{"log": self.log, "plot": self.plot, "checkpoint": self.checkpoint},
        }
        owners: dict[str, str] = {}
        for name, path in outputs.items():
            if (
                path is not None
                and (other := owners.setdefault(os.path.realpath(path), name)) != name
            ):
                raise ValueError(f"{other} and {name} must be different files, both are {path}")
        return source

    def callbacks(self) -> list[Any]:
        """Return what writes the log."""
        return [] if self.log is None else [logger(self.log)]

    def finish(
        self,
        net: fm.MLP,
        history: fm.History,
        source: "Source",
        parts: "tuple[Samples, Samples]",
        names: Sequence[str],
        *,
        quiet: bool,
        json: bool,
    ) -> None:
        """Save what was learnt, test it and report; `parts` are those of `split`."""
        if history.interrupted and history.seconds == 0.0:  # while compiling
            errors.print("interrupted before the training began, nothing is saved")
            raise typer.Exit(INTERRUPTED)
        net.metadata.pop(JOB, None)
        net.save(self._model(source))
        if self.plot is not None:
            from fastmlp.plotting import plot_history

            plot_history(history, self.plot)
        samples, tests = parts
        y = models.targets(tests, names)
        if not quiet and not json:
            print_training(history)
            print_test(net, tests.X, y, names, "test ")
            print_line(f"saved {self._model(source)}")
            for done, path in (("logged", self.log), ("plotted", self.plot)):
                if path is not None:
                    print_line(f"{done} {path}")
        if json:
            print_json(
                {
                    "data": source.name,
                    "training_samples": len(samples),
                    "features": source.train.X.shape[1],
                    "classes": list(names) or None,
                    **training_facts(net, history, tests.X, y),
                    "model": self._model(source),
                    "log": self.log,
                    "plot": self.plot,
                    "checkpoint": self.checkpoint,
                }
            )
        if history.interrupted:
            raise typer.Exit(INTERRUPTED)

    def _model(self, source: "Source") -> Path:
        return self.save or Path(f"{source.name}.safetensors")


def split(source: "Source", seed: int) -> "tuple[Samples, Samples]":
    """Return the samples to train on and those to test with, always the same for a seed."""
    if source.test is not None:
        return source.train, source.test
    return source.train.hold_out(_TEST_SHARE, seed)


def data_of(metadata: dict[str, str]) -> tuple[str, str | None]:
    """Return data and target from the metadata of a checkpoint.

    Raises
    ------
    ValueError
        They are not there.
    """
    try:
        job = json_module.loads(metadata[JOB])
        data, target = job["data"], job["target"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("the checkpoint was not made by fastmlp train: use fm.resume") from error
    if not isinstance(data, str) or not isinstance(target, str | None):
        raise ValueError(f"the checkpoint's data and target must be texts, got {job!r}")
    return data, target


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)
