"""The training loop: it checks, allocates, starts the team and reports; the kernels do the rest."""

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import kernels
from ._checks import check_whole
from ._execution import Batch, Execution
from .history import History
from .kernels.program import Job
from .mlp import MLP
from .optimizers import Adam, Optimizer, moment_vectors
from .progress import Progress
from .threads import POLL_SECONDS, resolve

__all__ = ["fit"]

Validation = float | tuple[ArrayLike, ArrayLike] | None


def fit(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    *,
    optimizer: Optimizer | None = None,
    batch_size: int | None = 32,
    epochs: int = 10,
    shuffle: bool = True,
    validation: Validation = None,
    progress: bool = False,
    threads: int | None = None,
    seed: int | None = None,
) -> History:
    """Train the network in place and return what happened, epoch by epoch.

    A step is theta <- optimizer(theta, gradient of the mean loss over a batch). The result depends
    on the arguments alone, bit for bit, not on the number of threads.

    Parameters
    ----------
    net
        The network; its parameters change.
    X
        Inputs [n, layer_sizes[0]].
    y
        Labels 0 to K-1 [n] for a classifier, else targets [n, O].
    optimizer
        `SGD` or `Adam`; None: `Adam()`.
    batch_size
        Samples in a step; 1 for stochastic gradient descent, None for the full batch. The last
        batch of an epoch may be smaller.
    epochs
        Passes over the samples.
    shuffle
        Whether each epoch takes the samples in a new random order.
    validation
        Share of the samples in (0, 1) to set aside (by class for a classifier), or (X, y) of
        others: loss and accuracy on them are recorded after each epoch.
    progress
        Whether to show a progress bar on standard error.
    threads
        None: FASTMLP_NUM_THREADS, or all cores this process may use.
    seed
        Of the shuffles and of the split; None: the network's.

    Returns
    -------
    History
        Of the epochs that were finished. After Ctrl-C, which stops before the next step, that is
        the history so far; the network keeps what it has learnt.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; the network is as before then.
    """
    if not isinstance(net, MLP):
        raise TypeError(f"net must be an MLP, got {type(net).__name__}")
    optimizer = Adam() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an Optimizer like Adam(), got {optimizer!r}")
    hyperparameters = optimizer.hyperparameters(net.dtype)
    if not isinstance(shuffle, bool):
        raise TypeError(f"shuffle must be True or False, got {shuffle!r}")
    epochs = check_whole(epochs, "epochs", 1)
    seed = net.seed if seed is None else check_whole(seed, "seed", 0, 2**63)
    team_size = resolve(threads)
    train, held_out = _split(net, net._checked(X, y), validation, seed)
    size = len(train) if batch_size is None else check_whole(batch_size, "batch_size", 1)
    size = min(size, len(train))
    job = Job(
        net._loss_code, optimizer.code, epochs, size, int(shuffle and size < len(train)), seed
    )

    with Progress(
        progress,
        epochs=epochs,
        samples_per_epoch=len(train),
        classifier=net.is_classifier,
        validation=held_out is not None,
    ) as bar:
        try:
            compile_seconds = _compile(net, bar)
        except KeyboardInterrupt:
            return History(interrupted=True)
        execution = Execution(
            net.layout,
            net.activations,
            net.theta,
            job,
            hyperparameters=hyperparameters,
            moments=moment_vectors(optimizer, net.theta),
            samples=train,
            others=held_out,
            threads=team_size,
        )
        begin = time.perf_counter()

        def history(interrupted: bool = False) -> History:
            done, seconds = execution.epochs_done, time.perf_counter() - begin
            rows = execution.history[:done].T.tolist()
            loss, accuracy, val_loss, val_accuracy = rows if done else ([], [], [], [])
            seen = done * len(train) + execution.samples_done
            return History(
                loss=loss,
                accuracy=accuracy if net.is_classifier else [],
                val_loss=val_loss if held_out else [],
                val_accuracy=val_accuracy if held_out and net.is_classifier else [],
                seconds=seconds,
                compile_seconds=compile_seconds,
                samples_per_second=seen / seconds,
                interrupted=interrupted,
            )

        def watch() -> None:
            bar.update(execution.epochs_done, execution.samples_done, history())

        finished = execution.run(watch if progress else None)
        result = history(interrupted=not finished)
        if progress:
            bar.update(execution.epochs_done, execution.samples_done, result)
        return result


def _compile(net: MLP, bar: Progress) -> float:
    """Have the kernels ready, in a thread so that the bar moves; return the seconds it took."""
    if kernels.compiled(net.dtype):
        return 0.0
    cold = not kernels.is_warm(net.dtype)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            kernels.warmup(net.dtype)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    begin = time.perf_counter()
    thread = threading.Thread(target=work, name="fastmlp-compile", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        if cold:
            bar.compiling(f"compiling kernels ({net.dtype}): {time.perf_counter() - begin:.1f} s")
    if failures:
        raise failures[0]
    return time.perf_counter() - begin


def _split(net: MLP, batch: Batch, validation: Validation, seed: int) -> tuple[Batch, Batch | None]:
    """The samples to train on, and those to validate on if any."""
    if validation is None:
        return batch, None
    if isinstance(validation, tuple):
        if len(validation) != 2:
            raise ValueError(
                f"validation must be a share or a pair (X, y), got {len(validation)} arrays"
            )
        return batch, net._checked(*validation, "validation[0]", "validation[1]")
    if isinstance(validation, bool) or not isinstance(validation, (int, float, np.floating)):
        raise TypeError(f"validation must be a share or a pair (X, y), got {validation!r}")
    if not 0.0 < validation < 1.0:
        raise ValueError(f"validation must be a share in (0, 1), got {validation!r}")
    held_out = held_out_rows(batch, float(validation), seed)
    kept = np.setdiff1d(batch.chosen, held_out)
    if not len(held_out) or not len(kept):
        raise ValueError(
            f"validation={validation!r} of {len(batch)} samples leaves none to "
            f"{'train' if not len(kept) else 'validate'} on"
        )
    return replace(batch, chosen=kept), replace(batch, chosen=held_out)


def held_out_rows(batch: Batch, share: float, seed: int) -> NDArray[np.int64]:
    """Return sorted rows of a random share of the samples: of each class, if there are classes."""
    rng = np.random.Generator(np.random.Philox(seed))
    classes = batch.labels if len(batch.labels) else np.zeros(len(batch), np.int64)
    return random_share(rng, classes, share)


def random_share(
    rng: np.random.Generator, classes: NDArray[Any], share: float
) -> NDArray[np.int64]:
    """Return sorted rows of a random share of each class; `classes` [n] names each row's."""
    groups = [np.flatnonzero(classes == name) for name in np.unique(classes)]
    taken = [rng.permutation(group)[: round(share * len(group))] for group in groups]
    return np.sort(np.concatenate(taken))
