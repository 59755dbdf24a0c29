"""What every allreduce schedule promises, checked on expressions for each of them."""

from dataclasses import replace

import pytest

from lepton_mpi.collectives.schedules.ring import RING, allgather_steps, reduce_scatter_steps
from lepton_mpi.collectives.schedules.schedule import Action, Algorithm, Step
from tests.serial.algorithms import ALL
from tests.serial.symbolic import Expressions, check_allreduce, check_step, run_step

WORLD_SIZES = range(1, 18)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("algorithm", ALL, ids=lambda algorithm: algorithm.name)
def test_every_rank_ends_with_the_whole_sum(algorithm, world_size):
    """Sends meet receives, and all ranks end with every contribution once, added in the same order."""
    check_allreduce(algorithm, world_size)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_ring_sends_the_least_possible(world_size):
    """The ring takes 2(p-1) steps and each rank sends 2(p-1) of the p chunks."""
    for rank in range(world_size):
        steps = RING.steps(world_size, rank)
        sent = sum(send.stop - send.start for step in steps for send in step.sends)
        assert len(steps) == sent == 2 * (world_size - 1)
    assert RING.chunk_count(world_size) == world_size


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_reduce_scatter_leaves_the_sum_of_one_chunk_on_each_rank(world_size):
    """After reduce-scatter, rank r holds the full sum of chunk (r + 1) mod p, added in the order c, c+1, …"""
    schedule = [reduce_scatter_steps(world_size, rank) for rank in range(world_size)]
    expressions = Expressions(world_size)
    values = [[rank] * world_size for rank in range(world_size)]
    for step in zip(*schedule, strict=True):
        check_step(step, world_size)
        values = run_step(step, values, expressions.add)
    for rank in range(world_size):
        chunk = (rank + 1) % world_size
        expected = chunk
        for offset in range(1, world_size):
            expected = expressions.add(expected, (chunk + offset) % world_size)
        assert values[rank][chunk] == expected


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_allgather_spreads_the_chunk_of_each_rank(world_size):
    """Allgather brings chunk (r + 1) mod p from rank r to all ranks."""
    schedule = [allgather_steps(world_size, rank) for rank in range(world_size)]
    values = [[None] * world_size for _ in range(world_size)]
    for rank in range(world_size):
        values[rank][(rank + 1) % world_size] = f"chunk of rank {rank}"
    for step in zip(*schedule, strict=True):
        check_step(step, world_size)
        values = run_step(step, values, None)
    whole = [f"chunk of rank {(chunk - 1) % world_size}" for chunk in range(world_size)]
    assert values == [whole] * world_size


def _without_last_step(steps: list[Step]) -> list[Step]:
    return steps[:-1]


def _copies_instead_of_adding(steps: list[Step]) -> list[Step]:
    return [
        replace(s, receives=tuple(replace(r, action=Action.COPY) for r in s.receives))
        for s in steps
    ]


def _adds_instead_of_copying(steps: list[Step]) -> list[Step]:
    return [
        replace(s, receives=tuple(replace(r, action=Action.ADD) for r in s.receives)) for s in steps
    ]


def _first_step_twice(steps: list[Step]) -> list[Step]:
    return steps[:1] + steps


def _first_receive_forgotten(steps: list[Step]) -> list[Step]:
    return [replace(steps[0], receives=()), *steps[1:]]


def _sends_what_it_copies(steps: list[Step]) -> list[Step]:
    copied = steps[-1].receives[0]
    send = replace(steps[-1].sends[0], start=copied.start, stop=copied.stop)
    return [*steps[:-1], replace(steps[-1], sends=(send,))]


MUTANTS = [
    _without_last_step,
    _copies_instead_of_adding,
    _adds_instead_of_copying,
    _first_step_twice,
    _first_receive_forgotten,
    _sends_what_it_copies,
]


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__.strip("_"))
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_the_check_finds_broken_schedules(mutate, world_size):
    """A ring with one mistake breaks a promise, so that the tests above can fail."""
    broken = Algorithm(
        "broken", RING.chunk_count, lambda size, rank: mutate(RING.steps(size, rank))
    )
    with pytest.raises(AssertionError):
        check_allreduce(broken, world_size)
