"""A host is lost, or ranks of several hosts are, and the others end the run with the bits of one that nothing happened to.

On emulated hosts; skipped where there is no root for them.

LEPTON_ELASTIC_HOST_SEEDS=0:50 python -m pytest -s tests/faults/test_elastic_hosts.py      the long form
"""

import os
import random
import re
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import pytest

from benchmarks.emulated_hosts import EmulatedHosts
from benchmarks.host_runs import HostsUnavailableError, kill
from tests.faults import jobs
from tests.faults.recoveries import needs_ulfm, seconds_in, told_at_the_end

_SEEDS = range(*map(int, os.environ.get("LEPTON_ELASTIC_HOST_SEEDS", "0:4").split(":")))
_STEPS = 360
_POINTS = ("input", "exchange", "step")
# 18 steps an epoch, which take 10 to 30 ms.
_TRAIN = (*jobs.TRAIN, "--recipe", "digits", "--epochs", "60", "--progress", "plain")
_LIMIT_SECONDS = 3.0
_ELASTIC = ("--elastic", "--peer-timeout", f"{_LIMIT_SECONDS:g}", "--timeout", "60")
_LAUNCH = [
    "--rtos",
    "recoverable",
    "--mca",
    "mpi_ft_enable",
    "1",
    "--prtemca",
    "oob_tcp_keepalive_time",
    "0",
]
_WITH_ULFM = ("--with-ft", "ulfm")
# The ranks meet for the last time, behind what they train, once the host is lost.
_ENDS_LATER = """
import sys
import time

from lepton_mpi.world.world import run


def wait(world):
    world.losses.is_awaited = True  # as ``elastic.train`` leaves it
    world.agree(None)
    if world.rank == 0:
        print("epoch 1", flush=True)
    time.sleep(2)


sys.exit(run(wait, 60, LIMIT, is_elastic=True))
"""


# A rank that dies while the others wait for a host that is not known to be lost yet.
_DIES_LATER = """
import os
import signal
import threading

from lepton_mpi import QuietHook


class Dies(QuietHook):
    def __init__(self, run):
        pass

    def after_epoch(self, run):
        if run.epoch == 1 and run.world.size == 4 and run.world.rank == 1:
            threading.Timer(1.2, os.kill, [os.getpid(), signal.SIGKILL]).start()
"""


class _Ended(NamedTuple):
    """How a job ended; when each line came, and when the host lost its network, both in seconds from the start; what was left."""

    code: int
    lines: list[tuple[float, str]]
    lost_at: float
    left: list[int]

    @property
    def text(self) -> str:
        return "\n".join(f"{at:.2f} {line}" for at, line in self.lines)

    def starting(self, beginning: str) -> list[tuple[float, str]]:
        return [(at, line) for at, line in self.lines if line.startswith(beginning)]

    def figures(self) -> list[str]:
        assert "Traceback" not in self.text, self.text
        return [line for _, line in self.lines if re.match("test |weights ", line)]


def _run(
    ranks_per_host: list[int],
    folder,
    lost: int | None = None,
    behind: str = r"epoch +1\b",
    launch=_LAUNCH,
    words=(*_TRAIN, *_ELASTIC),
) -> _Ended:
    """A run over emulated hosts; ``lost`` loses its network at the first line that begins with ``behind``. ``words`` are those of Python."""
    try:
        with EmulatedHosts(ranks_per_host, "1gbit") as hosts:
            command = hosts.mpirun([sys.executable, *words], launch)
            pipe = subprocess.PIPE
            job = hosts.start(command, stdout=pipe, stderr=pipe, text=True, cwd=folder)
            try:
                return _followed(hosts, job, lost, behind)
            finally:
                kill(job)
                job.stdout.close()
                job.stderr.close()
    except HostsUnavailableError as error:
        pytest.skip(str(error))


def _followed(hosts: EmulatedHosts, job, lost: int | None, behind: str) -> _Ended:
    began, lines, has_come = time.monotonic(), [], threading.Event()

    def read(stream) -> None:
        for line in stream:
            lines.append((time.monotonic() - began, line.rstrip("\n")))
            if re.match(behind, line):
                has_come.set()

    # In one pipe a line of the launcher's may be in the middle of one of a rank's.
    readings = [
        threading.Thread(target=read, args=(stream,)) for stream in (job.stdout, job.stderr)
    ]
    for reading in readings:
        reading.start()
    lost_at = 0.0
    if lost is not None:
        assert has_come.wait(60), lines
        hosts.cut_network(lost)
        lost_at = time.monotonic() - began
    try:
        job.wait(90)
    except subprocess.TimeoutExpired:
        said = "\n".join(line for _, line in lines)
        raise AssertionError(f"the job still runs after 90 s; its output:\n{said}") from None
    for reading in readings:
        reading.join(10)
    end = time.monotonic() + _LIMIT_SECONDS + 15
    while (left := hosts.processes()) and time.monotonic() < end:
        time.sleep(0.1)
    return _Ended(job.returncode, lines, lost_at, left)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[str]:
    """On one host."""
    job = jobs.run(2, *_TRAIN, cwd=tmp_path_factory.mktemp("undisturbed"))
    return re.findall(r"^(?:test|weights) .*$", job.out, re.MULTILINE)


@pytest.fixture(scope="module")
def recoveries():
    """Seconds from each loss, as it was noticed, to the first step behind it."""
    with told_at_the_end() as found:
        yield found


def _seconds(ended: _Ended) -> list[float]:
    return seconds_in(line for _, line in ended.starting("elastic"))


@pytest.mark.slow(but_every=4)
@needs_ulfm
@pytest.mark.parametrize("seed", _SEEDS)
def test_a_host_of_two_is_lost(tmp_path, undisturbed, recoveries, seed):
    """Behind a random epoch; noticed in the limit and 2 s, and nothing is left of either host."""
    epoch = random.Random(seed).randint(1, 20)
    ended = _run([2, 2], tmp_path, lost=1, behind=rf"epoch +{epoch}\b")
    assert ended.figures() == undisturbed, ended.text
    ((at, line),) = ended.starting("elastic")
    assert line.startswith("elastic   rank 2 of 4, rank 3 of 4 died: 2 ranks went on"), line
    assert at - ended.lost_at <= _LIMIT_SECONDS + 2, ended.text
    assert ended.code in (0, 1) and not ended.left, (ended.code, ended.left)
    print(f"seed {seed}: {at - ended.lost_at:.2f} s behind the loss, {_seconds(ended)}", flush=True)
    recoveries += _seconds(ended)


@pytest.mark.slow
@needs_ulfm
def test_with_ulfm_a_launcher_that_looks_after_hosts_is_warned_of(tmp_path, undisturbed):
    """It ends the job with a host, though not in the minutes of this run."""
    ended = _run([1, 2], tmp_path, lost=1, launch=_WITH_ULFM)
    assert ended.figures() == undisturbed, ended.text
    ((_, line),) = ended.starting("lepton_mpi")
    assert line.startswith("lepton_mpi: warning: --elastic: the launcher ends the job 8 minutes"), (
        line
    )


@pytest.mark.slow
@needs_ulfm
def test_the_side_of_the_launcher_goes_on(tmp_path, undisturbed):
    """Where the first host has no network any more the others end themselves, and what was one job is no two."""
    ended = _run([1, 2], tmp_path, lost=0)
    assert ended.figures() == undisturbed, ended.text
    assert not ended.left


@pytest.mark.slow
@needs_ulfm
def test_a_host_is_lost_where_the_job_ends(tmp_path):
    """Nobody goes on without it, and its launcher waits for it all the same."""
    program = tmp_path / "ends_later.py"
    program.write_text(_ENDS_LATER.replace("LIMIT", f"{_LIMIT_SECONDS:g}"))
    ended = _run([1, 1], tmp_path, lost=1, words=[str(program)])
    assert ended.code in (0, 1) and not ended.left, ended
    assert "Traceback" not in ended.text, ended.text


@pytest.mark.slow(but_every=2)
@needs_ulfm
@pytest.mark.parametrize("ranks", [[2, 2], [2, 1, 1]])
def test_a_host_is_lost_while_the_ranks_end(tmp_path, undisturbed, ranks):
    """At the last line and before the launcher has ended. A rank that the others still meet goes on from the copy, and says all once more."""
    ended = _run(ranks, tmp_path, lost=len(ranks) - 1, behind="weights")
    assert ended.figures() in (undisturbed, 2 * undisturbed), ended.text
    assert ended.code in (0, 1) and not ended.left, (ended.code, ended.left)


@pytest.mark.slow
@needs_ulfm
@pytest.mark.parametrize("rank", [0, 2])
def test_a_host_and_a_rank_of_another(tmp_path, monkeypatch, undisturbed, rank):
    """Of three hosts, the first rank or a leader, after the host or before it."""
    monkeypatch.setenv("LEPTON_FAULT", f"step@step=200:rank={rank}:kill")
    ended = _run([2, 1, 1], tmp_path, lost=2)
    assert ended.figures() == undisturbed, ended.text
    said = " ".join(line for _, line in ended.starting("elastic"))
    assert f"rank {rank} of " in said and not ended.left, ended.text


@pytest.mark.slow
@needs_ulfm
def test_a_rank_dies_before_a_host_is_known_to_be_lost(tmp_path, undisturbed):
    """All are told of it, also by MPI, which then sends to the ranks of that host."""
    hook = tmp_path / "dies_later.py"
    hook.write_text(_DIES_LATER)
    words = (*_TRAIN, *_ELASTIC, "--hook", f"{hook}:Dies")
    ended = _run([2, 1, 1], tmp_path, lost=2, words=words)
    assert ended.figures() == undisturbed, ended.text
    ((_, line),) = ended.starting("elastic")
    assert line.startswith("elastic   rank 1 of 4, rank 3 of 4 died: 2 ranks"), line
    assert not ended.left


@pytest.mark.slow(but_every=4)
@needs_ulfm
@pytest.mark.parametrize("seed", _SEEDS)
def test_ranks_of_two_hosts_die(tmp_path, monkeypatch, undisturbed, recoveries, seed):
    """1 to 3 of 4, at points of random steps: leaders and others."""
    draw = random.Random(seed)
    victims = draw.sample(range(4), draw.randint(1, 3))
    faults = [
        f"{draw.choice(_POINTS)}@step={draw.randint(1, _STEPS - 1)}:rank={rank}:kill"
        for rank in victims
    ]
    monkeypatch.setenv("LEPTON_FAULT", ", ".join(faults))
    # Every other of them compares digests over the hosts.
    checks = ("--check-every", "3") if seed % 2 else ()
    ended = _run([2, 2], tmp_path, words=(*_TRAIN, *_ELASTIC, *checks))
    assert ended.figures() == undisturbed, ended.text
    assert ended.starting("elastic") and not ended.left, ended.text
    assert bool(ended.starting("checked")) == bool(checks), ended.text
    print(f"seed {seed}: {faults}, {_seconds(ended)}", flush=True)
    recoveries += _seconds(ended)
