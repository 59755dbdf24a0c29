"""A signal at any time: all ranks stop after the same step, save, say how to go on, and exit with 75."""

import os
import random
import re
import signal
import time
from contextlib import suppress

import psutil
import pytest

from lepton_mpi.run import checkpoint
from tests.faults import jobs

TRAIN = (*jobs.TRAIN, "--progress", "plain", "--epochs", "100000", "--seed", "3")

# LEPTON_SIGNALS=100 for the long form.
_COUNT = int(os.environ.get("LEPTON_SIGNALS", "20"))


def _signalled(ranks: int, words, cwd, numbers, seconds: float, path):
    """How a job ended that was sent signals, ``seconds`` after it had written its first line of metrics."""
    with jobs.started(ranks, *TRAIN, "--metrics", str(path), *words, cwd=cwd) as job:
        end = time.monotonic() + 90
        while not (path.exists() and path.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(seconds)
        for number in numbers:
            for process in _ranks(job.pid, str(path)):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            time.sleep(0.3)
        out, err = job.communicate(timeout=90)
    return jobs.Ended(job.returncode, out, err, 0.0)


def _ranks(process_id: int, word: str) -> list[psutil.Process]:
    """The processes of the job that train; the launcher is none."""
    job = psutil.Process(process_id)
    found = []
    for process in [job, *job.children(recursive=True)]:
        with suppress(psutil.Error):
            if "python" in process.name() and word in process.cmdline():
                found.append(process)
    return found


@pytest.mark.slow(but_every=20)
@pytest.mark.timeout(300)  # its own limits are 90 s for the start and 90 s for the end
@pytest.mark.parametrize("number", range(_COUNT))
def test_a_signal_at_a_random_time_leaves_a_checkpoint(tmp_path, number):
    """On 1, 2 and 4 ranks, without a launcher and with one; the run goes on from the step that is named."""
    chance = random.Random(number)
    ranks = (0, 2, 4, 1)[number % 4]
    kind = (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)[number // 4 % 4]
    print("seed", number, "ranks", ranks, kind)
    words = ("--checkpoint", str(tmp_path / "saved"), "--hidden", "8")
    path, seconds = tmp_path / "m.jsonl", chance.uniform(0, 1.5)
    job = _signalled(ranks, words, tmp_path, [kind], seconds, path)
    assert job.code == 75, job.text
    (line,) = job.lines("lepton_mpi:")
    found = re.fullmatch(
        rf"lepton_mpi: ({kind.name}): stopped after step (\d+), in epoch \d+; saved, go on with --resume (\S+)",
        line,
    )
    assert found, line
    saved = tmp_path / "saved" / f"step-{int(found[2]):08}.h5"
    checkpoint.verify(saved)
    assert checkpoint.read_attributes(saved)[0]["step"] == int(found[2])


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_the_same_bits(tmp_path):
    """On another number of ranks."""
    words = ("--checkpoint", str(tmp_path / "saved"), "--hidden", "8")
    job = _signalled(2, words, tmp_path, [signal.SIGUSR1], 0.5, tmp_path / "m.jsonl")
    assert job.code == 75, job.text
    step = int(re.search(r"stopped after step (\d+)", job.err)[1])
    epoch = int(re.search(r"in epoch (\d+)", job.err)[1])
    short = (*jobs.TRAIN, "--seed", "3", "--hidden", "8", "--epochs", str(epoch), "--metrics")
    whole = jobs.run(1, *short, str(tmp_path / "whole.jsonl"), cwd=tmp_path)
    assert whole.code == 0, whole.text
    on = jobs.run(
        3,
        *jobs.TRAIN,
        *("--resume", str(tmp_path / "saved"), "--epochs", str(epoch)),
        *("--metrics", str(tmp_path / "on.jsonl")),
        cwd=tmp_path,
    )
    assert on.code == 0, on.text
    digests = {
        jobs.metrics(tmp_path / f"{name}.jsonl")[-1]["weights_digest"] for name in ("whole", "on")
    }
    assert len(digests) == 1, step


def test_without_a_folder_nothing_is_saved_and_the_line_says_so(tmp_path):
    """The exit code is the same."""
    job = _signalled(2, (), tmp_path, [signal.SIGUSR1], 0.2, tmp_path / "m.jsonl")
    assert job.code == 75, job.text
    assert "nothing is saved without --checkpoint" in job.err, job.text


_ASKS = """
import os, signal
from lepton_mpi import QuietHook

class Asks(QuietHook):
    def __init__(self, run): pass
    def after_step(self, run):
        if run.world.rank == RANK and run.step == 7:
            os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 3])
def test_a_rank_of_one_host_stops_those_of_both(tmp_path, rank):
    """Also one that has no connection to the other host."""
    (tmp_path / "asks.py").write_text(_ASKS.replace("RANK", str(rank)))
    words = ("--checkpoint", str(tmp_path / "saved"), "--hidden", "8")
    hook = ("--hook", f"{tmp_path}/asks.py:Asks", "--metrics", str(tmp_path / "m.jsonl"))
    ended = jobs.run_over_hosts(["2"], *TRAIN, *words, *hook)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 75, said
    (step,) = re.findall(r"lepton_mpi: SIGUSR1: stopped after step (\d+)", said)
    assert int(step) > 8
    checkpoint.verify(tmp_path / "saved" / f"step-{int(step):08}.h5")


_SLOW = """
import time
from lepton_mpi import QuietHook

class Slow(QuietHook):
    def __init__(self, run): pass
    def after_step(self, run): time.sleep(30)
"""


def test_a_second_interrupt_ends_at_once(tmp_path):
    """Also in a step that takes long."""
    (tmp_path / "slow.py").write_text(_SLOW)
    words = ("--hook", f"{tmp_path}/slow.py:Slow")
    began = time.monotonic()
    numbers = [signal.SIGINT, signal.SIGINT]
    job = _signalled(0, words, tmp_path, numbers, 0.5, tmp_path / "m.jsonl")
    assert job.code == 130, job.text
    assert time.monotonic() - began < 80
    (line,) = job.lines("lepton_mpi:")
    assert "interrupted twice" in line


_SEARCHES = """
import os, signal
from lepton_mpi import fit
from lepton_mpi.launcher import launched_rank
from lepton_mpi.run import rate_search

def rate_of(number, steps):
    if number == 5 and launched_rank() == 1:
        os.kill(os.getpid(), signal.SIGUSR1)
    return 0.001

rate_search.rate_of = rate_of
fit(find_learning_rate=True, find_steps=100_000, progress="none", hidden=(8,))
"""


@pytest.mark.slow
def test_a_learning_rate_search_ends_by_a_signal(tmp_path):
    """On all ranks, as training does, with what was not done."""
    (tmp_path / "searches.py").write_text(_SEARCHES)
    job = jobs.run(2, "searches.py", cwd=tmp_path)
    assert job.code == 75, job.text
    (line,) = job.lines("lepton_mpi:")
    assert re.fullmatch(
        r"lepton_mpi: SIGUSR1: the range test stopped after step \d+ of 100000, without a suggestion; nothing is saved",
        line,
    ), line
