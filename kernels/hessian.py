"""The product of the loss's Hessian with a vector: both passes, differentiated along it.

B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994). Every
value x of a pass has a tangent, its derivative when the parameters move along a direction; that of
the gradient is H times the direction. Names: `ra` is the tangent of a, `rd` that of a delta d. A
hidden layer is U = A' W + b, Z = norm(U), H = f(Z), A = dropout(H); W, b move along V, v:

    RU = RA' W + A' V + v         d(A') = d W^T       R d(A') = rd W^T + d V^T
    RH = f'(Z) RZ                 d(Z) = d(H) f'      R d(Z) = R d(H) f' + d(H) f'' RZ

The values are those of `network.forward`, for a team of one. B rows, O outputs, as in plan.py.
"""

from typing import Any, NamedTuple

import numpy as np

from ._jit import entry, glue, kernel
from .activation_curvature import activation_derivatives
from .dropout import multiply_by
from .gemm import columns_ahead, multiply, multiply_by_transpose, multiply_transposed
from .loss_curvature import loss_curvature
from .network import forward, gather, loss_and_delta
from .norm import column_dot, column_sum
from .plan import (
    ACTIVATION,
    BATCH_NORM,
    BIAS,
    DROPOUT,
    GAIN,
    LD,
    MASK,
    NONE,
    NORM,
    NORMED,
    PARAMETER,
    SHIFT,
    SIZE,
    SLOPE,
    SLOPES,
    Pass,
    activations_of,
    deltas_of,
    features_of,
    last_of,
    logits_of,
    own_part_of,
    row_of,
    saved_of,
    spread_of_rows,
    spread_of_units,
    target_of,
    weights_of,
    zeros_of,
)
from .scale import scale_columns
from .simd import borrow, choose_less, fill, fma, lanes, load, matrix, store

# Regions of a layer among the tangents: of its outputs, of z, of xhat, mean(xhat RU), of its delta,
# and scratch for f' and f''.
OUTPUT, INPUT, NORMED_TANGENT, MOMENT, DELTA, FIRST, SECOND, REGIONS = range(8)


class Tangents(NamedTuple):
    """The direction, the product, and where the tangents lie.

    direction, product: flat, of the layout of theta; values: flat scratch of the same dtype; places
    int64 [L + 1, REGIONS]: offsets into it.
    """

    direction: Any
    product: Any
    values: Any
    places: Any


@glue
def tangent_of(plan, tangents, layer, region, p, width):
    """The first `width` columns of a region [B, ld] of a layer."""
    ld = plan.table[layer, LD]
    return matrix(tangents.values, tangents.places[layer, region], p.rows, width, ld)


@glue
def moment_of(tangents, layer, count):
    """mean(xhat RU) of each unit or row, as one row."""
    return matrix(tangents.values, tangents.places[layer, MOMENT], 1, count, count)


@kernel
def normalized_tangent(rxhat, moment, ru, xhat, spread):
    """rxhat <- tangent of xhat, whose columns have their own mean and spread = 1 / sigma.

    spread (RU - mean(RU) - xhat mean(xhat RU)); the second mean is kept in `moment`.
    """
    rows = ru.shape[0]
    for j in range(ru.shape[1]):
        mean, product = 0.0, 0.0
        for b in range(rows):
            mean += np.float64(ru[b, j])
        mean /= rows
        for b in range(rows):
            product += np.float64(xhat[b, j]) * (ru[b, j] - mean)
        product /= rows
        moment[0, j] = product
        for b in range(rows):
            rxhat[b, j] = spread[0, j] * (ru[b, j] - mean - xhat[b, j] * product)


@kernel
def normalized_backward(d, rd, xhat, rxhat, spread, moment):
    """Replace the gradient d by xhat, and its tangent rd, by those by u.

    d <- spread (d - mean(d) - xhat mean(d xhat)), column by column; the tangent of spread is
    -spread**2 moment.
    """
    rows = d.shape[0]
    for j in range(d.shape[1]):
        mean, product, rmean, rproduct = 0.0, 0.0, 0.0, 0.0
        for b in range(rows):
            x, rx = np.float64(xhat[b, j]), np.float64(rxhat[b, j])
            mean += d[b, j]
            product += d[b, j] * x
            rmean += rd[b, j]
            rproduct += rd[b, j] * x + d[b, j] * rx
        mean, product = mean / rows, product / rows
        rmean, rproduct = rmean / rows, rproduct / rows
        factor = np.float64(spread[0, j])
        for b in range(rows):
            du = factor * (d[b, j] - mean - xhat[b, j] * product)
            rdu = rd[b, j] - rmean - rxhat[b, j] * product - xhat[b, j] * rproduct
            d[b, j] = du
            rd[b, j] = factor * (rdu - moment[0, j] * du)


@kernel
def scale_tangent(rz, rx, x, factor, rfactor, rshift):
    """rz <- factor rx + rfactor x + rshift: tangent of z = factor x + shift."""
    for b in range(rz.shape[0]):
        for j in range(0, rz.shape[1], lanes(rz)):
            total = fma(load(rfactor, 0, j), load(x, b, j), load(rshift, 0, j))
            store(rz, b, j, fma(load(factor, 0, j), load(rx, b, j), total))


@kernel
def scale_backward(d, rd, x, rx, factor, rfactor, gains, shifts):
    """Replace d and rd by those by x, in z = factor x + shift; add the parameters' products."""
    for j in range(0, d.shape[1], lanes(d)):
        total = column_dot(rd, x, j) + column_dot(d, rx, j)
        store(gains, 0, j, load(gains, 0, j) + total)
        store(shifts, 0, j, load(shifts, 0, j) + column_sum(rd, j))
        for b in range(d.shape[0]):
            before = load(d, b, j)
            store(rd, b, j, fma(load(factor, 0, j), load(rd, b, j), load(rfactor, 0, j) * before))
            store(d, b, j, load(factor, 0, j) * before)


@kernel
def activation_tangent(ra, rz, z, first, rslopes, has_slopes):
    """ra <- f' rz, plus min(z, 0) times the tangents of the slopes if there are any."""
    for b in range(ra.shape[0]):
        for j in range(0, ra.shape[1], lanes(ra)):
            total = load(first, b, j) * load(rz, b, j)
            if has_slopes:
                x, zero = load(z, b, j), fill(total, 0.0)
                total = fma(choose_less(x, zero, x, zero), load(rslopes, 0, j), total)
            store(ra, b, j, total)


@kernel
def activation_backward_tangent(d, rd, rz, z, first, second, rslopes, has_slopes):
    """rd <- rd f' + d f'' rz and d <- d f'; a slope's tangent moves f' itself where z <= 0."""
    for b in range(d.shape[0]):
        for j in range(0, d.shape[1], lanes(d)):
            bend = load(second, b, j) * load(rz, b, j)
            if has_slopes:
                zero = fill(bend, 0.0)
                bend = bend + choose_less(zero, load(z, b, j), zero, load(rslopes, 0, j))
            slope, before = load(first, b, j), load(d, b, j)
            store(rd, b, j, fma(load(rd, b, j), slope, before * bend))
            store(d, b, j, before * slope)


@kernel
def slope_tangent(sums, d, rd, rz, z):
    """Add the sums of rd min(z, 0) and, where z <= 0, of d rz: the slopes' product."""
    zero = fill(load(z, 0, 0), 0.0)
    for j in range(0, z.shape[1], lanes(z)):
        total = zero
        for b in range(z.shape[0]):
            x = load(z, b, j)
            total = fma(load(rd, b, j), choose_less(x, zero, x, zero), total)
            total = fma(load(d, b, j), choose_less(zero, x, zero, load(rz, b, j)), total)
        store(sums, 0, j, load(sums, 0, j) + total)


@kernel
def linear_tangent(plan, work, theta, tangents, p, layer, ru):
    """ru <- RA' W + A' V + v, A' of the layer below; the inputs have no tangent."""
    below, ld, direction = layer - 1, plan.table[layer, LD], tangents.direction
    size = plan.table[below, SIZE]
    features = features_of(plan, work, layer, size)
    a = activations_of(plan, work, below, p, 0, 0, features.shape[0])
    start = row_of(plan, direction, layer, BIAS, 0, ld)
    multiply(ru, a, weights_of(plan, direction, layer, 0, size, 0, ld), start, features)
    if below > 0:
        ra = tangent_of(plan, tangents, below, OUTPUT, p, size)
        multiply(ru, ra, weights_of(plan, theta, layer, 0, size, 0, ld), ru)


@kernel
def norm_tangent(plan, work, theta, tangents, p, layer):
    """RZ from RU, in its place."""
    ld, size = plan.table[layer, LD], plan.table[layer, SIZE]
    rz = tangent_of(plan, tangents, layer, INPUT, p, ld)
    rxhat = tangent_of(plan, tangents, layer, NORMED_TANGENT, p, ld)
    xhat = own_part_of(plan, work, layer, NORMED, p, 0, ld)
    if plan.table[layer, NORM] == BATCH_NORM:
        spread = spread_of_units(plan, work, layer, 0, ld)
        if plan.training:
            normalized_tangent(rxhat, moment_of(tangents, layer, ld), rz, xhat, spread)
        else:
            scale_columns(rxhat, rz, spread)
    else:
        ru = tangent_of(plan, tangents, layer, INPUT, p, size)
        true_rxhat = tangent_of(plan, tangents, layer, NORMED_TANGENT, p, size)
        true_xhat = own_part_of(plan, work, layer, NORMED, p, 0, size)
        spread = spread_of_rows(plan, work, layer, p)
        moment = moment_of(tangents, layer, p.rows)
        normalized_tangent(true_rxhat.T, moment, ru.T, true_xhat.T, spread)
    scale_tangent(
        rz,
        rxhat,
        xhat,
        row_of(plan, theta, layer, GAIN, 0, ld),
        row_of(plan, tangents.direction, layer, GAIN, 0, ld),
        row_of(plan, tangents.direction, layer, SHIFT, 0, ld),
    )


@kernel
def norm_backward_tangent(plan, work, theta, tangents, p, layer):
    """d and rd of a layer by U from those by Z; the products of gains and shifts are added."""
    ld, size = plan.table[layer, LD], plan.table[layer, SIZE]
    d = deltas_of(plan, work, layer, p, 0, 0, ld)
    rd = tangent_of(plan, tangents, layer, DELTA, p, ld)
    xhat = own_part_of(plan, work, layer, NORMED, p, 0, ld)
    rxhat = tangent_of(plan, tangents, layer, NORMED_TANGENT, p, ld)
    scale_backward(
        d,
        rd,
        xhat,
        rxhat,
        row_of(plan, theta, layer, GAIN, 0, ld),
        row_of(plan, tangents.direction, layer, GAIN, 0, ld),
        row_of(plan, tangents.product, layer, GAIN, 0, ld),
        row_of(plan, tangents.product, layer, SHIFT, 0, ld),
    )
    if plan.table[layer, NORM] == BATCH_NORM:
        spread = spread_of_units(plan, work, layer, 0, ld)
        if plan.training:
            normalized_backward(d, rd, xhat, rxhat, spread, moment_of(tangents, layer, ld))
        else:
            scale_columns(d, d, spread)
            scale_columns(rd, rd, spread)
    else:
        normalized_backward(
            deltas_of(plan, work, layer, p, 0, 0, size).T,
            tangent_of(plan, tangents, layer, DELTA, p, size).T,
            own_part_of(plan, work, layer, NORMED, p, 0, size).T,
            tangent_of(plan, tangents, layer, NORMED_TANGENT, p, size).T,
            spread_of_rows(plan, work, layer, p),
            moment_of(tangents, layer, p.rows),
        )


@kernel
def derivatives(plan, work, theta, tangents, p, layer):
    """f' and f'' of a hidden layer, into its scratch."""
    ld = plan.table[layer, LD]
    activation_derivatives(
        tangent_of(plan, tangents, layer, FIRST, p, ld),
        tangent_of(plan, tangents, layer, SECOND, p, ld),
        saved_of(plan, work, layer, p, 0, ld),
        plan.table[layer, ACTIVATION],
        plan.numbers[layer, PARAMETER],
        row_of(plan, theta, layer, SLOPE, 0, ld),
    )


@kernel
def forward_tangent(plan, work, theta, tangents, p):
    """Tangents of all layers; those of the logits become the output layer's DELTA."""
    last = last_of(plan)
    for layer in range(1, last):
        ld = plan.table[layer, LD]
        rz = tangent_of(plan, tangents, layer, INPUT, p, ld)
        linear_tangent(plan, work, theta, tangents, p, layer, rz)
        if plan.table[layer, NORM] != NONE:
            norm_tangent(plan, work, theta, tangents, p, layer)
        derivatives(plan, work, theta, tangents, p, layer)
        ra = tangent_of(plan, tangents, layer, OUTPUT, p, ld)
        activation_tangent(
            ra,
            rz,
            saved_of(plan, work, layer, p, 0, ld),
            tangent_of(plan, tangents, layer, FIRST, p, ld),
            row_of(plan, tangents.direction, layer, SLOPE, 0, ld),
            plan.table[layer, SLOPES] != NONE,
        )
        if plan.training and plan.numbers[layer, DROPOUT] > 0:
            multiply_by(ra, ra, own_part_of(plan, work, layer, MASK, p, 0, ld))
    rz = tangent_of(plan, tangents, last, DELTA, p, plan.table[last, LD])
    linear_tangent(plan, work, theta, tangents, p, last, rz)


@kernel
def propagate_tangent(plan, work, theta, tangents, p, layer):
    """d and rd of the layer below by its U, from those of a layer."""
    below, outputs = layer - 1, plan.table[layer, SIZE]
    size, ld, ld_above = plan.table[below, SIZE], plan.table[below, LD], plan.table[layer, LD]
    d_above = deltas_of(plan, work, layer, p, 0, 0, outputs)
    rd_above = tangent_of(plan, tangents, layer, DELTA, p, outputs)
    d = deltas_of(plan, work, below, p, 0, 0, ld)
    rd = tangent_of(plan, tangents, below, DELTA, p, ld)
    zeros, every, memory, place = (
        zeros_of(plan, work, ld),
        work.every,
        work.private,
        plan.transposed,
    )
    w = weights_of(plan, theta, layer, 0, size, 0, ld_above)
    direction = weights_of(plan, tangents.direction, layer, 0, size, 0, ld_above)
    multiply_by_transpose(d, d_above, w, zeros, every, memory, place)
    multiply_by_transpose(rd, rd_above, w, zeros, every, memory, place)
    multiply_by_transpose(rd, d_above, direction, rd, every, memory, place)
    if plan.training and plan.numbers[below, DROPOUT] > 0:
        mask = own_part_of(plan, work, below, MASK, p, 0, ld)
        multiply_by(d, d, mask)
        multiply_by(rd, rd, mask)
    rz = tangent_of(plan, tangents, below, INPUT, p, ld)
    z = saved_of(plan, work, below, p, 0, ld)
    has_slopes = plan.table[below, SLOPES] != NONE
    if has_slopes:
        slope_tangent(row_of(plan, tangents.product, below, SLOPE, 0, ld), d, rd, rz, z)
    derivatives(plan, work, theta, tangents, p, below)
    activation_backward_tangent(
        d,
        rd,
        rz,
        z,
        tangent_of(plan, tangents, below, FIRST, p, ld),
        tangent_of(plan, tangents, below, SECOND, p, ld),
        row_of(plan, tangents.direction, below, SLOPE, 0, ld),
        has_slopes,
    )
    if plan.table[below, NORM] != NONE:
        norm_backward_tangent(plan, work, theta, tangents, p, below)


@kernel
def learn_tangent(plan, work, tangents, p, layer):
    """Add A'^T rd + RA'^T d and the sum of rd over the rows to the products of W and b.

    The statistics of a batch undo b, whose product is zero then.
    """
    below, ld = layer - 1, plan.table[layer, LD]
    size = plan.table[below, SIZE]
    d = deltas_of(plan, work, layer, p, 0, 0, ld)
    rd = tangent_of(plan, tangents, layer, DELTA, p, ld)
    product = weights_of(plan, tangents.product, layer, 0, size, 0, ld)
    features = features_of(plan, work, layer, size)
    a = activations_of(plan, work, below, p, 0, 0, features.shape[0])
    multiply_transposed(product, a, rd, product, features, columns_ahead(a, work.every))
    if below > 0:
        ra = tangent_of(plan, tangents, below, OUTPUT, p, size)
        multiply_transposed(product, ra, d, product, None, columns_ahead(ra, work.every))
    if not (plan.training and plan.table[layer, NORM] == BATCH_NORM):
        row = row_of(plan, tangents.product, layer, BIAS, 0, ld)
        for j in range(0, ld, lanes(rd)):
            store(row, 0, j, load(row, 0, j) + column_sum(rd, j))


@entry
def hessian_product(
    objective, plan, work, team, samples, theta, tangents, first_pass, end_pass, scale
):
    """Add the part of H v that comes from some passes over the samples to tangents.product.

    H is the Hessian of scale sum_i w_i L_i. The plan is that of a team of one that keeps z of each
    hidden layer and has a backward pass; pass i takes samples.chosen from i plan.rows on.
    """
    objective, plan, work = borrow(objective), borrow(plan), borrow(work)
    samples, tangents = borrow(samples), borrow(tangents)
    last, total = last_of(plan), samples.chosen.shape[0]
    for number in range(first_pass, end_pass):
        first = number * plan.rows
        p = Pass(number, min(plan.rows, total - first), 0, first, 0)
        gather(plan, work, theta, samples, samples.chosen, first, p)
        forward(plan, work, theta, team, p)
        forward_tangent(plan, work, theta, tangents, p)
        loss_curvature(
            objective,
            tangent_of(plan, tangents, last, DELTA, p, plan.table[last, LD]),
            logits_of(plan, work, p),
            plan.table[last, SIZE],
            samples.labels,
            samples.targets,
            samples.weights,
            work.rows,
            p.rows,
            scale,
            target_of(plan, work),
        )
        loss_and_delta(plan, work, samples, team, objective, p, scale)
        for layer in range(last, 0, -1):
            learn_tangent(plan, work, tangents, p, layer)
            if layer > 1:
                propagate_tangent(plan, work, theta, tangents, p, layer)
