"""JAX: all steps of a measurement in one jitted `lax.scan`, data on the device, state donated.

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

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Jax:
    name = "JAX"
    same_network = True

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        net = work.network()
        self._work = work
        self._parameters = [
            (jnp.array(w.T), jnp.array(b)) for w, b in zip(net.weights, net.biases, strict=True)
        ]
        self._X, self._y = jnp.asarray(data.X), jnp.asarray(data.y)
        self.setting = f"one jitted scan; threads: {threads}"

    def train(self, order: Order) -> float:
        size, rows = self._work.batch_size, order.rows
        whole = len(rows) // size * size
        batches = jnp.asarray(rows[:whole].reshape(-1, size))
        rest = jnp.asarray(rows[whole:])
        moments = ()
        if self._work.optimizer == "Adam":
            moments = tuple(jax.tree.map(jnp.zeros_like, self._parameters) for _ in range(2))
        state = jax.block_until_ready((self._parameters, moments, jnp.zeros((), jnp.int32)))
        jax.block_until_ready((batches, rest))
        begin = time.perf_counter()
        if self._work.is_classifier:
            state = _epoch(state, self._X, self._y, batches, rest, self._work)
        else:
            state = _full_batches(state, self._X, self._y, self._work)
        self._parameters, *_ = jax.block_until_ready(state)
        return time.perf_counter() - begin

    def loss(self) -> float:
        return float(_loss(self._parameters, self._X, self._y, self._work))


@partial(jax.jit, static_argnums=3)
def _loss(parameters: Any, x: Any, y: Any, work: Work) -> Any:
    f = jax.nn.softplus if work.activation == "softplus" else jnp.tanh
    for w, b in parameters[:-1]:
        x = f(x @ w.T + b)
    w, b = parameters[-1]
    z = x @ w.T + b
    if not work.is_classifier:
        return ((z - y) ** 2).sum(axis=1).mean()
    right = jnp.take_along_axis(z, y[:, None], axis=1)[:, 0]
    return (jax.nn.logsumexp(z, axis=1) - right).mean()


def _step(state: Any, x: Any, y: Any, work: Work) -> Any:
    parameters, moments, done = state
    gradients = jax.grad(_loss)(parameters, x, y, work)
    rate, done = work.learning_rate, done + 1
    if work.optimizer == "SGD":
        return jax.tree.map(lambda p, g: p - rate * g, parameters, gradients), moments, done
    first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, moments[0], gradients)
    second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, moments[1], gradients)
    step, root = rate / (1 - BETA1**done), 1 / jnp.sqrt(1 - BETA2**done)

    def change(p: Any, m: Any, v: Any) -> Any:
        return p - step * m / (jnp.sqrt(v) * root + EPSILON)

    return jax.tree.map(change, parameters, first, second), (first, second), done


@partial(jax.jit, donate_argnums=0, static_argnums=5)
def _epoch(state: Any, X: Any, y: Any, batches: Any, rest: Any, work: Work) -> Any:
    def step(state: Any, rows: Any) -> tuple[Any, None]:
        return _step(state, X[rows], y[rows], work), None

    state, _ = jax.lax.scan(step, state, batches)
    return step(state, rest)[0] if rest.size else state


@partial(jax.jit, donate_argnums=0, static_argnums=3)
def _full_batches(state: Any, X: Any, y: Any, work: Work) -> Any:
    state, _ = jax.lax.scan(
        lambda state, _: (_step(state, X, y, work), None), state, length=work.epochs
    )
    return state
