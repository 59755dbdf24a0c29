"""What the data need of the world."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np


class Host(Protocol):
    """This host's memory, this rank's place in it, agreement, and where time is booked."""

    local_rank: int
    local_size: int
    clock: Any  # of watchdog.py

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype, name: str = "") -> np.ndarray:
        """Array shared by the ranks of this host."""

    def agreeing(self) -> AbstractContextManager:
        """A block in which an error of one rank is raised on all of them."""

    def agree_on(self, what: str, value: Any) -> None:
        """Raise an error on every rank unless all ranks hold the same ``value``."""

    def host_barrier(self) -> None:
        """Wait for all ranks of this host."""

    def least(self, value: int) -> int:
        """The least of all ranks' numbers."""

    def memory_available(self) -> int:
        """Bytes of memory that this host has free for this job."""
