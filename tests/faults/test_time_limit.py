"""--stop-before and --time-limit: a run saves and ends before its time is over, wherever it is."""

import re

import pytest

from lepton_mpi.run import checkpoint
from tests.faults import jobs

_TRAIN = (*jobs.TRAIN, "--progress", "plain", "--epochs", "100000", "--hidden", "8")


def _ended_before(job, folder) -> int:
    """The step that was saved, which must have been before the time limit."""
    assert job.code == 75, job.text
    (line,) = job.lines("lepton_mpi:")
    found = re.fullmatch(
        r"lepton_mpi: (.+) before the time limit: stopped after step (\d+), in epoch \d+; saved, go on with --resume \S+",
        line,
    )
    assert found, line
    saved = folder / f"step-{int(found[2]):08}.h5"
    checkpoint.verify(saved)
    assert checkpoint.read_attributes(saved)[0]["step"] == int(found[2])
    return int(found[2])


def test_ranks_stop_together_before_the_limit(tmp_path):
    """Two ranks, told 10 s after their begin or as soon as they have begun; a busy machine has the rest of the time."""
    words = ("--time-limit", "90s", "--stop-before", "80s", "--checkpoint", str(tmp_path / "saved"))
    job = jobs.run(2, *_TRAIN, *words, cwd=tmp_path)
    assert _ended_before(job, tmp_path / "saved") > 2
    assert job.lines("stop ")[0].startswith(
        "stop      1 min 20 s before the time limit, which is in "
    )


_SLOW = """
import time
from lepton_mpi import QuietHook

class Slow(QuietHook):
    def __init__(self, run): pass
    def after_step(self, run): time.sleep(1.5)
"""


@pytest.mark.slow
def test_steps_that_take_longer_than_the_margin_are_warned_of_and_minded(tmp_path):
    """A step takes 1.5 s, 2 of them and the rest more than the second that was asked for."""
    (tmp_path / "slow.py").write_text(_SLOW)
    words = ("--time-limit", "30s", "--stop-before", "1s", "--checkpoint", str(tmp_path / "saved"))
    job = jobs.run(0, *_TRAIN, *words, "--hook", f"{tmp_path}/slow.py:Slow", cwd=tmp_path)
    _ended_before(job, tmp_path / "saved")
    (_, warning) = job.lines("stop ")
    assert re.search(
        r"a step takes 1\.\d s: the ranks are told \S+ s before the time limit, not 1 s", warning
    )


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_time_that_is_over_while_the_ranks_start(tmp_path, ranks):
    """They make the steps that it takes to agree, and save."""
    words = ("--time-limit", "0.1s", "--checkpoint", str(tmp_path / "saved"))
    job = jobs.run(ranks, *_TRAIN, *words, cwd=tmp_path)
    assert job.code == 75, job.text
    found = re.search(r"after the time limit: stopped after step (\d+)", job.err)
    assert found, job.text
    checkpoint.verify(tmp_path / "saved" / f"step-{int(found[1]):08}.h5")
