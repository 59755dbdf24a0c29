"""A folder of checkpoints has one owner, however many want it, wherever they are and whatever the file system can do."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from lepton_mpi.run import folder_lock
from lepton_mpi.run.checkpoint_folder import remove_leftovers
from lepton_mpi.run.folder_lock import FolderLock, FolderTakenError, Owner

_TAKE = """
import os, sys
from pathlib import Path
from lepton_mpi.run.folder_lock import FolderLock, FolderTakenError
lock = FolderLock(Path(sys.argv[1]))
try:
    lock.take()
    print("owner", lock.note, flush=True)
except FolderTakenError as error:
    print("refused", error, flush=True)
sys.stdin.read()
if sys.argv[2] == "dies":
    os._exit(1)
lock.release()
"""


def _start(folder, end="gives back"):
    return subprocess.Popen(
        [sys.executable, "-c", _TAKE, str(folder), end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _locks(folder):
    return sorted(path.name for path in folder.glob("owner-*"))


@pytest.fixture
def quick(monkeypatch):
    """A minute takes a second."""
    monkeypatch.setattr(folder_lock, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(folder_lock, "_LOOK_SECONDS", 0.02)


def _elsewhere(folder, name="owner-0001.lock", age_seconds=0.0, **changes):
    """The lock of a run on another host."""
    other = dataclasses.replace(
        Owner.here(), **{"host": "far", "boot": "other", "token": "abc"} | changes
    )
    path = folder / name
    path.write_text(json.dumps(dataclasses.asdict(other)))
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize("count", [2, 5, 20])
def test_one_of_many_is_the_owner(tmp_path, count):
    """Who wants it at the same time is refused, by the name of the one; then it is free again."""
    jobs = [_start(tmp_path) for _ in range(count)]
    said = [job.stdout.readline().split() for job in jobs]
    (owner,) = [job for job, words in zip(jobs, said, strict=True) if words[0] == "owner"]
    assert [words[0] for words in said].count("refused") == count - 1
    named = [" ".join(words) for words in said if words[0] == "refused"]
    assert all(f"process {owner.pid} on host" in text for text in named)
    assert _locks(tmp_path) == ["owner-0001.lock"]
    for job in jobs:
        job.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_a_dead_owner_is_followed_at_once(tmp_path):
    """By one of those who come then, which says whom it follows; a zombie is dead, too."""
    dead = _start(tmp_path, "dies")
    assert dead.stdout.readline() == "owner \n"
    dead.stdin.close()
    while _process_state(dead.pid) != "Z":  # ended, and nobody has asked how
        time.sleep(0.01)
    jobs = [_start(tmp_path) for _ in range(4)]
    said = [job.stdout.readline() for job in jobs]
    assert sorted(line.split()[0] for line in said) == ["owner", *3 * ["refused"]]
    (note,) = [line for line in said if line.startswith("owner")]
    assert f"taken over from process {dead.pid} on host" in note
    assert _locks(tmp_path) == ["owner-0002.lock"]
    for job in jobs:
        job.communicate("")
    dead.wait()
    dead.stdout.close()


def _process_state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_a_process_number_that_was_given_anew_is_nobody(tmp_path):
    """The number lives, the process that had it does not."""
    mine = dataclasses.replace(Owner.here(), process_start="1", token="abc")
    (tmp_path / "owner-0001.lock").write_text(json.dumps(dataclasses.asdict(mine)))
    lock = FolderLock(tmp_path)
    lock.take()
    assert "taken over" in lock.note


@pytest.mark.parametrize("changes", [{}, {"host": "", "boot": ""}, {"pid_space": "pid:[1]"}])
def test_an_owner_elsewhere_lives_as_long_as_its_heart_beats(tmp_path, quick, changes):
    """Other host, or a container with process numbers of its own: the number, which lives here, says nothing."""
    path, said = _elsewhere(tmp_path, **changes), []
    beating = threading.Event()

    def beat():
        while not beating.wait(0.1):
            os.utime(path)

    heart = threading.Thread(target=beat)
    heart.start()
    with pytest.raises(FolderTakenError, match="it belongs to"):
        FolderLock(tmp_path, said.append).take()
    beating.set()
    heart.join()
    assert len(said) == 1 and "whether that run lives" in said[0]
    began, lock = time.monotonic(), FolderLock(tmp_path)
    lock.take()
    assert "taken over" in lock.note and 0.3 < time.monotonic() - began < 30


def test_a_long_silence_is_not_waited_for(tmp_path):
    """An hour without a heartbeat."""
    _elsewhere(tmp_path, age_seconds=3600.0)
    lock = FolderLock(tmp_path, pytest.fail)
    lock.take()
    assert _locks(tmp_path) == ["owner-0002.lock"]


def test_a_taker_that_died_left_two_locks(tmp_path, quick):
    """It had made its own and not yet removed the dead owner's: from another host both are silent, and both are removed."""
    _elsewhere(tmp_path, "owner-0001.lock", 3600.0, token="owner")
    _elsewhere(tmp_path, "owner-0002.lock", 3600.0, token="taker")
    lock = FolderLock(tmp_path)
    lock.take()
    assert _locks(tmp_path) == ["owner-0003.lock"] and lock.is_there()


def test_below_a_dead_taker_an_owner_may_live(tmp_path, quick):
    """It keeps the folder."""
    path = _elsewhere(tmp_path, "owner-0001.lock", token="owner")
    _elsewhere(tmp_path, "owner-0002.lock", 3600.0, token="taker")
    beat = threading.Timer(0.3, os.utime, (path,))
    beat.start()
    with pytest.raises(FolderTakenError, match="on host far"):
        FolderLock(tmp_path).take()
    beat.join()
    assert path.exists() and "owner-0003.lock" not in _locks(tmp_path)


def test_what_is_given_back_while_one_waits_is_taken(tmp_path, quick):
    """Without the rest of the silence."""
    path = _elsewhere(tmp_path)
    threading.Timer(0.1, path.unlink).start()
    FolderLock(tmp_path).take()
    assert len(_locks(tmp_path)) == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"host": 3}', "\0" * 5000])
def test_a_lock_that_says_nothing_is_silent_soon(tmp_path, quick, text):
    """Written by anybody, or by a run that was killed while it wrote."""
    (tmp_path / "owner-0007.lock").write_text(text)
    lock = FolderLock(tmp_path)
    lock.take()
    assert _locks(tmp_path) == ["owner-0008.lock"] and "taken over" in lock.note


@pytest.mark.timeout(20)
def test_a_pipe_and_a_number_of_many_digits_are_locks_like_others(tmp_path, quick):
    """Made by anybody: one is not waited for, and behind the other the lock is found again."""
    os.mkfifo(tmp_path / "owner-999999999.lock")
    lock = FolderLock(tmp_path)
    lock.take()
    lock.confirm()
    assert _locks(tmp_path) == ["owner-1000000000.lock"]
    with pytest.raises(FolderTakenError):
        FolderLock(tmp_path).take()
    lock.release()
    assert not _locks(tmp_path)


def test_who_was_asleep_gives_way(tmp_path):
    """It finds another owner before it writes, and has the folder again when that one has ended."""
    sleeper = FolderLock(tmp_path)
    sleeper.take()
    mine = tmp_path / "owner-0001.lock"
    # Seen from the other's host, the sleeper was silent for long.
    other = _elsewhere(tmp_path, "owner-0002.lock")
    mine.unlink()
    folder_time = time.time() + 30
    os.utime(other, (folder_time, folder_time))
    beats = threading.Timer(0.6, os.utime, (other,))
    beats.start()
    with pytest.raises(FolderTakenError, match="on host far"):
        sleeper.confirm()
    beats.join()
    other.unlink()
    sleeper.confirm()
    assert _locks(tmp_path) == ["owner-0001.lock"]
    sleeper.confirm()
    sleeper.release()
    assert _locks(tmp_path) == []


def test_a_folder_taken_between_looking_and_making_is_given_back(tmp_path, monkeypatch):
    """A taker that slept after it had found the owner dead does not push out the owner that came meanwhile."""
    dead = dataclasses.replace(Owner.here(), process_start="1", token="dead")
    (tmp_path / "owner-0003.lock").write_text(json.dumps(dataclasses.asdict(dead)))
    late, make = FolderLock(tmp_path), FolderLock._make

    def made_late(self, path):
        if self is late:
            (tmp_path / "owner-0003.lock").unlink()
            FolderLock(tmp_path).take()
        return make(self, path)

    monkeypatch.setattr(FolderLock, "_make", made_late)
    with pytest.raises(FolderTakenError):
        late.take()
    assert _locks(tmp_path) == ["owner-0001.lock"]


def test_file_systems_without_hard_links(tmp_path, monkeypatch):
    """One is the owner all the same."""

    def none(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    FolderLock(tmp_path).take()
    with pytest.raises(FolderTakenError, match=f"process {os.getpid()} "):
        FolderLock(tmp_path).take()
    assert _locks(tmp_path) == ["owner-0001.lock"]


def test_a_link_whose_answer_was_lost_was_made(tmp_path, monkeypatch):
    """A file server that is asked a second time says that the name is there."""
    link = os.link

    def twice(*paths):
        link(*paths)
        link(*paths)

    monkeypatch.setattr(os, "link", twice)
    lock = FolderLock(tmp_path)
    lock.take()
    assert not lock.note and lock.is_there()


def test_an_owner_that_clears_up_meanwhile_is_asked_again(tmp_path, monkeypatch):
    """It removes what killed runs have left, and the file of one that is about to take the folder looks like that."""
    owner, link = FolderLock(tmp_path), os.link
    owner.take()
    owner.release()
    calls = []

    def cleared(*paths):
        calls.append(paths)
        if len(calls) == 1:
            remove_leftovers(tmp_path)
        link(*paths)

    monkeypatch.setattr(os, "link", cleared)
    late = FolderLock(tmp_path)
    late.take()
    assert len(calls) == 2 and late.is_there() and _locks(tmp_path) == ["owner-0001.lock"]


def test_a_heart_beats(tmp_path, monkeypatch):
    """Until the folder is given back, also where it is gone."""
    monkeypatch.setattr(folder_lock, "HEARTBEAT_SECONDS", 0.01)
    lock = FolderLock(tmp_path)
    lock.take()
    path = tmp_path / "owner-0001.lock"
    os.utime(path, (1, 1))
    lock.begin_heartbeat()
    deadline = time.monotonic() + 30
    while path.stat().st_mtime == 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    path.unlink()
    time.sleep(0.05)
    lock.release()
