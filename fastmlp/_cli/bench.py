"""``fastmlp bench``: how fast this machine trains and runs a network."""

import itertools
import math
import os
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import fastmlp as fm
from fastmlp._cli import config
from fastmlp._cli.arguments import Json, complete_names, parse_sizes
from fastmlp._cli.base import errors
from fastmlp._cli.output import print_json, print_line, print_rows
from fastmlp._names import check_name

__all__ = ["bench"]

Array = NDArray[Any]

_ROUND_SECONDS = 0.2  # of each of the three things that are measured
_SAMPLES = 4096
_BUSY = 1.5  # processes a core
_OPTIMIZERS = [name for name in config.OPTIMIZERS if name not in ("gradient_descent", "lbfgs")]
_KINDS = ("training", "prediction", "NumPy's products")


def bench(
    layers: Annotated[
        str, typer.Option(metavar="SIZES", help="Sizes of the layers.")
    ] = "784,128,10",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a step.")] = 32,
    activation: Annotated[
        str,
        typer.Option(
            help="Of the hidden layers.",
            autocompletion=complete_names(lambda: fm.activations.NAMES),
        ),
    ] = "relu",
    optimizer: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(_OPTIMIZERS)}.", autocompletion=complete_names(lambda: _OPTIMIZERS)
        ),
    ] = "sgd",
    dtype: Annotated[
        str,
        typer.Option(
            help="float32 or float64.", autocompletion=complete_names(lambda: fm.kernels.DTYPES)
        ),
    ] = "float32",
    threads: Annotated[
        int | None,
        typer.Option(show_default="FASTMLP_NUM_THREADS, or all cores this process may use"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Measurements of each.")] = 9,
    json: Json = False,
) -> None:
    """Measure how many samples a second this machine trains and predicts.

    Training, prediction, and for comparison NumPy's matrix products of the same
    training steps (with nothing else: no activations, loss or update) take
    turns, so that what disturbs the machine meets all of them. Given are
    medians over the rounds with their quartiles; the ratio is the median of the
    rounds' ratios. GFLOP/s count the multiplications and additions of the
    matrix products alone. The inputs are random and dense: zeros, as in images,
    would train faster.
    """
    sizes = parse_sizes("--layers", layers)
    check_name(optimizer, "--optimizer", _OPTIMIZERS)
    loss = "softmax_cross_entropy" if sizes[-1] > 1 else "squared_error"
    net = fm.MLP(sizes, activation=activation, loss=loss, dtype=dtype)
    cost = fm.complexity(sizes, batch_size, threads=threads, dtype=dtype)
    rng = np.random.default_rng(0)
    samples = batch_size * max(1, _SAMPLES // batch_size)
    X = rng.standard_normal((samples, sizes[0]), np.float32).astype(net.dtype)
    y: Array = rng.integers(sizes[-1], size=samples) if sizes[-1] > 1 else rng.random(samples)
    method = config.OPTIMIZERS[optimizer](learning_rate=1e-4)  # what is random cannot be learnt

    def train(epochs: int) -> None:
        fm.fit(net, X, y, optimizer=method, batch_size=batch_size, epochs=epochs, threads=threads)

    def predict(epochs: int) -> None:
        for _ in range(epochs):
            net.decision_function(X)

    multiply = _products(net, X, batch_size)
    seconds = _measure(dict(zip(_KINDS, (train, predict, multiply), strict=True)), rounds)
    steps = cost.forward + cost.backward  # multiply-adds of a batch
    work = dict(zip(_KINDS, (steps, cost.forward, steps), strict=True))
    results = {
        kind: {
            "samples_per_second": _quartiles([samples / t for t in seconds[kind]]),
            "gflops": _quartiles(
                [2e-9 * work[kind] * samples / batch_size / t for t in seconds[kind]]
            ),
        }
        for kind in _KINDS
    }
    ratio = _quartiles(
        [b / a for a, b in zip(seconds["training"], seconds["NumPy's products"], strict=True)]
    )
    load = _load()
    if json:
        keys = ("training", "prediction", "numpy_products")
        print_json(
            {
                "layer_sizes": sizes,
                "batch_size": batch_size,
                "activation": activation,
                "optimizer": optimizer,
                "dtype": net.dtype.name,
                "threads": fm.threads.resolve(threads),
                "rounds": rounds,
                "load": load,
                **dict(zip(keys, results.values(), strict=True)),
                "training_times_numpy_products": ratio,
            }
        )
        return
    print_line(
        f"{'-'.join(map(str, sizes))}, {activation}, batch {batch_size}, {optimizer}, {net.dtype}, "
        f"threads {fm.threads.resolve(threads)}; medians of {rounds} rounds (quartiles)"
    )
    print_rows(
        ("", "samples/s", "GFLOP/s"),
        [
            (kind, *(_in_words(result[key]) for key in ("samples_per_second", "gflops")))
            for kind, result in results.items()
        ],
    )
    print_line(f"training is {_in_words(ratio)} times as fast as NumPy's products alone")
    if load is not None and load > _BUSY:
        errors.print(
            f"the machine was busy, {load:.1f} processes a core: other figures at a quiet time"
        )


def _load() -> float | None:
    """Return how many processes a core have wanted to run in the last minute, if that is known.

    This one is among them.
    """
    if not hasattr(os, "getloadavg"):  # Windows
        return None
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _products(net: fm.MLP, X: Array, batch_size: int) -> Callable[[int], None]:
    """Return a function that computes the matrix products of so many epochs by NumPy, in place."""
    weights = [np.ascontiguousarray(w) for w in net.weights]
    outputs = [np.empty((batch_size, w.shape[1]), w.dtype) for w in weights]
    gradients = list(map(np.empty_like, weights))
    deltas = [np.ones_like(a) for a in outputs]

    def multiply(epochs: int) -> None:
        for _, start in itertools.product(range(epochs), range(0, len(X), batch_size)):
            inputs = [X[start : start + batch_size], *outputs[:-1]]
            for a, w, z in zip(inputs, weights, outputs, strict=True):
                np.matmul(a, w, out=z)
            for layer in reversed(range(len(weights))):
                np.matmul(inputs[layer].T, deltas[layer], out=gradients[layer])
                if layer:
                    np.matmul(deltas[layer], weights[layer].T, out=outputs[layer - 1])

    return multiply


def _measure(kinds: dict[str, Callable[[int], None]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that an epoch of each took in each round, all in turn.

    The order is turned round from one round to the next.
    """
    epochs = {kind: _enough(work) for kind, work in kinds.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        for kind in list(kinds)[:: -1 if number % 2 else 1]:
            begin = time.perf_counter()
            kinds[kind](epochs[kind])
            seconds[kind].append((time.perf_counter() - begin) / epochs[kind])
    return seconds


def _enough(work: Callable[[int], None]) -> int:
    """Return how many epochs take long enough to be measured; what is compiled is then ready."""
    work(1)
    begin = time.perf_counter()
    work(1)
    return max(1, math.ceil(_ROUND_SECONDS / (time.perf_counter() - begin)))


def _quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def _in_words(spread: dict[str, float]) -> str:
    middle, low, high = (
        f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        for value in (spread["median"], spread["lower_quartile"], spread["upper_quartile"])
    )
    return f"{middle} ({low} to {high})"
