"""Train the same network on the same batches in fastmlp, PyTorch, JAX and scikit-learn, in turn.

Every library starts from the same weights and sees the samples in the same order, in float32, and
each is used at its best; what that is, and why, is written in its module. After the first epoch,
which warms up and is not counted, the losses of those that train the same network must agree; then
they take turns, an epoch each, with a pause so that one library's spinning threads do not slow the
next. Ratios are taken within a round: what disturbs the machine for longer disturbs both sides.
"""

import argparse
import gc
import importlib
import os
import time
from pathlib import Path

from peer import Peer
from report import REFERENCE, Comparison, Result
from suite import fma_peak
from work import Data, Order, Work

from fastmlp.threads import resolve

WORKS = ("784-128-10:32", "784-128-10:128", "784-512-512-10:256")
PEERS = {
    "fastmlp": ("peer_fastmlp", "Fastmlp"),
    "PyTorch": ("peer_torch", "TorchEager"),
    "PyTorch compiled": ("peer_torch", "TorchCompiled"),
    "JAX": ("peer_jax", "Jax"),
    "scikit-learn": ("peer_sklearn", "Sklearn"),
}
TOLERANCE = 1e-3
PAUSE = 0.25  # seconds: a library's idle threads may go on spinning for some time


def main() -> None:
    arguments = parse_arguments()
    threads = resolve(arguments.threads)
    use_cores(threads)
    data = Data.load(arguments.samples, arguments.mnist)
    comparison = Comparison(data.name, len(data), threads, arguments.rounds)
    names = [name for name in PEERS if arguments.torch_compile or name != "PyTorch compiled"]
    for work in arguments.work or map(Work.parse, WORKS):
        print(f"{work} ...", flush=True)
        result = Result(work, len(data))
        peers = start(names, data, threads, result)
        measure(peers, threads, arguments.rounds, result)
        comparison.results.append(result)
    text = comparison.markdown()
    print(text, end="")
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")
    if arguments.json:
        comparison.write_json(arguments.json)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--work",
        action="append",
        type=Work.parse,
        metavar="SIZES:BATCH",
        help=f"network and batch size, repeatable; default: {' '.join(WORKS)}",
    )
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--samples", type=int, default=60_000, help="default: 60000")
    parser.add_argument("--threads", type=int, help="default: all cores this process may use")
    parser.add_argument("--mnist", metavar="FOLDER", help="train on MNIST's files in this folder")
    parser.add_argument("--torch-compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    return parser.parse_args()


def use_cores(threads: int) -> None:
    """Keep to as many cores as there are threads: JAX takes what it gets."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    elif threads < (os.cpu_count() or 1):
        raise SystemExit("--threads below the number of cores needs Linux: JAX would use them all")


def start(names: list[str], data: Data, threads: int, result: Result) -> list[Peer]:
    """Make the peers and train an epoch with each, which compiles what is to be compiled.

    What is not installed or does not work here is left out, with the reason. Exits if the losses
    after the epoch do not agree.
    """
    order, peers = Order.draw(len(data), 0), []
    for name in names:
        module, attribute = PEERS[name]
        try:
            peer = getattr(importlib.import_module(module), attribute)(result.work, data, threads)
            peer.epoch(order)
        except Exception as error:
            if name == REFERENCE:
                raise
            result.skipped[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        peers.append(peer)
    losses = {peer.name: peer.loss() for peer in peers if peer.same_network}
    for name, loss in losses.items():
        if not abs(loss / losses[REFERENCE] - 1.0) < TOLERANCE:
            raise SystemExit(f"{name} does not compute the same: losses after an epoch {losses}")
    return peers


def measure(peers: list[Peer], threads: int, rounds: int, result: Result) -> None:
    """Let the peers take turns, an epoch each, the FMA peak first in each round."""
    result.seconds = {peer.name: [] for peer in peers}
    for number in range(1, rounds + 1):
        order = Order.draw(result.samples, number)
        result.peaks.append(fma_peak("float32", threads))
        for peer in peers:
            gc.collect()
            time.sleep(PAUSE)
            result.seconds[peer.name].append(peer.epoch(order))
    result.losses = {peer.name: peer.loss() for peer in peers}
    result.settings = {peer.name: peer.setting for peer in peers}


if __name__ == "__main__":
    main()
