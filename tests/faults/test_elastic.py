"""Ranks are killed, and those that are left end the run with the bits of one that nothing happened to.

LEPTON_ELASTIC_SEEDS=0:100 python -m pytest -s tests/faults/test_elastic.py -k random      the long form
"""

import os
import random
import re
import signal
import time
from statistics import median

import psutil
import pytest

from lepton_mpi.run import checkpoint
from tests.faults import jobs
from tests.faults.recoveries import LAUNCH, has_ulfm, needs_ulfm, seconds_in, told_at_the_end

_SEEDS = range(*map(int, os.environ.get("LEPTON_ELASTIC_SEEDS", "0:4").split(":")))
# 18 steps an epoch.
_TRAIN = (*jobs.TRAIN, "--recipe", "digits", "--epochs", "20", "--progress", "plain")
_STEPS, _RANKS = 360, 4
_POINTS = ("input", "exchange", "step")


@pytest.fixture
def with_ulfm(monkeypatch):
    monkeypatch.setenv("LEPTON_TEST_LAUNCH", LAUNCH)


def _end(job: jobs.Ended) -> list[str]:
    """Test figures and digest, as printed."""
    assert job.code == 0, job.text
    assert "Traceback" not in job.text and not job.lines("lepton_mpi"), job.text
    return re.findall(r"^(?:test|weights) .*$", job.out, re.MULTILINE)


def _seconds(job: jobs.Ended) -> list[float]:
    """From each loss to the first step behind it."""
    return seconds_in(job.lines("elastic"))


def _lost(job: jobs.Ended) -> int:
    """Ranks that were said to have died."""
    said = [line.partition("died")[0] for line in job.lines("elastic")]
    return sum(len(re.findall(r"rank \d+ of", text)) for text in said)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[str]:
    return _end(jobs.run(2, *_TRAIN, cwd=tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.slow
@needs_ulfm
@pytest.mark.parametrize("point", _POINTS)
@pytest.mark.parametrize("rank", [0, 2])
def test_one_rank_of_four(tmp_path, with_ulfm, undisturbed, point, rank):
    """In each part of a step, the one that prints and another."""
    fault = f"{point}@step=200:rank={rank}:kill"
    job = jobs.run(4, *_TRAIN, "--elastic", cwd=tmp_path, LEPTON_FAULT=fault)
    assert _end(job) == undisturbed, job.text
    (line,) = job.lines("elastic")
    assert re.match(rf"elastic   rank {rank} of 4 died: 3 ranks went on from step \d+", line)


@pytest.mark.slow
@needs_ulfm
def test_one_after_the_other_until_one_is_left(tmp_path, with_ulfm, undisturbed):
    """The second while the others begin anew, before they have made a step."""
    fault = "step@step=100:rank=1:kill, input@step=101:rank=0:kill, exchange@step=300:rank=3:kill"
    job = jobs.run(4, *_TRAIN, "--elastic", cwd=tmp_path, LEPTON_FAULT=fault)
    assert _end(job) == undisturbed, job.text
    assert sum(line.count("rank") for line in job.lines("elastic")) >= 3, job.text
    assert "1 rank went on" in job.lines("elastic")[-1]


_SEEN = """
import os
from lepton_mpi import QuietHook
from lepton_mpi.run import elastic

elastic._SHARE = 1e-9  # of the time: no copy but that of the beginning

class Seen(QuietHook):
    def __init__(self, run):
        self.first = run.world.rank == 0

    def after_step(self, run):
        if self.first:
            names = sorted(os.listdir(run.config.checkpoint))
            print("seen", *(name for name in names if name.endswith(".h5")), flush=True)
"""


@pytest.mark.slow
@needs_ulfm
def test_no_saved_step_is_lost_on_the_way_to_where_a_rank_died(tmp_path, with_ulfm, undisturbed):
    """Of one file that is kept: it stays until one of a later step is there, and best.h5 with it."""
    (tmp_path / "seen.py").write_text(_SEEN)
    words = ("--elastic", "--checkpoint", "runs", "--keep", "1", "--hook", "seen.py:Seen")
    fault = "step@step=130:rank=0:kill"
    job = jobs.run(3, *_TRAIN, *words, cwd=tmp_path, LEPTON_FAULT=fault)
    assert _end(job) == undisturbed, job.text
    seen = [max(line.split()[1:]) for line in job.lines("seen ") if len(line.split()) > 1]
    assert seen == sorted(seen) and "step-00000126.h5" in seen, job.text
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["step-00000360.h5"]


_COUNTED = """
import os
from lepton_mpi import fit
from lepton_mpi.run.hook import QuietHook

class Counts(QuietHook):
    def after_step(self, run):
        if run.step in (5, 355):
            print(f"count {os.getpid()} {run.step} {len(os.listdir('/proc/self/fd'))}", flush=True)

if __name__ == "__main__":
    fit(recipe="digits", epochs=20, progress="plain", elastic=True, hooks=[Counts()])
"""


@pytest.mark.slow
@needs_ulfm
def test_nothing_is_left_open(tmp_path, with_ulfm):
    """After three deaths, the last rank has no more descriptors open than with all the others."""
    (tmp_path / "program.py").write_text(_COUNTED)
    fault = "step@step=100:rank=1:kill, input@step=101:rank=0:kill, exchange@step=300:rank=3:kill"
    job = jobs.run(4, "program.py", cwd=tmp_path, LEPTON_FAULT=fault)
    _end(job)
    counts = [tuple(map(int, line.split()[1:])) for line in job.lines("count")]
    last = next(count for count in reversed(counts) if count[1] == 355)
    first = next(count for count in counts if count[:2] == (last[0], 5))
    assert last[2] <= first[2], job.text


_COUNTS_LOADS = """
from lepton_mpi import fit
from lepton_mpi.run import build

usual = build.load

def load(*words):
    print("load", flush=True)
    return usual(*words)

build.load = load
if __name__ == "__main__":
    fit(recipe="digits", epochs=20, progress="plain", elastic=True, dtype="float64")
"""


@pytest.mark.slow
@needs_ulfm
def test_rows_are_read_once(tmp_path, with_ulfm):
    """They are in memory of those that are left, normalised already."""
    (tmp_path / "program.py").write_text(_COUNTS_LOADS)
    expected = _end(jobs.run(2, "program.py", cwd=tmp_path))
    fault = "step@step=100:rank=1:kill, step@step=200:rank=0:kill"
    job = jobs.run(3, "program.py", cwd=tmp_path, LEPTON_FAULT=fault)
    assert _end(job) == expected, job.text
    assert job.out.splitlines().count("load") == 3 and _lost(job) == 2, job.text


_SIGNALLED = """
import os, signal
from lepton_mpi import fit
from lepton_mpi.world.world import World

usual = World.go_on

def go_on(world):
    numbers = {0: signal.SIGTERM, 2: signal.SIGINT}
    if world.rank in numbers:
        os.kill(os.getpid(), numbers[world.rank])
    lost = usual(world)
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGUSR1)
    return lost

World.go_on = go_on
if __name__ == "__main__":
    fit(recipe="digits", epochs=2000, progress="plain", elastic=True, checkpoint="runs")
"""


@pytest.mark.slow
@needs_ulfm
def test_signals_that_come_while_the_others_meet_stop_the_run(tmp_path, with_ulfm):
    """Between the death and the first step behind it: they save, and none of them dies of it."""
    (tmp_path / "program.py").write_text(_SIGNALLED)
    job = jobs.run(4, "program.py", cwd=tmp_path, LEPTON_FAULT="step@step=100:rank=1:kill")
    assert job.code == 75, job.text
    (step,) = re.findall(r"lepton_mpi: SIG\w+: stopped after step (\d+), .*saved", job.err)
    assert int(step) < 2000 and _lost(job) == 1, job.text
    checkpoint.verify(tmp_path / "runs" / f"step-{int(step):08}.h5")


@pytest.mark.slow
@needs_ulfm
def test_checkpoints_go_on(tmp_path, with_ulfm):
    """The owner of the folder dies twice; its heirs remove what is old, keep the best epoch, and append to the metrics."""
    options = (
        "--checkpoint",
        "runs",
        "--checkpoint-steps",
        "7",
        "--keep-best",
        "auto",
        "--restore-best",
    )
    options += (
        "--early-stop",
        "9",
        "--optimizer",
        "adam",
        "--async-save",
        "--metrics",
        "run.jsonl",
    )
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = _end(jobs.run(3, *_TRAIN, *options, cwd=whole))
    fault = "step@step=95:rank=0:kill, checkpoint.before_rename@step=154:rank=1:kill"
    job = jobs.run(4, *_TRAIN, *options, "--elastic", cwd=tmp_path, LEPTON_FAULT=fault)
    assert _end(job) == expected, job.text
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == sorted(path.name for path in (whole / "runs").iterdir())
    for name in names:
        checkpoint.verify(tmp_path / "runs" / name)
    text = (tmp_path / "run.jsonl").read_text()
    assert text.count('"event": "elastic"') == 2 and '"epoch": 1,' in text


@pytest.mark.slow
@needs_ulfm
def test_an_error_of_one_rank_ends_the_job(tmp_path, with_ulfm):
    """It is no death: the others would meet the same error."""
    fault = "step@step=50:rank=2:raise"
    job = jobs.run(4, *_TRAIN, "--elastic", cwd=tmp_path, LEPTON_FAULT=fault)
    assert job.code != 0 and "rank 2 of 4 failed" in job.text, job.text
    assert job.seconds < 60


_BEFORE_TRAINING = """
import os, signal, time
from lepton_mpi.world.world import run

def work(world):
    world.host_barrier()
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)

raise SystemExit(run(work, is_elastic=True))
"""


@needs_ulfm
def test_a_death_that_nobody_goes_on_from_ends_the_job(tmp_path, with_ulfm):
    """Such as in --prepare, before the training: it is named as without the option."""
    (tmp_path / "program.py").write_text(_BEFORE_TRAINING)
    job = jobs.run(3, "program.py", cwd=tmp_path)
    assert job.code != 0 and job.seconds < 30, job.text
    (line,) = job.lines("lepton_mpi: rank 1 of 3")
    assert "died" in line and "SIGKILL" in line, job.text


_BEFORE_A_COPY = """
import os, signal
from lepton_mpi import fit
from lepton_mpi.run.hook import QuietHook

class Dies(QuietHook):
    def before_epoch(self, run):
        if run.world.size == 3 and run.world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    files = {"csv": "run.csv", "tensorboard": "board", "metrics": "run.jsonl"}
    fit(recipe="digits", epochs=3, progress="plain", elastic=True, hooks=[Dies()], **files)
"""


@pytest.mark.slow
@needs_ulfm
def test_a_death_before_the_first_copy(tmp_path, with_ulfm):
    """The run begins again, and writes to the files that it has begun."""
    (tmp_path / "program.py").write_text(_BEFORE_A_COPY)
    job = jobs.run(3, "program.py", cwd=tmp_path)
    assert _end(job)
    assert "rank 1 of 3 died: 2 ranks went on from step 0" in job.text, job.text
    rows = (tmp_path / "run.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "1", "2", "3"]
    assert len(list((tmp_path / "board").iterdir())) == 2
    assert (tmp_path / "run.jsonl").read_text().count('"event": "epoch"') == 3


_WITH_A_CODE = """
from lepton_mpi import fit

if __name__ == "__main__":
    found = fit(recipe="digits", epochs=4, progress="plain", elastic=True)
    raise SystemExit(found["world_size"])
"""


@needs_ulfm
def test_the_program_ends_with_its_own_code(tmp_path, with_ulfm):
    """Though its process has lost a rank, for which MPI's end would wait."""
    (tmp_path / "program.py").write_text(_WITH_A_CODE)
    job = jobs.run(3, "program.py", cwd=tmp_path, LEPTON_FAULT="step@step=40:rank=1:kill")
    assert job.code == 2 and "rank 1 of 3 died: 2 ranks went on" in job.text, job.text


_SECOND_TRY = """
from lepton_mpi.errors import DataError
from lepton_mpi.world import exits
from lepton_mpi.world.world import run

def fails(world):
    raise DataError("no such file").on_all_ranks()

codes = [(run(work), exits.exit_code) for work in (fails, lambda world: None)]
print(codes)
"""


@pytest.mark.slow
def test_a_run_that_succeeds_leaves_no_code_of_the_one_before(tmp_path):
    """With which a process would end that has lost ranks."""
    (tmp_path / "program.py").write_text(_SECOND_TRY)
    job = jobs.run(0, "program.py", cwd=tmp_path)
    assert "[(3, 3), (0, 0)]" in job.out, job.text


@pytest.fixture(scope="module")
def recoveries():
    """Seconds of each, of all seeds; said at the end."""
    with told_at_the_end() as found:
        yield found


@pytest.mark.slow(but_every=4)
@needs_ulfm
@pytest.mark.parametrize("seed", _SEEDS)
def test_random_kills(tmp_path, with_ulfm, undisturbed, recoveries, seed):
    """1 to 3 of 4 ranks: at points of random steps, or by a signal at a random time, also while the others begin anew."""
    draw = random.Random(seed)
    victims = draw.sample(range(_RANKS), draw.randint(1, 3))
    if seed % 2:
        job = _killed_from_outside(tmp_path, draw, len(victims))
    else:
        fault = ", ".join(
            f"{draw.choice(_POINTS)}@step={draw.randint(1, _STEPS - 1)}:rank={rank}:kill"
            for rank in victims
        )
        # Every third of them compares digests over the ranks, which are others behind a death.
        checks = ("--check-every", "3") if seed % 3 == 0 else ()
        job = jobs.run(_RANKS, *_TRAIN, "--elastic", *checks, cwd=tmp_path, LEPTON_FAULT=fault)
        assert bool(job.lines("checked")) == bool(checks), job.text
    assert _end(job) == undisturbed, job.text
    # Open MPI may crash where it makes a communicator while a second rank dies (the page says so).
    has_crashed = len(victims) > 1 and bool(
        re.search(r"Segmentation fault\n\nStack[^\n]*\n[^\n]* in go_on", job.err)
    )
    assert _lost(job) <= len(victims) + has_crashed, job.text
    print(f"seed {seed}: {len(victims)} kills, {_seconds(job)}, {job.seconds:.1f} s", flush=True)
    recoveries += _seconds(job)


@pytest.mark.slow
@needs_ulfm
def test_a_death_costs_a_second_at_most(tmp_path, with_ulfm):
    """In the median of three, from the death to the first step behind it."""
    fault = ", ".join(f"step@step={100 * rank}:rank={rank}:kill" for rank in (1, 2, 3))
    job = jobs.run(4, *_TRAIN, "--elastic", cwd=tmp_path, LEPTON_FAULT=fault)
    assert job.code == 0 and len(_seconds(job)) == 3, job.text
    assert median(_seconds(job)) <= 1.0, job.text


def _killed_from_outside(folder, draw: random.Random, count: int) -> jobs.Ended:
    """Once training has begun."""
    began = time.monotonic()
    with jobs.started(_RANKS, *_TRAIN, "--elastic", cwd=folder) as job:
        lines = []
        for line in job.stdout:
            lines.append(line)
            if line.startswith("epoch"):
                break
        ranks = [each for each in psutil.Process(job.pid).children(True) if _is_rank(each)]
        for victim in draw.sample(ranks, count):
            time.sleep(draw.choice((0.0, 0.01, 0.1)) * draw.random())
            if victim.is_running():
                victim.send_signal(signal.SIGKILL)
        out, err = job.communicate(timeout=90)
    return jobs.Ended(job.returncode, "".join(lines) + out, err, time.monotonic() - began)


def _is_rank(process: psutil.Process) -> bool:
    return "lepton_mpi.train" in process.cmdline() and "mpirun" not in process.cmdline()[0]


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "--elastic: expected "),
        (
            ("--strategy", "local"),
            "--elastic: expected --strategy sync with --allreduce auto, host or two_level, got local",
        ),
        (
            ("--allreduce", "ring"),
            "--elastic: expected --strategy sync with --allreduce auto, host or two_level, got sync with ring",
        ),
    ],
)
def test_what_cannot_go_on_is_refused(tmp_path, monkeypatch, words, reason):
    """In one line, before the first step; a launcher that ends the job with a rank above all."""
    if words:
        if not has_ulfm():
            pytest.skip("needs mpirun of Open MPI 5.0.4 or newer")
        monkeypatch.setenv("LEPTON_TEST_LAUNCH", LAUNCH)
    job = jobs.run(2, *_TRAIN, "--elastic", *words, cwd=tmp_path)
    assert job.code == 2 and "epoch" not in job.out, job.text
    (line,) = job.lines("lepton_mpi")
    assert reason in line, job.text
