"""A schedule for one rank and one length, turned into a list of instructions. Pure.

Chunks are cut into segments and the segments flow through the schedule on their own: segment j of
ring_step s+1 is sent as soon as segment j of ring_step s has been added, while its neighbours are still
on the way. So a chunk is on the wire and under the adder at the same time, which is what makes a
segmented ring fast.

Why it cannot deadlock: the transfers of all ranks have one global order, (step, segment). A rank
completes its receives in that order; it starts every send as soon as what it sends is complete; and it
waits for a send only if that send comes before the receive now due. So whatever transfer is first in the
order among the unfinished ones, both its ends are started, and it finishes.

Held segments (Action.HOLD) are added to each other as soon as both sides of a node are there, so a fold
of p leaves that arrive in cyclic order keeps about 2 log2 p of them in scratch, not p - 1; a rank's own
segment is touched last, when the last leaf has arrived.
"""

from dataclasses import dataclass
from enum import Enum

from lepton_mpi.chunks import segments
from lepton_mpi.collectives.messages.scratch import Addition, Scratch
from lepton_mpi.collectives.schedules.schedule import Receive, Send, Step


class Do(Enum):
    """What an instruction does: FOLD to addition ``index``, the others to transfer ``index`` of their kind."""

    START_SEND = "start send"
    WAIT_SEND = "wait for send"
    START_RECEIVE = "start receive"
    WAIT_RECEIVE = "wait for receive"
    ADD = "add scratch"
    FOLD = "add held segments"


@dataclass(frozen=True, slots=True)
class Transfer:
    """One segment on its way: elements [start, stop), to or from ``peer``, at ``order`` = (step, segment).

    ``scratch`` is the scratch slot that a segment to be added or held arrives in; -1 if it arrives in place.
    """

    peer: int
    start: int
    stop: int
    order: tuple[int, int]
    scratch: int = -1


@dataclass(frozen=True)
class Program:
    """What one rank does: ``instructions`` are pairs (Do, index into sends, receives or additions)."""

    sends: tuple[Transfer, ...]
    receives: tuple[Transfer, ...]
    additions: tuple[Addition, ...]
    instructions: tuple[tuple[Do, int], ...]
    scratch_slots: int


def compile_program(
    steps: list[Step], bounds: list[int], segment_elements: int, receives_in_flight: int = 4
) -> Program:
    """Instructions for one rank's ``steps`` over chunks at ``bounds``.

    Parameters
    ----------
    steps
        This rank's part of a schedule.
    bounds
        Chunk offsets in elements, from ``chunk_bounds``.
    segment_elements
        Upper bound on the length of one message.
    receives_in_flight
        Receives posted ahead, the one waited for included; at least 2. So many scratch slots serve all
        that is added; segments that are held need theirs for longer.
    """
    sends, receives = [], []
    scratch = Scratch(steps, bounds, receives_in_flight)
    for number, step in enumerate(steps):
        step_sends = [
            Transfer(s.dest, *cut)
            for s in step.sends
            for cut in _cut(s, bounds, segment_elements, number)
        ]
        sends += sorted(step_sends, key=lambda transfer: transfer.order)
        arriving = [
            (r, cut) for r in step.receives for cut in _cut(r, bounds, segment_elements, number)
        ]
        for receive, (start, stop, order) in sorted(arriving, key=lambda pair: pair[1][2]):
            slot = scratch.arrive(receive, start, stop, number)
            receives.append(Transfer(receive.source, start, stop, order, slot))
    needs = _dependencies(sends, receives, scratch)
    instructions = _instructions(sends, receives, scratch, needs, receives_in_flight)
    additions = tuple(addition for group in scratch.additions for addition in group)
    return Program(
        tuple(sends), tuple(receives), additions, tuple(instructions), scratch.slot_count
    )


def _cut(move: Send | Receive, bounds: list[int], elements_max: int, step: int) -> list[tuple]:
    pieces = segments(bounds[move.start], bounds[move.stop], elements_max)
    return [(start, stop, (step, number)) for number, (start, stop) in enumerate(pieces)]


@dataclass(frozen=True)
class _Dependencies:
    """What must be over before a transfer may start; indices into receives and sends, -1 for nothing."""

    send_after_receive: list[int]  # the send's data are complete after this receive
    receive_after_receive: list[int]  # the memory was last received into by this one
    receive_after_sends: list[list[int]]  # these sends read the memory before


def _dependencies(
    sends: list[Transfer], receives: list[Transfer], scratch: Scratch
) -> _Dependencies:
    """Follow every piece of the vector through the steps: who wrote it last, who has read it since."""
    edges = sorted(
        {edge for transfer in (*sends, *receives) for edge in (transfer.start, transfer.stop)}
    )
    place = {edge: index for index, edge in enumerate(edges)}
    written_by = [-1] * len(edges)
    read_by: list[list[int]] = [[] for _ in edges]
    result = _Dependencies([], [], [])
    # Within a step sends come first: they carry the values from before the step.
    events = [(s.order[0], 0, index, s) for index, s in enumerate(sends)]
    events += [(r.order[0], 1, index, r) for index, r in enumerate(receives)]
    for _, is_receive, index, transfer in sorted(events, key=lambda event: event[:3]):
        places = range(place[transfer.start], place[transfer.stop])
        last_write = max(written_by[i] for i in places)
        if not is_receive:
            result.send_after_receive.append(last_write)
            for i in places:
                read_by[i].append(index)
            continue
        result.receive_after_receive.append(last_write)
        if not scratch.changes_vector[index]:
            result.receive_after_sends.append([])
            continue
        result.receive_after_sends.append(sorted({send for i in places for send in read_by[i]}))
        for i in places:
            written_by[i] = index
            read_by[i] = []
    return result


def _instructions(
    sends: list[Transfer],
    receives: list[Transfer],
    scratch: Scratch,
    needs: _Dependencies,
    ahead: int,
) -> list[tuple[Do, int]]:
    """Walk the receives in order and put every send and every wait at its earliest safe place."""
    program: list[tuple[Do, int]] = []
    sends_started, receives_started, folded = 0, 0, 0
    waited: set[int] = set()

    def wait_for(indices: list[int]) -> None:
        program.extend((Do.WAIT_SEND, index) for index in indices if index not in waited)
        waited.update(indices)

    def place_is_free(receive: int, due: int) -> bool:
        if receives[receive].scratch >= 0:
            return True  # scratch.py gives out no slot that may still be in use
        return needs.receive_after_receive[receive] < due and all(
            index in waited or (index < sends_started and sends[index].order < receives[due].order)
            for index in needs.receive_after_sends[receive]
        )

    for due in range(len(receives) + 1):
        while sends_started < len(sends) and needs.send_after_receive[sends_started] < due:
            program.append((Do.START_SEND, sends_started))
            sends_started += 1
        if due == len(receives):
            break
        while receives_started < min(due + ahead, len(receives)) and place_is_free(
            receives_started, due
        ):
            if receives[receives_started].scratch < 0:
                wait_for(needs.receive_after_sends[receives_started])
            program.append((Do.START_RECEIVE, receives_started))
            receives_started += 1
        assert receives_started > due, (
            "a schedule copies onto a chunk that it sends in the same step"
        )
        program.append((Do.WAIT_RECEIVE, due))
        if receives[due].scratch >= 0:
            # A segment must not change under a send that still reads it.
            wait_for(needs.receive_after_sends[due])
        if scratch.added_alone[due]:
            program.append((Do.ADD, due))
        for _ in scratch.additions[due]:
            program.append((Do.FOLD, folded))
            folded += 1
    wait_for(list(range(len(sends))))
    return program
