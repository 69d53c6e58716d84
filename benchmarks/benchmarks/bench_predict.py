"""Predictions of a trained network, from Python, on all cores."""

from fastmlp.threads import resolve

from .common import LIBRARIES, NumpyNetwork, limit_blas, make_network, synthetic


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
