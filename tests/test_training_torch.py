"""Whole trainings against PyTorch: a hundred steps of every optimizer, by `fit` and by a loop.

FASTMLP_TEST_CASES sets how many, see `torch_model`; a training takes far longer than a gradient, so
every tenth of them is made here. The samples keep their order, so that both see the same batches.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from networks import Case
from numpy.typing import NDArray

import fastmlp as fm
from fastmlp import losses, schedules

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
from torch_model import (  # noqa: E402
    CASES,
    TorchMLP,
    losses_of,
    mean_loss,
    undone_biases,
    weights_of,
    wide_case,
)

pytestmark = pytest.mark.jit  # some ten thousand steps

Array = NDArray[Any]
STEPS = 100
TOLERANCE = 1e-10
TINY = 1e-300  # the samples of a step may all have weight 0: then the penalty alone is left
lr_scheduler = torch.optim.lr_scheduler


@dataclass(frozen=True)
class Path:
    """What a training leaves: the values named in `state_of` after each epoch, and the history."""

    states: list[dict[str, Array]] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """A case, what to train it with, and PyTorch's optimizer and scheduler for the same.

    The scheduler moves after each batch, or after each epoch, then with the monitored loss if it is
    ReduceLROnPlateau.
    """

    case: Case
    held_out: Case
    optimizer: fm.Optimizer
    torch_optimizer: Callable[[list[Any]], Any]
    torch_scheduler: Callable[[Any], Any] | None = None
    batch_size: int = 16
    epochs: int = 25
    options: dict[str, Any] = field(default_factory=dict)  # of `fit`


OPTIMIZERS: dict[str, tuple[Callable[[Any], fm.Optimizer], Callable[..., Any]]] = {
    "sgd": (lambda rate: fm.SGD(rate), torch.optim.SGD),
    "momentum": (
        lambda rate: fm.SGD(rate, momentum=0.9),
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
    ),
    "nesterov": (
        lambda rate: fm.SGD(rate, momentum=0.8, nesterov=True),
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.8, nesterov=True),
    ),
    "adagrad": (
        lambda rate: fm.Adagrad(rate, epsilon=1e-6, initial_accumulator=0.01),
        lambda p, lr: torch.optim.Adagrad(p, lr, eps=1e-6, initial_accumulator_value=0.01),
    ),
    "rmsprop": (
        lambda rate: fm.RMSProp(rate, decay=0.95, epsilon=1e-4),
        lambda p, lr: torch.optim.RMSprop(p, lr, alpha=0.95, eps=1e-4),
    ),
    "adam": (
        lambda rate: fm.Adam(rate, epsilon=1e-4),
        lambda p, lr: torch.optim.Adam(p, lr, eps=1e-4),
    ),
    "adamw": (
        lambda rate: fm.AdamW(rate, beta1=0.8, epsilon=1e-4, weight_decay=0.1),
        lambda p, lr: torch.optim.AdamW(p, lr, (0.8, 0.999), 1e-4, 0.1),
    ),
    "nadam": (
        lambda rate: fm.NAdam(rate, beta2=0.99, epsilon=1e-4),
        lambda p, lr: torch.optim.NAdam(p, lr, (0.9, 0.99), 1e-4),
    ),
}
RATES = {"sgd": 0.01, "momentum": 0.002, "nesterov": 0.005, "adagrad": 0.01}


def coslog4(t: float) -> float:
    """The paper's schedule, at the share t of the training."""
    return 0.5 * (1.0 - math.cos(2.0 * math.pi * math.log2(1.0 + 15.0 * t)))


# our schedule for a rate and the steps of an epoch and of the training, and PyTorch's
SCHEDULES: dict[str, tuple[Callable[..., Any], Callable[..., Any] | None]] = {
    "constant": (lambda rate, per_epoch, total: rate, None),
    "step": (
        lambda rate, per_epoch, total: schedules.Step(rate, every=4, factor=0.5),
        lambda optimizer, total: lr_scheduler.StepLR(optimizer, 4, 0.5),
    ),
    "exponential": (
        lambda rate, per_epoch, total: schedules.Exponential(rate, 0.9),
        lambda optimizer, total: lr_scheduler.ExponentialLR(optimizer, 0.9),
    ),
    "cosine": (
        lambda rate, per_epoch, total: schedules.Cosine(rate, minimum=rate / 10),
        lambda optimizer, total: lr_scheduler.CosineAnnealingLR(
            optimizer, total, optimizer.param_groups[0]["lr"] / 10
        ),
    ),
    "one cycle": (
        lambda rate, per_epoch, total: schedules.OneCycle(rate),
        lambda optimizer, total: lr_scheduler.OneCycleLR(
            optimizer, optimizer.param_groups[0]["lr"], total, cycle_momentum=False
        ),
    ),
    "cosine log": (
        lambda rate, per_epoch, total: schedules.CosineLog(rate),
        lambda optimizer, total: lr_scheduler.LambdaLR(optimizer, lambda s: coslog4(s / total)),
    ),
    "warm-up": (
        lambda rate, per_epoch, total: schedules.WarmUp(rate, steps=30, start=0.2),
        lambda optimizer, total: lr_scheduler.LinearLR(optimizer, 0.2, total_iters=30),
    ),
    "warm-up, then cosine": (
        lambda rate, per_epoch, total: schedules.WarmUp(schedules.Cosine(rate), 10, start=0.5),
        lambda optimizer, total: lr_scheduler.ChainedScheduler(
            [
                lr_scheduler.LinearLR(optimizer, 0.5, total_iters=10),
                lr_scheduler.CosineAnnealingLR(optimizer, total),
            ]
        ),
    ),
    "plateau": (
        lambda rate, per_epoch, total: schedules.ReduceOnPlateau(
            rate, factor=0.3, patience=1, min_delta=0.2, minimum=rate / 20
        ),
        lambda optimizer, total: lr_scheduler.ReduceLROnPlateau(
            optimizer,
            factor=0.3,
            patience=1,
            threshold=0.2,
            threshold_mode="abs",
            min_lr=optimizer.param_groups[0]["lr"] / 20,
            eps=0.0,
        ),
    ),
}
# what they make of a group's rate is in proportion to it
PROPORTIONAL = ["constant", "step", "exponential", "cosine log", "warm-up", "warm-up, then cosine"]
BY_EPOCH = (lr_scheduler.StepLR, lr_scheduler.ExponentialLR, lr_scheduler.ReduceLROnPlateau)
CLIPS = [{}, {"clip_value": 0.02}, {"clip_norm": 0.1}, {"clip_global_norm": 0.3}]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """PyTorch keeps NAdam's product of momenta in its default dtype, whatever the parameters'."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def training_of(
    case: Case,
    held_out: Case,
    optimizer: str,
    schedule: str = "constant",
    *,
    batch_size: int = 16,
    **options: Any,
) -> Training:
    """A training of about a hundred steps, the last batch of an epoch smaller than the others."""
    per_epoch = -(-len(case.X) // (batch_size * options.get("accumulate", 1)))
    epochs = -(-STEPS // per_epoch)
    make, torch_make = OPTIMIZERS[optimizer]
    make_schedule, torch_schedule = SCHEDULES[schedule]
    rate = RATES.get(optimizer, 0.002)
    total = per_epoch * epochs
    return Training(
        case,
        held_out,
        make(make_schedule(rate, per_epoch, total)),
        lambda parameters: torch_make([{"params": [p]} for p in parameters], lr=rate),
        torch_schedule and (lambda optimizer: torch_schedule(optimizer, total)),
        batch_size,
        epochs,
        options,
    )


def our_path(training: Training, threads: int = 1) -> Path:
    net, path = training.case.net.clone(), Path()

    def record(net: fm.MLP) -> None:
        path.states.append(
            {tensor.name: tensor.view(net.theta).copy() for tensor in net.layout.tensors}
            | {tensor.name: tensor.view(net.running).copy() for tensor in net.layout.running}
        )

    held_out = training.held_out
    history = fm.fit(
        net,
        **training.case.samples,
        optimizer=training.optimizer,
        batch_size=training.batch_size,
        epochs=training.epochs,
        shuffle=False,
        validation=(held_out.X, held_out.y),
        checkpoint_every=training.case.checkpoint_every,
        callbacks=[lambda training: record(training.net)],
        threads=threads,
        **training.options,
    )
    record(net)  # where it ends: after early stopping not in the last epoch
    path.loss.extend(history.loss)
    path.val_loss.extend(history.val_loss)
    return path


def factor_of(name: str, options: dict[str, Any]) -> float:
    """The factor on the learning rate of the tensor of that name."""
    *layer, kind = name.split(".")
    factor = options.get("learning_rate_factors", {}).get(kind, 1.0)
    return factor[int(layer[1])] if isinstance(factor, list) else factor


def random_factors(rng: np.random.Generator, net: fm.MLP) -> dict[str, Any]:
    """Of each kind that the network has, one factor or one for each layer, or none."""
    factors: dict[str, Any] = {}
    for kind in dict.fromkeys(tensor.kind for tensor in net.layout.tensors):
        layers = len(net.weights) - (kind not in ("weight", "bias"))
        drawn = rng.choice([0.0, 0.1, 0.5, 2.0], 1 if kind == "input_scale" else layers).tolist()
        if rng.random() < 2 / 3:
            factors[kind] = drawn[0] if kind == "input_scale" or rng.random() < 0.5 else drawn
    return factors


def clip(parameters: list[Any], clip_value: float, clip_norm: float, clip_global: float) -> None:
    """Bound the gradients; PyTorch's own clip_grad_norm_ would divide by norm + 1e-6."""
    if clip_value:
        torch.nn.utils.clip_grad_value_(parameters, clip_value)
    groups = [[p] for p in parameters] if clip_norm else [parameters]
    limit = clip_norm or clip_global
    for group in groups:
        norm = torch.nn.utils.get_total_norm([p.grad for p in group])
        if limit and norm > limit:
            for p in group:
                p.grad.mul_(limit / norm)


def their_path(training: Training) -> Path:
    net, path, options = training.case.net, Path(), training.options
    model, averaged = TorchMLP(net), TorchMLP(net)
    averaged.running = model.running
    parameters = list(model.parameters.values())
    optimizer = training.torch_optimizer(parameters)
    for name, group in zip(model.parameters, optimizer.param_groups, strict=True):
        group["lr"] *= factor_of(name, options)
    scheduler = training.torch_scheduler and training.torch_scheduler(optimizer)
    x, y = torch.tensor(training.case.X), torch.tensor(training.case.y)
    weight = training.case.sample_weight
    weights, shares = weights_of(net.loss, y, None if weight is None else torch.tensor(weight))
    others, answers = torch.tensor(training.held_out.X), torch.tensor(training.held_out.y)
    size = training.batch_size * options.get("accumulate", 1)
    stopping = options.get("early_stopping")
    step, best, best_epoch, waited = 0, np.inf, 0, 0
    for _ in range(training.epochs):
        total = 0.0
        for first in range(0, len(x), size):
            last = min(first + size, len(x))
            optimizer.zero_grad()
            model.penalty().backward()
            for low in range(first, last, training.batch_size):
                rows = slice(low, min(low + training.batch_size, last))
                z = model.outputs(x[rows], training=True, step=step, first_row=low - first)
                loss = (weights[rows] * losses_of(net.loss, z, y[rows])).sum()
                (loss / shares[first:last].sum().clamp(min=TINY)).backward()
                total += loss.item()
            for name in undone_biases(net):  # or Adam would make steps of the roundings
                model.parameters[name].grad.zero_()
            clip(
                parameters,
                *(options.get(f"clip_{k}", 0.0) for k in ("value", "norm", "global_norm")),
            )
            optimizer.step()
            step += 1
            if scheduler and not isinstance(scheduler, BY_EPOCH):
                scheduler.step()
            with torch.no_grad():
                for name, p in model.parameters.items():
                    averaged.parameters[name].lerp_(p, 1.0 - options.get("average", 0.0))
        with torch.no_grad():
            z = averaged.outputs(others, training=False)
            value = mean_loss(net.loss, z, answers).item()
        path.loss.append(total / shares.sum().item())
        path.val_loss.append(value)
        tensors = averaged.parameters | averaged.running
        path.states.append({name: p.detach().numpy().copy() for name, p in tensors.items()})
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(value)
        elif isinstance(scheduler, BY_EPOCH):
            scheduler.step()
        waited += 1
        if value < best:
            best, best_epoch, waited = value, len(path.loss) - 1, 0
        if stopping and waited >= stopping.patience:
            break
    path.states.append(path.states[best_epoch if stopping else -1])
    return path


def path_error(training: Training, threads: int = 1) -> float:
    """The largest difference after any epoch, of numbers above 1 relative to them."""
    ours, theirs = our_path(training, threads), their_path(training)
    assert len(ours.loss) == len(theirs.loss)

    def error(values: Any, exact: Any) -> float:
        return float(np.max(np.abs(np.subtract(values, exact)) / np.maximum(1.0, np.abs(exact))))

    errors = [error(ours.loss, theirs.loss), error(ours.val_loss, theirs.val_loss)]
    for mine, its in zip(ours.states, theirs.states, strict=True):
        assert mine.keys() == its.keys()
        errors += [error(mine[name], its[name]) for name in mine if mine[name].size]
    assert np.isfinite(errors).all()
    return max(errors)


def problem(seed: int) -> tuple[Case, Case]:
    """A small network and samples to train and to validate on."""
    case = wide_case(seed, widest=24, rows=(60, 80))
    while has_undone_shift(case.net):
        seed += 1_000_000
        case = wide_case(seed, widest=24, rows=(60, 80))
    held_out = Case(case.net, case.X[-20:] + 0.1, case.y[-20:], None, 1)
    return case, held_out


def has_undone_shift(net: fm.MLP) -> bool:
    """Whether a batch norm undoes the shift of a linear layer below it.

    The exact gradient is zero then, and optimizers that divide by its size make steps of rounding.
    """
    pairs = zip(net.activation, net.norm, net.norm[1:], strict=False)
    return any(
        f.name == "identity" and norm is not None and isinstance(above, fm.BatchNorm)
        for f, norm, above in pairs
    )


def random_training(seed: int) -> Training:
    """Optimizer, schedule, clipping, accumulation, averaging and early stopping at random."""
    rng = np.random.default_rng([seed, 1])
    options: dict[str, Any] = dict(CLIPS[rng.integers(len(CLIPS))])
    if rng.random() < 0.4:
        options["accumulate"] = int(rng.integers(2, 4))
    if rng.random() < 0.4:
        options["average"] = float(rng.uniform(0.3, 0.99))
    if rng.random() < 0.3:
        options["early_stopping"] = fm.EarlyStopping(patience=int(rng.integers(1, 4)))
    case, held_out = problem(seed)
    schedule = str(rng.choice(list(SCHEDULES)))
    if schedule in PROPORTIONAL:
        options["learning_rate_factors"] = random_factors(rng, case.net)
    return training_of(
        case,
        held_out,
        list(OPTIMIZERS)[seed % len(OPTIMIZERS)],
        schedule,
        batch_size=int(rng.integers(8, 25)),
        **options,
    )


@pytest.mark.parametrize("seed", range(CASES // 10))
def test_random_trainings(seed: int) -> None:
    assert path_error(random_training(seed), threads=2 if seed % 4 == 0 else 1) < TOLERANCE


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_with_every_schedule(optimizer: str, schedule: str) -> None:
    training = training_of(*problem(1), optimizer, schedule)
    assert path_error(training) < TOLERANCE


NORMED = fm.MLP(
    [6, 12, 9, 3], activation=["tanh", "gelu"], norm="batch", dropout=0.2, dtype="float64"
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "options",
    [
        {"clip_value": 0.02},
        {"clip_norm": 0.1},
        {"clip_global_norm": 0.2},
        {"accumulate": 2},
        {"average": 0.9},
        {"early_stopping": fm.EarlyStopping(patience=2)},
        {"learning_rate_factors": {"weight": [0.5, 2.0, 0.1], "bias": 3.0, "shift": [0.0, 2.0]}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_option_does_what_it_does_in_pytorch(options: dict[str, Any], optimizer: str) -> None:
    """And it does something: the training without it ends elsewhere."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 6))
    y = (X @ rng.normal(size=(6, 3))).argmax(1)
    case = Case(NORMED, X[:70], y[:70], None, 1)
    held_out = Case(NORMED, X[70:], (y[70:] + 1) % 3, None, 1)  # learning makes it worse
    training = training_of(case, held_out, optimizer, "constant", **options)
    assert path_error(training) < TOLERANCE
    without = replace(training, options={})
    ends = [our_path(t).states[-1]["layers.0.weight"] for t in (training, without)]
    assert not np.allclose(*ends, rtol=1e-4)


def test_plateaus_are_met() -> None:
    """The schedule that looks at the loss has something to see in its tests."""
    training = training_of(*problem(1), "sgd", "plateau")
    constant = training_of(*problem(1), "sgd")
    assert not np.allclose(our_path(training).val_loss, our_path(constant).val_loss, rtol=1e-4)


def test_random_trainings_cover_what_they_should() -> None:
    trainings = [random_training(seed) for seed in range(100)]
    assert {option for training in trainings for option in training.options} == {
        *("clip_value", "clip_norm", "clip_global_norm", "accumulate", "average", "early_stopping"),
        "learning_rate_factors",
    }
    nets = [training.case.net for training in trainings]
    assert {type(norm) for net in nets for norm in net.norm} == {
        *(type(None), fm.BatchNorm, fm.LayerNorm)
    }
    assert {net.loss.name for net in nets} == set(losses.NAMES)
    assert all(
        training.epochs * -(-len(training.case.X) // training.batch_size) >= STEPS
        for training in trainings
    )
