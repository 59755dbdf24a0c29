"""How rank 0 asks other ranks, and how they answer: messages of Python objects, and a sleep between two looks.

rank 0    ── (question, argument) ──►  rank r
          ◄── answer ──
rank 0    ── ("end", Verdict) ──►      every rank
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mpi4py import MPI

_QUESTION, _ANSWER = 201, 202
_PAUSE_SECONDS = 0.003
END = "end"


class Verdict(NamedTuple):
    """How a rank ends: with which exit code, and whether all ranks can take part in MPI's end."""

    exit_code: int
    is_whole: bool


class Ranks:
    """Rank 0's side. What it sends is small, and no call waits for a rank."""

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm
        self._requests: list[MPI.Request] = []

    def ask(self, ranks: Collection[int], question: str, argument: Any = None) -> None:
        """Send a question to some ranks, not this one."""
        for rank in ranks:
            self._requests.append(self._comm.isend((question, argument), rank, _QUESTION))

    def answers(self, ranks: Collection[int], limit_seconds: float) -> dict[int, Any]:
        """Answers of those of ``ranks`` that answer in time."""
        missing, found, end = set(ranks), dict[int, Any](), time.monotonic() + limit_seconds
        while missing and time.monotonic() < end:
            came = [rank for rank in missing if self._comm.iprobe(rank, _ANSWER)]
            for rank in came:
                found[rank] = self._comm.recv(None, rank, _ANSWER)
            missing -= set(came)
            if not came:
                time.sleep(_PAUSE_SECONDS)
        return found

    def end(self, ranks: Collection[int], verdict: Verdict, limit_seconds: float) -> bool:
        """Tell how it ends; returns whether everything that was sent has arrived."""
        self.ask(ranks, END, verdict)
        stop = time.monotonic() + limit_seconds
        while time.monotonic() < stop:
            self._requests = [request for request in self._requests if not request.Test()]
            if not self._requests:
                return True
            time.sleep(_PAUSE_SECONDS)
        return False


def serve(comm: MPI.Comm, answers: Mapping[str, Callable[[Any], Any]]) -> Verdict:
    """Answer rank 0 until it says how this rank is to end.

    A question whose answer is None is not answered by a message.
    """
    while True:
        while not comm.iprobe(0, _QUESTION):
            time.sleep(_PAUSE_SECONDS)
        question, argument = comm.recv(None, 0, _QUESTION)
        if question == END:
            return Verdict(*argument)
        answer = answers[question](argument)
        if answer is not None:
            comm.send(answer, 0, _ANSWER)
