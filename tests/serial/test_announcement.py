"""The files by which ranks are announced to a run, and ``join``, which writes them."""

import dataclasses
import errno
import json
import os
import threading
import time

import pytest

from lepton_mpi.__main__ import main
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.run import announcement
from lepton_mpi.run.announcement import Answer
from lepton_mpi.run.folder_lock import FolderLock, Owner


def _dead() -> Owner:
    return dataclasses.replace(Owner.here(), process_start="1", token="dead")


def _left(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_request_is_taken_and_answered_once(tmp_path):
    assert announcement.waiting(tmp_path) is None
    request = announcement.announce(tmp_path, 3)
    found = announcement.waiting(tmp_path)
    assert found == request and found.ranks == 3 and found.owner.pid == os.getpid()
    assert announcement.answer_to(tmp_path, request) is None
    assert announcement.take(tmp_path, found)
    assert not announcement.take(tmp_path, request)  # too late to take it back
    assert announcement.waiting(tmp_path) is None
    said = Answer(True, "3 ranks joined")
    announcement.answer(tmp_path, found, said)
    assert announcement.answer_to(tmp_path, request) == said
    assert announcement.answer_to(tmp_path, request) is None and _left(tmp_path) == []


def test_one_asks_at_a_time(tmp_path):
    """A second one is refused, and the first one's request stays."""
    first = announcement.announce(tmp_path, 1)
    with pytest.raises(ConfigurationError, match="expected nobody else who asks"):
        announcement.announce(tmp_path, 2)
    assert announcement.waiting(tmp_path) == first and _left(tmp_path) == ["joining.json"]


def test_of_many_takers_one_gets_it(tmp_path):
    """The run, or whoever takes it back."""
    request = announcement.announce(tmp_path, 1)
    found, gate = list[bool](), threading.Barrier(8)

    def take() -> None:
        gate.wait()
        found.append(announcement.take(tmp_path, request))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == 1


def test_nobody_joins_for_an_asker_that_is_gone(tmp_path):
    """Its request is removed, and keeps nobody else from asking; its answer is not written."""
    request = announcement.announce(tmp_path, 2)
    path = tmp_path / "joining.json"
    text = json.dumps(dataclasses.asdict(_dead()) | {"ranks": 2})
    path.write_text(text)
    assert announcement.waiting(tmp_path) is None and not path.exists()
    path.write_text(text)
    assert announcement.announce(tmp_path, 1).ranks == 1
    gone = dataclasses.replace(request, owner=_dead())
    announcement.answer(tmp_path, gone, Answer(True, ""))
    assert _left(tmp_path) == ["joining.json"]


def _failing(number: int):
    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    return fails


def test_a_folder_that_does_not_answer_for_a_moment_ends_no_run(tmp_path, monkeypatch):
    announcement.announce(tmp_path, 1)
    monkeypatch.setattr(os, "stat", _failing(errno.ESTALE))
    assert announcement.waiting(tmp_path) is None


def test_a_folder_without_links(tmp_path, monkeypatch):
    """Where a run may train, ranks can be asked for; by one at a time."""
    monkeypatch.setattr(os, "link", _failing(errno.EPERM))
    first = announcement.announce(tmp_path, 1)
    with pytest.raises(ConfigurationError, match="expected nobody else who asks"):
        announcement.announce(tmp_path, 2)
    assert announcement.waiting(tmp_path) == first and _left(tmp_path) == ["joining.json"]


def test_a_leftover_that_cannot_be_removed_is_named(tmp_path, monkeypatch):
    """As that of another user in a folder of all."""
    left = tmp_path / "joining.json"
    left.write_text("")
    usual = type(left).unlink

    def unlink(path, missing_ok=False):
        if path == left:
            _failing(errno.EPERM)()
        usual(path, missing_ok)

    monkeypatch.setattr(type(left), "unlink", unlink)
    with pytest.raises(ConfigurationError, match=r"joining\.json: .*cannot be removed"):
        announcement.announce(tmp_path, 1)
    assert _left(tmp_path) == ["joining.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"ranks": 1}', '{"ranks": "2"}', "[" * 9000]
)
def test_files_that_anybody_wrote(tmp_path, text):
    for name in ("joining.json", "elastic.json"):
        (tmp_path / name).write_text(text)
    assert announcement.waiting(tmp_path) is None
    assert announcement.invitation(tmp_path) is None
    request = announcement.announce(tmp_path, 1)
    (tmp_path / f"joining-{request.owner.token}.json").write_text(text)
    said = announcement.answer_to(tmp_path, request)
    assert said is None or not said.is_well


@pytest.mark.parametrize("ranks", [0, -1, "2", True, None, 1.5])
def test_a_number_of_ranks_that_is_none(tmp_path, ranks):
    values = dataclasses.asdict(Owner.here()) | {"ranks": ranks}
    (tmp_path / "joining.json").write_text(json.dumps(values))
    assert announcement.waiting(tmp_path) is None


@pytest.mark.timeout(20)
def test_a_pipe_is_no_request_and_not_waited_for(tmp_path):
    """Behind an epoch a run looks for it."""
    os.mkfifo(tmp_path / "joining.json")
    assert announcement.waiting(tmp_path) is None and not _left(tmp_path)


def test_what_killed_processes_have_left_goes(tmp_path):
    """What belongs to living ones stays, and so does an answer that is still to be read."""
    announcement.invite(tmp_path, 2, 100)
    request = announcement.announce(tmp_path, 1)
    announcement.answer(tmp_path, request, Answer(True, "well"))
    announcement.remove_leftovers(tmp_path)
    answer = f"joining-{request.owner.token}.json"
    assert _left(tmp_path) == sorted(["elastic.json", answer, "joining.json"])
    for name in ("elastic.json", "joining.json"):
        (tmp_path / name).write_text(json.dumps(dataclasses.asdict(_dead()) | {"ranks": 1}))
    (tmp_path / "joining-x.tmp").touch()
    for name in (answer, "joining-x.tmp"):
        os.utime(tmp_path / name, (time.time() - 100,) * 2)
    announcement.remove_leftovers(tmp_path)
    assert _left(tmp_path) == []


def test_the_end_of_a_run_is_told(tmp_path):
    """To whoever asks; another run's word stays."""
    announcement.invite(tmp_path, 2, 100)
    found = announcement.invitation(tmp_path)
    assert found and (found.ranks, found.rank_bytes) == (2, 100)
    request = announcement.announce(tmp_path, 1)
    announcement.end_invitation(tmp_path)
    assert announcement.answer_to(tmp_path, request) == Answer(False, "the run has ended")
    other = dataclasses.replace(Owner.here(), pid=1, token="other")
    (tmp_path / "elastic.json").write_text(json.dumps(dataclasses.asdict(other)))
    announcement.end_invitation(tmp_path)
    assert _left(tmp_path) == ["elastic.json"]


def _join(capsys, *words: str) -> tuple[int, str]:
    """Exit code, and what it said."""
    code = main(["join", *map(str, words)])
    captured = capsys.readouterr()
    assert (captured.out == "") != (captured.err == "")
    return code, captured.out + captured.err


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    assert _join(capsys, tmp_path / "none") == (
        3,
        f"lepton_mpi join: {tmp_path / 'none'}: expected a folder of checkpoints, got no folder\n",
    )
    code, text = _join(capsys, tmp_path)
    assert code == 2 and "the folder belongs to no run now" in text
    code, text = _join(capsys, tmp_path, "--ranks", "0")
    assert code == 2 and "--ranks: expected a whole number of at least 1, got '0'" in text
    lock = FolderLock(tmp_path)
    lock.take()
    code, text = _join(capsys, tmp_path)
    assert (
        code == 2
        and f"expected a run with --elastic that has begun to train, got process {os.getpid()}"
        in text
    )
    announcement.invite(tmp_path, 2, 1 << 60)
    code, text = _join(capsys, tmp_path, "--ranks", "4")
    assert code == 2 and "--ranks 4: expected 4194304 TiB of memory for 4 more ranks" in text
    lock.release()
    (tmp_path / "elastic.json").unlink()
    (tmp_path / "owner-0007.lock").write_text(json.dumps(dataclasses.asdict(_dead())))
    code, text = _join(capsys, tmp_path)
    assert code == 2 and "which has ended" in text
    assert _left(tmp_path) == ["owner-0007.lock"] and text.count("\n") == 1


@pytest.mark.parametrize(("is_well", "code"), [(True, 0), (False, 4)])
def test_the_command_says_what_the_run_answers(tmp_path, capsys, monkeypatch, is_well, code):
    announcement.invite(tmp_path, 2, 100)
    said = Answer(is_well, "2 ranks joined from epoch 4 on: 4 ranks")

    def run(seconds: float) -> None:
        request = announcement.waiting(tmp_path)
        assert request and request.ranks == 2 and announcement.take(tmp_path, request)
        announcement.answer(tmp_path, request, said)

    monkeypatch.setattr(time, "sleep", run)
    prefix = "" if is_well else "lepton_mpi join: "
    assert _join(capsys, tmp_path, "--ranks", "2") == (code, f"{prefix}{said.text}\n")
    assert _left(tmp_path) == ["elastic.json"]


@pytest.mark.parametrize("is_late", [False, True])
def test_an_interrupt_takes_the_request_back(tmp_path, capsys, monkeypatch, is_late):
    announcement.invite(tmp_path, 2, 100)

    def interrupt(seconds: float) -> None:
        request = announcement.waiting(tmp_path)
        assert request
        if is_late:
            announcement.take(tmp_path, request)
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    code, text = _join(capsys, tmp_path)
    assert code == 130 and ("too late" if is_late else "interrupted, taken back") in text
    assert _left(tmp_path) == ["elastic.json"]


def test_the_command_ends_with_a_run_that_was_killed(tmp_path, capsys, monkeypatch):
    """Which answers nobody; the ranks that are left, if there are any, would have gone on by then."""
    announcement.invite(tmp_path, 2, 100)

    def pass_by(seconds: float) -> None:
        (tmp_path / "elastic.json").unlink(missing_ok=True)
        now[0] += 4

    now = [0.0]
    monkeypatch.setattr(time, "sleep", pass_by)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    code, text = _join(capsys, tmp_path)
    assert code == 4 and "the run has ended" in text and _left(tmp_path) == [] and now[0] < 30
