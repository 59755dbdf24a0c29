"""The table of allreduces in ``results/README.md``, from the rows of a comparison."""

from collections.abc import Sequence

from benchmarks.harness import Row, read_rows
from benchmarks.verdict import MODES, fastest_peer, is_ours
from lepton_mpi.wording import size_text

_BYTES_MIN = 4 << 10
LIBRARY_NAMES = {"openmpi": "Open MPI", "mpich": "MPICH", "intel": "Intel MPI", "gloo": "gloo"}


def print_readme_table(source: str) -> None:
    """Print the Markdown table of the rows in the JSON file ``source``."""
    print("\n".join(markdown(read_rows(source))))


def markdown(rows: Sequence[Row]) -> list[str]:
    """One line a size; for the lowest and the highest number of ranks the three modes and the fastest peer."""
    counts = sorted({row["ranks"] for row in rows})
    shown = [counts[0], counts[-1]] if len(counts) > 1 else counts
    titles = [f"{n} ranks: {', '.join(MODES)} | fastest peer" for n in shown]
    lines = [f"| bytes | {' | '.join(titles)} |", "|---|" + "---|---|" * len(shown)]
    for size in sorted({row["bytes"] for row in rows if row["bytes"] >= _BYTES_MIN}):
        cells = [cell for ranks in shown for cell in _cells(rows, ranks, size)]
        lines.append(f"| {size_text(size)} | {' | '.join(cells)} |")
    return lines


def _cells(rows: Sequence[Row], ranks: int, size: int) -> tuple[str, str]:
    ours = [row for row in rows if is_ours(row) and (row["ranks"], row["bytes"]) == (ranks, size)]
    fastest = {
        mode: min((row["time_us"] for row in ours if row["mode"] == mode), default=None)
        for mode in MODES
    }
    peer = fastest_peer(rows, ranks, size)
    times = ", ".join("-" if us is None else time_text(us) for us in fastest.values())
    name = f"{time_text(peer['time_us'])}, {LIBRARY_NAMES[peer['library']]}" if peer else "-"
    return times, name + (" tuned" if peer and peer["tuned"] else "")


def time_text(us: float) -> str:
    """Three digits with a unit.

    >>> time_text(1.25), time_text(123.4), time_text(12345), time_text(1690777)
    ('1.25 us', '123 us', '12.3 ms', '1.69 s')
    """
    if us < 999.5:
        return f"{us:.3g} us"
    return f"{us / 1000:.3g} ms" if us < 999.5e3 else f"{us / 1e6:.3g} s"
