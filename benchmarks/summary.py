"""How fast is it, in one table? That of the README, from the committed results of the other benchmarks."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import Row, read_rows
from benchmarks.readme_table import LIBRARY_NAMES, time_text
from benchmarks.training_table import rate_text
from benchmarks.verdict import fastest_peer, is_ours

_RESULTS = Path(__file__).parent / "results"
_ENGINE_NAMES = {
    "torch": "torch",
    "torch-ddp": "torch DistributedDataParallel",
    "keras": "Keras",
    "sklearn": "scikit-learn",
    "h5py-row": "h5py, row by row",
    "h5py-index": "h5py, lists of rows",
    "torch-dataloader": "torch DataLoader",
    "memmap": "NumPy memmap",
}
# Model and ranks, 64 rows a rank; bytes and ranks; layout, page cache and way of rows of 150 KB.
_TRAININGS = [("mlp-784-128-10", 1), ("mlp-784-128-10", 8), ("mlp-10m", 1), ("mlp-10m", 2)]
_ALLREDUCES = [(4 << 10, 2), (1 << 20, 8), (64 << 20, 8)]
_LOADS = [("chunked", "warm", "memory"), ("contiguous", "dropped", "streamed")]


class Line(NamedTuple):
    """What was measured, the two results as they are shown, who the peer is, and how many times as fast as it."""

    case: str
    ours: str
    peer: str
    ratio: float


def summary_markdown() -> list[str]:
    """The table, with its titles; a ratio below 1 is a peer that is faster."""
    lines = [*_trainings(), *_allreduces(), *_between_hosts(), *_updates(), *_loads()]
    cells = [f"| {each.case} | {each.ours} | {each.peer} | {each.ratio:.2g} |" for each in lines]
    return ["| measured | lepton_mpi | fastest peer | times as fast |", "|---|---|---|---|", *cells]


def _trainings() -> Iterator[Line]:
    rows = read_rows(str(_RESULTS / "training.json"))
    for model, ranks in _TRAININGS:
        of_case = [
            row
            for row in rows
            if (row["model"], row["ranks"], row["rows_per_rank"]) == (model, ranks, 64)
        ]
        (ours,) = (row for row in of_case if row["engine"] == "lepton_mpi")
        peer = max((row for row in of_case if row["engine"] in _ENGINE_NAMES), key=_rate)
        threads = f" on {peer['threads']} threads" if peer["threads"] > 1 else ""
        shown = f"{rate_text(_rate(peer))}, {_ENGINE_NAMES[peer['engine']]}{threads}"
        case = f"training {model}, {_ranks(ranks)}, samples/s"
        yield Line(case, rate_text(_rate(ours)), shown, _rate(ours) / _rate(peer))


def _allreduces() -> Iterator[Line]:
    rows = read_rows(str(_RESULTS / "allreduce.json"))
    for size, ranks in _ALLREDUCES:
        ours = min(
            row["time_us"]
            for row in rows
            if is_ours(row)
            and (row["bytes"], row["ranks"], row["mode"]) == (size, ranks, "private")
        )
        peer = fastest_peer(rows, ranks, size)
        assert peer is not None
        tuned = " tuned" if peer["tuned"] else ""
        shown = f"{time_text(peer['time_us'])}, {LIBRARY_NAMES[peer['library']]}{tuned}"
        case = f"allreduce of {_size(size)}, {_ranks(ranks)}"
        yield Line(case, time_text(ours), shown, peer["time_us"] / ours)


def _between_hosts() -> Iterator[Line]:
    rows = read_rows(str(_RESULTS / "hosts-3.json"))
    ours, peer = (
        next(
            row["time_us"]
            for row in rows
            if (row["library"], row["mode"], row["bytes"]) == (library, "array", 64 << 20)
        )
        for library in ("lepton_mpi", "openmpi")
    )
    case = "allreduce of 64 MiB, 3 emulated hosts of 2 ranks, 1 Gbit/s"
    yield Line(case, time_text(ours), f"{time_text(peer)}, Open MPI", peer / ours)


def _updates() -> Iterator[Line]:
    rows = [
        row
        for row in read_rows(str(_RESULTS / "update.json"))
        if (row["parameters"], row["ranks"], row["optimizer"]) == (10_000_000, 8, "adam")
    ]
    (ours,) = (row for row in rows if (row["library"], row["way"]) == ("lepton_mpi", "shared"))
    peer = min((row for row in rows if row["library"] != "lepton_mpi"), key=_time)
    case = "gradients to new parameters, Adam, 10 000 000 of them, 8 ranks"
    shown = f"{time_text(_time(peer))}, {LIBRARY_NAMES[peer['library']]}"
    yield Line(case, time_text(_time(ours)), shown, _time(peer) / _time(ours))


def _loads() -> Iterator[Line]:
    rows = read_rows(str(_RESULTS / "loader.json"))
    for layout, cache, way in _LOADS:
        of_case = [
            row
            for row in rows
            if (row["layout"], row["cache"], row["sample_bytes"], row["ranks"])
            == (layout, cache, 150_528, 2)
            and not row.get("limit_bytes")
        ]
        (ours,) = (row for row in of_case if row["way"] == way)
        peer = max((row for row in of_case if row["engine"] in _ENGINE_NAMES), key=_rate)
        state = {"warm": "in the page cache", "dropped": "not in the page cache"}[cache]
        case = f"shuffled rows of 150 KB, {layout} HDF5 {state}, rows/s ({way})"
        shown = f"{rate_text(_rate(peer))}, {_ENGINE_NAMES[peer['engine']]}"
        yield Line(case, rate_text(_rate(ours)), shown, _rate(ours) / _rate(peer))


def _rate(row: Row) -> float:
    return row["samples_per_second"]


def _time(row: Row) -> float:
    return row["time_us"]


def _ranks(count: int) -> str:
    return f"{count} rank{'s' * (count > 1)}"


def _size(byte_count: int) -> str:
    return f"{byte_count >> 10} KiB" if byte_count < 1 << 20 else f"{byte_count >> 20} MiB"


if __name__ == "__main__":
    print("\n".join(summary_markdown()))
