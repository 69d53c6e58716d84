"""Prediction: inputs from Python to `kernels.predict`, by as many threads at a time as may call."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import kernels
from ._arrays import blocks
from ._checks import check_finite, dense, is_input, is_ready, open_inputs
from .architecture import Architecture
from .kernels import Network, machine
from .kernels import team as kernel_team
from .layout import Layout, aligned_zeros, allocate
from .threads import Team, threads_for

Array = NDArray[Any]
PASS = machine.MICRO_BATCH


class Predictor:
    """What stays the same between predictions of one network: its arrays, and the workspaces.

    Each call takes a workspace off the pile, or makes one, and puts it back: calls of several
    threads never share one.
    """

    def __init__(
        self, architecture: Architecture, layout: Layout, theta: Array, running: Array
    ) -> None:
        self._dtype = theta.dtype
        self._inputs, self._outputs = layout.sizes[0], layout.sizes[-1]
        plan = allocate(
            architecture, layout, theta.dtype, rows=1, backward=False, training=False
        ).plan
        self._networks = tuple(
            Network(theta, running, plan.table, plan.numbers, softmax) for softmax in (0, 1)
        )
        self._predict = kernels.compiled_predict(theta.dtype)
        # for the most rows: what fewer do not touch, the system does not provide
        self._length = kernels.workspace_length(self._networks[0], PASS)
        self._workspaces: list[Array] = []

    def network(self, softmax: bool) -> Network:
        """The arrays that `kernels.predict` reads."""
        return self._networks[softmax]

    def __call__(self, X: ArrayLike, softmax: bool = False, threads: int | None = None) -> Array:
        """Return the outputs [n, O] for X [n, I], which is checked."""
        network = self._networks[softmax]
        if is_input(X, self._inputs, self._dtype):
            return self._outputs_of(X, network, threads, X)
        rows = open_inputs(X, self._inputs)
        if is_ready(rows, self._dtype):
            return self._outputs_of(dense(rows, self._dtype), network, threads, X)
        out = np.empty((rows.shape[0], self._outputs), self._dtype)
        # no more is converted than a team takes at a time
        for part in blocks(rows.shape, PASS * threads_for(len(out), threads)):
            x = dense(rows[part], self._dtype)
            self._fill(out[part], x, network, threads, X, part.start)
        return out

    def _outputs_of(
        self, x: Array, network: Network, threads: int | None, source: ArrayLike
    ) -> Array:
        """The outputs for x, all rows of the source."""
        out = np.empty((x.shape[0], self._outputs), self._dtype)
        self._fill(out, x, network, threads, source)
        return out

    def _fill(
        self,
        out: Array,
        x: Array,
        network: Network,
        threads: int | None,
        source: ArrayLike,
        first: int = 0,
    ) -> None:
        """Fill `out` for x, the rows of the source from `first` on, which must be finite."""
        if len(x) <= PASS:
            is_finite = self._one_pass(out, x, network)
        else:
            is_finite = self._passes(out, x, network, threads_for(len(x), threads))
        if not is_finite:
            check_finite(x, self._dtype, "X", source, first)  # says where it is not

    def _one_pass(self, out: Array, x: Array, network: Network) -> bool:
        """Fill `out` for at most PASS rows; return whether x is finite."""
        try:
            work = self._workspaces.pop()
        except IndexError:
            work = aligned_zeros(self._length, self._dtype)
        finite = self._predict(out, x, network, work)
        self._workspaces.append(work)
        return finite

    def _passes(self, out: Array, x: Array, network: Network, threads: int) -> bool:
        """The same for any number of rows, in a team of threads, each its own passes."""
        state = np.zeros(kernel_team.LENGTH, np.int64)
        is_finite = [True] * threads

        def member(thread: int) -> None:
            for first in range(thread * PASS, len(x), threads * PASS):
                if state[kernel_team.STOP]:
                    return
                rows = slice(first, first + PASS)
                if not self._one_pass(out[rows], x[rows], network):
                    is_finite[thread] = False

        if not Team(member, threads, state).run():
            raise KeyboardInterrupt
        return all(is_finite)
