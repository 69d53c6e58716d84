"""The inner kernels in wrappers that Python can call, and the FMA peak of a core.

Inner kernels take matrices over raw memory, which Python cannot make. The wrappers take flat
arrays, aligned as `fastmlp.layout.aligned_zeros` makes them, and sizes; they are compiled as the
program is, in one module with all that they call. They follow the kernels' signatures; everything
else in the suite uses the public names alone and runs on older commits too.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from fastmlp.kernels._jit import OPTIONS, entry
from fastmlp.kernels.activation import activation_backward, activation_forward
from fastmlp.kernels.gemm import (
    PANEL_VECTORS,
    add_row_products,
    columns_ahead,
    columns_together,
    is_packed,
    multiply,
    multiply_by_transpose,
    multiply_transposed,
    multiply_transposed_narrow,
    next_width,
    pack,
    store_row_products,
    takes_narrow_product,
    takes_products_of_rows,
    units_summed,
)
from fastmlp.kernels.machine import (
    CACHE_LINE,
    FEW_ROWS,
    MICRO_BATCH,
    VECTOR_BYTES,
)
from fastmlp.kernels.optimizer import ADAM, adam, keep, make_rule
from fastmlp.kernels.simd import fill, fma, lanes, load, matrix, panels, panels_of, store
from fastmlp.kernels.team import barrier

CHAINS = 12  # independent: two FMA units times a latency of four cycles need at least eight


@njit(**OPTIONS)
def padded(like, columns):
    """The columns rounded up to whole cache lines, as layers are laid out."""
    line = CACHE_LINE // like.itemsize
    return (columns + line - 1) // line * line


@entry
def dense_forward(times, team, threads, part, z, a, w, b, batch, inputs, outputs):
    """Z [B, O] = A [B, I] W [I, O] + b; Z in a block for each owner of columns, W packed."""
    v, (top, bottom, low, high) = lanes(z), part
    rows, width, ld = bottom - top, high - low, padded(a, inputs)
    for _ in range(times):
        if rows * width > 0:
            multiply(
                matrix(z, low * batch + top * width, rows, width, width),
                matrix(a, top * ld, rows, inputs, ld),
                panels(w, low * inputs, width // v, inputs, inputs * v, v),
                matrix(b, low, 1, width, width),
                None,
                None,
                None,
                outputs - low,
            )
        barrier(team, threads)


@entry
def dense_backward(
    times, team, threads, part, da, dz, w, scratch, zeros, every, batch, inputs, outputs
):
    """dA [B, I] = dZ [B, O] W^T, W^T made in blocks; dA in a block for each owner of columns.

    For few rows or inputs W is not transposed, as in training. Scratch is columns of W^T, or sums.
    """
    v, (top, bottom, low, high) = lanes(da), part
    rows, width, ld = bottom - top, high - low, padded(dz, outputs)
    place = low * (ld + FEW_ROWS * v)
    for _ in range(times):
        if rows * width > 0 and takes_products_of_rows(batch, inputs, ld):
            for m in range(top, bottom, FEW_ROWS):
                few = min(FEW_ROWS, bottom - m)
                a = matrix(dz, m * ld, few, ld, ld)
                together = units_summed(few, v)
                for n in range(low, high, together):
                    end = min(n + together, high)
                    sums = matrix(scratch, place, few, (end - n) * v, (end - n) * v)
                    own = panels(w, n * v, ld // v, max(min(end, inputs) - n, 0), inputs * v, v)
                    add_row_products(sums, a, own, True)
                    c = matrix(da, low * batch + m * width + n - low, few, end - n, width)
                    store_row_products(c, sums, inputs - n)
        elif rows * width > 0:
            c = matrix(da, low * batch + top * width, rows, width, width)
            a = matrix(dz, top * ld, rows, outputs, ld)
            own = panels(w, low * v, ld // v, min(high, inputs) - low, inputs * v, v)
            start = matrix(zeros, 0, 1, width, width)
            multiply_by_transpose(c, a, own, start, every, scratch, place)
        barrier(team, threads)


@entry
def dense_gradient(
    times, team, threads, part, dw, a, dz, scratch, zeros, every, batch, inputs, outputs
):
    """dW [I, O] = A^T dZ; dW packed, dZ in a block for each owner of columns.

    As in training: in passes, dZ packed where that pays, and a large A copied. Scratch is a half
    for each of two threads.
    """
    v, (top, bottom, low, high), ld = lanes(dw), part, padded(a, inputs)
    packed = len(scratch) // 2 if top + low > 0 else 0
    copied = packed + PANEL_VECTORS * MICRO_BATCH * v
    for _ in range(times):
        for first in range(0, batch if top < bottom else 0, MICRO_BATCH):
            rows = min(MICRO_BATCH, batch - first)
            own = matrix(dz, low * batch + first * (high - low), rows, high - low, high - low)
            together = columns_together(rows, bottom - top, high - low, v)
            for i in range(top, bottom, together):
                count, j = min(together, bottom - i), low
                factors = matrix(a, first * ld + i, rows, count, ld)
                if together < bottom - top:
                    near = matrix(scratch, copied, rows, count, together)
                    keep(near, factors)
                    factors = near
                if takes_narrow_product(rows, count, outputs, high - low, v):
                    c = panels(dw, i * v, (high - low) // v, count, inputs * v, v)
                    multiply_transposed_narrow(
                        c, factors, own, outputs, every, scratch, packed, first == 0
                    )
                    continue
                while j < high:
                    width = (high - j) // v
                    b = panels_of(own, j - low, width)
                    if is_packed(rows, count):
                        width = next_width(width)
                        b = panels(scratch, packed, width, rows, rows * v, v)
                        pack(b, own, j - low)
                    c = panels(dw, j * inputs + i * v, width, count, inputs * v, v)
                    start = panels(zeros, 0, width, 1, 0, v) if first == 0 else c
                    ahead = columns_ahead(factors, every)
                    multiply_transposed(c, factors, b, start, None, ahead, None, outputs - j)
                    j += width * v
        barrier(team, threads)


@entry
def activate(a, z, code, rows, columns):
    """a <- f(z), the columns in whole vectors."""
    values, slopes = matrix(z, 0, rows, columns, columns), matrix(z, 0, 1, columns, columns)
    activation_forward(matrix(a, 0, rows, columns, columns), values, code, 0.0, slopes)


@entry
def differentiate(da, a, code, rows, columns):
    """da <- f'(z) da for a = f(z), the columns in whole vectors."""
    values, slopes = matrix(a, 0, rows, columns, columns), matrix(a, 0, 1, columns, columns)
    activation_backward(matrix(da, 0, rows, columns, columns), values, code, 0.0, slopes)


@entry
def adapt(theta, m, v, g, hyper, row, times):
    """Adam's update of theta, m and v, so many times; hyper and row as `fit` hands them over."""
    n, rule = len(theta), make_rule(ADAM, hyper, row)
    first, second = matrix(m, 0, 1, n, n), matrix(v, 0, 1, n, n)
    for _ in range(times):
        adam(matrix(theta, 0, 1, n, n), first, second, matrix(g, 0, 1, n, n), rule)


@njit(**OPTIONS)
def read_all(x, times):
    """Add up x, so many times: eight sums, nothing but loads and additions; x_0 gets them."""
    v = lanes(x)
    m = matrix(x, 0, len(x) // (8 * v), 8 * v, 8 * v)
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = fill(load(m, 0, 0), 0.0)
    for _ in range(times):
        for i in range(m.shape[0]):
            s0, s1 = s0 + load(m, i, 0), s1 + load(m, i, v)
            s2, s3 = s2 + load(m, i, 2 * v), s3 + load(m, i, 3 * v)
            s4, s5 = s4 + load(m, i, 4 * v), s5 + load(m, i, 5 * v)
            s6, s7 = s6 + load(m, i, 6 * v), s7 + load(m, i, 7 * v)
    store(m, 0, 0, ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)))


@njit(**OPTIONS)
def update_all(x, times):
    """x <- x / 2 + 1, so many times: a load, an FMA and a store each."""
    v = lanes(x)
    m = matrix(x, 0, len(x) // (8 * v), 8 * v, 8 * v)
    half, one = fill(load(m, 0, 0), 0.5), fill(load(m, 0, 0), 1.0)
    for _ in range(times):
        for i in range(m.shape[0]):
            for j in range(0, 8 * v, v):
                store(m, i, j, fma(load(m, i, j), half, one))


@njit(**OPTIONS)
def meet(team, threads, times):
    """Cross the team's barrier so many times."""
    for _ in range(times):
        barrier(team, threads)


@njit(**OPTIONS)
def fma_chains(x, rounds):
    """x_i <- x_i / 2 + 1, `rounds` times: CHAINS vectors in registers, nothing but FMAs."""
    m = matrix(x, 0, CHAINS + 2, lanes(x), lanes(x))
    x0, x1, x2, x3 = load(m, 0, 0), load(m, 1, 0), load(m, 2, 0), load(m, 3, 0)
    x4, x5, x6, x7 = load(m, 4, 0), load(m, 5, 0), load(m, 6, 0), load(m, 7, 0)
    x8, x9, x10, x11 = load(m, 8, 0), load(m, 9, 0), load(m, 10, 0), load(m, 11, 0)
    half, one = load(m, 12, 0), load(m, 13, 0)
    for _ in range(rounds):
        x0, x1, x2 = fma(x0, half, one), fma(x1, half, one), fma(x2, half, one)
        x3, x4, x5 = fma(x3, half, one), fma(x4, half, one), fma(x5, half, one)
        x6, x7, x8 = fma(x6, half, one), fma(x7, half, one), fma(x8, half, one)
        x9, x10, x11 = fma(x9, half, one), fma(x10, half, one), fma(x11, half, one)
    store(m, 0, 0, ((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7)) + ((x8 + x9) + (x10 + x11)))


def fma_peak(dtype, threads, rounds=1_000_000, repeats=5):
    """GFLOP/s of FMAs on registers alone, the best of some runs: no computation can be faster."""
    width = VECTOR_BYTES // np.dtype(dtype).itemsize
    start = np.repeat([*range(CHAINS), 0.5, 1.0], width).astype(dtype)
    fma_chains(start.copy(), 1)  # compiles
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            vectors = [start.copy() for _ in range(threads)]
            begin = time.perf_counter()
            list(pool.map(fma_chains, vectors, [rounds] * threads))
            seconds.append(time.perf_counter() - begin)
    return threads * rounds * CHAINS * width * 2 / min(seconds) / 1e9
