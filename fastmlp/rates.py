"""Factors on the learning rate: another rate for each kind of parameter, or for each layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import check_number, is_sequence
from ._names import check_name
from .kernels.plan import NUMBERS, RATES, WEIGHT
from .layout import COLUMNS, Layout, place_of

__all__ = ["Factors", "rate_factors"]

Factors = Mapping[str, float | Sequence[float]]
"""By kind of parameter: one for all layers, or one for each."""

KINDS = (*(kind for kind in COLUMNS if kind != "running_mean"), "input_scale")


def rate_factors(factors: Factors | None, layout: Layout) -> NDArray[np.float64]:
    """Return the factors [L + 1, 5] as the kernels have them, 1 where none is given.

    Raises
    ------
    TypeError, ValueError
        If a kind is unknown or the network has none of it, or a factor is not a number of at least
        0, or not one for each layer.
    """
    factors = {} if factors is None else factors
    if not isinstance(factors, Mapping):
        raise TypeError(f"learning_rate_factors must be a dict by kind, got {factors!r}")
    rates = np.ones((len(layout.sizes), NUMBERS - RATES))
    for kind, value in factors.items():
        name = f"learning_rate_factors[{kind!r}]"
        check_name(kind, "a kind in learning_rate_factors", KINDS)
        own = [tensor for tensor in layout.tensors if tensor.kind == kind]
        if not own:
            raise ValueError(f"{name}: the network has no {kind}")
        given = _for_each_layer(value, name, _layers(layout, kind))
        for tensor in own:
            row, column = place_of(tensor)
            rates[row, column - WEIGHT] = given[tensor.layer - 1]
    return rates


def _layers(layout: Layout, kind: str) -> int:
    """In how many layers, from the first, a kind of parameter may be."""
    last = len(layout.sizes) - 1
    return 1 if kind == "input_scale" else last if kind in ("weight", "bias") else last - 1


def _for_each_layer(value: Any, name: str, count: int) -> list[float]:
    if not is_sequence(value):
        return [check_number(value, name, 0.0)] * count
    if len(value) != count:
        raise ValueError(f"{name} must be one number or one for each of {count} layers")
    return [check_number(x, f"{name}[{i}]", 0.0) for i, x in enumerate(value)]
