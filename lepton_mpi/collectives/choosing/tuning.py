"""What was measured on this cluster: which algorithm sums how fast, and the machine's alpha, beta and gamma.

A table belongs to one kind of job: MPI library, ranks on each host, cores, processor. ``lepton_mpi tune``
measures and stores it, one JSON file each, and ``auto`` of ``make_plan`` reads it.

The fit is Hockney's model for all schedules together, with a factor for each::

    T = factor (alpha_short steps_short + alpha_long steps_long + beta moved + gamma added)

Steps, and the bytes that the busiest rank moves and adds, are counted from the schedule (``cost.py``). A step whose
messages are longer than 4 KiB has an alpha of its own, since libraries ask the receiver first from about there
on. The factor says how well an algorithm's messages overlap. Relative errors are made small, so that 8 bytes
count as much as 64 MiB, and their absolute values, not squares, so that a disturbed case does not count for many.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lepton_mpi.collectives.explaining.cost import busiest_of_steps
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.schedules.algorithms import ALGORITHMS
from lepton_mpi.wording import size_text

VERSION = 1


@dataclass(frozen=True)
class Job:
    """What a table is about: jobs of this kind, and no other."""

    mpi: str
    ranks_per_host: tuple[int, ...]
    cores: int
    cpu: str

    def file_name(self) -> str:
        """Name of the table's file.

        >>> Job("Open MPI 5.0.11", (2, 2), 2, "AMD EPYC").file_name()
        'open-mpi-5.0.11_2-hosts_2-2-ranks_2-cores_amd-epyc.json'
        """
        counts = self.ranks_per_host
        alike = len(set(counts)) == 1 and len(counts) > 4
        ranks = f"{counts[0]}-each" if alike else "-".join(map(str, counts))
        hosts = f"{len(counts)}-host{'s' * (len(counts) > 1)}"
        text = f"{self.mpi}_{hosts}_{ranks}-ranks_{self.cores}-cores_{self.cpu}"
        return re.sub(r"[^a-z0-9_.]+", "-", text.lower()) + ".json"


@dataclass(frozen=True)
class Measured:
    """Microseconds of one case; ``held_out`` cases had no part in the fit.

    ``mode`` is "any" for algorithms to which it makes no difference how a vector is handed over.
    """

    mode: str
    algorithm: str
    bytes: int
    time_us: float
    held_out: bool = False


@dataclass(frozen=True)
class Table:
    """All that was measured for a job."""

    job: Job
    date: str
    measured: tuple[Measured, ...]
    fit: "Fit | None" = None

    def fastest(self, mode: str, byte_count: int) -> list[Measured]:
        """Cases of the measured size nearest to ``byte_count``, on a logarithmic scale, fastest first."""
        cases = [case for case in self.measured if case.mode in (mode, "any")]
        if not cases:
            return []
        wanted = max(byte_count, 1)
        nearest = min(
            (case.bytes for case in cases), key=lambda size: max(size, wanted) / min(size, wanted)
        )
        return sorted((c for c in cases if c.bytes == nearest), key=lambda case: case.time_us)


# -- files ---------------------------------------------------------------------------------------


def folder() -> Path:
    """Where tables are: LEPTON_TUNING, or a folder of the user's cache."""
    if named := os.environ.get("LEPTON_TUNING"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "lepton_mpi", "tuning")


def save(table: Table) -> Path:
    """Replace the table of its job; OSError if that is not possible."""
    path = folder() / table.job.file_name()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    content = {"version": VERSION, **asdict(table)}
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def load(job: Job) -> Table | None:
    """The table of ``job``; None if there is none that this version can read."""
    try:
        content = json.loads((folder() / job.file_name()).read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            return None
        return Table(
            Job(**{**content["job"], "ranks_per_host": tuple(content["job"]["ranks_per_host"])}),
            content["date"],
            tuple(Measured(**case) for case in content["measured"]),
            content["fit"] and Fit(**content["fit"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


# -- the choice ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """An algorithm, and why it was chosen, in words for the user."""

    algorithm: str
    reason: str


def choose(group: Group, algorithm: str, mode: str, byte_count: int, reproducible: bool) -> Choice:
    """What ``algorithm`` stands for if it is "auto". Collective over ``group``.

    Without a table, host memory on one host and two levels on several.

    Parameters
    ----------
    mode, byte_count
        How the vector is handed over, and its length.
    reproducible : bool
        Whether only the canonical order will do, whose bits do not depend on the number of ranks.
    """
    if algorithm != "auto":
        return Choice(algorithm, "as asked")
    table = table_of(group)
    cases = table.fastest(mode, byte_count) if table else []
    canonical = "host" if group.host_count == 1 else "two_level"
    why = "same bits for any number of ranks" if reproducible else "by rule"
    if not cases:
        remedy = "" if reproducible else "; python -m lepton_mpi tune measures what is fastest"
        return Choice(canonical, why + remedy)
    times = {case.algorithm: case.time_us for case in cases}
    # Algorithms to which the mode makes no difference have no result that a host shares.
    fitting = [case for case in cases if mode != "shared" or case.mode == mode]
    chosen = canonical if reproducible or not fitting else fitting[0].algorithm
    why = why if reproducible else f"fastest of {len(fitting)}"
    figures = [
        f"{names} {times[name]:.3g} us"
        for name, names in ((chosen, chosen), ("mpi", "MPI's own"))
        if name in times
    ]
    at = f"{size_text(cases[0].bytes)}, {table.date[:10]}"
    return Choice(chosen, f"{why}; {', '.join(dict.fromkeys(figures))} for {at}")


def table_of(group: Group) -> Table | None:
    """The table of this kind of job, read once by rank 0. Collective over ``group`` at the first call."""
    if "tuning" not in group.remembered:
        table = load(job_of(group)) if group.rank == 0 else None
        group.remembered["tuning"] = group.broadcast(table)
    return group.remembered["tuning"]


def job_of(group: Group) -> Job:
    """The kind of job that ``group`` would be alone."""
    return Job(group.mpi, tuple(map(len, group.ranks_of_hosts)), group.cores, group.cpu)


# -- the fit -------------------------------------------------------------------------------------

# Open MPI, MPICH and Intel MPI change from sending at once to asking first between 4 and 64 KiB.
_SHORT_BYTES = 4 << 10
# Rounds of reweighted least squares, which come near to least absolute values; and the error from which on an
# error counts less than its square.
_ROUNDS, _SMALL_ERROR = 30, 0.02


# 8, 64, 512 B, … are fitted, and between them 24, 192, 1536 B, … held out.
_FITTED, _HELD_OUT, _RATIO = 8, 24, 8


def sizes(bytes_max: int) -> list[tuple[int, bool]]:
    """Vector lengths in bytes, ascending, and which of them are held out of the fit.

    >>> sizes(600)
    [(8, False), (24, True), (64, False), (192, True), (512, False)]
    """
    powers = range(bytes_max.bit_length())
    both = [(_FITTED * _RATIO**p, False) for p in powers]
    both += [(_HELD_OUT * _RATIO**p, True) for p in powers]
    return sorted(size for size in both if size[0] <= bytes_max)


@dataclass(frozen=True)
class Fit:
    """Seconds of a step with short and with long messages, per byte moved and per byte added; factors."""

    alpha_short: float
    alpha_long: float
    beta: float
    gamma: float
    factors: dict[str, float]

    def seconds(self, algorithm: str, byte_count: int, world_size: int) -> float:
        """Predicted time of a run; the factor is 1 for an algorithm that was not measured."""
        terms = _terms(algorithm, byte_count, world_size)
        coefficients = self.alpha_short, self.alpha_long, self.beta, self.gamma
        return self.factors.get(algorithm, 1.0) * float(terms @ coefficients)


def fit(measured: Sequence[Measured], world_size: int) -> Fit | None:
    """The model that fits the cases of schedules that are not held out; None if there are none, as on one rank."""
    from scipy.optimize import nnls

    cases = [case for case in measured if case.algorithm in ALGORITHMS and not case.held_out]
    if world_size == 1 or not cases:
        return None
    terms = np.array([_terms(case.algorithm, case.bytes, world_size) for case in cases])
    scale = np.maximum(terms.max(axis=0), 1e-300)
    rows = terms / scale / (np.array([case.time_us for case in cases])[:, None] * 1e-6)
    weights = np.ones(len(cases))
    for _ in range(_ROUNDS):
        solution, _ = nnls(rows * weights[:, None], weights)
        weights = np.maximum(np.abs(rows @ solution - 1), _SMALL_ERROR) ** -0.5
    ratios: dict[str, list[float]] = {}
    for case, predicted in zip(cases, rows @ solution, strict=True):
        ratios.setdefault(case.algorithm, []).append(1 / predicted)
    factors = {name: float(np.median(values)) for name, values in ratios.items()}
    return Fit(*(solution / scale).tolist(), factors)


def held_out_errors(measured: Sequence[Measured], fit: Fit, world_size: int) -> np.ndarray:
    """Relative errors of ``fit`` on the held-out cases of schedules."""
    return np.array(
        [
            abs(fit.seconds(case.algorithm, case.bytes, world_size) / (case.time_us * 1e-6) - 1)
            for case in measured
            if case.held_out and case.algorithm in ALGORITHMS
        ]
    )


def _terms(algorithm: str, byte_count: int, world_size: int) -> np.ndarray:
    """Steps with short messages, steps with long ones, bytes moved, bytes added."""
    terms = np.zeros(4)
    for longest, moved, added in busiest_of_steps(ALGORITHMS[algorithm], world_size):
        terms[int(longest * byte_count > _SHORT_BYTES)] += 1
        terms[2:] += float(moved) * byte_count, float(added) * byte_count
    return terms
