"""An epoch's order that the ranks of a host make together, here threads, is the one that each would make alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lepton_mpi.data import host_order
from lepton_mpi.data.host_order import HostOrder
from lepton_mpi.data.order import FullShuffle, MicroBatches, epoch_order
from lepton_mpi.world.watchdog import PhaseClock

EPOCHS = [3, 4, 1]


class Threads:
    """Ranks of a host: arrays by the order in which they are asked for."""

    def __init__(self, local_size: int) -> None:
        self.local_size, self.arrays = local_size, []
        self.barrier, self.lock = threading.Barrier(local_size, timeout=30), threading.Lock()


class Rank:
    """What an order needs of the world."""

    def __init__(self, threads: Threads, local_rank: int) -> None:
        self.local_rank, self.local_size = local_rank, threads.local_size
        self._threads, self._made, self.clock = threads, 0, PhaseClock()

    def host_array(self, shape, dtype, name=""):
        """The same for all."""
        with self._threads.lock:
            if self._made == len(self._threads.arrays):
                self._threads.arrays.append(np.zeros(shape, dtype))
            self._made += 1
            array = self._threads.arrays[self._made - 1]
        assert array.shape == shape
        assert array.dtype == dtype
        return array

    def host_barrier(self):
        """Wait for all."""
        self._threads.barrier.wait()


def _orders(shuffle: FullShuffle, y: np.ndarray, rank: Rank) -> list[tuple]:
    order, found = HostOrder(shuffle, y, rank), []
    for epoch in EPOCHS:
        order.make(epoch)
        assert order.epoch == epoch
        found.append((order.rows.copy(), None if order.classes is None else order.classes.copy()))
    return found


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 7, 1009, 100_000])
@pytest.mark.parametrize("kind", ["classes", "targets", "some rows"])
def test_the_order_is_that_of_a_rank_alone(ranks, count, kind, monkeypatch):
    """Rows and classes of several epochs, of which the second must not be made while the first is read."""
    monkeypatch.setattr(host_order, "_SHARED_ROWS", 0)
    chosen = 3 * np.arange(count) + 1 if kind == "some rows" else None
    shuffle = FullShuffle(count, chosen, MicroBatches(64, 8), 5)
    y = np.arange(3 * count + 2).astype(np.int32) % 11
    y = y[:, None].astype(np.float32) if kind == "targets" else y
    threads = Threads(ranks)
    with ThreadPoolExecutor(ranks) as pool:
        found = list(pool.map(lambda r: _orders(shuffle, y, Rank(threads, r)), range(ranks)))
    for orders in found:
        for epoch, (rows, classes) in zip(EPOCHS, orders, strict=True):
            places = epoch_order(count, 5, epoch)
            np.testing.assert_array_equal(rows, places if chosen is None else chosen[places])
            if kind == "targets":
                assert classes is None
            else:
                np.testing.assert_array_equal(classes, y[rows])
    assert len(threads.arrays) == (0 if ranks == 1 else 3 if kind == "targets" else 4)


def test_a_short_order_is_made_by_each_rank_alone():
    """Nobody is waited for."""
    order = HostOrder(
        FullShuffle(1000, None, MicroBatches(64, 8), 5),
        np.zeros(1000, np.int32),
        Rank(Threads(2), 1),
    )
    order.make(1)
    assert sorted(order.rows) == list(range(1000))
