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
from ._state import Position, TrainingState, initial
from .kernels import clip, machine, program
from .kernels import optimizer as kernel_optimizer
from .kernels import team as kernel_team
from .kernels.optimizer import KEEP, Parameters
from .kernels.plan import MOMENTUM, RATES, Samples, Workspace
from .kernels.program import Job
from .layout import aligned_zeros, allocate, alone, feature_lists, groups_of
from .optimizers import Optimizer
from .threads import Team

if TYPE_CHECKING:
    from .mlp import MLP

Array = NDArray[Any]
Floats = NDArray[np.float64]
Rates = Callable[[NDArray[np.int64]], Floats]  # the learning rates of steps, by their numbers
SUMS = [program.LOSS, program.ACCURACY, program.WEIGHT]
ONE_STEP, NO_STEP = np.zeros(1), np.zeros(0)  # learning rates


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class Procedure:
    """How to train: everything that stays the same from epoch to epoch.

    A pass takes `batch_size` rows (fewer, if that changes nothing), a step `accumulate` of those.
    Without an optimizer the gradient is kept and nothing changes. `rates` are the factors on the
    learning rate, see `rate_factors`.
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
    rates: Floats | None = None

    @property
    def step_size(self) -> int:
        """Rows of a step; the last one of an epoch may have fewer."""
        return self.batch_size * self.accumulate


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of the program: where it begins, what it does, and what it writes as it goes.

    A whole object takes the place of another, so that Ctrl-C finds the one or the other.
    """

    begin: Position
    job: Job
    rates: Floats  # [1 + steps]: that of the last step before, and those of its own
    schedule: Floats
    history: Floats
    team: NDArray[np.int64]

    @property
    def epochs_done(self) -> int:
        return int(self.team[kernel_team.EPOCHS])

    @property
    def samples_done(self) -> int:
        return int(self.team[kernel_team.SAMPLES])

    @property
    def has_drawn(self) -> bool:
        """Whether `order` has that of the epoch in which the call ended."""
        if self.epochs_done > 0:
            return self.samples_done > 0
        return bool(self.job.drawn) or self.samples_done > self.begin.samples


class Execution:
    """A run of the compiled program: its arrays, and what a watcher may read while it goes on.

    `train` may be called again and goes on where the last call ended, or `state` did.
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
        state: TrainingState | None = None,
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
        self._has_batch_norm = procedure.training and net.architecture.has_batch_norm
        if not (self._has_batch_norm or procedure.input_gradient):
            rows = min(rows * procedure.accumulate, machine.MICRO_BATCH)
        self.step_rows = procedure.step_size
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
        if procedure.rates is not None:
            self.team.plan.numbers[:, RATES:] = procedure.rates
        state = state or initial(net, procedure.optimizer, procedure.average > 0)
        self._parameters = self._make_parameters(state)
        self._running = state.running
        if self._is_training:
            self._running = aligned_zeros(len(state.running), dtype)
            self._running[...] = state.running
        self._hyper = self._make_hyper()
        self._samples, self._others = samples.as_samples(), others.as_samples()
        self._order = samples.chosen.copy() if procedure.shuffled else samples.chosen
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
        self._call = self._make_call(state.position, 0, NO_STEP)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimizer in an epoch."""
        return self.steps_of(len(self._samples.chosen))

    @property
    def epochs_done(self) -> int:
        """Epochs of this call that are finished, their row of `history` included."""
        return self._call.epochs_done

    @property
    def samples_done(self) -> int:
        """Samples of the running epoch whose step is finished."""
        return self._call.samples_done

    @property
    def begin(self) -> Position:
        """Where the last call began."""
        return self._call.begin

    @property
    def position(self) -> Position:
        """Where the last call has got to."""
        call, epochs, samples = self._call, self.epochs_done, self.samples_done
        row = call.history[epochs] if epochs < len(call.history) else np.zeros(program.HISTORY)
        loss, right, weight = row[SUMS].tolist()
        steps = self._steps_at(epochs) + self.steps_of(samples)
        return Position(
            call.begin.epochs + epochs,
            call.begin.steps + steps,
            samples,
            (loss, right, weight),
            float(call.rates[steps]),
        )

    @property
    def learning_rates(self) -> list[float]:
        """The rate of the last step of each epoch that the last call has finished."""
        ends = [self._steps_at(epochs + 1) for epochs in range(self.epochs_done)]
        rates: list[float] = self._call.rates[ends].tolist()
        return rates

    def _steps_at(self, epochs: int) -> int:
        """Steps of the last call before it has finished so many epochs and after that."""
        return epochs * self.steps_per_epoch - self.steps_of(self.begin.samples)

    def steps_of(self, samples: int) -> int:
        """Steps in which the first samples of an epoch are taken."""
        return -(-samples // self.step_rows)

    @property
    def diverged(self) -> bool:
        """Whether a loss that was not finite ended the call."""
        return bool(self._call.team[kernel_team.DIVERGED])

    @property
    def history(self) -> Floats:
        """The finished epochs of the last call, in the columns of `kernels.program`."""
        return self._call.history[: self.epochs_done]

    @property
    def gradient(self) -> Array:
        """The gradient that a procedure without optimizer leaves, in the layout of `theta`."""
        flat = aligned_zeros(self._net.layout.length, self._net.dtype)
        self._net.layout.unpack(self._parameters.gradient[: len(flat)], flat)
        self._net.layout.gather(flat)
        return flat

    @property
    def samples_seen(self) -> int:
        """Samples of all epochs so far, those before `state` included."""
        position = self.position
        return position.epochs * len(self._samples.chosen) + position.samples

    @property
    def samples_shown(self) -> int:
        """Where a progress bar is, in the running epoch."""
        return self.samples_done

    @property
    def steps_done(self) -> int:
        """Steps of the running epoch that are finished."""
        return self.steps_of(self.samples_done)

    @property
    def current_inputs(self) -> Array:
        """What goes into the network in the step that did not finish."""
        rows = self._order[self.samples_done : self.samples_done + self.step_rows]
        inputs: Array = self._samples.x[rows]
        return inputs

    def step_after(self, epochs: int) -> int:
        """The number of the first step when so many epochs more are finished."""
        position = self.position
        return position.steps - self.steps_of(position.samples) + epochs * self.steps_per_epoch

    def feed(self, samples: Batch, step_rows: int) -> None:
        """Take other samples from now on, and `step_rows` of them in a step, at most as before."""
        self._samples, self._order, self.step_rows = samples.as_samples(), samples.chosen, step_rows

    def begin_at(self, position: Position) -> None:
        """Have the next call begin somewhere else."""
        self._call = self._make_call(position, 0, NO_STEP)

    def train(
        self,
        epochs: int,
        rates: Rates,
        *,
        pause: int = 0,
        watch: Callable[[], None] | None = None,
        here: bool = False,
    ) -> bool:
        """Train in a team of threads, calling `watch` meanwhile; False if Ctrl-C ended it early.

        A single thread may train `here`, in the caller's: that spares the start of one, and Ctrl-C
        waits for the end.

        To the end of some epochs, of which the running one is the first, or to `pause` steps of
        the last of them. `rates` gives the learning rates of steps. Whatever ends it, the
        parameters are those after the last whole step, and so are running statistics: batch norm
        moves them in every pass, so a step that has begun is finished there.
        """
        begin, has_drawn = self.position, self._call.has_drawn
        end = self.step_after(epochs - 1) + pause if pause else self.step_after(epochs)
        values = rates(np.arange(begin.steps, end))
        samples = min(pause * self.step_rows, len(self._samples.chosen))
        self._call = self._make_call(begin, epochs, values, samples, has_drawn)
        if here and self._threads == 1:
            self._member(0)
            return True
        stop = kernel_team.PAUSE if self._has_batch_norm else kernel_team.STOP
        return Team(self._member, self._threads, self._call.team, stop).run(watch)

    def draw(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows in the order in which an epoch takes them, if it shuffles them."""
        end = len(self._samples.chosen)
        self._call = self._make_call(Position(epoch, samples=end), 1, NO_STEP, pause=end)
        self._member(0)  # it draws the order, and no step is left to do
        return self._order

    def pause(self) -> None:
        """Have the call end after the step that is running: a watcher may say so."""
        self._call.team[kernel_team.PAUSE] = 1

    def vectors(self) -> dict[str, Array]:
        """Copies of what a `TrainingState` keeps, in the layout of `theta` and of `running`."""
        layout, parameters = self._net.layout, self._parameters
        copies = {"running": self._running.copy()}
        for name in ("theta", "first", "second", "average"):
            packed = getattr(parameters, name)
            copies[name] = aligned_zeros(len(packed), packed.dtype)
            if len(packed):
                layout.unpack(packed, copies[name])
        return copies

    def take_parameters(self) -> None:
        """Begin the next call with the parameters that the network has now."""
        layout, theta = self._net.layout, self._net.theta
        layout.spread(theta)
        self._parameters.theta[...] = layout.pack(theta)

    def scale_velocity(self, factor: float) -> None:
        """Multiply the first moments, between two calls."""
        self._parameters.first[...] *= factor

    def write_back(self) -> bool:
        """Copy the parameters to the network if they are finite; say whether they are.

        Running statistics too, unless they have seen a step that was not finished.
        """
        parameters = self._parameters
        trained = parameters.average if len(parameters.average) else parameters.theta
        if not np.isfinite(trained).all():
            return False
        self._net.layout.unpack(trained, self._net.theta)
        if not self.diverged:
            self._net.running[...] = self._running
        return True

    def spoilt_layer(self) -> int | None:
        """The first layer, from 1, with a parameter that is not finite."""
        theta = self._parameters.theta
        for tensor in self._net.layout.tensors:
            if not np.isfinite(theta[tensor.offset : tensor.offset + tensor.length]).all():
                return tensor.layer
        return None

    def differentiate(self, here: bool = False) -> tuple[float, Array]:
        """Mean loss over the samples without penalty, and its gradient; `here` as of `train`.

        A loss that is not finite is infinite, and the gradient NaN.
        """
        self._call = self._make_call(Position(), 1, ONE_STEP)
        self._go(len(self._samples.chosen), here)
        if self.diverged:
            return math.inf, np.full_like(self._net.theta, np.nan)
        return float(self._call.history[0, program.LOSS]), self.gradient

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and accuracy over the others, whose outputs are filled in."""
        self._call = self._make_call(Position(), 0, NO_STEP)
        self._go(len(self._others.chosen))
        row = self._call.history[0]
        return float(row[program.VALIDATION_LOSS]), float(row[program.VALIDATION_ACCURACY])

    @property
    def scores(self) -> Floats:
        """Loss, right answers and weight [passes, 3] of the passes of the last evaluation."""
        return self._parts

    @property
    def weight(self) -> float:
        """Sum of the weights of the samples that `differentiate` took."""
        return float(self._call.history[0, program.WEIGHT])

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

    def _go(self, samples: int, here: bool = False) -> None:
        """Run to the end: in a team, but here if that is asked for or one pass is all there is."""
        if (here or samples <= machine.MICRO_BATCH) and self._threads == 1:
            self._member(0)
        elif not Team(self._member, self._threads, self._call.team).run():
            raise KeyboardInterrupt

    def _member(self, thread: int) -> None:
        work, alone_work = self.workspaces[thread]
        call = self._call
        self._run(
            call.job,
            self._objective,
            self.team.plan,
            work,
            self._parameters,
            self._hyper,
            call.schedule,
            self._samples,
            self._order,
            self.alone.plan,
            alone_work,
            self._others,
            self._outputs,
            self._parts,
            call.history,
            call.team,
        )

    def _make_call(
        self,
        begin: Position,
        epochs: int,
        rates: Floats,
        pause: int = 0,
        has_drawn: bool = False,
    ) -> _Call:
        """What the program is to do next, and arrays for what it says about it."""
        procedure = self._procedure
        team = np.zeros(kernel_team.LENGTH, np.int64)
        history = np.zeros((max(epochs, 1), program.HISTORY))
        team[kernel_team.SAMPLES] = begin.samples
        history[0, SUMS] = begin.sums
        job = Job(
            threads=self._threads,
            optimizer=procedure.optimizer.code if procedure.optimizer else KEEP,
            epochs=epochs,
            batch_size=self.step_rows,
            shuffled=int(procedure.shuffled),
            seed=procedure.seed,
            clip=procedure.clip,
            limit=float(procedure.limit),
            first_epoch=begin.epochs,
            first_step=begin.steps,
            begin=begin.samples,
            drawn=int(has_drawn),
            pause=pause,
        )
        optimizer = procedure.optimizer or Optimizer()
        schedule = optimizer.coefficients(begin.steps, rates)
        rates = np.concatenate([[begin.learning_rate], rates])
        return _Call(begin, job, rates, schedule, history, team)

    def _make_parameters(self, state: TrainingState) -> Parameters:
        """The vectors that the kernels change: packed copies, or for a prediction none."""
        net, procedure = self._net, self._procedure
        empty = aligned_zeros(0, net.dtype)
        if not self._is_training:
            return Parameters(net.theta, empty, empty, empty, empty)
        optimizer, groups = procedure.optimizer, self.team.plan.groups
        if optimizer and self._passes == 1 and procedure.clip == clip.NONE:
            groups = 0  # the gradient becomes the update at once
        gradient = aligned_zeros(groups * net.layout.length, net.dtype)
        vectors = (state.theta, state.first, state.second, state.average)
        theta, *others = (net.layout.pack(v) if len(v) else empty for v in vectors)
        return Parameters(theta, gradient, *others)

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
            self._running,
            np.zeros(plan.rows, np.int64),
            own_scores,
            sums,
            norms,
            *feature_lists(self._net.layout, plan.rows, self._is_training),
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
            self._running,
            np.zeros(rows, np.int64),
            np.zeros((3, rows)),
            np.zeros((0, 3)),
            np.zeros(0),
            *feature_lists(self._net.layout, rows, self._is_evaluating),
        )
