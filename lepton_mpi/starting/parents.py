"""A process that ends with the one that has started it, whatever ends that. Needs the standard library alone."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> Callable[[], None]:
    """For a new process to call: SIGTERM when the process ``parent`` dies, at once if it has died already."""
    library = ctypes.CDLL(None)

    def set_up() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return set_up
