"""Who averages with whom: the graphs of gossip. Pure functions of worker count, worker, round and seed.

Each round has a matrix A of non-negative weights, of which worker i computes ``w_i = sum over j of A[i, j] w_j``. Columns
add up to 1 in all of them: no parameter is lost. Where rows do, too, the mean of all workers stays what it is; of
``random_push`` rows do not, and push-sum divides by what has arrived (``gossip.py``).
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np


class Round(NamedTuple):
    """What one worker does in a round.

    Attributes
    ----------
    targets : list of int
        Workers that it sends to.
    weights : dict of int to float
        Of each worker whose parameters it adds up, its own among them; ascending.
    """

    targets: list[int]
    weights: dict[int, float]


def ring(count: int, worker: int, number: int, seed: int) -> Round:
    """Both neighbours, in every round.

    >>> ring(5, 0, 0, 0)
    Round(targets=[1, 4], weights={0: 0.3333333333333333, 1: 0.3333333333333333, 4: 0.3333333333333333})
    """
    peers = sorted({(worker - 1) % count, (worker + 1) % count} - {worker})
    return Round(peers, _evenly([worker, *peers]))


def exponential(count: int, worker: int, number: int, seed: int) -> Round:
    """Sends to those 1, 2, 4, … further on, in every round (static exponential graph).

    >>> exponential(6, 0, 0, 0).targets, list(exponential(6, 0, 0, 0).weights)
    ([1, 2, 4], [0, 2, 4, 5])
    """
    distances = [1 << k for k in range((count - 1).bit_length())]
    targets = sorted({(worker + distance) % count for distance in distances})
    sources = {(worker - distance) % count for distance in distances}
    return Round(targets, _evenly([worker, *sources]))


def one_peer(count: int, worker: int, number: int, seed: int) -> Round:
    """Sends to one that is 1, 2, 4, … further on, in turn: after log2 of a power of two workers all have the mean of all.

    >>> [one_peer(4, 0, number, 0).targets for number in range(3)]
    [[1], [2], [1]]
    """
    distance = 1 << number % max(1, (count - 1).bit_length())
    return Round([(worker + distance) % count], _evenly([worker, (worker - distance) % count]))


def random(count: int, worker: int, number: int, seed: int) -> Round:
    """Pairs that are drawn anew in each round, the same on every rank; of an odd count one stays alone."""
    order = _drawn(count, number, seed).tolist()
    place = order.index(worker)
    if place == count - 1 and count % 2:
        return Round([], {worker: 1.0})
    peer = order[place ^ 1]
    return Round([peer], _evenly([worker, peer]))


def random_push(count: int, worker: int, number: int, seed: int) -> Round:
    """Each sends half of what it has to another that it draws; some get much, some nothing."""
    draws = np.random.Generator(np.random.Philox(key=seed, counter=[number, 1, 0, 0]))
    steps = draws.integers(1, count, count)
    targets = (np.arange(count) + steps) % count
    weights = {
        source: 0.5 for source in range(count) if source == worker or targets[source] == worker
    }
    return Round([int(targets[worker])], weights)


def complete(count: int, worker: int, number: int, seed: int) -> Round:
    """All: the mean, at the price of as many messages."""
    others = [other for other in range(count) if other != worker]
    return Round(others, _evenly(range(count)))


TOPOLOGIES: dict[str, Callable[[int, int, int, int], Round]] = {
    each.__name__: each for each in (ring, exponential, one_peer, random, random_push, complete)
}
# In which rows do not add up to 1.
PUSHING = ("random_push",)


def peers_of(topology: str, count: int, worker: int) -> tuple[list[int], list[int]]:
    """Whom a worker may send to in any round, and whom it may hear of; ascending.

    >>> peers_of("ring", 5, 0), peers_of("one_peer", 6, 0)
    (([1, 4], [1, 4]), ([1, 2, 4], [2, 4, 5]))
    """
    others = [other for other in range(count) if other != worker]
    if topology in ("random", "random_push"):
        return others, others
    # The others repeat themselves after as many rounds as ``one_peer`` has distances.
    rounds = [
        TOPOLOGIES[topology](count, worker, number, 0) for number in range(count.bit_length() + 1)
    ]
    targets = {target for each in rounds for target in each.targets}
    return sorted(targets), sorted({place for each in rounds for place in each.weights} - {worker})


def _evenly(workers: Iterable[int]) -> dict[int, float]:
    found = sorted(workers)
    return dict.fromkeys(found, 1 / len(found))


def _drawn(count: int, number: int, seed: int) -> np.ndarray:
    """Workers in an order drawn for the round."""
    draws = np.random.Generator(np.random.Philox(key=seed, counter=[number, 0, 0, 0]))
    return np.argsort(draws.random(count), kind="stable")
