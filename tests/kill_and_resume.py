"""Trainings killed (SIGKILL) at random moments and resumed must end as if never stopped.

    python tests/kill_and_resume.py KILLS [SEED]

Each life of a training is a forked process that is killed after a random time; the next one
resumes. When one ends by itself, its parameters and history are compared with those of a training
that nobody disturbed, and another training begins. Prints what happened as JSON; exits with 1 if
anything differs.
"""

import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastmlp as fm
from fastmlp.checkpoints import PREVIOUS

RNG = np.random.default_rng(3)
X = RNG.normal(size=(2000, 12)).astype(np.float32)
Y = RNG.integers(0, 3, 2000)


def choose(rng: random.Random) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A network, how to train it, and how often to save it."""
    net = {
        "norm": rng.choice([None, "batch", "layer"]),
        "dropout": rng.choice([0.0, 0.3]),
        "activation": rng.choice(["relu", "prelu", "tanh"]),
        "seed": rng.randrange(1000),
    }
    optimizer = rng.choice(
        [
            fm.SGD(fm.schedules.Cosine(0.05), momentum=0.9),
            fm.Adam(fm.schedules.ReduceOnPlateau(0.01, patience=1)),
            fm.AdamW(0.01),
            fm.NAdam(),
            fm.RMSProp(0.003),
        ]
    )
    how = {
        "optimizer": optimizer,
        "epochs": rng.randrange(8, 16),
        "batch_size": rng.choice([16, 100, 500]),
        "validation": 0.2,
        "accumulate": rng.choice([1, 3]),
        "average": rng.choice([None, 0.95]),
        "clip_global_norm": rng.choice([None, 1.0]),
        "early_stopping": rng.choice([None, fm.EarlyStopping(patience=5)]),
    }
    every = rng.choice(
        [
            {"every_batches": rng.randrange(1, 20)},
            {"every_seconds": 0.02},
            {"every_epochs": 1, "every_batches": 30},
        ]
    )
    return net, how, every


def digest(net: fm.MLP, history: fm.History) -> str:
    values = [history.loss, history.accuracy, history.val_loss, history.val_accuracy]
    text = json.dumps([values, history.learning_rate, history.best_epoch, history.stopped_early])
    return hashlib.sha256(net.theta.tobytes() + net.running.tobytes() + text.encode()).hexdigest()


def live(
    path: Path, threads: int, net: dict[str, Any], how: dict[str, Any], every: dict[str, Any]
) -> tuple[fm.MLP, fm.History]:
    """Begin, or go on where the last life has got to."""
    if path.exists() or Path(f"{path}{PREVIOUS}").exists():
        return fm.resume(path, X, Y, threads=threads)
    made = fm.MLP([12, 24, 24, 3], **net)
    history = fm.fit(made, X, Y, threads=threads, callbacks=[fm.Checkpoint(path, **every)], **how)
    return made, history


def is_killed(path: Path, seconds: float, threads: int, *options: dict[str, Any]) -> bool:
    """Let a process live for some seconds; if it ends before, its digest is in a file."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            Path(f"{path}.digest").write_text(digest(*live(path, threads, *options)))
            status = 0
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert status == 0, "a life ended with an error"
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main(kills: int, seed: int = 0) -> int:
    rng = random.Random(seed)
    fm.kernels.warmup("float32")
    results = {"kills": 0, "within a write": 0, "trainings": 0, "different": 0}
    with tempfile.TemporaryDirectory() as folder:
        while results["kills"] < kills:
            path = Path(folder, f"run{results['trainings']}")
            options = choose(rng)
            net = fm.MLP([12, 24, 24, 3], **options[0])
            history = fm.fit(net, X, Y, threads=1, **options[1])
            expected = digest(net, history)
            while True:
                is_last = results["kills"] == kills  # it may end in peace
                seconds = 600.0 if is_last else rng.uniform(0.0, 0.05 + history.seconds)
                if not is_killed(path, seconds, rng.choice([1, 2]), *options):
                    break
                results["kills"] += 1
                results["within a write"] += Path(f"{path}.tmp").exists()
            results["trainings"] += 1
            results["different"] += Path(f"{path}.digest").read_text() != expected
    print(json.dumps(results))
    return int(results["different"] > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
