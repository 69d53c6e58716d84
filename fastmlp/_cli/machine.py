"""``fastmlp info`` and ``fastmlp warmup``: the machine and its kernels."""

import platform
from typing import Annotated

import numba
import numpy as np
import typer

import fastmlp as fm
from fastmlp._cli.arguments import Json, complete_names
from fastmlp._cli.base import errors
from fastmlp._cli.output import print_facts, print_json, print_line

__all__ = ["info", "warmup"]


def info(json: Json = False) -> None:
    """Show versions, what the kernels are compiled for, threads and the cache."""
    facts = {
        "fastmlp": fm.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "threads": fm.threads.resolve(None),
        **fm.kernels.info(),
    }
    (print_json if json else print_facts)(facts)


def warmup(
    dtype: Annotated[
        str,
        typer.Option(
            help="float32, float64 or all.",
            autocompletion=complete_names(lambda: (*fm.kernels.DTYPES, "all")),
        ),
    ] = "float32",
    json: Json = False,
) -> None:
    """Compile the kernels ahead of the first training, or load them from the cache."""
    seconds = {}
    for name in fm.kernels.DTYPES if dtype == "all" else (dtype,):
        with errors.status(f"compiling kernels ({name})"):
            seconds[name] = fm.kernels.warmup(name)
        if not json:
            print_line(f"{name} kernels are ready after {seconds[name]:.2f} s")
    if json:
        print_json({"seconds": seconds})
