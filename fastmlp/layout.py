"""Where parameters and workspaces lie in memory: pure functions of the network's architecture.

Every parameter of a network is in one flat, 64-byte aligned vector: the scale of the inputs if they
have one, then for each layer W [n_in, ld], row-major, b [ld], and slopes, gains and shifts [ld] if
it has them, where ld is n_out rounded up to a cache line. The padding is zero and stays zero, so
the kernels' inner loops have no column edges. Gradients and optimizer state are vectors of the same
layout.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .architecture import Architecture
from .kernels import activation as kernel_activation
from .kernels import clip, machine
from .kernels import plan as kernel_plan
from .kernels.gemm import PANEL_VECTORS
from .kernels.plan import Plan
from .kernels.tile import WORDS_TOGETHER
from .norms import BatchNorm, LayerNorm

Vector = NDArray[Any]
Matrix = NDArray[Any]
COLUMNS = {
    "weight": kernel_plan.WEIGHT,
    "bias": kernel_plan.BIAS,
    "slope": kernel_plan.SLOPE,
    "gain": kernel_plan.GAIN,
    "shift": kernel_plan.SHIFT,
    "running_mean": kernel_plan.RUNNING,
}
"""Kind of a layer's tensor -> where the layer table has its offset."""


def aligned_zeros(length: int, dtype: np.dtype[Any]) -> Vector:
    """A zero vector that begins on a page, where most prefetchers of what lies before end."""
    spare = machine.PAGE // dtype.itemsize
    raw = np.zeros(length + spare, dtype)
    start = -raw.ctypes.data % machine.PAGE // dtype.itemsize
    return raw[start : start + length]


def round_up(n: int, multiple: int) -> int:
    """Return the smallest multiple that is at least n."""
    return -(-n // multiple) * multiple


class Tensor(NamedTuple):
    """One parameter array in a flat vector: rows of `ld` elements from `offset`.

    `shape` is the true one. `copies` of the one number of a whole layer's slope follow each other,
    so that the kernels find it beside every unit; the first is the parameter.
    """

    name: str
    kind: str
    layer: int
    offset: int
    rows: int
    ld: int
    shape: tuple[int, ...]
    copies: int = 1

    @property
    def length(self) -> int:
        """Elements with padding."""
        return self.rows * self.ld

    def view(self, flat: Vector) -> NDArray[Any]:
        """Return the true part of the tensor in a vector."""
        whole = flat[self.offset : self.offset + self.length].reshape(self.rows, self.ld)
        return whole[:, : self.shape[1]] if len(self.shape) == 2 else whole[0, : self.shape[0]]


class Layout(NamedTuple):
    """The parameter vector of a network and the vector of its running statistics."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]  # of each layer's output, input included: sizes in whole lines
    tensors: tuple[Tensor, ...]
    length: int
    running: tuple[Tensor, ...]
    running_length: int

    @classmethod
    def of(cls, architecture: Architecture, dtype: np.dtype[Any]) -> "Layout":
        """Lay out the parameters of a network."""
        sizes = architecture.sizes
        line = machine.CACHE_LINE // dtype.itemsize
        strides = tuple(round_up(n, line) for n in sizes)
        tensors: list[Tensor] = []
        running: list[Tensor] = []

        def place(
            into: list[Tensor], layer: int, kind: str, rows: int, n: int, copies: int = 1
        ) -> None:
            offset = into[-1].offset + into[-1].length if into else 0
            shape = (rows, n) if kind == "weight" else (n,)
            name = f"layers.{layer - 1}.{kind}"
            into.append(Tensor(name, kind, layer, offset, rows, strides[layer], shape, copies))

        if architecture.input_scale:
            shape = (sizes[0],)
            tensors.append(Tensor("input_scale", "input_scale", 1, 0, 1, strides[0], shape))
        for layer, (n_in, n_out) in enumerate(pairwise(sizes), 1):
            place(tensors, layer, "weight", n_in, n_out)
            place(tensors, layer, "bias", 1, n_out)
            if layer == len(sizes) - 1:
                break
            activation, norm = architecture.activations[layer - 1], architecture.norms[layer - 1]
            if activation.name == "prelu" and activation.per_unit:
                place(tensors, layer, "slope", 1, n_out)
            elif activation.name == "prelu":
                place(tensors, layer, "slope", 1, 1, copies=n_out)
            if norm is not None:
                place(tensors, layer, "gain", 1, n_out)
                place(tensors, layer, "shift", 1, n_out)
            if isinstance(norm, BatchNorm):
                place(running, layer, "running_mean", 1, n_out)
                place(running, layer, "running_variance", 1, n_out)

        def end(of: list[Tensor]) -> int:
            return of[-1].offset + of[-1].length if of else 0

        return cls(sizes, strides, tuple(tensors), end(tensors), tuple(running), end(running))

    @property
    def n_parameters(self) -> int:
        """Number of parameters without padding."""
        return sum(int(np.prod(tensor.shape)) for tensor in self.tensors)

    def views(self, flat: Vector, kind: str) -> tuple[NDArray[Any], ...]:
        """Views of a kind's tensors in a vector, one for each layer: empty where it has none.

        Kinds that only hidden layers have leave out the output layer.
        """
        count = len(self.sizes) - (1 if kind in ("weight", "bias") else 2)
        found: list[NDArray[Any]] = [flat[:0]] * count
        for tensor in self.running if kind.startswith("running") else self.tensors:
            if tensor.kind == kind:
                found[tensor.layer - 1] = tensor.view(flat)
        return tuple(found)

    def weights(self, flat: Vector) -> tuple[Matrix, ...]:
        """Views W_l [n_in, n_out] of a vector of this layout."""
        return self.views(flat, "weight")

    def biases(self, flat: Vector) -> tuple[Vector, ...]:
        """Views b_l [n_out] of a vector of this layout."""
        return self.views(flat, "bias")

    def input_scale(self, flat: Vector) -> Vector:
        """View s [n_in] of a vector of this layout; empty if the inputs have no scale."""
        first = self.tensors[0]
        return first.view(flat) if first.kind == "input_scale" else flat[:0]

    def spread(self, flat: Vector) -> None:
        """Make the copies of every number that is a whole layer's equal to the first."""
        for tensor in self._copied():
            flat[tensor.offset : tensor.offset + tensor.copies] = flat[tensor.offset]

    def gather(self, flat: Vector) -> None:
        """Set the copies of every number that is a whole layer's to zero but the first."""
        for tensor in self._copied():
            flat[tensor.offset + 1 : tensor.offset + tensor.copies] = 0

    def _copied(self) -> Iterator[Tensor]:
        return (tensor for tensor in self.tensors if tensor.copies > 1)

    def pack(self, flat: Vector) -> Vector:
        """Return the vector as the team trains on it: each W in panels of one vector's columns."""
        packed = aligned_zeros(self.length, flat.dtype)
        packed[...] = flat
        for row_major, panels in zip(self._panels(flat, 1), self._panels(packed, 0), strict=True):
            panels[...] = row_major
        return packed

    def unpack(self, packed: Vector, flat: Vector) -> None:
        """Write a packed vector to one of the ordinary layout."""
        for tensor in self.tensors:
            if tensor.kind != "weight":
                place = slice(tensor.offset, tensor.offset + tensor.length)
                flat[place] = packed[place]
        for row_major, panels in zip(self._panels(flat, 1), self._panels(packed, 0), strict=True):
            row_major[...] = panels

    def _panels(self, vector: Vector, panel_axis: int) -> list[NDArray[Any]]:
        """Views [panels, n_in, lanes] of each W, whose memory has the panels as its given axis."""
        lanes = machine.VECTOR_BYTES // vector.itemsize
        views = []
        for tensor in self.tensors:
            if tensor.kind != "weight":
                continue
            n_in, count = tensor.rows, tensor.ld // lanes
            shape = (n_in, count, lanes) if panel_axis else (count, n_in, lanes)
            view = vector[tensor.offset : tensor.offset + tensor.length].reshape(shape)
            views.append(np.moveaxis(view, panel_axis, 0))
        return views


class Allocation(NamedTuple):
    """A kernel plan, and the length in elements of the workspaces it points into."""

    plan: Plan
    shared: int
    private: int

    @property
    def norms(self) -> int:
        """How many sums of squares a gradient is measured by."""
        lengths = self.plan.tensors[:, kernel_plan.TENSOR_LENGTH]
        return int((-(-lengths // clip.CHUNK)).sum())


def groups_of(architecture: Architecture, layout: Layout, passes: int, training: bool) -> int:
    """In how many groups the passes of a step are cut; 1: the threads share each pass.

    To share a pass costs its barriers, some microseconds, and rounds each layer's part up to a
    cache line of units; both weigh much in a small network. Not to share costs a gradient for each
    group, written once and added up once, and each thread has all weights in its cache, not a part
    of them. A function of network and step alone, since it decides the order of sums.
    """
    is_whole = training and architecture.has_batch_norm  # the running statistics follow the passes
    if is_whole or layout.length > machine.PASS_PARAMETERS:
        return 1
    return min(passes, machine.PASS_GROUPS)


def can_be_turned(architecture: Architecture, training: bool) -> bool:
    """Whether a pass may be turned: `kernels.turned` has layers of this kind alone."""
    is_plain = not (architecture.input_scale or (training and any(architecture.dropout)))
    are_few = architecture.sizes[0] < machine.SKIPPED_FEATURES
    have_slopes = any(activation.name == "prelu" for activation in architecture.activations)
    return is_plain and are_few and not have_slopes and not any(architecture.norms)


def place_of(tensor: Tensor) -> tuple[int, int]:
    """Row and column of the layer table that have a tensor's offset."""
    if tensor.kind == "input_scale":
        return 0, kernel_plan.GAIN
    return tensor.layer, COLUMNS[tensor.kind]


def feature_lists(layout: Layout, rows: int, used: bool = True) -> tuple[Vector, ...]:
    """`features`, `nonzero`, `every` of a workspace for passes of `rows`; nothing if not used."""
    if not used:
        return (np.zeros(0, np.int64),) * 3
    inputs = layout.sizes[0]
    return (
        np.zeros(2 + inputs + machine.STRIP_ROWS, np.int64),
        np.zeros(rows * (inputs // 64 + 2) + WORDS_TOGETHER - 1, np.int64),
        np.arange(max(rows, *layout.strides)),
    )


class _Space:
    """Hands out places in a workspace, each on a cache line."""

    def __init__(self, line: int) -> None:
        self._line = line
        self.length = 0

    def take(self, length: int) -> int:
        offset = self.length
        self.length += round_up(length, self._line)
        return offset


def allocate(
    architecture: Architecture,
    layout: Layout,
    dtype: np.dtype[Any],
    *,
    threads: int = 1,
    groups: int = 1,
    rows: int = machine.MICRO_BATCH,
    packed: bool = False,
    backward: bool = True,
    training: bool = True,
    seed: int = 0,
    checkpoint_every: int = 1,
    keep: bool = False,
    input_gradient: bool = False,
) -> Allocation:
    """Lay out the workspaces of a team: what its threads share, and what each has for itself.

    groups
        In how many groups the passes of a step are cut, see `groups_of`; with more than one, each
        pass is done by a team of one.
    rows
        The most rows of a pass.
    backward, training
        Whether there is a backward pass; whether with dropout and the statistics of the batch.
    checkpoint_every
        Every how many hidden layers the activations are kept for the backward pass.
    keep
        Whether all hidden layers keep z as well, for a reader; there is no backward pass then.
    input_gradient
        Whether the gradient by the inputs is computed too.
    """
    line = machine.CACHE_LINE // dtype.itemsize
    lanes = machine.VECTOR_BYTES // dtype.itemsize
    sizes, strides = layout.sizes, layout.strides
    last = len(sizes) - 1
    turned = groups > 1 and can_be_turned(architecture, training)
    narrow = sizes[-1] <= machine.NARROW_OUTPUT
    table = np.zeros((last + 1, kernel_plan.COLUMNS), np.int64)
    table[:, kernel_plan.SIZE] = sizes
    table[:, kernel_plan.LD] = strides
    table[:, kernel_plan.GRAIN] = line
    table[:, kernel_plan.DELTA] = table[0, kernel_plan.GAIN] = -1
    input_gradient = input_gradient or (backward and architecture.input_scale)
    if narrow:
        grain = round_up(-(-strides[-2] // machine.PARTIAL_BLOCKS), line)
        table[last - 1, kernel_plan.GRAIN] = grain
    for tensor in (*layout.tensors, *layout.running):
        if tensor.kind != "running_variance":
            table[place_of(tensor)] = tensor.offset

    numbers = np.zeros((last + 1, kernel_plan.NUMBERS))
    numbers[:, kernel_plan.RATES :] = 1.0
    numbers[:last, kernel_plan.DROPOUT] = architecture.dropout if training else 0.0
    numbers[1:, kernel_plan.L2] = architecture.l2
    numbers[1:, kernel_plan.L1] = architecture.l1
    own, shared, private = _Space(line), _Space(line), _Space(line)
    if numbers[0, kernel_plan.DROPOUT] > 0:
        table[0, kernel_plan.MASK] = private.take(rows * strides[0])

    every = checkpoint_every if backward and not turned else 1
    slots: dict[tuple[int, int], int] = {}

    def widest_share(layer: int) -> int:
        """The most units of a layer that a thread owns."""
        grain = int(table[layer, kernel_plan.GRAIN])
        return min(-(-strides[layer] // (grain * threads)) * grain, strides[layer])

    def region(layer: int, column: int, slot: int | None, buffers: int = 1) -> None:
        """Find a place for a thread's units of a layer; layers with the same slot share one."""
        width = widest_share(layer) if slot is None else max(map(widest_share, range(1, last)))
        place = slots.get((column, slot)) if slot is not None else None
        if place is None:
            place = own.take(buffers * rows * width)
        if slot is not None:
            slots[column, slot] = place
        table[layer, column] = place
        if buffers > 1:
            table[layer, kernel_plan.PARITY] = rows * width

    for layer in range(1, last):
        activation, norm = architecture.activations[layer - 1], architecture.norms[layer - 1]
        row, slot = table[layer], layer % every or None
        drops = numbers[layer, kernel_plan.DROPOUT] > 0
        row[kernel_plan.ACTIVATION] = activation.code
        numbers[layer, kernel_plan.PARAMETER] = activation.alpha or 0.0
        region(layer, kernel_plan.OUTPUT, slot, 2 if layer == 1 or slot == 1 else 1)
        if keep or (backward and activation.code in kernel_activation.NEEDS_INPUT):
            row[kernel_plan.SAVES] = kernel_plan.SAVES_INPUT
        elif backward and drops:
            row[kernel_plan.SAVES] = kernel_plan.SAVES_OUTPUT
        if row[kernel_plan.SAVES] != kernel_plan.NONE:
            region(layer, kernel_plan.SAVED, slot)
        if drops:
            region(layer, kernel_plan.MASK, slot)
        if activation.name == "prelu":
            row[kernel_plan.SLOPES] = (
                kernel_plan.SLOPE_OF_UNIT if activation.per_unit else kernel_plan.SLOPE_OF_LAYER
            )
        if norm is not None:
            row[kernel_plan.NORM] = norm.code
            numbers[layer, kernel_plan.EPSILON] = norm.epsilon
            region(layer, kernel_plan.NORMED, slot)
        if isinstance(norm, BatchNorm):
            numbers[layer, kernel_plan.MOMENTUM] = norm.momentum
            row[kernel_plan.SPREAD] = own.take(widest_share(layer))
        elif norm is not None:
            row[kernel_plan.SPREAD] = own.take(rows)
        if backward:
            # a third layer's deltas are written only when those of the first are read no more
            region(layer, kernel_plan.DELTA, None if every == 1 else layer % 3)
    if input_gradient:
        region(0, kernel_plan.DELTA, None)
    page, prefetched = (n // dtype.itemsize for n in (machine.PAGE, machine.PREFETCHED))
    partial, partial_apart, blocks = 0, 0, 0
    if narrow:
        blocks = -(-strides[-2] // int(table[last - 1, kernel_plan.GRAIN]))
        partial_apart = rows * strides[-1]
        if threads > 1:  # while others read the first one, the next ones are written
            partial_apart += page
        partial = own.take(2 * -(-blocks // threads) * partial_apart)
    apart = own.length
    if threads > 1:
        apart = round_up(apart, page) + prefetched
    shared.take(threads * apart)
    for layer, norm in enumerate(architecture.norms, 1):
        row = table[layer]
        if row[kernel_plan.SLOPES] != kernel_plan.NONE:
            row[kernel_plan.SLOPE_SUMS] = shared.take(strides[layer])
        if isinstance(norm, LayerNorm):
            count = -(-strides[layer] // int(row[kernel_plan.GRAIN]))
            row[kernel_plan.MOMENTS] = shared.take(2 * rows * 2 * count)
    if turned or not narrow:
        buffers = 2 if last == 1 else 1
        table[last, kernel_plan.OUTPUT] = shared.take(buffers * rows * strides[last])
        table[last, kernel_plan.PARITY] = (buffers - 1) * rows * strides[last]
    if turned:
        table[0, kernel_plan.OUTPUT] = shared.take(rows * strides[0])
        # what the outputs are compared with
        table[last, kernel_plan.SAVED] = shared.take(rows * strides[last])
    widest = max(strides)
    # vectors of the largest W^T that is made, or of its blocks; or of sums in place of it, or
    # of columns of activations that are copied
    lowest = 1 if input_gradient else 2
    whole = (strides[i - 1] // lanes * round_up(sizes[i], lanes) for i in range(lowest, last + 1))
    few = min(rows, machine.FEW_ROWS)
    sums = min(few * widest, max(machine.SUMMED_VECTORS, few * lanes))  # see `units_summed`
    transposed = max(min(machine.TRANSPOSED_VECTORS, max(whole, default=0)), sums)
    if rows * max(strides[:-1]) >= 2 * machine.NEAR_VECTORS * lanes:  # see `columns_together`
        transposed = max(transposed, machine.COPIED_VECTORS)
    if turned:  # sixteen sums of lanes
        transposed = max(transposed, 16 // lanes)
    panel = 2 * widest * lanes if turned else 0  # the largest of a gradient, and its penalty
    return Allocation(
        Plan(
            table,
            numbers,
            np.array([(t.offset, t.length, t.copies, *place_of(t)) for t in layout.tensors]),
            threads,
            groups,
            int(packed),
            int(narrow),
            int(turned),
            int(training),
            rows,
            every,
            seed,
            apart,
            partial,
            partial_apart,
            inputs=private.take(rows * strides[0]),
            logits=private.take(blocks * rows * strides[-1] if narrow else 0),
            strip=private.take(max(PANEL_VECTORS * lanes * machine.STRIP_ROWS, panel, 2 * widest)),
            packed_deltas=private.take(PANEL_VECTORS * lanes * rows if backward else 0),
            transposed=private.take(transposed * lanes if backward else 0),
            zeros=private.take(max(widest, PANEL_VECTORS * lanes)),
            target=private.take(strides[-1]),
        ),
        shared.length,
        private.length,
    )


def alone(allocation: Allocation) -> Allocation:
    """The same for a team of one in a single array: the private part behind the shared one."""
    plan, shared = allocation.plan, allocation.shared
    private = ("inputs", "logits", "strip", "packed_deltas", "transposed", "zeros", "target")
    moved = plan._replace(**{name: getattr(plan, name) + shared for name in private})
    moved.table[0, kernel_plan.MASK] += shared
    return Allocation(moved, shared + allocation.private, 0)
