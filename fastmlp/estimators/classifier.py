"""The classifier: one label of two or more, or several labels, and their probabilities."""

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import sklearn.neural_network
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import validate_data

from ..losses import Loss
from .base import BaseMLP
from .heads import Head

__all__ = ["MLPClassifier"]

Array = NDArray[Any]


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multilayer perceptron in the place of scikit-learn's `MLPClassifier`.

    The same parameters mean the same: with the same `random_state` it begins with the same weights,
    takes the samples in the same order and makes the same steps, up to rounding. More of them are
    behind scikit-learn's.

    It minimises the mean loss of a batch, softmax cross-entropy, or sigmoid cross-entropy of two
    classes and of several labels, plus alpha / 2 sum W**2 over the batch's sum of weights.

    Parameters
    ----------
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
    class_weight
        A dict of weights by class, or "balanced": the sample weights are multiplied by them.
    label_smoothing
        Share s in [0, 1) of the targets that is spread over the classes, see `fastmlp.Loss`.
    dropout
        Probability with which a hidden unit is left out in training: one number, or a list for the
        inputs and each hidden layer.
    norm
        "batch", "layer" or None, or a list with one for each hidden layer.
    clip_value, clip_norm, clip_global_norm
        Bounds on the gradient, one of them at most, see `fastmlp.fit`.
    scoring
        What stops with `early_stopping`, and fills `validation_scores_`: a scorer or its name;
        None: accuracy.
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
        `verbose`, `callbacks`, `progress`, `n_jobs`, `class_weight` and the next; others than their
        defaults are refused. The loss curves are those of its own loss, with smoothed labels.
    categorical_features
        With a preset, which columns are categories, see `fastmlp.TabularEncoder`.

    Attributes
    ----------
    classes_
        The labels.
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
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(solver="lbfgs", random_state=0, max_iter=1000).fit(X, y)
    >>> model.score(X, y) > 0.95
    True
    """

    _options: ClassVar[dict[str, Any]] = {
        "accept_sparse": ["csr", "csc"],
        "multi_output": True,
        "dtype": (np.float64, np.float32),
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **sklearn.neural_network.MLPClassifier._parameter_constraints,
        **BaseMLP._own_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
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
        class_weight: Any = None,
        label_smoothing: float = 0.0,
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
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
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
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train one more epoch on these samples, going on from what there is.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`; y need not have all classes.
        classes
            All classes that will ever come; needed in the first call.

        Raises
        ------
        TypeError, ValueError
            As `fit`, and if y has a class that is not in `classes_`.
        AttributeError
            If the solver is lbfgs, which takes all samples at once.
        """
        if _check_partial_fit_first_call(self, classes):
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Array:
        """Return the most probable label [n], or the indicators [n, labels] of several."""
        z = self._outputs(X)
        if self.out_activation_ == "logistic":
            z = expit(z)
        labels: Array = self._label_binarizer.inverse_transform(z[:, 0] if z.shape[1] == 1 else z)
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities [n, classes] of the classes, or [n, labels] of the labels."""
        if getattr(self, "out_activation_", None) == "softmax":
            return self._outputs(X, softmax=True)
        z = self._outputs(X)
        p: Array = expit(np.hstack([-z, z]) if z.shape[1] == 1 else z)
        return p

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`."""
        p = self.predict_proba(X)
        log: Array = np.log(p, out=p)
        return log

    def _checked_targets(self, X: Any, y: Any, *, incremental: bool) -> tuple[Any, Array, Array]:
        is_first = self._is_first(incremental)
        X, y = validate_data(self, X, y, reset=is_first, **self._options)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return X, y, self._columns(y)
        classes = unique_labels(y)
        if self.warm_start and set(classes) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {classes}"
            )
        return X, y, self._columns(y)

    def _columns(self, y: Any) -> Array:
        unknown = np.setdiff1d(unique_labels(y), self.classes_)
        if len(unknown):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. "
                f"'y' has {unique_labels(y)}."
            )
        columns = self._label_binarizer.transform(y)
        dense: Array = columns.toarray() if sparse.issparse(columns) else columns
        return dense.astype(bool)

    def _head(self) -> Head:
        if self._label_binarizer.y_type_ == "multiclass":
            return Head("softmax", Loss("softmax_cross_entropy", self.label_smoothing))
        return Head("logistic", Loss("binary_cross_entropy", self.label_smoothing))

    def _class_weight(self, y: Array, incremental: bool) -> Array | None:
        if self.class_weight is None:
            return None
        if isinstance(self.class_weight, list) and y.ndim == 1:
            raise ValueError(
                "class_weight must be a dict or 'balanced': a list has a dict for each of several "
                f"labels, got {self.class_weight!r}"
            )
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not supported for partial_fit, which does not see all "
                "samples: use compute_class_weight of all labels, and give a dict"
            )
        weight: Array = compute_sample_weight(self.class_weight, y)
        return weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
