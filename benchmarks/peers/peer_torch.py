"""PyTorch, eager or compiled, batches by `index_select`.

Eager: `nn.Sequential` with an optimizer (fused, foreach or a plain loop); for SGD also with
`torch.autograd.grad` and an update in place, which is spared the optimizer's overhead. Compiled:
`torch.compile` of the whole step in one graph, gather, gradient (`torch.func.grad`) and update;
that was faster than a compiled loss with any of the optimizers. Both try all threads and one,
because a small batch can be faster without PyTorch's thread pool. The fastest counts.
"""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from peer import fastest
from torch import Tensor, nn
from torch.nn import functional as F
from work import Data, Order, Work

PROBE_STEPS = 30
WAYS: dict[str, dict[str, bool]] = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "plain": {"foreach": False, "fused": False},
}
IN_PLACE = "autograd.grad and an update in place"
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's, also PyTorch's own defaults

Rows = Tensor | None  # None: all of them
Step = Callable[[Rows], None]


class _Torch:
    same_network = True

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        self._work = work
        self._X, self._y = torch.from_numpy(data.X), torch.from_numpy(data.y)
        self._prepare()
        rows = torch.arange(min(len(data), PROBE_STEPS * work.batch_size))

        def probe(setting: tuple[str, int]) -> None:
            self._setting = setting
            self._run(self._step(), rows, PROBE_STEPS)

        self._setting = fastest(list(itertools.product(self._ways(), sorted({1, threads}))), probe)
        self._prepare()  # forgets what the trial has learnt
        way, used = self._setting
        self.setting = f"{way}; threads: {used} of {threads} (the fastest of its ways)"

    def _ways(self) -> list[str]:
        raise NotImplementedError

    def _prepare(self) -> None:
        """Make the network as it starts."""
        raise NotImplementedError

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _step(self) -> Step:
        """Return the function that trains on the samples of some rows, at the optimizer's start."""
        raise NotImplementedError

    def _run(self, step: Step, rows: Tensor, epochs: int) -> None:
        torch.set_num_threads(self._setting[1])
        if not self._work.is_classifier:
            for _ in range(epochs):
                step(None)
            return
        size = self._work.batch_size
        for first in range(0, len(rows), size):
            step(rows[first : first + size])

    def train(self, order: Order) -> float:
        rows, step = torch.from_numpy(order.rows), self._step()
        begin = time.perf_counter()
        self._run(step, rows, self._work.epochs)
        return time.perf_counter() - begin

    def loss(self) -> float:
        with torch.no_grad():
            return _loss(self._forward(self._X), self._y).item()


class TorchEager(_Torch):
    name = "PyTorch"

    def _ways(self) -> list[str]:
        return [*WAYS, IN_PLACE] if self._work.optimizer == "SGD" else list(WAYS)

    def _prepare(self) -> None:
        layers: list[nn.Module] = []
        net = self._work.network()
        for w, b in zip(net.weights, net.biases, strict=True):
            layer = nn.Linear(*w.shape)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(w.T))
                layer.bias.copy_(torch.from_numpy(b))
            layers += [layer, nn.Softplus() if self._work.is_classifier else nn.Tanh()]
        self._model = nn.Sequential(*layers[:-1])

    def _forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self._model(x))

    def _step(self) -> Step:
        model, X, y, rate = self._model, self._X, self._y, self._work.learning_rate
        parameters = list(model.parameters())

        def in_place(rows: Rows) -> None:
            x, targets = _take(X, y, rows)
            gradients = torch.autograd.grad(_loss(model(x), targets), parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=rate)

        way, _ = self._setting
        if way == IN_PLACE:
            return in_place
        rule: Any = torch.optim.SGD if self._work.optimizer == "SGD" else torch.optim.Adam
        optimizer = rule(parameters, lr=rate, **WAYS[way])

        def optimized(rows: Rows) -> None:
            x, targets = _take(X, y, rows)
            optimizer.zero_grad()
            _loss(model(x), targets).backward()
            optimizer.step()

        return optimized


class TorchCompiled(_Torch):
    name = "PyTorch compiled"

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        torch.compiler.reset()  # or the graphs of all works together would exceed its limit
        super().__init__(work, data, threads)

    def _ways(self) -> list[str]:
        return ["one graph a step"]

    def _prepare(self) -> None:
        net = self._work.network()
        self._parameters = [
            (torch.from_numpy(w.T.copy()), torch.from_numpy(b.copy()))
            for w, b in zip(net.weights, net.biases, strict=True)
        ]

    def _forward(self, x: Tensor) -> Tensor:
        return _outputs(self._parameters, x, self._work.activation)

    def _step(self) -> Step:
        parameters, X, y = self._parameters, self._X, self._y
        rate, activation = self._work.learning_rate, self._work.activation
        if self._work.optimizer == "SGD":
            return lambda rows: _sgd_step(parameters, X, y, rows, rate, activation)
        first = [[torch.zeros_like(p) for p in layer] for layer in parameters]
        second = [[torch.zeros_like(p) for p in layer] for layer in parameters]
        steps = itertools.count(1)
        numbers = np.zeros(2, np.float32)
        rates = torch.from_numpy(numbers)  # a float that changes would be compiled again

        def adam(rows: Rows) -> None:
            t = next(steps)
            numbers[:] = rate / (1 - BETA1**t), 1 / math.sqrt(1 - BETA2**t)
            _adam_step(parameters, first, second, rates, X, y, rows, activation)

        return adam


def _take(X: Tensor, y: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    return (X, y) if rows is None else (X.index_select(0, rows), y.index_select(0, rows))


def _loss(outputs: Tensor, y: Tensor) -> Tensor:
    if y.ndim == 1:
        return F.cross_entropy(outputs, y)
    return F.mse_loss(outputs, y, reduction="sum") / len(y)


def _outputs(parameters: Any, x: Tensor, activation: str) -> Tensor:
    f = F.softplus if activation == "softplus" else torch.tanh
    for w, b in parameters[:-1]:
        x = f(F.linear(x, w, b))
    return F.linear(x, *parameters[-1])


def _gradients(parameters: Any, X: Tensor, y: Tensor, rows: Rows, activation: str) -> Any:
    x, targets = _take(X, y, rows)
    return torch.func.grad(lambda p: _loss(_outputs(p, x, activation), targets))(parameters)


# dynamic=False: a graph for each batch size, also for the smaller last batch of an epoch
@torch.compile(dynamic=False, fullgraph=True)
def _sgd_step(
    parameters: Any, X: Tensor, y: Tensor, rows: Rows, rate: float, activation: str
) -> None:
    gradients = _gradients(parameters, X, y, rows, activation)
    for layer, gradient in zip(parameters, gradients, strict=True):
        for p, g in zip(layer, gradient, strict=True):
            p.sub_(g, alpha=rate)


@torch.compile(dynamic=False, fullgraph=True)
def _adam_step(
    parameters: Any,
    first: Any,
    second: Any,
    rates: Tensor,
    X: Tensor,
    y: Tensor,
    rows: Rows,
    activation: str,
) -> None:
    gradients = _gradients(parameters, X, y, rows, activation)
    for layer in zip(parameters, gradients, first, second, strict=True):
        for p, g, m, v in zip(*layer, strict=True):
            m.lerp_(g, 1 - BETA1)
            v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            p.sub_(rates[0] * m / (v.sqrt() * rates[1] + EPSILON))
