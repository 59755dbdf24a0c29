"""Both shuffles: every row once an epoch, the same micro-batches for any number of ranks, from any step on."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.batch import Input
from lepton_mpi.collectives.within_host.vectors import Leaves
from lepton_mpi.data.order import BlockShuffle, FullShuffle, MicroBatches
from lepton_mpi.data.reads import TrainingReads
from lepton_mpi.data.rows import InputRows, Rows

WORLD_SIZES = range(1, 9)
ROW_COUNTS = sorted({n + d for n in WORLD_SIZES for d in (-1, 0, 1)} | {0, 1009})


def numbers_of(micro_batches: MicroBatches, world_size: int) -> list[list[int]]:
    """Micro-batches of each rank, as the strategies deal them."""
    leaves = Leaves.spread(micro_batches.count, world_size)
    return [
        [number for start, stop in leaves.nodes(rank) for number in range(start, stop)]
        for rank in range(world_size)
    ]


def dealt(shuffle, epoch: int, world_size: int, first_step: int = 0) -> list[list[list[int]]]:
    """Rows by step and micro-batch, put together from what each rank takes; each rank has an epoch of its own."""
    cut = shuffle.micro_batches
    numbers_of_ranks = numbers_of(cut, world_size)
    assert sorted(n for numbers in numbers_of_ranks for n in numbers) == list(range(cut.count))
    taken = _taken_of_all if shuffle.name == "full" else _taken_of_blocks
    ranks = [taken(shuffle, epoch, numbers, first_step) for numbers in numbers_of_ranks]
    return [sum(parts, []) for parts in zip(*ranks, strict=True)]  # noqa: RUF017


def _taken_of_blocks(shuffle: BlockShuffle, epoch: int, numbers: list[int], first_step: int):
    order = shuffle.epoch(epoch)
    return [
        [order.micro_batch(number, step).tolist() for number in numbers]
        for step in range(first_step, order.step_count)
    ]


class _NoTable:
    """The file of rows that are in memory."""

    def twin(self) -> "_NoTable":
        """One for another thread."""
        return self


def _taken_of_all(shuffle: FullShuffle, epoch: int, numbers: list[int], first_step: int):
    """What training reads, one micro-batch at a time."""
    count = shuffle.row_count if shuffle.chosen is None else int(shuffle.chosen[-1]) + 1
    y, x = np.zeros(count, np.int32), np.empty((count, 0), np.float32)
    rows = Rows(_NoTable(), [InputRows("x", Input("numbers", (0,)), x.dtype, x)], y, shuffle.chosen)
    reads = iter(TrainingReads(rows, shuffle, numbers, range(epoch, epoch + 1), first_step))
    steps = [
        [next(reads)[0].numbers.tolist() for _ in numbers]
        for _ in range(first_step, shuffle.micro_batches.step_count(shuffle.row_count))
    ]
    assert next(reads, None) is None
    return steps


@st.composite
def shuffles(draw, row_count: int | None = None):
    """(shuffle, its rows): cut at any place into blocks, of a table in which only some rows may count."""
    count = draw(st.sampled_from(ROW_COUNTS)) if row_count is None else row_count
    batch_rows = draw(st.integers(1, 300))
    cut = MicroBatches(batch_rows, draw(st.integers(max(1, batch_rows // 40), batch_rows + 5)))
    rows = np.arange(count) if draw(st.booleans()) else 3 * np.arange(count) + 1
    seed = draw(st.integers(-(2**63), 2**64))
    if draw(st.booleans()):
        return FullShuffle(count, None if rows.size == 0 or rows[0] == 0 else rows, cut, seed), rows
    inside = draw(st.lists(st.integers(1, count - 1), max_size=40)) if count > 1 else []
    blocks = np.unique(np.array([0, *inside, count], np.int64))
    window_rows = draw(st.integers(0, 2 * batch_rows + 2 * count))
    named = None if rows.size == 0 or rows[0] == 0 else rows
    return BlockShuffle(named, blocks, cut, seed, window_rows, draw(st.booleans())), rows


@given(shuffles(), st.integers(0, 2**40))
def test_every_row_is_in_one_micro_batch_of_the_epoch(pair, epoch):
    """Of one step, for any number of rows, blocks, windows, and micro-batches that divide nothing; steps are full."""
    shuffle, rows = pair
    steps = dealt(shuffle, epoch, 1)
    cut = shuffle.micro_batches
    used = [row for step in steps for part in step for row in part]
    assert sorted(used) == rows.tolist()
    assert len(steps) == cut.step_count(rows.size)
    for number, step in enumerate(steps):
        start = number * cut.batch_rows
        lengths = [
            cut.bounds(n, start, min(start + cut.batch_rows, rows.size)) for n in range(cut.count)
        ]
        assert [len(part) for part in step] == [stop - first for first, stop in lengths]
        assert sum(map(len, step)) == cut.step_rows(rows.size, number) > 0


@given(shuffles(), st.integers(0, 50), st.sampled_from(WORLD_SIZES), st.data())
def test_micro_batches_are_the_same_for_any_ranks_from_any_step(pair, epoch, world_size, data):
    """Who goes on in the middle of an epoch, on other ranks, takes what would have come there."""
    shuffle, _ = pair
    whole = dealt(shuffle, epoch, 1)
    first_step = data.draw(st.integers(0, len(whole)))
    assert dealt(shuffle, epoch, world_size, first_step) == whole[first_step:]


@pytest.mark.parametrize("row_count", ROW_COUNTS)
@pytest.mark.parametrize("kind", ["full", "blocks"])
def test_every_row_once_on_every_number_of_ranks(kind, row_count):
    """P = 1 to 8 and 0, 1, P-1, P, P+1 and 1 009 rows, in steps of 30 in 7 micro-batches."""
    rows, cut = np.arange(row_count), MicroBatches(30, 4)
    blocks = np.unique([*range(0, row_count, 11), row_count])
    shuffle = (
        FullShuffle(row_count, None, cut, 5)
        if kind == "full"
        else BlockShuffle(None, blocks, cut, 5, 9)
    )
    for world_size in WORLD_SIZES:
        used = [row for step in dealt(shuffle, 3, world_size) for part in step for row in part]
        assert sorted(used) == rows.tolist()


@given(shuffles(), st.integers(0, 50), st.sampled_from(WORLD_SIZES), st.data())
def test_windows_come_in_the_order_in_which_they_are_needed(pair, epoch, world_size, data):
    """A rank that takes the next window whenever one of its streams is used up always gets that stream's."""
    shuffle, _ = pair
    if shuffle.name == "full":
        return
    order = shuffle.epoch(epoch)
    first_step = data.draw(st.integers(0, order.step_count))
    for numbers in numbers_of(shuffle.micro_batches, world_size):
        windows, ends = order.windows(numbers, first_step), {}
        for step in range(first_step, order.step_count):
            for number in numbers:
                if ends.get(number, step) == step:
                    window = next(windows)
                    assert window.number == number
                    assert window.start_step <= step < window.stop_step
                    assert step == first_step or window.start_step == step
                    assert window.row_count <= shuffle.window_rows
                    ends[number] = window.stop_step
        assert next(windows, None) is None


@given(shuffles(1009), st.integers(0, 50))
def test_windows_hold_every_row_once_in_runs_of_blocks(pair, epoch):
    """Together they are all rows; runs lie within a block and only those at a window's ends are parts of one."""
    shuffle, rows = pair
    if shuffle.name == "full":
        return
    order = shuffle.epoch(epoch)
    windows = list(order.windows(list(range(shuffle.micro_batches.count))))
    used = np.concatenate([order.window_numbers(window) for window in windows])
    np.testing.assert_array_equal(np.sort(used), rows)
    edges = set(shuffle.blocks.tolist())
    for window in windows:
        np.testing.assert_array_equal(np.sort(window.places()), np.arange(window.row_count))
        assert order.offsets(window)[0] == 0 and order.offsets(window)[-1] == window.row_count
        for index, (start, stop) in enumerate(window.runs):
            assert start < stop
            block = np.searchsorted(shuffle.blocks, start, "right") - 1
            assert stop <= shuffle.blocks[block + 1]
            assert index == 0 or start in edges
            assert index == len(window.runs) - 1 or stop in edges


def test_streams_need_their_next_windows_at_different_steps():
    """With windows of 8 steps and 8 streams every step but the first begins one window."""
    shuffle = BlockShuffle(None, np.arange(0, 2561, 10), MicroBatches(80, 10), 0, 80)
    windows = list(shuffle.epoch(1).windows(list(range(8))))
    begun = np.bincount([window.start_step for window in windows])
    np.testing.assert_array_equal(begun, [8] + [1] * 31)
    assert max(window.stop_step - window.start_step for window in windows) == 8


def _shuffle(kind: str, seed: int, row_count: int = 400, begins_whole: bool = False):
    cut, blocks = MicroBatches(32, 5), np.unique([*range(0, row_count, 9), row_count])
    if kind == "full":
        return FullShuffle(row_count, None, cut, seed)
    return BlockShuffle(None, blocks, cut, seed, 15, begins_whole)


@pytest.mark.parametrize("kind", ["full", "blocks"])
def test_seeds_and_epochs_give_other_orders(kind):
    """25 different ones, in which no row has a place of its own: 0 to 25 times in the same place, 0.06 on average."""
    orders = np.array(
        [
            np.array(
                [
                    row
                    for step in dealt(_shuffle(kind, seed), epoch, 1)
                    for part in step
                    for row in part
                ]
            )
            for seed in range(5)
            for epoch in range(5)
        ]
    )
    assert len({order.tobytes() for order in orders}) == 25
    same = [(one == other).mean() for one, other in pairwise(orders)]
    # The number of equal places is Poisson with mean 1 for rows, and for blocks of 9 rows at most 9 times as wide.
    assert np.mean(same) < 1 / 400 + 5 * 9 / 400 / np.sqrt(len(same))


@pytest.mark.parametrize("kind", ["full", "blocks"])
@pytest.mark.parametrize("other", ["rows", "seed", "epoch"])
def test_the_order_depends_on_nothing_else(kind, other):
    """The same seed and epoch give the same micro-batches from shuffles made anew, whatever was asked before."""
    shuffle = _shuffle(kind, 3)
    before = dealt(shuffle, 2, 1)
    np.random.seed(1)  # noqa: NPY002  the global generator is nobody's source
    dealt(shuffle, 7, 3)
    assert dealt(_shuffle(kind, 3), 2, 4) == before
    changed = {"rows": (3, 2, 401), "seed": (4, 2, 400), "epoch": (3, 1, 400)}[other]
    assert dealt(_shuffle(kind, changed[0], changed[2]), changed[1], 1) != before


def test_orders_never_change_between_versions():
    """Frozen values: a run that an old version began goes on with the rows that it would have taken.

    The order of blocks was not rotated before checkpoints had the attribute arithmetic.
    """
    digests = {}
    for kind, begins_whole in (("full", False), ("blocks", True), ("blocks", False)):
        digest = hashlib.blake2b(digest_size=8)
        for epoch in (0, 1, 17):
            for step in dealt(_shuffle(kind, 12, 1009, begins_whole), epoch, 1):
                for part in step:
                    digest.update(np.array([len(part), *part], "<i8").tobytes())
        digests[kind, begins_whole] = digest.hexdigest()
    assert digests == {
        ("full", False): "81ec8e980d0c8b12",
        ("blocks", True): "46767dd7e8b6c18a",
        ("blocks", False): "88b69eae25294ddd",
    }
