"""What the benchmarks share: networks, data, and NumPy's side."""

import numpy as np

from fastmlp import MLP
from fastmlp.threads import resolve

LIBRARIES = ["fastmlp", "numpy"]
NETWORKS = ["784-128-10 batch 32", "784-128-10 batch 128", "784-512-512-10 batch 256"]


def parse_network(text):
    """Layer sizes and batch size of one of `NETWORKS`."""
    sizes, _, batch = text.split()
    return [int(n) for n in sizes.split("-")], int(batch)


def make_network(sizes):
    return MLP(sizes, activation="softplus", seed=0)


def synthetic(samples, inputs=784, classes=10):
    """Samples like MNIST's: float32 in [0, 1], a fifth not zero, a class by the places of these.

    A tenth of the labels are random, so that the loss stays away from zero.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=samples)
    X = rng.random((samples, inputs), np.float32)
    X *= (rng.random((classes, inputs)) < 0.2)[y]
    noisy = rng.random(samples) < 0.1
    y[noisy] = rng.integers(classes, size=int(noisy.sum()))
    return X, y


def limit_blas(threads):
    """Let NumPy's BLAS use this many threads; asv skips the benchmark where that cannot be set."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise NotImplementedError("NumPy's side needs threadpoolctl") from None
    threadpool_limits(threads, user_api="blas")


def need_cores(threads):
    """Have asv skip the benchmark where this process may not use as many cores."""
    if threads > resolve():
        raise NotImplementedError(f"needs {threads} cores")


class NumpyNetwork:
    """The same network as a `make_network`, trained by SGD on softmax cross-entropy, in NumPy."""

    def __init__(self, net):
        self.weights = [w.copy() for w in net.weights]
        self.biases = [b.copy() for b in net.biases]

    def forward(self, X):
        """Activations of each layer, inputs first and logits last."""
        outputs = [X]
        for layer, (w, b) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            z = outputs[-1] @ w
            z += b
            outputs.append(z if layer == len(self.weights) else softplus(z))
        return outputs

    def predict(self, X):
        return self.forward(X)[-1].argmax(axis=1)

    def step(self, X, y, rate):
        outputs = self.forward(X)
        delta = outputs.pop()
        delta -= delta.max(axis=1, keepdims=True)
        np.exp(delta, out=delta)
        delta /= delta.sum(axis=1, keepdims=True)
        delta[np.arange(len(y)), y] -= 1
        delta *= rate / len(y)
        for layer in reversed(range(len(self.weights))):
            a = outputs.pop()
            below = delta @ self.weights[layer].T if layer else None
            self.weights[layer] -= a.T @ delta
            self.biases[layer] -= delta.sum(axis=0)
            if layer:
                delta = below
                delta *= -np.expm1(-a)  # the derivative of softplus in terms of its output

    def epoch(self, X, y, batch, rate, rng):
        order = rng.permutation(len(X))
        for first in range(0, len(X), batch):
            rows = order[first : first + batch]
            self.step(X[rows], y[rows], rate)


def softplus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
