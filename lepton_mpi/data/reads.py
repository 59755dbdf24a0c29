"""The reads of a run, in turn: from memory at once, or from a file, ahead of their use.

Streaming keeps, on each rank, one window of every stream that it takes micro-batches from, and fills as many as two more
meanwhile (``prefetch.py``)::

    step      0   1   2   3   4   5   6   7
    stream 0  |──window 0──|──────window 1──────|──
    stream 1  |──────window 0──────|──────window 1

A window is read in the order of its blocks and used in random order. Nothing is shared between ranks: by ``order.py``
no block belongs to two streams, but for those at their ends.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lepton_mpi.data.host import Host
from lepton_mpi.data.host_order import HostOrder
from lepton_mpi.data.order import BlockEpoch, BlockShuffle, FullShuffle, Window
from lepton_mpi.data.prefetch import Prefetch
from lepton_mpi.data.rows import Read, Rows, Slot
from lepton_mpi.data.tables import RowTable

# Windows that are filled ahead, at most; on a rank of one stream one is enough.
_AHEAD_MAX = 2
_new = tuple.__new__


class TrainingReads:
    """This rank's micro-batches of every step of every epoch, in turn. An iterator.

    Yields (read, cuts): the rows of a micro-batch, or of several of a step, and a list of (start, stop), which of
    them form each. A read holds until the next is asked for.

    Parameters
    ----------
    rows : Rows
    shuffle : FullShuffle or BlockShuffle
        The latter where rows are streamed.
    numbers : sequence of int
        Micro-batches of a step that this rank computes, ascending.
    epochs : range
    first_step : int
        Step, counted from 0, to begin with in the first epoch.
    rows_max : int
        Rows of a read, if that is not less than a micro-batch.
    host : Host, optional
        Making this, and ``begin_epoch``, are collective over its ranks, which then share what they would each have
        made; without it nothing is.
    """

    def __init__(
        self,
        rows: Rows,
        shuffle: FullShuffle | BlockShuffle,
        numbers: Sequence[int],
        epochs: range,
        first_step: int,
        rows_max: int = 1,
        host: Host | None = None,
    ) -> None:
        self._rows, self._shuffle, self._numbers = rows, shuffle, list(numbers)
        self._table = rows.table.twin()  # the thread's own
        self._epochs, self._first_step = epochs, first_step
        self._prefetch: Prefetch | None = None
        self._slot_bytes = 0
        self._order = HostOrder(shuffle, rows.y, host) if shuffle.name == "full" else None
        if rows.x is not None:
            self._reads = self._runs() if shuffle.name == "full" else self._micro_batches()
            self._together = max(1, rows_max // shuffle.micro_batches.rows)
            return
        # A window may be longer than the epoch, and a buffer longer than memory.
        window_rows = min(shuffle.window_rows, shuffle.epoch_steps * shuffle.micro_batches.rows)
        slots = [
            rows.new_slot(window_rows)
            for _ in range(len(self._numbers) + min(_AHEAD_MAX, len(self._numbers)))
        ]
        self._slot_bytes = sum(part.nbytes for slot in slots for part in slot)
        self._prefetch = Prefetch(self._windows(), slots, self._fill)
        self._reads = self._reads_from_windows()

    def __iter__(self) -> Iterator[tuple[Read, list[tuple[int, int]]]]:
        return self._reads

    def __next__(self) -> tuple[Read, list[tuple[int, int]]]:
        return next(self._reads)

    def begin_epoch(self, epoch: int) -> None:
        """Make the order of ``epoch``, before its first read and after the last of the one before."""
        if self._order:
            self._order.make(epoch)

    def memory(self) -> dict[str, int]:
        """Bytes: of the ``order`` of an epoch, if ranks share it, or of each rank's ``own order``; and of ``windows`` of a file."""
        found = {"windows": self._slot_bytes}
        if self._order is not None:
            name = "order" if self._order.is_shared else "own order"
            found[name] = self._order.byte_count
        return found

    def step_weights(self, epoch: int, numbers: Sequence[int] | None = None) -> list[int]:
        """What the summed gradient of each step of ``epoch`` is divided by: rows of all ranks, or tokens that count.

        A function of the data and the epoch, so that every rank has the same numbers before the first step. With ``numbers``
        of those micro-batches alone, and 0 where they have none. To be called after ``begin_epoch``.
        """
        batches, weight = self._shuffle.micro_batches, self._rows.even_weight
        if weight is not None:
            full, rest = divmod(self._rows.row_count, batches.batch_rows)
            in_full, in_rest = batches.batch_rows, rest
            if numbers is not None:
                in_full = batches.row_count(numbers, batches.batch_rows)
                in_rest = batches.row_count(numbers, rest)
            return [weight * in_full] * full + [weight * in_rest] * (rest > 0)
        of = range(batches.count) if numbers is None else numbers
        if self._order is not None:
            assert self._order.epoch == epoch, (self._order.epoch, epoch)
            weights = self._full_weights(self._rows.weights(self._order.rows), of)
        else:
            weights = self._block_weights(self._shuffle.epoch(epoch), of)
        # Of a step in which nothing counts the gradient is 0.
        return np.maximum(weights, 1).tolist() if numbers is None else weights.tolist()

    def _full_weights(self, of_rows: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
        """Of every step, int64, from those of the epoch's rows in their order."""
        batches, before = self._shuffle.micro_batches, _summed_before(of_rows)
        count = len(before) - 1
        starts = np.arange(batches.step_count(count)) * batches.batch_rows
        stops = np.minimum(starts + batches.batch_rows, count)
        weights = np.zeros(len(starts), np.int64)
        for number in numbers:
            first = np.minimum(starts + number * batches.rows, stops)
            weights += before[np.minimum(first + batches.rows, stops)] - before[first]
        return weights

    def _block_weights(self, epoch: BlockEpoch, numbers: Sequence[int]) -> np.ndarray:
        """Of every step, int64: those of the streams of these micro-batches, window by window."""
        weights = np.zeros(epoch.step_count, np.int64)
        for number in numbers:
            for window in epoch.windows([number]):
                numbers = epoch.window_numbers(window)[window.places()]
                before = _summed_before(self._rows.weights(numbers))
                steps = slice(window.start_step, window.stop_step)
                weights[steps] += np.diff(before[epoch.offsets(window)])
        return weights

    @property
    def wait_seconds(self) -> float:
        """Time that this rank has waited for rows."""
        return self._prefetch.wait_seconds if self._prefetch else 0.0

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._prefetch:
            self._prefetch.close()
        self._reads = iter(
            ()
        )  # A generator of this object: together they would keep the file open.

    def _places(self) -> Iterator[tuple[int, int]]:
        """Each epoch with its first step; no list, since a run until its time is over may ask for any number of epochs."""
        for epoch in self._epochs:
            yield epoch, self._first_step if epoch == self._epochs.start else 0

    def _runs(self) -> Iterator[tuple[Read, list[tuple[int, int]]]]:
        """Reads of rows in memory, as many micro-batches at a time as are wanted and follow each other."""
        runs: list[tuple[int, int]] = []
        for number in self._numbers:
            if runs and runs[-1][1] == number and number - runs[-1][0] < self._together:
                runs[-1] = runs[-1][0], number + 1
            else:
                runs.append((number, number + 1))
        # As little as can be is left to do in a step.
        cut, x, y, more = self._shuffle.micro_batches, self._rows.x, self._rows.y, self._rows.more
        length = cut.batch_rows
        whole = [cut.run(*run, length) for run in runs]
        rows, classes, windows = self._order.rows, self._order.classes, self._rows.windows
        mapped = self._rows.mapped
        for number, first_step in self._places():
            if self._order.epoch != number:
                self._order.make(number)
            count = rows.size
            for begin in range(first_step * length, count, length):
                rest = count - begin
                if mapped:
                    mapped.check_there(int(rows[begin]))
                now = whole if rest >= length else [cut.run(*run, rest) for run in runs]
                for start, end, cuts in now:
                    part = rows[begin + start : begin + end]
                    at_hand = None if classes is None else classes[begin + start : begin + end]
                    places = part if windows is None else self._rows.places_in_memory(part)
                    # As Read(…), in half the time.
                    yield _new(Read, (x, places, y, part, at_hand, more, windows)), cuts

    def _micro_batches(self) -> Iterator[tuple[Read, list[tuple[int, int]]]]:
        """Reads of rows in memory, in the order of those that are streamed."""
        mapped = self._rows.mapped
        for number, first_step in self._places():
            epoch = self._shuffle.epoch(number)
            for step in range(first_step, epoch.step_count):
                for micro_batch in self._numbers:
                    rows = epoch.micro_batch(micro_batch, step)
                    if mapped and rows.size:
                        mapped.check_there(int(rows[0]))
                    yield self._rows.read_of(rows), [(0, rows.size)]

    def _windows(self) -> Iterator[tuple[BlockEpoch, Window]]:
        for number, first_step in self._places():
            epoch = self._shuffle.epoch(number)
            for window in epoch.windows(self._numbers, first_step):
                yield epoch, window

    def _fill(self, job: tuple[BlockEpoch, Window], slot: Slot) -> "_Filled":
        """Read a window, and make all its reads: so the rank's own thread has little to do for each."""
        epoch, window = job
        _read_runs(self._table, self._rows, window.runs, slot)
        places = window.places()
        numbers = epoch.window_numbers(window)[places]
        reads = [
            self._rows.read_of_slot(slot, places[start:stop], numbers[start:stop])
            for start, stop in pairwise(epoch.offsets(window))
        ]
        return _Filled(window, reads)

    def _reads_from_windows(self) -> Iterator[tuple[Read, list[tuple[int, int]]]]:
        for _, first_step in self._places():
            # Of each stream the window and the memory that it is in.
            taken: dict[int, tuple[_Filled, Slot]] = {}
            for step in range(first_step, self._shuffle.epoch_steps):
                for micro_batch in self._numbers:
                    self._take(taken, micro_batch, step)
                    read = taken[micro_batch][0].read(step)
                    yield read, [(0, read.places.size)]
            for _, slot in taken.values():
                self._prefetch.give_back(slot)

    def _take(self, taken: dict, micro_batch: int, step: int) -> None:
        """See to it that the window of a micro-batch is there."""
        if micro_batch in taken:
            if step < taken[micro_batch][0].window.stop_step:
                return
            self._prefetch.give_back(taken.pop(micro_batch)[1])
        filled, slot = self._prefetch.take()
        assert filled.window.number == micro_batch and filled.window.start_step <= step
        taken[micro_batch] = filled, slot


def _summed_before(weights: np.ndarray) -> np.ndarray:
    """Sums of the weights before each place, and of all: int64, one more than there are weights."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(weights)])


class _Filled(NamedTuple):
    """A window whose rows are in memory, and the read of each of its steps."""

    window: Window
    reads: list[Read]

    def read(self, step: int) -> Read:
        """That of a step of the epoch."""
        return self.reads[step - self.window.start_step]


def reads_in_order(rows: Rows, start: int, stop: int, batch_rows: int) -> Iterator[Read]:
    """Batches of the rows that count in places [start, stop), in their order; each holds until the next."""
    batches = [(first, min(first + batch_rows, stop)) for first in range(start, stop, batch_rows)]
    if rows.x is not None:
        for batch in batches:
            if rows.mapped:
                rows.mapped.check_there(batch[0])
            yield rows.read_of(rows.numbers(*batch))
        return

    table = rows.table.twin()  # the thread's own
    # Rows that were held out lie far apart: what lies between them is read with them within a block, and no farther.
    edges = np.zeros(0, np.int64)
    if rows.chosen is not None:
        edges = np.unique(np.searchsorted(rows.chosen, table.blocks()))

    def fill(batch: tuple[int, int], slot: Slot) -> Read:
        inside = edges[slice(*np.searchsorted(edges, (batch[0] + 1, batch[1])))]
        runs = list(pairwise([batch[0], *inside.tolist(), batch[1]]))
        _read_runs(table, rows, runs, slot)
        return rows.read_of_slot(slot, np.arange(batch[1] - batch[0]), rows.numbers(*batch))

    slots = [rows.new_slot(batch_rows) for _ in range(3)]
    prefetch = Prefetch(batches, slots, fill)
    try:
        for _ in batches:
            read, slot = prefetch.take()
            yield read
            prefetch.give_back(slot)
    finally:
        prefetch.close()


def _read_runs(table: RowTable, rows: Rows, runs: Sequence[tuple[int, int]], out: Slot) -> None:
    """The rows that count in these places into the first rows of ``out``."""
    wanted = [rows.numbers(*run) for run in runs] if rows.chosen is not None else None
    spans = (
        list(runs)
        if wanted is None
        else [(int(numbers[0]), int(numbers[-1]) + 1) for numbers in wanted]
    )
    with suppress(OSError):  # advice, which a file system may refuse
        for span in spans:
            table.will_need(*span)
    filled = 0
    for index, (start, stop) in enumerate(spans):
        if wanted is None:
            rows.read_into(out, table, start, stop, filled)
            filled += stop - start
            continue
        # Those of other purposes, that lie between them, are read with them.
        whole = rows.new_slot(stop - start)
        rows.read_into(whole, table, start, stop, 0)
        count = wanted[index].size
        for part, target in zip(whole, out, strict=True):
            np.take(part, wanted[index] - start, axis=0, out=target[filled : filled + count])
        filled += count
