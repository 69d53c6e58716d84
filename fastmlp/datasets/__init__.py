"""Data sets for examples and tests: MNIST, and its digits 1, 5 and 7, which come with the package.

Needs NumPy only; downloading all of MNIST needs the extra ``data``.
"""

from fastmlp.datasets._dataset import Dataset
from fastmlp.datasets._mnist import load_mnist, load_mnist157

__all__ = ["Dataset", "load_mnist", "load_mnist157"]
