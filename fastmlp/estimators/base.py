"""What the classifier and the regressor share: the network, fitting and predicting."""

from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, _fit_context
from sklearn.metrics import get_scorer_names
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .._checks import check_whole
from .._schedule import Schedule
from ..activations import NAMES as ACTIVATIONS
from ..activations import Activation
from ..mlp import MLP
from ..norms import BatchNorm, LayerNorm
from ..optimizers import LBFGS, Optimizer
from .heads import Data, Head
from .lbfgs import fit_lbfgs
from .networks import continued, started
from .preset import fit_preset
from .stochastic import Problem, begin, fit_stochastic
from .tasks import CallbackSupportMixin, Tasks
from .validation import are_given
from .workers import is_short, threads_of

__all__ = ["BaseMLP"]

Array = NDArray[Any]


class BaseMLP(CallbackSupportMixin, BaseEstimator, ABC):
    """A multilayer perceptron as an estimator of scikit-learn's."""

    _own_constraints: ClassVar[dict[str, list[Any]]] = {
        "activation": [StrOptions({*ACTIVATIONS, "logistic"}), Activation, list, tuple],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"}), Optimizer],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"}), Schedule, callable],
        "dropout": [Interval(Real, 0, 1, closed="left"), list, tuple],
        "norm": [StrOptions({"batch", "layer"}), BatchNorm, LayerNorm, list, tuple, None],
        "clip_value": [Interval(Real, 0, None, closed="neither"), None],
        "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
        "clip_global_norm": [Interval(Real, 0, None, closed="neither"), None],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "callbacks": [list, tuple],
        "progress": ["boolean"],
        "n_jobs": [
            Interval(Integral, None, -1, closed="right"),
            Interval(Integral, 1, None, closed="left"),
            None,
        ],
        "preset": [StrOptions({"tabular"}), None],
        "categorical_features": [StrOptions({"from_dtype"}), "array-like", None],
    }

    @abstractmethod
    def _checked_targets(self, X: Any, y: Any, *, incremental: bool) -> tuple[Any, Array, Array]:
        """Check X and y of a fit; return X, y, and y as columns [n, outputs]."""

    @abstractmethod
    def _columns(self, y: Any) -> Array:
        """Targets like those of the fit as columns [n, outputs]."""

    @abstractmethod
    def _head(self) -> Head:
        """What the outputs mean, for the targets that were checked."""

    def _class_weight(self, y: Array, incremental: bool) -> Array | None:
        """A weight of each sample for its class, if classes have weights."""
        return None

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Fit the network to X and y.

        Parameters
        ----------
        X
            Inputs [n, features]: an array, a data frame or a sparse matrix, which is made dense.
            float32 makes a network of float32, all else one of float64.
        y
            Labels [n] or indicators [n, labels] of a classifier, numbers [n] or [n, outputs] of a
            regressor.
        sample_weight
            Weights [n] of the samples, at least 0.
        X_val, y_val, sample_weight_val
            Samples to look at after each epoch, for `validation_loss_curve_` and
            `validation_scores_`. With `early_stopping`, instead of those that it sets aside.

        Raises
        ------
        TypeError, ValueError
            If a parameter or an argument is not what it should be, or the weights do not stay
            finite.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        others: tuple[Any, Any, Any] = (None, None, None),
        *,
        incremental: bool = False,
    ) -> Self:
        if self.preset is not None:
            if incremental:
                raise ValueError(f"partial_fit is of no use to preset={self.preset!r}")
            fit_preset(self, X, y, sample_weight, others)
            return self
        if not (self.categorical_features is None or isinstance(self.categorical_features, str)):
            raise ValueError(
                f"categorical_features needs preset='tabular', got {self.categorical_features!r}"
            )
        self.__dict__.pop("encoder_", None)
        hidden = self._hidden_sizes()
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        tasks = Tasks(self, 0 if incremental else self.max_iter, X=X, y=y, metadata=metadata)

        is_first = self._is_first(incremental)
        X, y, columns = self._checked_targets(X, y, incremental=incremental)
        weight = _weight(sample_weight, X)
        of_classes = self._class_weight(y, incremental)
        if of_classes is not None:
            weight = of_classes if weight is None else weight * of_classes
        rng = check_random_state(self.random_state)
        head = self._head()
        self.n_outputs_, self.out_activation_ = columns.shape[1], head.activation
        settings = self._settings([X.shape[1], *hidden, self.n_outputs_], head)
        if is_first:
            self._adopt(started(settings, X.dtype, rng))
            self.n_layers_, self.t_ = len(hidden) + 2, 0
        else:
            self._adopt(continued(settings, self._network()))
        data = self._data(head, X, y, columns, weight)
        given = self._given(head, *others)
        threads = 1 if is_short(self.network_, len(columns)) else threads_of(self.n_jobs)
        if self.solver == "lbfgs" or isinstance(self.solver, LBFGS):
            for name, is_given in (
                ("X_val", given is not None),
                ("callbacks", self.callbacks),
                ("a schedule as learning_rate", not isinstance(self.learning_rate, str)),
            ):
                if is_given:
                    raise ValueError(f"{name} is of no use to the solver lbfgs")
            fit_lbfgs(self, head, data, threads)
        else:
            if is_first or not hasattr(self, "_best"):
                begin(self)
            fit_stochastic(self, Problem(head, data, given, rng, threads), tasks, incremental)
        tasks.end()
        return self

    def _is_first(self, incremental: bool) -> bool:
        """Whether a fit forgets what the one before has learnt."""
        return not hasattr(self, "coefs_") or not (self.warm_start or incremental)

    def _hidden_sizes(self) -> list[int]:
        """`hidden_layer_sizes`, which may be one number."""
        given = np.atleast_1d(np.array(self.hidden_layer_sizes, dtype=object)).tolist()
        hidden = [
            check_whole(size, f"hidden_layer_sizes[{i}]", -(2**31)) for i, size in enumerate(given)
        ]
        if min(hidden, default=1) <= 0:
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        return hidden

    def _settings(self, sizes: list[int], head: Head) -> dict[str, Any]:
        """The arguments of the network."""
        return {
            "layer_sizes": sizes,
            "activation": _names(self.activation),
            "loss": head.loss,
            "dropout": self.dropout,
            "norm": self.norm,
        }

    def _adopt(self, net: MLP) -> None:
        self.network_ = net
        self.coefs_, self.intercepts_ = list(net.weights), list(net.biases)

    def _network(self) -> MLP:
        """The network, with the arrays that somebody may have put into `coefs_`."""
        if not hasattr(self, "network_"):  # all of it was put there by hand
            sizes = [len(self.coefs_[0]), *(w.shape[1] for w in self.coefs_)]
            self.network_ = MLP(
                **self._settings(sizes, self._head()), dtype=np.result_type(*self.coefs_)
            )
        net = self.network_
        for own, shown in ((net.weights, self.coefs_), (net.biases, self.intercepts_)):
            for layer, view in enumerate(own):
                if shown[layer] is not view:
                    view[...] = shown[layer]
                    shown[layer] = view
        return net

    def _data(self, head: Head, X: Any, y: Array, columns: Array, weight: Array | None) -> Data:
        net = self.network_
        return Data(net._checked(X, head.targets(columns, net.dtype), weight), columns, y)

    def _given(self, head: Head, X: Any, y: Any, weight: Any) -> Data | None:
        """The samples of `fit` to validate on, if there are any."""
        if not are_given(X, y, weight):
            return None
        X, y = validate_data(self, X, y, reset=False, **self._options)
        return self._data(head, X, y, self._columns(y), _weight(weight, X))

    def _outputs(self, X: Any, softmax: bool = False) -> Array:
        """Outputs [n, O] of the network before their activation, or after softmax."""
        check_is_fitted(self)
        if hasattr(self, "encoder_"):
            X = self.encoder_.transform(X)
        else:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        return self._network()._predictor(X, softmax, threads_of(self.n_jobs))

    def _is_stochastic(self) -> bool:
        if self.solver == "lbfgs" or isinstance(self.solver, LBFGS):
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

    def __getstate__(self) -> dict[str, Any]:
        if "network_" in self.__dict__:
            self._network()
        state: dict[str, Any] = dict(super().__getstate__())
        for name in ("coefs_", "intercepts_"):
            state.pop(name, None)  # views of the network's parameters
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "network_" in self.__dict__:
            self._adopt(self.network_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _weight(weight: Any, X: Any) -> Array | None:
    if weight is None:
        return None
    checked: Array = _check_sample_weight(weight, X, dtype=np.float64, ensure_non_negative=True)
    return checked


def _names(activation: Any) -> Any:
    """scikit-learn's "logistic" is our "sigmoid"."""
    if isinstance(activation, (list, tuple)):
        return [_names(one) for one in activation]
    return "sigmoid" if activation == "logistic" else activation
