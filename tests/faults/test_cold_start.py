"""A run's kernels: compiled before its first step, by its ranks together, and by nobody twice."""

import json
import re

import pytest

from tests.faults import jobs

# Runs, and prints on rank 0 how many kernels all ranks have compiled, and what was made outside of the queue.
_RUN = """
import json, sys
from lepton_mpi import QuietHook, fit
from lepton_mpi.kernels.compiling import MADE
from lepton_mpi.run.cold_start import ColdStart

of_queue = []
original = ColdStart.compile

def compile(self, kernels):
    first = len(MADE)
    original(self, kernels)
    of_queue.extend(MADE[first:])

ColdStart.compile = compile

class Told(QuietHook):
    def at_end(self, run):
        others = [made.kernel.__name__ for made in MADE if made not in of_queue]
        compiled = [[made.kernel.__name__, str(made.signature)] for made in MADE if made.is_compiled]
        told = run.world.comm.gather([compiled, others])
        if run.world.rank == 0:
            print(json.dumps(told), flush=True)

fit(hooks=[Told()], **json.loads(sys.argv[1]))
"""
# What is made ready with the plan that calls it, so that no rank waits in it for one that compiles.
_OF_PLANS = {"host_allreduce", "host_barrier", "host_array_allreduce", "host_small_array_allreduce"}
_TABLE = {"data": ["breast_cancer"], "epochs": 1}


def _told(job: jobs.Ended) -> list:
    """What every rank compiled, and made outside of the queue."""
    assert job.code == 0, job.text
    (line,) = [line for line in job.out.splitlines() if line.startswith("[[")]
    return json.loads(line)


@pytest.fixture
def targets(tmp_path) -> dict:
    """Options of a run that predicts numbers."""
    rows = "\n".join(f"{i % 7},{i % 5},{i % 7 + i % 5}" for i in range(200))
    (tmp_path / "sums.csv").write_text(f"a,b,c\n{rows}\n")
    words = ("prepare", "sums.csv", "sums.h5", "--label", "c", "--task", "regression")
    assert jobs.run(1, "-m", "lepton_mpi", *words, cwd=tmp_path).code == 0
    return {"data": ["sums.h5"], "epochs": 1}


@pytest.mark.slow(but_every=15)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "float64", "optimizer": "lion", "clip_norm": 1.0},
        {"activation": "gelu", "dropout": 0.1, "optimizer": "sgd", "momentum": 0.0},
        {"allreduce": "ring", "optimizer": "rmsprop", "clip_norm": 1.0},
        {"augment": ["crop=1"]},
        {"data": ["words"], "model": "speech_gru", "dropout": 0.1},
        {"data": ["words"], "model": "speech_cnn", "width": 4},
        {"model": "cnn", "norm": "sync_batch", "activations": "bfloat16"},
        _TABLE | {"model": "logistic"},
        {
            "data": ["loans"],
            "model": "wide_and_deep",
            "crosses": ["make*zone"],
            "global_batch": 512,
        },
    ],
    ids=str,
)
def test_no_step_waits_for_a_kernel(tmp_path, options):
    """Whatever a run calls was asked for before: what is forgotten would be compiled by every rank in its first step."""
    job = jobs.run(2, "-c", _RUN, json.dumps({"epochs": 1} | options), cwd=tmp_path)
    assert all(set(others) <= _OF_PLANS for _, others in _told(job)), job.text


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_no_step_waits_for_a_kernel_of_a_regression(tmp_path, targets, loss):
    """The same for targets."""
    job = jobs.run(2, "-c", _RUN, json.dumps(targets | {"loss": loss}), cwd=tmp_path)
    assert all(set(others) <= _OF_PLANS for _, others in _told(job)), job.text


@pytest.mark.slow
def test_cold_starts_at_once(tmp_path):
    """Two jobs into one empty folder: no kernel twice, and each says what it waits for; the third has nothing to say."""
    variables = {"LEPTON_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    words = ("-c", _RUN, '{"epochs": 1}')
    with (
        jobs.started(3, *words, cwd=tmp_path, **variables) as first,
        jobs.started(3, *words, cwd=tmp_path, **variables) as second,
    ):
        ended = []
        for job in (first, second):
            out, err = job.communicate(timeout=110)
            ended.append(jobs.Ended(job.returncode, out, err, 0))
    compiled = [tuple(each) for job in ended for kernels, _ in _told(job) for each in kernels]
    assert compiled
    assert len(set(compiled)) == len(compiled)
    for job in ended:
        assert re.search(r"^kernels +being compiled for this processor, only once$", job.out, re.M)
        assert re.search(r"^kernels +\d+ compiled in \d+\.\d s$", job.out, re.M)
    job = jobs.run(3, *words, cwd=tmp_path, **variables)
    assert all(kernels == [] for kernels, _ in _told(job))
    assert not job.lines("kernels")


_FAILING = """
import os, sys
from pathlib import Path
from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi import fit
original = Kernel._compile_anew

def compile_anew(self, signature):
    if self.__name__ == "fletcher32":
        Path(sys.argv[1]).touch()
        FAIL
    original(self, signature)
Kernel._compile_anew = compile_anew
fit(epochs=1)
"""


@pytest.mark.slow
def test_a_rank_that_dies_while_it_compiles_ends_the_job(tmp_path):
    """At once, and in one line."""
    variables = {"LEPTON_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    text = _FAILING.replace("FAIL", "os.kill(os.getpid(), 9)")
    words = ("-c", text, str(tmp_path / "reached"))
    job = jobs.run(3, *words, cwd=tmp_path, **variables)
    assert (tmp_path / "reached").exists()
    assert job.code != 0


@pytest.mark.slow
def test_a_compiler_error_ends_the_job(tmp_path):
    """With the traceback of the rank that has it."""
    variables = {"LEPTON_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    text = _FAILING.replace("FAIL", "raise RuntimeError('LLVM is ill')")
    words = ("-c", text, str(tmp_path / "reached"))
    job = jobs.run(3, *words, cwd=tmp_path, **variables)
    assert job.code == 5, job.text
    assert "LLVM is ill" in job.err
