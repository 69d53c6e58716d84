"""What a step of training costs: multiplications and memory, before anything is allocated."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import DTypeLike

from . import norms
from . import threads as thread_counts
from ._checks import check_whole
from .activations import Activation
from .architecture import Architecture
from .history import format_table
from .kernels import plan as kernel_plan
from .kernels import resolve_dtype
from .kernels.plan import Plan
from .layout import Layout, allocate, feature_lists, groups_of
from .optimizers import LBFGS, Adam, Optimizer, check_optimizer

__all__ = ["Complexity", "LayerCost", "complexity"]

WORD = 8  # bytes of a row's number, of a score and of a norm


@dataclass(frozen=True)
class LayerCost:
    """The products of one layer, in multiply-adds a step.

    Attributes
    ----------
    inputs, outputs
        Its W is [inputs, outputs].
    parameters
        Of W, b, slopes, gains and shifts; of the first layer, the scale of the inputs too.
    forward
        batch inputs outputs: A W.
    backward
        Twice that, A^T dZ and dZ W^T; once for the first layer, whose inputs need no gradient
        unless they have a scale.
    recomputed
        What a checkpoint below it costs: A W again in the backward pass, or 0.
    """

    inputs: int
    outputs: int
    parameters: int
    forward: int
    backward: int
    recomputed: int


@dataclass(frozen=True)
class Complexity:
    """Result of `complexity`; ``str(cost)`` is a table.

    Attributes
    ----------
    layers
        The first hidden layer to the output.
    batch
        Samples of a step.
    parameters
        Bytes of the parameters, padding included: the network's, the packed copy that is trained,
        and running statistics.
    gradient
        Bytes of the gradient; 0 if a step is one pass, as it then becomes the update at once.
    optimizer_state
        Bytes of the optimizer's moments.
    activations
        Bytes of what a pass keeps from layer to layer: inputs, outputs, and what norm, dropout and
        derivatives need.
    workspace
        Bytes of all other scratch: deltas, transposed weights, partial sums, gaps between threads
        and so on.
    """

    layers: tuple[LayerCost, ...]
    batch: int
    parameters: int
    gradient: int
    optimizer_state: int
    activations: int
    workspace: int

    @property
    def forward(self) -> int:
        """Multiply-adds of the forward pass of a step."""
        return sum(layer.forward for layer in self.layers)

    @property
    def backward(self) -> int:
        """Multiply-adds of the backward pass of a step, without what is recomputed."""
        return sum(layer.backward for layer in self.layers)

    @property
    def recomputed(self) -> int:
        """Multiply-adds of a step that checkpointing adds."""
        return sum(layer.recomputed for layer in self.layers)

    @property
    def memory(self) -> int:
        """All bytes together."""
        return (
            self.parameters
            + self.gradient
            + self.optimizer_state
            + self.activations
            + self.workspace
        )

    def __str__(self) -> str:
        titles = ["layer", "shape", "parameters", "forward", "backward", "recomputed"]
        rows = [
            [str(number), f"{c.inputs} x {c.outputs}"]
            + [f"{n:,}" for n in (c.parameters, c.forward, c.backward, c.recomputed)]
            for number, c in enumerate(self.layers, 1)
        ]
        count = sum(layer.parameters for layer in self.layers)
        totals = (count, self.forward, self.backward, self.recomputed)
        rows = [titles, *rows, ["all", "", *(f"{n:,}" for n in totals)]]
        kinds = ("parameters", "gradient", "optimizer_state", "activations", "workspace", "memory")
        sizes = [(kind.replace("_", " "), f"{getattr(self, kind):,}") for kind in kinds]
        width = max(len(size) for _, size in sizes)
        return "\n".join(
            [
                f"multiply-adds of a step on {self.batch:,} samples",
                *format_table(rows),
                "bytes",
                *(f"{kind:>15}  {size:>{width}}" for kind, size in sizes),
            ]
        )


def complexity(
    layer_sizes: Sequence[int],
    batch: int,
    *,
    activation: str | Activation | Sequence[str | Activation] = "relu",
    norm: norms.Kind | Sequence[norms.Kind] = None,
    dropout: float | Sequence[float] = 0.0,
    input_scale: bool = False,
    optimizer: Optimizer | None = None,
    checkpoint_every: int = 1,
    threads: int | None = None,
    dtype: DTypeLike = "float32",
) -> Complexity:
    """Count the multiplications and the memory of a step of `fit`, without running it.

    The multiplications are those of the matrix products; everything else is a few operations for
    each activation or parameter. The memory is what `fit` allocates for a step without accumulation
    and clipping by norm, up to some kilobytes of tables; the samples are not in it, nor what a
    validation needs.

    Parameters
    ----------
    layer_sizes, activation, norm, dropout, input_scale, dtype
        As in `MLP`.
    batch
        Samples of a step.
    optimizer, checkpoint_every, threads
        As in `fit`.

    Returns
    -------
    Complexity
        By layer, and in all.

    Raises
    ------
    TypeError, ValueError
        As `MLP` and `fit`; and if the optimizer is `LBFGS`, whose memory is SciPy's.

    References
    ----------
    T. Chen, B. Xu, C. Zhang, C. Guestrin: Training deep nets with sublinear memory cost.
    arXiv:1604.06174, 2016, on checkpoints.

    Examples
    --------
    The workspace depends on the width of the machine's vectors.

    >>> print(complexity([784, 128, 3], 32, threads=1))  # doctest: +ELLIPSIS
    multiply-adds of a step on 32 samples
    layer      shape  parameters    forward   backward  recomputed
        1  784 x 128     100,480  3,211,264  3,211,264           0
        2    128 x 3         387     12,288     24,576           0
      all                100,867  3,223,552  3,235,840           0
    bytes
         parameters    820,352
           gradient          0
    optimizer state    820,352
        activations    135,168
          workspace    ...
             memory  1,...
    """
    architecture = Architecture.of(layer_sizes, activation, norm, dropout, input_scale=input_scale)
    batch = check_whole(batch, "batch", 1)
    every = check_whole(checkpoint_every, "checkpoint_every", 1)
    optimizer = Adam() if optimizer is None else optimizer
    check_optimizer(optimizer)
    if isinstance(optimizer, LBFGS):
        raise ValueError("optimizer must not be LBFGS, whose memory is SciPy's")
    resolved = resolve_dtype(dtype)
    layout = Layout.of(architecture, resolved)
    team = thread_counts.resolve(threads)
    rows = architecture.rows_of_pass(batch)
    passes = -(-batch // rows)
    groups = groups_of(architecture, layout, passes, training=True)
    shares = groups == 1  # the threads each pass
    allocation = allocate(
        architecture,
        layout,
        resolved,
        threads=team if shares else 1,
        groups=groups,
        rows=rows,
        packed=True,
        checkpoint_every=every,
    )
    plan, item = allocation.plan, resolved.itemsize
    copies = 1 if shares else team  # of what the threads of a pass share
    kept = item * (copies * _shared_activations(plan) + team * _own_activations(plan))
    scores = 3 * rows * (1 if shares and not plan.narrow else team) + 3 * passes
    lists = sum(array.size for array in feature_lists(layout, rows))
    table = WORD * (team * (rows + lists) + scores + allocation.norms)
    return Complexity(
        layers=_layer_costs(layout, batch, int(plan.checkpoint_every)),
        batch=batch,
        parameters=item * (2 * layout.length + layout.running_length),
        gradient=item * groups * layout.length if passes > 1 else 0,
        optimizer_state=item * layout.length * sum(optimizer.moments),
        activations=kept,
        workspace=item * (copies * allocation.shared + team * allocation.private) + table - kept,
    )


def _layer_costs(layout: Layout, batch: int, every: int) -> tuple[LayerCost, ...]:
    """The products of each layer, with checkpoints at every so many hidden layers."""
    last = len(layout.sizes) - 1
    lowest = 0 if layout.tensors[0].kind == "input_scale" else 1  # whose outputs have a gradient
    costs = []
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(layout.sizes), 1):
        product = batch * n_in * n_out
        checkpoint = every * -(-layer // every)
        costs.append(
            LayerCost(
                inputs=n_in,
                outputs=n_out,
                parameters=sum(
                    math.prod(tensor.shape) for tensor in layout.tensors if tensor.layer == layer
                ),
                forward=product,
                backward=product if layer == lowest else 2 * product,
                # what lies below the last checkpoint is still there
                recomputed=product if layer < checkpoint < last - 1 else 0,
            )
        )
    return tuple(costs)


def _shared_activations(plan: Plan) -> int:
    """Elements of the shared workspace that pass from layer to layer; regions may be in turn."""
    table, numbers = plan.table, plan.numbers
    last = len(table) - 1
    widest = max(table[1:last, kernel_plan.LD], default=0)
    regions = {}
    for layer in range(1, last):
        row, is_kept = table[layer], layer % plan.checkpoint_every == 0
        width = row[kernel_plan.LD] if is_kept else widest
        for column, buffers in (
            (kernel_plan.OUTPUT, 2 if row[kernel_plan.PARITY] else 1),
            (kernel_plan.SAVED, int(row[kernel_plan.SAVES] != kernel_plan.NONE)),
            (kernel_plan.MASK, int(numbers[layer, kernel_plan.DROPOUT] > 0)),
            (kernel_plan.NORMED, int(row[kernel_plan.NORM] != kernel_plan.NONE)),
        ):
            if buffers:
                regions[int(row[column])] = int(buffers * plan.rows * width)
    outputs = 0 if plan.narrow else plan.rows * table[last, kernel_plan.LD]
    return sum(regions.values()) + int(outputs) * (2 if last == 1 else 1)


def _own_activations(plan: Plan) -> int:
    """Elements of each thread's own workspace that hold inputs, their mask, and narrow outputs."""
    inputs, outputs = plan.table[0, kernel_plan.LD], plan.table[-1, kernel_plan.LD]
    copies = 2 if plan.numbers[0, kernel_plan.DROPOUT] > 0 else 1
    return int(plan.rows * (copies * inputs + (outputs if plan.narrow else 0)))
