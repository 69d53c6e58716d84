"""The losses: each overwrites the outputs of the network with the loss's gradient, in one pass.

B rows, K outputs. `rows[b]` is the sample in row b; `scale` is 1/B of the whole batch, the only
place where the mean is taken. The loss of each row, and 1 or 0 for a right or wrong class, go to
`scores[0, b]` and `scores[1, b]` in float64. Columns beyond K (padding) get gradient zero.
"""

import math

import numpy as np

from ._jit import kernel
from .elementwise import exp
from .simd import choose_less, fill, first_lanes, lane_max, lane_sum, lanes, load, store

SOFTMAX_CROSS_ENTROPY, SQUARED_ERROR, HALF_SQUARED_ERROR = range(3)
CODES = {
    "softmax_cross_entropy": SOFTMAX_CROSS_ENTROPY,
    "squared_error": SQUARED_ERROR,
    "half_squared_error": HALF_SQUARED_ERROR,
}


@kernel
def softmax_cross_entropy(z, classes, labels, rows, low, high, scale, scores):
    """z <- scale (softmax(z) - onehot(y)); the row's loss is ln sum_k e**z_k - z_y.

    With top = max z and rest = sum of e**(z_k - top) over all but one largest k, the loss is
    ln(1 + rest) + top - z_y and the gradient of a right class -rest / (1 + rest): both keep their
    relative accuracy when the network is sure, where log(p) and p - 1 do not.
    """
    v = lanes(z)
    for b in range(low, high):
        lowest = fill(load(z, b, 0), -math.inf)
        top_lanes = lowest
        for j in range(0, classes, v):
            x = first_lanes(classes - j, load(z, b, j), lowest)
            top_lanes = choose_less(top_lanes, x, x, top_lanes)
        top = lane_max(top_lanes)

        y = labels[rows[b]]
        margin = np.float64(top) - np.float64(z[b, y])
        best = 0
        while best < classes - 1 and z[b, best] != top:
            best += 1

        zero, one = fill(lowest, 0.0), fill(lowest, 1.0)
        smaller, largest = zero, zero
        for j in range(0, classes, v):
            e = exp(first_lanes(classes - j, load(z, b, j) - fill(zero, top), lowest))
            store(z, b, j, e)
            is_largest = choose_less(e, one, zero, one)
            smaller = smaller + (e - is_largest)
            largest = largest + is_largest
        rest = lane_sum(smaller) + (lane_sum(largest) - 1)
        factor = scale / (1 + rest)

        right = z[b, y]
        for j in range(0, z.shape[1], v):
            inside = load(z, b, j) * fill(zero, factor)
            store(z, b, j, first_lanes(classes - j, inside, zero))
        # p_y - 1 = -(rest + 1 - e_y) / (1 + rest)
        z[b, y] = -(rest + (1 - right)) * factor
        scores[0, b] = math.log1p(np.float64(rest)) + margin
        scores[1, b] = 1.0 if best == y else 0.0


@kernel
def squared_error(z, outputs, targets, rows, low, high, scale, weight, scores):
    """z <- scale 2 weight (z - t); the row's loss is weight ||z - t||**2."""
    for b in range(low, high):
        sample = rows[b]
        total = 0.0
        for k in range(outputs):
            difference = z[b, k] - targets[sample, k]
            total += np.float64(difference) * np.float64(difference)
            z[b, k] = 2 * weight * scale * difference
        for k in range(outputs, z.shape[1]):
            z[b, k] = 0
        scores[0, b] = weight * total
        scores[1, b] = 0.0


@kernel
def loss_backward(code, z, outputs, labels, targets, rows, low, high, scale, scores):
    """Replace rows low to high of the outputs z by the gradient of the loss; fill in the scores."""
    if code == SOFTMAX_CROSS_ENTROPY:
        softmax_cross_entropy(z, outputs, labels, rows, low, high, scale, scores)
    elif code == SQUARED_ERROR:
        squared_error(z, outputs, targets, rows, low, high, scale, 1.0, scores)
    elif code == HALF_SQUARED_ERROR:
        squared_error(z, outputs, targets, rows, low, high, scale, 0.5, scores)
