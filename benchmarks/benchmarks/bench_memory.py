"""Peak memory of one epoch on an array the size of MNIST."""

import numpy as np

import fastmlp as fm

from .common import NumpyNetwork, make_network

SIZES, BATCH, RATE = [784, 512, 512, 10], 256, 0.01
SAMPLES = 60_000


class Memory:
    """What `fit` needs is its peak less that of the data alone, the kernels loaded in both."""

    params = ("data alone", "fastmlp", "numpy")
    param_names = ("library",)

    def setup_cache(self):
        # In a process of its own: the compiler's memory is not that of `fit`.
        fm.kernels.warmup()

    def setup(self, library):
        fm.kernels.warmup()
        rng = np.random.default_rng(0)
        self.X = rng.random((SAMPLES, SIZES[0]), np.float32)
        self.y = rng.integers(SIZES[-1], size=SAMPLES)
        self.net = make_network(SIZES)

    def peakmem_fit(self, library):
        if library == "fastmlp":
            optimizer = fm.SGD(RATE)
            fm.fit(self.net, self.X, self.y, optimizer=optimizer, batch_size=BATCH, epochs=1)
        elif library == "numpy":
            rng = np.random.default_rng(0)
            NumpyNetwork(self.net).epoch(self.X, self.y, BATCH, RATE, rng)
