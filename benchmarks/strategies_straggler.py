"""``bench strategies --straggler``: what is left of the speed beside a slow rank, see ``strategies.py``."""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.engines.slow_rank import SLOW, write_data
from benchmarks.harness import (
    Column,
    Launch,
    Row,
    machine,
    mpi_command,
    print_header,
    print_row,
    print_titles,
    run,
)

_COLUMNS = [
    Column("way", "way", 30),
    Column("samples_per_second", "samples/s", 10, ".0f"),
    Column("of_ideal", "of ideal", 8, ".2f"),
    Column("others", "others", 7, ".2f"),
]
_BALANCED = ("sync", "delayed", "local, H = 16", "bounded, S = 4", "gossip, one_peer")
_BALANCED += ("gossip, asynchronous",)


def straggler(
    options: argparse.Namespace, ways: Mapping[str, Sequence[str]], ranks: int
) -> tuple[list[Row], int]:
    """The same steps with and without a slow rank, as they are and balanced: a job for each way, one case after the other."""
    which = ", another one in each step" if options.turns else ""
    print_header(f"a rank of {ranks} that is {SLOW:g} times slower{which}", machine())
    print_titles(_COLUMNS)
    # Of the sum of what all ranks could do, beside a run in which none is slow.
    ideal = (ranks - 1 + 1 / SLOW) / ranks
    if options.turns:
        ideal = ranks / (ranks - 1 + SLOW)
    rows: list[Row] = []
    lost = 0
    for way in [way for way in options.ways if "--compress" not in ways[way]]:
        kinds = [("none", 1.0), ("none", SLOW)]
        if way in _BALANCED and not options.turns:
            kinds.append(("auto", SLOW))
        found = _slow(way, ways[way], kinds, options, ranks)
        lost += found is None
        for (balance, _), uneven in zip(kinds[1:], found[1:] if found else [], strict=False):
            even = found[0] if found else uneven
            row: Row = {
                "way": way + ", balanced" * (balance == "auto"),
                "samples_per_second": uneven["rows_per_second"],
                "of_ideal": uneven["rows_per_second"] / even["rows_per_second"] / ideal,
                "others": uneven["rows_of_first"] / even["rows_of_first"],
            }
            row |= {"others": None} if options.turns else {}
            rows.append(row)
            print_row(_COLUMNS, row)
    return rows, lost


def _slow(
    way: str,
    of_way: Sequence[str],
    kinds: Sequence[tuple[str, float]],
    options: argparse.Namespace,
    ranks: int,
) -> list[Row] | None:
    """A row of each kind, ``--balance`` and how much slower a rank is; None after saying why there is none."""
    cases = [
        {"words": [*of_way, "--balance", balance], "factor": factor, "turns": options.turns}
        for balance, factor in kinds
    ]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "rows.h5")
        write_data(data)
        words = ("-m", "benchmarks.engines.slow_rank", "--cases", json.dumps(cases))
        words += ("--data", str(data), "--seconds", str(options.sleep))
        outcome = run(Launch(way, mpi_command(ranks, *words)))
    if outcome.problem:
        print(f"{way}: {outcome.problem}")
        return None
    return outcome.rows
