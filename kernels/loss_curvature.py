"""Curvature of the losses: the product of each row's Hessian H, by the outputs z, with a vector.

In a file of its own, since only second-order work needs it. Letters as in loss.py.
"""

import numpy as np

from ._jit import kernel
from .elementwise import exp
from .loss import (
    BINARY_CROSS_ENTROPY,
    HALF_SQUARED_ERROR,
    HUBER,
    POISSON,
    SOFTMAX_CROSS_ENTROPY,
    SQUARED_ERROR,
    class_targets,
    exponentials,
    sample_weight,
    top_of,
)
from .simd import absolute, choose_less, fill, first_lanes, fma, lane_sum, lanes, load, store


@kernel
def softmax_curvature(objective, rz, z, classes, labels, targets, weights, rows, count, scale, row):
    """rz <- scale w sum(t) p (rz - sum_k p_k rz_k), p = softmax(z).

    rz is taken relative to its entry at the largest p, so a sure network's product does not cancel.
    """
    for b in range(count):
        sample = rows[b]
        class_targets(row, objective, classes, labels, targets, sample)
        total = 0.0
        for k in range(classes):
            total += np.float64(row[0, k])
        top, best = top_of(z, b, classes)
        rest = exponentials(row, 0, z, b, classes, top)
        pivot = fill(load(z, b, 0), rz[b, best])
        zero = fill(pivot, 0.0)
        mean = 0.0
        for j in range(0, classes, lanes(z)):
            part = load(row, 0, j) * (load(rz, b, j) - pivot)
            mean += np.float64(lane_sum(first_lanes(classes - j, part, zero)))
        mean /= 1 + rest
        factor = scale * sample_weight(weights, sample) * total / (1 + rest)
        for j in range(0, z.shape[1], lanes(z)):
            deviation = (load(rz, b, j) - pivot) - fill(zero, mean)
            product = load(row, 0, j) * deviation * fill(zero, factor)
            store(rz, b, j, first_lanes(classes - j, product, zero))


@kernel
def diagonal_curvature(objective, rz, z, outputs, targets, weights, rows, count, scale, row):
    """rz <- scale w L'' rz for a loss that is a sum over the outputs."""
    code, class_weights = objective.code, objective.class_weights
    for b in range(count):
        sample = rows[b]
        for k in range(outputs):
            row[0, k] = targets[sample, k]
        factor = scale * sample_weight(weights, sample)
        for j in range(0, z.shape[1], lanes(z)):
            x, t = load(z, b, j), load(row, 0, j)
            zero, one = fill(x, 0.0), fill(x, 1.0)
            second = zero
            if code == SQUARED_ERROR:
                second = fill(x, 2.0)
            elif code == HALF_SQUARED_ERROR:
                second = one
            elif code == HUBER:
                second = choose_less(fill(x, objective.delta), absolute(x - t), zero, one)
            elif code == POISSON:
                second = exp(x)
            elif code == BINARY_CROSS_ENTROPY:
                e = exp(-absolute(x))
                second = e / ((one + e) * (one + e))
                if class_weights.size > 0:
                    negative, positive = fill(x, class_weights[0]), fill(x, class_weights[1])
                    second = second * fma(t, positive, (one - t) * negative)
            product = load(rz, b, j) * second * fill(x, factor)
            store(rz, b, j, first_lanes(outputs - j, product, zero))


@kernel
def loss_curvature(objective, rz, z, outputs, labels, targets, weights, rows, count, scale, row):
    """Replace the directions rz [B, ld] by scale w H rz at the logits z; piecewise linear: 0."""
    if objective.code == SOFTMAX_CROSS_ENTROPY:
        softmax_curvature(
            objective, rz, z, outputs, labels, targets, weights, rows, count, scale, row
        )
    else:
        diagonal_curvature(objective, rz, z, outputs, targets, weights, rows, count, scale, row)
