"""``fastmlp summary``: what a saved network is made of."""

import fastmlp as fm
from fastmlp._cli import models
from fastmlp._cli.arguments import Json, Model
from fastmlp._cli.output import print_json, print_line

__all__ = ["summary"]


def summary(model: Model, json: Json = False) -> None:
    """Show the layers, parameters and costs of a saved network, and what it has learnt."""
    net = fm.MLP.load(model)
    if json:
        print_json(_facts(net))
        return
    print_line(str(net.summary()))
    if net.is_classifier:
        print_line(f"classes: {', '.join(models.class_names(net))}")
    for name, text in (("target", models.target(net)), ("features", models.columns(net))):
        if text:
            print_line(f"{name}: {text if isinstance(text, str) else ', '.join(text)}")


def _facts(net: fm.MLP) -> dict[str, object]:
    cost = fm.complexity(
        net.layer_sizes,
        1,
        activation=net.activation,
        norm=net.norm,
        dropout=net.dropout,
        input_scale=net.architecture.input_scale,
    )
    hidden = [(str(f), _name(norm)) for f, norm in zip(net.activation, net.norm, strict=True)]
    return {
        "layer_sizes": net.layer_sizes,
        "layers": [
            {
                "inputs": layer.inputs,
                "outputs": layer.outputs,
                "activation": activation,
                "norm": norm,
                "parameters": layer.parameters,
                "multiply_adds": layer.forward,
            }
            for layer, (activation, norm) in zip(
                cost.layers, [*hidden, ("identity", None)], strict=True
            )
        ],
        "parameters": net.n_parameters,
        "loss": str(net.loss),
        "dropout": net.dropout,
        "l2": net.l2,
        "l1": net.l1,
        "input_scale": net.architecture.input_scale,
        "dtype": net.dtype.name,
        "seed": net.seed,
        "classes": models.class_names(net) if net.is_classifier else None,
        "columns": models.columns(net) or None,
        "target": models.target(net),
        "metadata": net.metadata,
    }


def _name(norm: fm.BatchNorm | fm.LayerNorm | None) -> str | None:
    return None if norm is None else "batch" if isinstance(norm, fm.BatchNorm) else "layer"
