"""The table of trainings in ``results/README.md``, from the rows of a comparison."""

from collections.abc import Sequence

from benchmarks.harness import Row, read_rows
from lepton_mpi.wording import grouped

# Column by column: its title, and the engines whose rows stand in it.
_COLUMNS = {
    "lepton_mpi": ("lepton_mpi",),
    "the same with MPI's Allreduce": ("lepton_mpi-mpi-allreduce",),
    "torch, on several ranks DistributedDataParallel": ("torch", "torch-ddp"),
    "Keras": ("keras",),
    "scikit-learn": ("sklearn",),
}


def print_training_table(source: str) -> None:
    """Print the Markdown table of the rows in the JSON file ``source``."""
    print("\n".join(training_markdown(read_rows(source))))


def training_markdown(rows: Sequence[Row]) -> list[str]:
    """Samples a second, one line a model, rows of a rank, or of all of them "in all", and number of ranks.

    Peers that ran with 1 and with 2 threads have two figures in a cell, in that order.
    """
    lines = [f"| model, rows a rank | ranks | {' | '.join(_COLUMNS)} |", "|---" * 7 + "|"]
    said = None
    for setting in dict.fromkeys(map(_setting_of, rows)):
        of_setting = [row for row in rows if _setting_of(row) == setting]
        for ranks in sorted({row["ranks"] for row in of_setting}):
            cells = [_cell(of_setting, ranks, engines) for engines in _COLUMNS.values()]
            # The model stands in its first line only.
            name = setting if setting != said else ""
            said = setting
            lines.append(f"| {name} | {ranks} | {' | '.join(cells)} |")
    return lines


def _setting_of(row: Row) -> str:
    """Model, and its rows as they are said."""
    in_all = row.get("rows_in_all")
    return f"{row['model']}, {f'{in_all} in all' if in_all else row['rows_per_rank']}"


def _cell(rows: Sequence[Row], ranks: int, engines: tuple[str, ...]) -> str:
    chosen = [row for row in rows if row["ranks"] == ranks and row["engine"] in engines]
    chosen.sort(key=lambda row: row["threads"])
    return ", ".join(rate_text(row["samples_per_second"]) for row in chosen) or "-"


def rate_text(samples_per_second: float) -> str:
    """Three digits, the rest zeros.

    >>> rate_text(141628.6), rate_text(75517.3), rate_text(987.6)
    ('142 000', '75 500', '988')
    """
    return grouped(float(f"{samples_per_second:.3g}"))
