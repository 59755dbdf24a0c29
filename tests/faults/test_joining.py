"""Ranks join a run that trains, at one epoch or several, before and behind losses: it ends with the bits of one that nothing happened to."""

import time

import pytest

from lepton_mpi.run import announcement
from tests.faults import jobs
from tests.faults.recoveries import needs_ulfm

_LAUNCH = "mpirun --with-ft ulfm --oversubscribe --bind-to none --allow-run-as-root -n"
# With which the launcher takes the death of a rank that joined for no error.
_OPTION = "--prtemca state_base_recoverable 1"
# 18 steps an epoch.
_TRAIN = (*jobs.TRAIN, "--recipe", "digits", "--epochs", "12", "--progress", "plain")
_SAVES = ("--checkpoint", "runs", "--elastic")


@pytest.fixture(autouse=True)
def _with_ulfm(monkeypatch):
    monkeypatch.setenv("LEPTON_TEST_LAUNCH", _LAUNCH.replace(" -n", f" {_OPTION} -n"))


def _end(job: jobs.Ended, code: int = 0) -> list[str]:
    """Test figures and digest, as printed."""
    assert job.code == code, job.text
    assert "Traceback" not in job.text and not job.lines("lepton_mpi"), job.text
    return [*job.lines("test"), *job.lines("weights")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[str]:
    return _end(jobs.run(2, *_TRAIN, cwd=tmp_path_factory.mktemp("undisturbed")))


def _said(folder, ranks: int) -> announcement.Answer:
    """Ask the run that has, or will have, this folder; its answer."""
    folder.mkdir(exist_ok=True)
    request = announcement.announce(folder, ranks)
    deadline = time.monotonic() + 60
    while (said := announcement.answer_to(folder, request)) is None:
        assert time.monotonic() < deadline, "no answer"
        time.sleep(0.02)
    return said


def _joined(tmp_path, ranks: int, *joins: int, words=(*_TRAIN, *_SAVES), **variables: str):
    """A job that is asked for further ranks one time after the other, from its first epoch on: its end, and what it said."""
    began = time.monotonic()
    with jobs.started(ranks, *words, cwd=tmp_path, **variables) as job:
        said = [_said(tmp_path / "runs", count) for count in joins]
        out, err = job.communicate(timeout=90)
    ended = jobs.Ended(job.returncode, out, err, time.monotonic() - began)
    left = {path.name for path in (tmp_path / "runs").iterdir()}
    assert left == {"step-00000198.h5", "step-00000216.h5"}, ended.text
    return ended, said


@needs_ulfm
def test_two_ranks_join_by_the_command(tmp_path, undisturbed):
    """While the run trains; the command says from when on, and the metrics have it."""
    words = (*_TRAIN, *_SAVES, "--metrics", "run.jsonl")
    with jobs.started(2, *words, cwd=tmp_path, LEPTON_FAULT="step:sleep=0.01") as job:
        while announcement.invitation(tmp_path / "runs") is None:
            assert job.poll() is None
            time.sleep(0.02)
        join = jobs.run(0, "-m", "lepton_mpi", "join", "runs", "--ranks", "2", cwd=tmp_path)
        out, err = job.communicate(timeout=90)
    ended = jobs.Ended(job.returncode, out, err, 0.0)
    assert _end(ended) == undisturbed
    (record,) = [r for r in jobs.metrics(tmp_path / "run.jsonl") if r["event"] == "elastic"]
    epoch = record["epoch"]
    assert (record["joined"], record["ranks"], record["step"]) == ([2, 3], 4, 18 * (epoch - 1))
    assert join.code == 0 and join.out == f"2 ranks joined from epoch {epoch} on: 4 ranks\n"
    expected = f"elastic   ranks 2 and 3 of 4 joined: 4 ranks go on from epoch {epoch}"
    assert ended.lines("elastic") == [expected]


@needs_ulfm
@pytest.mark.slow
def test_one_that_joined_dies_without_the_others_that_joined(tmp_path, undisturbed, monkeypatch):
    """To a launcher without the option, too, though it takes that for an error."""
    monkeypatch.setenv("LEPTON_TEST_LAUNCH", _LAUNCH)
    fault = "step:sleep=0.01, step@step=100:rank=2:kill"
    job, said = _joined(tmp_path, 1, 3, LEPTON_FAULT=fault)
    assert said[0].is_well and _end(job, 137) == undisturbed
    assert "rank 2 of 4 died: 3 ranks went on" in job.lines("elastic")[-1], job.text


@needs_ulfm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "joins", "kills", "lines"),
    [
        (1, (1, 2), "", ["rank 1 of 2 joined", "ranks 2 and 3 of 4 joined"]),
        (
            4,
            (1,),
            "step@step=5:rank=1:kill",
            ["rank 1 of 4 died: 3 ranks went on", "rank 3 of 4 joined: 4 ranks go on from epoch 2"],
        ),
        (
            2,
            (2,),
            "exchange@step=100:rank=3:kill, step@step=150:rank=0:kill",
            ["ranks 2 and 3 of 4 joined", "rank 3 of 4 died: 3 ranks", "rank 0 of 3 died: 2 ranks"],
        ),
        (
            2,
            (2, 1),
            "step@step=25:rank=0:kill",
            ["ranks 2 and 3 of 4 joined", "rank 0 of 4 died: 3 ranks", "rank 3 of 4 joined"],
        ),
    ],
    ids=["twice", "behind a loss", "before losses", "before and behind a loss"],
)
def test_joins_and_losses(tmp_path, undisturbed, ranks, joins, kills, lines):
    """At the ends of epochs; ranks that have joined are lost like others, and those that they joined, too."""
    fault = ", ".join(filter(None, ["step:sleep=0.01", kills]))
    job, said = _joined(tmp_path, ranks, *joins, LEPTON_FAULT=fault)
    assert all(each.is_well for each in said), said
    assert _end(job) == undisturbed
    found = job.lines("elastic")
    assert len(found) == len(lines), job.text
    assert all(line in text for line, text in zip(lines, found, strict=True)), job.text


_DIES_EARLY = """
import os, signal
from lepton_mpi import launcher

me = launcher.joining()
if me and me.rank == 3:
    os.kill(os.getpid(), signal.SIGKILL)

from lepton_mpi import fit

if __name__ == "__main__":
    fit(recipe="digits", epochs=12, progress="plain", elastic=True, checkpoint="runs")
"""


@needs_ulfm
@pytest.mark.slow
def test_the_run_goes_on_without_ranks_that_do_not_come(tmp_path, undisturbed):
    """One of two ends before it has come to MPI, where the others would wait for it for ever; the next two come."""
    (tmp_path / "program.py").write_text(_DIES_EARLY)
    job, said = _joined(tmp_path, 2, 2, 2, words=("program.py",), LEPTON_FAULT="step:sleep=0.01")
    assert _end(job) == undisturbed
    first, second = job.lines("elastic")
    assert "no ranks joined: a new rank ended" in first and first.endswith(said[0].text)
    assert "ranks 2 and 3 of 4 joined" in second
    assert [each.is_well for each in said] == [False, True]


@needs_ulfm
@pytest.mark.slow
def test_a_new_rank_dies_before_its_first_step(tmp_path, undisturbed):
    """It is lost like another, and who has asked is told so."""
    fault = "step:sleep=0.01, start:rank=3:kill"
    job, said = _joined(tmp_path, 2, 2, LEPTON_FAULT=fault)
    assert _end(job) == undisturbed
    assert not said[0].is_well and "died while they joined: 3 go on from epoch 2" in said[0].text
