"""Batch scripts with ranks behind them: told to stop, they save, are started again, and go on. Only the batch system is a stand-in."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lepton_mpi.__main__ import main
from tests.faults import jobs

_TRAIN = ("--epochs", "100000", "--hidden", "8", "--progress", "plain", "--metrics", "run.jsonl")

# Launchers of a cluster, whose own options end where the program begins: two ranks of this machine.
_LAUNCHER = """#!/bin/bash
while [[ $1 != python ]]; do shift; done
exec {launch} 2 "$@"
"""
_AGAIN = """#!/bin/bash
echo "$*" >>again
"""


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """Starts a script of a batch system, with the signals that it gets at the begin of a list of functions."""
    launch = (
        os.environ.get("LEPTON_TEST_LAUNCH") or f"{shlex.quote(str(jobs.ROOT))}/run_local.sh mpi"
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        *(
            ("srun", _LAUNCHER.format(launch=launch)),
            ("mpirun_of_pbs", _LAUNCHER.format(launch=launch)),
        ),
        *(("scontrol", _AGAIN), ("qsub", _AGAIN)),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    started = []

    def start(system: str, *words: str, **variables: str) -> subprocess.Popen:
        size = ["--ranks-per-node", "2", *words]
        assert main([system, *size, "--", *_TRAIN]) == 0
        (tmp_path / "job.sh").write_text(capsys.readouterr().out)
        usual = {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(jobs.ROOT),
        }
        job = subprocess.Popen(
            ["bash", "job.sh"],
            env=jobs.clean_environment() | usual | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(job)
        return job

    yield start
    for job in started:
        jobs.kill(job)
        job.stdout.close()


def _wait_for(condition) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_slurm_warns_puts_back_and_the_run_goes_on(tmp_path, start):
    """The second job begins with the epoch in which the first one was stopped."""
    path = tmp_path / "run.jsonl"
    epochs = []
    for restart in range(2):
        job = start("slurm", "--time", "1h", SLURM_JOB_ID="17", SLURM_RESTART_COUNT=str(restart))
        _wait_for(lambda: path.exists() and len(jobs.metrics(path)) > 3 + sum(map(len, epochs)))
        job.send_signal(signal.SIGUSR1)
        out, _ = job.communicate(timeout=90)
        assert job.returncode == 75, out
        assert "lepton_mpi: SIGUSR1: stopped after step" in out
        assert "Slurm starts this job again" in out
        lines = jobs.metrics(path)
        starts = [place for place, line in enumerate(lines) if line["event"] == "start"]
        assert len(starts) == restart + 1
        epochs.append([line["epoch"] for line in lines[starts[-1] + 1 :]])
    assert (tmp_path / "again").read_text() == 2 * "requeue 17\n"
    assert epochs[0] + epochs[1] == list(range(1, epochs[1][-1] + 1))


@pytest.mark.slow
def test_pbs_is_warned_while_the_ranks_start(tmp_path, start):
    """A second after the job began: what came before there was anything to save is answered after the first steps."""
    words = ("--time", "1min", "--warn", "59s", "--launcher", "mpirun_of_pbs")
    job = start("pbs", *words, PBS_O_WORKDIR=str(tmp_path))
    out, _ = job.communicate(timeout=90)
    assert job.returncode == 75, out
    assert "lepton_mpi: SIGUSR1: stopped after step" in out
    assert (tmp_path / "again").read_text() == "-v LEPTON_RESTARTS=1 job.sh\n"
    assert list((tmp_path / "lepton").glob("step-*.h5"))
