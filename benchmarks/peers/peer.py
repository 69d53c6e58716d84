"""The interface of a peer, and how one finds its own best setting."""

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar

from work import Order

REPEATS = 5
C = TypeVar("C", bound=Hashable)


class Peer(Protocol):
    """One library, ready to train: made from the work, the data and the number of threads.

    `name` as in the table, `setting` in words, `same_network` false if it cannot train this one.
    """

    name: str
    setting: str
    same_network: bool

    def train(self, order: Order) -> float:
        """Train the epochs of one measurement; return the seconds they took.

        One epoch on the samples in this order, or steps on all samples, as the work says. What a
        library wants done once to data or order, like conversion to its own arrays, is not counted.
        """
        ...

    def loss(self) -> float:
        """Mean loss over all samples with the present weights."""
        ...


def fastest(candidates: Sequence[C], run: Callable[[C], object]) -> C:
    """Return the candidate of the shortest run, all taken in turn; the first runs do not count."""
    shortest: dict[C, float] = {}
    for repeat in range(1 + REPEATS):
        for candidate in candidates:
            begin = time.perf_counter()
            run(candidate)
            seconds = time.perf_counter() - begin
            if repeat > 0:
                shortest[candidate] = min(seconds, shortest.get(candidate, seconds))
    return min(shortest, key=shortest.__getitem__)
