"""The exchange between hosts: several at once, polled at any moment, give the bits of one after the other."""

from itertools import pairwise
from time import monotonic, sleep

import numpy as np
import pytest

from lepton_mpi.collectives.between_hosts.lanes import LaneExchange
from lepton_mpi.collectives.messages.threads import ThreadWorld, run_ranks
from lepton_mpi.collectives.summation_tree import whole_nodes

COUNT = 1009
# Micro-batches and where the runs of the hosts end: one node a host, several, and none on one of them.
RUNS = {
    "two hosts": [0, 4, 8],
    "three hosts": [0, 1, 2, 3],
    "several nodes": [0, 3, 8],
    "a host without any": [0, 0, 2, 4],
    "one of four": [0, 0, 0, 0, 1],
}
runs = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())


def _nodes(run: list[int]) -> list[list[int]]:
    """First leaf of each node, by host."""
    return [[first for first, _ in whole_nodes(*ends, run[-1])] for ends in pairwise(run)]


def _values(host: int, nodes: int, bucket: int, round_: int) -> np.ndarray:
    generator = np.random.default_rng([host, bucket, round_])
    return generator.standard_normal((max(1, nodes), COUNT)).astype(np.float32)


@runs
@pytest.mark.parametrize("rendezvous", [False, True])
def test_exchanges_in_the_background_have_the_bits_of_those_in_turn(run, rendezvous):
    """Three buckets on their way at once, each with tags of its own, twice, polled by ranks at random moments."""
    node_starts, buckets = _nodes(run), [(700, COUNT), (5, 700), (0, 5)]
    hosts = len(node_starts)
    kinds = [ThreadWorld(hosts, rendezvous=rendezvous) for _ in range(2 * len(buckets))]

    def rank(transport):
        me, random = transport.rank, np.random.default_rng(transport.rank)
        ways = {}
        for way in ("in turn", "at once"):
            rows = [_values(me, len(node_starts[me]), bucket, 0) for bucket in range(len(buckets))]
            exchanges = []
            for bucket, (start, stop) in enumerate(buckets):
                parts, sums = (kinds[2 * bucket + kind].transport(me) for kind in (0, 1))
                held = list(rows[bucket][: len(node_starts[me])])
                exchanges.append(
                    LaneExchange(
                        parts,
                        *(held, rows[bucket][0], node_starts, start, stop),
                        segment_bytes=256,
                        sum_transport=sums,
                    )
                )
            results = []
            for round_ in range(2):
                for bucket, row in enumerate(rows):
                    row[:] = _values(me, len(node_starts[me]), bucket, round_)
                if way == "in turn":
                    for exchange in exchanges:
                        exchange.run()
                else:
                    _run_at_once(exchanges, random)
                results += [row[0].copy() for row in rows]
            ways[way] = results
        return ways

    for ways in run_ranks(ThreadWorld(hosts), rank):
        for one, other in zip(ways["in turn"], ways["at once"], strict=True):
            np.testing.assert_array_equal(one, other)


def _run_at_once(exchanges: list[LaneExchange], random: np.random.Generator) -> None:
    for exchange in exchanges:
        exchange.start_receiving()
    started: list[LaneExchange] = []
    waiting, limit = list(exchanges), monotonic() + 20
    while waiting or not all([exchange.poll() for exchange in started]):
        if waiting and random.random() < 0.3:
            started.append(waiting.pop(0))
            started[-1].start_sending()
        assert monotonic() < limit, "the exchanges do not come to their end"
        sleep(0)
