"""Vectors that are sent without waiting, between threads as ranks: whole, in order, one at a time, and none is left on its way."""

import random
import time

import numpy as np
import pytest

from lepton_mpi.collectives.messages.threads import ThreadWorld, run_ranks
from lepton_mpi.collectives.messages.unawaited import UnawaitedExchange

_LENGTH, _OFFERS = 5, 40


@pytest.mark.parametrize("rendezvous", [False, True])
@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_what_arrives_is_whole_and_newer_whoever_is_slow(ranks, rendezvous, seed):
    """By random delays, twice: a second time after all have met. A sender that is not waited for skips what has no room."""
    worlds = [ThreadWorld(ranks, rendezvous=rendezvous) for _ in range(2)]
    counts = ThreadWorld(ranks)  # as the group's sum

    def rank(transport):
        me = transport.rank
        others = [other for other in range(ranks) if other != me]
        mine = [world.transport(me) for world in worlds]
        exchange = UnawaitedExchange(_LENGTH, np.dtype(np.float32), *mine, others, others)
        delays, found, offered = random.Random(f"{seed} {me}"), {other: [] for other in others}, 0
        for _ in range(2):
            for _ in range(_OFFERS):
                time.sleep(delays.choice((0, 0, 0.001)) * (3 if me == 0 else 1))
                offered += 1
                for other in others:
                    exchange.offer(other, np.full(_LENGTH, 100 * me + offered / 1000, np.float32))
                for source, vector in exchange.arrived():
                    assert (vector == vector[0]).all()
                    found[source].append(float(vector[0]))
            expected = _told(counts.transport(me), exchange.sent, others)
            exchange.finish(expected, lambda: None)
        assert all(0 < count <= 2 * _OFFERS for count in exchange.sent.values())
        return found, exchange.sent

    for me, (found, _) in enumerate(run_ranks(ThreadWorld(ranks), rank)):
        for source, values in found.items():
            assert values and values == sorted(set(values)), (me, source)
            assert all(100 * source < value < 100 * source + 1 for value in values)


def _told(transport, sent: dict[int, int], others: list[int]) -> dict[int, int]:
    """How many each of ``others`` has sent here."""
    told = {other: np.zeros(1, np.int64) for other in others}
    receives = [transport.receive_request(told[other], other) for other in others]
    sends = [transport.send_request(np.array([sent[other]]), other) for other in others]
    for request in [*receives, *sends]:
        request.Start()
    for request in [*receives, *sends]:
        request.Wait()
    return {other: int(count[0]) for other, count in told.items()}


def test_who_is_not_heard_of_is_offered_nothing_more():
    """One message is on its way until its receiver has taken it; then the next may leave."""
    worlds = [ThreadWorld(2), ThreadWorld(2)]
    made = [
        UnawaitedExchange(
            1, np.dtype(np.float64), *(world.transport(me) for world in worlds), [1 - me], [1 - me]
        )
        for me in range(2)
    ]
    one, other = made
    assert one.offer(1, np.array([1.0])) and not one.offer(1, np.array([2.0]))
    assert [(source, vector.tolist()) for source, vector in other.arrived()] == [(0, [1.0])]
    assert not list(other.arrived())
    assert one.offer(1, np.array([3.0])) and one.sent == {1: 2}
    assert [vector.tolist() for _, vector in other.arrived()] == [[3.0]]
    one.finish({1: 0}, lambda: None)
    other.finish({0: 2}, lambda: None)
    assert one.vector_count == 2
