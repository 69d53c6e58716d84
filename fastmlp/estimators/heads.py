"""What the outputs of a network mean: their loss, their score, and how a loss is reported."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy
from sklearn.metrics import r2_score

from .._execution import Batch
from ..losses import Loss

__all__ = ["Data", "Head"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Data:
    """Samples twice: as the kernels take them, and with the targets that the user gave."""

    batch: Batch
    columns: Array
    """Targets [n, outputs]: bool of a classifier."""
    y: Array

    def take(self, rows: NDArray[np.int64]) -> "Data":
        """Some of the samples."""
        return Data(self.batch.take(rows), self.columns[rows], self.y[rows])

    @property
    def weight(self) -> Array | None:
        """The samples' weights, None if there are none."""
        weights = self.batch.weights
        return weights[self.batch.chosen] if len(weights) else None


@dataclass(frozen=True)
class Head:
    """The output activation, by scikit-learn's name, and the loss of what comes before it."""

    activation: str
    loss: Loss

    def targets(self, columns: Array, dtype: np.dtype[Any]) -> Array:
        """Columns of targets as the loss takes them."""
        if self.activation == "softmax":
            labels: Array = columns.argmax(axis=1)
            return labels
        return columns.astype(dtype)

    def scale(self, outputs: int) -> float:
        """Factor on a loss: scikit-learn means squared errors over the outputs, steps do not."""
        return 1.0 / outputs if self.loss.name == "half_squared_error" else 1.0

    def offset(self, data: Data) -> float:
        """What scikit-learn adds to a loss: the terms of the Poisson deviance that have y alone."""
        if self.loss.name != "poisson":
            return 0.0
        y = data.columns.astype(np.float64)
        return float(np.average(xlogy(y, y) - y, axis=0, weights=data.weight).sum())

    def score(self, z: Array, data: Data) -> float:
        """Accuracy, or R² of the predictions, from the outputs before their activation."""
        if not np.isfinite(z).all():
            return float("nan")
        columns = data.columns
        if self.activation in ("softmax", "logistic"):
            if self.activation == "softmax":
                right = z.argmax(axis=1) == columns.argmax(axis=1)
            else:
                right = ((z > 0) == columns).all(axis=1)
            return float(np.average(right, weights=data.weight))
        with np.errstate(over="ignore", invalid="ignore"):  # just before it diverges
            predictions = np.exp(z) if self.activation == "exp" else z
            return float(r2_score(columns, predictions, sample_weight=data.weight))
