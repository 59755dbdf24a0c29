"""Ranks as threads: what ``prepare`` needs of the world, without MPI, for any number of ranks in one process."""

import queue
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np

from lepton_mpi.world.watchdog import PhaseClock

_SECONDS = 60.0


class ThreadWorld:
    """One rank among threads: the communicator and the agreement of ``World``."""

    def __init__(self, rank: int, size: int, shared: "_Shared") -> None:
        self.rank, self.size = rank, size
        self.local_rank, self.local_size = rank, size
        self.comm, self.clock = self, PhaseClock()
        self._shared = shared

    def allgather(self, value: Any) -> list:
        """Values of all ranks."""
        self._shared.values[self.rank] = value
        self._shared.barrier.wait(_SECONDS)
        values = list(self._shared.values)
        self._shared.barrier.wait(_SECONDS)
        return values

    def bcast(self, value: Any, root: int = 0) -> Any:
        """The root's value."""
        return self.allgather(value)[root]

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value."""
        return self.bcast(value)

    def Allreduce(self, values: np.ndarray, out: np.ndarray) -> None:
        """Sum of all ranks' arrays."""
        out[...] = sum(self.allgather(values.copy()))

    def Send(self, array: np.ndarray, dest: int) -> None:
        """To ``dest``, which waits for it."""
        assert array.flags.c_contiguous
        self._shared.mail[self.rank, dest].put(array.copy())

    def Recv(self, array: np.ndarray, source: int) -> None:
        """From ``source``; shape and type must fit."""
        got = self._shared.mail[source, self.rank].get(timeout=_SECONDS)
        assert (got.shape, got.dtype) == (array.shape, array.dtype)
        array[...] = got

    @contextmanager
    def agreeing(self):
        """As ``World.agreeing``: the error of the lowest rank is raised by all."""
        from lepton_mpi.errors import LeptonError

        error = None
        try:
            yield
        except LeptonError as raised:
            error = raised
        for other in self.allgather(error):
            if other is not None:
                agreed = type(other)(str(other))
                agreed.agreed = True
                raise agreed

    def agree_on(self, what: str, value: Any) -> None:
        """All ranks hold the same."""
        values = self.allgather(value)
        assert all(other == values[0] for other in values), what


class _Shared:
    def __init__(self, size: int) -> None:
        self.values: list = [None] * size
        self.barrier = threading.Barrier(size)
        self.mail = {(a, b): queue.Queue() for a in range(size) for b in range(size)}


def on_ranks(size: int, function: Callable[[ThreadWorld], Any]) -> list:
    """Results of ``function(world)`` on ``size`` ranks; raises what rank 0 raised, which all must raise alike."""
    shared = _Shared(size)
    results: list = [None] * size
    errors: list = [None] * size

    def body(rank: int) -> None:
        try:
            results[rank] = function(ThreadWorld(rank, size, shared))
        except BaseException as error:
            errors[rank] = error
            if not getattr(error, "agreed", False):
                shared.barrier.abort()

    threads = [threading.Thread(target=body, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_SECONDS)
        assert not thread.is_alive(), "a rank is stuck"
    causes = [
        e for e in errors if e is not None and not isinstance(e, threading.BrokenBarrierError)
    ]
    if causes:
        assert len({(type(e), str(e)) for e in errors}) == 1, errors
        raise causes[0]
    return results
