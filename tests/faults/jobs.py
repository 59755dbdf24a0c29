"""Starts a job as a user does and returns how it ended; whatever happens, nothing of it goes on running.

``LEPTON_TEST_LAUNCH`` replaces the words before the number of ranks: ``"mpirun -n"`` for a cluster's own MPI.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
TRAIN = ("-m", "lepton_mpi.train")

# A job of these tests takes 1 to 3 s on 2 free cores; this is for a busy machine and a first compilation.
_LIMIT_SECONDS = 110.0


@dataclass(frozen=True)
class Ended:
    """What a job left: exit code, standard output and error, seconds that it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return f"{self.out}\n{self.err}"

    def lines(self, beginning: str) -> list[str]:
        """Lines of either stream that begin so."""
        return [line for line in self.text.splitlines() if line.startswith(beginning)]


def run(
    ranks: int, *words: str, cwd: Path, limit_seconds: float = _LIMIT_SECONDS, **variables: str
) -> Ended:
    """Run ``python WORDS`` on ``ranks`` ranks to its end; on 0 ranks without a launcher.

    Fails the test if the job takes longer than ``limit_seconds``.
    """
    began = time.monotonic()
    with started(ranks, *words, cwd=cwd, **variables) as job:
        try:
            out, err = job.communicate(timeout=limit_seconds)
        except subprocess.TimeoutExpired as error:
            shown = "\n".join(
                (part or b"").decode(errors="replace") for part in (error.stdout, error.stderr)
            )
            raise AssertionError(
                f"the job still runs after {limit_seconds:g} s; its output:\n{shown}"
            ) from None
    return Ended(job.returncode, out, err, time.monotonic() - began)


@contextmanager
def started(ranks: int, *words: str, cwd: Path, **variables: str) -> Iterator[subprocess.Popen]:
    """Start ``python WORDS`` on ``ranks`` ranks; at the end of the block kill what is left of it."""
    launch = shlex.split(os.environ.get("LEPTON_TEST_LAUNCH", "")) or [
        str(ROOT / "run_local.sh"),
        "mpi",
    ]
    command = [*([*launch, str(ranks)] if ranks else []), sys.executable, *words]
    job = subprocess.Popen(
        command,
        cwd=cwd,
        env=clean_environment() | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield job
    finally:
        kill(job)
        for pipe in (job.stdout, job.stderr):
            pipe.close()


def run_over_hosts(
    ranks_per_host: list[str], *words: str, limit_seconds: float = 100.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """``python WORDS`` on two emulated hosts, however it ends; skips the test where there is no root for them.

    Fails the test, and ends the hosts with all that runs in them, if the job takes longer than ``limit_seconds``.
    """
    hosts = ["--hosts", "2", "--ranks-per-host", *ranks_per_host, "--rate", "1gbit"]
    command = [sys.executable, "-m", "benchmarks.emulated_hosts", *hosts, "--", sys.executable]
    job = subprocess.Popen(
        [*command, *words],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = job.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        job.terminate()  # it removes its hosts, which ends all that runs in them
        with suppress(subprocess.TimeoutExpired):
            job.wait(20)
        kill(job)
        out, err = job.communicate()
        raise AssertionError(
            f"the job still runs after {limit_seconds:g} s; its output:\n{out}\n{err}"
        ) from None
    if job.returncode == 4:
        pytest.skip(err.strip()[-300:])
    return subprocess.CompletedProcess(job.args, job.returncode, out, err)


def metrics(path: Path) -> list[dict]:
    """The objects of a metrics file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def processes_with(word: str) -> list[psutil.Process]:
    """All living processes with ``word`` in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            living = process.status() != psutil.STATUS_ZOMBIE
            if living and any(word in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            pass
    return found


def clean_environment(*more: str) -> dict[str, str]:
    """This process's, without what an MPI library, or ``lepton_mpi.torch``, may have put there when it was loaded, and what begins with ``more``."""
    alien = ("OMPI_COMM_WORLD_", "PMIX_", "PMI_", "PRTE_LAUNCHED")
    alien += ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", *more)
    return {name: value for name, value in os.environ.items() if not name.startswith(alien)}


def kill(job: subprocess.Popen) -> None:
    """End the job's process group, and the ranks, to which launchers give groups of their own."""
    if job.poll() is None:
        ranks = psutil.Process(job.pid).children(recursive=True)
        os.killpg(job.pid, signal.SIGKILL)
        for process in ranks:
            with suppress(psutil.NoSuchProcess):
                process.kill()  # checks that the number still belongs to the same process
        job.wait()
