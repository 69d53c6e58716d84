"""Compare functions of single elements with PyTorch's: time on one core, and the largest error.

Times: x and y begin on cache lines and lie in the cache, y <- f(x), the two libraries in turn,
ratios within a round. Errors of float32 in units in the last place (ULP), against SciPy's and
NumPy's float64, over every `--stride`-th bit pattern of a float in the function's domain; subnormal
numbers included.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from suite import FASTMLP, arguments, torch_functions
from tables import ratios, table, with_range

from fastmlp.layout import aligned_zeros

COLUMNS = (
    "function",
    "dtype",
    "fastmlp ns",
    "PyTorch ns",
    "times fastmlp (range)",
    "ULP",
    "PyTorch",
)
SHAPES = ((256, 128), (256, 512))
REPEATS = 20
CHUNK = 1 << 22  # a multiple of every vector
Array = NDArray[np.floating]


@dataclass(frozen=True)
class Row:
    """One function: nanoseconds an element in each round, and the largest errors (float32)."""

    name: str
    dtype: str
    shape: tuple[int, int]
    ours: list[float]
    theirs: list[float]
    errors: tuple[float, float] | None

    def cells(self) -> tuple[str, ...]:
        ours, theirs = ("", "") if self.errors is None else (f"{e:.3g}" for e in self.errors)
        return (
            f"{self.name} {self.shape[0]} x {self.shape[1]}",
            self.dtype,
            f"{median(self.ours):.3f}",
            f"{median(self.theirs):.3f}",
            with_range(ratios(self.theirs, self.ours)),
            ours,
            theirs,
        )


def measure(rounds: int, stride: int = 251) -> list[Row]:
    """Time every function for each dtype and shape; errors are found once for each."""
    wrap, functions = torch_functions()
    rows = []
    for name, compiled in FASTMLP.items():
        errors = largest_errors(name, stride)
        for dtype in ("float32", "float64"):
            for shape in SHAPES:
                x = arguments(name, dtype, shape[0] * shape[1])
                y, theirs_y = (aligned_zeros(x.size, x.dtype) for _ in range(2))
                source, target = wrap(x), wrap(theirs_y)
                seconds = in_turn(
                    lambda f=compiled, y=y, x=x, s=shape: f(y, x, *s),
                    lambda f=functions[name], x=source, y=target: f(x, out=y),
                    rounds,
                )
                ours, theirs = ([s / x.size * 1e9 for s in side] for side in seconds)
                known = errors if dtype == "float32" and shape == SHAPES[0] else None
                rows.append(Row(name, dtype, shape, ours, theirs, known))
    return rows


def in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of a call of each, in each round; the first round warms up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for call, side in zip((ours, theirs), seconds, strict=True):
            begin = time.perf_counter()
            for _ in range(REPEATS):
                call()
            if number > 0:
                side.append((time.perf_counter() - begin) / REPEATS)
    return seconds


def largest_errors(name: str, stride: int) -> tuple[float, float]:
    """Largest errors of fastmlp and of PyTorch over every `stride`-th float32, in ULP."""
    wrap, functions = torch_functions()
    worst = [0.0, 0.0]
    for first in range(0, 1 << 32, CHUNK * stride):
        last = min(first + CHUNK * stride, 1 << 32)
        x = within(name, np.arange(first, last, stride, dtype=np.uint32).view(np.float32))
        if len(x) == 0:
            continue
        expected = exact(name, x.astype(np.float64))
        y, z = np.empty_like(x), np.empty_like(x)
        FASTMLP[name](y, x, 1, len(x))
        functions[name](wrap(x), out=wrap(z))
        worst = [max(w, largest(v, expected)) for w, v in zip(worst, (y, z), strict=True)]
    return worst[0], worst[1]


def within(name: str, x: Array) -> Array:
    """The finite arguments in the function's domain, filled up to whole vectors with zeros."""
    low, high = {"expm1": (-np.inf, 0.0), "log1p": (0.0, 1.0)}.get(name, (-np.inf, np.inf))
    x = x[np.isfinite(x) & (low <= x) & (x <= high)]
    return np.append(x, np.zeros(-len(x) % 16, x.dtype)) if len(x) else x


def exact(name: str, x: Array) -> Array:
    """The function in float64, without cancellation."""
    from scipy.special import expit, ndtr

    with np.errstate(over="ignore", under="ignore"):
        return {
            "exp": np.exp,
            "expm1": np.expm1,
            "log1p": np.log1p,
            "relu": lambda x: np.maximum(x, 0),
            "sigmoid": expit,
            "tanh": np.tanh,
            "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
            "gelu": lambda x: x * ndtr(x),
        }[name](x)


def largest(computed: Array, expected: Array) -> float:
    """Return the largest error in ULP; infinite where a result should be finite and is not.

    The ULP is the distance of the numbers on both sides of what is expected.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        rounded = expected.astype(computed.dtype)
        size = abs(rounded)
        below = np.where(size > abs(expected), np.nextafter(size, size.dtype.type(0)), size)
        errors = abs(computed - expected) / np.spacing(below).astype(np.float64)
    errors[computed == rounded] = np.where(
        np.isfinite(rounded[computed == rounded]), errors[computed == rounded], 0.0
    )
    return float(np.nan_to_num(errors, nan=np.inf).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="default: 9")
    parser.add_argument("--stride", type=int, default=251, help="1: all floats; default: 251")
    options = parser.parse_args()
    rows = measure(options.rounds, options.stride)
    print(table(COLUMNS, [row.cells() for row in rows]))


if __name__ == "__main__":
    main()
