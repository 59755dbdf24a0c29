"""What ``benchmarks/loader.py`` decides without ranks: what a file holds, what is wrong, prefixes, ratios and marks."""

import argparse
import zlib

import h5py
import numpy as np
import pytest

from benchmarks import loader, loader_files
from benchmarks.engines import loader_peers, page_cache
from benchmarks.engines.loader_case import DataFile, rate, time_prefix
from benchmarks.engines.loader_rows import (
    BATCH_ROWS,
    SCALE,
    SHIFT,
    Seen,
    SeenRows,
    convert,
    count_wrong,
    labels_of,
)
from benchmarks.loader_files import LAYOUTS, plan_files, space_problem, write_file
from benchmarks.loader_launches import combine, launches, mark_lines, ratio_lines
from benchmarks.memory_group import memory_group
from lepton_mpi.prepare.writing import chunk_rows

_ROWS, _FEATURES = 700, 1024


class _One:
    """A single process."""

    rank, size = 0, 1

    def barrier(self) -> None:
        """Nobody to wait for."""

    def allgather(self, value) -> list:
        """Its own value."""
        return [value]


class _OneOfTwo(_One):
    rank, size = 1, 2


@pytest.fixture(params=LAYOUTS)
def file(request, tmp_path) -> DataFile:
    """A small file of each layout."""
    made = DataFile.named(tmp_path, request.param, _FEATURES, _ROWS)
    write_file(made, (_FEATURES,))
    return made


def test_files_have_the_layout_that_prepare_writes(file):
    """Chunks, checksum and filters, and rows that h5py reads as they were stamped."""
    with h5py.File(file.path) as opened:
        x, y = opened["train/x"], opened["train/y"][:]
        is_chunked = file.layout != "contiguous"
        chunk = (chunk_rows(x.shape, x.dtype), _FEATURES) if is_chunked else None
        assert (x.chunks, x.fletcher32) == (chunk, is_chunked)
        is_packed = file.layout == "gzip"
        assert (x.compression, x.shuffle) == (("gzip", True) if is_packed else (None, False))
        rows = x[:]
    assert (rows[:, 0] == np.arange(_ROWS) % 256).all()
    np.testing.assert_array_equal(y, labels_of(np.arange(_ROWS)))
    assert set(y) == set(range(10))
    ratio = rows.nbytes / len(zlib.compress(rows.tobytes(), 4))
    assert 2 < ratio < 3


def _delivered(file: DataFile, numbers) -> SeenRows:
    """What is noted of the rows with these numbers, read by h5py."""
    seen = SeenRows(len(numbers))
    with h5py.File(file.path) as opened:
        x, y = opened["train/x"][:], opened["train/y"][:]
    seen.add(convert(x[numbers], np.empty((len(numbers), _FEATURES), np.float32)), y[numbers])
    return seen


def test_rows_that_came_right_are_found_right(file):
    """In any order, over two ranks."""
    order = np.random.default_rng(3).permutation(_ROWS)
    parts = [_delivered(file, order[rank::2]).seen() for rank in range(2)]
    np.testing.assert_array_equal(
        np.concatenate([part.numbers for part in parts]), [*order[::2], *order[1::2]]
    )
    assert count_wrong(parts, _ROWS, True) == 0


def test_every_kind_of_wrong_is_counted(tmp_path):
    """A row twice, one missing, another's label, another's end, not a number."""
    file = DataFile.named(tmp_path, "contiguous", _FEATURES, _ROWS)
    write_file(file, (_FEATURES,))
    order = np.arange(_ROWS)
    order[5] = 6
    twice = [_delivered(file, order).seen()]
    assert count_wrong(twice, _ROWS, False) == 1
    assert count_wrong(twice, _ROWS, True) == 2
    with h5py.File(file.path) as opened:
        raw, y = opened["train/x"][:], opened["train/y"][:]
    good = convert(raw, np.empty(raw.shape, np.float32))

    def bad(x, labels) -> int:
        seen = SeenRows(_ROWS)
        seen.add(x, labels)
        return seen.seen().bad

    assert bad(good, y) == 0
    assert bad(good, (y + 1) % 10) == _ROWS
    mixed = good.copy()
    mixed[:, -2:] = np.roll(good[:, -2:], 1, axis=0)
    assert bad(mixed, y) > 0.9 * _ROWS
    mixed = good.copy()
    mixed[7, 1] = mixed[8, -1] = np.nan
    assert bad(mixed, y) == 2
    assert bad(good * np.float32(1.001), y) > 0.9 * _ROWS


def test_more_rows_than_there_are_are_wrong():
    """Though nothing of them is kept."""
    seen = SeenRows(1)
    seen.add(np.zeros((2, 8), np.float32), np.zeros(2))
    assert seen.seen().bad == 2


@pytest.mark.parametrize("shape", [(3, 7), (2, (1 << 16) + 1)])
def test_conversion_in_parts_is_the_formula(shape):
    """To the last element of a part."""
    raw = (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
    expected = (raw.astype(np.float32) - SHIFT) * SCALE
    np.testing.assert_array_equal(convert(raw, np.empty(shape, np.float32)), expected)


def test_a_prefix_ends_with_the_time_or_with_the_epoch(file):
    """What was given before the clock started is checked, too, but not counted; from a dropped file nothing is."""
    with h5py.File(file.path) as opened:
        x = convert(opened["train/x"][:], np.empty((_ROWS, _FEATURES), np.float32))
        y = opened["train/y"][:]

    def batches():
        for start in range(0, _ROWS, BATCH_ROWS):
            yield x[start : start + BATCH_ROWS], y[start : start + BATCH_ROWS]

    whole = time_prefix(_One(), batches(), _ROWS, 60)
    assert (whole.rows, whole.is_whole) == (_ROWS - 2 * BATCH_ROWS, True)
    assert count_wrong([whole.seen], _ROWS, True) == 0
    cold = time_prefix(_One(), batches(), _ROWS, 60, "dropped")
    assert (cold.rows, cold.is_whole) == (_ROWS, True)
    prefix = time_prefix(_One(), batches(), _ROWS, 0)
    assert (prefix.rows, prefix.is_whole, len(prefix.seen.numbers)) == (0, False, 2 * BATCH_ROWS)
    assert rate([whole, prefix]) == whole.rows / max(whole.seconds, prefix.seconds)


_READS = [(name, layout) for name in ("h5py-index", "h5py-row") for layout in LAYOUTS]


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize(("engine", "layout"), [*_READS, ("memmap", "contiguous")])
@pytest.mark.parametrize("ranks", [_One(), _OneOfTwo()], ids=["one", "second of two"])
@pytest.mark.parametrize("form", ["", "256 MiB of chunks"])
def test_peers_give_their_share_of_a_shuffled_epoch(engine, layout, ranks, form, tmp_path):
    """Every row of it once, in random order, with its label."""
    file = DataFile.named(tmp_path, layout, _FEATURES, _ROWS)
    write_file(file, (_FEATURES,))
    seen = SeenRows(_ROWS)
    with loader_peers.ENGINES[engine](file, ranks, form, "warm") as batches:
        for x, y in batches:
            assert (x.dtype, x.shape[1:]) == (np.float32, (_FEATURES,))
            seen.add(x, y)
    found = seen.seen()
    assert (found.bad, len(found.numbers)) == (0, _ROWS // ranks.size)
    assert len(set(found.numbers)) == _ROWS // ranks.size
    assert not (np.diff(found.numbers) > 0).all()


def test_a_file_can_be_read_into_the_page_cache_and_dropped_from_it(file):
    """Where the file system has one to drop from; one in memory has not."""
    page_cache.warm(file.path)
    assert page_cache.cached_share(file.path) == 1
    page_cache.drop(file.path)
    share = page_cache.cached_share(file.path)
    if share == 1:
        pytest.skip("this file system keeps its files in memory")
    assert share < 0.02


def test_planned_files_are_shared_evenly(tmp_path):
    """Rows are a multiple of every number of ranks."""
    planned = plan_files(tmp_path, ["1K", "150K"], LAYOUTS, [64 << 20], [1, 2, 8, 3])
    rows = {(file.layout, file.sample_bytes): file.row_count for file in planned}
    assert all(number % 24 == 0 for number in rows.values())
    assert rows["chunked", 1024] == rows["contiguous", 1024] == rows["gzip", 1024] == 65_520
    assert rows["contiguous", 150_528] == 432


def test_more_rows_than_can_be_told_apart_are_refused(tmp_path):
    """In one line: their numbers have three bytes."""
    with pytest.raises(SystemExit, match=r"--bytes: expected at most 16 GiB .* got 32 GiB"):
        plan_files(tmp_path, ["1K"], ["chunked"], [32 << 30], [1])


def test_files_that_do_not_fit_are_one_line(tmp_path, monkeypatch):
    """What is needed, what there is, and what to do."""
    usage = argparse.Namespace(free=1 << 30)
    monkeypatch.setattr(loader_files.shutil, "disk_usage", lambda folder: usage)
    fitting = plan_files(tmp_path, ["1K"], ["chunked"], [512 << 20], [1])
    assert space_problem(tmp_path, fitting) == ""
    too_large = plan_files(tmp_path, ["1K"], ["chunked"], [4 << 30], [1])
    problem = space_problem(tmp_path, too_large)
    assert problem.startswith(
        f"{tmp_path}: expected 4 GiB free for the data files, got 1 GiB; give"
    )


def test_each_way_and_peer_gets_the_files_that_it_can_read(tmp_path):
    """The limit comes first, and rows in memory are measured in one state of the page cache."""
    files = list(plan_files(tmp_path, ["1K"], LAYOUTS, [1 << 20], [1]))
    made = launches(files, 2, ["warm", "dropped"], 0.5, loader.WAYS, loader.PEERS)
    assert [launch.label for launch in made] == [
        "sequential-read n=2",
        *(f"lepton_mpi {way} n=2" for way in ("memory", "mapped", "streamed")),
        *(f"{peer} n=2" for peer in loader.PEERS),
    ]
    words = {launch.label.split(" n=")[0]: " ".join(launch.command) for launch in made}
    for label in ("lepton_mpi mapped", "memmap"):
        assert "contiguous-" in words[label]
        assert "chunked-" not in words[label]
    assert "--caches warm --" in words["lepton_mpi memory"]
    assert launches(files[1:], 2, ["warm"], 0.5, ["mapped"], ["memmap"])[1:] == []


def _row(engine: str, way: str = "", us: float = 1e6, **more) -> dict:
    row = {"engine": engine, "way": way, "layout": "contiguous", "cache": "warm", "ranks": 2}
    row |= {"sample_bytes": 1024, "row_count": 1 << 20, "file_bytes": 1 << 30, "wrong": 0}
    return row | {"time_us": us, "min_us": us, "limit_us": None} | more


def test_ratios_and_marks():
    """To every peer on the same case; of the limit that was measured for it, or of a copy."""
    rows = combine(
        [
            _row("lepton_mpi", "streamed", 2e5),
            _row("lepton_mpi", "memory", 1e5, limit_us=5e4),
            _row("h5py-index", us=1.2e6),
            _row("torch-dataloader", us=4e5),
            _row("h5py-index", us=9e6, cache="dropped"),
            _row("sequential-read", us=4e4),
        ]
    )
    by_way = {row["way"]: row for row in rows if row["engine"] == "lepton_mpi"}
    assert by_way["streamed"]["of_limit"] == 0.2
    assert by_way["memory"]["of_limit"] == 0.5
    assert by_way["streamed"]["samples_per_second"] == pytest.approx((1 << 20) / 0.2)
    assert by_way["streamed"]["gbs"] == pytest.approx((1 << 30) / 0.2e9)
    case = "1 KiB a sample, 1 GiB contiguous, warm, n = 2"
    assert set(ratio_lines(rows)) == {
        f"streamed, {case}: 6.00 x h5py-index, 2.00 x torch-dataloader",
        f"memory, {case}: 12.00 x h5py-index, 4.00 x torch-dataloader",
    }
    assert set(mark_lines(rows)) == {
        f"met      x h5py-index >= 5, streamed, {case}: 6.00",
        f"NOT MET  x torch-dataloader >= 3, streamed, {case}: 2.00",
        f"met      x h5py-index >= 5, memory, {case}: 12.00",
        f"met      x torch-dataloader >= 3, memory, {case}: 4.00",
        f"NOT MET  of copy bandwidth >= 0.6, memory, {case}: 0.50",
    }


@pytest.mark.parametrize("more", [{"ranks": 8}, {"row_count": 1 << 19}])
def test_marks_are_about_two_ranks_and_a_large_file(more):
    """And about nothing else."""
    rows = combine([_row("lepton_mpi", "streamed", **more), _row("h5py-index", **more)])
    assert list(mark_lines(rows)) == []
    assert len(list(ratio_lines(rows))) == 1


def test_wrong_rows_and_ways_without_a_row_are_problems(tmp_path):
    """One line each, that names the case."""
    options = argparse.Namespace(ways=["streamed", "mapped"], ranks=[1, 2])
    files = list(plan_files(tmp_path, ["1K"], ["contiguous", "gzip"], [1 << 20], [1]))
    rows = [
        _row("memmap", wrong=3),
        _row("lepton_mpi", "streamed", row_count=1024),
        _row("lepton_mpi", "mapped", row_count=1024),
        _row("lepton_mpi", "mapped", row_count=1024, ranks=1, layout="gzip"),
    ]
    wrong, *missing = loader.find_problems(rows, files, options)
    assert wrong == "memmap, contiguous, 1024 bytes a sample, warm, 2 ranks: 3 wrong rows"
    assert len(missing) == 4
    assert (
        missing[-1]
        == f"lepton_mpi streamed on {files[1].path.name}, 2 ranks: could not be measured"
    )


def test_the_line_of_a_run_under_a_limit(tmp_path):
    """Met, too much, killed, and only measured."""
    file = DataFile.named(tmp_path, "contiguous", 1024, 4 << 20)
    rows = combine([_row("lepton_mpi", "streamed", peak_rss=700 << 20, wait_share=0.02)])
    seen = {"limit_bytes": 512 << 20, "limit_set": True, "program_peak": 352 << 20}
    seen |= {"group_peak": 512 << 20, "failed_charges": 9, "kills": 0}
    name = "training on 4 GiB of 1 KiB samples under 512 MiB"
    assert loader.limit_line(file, seen, rows, "").startswith(
        f"met      {name}: peak 352 MiB, with"
    )
    over = seen | {"program_peak": 513 << 20}
    assert loader.limit_line(file, over, rows, "").startswith("NOT MET")
    assert loader.limit_line(file, seen | {"kills": 1}, rows, "").startswith("NOT MET")
    killed = loader.limit_line(file, seen | {"kills": 1}, [], "ended with exit code 137")
    assert killed == f"NOT MET  {name}: ended with exit code 137, 1 killed"
    measured = {"limit_bytes": 512 << 20, "limit_set": False}
    line = loader.limit_line(file, measured, rows, "")
    assert line.startswith(f"NOT MET  {name}: peak 700 MiB, only measured")


def test_without_the_right_to_limit_memory_a_line_says_so(tmp_path, monkeypatch, capsys):
    """And the run goes on."""
    monkeypatch.setattr("benchmarks.memory_group._ROOT", tmp_path / "none")
    with memory_group(1 << 29) as group:
        assert group is None
    said = capsys.readouterr().out
    assert said.startswith("no memory limit: ")
    assert said.endswith("memory is only measured\n")


def test_rows_seen_twice_over_ranks_are_wrong():
    """Each rank's own are right."""
    parts = [Seen(np.arange(0, 6), 0), Seen(np.arange(5, 10), 0)]
    assert count_wrong(parts, 10, True) == 1
