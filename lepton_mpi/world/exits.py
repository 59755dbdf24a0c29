"""How a process ends that has lost ranks: without MPI's end, which may wait for them for ever, and with its own exit code.

mpi4py ends MPI behind Python's own end, where nobody can stop it. So where ranks may be lost it is told not to, and ``_end`` does, which
knows whether one was. A program that has imported mpi4py before this package has its MPI ended by it: then the process leaves at once, with
the code of the last run.

Where ranks have joined, MPI's end waits for them, or they for it, too. They and the others tell the launcher alone that they end: it takes a
process that joined, and ends without a word, for one that failed. So do ranks of several hosts that can go on without each other: a host may
be lost while the others end.
"""

import atexit
import os
import sys
from contextlib import suppress
from functools import cache

from lepton_mpi.world import pmix

# What the last ``world.run`` has returned; whether a world has begun; whether ranks were lost; whether some have joined; whether a world was
# of several hosts that can go on without each other.
exit_code, has_begun, has_lost, has_grown, had_hosts = 0, False, False, False, False


@cache
def watch_end(ends_mpi: bool) -> None:
    """Behind the hooks that are registered later than this one, end MPI, unless it may wait for ever; ``ends_mpi`` says that mpi4py does not."""
    atexit.register(_end, os.getpid(), ends_mpi)


def _end(process_id: int, ends_mpi: bool) -> None:
    if os.getpid() != process_id:  # forked: MPI is not its own
        return
    leaves_alone = has_grown or had_hosts
    if leaves_alone:
        pmix.leave_launcher()
    if not has_lost and not leaves_alone:
        if ends_mpi:
            from mpi4py import MPI

            if not MPI.Is_finalized():
                MPI.Finalize()
    elif not ends_mpi:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(exit_code)
