"""Differences of the loss by every parameter, each computing again only what follows from it.

A parameter of a layer changes one of its units. What follows from it is that unit (with layer norm,
or one slope for all, the whole layer), the unit's row of the next W times the change, and the
layers above. For that, all values of the unchanged network are kept, in row-major matrices [B, ld].
"""

from typing import Any, NamedTuple

from ._jit import entry, glue, kernel
from .activation import ELU, LEAKY_RELU, PRELU, RELU, SELU, activation_forward
from .dropout import draw_mask, multiply_by
from .gemm import multiply
from .loss import ABSOLUTE_ERROR, HUBER, PINBALL, loss_backward
from .norm import batch_norm_forward, layer_norm_forward, row_moments
from .optimizer import keep
from .plan import (
    ACTIVATION,
    BATCH_NORM,
    BIAS,
    DROPOUT,
    EPSILON,
    GAIN,
    LAYER_NORM,
    LD,
    NONE,
    NORM,
    PARAMETER,
    RUNNING,
    SHIFT,
    SIZE,
    SLOPE,
    SLOPE_OF_LAYER,
    SLOPES,
    WEIGHT,
    has_scale,
    last_of,
    row_of,
)
from .scale import scale_columns
from .simd import borrow, fill, fma, lanes, load, matrix, panels, store

# The matrices of a layer: sums A' W + b, normed sums z, outputs and mask of the unchanged network;
# then sums, z and outputs after a change.
SUMS, INPUTS, OUTPUTS, MASK, NEW_INPUTS, NEW_OUTPUTS, REGIONS = range(7)


class Bench(NamedTuple):
    """A network, its samples, and the scratch for computing their losses again and again.

    `starts` int64 [L + 1]: where the matrices of a layer begin in `memory`; `scratch`: an element
    for each row, two more for its moments, then a row and a matrix [B, ld] of the widest layer.
    `rows` int64 [B], `scores` float64 [3, B] and `target` [1, ld] are as the losses want them,
    `before` a float64 [B] for the scores of a moment ago.
    """

    plan: Any
    theta: Any
    running: Any
    samples: Any
    objective: Any
    starts: Any
    memory: Any
    scratch: Any
    rows: Any
    scores: Any
    before: Any
    target: Any


@glue
def region(bench, layer, kind, low, high):
    """Columns low to high of a matrix of a layer."""
    count, ld = bench.rows.shape[0], bench.plan.table[layer, LD]
    offset = bench.starts[layer] + kind * count * ld + low
    return matrix(bench.memory, offset, count, high - low, ld)


@kernel
def finish(bench, layer, inputs, outputs, low, high):
    """Z <- norm(sums) in the matrix `inputs` of a layer, units low to high; A to `outputs`.

    Of layer 0, whose sums are the samples, A is the sums times their scale.
    """
    plan, count, width = bench.plan, bench.rows.shape[0], high - low
    z, a = region(bench, layer, inputs, low, high), region(bench, layer, outputs, low, high)
    epsilon, ld = plan.numbers[layer, EPSILON], plan.table[layer, LD]
    if plan.table[layer, NORM] != NONE:
        normed = matrix(bench.scratch, 3 * count + ld, count, width, width)
        gain = row_of(plan, bench.theta, layer, GAIN, low, high)
        shift = row_of(plan, bench.theta, layer, SHIFT, low, high)
        if plan.table[layer, NORM] == BATCH_NORM:
            spread = matrix(bench.scratch, 3 * count, 1, width, width)
            offset = plan.table[layer, RUNNING] + low
            mean = matrix(bench.running, offset, 1, width, width)
            var = matrix(bench.running, offset + ld, 1, width, width)
            batch_norm_forward(
                z, normed, spread, mean, var, gain, shift, epsilon, 0.0, plan.training
            )
        else:
            spread = matrix(bench.scratch, 0, 1, count, count)
            moments = matrix(bench.scratch, count, count, 2, 2)
            units = plan.table[layer, SIZE]
            row_moments(moments, 0, z, units)
            layer_norm_forward(z, normed, spread, moments, gain, shift, ld, units, epsilon)
    slopes = row_of(plan, bench.theta, layer, SLOPE, low, high)
    activation_forward(a, z, plan.table[layer, ACTIVATION], plan.numbers[layer, PARAMETER], slopes)
    if layer == 0 and has_scale(plan):
        scale_columns(a, a, row_of(plan, bench.theta, 0, GAIN, low, high))
    if plan.numbers[layer, DROPOUT] > 0:
        multiply_by(a, a, region(bench, layer, MASK, low, high))


@kernel
def product(bench, layer, inputs, outputs):
    """Sums A' W + b of a layer to its matrix `inputs`, A' the `outputs` of the layer below."""
    plan = bench.plan
    below, ld, v = plan.table[layer - 1, SIZE], plan.table[layer, LD], lanes(bench.theta)
    w = panels(bench.theta, plan.table[layer, WEIGHT], ld // v, below, v, ld)
    start = row_of(plan, bench.theta, layer, BIAS, 0, ld)
    z, a = region(bench, layer, inputs, 0, ld), region(bench, layer - 1, outputs, 0, below)
    multiply(z, a, w, start)


@kernel
def begin(bench):
    """All values of the unchanged network, and its losses to bench.scores."""
    plan, samples = bench.plan, bench.samples
    x = region(bench, 0, SUMS, 0, plan.table[0, LD])
    for b in range(bench.rows.shape[0]):
        for i in range(plan.table[0, SIZE]):
            x[b, i] = samples.x[b, i]
    for layer in range(last_of(plan) + 1):
        ld = plan.table[layer, LD]
        if plan.numbers[layer, DROPOUT] > 0:
            mask = region(bench, layer, MASK, 0, ld)
            draw_mask(mask, plan.numbers[layer, DROPOUT], plan.seed, 0, layer, 0, 0)
        if layer > 0:
            product(bench, layer, SUMS, OUTPUTS)
        keep(region(bench, layer, INPUTS, 0, ld), region(bench, layer, SUMS, 0, ld))
        if layer < last_of(plan):
            finish(bench, layer, INPUTS, OUTPUTS, 0, ld)


@glue
def side(x, limit):
    """1 above the limit, -1 below minus the limit, else 0."""
    return (1 if x > limit else 0) - (1 if x < -limit else 0)


@kernel
def bends(bench, layer, low, high):
    """Whether one of the units low to high is on another side of its kink than before."""
    code = bench.plan.table[layer, ACTIVATION]
    if not (code == RELU or code == LEAKY_RELU or code == PRELU or code == ELU or code == SELU):
        return False
    old, new = region(bench, layer, INPUTS, low, high), region(bench, layer, NEW_INPUTS, low, high)
    for b in range(old.shape[0]):
        for j in range(high - low):
            if side(old[b, j], 0.0) != side(new[b, j], 0.0):
                return True
    return False


@kernel
def loss_bends(bench):
    """Whether an output is on another side of a kink of the loss than before the change."""
    plan, objective = bench.plan, bench.objective
    code = objective.code
    if not (code == ABSOLUTE_ERROR or code == PINBALL or code == HUBER):
        return False
    limit = objective.delta if code == HUBER else 0.0
    last = last_of(plan)
    size = plan.table[last, SIZE]
    old, new = region(bench, last, INPUTS, 0, size), region(bench, last, NEW_INPUTS, 0, size)
    for b in range(old.shape[0]):
        for k in range(size):
            t = bench.samples.targets[b, k]
            if side(old[b, k] - t, limit) != side(new[b, k] - t, limit):
                return True
    return False


@kernel
def losses(bench):
    """The weighted loss of each row to bench.scores[0]; the new outputs become its gradient."""
    plan, samples, count = bench.plan, bench.samples, bench.rows.shape[0]
    last = last_of(plan)
    z = region(bench, last, NEW_INPUTS, 0, plan.table[last, LD])
    loss_backward(
        bench.objective, z, plan.table[last, SIZE], samples.labels, samples.targets,
        samples.weights, bench.rows, 0, count, 1.0, bench.target, bench.scores,
    )  # fmt: skip


@kernel
def spread(bench, layer, unit):
    """New sums of a layer: the old ones, plus the row of W of a unit below times its change."""
    ld = bench.plan.table[layer, LD]
    z, sums = region(bench, layer, NEW_INPUTS, 0, ld), region(bench, layer, SUMS, 0, ld)
    w = matrix(bench.theta, bench.plan.table[layer, WEIGHT] + unit * ld, 1, ld, ld)
    old = region(bench, layer - 1, OUTPUTS, unit, unit + 1)
    new = region(bench, layer - 1, NEW_OUTPUTS, unit, unit + 1)
    for b in range(z.shape[0]):
        for j in range(0, ld, lanes(z)):
            x = load(sums, b, j)
            store(z, b, j, fma(fill(x, new[b, 0] - old[b, 0]), load(w, 0, j), x))


@kernel
def change(bench, layer, unit, i, step, is_coupled):
    """The losses after a parameter of a unit has moved by a step; whether anything met a kink.

    It is W[i, unit], or b with i = -1, or with i = -2 one that the sums do not depend on. The whole
    layer changes if `is_coupled`.
    """
    plan, v = bench.plan, lanes(bench.theta)
    last, ld = last_of(plan), plan.table[layer, LD]
    low, high, first, end = 0, ld, 0, plan.table[layer, SIZE]
    if layer < last and not is_coupled:
        low, first, end = unit // v * v, unit, unit + 1
        high = low + v
    z = region(bench, layer, NEW_INPUTS, low, high)
    keep(z, region(bench, layer, SUMS, low, high))
    if i >= -1:
        for b in range(z.shape[0]):
            x = 1.0
            if i >= 0:
                x = region(bench, layer - 1, OUTPUTS, i, i + 1)[b, 0]
            z[b, unit - low] += step * x
    has_bent = False
    for above in range(layer, last + 1):
        if above > layer:
            low, high = 0, plan.table[above, LD]
            first, end = 0, plan.table[above, SIZE]
            if above == layer + 1 and not is_coupled:
                spread(bench, above, unit)
            else:
                product(bench, above, NEW_INPUTS, NEW_OUTPUTS)
        if above < last:
            finish(bench, above, NEW_INPUTS, NEW_OUTPUTS, low, high)
            has_bent = has_bent or bends(bench, above, first, end)
    has_bent = has_bent or loss_bends(bench)
    losses(bench)
    return has_bent


@kernel
def difference(bench, place, copies, layer, unit, i, is_coupled, epsilon, numeric, bent):
    """numeric[place] <- the central difference of the losses by theta[place]; bent: met a kink.

    The rows' losses are subtracted one by one: those that do not change leave no rounding error.
    """
    count, value = bench.rows.shape[0], bench.theta[place]
    up, down = value + epsilon, value - epsilon
    bench.theta[place : place + copies] = up
    has_bent = change(bench, layer, unit, i, up - value, is_coupled)
    for b in range(count):
        bench.before[b] = bench.scores[0, b]
    bench.theta[place : place + copies] = down
    has_bent = change(bench, layer, unit, i, down - value, is_coupled) or has_bent
    bench.theta[place : place + copies] = value
    total = 0.0
    for b in range(count):
        total += bench.before[b] - bench.scores[0, b]
    numeric[place] = total / (up - down)
    bent[place] = has_bent


@kernel
def roundness(bench):
    """Sum of all |loss| and |dz z|, to which the rounding of the differences is in proportion."""
    last, total = last_of(bench.plan), 0.0
    size = bench.plan.table[last, SIZE]
    z, dz = region(bench, last, INPUTS, 0, size), region(bench, last, NEW_INPUTS, 0, size)
    keep(
        region(bench, last, NEW_INPUTS, 0, bench.plan.table[last, LD]),
        region(bench, last, INPUTS, 0, bench.plan.table[last, LD]),
    )
    losses(bench)
    for b in range(bench.rows.shape[0]):
        total += abs(bench.scores[0, b])
        for k in range(size):
            total += abs(dz[b, k] * z[b, k])
    return total


@entry
def differences(bench, epsilon, numeric, bent):
    """Central differences of the sum of the weighted losses by all parameters.

    numeric float64 and bent int8 are in the layout of theta, which in the end is as it was. Return
    `roundness`.
    """
    bench = borrow(bench)
    table = bench.plan.table
    begin(bench)
    if has_scale(bench.plan):
        for unit in range(table[0, SIZE]):
            difference(bench, table[0, GAIN] + unit, 1, 0, unit, -2, False, epsilon, numeric, bent)
    for layer in range(1, last_of(bench.plan) + 1):
        units, ld = table[layer, SIZE], table[layer, LD]
        is_coupled = table[layer, NORM] == LAYER_NORM
        copies = 1
        for unit in range(units):
            for i in range(-1, table[layer - 1, SIZE]):
                place = table[layer, BIAS] + unit if i < 0 else table[layer, WEIGHT] + i * ld + unit
                difference(bench, place, copies, layer, unit, i, is_coupled, epsilon, numeric, bent)
        i = -2
        for column in (SLOPE, GAIN, SHIFT):
            if table[layer, SLOPES if column == SLOPE else NORM] == NONE:
                continue
            of_layer = column == SLOPE and table[layer, SLOPES] == SLOPE_OF_LAYER
            copies = units if of_layer else 1
            for unit in range(1 if of_layer else units):
                place, coupled = table[layer, column] + unit, is_coupled or of_layer
                difference(bench, place, copies, layer, unit, i, coupled, epsilon, numeric, bent)
    return roundness(bench)
