"""Programs of all ranks run in one thread, with the order of events chosen by a random generator.

This is MPI at its most unhelpful. A send is held back until its receive is started (rendezvous) or leaves
at once (eager). Memory of a started send is read at a random moment until its wait returns. Memory of a
started receive is garbage until its wait returns. So a program that touches memory too early, sends too
early or waits in a circle gives a wrong result or a ``Deadlock``, though real MPI may forgive it for years.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from lepton_mpi.collectives.messages.program import Do, Program, Transfer


class Deadlock(AssertionError):
    """No rank can go on and no message is on its way."""


@dataclass
class _Message:
    """One transfer in flight, from the first start of either of its ends."""

    sent: np.ndarray | None = None  # memory of the sender; a copy if eager
    target: np.ndarray | None = None
    done: set = field(default_factory=set)  # ends that may return from their wait


class Simulation:
    """All ranks of one collective; ``buffers[rank]`` are summed in place."""

    def __init__(
        self, programs: list[Program], buffers: list[np.ndarray], *, eager: bool, seed: int
    ) -> None:
        self._ranks = [
            _Rank(rank, *pair) for rank, pair in enumerate(zip(programs, buffers, strict=True))
        ]
        self._eager = eager
        self._random = np.random.default_rng(seed)
        self._pairs: dict[tuple[int, int], list[_Message]] = defaultdict(list)
        self._on_way: list[_Message] = []

    def run(self) -> None:
        """Until all ranks are at their end. Raises Deadlock."""
        while running := [rank for rank in self._ranks if not rank.at_end]:
            able = [rank for rank in running if not rank.waits()]
            count = len(able) + len(self._on_way)
            if count == 0:
                raise Deadlock({rank.number: rank.instruction for rank in running})
            choice = int(self._random.integers(count))
            if choice < len(able):
                self._execute(able[choice])
            else:
                self._deliver(self._on_way.pop(choice - len(able)))

    def _execute(self, rank: "_Rank") -> None:
        do, index = rank.instruction
        if do is Do.START_SEND:
            message = self._match(rank.number, rank.program.sends[index].peer, "sent")
            memory = rank.memory(rank.program.sends[index], do)
            message.sent = memory.copy() if self._eager else memory
            if self._eager:
                message.done.add("sent")
            rank.sends[index] = message
        elif do is Do.START_RECEIVE:
            message = self._match(rank.program.receives[index].peer, rank.number, "target")
            message.target = rank.memory(rank.program.receives[index], do)
            message.target[:] = np.nan
            rank.receives[index] = message
        elif do is Do.ADD:
            transfer = rank.program.receives[index]
            rank.buffer[transfer.start : transfer.stop] += rank.memory(transfer, Do.START_RECEIVE)
        if (
            do in (Do.START_SEND, Do.START_RECEIVE)
            and message.sent is not None
            and message.target is not None
        ):
            self._on_way.append(message)
        rank.position += 1

    def _match(self, source: int, dest: int, end: str) -> _Message:
        """The oldest message of this pair whose ``end`` is not there yet, or a new one."""
        waiting = [
            message for message in self._pairs[source, dest] if getattr(message, end) is None
        ]
        if not waiting:
            waiting = [_Message()]
            self._pairs[source, dest] += waiting
        return waiting[0]

    def _deliver(self, message: _Message) -> None:
        assert message.sent.shape == message.target.shape, (
            "the two ends cut their chunks differently"
        )
        message.target[:] = message.sent
        message.done |= {"sent", "target"}


class _Rank:
    def __init__(self, number: int, program: Program, buffer: np.ndarray) -> None:
        self.number, self.program, self.buffer = number, program, buffer
        self.position = 0
        self.sends: dict[int, _Message] = {}
        self.receives: dict[int, _Message] = {}
        self._scratch = np.full((program.scratch_slots, buffer.size), np.nan)

    @property
    def at_end(self) -> bool:
        return self.position == len(self.program.instructions)

    @property
    def instruction(self) -> tuple[Do, int]:
        return self.program.instructions[self.position]

    def waits(self) -> bool:
        """Whether the next instruction is a wait whose message has not arrived."""
        do, index = self.instruction
        if do is Do.WAIT_SEND:
            return "sent" not in self.sends[index].done
        return do is Do.WAIT_RECEIVE and "target" not in self.receives[index].done

    def memory(self, transfer: Transfer, do: Do) -> np.ndarray:
        """Where a transfer reads or writes."""
        if do is Do.START_RECEIVE and transfer.scratch >= 0:
            return self._scratch[transfer.scratch, : transfer.stop - transfer.start]
        return self.buffer[transfer.start : transfer.stop]
