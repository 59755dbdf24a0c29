"""Ranks that fail at the same time take turns, so that one of them speaks, also after their world has ended."""

import fcntl
import os
import threading
import time

import numpy as np
import pytest

from lepton_mpi.world import failure


@pytest.fixture
def two_ranks(monkeypatch):
    """Two ranks' ends of a job, each with a descriptor of its own of one file, as in two processes."""
    monkeypatch.setattr(failure, "_abort", lambda exit_code: None)
    monkeypatch.setattr(failure, "_end_process_soon", lambda exit_code: None)
    monkeypatch.setattr(failure, "end_launcher", lambda process, seconds: None)
    monkeypatch.setattr(failure, "_OTHERS_SPEAK_SECONDS", 0.0)
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
