"""GEMM of OpenBLAS and MKL, called from compiled code: no figure holds Python's overhead."""

import ctypes
import os
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, files
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

ROW_MAJOR, AS_IT_IS, TRANSPOSED = 101, 111, 112
LETTERS = {"float32": "s", "float64": "d"}
REALS = {"float32": ctypes.c_float, "float64": ctypes.c_double}
# MKL's idle threads spin for 0.2 s by default, which would slow down whoever is measured next;
# within the calls of one measurement they still do. Read when the library is loaded.
os.environ.setdefault("KMP_BLOCKTIME", "1")


class Blas:
    """One library. `seconds_to_rest`: how long its idle threads go on spinning."""

    def __init__(
        self, name: str, path: str, symbol: str, integer: Any, seconds_to_rest: float
    ) -> None:
        self.name, self.seconds_to_rest = name, seconds_to_rest
        library = ctypes.CDLL(path)
        self._repeat = {
            dtype: _repeater(getattr(library, symbol.format(letter)), integer, REALS[dtype])
            for dtype, letter in LETTERS.items()
        }

    def product(
        self,
        name: str,
        arrays: Sequence[NDArray[Any]],
        sizes: tuple[int, int, int],
    ) -> Callable[[int], None]:
        """Return the function that computes a product of a layer so many times.

        `arrays` are A [B, I], W [I, O] and dZ [B, O], or as large as that.
        """
        batch, inputs, outputs = sizes
        a, w, dz = arrays
        repeat = self._repeat[a.dtype.name]
        transposes, shape, left, right = {
            "forward": ((AS_IT_IS, AS_IT_IS), (batch, outputs, inputs), (a, inputs), (w, outputs)),
            "backward": (
                (AS_IT_IS, TRANSPOSED),
                (batch, inputs, outputs),
                (dz, outputs),
                (w, outputs),
            ),
            "gradient": (
                (TRANSPOSED, AS_IT_IS),
                (inputs, outputs, batch),
                (a, inputs),
                (dz, outputs),
            ),
        }[name]
        result = np.zeros(shape[0] * shape[1], a.dtype)
        return lambda times: repeat(times, *transposes, *shape, *left, *right, result, shape[1])


def _repeater(gemm: Any, integer: Any, real: Any) -> Callable[..., None]:
    gemm.restype = None
    gemm.argtypes = (
        *(ctypes.c_int, ctypes.c_int, ctypes.c_int, integer, integer, integer),
        *(real, ctypes.c_void_p, integer, ctypes.c_void_p, integer),
        *(real, ctypes.c_void_p, integer),
    )

    @njit(nogil=True)
    def repeat(
        times: int,
        ta: int,
        tb: int,
        m: int,
        n: int,
        k: int,
        a: Any,
        lda: int,
        b: Any,
        ldb: int,
        c: Any,
        ldc: int,
    ) -> None:
        for _ in range(times):
            gemm(ROW_MAJOR, ta, tb, m, n, k, 1.0, a.ctypes, lda, b.ctypes, ldb, 0.0, c.ctypes, ldc)

    return repeat  # type: ignore[no-any-return]


def libraries() -> list[Blas]:
    """Return NumPy's OpenBLAS and the mkl package's library, as far as they are there."""
    found = []
    for info in threadpool_info():
        if info["internal_api"] == "openblas" and "openblas64_" in info["filepath"]:
            symbol = "scipy_cblas_{}gemm64_"
            found.append(Blas("OpenBLAS", info["filepath"], symbol, ctypes.c_int64, 0.04))
    try:
        paths = [str(file.locate()) for file in files("mkl") or () if "mkl_rt" in file.name]
    except PackageNotFoundError:
        return found
    return [*found, *(Blas("MKL", path, "cblas_{}gemm", ctypes.c_int, 0.002) for path in paths)]


def use_threads(threads: int) -> None:
    """Let the libraries that are loaded use so many threads."""
    threadpool_limits(threads, user_api="blas")
