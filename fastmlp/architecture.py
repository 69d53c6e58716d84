"""What a network is apart from its parameters, checked and made explicit layer by layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._checks import check_flag, check_number, check_sequence, check_whole, is_sequence
from .activations import Activation
from .activations import resolve as resolve_activations
from .kernels import machine
from .norms import BatchNorm, LayerNorm
from .norms import Kind as NormKind
from .norms import resolve as resolve_norms

__all__ = ["Architecture"]

Floats = float | Sequence[float]


@dataclass(frozen=True)
class Architecture:
    """What a network is apart from its parameters; tuples by hidden layer or by layer.

    `dropout` is of the inputs and of each hidden layer's outputs, l2 and l1 of each layer's W;
    `input_scale` says whether the inputs have a factor each that is learnt.
    """

    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    norms: tuple[BatchNorm | LayerNorm | None, ...]
    dropout: tuple[float, ...]
    l2: tuple[float, ...]
    l1: tuple[float, ...]
    input_scale: bool = False

    @classmethod
    def of(
        cls,
        layer_sizes: Sequence[int],
        activation: str | Activation | Sequence[str | Activation] = "relu",
        norm: NormKind | Sequence[NormKind] = None,
        dropout: Floats = 0.0,
        l2: Floats = 0.0,
        l1: Floats = 0.0,
        input_scale: bool = False,
    ) -> "Architecture":
        """Make it from the arguments of `MLP`; TypeError or ValueError as there."""
        sizes = tuple(
            check_whole(n, f"layer_sizes[{i}]", 1)
            for i, n in enumerate(check_sequence(layer_sizes, "layer_sizes"))
        )
        if len(sizes) < 2:
            raise ValueError(
                f"layer_sizes must name the inputs and the outputs at least, got {list(sizes)}"
            )
        hidden = len(sizes) - 2
        inputs_too = f"the inputs and each of the {hidden} hidden layers"
        if isinstance(dropout, (int, float, np.number)):  # of hidden layers alone
            dropout = (0.0, *[check_number(dropout, "dropout", 0.0, 1.0)] * hidden)
        layers = f"each of the {hidden + 1} layers"
        return cls(
            sizes,
            resolve_activations(activation, hidden),
            resolve_norms(norm, hidden),
            _for_each(dropout, "dropout", hidden + 1, inputs_too, high=1.0),
            _for_each(l2, "l2", hidden + 1, layers),
            _for_each(l1, "l1", hidden + 1, layers),
            check_flag(input_scale, "input_scale"),
        )

    @property
    def has_batch_norm(self) -> bool:
        """Whether a row's outputs depend on the other rows of its batch in training."""
        return any(isinstance(norm, BatchNorm) for norm in self.norms)

    def rows_of_pass(self, batch: int, training: bool = True) -> int:
        """The most rows of a pass; batch norm takes a batch as a whole in training."""
        is_whole = training and self.has_batch_norm
        return batch if is_whole else min(batch, machine.MICRO_BATCH)

    @property
    def is_random(self) -> bool:
        """Whether training draws random numbers besides the shuffles."""
        return any(self.dropout)


def _for_each(
    value: Any, name: str, count: int, owners: str, high: float = math.inf
) -> tuple[float, ...]:
    """Numbers of at least 0 from one for all, or one for each of `count` owners."""
    if not is_sequence(value):
        return (check_number(value, name, 0.0, high),) * count
    if len(value) != count:
        raise ValueError(f"{name} must be one number, or one for {owners}, got {len(value)}")
    return tuple(check_number(x, f"{name}[{i}]", 0.0, high) for i, x in enumerate(value))
