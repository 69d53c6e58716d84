"""fastmlp, as a user calls it: `fit`.

The time is `History.seconds`, the training alone. What a call does once before it, whatever the
number of epochs (checking the samples for NaN, allocating), the peers have behind them when their
clock starts; the setting says how long it took. Drawing the order is within the time.
"""

import statistics
import time

from work import Data, Order, Work

import fastmlp as fm


class Fastmlp:
    name = "fastmlp"
    same_network = True

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        self._work, self._data, self._threads = work, data, threads
        self._net = work.network()
        self._outside: list[float] = []

    @property
    def setting(self) -> str:
        milliseconds = statistics.median(self._outside) * 1e3
        return f"threads: {self._threads}; a call's time around it: {milliseconds:.1f} ms"

    def train(self, order: Order) -> float:
        begin = time.perf_counter()
        history = fm.fit(
            self._net,
            self._data.X,
            self._data.y,
            optimizer=self._work.rule(),
            batch_size=self._work.batch_size,
            epochs=self._work.epochs,
            threads=self._threads,
            seed=order.seed,
        )
        call = time.perf_counter() - begin
        self._outside.append(call - history.seconds - history.compile_seconds)
        return history.seconds

    def loss(self) -> float:
        return self._net.evaluate(self._data.X, self._data.y).loss
