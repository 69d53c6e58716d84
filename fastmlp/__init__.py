"""fastmlp: train and run multilayer perceptrons fast on the CPU, every gradient checked."""

from importlib.metadata import version

from . import activations, datasets, initializers, io, kernels, losses, schedules, threads
from .activations import Activation
from .cost import Complexity, LayerCost, complexity
from .curvature import (
    DescentReport,
    Smoothness,
    hessian_vector_product,
    smoothness,
    verify_descent,
)
from .diagnostics import FlowRecorder, GradientFlow, LayerFlow, explore_flow, gradient_flow
from .errors import DivergenceError
from .gradcheck import (
    GradientCheckReport,
    TensorCheck,
    gradient_check,
    hessian_check,
    optimizer_check,
)
from .history import History
from .losses import Loss
from .mlp import MLP, Evaluation, Gradient, LayerValues
from .norms import BatchNorm, LayerNorm
from .optimizers import (
    LBFGS,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    GradientDescent,
    NAdam,
    Optimizer,
    RMSProp,
)
from .plotting import (
    plot_activations,
    plot_confusion_matrix,
    plot_curvature,
    plot_first_layer,
    plot_gradient_flow,
    plot_history,
    plot_samples,
)
from .stopping import EarlyStopping
from .training import fit

__version__ = version("fastmlp")

__all__ = [
    "LBFGS",
    "MLP",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "BatchNorm",
    "Complexity",
    "DescentReport",
    "DivergenceError",
    "EarlyStopping",
    "Evaluation",
    "FlowRecorder",
    "Gradient",
    "GradientCheckReport",
    "GradientDescent",
    "GradientFlow",
    "History",
    "LayerCost",
    "LayerFlow",
    "LayerNorm",
    "LayerValues",
    "Loss",
    "NAdam",
    "Optimizer",
    "RMSProp",
    "Smoothness",
    "TensorCheck",
    "activations",
    "complexity",
    "datasets",
    "explore_flow",
    "fit",
    "gradient_check",
    "gradient_flow",
    "hessian_check",
    "hessian_vector_product",
    "initializers",
    "io",
    "kernels",
    "losses",
    "optimizer_check",
    "plot_activations",
    "plot_confusion_matrix",
    "plot_curvature",
    "plot_first_layer",
    "plot_gradient_flow",
    "plot_history",
    "plot_samples",
    "schedules",
    "smoothness",
    "threads",
    "verify_descent",
]
