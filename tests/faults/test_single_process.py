"""One process without a launcher: its ends have their exit codes, one report, no word of MPI, and leave nothing behind."""

import pytest

from tests.faults import jobs

_PROGRAM = """
import os, sys, threading, time
from pathlib import Path
from lepton_mpi.errors import DataError
from lepton_mpi.world.world import run

def fails():
    raise ValueError("on purpose")

def main(world):
    files = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/shm/" in line}
    print("named memory", sorted(name for name in files if os.path.exists(name)), flush=True)
    how = sys.argv[1]
    if how == "raises":
        fails()
    if how == "leaves":
        sys.exit(3)
    if how == "data":
        raise DataError("rows.h5: row 3: on purpose")
    if how == "thread":
        threading.Thread(target=fails).start()
    if how in ("thread", "hangs"):
        world.clock.enter("compute", 1)
        time.sleep(60)

raise SystemExit(run(main, 3.0))
"""


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("ends", 0, ""),
        ("raises", 5, "lepton_mpi: rank 0 of 1 failed:"),
        ("leaves", 5, "lepton_mpi: rank 0 of 1 left by sys.exit(3)"),
        ("data", 3, "lepton_mpi: rank 0 of 1: rows.h5: row 3: on purpose"),
        ("thread", 5, "lepton_mpi: rank 0 of 1 failed:"),
        ("hangs", 5, "lepton_mpi: rank 0 of 1 made no progress for 3 s"),
    ],
)
def test_ends(tmp_path, how, code, said):
    """Open MPI would print that it was aborted, and keep a file of 16 MiB in /dev/shm after every one of them."""
    path = tmp_path / "ends.py"
    path.write_text(_PROGRAM)
    job = jobs.run(0, str(path), how, cwd=tmp_path)
    assert job.code == code, job.text
    assert job.out == "named memory []\n"
    assert job.err.startswith(said) and bool(job.err) == bool(said)
    assert "Sorry" not in job.err and "----" not in job.err and "MPI_ABORT" not in job.err
    assert job.err.count("lepton_mpi: ") == bool(said), job.err


def test_what_it_starts_knows_nothing_of_that(tmp_path):
    """The variables are as they were, so that ranks which it starts have shared memory."""
    code = "import os, lepton_mpi.world.mpi; print(os.environ.get('OMPI_MCA_btl'))"
    job = jobs.run(0, "-c", code, cwd=tmp_path, OMPI_MCA_btl="^ofi")
    assert job.out == "^ofi\n", job.text


_FAILED_START = """
import os, sys, threading
from lepton_mpi import report_word
from lepton_mpi.world import watched_group as made
from lepton_mpi.world.world import World
import ctypes

def held():
    address = ctypes.c_int64.from_address(report_word.place()).value
    return [len(os.listdir("/proc/self/fd")), address, sys.excepthook.__qualname__, threading.active_count()]

World().close()  # MPI has begun, and kernels of the library are there
before = held()

def fails(*_):
    raise OSError("on purpose")

for name in ("Stopping", "Watchdog", "HostLinks", "Failure", "CrashStacks"):
    usual = getattr(made, name)
    setattr(made, name, fails)
    try:
        World()
    except OSError:
        print(name, held() == before or (before, held()))
    setattr(made, name, usual)
World().close()
print(held() == before)
"""


def test_a_start_that_fails_leaves_nothing(tmp_path):
    """Neither descriptors, threads and hooks, nor an address that is no longer mapped."""
    job = jobs.run(0, "-c", _FAILED_START, cwd=tmp_path)
    names = ("Stopping", "Watchdog", "HostLinks", "Failure", "CrashStacks")
    assert job.out.splitlines() == [*(f"{name} True" for name in names), "True"], job.text
