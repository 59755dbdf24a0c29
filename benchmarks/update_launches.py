"""Which launches ``benchmarks/update.py`` starts for a number of ranks, and what comes out of their rows.

1. A sweep: every form of every MPI, with ``--tuned`` under every setting in ``peers/``, up to 10 million parameters,
   once and briefly. A case is given up after two steps if they take twice as long as the library's best so far.
2. Rounds of fresh launches in turn: lepton_mpi, then each MPI at its defaults and, with ``--tuned``, under the
   settings that won a case, in the forms that won.
3. The median over launches.

Vectors of more parameters take the winners of the longest in the sweep, and part in the first round only: a launch with
100 million on 8 ranks takes minutes.
"""

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.engines.update import Case
from benchmarks.harness import Launch, Row, mpi_command, over_launches, run_with_progress
from benchmarks.peers import Variant, update_variants
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.optimizers.settings import Settings

OURS, LIBRARIES = "lepton_mpi", ("openmpi", "mpich", "intel")
_OUR_FORMS = {"shared": ("whole",), "allreduce": ("private",)}
_MPI_FORMS = {"allreduce": ("whole", "buckets"), "reduce_scatter": ("whole", "counts", "buckets")}
_WAYS = {**_OUR_FORMS, **_MPI_FORMS}
_ITEM_BYTES = 4
_SWEEP_PARAMETERS_MAX = _REPEATED_PARAMETERS_MAX = 10_000_000
_SWEEP_SHARE = 0.3
_GIVE_UP_RATIO = 2.0
_MEMORY_SHARE = 0.9
# Of a rank its code and its libraries' buffers; of a host the table in which the limit is measured.
_RANK_BYTES, _HOST_BYTES = 150 << 20, 512 << 20
_LAUNCH_LIMIT_SECONDS = 600.0


def measure(
    ranks: int, libraries: Sequence[str], cores: int, options: argparse.Namespace
) -> list[Row]:
    """All rows for one number of ranks, by size."""
    fitting = [
        (size, way)
        for size in options.sizes
        for way in _WAYS
        if fits(way, ranks, size, options.optimizer)
    ]
    entrants = [_ours(fitting, options.optimizer)]
    for library in libraries:
        found = sweep(update_variants(library, ranks, cores), ranks, fitting, options)
        entrants += winners(found, fitting, options.optimizer)
    measured: list[Row] = []
    for number in range(1, options.launches + 1):
        title = f"{ranks} ranks, launch {number} of {options.launches}"
        for entrant in entrants:
            measured += run(entrant if number == 1 else shorter(entrant), ranks, options, title)
    return combine(measured)


@dataclass(frozen=True)
class Entrant:
    """A library with one setting, and the cases to measure with it."""

    library: str
    tuning: str
    environment: Mapping[str, str]
    cases: list[Case]


def shorter(entrant: Entrant) -> Entrant:
    """The same without the longest vectors."""
    cases = [case for case in entrant.cases if case.parameters <= _REPEATED_PARAMETERS_MAX]
    return replace(entrant, cases=cases)


def run(
    entrant: Entrant, ranks: int, options: argparse.Namespace, title: str, share: float = 1.0
) -> list[Row]:
    """One launch's rows; ``share`` of the time that options give to a case."""
    if not entrant.cases:
        return []
    command = mpi_command(
        ranks,
        *("-m", "benchmarks.engines.update", "--seconds", str(options.seconds * share)),
        *("--bucket-bytes", str(options.bucket_bytes), "--timeout", str(options.timeout)),
        *(("--limit",) if entrant.library == OURS else ()),
        *("--cases", *map(str, entrant.cases)),
    )
    label = f"{entrant.library} {entrant.tuning}"
    launch = Launch(label, command, entrant.environment, _LAUNCH_LIMIT_SECONDS)
    known = {
        "library": entrant.library,
        "tuning": entrant.tuning,
        "tuned": entrant.tuning != "default",
    }
    return [{**row, **known} for row in run_with_progress(launch, title).rows]


def fits(way: str, ranks: int, parameters: int, optimizer: str) -> bool:
    """Whether memory is free for a case; prints why it is left out if not."""
    needed, free = (
        needed_bytes(way, ranks, parameters, len(rule_of(Settings(optimizer, float)).state)),
        free_bytes(),
    )
    if needed <= free * _MEMORY_SHARE:
        return True
    print(
        f"left out: {way} of {parameters} parameters on {ranks} ranks needs {needed / 1e9:.1f} GB, "
        f"{free / 1e9:.1f} GB are free",
        flush=True,
    )
    return False


def needed_bytes(way: str, ranks: int, parameters: int, states: int) -> int:
    """Memory of the host that a way takes at most, with as much again as the gradients inside an MPI."""
    vectors = {
        "shared": ranks + 1 + states,
        "allreduce": ranks * (3 + states),
        "reduce_scatter": 3 * ranks + 1 + states,
    }
    return vectors[way] * parameters * _ITEM_BYTES + ranks * _RANK_BYTES + _HOST_BYTES


def free_bytes() -> int:
    """What this process and its children may still take: of the machine, and of the group that it is in."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no group, or "max"
        return values["MemAvailable"]
    return min(values["MemAvailable"], limit - used)


def sweep(
    candidates: Sequence[Variant],
    ranks: int,
    fitting: Sequence[tuple[int, str]],
    options: argparse.Namespace,
) -> list[tuple[Variant, Row]]:
    """A rough time of each form of one library that comes near its best, under the given settings."""
    swept = list(dict.fromkeys((min(size, _SWEEP_PARAMETERS_MAX), way) for size, way in fitting))
    best_us = dict.fromkeys(swept, math.inf)
    found = []
    for variant in candidates if options.tuned else candidates[:1]:
        cases = [
            Case(size, options.optimizer, way, form, best_us[size, way] * _GIVE_UP_RATIO * 1e-6)
            for size, way in swept
            for form in _MPI_FORMS.get(way, ())
        ]
        entrant = Entrant(variant.library, variant.tuning, variant.environment, cases)
        for row in run(entrant, ranks, options, f"{ranks} ranks, sweep", _SWEEP_SHARE):
            key = row["parameters"], row["way"]
            best_us[key] = min(best_us[key], row["time_us"])
            found.append((variant, row))
    return found


def winners(
    found: Sequence[tuple[Variant, Row]], fitting: Sequence[tuple[int, str]], optimizer: str
) -> list[Entrant]:
    """Of every size and way the fastest form and setting in the sweep, and the fastest form at the defaults."""
    entrants: dict[str, Entrant] = {}
    for size, way in fitting:
        for tuned in (False, True):
            swept = min(size, _SWEEP_PARAMETERS_MAX), way, tuned
            here = [
                (variant, row)
                for variant, row in found
                if (row["parameters"], row["way"], variant.tuned) == swept
            ]
            if here:
                variant, row = min(here, key=lambda pair: pair[1]["time_us"])
                entrant = Entrant(variant.library, variant.tuning, variant.environment, [])
                cases = entrants.setdefault(variant.tuning, entrant).cases
                cases.append(Case(size, optimizer, way, row["form"]))
    return list(entrants.values())


def combine(measured: Iterable[Row]) -> list[Row]:
    """Medians over launches, with what memory allows and the ratio to the fastest MPI; by size."""
    rows = over_launches(
        measured, lambda r: (r["library"], r["tuning"], r["way"], r["form"], r["parameters"])
    )
    limits_us = {row["parameters"]: row["limit_us"] for row in rows if is_ours(row)}
    for row in rows:
        peer_us = fastest_mpi_us(rows, row["ranks"], row["parameters"])
        limit_us = row["limit_us"] = limits_us.get(row["parameters"])
        row["of_limit"] = limit_us and limit_us / row["time_us"]
        row["ratio"] = peer_us / row["time_us"] if peer_us and is_ours(row) else None
    return sorted(rows, key=_place)


def is_ours(row: Row) -> bool:
    """Whether the row is about lepton_mpi."""
    return row["library"] == OURS


def fastest_mpi_us(rows: Iterable[Row], ranks: int, parameters: int) -> float | None:
    """Time of the fastest way of the fastest MPI, tuned or not; None if none was measured."""
    return min(
        (
            row["time_us"]
            for row in rows
            if not is_ours(row) and (row["ranks"], row["parameters"]) == (ranks, parameters)
        ),
        default=None,
    )


def _place(row: Row) -> tuple:
    library = (OURS, *LIBRARIES).index(row["library"])
    return row["parameters"], library, list(_WAYS).index(row["way"]), row["tuned"]


def _ours(fitting: Sequence[tuple[int, str]], optimizer: str) -> Entrant:
    cases = [
        Case(size, optimizer, way, form)
        for size, way in fitting
        for form in _OUR_FORMS.get(way, ())
    ]
    return Entrant(OURS, "default", {}, cases)
