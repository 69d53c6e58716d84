"""Batch and layer normalisation: z <- gain xhat + shift with xhat = (z - mean) / sigma.

sigma = sqrt(var + epsilon), var the mean square of z - mean: over the rows of a pass for each unit
with batch norm (S. Ioffe, C. Szegedy, ICML 2015), over the units for each row with layer norm
(J. L. Ba, J. R. Kiros, G. E. Hinton, 2016). A thread has the columns of its own units, so batch
norm needs nobody else; the sums of layer norm are put together from parts over fixed blocks of
units.

B rows, W columns, a multiple of the vector's; `spread` holds 1 / sigma; mean, var, gain, shift are
rows [1, W].
"""

import math

import numpy as np

from ._jit import inlined, kernel
from .simd import fill, first_lanes, fma, lane_sum, lanes, load, square_root, store

ROW_BLOCK = 64  # rows summed in one chain: the error of a long sum grows with the blocks, not rows


@kernel
def column_sum(x, j):
    """Sum over the rows of the vector of columns from j: four blocks at once, added in turn."""
    zero = fill(load(x, 0, j), 0.0)
    total, first = zero, 0
    while first + 4 * ROW_BLOCK <= x.shape[0]:
        part_0, part_1, part_2, part_3 = zero, zero, zero, zero
        for b in range(first, first + ROW_BLOCK):
            part_0 = part_0 + load(x, b, j)
            part_1 = part_1 + load(x, b + ROW_BLOCK, j)
            part_2 = part_2 + load(x, b + 2 * ROW_BLOCK, j)
            part_3 = part_3 + load(x, b + 3 * ROW_BLOCK, j)
        total = (((total + part_0) + part_1) + part_2) + part_3
        first += 4 * ROW_BLOCK
    for low in range(first, x.shape[0], ROW_BLOCK):
        part = zero
        for b in range(low, min(low + ROW_BLOCK, x.shape[0])):
            part = part + load(x, b, j)
        total = total + part
    return total


@kernel
def column_dot(x, y, j):
    """Sum over the rows of x y in the vector of columns from j."""
    zero = fill(load(x, 0, j), 0.0)
    total = zero
    for low in range(0, x.shape[0], ROW_BLOCK):
        part = zero
        for b in range(low, min(low + ROW_BLOCK, x.shape[0])):
            part = fma(load(x, b, j), load(y, b, j), part)
        total = total + part
    return total


@inlined
def reciprocal_root(variance, epsilon):
    """1 / sqrt(variance + epsilon)."""
    return fill(variance, 1.0) / square_root(variance + fill(variance, epsilon))


@kernel
def batch_norm_forward(z, normed, spread, mean, var, gain, shift, epsilon, momentum, training):
    """z <- gain xhat + shift, xhat to `normed`; in training, `mean` and `var` follow the batch.

    In training xhat has mean 0 and variance 1 over the rows, and running values move by `momentum`
    towards the batch's mean and unbiased variance (unless momentum is 0, or there is one row). Else
    xhat is made with the running values.
    """
    rows = z.shape[0]
    for j in range(0, z.shape[1], lanes(z)):
        center, variance = load(mean, 0, j), load(var, 0, j)
        if training:
            old_center, old_variance = center, variance
            center = column_sum(z, j) * fill(center, 1.0 / rows)
            for b in range(rows):
                store(normed, b, j, load(z, b, j) - center)
            variance = column_dot(normed, normed, j) * fill(center, 1.0 / rows)
            if momentum > 0 and rows > 1:
                share = fill(center, momentum)
                unbiased = variance * fill(center, rows / (rows - 1.0))
                store(mean, 0, j, fma(share, center - old_center, old_center))
                store(var, 0, j, fma(share, unbiased - old_variance, old_variance))
        else:
            for b in range(rows):
                store(normed, b, j, load(z, b, j) - center)
        factor = reciprocal_root(variance, epsilon)
        store(spread, 0, j, factor)
        for b in range(rows):
            xhat = load(normed, b, j) * factor
            store(normed, b, j, xhat)
            store(z, b, j, fma(load(gain, 0, j), xhat, load(shift, 0, j)))


@kernel
def batch_norm_backward(dz, normed, spread, gain, dgain, dshift, training):
    """dz <- gradient by what was normalised; dgain = sum dz xhat and dshift = sum dz over the rows.

    In training gain / sigma (dz - mean(dz) - xhat mean(dz xhat)), since mean and sigma depend on
    every row; else gain / sigma dz.
    """
    rows = dz.shape[0]
    for j in range(0, dz.shape[1], lanes(dz)):
        sum_shift, sum_gain = column_sum(dz, j), column_dot(dz, normed, j)
        store(dshift, 0, j, sum_shift)
        store(dgain, 0, j, sum_gain)
        factor = load(gain, 0, j) * load(spread, 0, j)
        if training:
            mean_shift = sum_shift * fill(sum_shift, 1.0 / rows)
            mean_gain = sum_gain * fill(sum_gain, -1.0 / rows)
            for b in range(rows):
                centered = load(dz, b, j) - mean_shift
                store(dz, b, j, factor * fma(load(normed, b, j), mean_gain, centered))
        else:
            for b in range(rows):
                store(dz, b, j, factor * load(dz, b, j))


@kernel
def row_moments(moments, block, z, units):
    """moments[b, 2 block] <- mean of a row's first `units`, then their squares' sum about it."""
    v = lanes(z)
    for b in range(z.shape[0]):
        zero = fill(load(z, b, 0), 0.0)
        total = zero
        for j in range(0, units, v):
            total = total + first_lanes(units - j, load(z, b, j), zero)
        mean = lane_sum(total) / units
        squares = zero
        for j in range(0, units, v):
            centered = first_lanes(units - j, load(z, b, j) - fill(zero, mean), zero)
            squares = fma(centered, centered, squares)
        moments[b, 2 * block] = mean
        moments[b, 2 * block + 1] = lane_sum(squares)


@kernel
def merge_moments(moments, b, grain, units):
    """Mean and variance of a whole row from those of its blocks, in float64 and in their order.

    T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979).
    """
    count, mean, squares = 0.0, 0.0, 0.0
    for low in range(0, units, grain):
        n = np.float64(min(grain, units - low))
        other_mean = np.float64(moments[b, 2 * (low // grain)])
        other_squares = np.float64(moments[b, 2 * (low // grain) + 1])
        difference = other_mean - mean
        squares += other_squares + difference * difference * (count * n / (count + n))
        mean += difference * (n / (count + n))
        count += n
    return mean, squares / count


@kernel
def layer_norm_forward(z, normed, spread, moments, gain, shift, grain, units, epsilon):
    """z <- gain xhat + shift in this block of columns, xhat to `normed`, 1 / sigma to spread[0, b].

    `moments` [B, 2 blocks] as `row_moments` makes them, of all `units` in blocks of `grain`.
    """
    for b in range(z.shape[0]):
        mean, variance = merge_moments(moments, b, grain, units)
        factor = 1.0 / math.sqrt(variance + epsilon)
        spread[0, b] = factor
        for j in range(0, z.shape[1], lanes(z)):
            x = load(z, b, j)
            xhat = (x - fill(x, mean)) * fill(x, factor)
            store(normed, b, j, xhat)
            store(z, b, j, fma(load(gain, 0, j), xhat, load(shift, 0, j)))


@kernel
def layer_norm_gradients(dz, normed, gain, dgain, dshift):
    """dgain = sum dz xhat and dshift = sum dz over the rows; then dz <- dz gain = dL/dxhat."""
    for j in range(0, dz.shape[1], lanes(dz)):
        store(dshift, 0, j, column_sum(dz, j))
        store(dgain, 0, j, column_dot(dz, normed, j))
        for b in range(dz.shape[0]):
            store(dz, b, j, load(dz, b, j) * load(gain, 0, j))


@kernel
def row_sums(moments, block, dz, normed, units):
    """moments[b, 2 block] <- sum of the first `units` of a row of dz, the next entry of dz xhat."""
    v = lanes(dz)
    for b in range(dz.shape[0]):
        zero = fill(load(dz, b, 0), 0.0)
        total, products = zero, zero
        for j in range(0, units, v):
            x = first_lanes(units - j, load(dz, b, j), zero)
            total = total + x
            products = fma(x, load(normed, b, j), products)
        moments[b, 2 * block] = lane_sum(total)
        moments[b, 2 * block + 1] = lane_sum(products)


@kernel
def layer_norm_backward(dz, normed, spread, moments, units, columns):
    """dz <- (dz - mean(dz) - xhat mean(dz xhat)) / sigma for dz = dL/dxhat, means over the units.

    `moments` [B, 2 blocks] as `row_sums` makes them. The first `columns` of this block are true
    units; the others, padding, become zero.
    """
    v = lanes(dz)
    for b in range(dz.shape[0]):
        total, products = 0.0, 0.0
        for block in range(0, moments.shape[1], 2):
            total += np.float64(moments[b, block])
            products += np.float64(moments[b, block + 1])
        for j in range(0, dz.shape[1], v):
            x = load(dz, b, j)
            centered = x - fill(x, total / units)
            centered = fma(load(normed, b, j), fill(x, -products / units), centered)
            inside = centered * fill(x, spread[0, b])
            store(dz, b, j, first_lanes(columns - j, inside, fill(x, 0.0)))
