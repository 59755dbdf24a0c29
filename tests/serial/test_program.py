"""Compiled programs: the rules that their instructions keep, and what they do under any timing."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.messages.program import Do, Program, compile_program
from lepton_mpi.collectives.schedules.schedule import Action, Receive, Send, Step
from tests.contributions import numbered, numbered_sum
from tests.serial.algorithms import ALL
from tests.serial.asynchronous import Simulation
from tests.serial.symbolic import run_step
from tests.strategies import CHUNK_COUNT, schedules

world_sizes = st.integers(1, 9)
counts = st.integers(0, 60)
segment_lengths = st.integers(1, 12)
flights = st.integers(2, 6)
algorithms = st.sampled_from(ALL)


def _programs(
    algorithm, world_size: int, count: int, segment: int, in_flight: int = 4
) -> list[Program]:
    bounds = chunk_bounds(count, algorithm.chunk_count(world_size))
    ranks = range(world_size)
    return [
        compile_program(algorithm.steps(world_size, r), bounds, segment, in_flight) for r in ranks
    ]


@given(algorithms, world_sizes, counts, segment_lengths, flights)
def test_every_request_is_started_once_and_then_waited_for_once(
    algorithm, size, count, segment, in_flight
):
    """START comes before WAIT, WAIT before ADD, each exactly once, and all that arrives in scratch is added."""
    for program in _programs(algorithm, size, count, segment, in_flight):
        assert len(set(program.instructions)) == len(program.instructions)
        at = {instruction: position for position, instruction in enumerate(program.instructions)}
        for index in range(len(program.sends)):
            assert at.pop((Do.START_SEND, index)) < at.pop((Do.WAIT_SEND, index))
        for index, receive in enumerate(program.receives):
            waited = at.pop((Do.WAIT_RECEIVE, index))
            assert at.pop((Do.START_RECEIVE, index)) < waited
            if receive.scratch >= 0:
                assert waited < at.pop((Do.ADD, index))
        assert not at, "instructions about transfers that do not exist"


@given(algorithms, world_sizes, counts, segment_lengths, flights)
def test_scratch_is_reused_only_after_it_was_added(algorithm, size, count, segment, in_flight):
    """A slot holds one segment from the start of its receive to its ADD, and there are only so many slots."""
    for program in _programs(algorithm, size, count, segment, in_flight):
        assert program.scratch_slots <= in_flight
        held = set()
        for do, index in program.instructions:
            slot = program.receives[index].scratch if do in (Do.START_RECEIVE, Do.ADD) else -1
            if do is Do.START_RECEIVE and slot >= 0:
                assert slot not in held and slot < program.scratch_slots
                held.add(slot)
            if do is Do.ADD:
                held.remove(slot)


@given(algorithms, world_sizes, counts, segment_lengths, flights)
def test_transfers_start_only_when_their_memory_is_ready(
    algorithm, size, count, segment, in_flight
):
    """A send starts after the earlier receives of its elements are complete; memory changes after its reads."""
    for program in _programs(algorithm, size, count, segment, in_flight):
        _check_memory(program)


def _check_memory(program: Program) -> None:
    at = {instruction: position for position, instruction in enumerate(program.instructions)}
    for s, send in enumerate(program.sends):
        for r, receive in enumerate(program.receives):
            if send.stop <= receive.start or receive.stop <= send.start:
                continue
            adds = receive.scratch >= 0
            if receive.order[0] < send.order[0]:
                complete = at[(Do.ADD if adds else Do.WAIT_RECEIVE), r]
                assert complete < at[Do.START_SEND, s], "sent before it had arrived"
            else:
                changes = at[(Do.ADD if adds else Do.START_RECEIVE), r]
                assert at[Do.WAIT_SEND, s] < changes, "changed under a send that reads it"


@given(algorithms, world_sizes, counts, segment_lengths, flights)
def test_receives_in_flight_are_limited(algorithm, size, count, segment, in_flight):
    """No more receives are posted ahead than allowed."""
    for program in _programs(algorithm, size, count, segment, in_flight):
        posted = 0
        for do, _ in program.instructions:
            posted += (do is Do.START_RECEIVE) - (do is Do.WAIT_RECEIVE)
            assert posted <= in_flight


@given(
    algorithms, world_sizes, counts, segment_lengths, flights, st.booleans(), st.integers(0, 2**32)
)
def test_the_sum_is_right_under_any_timing(algorithm, size, count, segment, in_flight, eager, seed):
    """Whatever the order of events, all ranks end with the exact sum, and twice in a row."""
    programs = _programs(algorithm, size, count, segment, in_flight)
    buffers = [numbered(rank, size, count, np.float64) for rank in range(size)]
    Simulation(programs, buffers, eager=eager, seed=seed).run()
    for buffer in buffers:
        np.testing.assert_array_equal(buffer, numbered_sum(size, count, np.float64))
    Simulation(programs, buffers, eager=eager, seed=seed + 1).run()
    for buffer in buffers:
        np.testing.assert_array_equal(buffer, size * numbered_sum(size, count, np.float64))


_COPY_AFTER_SEND = [
    [Step((Send(1, 0, 1),)), Step((), (Receive(1, 0, 1, Action.COPY),))],
    [Step((), (Receive(0, 0, 1, Action.ADD),)), Step((Send(0, 0, 1),))],
]


@given(
    schedules(), st.integers(0, 21), segment_lengths, flights, st.booleans(), st.integers(0, 2**32)
)
@example(_COPY_AFTER_SEND, 12, 3, 2, False, 0)
def test_any_schedule_is_carried_out_as_it_is_written(
    schedule, count, segment, in_flight, eager, seed
):
    """Programs of arbitrary valid schedules give what steps one after the other give, and do not deadlock."""
    bounds = chunk_bounds(count, CHUNK_COUNT)
    size = len(schedule)
    buffers = [numbered(rank, size, count, np.float64) for rank in range(size)]
    expected = [[buffer[a:b].copy() for a, b in itertools.pairwise(bounds)] for buffer in buffers]
    for step in zip(*schedule, strict=True):
        expected = run_step(step, expected, np.add)
    programs = [compile_program(steps, bounds, segment, in_flight) for steps in schedule]
    Simulation(programs, buffers, eager=eager, seed=seed).run()
    for buffer, chunks in zip(buffers, expected, strict=True):
        np.testing.assert_array_equal(buffer, np.concatenate(chunks))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_empty_chunks_cost_no_message(count):
    """A ring of 4 ranks over fewer than 4 elements moves only the chunks that have one."""
    for program in _programs(ALL[0], 4, count, 8):
        assert all(
            transfer.start < transfer.stop for transfer in (*program.sends, *program.receives)
        )
    sent = sum(len(program.sends) for program in _programs(ALL[0], 4, count, 8))
    assert sent == count * 2 * 3


@pytest.mark.parametrize("first", [Do.START_SEND, Do.WAIT_RECEIVE])
def test_the_simulation_finds_broken_programs(first):
    """Programs that send everything at once, or wait before they start, do not survive every timing."""
    programs = _programs(ALL[0], 3, 12, 2)
    broken = [
        replace(p, instructions=tuple(sorted(p.instructions, key=lambda i: i[0] is not first)))
        for p in programs
    ]
    with pytest.raises((AssertionError, KeyError)):
        for seed in range(20):
            buffers = [numbered(rank, 3, 12, np.float64) for rank in range(3)]
            Simulation(broken, buffers, eager=False, seed=seed).run()
            np.testing.assert_array_equal(buffers[0], numbered_sum(3, 12, np.float64))
