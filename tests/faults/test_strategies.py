"""Every strategy ends when a rank dies, hangs or is interrupted, waits for one that is slow, and goes on from its checkpoints.

Long form, 20 kills of each strategy at random moments, on one host and on two, and every way to hang; seeds are printed:
``LEPTON_STRATEGY_KILLS=20 python -m pytest -s tests/faults/test_strategies.py``; ``LEPTON_STRATEGY_SEED=7`` is where they begin.
"""

import json
import math
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_mpi.options import names
from lepton_mpi.run import checkpoint, checkpoint_folder
from tests.faults import jobs

_KILLS = int(os.environ.get("LEPTON_STRATEGY_KILLS", "1"))
_IS_LONG = _KILLS > 1
_SEED = int(os.environ.get("LEPTON_STRATEGY_SEED", "0"))

# Meetings that do not fall on checkpoints; so rare that workers differ when the fault comes.
STRATEGIES: dict[str, dict[str, Any]] = {
    "sync": {},
    "local": {"sync_every": 4},
    "diloco": {"sync_every": 7},
    "hierarchical": {"sync_every": 4},
    "delayed": {},
    "bounded": {"staleness": 2},
    "gossip": {},
    "elastic": {},
    "adasum": {},
}
# Fits are cheap where no new job is needed for them.
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"strategy": name, **own} for name, own in STRATEGIES.items()},
    "local of hosts": {"strategy": "local", "workers": "hosts", "sync_every": 4},
    "diloco in fragments": {"strategy": "diloco", "fragments": 2, "sync_every": 7},
    "diloco with overlap": {
        **{"strategy": "diloco", "fragments": 2, "sync_every": 7, "overlap_steps": 5}
    },
    "bounded without locks": {"strategy": "bounded", "locks": False},
    "gossip by push-sum": {"strategy": "gossip", "topology": "random_push"},
    "gossip on a ring": {"strategy": "gossip", "topology": "ring", "sync_every": 3},
    "asynchronous gossip": {"strategy": "gossip", "asynchronous": True},
}
# In the long form; other variants wait where these do.
_KILLED = [*STRATEGIES, "diloco with overlap", "asynchronous gossip"]
# What a run's bits depend on: not even the number of ranks; that number; who is when where.
_ON_ANY_NUMBER = ("sync", "delayed", "hierarchical", "local of hosts")
_ON_NO_NUMBER = ("bounded", "bounded without locks", "asynchronous gossip")

# 18 steps an epoch; saved after 18, 25, 36, 50 and 54.
_STEPS, _EPOCHS, _EVERY = 18, 3, 25
_RUN = {"epochs": _EPOCHS, "progress": "none"}
_SAVED = {**_RUN, "checkpoint": "runs", "checkpoint_steps": _EVERY}

_PROGRAM = """
import hashlib, json, os, signal, sys, threading, time
from lepton_mpi import fit
from lepton_mpi.data.order import draws
from lepton_mpi.launcher import launched_rank
from lepton_mpi.models.mlp import Mlp

fits = json.loads(sys.argv[1])
compute, fault, last = Mlp.loss_and_gradient, None, []


def kill(seconds):
    if seconds:
        threading.Timer(seconds, kill, (0,)).start()
        return
    with open("killed", "w") as file:
        file.write(str(time.time()))
    os.kill(os.getpid(), signal.SIGKILL)


def spoil(gradient):
    for array in gradient.values():
        array[...] = float("nan")


def loss_and_gradient(self, parameters, batch, gradient, sync):
    sums = compute(self, parameters, batch, gradient, sync)
    is_first = last != [batch.draw]  # of this rank's micro-batches of the step
    last[:] = [batch.draw]
    if not fault or fault["rank"] != launched_rank():
        return sums
    step = fault.get("step")
    if step is None or (is_first and batch.draw == draws(0, step - 1, 1)[0]):
        {"kill": lambda: kill(fault.get("seconds", 0)),
         "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
         "sleep": lambda: time.sleep(fault["seconds"]),
         "spoil": lambda: spoil(gradient)}[fault["act"]]()
    return sums


Mlp.loss_and_gradient = loss_and_gradient
for options, fault in fits:
    bits, code = "", 0
    try:
        arrays = fit(**options)["parameters"].values()
        bits = hashlib.blake2b(b"".join(map(bytes, arrays)), digest_size=8).hexdigest()
    except SystemExit as leaving:
        code = leaving.code
    # One write: lines of ranks must not mix.
    sys.stdout.write(f"ended with {code} {bits}\\n")
    sys.stdout.flush()
"""


# Options of ``fit``, and what one rank does meanwhile.
Fit = tuple[dict[str, Any], dict[str, Any] | None]


def _run(folder: Path, ranks: int, *fits: Fit) -> jobs.Ended:
    """One job that calls ``fit`` so often."""
    folder.mkdir(exist_ok=True)
    return jobs.run(ranks, "-c", _PROGRAM, json.dumps(fits), cwd=folder)


def _codes(job: jobs.Ended) -> list[str]:
    """How each rank ended each of its fits."""
    return re.findall(r"^ended with (\S+)", job.out, re.M)


def _run_all(folder: Path, ranks: int, options: Callable[[str], dict]) -> dict[str, list[dict]]:
    """The metrics of a run of each variant, in one job; all ranks have the same parameters at their ends."""
    job = _run(folder, ranks, *((_whole(name) | options(name), None) for name in VARIANTS))
    assert _codes(job) == ["0"] * ranks * len(VARIANTS), job.text
    bits = re.findall(r"^ended with 0 (\S+)", job.out, re.M)
    # Variants may have the same bits; those of one alone come from all of its ranks.
    assert all(count % ranks == 0 for count in Counter(bits).values()), job.text
    return _metrics(folder)


def _whole(name: str) -> dict:
    return {**_SAVED, **VARIANTS[name], "checkpoint": name, "metrics": f"{name}.jsonl"}


def _metrics(folder: Path, more: str = "") -> dict[str, list[dict]]:
    return {name: jobs.metrics(folder / f"{name}{more}.jsonl") for name in VARIANTS}


def _digests(found: dict[str, list[dict]], but: Iterable[str] = ()) -> dict[str, str]:
    return {name: lines[-1]["weights_digest"] for name, lines in found.items() if name not in but}


def test_none_is_left_out():
    """A strategy that is added is tested here."""
    assert STRATEGIES.keys() == names.STRATEGIES.keys()
    assert {codec.partition(":")[0] for _, codec in COMPRESSED} >= names.CODECS.keys() - {"none"}


# -- a rank that dies --------------------------------------------------------------------------------

_DIED = r"rank {rank} of {ranks} \(process \d+\) died: \w+ in step {step} of {name} for"
# Launchers of MPICH's family end the other ranks at once, and may be faster than these can speak.
_OF_LAUNCHER = "|BAD TERMINATION"


def _seconds_since_death(folder: Path) -> float:
    return time.time() - float((folder / "killed").read_text())


def _kill(folder: Path, name: str, **fault: Any) -> jobs.Ended:
    """Of 3 ranks one, by SIGKILL, in a run that saves to ``folder``/runs; it must end it soon, and be named."""
    fault = {"act": "kill", "rank": 2, **fault}
    saved = {**_SAVED, **VARIANTS[name]}
    job = _run(folder, 3, (saved, fault))
    late = _seconds_since_death(folder)
    assert job.code != 0 and late < 10, (late, job.text)
    step = r"\d+" if fault.get("seconds") else fault["step"]
    of = VARIANTS[name]["strategy"]
    pattern = _DIED.format(rank=fault["rank"], ranks=3, step=step, name=of) + _OF_LAUNCHER
    assert re.search(pattern, job.text), job.text
    assert "Traceback" not in job.text, job.text
    assert not jobs.processes_with(str(folder))
    return job


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A folder with a folder for each variant, whose run was killed in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp("killed")

    def kill(name: str) -> None:
        step = random.Random(f"{name} {_SEED}").randint(_EVERY + 1, 2 * _STEPS - 1)
        _kill(folder / name, name, step=step)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(kill, STRATEGIES))
    return folder


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_job_and_is_named(killed):
    """Within seconds, in the step in which it was; what it has left is a checkpoint of the middle of the epoch."""
    for name in STRATEGIES:
        newest, _ = checkpoint_folder.newest_whole(killed / name / "runs")
        assert newest.name == f"step-{_EVERY:08d}.h5"


@pytest.mark.slow(but_every=9)
@pytest.mark.skipif(not _IS_LONG, reason="LEPTON_STRATEGY_KILLS=20 is the long form")
@pytest.mark.parametrize("name", _KILLED)
@pytest.mark.parametrize("seed", range(_SEED, _SEED + _KILLS))
def test_a_rank_that_is_killed_at_any_moment(tmp_path, name, seed):
    """Any rank, computing or waiting for others; the newest checkpoint is whole, and a run goes on from it."""
    draw = random.Random(f"{name} {seed}")
    fault = {
        "rank": draw.randrange(3),
        "step": draw.randint(1, 45),
        "seconds": draw.choice((0, draw.uniform(1e-5, 3e-3))),
    }
    print(f"seed {seed}: {name} {fault}")
    _kill(tmp_path, name, **fault)
    on = {**_SAVED, **VARIANTS[name], "resume": "runs"}
    job = _run(tmp_path, draw.choice((2, 3, 4)), ({**on, "metrics": "on.jsonl"}, None))
    assert set(_codes(job)) == {"0"}, job.text
    assert math.isfinite(jobs.metrics(tmp_path / "on.jsonl")[-1]["test_loss"])


# -- going on ----------------------------------------------------------------------------------------


_SLOW = {"act": "sleep", "rank": 1, "seconds": 0.001}
_SPOILT = {"act": "spoil", "rank": 1, "step": _STEPS}


@pytest.fixture(scope="module")
def of_three(tmp_path_factory) -> tuple[Path, jobs.Ended]:
    """Of one job of 3 ranks: each variant as it should be, with a rank that is slow, and with one that computes NaN."""
    folder = tmp_path_factory.mktemp("three")
    fits: list[Fit] = [(_whole(name), None) for name in VARIANTS]
    fits += [(_whole(name) | {"metrics": f"{name} slow.jsonl"}, _SLOW) for name in VARIANTS]
    fits += [({**_RUN, **own}, _SPOILT) for own in VARIANTS.values()]
    return folder, _run(folder, 3, *fits)


@pytest.fixture(scope="module")
def whole(of_three) -> dict[str, list[dict]]:
    """Metrics of runs that were not ended; their checkpoints are in the folder, ``name``/step-00000050.h5, too."""
    return _metrics(of_three[0])


def _going_on(name: str, killed: Path, whole: Path) -> dict:
    """Variants whose run was not killed go on from what it has kept of the middle of the last epoch."""
    left = whole / name / f"step-{2 * _EVERY:08d}.h5"
    source = killed / name / "runs" if name in STRATEGIES else left
    return {"checkpoint": f"{name} on", "resume": str(source)}


@pytest.mark.slow
def test_a_killed_run_goes_on_on_as_many_ranks(tmp_path, killed, of_three, whole):
    """With the bits of the run that was not killed, from the middle of the second epoch."""
    found = _run_all(tmp_path, 3, lambda name: _going_on(name, killed, of_three[0]))
    assert _digests(found, _ON_NO_NUMBER) == _digests(whole, _ON_NO_NUMBER)
    for name, lines in found.items():
        assert [line["epoch"] for line in lines if line["event"] == "epoch"] == (
            [2, 3] if name in STRATEGIES else [3]
        )
        assert math.isfinite(lines[-1]["test_loss"]), name


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4] if _IS_LONG else [4])
def test_a_run_goes_on_on_another_number_of_ranks(tmp_path, killed, of_three, whole, ranks):
    """Where bits do not depend on that number, with those of the run that was not killed; else to as good an end."""
    found = _run_all(tmp_path, ranks, lambda name: _going_on(name, killed, of_three[0]))
    same, before = _digests(found), _digests(whole)
    for name, lines in found.items():
        if name in _ON_ANY_NUMBER:
            assert same[name] == before[name], name
        assert lines[-2]["epoch"] == _EPOCHS
        assert lines[-1]["test_loss"] < 1.3 * whole[name][-1]["test_loss"] + 0.05, name


# -- a rank that hangs, is slow, or computes no numbers ----------------------------------------------


def _hang(folder: Path, name: str, act: str) -> tuple[int, jobs.Ended]:
    """The step, and the end of a job in which rank 2 computes for ever in it."""
    step = random.Random(f"{name} {act} {_SEED}").randint(2, 2 * _STEPS)
    fault = {"act": act, "rank": 2, "step": step, "seconds": 1000}
    return step, _run(folder, 3, ({**_RUN, **VARIANTS[name], "timeout": 3}, fault))


# Without the long form each way to hang is tried with every other strategy.
_HANGS = [
    (name, act)
    for number, name in enumerate(STRATEGIES)
    for act in (("sleep", "stop") if _IS_LONG else (("sleep", "stop")[number % 2],))
]


@pytest.fixture(scope="module")
def hung(tmp_path_factory) -> dict[tuple[str, str], tuple[int, jobs.Ended]]:
    """How they all ended; several at a time, since such jobs wait most of it."""
    folders = [tmp_path_factory.mktemp("hung") for _ in _HANGS]
    with ThreadPoolExecutor(3) as pool:
        return dict(zip(_HANGS, pool.map(_hang, folders, *zip(*_HANGS, strict=True)), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "act"), _HANGS, ids=lambda value: value)
def test_a_rank_that_hangs_ends_the_job_at_the_limit(hung, name, act):
    """Asleep or stopped; the message names strategy, step and rank, and those that wait for it."""
    step, job = hung[name, act]
    assert job.code != 0, job.text
    assert job.text.count("made no progress") == 1, job.text
    assert "rank 2 of 3 made no progress for 3 s (--timeout)" in job.err, job.text
    assert re.search(rf"^  rank 2: compute in step {step} of {name} for [3-9]\.", job.err, re.M), (
        job.text
    )
    assert re.search(
        rf"^  rank 0: (communication|waiting) in step \d+ of {name} for", job.err, re.M
    ), job.text
    assert job.seconds < 40, job.text


@pytest.mark.slow
def test_a_slow_rank_changes_no_bit_of_what_is_reproducible(of_three, whole):
    """One of 3 that takes many times as long as the others."""
    found = _metrics(of_three[0], " slow")
    assert _digests(found, _ON_NO_NUMBER) == _digests(whole, _ON_NO_NUMBER)
    for name in _ON_NO_NUMBER:
        assert math.isfinite(found[name][-1]["test_loss"])


@pytest.mark.slow
def test_no_number_on_one_rank_ends_the_run_on_all(of_three):
    """A gradient of NaN in the last step of an epoch, which no loss has seen, is found at the epoch's end."""
    count, job = len(VARIANTS), of_three[1]
    codes = _codes(job)
    assert codes.count("0") == 3 * 2 * count and codes.count("2") == 3 * count, job.text
    said = job.lines("lepton_mpi: the ")
    assert len(said) == count and all("in epoch 1" in line and ": try" in line for line in said), (
        job.text
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES if _IS_LONG else ["bounded"])
def test_an_interrupt_ends_the_job(tmp_path, name):
    """Ctrl-C is a SIGINT to all processes of the terminal: launcher and, where it has not given them others, ranks."""
    path = tmp_path / "metrics.jsonl"
    words = [("--" + key.replace("_", "-"), str(value)) for key, value in VARIANTS[name].items()]
    options = ("--epochs", "1000000", "--progress", "none", "--metrics", str(path))
    flat = [word for pair in words for word in pair]
    with jobs.started(3, *jobs.TRAIN, *flat, *options, cwd=tmp_path) as job:
        end = time.monotonic() + 60
        while not (path.exists() and path.read_text().count("\n") > 1):
            assert job.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGINT)
        began = time.monotonic()
        out, err = job.communicate(timeout=30)
        assert job.returncode != 0
        while jobs.processes_with(str(path)) and time.monotonic() < began + 20:
            time.sleep(0.05)
        assert not jobs.processes_with(str(path))
        assert "Traceback" not in out + err, out + err


# -- over two hosts ----------------------------------------------------------------------------------

_OVER_HOSTS = _KILLED if _IS_LONG else ["hierarchical", "bounded"]
# Each codec, and each strategy that compresses; which of them meet is of no matter to a fault.
COMPRESSED = (
    *(("diloco", "int8"), ("sync", "powersgd:2"), ("delayed", "topk:0.05"), ("local", "sign")),
    *(("hierarchical", "int4"), ("sync", "bf16"), ("delayed", "randomk:0.1"), ("local", "fp16")),
    *(("diloco", "topk:0.05,sampled"), ("hierarchical", "powersgd:2"), ("sync", "auto:int4")),
)


def _over_hosts(folder: Path, ranks: list[str], *fits: Fit) -> subprocess.CompletedProcess[str]:
    """As ``_run``, on two hosts."""
    program = f"import os; os.chdir({str(folder)!r})\n" + _PROGRAM
    return jobs.run_over_hosts(ranks, "-c", program, json.dumps(fits))


def _kill_over_hosts(folder: Path, name: str, seed: int, **more: Any) -> None:
    """Of 2 x 2 ranks one, by SIGKILL, in the second epoch; it must end the job soon, and be named."""
    draw = random.Random(f"{name} {seed} hosts")
    fault = {"act": "kill", "rank": draw.randrange(4), "step": draw.randint(_EVERY + 1, 35)}
    print(f"seed {seed}: {name} {more} {fault} on two hosts")
    ended = _over_hosts(folder, ["2"], ({**_SAVED, **VARIANTS[name], **more}, fault))
    assert ended.returncode != 0 and _seconds_since_death(folder) < 15, ended.stderr
    of = VARIANTS[name]["strategy"]
    pattern = _DIED.format(rank=fault["rank"], ranks=4, step=fault["step"], name=of)
    # Open MPI may abort a peer on the other host, "Socket closed", before the death on its own host is told.
    first = _OF_LAUNCHER + r"|An error occurred in Socket closed"
    assert re.search(pattern + first, ended.stdout + ended.stderr), ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", _OVER_HOSTS)
@pytest.mark.parametrize("seed", range(_SEED, _SEED + max(1, _KILLS // 4)))
def test_a_rank_that_is_killed_ends_the_job_on_both_hosts(tmp_path, name, seed):
    """Also for those that wait for it on the other host; a run of one host goes on from what it has left."""
    _kill_over_hosts(tmp_path, name, seed)
    on = {**_SAVED, **VARIANTS[name], "resume": "runs"}
    job = _run(tmp_path, 2, ({**on, "metrics": "on.jsonl"}, None))
    assert _codes(job) == ["0", "0"], job.text
    assert math.isfinite(jobs.metrics(tmp_path / "on.jsonl")[-1]["test_loss"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "codec"), COMPRESSED if _IS_LONG else COMPRESSED[:1])
def test_a_killed_run_with_a_codec_goes_on_on_other_ranks(tmp_path, name, codec):
    """On hosts of other sizes, with the residuals of its last checkpoint, to an end as good as it should be."""
    _kill_over_hosts(tmp_path, name, _SEED, compress=codec)
    newest, _ = checkpoint_folder.newest_whole(tmp_path / "runs")
    assert newest.name == f"step-{_EVERY:08d}.h5"
    state = checkpoint.read(newest).state
    left = [vector for key, vector in state.items() if key.startswith("residual.")]
    # auto may leave all buckets as they are, on a fast wire.
    assert len(left) >= 2 and (any(map(np.any, left)) or codec.startswith("auto"))
    on = {**_RUN, **VARIANTS[name], "compress": codec, "resume": str(newest)}
    ended = _over_hosts(tmp_path, ["1", "2"], ({**on, "metrics": "on.jsonl"}, None))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = jobs.metrics(tmp_path / "on.jsonl")
    assert lines[-2]["epoch"] == _EPOCHS
    # Of 10 classes; without a codec it is 0.9.
    assert lines[-1]["test_accuracy"] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("name", list(STRATEGIES) if _IS_LONG else ["gossip"])
def test_a_rank_that_hangs_is_named_on_another_host(tmp_path, name):
    """By the ranks of its own host, before those of the other one, which wait for it, end the job."""
    step = random.Random(f"{name} {_SEED}").randint(2, 2 * _STEPS)
    fault = {"act": "sleep", "rank": 3, "step": step, "seconds": 1000}
    hanging = {**_RUN, **VARIANTS[name], "timeout": 4}
    ended = jobs.run_over_hosts(["2"], "-c", _PROGRAM, json.dumps([(hanging, fault)]))
    assert ended.returncode != 0
    assert "rank 3 of 4 made no progress for 4 s (--timeout)" in ended.stderr, ended.stderr
    assert f"  rank 3: compute in step {step} of {name} for" in ended.stderr, ended.stderr
