"""Blocks are read ahead by a thread, each rank its own, and an error is that of its block."""

import threading

import pytest

from lepton_mpi.errors import DataError
from lepton_mpi.prediction.ahead import BlocksAhead


class _Blocks:
    count = 9

    def __init__(self, wrong=()):
        self.read_ones, self.threads, self._wrong = [], set(), wrong
        self.was_read = threading.Semaphore(0)

    def read(self, number):
        self.read_ones.append(number)
        self.threads.add(threading.get_ident())
        self.was_read.release()
        if number in self._wrong:
            raise DataError(f"block {number}")
        return f"block {number}"


@pytest.mark.parametrize(("first", "stride"), [(0, 1), (1, 2), (2, 4)])
def test_every_block_is_read_once_and_before_it_is_asked_for(first, stride):
    blocks = _Blocks()
    ahead = BlocksAhead(blocks, stride)
    own = range(first, blocks.count, stride)
    assert blocks.was_read.acquire(timeout=0) is False
    for number in own:
        assert ahead.read(number) == f"block {number}"
        count = min(2, len(range(number, blocks.count, stride)))
        for _ in range(count if number == first else count - 1):
            assert blocks.was_read.acquire(timeout=10)
    ahead.close()
    assert blocks.read_ones == list(own)
    assert len(blocks.threads) == 1 and threading.get_ident() not in blocks.threads


def test_an_error_waits_for_its_block():
    ahead = BlocksAhead(_Blocks(wrong=[1]), 1)
    assert ahead.read(0) == "block 0"
    with pytest.raises(DataError, match="block 1"):
        ahead.read(1)
    ahead.close()


def test_it_ends_while_a_block_is_read():
    """What reads from a file must not find it closed."""
    blocks, has_begun, may_end = _Blocks(), threading.Event(), threading.Event()
    ahead = BlocksAhead(blocks, 1)
    read, ended = blocks.read, []

    def slowly(number):
        has_begun.set()
        may_end.wait(10)
        ended.append(number)
        return read(number)

    ahead.read(0)
    assert blocks.was_read.acquire(timeout=10) and blocks.was_read.acquire(timeout=10)
    blocks.read = slowly
    ahead.read(1)
    assert has_begun.wait(10)
    threading.Timer(0.05, may_end.set).start()
    ahead.close()
    assert ended == [2] and blocks.read_ones == [0, 1, 2]
