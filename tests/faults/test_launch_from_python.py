"""``lepton_mpi.launch``: results and errors of ranks come back to the program, and nothing goes on running, however it ends."""

import os
import signal
import time

import psutil
import pytest

from tests.faults import jobs

_HEAD = """
import os, signal, sys, time
import lepton_mpi
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError, LeptonError, RankError

def rank():
    from mpi4py import MPI
    return MPI.COMM_WORLD.rank

def tried(*args, **kwargs):
    try:
        print("returned", lepton_mpi.launch(*args, **kwargs), flush=True)
    except BaseException as error:
        notes = "".join(getattr(error, "__notes__", []))
        print("raised", type(error).__name__, str(error), notes, flush=True)
"""


def _run(tmp_path, program, **more):
    path = tmp_path / "program.py"
    path.write_text(_HEAD + program)
    return jobs.run(0, str(path), cwd=tmp_path, **more)


def test_results_come_back(tmp_path):
    """Of functions of the program itself and of a module; what ranks print is printed; two launches in turn."""
    (tmp_path / "my_module.py").write_text("def double(x):\n    return 2 * x\n")
    program = """
import my_module

def total(part, more=0):
    from mpi4py import MPI
    print("I am", MPI.COMM_WORLD.rank)
    return MPI.COMM_WORLD.allreduce(part) + more

tried(total, ranks=3, args=(2,), kwargs={"more": 0.5})
tried(my_module.double, 2, ([1],))
outside = [1, 2, 3]
tried(lambda: (outside, rank()), ranks=1, quiet=True)
"""
    ended = _run(tmp_path, program)
    assert ended.lines("returned") == ["returned 6.5", "returned [1, 1]", "returned ([1, 2, 3], 0)"], ended.text  # fmt: skip
    assert sorted(ended.lines("I am")) == ["I am 0", "I am 1", "I am 2"]


def test_an_error_of_a_rank_comes_back(tmp_path):
    """With its traceback while the others wait; errors that are meant for the user as they are."""
    program = """
def divide():
    from mpi4py import MPI
    if rank() == 1:
        1 / 0
    MPI.COMM_WORLD.barrier()

def wrong_data():
    lepton_mpi.fit(data="none.h5", raises=True, progress="none")

def leaves():
    from mpi4py import MPI
    if rank() == 2:
        sys.exit(7)
    MPI.COMM_WORLD.barrier()

tried(divide, ranks=3)
tried(wrong_data, ranks=2)
tried(leaves, ranks=3, quiet=True)
tried(lambda: (n for n in ()), ranks=2)
tried(lambda: 1, ranks=1, args=((n for n in ()),))
tried("no function", ranks=2)
tried(divide, ranks=0)
"""
    ended = _run(tmp_path, program)
    raised = ended.text.split("raised ")[1:]
    assert raised[0].startswith("RankError rank 1 of 3 failed: ZeroDivisionError: division by zero")
    assert 'in divide' in raised[0], ended.text  # fmt: skip
    assert raised[1].startswith("DataError none.h5: no such file"), ended.text
    assert "on rank " in raised[1] and "in wrong_data" in raised[1]
    assert raised[2].startswith("RankError rank 2 of 3 failed: SystemExit: 7")
    assert raised[3].startswith("ConfigurationError launch: the result of rank 0 cannot be pickled for the caller")  # fmt: skip
    assert raised[4].startswith("ConfigurationError launch: function or arguments cannot be pickled")  # fmt: skip
    assert raised[5].startswith("ConfigurationError launch: expected a function")
    assert raised[6].startswith("ConfigurationError ranks: expected a whole number of at least 1, got 0")  # fmt: skip


@pytest.mark.slow
def test_a_rank_that_dies_and_one_that_waits_for_ever(tmp_path):
    """The first ends the job with its number, the second by the time limit; no rank is left."""
    program = """
def dies():
    from mpi4py import MPI
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    MPI.COMM_WORLD.barrier()

def waits():
    if rank() == 0:
        time.sleep(1000)

began = time.monotonic()
tried(dies, ranks=3)
tried(waits, ranks=2, timeout=6)
print("seconds", time.monotonic() - began)
"""
    ended = _run(tmp_path, program)
    first, second = ended.text.split("raised ")[1:]
    assert first.startswith("RankError") and "the job of 3 ranks ended with exit code" in first, ended.text  # fmt: skip
    assert second.startswith("RankError the ranks have not ended in 6 s (timeout)")
    assert not jobs.processes_with("lepton_mpi.starting.rank")


def test_inside_of_a_job_it_is_refused(tmp_path):
    """By the ranks of launch, and by those of mpirun."""
    program = """
def inner():
    lepton_mpi.launch(rank, ranks=2)

if "--ranks" in sys.argv:
    tried(rank, ranks=2)
else:
    tried(inner, ranks=2)
"""
    ended = _run(tmp_path, program)
    expected = "raised LauncherError launch: expected a process that is no rank itself, got rank"
    assert ended.lines(expected), ended.text
    ended = jobs.run(2, str(tmp_path / "program.py"), "--ranks", cwd=tmp_path)
    assert len(ended.lines(expected)) == 2, ended.text


_SLEEPING = """
def sleeps():
    print("rank", rank(), "sleeps", flush=True)
    time.sleep(1000)

tried(sleeps, ranks=3)
"""


def _started(tmp_path):
    (tmp_path / "program.py").write_text(_HEAD + _SLEEPING)
    return jobs.started(0, str(tmp_path / "program.py"), cwd=tmp_path, PYTHONUNBUFFERED="1")


def _ranks_below(process_id):
    below = psutil.Process(process_id).children(recursive=True)
    return [p for p in below if any("starting.rank" in word for word in p.cmdline())]


def _until_all_sleep(job):
    for _ in range(3):
        assert job.stdout.readline().startswith("rank ")
    return _ranks_below(job.pid)


def _assert_all_end(processes):
    """Within half a minute, on a machine that is busy."""
    _, left = psutil.wait_procs(processes, 30)
    assert not left


def test_ctrl_c_ends_the_ranks(tmp_path):
    """The program gets KeyboardInterrupt when they have ended."""
    with _started(tmp_path) as job:
        ranks = _until_all_sleep(job)
        assert len(ranks) >= 3
        began = time.monotonic()
        os.kill(job.pid, signal.SIGINT)
        out, err = job.communicate(timeout=60)
        assert "raised KeyboardInterrupt" in out, out + err
        assert not [p for p in ranks if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert time.monotonic() - began < 30


def test_ranks_end_with_the_program(tmp_path):
    """Also when it is killed and cannot say so."""
    with _started(tmp_path) as job:
        ranks = _until_all_sleep(job)
        job.kill()
        job.wait(30)
        _assert_all_end(ranks)


def test_without_cloudpickle(tmp_path):
    """Functions of modules work, others say what is missing."""
    (tmp_path / "my_module.py").write_text("def double(x):\n    return 2 * x\n")
    program = """
import my_module
sys.modules["cloudpickle"] = None
tried(my_module.double, 2, ([1],))
tried(rank, ranks=2)
"""
    ended = _run(tmp_path, program)
    assert ended.lines("returned") == ["returned [1, 1]"], ended.text
    expected = "raised ConfigurationError launch: a function of a notebook or of the program itself needs cloudpickle"
    assert ended.lines(expected), ended.text
