"""A turned pass: forward, loss and backward of a small network on matrices [units, rows].

Elsewhere a vector holds units, and a layer of four leaves most of its lanes empty. Here rows lie
across the lanes: each layer takes as many vectors as it has units, whatever their number, the loss
needs no sums over lanes, and W is not transposed for dA. The sums over rows, dW and db, are made in
every lane, and the lanes are added up at the end.

For passes that a team of one does, of networks of plain layers alone (`layout.can_be_turned`). B'
are the rows of the pass, rounded up to whole vectors: the last sample again, with weight 0. The
chains of FMAs of hidden layers, and of dA where that is made by W^T, hence their bits, are those of
`network.py`.
"""

import numpy as np

from ._jit import glue, kernel
from .activation import activation_backward, activation_forward
from .gemm import columns_ahead, multiply, multiply_transposed, nothing_known
from .loss import SOFTMAX_CROSS_ENTROPY, loss_backward, turned_sum_over_outputs
from .network import rule_of
from .optimizer import add, apply, fill_rows, penalty
from .plan import (
    ACTIVATION,
    BIAS,
    DELTA,
    L1,
    L2,
    LD,
    NONE,
    OUTPUT,
    PARAMETER,
    SAVED,
    SAVES,
    SIZE,
    WEIGHT,
    last_of,
    strip_of,
    target_of,
    zeros_of,
)
from .simd import (
    fill,
    fma,
    lanes,
    load,
    matrix,
    panels,
    rows_across,
    store,
    store_lane_sums,
    transpose_block,
    transpose_rows,
)


@glue
def whole(p, v):
    """B', the rows of a pass in whole vectors."""
    return (p.rows + v - 1) // v * v


@glue
def units_at(plan, work, offset, low, high, p):
    """Units low to high [high - low, B'] of a layer whose region is at `offset`."""
    rows = whole(p, lanes(work.shared))
    return matrix(work.shared, offset + low * plan.rows, high - low, rows, plan.rows)


@glue
def panels_at(plan, work, offset, low, high, p):
    """The same as panels of the rows of a pass, each one vector wide."""
    v = lanes(work.shared)
    place, count = offset + low * plan.rows, whole(p, v) // v
    return panels(work.shared, place, count, high - low, v, plan.rows)


@glue
def output_of(plan, work, layer, p):
    """The outputs of a layer, of layer 0 the inputs."""
    return units_at(plan, work, plan.table[layer, OUTPUT], 0, plan.table[layer, SIZE], p)


@glue
def saved_at(plan, layer):
    """Where that lies which f' of a hidden layer is computed from."""
    return plan.table[layer, OUTPUT if plan.table[layer, SAVES] == NONE else SAVED]


@glue
def delta_at(plan, layer):
    """Where the deltas of a layer lie."""
    return plan.table[layer, OUTPUT if layer == last_of(plan) else DELTA]


@glue
def weights_to(plan, theta, layer, low, high):
    """W[:, low:high] of a layer, for units that lie in one panel."""
    inputs, v = plan.table[layer - 1, SIZE], lanes(theta)
    return matrix(theta, plan.table[layer, WEIGHT] + low * inputs, inputs, high - low, v)


@kernel
def turn(c, x, rows):
    """c[:N] <- x[rows]^T for x [., N]; whatever comes behind, up to whole vectors of N."""
    v, size = lanes(c), x.shape[1]
    across = rows_across(x, (size + v - 1) // v * v)
    for b in range(0, c.shape[1], v):
        highest = rows[b]
        for lane in range(1, v):
            highest = max(highest, rows[b + lane])
        if highest < across:
            for i in range(0, size, v):
                if size - i <= 4:
                    transpose_rows(c, i, b, 4, x, i, rows, b)
                else:
                    transpose_rows(c, i, b, 16, x, i, rows, b)
        else:
            for lane in range(v):
                for i in range(size):
                    c[i, b + lane] = x[rows[b + lane], i]


@kernel
def turned_gather(plan, work, samples, order, first, p):
    """The samples order[first:first + B] to the inputs of the network."""
    inputs = units_at(plan, work, plan.table[0, OUTPUT], 0, plan.table[0, LD], p)
    for b in range(p.rows):
        work.rows[b] = order[first + b]
    for b in range(p.rows, inputs.shape[1]):
        work.rows[b] = work.rows[p.rows - 1]
    turn(inputs, samples.x, work.rows)


@kernel
def turned_forward(plan, work, theta, p):
    """All layers: Z = W^T A' + b, A = f(Z)."""
    table, v = plan.table, lanes(theta)
    rows = matrix(work.private, plan.transposed, v, v, v)  # of a bias in each lane
    for layer in range(1, last_of(plan) + 1):
        size, below, at = table[layer, SIZE], table[layer - 1, SIZE], saved_at(plan, layer)
        a = panels_at(plan, work, table[layer - 1, OUTPUT], 0, below, p)
        for low in range(0, size, v):
            high = min(low + v, size)
            for i in range(high - low):
                store(rows, i, 0, fill(load(rows, i, 0), theta[table[layer, BIAS] + low + i]))
            start = panels(work.private, plan.transposed, a.shape[0], high - low, 0, v)
            z = panels_at(plan, work, at, low, high, p)
            w = weights_to(plan, theta, layer, low, high)
            ahead = columns_ahead(w, work.every)
            multiply_transposed(
                z, w, a, start, work.every[: high - low], ahead, nothing_known(work.every)
            )
        if layer < last_of(plan):
            z = units_at(plan, work, at, 0, size, p)
            number = plan.numbers[layer, PARAMETER]
            activation_forward(
                output_of(plan, work, layer, p), z, table[layer, ACTIVATION], number, z
            )


@kernel
def turned_loss(plan, work, samples, objective, p, scale):
    """Turn the outputs into their deltas; cross-entropy is computed on rows."""
    last, v = last_of(plan), lanes(work.shared)
    outputs, ld, offset = plan.table[last, SIZE], plan.table[last, LD], plan.table[last, SAVED]
    z, row = output_of(plan, work, last, p), target_of(plan, work)
    if objective.code == SOFTMAX_CROSS_ENTROPY:
        padded = units_at(plan, work, plan.table[last, OUTPUT], 0, ld, p)
        logits = matrix(work.shared, offset, z.shape[1], ld, ld)
        for b in range(0, z.shape[1], v):
            for j in range(0, ld, v):
                transpose_block(logits, b, j, padded, j, b)
        loss_backward(
            objective, logits, outputs, samples.labels, samples.targets, samples.weights,
            work.rows, np.int64(0), p.rows, scale, row, work.scores,
        )  # fmt: skip
        for b in range(p.rows, z.shape[1]):
            for j in range(0, ld, v):
                store(logits, b, j, fill(load(logits, b, j), 0.0))
        for b in range(0, z.shape[1], v):
            for j in range(0, ld, v):
                transpose_block(padded, j, b, logits, b, j)
    else:
        targets = units_at(plan, work, offset, 0, ld, p)
        turn(targets, samples.targets, work.rows)
        turned_sum_over_outputs(
            objective, z, targets, samples.weights, work.rows, p.rows, scale, row, work.scores
        )


@kernel
def turned_backward(plan, work, sink, p):
    """From the deltas of the outputs to every gradient, each handed to the rule at once."""
    table, theta, v = plan.table, sink.parameters.theta, lanes(work.shared)
    for layer in range(last_of(plan), 0, -1):
        size, below, at = table[layer, SIZE], table[layer - 1, SIZE], delta_at(plan, layer)
        if layer > 1:
            da = units_at(plan, work, table[layer - 1, DELTA], 0, below, p)
            start = zeros_of(plan, work, da.shape[1])
            for low in range(0, size, v):
                high = min(low + v, size)
                dz = panels_at(plan, work, at, low, high, p)
                w = weights_to(plan, theta, layer, low, high)
                nothing = nothing_known(work.every)
                multiply(da, w, dz, start, work.every[: high - low], None, nothing)
                start = da
            saved = units_at(plan, work, saved_at(plan, layer - 1), 0, below, p)
            code, number = table[layer - 1, ACTIVATION], plan.numbers[layer - 1, PARAMETER]
            activation_backward(da, saved, code, number, da)
        turned_learn(plan, work, sink, p, layer)


@kernel
def turned_learn(plan, work, sink, p, layer):
    """Hand dW = A dZ^T and db, the sums of dZ over the rows, to the rule, a panel at a time."""
    table, v = plan.table, lanes(work.shared)
    size, inputs = table[layer, SIZE], table[layer - 1, SIZE]
    l2, l1 = plan.numbers[layer, L2], plan.numbers[layer, L1]
    is_penalized = p.start == 0 and (l2 > 0 or l1 > 0)
    a = output_of(plan, work, layer - 1, p)
    scratch = matrix(work.private, plan.transposed, 1, 16, 16)
    for low in range(0, size, v):
        high = min(low + v, size)
        dz = units_at(plan, work, delta_at(plan, layer), low, high, p)
        place, length = table[layer, WEIGHT] + low * inputs, inputs * v
        g = strip_of(plan, work, length)
        if high - low < v:
            fill_rows(g, 0.0)
        row_products(matrix(work.private, plan.strip, inputs, high - low, v), a, dz, scratch)
        if is_penalized:
            more = matrix(work.private, plan.strip + length, 1, length, length)
            penalty(more, matrix(sink.parameters.theta, place, 1, length, length), l2, l1)
            add(g, more)
        apply(rule_of(plan, sink, layer, WEIGHT), sink.parameters, place, length, g)
        db = strip_of(plan, work, v)
        fill_rows(db, 0.0)
        row_totals(db, dz, scratch)
        bias = table[layer, BIAS] + low
        apply(rule_of(plan, sink, layer, BIAS), sink.parameters, bias, v, db)


@kernel
def row_products(c, a, b, scratch):
    """c [M, N] <- a b^T for a [M, K] and b [N, K]: sums in every lane, then of the lanes.

    Four rows of each at a time; in place of rows behind the last, the last is taken again.
    """
    v, last_m, last_n = lanes(a), a.shape[0] - 1, b.shape[0] - 1
    zero = fill(load(a, 0, 0), 0.0)
    for n in range(0, b.shape[0], 4):
        n1, n2, n3 = min(n + 1, last_n), min(n + 2, last_n), min(n + 3, last_n)
        for m in range(0, a.shape[0], 4):
            m1, m2, m3 = min(m + 1, last_m), min(m + 2, last_m), min(m + 3, last_m)
            p0, p1, p2, p3, q0, q1, q2, q3 = zero, zero, zero, zero, zero, zero, zero, zero
            r0, r1, r2, r3, s0, s1, s2, s3 = zero, zero, zero, zero, zero, zero, zero, zero
            for k in range(0, a.shape[1], v):
                w, x, y, z = load(b, n, k), load(b, n1, k), load(b, n2, k), load(b, n3, k)
                f = load(a, m, k)
                p0, p1, p2, p3 = fma(f, w, p0), fma(f, x, p1), fma(f, y, p2), fma(f, z, p3)
                f = load(a, m1, k)
                q0, q1, q2, q3 = fma(f, w, q0), fma(f, x, q1), fma(f, y, q2), fma(f, z, q3)
                f = load(a, m2, k)
                r0, r1, r2, r3 = fma(f, w, r0), fma(f, x, r1), fma(f, y, r2), fma(f, z, r3)
                f = load(a, m3, k)
                s0, s1, s2, s3 = fma(f, w, s0), fma(f, x, s1), fma(f, y, s2), fma(f, z, s3)
            sums = p0, p1, p2, p3, q0, q1, q2, q3, r0, r1, r2, r3, s0, s1, s2, s3
            store_lane_sums(scratch, 0, 0, sums)
            for i in range(4):
                for j in range(4):
                    c[min(m + i, last_m), min(n + j, last_n)] = scratch[0, 4 * i + j]


@kernel
def row_totals(c, a, scratch):
    """c[0, :M] <- the sums of the rows of a [M, K], in every lane, then of the lanes."""
    v, last = lanes(a), a.shape[0] - 1
    zero = fill(load(a, 0, 0), 0.0)
    nothing = (zero, zero, zero, zero)
    for m in range(0, a.shape[0], 4):
        m1, m2, m3 = min(m + 1, last), min(m + 2, last), min(m + 3, last)
        s0, s1, s2, s3 = zero, zero, zero, zero
        for k in range(0, a.shape[1], v):
            s0, s1 = s0 + load(a, m, k), s1 + load(a, m1, k)
            s2, s3 = s2 + load(a, m2, k), s3 + load(a, m3, k)
        sums = (s0, s1, s2, s3) + nothing + nothing + nothing
        store_lane_sums(scratch, 0, 0, sums)
        for i in range(4):
            c[0, min(m + i, last)] = scratch[0, i]
