"""Prediction: the same bits as the training program's forward pass, from Python and jitted code."""

import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from networks import random_case
from numba import get_num_threads, get_thread_id, njit, prange
from numba.core.errors import TypingError

import fastmlp as fm
from fastmlp import kernels
from fastmlp.kernels import prediction
from fastmlp.kernels.features import FINDS_ZEROS

ROWS = [1, 2, 9, 300]


@njit
def jitted_predict(out: Any, x: Any, network: Any, work: Any) -> Any:
    return kernels.predict(out, x, network, work)


def workspace(network: kernels.Network, rows: int = 1) -> Any:
    """As small as can be, and full of what must not matter."""
    return np.full(kernels.workspace_length(network, rows), np.nan, network.theta.dtype)


def forward_pass(net: fm.MLP, X: Any) -> Any:
    """The outputs that the training program computes."""
    return net.activations(X).activations[-1]


# The same bits, however they are computed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(60))
def test_bits_are_those_of_the_training_program(seed: int, dtype: str) -> None:
    case = random_case(seed, dtype=dtype, rows=ROWS[seed % len(ROWS)])
    net, X = case.net, np.asarray(case.X, dtype)
    expected = forward_pass(net, X).tobytes()
    assert net.decision_function(X).tobytes() == expected
    one_by_one = [net.decision_function(X[b : b + 1]) for b in range(len(X))]
    assert np.concatenate(one_by_one).tobytes() == expected
    network = net.jitted()
    for rows in (1, 3, 256):
        out = np.empty((len(X), net.layer_sizes[-1]), dtype)
        assert kernels.predict(out, X, network, workspace(network, rows))
        assert out.tobytes() == expected


@pytest.mark.parametrize("sizes", [[3, 2], [70, 5], [5, 300, 64], [5, 40, 65], [784, 129, 17, 10]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_of_any_width(sizes: list[int], dtype: str) -> None:
    net = fm.MLP(sizes, activation="tanh", norm="layer", seed=1, dtype=dtype)
    X = np.random.default_rng(0).normal(size=(11, sizes[0])).astype(dtype)
    assert net.decision_function(X).tobytes() == forward_pass(net, X).tobytes()


def sparse(rng: np.random.Generator, rows: int, columns: int, dtype: str, zeros: float) -> Any:
    return (rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) > zeros)).astype(dtype)


@pytest.mark.parametrize(
    "sizes", [[64, 48], [63, 64, 48], [70, 130, 96, 5], [784, 128, 10], [300, 65, 200], [90, 40, 3]]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_of_inputs_that_are_mostly_zero(sizes: list[int], dtype: str) -> None:
    """So are the outputs of ReLU; the training program leaves out less."""
    net = fm.MLP(sizes, activation="relu", seed=1, dtype=dtype)
    for bias in net.biases[:-1]:
        bias[...] = -0.3
    network, rng = net.jitted(), np.random.default_rng(0)
    for zeros in (0.8, 0.3, 1.0):
        X = sparse(rng, 300, sizes[0], dtype, zeros)
        expected = forward_pass(net, X)
        for rows in (1, 2, 3, 5, 64, 300):
            length = kernels.workspace_length(network, rows)
            work = np.full(length + 64, -7.0, dtype)
            out = np.empty((rows, sizes[-1]), dtype)
            assert kernels.predict(out, X[:rows], network, work[32 : 32 + length])
            assert out.tobytes() == expected[:rows].tobytes()
            assert (work[:32] == -7.0).all()
            assert (work[32 + length :] == -7.0).all()


@pytest.mark.jit
@pytest.mark.parametrize("rows", [1, 2, 5, 20])
def test_zeros_are_left_out(rows: int) -> None:
    """What they would be multiplied with does not matter then."""
    net = fm.MLP([100, 128, 64], activation="relu", loss="squared_error", seed=0)
    X = sparse(np.random.default_rng(0), rows, 100, "float32", 0.5)
    X[:, 3], X[:, 10:90] = 1.0, 0.0
    net.biases[0][...] = np.where(np.arange(128) % 3 == 0, 0.0, -1e6)
    expected = net.decision_function(X)
    assert np.isfinite(expected).all()
    net.weights[0][10:90] = np.inf
    net.weights[1][1::3] = np.inf
    out = net.decision_function(X)
    assert np.array_equal(out, expected) == FINDS_ZEROS
    assert np.isfinite(out).all() == FINDS_ZEROS


@njit
def jitted_note_nonzero(bits: Any, x: Any) -> Any:
    return prediction.note_nonzero(bits, x)


@pytest.mark.jit
@pytest.mark.parametrize("columns", [64, 65, 79, 127, 128, 129, 200, 784])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noted_bits(columns: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for rows in (1, 4):
        count = columns // 64 + 2
        for zeros, is_of_use in ((0.8, True), (0.4, False), (0.0, False)):
            x = sparse(rng, rows, columns, dtype, zeros)
            x[0, 0] = -0.0
            x[0, -1] = 1.0
            bits = np.full(count * rows + 1, -7)
            assert jitted_note_nonzero(bits, x) == is_of_use
            assert bits[-1] == -7
            if is_of_use:
                noted = bits[:-1].view("u1").reshape(count, rows, 8).transpose(1, 0, 2)
                found = np.unpackbits(noted.reshape(rows, -1), axis=1, bitorder="little")
                words = -(-columns // 64)
                assert np.array_equal(found[:, :columns], x != 0)
                assert not found[:, columns : 64 * (words + 1)].any()


@pytest.mark.jit
@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_bits_do_not_depend_on_threads(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(3, rows=1000)
    expected = forward_pass(case.net, case.X).tobytes()
    monkeypatch.setenv("FASTMLP_NUM_THREADS", threads)
    assert case.net.decision_function(case.X).tobytes() == expected


def unaligned(array: Any) -> Any:
    """The same one byte on."""
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    memory[:] = np.frombuffer(array.tobytes(), np.uint8)
    return memory.view(array.dtype).reshape(array.shape)


def read_only(array: Any) -> Any:
    """The same, not to be written to."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


FORMS: dict[str, Callable[[Any], Any]] = {
    "columns first": np.asfortranarray,
    "every second row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "part of the columns": lambda X: np.hstack([X, X])[:, : X.shape[1]],
    "float64": lambda X: X.astype(np.float64),
    "the other byte order": lambda X: X.astype(X.dtype.newbyteorder()),
    "unaligned": unaligned,
    "read-only": read_only,
    "a subclass": lambda X: X.view(np.recarray),
    "a masked array": np.ma.asarray,
    "lists": lambda X: X.tolist(),
}


@pytest.mark.parametrize("rows", [1, 300])
@pytest.mark.parametrize("form", FORMS)
def test_inputs_of_any_form(form: str, rows: int) -> None:
    net = fm.MLP([7, 9, 3], seed=0)
    X = np.random.default_rng(0).normal(size=(rows, 7)).astype(np.float32)
    expected = net.decision_function(X).tobytes()
    assert net.decision_function(FORMS[form](X)).tobytes() == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities(dtype: str) -> None:
    net = fm.MLP([4, 30, 21], seed=0, dtype=dtype)
    X = np.random.default_rng(0).normal(scale=30, size=(40, 4)).astype(dtype)
    z = net.decision_function(X).astype(np.longdouble)
    below = z - z.max(axis=1, keepdims=True)
    expected = np.exp(below) / np.exp(below).sum(axis=1, keepdims=True)
    p = net.predict_proba(X)
    assert p.dtype == dtype
    eps = np.finfo(dtype).eps  # `below` is rounded, which is that much of its exponential
    assert (np.abs(p - expected) <= expected * eps * (np.abs(below) / 2 + 4) + 1e-37).all()
    network, out = net.jitted(softmax=True), np.empty_like(p)
    assert kernels.predict(out, X, network, workspace(network))
    assert out.tobytes() == p.tobytes()


def test_strides_that_mean_nothing() -> None:
    net = fm.MLP([1, 5, 2], seed=0)
    column = np.linspace(-1, 1, 9, dtype=np.float32)[:, None]
    assert column.strides[1] == 0
    assert column.flags.c_contiguous
    assert net.decision_function(column).tobytes() == forward_pass(net, column.copy()).tobytes()


# What is remembered between calls


def test_changes_are_seen() -> None:
    net = fm.MLP([3, 5, 2], activation="prelu", norm="batch", seed=0)
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    network, out = net.jitted(), np.empty((20, 2), np.float32)

    def predictions() -> bytes:
        kernels.predict(out, X, network, workspace(network))
        assert net.decision_function(X).tobytes() == forward_pass(net, X).tobytes() == out.tobytes()
        return out.tobytes()

    seen = {predictions()}
    changes: list[Callable[[], Any]] = [
        lambda: fm.fit(net, X, np.arange(20) % 2, epochs=2),
        lambda: net.weights[0].__setitem__((0, 0), 3.0),
        lambda: net.slopes[0].__setitem__(0, -0.5),  # one number for the whole layer
        lambda: net.running_means[0].__setitem__(0, 1.0),
        lambda: net.theta.__imul__(0.5),
    ]
    for change in changes:
        change()
        seen.add(predictions())
    assert len(seen) == 1 + len(changes)


def test_copies_predict_for_themselves() -> None:
    net = fm.MLP([3, 5, 2], seed=0)
    X = np.ones((1, 3), np.float32)
    before = net.decision_function(X)
    copies = [net.clone(), pickle.loads(pickle.dumps(net)), net.astype("float64")]
    net.theta[...] = 0
    for copy in copies:
        np.testing.assert_allclose(copy.decision_function(X), before, rtol=1e-6)
    assert copies[-1].decision_function(X).dtype == np.float64
    assert not net.decision_function(X).any()


@pytest.mark.jit
def test_many_threads_predict_at_once() -> None:
    rng = np.random.default_rng(0)
    net = fm.MLP([20, 60, 50, 3], activation="gelu", norm="layer", seed=0)
    samples = [rng.normal(size=(n, 20)).astype(np.float32) for n in [1, 1, 7, 100, 700] * 4]
    expected = [net.decision_function(x).tobytes() for x in samples]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        barrier = threading.Barrier(8)

        def predict_all(thread: int) -> list[bytes]:
            barrier.wait()
            order = np.roll(np.arange(len(samples)), thread)
            found = {i: net.decision_function(samples[i]).tobytes() for i in (*order, *order)}
            return [found[i] for i in range(len(samples))]

        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(predict_all, range(8)):
                assert found == expected
    finally:
        sys.setswitchinterval(interval)


# Inputs that are refused


@pytest.mark.parametrize("width", [1, 15, 16, 17, 100])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite(width: int, value: float) -> None:
    net = fm.MLP([width, 3], seed=0)
    network, predict = net.jitted(), kernels.compiled_predict(net.dtype)
    for rows in (1, 5, 600):
        X, out = np.zeros((rows, width), np.float32), np.empty((rows, 3), np.float32)
        assert predict(out, X, network, workspace(network))
        for place in [(0, 0), (rows - 1, width - 1), (rows // 2, width // 2)]:
            X[place] = value
            assert not predict(out, X, network, workspace(network))
            where = (
                rf"X must be finite in float32, found {value} at index \[{place[0]}, {place[1]}\]"
            )
            with pytest.raises(ValueError, match=where):
                net.predict(X)
            X[place] = 0


@pytest.mark.parametrize(
    ("x", "out", "work", "message"),
    [
        ((2, 4), (2, 3), 0, "x must have a column for each input"),
        ((2, 5), (2, 4), 0, "out must have a row for each of x"),
        ((2, 5), (3, 3), 0, "out must have a row for each of x"),
        ((2, 5), (2, 3), -1, "work must have at least workspace_length"),
    ],
)
def test_shapes_that_do_not_fit(
    x: tuple[int, int], out: tuple[int, int], work: int, message: str
) -> None:
    network = fm.MLP([5, 20, 3]).jitted()
    scratch = workspace(network)[: kernels.workspace_length(network) + work]
    with pytest.raises(ValueError, match=message):
        kernels.predict(np.zeros(out, np.float32), np.zeros(x, np.float32), network, scratch)


def test_softmax_is_for_classifiers() -> None:
    with pytest.raises(ValueError, match="softmax needs a softmax_cross_entropy"):
        fm.MLP([2, 2], loss="squared_error").jitted(softmax=True)
    with pytest.raises(TypeError, match="softmax must be True or False"):
        fm.MLP([2, 2]).jitted(softmax=1)  # type: ignore[arg-type]


# Inside jitted code


@pytest.mark.jit
def test_another_dtype_does_not_compile() -> None:
    network = fm.MLP([5, 3]).jitted()
    x, out = np.zeros((1, 5)), np.zeros((1, 3), np.float32)
    with pytest.raises(
        TypingError, match="the network's dtype is float32, got an array of float64"
    ):
        jitted_predict(out, x, network, workspace(network))


@pytest.mark.jit
def test_rows_of_a_wider_array() -> None:
    net = fm.MLP([5, 20, 3], seed=0)
    wide = np.random.default_rng(0).normal(size=(9, 12)).astype(np.float32)
    network, out = net.jitted(), np.empty((9, 3), np.float32)
    assert jitted_predict(out, wide[:, 3:8], network, workspace(network))
    assert out.tobytes() == net.decision_function(wide[:, 3:8]).tobytes()
    with pytest.raises(ValueError, match="each row of x must be contiguous"):
        jitted_predict(out, wide[:, :10:2], network, workspace(network))


@njit
def with_allocation(out: Any, x: Any, network: Any, work: Any) -> Any:
    return kernels.predict(out, x, network, np.empty_like(work))


@pytest.mark.jit
def test_nothing_is_allocated() -> None:
    network = fm.MLP([5, 3]).jitted()
    arguments = np.empty((1, 3), np.float32), np.zeros((1, 5), np.float32), network
    for function, allocates in ((jitted_predict, False), (with_allocation, True)):
        function(*arguments, workspace(network))
        code = function.inspect_llvm(function.signatures[-1])
        assert ("NRT_MemInfo_alloc" in code) == allocates


@njit(parallel=True)
def in_a_prange(out: Any, x: Any, network: Any, works: Any) -> None:
    for i in prange(len(x)):
        kernels.predict(out[i : i + 1], x[i : i + 1], network, works[get_thread_id()])


@pytest.mark.jit
def test_in_a_prange() -> None:
    net = fm.MLP([5, 20, 3], activation="mish", seed=0)
    X = np.random.default_rng(0).normal(size=(5000, 5)).astype(np.float32)
    network, out = net.jitted(), np.empty((5000, 3), np.float32)
    works = np.empty((get_num_threads(), kernels.workspace_length(network)), np.float32)
    in_a_prange(out, X, network, works)
    assert out.tobytes() == net.decision_function(X).tobytes()
