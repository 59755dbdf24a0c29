"""The exchange between hosts: several at once, polled at any moment, give the bits of one after the other."""

from itertools import pairwise
from time import monotonic, sleep

import numpy as np
import pytest

from lepton_mpi.collectives.between_hosts.lanes import LaneExchange
from lepton_mpi.collectives.messages.threads import ThreadWorld, run_ranks
from lepton_mpi.collectives.summation_tree import whole_nodes
from tests import extremes

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


@runs
@pytest.mark.parametrize("operation", ["max", "min"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_maximum_between_hosts_has_the_same_bits_everywhere(run, operation, dtype):
    """Of all nodes, with zeros of both signs and NaN; whichever of its operands the result overwrites."""
    node_starts = _nodes(run)
    nodes = sum(map(len, node_starts))
    parts = extremes.parts(nodes, dtype)
    count, places = parts[0].size, np.cumsum([0, *map(len, node_starts)])

    def rank(transport):
        me = transport.rank
        own = parts[places[me] : places[me + 1]]
        rows = np.array([*own, np.zeros(count, dtype)])
        held = list(rows[: len(own)])
        ends = node_starts, 0, count, operation
        LaneExchange(transport, held, rows[0], *ends, segment_bytes=64).run()
        return rows[0].tobytes()

    expected = extremes.expected(parts, operation) if nodes > 1 else parts[0]
    assert set(run_ranks(ThreadWorld(len(node_starts)), rank)) == {expected.tobytes()}


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
