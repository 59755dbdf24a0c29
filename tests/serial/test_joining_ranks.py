"""What a new rank is told, and how those that start it notice that it does not come; MPI's part is in tests/faults/test_joining.py."""

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from lepton_mpi import launcher
from lepton_mpi.launcher import Joining
from lepton_mpi.run import announcement, elastic, joins
from lepton_mpi.world import joining

_LAUNCHED = {
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_SIZE": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
}


def test_a_new_rank_knows_its_number():
    """In place of the launcher's, to which it is the only rank of a job."""
    me = Joining(5, 7, 1, "abc", 123456789012)
    environment = _LAUNCHED | me.variables()
    assert launcher.joining(environment) == me
    assert launcher.launched_rank(environment) == launcher.launched_local_rank(environment) == 5
    assert launcher.launched_size(environment) == launcher.launched_local_size(environment) == 7
    assert launcher.joining(_LAUNCHED) is None and launcher.launched_size(_LAUNCHED) == 1
    text = "\n".join(f"{name}={value}" for name, value in me.variables().items())
    assert len(text) < 256  # MPI takes no longer value


def _process(token: str, *then: str) -> subprocess.Popen:
    """Of a new rank, which says when it runs."""
    code = "; ".join([*then, "print(flush=True)", "input()"])
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | Joining(2, 3, 0, token).variables(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    return process


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def test_new_ranks_are_found_and_ended():
    """By their token; not what they have started themselves, nor the ranks of others."""
    forks = "import subprocess; child = subprocess.Popen(['sleep', '60'])"
    one, other = _process("one", forks), _process("other")
    try:
        assert joining._started("one") == {one.pid}
        joining._end_all("one")
        assert one.wait(10) == -9 and other.poll() is None
        assert one.pid not in joining._started("one")
        joining._end_all("one")  # its own child, which nobody has started now
        end = time.monotonic() + 30
        while joining._started("one") and time.monotonic() < end:
            time.sleep(0.02)
        assert joining._started("one") == set()
    finally:
        _end(one)
        _end(other)


def _spawning(**values):
    nothing = {"is_over": threading.Event(), "merged": None, "merged_count": 0, "error": ""}
    return SimpleNamespace(**nothing | values)


def _reason(spawning, token: str, is_told: bool = False) -> str:
    return joining._wait(spawning, token, SimpleNamespace(is_told=is_told))


def test_why_ranks_do_not_come(monkeypatch):
    """MPI says it, a rank is lost, or time is over."""
    over = threading.Event()
    over.set()
    assert _reason(_spawning(is_over=over, merged="a communicator"), "none") == ""
    assert (
        _reason(_spawning(is_over=over, error="no slots"), "none")
        == "MPI cannot start them: no slots"
    )
    assert _reason(_spawning(), "none", is_told=True) == "a rank was lost meanwhile"
    monkeypatch.setattr(joining, "START_SECONDS", 0.3)
    assert _reason(_spawning(), "none") == "no answer of the new ranks in 0.3 s"


def test_no_more_are_started_once_nobody_waits(monkeypatch):
    """The first one comes late."""
    monkeypatch.setattr(joining, "_info", lambda each: None)
    made = SimpleNamespace(count=0)

    def spawn(*_, **__):
        made.count += 1
        spawning.is_given_up = True
        return SimpleNamespace(Merge=lambda high: comm)

    may_begin = threading.Event()
    comm = SimpleNamespace(Spawn=lambda *some, **more: may_begin.wait(10) and spawn())
    spawning = joining._Spawning(comm, [Joining(1, 3, 1, "t"), Joining(2, 3, 0, "t")])
    may_begin.set()
    assert spawning.is_over.wait(10)
    assert made.count == 1 and spawning.merged is None and not spawning.error


_HANGS = """
import sys, time
from lepton_mpi.world import joining

joining.START_SECONDS = joining._LEFT_ALONE_SECONDS = 0.2

class Hangs:
    def find_spec(self, name, *more):
        if name == "mpi4py":
            print("MPI begins", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Hangs())
from lepton_mpi.world.world import World
World(is_elastic=True)
"""


def test_a_new_rank_that_hangs_in_the_start_of_mpi_ends_itself():
    """As where the others have given up before it was there."""
    ended = subprocess.run(
        [sys.executable, "-c", _HANGS],
        env=os.environ | Joining(2, 3, 0, "token").variables(),
        capture_output=True,
        timeout=40,
    )
    assert (ended.returncode, ended.stdout) == (1, b"MPI begins\n"), ended.stderr


@pytest.mark.parametrize(("lost", "told"), [([1], [([1], 3)]), ([], [])])
def test_what_is_lost_before_anybody_knows_it_is_not_said(lost, told):
    """A new rank whose process the others have not been told of."""
    points = elastic.Points(None)
    world = SimpleNamespace(size=3, go_on=lambda: lost)
    elastic._without_lost(world, SimpleNamespace(noticed=1.0), points)()
    assert points.lost == told


@pytest.mark.parametrize("is_first", [True, False])
def test_ranks_are_invited_to_the_first_run_of_a_program(tmp_path, monkeypatch, is_first):
    """They run the program anew, and join in its first one."""
    monkeypatch.setattr(joins, "rank_bytes", lambda run: 1)
    world = SimpleNamespace(size=2, is_first=is_first)
    joins.Joins().attach(SimpleNamespace(world=world, folder=SimpleNamespace(path=tmp_path)))
    assert (announcement.invitation(tmp_path) is not None) == is_first


def test_a_process_that_ends_before_it_joins_is_noticed(monkeypatch):
    """Also one that nobody has seen, and the second one of two."""
    process = _process("ends")
    ending = threading.Timer(0.5, process.kill)
    ending.start()
    try:
        began = time.monotonic()
        assert _reason(_spawning(), "ends") == "a new rank ended before it had joined"
        assert time.monotonic() - began < joining._NEVER_SEEN_SECONDS
    finally:
        ending.join()
        _end(process)
    monkeypatch.setattr(joining, "_NEVER_SEEN_SECONDS", 0.5)
    assert "ended before" in _reason(_spawning(), "never")
    first = _process("two")
    try:
        assert "ended before" in _reason(_spawning(merged_count=1), "two")
        monkeypatch.setattr(joining, "START_SECONDS", 1.5)
        assert "no answer" in _reason(_spawning(), "two")
    finally:
        _end(first)


@pytest.mark.parametrize("value", ["", "x", "-1"])
def test_variables_that_somebody_else_has_set(value):
    environment = {f"{launcher.JOINS}RANK": value, f"{launcher.JOINS}SIZE": value}
    assert launcher.launched_rank(environment) == 0 and launcher.joining(environment) is None
