"""One epoch of SGD over shuffled samples, as a user runs it."""

import numpy as np

import fastmlp as fm

from .common import (
    LIBRARIES,
    NETWORKS,
    NumpyNetwork,
    limit_blas,
    make_network,
    need_cores,
    parse_network,
    synthetic,
)

SAMPLES = 6_000
RATE = 0.01


class Epoch:
    params = (NETWORKS, [1, 2], LIBRARIES)
    param_names = ("network", "threads", "library")

    def setup(self, network, threads, library):
        need_cores(threads)
        sizes, batch = parse_network(network)
        net, (X, y) = make_network(sizes), synthetic(SAMPLES)
        if library == "fastmlp":
            self.epoch = lambda n: fm.fit(
                *(net, X[:n], y[:n]),
                optimizer=fm.SGD(RATE),
                batch_size=batch,
                epochs=1,
                threads=threads,
            )
        else:
            limit_blas(threads)
            reference, rng = NumpyNetwork(net), np.random.default_rng(0)
            self.epoch = lambda n: reference.epoch(X[:n], y[:n], batch, RATE, rng)
        self.epoch(2 * batch)

    def time_epoch(self, network, threads, library):
        self.epoch(SAMPLES)
