"""Ranks as threads of one process: the transport of the tests and of every example without MPI.

A send copies its memory into the mailbox of (source, dest) and never blocks, as MPI's may do for small
messages; a receive takes the oldest. ``rendezvous=True`` holds a send back until it is received, as MPI
does for large ones, so that a schedule which deadlocks in earnest deadlocks here too.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np


class ThreadWorld:
    """Mailboxes for ``world_size`` ranks; ``transport(rank)`` is one rank's view."""

    def __init__(
        self, world_size: int, *, rendezvous: bool = False, timeout_seconds: float = 30.0
    ) -> None:
        self.world_size = world_size
        self.rendezvous = rendezvous
        self.timeout_seconds = timeout_seconds
        self.failed = threading.Event()
        pairs = [(source, dest) for source in range(world_size) for dest in range(world_size)]
        self.mailboxes = {pair: queue.SimpleQueue() for pair in pairs}

    def transport(self, rank: int) -> "ThreadTransport":
        """Transport of ``rank``."""
        return ThreadTransport(self, rank)

    def take(self, get: Callable[..., Any]) -> Any:
        """Wait by ``get(timeout=…)``; end early if another rank failed. Raises TimeoutError."""
        waited = 0.0
        while waited < self.timeout_seconds and not self.failed.is_set():
            try:
                return get(timeout=0.05)
            except queue.Empty:
                waited += 0.05
        raise TimeoutError(
            "another rank failed" if self.failed.is_set() else f"no message in {waited:.0f} s"
        )


class ThreadTransport:
    """See ``messages.Transport``."""

    def __init__(self, world: ThreadWorld, rank: int) -> None:
        self.world, self.rank, self.world_size = world, rank, world.world_size
        self.elements_sent = 0

    def send_request(self, memory: np.ndarray, dest: int) -> "_Send":
        return _Send(self, memory, self.world.mailboxes[self.rank, dest])

    def receive_request(self, memory: np.ndarray, source: int) -> "_Receive":
        return _Receive(self, memory, self.world.mailboxes[source, self.rank])


class _Send:
    def __init__(
        self, transport: ThreadTransport, memory: np.ndarray, mailbox: queue.SimpleQueue
    ) -> None:
        self.transport, self.memory, self.mailbox = transport, memory, mailbox
        self._is_open = False

    def Start(self) -> None:
        self._is_open = True
        self.received: queue.SimpleQueue = queue.SimpleQueue()
        rendezvous = self.transport.world.rendezvous
        self.mailbox.put((self.memory if rendezvous else self.memory.copy(), self.received))
        self.transport.elements_sent += self.memory.size

    def Wait(self) -> None:
        if self._is_open and self.transport.world.rendezvous:
            self.transport.world.take(self.received.get)
        self._is_open = False

    def Test(self) -> bool:
        if self._is_open and not (self.transport.world.rendezvous and self.received.empty()):
            self.Wait()
        return not self._is_open


class _Receive:
    def __init__(
        self, transport: ThreadTransport, memory: np.ndarray, mailbox: queue.SimpleQueue
    ) -> None:
        self.transport, self.memory, self.mailbox = transport, memory, mailbox
        self._is_open = False

    def Start(self) -> None:
        self._is_open = True

    def Wait(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        sent, received = self.transport.world.take(self.mailbox.get)
        assert sent.shape == self.memory.shape, (sent.shape, self.memory.shape)
        self.memory[...] = sent
        received.put(None)

    def Test(self) -> bool:
        if self._is_open and not self.mailbox.empty():
            self.Wait()
        return not self._is_open

    def Cancel(self) -> None:
        self._is_open = False


def run_ranks(world: ThreadWorld, function: Callable[[ThreadTransport], Any]) -> list[Any]:
    """Call ``function(transport)`` on every rank at once; results in rank order.

    The first exception of any rank is raised again here, with the rank in a note.

    >>> run_ranks(ThreadWorld(3), lambda transport: transport.rank ** 2)
    [0, 1, 4]
    """
    results: list[Any] = [None] * world.world_size
    errors: list[tuple[int, BaseException]] = []

    def call(rank: int) -> None:
        try:
            results[rank] = function(world.transport(rank))
        except BaseException as error:
            errors.append((rank, error))
            world.failed.set()

    threads = [threading.Thread(target=call, args=(rank,)) for rank in range(world.world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank, error in errors[:1]:
        error.add_note(f"on rank {rank} of {world.world_size}")
        raise error
    return results
