"""Where everything of a network lies: the layer table, the workspaces, and views into them.

The functions here turn a place in the table into a matrix over raw memory; they compute nothing.
Letters: B rows of a pass, I inputs and O outputs of a layer, l its number, 1 to L.
"""

from typing import Any, NamedTuple

from . import machine
from ._jit import glue, inlined, kernel
from .simd import lanes, matrix, panels
from .team import share
from .tile import NonZero

# Columns of the layer table; row 0 is the input.
# Units, row stride, units in an indivisible block of ownership:
SIZE, LD, GRAIN = range(3)
# offsets in the parameters of W, b, slopes, gains and shifts, in `Workspace.running` of means
# (GAIN of row 0: of the scale of the inputs, -1 if there is none):
WEIGHT, BIAS, SLOPE, GAIN, SHIFT, RUNNING = range(3, 9)
# codes of the activation, of the slopes, of the norm, and of what is saved for the backward pass:
ACTIVATION, SLOPES, NORM, SAVES = range(9, 13)
# offsets in each thread's part of the shared workspace, and how far apart the two buffers of the
# outputs are (0: there is one). In all of it: MOMENTS, SLOPE_SUMS, and of wide or turned outputs
# and turned inputs OUTPUT and SAVED. In the private one: the inputs' MASK.
OUTPUT, PARITY, SAVED, MASK, NORMED, SPREAD, MOMENTS = range(13, 20)
DELTA, SLOPE_SUMS, COLUMNS = range(20, 23)

# Columns of the table of numbers, one row for each layer.
PARAMETER, DROPOUT, L2, L1, EPSILON, MOMENTUM = range(6)
# ... and the factors on the learning rate, of W, b, slopes, gains and shifts in turn
RATES, NUMBERS = 6, 11

NONE = 0
SLOPE_OF_UNIT, SLOPE_OF_LAYER = 1, 2  # codes of SLOPES
BATCH_NORM, LAYER_NORM = 1, 2  # codes of NORM
# Codes of SAVES: f'(z) is computed from the outputs themselves, from z, or from the outputs before
# dropout; the latter two are kept apart.
SAVES_INPUT, SAVES_OUTPUT = 1, 2

# Columns of the table of tensors: offset in the parameter vector, padded length, and how many
# copies of one number it holds (of a slope that is a whole layer's; else 1), and where the layer
# table has its offset.
TENSOR_OFFSET, TENSOR_LENGTH, TENSOR_COPIES, TENSOR_LAYER, TENSOR_COLUMN = range(5)


class Plan(NamedTuple):
    """A team, and where everything lies: the tables, and offsets in elements into workspaces.

    `table` int64 [L + 1, COLUMNS], `numbers` float64 [L + 1, NUMBERS] and `tensors` int64 [n, 5]:
    see above. Then the number of threads that share a pass; in how many groups at most the passes
    of a step are cut, which the threads share out (1: they share each pass); whether the output
    layer is split by rows; whether the passes of a step of several are those of turned.py; whether
    this is training (dropout, statistics of the batch); the most rows of a pass; every how many
    layers the activations are kept (1: all are); the seed of dropout; how far the threads' parts of
    the shared workspace lie apart, which come first in it; the partial logits in each, and how far
    these lie apart; and each thread's own inputs, logits, gradient strip, packed deltas, block of
    transposed weights or copied activations, row of zeros and row of targets.
    `packed` says whether weights lie in panels of one vector's columns, each contiguous, so that no
    two threads' weights share a page's prefetch streams, or row-major.
    """

    table: Any
    numbers: Any
    tensors: Any
    threads: int
    groups: int
    packed: int
    narrow: int
    turned: int
    training: int
    rows: int
    checkpoint_every: int
    seed: int
    apart: int
    partial: int
    partial_apart: int
    inputs: int
    logits: int
    strip: int
    packed_deltas: int
    transposed: int
    zeros: int
    target: int


class Workspace(NamedTuple):
    """A thread's numbers and its scratch: shared by the team, private, its rows and their scores.

    `member` is its number in the team, `thread` that among those that share a pass. shared,
    private: flat, of the network's dtype, 64-byte aligned (shared by those that share a pass);
    running, the team's: mean and variance of each unit with batch norm; rows int64 [B]; scores
    float64 [3, B], shared if the loss is split between threads; parts float64 [passes, 3], the
    team's: loss, right answers and weight of each pass of a step; norms float64, the team's: a sum
    for each chunk of each tensor;
    features int64 [2 + I + STRIP_ROWS]: how many inputs are not zero in all rows of the pass,
    whether `nonzero` is of use, their numbers, and scratch; nonzero int64: which elements of these
    inputs are not zero, see `tile.NonZero`; every int64: 0, 1, 2 ... as far as the widest layer and
    the rows of a pass go.
    """

    member: int
    thread: int
    shared: Any
    private: Any
    running: Any
    rows: Any
    scores: Any
    parts: Any
    norms: Any
    features: Any
    nonzero: Any
    every: Any


class Samples(NamedTuple):
    """x [N, I] of the network's dtype, labels int64 [N] or targets [N, O] (the other one empty).

    weights float64 [N], or empty if all are 1; chosen int64 [n]: the rows of x that take part.
    """

    x: Any
    labels: Any
    targets: Any
    weights: Any
    chosen: Any


class Pass(NamedTuple):
    """One way through the network, forward and back: its number and its rows.

    `number` tells two passes in turn apart. Its rows are the rows start, start + 1 ... of the
    optimizer's step number `step`; `again` in a second forward pass from a checkpoint.
    """

    number: int
    rows: int
    step: int
    start: int
    again: int


class Upcoming(NamedTuple):
    """The rows of the samples' x that the next pass will gather: order[first:first + rows]."""

    x: Any
    order: Any
    first: int
    rows: int


@inlined
def last_of(plan):
    """The number of the output layer."""
    return plan.table.shape[0] - 1


@inlined
def units_of(plan, layer, thread):
    """The block [low, high) of a layer's units that a thread owns."""
    return share(plan.table[layer, LD], plan.table[layer, GRAIN], thread, plan.threads)


@inlined
def owners_of(plan, layer):
    """In how many blocks a layer's activations and deltas lie, one for each owner.

    Every thread has all inputs for itself, and all outputs if they are narrow.
    """
    is_private = layer == 0 or (plan.narrow and layer == last_of(plan))
    return 1 if is_private else plan.threads


@inlined
def block_of(plan, layer, owner):
    """The true units [low, high) of a layer in an owner's block, padding left out."""
    low, high = 0, plan.table[layer, LD]
    if owners_of(plan, layer) > 1:
        low, high = units_of(plan, layer, owner)
    return low, min(high, plan.table[layer, SIZE])


@glue
def part_of(plan, work, layer, offset, count, owner, low, high):
    """Units low to high [B, high - low] of an owner's block at `offset` in its part of `shared`."""
    begin, end = units_of(plan, layer, owner)
    start = owner * plan.apart + offset + low - begin
    return matrix(work.shared, start, count, high - low, end - begin)


@glue
def activations_of(plan, work, layer, p, owner, low, high):
    """Activations [B, high - low] of units low to high of a layer (0: the inputs), in one block.

    Layer 1, and what shares its place, has two buffers, used in turn: a thread may begin the next
    pass while another still needs the activations of this one; from layer 2 on a barrier lies
    between.
    """
    ld = plan.table[layer, LD]
    if layer == 0:
        return matrix(work.private, plan.inputs + low, p.rows, high - low, ld)
    offset = plan.table[layer, OUTPUT] + (p.number & 1) * plan.table[layer, PARITY]
    if layer == last_of(plan):  # a wide output layer is one matrix: the loss takes rows
        return matrix(work.shared, offset + low, p.rows, high - low, ld)
    return part_of(plan, work, layer, offset, p.rows, owner, low, high)


@glue
def saved_of(plan, work, layer, p, low, high):
    """What the derivative f' of a hidden layer is computed from: z, or the outputs."""
    if plan.table[layer, SAVES] == NONE:
        return activations_of(plan, work, layer, p, work.thread, low, high)
    offset = plan.table[layer, SAVED]
    return part_of(plan, work, layer, offset, p.rows, work.thread, low, high)


@glue
def own_part_of(plan, work, layer, column, p, low, high):
    """This thread's block of a region that the table names, as MASK and NORMED."""
    offset = plan.table[layer, column]
    return part_of(plan, work, layer, offset, p.rows, work.thread, low, high)


@glue
def logits_of(plan, work, p):
    """The outputs of the network [B, ld], replaced by their deltas in the backward pass."""
    last = last_of(plan)
    ld = plan.table[last, LD]
    if plan.narrow:
        return matrix(work.private, plan.logits, p.rows, ld, ld)
    return activations_of(plan, work, last, p, 0, 0, ld)


@inlined
def blocks_of(plan, layer):
    """In how many indivisible blocks the units of a layer lie."""
    grain = plan.table[layer, GRAIN]
    return (plan.table[layer, LD] + grain - 1) // grain


@glue
def partial_logits_of(plan, work, p, block):
    """The part [B, ld] of the logits that comes from one block; two buffers, as for layer 1."""
    last = last_of(plan)
    ld, count = plan.table[last, LD], blocks_of(plan, last - 1)
    owner = ((block + 1) * plan.threads - 1) // count
    most = (count + plan.threads - 1) // plan.threads
    number = (p.number & 1) * most + block - owner * count // plan.threads
    start = owner * plan.apart + plan.partial + number * plan.partial_apart
    return matrix(work.shared, start, p.rows, ld, ld)


@glue
def sum_of_parts(plan, work, p, block):
    """A sum [B, ld] of parts of several threads that begin at a block: this thread's own."""
    ld = plan.table[last_of(plan), LD]
    return matrix(work.private, plan.logits + block * plan.rows * ld, p.rows, ld, ld)


@kernel
def is_of_one_thread(plan, first, end):
    """Whether one thread owns the units of the blocks `first` to `end` before the last layer."""
    layer = last_of(plan) - 1
    ld, grain = plan.table[layer, LD], plan.table[layer, GRAIN]
    for thread in range(plan.threads):
        low, high = units_of(plan, layer, thread)
        if low <= first * grain and min(end * grain, ld) <= high:
            return True
    return False


@glue
def deltas_of(plan, work, layer, p, owner, low, high):
    """Gradients [B, high - low] of the loss by the z of units low to high, in one block.

    Once `network.norm_backward` has been there, by what was normalised.
    """
    if layer == last_of(plan):
        if plan.narrow:
            ld = plan.table[layer, LD]
            return matrix(work.private, plan.logits + low, p.rows, high - low, ld)
        return activations_of(plan, work, layer, p, owner, low, high)
    return part_of(plan, work, layer, plan.table[layer, DELTA], p.rows, owner, low, high)


@glue
def moments_of(plan, work, layer, p, backward):
    """Partial sums [B, 2 blocks] of layer norm over blocks of units, of one direction."""
    width = 2 * blocks_of(plan, layer)
    offset = plan.table[layer, MOMENTS] + backward * plan.rows * width
    return matrix(work.shared, offset, p.rows, width, width)


@glue
def spread_of_units(plan, work, layer, low, high):
    """1 / sigma of each unit with batch norm, as one row."""
    return part_of(plan, work, layer, plan.table[layer, SPREAD], 1, work.thread, low, high)


@glue
def spread_of_rows(plan, work, layer, p):
    """1 / sigma of each row with layer norm, as one row: every thread has its own."""
    offset = work.thread * plan.apart + plan.table[layer, SPREAD]
    return matrix(work.shared, offset, 1, p.rows, p.rows)


@glue
def slope_sums_of(plan, work, layer, low, high):
    """Gradients by the slope of each unit, as one row."""
    return matrix(work.shared, plan.table[layer, SLOPE_SUMS] + low, 1, high - low, high - low)


@glue
def weights_of(plan, theta, layer, top, bottom, low, high):
    """Panels of W[top:bottom, low:high] of a layer; low and high are multiples of the lanes."""
    inputs, ld, v = plan.table[layer - 1, SIZE], plan.table[layer, LD], lanes(theta)
    offset, count = plan.table[layer, WEIGHT], (high - low) // v
    if plan.packed:
        return panels(theta, offset + low * inputs + top * v, count, bottom - top, inputs * v, v)
    return panels(theta, offset + top * ld + low, count, bottom - top, v, ld)


@glue
def row_of(plan, theta, layer, column, low, high):
    """Entries low to high of b, slopes, gains or shifts of a layer, as one row."""
    return matrix(theta, plan.table[layer, column] + low, 1, high - low, high - low)


@inlined
def rate_of(plan, layer, column):
    """The factor on the learning rate of what the layer table has in a column, WEIGHT to SHIFT."""
    return plan.numbers[layer, RATES + column - WEIGHT]


@inlined
def has_scale(plan):
    """Whether the inputs have a scale that is learnt."""
    return plan.table[0, GAIN] >= 0


@inlined
def skips_features(plan, layer):
    """Whether a layer leaves out the inputs of the network that are zero in all rows of a pass.

    Not with few of them, nor with dropout or a scale, nor a narrow output layer, whose threads have
    only their own inputs.
    """
    is_split_by_rows = plan.narrow and last_of(plan) == 1
    are_many = plan.table[0, SIZE] >= machine.SKIPPED_FEATURES and not has_scale(plan)
    return layer == 1 and are_many and not is_split_by_rows and plan.numbers[0, DROPOUT] == 0


@glue
def features_of(plan, work, layer, count):
    """Which of `count` inputs of a layer take part: its `a` has those columns, and no others."""
    if skips_features(plan, layer):
        return work.features[2 : 2 + work.features[0]]
    return work.every[:count]


@glue
def nonzero_of(plan, work, layer, first):
    """Which of the inputs of a layer, from column `first` on, are not zero, as far as is known."""
    known = skips_features(plan, layer) and work.features[1] != 0
    return NonZero(work.nonzero if known else work.nonzero[:0], plan.rows, first)


@glue
def zeros_of(plan, work, width):
    """A row of zeros."""
    return matrix(work.private, plan.zeros, 1, width, width)


@glue
def strip_of(plan, work, width):
    """A row of scratch for gradients."""
    return matrix(work.private, plan.strip, 1, width, width)


@glue
def packed_deltas_of(plan, work, p, width):
    """Panels [width, B, lanes] of scratch."""
    v = lanes(work.private)
    return panels(work.private, plan.packed_deltas, width, p.rows, p.rows * v, v)


@glue
def target_of(plan, work):
    """A row of scratch as wide as the outputs."""
    ld = plan.table[last_of(plan), LD]
    return matrix(work.private, plan.target, 1, ld, ld)
