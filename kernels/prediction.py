"""Prediction alone: outputs for given inputs, on the caller's buffers, for Python and jitted code.

An entry of its own, small beside `program.run`, for a team of one. Its layers are those of
`network.forward` in inference, the products over the same blocks in the same order: so the bits are
the same too, whatever the number of rows, while weights are finite: zeros may be left out. Inputs
are read where they lie, unless they are scaled.

B rows of a pass, I inputs, O outputs, W the stride of the widest layer behind the inputs, or of the
inputs if they are scaled.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import typeof

from . import machine
from ._jit import entry, glue, inlined, kernel
from .activation import RELU, activation_forward
from .features import FINDS_ZEROS
from .gemm import multiply
from .loss import exponentials, top_of
from .norm import batch_norm_forward, layer_norm_forward, row_moments
from .optimizer import add, keep
from .plan import (
    ACTIVATION,
    BATCH_NORM,
    BIAS,
    COLUMNS,
    EPSILON,
    GAIN,
    GRAIN,
    LD,
    NONE,
    NORM,
    NUMBERS,
    PARAMETER,
    RUNNING,
    SHIFT,
    SIZE,
    SLOPE,
    SLOPE_OF_LAYER,
    SLOPES,
    WEIGHT,
    has_scale,
)
from .simd import (
    borrow,
    check_dtype,
    count_bits,
    fill,
    lane_sum,
    lanes,
    load,
    matrix,
    nonzero_lanes,
    panels,
    store,
    words,
)
from .tile import NonZero

NARROW_OUTPUT, MICRO_BATCH = machine.NARROW_OUTPUT, machine.MICRO_BATCH
SKIPPED_FEATURES = machine.SKIPPED_FEATURES
REGIONS = 3  # of a workspace, B rows each: what goes into a layer, what comes out, and scratch
LEVELS = machine.PARTIAL_BLOCKS.bit_length()  # of the tree that adds up parts of narrow outputs
WORD_BITS, WORD_BYTES = 64, 8


class Network(NamedTuple):
    """A network as arrays, which `predict` reads when it is called.

    theta: parameters, running: statistics of batch norm, in the order of `MLP.layout`; table int64
    [L + 1, COLUMNS] and numbers float64 [L + 1, NUMBERS] as in plan.py. `softmax` is 1 if the
    outputs are to become probabilities, else 0.
    """

    theta: Any
    running: Any
    table: Any
    numbers: Any
    softmax: int


class Part(NamedTuple):
    """The rows of x that a pass takes, and the elements of a region of the workspace: B W."""

    first: int
    rows: int
    size: int


def workspace_length(network: Network, rows: int = 1) -> int:
    """Elements that `predict` needs as workspace to take up to `rows` rows in a pass.

    One row is enough for any number of them; with up to 256 a pass shares the reading of weights.
    """
    first = 0 if network.table[0, GAIN] >= 0 else 1
    inputs, widest = int(network.table[0, SIZE]), int(network.table[first:, LD].max())
    each = _elements_each(inputs, widest, int(network.table[-1, LD]), network.theta.itemsize)
    return widest + min(rows, MICRO_BATCH) * each


def _elements_each(inputs: int, widest: int, outputs: int, itemsize: int) -> int:
    """Elements of a workspace for each row: regions, sums of parts, and words of bits."""
    bits = (max(inputs, widest) // WORD_BITS + 2) * WORD_BYTES // itemsize
    return REGIONS * widest + LEVELS * outputs + bits


elements_each = glue(_elements_each)


@cache
def argument_types(dtype: Any) -> tuple[Any, ...]:
    """Numba types of the arguments of `predict` as Python calls it, for float32 or float64."""
    vector, rows = np.zeros(1, dtype), np.zeros((1, 1), dtype)
    table, numbers = np.zeros((1, COLUMNS), np.int64), np.zeros((1, NUMBERS))
    network = Network(vector, vector, table, numbers, 0)
    return tuple(typeof(argument) for argument in (rows, rows, network, vector))


@glue
def row_of(vector, offset, width):
    """Entries of a vector from `offset` on, as one row."""
    return matrix(vector, offset, 1, width, width)


@kernel
def all_finite(x, zero):
    """Whether every element is finite: then x - x is 0, else NaN. `zero` is a vector of zeros."""
    v = lanes(x)
    whole = x.shape[1] // v * v
    total, rest = zero, 0.0
    for b in range(x.shape[0]):
        for i in range(0, whole, v):
            values = load(x, b, i)
            total = total + (values - values)
        for i in range(whole, x.shape[1]):
            rest += x[b, i] - x[b, i]
    return lane_sum(total) + rest == 0.0


@inlined
def word_of_bits(x, b, first):
    """A bit for each of 64 elements of a row that is not zero, from column `first` on."""
    word = 0
    for n in range(0, WORD_BITS, lanes(x)):
        word |= nonzero_lanes(load(x, b, first + n)) << n
    return word


@kernel
def note_nonzero(bits, x):
    """bits <- a bit for each element of x [B, I] that is not zero; return whether that is of use.

    B words for the first 64 columns, then B for the next, and at last B without a bit. It is of use
    where most of x is zero; of inputs whose first rows have few zeros no more are looked at. I is
    at least 64: the last word is the end of one that begins before. Words that tiles read behind
    are of the workspace, too.
    """
    rows, columns, count = x.shape[0], x.shape[1], 0
    for b in range(rows):
        place = b
        for first in range(0, columns, WORD_BITS):
            begin = min(first, columns - WORD_BITS)
            before = first - begin
            word = word_of_bits(x, b, begin) >> before & ((1 << 63 - before << 1) - 1)
            bits[place] = word
            count += count_bits(word)
            place += rows
        bits[place] = 0
        if 4 * count > 3 * (b + 1) * columns:
            return False
    return 2 * count < rows * columns


@inlined
def leaves_out_zeros(network, layer, v):
    """Whether the products of a layer may leave out what goes into it and is zero.

    Not of few units, nor into less than three vectors (`gemm`), nor where zeros are rare: behind
    the inputs they are the outputs of ReLU.
    """
    table = network.table
    are_many = table[layer - 1, SIZE] >= SKIPPED_FEATURES and table[layer, LD] >= 3 * v
    has_zeros = table[layer - 1, ACTIVATION] == RELU if layer > 1 else not has_scale(network)
    return FINDS_ZEROS and are_many and has_zeros


@glue
def nonzero_of(a, network, work, p, layer):
    """Which elements of what goes into a layer, A, are not zero, if that is of use."""
    place = REGIONS * p.size + p.size // p.rows
    bits = words(work, place, p.rows * (a.shape[1] // WORD_BITS + 2))
    if not leaves_out_zeros(network, layer, lanes(work)) or not note_nonzero(bits, a):
        bits = bits[:0]
    return NonZero(bits, p.rows, 0)


@kernel
def weighted_sums(z, a, network, layer, top, start, nonzero):
    """Z = start + A W[top:top + K], A [B, K] the units of the layer below from `top` on."""
    ld, v = network.table[layer, LD], lanes(z)
    offset = network.table[layer, WEIGHT] + top * ld
    w = panels(network.theta, offset, ld // v, a.shape[1], v, ld)
    multiply(z, a, w, start, None, None, nonzero, network.table[layer, SIZE])


@kernel
def normalize(z, normed, scratch, row, network, layer):
    """Z <- norm(Z), batch norm by the running statistics; the other matrices are overwritten."""
    theta, table, epsilon = network.theta, network.table, network.numbers[layer, EPSILON]
    units, ld, grain = table[layer, SIZE], table[layer, LD], table[layer, GRAIN]
    gain, shift = row_of(theta, table[layer, GAIN], ld), row_of(theta, table[layer, SHIFT], ld)
    if table[layer, NORM] == BATCH_NORM:
        mean = row_of(network.running, table[layer, RUNNING], ld)
        var = row_of(network.running, table[layer, RUNNING] + ld, ld)
        batch_norm_forward(z, normed, row, mean, var, gain, shift, epsilon, 0.0, 0)
        return
    rows, width = z.shape[0], 2 * ((ld + grain - 1) // grain)
    moments = matrix(scratch, 0, rows, width, width)
    spread = matrix(scratch, rows * width, 1, rows, rows)
    for top in range(0, ld, grain):
        part = matrix(z, top, rows, min(grain, ld - top), ld)
        row_moments(moments, top // grain, part, min(grain, units - top))
    layer_norm_forward(z, normed, spread, moments, gain, shift, grain, units, epsilon)


@kernel
def activate(z, row, network, layer):
    """Z <- f(Z); one slope for a whole layer is spread over the scratch `row`."""
    theta, table, ld = network.theta, network.table, network.table[layer, LD]
    slopes = row_of(theta, table[layer, SLOPE], ld)
    if table[layer, SLOPES] == SLOPE_OF_LAYER:
        slope = fill(load(row, 0, 0), slopes[0, 0])
        slopes = row_of(row, 0, ld)
        for j in range(0, ld, lanes(z)):
            store(slopes, 0, j, slope)
    activation_forward(z, z, table[layer, ACTIVATION], network.numbers[layer, PARAMETER], slopes)


@kernel
def softmax(z, classes):
    """z <- e**z_k / sum_j e**z_j for each row, the largest term of the sum apart."""
    for b in range(z.shape[0]):
        top, _ = top_of(z, b, classes)
        rest = exponentials(z, b, z, b, classes, top)
        for j in range(0, classes, lanes(z)):
            e = load(z, b, j)
            store(z, b, j, e / fill(e, 1 + rest))


@glue
def inputs_of(x, network, work, p, layer, low, high):
    """Units low to high of what goes into a layer [B, high - low]: of x, or of the layer below."""
    if layer == 1 and not has_scale(network):
        stride = x.strides[0] // x.itemsize
        a = matrix(x, p.first * stride + low, p.rows, high - low, stride)
    else:
        ld = network.table[layer - 1, LD]
        a = matrix(work, (layer - 1) % 2 * p.size + low, p.rows, high - low, ld)
    return a


@glue
def outputs_of(network, work, p, layer):
    """What comes out of a layer [B, ld]."""
    ld = network.table[layer, LD]
    return matrix(work, layer % 2 * p.size, p.rows, ld, ld)


@kernel
def scale_inputs(x, network, work, p):
    """The inputs times their scale, as what comes out of layer 0."""
    a = outputs_of(network, work, p, 0)
    for b in range(p.rows):
        for i in range(x.shape[1]):
            a[b, i] = x[p.first + b, i] * network.theta[network.table[0, GAIN] + i]


@kernel
def hidden_layer(x, network, work, p, layer):
    """A = f(norm(A' W + b)) of a hidden layer, A' of the layer below."""
    table, ld = network.table, network.table[layer, LD]
    a = inputs_of(x, network, work, p, layer, 0, table[layer - 1, SIZE])
    z = outputs_of(network, work, p, layer)
    row = row_of(work, REGIONS * p.size, ld)
    start = row_of(network.theta, table[layer, BIAS], ld)
    weighted_sums(z, a, network, layer, 0, start, nonzero_of(a, network, work, p, layer))
    if table[layer, NORM] != NONE:
        normed = matrix(work, (layer - 1) % 2 * p.size, p.rows, ld, ld)  # A' is needed no more
        normalize(z, normed, row_of(work, 2 * p.size, p.size), row, network, layer)
    activate(z, row, network, layer)


@glue
def sum_of_parts(network, work, p, level):
    """The sum of 2**level blocks' parts [B, ld], which waits for that of as many more."""
    ld, size = network.table[network.table.shape[0] - 1, LD], p.rows * LEVELS
    return matrix(work, work.shape[0] - (size - level * p.rows) * ld, p.rows, ld, ld)


@kernel
def output_layer(x, network, work, p):
    """Z = A' W + b of the output layer: if it is narrow, a sum of parts over blocks of A'.

    The parts are added up in the tree of `network.sum_all_parts`.
    """
    table, layer = network.table, network.table.shape[0] - 1
    ld, units, grain = table[layer, LD], table[layer - 1, SIZE], table[layer - 1, GRAIN]
    if table[layer, SIZE] > NARROW_OUTPUT:
        grain = units
    z = outputs_of(network, work, p, layer)
    a = inputs_of(x, network, work, p, layer, 0, units)
    nonzero = nonzero_of(a, network, work, p, layer)
    start, block = row_of(network.theta, table[layer, BIAS], ld), 0
    for top in range(0, units, grain):
        a = inputs_of(x, network, work, p, layer, top, min(top + grain, units))
        known = NonZero(nonzero.words, nonzero.stride, top)
        weighted_sums(z, a, network, layer, top, start, known)
        start = row_of(work, REGIONS * p.size, ld)
        for j in range(0, ld, lanes(work)):
            store(start, 0, j, fill(load(start, 0, j), 0.0))
        level = 0
        while block >> level & 1:
            add(z, sum_of_parts(network, work, p, level))
            level += 1
        if top + grain < units:
            keep(sum_of_parts(network, work, p, level), z)
        else:
            for waiting in range(level, LEVELS):
                if block >> waiting & 1:
                    add(z, sum_of_parts(network, work, p, waiting))
        block += 1
    if network.softmax:
        softmax(z, table[layer, SIZE])


@kernel
def predict_rows(out, x, network, work, p):
    """Outputs of one pass; return whether its inputs are finite."""
    last, stride = network.table.shape[0] - 1, x.strides[0] // x.itemsize
    inputs = matrix(x, p.first * stride, p.rows, x.shape[1], stride)
    finite = all_finite(inputs, fill(load(row_of(work, 0, lanes(work)), 0, 0), 0.0))
    if has_scale(network):
        scale_inputs(x, network, work, p)
    for layer in range(1, last):
        hidden_layer(x, network, work, p, layer)
    output_layer(x, network, work, p)
    z = outputs_of(network, work, p, last)
    for b in range(p.rows):
        for k in range(out.shape[1]):
            out[p.first + b, k] = z[b, k]
    return finite


@entry
def predict(out, x, network, work):
    """out [n, O] <- the outputs of the network for x [n, I]; return whether all of x is finite.

    All arrays are of the network's dtype; the rows of x are contiguous. `work` is a vector of at
    least `workspace_length(network)` elements, scratch of this call alone. Where x is not finite,
    outputs are of no use. Nothing is allocated.

    Raises ValueError if the shapes do not fit.
    """
    check_dtype(x, network.theta)
    check_dtype(out, network.theta)
    check_dtype(work, network.theta)
    table, n = network.table, x.shape[0]
    if x.shape[1] != table[0, SIZE]:
        raise ValueError("x must have a column for each input of the network")
    if x.strides[1] != x.itemsize and x.shape[1] > 1:  # NumPy leaves open what that of one is
        raise ValueError("each row of x must be contiguous")
    if out.shape[0] != n or out.shape[1] != table[table.shape[0] - 1, SIZE]:
        raise ValueError("out must have a row for each of x and a column for each output")
    widest = 0
    for layer in range(0 if has_scale(network) else 1, table.shape[0]):
        widest = max(widest, table[layer, LD])
    each = elements_each(x.shape[1], widest, table[table.shape[0] - 1, LD], x.itemsize)
    most = min((work.shape[0] - widest) // each, MICRO_BATCH)
    if most < 1:
        raise ValueError("work must have at least workspace_length(network) elements")
    network = borrow(network)
    finite = True
    for first in range(0, n, most):
        rows = min(most, n - first)
        p = Part(first, rows, rows * widest)
        finite = predict_rows(out, x, network, work, p) and finite
    return finite
