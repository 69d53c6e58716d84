"""Bad input gets one error that names the argument and what was found; the network stays."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import fastmlp as fm

N, FEATURES, CLASSES, OUTPUTS = 6, 3, 4, 2
X = np.linspace(-1.0, 1.0, N * FEATURES).reshape(N, FEATURES)
LABELS = np.arange(N) % CLASSES
TARGETS = np.linspace(0.0, 1.0, N * OUTPUTS).reshape(N, OUTPUTS)

Call = Callable[[fm.MLP, Any, Any], object]
Case = tuple[Any, type[Exception], str]


def classifier(dtype: str = "float32") -> fm.MLP:
    return fm.MLP([FEATURES, 5, CLASSES], activation="tanh", seed=1, dtype=dtype)


def regressor(dtype: str = "float32") -> fm.MLP:
    return fm.MLP([FEATURES, 5, OUTPUTS], loss="squared_error", seed=1, dtype=dtype)


def good(net: fm.MLP) -> np.ndarray:
    return LABELS if net.is_classifier else TARGETS


def refuses(
    call: Callable[[], object], error: type[Exception], words: str, net: fm.MLP | None = None
) -> None:
    """Assert that the call raises the error with these words, and leaves the network as it was."""
    before = None if net is None else net.theta.tobytes()
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500
    if net is not None:
        assert net.theta.tobytes() == before


def with_value(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


# Inputs: what is wrong -> (X, error, words after the argument's name)

SHAPE = f"must have shape (n, {FEATURES}) to match layer_sizes[0], got "
BAD_X: dict[str, Case] = {
    "too few features": (X[:, :2], ValueError, SHAPE + "(6, 2)"),
    "too many features": (np.ones((6, 700)), ValueError, SHAPE + "(6, 700)"),
    "no features": (X[:, :0], ValueError, SHAPE + "(6, 0)"),
    "one sample without its dimension": (X[0], ValueError, SHAPE + "(3,)"),
    "three dimensions": (X[None], ValueError, SHAPE + "(1, 6, 3)"),
    **{
        f"shape {shape} of the network's dtype": (np.ones(shape, np.float32), ValueError, words)
        for shape, words in (
            ((6, 2), SHAPE + "(6, 2)"),
            ((3,), SHAPE + "(3,)"),
            ((1, 6, 3), SHAPE + "(1, 6, 3)"),
            ((0, 3), "must hold at least one sample, got shape (0, 3)"),
        )
    },
    "masked": (
        np.ma.masked_equal(np.eye(6, 3, dtype=np.float32), 1),
        ValueError,
        "must not hold masked values, found one at index [0, 0]",
    ),
    "a number": (5.0, ValueError, SHAPE + "()"),
    "no samples": (X[:0], ValueError, "must hold at least one sample, got shape (0, 3)"),
    "empty list": ([], ValueError, SHAPE + "(0,)"),
    "nan": (with_value(X, (3, 1), np.nan), ValueError, "found nan at index [3, 1]"),
    "infinity": (with_value(X, (5, 2), np.inf), ValueError, "found inf at index [5, 2]"),
    "minus infinity": (with_value(X, (0, 0), -np.inf), ValueError, "found -inf at index [0, 0]"),
    "infinities that cancel": (
        with_value(with_value(X, (1, 2), np.inf), (4, 0), -np.inf),
        ValueError,
        "found inf at index [1, 2]",
    ),
    "nan in a list": ([[0, 1, 2], [3, float("nan"), 5]], ValueError, "found nan at index [1, 1]"),
    "nan in another order of memory": (
        np.asfortranarray(with_value(X, (3, 1), np.nan)),
        ValueError,
        "found nan at index [3, 1]",
    ),
    "objects": (X.astype(object), TypeError, "must be an array of real numbers, got dtype object"),
    "None": (None, TypeError, "must be"),
    "None among numbers": ([[1.0, None, 2.0]], TypeError, "got dtype object"),
    "text": (X.astype(str), TypeError, "must be an array of real numbers, got dtype <U"),
    "a word": ("digits.csv", TypeError, "must be an array of real numbers, got dtype <U10"),
    "bytes": (X.astype("S8"), TypeError, "must be an array of real numbers, got dtype |S8"),
    "complex numbers": (X + 1j, TypeError, "got dtype complex128"),
    "dates": (np.zeros((6, 3), "M8[s]"), TypeError, "got dtype datetime64[s]"),
    "durations": (np.zeros((6, 3), "m8[s]"), TypeError, "got dtype timedelta64[s]"),
    "records": (
        np.zeros((6, 3), "f4,f4"),
        TypeError,
        "must be an array of real numbers, got dtype",
    ),
    "rows of several lengths": ([[1, 2, 3], [4, 5]], ValueError, "must be an array of numbers"),
    "integers beyond 64 bits": ([[10**30, 0, 0]], TypeError, "got dtype object"),
    "a dictionary": ({"a": 1}, TypeError, "got dtype object"),
    "a generator": ((row for row in X), TypeError, "got dtype object"),
}


def validate(net: fm.MLP, inputs: Any, outputs: Any) -> object:
    return fm.fit(net, X, good(net), epochs=1, validation=(inputs, outputs))


WITH_X: dict[str, tuple[str, Call]] = {
    "fit": ("X", lambda net, x, y: fm.fit(net, x, y, epochs=1)),
    "fit, validation": ("validation[0]", validate),
    "predict": ("X", lambda net, x, y: net.predict(x)),
    "predict_proba": ("X", lambda net, x, y: net.predict_proba(x)),
    "decision_function": ("X", lambda net, x, y: net.decision_function(x)),
    "evaluate": ("X", lambda net, x, y: net.evaluate(x, y)),
    "loss_and_gradient": ("X", lambda net, x, y: net.loss_and_gradient(x, y)),
}
WITH_Y = {
    name: (argument.replace("X", "y").replace("[0]", "[1]"), call)
    for name, (argument, call) in WITH_X.items()
    if name in ("fit", "fit, validation", "evaluate", "loss_and_gradient")
}


@pytest.mark.parametrize("function", WITH_X)
@pytest.mark.parametrize("case", BAD_X)
def test_inputs(case: str, function: str) -> None:
    argument, call = WITH_X[function]
    bad, error, words = BAD_X[case]
    net = classifier()
    refuses(lambda: call(net, bad, LABELS), error, words, net)
    if not isinstance(bad, Iterator):
        refuses(lambda: call(net, bad, LABELS), error, f"{argument} must ", net)


@pytest.mark.parametrize("function", WITH_X)
def test_inputs_that_float32_cannot_hold(function: str) -> None:
    argument, call = WITH_X[function]
    net = classifier()
    large = with_value(X, (2, 0), -1e39)
    words = f"{argument} must be finite in float32, found -inf at index [2, 0]"
    refuses(lambda: call(net, large, LABELS), ValueError, words, net)


@pytest.mark.jit  # without the compiler NumPy warns of the overflow
def test_largest_inputs_are_taken() -> None:
    """Their sum is not finite, but each of them is."""
    large = np.full((N, FEATURES), np.finfo(np.float32).max)
    assert classifier().predict(large).shape == (N,)
    assert classifier("float64").predict(np.full((N, FEATURES), 1e39)).shape == (N,)


# Labels: what is wrong -> (y, error, words)

LENGTH = "must have shape (6,) to match the samples and outputs, got "
BAD_LABELS: dict[str, Case] = {
    "negative": ([0, 1, -1, 3, 0, 1], ValueError, "found -1 at index 2"),
    "as large as the number of classes": ([0, 1, 2, 3, 0, 4], ValueError, "found 4 at index 5"),
    "far too large": ([0, 2**40, 2, 3, 0, 1], ValueError, f"found {2**40} at index 1"),
    "beyond int64": (
        np.array([0, 1, 2, 3, 0, 2**63], np.uint64),
        ValueError,
        f"found {2**63} at index 5",
    ),
    "beyond 64 bits": ([0, 1, 2, 3, 0, 2**70], TypeError, "got dtype object"),
    "from 1 to K": (LABELS + 1, ValueError, "must hold labels 0 to 3 (layer_sizes[-1] is 4)"),
    "floats": (LABELS.astype(float), TypeError, "labels 0 to 3, got dtype float64"),
    "nan": ([0, 1, 2, 3, 0, float("nan")], TypeError, "got dtype float64"),
    "too many columns": (np.eye(CLASSES + 1)[LABELS], ValueError, "shape (6, 4)"),
    "not a distribution": (2.0 * np.eye(CLASSES)[LABELS], ValueError, "row 0 has 2.0"),
    "below zero": (np.eye(CLASSES)[LABELS] - 0.25, ValueError, "at least 0, found -0.25"),
    "text": (list("013201"), TypeError, "got dtype <U1"),
    "objects": (LABELS.astype(object), TypeError, "got dtype object"),
    "complex": (LABELS + 0j, TypeError, "got dtype complex128"),
    "dates": (LABELS.astype("M8[D]"), TypeError, "got dtype datetime64[D]"),
    "None": (None, TypeError, "must be"),
    "too short": (LABELS[:5], ValueError, LENGTH + "(5,)"),
    "too long": (np.zeros(7, int), ValueError, LENGTH + "(7,)"),
    "a column": (LABELS[:, None], ValueError, LENGTH + "(6, 1)"),
    "a number": (1, ValueError, LENGTH + "()"),
    "empty": (np.zeros(0, int), ValueError, LENGTH + "(0,)"),
    "of several lengths": ([[0], [1, 2], [3], [0], [1], [2]], ValueError, "must be"),
}


@pytest.mark.parametrize("function", WITH_Y)
@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels(case: str, function: str) -> None:
    argument, call = WITH_Y[function]
    bad, error, words = BAD_LABELS[case]
    net = classifier()
    refuses(lambda: call(net, X, bad), error, words, net)
    refuses(lambda: call(net, X, bad), error, f"{argument} must ", net)


# Targets: what is wrong -> (y, error, words)

TARGET_SHAPE = "must have shape (6, 2) to match the samples and outputs, got "
BAD_TARGETS: dict[str, Case] = {
    "nan": (with_value(TARGETS, (1, 0), np.nan), ValueError, "found nan at index [1, 0]"),
    "infinity": (with_value(TARGETS, (5, 1), -np.inf), ValueError, "found -inf at index [5, 1]"),
    "too large": (
        with_value(TARGETS, (0, 1), 1e39),
        ValueError,
        "must be finite in float32, found inf at index [0, 1]",
    ),
    "too many outputs": (np.ones((6, 3)), ValueError, TARGET_SHAPE + "(6, 3)"),
    "one output": (TARGETS[:, 0], ValueError, TARGET_SHAPE + "(6,)"),
    "transposed": (TARGETS.T, ValueError, TARGET_SHAPE + "(2, 6)"),
    "too short": (TARGETS[:5], ValueError, TARGET_SHAPE + "(5, 2)"),
    "empty": (TARGETS[:0], ValueError, TARGET_SHAPE + "(0, 2)"),
    "text": (TARGETS.astype(str), TypeError, "got dtype <U"),
    "objects": (TARGETS.astype(object), TypeError, "got dtype object"),
    "complex": (TARGETS + 0j, TypeError, "got dtype complex128"),
    "dates": (np.zeros((6, 2), "M8[s]"), TypeError, "got dtype datetime64[s]"),
    "None": (None, TypeError, "must be"),
    "of several lengths": ([[1, 2], [3]], ValueError, "must be an array of numbers"),
}


@pytest.mark.parametrize("function", WITH_Y)
@pytest.mark.parametrize("case", BAD_TARGETS)
def test_targets(case: str, function: str) -> None:
    argument, call = WITH_Y[function]
    bad, error, words = BAD_TARGETS[case]
    net = regressor()
    refuses(lambda: call(net, X, bad), error, words, net)
    refuses(lambda: call(net, X, bad), error, f"{argument} must ", net)


def test_probabilities_of_a_regressor() -> None:
    net = regressor()
    words = "predict_proba needs a classifier, this network has loss 'squared_error'"
    refuses(lambda: net.predict_proba(X), ValueError, words, net)


# Settings of `fit`: argument -> (values, error)

BAD_SETTINGS: list[tuple[str, list[Any], type[Exception]]] = [
    ("optimizer", ["adam", fm.Adam, 0.1, {}], TypeError),
    ("batch_size", [0, -1, 2**40], ValueError),
    ("batch_size", [1.5, 32.0, "32", True, (32,), np.nan], TypeError),
    ("epochs", [0, -3, 2**40], ValueError),
    ("epochs", [1.0, "10", None, True, [1]], TypeError),
    ("seed", [-1, 2**63], ValueError),
    ("seed", [0.0, "0", False, np.float32(1)], TypeError),
    ("shuffle", ["no", None], TypeError),
    ("validation", [0, 1, 0.0, 1.0, -0.1, 1.5, np.nan, np.inf, -np.inf], ValueError),
    ("validation", ["0.1", True, [X, LABELS], {"X": X}, X], TypeError),
    ("validation", [(X,), (X, LABELS, np.ones(len(X)), X), ()], ValueError),
    ("validation", [0.01, 0.99], ValueError),  # of classes of one or two samples
    ("sample_weight", [np.ones(N - 1), -np.ones(N), np.zeros(N), [np.nan] * N], ValueError),
    ("sample_weight", [["1"] * N, [None] * N], TypeError),
    ("early_stopping", [3, "val_loss", True], TypeError),
    ("early_stopping", [fm.EarlyStopping()], ValueError),  # nothing to validate on
    ("accumulate", [0, -1], ValueError),
    ("accumulate", [1.5, None, True], TypeError),
    ("clip_value", [0.0, -1.0, np.nan, np.inf], ValueError),
    ("clip_norm", [0.0, -1.0, np.nan, np.inf], ValueError),
    ("clip_global_norm", [0.0, -1.0, np.nan, np.inf], ValueError),
    ("clip_value", ["1", True, [1.0]], TypeError),
    ("average", [0.0, 1.0, -0.5, np.nan], ValueError),
    ("average", ["0.9", True], TypeError),
    ("checkpoint_every", [0, -2], ValueError),
    ("checkpoint_every", [2.0, None], TypeError),
    ("callbacks", [3, "print", print, [3], [fm.EarlyStopping()]], TypeError),
]


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("adam", "got 'adam'; did you mean Adam()?"),
        ("adamw", "did you mean AdamW()?"),
        ("rms_prop", "did you mean RMSProp()?"),
        (fm.NAdam, "did you mean NAdam()?"),
        ("x", "must be an Optimizer like Adam(), got 'x'"),
    ],
)
def test_names_of_optimizers(optimizer: Any, words: str) -> None:
    net = classifier()
    refuses(lambda: fm.fit(net, X, LABELS, optimizer=optimizer), TypeError, words, net)


@pytest.mark.parametrize("arguments", [{"epochs": 0}, {"average": 2.0}, {"clip_norm": -1}])
def test_settings_are_looked_at_before_the_samples(arguments: dict[str, Any]) -> None:
    """Which may be many, and slow to convert."""
    call = functools.partial(fm.fit, classifier(), "no samples", LABELS, **arguments)
    refuses(call, ValueError, f"{next(iter(arguments))} must be ")


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        pytest.param(argument, value, error, id=f"{argument}-{i}-{j}")
        for i, (argument, values, error) in enumerate(BAD_SETTINGS)
        for j, value in enumerate(values)
    ],
)
def test_settings(argument: str, value: Any, error: type[Exception]) -> None:
    net = classifier()
    call = functools.partial(fm.fit, net, X, LABELS, **{argument: value})
    refuses(call, error, argument, net)
    if isinstance(value, (str, bool, int, float)):
        refuses(call, error, repr(value), net)
    elif isinstance(value, tuple) and argument == "validation":
        refuses(call, error, f"got {len(value)} arrays", net)


@pytest.mark.jit  # without the compiler there is one thread, whatever is asked for
@pytest.mark.parametrize(
    ("value", "error"),
    [
        *((value, ValueError) for value in (0, -1, 1025, 10**5)),
        *((value, TypeError) for value in (1.5, "2", True)),
    ],
)
def test_threads(value: Any, error: type[Exception]) -> None:
    net = classifier()
    refuses(lambda: fm.fit(net, X, LABELS, threads=value), error, "threads must be ", net)
    refuses(lambda: fm.fit(net, X, LABELS, threads=value), error, repr(value), net)


@pytest.mark.parametrize("argument", ["batch_size", "epochs", "seed", "threads"])
def test_integers_of_numpy_are_taken(argument: str) -> None:
    history = fm.fit(classifier(), X, LABELS, **{"epochs": 1, argument: np.int64(2)})
    assert len(history) == (2 if argument == "epochs" else 1)


@pytest.mark.parametrize("net", [None, "net", fm.MLP, object()])
def test_network(net: Any) -> None:
    refuses(lambda: fm.fit(net, X, LABELS), TypeError, "net must be an MLP, got ")


def test_seed_none_and_validation_none_are_the_defaults() -> None:
    assert len(fm.fit(classifier(), X, LABELS, seed=None, validation=None, epochs=1)) == 1


# Networks: (arguments, error, words)

BAD_NETWORKS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"layer_sizes": []}, ValueError, "layer_sizes must name the inputs and the outputs at least"),
    ({"layer_sizes": [3]}, ValueError, "got [3]"),
    ({"layer_sizes": [3, 0, 2]}, ValueError, "layer_sizes[1] must be at least 1"),
    ({"layer_sizes": [-3, 2]}, ValueError, "layer_sizes[0] must be at least 1"),
    (
        {"layer_sizes": [3, 2**40]},
        ValueError,
        f"layer_sizes[1] must be at least 1 and below {2**31}",
    ),
    ({"layer_sizes": [3, 2.0]}, TypeError, "layer_sizes[1] must be a whole number, got 2.0"),
    ({"layer_sizes": [3, True]}, TypeError, "layer_sizes[1] must be a whole number, got True"),
    ({"layer_sizes": [3, None]}, TypeError, "layer_sizes[1] must be a whole number, got None"),
    ({"layer_sizes": [3, [4], 2]}, TypeError, "layer_sizes[1] must be a whole number, got [4]"),
    ({"layer_sizes": ["3", 2]}, TypeError, "layer_sizes[0] must be a whole number, got '3'"),
    ({"layer_sizes": "784"}, TypeError, "layer_sizes"),
    ({"layer_sizes": 784}, TypeError, "layer_sizes"),
    ({"layer_sizes": None}, TypeError, "layer_sizes"),
    ({"layer_sizes": [3, 4, 1]}, ValueError, "layer_sizes[-1] must be at least 2"),
    ({"activation": "swish"}, ValueError, "activation must be one of identity, relu, "),
    ({"activation": "swish"}, ValueError, "got 'swish'"),
    ({"activation": ["relu", "swish"]}, ValueError, "got 'swish'"),
    ({"activation": ["relu"]}, ValueError, "each of the 2 hidden layers, got 1"),
    ({"activation": ["relu"] * 3}, ValueError, "each of the 2 hidden layers, got 3"),
    ({"activation": [None, None]}, TypeError, "activation must be a name"),
    ({"activation": None}, TypeError, "activation"),
    ({"activation": 3}, TypeError, "activation"),
    ({"loss": "mse"}, ValueError, "loss must be one of softmax_cross_entropy, squared_error, "),
    ({"loss": "mse"}, ValueError, "got 'mse'"),
    ({"loss": None}, ValueError, "loss must be one of"),
    ({"loss": fm.Loss("pinball", quantile=(0.1, 0.5, 0.9))}, ValueError, "each of the 2 outputs"),
    ({"dropout": 1.0}, ValueError, "dropout must be in [0, 1)"),
    ({"dropout": -0.1}, ValueError, "dropout must be in [0, 1)"),
    ({"dropout": "0.5"}, TypeError, "dropout must be a number"),
    ({"dropout": [0.1, 0.1]}, ValueError, "inputs and each of the 2 hidden layers, got 2"),
    ({"dropout": [0.0, 0.5, 1.5]}, ValueError, "dropout[2] must be in [0, 1)"),
    ({"norm": "group"}, ValueError, "norm must be one of batch, layer, got 'group'"),
    ({"norm": 1}, TypeError, "norm must be a sequence"),
    ({"norm": [None, 1]}, TypeError, "norm must be a name, a BatchNorm, a LayerNorm or None"),
    ({"norm": ["batch"]}, ValueError, "each of the 2 hidden layers, got 1"),
    ({"l2": -0.1}, ValueError, "l2 must be in [0, inf)"),
    ({"l2": [0.1, 0.2]}, ValueError, "l2 must be one number, or one for each of the 3 layers"),
    ({"l1": [0.1, 0.2, np.nan]}, ValueError, "l1[2] must be in [0, inf)"),
    ({"l1": None}, TypeError, "l1 must be a number"),
    ({"initializer": "he"}, ValueError, "initializer"),
    ({"seed": -1}, ValueError, "seed must be at least 0"),
    ({"seed": 2**63}, ValueError, f"got {2**63}"),
    ({"seed": None}, TypeError, "seed must be a whole number, got None"),
    ({"seed": 1.5}, TypeError, "seed must be a whole number, got 1.5"),
    ({"dtype": "float16"}, ValueError, "dtype must be one of float32, float64, got float16"),
    ({"dtype": "int32"}, ValueError, "dtype must be one of float32, float64, got int32"),
    ({"dtype": "no dtype"}, TypeError, "dtype must be one of float32, float64, got 'no dtype'"),
    ({"dtype": 32}, TypeError, "dtype must be one of float32, float64, got 32"),
    ({"dtype": None}, TypeError, "dtype must be one of float32, float64, got None"),
    ({"layer_sizes": np.array(3)}, TypeError, "layer_sizes must be a sequence"),
    ({"dropout": np.array(0.5)}, TypeError, "dropout must be a number"),
    ({"l2": 10**400}, ValueError, "l2 must be in [0, inf), got 10000"),
    ({"l2": b"123"}, TypeError, "l2 must be a number, got b'123'"),
    ({"loss": np.zeros(0)}, ValueError, "loss must be one of softmax_cross_entropy, "),
    ({"activation": "LeakyReLU"}, ValueError, "got 'LeakyReLU'; did you mean 'leaky_relu'?"),
    ({"loss": "mse"}, ValueError, "did you mean 'squared_error'?"),
    ({"norm": "BatchNorm"}, ValueError, "did you mean 'batch'?"),
    ({"initializer": "kaiming_uniform"}, ValueError, "did you mean 'he_uniform'?"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_NETWORKS)
def test_networks(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    refuses(lambda: fm.MLP(**{"layer_sizes": [3, 5, 6, 2], **arguments}), error, words)


@pytest.mark.parametrize("dtype", ["float16", "int64", "no dtype", object()])
def test_conversion(dtype: Any) -> None:
    net = classifier()
    with pytest.raises((TypeError, ValueError), match="dtype must be one of float32, float64"):
        net.astype(dtype)


@pytest.mark.parametrize("dtype", [">f4", "<f4", "f4", np.float32])
def test_any_name_of_a_dtype_is_the_native_one(dtype: Any) -> None:
    net = fm.MLP([FEATURES, CLASSES], dtype=dtype)
    assert net.dtype == net.theta.dtype == np.dtype("float32")
    assert net.predict(X).shape == (N,)


# Optimizers: (class, argument, values, error)

RATES: list[Any] = [0.0, 0, -0.1, np.nan, np.inf, -np.inf]
DECAYS: list[Any] = [-0.1, 1.0, 1, 2, np.nan, np.inf]
NO_NUMBERS: list[Any] = ["0.1", None, True, 1j, [0.1], np.array([0.1])]


@pytest.mark.parametrize(
    ("optimizer", "argument", "value", "error"),
    [
        pytest.param(optimizer, argument, value, error, id=f"{argument}={value!r}")
        for optimizer, argument, bad in [
            (fm.SGD, "learning_rate", RATES),
            (fm.SGD, "momentum", DECAYS),
            (fm.Adam, "learning_rate", RATES),
            (fm.Adam, "beta1", DECAYS),
            (fm.Adam, "beta2", DECAYS),
            (fm.Adam, "epsilon", RATES),
        ]
        for values, error in ((bad, ValueError), (NO_NUMBERS, TypeError))
        for value in values
    ],
)
def test_optimizers(optimizer: Any, argument: str, value: Any, error: type[Exception]) -> None:
    refuses(lambda: optimizer(**{argument: value}), error, f"{argument} must be ")
    refuses(lambda: optimizer(**{argument: value}), error, f"got {value!r}")


# Other functions: what is called -> (call, error, words)

OTHERS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "gradient check of nothing": (
        lambda: fm.gradient_check(None, X, LABELS),
        TypeError,
        "net must be an MLP, got NoneType",
    ),
    "Hessian check of a name": (
        lambda: fm.hessian_check("net", X, LABELS),
        TypeError,
        "net must be an MLP, got str",
    ),
    "optimizer check of an array": (
        lambda: fm.optimizer_check(X, X, LABELS, fm.Adam()),
        TypeError,
        "net must be an MLP, got ndarray",
    ),
    "optimizer by name": (
        lambda: fm.optimizer_check(classifier(), X, LABELS, "sgd"),
        TypeError,
        "did you mean SGD()?",
    ),
    "method": (
        lambda: fm.gradient_check(classifier(), X, LABELS, method=["central"]),
        ValueError,
        "method must be one of central, richardson, complex, directions, got ['central']",
    ),
    "tolerance": (
        lambda: fm.hessian_check(classifier(), X, LABELS, tolerance=None),
        TypeError,
        "tolerance must be a number, got None",
    ),
    "product that is none": (
        lambda: fm.hessian_check(classifier(), X, LABELS, product=3),
        TypeError,
        "product must be a function or None, got 3",
    ),
    "product that gives nothing": (
        lambda: fm.hessian_check(classifier(), X, LABELS, product=lambda *_, **__: None),
        ValueError,
        "product must give numbers of shape",
    ),
    "flag": (
        lambda: fm.verify_descent(regressor(), X, TARGETS, alpha=0.1, training=2),
        TypeError,
        "training must be True or False, got 2",
    ),
    "alpha": (
        lambda: fm.Activation("elu", alpha=np.inf),
        ValueError,
        "alpha must be in (-inf, inf), got inf",
    ),
    "text for weights": (
        lambda: fm.Loss("softmax_cross_entropy", class_weight=b"12"),
        TypeError,
        "class_weight must be a sequence, got b'12'",
    ),
    "list for a monitor": (
        lambda: fm.TargetReached(0.1, ["loss"]),
        ValueError,
        "monitor must be one of loss, accuracy, val_loss, val_accuracy, got ['loss']",
    ),
    "monitor as elsewhere": (
        lambda: fm.EarlyStopping("val_acc"),
        ValueError,
        "did you mean 'val_accuracy'?",
    ),
    "monitor that returns nothing": (
        lambda: fm.fit(classifier(), X, LABELS, early_stopping=fm.EarlyStopping(lambda net: None)),
        TypeError,
        "monitor must return a number, got None",
    ),
    "batches from nothing": (
        lambda: fm.fit(classifier(), batches=lambda: None),
        TypeError,
        "batches must return an iterable of (X, y), got None",
    ),
    "flow of other samples": (
        lambda: fm.fit(classifier(), X, LABELS, callbacks=[fm.FlowRecorder(X[:, :2], LABELS)]),
        ValueError,
        "X must have shape (n, 3)",
    ),
    "number for a path": (
        lambda: classifier().save(3),
        TypeError,
        "path must be a path, got 3",
    ),
    "no path of a log": (
        lambda: fm.CSVLogger(None),
        TypeError,
        "path must be a path, got None",
    ),
    "data": (
        lambda: fm.datasets.read(None),
        TypeError,
        "data must be a path, got None",
    ),
    "classes": (
        lambda: fm.datasets.read("mnist157", classes="yes"),
        TypeError,
        "classes must be True or False, got 'yes'",
    ),
    "history": (
        lambda: fm.plot_history([1.0]),
        TypeError,
        "history must be a History, got list",
    ),
    "samples of the preset": (
        lambda: fm.tabular.settings(fm.tabular.network(3, 2), 0),
        ValueError,
        "samples must be at least 1",
    ),
    "inputs of the preset": (
        lambda: fm.tabular.network(0, 2),
        ValueError,
        "inputs must be at least 1",
    ),
    "targets of the preset": (
        lambda: fm.tabular.train(fm.tabular.network(3, 2), X, 1, validation=(X, LABELS)),
        ValueError,
        "y must have shape (6,)",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_functions(case: str) -> None:
    call, error, words = OTHERS[case]
    refuses(call, error, words)


def test_folder_in_the_place_of_a_checkpoint(tmp_path: Path) -> None:
    net = classifier()
    call = functools.partial(fm.fit, net, X, LABELS, callbacks=[fm.Checkpoint(tmp_path)])
    refuses(call, IsADirectoryError, "a folder in the checkpoint's place", net)


def test_callbacks_of_resume(tmp_path: Path) -> None:
    path = tmp_path / "run"
    fm.fit(classifier(), X, LABELS, epochs=1, callbacks=[fm.Checkpoint(path)])
    call = functools.partial(fm.resume, path, X, LABELS, callbacks=3)
    refuses(call, TypeError, "callbacks must be a list, got 3")


def test_paths_may_be_bytes(tmp_path: Path) -> None:
    path: Any = os.fsencode(tmp_path / "net")
    classifier().save(path)
    assert fm.MLP.load(path).theta.tobytes() == classifier().theta.tobytes()


# Anything at all

ARRAYS = npst.arrays(
    npst.scalar_dtypes() | st.just(np.dtype(object)),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    | st.sampled_from([(N, FEATURES), (N,), (N, OUTPUTS)]),
    fill=st.nothing(),
)


@pytest.mark.jit  # extreme numbers overflow, of which NumPy warns without the compiler
@settings(max_examples=100, deadline=None)
@given(inputs=ARRAYS | st.just(X), outputs=ARRAYS | st.just(LABELS), seed=st.integers(0, 1))
def test_any_arrays(inputs: np.ndarray, outputs: np.ndarray, seed: int) -> None:
    """They are taken or refused, and a network that refused them is as it was."""
    net = [classifier(), regressor()][seed]
    for call in (
        lambda: net.predict(inputs),
        lambda: net.evaluate(inputs, outputs),
        lambda: net.loss_and_gradient(inputs, outputs),
        lambda: fm.fit(net, inputs, outputs, epochs=1, validation=(inputs, outputs)),
    ):
        before, message = net.theta.tobytes(), None
        try:
            call()
        except (TypeError, ValueError) as error:
            message = str(error)
        except fm.DivergenceError:  # numbers near the largest
            assert np.isfinite(net.theta).all()
        if message is not None:
            assert message.startswith(("X must ", "y must "))
            assert net.theta.tobytes() == before
