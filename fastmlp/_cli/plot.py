"""``fastmlp plot``: pictures of a training, of a network, and of what it does with data."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import fastmlp as fm
from fastmlp._cli import models
from fastmlp._cli.arguments import Data, Json, Model, Target, check_output, complete_files
from fastmlp._cli.base import group
from fastmlp._cli.logs import read_log
from fastmlp._cli.output import print_json, print_line

__all__ = ["app"]

_FLOW_SAMPLES = 1024
"""Samples that gradient flow is measured on at most, as they all are in memory at once."""

app = group("Draw a picture; needs the extra plot (matplotlib).")

Output = Annotated[
    Path,
    typer.Option(help="The image to write: .png, .svg, .pdf.", show_default=False),
]


@app.command()
def history(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG",
            help="The .csv or .jsonl file of train --log.",
            show_default=False,
            autocompletion=complete_files([".csv", ".jsonl"]),
        ),
    ],
    output: Output,
    json: Json = False,
) -> None:
    """Draw losses and accuracies over the epochs."""
    _check(output, inputs=[log])
    fm.plot_history(read_log(log), output)
    _report(output, json)


@app.command()
def first_layer(
    model: Model,
    output: Output,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHT,WIDTH",
            help="Of the images that the network sees.",
            show_default="a square",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Draw the weights of each unit of the first layer as an image."""
    _check(output, inputs=[model])
    net = fm.MLP.load(model)
    fm.plot_first_layer(net, _image_shape(shape, net.layer_sizes[0]), output)
    _report(output, json)


@app.command()
def confusion(
    model: Model, data: Data, output: Output, target: Target = None, json: Json = False
) -> None:
    """Draw how many samples of each class a network takes for each class."""
    _check(output, inputs=[model, data])
    net = fm.MLP.load(model)
    if not net.is_classifier:
        raise ValueError(f"confusion needs a classifier, {model} has the loss {net.loss}")
    samples, names = models.read_labelled(net, data, target)
    fm.plot_confusion_matrix(samples.encode(names), net.predict(samples.X), names, output)
    _report(output, json)


@app.command()
def gradient_flow(
    model: Model, data: Data, output: Output, target: Target = None, json: Json = False
) -> None:
    """Draw how activations and gradients grow or vanish from layer to layer.

    They are those of the first 1,024 samples at most.
    """
    _check(output, inputs=[model, data])
    net = fm.MLP.load(model)
    samples, names = models.read_labelled(net, data, target)
    y = models.targets(samples, names)
    flow = fm.gradient_flow(net, samples.X[:_FLOW_SAMPLES], y[:_FLOW_SAMPLES])
    fm.plot_gradient_flow(flow, output)
    if not json:
        print_line(str(flow))
    _report(output, json, warnings=flow.warnings)


def _check(output: Path, inputs: Sequence[str | Path]) -> None:
    """Raise an error if the picture cannot be written, before any work is done for it."""
    from fastmlp.plotting import image_format

    check_output(output, inputs)
    image_format(output)


def _image_shape(text: str | None, inputs: int) -> tuple[int, int]:
    if text is None:
        side = math.isqrt(inputs)
        if side * side != inputs:
            raise ValueError(f"give the --shape of the images, {inputs} inputs are no square")
        return side, side
    height, _, width = text.partition(",")
    try:
        return int(height), int(width)
    except ValueError:
        raise ValueError(f"--shape must be like 28,28, got {text!r}") from None


def _report(output: Path, json: bool, **facts: Any) -> None:
    if json:
        print_json({"plot": output, **facts})
    else:
        print_line(f"plotted {output}")
