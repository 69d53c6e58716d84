"""Training steps on one batch that stays the same: no shuffle, no gather from far away."""

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

STEPS = 100  # the start of the team, once per fit, is no part of a step
RATE = 0.01
OPTIMIZERS = {"sgd": fm.SGD(RATE), "momentum": fm.SGD(RATE, momentum=0.9), "adam": fm.Adam()}


class Step:
    """A hundred steps of SGD."""

    params = (NETWORKS, [1, 2], LIBRARIES)
    param_names = ("network", "threads", "library")

    def setup(self, network, threads, library):
        need_cores(threads)
        sizes, batch = parse_network(network)
        net, (X, y) = make_network(sizes), synthetic(batch)
        if library == "fastmlp":
            self.steps = lambda count: fm.fit(
                net, X, y, optimizer=fm.SGD(RATE), batch_size=None, epochs=count, threads=threads
            )
        else:
            limit_blas(threads)
            reference = NumpyNetwork(net)
            self.steps = lambda count: [reference.step(X, y, RATE) for _ in range(count)]
        self.steps(1)

    def time_100_steps(self, network, threads, library):
        self.steps(STEPS)


class Optimizer:
    """A hundred steps of each optimizer on one core."""

    params = (NETWORKS, list(OPTIMIZERS))
    param_names = ("network", "optimizer")

    def setup(self, network, optimizer):
        sizes, batch = parse_network(network)
        self.net, (self.X, self.y) = make_network(sizes), synthetic(batch)
        self.steps(optimizer, 1)

    def steps(self, optimizer, count):
        fm.fit(
            *(self.net, self.X, self.y),
            optimizer=OPTIMIZERS[optimizer],
            batch_size=None,
            epochs=count,
            threads=1,
        )

    def time_100_steps(self, network, optimizer):
        self.steps(optimizer, STEPS)


class Gradient:
    """Loss and gradient of one batch, without an update: `MLP.loss_and_gradient`."""

    params = NETWORKS
    param_names = ("network",)

    def setup(self, network):
        sizes, batch = parse_network(network)
        self.net, (self.X, self.y) = make_network(sizes), synthetic(batch)
        self.net.loss_and_gradient(self.X, self.y)

    def time_loss_and_gradient(self, network):
        self.net.loss_and_gradient(self.X, self.y)
