"""Forward, backward, step and run of any network, walking the layer table.

The network is data: one flat vector of parameters and a table with a row for each layer, row 0
being the input. So this is compiled once for each dtype, whatever the depth, width, batch size,
activation, loss or optimizer.

Letters: B rows of a micro-batch, I inputs and O outputs of a layer, l its number, 1 to L.

Who does what: thread t owns a block of the columns of each layer's W, and with it the same units'
activations and deltas; its block stays in its own cache for the whole run. A narrow output layer
(`plan.narrow`) is split by *rows* instead, so that the owner of hidden units also owns the weights
that leave them: partial logits over fixed blocks of units are exchanged, one barrier a step for a
network of one hidden layer, and then every thread computes the loss of all rows for itself. Fixed
blocks, added in a fixed order: the bits do not depend on the number of threads.
"""

import math
from typing import Any, NamedTuple

from . import machine
from ._jit import entry, kernel
from .activation import activation_backward, activation_forward
from .gemm import multiply, multiply_transposed, transpose
from .loss import loss_backward
from .optimizer import ADD, KEEP, Parameters, apply, make_rule
from .random import shuffle
from .simd import atomic_load, atomic_store, borrow, lanes, load, matrix, store
from .team import ABORT_EVEN, ABORT_ODD, EPOCHS, SAMPLES, STOP, barrier, share

# columns of the layer table
SIZE, LD, GRAIN, WEIGHT, BIAS, ACTIVATION, OUTPUT, DELTA, TRANSPOSED, COLUMNS = range(10)

MICRO_BATCH = machine.MICRO_BATCH
TILE_ROWS = machine.TILE_ROWS
STRIP_COLUMNS = machine.STRIP_COLUMNS


class Plan(NamedTuple):
    """Where everything lies: the layer table, and offsets in elements into the workspaces.

    `table` int64 [L + 1, COLUMNS]: units, row stride, units per indivisible block of ownership,
    offsets of W and b in the parameter vector, activation code, offsets of the outputs, deltas and
    transposed weights in the shared workspace. The others: the partial logits (shared), and each
    thread's own inputs, logits, gradient strip, row of zeros and column of ones.
    """

    table: Any
    narrow: int
    partial: int
    inputs: int
    logits: int
    strip: int
    zeros: int
    ones: int


class Workspace(NamedTuple):
    """Scratch of a thread: `shared` by the team, `private`, the samples in its rows, their scores.

    shared, private: flat, of the network's dtype, 64-byte aligned; rows int64 [MICRO_BATCH];
    scores float64 [2, MICRO_BATCH], the team's if the loss is split between threads.
    """

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


class Job(NamedTuple):
    """What to run: codes, and the sizes of loops. `optimizer` KEEP leaves the gradient and stops."""

    loss: int
    optimizer: int
    epochs: int
    batch_size: int
    shuffled: int
    seed: int


@kernel
def units_of(table, layer, thread, threads):
    """The thread's block of the units of a layer."""
    return share(table[layer, LD], table[layer, GRAIN], thread, threads)


@kernel
def output_of(plan, work, layer, parity, count, low, high):
    """Activations [B, high - low] of a layer (0: the inputs).

    Layer 1 has two buffers, used in turn: a thread may begin the next pass while another still
    needs the activations of this one; from layer 2 on a barrier lies between.
    """
    ld = plan.table[layer, LD]
    if layer == 0:
        return matrix(work.private, plan.inputs + low, count, high - low, ld)
    offset = plan.table[layer, OUTPUT] + low
    if layer == 1:
        offset += parity * MICRO_BATCH * ld
    return matrix(work.shared, offset, count, high - low, ld)


@kernel
def delta_of(plan, work, layer, count, low, high):
    """Gradients [B, high - low] of the loss with respect to a hidden layer's z."""
    ld = plan.table[layer, LD]
    return matrix(work.shared, plan.table[layer, DELTA] + low, count, high - low, ld)


@kernel
def logits_of(plan, work, parity, count):
    """The outputs of the network [B, ld], replaced by their deltas in the backward pass."""
    last = plan.table.shape[0] - 1
    ld = plan.table[last, LD]
    if plan.narrow:
        return matrix(work.private, plan.logits, count, ld, ld)
    return output_of(plan, work, last, parity, count, 0, ld)


@kernel
def weights_of(table, theta, layer, top, bottom, low, high):
    """W[top:bottom, low:high] of a layer."""
    ld = table[layer, LD]
    return matrix(theta, table[layer, WEIGHT] + top * ld + low, bottom - top, high - low, ld)


@kernel
def bias_of(table, theta, layer, low, high):
    """b[low:high] of a layer, as one row."""
    return matrix(theta, table[layer, BIAS] + low, 1, high - low, high - low)


@kernel
def gather(plan, work, samples, order, first, count, thread, threads):
    """Copy the samples order[first:first + B] to the inputs of the network."""
    for b in range(count):
        work.rows[b] = order[first + b]
    size = plan.table[0, SIZE]
    low, high = 0, size
    if plan.table.shape[0] == 2 and plan.narrow:  # then this thread needs its own features alone
        low, high = units_of(plan.table, 0, thread, threads)
        high = min(high, size)
    inputs = output_of(plan, work, 0, 0, count, 0, size)
    v = lanes(inputs)
    whole = low + (high - low) // v * v
    for b in range(count):
        sample = work.rows[b]
        for i in range(low, whole, v):
            store(inputs, b, i, load(samples.x, sample, i))
        for i in range(whole, high):
            inputs[b, i] = samples.x[sample, i]


@kernel
def partial_logits(plan, work, theta, parity, count, thread, threads):
    """Logits of a narrow output layer: blocks of hidden units apart, then their sum in order."""
    table = plan.table
    last = table.shape[0] - 1
    ld, grain, size = table[last, LD], table[last - 1, GRAIN], table[last - 1, SIZE]
    blocks = (table[last - 1, LD] + grain - 1) // grain
    buffer = plan.partial + parity * blocks * MICRO_BATCH * ld
    low, high = units_of(table, last - 1, thread, threads)
    for top in range(low, high, grain):
        bottom = min(top + grain, size)
        part = matrix(work.shared, buffer + top // grain * MICRO_BATCH * ld, count, ld, ld)
        a = output_of(plan, work, last - 1, parity, count, top, bottom)
        if top == 0:
            start = bias_of(table, theta, last, 0, ld)
        else:
            start = matrix(work.private, plan.zeros, 1, ld, ld)
        multiply(part, a, weights_of(table, theta, last, top, bottom, 0, ld), start)


@kernel
def sum_partial_logits(plan, work, parity, count):
    """Logits [B, ld] of this thread: the sum of all blocks' parts, in the blocks' order."""
    table = plan.table
    last = table.shape[0] - 1
    ld, grain = table[last, LD], table[last - 1, GRAIN]
    blocks = (table[last - 1, LD] + grain - 1) // grain
    buffer = plan.partial + parity * blocks * MICRO_BATCH * ld
    logits = logits_of(plan, work, parity, count)
    for b in range(count):
        for j in range(0, ld, lanes(logits)):
            total = load(matrix(work.shared, buffer + b * ld, 1, ld, ld), 0, j)
            for block in range(1, blocks):
                offset = buffer + (block * MICRO_BATCH + b) * ld
                total = total + load(matrix(work.shared, offset, 1, ld, ld), 0, j)
            store(logits, b, j, total)


@kernel
def forward(plan, work, theta, team, parity, count, thread, threads):
    """A_l = f_l(A_{l-1} W_l + b_l) for all layers; the logits are in `logits_of` afterwards."""
    table = plan.table
    last = table.shape[0] - 1
    for layer in range(1, last if plan.narrow else last + 1):
        low, high = units_of(table, layer, thread, threads)
        if low < high:
            inputs = table[layer - 1, SIZE]
            a = output_of(plan, work, layer - 1, parity, count, 0, inputs)
            z = output_of(plan, work, layer, parity, count, low, high)
            w = weights_of(table, theta, layer, 0, inputs, low, high)
            multiply(z, a, w, bias_of(table, theta, layer, low, high))
            activation_forward(z, table[layer, ACTIVATION])
        if layer < last - 1 or not plan.narrow:
            barrier(team, threads)
    if plan.narrow:
        partial_logits(plan, work, theta, parity, count, thread, threads)
        barrier(team, threads)
        sum_partial_logits(plan, work, parity, count)


@kernel
def loss_and_delta(plan, work, samples, team, loss, parity, count, scale, thread, threads):
    """Turn the logits into the deltas of the output layer.

    A narrow output is done by every thread for itself; the rows of a wide one are shared out.
    """
    outputs = plan.table[plan.table.shape[0] - 1, SIZE]
    z = logits_of(plan, work, parity, count)
    low, high = 0, count
    if not plan.narrow:
        low, high = share(count, 1, thread, threads)
    loss_backward(
        loss, z, outputs, samples.labels, samples.targets, work.rows, low, high, scale, work.scores
    )
    if not plan.narrow:
        barrier(team, threads)


@kernel
def propagate(plan, work, theta, dz, layer, parity, count, thread, threads):
    """Delta of the layer below, its own units: (dZ W^T) f'(A)."""
    table = plan.table
    low, high = units_of(table, layer - 1, thread, threads)
    if low >= high:
        return
    below, ld, outputs = table[layer - 1, LD], table[layer, LD], table[layer, SIZE]
    bottom = min(high, table[layer - 1, SIZE])
    transposed = matrix(work.shared, table[layer, TRANSPOSED] + low, ld, high - low, below)
    transpose(transposed, weights_of(table, theta, layer, low, bottom, 0, ld))
    da = delta_of(plan, work, layer - 1, count, low, high)
    errors = matrix(dz, 0, count, outputs, ld)
    multiply(da, errors, transposed, matrix(work.private, plan.zeros, 1, high - low, high - low))
    a = output_of(plan, work, layer - 1, parity, count, low, high)
    activation_backward(da, a, table[layer - 1, ACTIVATION])


@kernel
def learn(plan, work, parameters, rule, dz, layer, parity, count, top, bottom, low, high):
    """Hand dW[top:bottom, low:high] = A^T dZ, strip by strip while it is in L1, to the rule."""
    table = plan.table
    ld = table[layer, LD]
    for j in range(low, high, STRIP_COLUMNS):
        width = min(STRIP_COLUMNS, high - j)
        zeros = matrix(work.private, plan.zeros, 1, width, width)
        errors = matrix(dz, j, count, width, ld)
        for i in range(top, bottom, TILE_ROWS):
            rows = min(TILE_ROWS, bottom - i)
            strip = matrix(work.private, plan.strip, rows, width, STRIP_COLUMNS)
            a = output_of(plan, work, layer - 1, parity, count, i, i + rows)
            multiply_transposed(strip, a, errors, zeros)
            apply(rule, parameters, table[layer, WEIGHT] + i * ld + j, ld, strip)


@kernel
def learn_bias(plan, work, parameters, rule, dz, layer, count, low, high):
    """Hand db[low:high], the sum of dZ over the rows, to the rule."""
    table = plan.table
    ld = table[layer, LD]
    for j in range(low, high, STRIP_COLUMNS):
        width = min(STRIP_COLUMNS, high - j)
        strip = matrix(work.private, plan.strip, 1, width, STRIP_COLUMNS)
        ones = matrix(work.private, plan.ones, count, 1, 1)
        zeros = matrix(work.private, plan.zeros, 1, width, width)
        multiply_transposed(strip, ones, matrix(dz, j, count, width, ld), zeros)
        apply(rule, parameters, table[layer, BIAS] + j, ld, strip)


@kernel
def backward(plan, work, parameters, rule, team, parity, count, thread, threads):
    """From the deltas of the output layer to every gradient, each handed to the rule at once.

    A layer's weights are updated only when no thread needs them any more for `propagate`.
    """
    table = plan.table
    last = table.shape[0] - 1
    theta = parameters.theta
    top = last
    if plan.narrow:
        ld = table[last, LD]
        dz = work.private[plan.logits :]
        low, high = units_of(table, last - 1, thread, threads)
        if last > 1:
            propagate(plan, work, theta, dz, last, parity, count, thread, threads)
        if low < high:
            bottom = min(high, table[last - 1, SIZE])
            learn(plan, work, parameters, rule, dz, last, parity, count, low, bottom, 0, ld)
        if low == 0 and high > 0:
            learn_bias(plan, work, parameters, rule, dz, last, count, 0, ld)
        top = last - 1
        if top > 1:
            barrier(team, threads)
    for layer in range(top, 0, -1):
        if layer == last:
            offset = table[last, OUTPUT]
            if last == 1:
                offset += parity * MICRO_BATCH * table[last, LD]
            dz = work.shared[offset:]
        else:
            dz = work.shared[table[layer, DELTA] :]
        if layer > 1:
            propagate(plan, work, theta, dz, layer, parity, count, thread, threads)
            barrier(team, threads)
        low, high = units_of(table, layer, thread, threads)
        if low < high:
            bottom = table[layer - 1, SIZE]
            learn(plan, work, parameters, rule, dz, layer, parity, count, 0, bottom, low, high)
            learn_bias(plan, work, parameters, rule, dz, layer, count, low, high)


@kernel
def add_scores(scores, count, totals):
    """Add the loss and the right answers of B rows to the totals, row by row."""
    for b in range(count):
        totals[0] += scores[0, b]
        totals[1] += scores[1, b]


@kernel
def step(
    plan, work, parameters, samples, order, job, hyper, number, first, rows, team, totals,
    passes, thread, threads,
):  # fmt: skip
    """One step of the optimizer on the samples order[first:first + rows]; False if stopped before it.

    A batch of at most MICRO_BATCH rows is one pass, in which the gradient becomes the update at
    once. A larger one adds up the gradients of several passes first: nothing changes before the
    last of them, so a stop leaves the parameters of the last whole step.
    """
    rule = make_rule(job.optimizer, hyper, number)
    fused = rows <= MICRO_BATCH
    for start in range(0, rows, MICRO_BATCH):
        count = min(MICRO_BATCH, rows - start)
        parity = passes & 1
        passes += 1
        abort = ABORT_ODD if parity else ABORT_EVEN
        if thread == 0 and atomic_load(team, STOP):
            atomic_store(team, abort, 1)
        gather(plan, work, samples, order, first + start, count, thread, threads)
        forward(plan, work, parameters.theta, team, parity, count, thread, threads)
        if atomic_load(team, abort):  # set before a barrier in `forward`: all threads agree
            return False, passes
        loss_and_delta(
            plan, work, samples, team, job.loss, parity, count, 1.0 / rows, thread, threads
        )
        if thread == 0:
            add_scores(work.scores, count, totals)
        sink = rule
        if not fused:
            sink = make_rule(KEEP if start == 0 else ADD, hyper, number)
        backward(plan, work, parameters, sink, team, parity, count, thread, threads)
    if not fused and job.optimizer != KEEP:
        barrier(team, threads)
        low, high = share(parameters.theta.shape[0], machine.CACHE_LINE, thread, threads)
        if low < high:
            gradient = matrix(parameters.gradient, low, 1, high - low, high - low)
            apply(rule, parameters, low, high - low, gradient)
        barrier(team, threads)
    return True, passes


@kernel
def evaluate(plan, work, theta, samples, loss, outputs, parts, team, thread, threads):
    """Forward alone, each thread its own micro-batches: logits to `outputs`, scores to `parts`.

    outputs [n, O] or empty; parts float64 [micro-batches, 2] (loss and right answers of each), or
    empty where there is nothing to compare with. The plan is that of one thread.
    """
    total, size = samples.chosen.shape[0], plan.table[plan.table.shape[0] - 1, SIZE]
    for first in range(thread * MICRO_BATCH, total, threads * MICRO_BATCH):
        if atomic_load(team, STOP):
            return
        count = min(MICRO_BATCH, total - first)
        gather(plan, work, samples, samples.chosen, first, count, 0, 1)
        forward(plan, work, theta, team, 0, count, 0, 1)
        z = logits_of(plan, work, 0, count)
        if outputs.shape[0] > 0:
            for b in range(count):
                for k in range(size):
                    outputs[first + b, k] = z[b, k]
        if parts.shape[0] > 0:
            loss_and_delta(plan, work, samples, team, loss, 0, count, 1.0, 0, 1)
            part = parts[first // MICRO_BATCH]
            part[0], part[1] = 0.0, 0.0
            add_scores(work.scores, count, part)


@entry
def run(
    job, plan, work, parameters, hyper, samples, order, start_step,
    alone, alone_work, others, outputs, parts, history, team, thread, threads,
):  # fmt: skip
    """Train for job.epochs epochs on `samples`, and after each evaluate on `others` if there are any.

    Called by each thread of the team with its own `thread`, `work` and `alone_work`; everything else
    is the same for all. `order` int64 [n] is scratch for the shuffle (samples.chosen if there is
    none), `history` float64 [epochs, 4]
    takes the means over samples of loss and accuracy, of `samples` while training and of `others`
    after each epoch (NaN where stopped before). With epochs = 0, evaluate once; history has one row.
    `alone` is the plan of a team of one, for evaluation.
    """
    plan = Plan(borrow(plan.table), plan.narrow, plan.partial, plan.inputs, plan.logits,
                plan.strip, plan.zeros, plan.ones)  # fmt: skip
    alone = Plan(borrow(alone.table), alone.narrow, alone.partial, alone.inputs, alone.logits,
                 alone.strip, alone.zeros, alone.ones)  # fmt: skip
    work = Workspace(borrow(work.shared), borrow(work.private), borrow(work.rows), borrow(work.scores))
    alone_work = Workspace(borrow(alone_work.shared), borrow(alone_work.private),
                           borrow(alone_work.rows), borrow(alone_work.scores))  # fmt: skip
    parameters = Parameters(borrow(parameters.theta), borrow(parameters.gradient),
                            borrow(parameters.first), borrow(parameters.second))  # fmt: skip
    samples = Samples(borrow(samples.x), borrow(samples.labels), borrow(samples.targets),
                      borrow(samples.chosen))  # fmt: skip
    others = Samples(borrow(others.x), borrow(others.labels), borrow(others.targets),
                     borrow(others.chosen))  # fmt: skip
    order, team, history, parts = borrow(order), borrow(team), borrow(history), borrow(parts)
    outputs, hyper = borrow(outputs), borrow(hyper)

    total, passes, number = samples.chosen.shape[0], 0, start_step
    for epoch in range(max(job.epochs, 1)):
        totals = borrow(history[epoch])
        if job.epochs > 0:
            if job.shuffled:
                if thread == 0:
                    shuffle(order, samples.chosen, job.seed, epoch, team, STOP)
                barrier(team, threads)
            for first in range(0, total, job.batch_size):
                rows = min(job.batch_size, total - first)
                number += 1
                going, passes = step(
                    plan, work, parameters, samples, order, job, hyper, number, first, rows, team,
                    totals, passes, thread, threads,
                )  # fmt: skip
                if not going:
                    return number - 1
                if thread == 0:
                    atomic_store(team, SAMPLES, first + rows)
            if thread == 0:
                totals[0] /= total
                totals[1] /= total
        if others.chosen.shape[0] > 0:
            barrier(team, threads)
            evaluate(
                alone, alone_work, parameters.theta, others, job.loss, outputs, parts, team,
                thread, threads,
            )  # fmt: skip
            barrier(team, threads)
            if thread == 0:
                finish_evaluation(parts, others.chosen.shape[0], totals, team)
        if thread == 0:
            atomic_store(team, SAMPLES, 0)
            atomic_store(team, EPOCHS, epoch + 1)
    return number


@kernel
def finish_evaluation(parts, total, totals, team):
    """Means over all micro-batches, in their order, to totals[2:4]; NaN if stopped on the way."""
    for i in range(parts.shape[0]):
        totals[2] += parts[i, 0]
        totals[3] += parts[i, 1]
    totals[2] /= total
    totals[3] /= total
    if atomic_load(team, STOP):
        totals[2], totals[3] = math.nan, math.nan
