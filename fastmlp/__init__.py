"""fastmlp: train and run multilayer perceptrons fast on the CPU, every gradient checked."""

from importlib.metadata import version

from . import datasets, io, kernels, threads
from .gradcheck import GradientCheckReport, TensorCheck, gradient_check
from .history import History
from .mlp import MLP, Evaluation, Gradient
from .optimizers import SGD, Adam, Optimizer
from .plotting import plot_history
from .training import fit

__version__ = version("fastmlp")

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "Evaluation",
    "Gradient",
    "GradientCheckReport",
    "History",
    "Optimizer",
    "TensorCheck",
    "datasets",
    "fit",
    "gradient_check",
    "io",
    "kernels",
    "plot_history",
    "threads",
]
