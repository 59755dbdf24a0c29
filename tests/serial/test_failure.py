"""Ranks that fail at the same time take turns, so that one of them speaks, also after their world has ended."""

import fcntl
import os
import threading
import time
import traceback
from contextlib import suppress
from typing import ClassVar

import numpy as np
import pytest

from lepton_mpi import report_word
from lepton_mpi.world import failure


class _NoTimer:
    """Would end these tests; says with which code, unless it is closed."""

    codes: ClassVar[list[int]] = []

    def __init__(self, code=None):
        self._code = code

    @classmethod
    def calling(cls, function, code):
        return cls(code)

    @classmethod
    def killing(cls, number):
        return cls()

    def set(self, seconds):
        if self._code is not None:
            self.codes.append(self._code)

    def close(self):
        self.codes.remove(self._code)


@pytest.fixture
def two_ranks(monkeypatch):
    """Two ranks' ends of a job, each with a descriptor of its own of one file, as in two processes."""
    monkeypatch.setattr(failure, "_abort", lambda exit_code: None)
    monkeypatch.setattr(failure, "Timer", _NoTimer)
    monkeypatch.setattr(failure, "end_launcher", lambda process, seconds: None)
    monkeypatch.setattr(failure, "_OTHERS_SPEAK_SECONDS", 0.0)
    monkeypatch.setattr(_NoTimer, "codes", [])
    file, reported = os.memfd_create("failure"), np.zeros(1, np.int64)
    files = [os.open(f"/proc/self/fd/{file}", os.O_RDWR) for _ in range(2)]
    ranks = [failure.Failure(rank, 2, files[rank], reported) for rank in range(2)]
    yield ranks, files
    for rank in reversed(ranks):
        rank.close(hooks_stay=False)
    for each in {file, *files}:
        os.close(each)


@pytest.mark.parametrize("is_over", [False, True], ids=["in the world", "after it"])
def test_one_of_two_ranks_speaks(two_ranks, capsys, is_over):
    """The second one waits for the first and then has nothing to add."""
    ranks, files = two_ranks
    if is_over:
        for rank in ranks:
            rank.close(hooks_stay=True)
    fcntl.flock(files[0], fcntl.LOCK_EX)
    speaking = [
        threading.Thread(target=rank.fail, args=(f"rank {i}",)) for i, rank in enumerate(ranks)
    ]
    speaking[1].start()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""
    fcntl.flock(files[0], fcntl.LOCK_UN)
    speaking[0].start()
    for thread in speaking:
        thread.join()
    assert capsys.readouterr().err in ("rank 0\n", "rank 1\n")


def test_a_world_after_the_world_gives_back_what_the_first_one_held():
    """Descriptors do not add up in a program that opens one world after the other."""
    held = []
    for _ in range(3):
        file = os.memfd_create("failure")
        made = failure.Failure(0, 2, file, np.zeros(1, np.int64))
        made.close(hooks_stay=True)
        os.close(file)
        held.append(len(os.listdir("/proc/self/fd")))
    last = failure.Failure(0, 2, file := os.memfd_create("failure"), np.zeros(1, np.int64))
    last.close(hooks_stay=False)
    os.close(file)
    assert held[0] == held[1] == held[2]


def _raise_deeply(depth: int) -> None:
    if depth:
        return _raise_deeply(depth - 1)
    try:
        raise KeyError("the first")
    except KeyError:
        raise ValueError("the last\nin two lines") from None


@pytest.mark.parametrize("depth", [0, 40])
def test_a_long_traceback_is_cut_to_its_end(depth):
    """What fits is the error and its innermost calls."""
    try:
        _raise_deeply(depth)
    except ValueError as error:
        whole = "".join(traceback.format_exception(error))
    lines = failure.excerpt(whole, 11)
    assert len(lines) <= 11
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == ["ValueError: the last", "in two lines"]
    assert 'raise ValueError("the last' in "".join(lines)
    assert ("left out" in "".join(lines)) == (depth > 0)


def test_of_errors_that_led_to_others_the_last_one_is_shown():
    try:
        try:
            _raise_deeply(20)
        except ValueError as error:
            raise RuntimeError("at last") from error
    except RuntimeError as error:
        lines = failure.excerpt("".join(traceback.format_exception(error)), 11)
    assert lines[-1] == "RuntimeError: at last" and len(lines) <= 11
    assert not any("the last" in line for line in lines)


def test_all_ranks_end_with_the_code_of_the_first(two_ranks, monkeypatch, capsys):
    """Whatever they fail for themselves: the launcher takes the code of any of them."""
    codes = []
    monkeypatch.setattr(failure, "_abort", codes.append)
    ranks, _ = two_ranks
    ranks[0].fail("the cause", 3)
    ranks[1].fail("a consequence", 5)
    assert codes == [3, 3]
    assert capsys.readouterr().err == "the cause\n"
    assert report_word.code_of(int(ranks[0]._reported[0])) == 3


def test_a_rank_that_waits_for_the_first_ends_with_its_code(two_ranks, monkeypatch, capsys):
    """It began to fail before the first had said its code; also what ends it where MPI's abort hangs."""
    codes = []
    monkeypatch.setattr(failure, "_abort", codes.append)
    ranks, files = two_ranks
    fcntl.flock(files[0], fcntl.LOCK_EX)
    late = threading.Thread(target=ranks[1].fail, args=("a consequence", 5))
    late.start()
    while not _NoTimer.codes:
        time.sleep(0.001)
    time.sleep(0.05)  # it waits for the lock
    ranks[0]._reported[0] = report_word.reported_with(3)
    fcntl.flock(files[0], fcntl.LOCK_UN)
    late.join()
    assert codes == [3] and _NoTimer.codes == [3]
    assert capsys.readouterr().err == ""


def test_a_rank_that_was_killed_in_its_report_has_not_reported(two_ranks, capsys):
    """The next one does, and the one behind it does not."""
    ranks, _ = two_ranks
    ranks[0]._reported[0] = report_word.reporting_with(5)
    assert ranks[1].has_begun
    ranks[1].fail("the cause", 5)
    ranks[0].fail("a consequence", 5)
    assert capsys.readouterr().err == "the cause\n"


def test_a_folder_that_hangs_keeps_no_report(two_ranks, monkeypatch, tmp_path, capsys):
    """A pipe that nobody reads cannot be opened; nor does the end of the job wait for it."""
    monkeypatch.setenv("LEPTON_REPORTS", str(tmp_path))
    monkeypatch.setattr(failure, "_KEEP_SECONDS", 0.1, raising=False)
    os.mkfifo(tmp_path / "rank-0.txt")
    ranks, _ = two_ranks
    failing = threading.Thread(target=ranks[0].fail, args=("the cause",), daemon=True)
    failing.start()
    failing.join(10)
    has_ended = not failing.is_alive()
    with open(tmp_path / "rank-0.txt") as pipe:  # lets go of whoever waits
        assert pipe.read() == "the cause\n"
    assert has_ended
    assert capsys.readouterr().err == "the cause\n"


def test_an_output_that_nobody_reads_keeps_no_report(two_ranks, monkeypatch, capsys):
    """Standard output is flushed first, to stand before the report."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(1 << 16))
    os.set_blocking(writer, True)
    monkeypatch.setattr(failure, "_FLUSH_SECONDS", 0.1, raising=False)
    ranks, _ = two_ranks
    with open(writer, "w") as output:
        output.write("a line")
        monkeypatch.setattr("sys.stdout", output)
        failing = threading.Thread(target=ranks[0].fail, args=("the cause",), daemon=True)
        failing.start()
        failing.join(10)
        has_ended = not failing.is_alive()
        os.read(reader, 1 << 20)
    os.close(reader)
    assert has_ended
    assert capsys.readouterr().err == "the cause\n"


def test_whole_tracebacks_are_kept_where_they_are_wanted(two_ranks, monkeypatch, tmp_path, capsys):
    """A file for each rank that fails, also of those that do not speak."""
    monkeypatch.setenv("LEPTON_REPORTS", str(tmp_path / "reports"))
    ranks, _ = two_ranks
    for rank in ranks:
        try:
            _raise_deeply(30)
        except ValueError as error:
            rank._on_exception(type(error), error, error.__traceback__)
    assert len(capsys.readouterr().err.splitlines()) <= 12
    for number in range(2):
        text = (tmp_path / f"reports/rank-{number}.txt").read_text()
        assert text.startswith(f"lepton_mpi: rank {number} of 2 failed: ")
        assert "repeated 27 more times" in text and "ValueError: the last" in text
