"""One process that is all ranks: what needs a world runs without MPI and without a launcher."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lepton_mpi.world import memory
from lepton_mpi.world.watchdog import PhaseClock


class Alone:
    """Rank 0 of 1: of ``World`` what reading, preparing and evaluating ask for. Starts no MPI, no thread and no watchdog.

    Errors are raised where they occur: there is nobody to agree with. ``comm`` is the object itself.
    """

    def __init__(self) -> None:
        self.rank = self.local_rank = 0
        self.size = self.local_size = 1
        self.comm, self.clock = self, PhaseClock()

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """A block of plain code."""
        yield

    def agree_on(self, what: str, value: Any) -> None:
        """One rank agrees with itself."""

    def bcast(self, value: Any, root: int = 0) -> Any:
        """``value``."""
        return value

    def allgather(self, value: Any) -> list[Any]:
        """``value``, of the only rank."""
        return [value]

    def Allreduce(self, values: np.ndarray, out: np.ndarray) -> None:
        """Copy ``values`` to ``out``; called as mpi4py's."""
        out[...] = values

    def broadcast(self, value: Any) -> Any:
        """``value``."""
        return value

    def sum(self, values: np.ndarray) -> np.ndarray:
        """A copy of ``values``."""
        return values.copy()

    def array_of(self, rank: int, values: np.ndarray) -> np.ndarray:
        """``values``, of the only rank."""
        return values

    def host_array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = ""
    ) -> np.ndarray:
        """Zeros."""
        return np.zeros(shape, dtype)

    def host_barrier(self) -> None:
        """There is nobody to wait for."""

    def least(self, value: int) -> int:
        """``value``."""
        return value

    def memory_available(self) -> int:
        """Bytes of memory that this host has free."""
        return memory.available_bytes()
