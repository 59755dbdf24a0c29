"""Vectors exchanged with a few other ranks: to whom each sends, and from whom it receives, may be another matter each time."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Request(Protocol):
    """A transfer that can be started again and again, see ``plan.Request``."""

    def Start(self) -> object:
        """Begin the transfer."""

    def Wait(self) -> object:
        """Return when it is complete."""


class Transport(Protocol):
    """Makes them, see ``plan.Transport``."""

    def send_request(self, memory: np.ndarray, dest: int) -> Request:
        """Request that sends the contents that ``memory`` has at each start."""

    def receive_request(self, memory: np.ndarray, source: int) -> Request:
        """Request that fills ``memory``."""


class NeighbourExchange:
    """Sends one vector, bound for its life, to some ranks, and receives theirs. Requests are made once for each peer.

    Parameters
    ----------
    vector : shape (n,), contiguous
        What is sent; it must stay as it is during ``run``.
    transport : Transport
        Whose messages nothing else uses meanwhile.

    Attributes
    ----------
    sent_bytes : int
        Over all runs.
    """

    def __init__(self, vector: np.ndarray, transport: Transport) -> None:
        self._vector, self._transport, self.sent_bytes = vector, transport, 0
        self._sends: dict[int, Request] = {}
        self._receives: dict[int, tuple[Request, np.ndarray]] = {}

    @property
    def peer_count(self) -> int:
        """From how many a vector has been received."""
        return len(self._receives)

    def run(self, targets: Sequence[int], sources: Sequence[int]) -> list[np.ndarray]:
        """Send to ``targets`` and return the vectors of ``sources``, in their order, which hold until the next run.

        Every rank that is sent to must receive: r is among the targets of s where s is among the sources of r.
        """
        for peer in sources:
            if peer not in self._receives:
                memory = np.empty_like(self._vector)
                self._receives[peer] = self._transport.receive_request(memory, peer), memory
            self._receives[peer][0].Start()
        for peer in targets:
            if peer not in self._sends:
                self._sends[peer] = self._transport.send_request(self._vector, peer)
            self._sends[peer].Start()
        for peer in sources:
            self._receives[peer][0].Wait()
        for peer in targets:
            self._sends[peer].Wait()
        self.sent_bytes += self._vector.nbytes * len(targets)
        return [self._receives[peer][1] for peer in sources]
