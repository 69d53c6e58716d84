"""Why the kernels have a team of their own: what it costs two threads to meet."""

import threading

import numpy as np
from numba import njit, prange, set_num_threads

from fastmlp.kernels.team import LENGTH

from .common import need_cores
from .inner_kernels import meet

THREADS = 2
TIMES = 1_000


@njit(parallel=True)
def prange_regions(counts, times):
    for _ in range(times):
        for t in prange(counts.shape[0]):
            counts[t] += 1


def team_barriers(times):
    """Start the team, which `fit` does once, and cross its barrier."""
    team = np.zeros(LENGTH, np.int64)
    members = [threading.Thread(target=meet, args=(team, THREADS, times)) for _ in range(THREADS)]
    for member in members:
        member.start()
    for member in members:
        member.join()


class Synchronization:
    """A thousand crossings of the team's barrier, or regions of Numba's prange."""

    params = ("team barrier", "prange region")
    param_names = ("kind",)

    def setup(self, kind):
        need_cores(THREADS)
        if kind == "prange region":
            set_num_threads(THREADS)
            counts = np.zeros(THREADS, np.int64)
            self.run = lambda times: prange_regions(counts, times)
        else:
            self.run = team_barriers
        self.run(1)

    def time_1000(self, kind):
        self.run(TIMES)
