"""From Python arrays to calls of the compiled program on a team of threads.

Everything the kernels touch is allocated here, once per run; nothing is allocated inside.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import kernels
from ._readahead import MappedRows, read_ahead
from .kernels import clip, machine, program
from .kernels import optimizer as kernel_optimizer
from .kernels import team as kernel_team
from .kernels.optimizer import KEEP, Parameters
from .kernels.plan import MOMENTUM, Samples, Workspace
from .kernels.program import Job
from .layout import aligned_zeros, allocate, alone, feature_lists, groups_of
from .optimizers import Optimizer, moment_vectors
from .threads import Team

if TYPE_CHECKING:
    from .mlp import MLP

Array = NDArray[Any]
Floats = NDArray[np.float64]
ONE_STEP = np.zeros((1, kernel_optimizer.COLUMNS))


@dataclass(frozen=True)
class Batch:
    """Checked samples; `chosen` rows take part. What is not given is empty.

    x [N, I], labels int64 [N] or targets [N, O], weights float64 [N].
    """

    x: Array
    labels: NDArray[np.int64]
    targets: Array
    weights: Floats
    chosen: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        x: Array,
        outputs: int,
        labels: NDArray[np.int64] | None = None,
        targets: Array | None = None,
        weights: Floats | None = None,
    ) -> "Batch":
        """Take all rows."""
        return cls(
            x,
            np.zeros(0, np.int64) if labels is None else labels,
            np.zeros((0, outputs), x.dtype) if targets is None else targets,
            np.zeros(0) if weights is None else weights,
            np.arange(len(x)),
        )

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, chosen: NDArray[np.int64]) -> "Batch":
        """The same arrays with other rows that take part."""
        return replace(self, chosen=chosen)

    @property
    def is_labelled(self) -> bool:
        """Whether there is something to compare the outputs with."""
        return len(self.labels) > 0 or len(self.targets) > 0

    def as_samples(self) -> Samples:
        """The arrays as the kernels take them."""
        return Samples(self.x, self.labels, self.targets, self.weights, self.chosen)


@dataclass(frozen=True)
class Procedure:
    """How to train: everything that stays the same from epoch to epoch.

    A pass takes `batch_size` rows (fewer, if that changes nothing), a step `accumulate` of those.
    Without an optimizer the gradient is kept and nothing changes.
    """

    batch_size: int
    optimizer: Optimizer | None = None
    accumulate: int = 1
    shuffled: bool = False
    seed: int = 0
    clip: int = clip.NONE
    limit: float = 0.0
    clip_value: float = 0.0
    average: float = 0.0
    training: bool = True
    checkpoint_every: int = 1
    input_gradient: bool = False


class Execution:
    """A run of the compiled program: its arrays, and what a watcher may read while it goes on.

    `train` may be called again and goes on where the last call ended.
    """

    def __init__(
        self,
        net: "MLP",
        *,
        procedure: Procedure | None = None,
        samples: Batch | None = None,
        others: Batch | None = None,
        outputs: Array | None = None,
        keep: bool = False,
        threads: int = 1,
    ) -> None:
        dtype, features, size = net.dtype, net.layer_sizes[0], net.layer_sizes[-1]
        nothing = Batch.of(np.zeros((0, features), dtype), size)
        samples, others = samples or nothing, others or nothing
        procedure = procedure or Procedure(1)
        self._net, self._procedure = net, procedure
        self._is_training, self._is_evaluating = len(samples) > 0, len(others) > 0
        self._threads = threads
        net.layout.spread(net.theta)

        rows = procedure.batch_size
        needs_all = procedure.training and net.architecture.has_batch_norm
        if not (needs_all or procedure.input_gradient):
            rows = min(rows * procedure.accumulate, machine.MICRO_BATCH)
        self.step_rows = procedure.batch_size * procedure.accumulate
        self._passes = -(-self.step_rows // rows)
        groups = groups_of(net.architecture, net.layout, self._passes, procedure.training)
        self._shares_passes = groups == 1
        self.team = allocate(
            net.architecture,
            net.layout,
            dtype,
            threads=threads if self._shares_passes else 1,
            groups=groups,
            rows=rows,
            packed=self._is_training,
            training=procedure.training,
            seed=procedure.seed,
            checkpoint_every=procedure.checkpoint_every,
            input_gradient=procedure.input_gradient,
        )
        self.alone = alone(
            allocate(
                net.architecture,
                net.layout,
                dtype,
                rows=min(machine.MICRO_BATCH, max(len(others), 1)),
                packed=self._is_training,
                backward=False,
                training=False,
                keep=keep,
            )
        )
        if procedure.optimizer is None:
            self.team.plan.numbers[:, MOMENTUM] = 0  # running statistics stay
        self._parameters = self._make_parameters()
        self._hyper = self._make_hyper()
        self._samples, self._others = samples.as_samples(), others.as_samples()
        self._order = samples.chosen.copy() if procedure.shuffled else samples.chosen
        # a system reads ahead by itself where the order is the file's
        mapped = map(MappedRows.of, (samples.x, samples.targets)) if procedure.shuffled else ()
        self._mapped = [rows for rows in mapped if rows is not None]
        parts = -(-len(others) // self.alone.plan.rows) if others.is_labelled else 0
        self._parts = np.zeros((parts, 3))
        self._outputs = np.zeros((0, size), dtype) if outputs is None else outputs
        self._objective = net.loss.objective(size)
        self._run = kernels.compiled_run(dtype)
        # All memory is there before a thread starts: none can fail while others wait for it.
        shared = aligned_zeros(self.team.shared if self._is_training else 0, dtype)
        scores, norms = np.zeros((3, rows)), np.zeros(self.team.norms)
        sums = np.zeros((self._passes, 3))
        self.workspaces = [
            (self._team_workspace(t, shared, scores, sums, norms), self._alone_workspace())
            for t in range(threads)
        ]
        self._state = np.zeros(kernel_team.LENGTH, np.int64)
        self._job, self._schedule = self._make_job(0), ONE_STEP
        self._history = np.zeros((1, program.HISTORY))
        self._epochs_before = 0
        self._steps_before = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimizer in an epoch."""
        return -(-len(self._samples.chosen) // self.step_rows)

    @property
    def epochs_done(self) -> int:
        """Epochs of this call that are finished, their row of `history` included."""
        return int(self._state[kernel_team.EPOCHS])

    @property
    def samples_done(self) -> int:
        """Samples of the running epoch whose step is finished."""
        return int(self._state[kernel_team.SAMPLES])

    @property
    def diverged(self) -> bool:
        """Whether a loss that was not finite ended the call."""
        return bool(self._state[kernel_team.DIVERGED])

    @property
    def history(self) -> Floats:
        """The finished epochs of the last call, in the columns of `kernels.program`."""
        return self._history[: self.epochs_done]

    @property
    def current_rows(self) -> NDArray[np.int64]:
        """The samples of the step that did not finish."""
        return self._order[self.samples_done : self.samples_done + self.step_rows]

    @property
    def gradient(self) -> Array:
        """The gradient that a procedure without optimizer leaves, in the layout of `theta`."""
        flat = aligned_zeros(self._net.layout.length, self._net.dtype)
        self._net.layout.unpack(self._parameters.gradient[: len(flat)], flat)
        self._net.layout.gather(flat)
        return flat

    def train(self, epochs: int, schedule: Floats, watch: Callable[[], None] | None = None) -> bool:
        """Train in a team of threads, calling `watch` meanwhile; False if Ctrl-C ended it early.

        `schedule` [steps, 4] has the numbers of each step. Whatever ends it, the parameters are
        those after the last whole step.
        """
        self._begin(epochs, schedule)
        size = self._threads + bool(self._mapped)
        complete = Team(self._train_or_read, size, self._state).run(watch)
        self._epochs_before += self.epochs_done
        self._steps_before += self.epochs_done * self.steps_per_epoch
        return complete

    def write_back(self) -> bool:
        """Copy the parameters to the network if they are finite; say whether they are."""
        parameters = self._parameters
        trained = parameters.average if len(parameters.average) else parameters.theta
        if not np.isfinite(trained).all():
            return False
        self._net.layout.unpack(trained, self._net.theta)
        return True

    def spoilt_layer(self) -> int | None:
        """The first layer, from 1, with a parameter that is not finite."""
        theta = self._parameters.theta
        for tensor in self._net.layout.tensors:
            if not np.isfinite(theta[tensor.offset : tensor.offset + tensor.length]).all():
                return tensor.layer
        return None

    def differentiate(self) -> tuple[float, Array]:
        """Mean loss over the samples without penalty, and its gradient.

        A loss that is not finite is infinite, and the gradient NaN.
        """
        self._begin(1, ONE_STEP)
        self._go(len(self._samples.chosen))
        if self.diverged:
            return math.inf, np.full_like(self._net.theta, np.nan)
        return float(self._history[0, program.LOSS]), self.gradient

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and accuracy over the others, whose outputs are filled in."""
        self._begin(0, ONE_STEP)
        self._go(len(self._others.chosen))
        row = self._history[0]
        return float(row[program.VALIDATION_LOSS]), float(row[program.VALIDATION_ACCURACY])

    @property
    def weight(self) -> float:
        """Sum of the weights of the samples that `differentiate` took."""
        return float(self._history[0, program.WEIGHT])

    def read(self, layer: int, column: int) -> Array:
        """Values [B, units] that the last pass of a single thread left in a region of a layer.

        DELTA is what a training leaves, else it is what an evaluation does.
        """
        allocation, pair = (self.team, 0) if self._is_training else (self.alone, 1)
        plan, work = allocation.plan, self.workspaces[0][pair]
        ld = self._net.layout.strides[layer]
        offset = int(plan.table[layer, column])
        values: Array = work.shared[offset : offset + plan.rows * ld].reshape(-1, ld)
        return values[:, : self._net.layer_sizes[layer]]

    def _begin(self, epochs: int, schedule: Floats) -> None:
        self._state[:] = 0
        self._job, self._schedule = self._make_job(epochs), schedule
        self._history = np.zeros((max(epochs, 1), program.HISTORY))

    def _go(self, samples: int) -> None:
        """Run to the end: here if one pass is all there is, else in a team."""
        if samples <= machine.MICRO_BATCH and self._threads == 1:
            self._member(0)
        elif not Team(self._member, self._threads, self._state).run():
            raise KeyboardInterrupt

    def _train_or_read(self, thread: int) -> None:
        """Train; one more than the team has threads reads ahead for them."""
        if thread < self._threads:
            self._member(thread)
        else:
            read_ahead(self._mapped, self._order, self._progress)

    def _progress(self) -> int | None:
        """Samples of the running epoch that are done, None if the team is."""
        is_over = self._state[kernel_team.STOP] or self.diverged
        return None if is_over or self.epochs_done == self._job.epochs else self.samples_done

    def _member(self, thread: int) -> None:
        work, alone_work = self.workspaces[thread]
        self._run(
            self._job,
            self._objective,
            self.team.plan,
            work,
            self._parameters,
            self._hyper,
            self._schedule,
            self._samples,
            self._order,
            self.alone.plan,
            alone_work,
            self._others,
            self._outputs,
            self._parts,
            self._history,
            self._state,
        )

    def _make_job(self, epochs: int) -> Job:
        procedure = self._procedure
        return Job(
            threads=self._threads,
            optimizer=procedure.optimizer.code if procedure.optimizer else KEEP,
            epochs=epochs,
            batch_size=self.step_rows,
            shuffled=int(procedure.shuffled),
            seed=procedure.seed,
            clip=procedure.clip,
            limit=float(procedure.limit),
            first_epoch=self._epochs_before if epochs else 0,
            first_step=self._steps_before if epochs else 0,
        )

    def _make_parameters(self) -> Parameters:
        """The vectors that the kernels change: packed copies, or for a prediction none."""
        net, procedure = self._net, self._procedure
        empty = aligned_zeros(0, net.dtype)
        if not self._is_training:
            return Parameters(net.theta, empty, empty, empty, empty)
        theta = net.layout.pack(net.theta)
        optimizer, groups = procedure.optimizer, self.team.plan.groups
        if optimizer and self._passes == 1 and procedure.clip == clip.NONE:
            groups = 0  # the gradient becomes the update at once
        first, second = moment_vectors(optimizer, theta) if optimizer else (empty, empty)
        return Parameters(
            theta,
            aligned_zeros(groups * len(theta), net.dtype),
            first,
            second,
            net.layout.pack(net.theta) if procedure.average else empty,
        )

    def _make_hyper(self) -> Floats:
        procedure = self._procedure
        if procedure.optimizer is None:
            return np.zeros(kernel_optimizer.CONSTANTS)
        hyper = procedure.optimizer.hyper(self._net.dtype)
        hyper[kernel_optimizer.CLIP] = procedure.clip_value
        hyper[kernel_optimizer.AVERAGE_DECAY] = procedure.average
        return hyper

    def _team_workspace(
        self, member: int, shared: Array, scores: Floats, sums: Floats, norms: Floats
    ) -> Workspace:
        """Scratch of a member of the team; wide outputs share the scores of their loss.

        Where each takes whole passes, none shares its activations: the first has `shared` for
        itself, each other one an array of its own.
        """
        dtype, plan, shares = self._net.dtype, self.team.plan, self._shares_passes
        if member > 0 and not shares:
            shared = aligned_zeros(len(shared), dtype)
        private = aligned_zeros(self.team.private if self._is_training else 0, dtype)
        own_scores = scores if shares and not plan.narrow else np.zeros_like(scores)
        return Workspace(
            member,
            member if shares else 0,
            shared,
            private,
            self._net.running,
            np.zeros(plan.rows, np.int64),
            own_scores,
            sums,
            norms,
            *feature_lists(self._net.layout, self._is_training),
        )

    def _alone_workspace(self) -> Workspace:
        """Scratch for evaluation, all of it in one array."""
        array = aligned_zeros(self.alone.shared if self._is_evaluating else 0, self._net.dtype)
        rows = self.alone.plan.rows
        return Workspace(
            0,
            0,
            array,
            array,
            self._net.running,
            np.zeros(rows, np.int64),
            np.zeros((3, rows)),
            np.zeros((0, 3)),
            np.zeros(0),
            *feature_lists(self._net.layout, self._is_evaluating),
        )
