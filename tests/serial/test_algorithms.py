"""Every algorithm of the package: what it promises, what it costs, and that the numbers come out right."""

import itertools
import threading
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.explaining.cost import (
    cost,
    elements_sent_max,
    lower_bound,
    predicted_seconds,
)
from lepton_mpi.collectives.explaining.trace import ScheduleError, Sum, trace
from lepton_mpi.collectives.messages.plan import MessagePlan
from lepton_mpi.collectives.messages.program import Do, compile_program
from lepton_mpi.collectives.messages.threads import ThreadWorld, run_ranks
from lepton_mpi.collectives.schedules.algorithms import ALGORITHMS, COLLECTIVES
from lepton_mpi.collectives.schedules.broadcast import rooted_at
from lepton_mpi.collectives.schedules.schedule import (
    SUMS,
    Action,
    Algorithm,
    Collective,
    Fold,
    Receive,
    Send,
    Step,
)
from lepton_mpi.collectives.schedules.two_level import two_level
from lepton_mpi.collectives.summation_tree import EagerSum, additions, whole_nodes
from tests.contributions import SEGMENT_ELEMENTS, lengths, numbered, numbered_sum, random
from tests.serial.asynchronous import Simulation

WORLD_SIZES = [*range(1, 18), 32]
PLACEMENTS = [
    (1,),
    (4,),
    (1, 2),
    (2, 1),
    (2, 2),
    (1, 1, 1),
    (3, 1, 2),
    (2, 3, 4),
    (4, 4),
    (1, 5),
    (2, 2, 2, 2),
]
CANONICAL = ["pairwise", "direct"]
CANONICAL_FOR_POWERS_OF_TWO = ["recursive_doubling", "rabenseifner"]

EVERY = [algorithm for algorithms in COLLECTIVES.values() for algorithm in algorithms.values()]
ALLREDUCE = [*ALGORITHMS.values()]


def _name(algorithm: Algorithm) -> str:
    return f"{algorithm.collective.value}-{algorithm.name}"


every_algorithm = pytest.mark.parametrize("algorithm", EVERY, ids=_name)
every_allreduce = pytest.mark.parametrize("algorithm", ALLREDUCE, ids=_name)
every_world_size = pytest.mark.parametrize("world_size", WORLD_SIZES)
few_ranks = pytest.mark.parametrize("world_size", range(1, 10))
both_ways_to_send = pytest.mark.parametrize(
    "rendezvous", [False, True], ids=["eager", "rendezvous"]
)


# What the schedules promise


@pytest.mark.slow(but_every=4)
@every_world_size
@every_algorithm
def test_every_promise_is_kept(algorithm, world_size):
    """Sends meet receives, no chunk is used twice in a step, and the end is what the collective is for."""
    trace(algorithm, world_size)


@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
def test_two_level_keeps_its_promises_on_any_hosts(placement):
    """Hosts with equal and with different numbers of ranks, and single hosts."""
    trace(two_level(placement), sum(placement))


@pytest.mark.parametrize("root", range(7))
@pytest.mark.parametrize("algorithm", COLLECTIVES[Collective.BROADCAST].values(), ids=_name)
def test_a_broadcast_can_start_anywhere(algorithm, root):
    """Seen from the root, a moved broadcast does what the one from rank 0 does."""
    moved = rooted_at(root, algorithm)
    for rank in range(7):
        expected = algorithm.steps(7, (rank - root) % 7)
        for step, original in zip(moved.steps(7, rank), expected, strict=True):
            assert [s.dest for s in step.sends] == [(s.dest + root) % 7 for s in original.sends]
            assert [r.source for r in step.receives] == [
                (r.source + root) % 7 for r in original.receives
            ]


def _without_last_step(steps):
    return steps[:-1]


def _other_action(steps):
    other = {Action.ADD: Action.COPY, Action.COPY: Action.ADD, Action.HOLD: Action.COPY}
    return [
        replace(s, receives=tuple(replace(r, action=other[r.action]) for r in s.receives))
        for s in steps
    ]


def _first_step_twice(steps):
    return steps[:1] + steps


def _no_folds(steps):
    return [replace(step, folds=()) for step in steps]


def _first_receive_forgotten(steps):
    return [replace(steps[0], receives=()), *steps[1:]]


def _breaks(algorithm: Algorithm) -> list:
    """What is certain to be wrong: a barrier may repeat and copy, and copying twice is only useless."""
    if algorithm.collective is Collective.BARRIER:
        return [_without_last_step, _first_receive_forgotten]
    if algorithm.collective not in SUMS:
        return [_without_last_step, _first_receive_forgotten, _other_action]
    folds = [_no_folds] if any(step.folds for step in algorithm.steps(5, 0)) else []
    return [_without_last_step, _first_receive_forgotten, _other_action, _first_step_twice, *folds]


BROKEN = [(algorithm, broken) for algorithm in EVERY for broken in _breaks(algorithm)]


@pytest.mark.parametrize(
    "algorithm, broken",
    BROKEN,
    ids=[_name(algorithm) + broken.__name__ for algorithm, broken in BROKEN],
)
def test_a_broken_schedule_is_found(algorithm, broken):
    """The checks above can fail, for every algorithm."""
    mutant = replace(algorithm, steps=lambda size, rank: broken(algorithm.steps(size, rank)))
    with pytest.raises(ScheduleError, match=algorithm.name):
        trace(mutant, 5)


def _two_ranks(*steps: tuple[Step, Step]) -> Algorithm:
    return Algorithm("wrong", lambda size: 2, lambda size, rank: [step[rank] for step in steps])


_WRONG = {
    "rank 0 has no peer 2": _two_ranks((Step((Send(2, 0, 1),)), Step())),
    "no chunks in": _two_ranks((Step((Send(1, 1, 3),)), Step((), (Receive(0, 1, 3, Action.ADD),)))),
    "which expects": _two_ranks(
        (Step((Send(1, 0, 1),)), Step((), (Receive(0, 1, 2, Action.ADD),)))
    ),
    "which it also sends": _two_ranks(
        (
            Step((Send(1, 0, 1),), (Receive(1, 0, 1, Action.COPY),)),
            Step((Send(0, 0, 1),), (Receive(0, 0, 1, Action.ADD),)),
        )
    ),
    "otherwise": _two_ranks(
        (
            Step((Send(1, 0, 2),), (Receive(1, 0, 1, Action.ADD),)),
            Step((Send(0, 0, 1),), (Receive(0, 0, 2, Action.ADD),)),
        )
    ),
    "were held and never folded": _two_ranks(
        (Step((Send(1, 0, 2),)), Step((), (Receive(0, 0, 2, Action.HOLD, 0),)))
    ),
    "folds leaves": _two_ranks(
        (
            Step((Send(1, 0, 2),)),
            Step((), (Receive(0, 0, 2, Action.HOLD, 0),), (Fold(0, 2, 1, range(3)),)),
        )
    ),
}


@pytest.mark.parametrize("message", _WRONG)
def test_every_kind_of_mistake_is_named(message):
    """Each promise has its own words for being broken."""
    with pytest.raises(ScheduleError, match=message):
        trace(_WRONG[message], 2)


def test_a_barrier_that_forgets_a_step_lets_a_rank_go_too_early():
    """What counts in a barrier is who was heard of, not what was added."""
    barrier = COLLECTIVES[Collective.BARRIER]["dissemination"]
    short = replace(barrier, steps=lambda size, rank: barrier.steps(size, rank)[1:])
    with pytest.raises(ScheduleError, match="may end before"):
        trace(short, 4)


# The order of additions


def _canonical(start: int, width: int, leaf_count: int) -> Sum:
    """The node that begins at ``start`` and is ``width`` wide, straight from the definition of the tree."""
    half = width // 2
    if half == 0:
        return Sum((start,))
    left = _canonical(start, half, leaf_count)
    return left if start + half >= leaf_count else left + _canonical(start + half, half, leaf_count)


def _orders(algorithm: Algorithm, world_size: int) -> set:
    chunks = trace(algorithm, world_size).steps[-1].values[0]
    return set(chunks)


@every_world_size
@pytest.mark.parametrize("name", CANONICAL)
def test_the_canonical_algorithms_add_in_the_tree_over_ranks(name, world_size):
    """Whatever p is, the order is that of the summation tree."""
    assert _orders(ALGORITHMS[name], world_size) == {_canonical(0, 64, world_size)}


@pytest.mark.parametrize("world_size", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("name", CANONICAL_FOR_POWERS_OF_TWO)
def test_halving_and_doubling_are_canonical_for_powers_of_two(name, world_size):
    """Neighbours first, then pairs of neighbours: that is the tree."""
    assert _orders(ALGORITHMS[name], world_size) == {_canonical(0, 64, world_size)}


@pytest.mark.parametrize(
    "placement", [(4,), (1, 1, 1), (2, 2), (2, 2, 2), (4, 4), (4, 1), (8, 8, 8)], ids=str
)
def test_two_level_is_canonical_if_every_host_is_a_node(placement):
    """Hosts whose ranks are one node of the tree each do not change the order."""
    assert _orders(two_level(placement), sum(placement)) == {_canonical(0, 64, sum(placement))}


def test_two_level_is_not_canonical_if_a_host_is_no_node():
    """Which is why the real run between hosts exchanges nodes and not sums of hosts."""
    assert _orders(two_level((1, 2)), 3) != {_canonical(0, 64, 3)}


# The summation tree


@given(st.integers(1, 40))
def test_the_tree_is_what_its_definition_says(leaf_count):
    """Bottom up, as in the code, and top down, as in the definition."""
    nodes = {leaf: Sum((leaf,)) for leaf in range(leaf_count)}
    for left, right in additions(range(leaf_count)):
        nodes[left] += nodes.pop(right)
    assert nodes == {0: _canonical(0, 64, leaf_count)}


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n)))))
def test_runs_of_leaves_can_be_added_by_whom_they_belong_to(case):
    """Cut the leaves anywhere into runs, add whole nodes in each run, then the rest: the same tree."""
    leaf_count, cuts = case
    bounds = sorted(cuts | {0, leaf_count})
    runs = itertools.pairwise(bounds)
    nodes = {}
    for start, stop in runs:
        found = whole_nodes(start, stop, leaf_count)
        assert [a for a, _ in found] + [stop] == [start] + [b for _, b in found]
        assert len(found) <= max(1, 2 * ceil(log2(max(2, stop - start))))
        for first, last in found:
            inside = {leaf: Sum((leaf,)) for leaf in range(first, last)}
            for left, right in additions(range(first, last)):
                inside[left] += inside.pop(right)
            nodes[first] = inside[first]
    for left, right in additions(sorted(nodes)):
        nodes[left] += nodes.pop(right)
    assert nodes == {0: _canonical(0, 64, leaf_count)}


@given(st.integers(1, 40), st.integers(0, 63))
def test_whole_nodes_are_as_large_as_can_be(leaf_count, seed):
    """No two of them are the children of one node."""
    start, stop = sorted((seed * 7 % (leaf_count + 1), seed * 13 % (leaf_count + 1)))
    found = whole_nodes(start, stop, leaf_count)
    for (first, middle), (_, last) in itertools.pairwise(found):
        level = (max(middle - first, last - middle) - 1).bit_length() + 1
        assert (
            first % 2**level
            or min(first + 2**level, leaf_count) > last
            or first + 2 ** (level - 1) != middle
        )


@given(
    st.sets(st.integers(0, 60), min_size=1).flatmap(
        lambda s: st.tuples(st.just(sorted(s)), st.permutations(sorted(s)))
    )
)
def test_an_eager_sum_makes_the_same_additions_in_any_order_of_arrival(case):
    """Each addition once, and only when both its sides are complete."""
    leaves, arrivals = case
    tree, made = EagerSum(leaves), []
    nodes = {}
    for leaf in arrivals:
        nodes[leaf] = Sum((leaf,))
        for left, right in tree.arrive(leaf):
            nodes[left] += nodes.pop(right)
            made.append((left, right))
    assert sorted(made) == sorted(additions(leaves))
    expected = {leaf: Sum((leaf,)) for leaf in leaves}
    for left, right in additions(leaves):
        expected[left] += expected.pop(right)
    assert nodes == expected


# Costs


def _power(p: int) -> int:
    return 2 ** floor(log2(p))


def _sent(p: int) -> dict[str, Fraction]:
    """Bytes per rank as the docstrings give them, as parts of N."""
    ring, q = Fraction(2 * (p - 1), p), _power(p)
    stands_in = 0 if q == p else 1
    return {
        "ring": ring,
        "bidirectional_ring": ring,
        "recursive_doubling": Fraction(floor(log2(p)) + stands_in),
        "rabenseifner": Fraction(2 * (q - 1), q) + stands_in,
        "circulant": ring,
        "pairwise": ring,
        "direct": Fraction(p - 1),
    }


def _steps(p: int) -> dict[str, int]:
    folding = 0 if _power(p) == p else 2
    return {
        "ring": 2 * (p - 1),
        "bidirectional_ring": 2 * (p - 1),
        "recursive_doubling": floor(log2(p)) + folding,
        "rabenseifner": 2 * floor(log2(p)) + folding,
        "circulant": 2 * ceil(log2(p)),
        "double_binary_tree": 2 * floor(log2(p)),
        "pairwise": 2 * (p - 1),
        "direct": p - 1,
    }


@every_world_size
def test_steps_and_bytes_are_those_of_the_docstrings(world_size):
    """Counted from the schedules, against the formulas."""
    for name, steps in _steps(world_size).items():
        assert cost(ALGORITHMS[name], world_size).steps == steps, name
    for name, sent in _sent(world_size).items():
        assert cost(ALGORITHMS[name], world_size).sent == sent, name
    assert cost(ALGORITHMS["double_binary_tree"], world_size).sent <= 2


@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
def test_two_level_costs_what_its_docstring_says(placement):
    """Steps, bytes of the busiest owner, and bytes of every host on the wire."""
    algorithm, p, lanes, hosts = (
        two_level(placement),
        sum(placement),
        min(placement),
        len(placement),
    )
    assert cost(algorithm, p).steps == 2 * (max(placement) - 1) + 2 * (hosts - 1)
    owners = [
        Fraction(n + lanes - 2, lanes) + Fraction(2 * (hosts - 1), hosts * lanes) for n in placement
    ]
    assert cost(algorithm, p).sent == max(owners)
    host_of = [host for host, n in enumerate(placement) for _ in range(n)]
    wire = [0] * hosts
    for rank in range(p):
        for send in (send for step in algorithm.steps(p, rank) for send in step.sends):
            if host_of[send.dest] != host_of[rank]:
                wire[host_of[rank]] += send.stop - send.start
    assert [Fraction(chunks, algorithm.chunk_count(p)) for chunks in wire] == [
        Fraction(2 * (hosts - 1), hosts)
    ] * hosts


@every_world_size
def test_the_other_collectives_cost_what_their_docstrings_say(world_size):
    """Each half of an allreduce costs half of it; trees have as many levels as they must."""
    p, once, least = world_size, Fraction(world_size - 1, world_size), ceil(log2(world_size))
    for collective in (Collective.REDUCE_SCATTER, Collective.ALLGATHER):
        found = {name: cost(algorithm, p) for name, algorithm in COLLECTIVES[collective].items()}
        assert {name: part.steps for name, part in found.items()} == {
            "ring": p - 1,
            "circulant": least,
            "pairwise": p - 1,
        }
        assert (
            {part.sent for part in found.values()}
            == {part.received for part in found.values()}
            == {once}
        )
    binomial, tree = (
        cost(algorithm, p) for algorithm in COLLECTIVES[Collective.BROADCAST].values()
    )
    assert (binomial.steps, binomial.sent) == (least, least)
    assert tree.steps == (1 + floor(log2(p - 1)) if p > 1 else 0)
    assert tree.sent == tree.received == (p > 1)
    assert cost(COLLECTIVES[Collective.BARRIER]["dissemination"], p).steps == least


@every_world_size
def test_rooted_collectives_and_all_to_all_cost_what_their_docstrings_say(world_size):
    """Trees take the fewest steps, the others move the fewest bytes; of an all-to-all N is what one rank has."""
    p, once, least = world_size, Fraction(world_size - 1, world_size), ceil(log2(world_size))

    def found(collective: Collective, name: str) -> tuple:
        costs = cost(COLLECTIVES[collective][name], p)
        return costs.steps, costs.sent, costs.received

    assert found(Collective.REDUCE, "binomial") == (least, p > 1, least)
    steps, sent, received = found(Collective.REDUCE, "circulant")
    assert (steps, received) == (2 * least, 2 * once)
    assert (p > 1) <= sent <= Fraction(3, 2)
    steps, sent, received = found(Collective.GATHER, "binomial")
    assert (steps, received) == (least, once)
    assert sent <= Fraction(1, 2)
    assert found(Collective.SCATTER, "binomial") == (steps, received, sent)
    assert found(Collective.GATHER, "linear") == (p - 1, Fraction(p > 1, p), once)
    assert found(Collective.SCATTER, "linear") == (p - 1, once, Fraction(p > 1, p))
    assert found(Collective.ALLTOALL, "pairwise") == (p - 1, once / p, once / p)
    steps, sent, received = found(Collective.ALLTOALL, "bruck")
    assert steps == least
    assert once / p <= sent == received <= Fraction(least, 2 * p)


@every_world_size
@every_algorithm
def test_nothing_costs_less_than_the_lower_bounds(algorithm, world_size):
    """Each bound holds for each algorithm."""
    found, least = cost(algorithm, world_size), lower_bound(algorithm.collective, world_size)
    if algorithm.collective is not Collective.BARRIER:
        assert (
            found.sent >= least.sent
            and found.received >= least.received
            and found.added >= least.added
        )
    if algorithm.name != "double_binary_tree":
        assert found.steps >= least.steps
    else:
        # The steps of a tree take two messages in at once, so its bound has base three.
        assert 3**found.steps >= world_size


@every_world_size
@pytest.mark.parametrize(
    "algorithm", [algorithm for algorithm in EVERY if algorithm.symmetric], ids=_name
)
def test_symmetric_means_that_all_ranks_do_the_same(algorithm, world_size):
    """In every step as many chunks sent, received and added on every rank, or the schedule does not say so."""
    doings = set()
    for rank in range(world_size):
        doings.add(
            tuple(
                (
                    sum(s.stop - s.start for s in step.sends),
                    sum(r.stop - r.start for r in step.receives),
                    sum(r.stop - r.start for r in step.receives if r.action is not Action.COPY),
                )
                for step in algorithm.steps(world_size, rank)
            )
        )
    assert len(doings) == 1


@pytest.mark.slow(but_every=5)
@few_ranks
@every_algorithm
def test_the_elements_sent_are_the_elements_counted(algorithm, world_size):
    """What the transport really carries for the busiest rank is what ``cost`` says beforehand."""
    count = 97

    def run(transport):
        MessagePlan(algorithm, np.zeros(count), transport, segment_bytes=64).run()
        return transport.elements_sent

    sent = run_ranks(ThreadWorld(world_size), run)
    assert max(sent) == elements_sent_max(algorithm, world_size, count)
    assert abs(max(sent) - cost(algorithm, world_size).sent * count) < 2 * algorithm.chunk_count(
        world_size
    )


@every_world_size
def test_the_lower_bounds_can_be_reached(world_size):
    """They are no lower than they must be: the ring moves and adds the least, doubling takes the fewest steps."""
    least = lower_bound(Collective.ALLREDUCE, world_size)
    ring = cost(ALGORITHMS["ring"], world_size)
    assert (ring.sent, ring.received, ring.added) == (least.sent, least.received, least.added)
    if world_size == _power(world_size):
        assert cost(ALGORITHMS["recursive_doubling"], world_size).steps == least.steps


ALPHA, BETA, GAMMA = 3e-6, 2e-9, 5e-10


@pytest.mark.parametrize("p", [2, 3, 8, 17])
@pytest.mark.parametrize("size", [0, 1000, 1 << 20])
def test_predicted_time_is_the_closed_form(p, size):
    """Where the literature has a formula, the sum over steps gives it."""

    def predicted(name):
        return predicted_seconds(ALGORITHMS[name], p, size, ALPHA, BETA, GAMMA)

    bandwidth = (p - 1) / p * size * (2 * BETA + GAMMA)
    assert predicted("ring") == pytest.approx(2 * (p - 1) * ALPHA + bandwidth)
    assert predicted("circulant") == pytest.approx(2 * ceil(log2(p)) * ALPHA + bandwidth)
    if p == _power(p):
        assert predicted("recursive_doubling") == pytest.approx(
            log2(p) * (ALPHA + size * (BETA + GAMMA))
        )
        assert predicted("rabenseifner") == pytest.approx(2 * log2(p) * ALPHA + bandwidth)


@pytest.mark.parametrize("gamma", [GAMMA, 10 * BETA])
def test_predicted_time_in_segments_is_that_of_a_pipeline(gamma):
    """A ring: every step for one segment, and the rest at the speed of the wire or of the adder."""
    p, chunk, segment = 8, 1 << 20, 1 << 18
    found = predicted_seconds(ALGORITHMS["ring"], p, p * chunk, ALPHA, BETA, gamma, segment)
    first = 2 * (p - 1) * (ALPHA + segment * BETA) + (p - 1) * segment * gamma
    rest = (chunk - segment) * max(2 * (p - 1) * BETA, (p - 1) * gamma)
    assert found == pytest.approx(first + rest)


@every_allreduce
def test_segments_make_no_prediction_longer(algorithm):
    """Overlap can only help in the model, and segments longer than any transfer change nothing."""
    whole = predicted_seconds(algorithm, 12, 1 << 22, ALPHA, BETA, GAMMA)
    times = [
        predicted_seconds(algorithm, 12, 1 << 22, ALPHA, BETA, GAMMA, 1 << bits)
        for bits in range(10, 25)
    ]
    assert all(earlier <= later * (1 + 1e-12) for earlier, later in itertools.pairwise(times))
    assert times[-1] == pytest.approx(whole)


def test_segments_make_a_tree_nearly_as_fast_as_a_ring():
    """2 N bytes at most and log p segments, as the docstring says; without segments it is hopeless."""
    p, size, segment = 64, 1 << 26, 1 << 16
    tree = predicted_seconds(ALGORITHMS["double_binary_tree"], p, size, ALPHA, BETA, 0, segment)
    assert tree <= 2 * size * BETA + 2 * log2(p) * (ALPHA + 3 * segment * BETA)
    assert predicted_seconds(ALGORITHMS["double_binary_tree"], p, size, ALPHA, BETA, 0) > 4 * tree


def test_costs_at_4096_ranks():
    """Large worlds are counted, not simulated."""
    assert cost(ALGORITHMS["ring"], 4096).steps == 8190
    assert cost(two_level([64] * 64), 4096).steps == 2 * 63 + 2 * 63
    circulant = predicted_seconds(ALGORITHMS["circulant"], 4096, 1 << 20, ALPHA, BETA, GAMMA)
    assert circulant < predicted_seconds(ALGORITHMS["ring"], 4096, 1 << 20, ALPHA, BETA, GAMMA)


# Real numbers over messages


def _run_all_lengths(algorithm, world_size, rendezvous, fill, dtype=np.float64):
    """Results by length and rank; one world for all lengths, so that left-over messages would be found."""

    def run(transport):
        results = {}
        for count in lengths(world_size):
            buffer = fill(transport.rank, count).astype(dtype)
            MessagePlan(algorithm, buffer, transport, SEGMENT_ELEMENTS * buffer.itemsize).run()
            results[count] = buffer
        return results

    by_rank = run_ranks(ThreadWorld(world_size, rendezvous=rendezvous), run)
    return {count: [results[count] for results in by_rank] for count in lengths(world_size)}


@pytest.mark.slow(but_every=4)
@both_ways_to_send
@few_ranks
@every_allreduce
def test_allreduce_adds_numbers(algorithm, world_size, rendezvous):
    """Whole numbers come out exactly, for all lengths, on all ranks."""
    results = _run_all_lengths(
        algorithm,
        world_size,
        rendezvous,
        lambda rank, count: numbered(rank, world_size, count, np.float64),
    )
    for count, buffers in results.items():
        for buffer in buffers:
            np.testing.assert_array_equal(buffer, numbered_sum(world_size, count, np.float64))


@both_ways_to_send
@pytest.mark.parametrize("placement", [p for p in PLACEMENTS if sum(p) < 10], ids=str)
def test_two_level_adds_numbers_on_any_hosts(placement, rendezvous):
    """The same for given hosts."""
    p = sum(placement)
    results = _run_all_lengths(
        two_level(placement),
        p,
        rendezvous,
        lambda rank, count: numbered(rank, p, count, np.float64),
    )
    for count, buffers in results.items():
        for buffer in buffers:
            np.testing.assert_array_equal(buffer, numbered_sum(p, count, np.float64))


def _tree_sum(parts: list[np.ndarray]) -> np.ndarray:
    parts = [part.copy() for part in parts]
    for left, right in additions(range(len(parts))):
        parts[left] += parts[right]
    return parts[0]


@few_ranks
@every_allreduce
def test_all_ranks_get_the_same_bits(algorithm, world_size):
    """float32 of any size: equal on all ranks, and the tree's own bits where the order is canonical."""
    results = _run_all_lengths(
        algorithm, world_size, False, lambda rank, n: random(rank, n, np.float32), np.float32
    )
    canonical = algorithm.name in CANONICAL or (
        algorithm.name in CANONICAL_FOR_POWERS_OF_TWO and world_size == _power(world_size)
    )
    for count, buffers in results.items():
        expected = (
            _tree_sum([random(r, count, np.float32) for r in range(world_size)])
            if canonical
            else buffers[0]
        )
        for buffer in buffers:
            assert buffer.tobytes() == expected.tobytes()


@both_ways_to_send
@few_ranks
@pytest.mark.parametrize("algorithm", COLLECTIVES[Collective.REDUCE_SCATTER].values(), ids=_name)
def test_reduce_scatter_adds_the_own_chunk(algorithm, world_size, rendezvous):
    """Rank r ends with the sum of its chunk."""
    results = _run_all_lengths(
        algorithm,
        world_size,
        rendezvous,
        lambda rank, count: numbered(rank, world_size, count, np.float64),
    )
    for count, buffers in results.items():
        bounds = chunk_bounds(count, world_size)
        for rank, buffer in enumerate(buffers):
            own = slice(bounds[rank], bounds[rank + 1])
            np.testing.assert_array_equal(
                buffer[own], numbered_sum(world_size, count, np.float64)[own]
            )


@both_ways_to_send
@few_ranks
@pytest.mark.parametrize("algorithm", COLLECTIVES[Collective.ALLGATHER].values(), ids=_name)
def test_allgather_spreads_every_chunk(algorithm, world_size, rendezvous):
    """Only the own chunk counts at the start, and all chunks are everywhere at the end."""

    def fill(rank, count):
        buffer, bounds = np.full(count, np.nan), chunk_bounds(count, world_size)
        buffer[bounds[rank] : bounds[rank + 1]] = np.arange(bounds[rank], bounds[rank + 1])
        return buffer

    for count, buffers in _run_all_lengths(algorithm, world_size, rendezvous, fill).items():
        for buffer in buffers:
            np.testing.assert_array_equal(buffer, np.arange(count))


@both_ways_to_send
@few_ranks
@pytest.mark.parametrize("algorithm", COLLECTIVES[Collective.BROADCAST].values(), ids=_name)
def test_broadcast_spreads_the_root(algorithm, world_size, rendezvous):
    """From rank 0 and from the last rank."""
    for root in {0, world_size - 1}:
        results = _run_all_lengths(
            rooted_at(root, algorithm),
            world_size,
            rendezvous,
            lambda rank, count: numbered(rank, world_size, count, np.float64),
        )
        for count, buffers in results.items():
            for buffer in buffers:
                np.testing.assert_array_equal(buffer, numbered(root, world_size, count, np.float64))


@both_ways_to_send
@few_ranks
@pytest.mark.parametrize("algorithm", COLLECTIVES[Collective.REDUCE].values(), ids=_name)
def test_reduce_sums_on_the_root(algorithm, world_size, rendezvous):
    """On rank 0, and a binomial one in canonical order; its tree moved to the last rank sums there."""

    def fill(rank, count):
        return numbered(rank, world_size, count, np.float64)

    for count, buffers in _run_all_lengths(algorithm, world_size, rendezvous, fill).items():
        np.testing.assert_array_equal(buffers[0], numbered_sum(world_size, count, np.float64))
    if algorithm.name == "binomial":
        root = world_size - 1
        moved = rooted_at(root, algorithm)
        for count, buffers in _run_all_lengths(moved, world_size, rendezvous, fill).items():
            expected = numbered_sum(world_size, count, np.float64)
            np.testing.assert_array_equal(buffers[root], expected)


@every_world_size
def test_a_binomial_reduce_adds_in_canonical_order(world_size):
    """The bits of its sum are those of the canonical allreduces."""
    traced = trace(COLLECTIVES[Collective.REDUCE]["binomial"], world_size)
    assert traced.steps[-1].values[0][0] == _canonical(0, 64, world_size)


@both_ways_to_send
@few_ranks
@pytest.mark.parametrize("algorithm", COLLECTIVES[Collective.GATHER].values(), ids=_name)
def test_gather_brings_every_chunk_to_the_root(algorithm, world_size, rendezvous):
    """Only the own chunk counts at the start, and the root ends with all."""

    def fill(rank, count):
        buffer, bounds = np.full(count, np.nan), chunk_bounds(count, world_size)
        buffer[bounds[rank] : bounds[rank + 1]] = np.arange(bounds[rank], bounds[rank + 1])
        return buffer

    for count, buffers in _run_all_lengths(algorithm, world_size, rendezvous, fill).items():
        np.testing.assert_array_equal(buffers[0], np.arange(count))


@both_ways_to_send
@few_ranks
@pytest.mark.parametrize("algorithm", COLLECTIVES[Collective.SCATTER].values(), ids=_name)
def test_scatter_gives_every_rank_its_chunk(algorithm, world_size, rendezvous):
    """Only the root's vector counts at the start."""

    def fill(rank, count):
        return np.arange(count, dtype=float) if rank == 0 else np.full(count, np.nan)

    for count, buffers in _run_all_lengths(algorithm, world_size, rendezvous, fill).items():
        bounds = chunk_bounds(count, world_size)
        for rank, buffer in enumerate(buffers):
            own = slice(bounds[rank], bounds[rank + 1])
            np.testing.assert_array_equal(buffer[own], np.arange(count)[own])


@both_ways_to_send
@few_ranks
@pytest.mark.parametrize("algorithm", COLLECTIVES[Collective.ALLTOALL].values(), ids=_name)
def test_all_to_all_turns_rows_into_columns(algorithm, world_size, rendezvous):
    """Rank r ends with its block of every rank."""

    def fill(rank, count):
        buffer, bounds = np.full(count, np.nan), chunk_bounds(count, world_size**2)
        own = slice(bounds[rank * world_size], bounds[(rank + 1) * world_size])
        buffer[own] = np.arange(count)[own]
        return buffer

    for count, buffers in _run_all_lengths(algorithm, world_size, rendezvous, fill).items():
        bounds = chunk_bounds(count, world_size**2)
        for rank, buffer in enumerate(buffers):
            for chunk in range(rank, world_size**2, world_size):
                own = slice(bounds[chunk], bounds[chunk + 1])
                np.testing.assert_array_equal(buffer[own], np.arange(count)[own])


@both_ways_to_send
@few_ranks
def test_nobody_leaves_a_barrier_before_all_have_come(world_size, rendezvous):
    """Ranks come one after the other, the first one last; each counts who has come when it may go on."""
    come, turn = [], [threading.Event() for _ in range(world_size + 1)]
    turn[world_size].set()

    def run(transport):
        plan = MessagePlan(
            COLLECTIVES[Collective.BARRIER]["dissemination"], np.zeros(1, np.int32), transport
        )
        assert turn[transport.rank + 1].wait(30)
        come.append(transport.rank)
        turn[transport.rank].set()
        plan.run()
        return len(come)

    assert (
        run_ranks(ThreadWorld(world_size, rendezvous=rendezvous), run) == [world_size] * world_size
    )


# Programs with held segments, under any timing


class _Simulation(Simulation):
    """The simulation of the other programs, with folds."""

    def _execute(self, rank) -> None:
        do, index = rank.instruction
        if do is not Do.FOLD:
            super()._execute(rank)
            return
        addition = rank.program.additions[index]
        own, count = rank.buffer[addition.start : addition.stop], addition.stop - addition.start
        target = own if addition.target < 0 else rank._scratch[addition.target, :count]
        other = rank._scratch[addition.other, :count]
        target += other
        other[:] = np.nan
        rank.position += 1


@given(
    st.sampled_from(ALLREDUCE),
    st.integers(1, 9),
    st.integers(0, 60),
    st.integers(1, 12),
    st.integers(2, 6),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_the_sum_is_right_under_any_timing(algorithm, size, count, segment, in_flight, eager, seed):
    """Whatever the order of events: no deadlock, no scratch used too early, the exact sum, twice in a row."""
    bounds = chunk_bounds(count, algorithm.chunk_count(size))
    programs = [
        compile_program(algorithm.steps(size, rank), bounds, segment, in_flight)
        for rank in range(size)
    ]
    buffers = [numbered(rank, size, count, np.float64) for rank in range(size)]
    for round_number in (1, 2):
        _Simulation(programs, buffers, eager=eager, seed=seed + round_number).run()
        for buffer in buffers:
            np.testing.assert_array_equal(
                buffer, size ** (round_number - 1) * numbered_sum(size, count, np.float64)
            )


@pytest.mark.parametrize("world_size", [2, 3, 8, 17, 32, 64])
def test_held_segments_need_little_scratch(world_size):
    """About 2 log2 p slots besides those in flight, not p - 1."""
    in_flight = 4
    for rank in range(world_size):
        steps = ALGORITHMS["pairwise"].steps(world_size, rank)
        program = compile_program(steps, list(range(world_size + 1)), 1, in_flight)
        assert program.scratch_slots <= min(world_size - 1, 2 * ceil(log2(world_size)) + in_flight)


@pytest.mark.parametrize("name", ["ring", "pairwise"])
def test_receives_are_posted_ahead(name):
    """Waiting for scratch holds no message up: as many receives are in flight as are allowed."""
    in_flight = 4
    steps = ALGORITHMS[name].steps(9, 2)
    program = compile_program(steps, chunk_bounds(9 * 6, 9), 2, in_flight)
    posted, most = 0, 0
    for do, _ in program.instructions:
        posted += (do is Do.START_RECEIVE) - (do is Do.WAIT_RECEIVE)
        most = max(most, posted)
    assert most == in_flight
