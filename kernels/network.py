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
from .optimizer import apply
from .plan import (
    ACTIVATION,
    BIAS,
    GRAIN,
    LD,
    MICRO_BATCH,
    SIZE,
    TRANSPOSED,
    WEIGHT,
    bias_of,
    delta_of,
    deltas_of,
    logits_of,
    output_of,
    units_of,
    weights_of,
)
from .simd import lanes, load, matrix, store
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
        low, high = units_of(plan, work, 0)
    high = min(high, plan.table[0, SIZE])
    inputs = output_of(plan, work, 0, 0, count, 0, high)
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
    """Logits of a narrow output layer: blocks of hidden units apart, then their sum in order."""
    table = plan.table
    last = table.shape[0] - 1
    ld, grain, size = table[last, LD], table[last - 1, GRAIN], table[last - 1, SIZE]
    blocks = (table[last - 1, LD] + grain - 1) // grain
    buffer = plan.partial + (passes & 1) * blocks * MICRO_BATCH * ld
    low, high = units_of(plan, work, last - 1)
    for top in range(low, high, grain):
        bottom = min(top + grain, size)
        part = matrix(work.shared, buffer + top // grain * MICRO_BATCH * ld, count, ld, ld)
        a = output_of(plan, work, last - 1, passes, count, top, bottom)
        if top == 0:
            start = bias_of(table, theta, last, 0, ld)
        else:
            start = matrix(work.private, plan.zeros, 1, ld, ld)
        multiply(part, a, weights_of(table, theta, last, top, bottom, 0, ld), start)


@glue
def sum_partial_logits(plan, work, passes, count):
    """Logits [B, ld] of this thread: the sum of all blocks' parts, in the blocks' order."""
    table = plan.table
    last = table.shape[0] - 1
    ld, grain = table[last, LD], table[last - 1, GRAIN]
    blocks = (table[last - 1, LD] + grain - 1) // grain
    buffer = plan.partial + (passes & 1) * blocks * MICRO_BATCH * ld
    logits = logits_of(plan, work, passes, count)
    for b in range(count):
        for j in range(0, ld, lanes(logits)):
            total = load(matrix(work.shared, buffer + b * ld, 1, ld, ld), 0, j)
            for block in range(1, blocks):
                offset = buffer + (block * MICRO_BATCH + b) * ld
                total = total + load(matrix(work.shared, offset, 1, ld, ld), 0, j)
            store(logits, b, j, total)


@kernel
def forward(plan, work, theta, team, passes, count):
    """A_l = f_l(A_{l-1} W_l + b_l) for all layers; the logits are in `logits_of` afterwards."""
    table = plan.table
    last = table.shape[0] - 1
    for layer in range(1, last if plan.narrow else last + 1):
        low, high = units_of(plan, work, layer)
        if low < high:
            inputs = table[layer - 1, SIZE]
            a = output_of(plan, work, layer - 1, passes, count, 0, inputs)
            z = output_of(plan, work, layer, passes, count, low, high)
            w = weights_of(table, theta, layer, 0, inputs, low, high)
            multiply(z, a, w, bias_of(table, theta, layer, low, high))
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
def propagate(plan, work, theta, dz, layer, passes, count):
    """Delta of the layer below, its own units: (dZ W^T) f'(A)."""
    table = plan.table
    low, high = units_of(plan, work, layer - 1)
    if low >= high:
        return
    below, ld, outputs = table[layer - 1, LD], table[layer, LD], table[layer, SIZE]
    bottom = min(high, table[layer - 1, SIZE])
    transposed = matrix(work.shared, table[layer, TRANSPOSED] + low, ld, high - low, below)
    transpose(transposed, weights_of(table, theta, layer, low, bottom, 0, ld))
    da = delta_of(plan, work, layer - 1, count, low, high)
    errors = matrix(dz, 0, count, outputs, ld)
    multiply(da, errors, transposed, matrix(work.private, plan.zeros, 1, high - low, high - low))
    a = output_of(plan, work, layer - 1, passes, count, low, high)
    activation_backward(da, a, table[layer - 1, ACTIVATION])


@kernel
def learn(plan, work, parameters, rule, dz, layer, passes, count):
    """Hand this thread's part of dW = A^T dZ and of db, the sum of dZ over the rows, to the rule.

    Strip by strip, while it lies in L1. The part is a block of columns; of a narrow output layer,
    a block of rows, and b goes with the first.
    """
    table = plan.table
    ld = table[layer, LD]
    top, bottom, has_bias = 0, table[layer - 1, SIZE], True
    low, high = units_of(plan, work, layer)
    if plan.narrow and layer == table.shape[0] - 1:
        low, high = 0, ld
        top, end = units_of(plan, work, layer - 1)
        has_bias = top == 0 and end > 0
        bottom = min(bottom, end)
    for j in range(low, high, STRIP_COLUMNS):
        width = min(STRIP_COLUMNS, high - j)
        zeros = matrix(work.private, plan.zeros, 1, width, width)
        errors = matrix(dz, j, count, width, ld)
        for i in range(top, bottom, TILE_ROWS):
            rows = min(TILE_ROWS, bottom - i)
            strip = matrix(work.private, plan.strip, rows, width, STRIP_COLUMNS)
            a = output_of(plan, work, layer - 1, passes, count, i, i + rows)
            multiply_transposed(strip, a, errors, zeros)
            apply(rule, parameters, table[layer, WEIGHT] + i * ld + j, ld, strip)
        if has_bias:
            strip = matrix(work.private, plan.strip, 1, width, STRIP_COLUMNS)
            ones = matrix(work.private, plan.ones, count, 1, 1)
            multiply_transposed(strip, ones, errors, zeros)
            apply(rule, parameters, table[layer, BIAS] + j, ld, strip)


@glue
def backward(plan, work, parameters, rule, team, passes, count):
    """From the deltas of the output layer to every gradient, each handed to the rule at once.

    A layer's weights are updated only when no thread needs them any more for `propagate`: a
    barrier lies between, except in a narrow output layer, where both concern the same rows.
    """
    last = plan.table.shape[0] - 1
    for layer in range(last, 0, -1):
        dz = deltas_of(plan, work, layer, passes)
        if layer > 1:
            propagate(plan, work, parameters.theta, dz, layer, passes, count)
            if layer < last or not plan.narrow:
                barrier(team, plan.threads)
        learn(plan, work, parameters, rule, dz, layer, passes, count)
        if layer == last and plan.narrow and last > 2:
            barrier(team, plan.threads)
