"""Where everything of a network lies: the layer table, the workspaces, and views into them.

The functions here turn a place in the table into a matrix over raw memory; they compute nothing.
Letters: B rows of a micro-batch, I inputs and O outputs of a layer, l its number, 1 to L.
"""

from typing import Any, NamedTuple

from . import machine
from ._jit import glue
from .simd import borrow, matrix
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
    logits, gradient strip, row of zeros and column of ones.
    """

    table: Any
    threads: int
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


@glue
def units_of(plan, work, layer):
    """The thread's block of the units of a layer."""
    return share(plan.table[layer, LD], plan.table[layer, GRAIN], work.thread, plan.threads)


@glue
def output_of(plan, work, layer, passes, count, low, high):
    """Activations [B, high - low] of a layer (0: the inputs).

    Layer 1 has two buffers, used in turn: a thread may begin the next pass while another still
    needs the activations of this one; from layer 2 on a barrier lies between.
    """
    ld = plan.table[layer, LD]
    if layer == 0:
        return matrix(work.private, plan.inputs + low, count, high - low, ld)
    offset = plan.table[layer, OUTPUT] + low
    if layer == 1:
        offset += (passes & 1) * MICRO_BATCH * ld
    return matrix(work.shared, offset, count, high - low, ld)


@glue
def delta_of(plan, work, layer, count, low, high):
    """Gradients [B, high - low] of the loss with respect to a hidden layer's z."""
    ld = plan.table[layer, LD]
    return matrix(work.shared, plan.table[layer, DELTA] + low, count, high - low, ld)


@glue
def logits_of(plan, work, passes, count):
    """The outputs of the network [B, ld], replaced by their deltas in the backward pass."""
    last = plan.table.shape[0] - 1
    ld = plan.table[last, LD]
    if plan.narrow:
        return matrix(work.private, plan.logits, count, ld, ld)
    return output_of(plan, work, last, passes, count, 0, ld)


@glue
def deltas_of(plan, work, layer, passes):
    """Flat array that begins with a layer's gradients of the loss with respect to z [B, ld]."""
    last = plan.table.shape[0] - 1
    if layer < last:
        return work.shared[plan.table[layer, DELTA] :]
    if plan.narrow:
        return work.private[plan.logits :]
    offset = plan.table[layer, OUTPUT]
    if layer == 1:
        offset += (passes & 1) * MICRO_BATCH * plan.table[layer, LD]
    return work.shared[offset:]


@glue
def weights_of(table, theta, layer, top, bottom, low, high):
    """W[top:bottom, low:high] of a layer."""
    ld = table[layer, LD]
    return matrix(theta, table[layer, WEIGHT] + top * ld + low, bottom - top, high - low, ld)


@glue
def bias_of(table, theta, layer, low, high):
    """b[low:high] of a layer, as one row."""
    return matrix(theta, table[layer, BIAS] + low, 1, high - low, high - low)


@glue
def borrowed_plan(plan):
    """The plan without ownership of its table: threads do not contend for its reference count."""
    return Plan(
        borrow(plan.table),
        plan.threads,
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
