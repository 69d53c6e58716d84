"""Compiled kernels: they compute on arrays and integers and know no class of the model layer.

`predict` is for the jitted code of users, with the `Network` that `MLP.jitted` makes: see
docs/jitted-code.md. `warmup` compiles everything ahead, `info` tells what the kernels make of this
machine. How the kernels are written, and how to add one, is in README.md beside this file.
"""

import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from . import machine, prediction
from ._jit import FINGERPRINT, JIT_DISABLED, cache_folder
from .prediction import Network, predict, workspace_length
from .program import run
from .signatures import argument_types

__all__ = [
    "Network",
    "compiled",
    "compiled_predict",
    "compiled_run",
    "info",
    "is_warm",
    "predict",
    "resolve_dtype",
    "warmup",
    "workspace_length",
]

DTYPES = ("float32", "float64")


def resolve_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the native float32 or float64 that is meant.

    Raises TypeError for what is no dtype, ValueError for another one.
    """
    try:
        if dtype is None:  # which is float64 to NumPy
            raise TypeError
        resolved: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise TypeError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}") from None
    if resolved.name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {resolved}")
    return resolved


def compiled(dtype: Any) -> bool:
    """Whether the kernels that train a dtype are loaded in this process."""
    return JIT_DISABLED or argument_types(dtype) in run.signatures


@cache
def compiled_run(dtype: Any) -> Callable[..., None]:
    """Return the compiled `program.run` for a dtype, compiling it if need be.

    It takes its arguments as they are: no dispatch by their types, so nothing can compile again.
    """
    return _entry_point(run, argument_types(dtype))


@cache
def compiled_predict(dtype: Any) -> Callable[..., bool]:
    """Return the compiled `predict` for a dtype, as `compiled_run` does."""
    return _entry_point(predict, prediction.argument_types(dtype))


def _entry_point(entry: Any, types: tuple[Any, ...]) -> Callable[..., Any]:
    """The machine code of an entry for these arguments, compiled or loaded if need be."""
    if JIT_DISABLED:  # NumPy warns of infinities where machine code passes them on
        return np.errstate(all="ignore")(entry)  # type: ignore[no-any-return]
    if types not in entry.signatures:
        entry.compile(types)
    return entry.overloads[types].entry_point  # type: ignore[no-any-return]


def is_warm(dtype: Any) -> bool:
    """Whether the kernels that train a dtype need no compiling: loaded, or in the cache folder."""
    return compiled(dtype) or run._cache.is_warm(argument_types(dtype), run.targetctx.codegen())


def warmup(dtype: Any = "float32") -> float:
    """Compile the kernels for a dtype, or load them from the cache; return the seconds it took.

    Raises TypeError for what is no dtype, ValueError for one other than float32 and float64.
    """
    dtype = resolve_dtype(dtype)
    begin = time.perf_counter()
    compiled_run(dtype)
    compiled_predict(dtype)
    return time.perf_counter() - begin


def info() -> dict[str, Any]:
    """What the kernels make of this machine: features of the CPU, vector width, tile, cache."""
    known = ("sse2", "sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bf16", "amx-bf16", "neon")
    return {
        "python": sys.version.split()[0],
        "cpu_features": [name for name in known if machine.FEATURES.get(name)],
        "vector_bytes": machine.VECTOR_BYTES,
        "tile": f"{min(machine.ACCUMULATORS // 3, machine.TILE_ROWS)} rows x 3 vectors",
        "fused_multiply_add": machine.HAS_FMA,
        "cache_folder": str(cache_folder()),
        "fingerprint": FINGERPRINT,
        "warm": {dtype: is_warm(dtype) for dtype in DTYPES},
    }
