"""When to end training before its last epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ._checks import check_flag, check_number, check_whole
from ._names import check_name
from .history import History

if TYPE_CHECKING:
    from .mlp import MLP

__all__ = ["EarlyStopping"]

MONITORS = {"loss": -1, "accuracy": 1, "val_loss": -1, "val_accuracy": 1}
"""Series of the history, and the direction in which they get better."""


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a value has not got better for some epochs, and go back to the best weights.

    Parameters
    ----------
    monitor
        "val_loss", "val_accuracy", "loss" or "accuracy"; or a function of the network, called after
        each epoch, whose value should become small.
    patience
        Epochs without improvement that are waited for.
    min_delta
        What counts as an improvement must be more than this.
    restore_best
        Whether the network ends with the weights of the best epoch.

    Raises
    ------
    TypeError, ValueError
        If a setting is not what it should be.

    References
    ----------
    L. Prechelt, "Early stopping - but when?", in *Neural networks: tricks of the trade* (1998).

    Examples
    --------
    >>> EarlyStopping(patience=3).monitor
    'val_loss'
    """

    monitor: "str | Callable[[MLP], float]" = "val_loss"
    patience: int = 10
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.monitor, str):
            check_name(self.monitor, "monitor", MONITORS)
        elif not callable(self.monitor):
            raise TypeError(f"monitor must be a name or a function, got {self.monitor!r}")
        check_whole(self.patience, "patience", 1)
        check_number(self.min_delta, "min_delta", 0.0)
        check_flag(self.restore_best, "restore_best")


@dataclass(frozen=True)
class Patience:
    """Where a training stands with its `EarlyStopping`.

    `epochs` it has seen, `best` is the best value of them (smaller is better), `waited` the epochs
    since; `kept` has the parameters and running statistics of that epoch, if they are wanted back.
    """

    epochs: int = 0
    best: float = math.inf
    waited: int = 0
    kept: tuple[NDArray[Any], NDArray[Any]] | None = None

    def after(self, rule: EarlyStopping, net: "MLP", history: History) -> "Patience":
        """Look at the last epoch, and note in the history if it is the best."""
        value = _value(rule.monitor, net, history)
        if not value < self.best - (rule.min_delta if math.isfinite(self.best) else 0.0):
            return replace(self, epochs=len(history), waited=self.waited + 1)
        history.best_epoch = len(history)
        kept = (net.theta.copy(), net.running.copy()) if rule.restore_best else None
        return Patience(len(history), value, 0, kept)

    def restore(self, net: "MLP") -> None:
        """Give the network back what it had in the best epoch, if that is wanted."""
        if self.kept is not None:
            net.theta[...], net.running[...] = self.kept


def _value(monitor: "str | Callable[[MLP], float]", net: "MLP", history: History) -> float:
    """What is monitored after the last epoch, so that smaller is better."""
    if not isinstance(monitor, str):
        value: Any = monitor(net)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise TypeError(f"monitor must return a number, got {value!r}") from None
    series: list[float] = getattr(history, monitor)
    return -MONITORS[monitor] * series[-1]
