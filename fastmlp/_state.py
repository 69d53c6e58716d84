"""Where a training stands: all that it has to know to go on as if it had never stopped."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .history import History
from .optimizers import Optimizer, moment_vectors
from .stopping import Patience

if TYPE_CHECKING:
    from .mlp import MLP

__all__ = ["Position", "TrainingState", "initial"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Position:
    """How far a training is, always between two steps.

    Attributes
    ----------
    epochs
        Epochs that are finished, their validation included.
    steps
        Steps of the optimizer that are finished, in those and in the running epoch.
    samples
        Samples of the running epoch whose step is finished; all of them where only its validation
        is left to do.
    sums
        Loss, right answers and weight of those samples, added up in the order of the steps.
    learning_rate
        That of the last step.
    """

    epochs: int = 0
    steps: int = 0
    samples: int = 0
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    learning_rate: float = 0.0


@dataclass(frozen=True, eq=False)
class TrainingState:
    """A training between two steps: with the data and its settings, it decides all that follows.

    `training.train` returns one, and goes on from one. Shuffles are functions of seed and epoch,
    dropout's masks of seed and step, so no generator has to be kept. A schedule is a function of
    the step and, like `ReduceOnPlateau`, of the history.

    Attributes
    ----------
    theta
        The parameters that the optimizer changes, in the layout of `MLP.theta`. With averaging,
        the network has `average` instead.
    running
        Batch norm's statistics, in the layout of `MLP.running`.
    first, second, average
        The optimizer's moments and the averaged parameters, in the layout of `theta`; empty where
        there is none.
    position
        How far it is.
    patience
        What early stopping has seen.
    history
        Of the finished epochs.
    """

    theta: Array
    running: Array
    first: Array
    second: Array
    average: Array
    position: Position
    patience: Patience
    history: History


def initial(net: "MLP", optimizer: Optimizer | None, averages: bool) -> TrainingState:
    """The state before the first step; some of its vectors are the network's own."""
    empty = net.theta[:0]
    first, second = moment_vectors(optimizer, net.theta) if optimizer else (empty, empty)
    average = net.theta if averages else empty
    return TrainingState(
        net.theta, net.running, first, second, average, Position(), Patience(), History()
    )
