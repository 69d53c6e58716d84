"""PyTorch, eager or compiled, batches by `index_select`.

Eager: `nn.Sequential` with `torch.optim.SGD` (fused, foreach or a plain loop), or with
`torch.autograd.grad` and an update in place, which is spared the optimizer's overhead. Compiled:
`torch.compile` of the whole step in one graph, gather, gradient (`torch.func.grad`) and update;
that was faster than a compiled loss with any of the optimizers. Both try all threads and one,
because a small batch can be faster without PyTorch's thread pool. The fastest counts.
"""

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from peer import fastest
from torch import Tensor, nn
from torch.nn import functional as F
from work import Data, Order, Work

PROBE_BATCHES = 30
OPTIMIZERS: dict[str, dict[str, bool]] = {
    "fused SGD": {"fused": True},
    "foreach SGD": {"foreach": True},
    "plain SGD": {"foreach": False, "fused": False},
}
UPDATES = (*OPTIMIZERS, "autograd.grad and an update in place")


class _Torch:
    same_network = True

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        self._work = work
        self._X, self._y = torch.from_numpy(data.X), torch.from_numpy(data.y)
        self._threads = threads
        self._prepare()
        settings = self._settings(sorted({1, threads}))
        rows = torch.arange(min(len(data), PROBE_BATCHES * work.batch_size))

        def probe(setting: tuple[str, int]) -> None:
            self._choose(*setting)
            self._train(rows)

        chosen = fastest(settings, probe)
        self._prepare()  # forgets what the trial has learnt
        self._choose(*chosen)
        self.setting = f"{chosen[0]}; threads: {chosen[1]} of {threads} (the fastest of its ways)"

    def _settings(self, threads: list[int]) -> list[tuple[str, int]]:
        raise NotImplementedError

    def _prepare(self) -> None:
        raise NotImplementedError

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _make_step(self, update: str) -> Callable[[Tensor], None]:
        """Return the function that trains on the samples of these rows."""
        raise NotImplementedError

    def _choose(self, update: str, threads: int) -> None:
        self._threads = threads
        self._step = self._make_step(update)

    def _train(self, rows: Tensor) -> None:
        torch.set_num_threads(self._threads)
        step, size = self._step, self._work.batch_size
        for first in range(0, len(rows), size):
            step(rows[first : first + size])

    def epoch(self, order: Order) -> float:
        rows = torch.from_numpy(order.rows)
        begin = time.perf_counter()
        self._train(rows)
        return time.perf_counter() - begin

    def loss(self) -> float:
        with torch.no_grad():
            return F.cross_entropy(self._forward(self._X), self._y).item()


class TorchEager(_Torch):
    name = "PyTorch"

    def _settings(self, threads: list[int]) -> list[tuple[str, int]]:
        return list(itertools.product(UPDATES, threads))

    def _prepare(self) -> None:
        layers: list[nn.Module] = []
        net = self._work.network()
        for w, b in zip(net.weights, net.biases, strict=True):
            layer = nn.Linear(*w.shape)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(w.T))
                layer.bias.copy_(torch.from_numpy(b))
            layers += [layer, nn.Softplus()]
        self._model = nn.Sequential(*layers[:-1])

    def _forward(self, x: Tensor) -> Tensor:
        return self._model(x)

    def _make_step(self, update: str) -> Callable[[Tensor], None]:
        model, X, y, rate = self._model, self._X, self._y, self._work.learning_rate
        parameters = list(model.parameters())

        def in_place(rows: Tensor) -> None:
            loss = F.cross_entropy(model(X.index_select(0, rows)), y.index_select(0, rows))
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=rate)

        if update not in OPTIMIZERS:
            return in_place
        optimizer = torch.optim.SGD(parameters, lr=rate, **OPTIMIZERS[update])

        def optimized(rows: Tensor) -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(X.index_select(0, rows)), y.index_select(0, rows)).backward()
            optimizer.step()

        return optimized


class TorchCompiled(_Torch):
    name = "PyTorch compiled"

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        torch.compiler.reset()  # or the graphs of all works together would exceed its limit
        super().__init__(work, data, threads)

    def _settings(self, threads: list[int]) -> list[tuple[str, int]]:
        return [("one graph a step", n) for n in threads]

    def _prepare(self) -> None:
        net = self._work.network()
        self._parameters = [
            (torch.from_numpy(w.T.copy()), torch.from_numpy(b.copy()))
            for w, b in zip(net.weights, net.biases, strict=True)
        ]

    def _forward(self, x: Tensor) -> Tensor:
        return _logits(self._parameters, x)

    def _make_step(self, update: str) -> Callable[[Tensor], None]:
        parameters, X, y, rate = self._parameters, self._X, self._y, self._work.learning_rate
        return lambda rows: _compiled_step(parameters, X, y, rows, rate)


def _logits(parameters: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    for w, b in parameters[:-1]:
        x = F.softplus(F.linear(x, w, b))
    return F.linear(x, *parameters[-1])


def _loss(parameters: list[tuple[Tensor, Tensor]], x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(_logits(parameters, x), y)


# dynamic=False: a graph for each batch size, also for the smaller last batch of an epoch
@torch.compile(dynamic=False, fullgraph=True)
def _compiled_step(parameters: Any, X: Tensor, y: Tensor, rows: Tensor, rate: float) -> None:
    x, labels = X.index_select(0, rows), y.index_select(0, rows)
    gradients = torch.func.grad(_loss)(parameters, x, labels)
    for layer, gradient in zip(parameters, gradients, strict=True):
        for p, g in zip(layer, gradient, strict=True):
            p.sub_(g, alpha=rate)
