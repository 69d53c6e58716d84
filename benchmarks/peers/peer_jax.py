"""JAX: the whole epoch in one jitted `lax.scan`, data on the device, parameters donated.

Weights are kept as [outputs, inputs], which was faster than [inputs, outputs]. Gathering the whole
epoch before the scan, unrolling it, one-hot labels, and a Python loop over jitted steps were
slower or made no difference. The number of threads is that of the cores the process may use.
"""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from work import Data, Order, Work


class Jax:
    name = "JAX"
    same_network = True

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        net = work.network()
        self._size, self._rate = work.batch_size, work.learning_rate
        self._parameters = [
            (jnp.array(w.T), jnp.array(b)) for w, b in zip(net.weights, net.biases, strict=True)
        ]
        self._X, self._y = jnp.asarray(data.X), jnp.asarray(data.y)
        self.setting = f"one jitted scan an epoch; threads: {threads}"

    def epoch(self, order: Order) -> float:
        whole = len(order.rows) // self._size * self._size
        batches = jnp.asarray(order.rows[:whole].reshape(-1, self._size))
        rest = jnp.asarray(order.rows[whole:])
        jax.block_until_ready((batches, rest))
        begin = time.perf_counter()
        self._parameters = jax.block_until_ready(
            _epoch(self._parameters, self._X, self._y, batches, rest, self._rate)
        )
        return time.perf_counter() - begin

    def loss(self) -> float:
        return float(_loss(self._parameters, self._X, self._y))


@jax.jit
def _loss(parameters: Any, x: Any, y: Any) -> Any:
    for w, b in parameters[:-1]:
        x = jax.nn.softplus(x @ w.T + b)
    w, b = parameters[-1]
    z = x @ w.T + b
    right = jnp.take_along_axis(z, y[:, None], axis=1)[:, 0]
    return (jax.nn.logsumexp(z, axis=1) - right).mean()


@partial(jax.jit, donate_argnums=0)
def _epoch(parameters: Any, X: Any, y: Any, batches: Any, rest: Any, rate: float) -> Any:
    def step(parameters: Any, rows: Any) -> tuple[Any, None]:
        gradients = jax.grad(_loss)(parameters, X[rows], y[rows])
        return jax.tree.map(lambda p, g: p - rate * g, parameters, gradients), None

    parameters, _ = jax.lax.scan(step, parameters, batches)
    return step(parameters, rest)[0] if rest.size else parameters
