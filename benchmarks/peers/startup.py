"""Measure what a user waits for at the start, in fresh processes taken in turn.

Cold: nothing is compiled yet, the cache folder is empty. Warm: the kernels are in the cache.
Times are those of whole processes, the interpreter's start included.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DATA = """
import numpy as np
rng = np.random.default_rng(0)
X, y = rng.random((100, 784), np.float32), np.arange(100) % 10
"""
FASTMLP = f"""{DATA}
import fastmlp as fm
fm.fit(fm.MLP([784, 128, 10], activation="softplus"), X, y, epochs=10)
"""
SKLEARN = f"""{DATA}
from sklearn.neural_network import MLPClassifier
MLPClassifier((128,), batch_size=32, max_iter=10).fit(X, y)
"""


def seconds(code: str, cache: str) -> float:
    """Run the code in a process of its own, in the cache folder's parent; return the time."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"NUMBA_CACHE_DIR": cache},
        cwd=Path(cache).parent,
        check=True,
    )
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    rounds = parser.parse_args().rounds

    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        warm = f"{folder}/warm"
        for number in range(rounds + 1):  # round 0 fills the caches, also the system's of files
            for name, code, cache in (
                ("fastmlp, cold: import and fit on 100 rows", FASTMLP, f"{folder}/cold{number}"),
                ("fastmlp, warm: import and fit on 100 rows", FASTMLP, warm),
                ("scikit-learn: import and fit on 100 rows", SKLEARN, warm),
                ("import fastmlp", "import fastmlp", warm),
                ("import numba", "import numba", warm),
            ):
                elapsed = seconds(code, cache)
                if number > 0:
                    times.setdefault(name, []).append(elapsed)
    print(f"seconds, median of {rounds} rounds (range)")
    for name, values in times.items():
        low, high = min(values), max(values)
        print(f"{name:<42} {statistics.median(values):6.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
