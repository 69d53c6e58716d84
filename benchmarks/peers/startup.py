"""What a user waits for at the start, in fresh processes taken in turn.

Cold: nothing is compiled yet, the cache folder is empty. Warm: the kernels are in the cache.
Times are those of whole processes, the interpreter's start included. Python may write its bytecode,
as an installation does for a package.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from part import Figures, Options
from tables import ratios, table, with_range

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
COLD = "imports fastmlp and fits 100 rows, nothing compiled"
PROCESSES = {
    COLD: FASTMLP,
    "imports fastmlp and fits 100 rows, kernels cached": FASTMLP,
    "imports scikit-learn and fits 100 rows": SKLEARN,
    "imports fastmlp": "import fastmlp",
    "imports numba": "import numba",
}


def measure(options: Options) -> Figures:
    """Run each process in each round; round 0, which fills the caches, does not count."""
    times: dict[str, list[float]] = {name: [] for name in PROCESSES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds + 1):
            for name, code in PROCESSES.items():
                if name == COLD and number == 0:
                    continue
                cache = f"{folder}/{f'cold{number}' if name == COLD else 'warm'}"
                elapsed = seconds(code, cache)
                if number > 0:
                    times[name].append(elapsed)
    return {"times": times}


def seconds(code: str, cache: str) -> float:
    """Run the code in a process of its own, in the cache folder's parent; return the time."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        cwd=Path(cache).parent,
        check=True,
    )
    return time.perf_counter() - begin


def section(figures: Figures) -> str:
    """Return a table of processes, and the two ratios that matter."""
    times = figures["times"]
    _, warm, sklearn, package, numba = times.values()
    rows = [(f"{name} ({len(values)})", with_range(values)) for name, values in times.items()]
    return "\n\n".join(
        [
            "## Start",
            table(("a process that ... (runs)", "seconds (range)"), rows),
            f"Cached, fastmlp takes {with_range(ratios(warm, sklearn))} times as long as "
            f"scikit-learn; its import {with_range(ratios(package, numba))} times as long as "
            "Numba's.",
        ]
    )
