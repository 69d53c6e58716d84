"""Frames, sparse matrices, tensors and maps are taken as the arrays that they hold."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp import _arrays

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
sp = pytest.importorskip("scipy.sparse")

SAMPLES, FEATURES, CLASSES = 700, 5, 3
NAMES = list("abcde")
RNG = np.random.default_rng(0)
# what every kind holds exactly: small integers, many of them zero
X = (RNG.integers(0, 4, (SAMPLES, FEATURES)) * RNG.integers(0, 2, (SAMPLES, FEATURES))).astype("f4")
LABELS = RNG.integers(0, CLASSES, SAMPLES)
WEIGHTS = RNG.uniform(0.5, 2.0, SAMPLES)


def pandas_of_several_kinds(x: np.ndarray) -> Any:
    frame = pd.DataFrame(x, columns=NAMES)
    kinds = dict(
        zip(NAMES, ["Int64", "float64", "Float32", "uint8", "Sparse[float32]"], strict=True)
    )
    return frame.astype(kinds).set_index(np.arange(len(x))[::-1] + 0.5)


def polars_of_several_kinds(x: np.ndarray) -> Any:
    kinds = [pl.Int8, pl.Float64, pl.Float32, pl.UInt64, pl.Int32]
    return pl.DataFrame(x, schema=NAMES).cast(dict(zip(NAMES, kinds, strict=True)))


class OnlyDLPack:
    """What can be exchanged by DLPack alone."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class OnlyArray:
    """What can only turn itself into an array."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self._array


def arrow_table(x: np.ndarray) -> Any:
    arrow = pytest.importorskip("pyarrow")
    return arrow.table({name: x[:, i].astype(int) for i, name in enumerate(NAMES)})


def torch_tensor(x: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(x.copy())


TABLES: dict[str, Callable[[np.ndarray], Any]] = {
    "pandas": lambda x: pd.DataFrame(x, columns=NAMES),
    "pandas of several kinds": pandas_of_several_kinds,
    "pandas of Arrow's kinds": lambda x: polars_of_several_kinds(x).to_pandas(),
    "polars": lambda x: pl.DataFrame(x, schema=NAMES),
    "polars of several kinds": polars_of_several_kinds,
    "a polars Series of arrays": lambda x: pl.Series(x),
    "CSR": sp.csr_array,
    "CSC, integers": lambda x: sp.csc_matrix(x.astype(int)),
    "COO": sp.coo_array,
    "a list": lambda x: x.tolist(),
    "bytes": lambda x: x.astype(np.uint8),
    "in Fortran's order": np.asfortranarray,
    "DLPack": OnlyDLPack,
    "__array__": OnlyArray,
    "masked, with nothing masked": np.ma.MaskedArray,
    "pyarrow": arrow_table,
    "torch": torch_tensor,
}
VECTORS: dict[str, Callable[[np.ndarray], Any]] = {
    "pandas": pd.Series,
    "pandas, nullable": lambda y: pd.Series(y).convert_dtypes(),
    "polars": pl.Series,
    "a list": lambda y: y.tolist(),
    "torch": torch_tensor,
    "pyarrow": lambda y: pytest.importorskip("pyarrow").chunked_array([y[:9], y[9:]]),
}
FUNCTIONS: dict[str, Callable[[fm.MLP, Any, Any, Any], Any]] = {
    "decision_function": lambda net, x, y, w: net.decision_function(x),
    "predict": lambda net, x, y, w: net.predict(x),
    "predict_proba": lambda net, x, y, w: net.predict_proba(x),
    "activations": lambda net, x, y, w: net.activations(x).activations[0],
    "evaluate": lambda net, x, y, w: net.evaluate(x, y, sample_weight=w).loss,
    "loss_and_gradient": lambda net, x, y, w: net.loss_and_gradient(x, y, sample_weight=w)[1].flat,
    "input_gradient": lambda net, x, y, w: net.input_gradient(x, y, sample_weight=w),
    "fit": lambda net, x, y, w: (
        fm.fit(net, x, y, sample_weight=w, epochs=1, validation=(x, y, w)).val_loss
    ),
    "gradient_check": lambda net, x, y, w: (
        fm.gradient_check(net.astype("float64"), x, y, sample_weight=w).relative_error
    ),
}


def classifier() -> fm.MLP:
    return fm.MLP([FEATURES, 8, CLASSES], activation="tanh", seed=1)


@pytest.fixture(params=[_arrays.BLOCK, 1000], ids=["one block", "blocks"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Few entries in a block: what is large then is converted in parts."""
    monkeypatch.setattr(_arrays, "BLOCK", request.param)
    monkeypatch.setattr("fastmlp._checks.BLOCK", request.param)
    return request.param


@pytest.mark.parametrize("threads", ["1", "3"])
def test_blocks_change_no_bit(block: int, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do threads: an array of another kind is taken in blocks, one of the network's is not."""
    monkeypatch.setenv("FASTMLP_NUM_THREADS", threads)
    x = np.repeat(X, 4, axis=0)
    y, w = RNG.integers(0, CLASSES, len(x)), RNG.uniform(0.0, 2.0, len(x))
    net = classifier()
    assert net.evaluate(x.astype(np.int16), y, sample_weight=w) == net.evaluate(
        x, y, sample_weight=w
    )
    assert np.array_equal(net.predict_proba(x.astype(np.int16)), net.predict_proba(x))


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("table", TABLES)
def test_tables_are_the_arrays_that_they_hold(table: str) -> None:
    for function in ("decision_function", "evaluate", "fit"):
        expected = FUNCTIONS[function](classifier(), X, LABELS, WEIGHTS)
        result = FUNCTIONS[function](classifier(), TABLES[table](X), LABELS, WEIGHTS)
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors_are_the_arrays_that_they_hold(vector: str) -> None:
    expected = FUNCTIONS["fit"](classifier(), X, LABELS, WEIGHTS)
    make = VECTORS[vector]
    assert FUNCTIONS["fit"](classifier(), X, make(LABELS), make(WEIGHTS)) == expected


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("table", ["pandas of several kinds", "polars", "CSR"])
def test_every_function_takes_them(function: str, table: str) -> None:
    x, y, w = X[:40], LABELS[:40], WEIGHTS[:40]
    call = FUNCTIONS[function]
    given = TABLES[table](x), pd.Series(y), pl.Series(w)
    assert np.array_equal(call(classifier(), *given), call(classifier(), x, y, w))


@pytest.mark.parametrize("table", ["pandas", "polars", "CSR", "pyarrow", "torch"])
def test_targets_may_be_tables(table: str) -> None:
    """Also several labels of a sample, often sparse."""
    labels = (X > 0).astype("f4")
    losses = []
    for y in (labels, TABLES[table](labels)):
        net = fm.MLP([FEATURES, 4, FEATURES], loss="binary_cross_entropy")
        losses.append(fm.fit(net, X, y, epochs=1).loss)
    assert losses[0] == losses[1]


FRAME = pd.DataFrame(X, columns=NAMES)
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "text": (FRAME.assign(b="word"), TypeError, "of real numbers, column 'b' has type "),
    "categories": (FRAME.assign(c=pd.Categorical(["x"] * SAMPLES)), TypeError, "column 'c'"),
    "dates": (FRAME.assign(d=pd.Timestamp(0)), TypeError, "column 'd' has type datetime64"),
    "objects": (FRAME.astype(object), TypeError, "column 'a' has type object"),
    "NaN": (
        FRAME.mask(FRAME.index.to_numpy()[:, None] == [650] * 5),
        ValueError,
        "found nan at index [650, 0], column 'a'",
    ),
    "NA": (
        pandas_of_several_kinds(X).assign(c=pd.array([1.0] * 699 + [None], "Float32")),
        ValueError,
        "X must not hold missing values, column 'c' has one in row 699",
    ),
    "infinity": (FRAME.assign(e=np.inf), ValueError, "found inf at index [0, 4], column 'e'"),
    "polars, text": (
        pl.DataFrame(X, schema=NAMES).with_columns(b=pl.lit("word")),
        TypeError,
        "column 'b' has type String",
    ),
    "polars, null": (
        pl.DataFrame(X, schema=NAMES).with_columns(d=pl.Series([1] * 600 + [None] * 100)),
        ValueError,
        "column 'd' has one in row 600",
    ),
    "polars, NaN": (
        pl.DataFrame(X, schema=NAMES).with_columns(d=pl.Series([1.0] * 600 + [np.nan] * 100)),
        ValueError,
        "found nan at index [600, 3], column 'd'",
    ),
    "polars, lists": (
        pl.DataFrame(X, schema=NAMES).with_columns(pl.Series("a", X)),
        TypeError,
        "column 'a' has type Array",
    ),
    "polars, lazy": (pl.LazyFrame(X), TypeError, "got dtype object"),
    "too few columns": (FRAME[["a", "b"]], ValueError, "match layer_sizes[0], got (700, 2)"),
    "no rows": (FRAME[:0], ValueError, "got shape (0, 5)"),
    "a Series": (FRAME["a"], ValueError, "got (700,)"),
    "sparse, NaN": (sp.csr_array(X * np.nan), ValueError, "found nan at index [0, 0]"),
    "sparse, complex": (sp.csr_array(X * 1j), TypeError, "got dtype complex64"),
    "sparse, too few columns": (sp.csr_array(X[:, :2]), ValueError, "got (700, 2)"),
    "masked": (np.ma.masked_less(X, 1), ValueError, "must not hold masked values"),
}


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("case", BAD)
def test_errors_name_the_column(case: str) -> None:
    bad, error, words = BAD[case]
    net = classifier()
    for call in (
        lambda: net.predict(bad),
        lambda: net.evaluate(bad, LABELS),
        lambda: fm.fit(net, bad, LABELS),
    ):
        with pytest.raises(error, match=r"^X must ") as caught:
            call()
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("y", "error", "words"),
    [
        (pd.Series(LABELS.astype(str)), TypeError, "y must be an array of real numbers, has type"),
        (pd.Series([1] * 699 + [None], dtype="Int64"), ValueError, "has one in row 699"),
        (pl.Series([None] + [1] * 699), ValueError, "must not hold missing values, has one in row"),
        (pd.Series(LABELS + 0.5), TypeError, "y must be integer class labels 0 to 2, got dtype"),
        (pd.Series(LABELS[:-1]), ValueError, "got (699,)"),
    ],
)
def test_errors_of_labels(y: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=r"^y must ") as caught:
        classifier().evaluate(X, y)
    assert words in str(caught.value)


def test_a_tensor_with_gradients_is_refused() -> None:
    tensor = torch_tensor(X).requires_grad_()
    with pytest.raises(TypeError, match=r"^X must be an array of numbers: .*detach"):
        classifier().predict(tensor)


def test_predictions_and_evaluations_convert_no_more_than_some_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "1")
    np.save(tmp_path / "bytes.npy", np.ones((50_000, 200), np.uint8))
    mapped = np.load(tmp_path / "bytes.npy", mmap_mode="r")
    net = fm.MLP([200, 4, 2])
    labels = np.zeros(len(mapped), int)
    net.evaluate(mapped[:10_000], labels[:10_000])
    net.predict(mapped[:10_000])
    for rows in (mapped, sp.csr_array(mapped)):
        for call in (lambda: net.predict(rows), lambda: net.evaluate(rows, labels)):  # noqa: B023
            tracemalloc.start()
            call()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 0.6 * mapped.size * 4


@pytest.mark.jit
def test_nothing_is_imported_for_it() -> None:
    code = (
        "import sys, fastmlp as fm\n"
        "net = fm.MLP([2, 2]); net.predict([[1, 2]]); fm.fit(net, [[1, 2]], [1], epochs=1)\n"
        "print({'pandas', 'polars', 'pyarrow', 'scipy.sparse', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
