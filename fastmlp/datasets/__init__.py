"""Data sets, and samples from files.

MNIST, and its digits 1, 5 and 7, which come with the package; `read` for tables, arrays and
folders. Needs NumPy only; downloading all of MNIST needs the extra ``data``, Parquet the extra
``parquet``.
"""

from fastmlp.datasets._dataset import Dataset
from fastmlp.datasets._mnist import load_mnist, load_mnist157
from fastmlp.datasets._read import read, read_features
from fastmlp.datasets._samples import Samples, Source

__all__ = [
    "Dataset",
    "Samples",
    "Source",
    "load_mnist",
    "load_mnist157",
    "read",
    "read_features",
]
