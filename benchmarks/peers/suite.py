"""What the comparison shares with the asv suite, which lies beside this folder."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.bench_elementwise import FASTMLP, arguments, torch_functions
from benchmarks.common import synthetic
from benchmarks.inner_kernels import (
    activate,
    adapt,
    differentiate,
    fma_peak,
    meet,
    read_all,
    update_all,
)
from benchmarks.layer import PRODUCTS, Layer

__all__ = [
    "FASTMLP",
    "PRODUCTS",
    "Layer",
    "activate",
    "adapt",
    "arguments",
    "differentiate",
    "fma_peak",
    "meet",
    "read_all",
    "synthetic",
    "torch_functions",
    "update_all",
]
