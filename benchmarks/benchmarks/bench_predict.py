"""Predictions of a trained network, from Python on all cores, and from jitted code on one."""

import numpy as np
from numba import njit

from fastmlp import MLP
from fastmlp.threads import resolve

from .common import LIBRARIES, NumpyNetwork, limit_blas, make_network, synthetic

ROWS = 1024


class Predict:
    params = ([1, 64, 10_000], LIBRARIES)
    param_names = ("rows", "library")

    def setup(self, rows, library):
        self.X, _ = synthetic(rows)
        self.net = make_network([784, 128, 10])
        if library == "numpy":
            limit_blas(resolve())
            self.net = NumpyNetwork(self.net)
        self.net.predict(self.X)

    def time_predict(self, rows, library):
        self.net.predict(self.X)


class Jitted:
    """1,024 predictions inside a jitted loop, of one row or 64 a call."""

    params = (
        [
            "4-32-16-4 tanh",
            "16-64-64-4 relu",
            "16-64-64-4 tanh",
            "16-64-64-4 softplus",
            "784-128-10 softplus",
        ],
        [1, 64],
    )
    param_names = ("network", "rows")

    def setup(self, network, rows):
        from fastmlp import kernels

        sizes, activation = network.split()
        inputs, *hidden, outputs = map(int, sizes.split("-"))
        net = MLP([inputs, *hidden, outputs], activation=activation, loss="squared_error", seed=0)
        arrays = net.jitted()
        work = np.empty(kernels.workspace_length(arrays, rows), net.dtype)
        x, out = np.ones((rows, inputs), net.dtype), np.empty((rows, outputs), net.dtype)

        @njit
        def loop(out, x, arrays, work):
            for _ in range(ROWS // len(x)):
                kernels.predict(out, x, arrays, work)

        self.arguments = out, x, arrays, work
        self.loop = loop
        self.loop(*self.arguments)

    def time_1024_rows(self, network, rows):
        self.loop(*self.arguments)
