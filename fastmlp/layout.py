"""Where parameters and workspaces lie in memory: pure functions of the network's shape.

Every parameter of a network is in one flat, 64-byte aligned vector: for each layer W [n_in, ld],
row-major, then b [ld], where ld is n_out rounded up to a cache line. The padding is zero and stays
zero, so the kernels' inner loops have no column edges. Gradients and optimizer state are vectors of
the same layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kernels import activation, machine
from .kernels import plan as kernel_plan
from .kernels.plan import Plan

Vector = NDArray[Any]
Matrix = NDArray[Any]


def aligned_zeros(length: int, dtype: np.dtype[Any]) -> Vector:
    """A zero vector that begins on a cache line."""
    spare = machine.CACHE_LINE // dtype.itemsize
    raw = np.zeros(length + spare, dtype)
    start = -raw.ctypes.data % machine.CACHE_LINE // dtype.itemsize
    return raw[start : start + length]


def round_up(n: int, multiple: int) -> int:
    """Return the smallest multiple that is at least n."""
    return -(-n // multiple) * multiple


@dataclass(frozen=True)
class Layout:
    """The parameter vector of a network: its length in elements, where each W and b begins."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]  # of each layer's output, input included: sizes in whole lines
    weight_offsets: tuple[int, ...]
    bias_offsets: tuple[int, ...]
    length: int

    @classmethod
    def of(cls, sizes: Sequence[int], dtype: np.dtype[Any]) -> "Layout":
        """Lay out the parameters for layers of these sizes."""
        line = machine.CACHE_LINE // dtype.itemsize
        strides = tuple(round_up(n, line) for n in sizes)
        weights, biases, offset = [], [], 0
        for n_in, ld in zip(sizes[:-1], strides[1:], strict=True):
            weights.append(offset)
            biases.append(offset + n_in * ld)
            offset += (n_in + 1) * ld
        return cls(tuple(sizes), strides, tuple(weights), tuple(biases), offset)

    def weights(self, flat: Vector) -> tuple[Matrix, ...]:
        """Views W_l [n_in, n_out] of a vector of this layout."""
        return tuple(
            flat[offset : offset + n_in * ld].reshape(n_in, ld)[:, :n_out]
            for offset, n_in, n_out, ld in zip(
                self.weight_offsets, self.sizes[:-1], self.sizes[1:], self.strides[1:], strict=True
            )
        )

    def biases(self, flat: Vector) -> tuple[Vector, ...]:
        """Views b_l [n_out] of a vector of this layout."""
        return tuple(
            flat[offset : offset + n_out]
            for offset, n_out in zip(self.bias_offsets, self.sizes[1:], strict=True)
        )

    def pack(self, flat: Vector) -> Vector:
        """Return the vector as the team trains on it: each W in panels of one vector's columns."""
        packed = aligned_zeros(self.length, flat.dtype)
        packed[...] = flat
        for row_major, panels in zip(self._panels(flat, 1), self._panels(packed, 0), strict=True):
            panels[...] = row_major
        return packed

    def unpack(self, packed: Vector, flat: Vector) -> None:
        """Write a packed vector to one of the ordinary layout."""
        flat[...] = packed
        for row_major, panels in zip(self._panels(flat, 1), self._panels(packed, 0), strict=True):
            row_major[...] = panels

    def _panels(self, vector: Vector, panel_axis: int) -> list[NDArray[Any]]:
        """Views [panels, n_in, lanes] of each W, whose memory has the panels as its given axis."""
        lanes = machine.VECTOR_BYTES // vector.itemsize
        views = []
        for offset, n_in, ld in zip(
            self.weight_offsets, self.sizes[:-1], self.strides[1:], strict=True
        ):
            shape = (n_in, ld // lanes, lanes) if panel_axis else (ld // lanes, n_in, lanes)
            view = vector[offset : offset + n_in * ld].reshape(shape)
            views.append(np.moveaxis(view, panel_axis, 0))
        return views


@dataclass(frozen=True)
class Allocation:
    """A kernel plan, and the length in elements of the workspaces it points into."""

    plan: Plan
    shared: int
    private: int


def allocate(
    layout: Layout, activations: Sequence[str], dtype: np.dtype[Any], threads: int, *, packed: bool
) -> Allocation:
    """Lay out the workspaces of a team: what its threads share, and what each has for itself.

    A team of one may use one array of `shared + private` elements for both, see `alone`.
    """
    line = machine.CACHE_LINE // dtype.itemsize
    sizes, strides = layout.sizes, layout.strides
    last, batch = len(sizes) - 1, machine.MICRO_BATCH
    narrow = sizes[-1] <= machine.NARROW_OUTPUT

    table = np.zeros((last + 1, kernel_plan.COLUMNS), np.int64)
    table[:, kernel_plan.SIZE] = sizes
    table[:, kernel_plan.LD] = strides
    table[:, kernel_plan.GRAIN] = line
    if narrow:
        table[last - 1, kernel_plan.GRAIN] = round_up(
            -(-strides[-2] // machine.PARTIAL_BLOCKS), line
        )
    table[1:, kernel_plan.WEIGHT] = layout.weight_offsets
    table[1:, kernel_plan.BIAS] = layout.bias_offsets
    table[1:last, kernel_plan.ACTIVATION] = [activation.CODES[name] for name in activations]

    shared = 0
    for layer in range(1, last + 1):
        if layer < last or not narrow:
            table[layer, kernel_plan.OUTPUT] = shared
            shared += batch * strides[layer] * (2 if layer == 1 else 1)
        if layer < last:
            table[layer, kernel_plan.DELTA] = shared
            shared += batch * strides[layer]
        if layer > 1:
            table[layer, kernel_plan.TRANSPOSED] = shared
            shared += strides[layer] * strides[layer - 1]
    partial = shared
    if narrow:
        blocks = -(-strides[-2] // int(table[last - 1, kernel_plan.GRAIN]))
        shared += 2 * blocks * batch * strides[-1]

    offsets, private = [], 0
    for length in (
        batch * strides[0],  # inputs
        batch * strides[-1] if narrow else 0,  # logits
        machine.TILE_ROWS * machine.STRIP_COLUMNS,  # strip of a gradient
        max(*strides, machine.STRIP_COLUMNS),  # zeros
        batch,  # ones
    ):
        offsets.append(private)
        private += round_up(length, line)
    return Allocation(
        Plan(table, threads, int(packed), int(narrow), partial, *offsets), shared, private
    )


def alone(allocation: Allocation) -> Allocation:
    """The same for a team of one in a single array: the private part behind the shared one."""
    plan, shared = allocation.plan, allocation.shared
    moved = plan._replace(
        threads=1,
        inputs=plan.inputs + shared,
        logits=plan.logits + shared,
        strip=plan.strip + shared,
        zeros=plan.zeros + shared,
        ones=plan.ones + shared,
    )
    return Allocation(moved, shared + allocation.private, 0)
