"""scikit-learn's own callbacks: what they are told of a fit and its epochs."""

import copy
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn before 1.9 has no callbacks

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""


__all__ = ["CallbackSupportMixin", "Tasks"]


class Tasks:
    """The fit of an estimator as a task of scikit-learn's callbacks, and each epoch as one in it.

    Without callbacks (`estimator.set_callbacks`) it does next to nothing, and nothing at all with
    no epochs: a `partial_fit` is no task.
    """

    def __init__(self, estimator: Any, epochs: int, **arguments: Any) -> None:
        self._estimator, self._arguments = estimator, arguments
        self._fit: Any = None
        self._epoch: Any = None
        if epochs and hasattr(estimator, "_init_callback_context"):
            self._fit = estimator._init_callback_context(max_subtasks=epochs)
            self._fit.call_on_fit_task_begin(estimator=estimator, **arguments)
        self._has_callbacks = hasattr(estimator, "_skl_callbacks")

    def begin_epoch(self) -> None:
        """Tell that an epoch begins."""
        if self._fit is not None and self._has_callbacks:
            self._epoch = self._fit.subcontext(task_name="epoch")
            self._epoch.call_on_fit_task_begin(
                estimator=self._estimator,
                reconstruction_attributes=self._snapshot,
                **self._arguments,
            )

    def end_epoch(self) -> bool:
        """Tell that the epoch is over; return whether a callback wants to stop."""
        return self._epoch is not None and self._end(self._epoch)

    def end(self) -> None:
        """Tell that the fit is over."""
        if self._fit is not None:
            self._end(self._fit)

    def _end(self, context: Any) -> bool:
        stops: bool = context.call_on_fit_task_end(
            estimator=self._estimator, reconstruction_attributes=self._snapshot, **self._arguments
        )
        return stops

    def _snapshot(self) -> dict[str, Any]:
        """What makes a copy of the estimator one that is fitted as it is now."""
        net = copy.deepcopy(self._estimator.network_)
        return {"network_": net, "coefs_": list(net.weights), "intercepts_": list(net.biases)}
