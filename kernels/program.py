"""The one compiled program: train, differentiate, evaluate and predict, for any network.

The network is data, one flat vector of parameters and a layer table. So this is compiled once for
each dtype, whatever the depth, width, batch size, activation, loss or optimizer.
"""

import math
from typing import NamedTuple

from . import machine
from ._jit import entry, glue, kernel
from .network import backward, forward, gather, loss_and_delta
from .optimizer import ADD, KEEP, Parameters, apply, make_rule
from .plan import (
    MICRO_BATCH,
    Upcoming,
    borrowed_plan,
    borrowed_samples,
    borrowed_workspace,
    logits_of,
)
from .random import shuffle
from .simd import atomic_load, atomic_store, borrow, matrix
from .team import ABORT_EVEN, ABORT_ODD, EPOCHS, SAMPLES, STOP, barrier, share

UPDATE_GRAIN = machine.CACHE_LINE  # elements: whole vectors of either dtype


class Job(NamedTuple):
    """What to run: codes and sizes of loops. `optimizer` KEEP keeps the gradient, no update."""

    loss: int
    optimizer: int
    epochs: int
    batch_size: int
    shuffled: int
    seed: int


@kernel
def add_scores(scores, count, totals):
    """Add the loss and the right answers of B rows to the totals, row by row."""
    for b in range(count):
        totals[0] += scores[0, b]
        totals[1] += scores[1, b]


@glue
def step(
    plan, work, parameters, samples, order, job, hyper, number, first, rows, team, totals, passes
):
    """One step of the optimizer on samples order[first:first + rows]; False if stopped before it.

    A batch of at most MICRO_BATCH rows is one pass, in which the gradient becomes the update at
    once. A larger one adds up the gradients of several passes first: nothing changes before the
    last of them, so a stop leaves the parameters of the last whole step.
    """
    rule = make_rule(job.optimizer, hyper, number)
    fused = rows <= MICRO_BATCH
    for start in range(0, rows, MICRO_BATCH):
        count = min(MICRO_BATCH, rows - start)
        passes += 1
        abort = ABORT_ODD if passes & 1 else ABORT_EVEN
        if work.thread == 0 and atomic_load(team, STOP):
            atomic_store(team, abort, 1)
        gather(plan, work, samples, order, first + start, count)
        forward(plan, work, parameters.theta, team, passes, count)
        if atomic_load(team, abort):  # set before a barrier in `forward`: all threads agree
            return False, passes
        loss_and_delta(plan, work, samples, team, job.loss, passes, count, 1.0 / rows)
        if work.thread == 0:
            add_scores(work.scores, count, totals)
        sink = rule
        if not fused:
            sink = make_rule(KEEP if start == 0 else ADD, hyper, number)
        following = first + start + count
        ahead = min(MICRO_BATCH, count, order.shape[0] - following)
        upcoming = Upcoming(samples.x, order, following, ahead)
        backward(plan, work, parameters, sink, upcoming, team, passes, count)
    if not fused and job.optimizer != KEEP:
        barrier(team, plan.threads)
        low, high = share(parameters.theta.shape[0], UPDATE_GRAIN, work.thread, plan.threads)
        if low < high:
            gradient = matrix(parameters.gradient, low, 1, high - low, high - low)
            apply(rule, parameters, low, high - low, gradient)
        barrier(team, plan.threads)
    return True, passes


@glue
def evaluate(plan, work, theta, samples, loss, outputs, parts, team, thread, threads):
    """Forward alone, each thread its own micro-batches: logits to `outputs`, scores to `parts`.

    outputs [n, O] or empty; parts float64 [micro-batches, 2] (loss and right answers of each), or
    empty where there is nothing to compare with. The plan is that of a team of one.
    """
    total = samples.chosen.shape[0]
    for part in range(thread, (total + MICRO_BATCH - 1) // MICRO_BATCH, threads):
        if atomic_load(team, STOP):
            return
        first = part * MICRO_BATCH
        count = min(MICRO_BATCH, total - first)
        gather(plan, work, samples, samples.chosen, first, count)
        forward(plan, work, theta, team, part, count)
        if outputs.shape[0] > 0:
            z = logits_of(plan, work, part, count)
            for b in range(count):
                for k in range(outputs.shape[1]):
                    outputs[first + b, k] = z[b, k]
        if parts.shape[0] > 0:
            loss_and_delta(plan, work, samples, team, loss, part, count, 1.0)
            add_scores(work.scores, count, parts[part])


@kernel
def finish_evaluation(parts, total, totals, team):
    """Means over all micro-batches, in their order, to totals[2:4]; NaN if stopped on the way."""
    for i in range(parts.shape[0]):
        totals[2] += parts[i, 0]
        totals[3] += parts[i, 1]
        parts[i, 0], parts[i, 1] = 0.0, 0.0
    totals[2] /= total
    totals[3] /= total
    if atomic_load(team, STOP):
        totals[2], totals[3] = math.nan, math.nan


@entry
def run(
    job,
    plan,
    work,
    parameters,
    hyper,
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
    same for all. `alone` is the plan of a team of one, for evaluation. `order` int64 [n] is scratch
    for the shuffle (samples.chosen if there is none). `history` float64 [epochs, 4], zero at the
    start, takes the means over samples of loss and accuracy, of `samples` while training and of
    `others` after each epoch (NaN where stopped before). With epochs = 0, evaluate once; history
    has one row then. Of `team`, EPOCHS and SAMPLES tell how far it is.
    """
    plan, work = borrowed_plan(plan), borrowed_workspace(work)
    alone, alone_work = borrowed_plan(alone), borrowed_workspace(alone_work)
    samples, others = borrowed_samples(samples), borrowed_samples(others)
    parameters = Parameters(
        borrow(parameters.theta),
        borrow(parameters.gradient),
        borrow(parameters.first),
        borrow(parameters.second),
    )
    order, team, history, parts = borrow(order), borrow(team), borrow(history), borrow(parts)
    outputs, hyper = borrow(outputs), borrow(hyper)

    total, passes, number = samples.chosen.shape[0], 0, 0
    for epoch in range(max(job.epochs, 1)):
        totals = history[epoch]
        if job.epochs > 0:
            if job.shuffled:
                if work.thread == 0:
                    shuffle(order, samples.chosen, job.seed, epoch, team, STOP)
                barrier(team, plan.threads)
            for first in range(0, total, job.batch_size):
                rows = min(job.batch_size, total - first)
                number += 1
                going, passes = step(
                    plan,
                    work,
                    parameters,
                    samples,
                    order,
                    job,
                    hyper,
                    number,
                    first,
                    rows,
                    team,
                    totals,
                    passes,
                )
                if not going:
                    return
                if work.thread == 0:
                    atomic_store(team, SAMPLES, first + rows)
            if work.thread == 0:
                totals[0] /= total
                totals[1] /= total
        if others.chosen.shape[0] > 0:
            barrier(team, plan.threads)
            evaluate(
                alone,
                alone_work,
                parameters.theta,
                others,
                job.loss,
                outputs,
                parts,
                team,
                work.thread,
                plan.threads,
            )
            barrier(team, plan.threads)
            if work.thread == 0:
                finish_evaluation(parts, others.chosen.shape[0], totals, team)
        if work.thread == 0:
            atomic_store(team, SAMPLES, 0)
            atomic_store(team, EPOCHS, epoch + 1)
