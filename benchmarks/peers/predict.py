"""Predict with fastmlp and with ONNX Runtime in turn: one row, 64 and 10,000, from Python.

784-128-10 softplus in float32. ONNX Runtime has the same weights in a model of Gemm, Softplus, Gemm
and returns its outputs, as our `decision_function` does; our `predict` goes on to labels, and
`predict_proba` to probabilities. Inputs are uniform in [0, 1), so that none is zero, or images of
MNIST (or what is like them), of which fastmlp leaves out the zeros. On two threads ONNX Runtime has
a session with one and one with two, which both take their turns, and the one with the lower median
counts. Its threads spin between calls, as they do unless told otherwise.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from work import Data, Work

import fastmlp as fm
from fastmlp.threads import VARIABLE

SIZES = (784, 128, 10)
ROWS = (1, 64, 10_000)
CALLS = ("decision_function", "predict", "predict_proba")
SINGLE_ROWS = 100  # different ones, in turn
SECONDS = 0.05  # of one measurement at least: a call is made again and again
PAUSE = 0.25  # seconds: ONNX Runtime's idle threads go on spinning for some time
TOLERANCE = 1e-5

Array = NDArray[np.float32]
Call = Callable[[Array], Any]


def measure(rounds: int, threads: int, mnist: str | None) -> list[dict[str, Any]]:
    """Return a row for each number of rows and each of our calls, all on at most `threads`.

    Images are MNIST's if a folder has them. `ratios` are ONNX Runtime's time by ours within the
    rounds: above 1, ours is faster.
    """
    net = fm.MLP(SIZES, activation="softplus", seed=0)
    model = onnx_model(net)
    sessions = {count: session(model, count) for count in sorted({1, threads})}
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(threads)
    try:
        images = Data.of(Work(SIZES, batch_size=1), max(ROWS), mnist)
        dense = np.random.default_rng(0).random(images.X.shape, np.float32)
        return [
            {"inputs": name, "threads": threads, "rows": rows, **row}
            for name, X in (("none is zero", dense), (images.name, images.X))
            for rows in ROWS
            for row in _measure_rows(net, sessions, X, rows, rounds)
        ]
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def onnx_model(net: fm.MLP) -> bytes:
    """Return the network as an ONNX model, x [rows, 784] to y [rows, 10]."""
    arrays = {"w1": net.weights[0], "b1": net.biases[0], "w2": net.weights[1], "b2": net.biases[1]}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["z"]),
            helper.make_node("Softplus", ["z"], ["a"]),
            helper.make_node("Gemm", ["a", "w2", "b2"], ["y"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", SIZES[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", SIZES[-1]])],
        [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in arrays.items()
        ],
    )
    opset = helper.make_opsetid("", 17)
    model: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    return model


def session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Return a session whose operators use `threads`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _measure_rows(
    net: fm.MLP,
    sessions: dict[int, onnxruntime.InferenceSession],
    X: Array,
    rows: int,
    rounds: int,
) -> list[dict[str, Any]]:
    inputs = [X[first : first + 1] for first in range(SINGLE_ROWS)] if rows == 1 else [X[:rows]]
    calls: dict[str | int, Call] = {call: getattr(net, call) for call in CALLS}
    for count, peer in sessions.items():
        calls[count] = partial(_run, peer)
        for x in inputs:
            if not np.allclose(calls[count](x), net.decision_function(x), rtol=0, atol=TOLERANCE):
                raise SystemExit("ONNX Runtime does not compute the same")
    seconds: dict[str | int, list[float]] = {call: [] for call in calls}
    for _ in range(rounds):
        for call, run in calls.items():
            time.sleep(PAUSE)
            seconds[call].append(seconds_of(run, inputs))
    fastest = min(sessions, key=lambda count: median(seconds[count]))
    theirs = seconds[fastest]
    return [
        {
            "call": call,
            "seconds": median(seconds[call]),
            "peer": "ONNX Runtime",
            "peer_seconds": median(theirs),
            "peer_threads": fastest,
            "ratios": [a / b for a, b in zip(theirs, seconds[call], strict=True)],
        }
        for call in CALLS
    ]


def _run(peer: onnxruntime.InferenceSession, x: Array) -> Any:
    return peer.run(None, {"x": x})[0]


def seconds_of(call: Call, inputs: list[Array]) -> float:
    """Return the time of one call, as the mean over as many as take SECONDS.

    Each input has its turn; the first round warms up.
    """
    for x in inputs:
        call(x)
    begin, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < SECONDS:
        for x in inputs:
            call(x)
        calls += len(inputs)
    return elapsed / calls


def table(rows: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "| inputs | rows | threads | call | µs | ONNX Runtime µs | times as fast (range) |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        ratios, theirs = row["ratios"], f"{row['peer_seconds'] * 1e6:,.1f}"
        lines.append(
            f"| {row['inputs']} | {row['rows']:,} | {row['threads']} | `{row['call']}` "
            f"| {row['seconds'] * 1e6:,.1f} | {theirs} (on {row['peer_threads']}) "
            f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--mnist", metavar="FOLDER", help="predict for images in this folder")
    arguments = parser.parse_args()
    print(f"ONNX Runtime {onnxruntime.__version__}, {arguments.rounds} rounds")
    rows = [row for n in arguments.threads for row in measure(arguments.rounds, n, arguments.mnist)]
    print(table(rows))


if __name__ == "__main__":
    main()
