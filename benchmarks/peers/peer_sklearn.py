"""scikit-learn's MLPClassifier, an epoch by `partial_fit`.

It has no softplus: the network is the same with ReLU, which is cheaper. It draws its own initial
weights and orders. Its checks of the samples for NaN are switched off; BLAS has all threads or one,
whichever is faster.
"""

import time

import sklearn
from peer import fastest
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits
from work import Data, Order, Work

PROBE_BATCHES = 30


class Sklearn:
    name = "scikit-learn (ReLU)"
    same_network = False

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        self._work, self._data = work, data
        rows = min(len(data), PROBE_BATCHES * work.batch_size)
        self._prepare()
        self._threads = fastest(sorted({1, threads}), lambda n: self._train(n, rows))
        self._prepare()  # forgets what the trial has learnt
        self.setting = f"threads of BLAS: {self._threads} of {threads} (the faster)"

    def _prepare(self) -> None:
        self._model = MLPClassifier(
            self._work.sizes[1:-1],
            activation="relu",
            solver="sgd",
            alpha=0.0,
            batch_size=self._work.batch_size,
            learning_rate_init=self._work.learning_rate,
            momentum=0.0,
            nesterovs_momentum=False,
            random_state=0,
        )

    def _train(self, threads: int, rows: int) -> None:
        X, y, classes = self._data.X[:rows], self._data.y[:rows], range(self._work.sizes[-1])
        with (
            threadpool_limits(threads, user_api="blas"),
            sklearn.config_context(assume_finite=True),
        ):
            self._model.partial_fit(X, y, classes=classes)

    def epoch(self, order: Order) -> float:
        begin = time.perf_counter()
        self._train(self._threads, len(self._data))
        return time.perf_counter() - begin

    def loss(self) -> float:
        return float(log_loss(self._data.y, self._model.predict_proba(self._data.X)))
