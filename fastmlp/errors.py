"""What can go wrong while training, beyond bad arguments."""

from typing import Any

from .history import History

__all__ = ["DivergenceError"]


class DivergenceError(ArithmeticError):
    """The loss, or the parameters, were not finite any more; training ended there.

    The network keeps its last finite parameters: those before the step that failed, or, where
    that step's predecessor had spoilt them, those of the last epoch that was looked at.

    Attributes
    ----------
    epoch, step
        Where it was seen, counted from 1; the step within the epoch. A step that spoils the
        parameters is seen at the next one, the last of some epochs when those are over.
    layer
        The first layer whose sums were not finite, counted from 1.
    history
        The epochs before.
    """

    def __init__(self, epoch: int, step: int, layer: int, history: History) -> None:
        super().__init__(
            f"training diverged in epoch {epoch}, step {step}: layer {layer} is the first whose "
            "values are not finite. The network keeps its last finite parameters. Try a smaller "
            "learning_rate, clip_global_norm, or inputs and targets of mean 0 and variance 1"
        )
        self.epoch, self.step, self.layer, self.history = epoch, step, layer, history

    def __reduce__(self) -> tuple[Any, ...]:
        return DivergenceError, (self.epoch, self.step, self.layer, self.history)
