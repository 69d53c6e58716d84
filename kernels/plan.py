"""Where everything of a network lies: the layer table, the workspaces, and views into them.

The functions here turn a place in the table into a matrix over raw memory; they compute nothing.
Letters: B rows of a micro-batch, I inputs and O outputs of a layer, l its number, 1 to L.
"""

from typing import Any, NamedTuple

from . import machine
from ._jit import glue
from .simd import borrow, lanes, matrix, panels
from .team import share

# columns of the layer table; row 0 is the input
SIZE, LD, GRAIN, WEIGHT, BIAS, ACTIVATION, OUTPUT, DELTA, TRANSPOSED, COLUMNS = range(10)

MICRO_BATCH = machine.MICRO_BATCH


class Plan(NamedTuple):
    """A team, and where everything lies: the layer table, and offsets in elements into workspaces.

    `table` int64 [L + 1, COLUMNS]: units, row stride, units per indivisible block of ownership,
    offsets of W and b in the parameter vector, activation code, offsets of the outputs, deltas and
    transposed weights in the shared workspace. The others: the number of threads, whether the
    output layer is split by rows, the partial logits (shared), and each thread's own inputs,
    logits, gradient strip, row of zeros and column of ones. `packed` says whether weights lie in
    panels of one vector's columns, each contiguous, so that no two threads' weights share a page's
    prefetch streams, or row-major.
    """

    table: Any
    threads: int
    packed: int
    narrow: int
    partial: int
    inputs: int
    logits: int
    strip: int
    zeros: int
    ones: int


class Workspace(NamedTuple):
    """A thread's number and its scratch: shared by the team, private, its rows and their scores.

    shared, private: flat, of the network's dtype, 64-byte aligned; rows int64 [MICRO_BATCH];
    scores float64 [2, MICRO_BATCH], the team's if the loss is split between threads.
    """

    thread: int
    shared: Any
    private: Any
    rows: Any
    scores: Any


class Samples(NamedTuple):
    """x [N, I] of the network's dtype, labels int64 [N] or targets [N, O] (the other one empty).

    chosen int64 [n]: the rows of x that take part.
    """

    x: Any
    labels: Any
    targets: Any
    chosen: Any


class Upcoming(NamedTuple):
    """The rows of x that the next pass will gather: order[first:first + rows]."""

    x: Any
    order: Any
    first: int
    rows: int


@glue
def units_of(plan, layer, thread):
    """The block [low, high) of a layer's units that a thread owns."""
    return share(plan.table[layer, LD], plan.table[layer, GRAIN], thread, plan.threads)


@glue
def owners_of(plan, layer):
    """In how many blocks a layer's activations and deltas lie, one for each owner.

    Every thread has all inputs for itself, and all outputs if they are narrow.
    """
    is_private = layer == 0 or (plan.narrow and layer == plan.table.shape[0] - 1)
    return 1 if is_private else plan.threads


@glue
def block_of(plan, layer, owner):
    """The true units [low, high) of a layer in an owner's block, padding left out."""
    low, high = 0, plan.table[layer, LD]
    if owners_of(plan, layer) > 1:
        low, high = units_of(plan, layer, owner)
    return low, min(high, plan.table[layer, SIZE])


@glue
def activations_of(plan, work, layer, passes, count, owner, low, high):
    """Activations [B, high - low] of units low to high of a layer (0: the inputs), in one block.

    Layer 1 has two buffers, used in turn: a thread may begin the next pass while another still
    needs the activations of this one; from layer 2 on a barrier lies between.
    """
    ld = plan.table[layer, LD]
    if layer == 0:
        return matrix(work.private, plan.inputs + low, count, high - low, ld)
    offset = plan.table[layer, OUTPUT]
    if layer == 1:
        offset += (passes & 1) * MICRO_BATCH * ld
    if layer == plan.table.shape[0] - 1:  # a wide output layer is one matrix: the loss takes rows
        return matrix(work.shared, offset + low, count, high - low, ld)
    begin, end = units_of(plan, layer, owner)
    offset += begin * MICRO_BATCH + low - begin
    return matrix(work.shared, offset, count, high - low, end - begin)


@glue
def logits_of(plan, work, passes, count):
    """The outputs of the network [B, ld], replaced by their deltas in the backward pass."""
    last = plan.table.shape[0] - 1
    ld = plan.table[last, LD]
    if plan.narrow:
        return matrix(work.private, plan.logits, count, ld, ld)
    return activations_of(plan, work, last, passes, count, 0, 0, ld)


@glue
def partial_blocks_of(plan):
    """How many blocks of hidden units the logits of a narrow output layer are summed over."""
    below = plan.table.shape[0] - 2
    grain = plan.table[below, GRAIN]
    return (plan.table[below, LD] + grain - 1) // grain


@glue
def partial_logits_of(plan, work, passes, count, block):
    """The part [B, ld] of the logits that comes from one block; two buffers, as for layer 1."""
    ld = plan.table[plan.table.shape[0] - 1, LD]
    number = (passes & 1) * partial_blocks_of(plan) + block
    return matrix(work.shared, plan.partial + number * MICRO_BATCH * ld, count, ld, ld)


@glue
def deltas_of(plan, work, layer, passes, count, owner, low, high):
    """Gradients [B, high - low] of the loss by the z of units low to high, in one block."""
    if layer == plan.table.shape[0] - 1:
        if plan.narrow:
            return matrix(work.private, plan.logits + low, count, high - low, plan.table[layer, LD])
        return activations_of(plan, work, layer, passes, count, owner, low, high)
    begin, end = units_of(plan, layer, owner)
    offset = plan.table[layer, DELTA] + begin * MICRO_BATCH + low - begin
    return matrix(work.shared, offset, count, high - low, end - begin)


@glue
def weights_of(plan, theta, layer, top, bottom, low, high):
    """Panels of W[top:bottom, low:high] of a layer; low and high are multiples of the lanes."""
    inputs, ld, v = plan.table[layer - 1, SIZE], plan.table[layer, LD], lanes(theta)
    offset, count = plan.table[layer, WEIGHT], (high - low) // v
    if plan.packed:
        return panels(theta, offset + low * inputs + top * v, count, bottom - top, inputs * v, v)
    return panels(theta, offset + top * ld + low, count, bottom - top, v, ld)


@glue
def transposed_of(plan, work, layer, low, high, top, bottom):
    """Panels of W^T[top:bottom, low:high] of a layer; scratch of the thread that owns them."""
    ld, v = plan.table[layer, LD], lanes(work.shared)
    offset = plan.table[layer, TRANSPOSED] + low * ld + top * v
    return panels(work.shared, offset, (high - low) // v, bottom - top, ld * v, v)


@glue
def bias_of(plan, theta, layer, low, high):
    """b[low:high] of a layer, as one row."""
    return matrix(theta, plan.table[layer, BIAS] + low, 1, high - low, high - low)


@glue
def zeros_of(plan, work, width):
    """A row of zeros."""
    return matrix(work.private, plan.zeros, 1, width, width)


@glue
def borrowed_plan(plan):
    """The plan without ownership of its table: threads do not contend for its reference count."""
    return Plan(
        borrow(plan.table),
        plan.threads,
        plan.packed,
        plan.narrow,
        plan.partial,
        plan.inputs,
        plan.logits,
        plan.strip,
        plan.zeros,
        plan.ones,
    )


@glue
def borrowed_workspace(work):
    """The workspace without ownership of its arrays."""
    return Workspace(
        work.thread,
        borrow(work.shared),
        borrow(work.private),
        borrow(work.rows),
        borrow(work.scores),
    )


@glue
def borrowed_samples(samples):
    """The samples without ownership of their arrays."""
    return Samples(
        borrow(samples.x), borrow(samples.labels), borrow(samples.targets), borrow(samples.chosen)
    )
