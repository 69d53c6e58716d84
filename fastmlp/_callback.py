"""What every callback is: the base class, and what `fit` makes of what it is given."""

import inspect
from collections.abc import Callable
from typing import Any

from ._checks import check_number, check_whole
from .stopping import EarlyStopping
from .training import Training

__all__ = ["Callback", "as_callback"]


class Callback:
    """What all callbacks share; each method does nothing until a subclass says otherwise.

    They are called in the thread that called `fit`, with the `Training`, in the order of the list;
    ``on_train_end`` in the opposite order, for each whose ``on_train_begin`` was done, whatever
    ends the training. What one of them raises ends it too, and the caller of `fit` gets it; the
    network keeps what it has learnt.

    Attributes
    ----------
    every
        ``on_batch_end`` comes after each so many steps of the optimizer, counted over all epochs;
        None: never. With `accumulate`, a step is of several batches.
    every_seconds
        It also comes when so many seconds have passed since it came last, after the step that is
        running; None: not by time.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> class Norms(fm.callbacks.Callback):
    ...     every = 2
    ...     def on_batch_end(self, training):
    ...         print(training.epoch, training.batch, np.isfinite(training.net.theta).all())
    >>> X, y = np.eye(8, 3), np.arange(8) % 2
    >>> history = fm.fit(fm.MLP([3, 4, 2]), X, y, batch_size=2, epochs=1, callbacks=[Norms()])
    0 2 True
    0 4 True
    """

    every: int | None = None
    every_seconds: float | None = None

    def __repr__(self) -> str:
        settings = inspect.signature(type(self)).parameters
        shown = (f"{name}={getattr(self, name)!r}" for name in settings if hasattr(self, name))
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def looks_at_epochs(self) -> bool:
        """Whether the training has to come back after each epoch."""
        return type(self).on_epoch_end is not Callback.on_epoch_end

    def on_train_begin(self, training: Training) -> None:
        """Before the first step; `training.epoch` is not 0 where one is resumed."""

    def on_epoch_end(self, training: Training) -> None:
        """After an epoch, its validation and early stopping's look at it."""

    def on_batch_end(self, training: Training) -> None:
        """Between two steps, see `every`; before `on_epoch_end` if it was an epoch's last."""

    def on_train_end(self, training: Training) -> None:
        """When all is over: the network has the parameters that it keeps."""


class _Function(Callback):
    """A function that is called after each epoch."""

    def __init__(self, function: Callable[[Training], object]) -> None:
        self._function = function

    def on_epoch_end(self, training: Training) -> None:
        self._function(training)


def as_callback(value: Any) -> Callback:
    """Return the callback that is meant: one, or a function of the training.

    Raises TypeError if it is neither, ValueError if it wants to be called every 0 steps.
    """
    if isinstance(value, EarlyStopping):
        raise TypeError("callbacks has an EarlyStopping, which is none: give it as early_stopping")
    if isinstance(value, type) or not (isinstance(value, Callback) or callable(value)):
        raise TypeError(f"callbacks must have Callback objects and functions, got {value!r}")
    callback = value if isinstance(value, Callback) else _Function(value)
    if callback.every is not None:
        check_whole(callback.every, f"every of {type(callback).__name__}", 1)
    if callback.every_seconds is not None:
        name = f"every_seconds of {type(callback).__name__}"
        check_number(callback.every_seconds, name, 0.0)
    return callback
