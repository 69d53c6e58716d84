"""The losses: each overwrites the outputs of the network with the loss's gradient, in one pass.

B rows, O outputs (K classes). `rows[b]` is the sample in row b. `scale` is one over the weight of
the whole batch, the only place where the mean is taken. `scores` [3, B] in float64 gets the row's
weighted loss, 1 or 0 for a right or wrong answer, and the row's weight. Columns beyond O (padding)
get gradient zero. `row` [1, ld] is scratch: a row of targets in whole vectors.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ._jit import inlined, kernel
from .elementwise import exp, log1p
from .simd import (
    absolute,
    add_wide,
    choose_less,
    fill,
    first_lanes,
    fma,
    lane_max,
    lane_sum,
    lanes,
    load,
    load_across,
    rows_across,
    store,
    transpose_block,
)

(
    SOFTMAX_CROSS_ENTROPY,
    SQUARED_ERROR,
    HALF_SQUARED_ERROR,
    BINARY_CROSS_ENTROPY,
    HUBER,
    ABSOLUTE_ERROR,
    PINBALL,
    POISSON,
) = range(8)
CODES = {
    "softmax_cross_entropy": SOFTMAX_CROSS_ENTROPY,
    "squared_error": SQUARED_ERROR,
    "half_squared_error": HALF_SQUARED_ERROR,
    "binary_cross_entropy": BINARY_CROSS_ENTROPY,
    "huber": HUBER,
    "absolute_error": ABSOLUTE_ERROR,
    "pinball": PINBALL,
    "poisson": POISSON,
}

LN2 = 0.69314718055994530942


class Objective(NamedTuple):
    """A loss's code and numbers: quantiles float64 [O] or [0], class_weights float64 [K] or [0]."""

    code: int
    smoothing: float
    delta: float
    quantiles: Any
    class_weights: Any


@inlined
def sample_weight(weights, sample):
    """The sample's weight: 1 if there are no weights."""
    return weights[sample] if weights.size > 0 else np.float64(1.0)


@inlined
def row_weight(objective, labels, weights, sample):
    """The sample's weight times the weight of its label's class: its share of a mean."""
    weight = sample_weight(weights, sample)
    if labels.size > 0 and objective.class_weights.size > 0:
        weight *= objective.class_weights[labels[sample]]
    return weight


@inlined
def can_be_turned(objective, labels):
    """Whether the loss takes a row in each lane: not cross-entropy of soft or smoothed targets."""
    is_plain = labels.size > 0 and objective.smoothing == 0.0
    return objective.code != SOFTMAX_CROSS_ENTROPY or is_plain


@inlined
def top_of(z, b, classes):
    """The largest of z[b, :classes] and the first place where it is."""
    lowest = fill(load(z, b, 0), -math.inf)
    top_lanes = lowest
    for j in range(0, classes, lanes(z)):
        x = first_lanes(classes - j, load(z, b, j), lowest)
        top_lanes = choose_less(top_lanes, x, x, top_lanes)
    top = lane_max(top_lanes)
    best = 0
    while best < classes - 1 and z[b, best] != top:
        best += 1
    return top, best


@inlined
def exponentials(e, i, z, b, classes, top):
    """e[i] <- e**(z[b] - top); return their sum over all but one of the largest."""
    zero, one = fill(load(z, b, 0), 0.0), fill(load(z, b, 0), 1.0)
    smaller, largest = zero, zero
    for j in range(0, classes, lanes(z)):
        x = first_lanes(classes - j, exp(load(z, b, j) - fill(zero, top)), zero)
        store(e, i, j, x)
        is_largest = choose_less(x, one, zero, one)
        smaller = smaller + (x - is_largest)
        largest = largest + is_largest
    return lane_sum(smaller) + (lane_sum(largest) - 1)


@inlined
def class_targets(row, objective, classes, labels, targets, sample):
    """row <- t_k = c_k ((1 - s) q_k + s / K), q onehot(y) or soft; return the label, or argmax q.

    s is the smoothing, c the class weights (R. Mueller, S. Kornblith, G. Hinton, 2019).
    """
    smoothing, class_weights = objective.smoothing, objective.class_weights
    for j in range(classes, row.shape[1]):
        row[0, j] = 0
    if labels.size > 0:
        y = labels[sample]
        for k in range(classes):
            row[0, k] = smoothing / classes
        row[0, y] = (1 - smoothing) + smoothing / classes
    else:
        y = 0
        for k in range(classes):
            if targets[sample, k] > targets[sample, y]:
                y = k
            row[0, k] = (1 - smoothing) * targets[sample, k] + smoothing / classes
    if class_weights.size > 0:
        for k in range(classes):
            row[0, k] *= class_weights[k]
    return y


@inlined
def log_of_sum(u, count):
    """ln(1 + u) for 0 <= u < count: u > 1 is halved as 1 + u = 2 (1 + (u - 1) / 2)."""
    one, half, logarithm = fill(u, 1.0), fill(u, 0.5), fill(u, 0.0)
    most = 1
    while most < count:
        halved, more = (u - one) * half, logarithm + fill(u, LN2)
        logarithm = choose_less(one, u, more, logarithm)
        u = choose_less(one, u, halved, u)
        most *= 2
    return log1p(u) + logarithm


@kernel
def turned_cross_entropy(
    objective, z, top_row, classes, labels, weights, rows, first, end, scale, row, scores
):
    """The same as `softmax_cross_entropy` of labels without smoothing, a row in each lane.

    Class k is row top_row + k of z, and the samples are rows[first:]; those from `end` on do not
    count.
    """
    v = lanes(z)
    for lane in range(v):
        weight = row_weight(objective, labels, weights, rows[first + lane])
        scores[2, first + lane] = weight
        row[0, lane] = weight if first + lane < end else 0.0
    weight = load(row, 0, 0)
    for lane in range(v):
        row[0, lane] = labels[rows[first + lane]]
    y, top = load(row, 0, 0), load(z, top_row, 0)
    zero, half, one = fill(y, 0.0), fill(y, 0.5), fill(y, 1.0)
    for k in range(1, classes):
        x = load(z, top_row + k, 0)
        top = choose_less(top, x, x, top)
    best, at_label, smaller, largest = fill(y, classes), zero, zero, zero
    for k in range(classes):
        number, x = fill(y, k), load(z, top_row + k, 0)
        best = choose_less(x, top, best, choose_less(number, best, number, best))
        at_label = choose_less(absolute(number - y), half, x, at_label)
        e = exp(x - top)
        store(z, top_row + k, 0, e)
        is_largest = choose_less(e, one, zero, one)
        smaller = smaller + (e - is_largest)
        largest = largest + is_largest
    rest = smaller + (largest - one)
    factor = fill(y, scale) * weight / (one + rest)
    for k in range(classes):
        e = load(z, top_row + k, 0)
        wrong, right = e * factor, -(rest + (one - e)) * factor
        slope = choose_less(absolute(fill(y, k) - y), half, right, wrong)
        store(z, top_row + k, 0, slope)
    store(row, 0, 0, weight * (log_of_sum(rest, classes) + (top - at_label)))
    for lane in range(v):
        scores[0, first + lane] = row[0, lane]
    store(row, 0, 0, choose_less(absolute(best - y), half, one, zero))
    for lane in range(v):
        scores[1, first + lane] = row[0, lane]


@kernel
def block_cross_entropy(objective, z, first, classes, labels, weights, rows, scale, row, scores):
    """The same for as many rows of z as a vector has lanes: they are turned, and turned back."""
    v, zero = lanes(z), fill(load(z, 0, 0), 0.0)
    transpose_block(z, first, 0, z, first, 0)
    turned_cross_entropy(
        objective, z, first, classes, labels, weights, rows, first, first + v, scale, row, scores
    )
    for k in range(classes, v):
        store(z, first + k, 0, zero)
    transpose_block(z, first, 0, z, first, 0)
    for lane in range(v):
        for j in range(v, z.shape[1], v):
            store(z, first + lane, j, zero)


@kernel
def softmax_cross_entropy(
    objective, z, classes, labels, targets, weights, rows, low, high, scale, row, scores
):
    """z <- scale w (p sum(t) - t), p = softmax(z); the loss is w sum_k t_k (ln sum_j e**z_j - z_k).

    With top = max z and rest = sum of e**(z_k - top) over all but one largest k, the loss of a
    label is ln(1 + rest) + top - z_y and the gradient of a right class -rest / (1 + rest): both
    keep their relative accuracy when the network is sure, where log(p) and p - 1 do not.
    """
    is_plain = can_be_turned(objective, labels)
    if is_plain and classes <= lanes(z):
        while low + lanes(z) <= high:
            block_cross_entropy(
                objective, z, low, classes, labels, weights, rows, scale, row, scores
            )
            low += lanes(z)
    for b in range(low, high):
        sample = rows[b]
        top, best = top_of(z, b, classes)
        zero = fill(load(z, b, 0), 0.0)
        largest, others, distance = 1.0, 0.0, 0.0
        if is_plain:
            y = labels[sample]
            weight = row_weight(objective, labels, weights, sample)
            distance = np.float64(top) - np.float64(z[b, y])
        else:
            y = class_targets(row, objective, classes, labels, targets, sample)
            weight = sample_weight(weights, sample)
            largest = np.float64(row[0, best])
            row[0, best] = 0
            for j in range(0, classes, lanes(z)):
                t = load(row, 0, j)
                below = first_lanes(classes - j, fill(zero, top) - load(z, b, j), zero)
                others += np.float64(lane_sum(t))
                distance += np.float64(lane_sum(t * below))

        rest = exponentials(z, b, z, b, classes, top)
        factor = scale * weight / (1 + rest)
        total = others + largest
        if is_plain:
            right = z[b, y]
            for j in range(0, z.shape[1], lanes(z)):
                inside = load(z, b, j) * fill(zero, factor)
                store(z, b, j, first_lanes(classes - j, inside, zero))
            # p_y - 1 = -(rest + 1 - e_y) / (1 + rest)
            z[b, y] = -(rest + (1 - right)) * factor
        else:
            for j in range(0, z.shape[1], lanes(z)):
                inside = load(z, b, j) * fill(zero, total * factor)
                inside = fma(load(row, 0, j), fill(zero, -scale * weight), inside)
                store(z, b, j, first_lanes(classes - j, inside, zero))
            # p total - t of the largest = (total - t - t rest) / (1 + rest)
            z[b, best] = (others - largest * rest) * factor
        scores[0, b] = weight * (total * math.log1p(np.float64(rest)) + distance)
        scores[1, b] = 1.0 if best == y else 0.0
        scores[2, b] = row_weight(objective, labels, weights, sample)


@inlined
def output_targets(row, objective, z, b, outputs, targets, sample):
    """row <- the sample's targets t.

    For the pinball loss: z <- z - t, row <- the slope there, 1 - q above 0 and -q below.
    """
    for k in range(outputs):
        row[0, k] = targets[sample, k]
    if objective.code == PINBALL:
        for k in range(outputs):
            difference = z[b, k] - row[0, k]
            z[b, k] = difference
            if difference > 0:
                row[0, k] = 1 - objective.quantiles[k]
            elif difference < 0:
                row[0, k] = -objective.quantiles[k]
            else:
                row[0, k] = difference  # 0, or NaN


@inlined
def binary_cross_entropy(z, t, e):
    """ln(1 + e**z) - t z, and sigmoid(z) - t; e is e**-|z|.

    With m = |z|, small = sigmoid(-m) and far = t below 0 and 1 - t from there on, they are
    ln(1 + e**-m) + m far and +-(small - far): nothing overflows, no sure answer cancels.
    """
    zero, one = fill(z, 0.0), fill(z, 1.0)
    far = choose_less(z, zero, t, one - t)
    slope = e / (one + e) - far
    return fma(absolute(z), far, log1p(e)), choose_less(z, zero, slope, -slope)


@inlined
def huber(difference, delta):
    """c (|d| - c/2) with c = min(|d|, delta), and c with the sign of d (P. J. Huber, 1964)."""
    limit = fill(difference, delta)
    m = absolute(difference)
    c = choose_less(limit, m, limit, m)
    slope = choose_less(difference, fill(difference, 0.0), -c, c)
    return c * (m - c * fill(difference, 0.5)), slope


@inlined
def absolute_error(difference):
    """|d|, and the sign of d, 0 at 0."""
    zero, one = fill(difference, 0.0), fill(difference, 1.0)
    slope = choose_less(difference, zero, -one, difference)
    return absolute(difference), choose_less(zero, difference, one, slope)


@inlined
def output_loss(objective, x, t):
    """A term of a loss that is a sum over the outputs, and its slope; not of the pinball loss."""
    code, smoothing, class_weights = objective.code, objective.smoothing, objective.class_weights
    zero, half, one = fill(x, 0.0), fill(x, 0.5), fill(x, 1.0)
    difference, e = x - t, zero
    if code == BINARY_CROSS_ENTROPY or code == POISSON:
        e = exp(x if code == POISSON else -absolute(x))
    if code == BINARY_CROSS_ENTROPY:
        smoothed = fma(t, fill(zero, 1 - smoothing), fill(zero, smoothing / 2))
        value, slope = binary_cross_entropy(x, smoothed, e)
        if class_weights.size > 0:
            negative, positive = fill(zero, class_weights[0]), fill(zero, class_weights[1])
            class_weight = fma(t, positive, (one - t) * negative)
            value, slope = value * class_weight, slope * class_weight
    elif code == HUBER:
        value, slope = huber(difference, objective.delta)
    elif code == ABSOLUTE_ERROR:
        value, slope = absolute_error(difference)
    elif code == POISSON:
        value, slope = fma(-t, x, e), e - t
    else:
        slope = difference * fill(zero, 2.0 if code == SQUARED_ERROR else 1.0)
        value = slope * difference * half
    return value, slope


@inlined
def misses(x, t):
    """1 where the sign of an output tells the wrong one of two classes."""
    zero, half, one = fill(x, 0.0), fill(x, 0.5), fill(x, 1.0)
    return absolute(choose_less(half, t, one, zero) - choose_less(zero, x, one, zero))


@kernel
def sum_over_outputs(objective, z, outputs, targets, weights, rows, low, high, scale, row, scores):
    """z <- scale w dL/dz for a loss L that is a sum over the outputs."""
    code = objective.code
    # targets that are read where they lie, with whatever follows them
    across = 0 if code == PINBALL else rows_across(targets, z.shape[1])
    for b in range(low, high):
        sample = rows[b]
        if sample >= across:
            output_targets(row, objective, z, b, outputs, targets, sample)
        weight = sample_weight(weights, sample)
        zero = fill(load(z, b, 0), 0.0)
        total, wrong = 0.0, zero
        for j in range(0, z.shape[1], lanes(z)):
            x = load(z, b, j)
            t = load_across(targets, sample, j) if sample < across else load(row, 0, j)
            if code == PINBALL:
                value, slope = x * t, t
            else:
                value, slope = output_loss(objective, x, t)
            if code == BINARY_CROSS_ENTROPY:
                wrong = wrong + first_lanes(outputs - j, misses(x, t), zero)
            total += np.float64(lane_sum(first_lanes(outputs - j, value, zero)))
            store(z, b, j, first_lanes(outputs - j, slope * fill(zero, scale * weight), zero))
        scores[0, b] = weight * total
        scores[1, b] = 1.0 if code == BINARY_CROSS_ENTROPY and lane_sum(wrong) == 0 else 0.0
        scores[2, b] = weight


@kernel
def turned_sum_over_outputs(
    objective, z, outputs, targets, weights, rows, begin, end, scale, row, scores
):
    """The same for z and targets [Q, O, v], a row in each lane: those of rows[begin:end].

    What lies behind does not count. The terms of as many outputs as a vector has lanes are added in
    the dtype of z.
    """
    code, v = objective.code, lanes(z)
    for q in range(z.shape[0]):
        b = begin + q * v
        zero = fill(load(z[0], 0, 0), 0.0)
        one = first_lanes(end - b, fill(zero, 1.0), zero)
        factor, right = one * fill(zero, scale), one
        for i in range(3):
            for n in range(b, b + v, lanes(scores)):
                store(scores, i, n, fill(load(scores, i, n), 0.0))
        if weights.size > 0:
            for lane in range(v):
                row[0, lane] = scale * weights[rows[b + lane]] if b + lane < end else 0.0
            factor = load(row, 0, 0)
        for first in range(0, outputs, v):
            total = zero
            for k in range(first, min(first + v, outputs)):
                x, t = load(z[q], k, 0), load(targets[q], k, 0)
                if code == PINBALL:
                    difference, quantile = x - t, objective.quantiles[k]
                    below = choose_less(difference, zero, fill(zero, -quantile), difference)
                    slope = choose_less(zero, difference, fill(zero, 1 - quantile), below)
                    value = difference * slope
                else:
                    value, slope = output_loss(objective, x, t)
                if code == BINARY_CROSS_ENTROPY:
                    right = choose_less(zero, misses(x, t), zero, right)
                total = total + value
                store(z[q], k, 0, slope * factor)
            add_wide(scores, 0, b, total)
        if code == BINARY_CROSS_ENTROPY:
            add_wide(scores, 1, b, right)
        add_wide(scores, 2, b, one)
        if weights.size > 0:
            for lane in range(min(v, end - b)):
                scores[0, b + lane] *= weights[rows[b + lane]]
                scores[2, b + lane] = weights[rows[b + lane]]


@kernel
def loss_backward(
    objective, z, outputs, labels, targets, weights, rows, low, high, scale, row, scores
):
    """Replace rows low to high of the outputs z by the gradient of the loss; fill in the scores."""
    if objective.code == SOFTMAX_CROSS_ENTROPY:
        softmax_cross_entropy(
            objective, z, outputs, labels, targets, weights, rows, low, high, scale, row, scores
        )
    else:
        sum_over_outputs(
            objective, z, outputs, targets, weights, rows, low, high, scale, row, scores
        )
