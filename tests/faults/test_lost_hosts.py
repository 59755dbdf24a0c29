"""Ranks that die on one of two emulated hosts, and hosts that lose their network; skipped where there is no root for them."""

import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.emulated_hosts import EmulatedHosts
from benchmarks.host_runs import HostsUnavailableError
from tests.faults import jobs

TRAIN = ("-m", "lepton_mpi.train", "--progress", "none")

# LEPTON_KILLS=100 for the long form.
_KILLS = int(os.environ.get("LEPTON_KILLS", "10"))
_LIMIT_SECONDS = 10.0

_DIES = """
import os, signal
from pathlib import Path

from lepton_mpi import QuietHook


class Dies(QuietHook):
    def __init__(self, run):
        pass

    def after_step(self, run):
        if run.world.rank == RANK and run.step == STEP:
            Path("FOLDER/died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def _run_to_death(folder: Path, rank: int, step: int, *words: str):
    """A job whose ``rank`` is killed after ``step``: how it ended, and how long after that."""
    hook = folder / "dies.py"
    text = _DIES.replace("FOLDER", str(folder)).replace("RANK", str(rank))
    hook.write_text(text.replace("STEP", str(step)))
    options = ("--epochs", "2", "--hook", f"{hook}:Dies", "--timeout", "60")
    ended = jobs.run_over_hosts(["2"], *TRAIN, *options, *words)
    return ended, time.time() - (folder / "died").stat().st_mtime


@pytest.mark.slow(but_every=10)
@pytest.mark.parametrize("number", range(_KILLS))
def test_a_rank_that_dies_is_the_one_that_is_named(tmp_path, number):
    """Nobody waits for ever, neither ranks nor launcher, and MPI's own end of the job does not come first."""
    words = ("--compress", "int8") if number % 2 else ("--bucket-bytes", "3000")
    ended, seconds = _run_to_death(tmp_path, 3, 7 + number, *words)
    found = re.findall(r"lepton_mpi: .*", ended.stdout + ended.stderr)
    assert len(found) == 1, ended.stdout + ended.stderr
    assert re.match(r"lepton_mpi: rank 3 of 4 \(process \d+ on lepton-\w+-b\) died: ", found[0]), (
        found
    )
    assert ended.returncode in (5, 137), ended.returncode
    assert seconds < _LIMIT_SECONDS, seconds


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_a_leader_that_dies_is_named(tmp_path, rank):
    """It is the one with the connections to other hosts."""
    ended, seconds = _run_to_death(tmp_path, rank, 9)
    said = ended.stdout + ended.stderr
    named = re.findall(r"lepton_mpi: rank (\d) of 4 .*died", said)
    assert named and set(named) == {str(rank)}, said
    assert ended.returncode in (5, 137), ended.returncode
    assert seconds < _LIMIT_SECONDS, seconds


def test_a_host_that_loses_its_network_ends_the_job(tmp_path):
    """All processes of both hosts, launchers too; the message names the host and its ranks."""
    limit, path, said = 6.0, tmp_path / "m.jsonl", tmp_path / "said"
    words = ("--epochs", "100000", "--peer-timeout", f"{limit:g}", "--metrics", str(path))
    try:
        hosts = EmulatedHosts([2, 2], "1gbit")
        with hosts, said.open("w") as out:
            job = hosts.start(
                hosts.mpirun([sys.executable, *TRAIN, *words]),
                stdout=out,
                stderr=out,
                cwd=jobs.ROOT,
            )
            assert _until(lambda: len(jobs.metrics(path)) > 1, 60), said.read_text()
            hosts.cut_network(1)
            began = time.monotonic()
            assert _until(lambda: "cannot be reached" in said.read_text(), limit + 20)
            named_seconds = time.monotonic() - began
            assert _until(lambda: not hosts.processes(), limit + 20), said.read_text()
            seconds = time.monotonic() - began
            job.wait(10)
    except HostsUnavailableError as error:
        pytest.skip(str(error))
    text = said.read_text()
    assert re.search(
        r"lepton_mpi: host lepton-\w+-b \(ranks 2, 3 of 4\) cannot be reached from lepton-\w+-a for 6 s",
        text,
    ), text
    assert job.returncode not in (0, None)
    assert named_seconds <= limit + 2, named_seconds
    assert seconds <= limit + 5, seconds


def _until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(FileNotFoundError, ValueError):  # not yet, or a line that is being written
            if condition():
                return True
        time.sleep(0.05)
    return False
