"""``fastmlp gradcheck``: compare a gradient with differences."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import fastmlp as fm
from fastmlp import activations, losses
from fastmlp._cli.arguments import Json, complete_files, complete_names, parse_sizes
from fastmlp._cli.base import CHECK_FAILED
from fastmlp._cli.output import print_json, print_line

__all__ = ["gradcheck"]


def gradcheck(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A saved model; without one, --layers.",
            show_default=False,
            autocompletion=complete_files([".safetensors"]),
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES", help="Sizes of the layers of a new network.", show_default="784,16,3"
        ),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            help="Its hidden activation.",
            show_default="softplus",
            autocompletion=complete_names(lambda: activations.NAMES),
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Its loss.",
            show_default="softmax_cross_entropy",
            autocompletion=complete_names(lambda: losses.NAMES),
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Number of random samples.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the samples and a new network.")] = 0,
    json: Json = False,
) -> None:
    """Compare a network's gradient with central differences, in float64.

    The exit code is 1 if they differ. Each parameter takes two forward passes:
    for a large network that is long.
    """
    if model is None:
        net = fm.MLP(
            parse_sizes("--layers", layers or "784,16,3"),
            activation=activation or "softplus",
            loss=loss or "softmax_cross_entropy",
            seed=seed,
            dtype="float64",
        )
    elif layers or activation or loss:
        raise ValueError("--layers, --activation and --loss are for a new network, not for MODEL")
    else:
        net = fm.MLP.load(model)
    generator = np.random.default_rng(seed)
    n_outputs = net.layer_sizes[-1]
    X = generator.standard_normal((batch, net.layer_sizes[0]))
    if net.loss.name == "softmax_cross_entropy":
        y: NDArray[Any] = generator.integers(n_outputs, size=batch)
    else:
        y = generator.random((batch, n_outputs))  # which any other loss takes
    report = fm.gradient_check(net, X, y)
    if json:
        print_json({"ok": report.ok, **_facts(report)})
    else:
        print_line(str(report))
    if not report.ok:
        raise typer.Exit(CHECK_FAILED)


def _facts(report: "fm.GradientCheckReport") -> dict[str, Any]:
    names = ("name", "shape", "relative_error", "max_abs_difference", "excluded", "guess")
    return {
        **{
            field.name: getattr(report, field.name)
            for field in dataclasses.fields(report)
            if field.name != "tensors"
        },
        "tensors": [{name: getattr(tensor, name) for name in names} for tensor in report.tensors],
    }
