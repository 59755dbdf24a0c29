"""LEPTON_FAULT: what it may say, and when what it says happens; and what ``chaos`` draws."""

import errno
import json
import os
import subprocess
import sys
from random import Random

import pytest

from lepton_mpi import fault_points
from lepton_mpi.chaos.draw import KINDS, ON_ONE_HOST, Situation, in_turn, ranks_for
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.fault_points import ACTIONS, POINTS, Fault, read


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("action", ACTIONS)
def test_every_fault_reads_as_it_is_written(point, action):
    seconds = 0.25 if action in ("sleep", "spin") else 0.0
    for fault in (
        Fault(point, action, seconds=seconds),
        Fault(point, action, 7, seconds=seconds),
        Fault(point, action, None, 3, seconds),
        Fault(point, action, 0, 0, seconds),
    ):
        assert read(f" {fault},") == (fault,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("step", "expected POINT"),
        ("step@7:kill", "expected POINT"),
        ("step@step=x:kill", "expected POINT"),
        ("step@step=-1:kill", "expected POINT"),
        ("step:rank=1:2:kill", "expected POINT"),
        ("step:1:kill", "expected POINT"),
        ("step:sleep", "expected POINT"),
        ("step:kill=3", "expected POINT"),
        ("step:sleep=long", "expected seconds"),
        ("step:sleep=-1", "expected seconds"),
        ("step:sleep=nan", "expected seconds"),
        ("steps:kill", "did you mean step?"),
        ("checkpoint.rename:kill", "expected a point"),
        ("step:kil", "did you mean kill?"),
    ],
)
def test_others_are_refused_by_name(text, reason):
    with pytest.raises(ConfigurationError, match="LEPTON_FAULT") as caught:
        read(f"start:kill, {text}")
    assert reason in str(caught.value)
    assert caught.value.agreed


def _reached(fault: str, rank: int, calls: str, **variables: str) -> subprocess.CompletedProcess:
    program = f"from lepton_mpi.fault_points import reached\n{calls}\nprint('on')"
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"LEPTON_FAULT": fault, "OMPI_COMM_WORLD_RANK": str(rank), "PATH": ""}
        | {"PYTHONPATH": ":".join(filter(None, sys.path))}
        | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("fault", "rank", "is_killed"),
    [
        ("step@step=7:rank=1:kill", 1, True),
        ("step@step=7:kill", 0, True),
        ("step:rank=1:kill", 1, True),
        ("step@step=7:rank=1:kill", 0, False),
        ("step@step=8:rank=1:kill", 1, False),
        ("epoch@step=7:rank=1:kill", 1, False),
        ("epoch:kill, step@step=7:kill", 1, True),
        ("", 0, False),
    ],
)
def test_it_happens_at_its_point_step_and_rank(fault, rank, is_killed, tmp_path):
    log = tmp_path / "log"
    found = _reached(fault, rank, "reached('step', 7)", LEPTON_FAULT_LOG=str(log))
    assert (found.returncode == -9) == is_killed, found.stderr
    assert (found.stdout == "on\n") == (not is_killed)
    lines = log.read_text().splitlines() if log.exists() else []
    facts = [json.loads(line) for line in lines]
    assert [(fact["step"], fact["rank"]) for fact in facts] == [(7, rank)] * is_killed


@pytest.mark.parametrize(
    ("action", "code"),
    [("segv", -11), ("term", -15), ("exit", 1)],
)
def test_actions_end_as_they_say(action, code):
    assert _reached(f"end:{action}", 0, "reached('end')").returncode == code


@pytest.mark.parametrize(("action", "number"), [("full", errno.ENOSPC), ("error", errno.EIO)])
def test_disks_fail_by_their_number(action, number):
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        ACTIONS[action](0.0)
    assert caught.value.errno == number


def test_a_cut_network_ends_both_ends_of_a_connection():
    program = """
import socket
server = socket.create_server(("127.0.0.1", 0))
mine = socket.create_connection(server.getsockname())
other, _ = server.accept()
pipe, _ = socket.socketpair()
reached("step", 1)
assert mine.recv(1) == b"" and other.recv(1) == b""
pipe.send(b"x")
"""
    assert _reached("step:cut", 0, program).stdout == "on\n"


def test_nothing_is_wanted_without_the_variable():
    assert fault_points.wanted({}) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_lies_ahead_and_within_the_ranks(kind):
    """And always before the last step, so that it comes."""
    draw = Random(0)
    for _ in range(200):
        saved, ranks = draw.randint(0, 99), draw.randint(1, 8)
        now = Situation(saved, 100, ranks, draw.randint(1, 20))
        for fault in KINDS[kind](draw, now):
            assert read(str(fault)) == (fault,)
            assert fault.step is None or saved < fault.step <= 100
            assert fault.rank is None or 0 <= fault.rank < ranks


def test_kinds_come_equally_often():
    found = in_turn(ON_ONE_HOST, 30, Random(3))
    counts = {kind: found.count(kind) for kind in ON_ONE_HOST}
    assert len(found) == 30
    assert set(counts.values()) == {2, 3}
    assert found == in_turn(ON_ONE_HOST, 30, Random(3))


def test_a_rank_that_is_stopped_is_not_alone():
    """Nobody would wait for it, and nobody end it."""
    assert ranks_for("stop", (1, 2, 4)) == [2, 4]
    assert ranks_for("stop", (1,)) == []
    for kind in {*KINDS, ""} - {"stop"}:
        assert ranks_for(kind, (1, 2, 4)) == [1, 2, 4]
