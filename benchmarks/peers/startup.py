"""Measure what a user waits for at the start, in fresh processes taken in turn.

Cold: nothing is compiled yet, the cache folder is empty. Warm: the kernels are in the cache.
Times are those of whole processes, the interpreter's start included. Python may write its bytecode,
as an installation does for a package.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
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

COLD = "import and fit on 100 rows, cold"
WARM = "import and fit on 100 rows, warm"
PEER = "the same by scikit-learn"
CODES = {
    COLD: FASTMLP,
    WARM: FASTMLP,
    PEER: SKLEARN,
    "import fastmlp": "import fastmlp",
    "import numba": "import numba",
}
OTHERS = {WARM: PEER, "import fastmlp": "import numba"}  # what each is compared with


@dataclass(frozen=True)
class Row:
    """Seconds of a process in each round, and their ratios to those of another in that round."""

    name: str
    seconds: list[float]
    other: str | None = None
    ratios: list[float] = field(default_factory=list)


def seconds(code: str, cache: Path) -> float:
    """Run the code in a process of its own and in the cache folder's parent; return the time."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, cwd=cache.parent, check=True
    )
    return time.perf_counter() - begin


def measure(rounds: int) -> list[Row]:
    """Time all in turn, `rounds` times, after a round that fills the caches, also the system's."""
    times: dict[str, list[float]] = {name: [] for name in CODES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for name, code in CODES.items():
                cache = Path(folder, f"cold{number}" if name == COLD else "warm")
                elapsed = seconds(code, cache)
                if number > 0:
                    times[name].append(elapsed)
    rows = []
    for name, values in times.items():
        other = OTHERS.get(name)
        theirs = times[other] if other else []
        ratios = [a / b for a, b in zip(values, theirs, strict=False)]
        rows.append(Row(name, values, other, ratios))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    rounds = parser.parse_args().rounds

    print(f"seconds, median of {rounds} rounds (range), and the median of the rounds' ratios")
    for row in measure(rounds):
        low, high = min(row.seconds), max(row.seconds)
        line = f"{row.name:<34} {statistics.median(row.seconds):6.2f} ({low:.2f} to {high:.2f})"
        if row.other:
            line += f", {statistics.median(row.ratios):.2f} times {row.other}"
        print(line)


if __name__ == "__main__":
    main()
