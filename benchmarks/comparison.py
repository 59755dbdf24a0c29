"""lepton_mpi beside its peers: which launches, with which of the peers' settings.

For each number of ranks:

1. A sweep: every tuning of every peer, every way to call it, sizes up to 16 MiB, once and briefly. A case is
   given up after three calls if they take twice as long as the library's best so far.
2. Rounds of fresh launches in turn: lepton_mpi, then each peer at its defaults and at the tunings that
   won a size in the sweep or came within 15 % of the winner, two at most, for the sizes that they won.
3. The median over launches. Of a peer's tuned cases the fastest at each size is shown.
"""

import argparse
import math
import os
from collections.abc import Sequence

from benchmarks.collective_rows import COLUMNS, allreduce_row, cells
from benchmarks.harness import (
    Launch,
    Row,
    machine,
    mpi_command,
    over_launches,
    print_header,
    print_row,
    print_titles,
    run_with_progress,
    write_rows,
)
from benchmarks.peers import Variant, variants
from benchmarks.peers.environment import peer_launch, set_up
from benchmarks.verdict import is_ours, print_goals, print_ratios

_LIBRARIES = ("lepton_mpi", "openmpi", "mpich", "intel", "gloo")
_GIVE_UP_RATIO = 2.0
_KEEP_RATIO, _KEEP_MAX = 1.15, 2
# A slower call is of no interest, and would take minutes to measure.
_CALL_SECONDS_MAX = 2.0
_SWEEP_SHARE = 0.1
# Larger vectors are as good as certain to have the same winners, and would take most of the sweep's time.
_SWEEP_BYTES_MAX = 16 << 20
_SWEEP_LIMIT_SECONDS = 90.0


def compare(options: argparse.Namespace) -> int:
    """Measure, print and write all; 1 if a sum was wrong or lepton_mpi could not be measured."""
    versions = {library: version for library in options.peers if (version := set_up(library))}
    facts = machine()
    our_mpi = os.environ.get("LEPTON_MPI", "openmpi")
    print_header(
        "allreduce side by side: time in us, bandwidth in GB/s (1e9 bytes), medians over launches",
        {**facts, "launches": options.launches, "lepton_mpi on": our_mpi, **versions},
    )
    print_titles(COLUMNS)
    rows: list[Row] = []
    for ranks in options.ranks:
        at_ranks = measure(ranks, list(versions), facts["cores"], options)
        for row in at_ranks:
            print_row(COLUMNS, cells(row))
        rows += [{**row, **facts} for row in at_ranks]
        if options.json:
            write_rows(options.json, rows)
    if versions:
        print_ratios(rows, options.ranks)
        print_goals(rows, options.ranks)
    measured = {row["ranks"] for row in rows if is_ours(row)}
    for ranks in set(options.ranks) - measured:
        print(f"lepton_mpi on {ranks} ranks could not be measured")
    wrong = sum(row["wrong"] for row in rows)
    if wrong:
        print(f"{wrong} wrong elements; see the column #wrong")
    return int(wrong > 0 or measured != set(options.ranks))


def measure(
    ranks: int, libraries: Sequence[str], cores: int, options: argparse.Namespace
) -> list[Row]:
    """All rows for one number of ranks, by size."""
    winners: list[tuple[Variant, list[Row]]] = []
    for library in libraries:
        candidates = variants(library, ranks, cores)
        chosen = choose(sweep(candidates, ranks, options))
        for variant in candidates:
            if cases := [row for row in chosen if row["tuning"] == variant.tuning]:
                winners.append((variant, cases))
    measured: list[Row] = []
    for number in range(1, options.launches + 1):
        title = f"{ranks} ranks, launch {number} of {options.launches}"
        measured += run_with_progress(_our_launch(ranks, options), title).rows
        for variant, cases in winners:
            texts = [f"{row['bytes']}:{row['form']}:{_CALL_SECONDS_MAX * 1e6}" for row in cases]
            expected = sum(2 * options.seconds + 20e-6 * row["time_us"] for row in cases)
            launch = peer_launch(
                variant, ranks, texts, *_common(options), limit_seconds=60 + 3 * expected
            )
            measured += _labelled(run_with_progress(launch, title).rows, variant)
    return combine(measured, ranks)


def sweep(candidates: Sequence[Variant], ranks: int, options: argparse.Namespace) -> list[Row]:
    """A rough time of each tuning and form of one library that comes near its best."""
    rows: list[Row] = []
    sizes = [size for size in options.sizes if size <= _SWEEP_BYTES_MAX] or options.sizes[:1]
    best_us = dict.fromkeys(sizes, math.inf)
    for variant in candidates:
        cases = [
            f"{size}:{form}:{min(best_us[size] * _GIVE_UP_RATIO, _CALL_SECONDS_MAX * 1e6):.3f}"
            for size in sizes
            for form in variant.forms
        ]
        common = _common(options, _SWEEP_SHARE)
        launch = peer_launch(variant, ranks, cases, *common, limit_seconds=_SWEEP_LIMIT_SECONDS)
        found = _labelled(run_with_progress(launch, f"{ranks} ranks, sweep").rows, variant)
        for row in found:
            best_us[row["bytes"]] = min(best_us[row["bytes"]], row["time_us"])
        rows += found
    at_largest = [row for row in rows if row["bytes"] == sizes[-1]]
    for size in options.sizes[len(sizes) :]:
        longer = size / sizes[-1]
        rows += [{**row, "bytes": size, "time_us": row["time_us"] * longer} for row in at_largest]
    return rows


def choose(rows: Sequence[Row]) -> list[Row]:
    """Of one library's sweep: each size's fastest default case, and one or two tuned ones."""
    chosen: list[Row] = []
    for size in sorted({row["bytes"] for row in rows}):
        for tuned, keep in ((False, 1), (True, _KEEP_MAX)):
            fitting = [row for row in rows if (row["bytes"], row["tuned"]) == (size, tuned)]
            fitting.sort(key=lambda row: row["time_us"])
            near = [row for row in fitting if row["time_us"] <= fitting[0]["time_us"] * _KEEP_RATIO]
            chosen += near[:keep]
    return chosen


def combine(measured: Sequence[Row], ranks: int) -> list[Row]:
    """Medians over launches, by size; of a peer's tuned cases the fastest."""
    ours = over_launches(
        (row for row in measured if is_ours(row)),
        key=lambda row: (row["bytes"], row["mode"], row["algorithm"], row["form"]),
    )
    theirs = over_launches(
        (row for row in measured if not is_ours(row)),
        key=lambda row: (row["bytes"], row["library"], row["tuning"], row["form"]),
    )
    # What MPI and gloo promise is what lepton_mpi calls "array", and has the limit of private results.
    limits_us = {row["bytes"]: row["limit_us"] for row in ours if row["mode"] != "shared"}
    fastest: dict[tuple[int, str, bool], Row] = {}
    for row in sorted(theirs, key=lambda row: row["time_us"]):
        row["algorithm"] = f"{row['tuning']} {row['form']}"
        row.update(mode="array", ranks=ranks, hosts=1, limit_us=limits_us.get(row["bytes"]))
        fastest.setdefault((row["bytes"], row["library"], row["tuned"]), row)
    rows = [allreduce_row(**row) for row in (*ours, *fastest.values())]
    return sorted(rows, key=lambda r: (r["bytes"], _LIBRARIES.index(r["library"]), r["tuned"]))


def _our_launch(ranks: int, options: argparse.Namespace) -> Launch:
    command = mpi_command(
        ranks,
        *("-m", "benchmarks.allreduce", *_common(options), "--timeout", str(options.timeout)),
        *("--sizes", *map(str, options.sizes)),
        *("--modes", *options.modes, "--forms", *options.forms),
        *("--algorithms", *options.algorithms),
    )
    return Launch("lepton_mpi", command, limit_seconds=2 * options.timeout)


def _common(options: argparse.Namespace, share: float = 1.0) -> tuple[str, ...]:
    return ("--dtype", options.dtype, "--seconds", str(options.seconds * share))


def _labelled(rows: Sequence[Row], variant: Variant) -> list[Row]:
    label = {"library": variant.library, "tuning": variant.tuning, "tuned": variant.tuned}
    return [{**row, **label} for row in rows]
