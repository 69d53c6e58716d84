"""What a network is made of, layer by layer: a table in a terminal, a file or a notebook."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._html import html_table
from .cost import complexity
from .history import format_table
from .norms import BatchNorm, LayerNorm

if TYPE_CHECKING:
    from rich.table import Table

    from .mlp import MLP

__all__ = ["Summary", "summary"]

TITLES = ("layer", "computes", "output", "parameters", "multiplications")
LEFT = 2  # the first columns are text


@dataclass(frozen=True)
class Summary:
    """Result of `summary`; ``str(s)`` is a table, drawn by rich if that is installed.

    Attributes
    ----------
    rows
        The cells of each layer, inputs first, and of the whole network.
    notes
        Lines on memory.
    """

    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        try:
            from rich import get_console
        except ImportError:
            table = "\n".join(format_table([TITLES, *self.rows], LEFT))
        else:
            console = get_console()
            with console.capture() as drawn:
                console.print(self.__rich__())
            table = "\n".join(line.rstrip() for line in drawn.get().rstrip().splitlines())
        return "\n".join([table, *self.notes])

    def __rich__(self) -> "Table":
        from rich import box
        from rich.table import Table

        table = Table(box=box.ROUNDED, header_style="", caption_style="")
        for number, title in enumerate(TITLES):
            table.add_column(title, justify="left" if number < LEFT else "right")
        *layers, whole = self.rows
        for row in layers:
            table.add_row(*row)
        table.add_section()
        table.add_row(*whole)
        return table

    def _repr_html_(self) -> str:
        return html_table([TITLES, *self.rows], self.notes)


def summary(net: "MLP", batch: int = 32) -> Summary:
    """Describe a network: layers, shapes, parameters, multiplications and memory.

    Parameters
    ----------
    net
        The network.
    batch
        Samples of the training step whose memory is told.

    Returns
    -------
    Summary
        To print, or to show in a notebook. Multiplications are those of the matrix products, for
        each sample of a prediction; the memory is that of the parameters, and that which `fit`
        allocates for a step with Adam in one thread, see `complexity`.

    Raises
    ------
    TypeError, ValueError
        If batch is not a whole number of at least 1.

    Examples
    --------
    >>> import fastmlp as fm
    >>> s = summary(fm.MLP([784, 128, 3], norm="batch", dropout=0.2))
    >>> for row in s.rows:
    ...     print(" | ".join(row))
    inputs |  | (n, 784) | 0 | 0
    1 | linear, batch norm, relu, dropout 0.2 | (n, 128) | 100,736 | 100,352
    output | linear, for softmax_cross_entropy | (n, 3) | 387 | 384
    all |  |  | 101,123 | 100,736
    >>> s.notes[1]
    'a training step on 32 samples with Adam needs 1.9 MiB'
    """
    cost = complexity(
        net.layer_sizes,
        batch,
        activation=net.activation,
        norm=net.norm,
        dropout=net.dropout,
        input_scale=net.architecture.input_scale,
        threads=1,
        dtype=net.dtype,
    )
    layers = cost.layers
    scales = len(net.input_scale)
    of_inputs = ", ".join(p for p in ("scale" if scales else "", _dropout(net.dropout[0])) if p)
    rows = [("inputs", of_inputs, _shape(net.layer_sizes[0]), f"{scales:,}", "0")]
    for number, layer in enumerate(layers, 1):
        is_last = number == len(layers)
        rows.append(
            (
                "output" if is_last else str(number),
                f"linear, for {net.loss}" if is_last else _parts(net, number - 1),
                _shape(layer.outputs),
                f"{layer.parameters - (scales if number == 1 else 0):,}",
                f"{layer.forward // batch:,}",
            )
        )
    rows.append(("all", "", "", f"{net.n_parameters:,}", f"{cost.forward // batch:,}"))
    numbers = net.theta.nbytes + net.running.nbytes
    notes = (
        f"parameters {net.dtype.name}, {_bytes(numbers)}",
        f"a training step on {batch:,} samples with Adam needs {_bytes(cost.memory)}",
    )
    return Summary(tuple(rows), notes)


def _parts(net: "MLP", hidden: int) -> str:
    norm = {BatchNorm: "batch norm", LayerNorm: "layer norm"}.get(type(net.norm[hidden]), "")
    parts = ("linear", norm, str(net.activation[hidden]), _dropout(net.dropout[hidden + 1]))
    return ", ".join(part for part in parts if part)


def _dropout(probability: float) -> str:
    return f"dropout {probability:g}" if probability else ""


def _shape(units: int) -> str:
    return f"(n, {units})"


def _bytes(count: int) -> str:
    if count < 1024:
        return f"{count} bytes"
    power = min(int(math.log2(count)) // 10, 3)
    return f"{count / 1024**power:,.1f} {' KMG'[power]}iB"
