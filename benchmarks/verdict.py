"""What a comparison says: the ratio to the fastest peer, case by case, and whether the goals are met."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.harness import Row
from lepton_mpi.wording import size_text

MODES = ("shared", "private", "array")


@dataclass(frozen=True)
class Goal:
    """``algorithm`` of lepton_mpi (None: its fastest) is ``ratio`` times as fast as every peer.

    In each of ``modes``, on each of ``ranks``, from ``bytes_min`` to 64 MiB.
    """

    modes: tuple[str, ...]
    ranks: tuple[int, ...]
    ratio: float
    bytes_min: int = 256 << 10
    algorithm: str | None = None


GOALS = (
    Goal(("shared",), (2,), 3),
    Goal(("shared",), (4, 8), 5),
    Goal(("private",), (2,), 2),
    Goal(("private",), (4, 8), 3),
    Goal(("array",), (2, 4, 8), 1.5),
    Goal(MODES, (2, 4, 8), 0.95, bytes_min=8, algorithm="auto"),
)
_BYTES_MAX = 64 << 20


def is_ours(row: Row) -> bool:
    """Whether the row is about lepton_mpi."""
    return row["library"] == "lepton_mpi"


def fastest_peer(rows: Sequence[Row], ranks: int, size: int) -> Row | None:
    """The peers' fastest row, tuned or not."""
    here = [row for row in rows if (row["ranks"], row["bytes"]) == (ranks, size)]
    return min((r for r in here if not is_ours(r)), key=lambda row: row["time_us"], default=None)


def ratio(
    rows: Sequence[Row], ranks: int, size: int, mode: str, algorithm: str | None = None
) -> float | None:
    """Time of the fastest peer / time of lepton_mpi; None if either was not measured."""
    peer = fastest_peer(rows, ranks, size)
    ours = [
        row["time_us"]
        for row in rows
        if is_ours(row)
        and (row["ranks"], row["bytes"], row["mode"]) == (ranks, size, mode)
        and algorithm in (None, row["algorithm"])
    ]
    return peer["time_us"] / min(ours) if peer and ours else None


def print_ratios(rows: Sequence[Row], rank_counts: Sequence[int]) -> None:
    """A line per number of ranks and size."""
    print("\nhow many times as fast as the fastest peer (its p50 / lepton_mpi's p50)")
    titles = "".join(f"{mode:>9}" for mode in MODES)
    print(f"ranks      bytes  {'fastest peer':<38}      p50 us{titles}")
    for ranks in rank_counts:
        for size in sorted({row["bytes"] for row in rows}):
            if peer := fastest_peer(rows, ranks, size):
                name = f"{peer['library']} {peer['algorithm']}"
                ratios = [ratio(rows, ranks, size, mode) for mode in MODES]
                texts = "".join(f"{'-' if r is None else f'{r:.2f}':>9}" for r in ratios)
                print(
                    f"{ranks:>5}  {size_text(size):>9}  {name:<38}  {peer['time_us']:>10.1f}{texts}"
                )


def print_goals(rows: Sequence[Row], rank_counts: Sequence[int]) -> None:
    """A line per goal: in how many of the measured cases it is met, and the worst of them."""
    print("\ngoals")
    for goal in GOALS:
        cases = list(_cases(goal, rows, rank_counts))
        if not cases:
            continue
        met = sum(value >= goal.ratio for value, _ in cases)
        lowest, where = min(cases)
        what = "auto, any mode" if goal.algorithm else goal.modes[0]
        ranks = ", ".join(map(str, goal.ranks))
        title = f"{what}: >= {goal.ratio:g}x on {ranks} ranks from {size_text(goal.bytes_min)}"
        verdict = "met" if met == len(cases) else "NOT MET"
        counted = f"{met} of {len(cases)} cases; lowest {lowest:.2f}x: {where}"
        print(f"  {title:<52}{verdict:<9}{counted}")


def _cases(
    goal: Goal, rows: Sequence[Row], rank_counts: Sequence[int]
) -> Iterator[tuple[float, str]]:
    sizes = sorted({row["bytes"] for row in rows if goal.bytes_min <= row["bytes"] <= _BYTES_MAX})
    for ranks in (count for count in rank_counts if count in goal.ranks):
        for size in sizes:
            for mode in goal.modes:
                value = ratio(rows, ranks, size, mode, goal.algorithm)
                if value is not None:
                    yield value, f"{mode}, {ranks} ranks, {size_text(size)}"
