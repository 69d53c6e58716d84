"""How many threads an estimator uses, beside other workers of joblib."""

import os

import joblib
from joblib.parallel import get_active_backend

from ..mlp import MLP
from ..threads import VARIABLE, resolve

__all__ = ["is_short", "threads_of"]

# Samples times parameters of an epoch that is too short for a team: it would take about as long to
# start the threads (about 1 ms of one core at 10 G multiplications a second).
SHORT_EPOCH = 2**22


def is_short(net: MLP, samples: int) -> bool:
    """Whether one thread does an epoch before others would have begun."""
    return samples * net.n_parameters < SHORT_EPOCH


def threads_of(n_jobs: int | None) -> int:
    """Return the number of threads that `n_jobs` stands for.

    A number above 0 is taken as it is; below 0, all cores but -1 - n_jobs. None: what
    `fastmlp.threads.resolve` says, but in a worker of joblib that share of the cores which joblib
    gives to each for OpenMP (loky sets OMP_NUM_THREADS in its processes), else 1: so workers that
    train at the same time do not use more threads than there are cores.
    """
    if n_jobs is not None:
        return resolve(n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs))
    backend, _ = get_active_backend()
    if not getattr(backend, "nesting_level", 0) or VARIABLE in os.environ:
        return resolve()
    given = os.environ.get("OMP_NUM_THREADS", "")
    return resolve(max(1, int(given)) if given.isdecimal() else 1)
