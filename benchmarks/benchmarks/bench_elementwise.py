"""The activations on the outputs of one layer, in place, one core."""

import numpy as np

from fastmlp.kernels.activation import CODES
from fastmlp.layout import aligned_zeros

from .common import LIBRARIES, softplus
from .inner_kernels import activate

ROWS, COLUMNS = 256, 128


def numpy_sigmoid(z):
    np.negative(z, out=z)
    np.exp(z, out=z)
    z += 1
    np.reciprocal(z, out=z)


def numpy_softplus(z):
    z[...] = softplus(z)


NUMPY = {
    "relu": lambda z: np.maximum(z, 0, out=z),
    "sigmoid": numpy_sigmoid,
    "tanh": lambda z: np.tanh(z, out=z),
    "softplus": numpy_softplus,
}


class Activation:
    """z <- f(z), again and again on one array: neither side's time depends on the values."""

    params = (list(NUMPY), ["float32", "float64"], LIBRARIES)
    param_names = ("activation", "dtype", "library")

    def setup(self, activation, dtype, library):
        z = aligned_zeros(ROWS * COLUMNS, np.dtype(dtype))
        z[:] = np.random.default_rng(0).normal(scale=2.0, size=len(z))
        if library == "fastmlp":
            code = CODES[activation]
            self.apply = lambda: activate(z, code, ROWS, COLUMNS)
        else:
            self.apply = lambda: NUMPY[activation](z)
        self.apply()

    def time_forward(self, activation, dtype, library):
        self.apply()
