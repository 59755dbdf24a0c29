"""Measure every way to sum a vector on these ranks, and remember the fastest: ``python -m lepton_mpi tune``.

All algorithms, MPI's own Allreduce in both forms among them, over vectors from 8 B to ``--max``; half of
the sizes are held out of the fit of alpha, beta and gamma, and tell how well it predicts. The table is
stored for jobs of this kind (``tuning.py``), and ``--allreduce auto`` goes by it from then on.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np

from lepton_mpi.collectives.allreduce import MODES, NAMES, Plan, make_plan
from lepton_mpi.collectives.choosing import tuning
from lepton_mpi.collectives.choosing.timing import Call, measure
from lepton_mpi.collectives.choosing.tuning import Measured, sizes
from lepton_mpi.collectives.messages.mpi import MpiRanks
from lepton_mpi.durable import try_writing
from lepton_mpi.errors import LauncherError, RankError
from lepton_mpi.wording import size_text

_DTYPE = np.dtype(np.float32)
# Passes over everything, of which the fastest time counts: the speed at which two cores exchange lines may
# change for seconds, with what else the machine does or where its cores are.
_PASSES = 2
# An algorithm this much slower than the fastest of its size will not be the choice; its time is not needed.
_GIVE_UP_RATIO = 30.0


def tune(world: Any, bytes_max: int, seconds: float, dry_run: bool = False) -> tuning.Table:
    """Measure, fit, print and store. Collective over ``world``."""
    job = tuning.job_of(world)
    hosts = f"{world.host_count} host{'s' * (world.host_count > 1)}"
    ranks = f"{world.size} rank{'s' * (world.size > 1)} on {hosts}"
    _say(world, "tune", f"{ranks}, {job.cores} cores a host, {job.mpi}, {job.cpu}")
    if not dry_run:
        _check_folder(world)
    passes: list[list[Measured]] = []
    for number in range(1, _PASSES + 1):
        _say(world, "measure", f"pass {number} of {_PASSES}, {len(sizes(bytes_max))} sizes")
        passes.append(
            [
                case
                for byte_count, held_out in sizes(bytes_max)
                for case in measure_size(world, byte_count, held_out, seconds)
            ]
        )
    measured = fastest_of(passes)
    for byte_count, _ in sizes(bytes_max):
        for mode in MODES:
            at_size = [case for case in measured if case.bytes == byte_count]
            _say(world, size_text(byte_count), sentence(at_size, mode))
    fit = tuning.fit(measured, world.size)
    table = tuning.Table(job, time.strftime("%Y-%m-%dT%H:%M:%S%z"), tuple(measured), fit)
    for line in fit_sentences(table, world.size):
        _say(world, "fit", line)
    if not dry_run:
        _store(world, table)
    return table


def measure_size(world: Any, byte_count: int, held_out: bool, seconds: float) -> list[Measured]:
    """Every algorithm at one size, in every mode to which it makes a difference. Collective."""
    own = "host" if world.host_count == 1 else "two_level"
    others = [name for name in NAMES if name not in ("auto", "host", "two_level")]
    cases: list[Measured] = []
    for mode, name in [*((mode, own) for mode in MODES), *(("any", name) for name in others)]:
        world.clock.enter("compute", byte_count)
        limit = min((case.time_us for case in cases), default=np.inf) * 1e-6 * _GIVE_UP_RATIO
        count = byte_count // _DTYPE.itemsize
        plan = plan_on_zeros(world, count, _DTYPE, "array" if mode == "any" else mode, name)
        call = Call(plan.input, plan.run, plan.result)
        timing = measure(MpiRanks(world.comm), call, seconds, limit)
        if timing is None:
            continue
        if timing.wrong:
            error = RankError(f"{name}, {byte_count} bytes: {timing.wrong} elements are wrong")
            world.agree(error)
        cases.append(Measured(mode, name, byte_count, timing.time_us, held_out))
    return cases


def fastest_of(passes: list[list[Measured]]) -> list[Measured]:
    """Of every case the fastest time, as measured on all ranks alike."""
    best: dict[tuple[str, str, int], Measured] = {}
    for case in sorted(chain(*passes), key=lambda case: -case.time_us):
        best[case.mode, case.algorithm, case.bytes] = case
    return sorted(best.values(), key=lambda case: (case.bytes, case.mode, case.algorithm))


def plan_on_zeros(
    world: Any, count: int, dtype: np.dtype, mode: str, algorithm: str, in_place: bool = False
) -> Plan:
    """A plan for a vector of its own, however it is handed over. Collective over ``world``."""
    if mode == "array":
        return make_plan(world, mode=mode, array=np.zeros(count, dtype), algorithm=algorithm)
    return make_plan(world, count, dtype, mode=mode, in_place=in_place, algorithm=algorithm)


def sentence(cases: list[Measured], mode: str) -> str:
    """The fastest two algorithms of a mode, and MPI's own."""
    order = sorted(
        (case for case in cases if case.mode in (mode, "any")), key=lambda case: case.time_us
    )
    shown = order[:2] + [case for case in order[2:] if case.algorithm == "mpi"]
    return f"{mode:<8}" + "  ".join(f"{case.algorithm} {case.time_us:.4g} us" for case in shown)


def fit_sentences(table: tuning.Table, world_size: int) -> list[str]:
    """The coefficients, and how well they predict."""
    fit = table.fit
    if fit is None:
        return ["nothing to fit on one rank"]
    lines = [
        f"a step {fit.alpha_short * 1e6:.3g} us, with messages above 4 KiB {fit.alpha_long * 1e6:.3g} us; "
        f"a byte moved {fit.beta * 1e9:.3g} ns, added {fit.gamma * 1e9:.3g} ns",
        "factors " + ", ".join(f"{name} {factor:.2f}" for name, factor in fit.factors.items()),
    ]
    errors = tuning.held_out_errors(table.measured, fit, world_size)
    if errors.size:
        median, most = np.percentile(errors, [50, 90])
        lines.append(
            f"predicts {errors.size} held-out cases within {median:.0%} (median), {most:.0%} (9 of 10)"
        )
    return lines


def _check_folder(world: Any) -> None:
    """Find out before a minute of measuring whether its result can be kept."""
    with world.agreeing(), _storing():
        if world.rank == 0:
            folder = tuning.folder()
            folder.mkdir(parents=True, exist_ok=True)
            try_writing(folder)


def _store(world: Any, table: tuning.Table) -> None:
    with world.agreeing(), _storing():
        if world.rank == 0:
            _say(world, "stored", str(tuning.save(table)))


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LauncherError(
            f"cannot store a table in {tuning.folder()}: {error.strerror}; "
            "name a folder that can be written to in LEPTON_TUNING"
        ) from None


def _say(world: Any, title: str, text: str) -> None:
    if world.rank == 0:
        print(f"{title:<9} {text}", flush=True)
