"""The one table of machine numbers: what the CPU offers and what the kernels make of it.

Bits depend on `HAS_FMA` (one rounding or two), on `HAS_AVX512` (the tables of exp, tanh and GELU,
and guesses that quotients and Adam's roots begin with) and on what decides the order of sums:
`VECTOR_BYTES` (a row of logits), `MICRO_BATCH`, `PASS_GROUPS`, `PASS_GRAIN`, `PASS_PARAMETERS` and
`SKIPPED_FEATURES` (gradients of large batches), `FEW_ROWS`, `FEW_UNITS` and `OUTPUTS_EACH` (of
small ones), `PARTIAL_BLOCKS` and `NARROW_OUTPUT` (logits). The rest is speed alone.
"""

import os
from collections.abc import Mapping

import llvmlite.binding as llvm
from numba import config

VECTOR_BYTES_VARIABLE = "FASTMLP_VECTOR_BYTES"
CACHE_LINE = 64  # bytes; parameters, activations and state are laid out in whole lines
PAGE = 4096  # bytes
# bytes behind what a thread reads that prefetchers may take as well, some beyond the end of a page;
# a thread that writes there has to fetch them back
PREFETCHED = 4 * PAGE

# Vector width in bytes -> sums that a register tile keeps: with up to four vectors of b and one
# broadcast they must fit the register file (32 registers at 64 bytes, 16 below). A tile of a narrow
# panel has no more rows than this: each has a pointer of its own, but in a turned operand, where
# they are neighbours.
SUMS = {64: 24, 32: 12, 16: 12}
TILE_ROWS, TURNED_ROWS = 8, 16
# depth of b times the panel's vectors that is half of a first-level cache of 48 KB
DEPTH_BLOCK = 384
# rows of a that pass over all panels of b before the next ones do, so that they and their part of
# c stay in the first caches; whole tiles of panels of three vectors, eight rows, and of four, six
ROW_BLOCK = 48
# vectors that are half of a second-level cache of 2 MB; and those that a block of W^T has at most
# where its product's other operands do not fit there
NEAR_VECTORS, TRANSPOSED_VECTORS = 16384, 6144
# vectors of the activations of `MICRO_BATCH` rows that are copied together, to stay in a
# second-level cache while the panels of a weight gradient pass over them, whole lines of each row;
# and vectors of the gradient's width above which that pays
COPIED_VECTORS, COPIED_FOR = 12288, 24
# inputs from which on the deltas are packed for a weight gradient
PACKED_FROM = 128
# rows a pass works on: a layer's activations stay in the second-level cache
MICRO_BATCH = 256
# elements that an activation asks for the lines of its outputs ahead
WRITE_AHEAD = 128
# groups of passes, each with a gradient of its own, where threads take whole passes; and rows that
# these are multiples of: four vectors, which turned passes take through all layers at once
PASS_GROUPS, PASS_GRAIN = 16, 64
# parameters up to which they do, see `layout.groups_of`
PASS_PARAMETERS = 16384
# rows of a weight gradient that lie in L1 between their product and the update
STRIP_ROWS = 64
# ... and those of them that are computed, the others being zero: whole tiles of any height
STRIP_FEATURES = 48
# rows of a tile that leaves out zeros, each half its own: of more rows, fewer columns are all zero
SKIPPING_ROWS = 4
# vectors of a panel times depth up to which gradient descent takes the product at once
DESCENT_BLOCK = 1024
# rows, or units below, up to which W is not transposed for dA = dZ W^T, but with at least so many
# outputs for each; and vectors of sums that stay in L1 while all columns of W are added to them
FEW_ROWS, FEW_UNITS, OUTPUTS_EACH, SUMMED_VECTORS = 8, 16, 8, 128
# rows of a pass up to which those of the next are asked for while gradients are made; of more, the
# lines on their way from memory hold up the products for longer than waiting for them takes
ASKED_ROWS = 64
# from how many features on a pass looks for those that are zero in all its rows
SKIPPED_FEATURES = 64
# a narrow output layer is summed over at most this many fixed blocks of units
PARTIAL_BLOCKS = 16
# outputs up to which every thread computes the loss of all rows itself
NARROW_OUTPUT = 64
# barrier: busy looks before yielding the core (a pause takes about 50 ns), yields before sleeping:
# who sleeps is late for the next barrier, where the others fall asleep in turn
SPINS, YIELDS = 500, 5000


def cpu_features() -> Mapping[str, bool]:
    """Features of the CPU that Numba compiles for: NUMBA_CPU_FEATURES, or else the host's."""
    if config.CPU_FEATURES is not None:
        names = config.CPU_FEATURES.split(",")
        return {name[1:]: name.startswith("+") for name in names if name}
    try:
        return dict(llvm.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot tell on this platform; the narrowest code is right anywhere
        return {}


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _vector_bytes() -> int:
    forced = os.environ.get(VECTOR_BYTES_VARIABLE)
    if forced is not None:
        if forced not in {"16", "32", "64"}:
            raise ValueError(f"{VECTOR_BYTES_VARIABLE} must be 16, 32 or 64, got {forced!r}")
        return int(forced)
    if FEATURES.get("avx512f"):
        return 64
    return 32 if FEATURES.get("avx2") else 16


FEATURES = cpu_features()
IS_X86 = llvm.get_process_triple().startswith(("x86_64", "i686"))
IS_WINDOWS = os.name == "nt"
HAS_FMA = bool(FEATURES.get("fma")) or not IS_X86
VECTOR_BYTES = _vector_bytes()
ACCUMULATORS = SUMS[VECTOR_BYTES]
# instructions for a 2**n, for guesses of 1 / a and 1 / sqrt(a), for looking up in vectors, and for
# the smaller magnitude
HAS_AVX512 = (
    IS_X86
    and HAS_FMA
    and VECTOR_BYTES == 64
    and all(FEATURES.get(name) for name in ("avx512f", "avx512dq"))
)
# whether a panel may end in half a vector: Zen 4 takes half the time for it
HAS_HALVES = HAS_AVX512 and (config.CPU_NAME or llvm.get_host_cpu_name()) == "znver4"
