"""Which rows, in which order, in which micro-batch. Pure functions of numbers; the order never sees a rank count.

A step's rows are cut into micro-batches (``MicroBatches``), and any rank can hold any of them. Two orders of an epoch:

full      every row may come anywhere. Needs all rows at hand, and on each host 20 bytes for each of many rows: its number
          in an epoch's order, its class, and what making the order takes.
blocks    for rows that are streamed from a file, in runs that are long enough to be read fast::

              file      | block 0 | block 1 | block 2 | …                    runs of rows
              shuffled  | block 7 | block 2 | block 9 | …                    in random order, for every epoch
              rotated   | of block 2 | block 9 | … | block 7 | of block 2 |  to begin with any row
              cut       | stream 0        | stream 1        | …              one for each micro-batch of a step
              windows   | 0  | 1     | 2  | 0     | 1     | …                rows of a window are shuffled

Step s takes the next rows of every stream, so whoever holds a micro-batch reads the blocks of its stream and no others,
each once, on whatever rank and host; a step's rows come from as many windows as it has micro-batches, which mixes as
well as one buffer of all their rows together. Streams begin with windows of different lengths, so that the next
windows are not needed all at the same time. Where to go on after any step follows from its number.
The sequence is rotated by a random number of rows in every epoch, so that a row may come in any step, each with the same
probability, however few blocks there are. Without that a row's mean step goes by its offset in its block: of a single block every
epoch would have the order of the file, but for windows.
Source: blocks first, then rows in a buffer, is CorgiPile (Xu et al., SIGMOD 2022), here with a buffer for each stream.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from lepton_mpi.data.shuffle_kernels import shuffled
from lepton_mpi.kernels import counter_random

# Streams of the random numbers; each use has its own.
_VALIDATION, _TEST, _DRAWS, _BLOCKS, _WINDOWS, _ROTATIONS, _EPOCHS = 1, 2, 3, 4, 5, 6, 1_000


@dataclass(frozen=True)
class MicroBatches:
    """How a batch of ``batch_rows`` is cut into ``count`` micro-batches of ``rows``; the last may be shorter."""

    batch_rows: int
    rows: int

    @property
    def count(self) -> int:
        return -(-self.batch_rows // self.rows)

    def step_count(self, row_count: int) -> int:
        """Steps of an epoch; the last may have fewer rows."""
        return -(-row_count // self.batch_rows)

    def step_rows(self, row_count: int, step: int) -> int:
        """Rows of step ``step``, counted from 0, of an epoch."""
        return min(self.batch_rows, row_count - step * self.batch_rows)

    def run(self, first: int, stop: int, length: int) -> tuple[int, int, list[tuple[int, int]]]:
        """(start, end, cuts): the rows of micro-batches [first, stop) of a step of ``length`` rows, and the place of each."""
        bounds = [self.bounds(number, 0, length) for number in range(first, stop)]
        start, end = bounds[0][0], bounds[-1][1]
        return start, end, [(i - start, j - start) for i, j in bounds]

    def row_count(self, numbers: Sequence[int], length: int) -> int:
        """Rows of micro-batches ``numbers`` of a step of ``length`` rows.

        >>> MicroBatches(8, 3).row_count([1, 2], 7)
        4
        """
        bounds = [self.bounds(number, 0, length) for number in numbers]
        return sum(stop - first for first, stop in bounds)

    def bounds(self, number: int, start: int, stop: int) -> tuple[int, int]:
        """Rows of micro-batch ``number`` of a step of rows [start, stop); equal numbers if it has none."""
        first = min(start + number * self.rows, stop)
        return first, min(first + self.rows, stop)


class FullShuffle:
    """Every row may come anywhere in the epoch: a function of seed and epoch. ``host_order.py`` makes the order.

    Parameters
    ----------
    row_count : int
    chosen : int64, shape (row_count,), or None
        Their numbers, ascending; None for 0 … row_count-1, which takes no memory.
    micro_batches : MicroBatches
    seed : int
    """

    name = "full"

    def __init__(
        self, row_count: int, chosen: np.ndarray | None, micro_batches: MicroBatches, seed: int
    ) -> None:
        self.row_count, self.chosen = row_count, chosen
        self.micro_batches, self._seed = micro_batches, seed

    def key_of(self, epoch: int) -> np.uint64:
        """The order is that of the hashes of 0 … row_count-1 with this key."""
        return _epoch_key(self._seed, epoch)


@dataclass(frozen=True)
class Window:
    """Rows of a stream that are shuffled together.

    Attributes
    ----------
    number : int
        Micro-batch that its stream is for.
    start_step, stop_step : int
        Steps that take from it.
    runs : list of (start, stop)
        Places of its rows among all rows that count, as they are read.
    key : uint64, shape (1,)
        Of the random numbers that shuffle them.
    """

    number: int
    start_step: int
    stop_step: int
    runs: list[tuple[int, int]]
    key: np.ndarray

    @property
    def row_count(self) -> int:
        return sum(stop - start for start, stop in self.runs)

    def places(self) -> np.ndarray:
        """Where the rows lie, counted through the runs, in the order in which they are used: int64 (row_count,)."""
        return shuffled(self.key[0], self.row_count)


class BlockShuffle:
    """Blocks in random order, and rows in random order within windows of each stream.

    Parameters
    ----------
    rows : int64, shape (row_count,), or None
        Their numbers, ascending; None for 0 … row_count-1, which takes no memory.
    blocks : int64, shape (blocks + 1,)
        Places among the rows where blocks begin, and the end.
    micro_batches : MicroBatches
    seed : int
    window_rows : int
        Rows of a window; a whole number of micro-batches is taken, one at least.
    begins_whole : bool
        The sequence is not rotated: the order of runs that an earlier version began.
    """

    name = "blocks"

    def __init__(
        self,
        rows: np.ndarray | None,
        blocks: np.ndarray,
        micro_batches: MicroBatches,
        seed: int,
        window_rows: int,
        begins_whole: bool = False,
    ) -> None:
        self.begins_whole = begins_whole
        self.rows, self.blocks, self.micro_batches, self.seed = rows, blocks, micro_batches, seed
        self.window_steps = max(1, window_rows // micro_batches.rows)

    @property
    def window_rows(self) -> int:
        """Rows of the longest window."""
        return self.window_steps * self.micro_batches.rows

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return self.micro_batches.step_count(int(self.blocks[-1]))

    def epoch(self, epoch: int) -> "BlockEpoch":
        """Order of one epoch."""
        return BlockEpoch(self, epoch)


class BlockEpoch:
    """Rows by step and micro-batch, and the windows that they come from, of one epoch of ``shuffle``."""

    def __init__(self, shuffle: BlockShuffle, epoch: int) -> None:
        self._shuffle, self._row_count = shuffle, int(shuffle.blocks[-1])
        cut = shuffle.micro_batches
        self.step_count = cut.step_count(self._row_count)
        seed = counter_random.chain(np.zeros(1, np.uint64), shuffle.seed)
        self._key = counter_random.chain(counter_random.chain(seed, _WINDOWS), epoch)
        blocks_key = counter_random.chain(counter_random.chain(seed, _BLOCKS), epoch)
        self._order = shuffled(blocks_key[0], len(shuffle.blocks) - 1)
        # Where each block begins in the shuffled sequence, and which place of it comes first.
        lengths = np.diff(shuffle.blocks)[self._order]
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        rotation = counter_random.chain(counter_random.chain(seed, _ROTATIONS), epoch)
        is_rotated = self._row_count > 0 and not shuffle.begins_whole
        self._first = int(rotation[0] % np.uint64(self._row_count)) if is_rotated else 0
        rows_of = [self._rows_before(number, self.step_count) for number in range(cut.count)]
        self._stream_starts = list(accumulate(rows_of, initial=0))
        self._last: dict[int, tuple[Window, list[np.ndarray]]] = {}

    def micro_batch(self, number: int, step: int) -> np.ndarray:
        """Rows of micro-batch ``number`` of step ``step``, counted from 0: int64, shape (its rows,)."""
        window, parts = self._last.get(number, (None, []))
        if window is None or not window.start_step <= step < window.stop_step:
            window = self.window(number, step)
            rows = self.window_numbers(window)[window.places()]
            parts = [rows[start:stop] for start, stop in pairwise(self.offsets(window))]
            self._last[number] = window, parts
        return parts[step - window.start_step]

    def window_numbers(self, window: Window) -> np.ndarray:
        """Numbers of the rows of a window, in the order of its runs, int64."""
        rows = self._shuffle.rows
        parts = [np.arange(*run) if rows is None else rows[slice(*run)] for run in window.runs]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def offsets(self, window: Window) -> list[int]:
        """Where the micro-batch of each step of ``window`` begins in the order of use, and the end of the last."""
        start, stop = self._shuffle.micro_batches.bounds(
            window.number, 0, self._shuffle.micro_batches.batch_rows
        )
        # All steps before the epoch's last one are full.
        steps = np.arange(window.stop_step - window.start_step + 1)
        return np.minimum(steps * (stop - start), window.row_count).tolist()

    def window(self, number: int, step: int) -> Window:
        """The window from which step ``step`` takes its micro-batch ``number``."""
        long = self._shuffle.window_steps
        # The first windows end at different steps.
        first = max(1, long * (number + 1) // self._shuffle.micro_batches.count)
        index = 0 if step < first else 1 + (step - first) // long
        start_step = 0 if index == 0 else first + (index - 1) * long
        stop_step = min(first + index * long, self.step_count)
        begin = self._stream_starts[number]
        runs = self._runs(
            begin + self._rows_before(number, start_step),
            begin + self._rows_before(number, stop_step),
        )
        key = counter_random.chain(counter_random.chain(self._key, number), index)
        return Window(number, start_step, stop_step, runs, key)

    def windows(self, numbers: list[int], first_step: int = 0) -> Iterator[Window]:
        """Windows that the micro-batches ``numbers`` need from ``first_step`` on, in the order in which they do."""
        open_until = dict.fromkeys(numbers, first_step)
        while open_until:
            step = min(open_until.values())
            if step >= self.step_count:
                return
            for number in numbers:
                if open_until[number] == step:
                    window = self.window(number, step)
                    open_until[number] = window.stop_step
                    yield window

    def _rows_before(self, number: int, step: int) -> int:
        """Rows that the micro-batch ``number`` takes in all steps before ``step``."""
        cut, row_count = self._shuffle.micro_batches, self._row_count
        full_steps = row_count // cut.batch_rows
        start, stop = cut.bounds(number, 0, cut.batch_rows)
        rows = min(step, full_steps) * (stop - start)
        if step > full_steps:
            start, stop = cut.bounds(number, 0, row_count - full_steps * cut.batch_rows)
            rows += stop - start
        return rows

    def _runs(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Places [start, stop) of the rotated sequence as runs of rows that lie next to each other."""
        start, stop = start + self._first, stop + self._first
        around = self._row_count
        if start >= around:
            start, stop = start - around, stop - around
        if stop > around:
            return self._runs_of_blocks(start, around) + self._runs_of_blocks(0, stop - around)
        return self._runs_of_blocks(start, stop)

    def _runs_of_blocks(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Places [start, stop) of the shuffled sequence."""
        runs: list[tuple[int, int]] = []
        index = int(np.searchsorted(self._starts, start, "right")) - 1
        while start < stop:
            end = min(stop, int(self._starts[index + 1]))
            first = int(self._shuffle.blocks[self._order[index]]) + start - int(self._starts[index])
            runs.append((first, first + end - start))
            start, index = end, index + 1
        return runs


def epoch_order(row_count: int, seed: int, epoch: int) -> np.ndarray:
    """Rows 0 … row_count-1 in the order of one epoch, int64, shape (row_count,): a function of seed and epoch."""
    return shuffled(_epoch_key(seed, epoch), row_count)


def _epoch_key(seed: int, epoch: int) -> np.uint64:
    return counter_random.key_of(seed, _EPOCHS + epoch)[0]


def hold_out(
    row_count: int, fraction: float, seed: int, purpose: str
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows at random into (kept, held out), each ascending int64; ``purpose`` is validation or test.

    ``round(fraction * row_count)`` rows are held out.
    """
    stream = {"validation": _VALIDATION, "test": _TEST}[purpose]
    in_order = shuffled(counter_random.key_of(seed, stream)[0], row_count)
    held_out = round(fraction * row_count)
    return np.sort(in_order[held_out:]), np.sort(in_order[:held_out])


def draws(seed: int, first_step: int, count: int) -> list[int]:
    """``Batch.draw`` of ``count`` steps from ``first_step`` on: a function of seed and step."""
    return counter_random.bits(seed, _DRAWS, count, first_step).view(np.int64).tolist()
