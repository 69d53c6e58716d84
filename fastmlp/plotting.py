"""Plots of training runs; needs the extra ``plot`` (matplotlib)."""

import os
from typing import TYPE_CHECKING

from fastmlp.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_history"]


def plot_history(history: History, path: str | os.PathLike[str] | None = None) -> "Figure":
    """Draw the loss and, for a classifier, the accuracy over the epochs.

    The figure is made without pyplot: it needs no display, touches no global state and need not
    be closed.

    Parameters
    ----------
    history
        The run to draw.
    path
        Image file to write; its ending chooses the format, such as ``.png``, ``.svg`` or ``.pdf``.
        None writes nothing.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, to change or to save again.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError
        Matplotlib does not know the format that the ending of `path` names.
    OSError
        `path` cannot be written.

    Examples
    --------
    >>> from fastmlp import History
    >>> from fastmlp.plotting import plot_history
    >>> history = History(loss=[0.5, 0.3], accuracy=[0.8, 0.9])
    >>> [axes.get_ylabel() for axes in plot_history(history).axes]
    ['loss', 'accuracy']
    """
    figure = new_figure()
    panels = [("loss", history.loss, history.val_loss)]
    if history.accuracy:
        panels.append(("accuracy", history.accuracy, history.val_accuracy))
    figure.set_size_inches(4.5 * len(panels), 3.2)
    grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, (name, train, validation) in zip(grid[0], panels, strict=True):
        _draw(axes, name, train, validation)
    if path is not None:
        figure.savefig(path)
    return figure


def new_figure() -> "Figure":
    """Return an empty matplotlib figure, or raise ImportError with the command that installs it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "fastmlp[plot]"') from error
    return Figure(layout="constrained", dpi=150)


def _draw(axes: "Axes", name: str, train: list[float], validation: list[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    for label, values in (("training", train), ("validation", validation)):
        if values:
            axes.plot(range(1, len(values) + 1), values, marker=".", label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if validation:
        axes.legend()
