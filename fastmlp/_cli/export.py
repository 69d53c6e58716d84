"""``fastmlp export``: write a saved network in another format."""

import io
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import fastmlp as fm
from fastmlp._cli.arguments import Json, Model, check_output, complete_files, write_file
from fastmlp._cli.output import print_json, print_line

__all__ = ["export"]

ENDINGS = (".onnx", ".npz")


def export(
    model: Model,
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="The .onnx or .npz file to write.",
            show_default=False,
            autocompletion=complete_files(ENDINGS),
        ),
    ],
    json: Json = False,
) -> None:
    """Write a saved network as ONNX, or its arrays as NPZ.

    ONNX, which needs the extra onnx, has the label, the probabilities and the
    logits of classes, else the prediction: what predict writes. NPZ holds the
    arrays under the names of the model file: layers.0.weight in the shape
    (inputs, outputs), layers.0.bias and so on.
    """
    suffix = output.suffix.lower()
    if suffix not in ENDINGS:
        raise ValueError(f"OUTPUT must end in {' or '.join(ENDINGS)}, got {output}")
    check_output(output, inputs=[model])
    net = fm.MLP.load(model)
    if suffix == ".onnx":
        net.to_onnx(output)
    else:
        write_file(output, _npz(net))
    if json:
        print_json({"model": model, "output": output})
    else:
        print_line(f"wrote {output}")


def _npz(net: fm.MLP) -> bytes:
    from fastmlp.io import tensors_of

    arrays: dict[str, Any] = {tensor.name: array for tensor, array in tensors_of(net)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
