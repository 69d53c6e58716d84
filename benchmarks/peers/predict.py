"""Predict with fastmlp and with ONNX Runtime in turn: one row, 64 and 10,000, from Python.

784-128-10 softplus in float32. ONNX Runtime has the same weights in a model of Gemm, Softplus, Gemm
and returns its outputs, as our `decision_function` does; our `predict` goes on to labels, and
`predict_proba` to probabilities. On two threads it has a session with one and one with two, which
both take their turns, and the one with the lower median counts. Its threads spin between calls, as
they do unless told otherwise.
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
from onnx import TensorProto, helper, numpy_helper

import fastmlp as fm
from fastmlp.threads import VARIABLE

SIZES = (784, 128, 10)
ROWS = (1, 64, 10_000)
CALLS = ("decision_function", "predict", "predict_proba")
SECONDS = 0.05  # of one measurement at least: a call is made again and again
PAUSE = 0.25  # seconds: ONNX Runtime's idle threads go on spinning for some time
TOLERANCE = 1e-5

Call = Callable[[], Any]


def measure(rounds: int, threads: int) -> list[dict[str, Any]]:
    """Return a row for each number of rows and each of our calls, all on at most `threads`.

    `ratios` are ONNX Runtime's time by ours within the rounds: above 1, ours is faster.
    """
    net = fm.MLP(SIZES, activation="softplus", seed=0)
    model = onnx_model(net)
    sessions = {count: session(model, count) for count in sorted({1, threads})}
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(threads)
    try:
        return [row for rows in ROWS for row in _measure_rows(net, sessions, rows, rounds, threads)]
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
    rows: int,
    rounds: int,
    threads: int,
) -> list[dict[str, Any]]:
    X = np.random.default_rng(0).random((rows, SIZES[0]), np.float32)

    calls: dict[str | int, Call] = {call: partial(getattr(net, call), X) for call in CALLS}
    for count, peer in sessions.items():
        calls[count] = partial(peer.run, None, {"x": X})
        if not np.allclose(calls[count]()[0], net.decision_function(X), rtol=0, atol=TOLERANCE):
            raise SystemExit("ONNX Runtime does not compute the same")
    seconds: dict[str | int, list[float]] = {call: [] for call in calls}
    for _ in range(rounds):
        for call, run in calls.items():
            time.sleep(PAUSE)
            seconds[call].append(seconds_of(run))
    fastest = min(sessions, key=lambda count: median(seconds[count]))
    theirs = seconds[fastest]
    return [
        {
            "call": call,
            "rows": rows,
            "threads": threads,
            "seconds": median(seconds[call]),
            "peer": "ONNX Runtime",
            "peer_seconds": median(theirs),
            "peer_threads": fastest,
            "ratios": [a / b for a, b in zip(theirs, seconds[call], strict=True)],
        }
        for call in CALLS
    ]


def seconds_of(call: Call) -> float:
    """Return the time of one call, as the mean over as many as take SECONDS; the first warms up."""
    call()
    begin, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < SECONDS:
        for _ in range(10):
            call()
        calls += 10
    return elapsed / calls


def table(rows: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "| rows | threads | call | µs | ONNX Runtime µs | times as fast (range) |",
        "|---:|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        ratios = row["ratios"]
        lines.append(
            f"| {row['rows']:,} | {row['threads']} | `{row['call']}` | {row['seconds'] * 1e6:,.1f} "
            f"| {row['peer_seconds'] * 1e6:,.1f} (on {row['peer_threads']}) "
            f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    arguments = parser.parse_args()
    print(f"ONNX Runtime {onnxruntime.__version__}, {arguments.rounds} rounds")
    rows = [row for n in arguments.threads for row in measure(arguments.rounds, n)]
    print(table(rows))


if __name__ == "__main__":
    main()
