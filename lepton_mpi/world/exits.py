"""How a process ends that has lost ranks: without MPI's end, which may wait for them for ever."""

import atexit
import os
import sys
from contextlib import suppress
from functools import cache

# What ``world.run`` has returned; whether ranks were lost.
exit_code, has_lost = 0, False


@cache
def watch_end() -> None:
    """Where ``has_lost``, the process ends with ``exit_code`` behind the hooks that are registered later than this one."""
    atexit.register(_end)


def _end() -> None:
    if not has_lost:
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(exit_code)
