"""fastmlp: train and run multilayer perceptrons fast on the CPU, every gradient checked."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._collector import paused

with paused():
    from . import activations, initializers, kernels, losses, threads
    from .activations import Activation
    from .errors import DivergenceError
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
    from .stopping import EarlyStopping
    from .training import fit

if TYPE_CHECKING:
    from . import callbacks, checkpoints, datasets, exchange, io, schedules, tabular
    from .callbacks import (
        Callback,
        CSVLogger,
        JSONLinesLogger,
        LearningRateMonitor,
        TargetReached,
        TensorBoard,
        TimeLimit,
    )
    from .checkpoints import Checkpoint, resume
    from .cost import Complexity, LayerCost, complexity
    from .curvature import (
        DescentReport,
        Smoothness,
        hessian_vector_product,
        smoothness,
        verify_descent,
    )
    from .diagnostics import FlowRecorder, GradientFlow, LayerFlow, explore_flow, gradient_flow
    from .estimators import MLPClassifier, MLPRegressor
    from .gradcheck import (
        GradientCheckReport,
        TensorCheck,
        gradient_check,
        hessian_check,
        optimizer_check,
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
    from .tabular_encoder import TabularEncoder

    __version__: str

__all__ = [
    "LBFGS",
    "MLP",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "BatchNorm",
    "CSVLogger",
    "Callback",
    "Checkpoint",
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
    "JSONLinesLogger",
    "LayerCost",
    "LayerFlow",
    "LayerNorm",
    "LayerValues",
    "LearningRateMonitor",
    "Loss",
    "MLPClassifier",
    "MLPRegressor",
    "NAdam",
    "Optimizer",
    "RMSProp",
    "Smoothness",
    "TabularEncoder",
    "TargetReached",
    "TensorBoard",
    "TensorCheck",
    "TimeLimit",
    "activations",
    "callbacks",
    "checkpoints",
    "complexity",
    "datasets",
    "exchange",
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
    "resume",
    "schedules",
    "smoothness",
    "tabular",
    "threads",
    "verify_descent",
]

# Neither training nor prediction needs these, and they would double what `import fastmlp` takes
# beyond `import numba`: they are imported when somebody asks for them.
_MODULES = {
    *("callbacks", "checkpoints", "cost", "curvature", "datasets", "diagnostics", "estimators"),
    *("exchange", "gradcheck", "io", "plotting", "schedules", "tabular"),
}
_HOMES = {
    **dict.fromkeys(("CSVLogger", "Callback", "JSONLinesLogger", "TensorBoard"), "callbacks"),
    **dict.fromkeys(("LearningRateMonitor", "TargetReached", "TimeLimit"), "callbacks"),
    **dict.fromkeys(("Checkpoint", "resume"), "checkpoints"),
    **dict.fromkeys(("Complexity", "LayerCost", "complexity"), "cost"),
    **dict.fromkeys(("DescentReport", "Smoothness"), "curvature"),
    **dict.fromkeys(("hessian_vector_product", "smoothness", "verify_descent"), "curvature"),
    **dict.fromkeys(("FlowRecorder", "GradientFlow", "LayerFlow"), "diagnostics"),
    **dict.fromkeys(("explore_flow", "gradient_flow"), "diagnostics"),
    **dict.fromkeys(("GradientCheckReport", "TensorCheck"), "gradcheck"),
    **dict.fromkeys(("MLPClassifier", "MLPRegressor"), "estimators"),
    **dict.fromkeys(("gradient_check", "hessian_check", "optimizer_check"), "gradcheck"),
    "TabularEncoder": "tabular_encoder",
    **{name: "plotting" for name in __all__ if name.startswith("plot_")},
}


def __getattr__(name: str) -> Any:
    """Import what belongs to the name; it is an ordinary attribute from then on (PEP 562)."""
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    elif name == "__version__":
        from importlib.metadata import version

        value = version(__name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, "__version__"})
