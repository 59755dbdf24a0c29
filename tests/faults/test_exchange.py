"""A rank that is lost while the others wait for it within a step, in a normalisation over all micro-batches, ends the job and is named."""

import re
import time

import pytest

from tests.faults import jobs

_MODEL = """
import os, signal, sys, time
import numpy as np
from lepton_mpi.batch import Input
from lepton_mpi.launcher import launched_rank
from lepton_mpi.layers.compose import Reshape, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.layer import Layer
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.layers.sync_batch_norm import SyncBatchNorm
from lepton_mpi.models.network import Network


class Failing(Layer):
    needs_x = False
    calls = 0

    def out_shape(self, x):
        return x.shape

    def forward(self, p, at, when):
        at.out[...] = at.x
        self.act("forward")

    def backward(self, p, at, grad, when):
        at.grad_x[...] = at.grad_out
        self.act("backward")

    def act(self, where):
        if launched_rank() != 2 or where != "{where}":
            return
        self.calls += 1
        if self.calls == 6:
            print("lost at", time.time(), file=sys.stderr, flush=True)
            {action}


def network(feature_shape, output_count):
    norms = [Dense(8), SyncBatchNorm(True), Dense(8), Failing(), SyncBatchNorm(True), Dense(output_count)]
    return Network("failing", Sequential([Reshape(), *norms]), {{"x": Input("numbers", feature_shape)}}, CrossEntropy())
"""


def _train(folder, where: str, action: str, *options: str) -> jobs.Ended:
    path = folder / "failing.py"
    path.write_text(_MODEL.format(where=where, action=action))
    return jobs.run(4, *jobs.TRAIN, "--model", f"{path}:network", *options, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_killed(tmp_path, where):
    """All ranks are gone 3 s after a kill -9."""
    job = _train(tmp_path, where, "os.kill(os.getpid(), signal.SIGKILL)")
    ended = time.time()
    assert job.code != 0, job.text
    assert re.search(r"rank 2 of 4 \(process \d+\) died|BAD TERMINATION", job.text), job.text
    lost = float(re.search(r"lost at ([0-9.]+)", job.text)[1])
    assert ended - lost < 3, f"{ended - lost:.1f} s\n{job.text}"
    assert not jobs.processes_with(str(tmp_path))


@pytest.mark.slow
def test_hanging(tmp_path):
    """The one that hangs is named, not those that wait for it."""
    job = _train(tmp_path, "forward", "time.sleep(1000)", "--timeout", "3")
    assert job.code == 5, job.text
    assert "rank 2 of 4 made no progress" in job.err, job.text
    assert job.text.count("made no progress") == 1, job.text
    assert "failing.py" in job.err, job.text


@pytest.mark.slow
def test_raising(tmp_path):
    """In any step, the first among them: the error is what is printed."""
    for first, action in (
        ("== 6", "raise ValueError('on purpose')"),
        ("== 1", "raise KeyError(2)"),
    ):
        program = _MODEL.replace("== 6", first)
        (tmp_path / "failing.py").write_text(program.format(where="forward", action=action))
        model = f"{tmp_path / 'failing.py'}:network"
        job = jobs.run(4, *jobs.TRAIN, "--model", model, cwd=tmp_path)
        assert job.code == 5, job.text
        assert job.text.count("Traceback (most recent call last)") == 1, job.text
        assert "rank 2 of 4" in job.err, job.text
