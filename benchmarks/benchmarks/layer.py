"""The three products of one layer with our kernels, on one thread or a team of two."""

from copy import copy
from time import perf_counter

import numpy as np

from fastmlp.kernels.gemm import PANEL_VECTORS
from fastmlp.kernels.machine import (
    CACHE_LINE,
    COPIED_VECTORS,
    FEW_ROWS,
    MICRO_BATCH,
    NARROW_OUTPUT,
    VECTOR_BYTES,
)
from fastmlp.kernels.team import LENGTH, share
from fastmlp.layout import aligned_zeros, round_up

from .inner_kernels import dense_backward, dense_forward, dense_gradient, meet

PRODUCTS = ("forward", "backward", "gradient")


class Layer:
    """Operands of B x I x O, batch, inputs and outputs, laid out as in training.

    Threads own columns of what a product writes, as they do in `fit`; where it is an output layer
    too narrow for that, rows: of Z those of the batch, of dW those of its inputs.
    """

    def __init__(self, batch, inputs, outputs, dtype):
        self.sizes, self.line = (batch, inputs, outputs), CACHE_LINE // dtype.itemsize
        self.ld_in, self.ld = round_up(inputs, self.line), round_up(outputs, self.line)
        rng = np.random.default_rng(0)

        def flat(rows, columns, used=0):
            array = aligned_zeros(rows * columns, dtype)
            array.reshape(rows, columns)[:, :used] = rng.random((rows, used))
            return array

        self.a, self.dz = flat(batch, self.ld_in, inputs), flat(batch, self.ld, outputs)
        self.w, self.b = flat(inputs, self.ld, outputs), flat(1, self.ld, outputs)
        self.z, self.da = flat(batch, self.ld), flat(batch, self.ld_in)
        self.dw, lanes = flat(inputs, self.ld), VECTOR_BYTES // dtype.itemsize
        scratch = flat(self.ld_in, self.ld + FEW_ROWS * lanes)
        near = flat(2 * (PANEL_VECTORS * MICRO_BATCH + COPIED_VECTORS), lanes)
        zeros, packed = flat(1, self.ld + self.ld_in), flat(inputs, self.ld)
        every = np.arange(max(batch, self.ld_in, self.ld))
        panels = self.w.reshape(inputs, -1, lanes).transpose(1, 0, 2)
        packed.reshape(panels.shape)[...] = panels
        self._calls = {
            "forward": (dense_forward, (self.z, self.a, packed, self.b)),
            "backward": (dense_backward, (self.da, self.dz, packed, scratch, zeros, every)),
            "gradient": (dense_gradient, (self.dw, self.a, self.dz, near, zeros, every)),
        }
        self._alone = np.zeros(LENGTH, np.int64)
        self._share_out()

    def of(self, batch):
        """The same layer for fewer rows: its operands are the beginning of these."""
        other = copy(self)
        other.sizes = (batch, *self.sizes[1:])
        other._share_out()
        return other

    def _share_out(self):
        # in advance: a call from Python should cost no more than it must
        self._parts = {
            (product, thread, threads): self._part(product, thread, threads)
            for product in PRODUCTS
            for threads in (1, 2)
            for thread in range(threads)
        }

    def _part(self, product, thread, threads):
        """Rows [top, bottom) and columns [low, high) of what a thread computes."""
        batch, inputs, outputs = self.sizes
        rows = inputs if product == "gradient" else batch
        if product != "backward" and outputs <= NARROW_OUTPUT:
            return (*share(rows, 1, thread, threads), 0, self.ld)
        columns = self.ld_in if product == "backward" else self.ld
        return (0, rows, *share(columns, self.line, thread, threads))

    def compute(self, product, times=1):
        """Compute a product so many times in this thread."""
        self._member(product, times, self._alone, 0, 1)

    def seconds(self, product, times, pool=None):
        """Time that; with a pool, in a second thread too: they meet after each product."""
        threads, team = 1 if pool is None else 2, np.zeros(LENGTH, np.int64)
        if pool is not None:
            other = pool.submit(self._wait_and_join, product, times, team)
        meet(team, threads, 1)
        begin = perf_counter()
        self._member(product, times, team, 0, threads)
        seconds = perf_counter() - begin
        if pool is not None:
            other.result()
        return seconds

    def _wait_and_join(self, product, times, team):
        meet(team, 2, 1)
        self._member(product, times, team, 1, 2)

    def _member(self, product, times, team, thread, threads):
        kernel, operands = self._calls[product]
        part = self._parts[product, thread, threads]
        kernel(times, team, threads, part, *operands, *self.sizes)
