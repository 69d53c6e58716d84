"""Formulas as trees of ONNX operators, and the search for one in a graph.

A formula is written once and read both ways. Its operands are operators, numbers, arrays, and
names: the writer takes a name for that of a tensor of the graph, and `match` takes it for a hole
that whatever stands there fills. The hole "z" is filled by what is computed, all others by
constants.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Found = dict[str, Any]
COMMUTATIVE = {"Add", "Mul"}
CLOSE = 1e-6  # relative: the constants of a float32 graph are rounded


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator applied to operands; in a graph, with the name of its node."""

    kind: str
    operands: tuple["Operand", ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""


Operand = Operator | Array | float | str


def op(kind: str, *operands: Operand, **attributes: Any) -> Operator:
    """An operator of a formula; text in the attributes is a hole, a literal one is bytes."""
    return Operator(kind, operands, attributes)


def match(formula: Any, value: Any, found: Found | None = None) -> Found | None:
    """Return what fills the formula's holes so that it is the value, or None if nothing does."""
    found = {} if found is None else found
    if isinstance(formula, str):
        return _fill(formula, value, found)
    if isinstance(formula, Operator):
        return _match_operator(formula, value, found)
    if isinstance(formula, float):
        is_close = np.size(value) == 1 and _is_number(value)
        return found if is_close and np.isclose(float(np.ravel(value)[0]), formula, CLOSE) else None
    return found if formula == value else None


def _fill(hole: str, value: Any, found: Found) -> Found | None:
    if isinstance(value, Operator) != (hole == "z"):
        return None
    if hole in found:
        same = found[hole] is value or (hole != "z" and np.array_equal(found[hole], value))
        return found if same else None
    return {**found, hole: value}


def _match_operator(formula: Operator, value: Any, found: Found) -> Found | None:
    if not isinstance(value, Operator) or value.kind != formula.kind:
        return None
    if len(value.operands) != len(formula.operands):
        return None
    so_far: Found | None = found
    for name, wanted in formula.attributes.items():
        so_far = match(wanted, value.attributes.get(name, 0), so_far)
        if so_far is None:
            return None
    orders = (
        itertools.permutations(value.operands) if formula.kind in COMMUTATIVE else [value.operands]
    )
    for operands in orders:
        result = so_far
        for part, operand in zip(formula.operands, operands, strict=True):
            result = match(part, operand, result)
            if result is None:
                break
        if result is not None:
            return result
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiu")
