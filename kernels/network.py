"""Forward and backward through any network, walking the layer table.

Who does what: thread t owns a block of the columns of each layer's W, and with it the same units'
activations and deltas; its block stays in its own cache for the whole run. A narrow output layer
(`plan.narrow`) is split by *rows* instead, so that the owner of hidden units also owns the weights
that leave them: partial logits over fixed blocks of units are exchanged, one barrier a step for a
network of one hidden layer, and then every thread computes the loss of all rows for itself. Fixed
blocks, added in a fixed order: the bits do not depend on the number of threads.
"""

from . import machine
from ._jit import glue, kernel
from .activation import activation_backward, activation_forward
from .gemm import multiply, multiply_transposed, transpose
from .loss import loss_backward
from .optimizer import add, apply, keep
from .plan import (
    ACTIVATION,
    BIAS,
    GRAIN,
    LD,
    SIZE,
    WEIGHT,
    activations_of,
    bias_of,
    block_of,
    deltas_of,
    logits_of,
    owners_of,
    partial_blocks_of,
    partial_logits_of,
    transposed_of,
    units_of,
    weights_of,
    zeros_of,
)
from .simd import lanes, load, matrix, panels, prefetch, store
from .team import barrier, share

TILE_ROWS = machine.TILE_ROWS
STRIP_COLUMNS = machine.STRIP_COLUMNS


@kernel
def gather(plan, work, samples, order, first, count):
    """Copy the samples order[first:first + B] to the inputs of the network."""
    for b in range(count):
        work.rows[b] = order[first + b]
    low, high = 0, plan.table[0, LD]
    if plan.table.shape[0] == 2 and plan.narrow:  # then this thread needs its own features alone
        low, high = units_of(plan, 0, work.thread)
    high = min(high, plan.table[0, SIZE])
    inputs = activations_of(plan, work, 0, 0, count, 0, 0, high)
    v = lanes(inputs)
    whole = low + (high - low) // v * v
    for b in range(count):
        sample = work.rows[b]
        for i in range(low, whole, v):
            store(inputs, b, i, load(samples.x, sample, i))
        for i in range(whole, high):
            inputs[b, i] = samples.x[sample, i]


@glue
def partial_logits(plan, work, theta, passes, count):
    """Logits of a narrow output layer: a part for each block of hidden units of this thread."""
    table = plan.table
    last = table.shape[0] - 1
    ld, grain = table[last, LD], table[last - 1, GRAIN]
    low, high = units_of(plan, last - 1, work.thread)
    for top in range(low, high, grain):
        bottom = min(top + grain, table[last - 1, SIZE])
        part = partial_logits_of(plan, work, passes, count, top // grain)
        a = activations_of(plan, work, last - 1, passes, count, work.thread, top, bottom)
        start = zeros_of(plan, work, ld)
        if top == 0:
            start = bias_of(plan, theta, last, 0, ld)
        multiply(part, a, weights_of(plan, theta, last, top, bottom, 0, ld), start)


@glue
def sum_partial_logits(plan, work, passes, count):
    """Logits [B, ld] of this thread: the sum of all blocks' parts, in the blocks' order."""
    logits = logits_of(plan, work, passes, count)
    keep(logits, partial_logits_of(plan, work, passes, count, 0))
    for block in range(1, partial_blocks_of(plan)):
        add(logits, partial_logits_of(plan, work, passes, count, block))


@kernel
def forward(plan, work, theta, team, passes, count):
    """A_l = f_l(A_{l-1} W_l + b_l) for all layers; the logits are in `logits_of` afterwards."""
    table = plan.table
    last = table.shape[0] - 1
    for layer in range(1, last if plan.narrow else last + 1):
        low, high = units_of(plan, layer, work.thread)
        if low < high:
            z = activations_of(plan, work, layer, passes, count, work.thread, low, high)
            start = bias_of(plan, theta, layer, low, high)
            for owner in range(owners_of(plan, layer - 1)):
                top, bottom = block_of(plan, layer - 1, owner)
                if top < bottom:
                    a = activations_of(plan, work, layer - 1, passes, count, owner, top, bottom)
                    multiply(z, a, weights_of(plan, theta, layer, top, bottom, low, high), start)
                    start = z
            activation_forward(z, table[layer, ACTIVATION])
        if layer < last - 1 or not plan.narrow:
            barrier(team, plan.threads)
    if plan.narrow:
        partial_logits(plan, work, theta, passes, count)
        barrier(team, plan.threads)
        sum_partial_logits(plan, work, passes, count)


@kernel
def loss_and_delta(plan, work, samples, team, loss, passes, count, scale):
    """Turn the logits into the deltas of the output layer.

    A narrow output is done by every thread for itself; the rows of a wide one are shared out.
    """
    outputs = plan.table[plan.table.shape[0] - 1, SIZE]
    z = logits_of(plan, work, passes, count)
    low, high = 0, count
    if not plan.narrow:
        low, high = share(count, 1, work.thread, plan.threads)
    loss_backward(
        loss, z, outputs, samples.labels, samples.targets, work.rows, low, high, scale, work.scores
    )
    if not plan.narrow:
        barrier(team, plan.threads)


@kernel
def propagate(plan, work, theta, layer, passes, count):
    """Delta of the layer below, its own units: (dZ W^T) f'(A)."""
    table = plan.table
    low, high = units_of(plan, layer - 1, work.thread)
    if low >= high:
        return
    ld, size = table[layer, LD], table[layer - 1, SIZE]
    transpose(
        transposed_of(plan, work, layer, low, high, 0, ld),
        weights_of(plan, theta, layer, low, min(high, size), 0, ld),
    )
    da = deltas_of(plan, work, layer - 1, passes, count, work.thread, low, high)
    start = zeros_of(plan, work, high - low)
    for owner in range(owners_of(plan, layer)):
        top, bottom = block_of(plan, layer, owner)
        if top < bottom:
            dz = deltas_of(plan, work, layer, passes, count, owner, top, bottom)
            multiply(da, dz, transposed_of(plan, work, layer, low, high, top, bottom), start)
            start = da
    a = activations_of(plan, work, layer - 1, passes, count, work.thread, low, high)
    activation_backward(da, a, table[layer - 1, ACTIVATION])


@kernel
def learn(plan, work, parameters, rule, upcoming, layer, passes, count):
    """Hand this thread's part of dW = A^T dZ and of db, the sum of dZ over the rows, to the rule.

    Strip by strip, while it lies in L1. The part is a block of columns; of a narrow output layer,
    a block of rows, and b goes with the first. Each strip of the first layer asks for the same
    features of the upcoming rows, so that they arrive while there is much to compute.
    """
    table = plan.table
    is_split_by_rows = plan.narrow and layer == table.shape[0] - 1
    low, high = 0, table[layer, LD]
    owner, end = work.thread, work.thread + 1
    if not is_split_by_rows:
        low, high = units_of(plan, layer, work.thread)
        owner, end = 0, owners_of(plan, layer - 1)
    for j in range(low, high, STRIP_COLUMNS):
        width = min(STRIP_COLUMNS, high - j)
        dz = deltas_of(plan, work, layer, passes, count, work.thread, j, j + width)
        has_bias = False
        for block in range(owner, end):
            top, bottom = block_of(plan, layer - 1, block)
            if is_split_by_rows:
                top, bottom = units_of(plan, layer - 1, block)
                bottom = min(bottom, table[layer - 1, SIZE])
            has_bias = has_bias or (top == 0 and bottom > 0)
            learn_rows(
                plan, work, parameters, rule, upcoming, dz, layer, passes, count, block, top,
                bottom, j,
            )  # fmt: skip
        if not has_bias:
            continue
        v = lanes(dz)
        sums = panels(work.private, plan.strip, width // v, 1, v, v)
        ones = matrix(work.private, plan.ones, count, 1, 1)
        multiply_transposed(sums, ones, dz, zeros_of(plan, work, width))
        strip = matrix(work.private, plan.strip, 1, width, width)
        apply(rule, parameters, table[layer, BIAS] + j, width, strip)


@kernel
def learn_rows(
    plan, work, parameters, rule, upcoming, dz, layer, passes, count, owner, top, bottom, j
):
    """Hand rows top to bottom of dW, in the columns of dz [B, width] from j on, to the rule."""
    inputs, v, width = plan.table[layer - 1, SIZE], lanes(dz), dz.shape[1]
    zeros = zeros_of(plan, work, width)
    for i in range(top, bottom, TILE_ROWS):
        rows = min(TILE_ROWS, bottom - i)
        if layer == 1:
            for b in range(upcoming.first, upcoming.first + upcoming.rows):
                prefetch(upcoming.x, upcoming.order[b], i)
        a = activations_of(plan, work, layer - 1, passes, count, owner, i, i + rows)
        strip = panels(work.private, plan.strip, width // v, rows, rows * v, v)
        multiply_transposed(strip, a, dz, zeros)
        g = matrix(work.private, plan.strip, width // v, rows * v, rows * v)
        offset = plan.table[layer, WEIGHT] + j * inputs + i * v
        apply(rule, parameters, offset, inputs * v, g)


@glue
def backward(plan, work, parameters, rule, upcoming, team, passes, count):
    """From the deltas of the output layer to every gradient, each handed to the rule at once.

    A layer's weights are updated only when no thread needs them any more for `propagate`: a
    barrier lies between, except in a narrow output layer, where both concern the same rows.
    """
    last = plan.table.shape[0] - 1
    for layer in range(last, 0, -1):
        if layer > 1:
            propagate(plan, work, parameters.theta, layer, passes, count)
            if layer < last or not plan.narrow:
                barrier(team, plan.threads)
        learn(plan, work, parameters, rule, upcoming, layer, passes, count)
        if layer == last and plan.narrow and last > 2:
            barrier(team, plan.threads)
