"""What is trained: a network, data, and the order of the samples, the same for every peer."""

from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from suite import synthetic

import fastmlp as fm
from fastmlp.kernels.random import shuffle
from fastmlp.kernels.team import LENGTH, STOP

IMAGES = (784, 10)  # inputs and outputs of a classifier of MNIST's digits
STEPS = 300  # in one measurement of a full batch

Optimizer = Literal["SGD", "Adam"]


@dataclass(frozen=True)
class Work:
    """A network and how it is trained.

    784 inputs and 10 outputs: MNIST's digits, softplus, softmax cross-entropy, shuffled batches, an
    epoch a measurement. Any other: a smooth function, tanh, squared error (the sum over the
    outputs), all samples in each step, `STEPS` steps a measurement. Dense: no input is zero, so
    that there is nothing to skip.
    """

    sizes: tuple[int, ...]
    batch_size: int
    optimizer: Optimizer = "SGD"
    dense: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "784-128-10:32", "784-128-10:32:Adam" or "784-128-10:32:SGD:dense"."""
        sizes, batch_size, *options = text.split(":")
        name = options[0] if options else "SGD"
        if name not in ("SGD", "Adam") or options[1:] not in ([], ["dense"]):
            raise ValueError(f"not SIZES:BATCH, SIZES:BATCH:SGD or :Adam, then :dense: {text!r}")
        layers = tuple(int(n) for n in sizes.split("-"))
        return cls(layers, int(batch_size), cast(Optimizer, name), len(options) > 1)

    def __str__(self) -> str:
        batch = f"batch {self.batch_size:,}" if self.is_classifier else f"all {self.batch_size:,}"
        dense = ", no zeros" if self.dense else ""
        sizes = "-".join(map(str, self.sizes))
        return f"{sizes} {self.activation}, {batch}, {self.optimizer}{dense}"

    @property
    def is_classifier(self) -> bool:
        return (self.sizes[0], self.sizes[-1]) == IMAGES

    @property
    def activation(self) -> str:
        return "softplus" if self.is_classifier else "tanh"

    @property
    def epochs(self) -> int:
        """Epochs of one measurement."""
        return 1 if self.is_classifier else STEPS

    @property
    def learning_rate(self) -> float:
        return 0.05 if self.optimizer == "SGD" else 1e-3

    @property
    def flops_per_sample(self) -> int:
        """Operations of the products Z = A W, dW = A^T dZ, and above layer 1 dA = dZ W^T."""
        products = [n * m for n, m in zip(self.sizes, self.sizes[1:], strict=False)]
        return 4 * sum(products) + 2 * sum(products[1:])

    def network(self, **options: Any) -> fm.MLP:
        """Return the network as it starts; its weights [inputs, outputs] are every peer's."""
        loss = "softmax_cross_entropy" if self.is_classifier else "squared_error"
        return fm.MLP(
            self.sizes, **({"activation": self.activation, "loss": loss, "seed": 0} | options)
        )

    def rule(self) -> fm.Optimizer:
        """Return fastmlp's optimizer."""
        rule = fm.SGD if self.optimizer == "SGD" else fm.Adam
        return rule(self.learning_rate)


@dataclass(frozen=True)
class Data:
    """Inputs float32 [n, I]; labels int64 [n] of ten classes, or targets float32 [n, O]."""

    X: NDArray[np.float32]
    y: NDArray[Any]
    name: str

    def __len__(self) -> int:
        return len(self.X)

    @classmethod
    def of(cls, work: Work, samples: int, mnist: str | None) -> Self:
        """Return the first samples of MNIST's training set in a folder, or some made here."""
        if not work.is_classifier:
            return cls._function(work)
        if mnist is None:
            X, y = synthetic(samples)
            name = "synthetic data of MNIST's shape"
        else:
            data = fm.datasets.load_mnist(mnist)
            X, y, name = data.X_train[:samples], data.y_train[:samples], "MNIST"
        if work.dense:
            X, name = np.maximum(X, np.float32(2**-10)), f"{name}, zeros made 2**-10"
        return cls(X, y, name)

    @classmethod
    def _function(cls, work: Work) -> Self:
        """Sines of sums of the inputs, which are uniform in [-1, 1)."""
        rng = np.random.default_rng(0)
        X = rng.uniform(-1.0, 1.0, (work.batch_size, work.sizes[0])).astype(np.float32)
        mix = rng.normal(size=(work.sizes[0], work.sizes[-1])).astype(np.float32)
        return cls(X, np.sin(2.0 * X @ mix), "a smooth function")


@dataclass(frozen=True)
class Order:
    """The order of the samples in one epoch: the one that fastmlp draws from the seed.

    Of no concern to a full batch.
    """

    seed: int
    rows: NDArray[np.int64]

    @classmethod
    def draw(cls, samples: int, seed: int) -> Self:
        rows = np.empty(samples, np.int64)
        shuffle(rows, np.arange(samples), seed, 0, np.zeros(LENGTH, np.int64), STOP)
        return cls(seed, rows)
