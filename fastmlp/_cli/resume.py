"""``fastmlp resume``: go on with a training that was stopped."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import fastmlp as fm
from fastmlp._cli import models
from fastmlp._cli.arguments import Json, Log, Plot, Save, complete_files, data_argument
from fastmlp._cli.job import Job, data_of, split

if TYPE_CHECKING:
    from fastmlp.checkpoints import File

__all__ = ["resume"]


def resume(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="The file of train --checkpoint.",
            show_default=False,
            autocompletion=complete_files([".safetensors"]),
        ),
    ],
    data: Annotated[str | None, data_argument()] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training samples, those that are done included.",
            show_default="as many as train was asked for",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(show_default="FASTMLP_NUM_THREADS, or all cores this process may use"),
    ] = None,
    save: Save = None,
    log: Log = None,
    plot: Plot = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    json: Json = False,
) -> None:
    """Go on with a training that was stopped, as if it had never been.

    The result is the same, bit for bit. The data, which must be the same too,
    is read from where train found it unless DATA says where it is now. A log
    goes on if it is the same file as before.
    """
    file = _read(checkpoint)
    file.check_epochs(epochs, str(checkpoint))  # before the data, which may take long
    net = file.net
    found, target = data_of(net.metadata)
    job = Job(data or found, target, save, log, plot, checkpoint)
    job.check()
    source = job.read(net.is_classifier, models.columns(net))
    names = models.class_names(net) if net.is_classifier else ()
    samples, _ = parts = split(source, net.seed)
    net, history = fm.resume(
        checkpoint,
        samples.X,
        models.targets(samples, names),
        epochs=epochs,
        callbacks=job.callbacks(),
        progress=not quiet,
        threads=threads,
    )
    job.finish(net, history, source, parts, names, quiet=quiet, json=json)


def _read(checkpoint: Path) -> "File":
    """Return what a checkpoint holds, which tells what its network was trained on."""
    from fastmlp import checkpoints

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fm.resume will say that a file is damaged
        return checkpoints.read(str(checkpoint))
