"""scikit-learn's MLPClassifier and MLPRegressor, by `fit` with a warm start.

There is no softplus: in its place is ReLU, which is cheaper. It draws its own initial weights and
orders, and has half the squared error. Its checks of the samples for NaN are switched off, and a
full batch is not shuffled; BLAS has all threads or one, whichever is faster.
"""

import time
import warnings

import sklearn
from peer import fastest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits
from work import Data, Order, Work

PROBE_STEPS = 30
NEVER = 1_000_000  # epochs without progress before it would stop


class Sklearn:
    name = "scikit-learn"
    same_network = False

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        self._work, self._data = work, data
        rows = min(len(data), PROBE_STEPS * work.batch_size)
        epochs = 1 if work.is_classifier else PROBE_STEPS
        self._prepare()
        self._threads = fastest(sorted({1, threads}), lambda n: self._run(n, rows, epochs))
        self._prepare()  # forgets what the trial has learnt
        self.setting = f"threads of BLAS: {self._threads} of {threads} (the faster)"
        if work.is_classifier:
            self.setting += "; ReLU, as it has no softplus"

    def _prepare(self) -> None:
        kind = MLPClassifier if self._work.is_classifier else MLPRegressor
        self._model = kind(
            hidden_layer_sizes=self._work.sizes[1:-1],
            activation="relu" if self._work.is_classifier else self._work.activation,
            solver=self._work.optimizer.lower(),
            alpha=0.0,
            batch_size=self._work.batch_size,
            learning_rate_init=self._work.learning_rate,
            momentum=0.0,
            nesterovs_momentum=False,
            shuffle=self._work.is_classifier,
            warm_start=True,
            tol=0.0,
            n_iter_no_change=NEVER,
            random_state=0,
        )

    def _run(self, threads: int, rows: int, epochs: int) -> None:
        self._model.max_iter = epochs
        with (
            threadpool_limits(threads, user_api="blas"),
            sklearn.config_context(assume_finite=True),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(self._data.X[:rows], self._data.y[:rows])

    def train(self, order: Order) -> float:
        begin = time.perf_counter()
        self._run(self._threads, len(self._data), self._work.epochs)
        return time.perf_counter() - begin

    def loss(self) -> float:
        X, y = self._data.X, self._data.y
        if self._work.is_classifier:
            return float(log_loss(y, self._model.predict_proba(X)))
        return float(mean_squared_error(y, self._model.predict(X)) * y.shape[1])
