"""Forked children, output that nobody takes, and input that never ends: one line each, and nobody waits."""

import os
import subprocess
import sys

import pytest

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options.toml_file import TomlFile
from lepton_mpi.run import checkpoint
from tests.faults import jobs

_FORKING = """
import os, sys
from lepton_mpi.world.world import run

def main(world):
    child = os.fork()
    if child == 0:
        {action}
        return
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    total = int(world.sum(__import__("numpy").array([code]))[0])
    if world.rank == 0:
        print("codes", total)

raise SystemExit(run(main, 20))
"""


@pytest.mark.parametrize(
    ("action", "code", "said"),
    [
        ("raise ValueError('on purpose')", 1, "ValueError: on purpose"),
        ("sys.exit(3)", 3, ""),
        ("pass", 0, ""),
        ("world.fail('in a child', 7)", 1, "in a child"),
    ],
    ids=["raises", "leaves", "returns", "fails"],
)
def test_a_forked_child_ends_and_its_rank_goes_on(tmp_path, action, code, said):
    """A child has no part in MPI's end, nor in the watch over its rank."""
    path = tmp_path / "forking.py"
    path.write_text(_FORKING.format(action=action))
    job = jobs.run(2, str(path), cwd=tmp_path)
    assert job.code == 0, job.text
    assert f"codes {2 * code}" in job.out, job.text
    assert said in job.err, job.text
    assert "made no progress" not in job.err, job.text


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "standard output is closed"), (">/dev/full", "cannot write to standard output")],
)
def test_output_that_cannot_be_written_is_one_line(tmp_path, redirection, reason):
    """Without a launcher; one takes the ranks' output, and drops it."""
    command = f"exec {sys.executable} -m lepton_mpi.train --epochs 1 {redirection}"
    job = subprocess.run(["sh", "-c", command], cwd=jobs.ROOT, stderr=subprocess.PIPE, timeout=100)
    said = job.stderr.decode()
    assert job.returncode == 4, said
    (line,) = [line for line in said.splitlines() if line.startswith("lepton_mpi")]
    assert reason in line, said
    assert "Traceback" not in said, said


@pytest.mark.timeout(30)
def test_a_named_pipe_is_no_input(tmp_path):
    """It would be waited for, and each rank reads its files itself."""
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    for read, error in (
        (lambda: TomlFile("--config", str(path)), ConfigurationError),
        (lambda: checkpoint.verify(path), DataError),
    ):
        with pytest.raises(error, match="pipe"):
            read()


def test_a_named_pipe_is_not_prepared(tmp_path):
    """One line and the exit code of wrong data."""
    os.mkfifo(tmp_path / "pipe.csv")
    job = jobs.run(
        0, "-m", "lepton_mpi", "prepare", "pipe.csv", "out.h5", cwd=tmp_path, limit_seconds=60
    )
    assert job.code == 3, job.text
    (line,) = job.text.strip().splitlines()
    assert "pipe.csv: expected a file" in line
