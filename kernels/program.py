"""The one compiled program: train, differentiate, evaluate and predict, for any network.

The network is data, one flat vector of parameters and a layer table. So this is compiled once for
each dtype, whatever the depth, width, batch size, activation, loss or optimizer.
"""

import math
from typing import NamedTuple

import numpy as np

from . import clip, machine
from ._jit import entry, glue, kernel
from .loss import can_be_turned, row_weight
from .network import Sink, backward, forward, gather, loss_and_delta
from .optimizer import (
    ADD,
    KEEP,
    Parameters,
    add,
    apply,
    is_plain_descent,
    make_rule,
    scale,
    with_rate,
)
from .plan import (
    TENSOR_COLUMN,
    TENSOR_LAYER,
    TENSOR_LENGTH,
    TENSOR_OFFSET,
    Pass,
    Upcoming,
    logits_of,
    rate_of,
    strip_of,
)
from .random import shuffle
from .simd import atomic_load, atomic_store, borrow, lane_sum, lanes, load, matrix
from .team import ABORT_EVEN, ABORT_ODD, DIVERGED, EPOCHS, PAUSE, SAMPLES, STOP, barrier, share
from .turned import turned_deltas, turned_learn

AT_ONCE, AFTER_STEP = 1, 2  # what ABORT_EVEN and ABORT_ODD say: when all threads leave
UPDATE_GRAIN = machine.CACHE_LINE  # elements: whole vectors of either dtype
PASS_GRAIN = machine.PASS_GRAIN

# columns of `history`
LOSS, ACCURACY, VALIDATION_LOSS, VALIDATION_ACCURACY, WEIGHT, HISTORY = range(6)


class Job(NamedTuple):
    """What to run: codes and sizes of loops. `optimizer` KEEP keeps the gradient, no update.

    `threads` are in the team. `batch_size` rows make a step. `clip` is a code of clip.py, `limit`
    its norm. `first_epoch` and `first_step` tell where in a longer run this one begins: `begin`
    samples of its first epoch are done, whose order is `drawn` already or not. The last epoch ends
    after `pause` samples, before its evaluation; 0: when it is finished.
    """

    threads: int
    optimizer: int
    epochs: int
    batch_size: int
    shuffled: int
    seed: int
    clip: int
    limit: float
    first_epoch: int
    first_step: int
    begin: int
    drawn: int
    pause: int


@kernel
def sum_scores(scores, count):
    """Loss, right answers and weight of B rows: of whole vectors of them, then of what is left."""
    v, loss, right, weight = lanes(scores), 0.0, 0.0, 0.0
    if count >= v:
        losses, rights, weights = load(scores, 0, 0), load(scores, 1, 0), load(scores, 2, 0)
        for b in range(v, count - v + 1, v):
            losses = losses + load(scores, 0, b)
            rights = rights + load(scores, 1, b)
            weights = weights + load(scores, 2, b)
        loss, right, weight = lane_sum(losses), lane_sum(rights), lane_sum(weights)
    for b in range(count // v * v, count):
        loss += scores[0, b]
        right += scores[1, b]
        weight += scores[2, b]
    return loss, right, weight


@kernel
def sum_parts(parts, count):
    """The same of the first `count` passes, in their order."""
    loss, right, weight = 0.0, 0.0, 0.0
    for i in range(count):
        loss += parts[i, 0]
        right += parts[i, 1]
        weight += parts[i, 2]
    return loss, right, weight


@kernel
def batch_weight(objective, samples, order, first, rows):
    """Sum of the weights of the samples order[first:first + rows]."""
    if samples.weights.shape[0] == 0 and objective.class_weights.shape[0] == 0:
        return np.float64(rows)
    total = 0.0
    for b in range(first, first + rows):
        total += row_weight(objective, samples.labels, samples.weights, order[b])
    return total


@kernel
def update(plan, work, parameters, rule, job, team):
    """Hand the whole gradient to the rule, each thread a share of every tensor."""
    if job.clip != clip.NONE:
        clip.measure(plan, work, parameters.gradient, job.threads)
        barrier(team, job.threads)
    factor, chunk, is_plain = 1.0, 0, is_plain_descent(rule)
    block = machine.STRIP_ROWS * lanes(parameters.theta)  # stays in L1 while it is scaled and used
    if job.clip == clip.ALL:
        factor = clip.factor(work.norms, job.limit)
    for tensor in plan.tensors:
        offset, length = tensor[TENSOR_OFFSET], tensor[TENSOR_LENGTH]
        if job.clip == clip.EACH:
            chunks = (length + clip.CHUNK - 1) // clip.CHUNK
            factor = clip.factor(work.norms[chunk : chunk + chunks], job.limit)
            chunk += chunks
        low, high = share(length, UPDATE_GRAIN, work.member, job.threads)
        rate = rate_of(plan, tensor[TENSOR_LAYER], tensor[TENSOR_COLUMN])
        # plain gradient descent takes a lower rate, and needs no copy of a smaller gradient
        own = with_rate(rule, rate * factor if is_plain else rate)
        for at in range(low, high, block):
            size = min(block, high - at)
            g = matrix(parameters.gradient, offset + at, 1, size, size)
            if factor != 1.0 and not is_plain:
                scaled = strip_of(plan, work, size)
                scale(scaled, g, factor)
                g = scaled
            apply(own, parameters, offset + at, size, g)
    barrier(team, job.threads)


@kernel
def add_groups(work, parameters, groups, threads):
    """Add the gradients of all groups to that of the first, in their order, a share each thread."""
    length = parameters.theta.shape[0]
    low, high = share(length, UPDATE_GRAIN, work.member, threads)
    if low < high:
        total = matrix(parameters.gradient, low, 1, high - low, high - low)
        for group in range(1, groups):
            part = matrix(parameters.gradient, group * length + low, 1, high - low, high - low)
            add(total, part)


@glue
def with_gradient(parameters, group):
    """The parameters with the gradient of one group of passes alone."""
    length = parameters.theta.shape[0]
    return Parameters(
        parameters.theta,
        parameters.gradient[group * length : (group + 1) * length],
        parameters.first,
        parameters.second,
        parameters.average,
    )


@glue
def step(
    plan, work, parameters, samples, order, job, objective, hyper, row, number, first, rows, team,
    totals, passes,
):  # fmt: skip
    """One step of the optimizer on samples order[first:first + rows].

    Returns whether it was finished, whether it is to be the last, and the passes so far.

    A batch of at most plan.rows rows is one pass, in which the gradient becomes the update at once.
    A larger one, and one whose gradient is clipped by its norm, adds up the gradients of several
    passes first: nothing changes before the last of them, so a stop leaves the parameters of the
    last whole step. So does a loss that is not finite.

    All threads share each pass, or each takes whole groups of passes and meets the others when all
    are done (`plan.groups`); those passes have as many rows each as there can be. Passes and
    groups, and so the order of every sum, are the same for any team.
    """
    rule = make_rule(job.optimizer, hyper, row)
    weight = batch_weight(objective, samples, order, first, rows)
    count = (rows + plan.rows - 1) // plan.rows
    fused = count == 1 and job.clip == clip.NONE
    groups, group, end = min(plan.groups, count), 0, 1
    if plan.groups > 1:
        group, end = share(groups, 1, work.member, job.threads)
    # functions of network, step and kind of targets alone
    is_turned = plan.turned != 0 and count > 1 and can_be_turned(objective, samples.labels)
    going, is_last = True, False
    for part in range(group * count // groups, end * count // groups):
        if part == (group + 1) * count // groups:
            group += 1
        start, stop = part * plan.rows, min((part + 1) * plan.rows, rows)
        if plan.groups > 1:
            start, stop = share(rows, PASS_GRAIN, part, count)
        p = Pass(passes + part, stop - start, number, start, 0)
        abort = ABORT_ODD if p.number & 1 else ABORT_EVEN
        if work.thread == 0 and atomic_load(team, STOP):
            atomic_store(team, abort, AT_ONCE)
        elif work.thread == 0 and atomic_load(team, PAUSE):
            atomic_store(team, abort, AFTER_STEP)
        if not is_turned:
            gather(plan, work, parameters.theta, samples, order, first + start, p)
            forward(plan, work, parameters.theta, team, p)
        when = atomic_load(team, abort)  # set before a barrier in `forward`: all threads agree
        is_last = is_last or when == AFTER_STEP
        if when == AT_ONCE:
            going = False
            break
        share_of_one = 1.0 / weight if weight > 0 else 0.0
        if is_turned:
            turned_deltas(
                plan, work, parameters.theta, samples, order, first + start, objective, p,
                share_of_one,
            )  # fmt: skip
        else:
            loss_and_delta(plan, work, samples, team, objective, p, share_of_one)
        scores = sum_scores(work.scores, p.rows)
        if not math.isfinite(scores[0]):
            if work.thread == 0:
                atomic_store(team, DIVERGED, 1)
            going = False
            break
        if work.thread == 0:
            work.parts[part, 0], work.parts[part, 1], work.parts[part, 2] = scores
        receiver = rule
        if not fused:
            is_first = part == group * count // groups
            receiver = make_rule(KEEP if is_first else ADD, hyper, row)
        following = first + start + p.rows
        ahead = min(plan.rows, p.rows, order.shape[0] - following)
        upcoming = borrow(Upcoming(samples.x, order, following, ahead))
        sink = borrow(Sink(with_gradient(parameters, group), receiver))
        if is_turned:
            turned_learn(plan, work, sink, p)
        else:
            backward(plan, work, sink, upcoming, team, p)
    if plan.groups > 1:  # nobody is in a pass any more: what stopped one stops all
        barrier(team, job.threads)
        even, odd = atomic_load(team, ABORT_EVEN), atomic_load(team, ABORT_ODD)
        is_last = even == AFTER_STEP or odd == AFTER_STEP
        going = not (even == AT_ONCE or odd == AT_ONCE or atomic_load(team, DIVERGED))
    if not going:
        return False, True, passes
    if work.member == 0:
        loss, right, sum_of_weights = sum_parts(work.parts, count)
        totals[LOSS] += loss
        totals[ACCURACY] += right
        totals[WEIGHT] += sum_of_weights
    if plan.groups > 1 and fused:
        barrier(team, job.threads)  # all have read the above before the next step writes to it
    if groups > 1:
        add_groups(work, parameters, groups, job.threads)
    if not fused and job.optimizer != KEEP:
        barrier(team, job.threads)
        update(plan, work, parameters, rule, job, team)
    return True, is_last, passes + count


@glue
def evaluate(plan, work, theta, samples, objective, outputs, parts, team, thread, threads):
    """Forward alone, each thread its own passes: logits to `outputs`, scores to `parts`.

    outputs [n, O] or empty; parts float64 [passes, 3] (loss, right answers and weight of each), or
    empty where there is nothing to compare with. The plan is that of a team of one.
    """
    total = samples.chosen.shape[0]
    for part in range(thread, (total + plan.rows - 1) // plan.rows, threads):
        if atomic_load(team, STOP):
            return
        first = part * plan.rows
        p = Pass(part, min(plan.rows, total - first), 0, 0, 0)
        gather(plan, work, theta, samples, samples.chosen, first, p)
        forward(plan, work, theta, team, p)
        if outputs.shape[0] > 0:
            z = logits_of(plan, work, p)
            for b in range(p.rows):
                for k in range(outputs.shape[1]):
                    outputs[first + b, k] = z[b, k]
        if parts.shape[0] > 0:
            loss_and_delta(plan, work, samples, team, objective, p, 1.0)
            parts[part, 0], parts[part, 1], parts[part, 2] = sum_scores(work.scores, p.rows)


@kernel
def finish_evaluation(parts, total, totals):
    """Means over all passes, in their order, to the totals."""
    loss, right, weight = sum_parts(parts, parts.shape[0])
    totals[VALIDATION_LOSS] = loss / weight if weight > 0 else math.nan
    totals[VALIDATION_ACCURACY] = right / total


@entry
def run(
    job,
    objective,
    plan,
    work,
    parameters,
    hyper,
    schedule,
    samples,
    order,
    alone,
    alone_work,
    others,
    outputs,
    parts,
    history,
    team,
):
    """Train for job.epochs epochs on `samples`; after each, evaluate on `others` if there are any.

    Called by each thread of the team with its own `work` and `alone_work`; everything else is the
    same for all. `alone` is the plan of a team of one, for evaluation; that is of the averaged
    parameters if there are any. `schedule` float64 [steps, 4] has the numbers of each step that
    `optimizer.make_rule` takes. `order` int64 [n] is scratch for the shuffle (samples.chosen if
    there is none). `history` float64 [epochs, HISTORY] takes the means over samples of loss and
    accuracy, of `samples` while training and of `others` after each epoch. The row of an epoch that
    is not finished has the sums so far; at the start it is zero, but for the first epoch's if that
    has begun. With epochs = 0, evaluate once; history has one row then.

    Of `team`, EPOCHS and SAMPLES tell how far it is, DIVERGED that a loss was not finite. STOP ends
    the run before the next pass or within an evaluation, PAUSE after the running step. One that
    begins there goes on with the same bits; after STOP not with batch norm, whose running
    statistics have seen the pass that was cut off.
    """
    job, objective, plan, work = borrow(job), borrow(objective), borrow(plan), borrow(work)
    alone, alone_work, parameters = borrow(alone), borrow(alone_work), borrow(parameters)
    samples, others = borrow(samples), borrow(others)
    evaluated = parameters.average if parameters.average.shape[0] > 0 else parameters.theta

    total, passes, number = samples.chosen.shape[0], 0, 0
    for epoch in range(max(job.epochs, 1)):
        totals = history[epoch]
        if job.epochs > 0:
            begin = job.begin if epoch == 0 else 0
            is_cut = epoch == job.epochs - 1 and job.pause > 0
            if job.shuffled and not (epoch == 0 and job.drawn):
                if work.member == 0:
                    epoch_number = job.first_epoch + epoch
                    shuffle(order, samples.chosen, job.seed, epoch_number, team, STOP)
                barrier(team, job.threads)
            for first in range(begin, job.pause if is_cut else total, job.batch_size):
                rows = min(job.batch_size, total - first)
                is_done, is_last, passes = step(
                    plan, work, parameters, samples, order, job, objective, hyper,
                    schedule[number], job.first_step + number, first, rows, team, totals, passes,
                )  # fmt: skip
                number += 1
                if is_done and work.member == 0:
                    atomic_store(team, SAMPLES, first + rows)
                if is_last:
                    return
            if is_cut:
                return
        if others.chosen.shape[0] > 0:
            barrier(team, job.threads)
            evaluate(
                alone, alone_work, evaluated, others, objective, outputs, parts, team, work.member,
                job.threads,
            )  # fmt: skip
            barrier(team, job.threads)
            if atomic_load(team, STOP):
                continue  # to where all threads agree to stop, or to the end
        if work.member == 0:
            if others.chosen.shape[0] > 0:
                finish_evaluation(parts, others.chosen.shape[0], totals)
            if job.epochs > 0:
                totals[LOSS] /= totals[WEIGHT]
                totals[ACCURACY] /= total
            atomic_store(team, SAMPLES, 0)
            atomic_store(team, EPOCHS, epoch + 1)
