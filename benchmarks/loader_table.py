"""The table in ``lepton_mpi/data/README.md``, from the rows of a comparison."""

from collections.abc import Sequence

from benchmarks.harness import Row, read_rows
from benchmarks.training_table import rate_text

_RANKS = 2
# Column by column: its title, and the engine and the way of its rows.
_COLUMNS = {
    "memory": ("lepton_mpi", "memory"),
    "mapped": ("lepton_mpi", "mapped"),
    "streamed": ("lepton_mpi", "streamed"),
    "h5py, sorted lists of rows": ("h5py-index", ""),
    "h5py, row by row": ("h5py-row", ""),
    "torch DataLoader, 2 workers": ("torch-dataloader", ""),
    "NumPy memmap": ("memmap", ""),
}
_SIZES = {1024: "1 KB", 150_528: "150 KB"}


def print_loader_table(source: str) -> None:
    """Print the Markdown table of the rows in the JSON file ``source``."""
    print("\n".join(loader_markdown(read_rows(source))))


def loader_markdown(rows: Sequence[Row]) -> list[str]:
    """Samples a second on 2 ranks, one line for each kind of sample, layout and state of the page cache."""
    lines = [
        f"| a sample, layout, page cache | {' | '.join(_COLUMNS)} |",
        "|---" * (1 + len(_COLUMNS)) + "|",
    ]
    measured = [row for row in rows if row["ranks"] == _RANKS and not row.get("limit_bytes")]
    cases = dict.fromkeys((row["sample_bytes"], row["layout"], row["cache"]) for row in measured)
    for sample_bytes, layout, cache in sorted(cases, key=lambda case: (case[0], case[2] != "warm")):
        cells = []
        for engine, way in _COLUMNS.values():
            chosen = [
                row["samples_per_second"]
                for row in measured
                if (row["sample_bytes"], row["layout"], row["cache"], row["engine"], row["way"])
                == (sample_bytes, layout, cache, engine, way)
            ]
            cells.append(rate_text(chosen[0]) if chosen else "-")
        lines.append(f"| {_SIZES[sample_bytes]}, {layout}, {cache} | {' | '.join(cells)} |")
    return lines
