"""What the comparison shares with the asv suite, which lies beside this folder."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.common import synthetic
from benchmarks.inner_kernels import fma_peak

__all__ = ["fma_peak", "synthetic"]
