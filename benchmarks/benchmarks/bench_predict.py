"""Predictions of a trained network, from Python on all cores, and from jitted code on one."""

import numpy as np
from numba import njit

from fastmlp import MLP
from fastmlp.threads import resolve

from .common import LIBRARIES, NumpyNetwork, limit_blas, make_network, synthetic

CALLS = 1000


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
    """A thousand predictions of one row each, by a 16-64-64-4 network inside a jitted loop."""

    params = (["relu", "tanh", "softplus"],)
    param_names = ("activation",)

    def setup(self, activation):
        from fastmlp import kernels

        net = MLP([16, 64, 64, 4], activation=activation, loss="squared_error", seed=0)
        network = net.jitted()
        work = np.empty(kernels.workspace_length(network), net.dtype)

        @njit
        def loop(out, x, network, work):
            for _ in range(CALLS):
                kernels.predict(out, x, network, work)

        self.arguments = np.empty((1, 4), net.dtype), np.ones((1, 16), net.dtype), network, work
        self.loop = loop
        self.loop(*self.arguments)

    def time_thousand_rows(self, activation):
        self.loop(*self.arguments)
