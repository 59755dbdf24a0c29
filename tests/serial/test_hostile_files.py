"""Thousands of files that no training, and no ``prepare``, should survive: each is refused in one line, and none does harm.

All of them: ``mkdir /tmp/hostile; python -m tests.serial.hostile_outcomes /tmp/hostile``, about a minute on two cores; here
every eighth.
"""

import json
import subprocess
import sys
from collections import Counter

import pytest

from tests.serial import hostile_files, hostile_outcomes
from tests.serial.hostile_files import ANY, REFUSED, WHOLE

_EVERY = 8


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> list[dict]:
    """What came of the files, loaded by another process, which would die of a crash in the place of this one."""
    folder = tmp_path_factory.mktemp("hostile")
    secret = hostile_files.make_secret(folder)
    with hostile_outcomes.watched(secret) as events:
        command = [sys.executable, "-m", "tests.serial.hostile_outcomes", str(folder), "--json"]
        ended = subprocess.run(
            [*command, "--every", str(_EVERY)], capture_output=True, text=True, timeout=110
        )
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        count = len(hostile_outcomes.all_cases(secret, _EVERY))
        assert ended.returncode == 0 and ended.stderr == "", ended.stderr or lines[-1]
        assert len(lines) == count, f"ended after {lines[-1]['name']}"
        assert events() == 0, "the secret was opened"
    return lines


def test_there_are_a_thousand(tmp_path):
    """Of each kind many, each with a name of its own, and the same every time."""
    names = [case.name for case in hostile_outcomes.all_cases(tmp_path / "secret0.h5")]
    assert len(names) > 1000 and len(set(names)) == len(names)
    assert names == [case.name for case in hostile_outcomes.all_cases(tmp_path / "secret0.h5")]


@pytest.mark.slow
def test_each_is_refused_in_one_line_or_is_what_it_was(outcomes):
    """What must be refused is, what is under checksums is refused or whole, and no line tells of the secret."""
    assert [outcome for outcome in outcomes if not outcome["is_right"]] == []


def test_damage_without_a_checksum_is_no_reason_to_refuse_all(outcomes):
    """Some files with changed numbers are taken, or the check would only be good at saying no."""
    taken = Counter(outcome["must"] for outcome in outcomes if outcome["error"] is None)
    assert taken[ANY] > 0 and taken[WHOLE] > 0 and taken[REFUSED] == 0


def test_each_message_names_the_file_and_what_is_wrong(outcomes):
    """Beginning with the path, then more than the word damaged."""
    for outcome in outcomes:
        if outcome["error"] is not None:
            path, reason = outcome["error"].split(": ", 1)
            assert path.endswith("hostile.h5") and len(reason) > len("damaged: "), outcome


def test_none_takes_long(outcomes):
    """A file that leads HDF5 in circles is given up; by processor time, so that a busy machine changes nothing."""
    assert max(outcome["seconds"] for outcome in outcomes) < 30
