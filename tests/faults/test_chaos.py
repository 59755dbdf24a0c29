"""A training under drawn faults ends with the weights of the undisturbed one; and what chaos refuses.

LEPTON_CHAOS_KILLS=200 python -m pytest -s -o faulthandler_timeout=0 tests/faults/test_chaos.py -k nothing      the long form, over all kinds

It takes some 10 s a kill; without the option pytest would be ended after 150 s.
"""

import json
import os

import pytest

from lepton_mpi.chaos.draw import ON_ONE_HOST
from tests.faults import jobs

_KILLS = int(os.environ.get("LEPTON_CHAOS_KILLS", "0"))
# Of 18 steps each: as many as have room for the faults, some of which come after a save.
_EPOCHS = 4 + _KILLS // 4
_OPTIONS = ("--recipe", "digits", "--epochs", str(_EPOCHS), "--checkpoint-steps", "5")


def _chaos(cwd, *words: str, limit_seconds: float = 300.0) -> jobs.Ended:
    return jobs.run(0, "-m", "lepton_mpi", "chaos", *words, cwd=cwd, limit_seconds=limit_seconds)


@pytest.mark.slow
@pytest.mark.timeout(320 + 60 * _KILLS)
def test_nothing_is_lost(tmp_path):
    """Each start on 1 or 2 ranks; the writer is killed in its saves, a rank and the launcher after steps."""
    kinds = ON_ONE_HOST if _KILLS else ("kill", "kill_in_save", "kill_launcher", "full_disk")
    count = str(_KILLS or 4)
    ended = _chaos(
        tmp_path,
        *("--kills", count, "--ranks", "1", "2", "--faults", *kinds, "--json", "found.json"),
        *("--", *_OPTIONS),
        limit_seconds=300.0 + 60.0 * _KILLS,
    )
    print(ended.text)
    assert ended.code == 0, ended.text
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["digest"] == found["disturbed_digest"] != ""
    assert found["last_step"] == 18 * _EPOCHS
    assert (found["lost_steps"], found["damaged"], found["hung"]) == (0, [], 0)
    assert (found["left_processes"], found["left_files"]) == (0, [])
    happened = [start for start in found["starts"] if start["happened"]]
    assert len(happened) == int(count)
    assert {start["kind"] for start in happened} == set(kinds)
    assert found["starts"][-1]["code"] == 0
    assert all(
        start["code"] != 0
        for start in happened
        if start["kind"] not in ("full_disk", "broken_disk")
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--", *_OPTIONS, "--checkpoint", "mine"], "--checkpoint: expected none behind --"),
        (["--", "--epochs", "none"], "--epochs"),
        (["--faults", "kil", "--"], "did you mean kill?"),
        (["--ranks", "0", "--"], "--ranks"),
        (["--ranks", "1", "--faults", "stop", "--"], "expected --ranks above 1"),
        (["--folder", ".", "--", *_OPTIONS], "expected a new folder"),
    ],
)
def test_wrong_words_are_refused_before_anything_starts(words, reason, tmp_path):
    (tmp_path / "mine.txt").touch()
    ended = _chaos(tmp_path, *words)
    assert ended.code == 2
    assert reason in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_training_that_fails_by_itself_is_no_fault(tmp_path):
    ended = _chaos(tmp_path, "--ranks", "1", "--", "--data", "nowhere.h5")
    assert ended.code == 5
    first, *output = ended.err.splitlines()
    assert "failed without a fault" in first and first.endswith("output.txt ends with:")
    assert any(line.startswith("lepton_mpi: nowhere.h5: ") for line in output), ended.err


def test_a_wrong_variable_is_refused(tmp_path):
    ended = jobs.run(1, *jobs.TRAIN, cwd=tmp_path, LEPTON_FAULT="stepp:kill")
    assert ended.code == 2
    assert ended.err.count("LEPTON_FAULT: expected a point") == 1
