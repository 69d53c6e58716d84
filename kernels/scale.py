"""A factor for each input, A = X diag(s), that is learnt like a weight.

B rows of a pass, W columns, a multiple of the vector's.
"""

from ._jit import kernel
from .simd import fill, fma, lanes, load, store


@kernel
def scale_columns(y, x, factor):
    """y [B, W] <- x times the row `factor` [1, W]; y may be x."""
    for b in range(y.shape[0]):
        for j in range(0, y.shape[1], lanes(y)):
            store(y, b, j, load(x, b, j) * load(factor, 0, j))


@kernel
def scale_gradient(ds, da, x, rows, low):
    """ds [1, W] <- the sums over b of x[rows[b], low + j] da[b, j]; 0 beyond the columns of x."""
    count, size, v = da.shape[0], x.shape[1] - low, lanes(da)
    for j in range(0, ds.shape[1], v):
        total = fill(load(ds, 0, j), 0.0)
        if j + v <= size:
            for b in range(count):
                total = fma(load(x, rows[b], low + j), load(da, b, j), total)
            store(ds, 0, j, total)
            continue
        store(ds, 0, j, total)
        for i in range(j, size):
            for b in range(count):
                ds[0, i] += x[rows[b], low + i] * da[b, i]
