"""``fastmlp train``: learn from data, save the network and test it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fastmlp as fm
from fastmlp import activations, initializers, losses
from fastmlp._cli import config, models
from fastmlp._cli.arguments import (
    OUTPUT,
    Json,
    Log,
    Plot,
    Save,
    complete_files,
    complete_names,
    data_argument,
    parse_sizes,
)
from fastmlp._cli.job import JOB, Job, split
from fastmlp._cli.output import print_data, print_network

if TYPE_CHECKING:
    from fastmlp.datasets import Samples

__all__ = ["train"]

_PLAUSIBLE_CLASSES = 20
"""More classes than this are taken for a mistake when hardly two samples share one."""

_DATA, _NETWORK, _TRAINING = "Data", "Network", "Training"  # panels of --help


def train(
    data: Annotated[str | None, data_argument()] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="TOML file with settings; options have precedence.",
            autocompletion=complete_files([".toml"]),
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting of the file, such as optimizer.beta2=0.95; may be repeated.",
            autocompletion=complete_names(lambda: (f"{name}=" for name in config.SETTINGS)),
        ),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config", help="Print a complete file of the settings and do nothing else."
        ),
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column of a table to learn, or the .npy file of an .npy file.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Share of the training samples to validate with; 0 for none.",
            show_default="0.1",
            rich_help_panel=_DATA,
        ),
    ] = None,
    hidden: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIZES",
            help="Sizes of the hidden layers, such as 128,64; may be repeated.",
            show_default="128",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            help=f"Of the hidden layers: {', '.join(activations.NAMES)}.",
            show_default="softplus",
            autocompletion=complete_names(lambda: activations.NAMES),
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(losses.NAMES)}.",
            show_default="the first for classes, squared_error for numbers",
            autocompletion=complete_names(lambda: losses.NAMES),
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(
            help="Share of hidden units to leave out.",
            show_default="0",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    norm: Annotated[
        str | None,
        typer.Option(
            help="batch, layer or none.",
            show_default="none",
            autocompletion=complete_names(lambda: ("batch", "layer", "none")),
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    l2: Annotated[
        float | None,
        typer.Option(help="Penalty l2/2 sum W**2.", show_default="0", rich_help_panel=_NETWORK),
    ] = None,
    initializer: Annotated[
        str | None,
        typer.Option(
            help="Of the weights.",
            show_default="as the activation asks",
            autocompletion=complete_names(lambda: initializers.NAMES),
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32 or float64.",
            show_default="float32",
            autocompletion=complete_names(lambda: fm.kernels.DTYPES),
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(config.OPTIMIZERS)}.",
            show_default="adam",
            autocompletion=complete_names(lambda: config.OPTIMIZERS),
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(show_default="the optimizer's", rich_help_panel=_TRAINING),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help=f"How the learning rate changes: {', '.join(config.SCHEDULES)}.",
            show_default="constant",
            autocompletion=complete_names(lambda: config.SCHEDULES),
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="INTEGER",
            help="Samples in a step; full or 0 takes all.",
            show_default="32",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training samples.",
            show_default="15",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop when the validation loss has not got better for so many epochs.",
            show_default=False,
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Fixes initial weights, splits, dropout and the order of samples.",
            show_default="0",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            show_default="FASTMLP_NUM_THREADS, or all cores this process may use",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    save: Save = None,
    log: Log = None,
    plot: Plot = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A .safetensors file to keep the state of the training in, for resume.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", help="Print nothing but errors.", rich_help_panel=OUTPUT),
    ] = False,
    json: Json = False,
) -> None:
    """Train a network, save it and test it.

    Text and integers in the target are classes, other numbers are values to
    predict. Features are used as they are. Data without a test part is split: a
    random fifth is held out for testing.

    Every setting of fastmlp.MLP and fastmlp.fit can stand in the file of
    --config; --print-config writes one with all of them and what they mean.
    """
    options: dict[str, Any] = {
        "data": data,
        "target": target,
        "hidden": None if hidden is None else parse_sizes("--hidden", ",".join(hidden)),
        "activation": activation,
        "loss": loss,
        "dropout": dropout,
        "norm": norm,
        "l2": l2,
        "initializer": initializer,
        "dtype": dtype,
        "seed": seed,
        "batch_size": None if batch_size is None else _parse_batch_size(batch_size),
        "epochs": epochs,
        "validation": validation,
        "threads": threads,
        "save": None if save is None else str(save),
        "log": None if log is None else str(log),
        "plot": None if plot is None else str(plot),
    }
    settings = config.defaults() | (config.read_config(config_file) if config_file else {})
    settings |= {name: value for name, value in options.items() if value is not None}
    settings["optimizer"] = config.override_optimizer(
        settings["optimizer"], optimizer, learning_rate, schedule
    )
    if patience is not None:
        settings["early_stopping"] = config.override(settings["early_stopping"], patience=patience)
    if checkpoint is not None:
        settings["checkpoint"] = config.override(settings["checkpoint"], path=str(checkpoint))
    for assignment in assignments or ():
        config.assign(settings, assignment)
    if print_config:
        print(config.render(settings), end="")
        return
    _train(settings, quiet=quiet, json=json)


def _train(settings: config.Settings, *, quiet: bool, json: bool) -> None:
    """Do what the settings say."""
    config.check(settings)
    if settings["data"] is None:
        raise ValueError("there is nothing to learn from: give DATA, such as mnist157")
    # What is wrong should be known before the data is read, and before anything is trained.
    network, loss = config.network_arguments(settings), config.loss_of(settings)
    procedure = config.fit_arguments(settings)
    config.check_arguments(settings["hidden"], network, procedure)
    checkpoint = config.checkpoint_of(settings)
    job = Job.of(settings, checkpoint)
    job.check(procedure["optimizer"])
    source = job.read(None if loss is None else loss.is_classifier)
    names = _learnable_classes(source.train)
    if loss is None:
        loss = fm.Loss("softmax_cross_entropy" if names else "squared_error")
    sizes = [source.train.X.shape[1], *settings["hidden"], _outputs(source.train, names, loss)]
    net = fm.MLP(sizes, loss=loss, **network)
    models.remember(net, names, source.columns, job.target)
    samples, tests = parts = split(source, net.seed)
    X, y = samples.X, models.targets(samples, names)
    models.targets(tests, names)  # a class that only the tests have should be known now
    if not quiet and not json:
        print_data(source, len(samples), len(tests), names)
        print_network(net)
    callbacks = job.callbacks()
    if checkpoint is not None:
        net.metadata[JOB] = job.to_json()
        callbacks.append(checkpoint)
    history = fm.fit(net, X, y, callbacks=callbacks, progress=not quiet, **procedure)
    job.finish(net, history, source, parts, names, quiet=quiet, json=json)


def _learnable_classes(samples: "Samples") -> tuple[str, ...]:
    """Return the class names of a target to learn; none if it is numbers.

    Raises
    ------
    ValueError
        There is only one, or there are so many that the target hardly holds classes.
    """
    names = samples.class_names
    if len(names) == 1:
        raise ValueError(f"the target is {names[0]!r} in all samples, there is nothing to learn")
    if len(names) > max(_PLAUSIBLE_CLASSES, len(samples) // 2):
        raise ValueError(
            f"the target has {len(names)} distinct values in {len(samples)} samples, too many for "
            "classes; if it is a number to predict, give --loss squared_error"
        )
    return names


def _outputs(samples: "Samples", names: Sequence[str], loss: fm.Loss) -> int:
    """Return how many outputs it takes to learn the targets: one is enough for two classes."""
    if loss.name != "binary_cross_entropy":
        return len(names) or int(samples.y[0].size)
    if len(names) != 2:
        raise ValueError(
            f"--loss {loss.name} is for two classes, got {len(names)}: {', '.join(names)}"
        )
    return 1


def _parse_batch_size(text: str) -> int | str:
    if text == "full":
        return text
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--batch-size must be an integer or full, got {text!r}") from None
