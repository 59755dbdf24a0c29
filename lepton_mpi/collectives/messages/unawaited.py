"""Vectors to other ranks without waiting: to each one message at a time; what is offered meanwhile does not leave.

    sender      offer(dest, v): if the last message was taken, v is copied and sent; else it is not
    receiver    arrived(): what has come; it is taken, the next receive begins, and the sender is told

So a slow receiver holds up nobody, and has one message of each sender in its memory, however fast that is. ``finish`` lets all arrive that was
sent, and leaves nothing on its way and no receive open: the next message of that tag may be another exchange's.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from lepton_mpi.collectives.messages import neighbours


class Request(neighbours.Request, Protocol):
    """A transfer that can be started again and again."""

    def Test(self) -> bool:
        """Whether it is complete; True also where none was started since it last was."""

    def Cancel(self) -> object:
        """Give up a receive that was started, for which nothing was sent: it is complete after ``Wait``."""


class Transport(Protocol):
    """Makes them, see ``plan.Transport``."""

    def send_request(self, memory: np.ndarray, dest: int) -> Request:
        """Request that sends the contents that ``memory`` has at each start."""

    def receive_request(self, memory: np.ndarray, source: int) -> Request:
        """Request that fills ``memory``."""


class UnawaitedExchange:
    """Vectors of one length. Ranks that send to each other make one each; receives begin with the first ``arrived``.

    Parameters
    ----------
    length, dtype
        Of a vector.
    vectors, tellings : Transport
        For vectors, and for what receivers tell; nobody else uses them.
    targets, sources : sequence of int
        Whom this rank may ever send to, and who may send to it: r is a target of s where s is a source of r.

    Attributes
    ----------
    sent : dict of int to int
        By target, how many vectors have left.
    """

    def __init__(
        self,
        length: int,
        dtype: np.dtype,
        vectors: Transport,
        tellings: Transport,
        targets: Sequence[int],
        sources: Sequence[int],
    ) -> None:
        self._out = {peer: _Outgoing(length, dtype, vectors, tellings, peer) for peer in targets}
        self._in = {peer: _Incoming(length, dtype, vectors, tellings, peer) for peer in sources}
        self.sent = dict.fromkeys(targets, 0)
        self._received = dict.fromkeys(sources, 0)

    @property
    def sources(self) -> list[int]:
        """Who may send to this rank."""
        return list(self._in)

    @property
    def vector_count(self) -> int:
        """Vectors that this rank holds."""
        return len(self._out) + len(self._in)

    def offer(self, dest: int, vector: np.ndarray) -> bool:
        """Send ``vector``, unless the last one for ``dest`` is still on its way; whether it was sent."""
        out = self._out[dest]
        if not out.is_free():
            return False
        out.memory[:] = vector
        out.start()
        self.sent[dest] += 1
        return True

    def arrived(self) -> Iterator[tuple[int, np.ndarray]]:
        """Sources whose vector has come, and the vector, which holds until the next is asked for: ask to the end."""
        for source, incoming in self._in.items():
            if incoming.has_come():
                self._received[source] += 1
                yield source, incoming.memory
                incoming.go_on()

    def finish(self, expected: Mapping[int, int], go_on: Callable[[], object]) -> None:
        """Return once all that was sent was taken, also from here: of each source ``expected`` vectors, which is its ``sent``.

        What comes is dropped, and ``go_on`` called while waiting. To be called by all ranks that send to each other, none of which sends
        again before all of them have returned.
        """
        while any(self._received[source] < count for source, count in expected.items()):
            for _ in self.arrived():
                pass
            go_on()
            os.sched_yield()
        while not all([out.is_free() for out in self._out.values()]):
            go_on()
            os.sched_yield()
        for incoming in self._in.values():
            incoming.end()


class _Outgoing:
    """To one target: the vector, and its answer."""

    def __init__(
        self, length: int, dtype: np.dtype, vectors: Transport, tellings: Transport, peer: int
    ) -> None:
        self.memory, answer = np.zeros(length, dtype), np.zeros(1, np.uint8)
        self._requests = [
            vectors.send_request(self.memory, peer),
            tellings.receive_request(answer, peer),
        ]
        self._answer, self._is_free = answer, True

    def is_free(self) -> bool:
        """Whether the last vector was taken."""
        if not self._is_free:
            # Each of them: a test is what makes MPI go on.
            self._is_free = all([request.Test() for request in self._requests])
        return self._is_free

    def start(self) -> None:
        for request in self._requests:
            request.Start()
        self._is_free = False


class _Incoming:
    """From one source."""

    def __init__(
        self, length: int, dtype: np.dtype, vectors: Transport, tellings: Transport, peer: int
    ) -> None:
        self.memory, self._word = np.zeros(length, dtype), np.zeros(1, np.uint8)
        self._vector = vectors.receive_request(self.memory, peer)
        self._telling = tellings.send_request(self._word, peer)
        self._is_open = False

    def has_come(self) -> bool:
        """Whether there is a vector; the receive begins if none has."""
        if not self._is_open:
            self._vector.Start()
            self._is_open = True
        return self._vector.Test()

    def go_on(self) -> None:
        """The vector is taken: receive the next, and tell."""
        self._vector.Start()
        self._telling.Wait()  # the last one has arrived, since a vector came after it
        self._telling.Start()

    def end(self) -> None:
        """Nothing more is sent: leave no receive behind."""
        if self._is_open:
            self._vector.Cancel()
            self._vector.Wait()
            self._is_open = False
        self._telling.Wait()
