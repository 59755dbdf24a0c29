"""Locks between the ranks of a host, served in the order of asking (ticket lock): whoever holds one works on a part of a vector.

Source: Mellor-Crummey and Scott, "Algorithms for scalable synchronization on shared-memory multiprocessors", ACM TOCS 9(1), 1991.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host.atomics import LINE_WORDS
from lepton_mpi.collectives.within_host.ticket_kernels import is_served, serve_next, take_ticket


class TicketLocks:
    """``count`` locks. Making them is collective over the host.

    A rank that dies while it holds one holds up the others, until the watchdog ends the job.
    """

    def __init__(self, group: Group, count: int) -> None:
        self._words = group.host_array((max(1, 2 * count * LINE_WORDS),), np.int64)

    @contextmanager
    def held(self, number: int, go_on: Callable[[], object]) -> Iterator[None]:
        """While this rank holds lock ``number``; ``go_on`` is called while it waits for it."""
        ticket = take_ticket(self._words, number)
        while not is_served(self._words, number, ticket):
            go_on()
            os.sched_yield()
        try:
            yield
        finally:
            serve_next(self._words, number, ticket)
