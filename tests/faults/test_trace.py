"""A trace is there after a run that did not come to its end: what the ranks did last is what one wants to see then."""

import json
import time

import pytest

from tests.faults import jobs
from tests.serial.test_trace import check_format

_HOOK = """
import os, signal
from lepton_mpi import QuietHook

class Fails(QuietHook):
    def __init__(self, run):
        pass

    def after_step(self, run):
        if run.step == 30 and run.world.rank == 1:
            {what}
"""
_WORDS = ("--epochs", "400", "--trace", "t.json", "--trace-steps", "7")


def _steps(path, ranks) -> list[list[int]]:
    """Of each rank, from a file that keeps the rules of its format."""
    trace = json.loads(path.read_text())
    check_format(trace)
    slices = [event for event in trace["traceEvents"] if event.get("cat") == "step"]
    return [[each["args"]["step"] for each in slices if each["tid"] == rank + 1] for rank in ranks]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raise ValueError('planted')", "ValueError: planted"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1 of 2 (process"),
    ],
    ids=["raises", "killed"],
)
def test_a_rank_that_fails_has_left_its_last_steps(tmp_path, what, said):
    """It was in step 30, where the trace ends for both."""
    (tmp_path / "fails.py").write_text(_HOOK.format(what=what))
    job = jobs.run(2, *jobs.TRAIN, *_WORDS, "--hook", "fails.py:Fails", cwd=tmp_path)
    assert job.code and said in job.text, job.text
    other, failed = _steps(tmp_path / "t.json", range(2))
    assert failed == list(range(failed[0], 31)) and 6 <= len(failed) <= 7
    assert other[-1] in (30, 31)
    assert [path.name for path in tmp_path.glob("*.tmp")] == []


@pytest.mark.slow
def test_a_run_that_is_stopped_by_a_signal_has_one(tmp_path):
    """Of exactly the last steps, on all ranks."""
    (tmp_path / "fails.py").write_text(_HOOK.format(what="os.kill(os.getpid(), signal.SIGUSR1)"))
    job = jobs.run(2, *jobs.TRAIN, *_WORDS, "--hook", "fails.py:Fails", cwd=tmp_path)
    assert job.code == 75 and job.lines("trace     t.json: steps"), job.text
    step = int(job.err.split("stopped after step ")[1].split(",")[0])
    assert step > 30 and _steps(tmp_path / "t.json", range(2)) == [[*range(step - 6, step + 1)]] * 2


@pytest.mark.slow
def test_every_host_of_a_failing_job_leaves_its_own(tmp_path):
    """Of two hosts, whose clocks have been compared at the begin."""
    (tmp_path / "fails.py").write_text(_HOOK.format(what="raise ValueError('planted')"))
    words = ("--epochs", "400", "--trace", str(tmp_path / "t.json"), "--trace-steps", "7")
    job = jobs.run_over_hosts(
        ["1", "1"], *jobs.TRAIN, *words, "--hook", f"{tmp_path / 'fails.py'}:Fails"
    )
    assert job.returncode and "ValueError: planted" in job.stderr, job.stderr
    limit = time.monotonic() + 10
    while not (tmp_path / "t.host1.json").exists() and time.monotonic() < limit:
        time.sleep(0.1)
    (failed,) = _steps(tmp_path / "t.host1.json", [1])
    assert failed[-1] == 30
    assert _steps(tmp_path / "t.json", [0])[0][-1] in (30, 31, 32)  # sums are on their way
    (_, error) = json.loads((tmp_path / "t.host1.json").read_text())["clock_error_us"]
    assert 0 < error < 1e5
