"""A turned pass: forward, loss and backward of a small network with rows across the lanes.

Elsewhere a vector holds units, and a layer of four leaves most of its lanes empty. Here it holds
rows: each layer takes as many vectors as it has units, whatever their number, the loss needs no
sums over lanes, and W is not transposed for dA. The sums over rows, dW and db, are made in every
lane, and the lanes are added up at the end.

The values of a layer lie in panels: of as many rows as a vector has lanes, one unit behind the
other, rounded up to whole tiles of four units; what lies in these may be anything. Q panels are
[Q, U, v]. `TILE` of them at a time go through all layers, forward and backward, in the first cache.

For passes that a team of one does, of networks of plain layers alone (`layout.can_be_turned`). Rows
are rounded up to whole vectors: the last sample again, with weight 0. The chains of FMAs of hidden
layers, and of dA where that is made by W^T, hence their bits, are those of `network.py`.
"""

from typing import NamedTuple

import numpy as np

from ._jit import apart, glue, inlined, kernel
from .activation import activation_backward, activation_forward
from .gemm import four_vectors
from .loss import SOFTMAX_CROSS_ENTROPY, turned_cross_entropy, turned_sum_over_outputs
from .network import rule_of, take_rows
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
    add_outer_product,
    broadcast,
    fill,
    lanes,
    load,
    matrix,
    panels,
    piece,
    rows_across,
    store,
    store_lane_sums,
    transpose_rows,
)

TILE = 4  # rows and columns of a register tile; vectors of rows that go through all layers at once


class Axis(NamedTuple):
    """One axis of packed weights: element n, the r-th of its panel, is at (n - r) far + r near."""

    size: int
    far: int
    near: int


@inlined
def in_tiles(size):
    """The size, rounded up to whole tiles."""
    return (size + TILE - 1) // TILE * TILE


@inlined
def place_on(axis, n, v):
    """Where element n of an axis is, or the last one if there are fewer."""
    n = min(n, axis.size - 1)
    r = n & (v - 1)
    return (n - r) * axis.far + r * axis.near


@glue
def vectors_of(p, v):
    """Vectors of the rows of a pass."""
    return (p.rows + v - 1) // v


@glue
def values_at(plan, work, layer, offset, first, count):
    """All units, in whole tiles, of `count` vectors of rows of a region at `offset`: one row."""
    width = in_tiles(plan.table[layer, SIZE]) * lanes(work.shared)
    return matrix(work.shared, offset + first * width, 1, count * width, count * width)


@glue
def panels_at(plan, work, layer, offset, first, count):
    """The same as panels [count, ld, v] of which each begins behind the units of the one before."""
    v, stride = lanes(work.shared), in_tiles(plan.table[layer, SIZE]) * lanes(work.shared)
    return panels(work.shared, offset + first * stride, count, plan.table[layer, LD], stride, v)


@glue
def saved_at(plan, layer):
    """Where that lies which f' of a hidden layer is computed from."""
    return plan.table[layer, OUTPUT if plan.table[layer, SAVES] == NONE else SAVED]


@glue
def delta_at(plan, layer):
    """Where the deltas of a layer lie."""
    return plan.table[layer, OUTPUT if layer == last_of(plan) else DELTA]


@glue
def vector_of(plan, theta, layer, column, length):
    """Parameters of a layer, as one row."""
    return matrix(theta, plan.table[layer, column], 1, length, length)


@kernel
def axes_of(plan, layer, v):
    """The axes of a packed W [I, O]: its inputs and its outputs."""
    inputs, outputs = plan.table[layer - 1, SIZE], plan.table[layer, SIZE]
    return Axis(inputs, v, v), Axis(outputs, inputs, 1)


@kernel
def turn(c, x, rows):
    """c[q, :N] <- x[rows[q v:]]^T for x [., N]; behind it anything, up to a whole tile."""
    v, size, highest = lanes(c), x.shape[1], 0
    for b in range(rows.shape[0]):
        highest = max(highest, rows[b])
    if highest < rows_across(x, in_tiles(size)):  # no piece is longer than a tile
        for q in range(c.shape[0]):
            for i in range(0, size, piece(x)):
                transpose_rows(c[q], i, 0, x, i, rows, q * v)
    else:
        for b in range(rows.shape[0]):
            for i in range(size):
                c[b // v, i, b % v] = x[rows[b], i]


@apart
def turned_deltas(plan, work, theta, samples, order, begin, objective, p, scale):
    """Forward, loss and the deltas of all layers for the samples order[begin:begin + B]."""
    v = lanes(theta)
    vectors = vectors_of(p, v)
    take_rows(work, order, begin, p)
    for b in range(p.rows, vectors * v):
        work.rows[b] = work.rows[p.rows - 1]
    for first in range(0, vectors, TILE):
        count = min(TILE, vectors - first)
        inputs = panels_at(plan, work, 0, plan.table[0, OUTPUT], first, count)
        turn(inputs, samples.x, work.rows[first * v : (first + count) * v])
        turned_forward(plan, work, theta, first, count)
        turned_loss(plan, work, samples, objective, p, scale, first, count)
        turned_backward(plan, work, theta, first, count)


@kernel
def turned_forward(plan, work, theta, first, count):
    """All layers of some vectors of rows: Z = W^T A' + b, A = f(Z)."""
    table = plan.table
    for layer in range(1, last_of(plan) + 1):
        inputs, outputs = axes_of(plan, layer, lanes(theta))
        a = values_at(plan, work, layer - 1, table[layer - 1, OUTPUT], first, count)
        z = values_at(plan, work, layer, saved_at(plan, layer), first, count)
        w = vector_of(plan, theta, layer, WEIGHT, inputs.size * table[layer, LD])
        bias = vector_of(plan, theta, layer, BIAS, table[layer, LD])
        multiply_units(z, a, w, bias, count, outputs, inputs)
        if layer < last_of(plan):
            a = values_at(plan, work, layer, table[layer, OUTPUT], first, count)
            number = plan.numbers[layer, PARAMETER]
            activation_forward(a, z, table[layer, ACTIVATION], number, z)


@kernel
def turned_loss(plan, work, samples, objective, p, scale, first, count):
    """Turn the outputs of some vectors of rows into their deltas."""
    last, v = last_of(plan), lanes(work.shared)
    outputs, row = plan.table[last, SIZE], target_of(plan, work)
    z = panels_at(plan, work, last, plan.table[last, OUTPUT], first, count)
    if objective.code == SOFTMAX_CROSS_ENTROPY:
        for q in range(count):
            turned_cross_entropy(
                objective, z[q], 0, outputs, samples.labels, samples.weights, work.rows,
                (first + q) * v, p.rows, scale, row, work.scores,
            )  # fmt: skip
    else:
        targets = panels_at(plan, work, last, plan.table[last, SAVED], first, count)
        turn(targets, samples.targets, work.rows[first * v : (first + count) * v])
        turned_sum_over_outputs(
            objective, z, outputs, targets, samples.weights, work.rows, first * v, p.rows, scale,
            row, work.scores,
        )  # fmt: skip


@kernel
def turned_backward(plan, work, theta, first, count):
    """The deltas of all layers below from those of the outputs: dA = W dZ, dZ' = dA f'."""
    table = plan.table
    for layer in range(last_of(plan), 1, -1):
        inputs, outputs = axes_of(plan, layer, lanes(theta))
        dz = values_at(plan, work, layer, delta_at(plan, layer), first, count)
        da = values_at(plan, work, layer - 1, table[layer - 1, DELTA], first, count)
        w = vector_of(plan, theta, layer, WEIGHT, inputs.size * table[layer, LD])
        zeros = zeros_of(plan, work, table[layer - 1, LD])
        multiply_units(da, dz, w, zeros, count, inputs, outputs)
        saved = values_at(plan, work, layer - 1, saved_at(plan, layer - 1), first, count)
        code, number = table[layer - 1, ACTIVATION], plan.numbers[layer - 1, PARAMETER]
        activation_backward(da, saved, code, number, da)


@kernel
def turned_learn(plan, work, sink, p):
    """Hand every dW = A dZ^T and db, the sums of dZ over the rows, to the rule, by panels."""
    table, v = plan.table, lanes(work.shared)
    count = vectors_of(p, v)
    scratch = matrix(work.private, plan.transposed, TILE, TILE, TILE)
    for layer in range(1, last_of(plan) + 1):
        size, inputs = table[layer, SIZE], table[layer - 1, SIZE]
        l2, l1 = plan.numbers[layer, L2], plan.numbers[layer, L1]
        is_penalized = p.start == 0 and (l2 > 0 or l1 > 0)
        a = values_at(plan, work, layer - 1, table[layer - 1, OUTPUT], 0, count)
        dz = values_at(plan, work, layer, delta_at(plan, layer), 0, count)
        for low in range(0, size, v):
            high = min(low + v, size)
            place, length = table[layer, WEIGHT] + low * inputs, inputs * v
            g = strip_of(plan, work, length)
            if high - low < v:
                fill_rows(g, 0.0)
            dw = matrix(work.private, plan.strip, inputs, v, v)
            multiply_rows(dw, a, inputs, dz, low, high, size, count, scratch)
            if is_penalized:
                more = matrix(work.private, plan.strip + length, 1, length, length)
                penalty(more, matrix(sink.parameters.theta, place, 1, length, length), l2, l1)
                add(g, more)
            apply(rule_of(plan, sink, layer, WEIGHT), sink.parameters, place, length, g)
            db = strip_of(plan, work, v)
            fill_rows(db, 0.0)
            add_rows(db, dz, low, high, size, count, scratch)
            bias = table[layer, BIAS] + low
            apply(rule_of(plan, sink, layer, BIAS), sink.parameters, bias, v, db)


@inlined
def store_four_vectors(m, row, j, values):
    """Replace four neighbouring vectors of a row."""
    v, (x, y, z, w) = lanes(m), values
    store(m, row, j, x)
    store(m, row, j + v, y)
    store(m, row, j + 2 * v, z)
    store(m, row, j + 3 * v, w)


@kernel
def multiply_units(c, a, w, start, count, units, depth):
    """c [Q, M, v] <- start [M] + w a for w [M, K], whose axes are given, and a [Q, K, v], Q <= 4.

    Each element is one chain of FMAs over ascending k. In place of vectors behind the last, the
    last is taken again.
    """
    v, last = lanes(c), count - 1
    q1, q2, q3 = min(1, last), min(2, last), min(3, last)
    high, wide = in_tiles(depth.size) * v, in_tiles(units.size) * v
    run = depth.size if depth.far == depth.near else np.int64(v)  # of w, at equal distances
    for m in range(0, units.size, TILE):
        first, more = place_on(units, m, v), units.size - 1 - m
        w1, w2, w3 = (
            min(1, more) * units.near,
            min(2, more) * units.near,
            min(3, more) * units.near,
        )
        p, r = broadcast(start, 0, m), broadcast(start, 0, m + 1)
        s, t = broadcast(start, 0, m + 2), broadcast(start, 0, m + 3)
        sums = p, p, p, p, r, r, r, r, s, s, s, s, t, t, t, t
        for low in range(0, depth.size, run):
            at = first + low * depth.far
            for k in range(low, min(low + run, depth.size)):
                weights = (
                    broadcast(w, 0, at),
                    broadcast(w, 0, at + w1),
                    broadcast(w, 0, at + w2),
                    broadcast(w, 0, at + w3),
                )
                x = k * v
                values = (
                    load(a, 0, x),
                    load(a, 0, q1 * high + x),
                    load(a, 0, q2 * high + x),
                    load(a, 0, q3 * high + x),
                )
                sums = add_outer_product(sums, weights, values)
                at += depth.near
        p0, p1, p2, p3, r0, r1, r2, r3, s0, s1, s2, s3, t0, t1, t2, t3 = sums
        x = m * v
        store_four_vectors(c, 0, x, (p0, r0, s0, t0))
        store_four_vectors(c, 0, q1 * wide + x, (p1, r1, s1, t1))
        store_four_vectors(c, 0, q2 * wide + x, (p2, r2, s2, t2))
        store_four_vectors(c, 0, q3 * wide + x, (p3, r3, s3, t3))


@inlined
def empty_tile(x):
    """Sixteen vectors of zeros."""
    z = fill(x, 0.0)
    return z, z, z, z, z, z, z, z, z, z, z, z, z, z, z, z


@kernel
def multiply_rows(c, a, rows, b, low, end, columns, count, scratch):
    """c [M, N] <- a b^T for a [Q, M, v] and units low to end of b [Q, N', v]: sums over the rows.

    In every lane, then of the lanes. What is not a whole tile comes by way of scratch [4, 4].
    """
    v = lanes(a)
    high, wide = in_tiles(rows) * v, in_tiles(columns) * v
    for m in range(0, rows, TILE):
        for n in range(low, end, TILE):
            sums = empty_tile(load(a, 0, 0))
            for q in range(count):
                x, y = four_vectors(a, 0, q * high + m * v), four_vectors(b, 0, q * wide + n * v)
                sums = add_outer_product(sums, x, y)
            if m + TILE <= rows and n + TILE <= end:
                store_lane_sums(c, m, n - low, sums)
            else:
                store_lane_sums(scratch, 0, 0, sums)
                for i in range(min(TILE, rows - m)):
                    for j in range(min(TILE, end - n)):
                        c[m + i, n - low + j] = scratch[i, j]


@kernel
def add_rows(c, a, low, end, units, count, scratch):
    """c[0] <- the sums over the rows of units low to end of a [Q, N', v]."""
    v, wide = lanes(a), in_tiles(units) * lanes(a)
    zero = fill(load(a, 0, 0), 0.0)
    none = zero, zero, zero, zero
    for m in range(low, end, 2 * TILE):
        more = min(m + TILE, in_tiles(units) - TILE)
        p0, p1, p2, p3 = none
        s0, s1, s2, s3 = none
        for q in range(count):
            w0, w1, w2, w3 = four_vectors(a, 0, q * wide + m * v)
            p0, p1, p2, p3 = p0 + w0, p1 + w1, p2 + w2, p3 + w3
            w0, w1, w2, w3 = four_vectors(a, 0, q * wide + more * v)
            s0, s1, s2, s3 = s0 + w0, s1 + w1, s2 + w2, s3 + w3
        store_lane_sums(scratch, 0, 0, (p0, p1, p2, p3, s0, s1, s2, s3) + none + none)
        for j in range(min(2 * TILE, end - m)):
            c[0, m - low + j] = scratch[j // TILE, j % TILE]
