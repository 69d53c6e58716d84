"""From Python arrays to one call of the compiled program on a team of threads.

Everything the kernels touch is allocated here, once per call; nothing is allocated inside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernels
from .kernels import machine
from .kernels import team as kernel_team
from .kernels.optimizer import KEEP, Parameters
from .kernels.plan import Samples, Workspace
from .kernels.program import Job
from .layout import Allocation, Layout, aligned_zeros, allocate, alone
from .threads import Team

Array = NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Checked samples: x [N, I], labels int64 [N] or targets [N, O]; `chosen` rows take part."""

    x: Array
    labels: NDArray[np.int64]
    targets: Array
    chosen: NDArray[np.int64]

    @classmethod
    def of(cls, x: Array, y: Array | None, outputs: int) -> "Batch":
        """Take all rows; y [n] are labels, y [n, O] targets, None leaves both empty."""
        labels, targets = np.zeros(0, np.int64), np.zeros((0, outputs), x.dtype)
        if y is not None and y.ndim == 1:
            labels = y
        elif y is not None:
            targets = y
        return cls(x, labels, targets, np.arange(len(x)))

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def is_labelled(self) -> bool:
        """Whether there is something to compare the outputs with."""
        return len(self.labels) > 0 or len(self.targets) > 0

    def as_samples(self) -> Samples:
        """The arrays as the kernels take them."""
        return Samples(self.x, self.labels, self.targets, self.chosen)


class Execution:
    """One run of the compiled program: its arrays, and what a watcher may read while it goes on.

    With `epochs` = 0 there is one evaluation of `others` and no training.
    """

    def __init__(
        self,
        layout: Layout,
        activations: Sequence[str],
        theta: Array,
        job: Job,
        *,
        hyperparameters: NDArray[np.float64] | None = None,
        moments: Sequence[Array] = (),
        samples: Batch | None = None,
        others: Batch | None = None,
        outputs: Array | None = None,
        threads: int = 1,
    ) -> None:
        dtype = theta.dtype
        empty, size = aligned_zeros(0, dtype), layout.sizes[-1]
        nothing = Batch.of(np.zeros((0, layout.sizes[0]), dtype), None, size)
        samples, others = samples or nothing, others or nothing
        self._is_training, self._is_evaluating = len(samples) > 0, len(others) > 0
        team = allocate(layout, activations, dtype, threads, packed=self._is_training)
        self._team, self._alone = team, alone(team)
        self._layout, self._theta = layout, theta
        self._threads = threads
        self.job = job
        self._gradient = (
            aligned_zeros(layout.length, dtype)
            if self._is_training and (job.optimizer == KEEP or job.batch_size > machine.MICRO_BATCH)
            else empty
        )
        # Only a prediction reads the parameters where they are.
        working = layout.pack(theta) if self._is_training else theta
        self._parameters = Parameters(working, self._gradient, *(moments or (empty, empty)))
        self._hyper = np.zeros(4) if hyperparameters is None else hyperparameters
        self._samples, self._others = samples.as_samples(), others.as_samples()
        self._order = np.empty(len(samples), np.int64) if job.shuffled else samples.chosen
        parts = -(-len(others) // machine.MICRO_BATCH) if others.is_labelled else 0
        self._parts = np.zeros((parts, 2))
        self._outputs = np.zeros((0, size), dtype) if outputs is None else outputs
        self._scores = np.zeros((2, machine.MICRO_BATCH))
        shared = aligned_zeros(team.shared if self._is_training else 0, dtype)
        self._run = kernels.compiled_run(dtype)
        # All memory is there before a thread starts: none can fail while others wait for it.
        self._workspaces = [
            (self._workspace(t, self._team, shared), self._workspace(0, self._alone, None))
            for t in range(threads)
        ]
        self._state = np.zeros(kernel_team.LENGTH, np.int64)
        self.history = np.zeros((max(job.epochs, 1), 4))

    @property
    def epochs_done(self) -> int:
        """Epochs that are finished, their row of `history` included."""
        return int(self._state[kernel_team.EPOCHS])

    @property
    def samples_done(self) -> int:
        """Samples of the running epoch whose step is finished."""
        return int(self._state[kernel_team.SAMPLES])

    @property
    def gradient(self) -> Array:
        """The gradient that a job with optimizer KEEP leaves, in the layout of the parameters."""
        flat = aligned_zeros(self._layout.length, self._theta.dtype)
        self._layout.unpack(self._gradient, flat)
        return flat

    def run(self, watch: Callable[[], None] | None = None) -> bool:
        """Run in a team of threads, calling `watch` meanwhile; False if Ctrl-C ended it early.

        Whatever ends it, the parameters are those after the last whole step.
        """
        try:
            return Team(self._member, self._threads, self._state).run(watch)
        finally:
            if self.job.optimizer != KEEP:
                self._layout.unpack(self._parameters.theta, self._theta)

    def run_here(self) -> None:
        """Run in the calling thread alone: for short computations that change nothing."""
        self._member(0)

    def _member(self, thread: int) -> None:
        work, alone_work = self._workspaces[thread]
        self._run(
            self.job,
            self._team.plan,
            work,
            self._parameters,
            self._hyper,
            self._samples,
            self._order,
            self._alone.plan,
            alone_work,
            self._others,
            self._outputs,
            self._parts,
            self.history,
            self._state,
        )

    def _workspace(self, thread: int, allocation: Allocation, shared: Array | None) -> Workspace:
        """Scratch of a thread; in one array if it shares nothing."""
        dtype = self._parameters.theta.dtype
        needed = self._is_evaluating if shared is None else self._is_training
        length = allocation.private if shared is not None else allocation.shared
        private = aligned_zeros(length if needed else 0, dtype)
        if needed:
            ones = allocation.plan.ones
            private[ones : ones + machine.MICRO_BATCH] = 1
        split_loss = shared is not None and not allocation.plan.narrow
        return Workspace(
            thread,
            private if shared is None else shared,
            private,
            np.zeros(machine.MICRO_BATCH, np.int64),
            self._scores if split_loss else np.zeros_like(self._scores),
        )
