"""What `complexity` says a step costs, against what is multiplied and allocated."""

import gc
import os
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastmlp as fm
from fastmlp._execution import Batch, Execution, Procedure
from fastmlp.activations import Activation
from fastmlp.kernels import machine
from fastmlp.optimizers import LBFGS, AdamW, RMSProp

MNIST = [784, 128, 10]
DEEP = [40, *[64] * 30, 5]
WIDE = [20, 33, machine.NARROW_OUTPUT + 1]
PRELU = Activation("prelu", per_unit=True)
CASES: list[tuple[list[int], int, dict[str, Any]]] = [
    (MNIST, 32, {}),
    (MNIST, 256, {"optimizer": fm.SGD()}),
    (MNIST, 1000, {"optimizer": fm.SGD(momentum=0.9)}),
    (MNIST, 1000, {"norm": "batch", "optimizer": RMSProp()}),
    (MNIST, 64, {"dtype": "float64", "threads": 1}),
    ([784, 10], 32, {}),
    ([5, machine.NARROW_OUTPUT + 1], 7, {"dropout": [0.1]}),
    ([4, 32, 16, 4], 1000, {"threads": 3, "dropout": 0.1}),
    ([9, machine.NARROW_OUTPUT + 1], 10_000, {}),
    (WIDE, 300, {"threads": 3, "optimizer": AdamW()}),
    (WIDE, 12, {"activation": "gelu", "dropout": [0.2, 0.5]}),
    (
        [3, 17, 9, 1],
        40,
        {"activation": [PRELU, "tanh"], "norm": ["layer", "batch"], "dropout": 0.3},
    ),
    (DEEP, 128, {"checkpoint_every": 1}),
    (DEEP, 128, {"checkpoint_every": 2}),
    (DEEP, 128, {"checkpoint_every": 5, "activation": "mish", "norm": "layer", "dropout": 0.1}),
    (DEEP, 128, {"checkpoint_every": 100}),
]


def execution_of(sizes: list[int], batch: int, options: dict[str, Any]) -> Execution:
    """What `fit` allocates for these arguments of `complexity`."""
    of_fit = {"optimizer": fm.Adam(), "checkpoint_every": 1}
    of_fit |= {name: value for name, value in options.items() if name in of_fit}
    of_net = {k: v for k, v in options.items() if k not in {*of_fit, "threads"}}
    net = fm.MLP(sizes, loss="squared_error", initializer="zeros", **of_net)
    x, y = (np.zeros((batch, n), net.dtype) for n in (sizes[0], sizes[-1]))
    procedure = Procedure(batch, **of_fit)
    samples = Batch.of(x, sizes[-1], targets=y)
    return Execution(net, procedure=procedure, samples=samples, threads=options["threads"])


def with_threads(options: dict[str, Any]) -> dict[str, Any]:
    """The options with a team of two unless they say otherwise; of one without the compiler."""
    return {**options, "threads": fm.threads.resolve(options.get("threads", 2))}


@pytest.mark.parametrize(("sizes", "batch", "options"), CASES)
def test_memory_is_what_is_allocated(sizes: list[int], batch: int, options: dict[str, Any]) -> None:
    options = with_threads(options)
    cost = fm.complexity(sizes, batch, **options)
    execution = execution_of(sizes, batch, options)
    net, parameters = execution._net, execution._parameters
    assert cost.parameters == net.theta.nbytes + parameters.theta.nbytes + net.running.nbytes
    assert cost.gradient == parameters.gradient.nbytes
    assert cost.optimizer_state == parameters.first.nbytes + parameters.second.nbytes
    arrays = {
        id(array): array.nbytes
        for work, _ in execution.workspaces
        for array in (
            *(work.shared, work.private, work.rows, work.scores, work.parts, work.norms),
            *(work.features, work.nonzero, work.every),
        )
    }
    assert cost.activations + cost.workspace == sum(arrays.values())
    assert min(cost.activations, cost.workspace) > 0
    sizes_in_bytes = (
        cost.parameters, cost.gradient, cost.optimizer_state, cost.activations, cost.workspace
    )  # fmt: skip
    assert cost.memory == sum(sizes_in_bytes)


def vectors_of(execution: Execution) -> list[NDArray[Any]]:
    """Return the vectors that begin on a page; some are the same."""
    net, parameters, works = execution._net, execution._parameters, sum(execution.workspaces, ())
    scratch = [vector for work in works for vector in (work.shared, work.private)]
    return [*parameters, net.theta, net.running, *scratch]


@pytest.mark.parametrize(("sizes", "batch", "options"), CASES)
def test_memory_is_what_python_measures(
    sizes: list[int], batch: int, options: dict[str, Any]
) -> None:
    options = with_threads(options)
    execution_of(sizes, batch, options)  # what is allocated once and for all
    gc.collect()
    tracemalloc.start()
    execution = execution_of(sizes, batch, options)
    gc.collect()
    measured, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    samples = execution._samples
    data = samples.x.nbytes + samples.targets.nbytes + samples.chosen.nbytes
    cost = fm.complexity(sizes, batch, **options)
    tables = 32_000 + 4_000 * len(sizes)
    begins = machine.PAGE * len({id(vector) for vector in vectors_of(execution)})
    assert 0 <= measured - data - cost.memory < tables + begins


def test_checkpoints_save_memory() -> None:
    sizes = [64, *[256] * 60, 10]
    costs = {
        every: fm.complexity(sizes, 256, checkpoint_every=every, threads=1) for every in (1, 8)
    }
    measured = {}
    for every in costs:
        gc.collect()
        tracemalloc.start()
        execution = execution_of(sizes, 256, {"checkpoint_every": every, "threads": 1})
        measured[every], _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del execution
    all_kept, few_kept = costs[1], costs[8]
    saved = all_kept.memory - few_kept.memory
    assert measured[1] - measured[8] == pytest.approx(saved, rel=1e-3)
    scratch = [cost.activations + cost.workspace for cost in (all_kept, few_kept)]
    assert scratch[1] < 0.25 * scratch[0]
    assert few_kept.activations < all_kept.activations
    assert few_kept.workspace < all_kept.workspace
    assert few_kept.parameters == all_kept.parameters
    assert all_kept.recomputed == 0 < few_kept.recomputed < few_kept.forward


def test_activations_by_hand() -> None:
    rows, line = 256, 16
    cost = fm.complexity([784, 128, 10], rows, threads=1)
    assert cost.activations == 4 * rows * (784 + 2 * 128 + line)  # layer 1 has two buffers
    two = fm.complexity([784, 128, 10], rows, threads=fm.threads.resolve(2))
    own = 4 * rows * (784 + line)
    assert two.activations == cost.activations + (fm.threads.resolve(2) - 1) * own
    deep = fm.complexity([16, 32, 48, 64, 100], rows, threads=1, activation="gelu", dropout=0.5)
    kept = 16 + 2 * 32 + 48 + 64 + 2 * (32 + 48 + 64)  # z and masks besides
    assert deep.activations == 4 * rows * (kept + 112)
    turns = fm.complexity([16, *[32] * 20, 1], rows, threads=1, checkpoint_every=4, norm="layer")
    outputs, xhats = 2 + 1 + 1 + 5, 3 + 5  # of turns 1 (two buffers), 2 and 3; of five checkpoints
    assert turns.activations == 4 * rows * (32 * (outputs + xhats) + 16 + line)


def test_multiplications_of_a_small_network() -> None:
    cost = fm.complexity([5, 4, 3], 10, activation="prelu", norm="batch")
    first, second = cost.layers
    assert (first.inputs, first.outputs, second.inputs, second.outputs) == (5, 4, 4, 3)
    assert (first.parameters, second.parameters) == (5 * 4 + 4 + 1 + 4 + 4, 4 * 3 + 3)
    assert (first.forward, first.backward, second.forward, second.backward) == (200, 200, 120, 240)
    assert (cost.forward, cost.backward, cost.recomputed) == (320, 440, 0)
    net = fm.MLP([5, 4, 3], activation="prelu", norm="batch")
    assert first.parameters + second.parameters == net.n_parameters


COUNT = """
import numpy as np
import fastmlp as fm
from fastmlp.kernels import gemm, network

count = 0

def counting(function):
    def product(c, a, b, start, *others):
        global count
        columns = c.shape[1] if c.ndim == 2 else c.shape[0] * c.shape[2]
        count += a.shape[0] * a.shape[1] * columns
        function(c, a, b, start, *others)
    return product

network.multiply = gemm.multiply = counting(gemm.multiply)
network.multiply_transposed = counting(network.multiply_transposed)

for sizes in ([32, 16], [32, 48, 16], [16, 32, 48, 80], [16, *[16] * 9, 16]):
    for every in (1, 2, 3, 4, 20):
        net = fm.MLP(sizes, loss="squared_error")
        X, y = np.ones((9, sizes[0])), np.ones((9, sizes[-1]))
        cost = fm.complexity(sizes, 9, checkpoint_every=every)
        count = 0
        net.evaluate(X, y)
        assert count == cost.forward, (sizes, every, count, cost.forward)
        count = 0
        net.loss_and_gradient(X, y, checkpoint_every=every)
        all_of_it = cost.forward + cost.backward + cost.recomputed
        assert count == all_of_it, (sizes, every, count, all_of_it)
print("counted")
"""


def test_multiplications_are_those_of_the_program() -> None:
    """Without the compiler the products can be counted; whole lines have no padding to count."""
    result = subprocess.run(
        [sys.executable, "-c", COUNT],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "counted\n", result.stderr


def test_table() -> None:
    cost = fm.complexity([784, 128, 10], 1000, threads=1)
    lines = str(cost).splitlines()
    assert lines[0] == "multiply-adds of a step on 1,000 samples"
    assert lines[2].split() == ["1", "784", "x", "128", "100,480", *["100,352,000"] * 2, "0"]
    assert lines[4].split() == ["all", "101,770", "101,632,000", "102,912,000", "0"]
    assert lines[-1].split() == ["memory", f"{cost.memory:,}"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layer_sizes": [3]}, ValueError, "layer_sizes must name"),
        ({"layer_sizes": 3}, TypeError, "layer_sizes must be a sequence"),
        ({"layer_sizes": [3, 0]}, ValueError, r"layer_sizes\[1\]"),
        ({"batch": 0}, ValueError, "batch must be at least 1"),
        ({"batch": 1.5}, TypeError, "batch must be a whole number"),
        ({"activation": "swoosh"}, ValueError, "activation must be one of"),
        ({"norm": "group"}, ValueError, "norm must be one of"),
        ({"dropout": 1.0}, ValueError, "dropout must be in"),
        ({"optimizer": "adam"}, TypeError, "optimizer must be an Optimizer"),
        ({"optimizer": LBFGS()}, ValueError, "optimizer must not be LBFGS"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be"),
        ({"threads": 0}, ValueError, "threads must be"),
        ({"dtype": "float16"}, ValueError, "dtype must be one of"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"layer_sizes": [3, 4, 2], "batch": 8, **change}
    with pytest.raises(error, match=message):
        fm.complexity(**arguments)
