"""lepton_mpi's own table, on the ranks that run: one line per size, mode and algorithm."""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import numpy as np

from benchmarks.collective_rows import COLUMNS, allreduce_row, cells
from benchmarks.harness import Row, machine, print_header, print_row, print_titles, write_rows
from benchmarks.limit import MemoryLimit
from lepton_mpi.collectives.allreduce import SHARING
from lepton_mpi.collectives.choosing.measuring import plan_on_zeros
from lepton_mpi.collectives.choosing.timing import Call, measure
from lepton_mpi.collectives.messages.mpi import MpiRanks
from lepton_mpi.collectives.within_host import plan_words, plans
from lepton_mpi.errors import RankError
from lepton_mpi.world.world import World


def print_table(world: World, options: argparse.Namespace) -> None:
    """Measure and print, with ``options`` as in ``allreduce.py``; RankError on wrong sums.

    Collective over ``world``.
    """
    for name, byte_count in options.constants:
        setattr(plan_words if hasattr(plan_words, name) else plans, name, byte_count)
    facts = {
        **machine(),
        **dict(options.constants),
        "ranks": world.size,
        "hosts": world.host_count,
        "version": world.mpi,
    }
    if world.rank == 0:
        print_header("allreduce by lepton_mpi: time in us, bandwidth in GB/s (1e9 bytes)", facts)
        print_titles(COLUMNS)
    rows: list[Row] = []
    for row in measured_rows(world, options):
        rows.append({**facts, **row})
        if world.rank == 0:
            print_row(COLUMNS, cells(row))
            if options.json:
                write_rows(options.json, rows)
    wrong = sum(row["wrong"] for row in rows)
    world.agree(RankError(f"{wrong} wrong elements; see the table") if wrong else None)


def measured_rows(world: World, options: argparse.Namespace) -> Iterator[Row]:
    """One row per size, mode, form and algorithm, as soon as it is measured. Collective over ``world``."""
    dtype = np.dtype(options.dtype)
    # Between hosts the wire is the limit, and that is another benchmark's subject.
    limit = MemoryLimit(world, dtype) if world.host_count == 1 else None
    ranks = MpiRanks(world.comm)
    ways = [
        (mode, form, name)
        for mode in options.modes
        for form in (options.forms if mode == "shared" else ["in_place"])
        for name in options.algorithms
        if mode != "shared" or name in SHARING
    ]
    for case, (size, (mode, form, name)) in enumerate(product(options.sizes, ways)):
        world.clock.enter("compute", case)
        limit_us = limit.seconds(size, mode) * 1e6 if limit else None
        in_place = form == "in_place"
        plan = plan_on_zeros(world, size // dtype.itemsize, dtype, mode, name, in_place)
        run = plan.run
        if in_place and mode == "shared":
            # What its users cannot leave out counts.
            run = partial(_run_and_release, plan.run, plan.release)
        timing = measure(ranks, Call(plan.input, run, plan.result), options.seconds)
        yield allreduce_row(
            bytes=plan.input.nbytes,
            count=plan.input.size,
            dtype=dtype.name,
            library="lepton_mpi",
            algorithm=name,
            chosen=plan.algorithm,
            mode=mode,
            form=form,
            tuned=False,
            ranks=world.size,
            hosts=world.host_count,
            limit_us=limit_us,
            **vars(timing),
        )


def _run_and_release(run: Callable[[], None], release: Callable[[], None]) -> None:
    run()
    release()
