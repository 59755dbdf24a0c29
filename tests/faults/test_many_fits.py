"""``fit`` as often as a program wants: no call leaves a file, a thread, a communicator or memory behind."""

import json
from pathlib import Path

import pytest

from tests.faults import jobs

_HELD = """
import gc, json, os, sys
from pathlib import Path
import lepton_mpi
from lepton_mpi.launcher import launched_rank

def held():
    gc.collect()  # mappings of memory that nobody holds any more
    from mpi4py import MPI
    probe = MPI.COMM_WORLD.Dup()  # gets the lowest number that is free
    number = probe.py2f()
    probe.Free()
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "next communicator": number,
        "mappings": len(Path("/proc/self/maps").read_text().splitlines()),
    }

def report(figures):
    Path(f"report-{launched_rank()}.json").write_text(json.dumps(figures))

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
"""

_MANY = """
hook = sys.excepthook
def fits(times):
    return {lepton_mpi.fit(epochs=1, progress="none", **OPTIONS)["weights_digest"] for _ in range(times)}

digests = fits(5)
before, resident = held(), resident_mib()
digests |= fits(50)
after, grown = held(), resident_mib() - resident
report([before, after, grown, len(digests), sys.excepthook is hook])
"""


def _report(folder: Path, rank: int) -> list:
    """Standard output of several ranks may be mixed within a line."""
    return json.loads((folder / f"report-{rank}.json").read_text())


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("ranks", [2, 1])
@pytest.mark.parametrize("options", [{}, {"allreduce": "ring"}], ids=["in memory", "by messages"])
def test_50_fits_in_one_process(tmp_path, ranks, options):
    """Exactly as much is held after 55 as after 5."""
    program = tmp_path / "many.py"
    program.write_text(_HELD + f"OPTIONS = {options}\n" + _MANY)
    job = jobs.run(ranks, str(program), cwd=tmp_path)
    assert job.code == 0, job.text
    for rank in range(ranks):
        before, after, grown, digests, is_restored = _report(tmp_path, rank)
        assert digests == 1, "every fit of the same data ends with the same weights"
        assert grown < 8, f"rank {rank}: {grown:.1f} MiB more"
        assert abs(after.pop("mappings") - before.pop("mappings")) < 20, f"rank {rank}"
        assert after == before, f"rank {rank}"
        # Among several ranks an exception ends the job, as long as MPI runs.
        assert is_restored == (ranks == 1)


_RAISING = """
class Raising:
    def __init__(self, shape, classes):
        self.shapes = {"weight": (64, classes)}

    def loss_and_gradient(self, *_):
        raise KeyError("on purpose")

def fits(times):
    for _ in range(times):
        try:
            lepton_mpi.fit(Raising, epochs=1, progress="none")
        except KeyError:
            gc.collect()  # a traceback holds the run that it is from

fits(3)
before = held()
fits(20)
report([before, held()])
fits(1)
lepton_mpi.fit(Raising, epochs=1, progress="none")
"""


@pytest.mark.slow
def test_fits_that_raise_leave_nothing_either(tmp_path):
    """A program of one rank may go on after an exception of its model; one that it does not catch is a failed rank."""
    program = tmp_path / "raising.py"
    program.write_text(_HELD + _RAISING)
    job = jobs.run(1, str(program), cwd=tmp_path)
    before, after = _report(tmp_path, 0)
    assert abs(after.pop("mappings") - before.pop("mappings")) < 20
    assert after == before
    assert job.code == 5, job.text
    assert "lepton_mpi: rank 0 of 1 failed:" in job.err and "KeyError: 'on purpose'" in job.err


_AFTERWARDS = """
lepton_mpi.fit(epochs=1, progress="none")
if launched_rank() == 1:
    raise ValueError("after it")
"""


@pytest.mark.slow
def test_an_exception_after_fit_ends_the_job(tmp_path):
    """The other ranks would wait for that one in MPI's end."""
    program = tmp_path / "afterwards.py"
    program.write_text(_HELD + _AFTERWARDS)
    job = jobs.run(2, str(program), cwd=tmp_path)
    assert job.code == 5, job.text
    assert "lepton_mpi: rank 1 of 2 failed:" in job.err and "ValueError: after it" in job.err
