"""The three matrix products of a layer on one core, and what the core could do at best."""

import numpy as np

from .common import LIBRARIES, limit_blas, need_cores
from .inner_kernels import fma_peak
from .layer import Layer


class GEMM:
    """Each does 2 B I O operations for the shape B x I x O, batch, inputs and outputs."""

    params = (
        ["32x784x128", "32x512x512", "32x128x10", "256x784x128", "256x512x512", "256x512x10"],
        ["float32", "float64"],
        LIBRARIES,
    )
    param_names = ("shape", "dtype", "library")

    def setup(self, shape, dtype, library):
        sizes = tuple(int(n) for n in shape.split("x"))
        (self.use_fastmlp if library == "fastmlp" else self.use_numpy)(*sizes, np.dtype(dtype))
        for product in (self.forward, self.backward, self.gradient):
            product()

    def use_fastmlp(self, batch, inputs, outputs, dtype):
        layer = Layer(batch, inputs, outputs, dtype)
        self.forward = lambda: layer.compute("forward")
        self.backward = lambda: layer.compute("backward")
        self.gradient = lambda: layer.compute("gradient")

    def use_numpy(self, batch, inputs, outputs, dtype):
        limit_blas(1)
        rng = np.random.default_rng(0)
        a, dz = rng.random((batch, inputs), dtype), rng.random((batch, outputs), dtype)
        w, b = rng.random((inputs, outputs), dtype), rng.random(outputs, dtype)
        z, da, dw = np.empty_like(dz), np.empty_like(a), np.empty_like(w)
        self.forward = lambda: np.add(np.matmul(a, w, out=z), b, out=z)
        self.backward = lambda: np.matmul(dz, w.T, out=da)
        self.gradient = lambda: np.matmul(a.T, dz, out=dw)

    def time_forward(self, shape, dtype, library):
        """Z = A W + b."""
        self.forward()

    def time_backward(self, shape, dtype, library):
        """dA = dZ W^T, the transposition of W included."""
        self.backward()

    def time_gradient(self, shape, dtype, library):
        """dW = A^T dZ."""
        self.gradient()


class Peak:
    """The denominator: GFLOP/s of a GEMM are 2 B I O / time, this is what they may reach."""

    params = (["float32", "float64"], [1, 2])
    param_names = ("dtype", "threads")
    unit = "GFLOP/s"

    def setup(self, dtype, threads):
        need_cores(threads)

    def track_fma(self, dtype, threads):
        return fma_peak(dtype, threads)
