"""Plots of training runs, networks and data; needs the extra ``plot`` (matplotlib).

The figures are made without pyplot: they need no display, touch no global state and need not be
closed. Every function here takes `path`, an image file to write, whose ending chooses the format,
such as ``.png``, ``.svg`` or ``.pdf`` (None writes nothing), and returns the
`matplotlib.figure.Figure`, to change or to save again; notebooks show it. Every one raises
ImportError if matplotlib is not installed, ValueError if it does not know the format, and OSError
if `path` cannot be written.
"""

import math
import os
import reprlib
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import check_path, check_sequence, check_whole
from ._files import replace_file
from .activations import NAMES, Activation, resolve
from .diagnostics import FlowRecorder, GradientFlow
from .history import History
from .mlp import MLP, check_network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "plot_activations",
    "plot_confusion_matrix",
    "plot_curvature",
    "plot_first_layer",
    "plot_gradient_flow",
    "plot_history",
    "plot_samples",
]

Array = NDArray[Any]
Path = str | os.PathLike[str] | None
PANEL = 4.5, 3.2  # inches


def plot_history(history: History, path: Path = None) -> "Figure":
    """Draw the loss and, for a classifier, the accuracy over the epochs.

    Parameters
    ----------
    history
        The run to draw.

    Examples
    --------
    >>> from fastmlp import History
    >>> history = History(loss=[0.5, 0.3], accuracy=[0.8, 0.9])
    >>> [axes.get_ylabel() for axes in plot_history(history).axes]
    ['loss', 'accuracy']
    """
    if not isinstance(history, History):
        raise TypeError(f"history must be a History, got {type(history).__name__}")
    panels = [("loss", history.loss, history.val_loss)]
    if history.accuracy:
        panels.append(("accuracy", history.accuracy, history.val_accuracy))
    figure, grid = _panels(len(panels))
    for axes, (name, *curves) in zip(grid, panels, strict=True):
        for label, values in zip(("training", "validation"), curves, strict=True):
            if values:
                axes.plot(range(1, len(values) + 1), values, marker=".", label=label)
        _finish(axes, "epoch", name)
        if curves[1]:
            axes.legend()
    return _written(figure, path)


def plot_activations(
    activation: str | Activation | Sequence[str | Activation] = NAMES, path: Path = None
) -> "Figure":
    """Draw activation functions f(z) and their derivatives f'(z) for z from -4 to 4.

    The values are those that a float64 network computes.

    Parameters
    ----------
    activation
        One or several, as in `MLP`.

    Raises
    ------
    TypeError, ValueError
        If one is neither a name nor an `Activation`.

    Examples
    --------
    >>> figure = plot_activations(["tanh", "relu"])
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['tanh', 'relu']
    """
    given = [activation] if isinstance(activation, (str, Activation)) else activation
    functions = resolve(given, len(check_sequence(given, "activation")))
    figure, grid = _panels(2)
    z = np.linspace(-4.0, 4.0, 401)
    for number, function in enumerate(functions):
        style = ("-", "--", ":")[number // 10 % 3]  # colours repeat after ten
        for axes, values in zip(grid, _function_and_derivative(function, z), strict=True):
            axes.plot(z, values, style, label=str(function))
    for axes, name in zip(grid, ("f(z)", "f'(z)"), strict=True):
        _finish(axes, "z", name)
    figure.legend(handles=grid[0].lines, loc="outside right center")
    return _written(figure, path)


def plot_samples(
    X: ArrayLike, shape: Sequence[int], labels: Sequence[Any] | None = None, path: Path = None
) -> "Figure":
    """Draw samples as images, row by row, with their labels above them.

    Parameters
    ----------
    X
        The samples [n, height width]. Black is the least of all numbers, white the largest.
    shape
        (height, width).
    labels
        What to write above each of the n images.

    Raises
    ------
    TypeError, ValueError
        If X is not such an array or there are not n labels.

    Examples
    --------
    >>> import fastmlp as fm
    >>> data = fm.datasets.load_mnist157()
    >>> names = [data.class_names[label] for label in data.y_test[:3]]
    >>> figure = plot_samples(data.X_test[:3], (28, 28), names)
    >>> len(figure.axes)
    3
    """
    images = _as_images(X, shape, "X")
    titles = None if labels is None else check_sequence(labels, "labels")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"labels must be {len(images)}, one for each sample, got {len(titles)}")
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    figure = new_figure()
    figure.set_size_inches(0.9 * columns, (0.9 if titles is None else 1.15) * rows)
    for i, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(image, cmap="gray", vmin=images.min(), vmax=images.max())
        axes.set_axis_off()
        if titles is not None:
            axes.set_title(str(titles[i]), fontsize=9)
    return _written(figure, path)


def plot_confusion_matrix(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    class_names: Sequence[str] | None = None,
    path: Path = None,
) -> "Figure":
    """Draw how many samples of each class (rows) were taken for each class (columns).

    Parameters
    ----------
    y_true, y_pred
        The labels [n] and what a network predicted, 0 to K - 1.
    class_names
        Names of the K classes; None: the labels, up to the largest.

    Raises
    ------
    TypeError, ValueError
        If the labels are not integers, not equally many, or more than the names.

    Examples
    --------
    >>> figure = plot_confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], ["no", "yes"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '1', '0', '2']
    """
    true, predicted = _as_labels(y_true, "y_true"), _as_labels(y_pred, "y_pred")
    if len(true) != len(predicted):
        raise ValueError(f"y_pred must have {len(true)} labels as y_true, got {len(predicted)}")
    largest = int(max(true.max(), predicted.max()))
    class_names = check_sequence(
        range(largest + 1) if class_names is None else class_names, "class_names"
    )
    if largest >= len(class_names):
        raise ValueError(f"class_names must name the label {largest}, got {len(class_names)} names")
    counts = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(counts, (true, predicted), 1)
    figure, (axes,) = _panels(1)
    size = max(PANEL[1], 0.45 * len(class_names) + 1)
    figure.set_size_inches(size, size)
    axes.imshow(counts, cmap="Blues")
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if count > counts.max() / 2 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=color)
    axes.set_xticks(range(len(class_names)), class_names)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return _written(figure, path)


def plot_first_layer(net: MLP, shape: Sequence[int], path: Path = None) -> "Figure":
    """Draw the weights of each unit of the first layer as an image, row by row.

    Blue is negative, white zero, red positive; the scale is the same for all.

    Parameters
    ----------
    net
        A network whose inputs are images.
    shape
        (height, width), whose product is the number of inputs.

    Raises
    ------
    TypeError, ValueError
        If net is no MLP or its inputs have not that shape.

    Examples
    --------
    >>> import fastmlp as fm
    >>> figure = plot_first_layer(fm.MLP([28 * 28, 10, 3]), (28, 28))
    >>> figure.axes[0].images[0].get_array().shape
    (87, 116)
    """
    check_network(net)
    images = _as_images(net.weights[0].T, shape, "net.weights[0].T")
    units, height, width = images.shape
    columns = math.ceil(math.sqrt(units))
    rows = math.ceil(units / columns)
    # one picture with lines of NaN, which are not drawn, between the images
    picture = np.full((rows, height + 1, columns, width + 1), np.nan)
    for i, image in enumerate(images):
        picture[i // columns, :height, i % columns, :width] = image
    picture = picture.reshape(rows * (height + 1), columns * (width + 1))
    figure, (axes,) = _panels(1)
    figure.set_size_inches(7.0, max(7.0 * picture.shape[0] / picture.shape[1], 1.0))
    limit = float(np.abs(images).max()) or 1.0
    shown = axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_axis_off()
    figure.colorbar(shown, ax=axes)
    return _written(figure, path)


def plot_gradient_flow(
    flows: FlowRecorder | GradientFlow | Sequence[GradientFlow], path: Path = None
) -> "Figure":
    """Draw the root mean squares of activations, deltas and weight gradients over the layers.

    One line for each flow, from the first (dark) to the last (light); with a `FlowRecorder`, also
    the relative updates of the weights.

    Parameters
    ----------
    flows
        One flow or several, of networks of one depth, or a recorder of them.

    Raises
    ------
    TypeError, ValueError
        If these are no flows, or none.

    Examples
    --------
    >>> import fastmlp as fm
    >>> figure = plot_gradient_flow(fm.explore_flow(10, activation="sigmoid"))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['activation', 'delta', 'weight gradient']
    """
    if isinstance(flows, FlowRecorder):
        flows = flows.flows
    given = [flows] if isinstance(flows, GradientFlow) else check_sequence(flows, "flows")
    if not given:
        raise ValueError("flows must hold at least one GradientFlow")
    for flow in given:
        if not isinstance(flow, GradientFlow):
            raise TypeError(f"flows must be of GradientFlow, got {type(flow).__name__}")
    names = ["activation", "delta", "weight_gradient"]
    if any(layer.relative_update is not None for flow in given for layer in flow.layers):
        names.append("relative_update")
    figure, grid = _panels(len(names))
    colors = _colors(len(given))
    for axes, name in zip(grid, names, strict=True):
        axes.set_yscale("log", nonpositive="mask")
        for i, flow in enumerate(given):
            values = np.array([getattr(layer, name) for layer in flow.layers], np.float64)
            label = {0: "first", len(given) - 1: "last"}.get(i)
            layers = range(1, len(values) + 1)
            axes.plot(layers, values, marker=".", color=colors[i], label=label)
        _finish(axes, "layer", name.replace("_", " "))
    if len(given) > 1:
        grid[0].legend()
    return _written(figure, path)


def plot_curvature(
    epochs: ArrayLike, eigenvalues: ArrayLike, step: ArrayLike, path: Path = None
) -> "Figure":
    """Draw the largest eigenvalue of the Hessian along a training, and the step it allows.

    Near a minimum, gradient descent is stable where its step is below 2 / eigenvalue [1]_; the
    second panel compares the two.

    Parameters
    ----------
    epochs
        When the eigenvalues [n] were measured.
    eigenvalues
        The largest ones [n]; where it is not positive, any step is stable.
    step
        The step size (learning rate): one number, or one for each epoch [n].

    Raises
    ------
    TypeError, ValueError
        If the arrays are not of numbers, or not of one length.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller: Efficient BackProp. 1998; and J. M. Cohen
       et al.: Gradient descent on neural networks typically occurs at the edge of stability.
       ICLR 2021.

    Examples
    --------
    >>> figure = plot_curvature([0, 1, 2], [5.0, 10.0, 19.0], 0.1)
    >>> [line.get_label() for line in figure.axes[1].lines]
    ['2 / eigenvalue', 'step']
    """
    at = _as_numbers(epochs, "epochs")
    largest = _as_numbers(eigenvalues, "eigenvalues")
    steps = _as_numbers(np.broadcast_to(step, at.shape) if np.ndim(step) == 0 else step, "step")
    for values, name in ((largest, "eigenvalues"), (steps, "step")):
        if values.shape != at.shape:
            raise ValueError(
                f"{name} must have shape {at.shape} to match epochs, got {values.shape}"
            )
    figure, (left, right) = _panels(2)
    left.plot(at, largest, marker=".")
    allowed = np.divide(2.0, largest, out=np.full(at.shape, np.nan), where=largest > 0)
    right.plot(at, allowed, marker=".", label="2 / eigenvalue")
    right.plot(at, steps, "--", label="step")
    right.legend()
    _finish(left, "epoch", "largest eigenvalue")
    _finish(right, "epoch", "step")
    return _written(figure, path)


def new_figure() -> "Figure":
    """Return an empty matplotlib figure, or raise ImportError with the command that installs it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "fastmlp[plot]"') from error

    class Picture(Figure):
        """A figure that a notebook shows, though pyplot does not know it."""

        def _repr_png_(self) -> bytes:
            buffer = BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Picture(layout="constrained", dpi=150)


def _panels(count: int) -> "tuple[Figure, list[Axes]]":
    """Return a figure with panels side by side."""
    figure = new_figure()
    figure.set_size_inches(PANEL[0] * count, PANEL[1])
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _finish(axes: "Axes", x: str, y: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _colors(count: int) -> Array:
    """Return colours [count, 4] from dark to light."""
    from matplotlib import colormaps

    colors: Array = colormaps["viridis"](np.linspace(0.0, 0.9, count))
    return colors


def image_format(path: str | os.PathLike[str]) -> str:
    """Return the format that an image's ending asks for; ValueError if matplotlib has none."""
    path = check_path(path)
    ending = os.path.splitext(path)[1].lower().removeprefix(".")
    known = new_figure().canvas.get_supported_filetypes()
    if ending not in known:
        raise ValueError(
            f"an image must end in {', '.join(f'.{name}' for name in known)}, got {path}"
        )
    return ending


def _written(figure: "Figure", path: Path) -> "Figure":
    if path is not None:
        image = BytesIO()
        figure.savefig(image, format=image_format(path))
        replace_file(path, image.getvalue())
    return figure


def _function_and_derivative(function: Activation, z: Array) -> tuple[Array, Array]:
    """f(z) and f'(z) [n]: outputs of a network of one unit, and their gradient by its inputs."""
    net = MLP(
        [1, 1, 1],
        activation=function,
        loss="half_squared_error",
        initializer=np.ones((1, 1)),
        dtype="float64",
    )
    inputs = z[:, np.newaxis]
    a = net.decision_function(inputs)
    slopes = len(z) * net.input_gradient(inputs, a - 1.0)  # the loss of each sample has slope 1
    return a[:, 0], slopes[:, 0]


def _as_images(values: ArrayLike, shape: Sequence[int], name: str) -> Array:
    """Return the rows of `values` [n, height width] as images [n, height, width]."""
    size = check_sequence(shape, "shape")
    if len(size) != 2:
        raise ValueError(f"shape must be (height, width), got {shape!r}")
    height, width = (check_whole(side, f"shape[{i}]", 1) for i, side in enumerate(size))
    array = _as_numbers(values, name, 2)
    if len(array) == 0 or array.shape[1] != height * width:
        raise ValueError(
            f"{name} must have shape (n, {height * width}) for images of {height} x {width}, "
            f"got {array.shape}"
        )
    return array.reshape(-1, height, width)


def _as_labels(values: ArrayLike, name: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iub":
        raise TypeError(f"{name} must be integer labels, got dtype {array.dtype}")
    if array.ndim != 1 or len(array) == 0 or array.min() < 0:
        raise ValueError(f"{name} must be labels [n] of at least 0, got {reprlib.repr(values)}")
    return array.astype(np.int64)


def _as_numbers(values: ArrayLike, name: str, dimensions: int = 1) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}")
    if array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, got shape {array.shape}")
    return array.astype(np.float64)
