"""What a loader returns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


# Arrays have no single truth value, so that a generated __eq__ would raise: compare by identity.
@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples and labels of a classification task, split for training and testing.

    With n training samples, m test samples, I features and K classes:

    Attributes
    ----------
    X_train : float32 array of shape (n, I)
        Training samples, one a row. For images: the pixels row by row, 0 to 1.
    y_train : int64 array of shape (n,)
        Their labels, 0 to K-1: indices into ``class_names``.
    X_test : float32 array of shape (m, I)
        Test samples.
    y_test : int64 array of shape (m,)
        Their labels.
    class_names : tuple of str, length K
        What each label stands for.
    name : str
        The data set's name.

    Examples
    --------
    >>> from fastmlp.datasets import load_mnist157
    >>> load_mnist157()
    <Dataset mnist157: 18428 training and 3055 test samples, 784 features, classes 1, 5, 7>
    """

    X_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]
    name: str

    def __repr__(self) -> str:
        return (
            f"<Dataset {self.name}: {len(self.X_train)} training and {len(self.X_test)} test "
            f"samples, {self.X_train.shape[1]} features, classes {', '.join(self.class_names)}>"
        )
