"""``fastmlp predict``: write what a saved network predicts."""

import csv
import io
import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import fastmlp as fm
from fastmlp._cli import models
from fastmlp._cli.arguments import Data, Json, Model, check_output, complete_names, write_file
from fastmlp._cli.output import print_json, print_line
from fastmlp._names import check_name

__all__ = ["predict"]

FORMATS = ("csv", "jsonl", "npy")


def predict(
    model: Model,
    data: Data,
    output: Annotated[
        Path, typer.Option(help="The .csv, .jsonl or .npy file to write; - for standard output.")
    ] = Path("-"),
    format: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(FORMATS)}.",
            show_default="what the name of the file says, else csv",
            autocompletion=complete_names(lambda: FORMATS),
        ),
    ] = None,
    proba: Annotated[
        bool, typer.Option("--proba", help="Write the probability of each class.")
    ] = False,
    json: Json = False,
) -> None:
    """Write what a saved network predicts, sample by sample.

    CSV and JSON lines hold the names of the classes, NPY the labels 0, 1, 2 and
    so on, which number the classes in the order that train lists them in.

    With DATA - it works in a pipe: fastmlp predict MODEL - < new.csv >
    predicted.csv
    """
    to_stdout = str(output) == "-"
    kind = _format(output, format, to_stdout)
    if not to_stdout:
        check_output(output, inputs=[data, model])
    net = fm.MLP.load(model)
    X = fm.datasets.read_features(data, models.columns(net))
    predicted = net.predict_proba(X) if proba else net.predict(X)
    if to_stdout and json:
        print_json({"samples": len(predicted), "predictions": _objects(net, predicted)})
        return
    content = {"npy": _npy, "csv": _csv, "jsonl": _jsonl}[kind](net, predicted)
    if to_stdout:
        sys.stdout.flush()
        if kind == "npy":
            sys.stdout.buffer.write(content)
        else:
            sys.stdout.write(content.decode())
        return
    write_file(output, content)
    if json:
        print_json({"samples": len(predicted), "output": output})
    else:
        print_line(f"wrote {len(predicted):,} predictions to {output}")


def _format(output: Path, given: str | None, to_stdout: bool) -> str:
    if given is not None:
        return check_name(given, "--format", FORMATS)
    ending = "csv" if to_stdout else output.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise ValueError(f"--output must end in .csv, .jsonl or .npy, got {output}")
    return ending


def _npy(net: fm.MLP, predicted: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, predicted)
    return buffer.getvalue()


def _csv(net: fm.MLP, predicted: NDArray[Any]) -> bytes:
    header, rows = _table(net, predicted)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows.astype(np.str_).tolist()])
    return text.getvalue().encode()


def _jsonl(net: fm.MLP, predicted: NDArray[Any]) -> bytes:
    lines = (json_module.dumps(row, ensure_ascii=False) for row in _objects(net, predicted))
    return "".join(f"{line}\n" for line in lines).encode()


def _objects(net: fm.MLP, predicted: NDArray[Any]) -> list[dict[str, Any]]:
    header, rows = _table(net, predicted)
    if rows.dtype.kind == "f":  # by way of their shortest texts: 0.1, not 0.10000000149011612
        rows = rows.astype(np.str_).astype(np.float64)
    return [dict(zip(header, row, strict=True)) for row in rows.tolist()]


def _table(net: fm.MLP, predicted: NDArray[Any]) -> tuple[list[str], NDArray[Any]]:
    """Return names and columns of predictions: labels [n], or numbers [n, outputs]."""
    names = models.class_names(net)
    if net.is_classifier and predicted.ndim == 1:
        return ["prediction"], np.array(names)[predicted][:, np.newaxis]
    if net.is_classifier:
        return list(names), predicted
    if net.layer_sizes[-1] == 1:
        return ["prediction"], predicted.reshape(-1, 1)
    return [f"prediction_{output}" for output in range(net.layer_sizes[-1])], predicted
