"""Carries out a program over messages: the executor of real runs between hosts, and of the tests.

A plan is made once for a buffer and run many times: its requests are persistent, its scratch is
allocated once, and a run allocates nothing.
"""

from time import perf_counter
from typing import Protocol

import numpy as np

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.combining import combination
from lepton_mpi.collectives.messages.program import Do, compile_program
from lepton_mpi.collectives.schedules.schedule import Algorithm

DTYPES = ("float32", "float64", "int32", "int64")


class Request(Protocol):
    """A transfer that can be started again and again."""

    def Start(self) -> None:
        """Begin the transfer; return at once."""

    def Wait(self) -> None:
        """Return when the transfer is complete and its memory may be used."""

    def Test(self) -> bool:
        """Whether it is complete; True also where none was started since it last was."""


class Transport(Protocol):
    """What an executor needs of the world. Messages between two ranks arrive in the order sent."""

    rank: int
    world_size: int

    def send_request(self, memory: np.ndarray, dest: int) -> Request:
        """Request that sends the contents that ``memory`` has at each start."""

    def receive_request(self, memory: np.ndarray, source: int) -> Request:
        """Request that fills ``memory``."""


class MessagePlan:
    """Replace a buffer by its element-wise sum, maximum or minimum over all ranks, in place, as often as ``run`` is called.

    Making and running are collective over ``transport``: every rank, same order, same length and dtype.

    Parameters
    ----------
    algorithm : Algorithm
        An allreduce schedule.
    buffer : float32, float64, int32 or int64, shape (n,), C-contiguous, writable
        Bound for the life of the plan. ``n`` may be 0 or below ``world_size``.
    transport : Transport
    segment_bytes : int
        Upper bound on one message. Smaller gives more overlap, larger fewer messages.
    operation : {"sum", "max", "min"}

    Attributes
    ----------
    wait_seconds : float
        Sum over runs of the time until the first segment arrived: mostly waiting for slower ranks.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        buffer: np.ndarray,
        transport: Transport,
        segment_bytes: int = 256 << 10,
        operation: str = "sum",
    ) -> None:
        if buffer.ndim != 1 or not buffer.flags.c_contiguous or not buffer.flags.writeable:
            raise ValueError(
                "allreduce: expected a writable, contiguous vector of shape (n,), got shape "
                f"{buffer.shape}, strides {buffer.strides}, writable {buffer.flags.writeable}; pass a copy"
            )
        if buffer.dtype.name not in DTYPES or not buffer.dtype.isnative:
            raise TypeError(
                f"allreduce: expected dtype {', '.join(DTYPES)}, got {buffer.dtype.str}"
            )
        bounds = chunk_bounds(buffer.size, algorithm.chunk_count(transport.world_size))
        steps = algorithm.steps(transport.world_size, transport.rank)
        segment_elements = max(1, segment_bytes // buffer.itemsize)
        program = compile_program(steps, bounds, segment_elements)
        longest = max((r.stop - r.start for r in program.receives if r.scratch >= 0), default=0)
        scratch = np.empty((program.scratch_slots, longest), buffer.dtype)

        sends = [transport.send_request(buffer[s.start : s.stop], s.peer) for s in program.sends]
        receives, additions = [], []
        for receive in program.receives:
            target = buffer[receive.start : receive.stop]
            memory = target if receive.scratch < 0 else scratch[receive.scratch, : target.size]
            receives.append(transport.receive_request(memory, receive.peer))
            additions.append((target, memory))

        def segment(slot: int, start: int, stop: int) -> np.ndarray:
            return buffer[start:stop] if slot < 0 else scratch[slot, : stop - start]

        folds = [
            (segment(a.target, a.start, a.stop), segment(a.other, a.start, a.stop))
            for a in program.additions
        ]
        bound = {
            Do.START_SEND: [request.Start for request in sends],
            Do.WAIT_SEND: [request.Wait for request in sends],
            Do.START_RECEIVE: [request.Start for request in receives],
            Do.WAIT_RECEIVE: [request.Wait for request in receives],
            Do.ADD: [combination(operation, target, part, target) for target, part in additions],
            Do.FOLD: [combination(operation, target, part, target) for target, part in folds],
        }
        calls = [bound[do][index] for do, index in program.instructions]
        kinds = [do for do, _ in program.instructions]
        first = kinds.index(Do.WAIT_RECEIVE) + 1 if Do.WAIT_RECEIVE in kinds else 0
        self._until_first_arrival, self._rest = calls[:first], calls[first:]
        self.wait_seconds = 0.0

    def run(self) -> None:
        """Sum once."""
        began = perf_counter()
        for call in self._until_first_arrival:
            call()
        self.wait_seconds += perf_counter() - began
        for call in self._rest:
            call()
