"""Forward and backward through any network, walking the layer table.

Who does what: thread t owns a block of the columns of each layer's W, and with it the same units'
activations and deltas; its block stays in its own cache for the whole run. A narrow output layer
(`plan.narrow`) is split by *rows* instead, so that the owner of hidden units also owns the weights
that leave them: partial logits over fixed blocks of units are exchanged, one barrier a step for a
network of one hidden layer, and then every thread computes the loss of all rows for itself. Fixed
blocks, added in a fixed order: the bits do not depend on the number of threads.

A hidden layer is U = A W + b, Z = norm(U), H = f(Z), A = dropout(H); what the backward pass needs
of it is named in `plan.py`.
"""

from typing import Any, NamedTuple

from . import machine
from ._jit import apart, glue, inlined, kernel
from .activation import activation_backward, activation_forward, slope_backward
from .dropout import draw_mask, multiply_by
from .features import gather_features
from .gemm import (
    add_row_products,
    columns_ahead,
    columns_together,
    descend,
    is_packed,
    multiply,
    multiply_by_transpose,
    multiply_transposed,
    multiply_transposed_narrow,
    next_width,
    nothing_known,
    pack,
    store_row_products,
    takes_narrow_product,
    takes_products_of_rows,
    units_summed,
)
from .loss import loss_backward
from .norm import (
    batch_norm_backward,
    batch_norm_forward,
    column_sum,
    layer_norm_backward,
    layer_norm_forward,
    layer_norm_gradients,
    row_moments,
    row_sums,
)
from .optimizer import (
    KEEP,
    add,
    apply,
    descend_by_penalty,
    fill_rows,
    is_plain_descent,
    keep,
    penalty,
    with_rate,
)
from .plan import (
    ACTIVATION,
    BATCH_NORM,
    BIAS,
    DELTA,
    DROPOUT,
    EPSILON,
    GAIN,
    GRAIN,
    L1,
    L2,
    LAYER_NORM,
    LD,
    MASK,
    MOMENTUM,
    NONE,
    NORM,
    NORMED,
    PARAMETER,
    RUNNING,
    SAVES,
    SAVES_OUTPUT,
    SHIFT,
    SIZE,
    SLOPE,
    SLOPE_OF_LAYER,
    SLOPES,
    WEIGHT,
    Pass,
    activations_of,
    block_of,
    blocks_of,
    deltas_of,
    features_of,
    has_scale,
    is_of_one_thread,
    last_of,
    logits_of,
    moments_of,
    nonzero_of,
    own_part_of,
    owners_of,
    packed_deltas_of,
    partial_logits_of,
    rate_of,
    row_of,
    saved_of,
    skips_features,
    slope_sums_of,
    spread_of_rows,
    spread_of_units,
    strip_of,
    sum_of_parts,
    target_of,
    units_of,
    weights_of,
    zeros_of,
)
from .scale import scale_columns, scale_gradient
from .simd import (
    address_of,
    fill,
    first_lanes,
    lane_sum,
    lanes,
    load,
    load_across,
    matrix,
    panels,
    panels_of,
    rows_across,
    store,
)
from .team import barrier, share
from .tile import Ahead

STRIP_ROWS, STRIP_FEATURES = machine.STRIP_ROWS, machine.STRIP_FEATURES
DESCENT_BLOCK, ASKED_ROWS = machine.DESCENT_BLOCK, machine.ASKED_ROWS
FEW_ROWS = machine.FEW_ROWS


class Sink(NamedTuple):
    """Where gradients go: the parameters, and the rule that says what becomes of them."""

    parameters: Any
    rule: Any


@glue
def rule_of(plan, sink, layer, column):
    """The rule with the learning rate of what the layer table has in a column."""
    return with_rate(sink.rule, rate_of(plan, layer, column))


@glue
def take_rows(work, order, first, p):
    """Copy the numbers of a pass's rows, order[first:first + B]; a slice is read in order."""
    numbers = order[first : first + p.rows]
    for b in range(p.rows):
        work.rows[b] = numbers[b]


@apart
def gather(plan, work, theta, samples, order, first, p):
    """Copy the samples order[first:first + B] to the inputs of the network, scaled and dropped out.

    Features that are zero in all of them are left out, see `plan.features_of`.
    """
    take_rows(work, order, first, p)
    low, high = 0, plan.table[0, LD]
    if plan.table.shape[0] == 2 and plan.narrow:  # then this thread needs its own features alone
        low, high = units_of(plan, 0, work.thread)
    end = min(high, plan.table[0, SIZE])
    inputs = activations_of(plan, work, 0, p, 0, 0, plan.table[0, LD])
    if skips_features(plan, 1):
        gather_features(inputs, samples.x, work.rows, work.features, work.nonzero, plan.rows)
        return
    v = lanes(inputs)
    rounded = low + (max(end - low, 0) + v - 1) // v * v  # what is read too much is never used
    across = rows_across(samples.x, rounded)
    for b in range(p.rows):
        sample = work.rows[b]
        whole = rounded if sample < across else low + max(end - low, 0) // v * v
        for i in range(low, whole, v):
            store(inputs, b, i, load_across(samples.x, sample, i))
        for i in range(whole, end):
            inputs[b, i] = samples.x[sample, i]
    part = activations_of(plan, work, 0, p, 0, low, high)
    if has_scale(plan):
        scale_columns(part, part, row_of(plan, theta, 0, GAIN, low, high))
    if plan.training and plan.numbers[0, DROPOUT] > 0 and low < high:
        mask = input_mask_of(plan, work, p, low, high)
        probability = plan.numbers[0, DROPOUT]
        draw_mask(mask, probability, plan.seed, p.step, 0, p.start, low)
        multiply_by(part, part, mask)


@glue
def input_mask_of(plan, work, p, low, high):
    """Columns low to high of the mask of the inputs, of which a thread has all or its own."""
    ld = plan.table[0, LD]
    return matrix(work.private, plan.table[0, MASK] + low, p.rows, high - low, ld)


@glue
def partial_logits(plan, work, theta, p):
    """Logits of a narrow output layer: a part for each block of hidden units of this thread."""
    last = last_of(plan)
    ld, grain = plan.table[last, LD], plan.table[last - 1, GRAIN]
    low, high = units_of(plan, last - 1, work.thread)
    for top in range(low, high, grain):
        bottom = min(top + grain, plan.table[last - 1, SIZE])
        part = partial_logits_of(plan, work, p, top // grain)
        a = activations_of(plan, work, last - 1, p, work.thread, top, bottom)
        start = zeros_of(plan, work, ld)
        if top == 0:
            start = row_of(plan, theta, last, BIAS, 0, ld)
        w = weights_of(plan, theta, last, top, bottom, 0, ld)
        nothing = nothing_known(work.every)
        chosen, outputs = work.every[: bottom - top], plan.table[last, SIZE]
        multiply(part, a, w, start, chosen, None, nothing, outputs)


@glue
def sum_own_parts(plan, work, p):
    """Add up the parts of this thread's blocks, as far as the tree of sums has them together."""
    low, high = units_of(plan, last_of(plan) - 1, work.thread)
    grain, count = plan.table[last_of(plan) - 1, GRAIN], blocks_of(plan, last_of(plan) - 1)
    width = 1
    while width < count:
        for block in range(0, count - width, 2 * width):
            if low <= block * grain and (min(block + 2 * width, count) - 1) * grain < high:
                part = partial_logits_of(plan, work, p, block)
                add(part, partial_logits_of(plan, work, p, block + width))
        width *= 2


@glue
def part_or_sum(plan, work, p, first, end):
    """The sum over the blocks `first` to `end`, wherever it is."""
    if is_of_one_thread(plan, first, end):
        return partial_logits_of(plan, work, p, first)
    return sum_of_parts(plan, work, p, first)


@kernel
def sum_all_parts(plan, work, p):
    """Logits [B, ld] of this thread: the sum over all blocks, in the order of a fixed tree."""
    count, width = blocks_of(plan, last_of(plan) - 1), 1
    while width < count:
        for block in range(0, count - width, 2 * width):
            middle, end = block + width, min(block + 2 * width, count)
            if not is_of_one_thread(plan, block, end):
                keep(sum_of_parts(plan, work, p, block), part_or_sum(plan, work, p, block, middle))
                add(sum_of_parts(plan, work, p, block), part_or_sum(plan, work, p, middle, end))
        width *= 2
    if is_of_one_thread(plan, 0, count):
        keep(logits_of(plan, work, p), partial_logits_of(plan, work, p, 0))


@kernel
def normalize(plan, work, theta, team, p, layer, low, high):
    """Z <- norm(Z) for this thread's units of a layer; layer norm meets at a barrier."""
    table, epsilon = plan.table, plan.numbers[layer, EPSILON]
    width = high - low
    z = saved_of(plan, work, layer, p, low, high)
    normed = own_part_of(plan, work, layer, NORMED, p, low, high)
    gain = row_of(plan, theta, layer, GAIN, low, high)
    shift = row_of(plan, theta, layer, SHIFT, low, high)
    if table[layer, NORM] == BATCH_NORM:
        if low < high:
            mean = matrix(work.running, table[layer, RUNNING] + low, 1, width, width)
            offset = table[layer, RUNNING] + table[layer, LD] + low
            var = matrix(work.running, offset, 1, width, width)
            spread = spread_of_units(plan, work, layer, low, high)
            momentum = 0.0 if p.again else plan.numbers[layer, MOMENTUM]
            batch_norm_forward(
                z, normed, spread, mean, var, gain, shift, epsilon, momentum, plan.training
            )
    else:
        moments = moments_of(plan, work, layer, p, 0)
        grain, units = table[layer, GRAIN], table[layer, SIZE]
        for top in range(low, high, grain):
            part = saved_of(plan, work, layer, p, top, min(top + grain, high))
            row_moments(moments, top // grain, part, min(grain, units - top))
        barrier(team, plan.threads)
        spread = spread_of_rows(plan, work, layer, p)
        layer_norm_forward(z, normed, spread, moments, gain, shift, grain, units, epsilon)


@kernel
def weighted_sums(plan, work, theta, p, layer, z, low, high):
    """Z = A W + b for the units low to high of a layer, A of the layer below."""
    start = row_of(plan, theta, layer, BIAS, low, high)
    for owner in range(owners_of(plan, layer - 1)):
        top, bottom = block_of(plan, layer - 1, owner)
        if top < bottom:
            features = features_of(plan, work, layer, bottom - top)
            a = activations_of(plan, work, layer - 1, p, owner, top, top + features.shape[0])
            w = weights_of(plan, theta, layer, top, bottom, low, high)
            nonzero, used = nonzero_of(plan, work, layer, 0), plan.table[layer, SIZE] - low
            multiply(z, a, w, start, features, None, nonzero, used)
            start = z


@kernel
def hidden_layer(plan, work, theta, team, p, layer):
    """A = dropout(f(norm(A' W + b))) for this thread's units of a layer, A' of the layer below."""
    table = plan.table
    low, high = units_of(plan, layer, work.thread)
    z = saved_of(plan, work, layer, p, low, high)
    if low < high:
        weighted_sums(plan, work, theta, p, layer, z, low, high)
    if table[layer, NORM] != NONE:
        normalize(plan, work, theta, team, p, layer, low, high)
    if low < high:
        a = activations_of(plan, work, layer, p, work.thread, low, high)
        drops = plan.training and plan.numbers[layer, DROPOUT] > 0
        h = z if table[layer, SAVES] == SAVES_OUTPUT else a
        slopes = row_of(plan, theta, layer, SLOPE, low, high)
        activation_forward(h, z, table[layer, ACTIVATION], plan.numbers[layer, PARAMETER], slopes)
        if drops:
            mask = own_part_of(plan, work, layer, MASK, p, low, high)
            probability = plan.numbers[layer, DROPOUT]
            draw_mask(mask, probability, plan.seed, p.step, layer, p.start, low)
            multiply_by(a, h, mask)


@glue
def output_layer(plan, work, theta, team, p):
    """Z = A' W + b of the output layer, in `logits_of` afterwards."""
    last = last_of(plan)
    if plan.narrow:
        partial_logits(plan, work, theta, p)
        sum_own_parts(plan, work, p)
        barrier(team, plan.threads)
        sum_all_parts(plan, work, p)
    else:
        low, high = units_of(plan, last, work.thread)
        if low < high:
            z = activations_of(plan, work, last, p, work.thread, low, high)
            weighted_sums(plan, work, theta, p, last, z, low, high)
        barrier(team, plan.threads)


@apart
def forward_layers(plan, work, theta, team, p, first, end):
    """Layers first to end - 1, a barrier after each that others read."""
    last = last_of(plan)
    for layer in range(first, min(end, last)):
        hidden_layer(plan, work, theta, team, p, layer)
        if layer < last - 1 or not plan.narrow:
            barrier(team, plan.threads)
    if end > last:
        output_layer(plan, work, theta, team, p)


@glue
def forward(plan, work, theta, team, p):
    """All layers; the logits are in `logits_of` afterwards."""
    forward_layers(plan, work, theta, team, p, 1, last_of(plan) + 1)


@apart
def loss_and_delta(plan, work, samples, team, objective, p, scale):
    """Turn the logits into the deltas of the output layer.

    A narrow output is done by every thread for itself; the rows of a wide one are shared out.
    """
    outputs = plan.table[last_of(plan), SIZE]
    z = logits_of(plan, work, p)
    low, high = 0, p.rows
    if not plan.narrow:
        low, high = share(p.rows, 1, work.thread, plan.threads)
    loss_backward(
        objective, z, outputs, samples.labels, samples.targets, samples.weights, work.rows, low,
        high, scale, target_of(plan, work), work.scores,
    )  # fmt: skip
    if not plan.narrow:
        barrier(team, plan.threads)


@kernel
def products_of_rows(plan, work, theta, p, layer, low, high):
    """dA = dZ W^T as `gemm.add_row_products` makes it, a few rows and units at a time."""
    v, size = lanes(theta), plan.table[layer - 1, SIZE]
    da = deltas_of(plan, work, layer - 1, p, work.thread, low, high)
    for b in range(0, p.rows, FEW_ROWS):
        rows = slice(b, min(b + FEW_ROWS, p.rows))
        together = units_summed(rows.stop - b, v)
        for i in range(low, high, together):
            end = min(i + together, high)
            width = (end - i) * v
            sums = matrix(work.private, plan.transposed, rows.stop - b, width, width)
            is_first = True
            for owner in range(owners_of(plan, layer)):
                top, bottom = 0, plan.table[layer, LD]
                if owners_of(plan, layer) > 1:
                    top, bottom = units_of(plan, layer, owner)
                if top < bottom:
                    dz = deltas_of(plan, work, layer, p, owner, top, bottom)[rows]
                    w = weights_of(plan, theta, layer, i, max(min(end, size), i), top, bottom)
                    add_row_products(sums, dz, w, is_first)
                    is_first = False
            store_row_products(da[rows, i - low : end - low], sums, size - i)


@kernel
def product_with_transpose(plan, work, theta, p, layer, low, high):
    """dA = dZ W^T for the units low to high of the layer below, into their deltas."""
    v, size = lanes(theta), plan.table[layer - 1, SIZE]
    da = deltas_of(plan, work, layer - 1, p, work.thread, low, high)
    start = zeros_of(plan, work, high - low)
    for owner in range(owners_of(plan, layer)):
        top, bottom = block_of(plan, layer, owner)
        if top < bottom:
            dz = deltas_of(plan, work, layer, p, owner, top, bottom)
            end = top + (bottom - top + v - 1) // v * v
            w = weights_of(plan, theta, layer, low, min(high, size), top, end)
            multiply_by_transpose(da, dz, w, start, work.every, work.private, plan.transposed)
            start = da


@kernel
def learn_slopes(plan, work, sink, team, p, layer, low, high):
    """Hand the gradients by the slopes, the sums of dH min(Z, 0), to the rule.

    One slope for a whole layer has as many equal copies as units; all sums make its gradient.
    """
    is_shared = plan.table[layer, SLOPES] == SLOPE_OF_LAYER
    if is_shared:
        barrier(team, plan.threads)
    if low >= high:
        return
    sums = slope_sums_of(plan, work, layer, low, high)
    if is_shared:
        every = slope_sums_of(plan, work, layer, 0, plan.table[layer, LD])
        v = lanes(every)
        total = load(every, 0, 0)
        for j in range(v, every.shape[1], v):
            total = total + load(every, 0, j)
        total = fill(total, lane_sum(total))
        sums = strip_of(plan, work, high - low)
        for j in range(low, high, v):
            inside = first_lanes(plan.table[layer, SIZE] - j, total, fill(total, 0.0))
            store(sums, 0, j - low, inside)
    offset = plan.table[layer, SLOPE] + low
    apply(rule_of(plan, sink, layer, SLOPE), sink.parameters, offset, high - low, sums)


@kernel
def learn_scale(plan, work, sink, x, p):
    """Hand the gradient by the scale of this thread's inputs to the rule; x are the samples'."""
    low, high = units_of(plan, 0, work.thread)
    if low < high:
        da = deltas_of(plan, work, 0, p, work.thread, low, high)
        if plan.training and plan.numbers[0, DROPOUT] > 0:
            multiply_by(da, da, input_mask_of(plan, work, p, low, high))
        ds = strip_of(plan, work, high - low)
        scale_gradient(ds, da, x, work.rows, low)
        offset = plan.table[0, GAIN] + low
        apply(rule_of(plan, sink, 0, GAIN), sink.parameters, offset, high - low, ds)


@kernel
def norm_backward(plan, work, sink, team, p, layer, low, high):
    """dU of this thread's units of a layer from its dZ; gains and shifts are handed to the rule."""
    table, units, grain = plan.table, plan.table[layer, SIZE], plan.table[layer, GRAIN]
    width = high - low
    dz = deltas_of(plan, work, layer, p, work.thread, low, high)
    normed = own_part_of(plan, work, layer, NORMED, p, low, high)
    gain = row_of(plan, sink.parameters.theta, layer, GAIN, low, high)
    dgain = strip_of(plan, work, width)
    dshift = matrix(work.private, plan.strip + width, 1, width, width)
    if low < high:
        if table[layer, NORM] == BATCH_NORM:
            spread = spread_of_units(plan, work, layer, low, high)
            batch_norm_backward(dz, normed, spread, gain, dgain, dshift, plan.training)
        else:
            layer_norm_gradients(dz, normed, gain, dgain, dshift)
        gains, shifts = rule_of(plan, sink, layer, GAIN), rule_of(plan, sink, layer, SHIFT)
        apply(gains, sink.parameters, table[layer, GAIN] + low, width, dgain)
        apply(shifts, sink.parameters, table[layer, SHIFT] + low, width, dshift)
    if table[layer, NORM] == LAYER_NORM:
        moments = moments_of(plan, work, layer, p, 1)
        for top in range(low, high, grain):
            end = min(top + grain, high)
            part = deltas_of(plan, work, layer, p, work.thread, top, end)
            xhat = own_part_of(plan, work, layer, NORMED, p, top, end)
            row_sums(moments, top // grain, part, xhat, min(grain, units - top))
        barrier(team, plan.threads)
        spread = spread_of_rows(plan, work, layer, p)
        layer_norm_backward(dz, normed, spread, moments, units, max(min(high, units) - low, 0))


@apart
def propagate(plan, work, sink, team, p, layer):
    """Delta of the layer below, its own units: dZ W^T, then back through dropout, f and norm."""
    table, below = plan.table, layer - 1
    low, high = units_of(plan, below, work.thread)
    has_slopes = table[below, SLOPES] != NONE
    if low < high:
        if takes_products_of_rows(p.rows, table[below, SIZE], table[layer, LD]):
            products_of_rows(plan, work, sink.parameters.theta, p, layer, low, high)
        else:
            product_with_transpose(plan, work, sink.parameters.theta, p, layer, low, high)
        if below > 0:
            da = deltas_of(plan, work, below, p, work.thread, low, high)
            if plan.training and plan.numbers[below, DROPOUT] > 0:
                multiply_by(da, da, own_part_of(plan, work, below, MASK, p, low, high))
            saved = saved_of(plan, work, below, p, low, high)
            if has_slopes:
                slope_backward(slope_sums_of(plan, work, below, low, high), da, saved)
            slopes = row_of(plan, sink.parameters.theta, below, SLOPE, low, high)
            number = plan.numbers[below, PARAMETER]
            activation_backward(da, saved, table[below, ACTIVATION], number, slopes)
    if has_slopes:
        learn_slopes(plan, work, sink, team, p, below, low, high)
    if table[below, NORM] != NONE:
        norm_backward(plan, work, sink, team, p, below, low, high)


@apart
def learn(plan, work, sink, upcoming, p, layer):
    """Hand this thread's part of dW = A^T dZ and of db, the sum of dZ over the rows, to the rule.

    The part is a block of columns; of a narrow output layer, a block of rows, and b goes with the
    first.
    """
    low, high = 0, plan.table[layer, LD]
    if plan.narrow and layer == last_of(plan):
        top, bottom = units_of(plan, layer - 1, work.thread)
        bottom = min(bottom, plan.table[layer - 1, SIZE])
        learn_weights(plan, work, sink, upcoming, p, layer, work.thread, top, bottom, low, high)
        if top == 0 and bottom > 0:
            learn_bias(plan, work, sink, p, layer, low, high)
    else:
        low, high = units_of(plan, layer, work.thread)
        for owner in range(owners_of(plan, layer - 1)):
            top, bottom = block_of(plan, layer - 1, owner)
            learn_weights(plan, work, sink, upcoming, p, layer, owner, top, bottom, low, high)
        if low < high:
            learn_bias(plan, work, sink, p, layer, low, high)


@kernel
def learn_bias(plan, work, sink, p, layer, low, high):
    """Hand db, columns low to high; the mean of a batch undoes b, whose gradient is zero then."""
    dz = deltas_of(plan, work, layer, p, work.thread, low, high)
    db = strip_of(plan, work, high - low)
    is_centered = plan.training and plan.table[layer, NORM] == BATCH_NORM
    for j in range(0, high - low, lanes(dz)):
        total = column_sum(dz, j)
        store(db, 0, j, fill(total, 0.0) if is_centered else total)
    offset = plan.table[layer, BIAS] + low
    apply(rule_of(plan, sink, layer, BIAS), sink.parameters, offset, high - low, db)


@kernel
def learn_weights(plan, work, sink, upcoming, p, layer, owner, top, bottom, low, high):
    """Hand rows top to bottom of dW, columns low to high, to the rule.

    Where A is too large to stay in L2 while many panels of dZ pass over it, so many of its columns
    at a time as do, put together.
    """
    features = features_of(plan, work, layer, bottom - top)
    count, i, first = features.shape[0], 0, 0
    together = columns_together(p.rows, count, high - low, lanes(work.private))
    while i < bottom - top:
        done = min(first + together, count)
        end = features[done] if done < count else bottom - top
        a = activations_of(plan, work, layer - 1, p, owner, top + first, top + done)
        if together < count:
            near = matrix(work.private, plan.transposed, p.rows, done - first, together)
            keep(near, a)
            a = near
        learn_rows(
            plan, work, sink, upcoming, p, layer, a, features[:done], first, top, i, end, low, high
        )
        i, first = end, done


@kernel
def learn_rows(
    plan, work, sink, upcoming, p, layer, a, features, first, top, begin, bottom, low, high
):
    """Hand rows begin to bottom, counted from `top`, to the rule, a few vectors at a time.

    Of the features, which also count from `top`, `a` has those from number `first` on. Plain
    gradient descent takes each tile while it is in registers, else a strip is made in L1, or where
    it is kept; of few outputs with inputs across the lanes. The penalty's gradient is what the sums
    begin with.
    The first columns of the first layer ask for the upcoming rows, so that they arrive while there
    is much to compute.
    """
    theta, inputs = sink.parameters.theta, plan.table[layer - 1, SIZE]
    dz = deltas_of(plan, work, layer, p, work.thread, low, high)
    v, j = lanes(dz), low
    l2, l1 = plan.numbers[layer, L2], plan.numbers[layer, L1]
    is_penalized = p.start == 0 and (l2 > 0 or l1 > 0)
    rule = rule_of(plan, sink, layer, WEIGHT)
    is_plain = is_plain_descent(rule) and p.rows <= DESCENT_BLOCK and not (is_penalized and l1 > 0)
    units = min(high, plan.table[layer, SIZE]) - low
    is_narrow = takes_narrow_product(p.rows, a.shape[1], units, high - low, v)
    is_narrow = is_narrow and not (is_plain or asks_or_chooses(plan, p, layer))
    while j < high:
        width = next_width((high - j) // v)
        if is_plain:
            width = min(width, max(DESCENT_BLOCK // p.rows, 1))
        b = panels_of(dz, j - low, width)
        if not is_narrow and is_packed(p.rows, a.shape[1]):
            b = packed_deltas_of(plan, work, p, width)
            pack(b, dz, j - low)
        is_first = layer == 1 and j == low
        ahead = ahead_of(work, upcoming, is_first, a, top + begin, top + bottom)
        if is_plain:
            w = weights_of(plan, theta, layer, top, top + bottom, j, j + width * v)
            nonzero, chosen = nonzero_of(plan, work, layer, first), features[first:]
            decay = l2 if is_penalized else 0.0
            if decay > 0.0 and chosen.shape[0] < bottom - begin:
                descend_by_penalty(w, chosen, begin, bottom, rule, decay)
            descend(w, a, b, rule.rate, decay, chosen, ahead, nonzero)
        else:
            i, at = begin, first
            while i < bottom:
                end, done = end_of_strip(features, at, i, bottom)
                rows = end - i
                place = plan.table[layer, WEIGHT] + j * inputs + (top + i) * v
                flat, offset, stride = work.private, plan.strip, rows * v
                if rule.code == KEEP:
                    flat, offset, stride = sink.parameters.gradient, place, inputs * v
                g = matrix(flat, offset, width, rows * v, stride)
                c = panels(flat, offset, width, rows, stride, v)
                start = panels(work.private, plan.zeros, width, 1, 0, v)
                if is_penalized:
                    penalty(g, matrix(theta, place, width, rows * v, inputs * v), l2, l1)
                    start = c
                elif done - at < rows:
                    fill_rows(g, 0.0)
                places = places_of(work, features[at:done], i)
                part, later = a[:, at - first : done - first], further(ahead, at - first)
                if is_narrow:
                    multiply_transposed_narrow(
                        c, part, dz, units, work.every, work.private, plan.packed_deltas,
                        not is_penalized,
                    )  # fmt: skip
                else:
                    nonzero = nonzero_of(plan, work, layer, at)
                    used = units + low - j
                    multiply_transposed(c, part, b, start, places, later, nonzero, used)
                if rule.code != KEEP:
                    apply(rule, sink.parameters, place, inputs * v, g)
                i, at = end, done
        j += width * v


@inlined
def asks_or_chooses(plan, p, layer):
    """Whether the gradient's product asks for upcoming inputs, or leaves out rows: it alone can."""
    return skips_features(plan, layer) or (layer == 1 and p.rows <= ASKED_ROWS)


@kernel
def end_of_strip(features, first, top, bottom):
    """Where a strip of rows from `top` on ends, and the number of the first feature behind it.

    Its features, from number `first` on, make whole tiles where the rows between them are few.
    """
    end, done = min(top + STRIP_ROWS, bottom), min(first + STRIP_FEATURES, features.shape[0])
    if done < features.shape[0]:
        end = min(end, features[done])
    while done > first and features[done - 1] >= end:
        done -= 1
    return end, done


@glue
def places_of(work, features, first):
    """Where the features of a strip, which begins with `first`, are in it; in scratch."""
    places = work.features[work.features.shape[0] - STRIP_ROWS :][: features.shape[0]]
    for n in range(features.shape[0]):
        places[n] = features[n] - first
    return places


@glue
def ahead_of(work, upcoming, is_first, a, top, bottom):
    """What a product with a^T asks memory for: upcoming inputs, or else more columns of `a`."""
    if is_first and upcoming.rows == a.shape[0] <= ASKED_ROWS:
        rows, x = upcoming.order[upcoming.first :], upcoming.x
        step = (((bottom - top) * x.itemsize) << 8) // a.shape[1]
        return Ahead(address_of(x, 0, top), x.strides[0], step, rows)
    return columns_ahead(a, work.every)


@glue
def further(ahead, first):
    """The same for a part of the product, whose rows begin with number `first`."""
    address = ahead.address + ((first * ahead.step) >> 8)
    return Ahead(address, ahead.stride, ahead.step, ahead.rows)


@glue
def backward(plan, work, sink, upcoming, team, p):
    """From the deltas of the output layer to every gradient, each handed to the rule at once.

    A layer's weights are updated only when no thread needs them any more for `propagate`: a
    barrier lies between, except in a narrow output layer, where both concern the same rows. Layers
    that the forward pass did not keep are computed again from the checkpoint below them, before
    anything of theirs is updated.
    """
    last, every = last_of(plan), plan.checkpoint_every
    for layer in range(last, 0, -1):
        if every > 1 and layer % every == 0 and layer < last - 1:
            again = Pass(p.number, p.rows, p.step, p.start, 1)
            forward_layers(plan, work, sink.parameters.theta, team, again, layer - every + 1, layer)
        if layer > 1 or plan.table[0, DELTA] >= 0:
            propagate(plan, work, sink, team, p, layer)
            if layer == 1 and has_scale(plan):
                learn_scale(plan, work, sink, upcoming.x, p)
            if layer < last or not plan.narrow:
                barrier(team, plan.threads)
        learn(plan, work, sink, upcoming, p, layer)
        if layer == last and plan.narrow and (last > 2 or plan.table[0, DELTA] >= 0):
            barrier(team, plan.threads)
