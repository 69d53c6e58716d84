"""The regressor: one target or several."""

from typing import Any, ClassVar, Self

import numpy as np
import sklearn.neural_network
from numpy.typing import NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from ..losses import Loss
from .base import BaseMLP
from .heads import Head

__all__ = ["MLPRegressor"]

Array = NDArray[Any]
LOSSES = ("squared_error", "poisson", "huber", "absolute_error", "pinball")


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multilayer perceptron in the place of scikit-learn's `MLPRegressor`.

    The same parameters mean the same: with the same `random_state` it begins with the same weights,
    takes the samples in the same order and makes the same steps, up to rounding. More of them are
    behind scikit-learn's.

    It minimises the mean loss of a batch, a sum over the outputs, plus alpha / 2 sum W**2 over the
    batch's sum of weights. `loss_` reports squared errors as scikit-learn does, as means over the
    outputs; all solvers minimise their sum.

    Parameters
    ----------
    loss
        "squared_error" (half of it) and "poisson" as scikit-learn's; "huber", "absolute_error" or
        "pinball", or a `fastmlp.Loss` of a regression.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, \
    power_t, max_iter, shuffle, random_state, tol, verbose, warm_start, momentum, \
    nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, epsilon, \
    n_iter_no_change, max_fun
        As scikit-learn's, with these values more:

        - `activation`: any name of `fastmlp.Activation`, one, or a list with one for each hidden
          layer;
        - `solver`: a `fastmlp` optimizer, with its own learning rate;
        - `learning_rate`: a schedule of `fastmlp.schedules`, or a function of the step, for the
          solvers sgd and adam.
    dropout
        Probability with which a hidden unit is left out in training: one number, or a list for the
        inputs and each hidden layer.
    norm
        "batch", "layer" or None, or a list with one for each hidden layer.
    clip_value, clip_norm, clip_global_norm
        Bounds on the gradient, one of them at most, see `fastmlp.fit`.
    scoring
        What stops with `early_stopping`, and fills `validation_scores_`: a scorer or its name;
        None: R².
    callbacks
        Of `fastmlp.callbacks`, or functions, see `fastmlp.fit`. Those of scikit-learn are set by
        `set_callbacks`.
    progress
        Whether to show a progress bar on standard error.
    n_jobs
        Threads; -1: all cores. None: FASTMLP_NUM_THREADS or all cores, and in a worker of joblib
        its share of them. The result does not depend on it, bit for bit.
    preset
        "tabular": encoding, network and training of `fastmlp.tabular`, validated on a fifth of the
        samples if there are no X_val and y_val. It decides all parameters but `random_state`,
        `verbose`, `callbacks`, `progress`, `n_jobs` and the next; others than their
        defaults are refused. The loss curves are those of its own loss, of standardised
        targets.
    categorical_features
        With a preset, which columns are categories, see `fastmlp.TabularEncoder`.

    Attributes
    ----------
    network_
        The `fastmlp.MLP`.
    encoder_
        With a preset, the `fastmlp.TabularEncoder` of what goes into it.
    coefs_, intercepts_
        Its weights [n_in, n_out] and biases [n_out] by layer: views, so writing to them changes it.
    loss_, loss_curve_, best_loss_, n_iter_, t_
        The last training loss, that of each epoch (the mean over its steps, with the penalty), the
        least; epochs of the last fit; samples seen.
    validation_scores_, best_validation_score_, validation_loss_curve_
        Of the samples to validate on, after each epoch; None without.
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As scikit-learn's.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.

    References
    ----------
    F. Pedregosa et al., "Scikit-learn: machine learning in Python", JMLR 12 (2011); version 1.9,
    `sklearn.neural_network`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = MLPRegressor(solver="lbfgs", max_iter=5000, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.5
    True
    """

    _options: ClassVar[dict[str, Any]] = {
        "accept_sparse": ["csr", "csc"],
        "multi_output": True,
        "y_numeric": True,
        "dtype": (np.float64, np.float32),
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **sklearn.neural_network.MLPRegressor._parameter_constraints,
        **BaseMLP._own_constraints,
        "loss": [StrOptions(set(LOSSES)), Loss],
    }

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        norm: Any = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        clip_global_norm: float | None = None,
        scoring: Any = None,
        callbacks: Any = (),
        progress: bool = False,
        n_jobs: int | None = None,
        preset: str | None = None,
        categorical_features: Any = "from_dtype",
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dropout = dropout
        self.norm = norm
        self.clip_value = clip_value
        self.clip_norm = clip_norm
        self.clip_global_norm = clip_global_norm
        self.scoring = scoring
        self.callbacks = callbacks
        self.progress = progress
        self.n_jobs = n_jobs
        self.preset = preset
        self.categorical_features = categorical_features

    @available_if(lambda estimator: estimator._is_stochastic())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one more epoch on these samples, going on from what there is.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`.

        Raises
        ------
        TypeError, ValueError
            As `fit`.
        AttributeError
            If the solver is lbfgs, which takes all samples at once.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Array:
        """Return the predictions, [n] or [n, outputs]."""
        z = self._outputs(X)
        if self.out_activation_ == "exp":
            z = np.exp(z)
        return z[:, 0] if z.shape[1] == 1 else z

    def _checked_targets(self, X: Any, y: Any, *, incremental: bool) -> tuple[Any, Array, Array]:
        X, y = validate_data(self, X, y, reset=self._is_first(incremental), **self._options)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y, self._columns(y)

    def _columns(self, y: Any) -> Array:
        columns: Array = y.reshape(-1, 1) if y.ndim == 1 else y
        return columns

    def _head(self) -> Head:
        loss = self.loss
        if not isinstance(loss, Loss):
            loss = Loss("half_squared_error" if loss == "squared_error" else loss)
        if loss.is_classifier:
            raise ValueError(f"loss must be one of a regression, got {str(loss)!r}")
        return Head("exp" if loss.name == "poisson" else "identity", loss)
