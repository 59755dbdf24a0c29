"""A sweep that trains: interrupted in its first run, it goes on, and its runs are those that train itself makes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults import jobs

_TUNE = """
[options]
data = "digits"
epochs = 20
hidden = [8]
hook = "slow.py:Slow"
[search]
learning_rate = [0.001]
"""
_SLOW = """
import time
from lepton_mpi import QuietHook

class Slow(QuietHook):
    def __init__(self, run): pass
    def after_epoch(self, run): time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_that_is_interrupted_has_the_weights_of_runs_that_were_not(tmp_path):
    """On two ranks, by Ctrl-C: the run is stopped in the middle, and nothing of it goes on."""
    (tmp_path / "tune.toml").write_text(_TUNE)
    (tmp_path / "slow.py").write_text(_SLOW)
    words = [sys.executable, "-m", "lepton_mpi", "sweep", "tune.toml", "--ranks", "2"]
    variables = jobs.clean_environment() | {"PYTHONPATH": str(jobs.ROOT)}
    first = subprocess.Popen(words, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 90
    while not list(tmp_path.glob("tune/*/checkpoint/step-*")) and time.monotonic() < end:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 75, out
    assert not jobs.processes_with(str(tmp_path))
    second = subprocess.run(
        words, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=200
    )
    assert second.returncode == 0, second.stdout + second.stderr
    found = json.loads((tmp_path / "tune/results.json").read_text())
    (only,) = found
    assert only["state"] == "finished" and only["score"] == "accuracy" and only["value"] > 0.3
    lines = jobs.metrics(tmp_path / "tune" / only["run"] / "metrics.jsonl")
    assert [line["event"] for line in lines].count("start") == 2
    whole = jobs.run(
        *(0, *jobs.TRAIN, "--data", "digits", "--epochs", "20", "--hidden", "8"),
        *("--learning-rate", "0.001", "--metrics", str(tmp_path / "whole.jsonl")),
        cwd=tmp_path,
    )
    assert whole.code == 0, whole.text
    ends = [lines[-1], jobs.metrics(tmp_path / "whole.jsonl")[-1]]
    assert ends[0]["weights_digest"] == ends[1]["weights_digest"]
    assert Path(tmp_path / only["checkpoint"] / "best.h5").exists()
