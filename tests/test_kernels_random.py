"""Philox against its published answers; shuffles are fair and depend on seed and epoch alone."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastmlp.kernels import reference
from fastmlp.kernels import team as kernel_team
from fastmlp.kernels._jit import kernel
from fastmlp.kernels.random import POLL, below, philox, shuffle

# "known answer tests" of Random123, philox4x32-10: counter, key, result
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]

words = st.integers(0, 2**32 - 1)
numbers = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    assert reference.philox(*counter, *key) == tuple(expected)
    result = philox(*(np.uint64(word) for word in (*counter, *key)))
    assert [int(word) for word in result] == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(words, min_size=6, max_size=6))
def test_philox_is_its_reference(arguments: list[int]) -> None:
    result = philox(*(np.uint64(word) for word in arguments))
    assert tuple(int(word) for word in result) == reference.philox(*arguments)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2**32 - 1), numbers, numbers, numbers)
def test_below_is_its_reference(limit: int, seed: int, stream: int, index: int) -> None:
    result = below(limit, seed, stream, index)
    assert 0 <= result < limit
    assert result == reference.below(limit, seed, stream, index)


def shuffled(chosen: NDArray[np.int64], seed: int = 0, epoch: int = 0) -> NDArray[np.int64]:
    order = np.full_like(chosen, -1)
    shuffle(order, chosen, seed, epoch, np.zeros(kernel_team.LENGTH, np.int64), kernel_team.STOP)
    return order


@settings(max_examples=50, deadline=None)
@given(n=st.integers(0, 100), seed=numbers, epoch=st.integers(0, 2**31))
def test_shuffle_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    chosen = np.arange(n) * 3 + 5
    order = shuffled(chosen, seed, epoch)
    np.testing.assert_array_equal(np.sort(order), chosen)
    expected = np.empty_like(order)
    reference.shuffle(expected, chosen, seed, epoch)
    np.testing.assert_array_equal(order, expected)


def test_shuffle_depends_on_seed_and_epoch() -> None:
    chosen = np.arange(50)
    settings = [(0, 0), (1, 0), (0, 1), (1, 1), (2**32, 0), (0, 2**32), (2**63 - 1, 0)]
    orders = {tuple(shuffled(chosen, *pair)) for pair in settings}
    assert len(orders) == len(settings)
    np.testing.assert_array_equal(shuffled(chosen, 1, 2), shuffled(chosen, 1, 2))


@kernel
def count_permutations(counts, chosen, order, seed, epochs, team, stop):
    """Count how often each order comes up, an order of n being read as a number with base n."""
    n = chosen.shape[0]
    for epoch in range(epochs):
        shuffle(order, chosen, seed, epoch, team, stop)
        number = 0
        for i in range(n):
            number = number * n + order[i]
        counts[number] += 1


def test_all_permutations_are_equally_likely() -> None:
    """Pearson's chi-squared of 24 orders is 23 on average, above 49.7 once in a thousand seeds."""
    counts, n, epochs = np.zeros(4**4, np.int64), 4, 2400
    team = np.zeros(kernel_team.LENGTH, np.int64)
    count_permutations(counts, np.arange(n), np.arange(n), 7, epochs, team, kernel_team.STOP)
    possible = [int("".join(map(str, p)), n) for p in permutations(range(n))]
    assert counts.sum() == counts[possible].sum() == epochs
    expected = epochs / len(possible)
    assert ((counts[possible] - expected) ** 2 / expected).sum() < 49.7


@pytest.mark.jit
def test_shuffle_stops_when_told() -> None:
    """Only now and then does it look, so the last draws are done before."""
    team = np.zeros(kernel_team.LENGTH, np.int64)
    team[kernel_team.STOP] = 1
    chosen = np.arange(2 * POLL)
    order = np.empty_like(chosen)
    shuffle(order, chosen, 0, 0, team, kernel_team.STOP)
    np.testing.assert_array_equal(np.sort(order), chosen)
    assert (order[:1000] == chosen[:1000]).sum() > 400
    assert (order[-1000:] == chosen[-1000:]).sum() < 10
