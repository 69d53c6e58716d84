"""What is trained: a network, data, and the order of the samples, the same for every peer."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from suite import synthetic

import fastmlp as fm
from fastmlp.kernels.random import shuffle
from fastmlp.kernels.team import LENGTH, STOP


@dataclass(frozen=True)
class Work:
    """A softplus network trained by SGD on softmax cross-entropy."""

    sizes: tuple[int, ...]
    batch_size: int
    learning_rate: float = 0.05

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "784-128-10:32", layer sizes and batch size."""
        sizes, batch_size = text.split(":")
        return cls(tuple(int(n) for n in sizes.split("-")), int(batch_size))

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, batch {self.batch_size}"

    @property
    def flops_per_sample(self) -> int:
        """Operations of the products Z = A W, dW = A^T dZ, and above layer 1 dA = dZ W^T."""
        products = [n * m for n, m in zip(self.sizes, self.sizes[1:], strict=False)]
        return 4 * sum(products) + 2 * sum(products[1:])

    def network(self) -> fm.MLP:
        """Return the network as it starts; its weights [inputs, outputs] are every peer's."""
        return fm.MLP(self.sizes, activation="softplus", seed=0)


@dataclass(frozen=True)
class Data:
    """Inputs float32 [n, 784] in [0, 1], labels int64 [n] of ten classes."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    name: str

    def __len__(self) -> int:
        return len(self.X)

    @classmethod
    def load(cls, samples: int, mnist: str | None) -> Self:
        """Take the first samples of MNIST's training set in a folder, or make some of its shape."""
        if mnist is None:
            X, y = synthetic(samples)
            return cls(X, y, "Synthetic data of MNIST's shape")
        data = fm.datasets.load_mnist(mnist)
        return cls(data.X_train[:samples], data.y_train[:samples], "MNIST")


@dataclass(frozen=True)
class Order:
    """The order of the samples in one epoch: the one that fastmlp draws from the seed."""

    seed: int
    rows: NDArray[np.int64]

    @classmethod
    def draw(cls, samples: int, seed: int) -> Self:
        rows = np.empty(samples, np.int64)
        shuffle(rows, np.arange(samples), seed, 0, np.zeros(LENGTH, np.int64), STOP)
        return cls(seed, rows)
