r"""What every rank of ``benchmarks/update.py`` does: ``mpirun -n 2 python -m benchmarks.engines.update --cases …``.

A case is PARAMETERS:OPTIMIZER:WAY:FORM[:GIVE_UP_US]. Which MPI library it is and how it is tuned is up to whoever starts it.

    write gradient | barrier | began step ended | barrier | write gradient | barrier | began step ended | …
    rank 0                     *---------------*
    rank 1                        *----------*
                                  <------------>  time of a step

- Time: from the moment when the last rank begins, and so every gradient is complete, to the moment when the last
  one ends, and so every rank may read the parameters. The ranks of a host read one clock.
- After it all ranks meet, by a barrier that gives the cores away: where there are more ranks than cores, whoever ended first
  would go on to write its next gradient while the others, whose sum is complete, wait for a core in order to end.
- Every step has a new gradient, written by its rank just before, as in a training. A step is timed alone: of several
  back to back all but the first would find the gradients of the others in their caches.
- 10 steps come first, 2 of those that take longer than the time to measure; or as many as a way takes to settle.
- All parameters are compared with the reference after these and at the end, on every rank.
"""

import argparse
import gc
from dataclasses import dataclass
from math import inf
from time import perf_counter

from benchmarks.harness import constant_of
from lepton_mpi import launcher


@dataclass(frozen=True)
class Case:
    """What to measure, and from how many seconds a step on it is of no interest."""

    parameters: int
    optimizer: str
    way: str
    form: str
    give_up_seconds: float = inf

    def __str__(self) -> str:
        text = f"{self.parameters}:{self.optimizer}:{self.way}:{self.form}"
        return text if self.give_up_seconds == inf else f"{text}:{self.give_up_seconds * 1e6:.3f}"

    @classmethod
    def parse(cls, text: str) -> "Case":
        """The case that ``str`` wrote.

        >>> str(Case.parse("1000:adam:allreduce:whole:2500"))
        '1000:adam:allreduce:whole:2500.000'
        """
        parameters, *names, give_up_us = (*text.split(":"), "inf")[:5]
        return cls(int(parameters), *names, float(give_up_us) * 1e-6)


WARM_UP_STEPS, WARM_UP_STEPS_SLOW = 10, 2
_STEPS_MIN, _STEPS_MIN_SLOW, _STEPS_MAX = 5, 3, 400
# A library's first calls on a communicator have no part in any case.
_FIRST_CALLS = 10
CONSTANTS = (
    *("LONG_BLOCK_BYTES", "SHORT_BLOCK_BYTES", "LARGE_SHORT_BLOCK_BYTES"),
    *("LARGE_BYTES", "PIECE_BYTES_MIN", "PIECE_BYTES_MAX"),
)


def main() -> int:
    """Measure the cases of the command line; rank 0 writes the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", nargs="+", type=Case.parse, required=True)
    parser.add_argument("--bucket-bytes", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--timeout", type=float, default=300)
    parser.add_argument(
        "--constants",
        nargs="+",
        type=constant_of(CONSTANTS),
        default=[],
        metavar="NAME=BYTES",
        help=f"other values of constants of shared_parameters.py: {', '.join(CONSTANTS)}",
    )
    parser.add_argument("--limit", action="store_true", help="measure what memory allows, too")
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    launcher.limit_threads(1)
    # NumPy and Numba read their number of threads when they are loaded.
    from lepton_mpi.world import world

    return world.run(lambda ranks: measure_cases(ranks, options), options.timeout)


def measure_cases(world, options: argparse.Namespace) -> None:
    """Measure each case and write its row at once. Collective over ``world``.

    A case that was given up has no row.
    """
    from lepton_mpi.strategies import shared_parameters

    for name, byte_count in options.constants:
        setattr(shared_parameters, name, byte_count)
    from benchmarks.engines.update_ways import DTYPE
    from benchmarks.harness import write_rows
    from benchmarks.limit import MemoryLimit
    from lepton_mpi.errors import LauncherError

    several = LauncherError(f"expected one host, got {world.host_count}")
    world.agree(several if world.host_count > 1 else None)
    _first_calls(world)
    limit = MemoryLimit(world, DTYPE) if options.limit else None
    rows = []
    for case in options.cases:
        row = measure_case(world, case, options.bucket_bytes, options.seconds, limit)
        if row and world.rank == 0:
            rows.append(row)
            write_rows(options.json, rows)


def measure_case(world, case: Case, bucket_bytes: int, seconds: float, limit=None) -> dict | None:
    """The row of a case, None if it was given up. Collective over ``world``."""
    from benchmarks.engines.update_reference import Reference
    from benchmarks.engines.update_ways import DTYPE, WAYS, Problem
    from lepton_mpi.optimizers.registry import rule_of
    from lepton_mpi.optimizers.settings import Settings
    from lepton_mpi.world.mpi import mpi_library

    byte_count, states = (
        case.parameters * DTYPE.itemsize,
        len(rule_of(Settings(case.optimizer, float)).state),
    )
    problem = Problem(case.parameters, case.optimizer, bucket_bytes // DTYPE.itemsize)
    world.clock.enter("compute", 0)
    limit_us = limit.update_seconds(byte_count, states) * 1e6 if limit else None
    gc.collect()  # the vectors of the case before
    way = WAYS[case.way, case.form](world, problem)
    reference = Reference(case.optimizer, world.rank, world.size)
    timing = measure(world, way, reference, seconds, case.give_up_seconds)
    if timing is None:
        return None
    return {
        "way": case.way,
        "form": case.form,
        "optimizer": case.optimizer,
        "states": states,
        "ranks": world.size,
        "hosts": world.host_count,
        "parameters": case.parameters,
        "bytes": byte_count,
        "bucket_bytes": bucket_bytes,
        "dtype": DTYPE.name,
        "version": mpi_library(),
        "limit_us": limit_us,
        **vars(timing),
    }


def measure(world, way, reference, seconds: float, give_up_seconds: float = inf):
    """``timing.Timing`` of ``way``, None if it was given up. Collective over ``world``."""
    import numpy as np

    from lepton_mpi.collectives.choosing.timing import Timing
    from lepton_mpi.collectives.messages.mpi import MpiRanks
    from lepton_mpi.collectives.within_host.plans import HostBarrier

    ranks, meeting = MpiRanks(world.comm), HostBarrier(world)

    def run_steps(count: int) -> np.ndarray:
        """Seconds of each of ``count`` steps."""
        began, ended = np.empty((2, count))
        for number in range(count):
            reference.advance(way.gradient)
            world.clock.enter("compute", reference.step)
            meeting.run()
            began[number] = perf_counter()
            way.step(reference.step, reference.row_count)
            ended[number] = perf_counter()
            meeting.run()
        return ranks.maximum(ended) - ranks.maximum(began)

    def wrong() -> int:
        """Also the barrier that keeps shared parameters as they are until all ranks have counted."""
        counted = np.array([reference.count_wrong(way.parameters)], np.float64)
        return int(ranks.maximum(counted)[0])

    warm = float(run_steps(WARM_UP_STEPS_SLOW)[-1])
    if warm > give_up_seconds:
        return None
    more = max(WARM_UP_STEPS if warm < seconds else 0, way.steps_to_settle) - WARM_UP_STEPS_SLOW
    if more > 0:
        warm = float(np.median(run_steps(more)))
    wrong_elements = wrong()
    least = _STEPS_MIN if warm < seconds else _STEPS_MIN_SLOW
    us = run_steps(int(np.clip(seconds / warm, least, _STEPS_MAX))) * 1e6
    wrong_elements = max(wrong_elements, wrong())
    p99 = float(np.percentile(us, 99))
    return Timing(float(us.min()), float(np.median(us)), p99, wrong_elements)


def _first_calls(world) -> None:
    import numpy as np

    from lepton_mpi.world.mpi import MPI

    comm, n = world.collective_comm, world.size
    whole, own = np.zeros(n, np.float32), np.zeros(1, np.float32)
    for _ in range(_FIRST_CALLS):
        comm.Allreduce(MPI.IN_PLACE, whole)
        comm.Reduce_scatter(whole, own, [1] * n)
        comm.Reduce_scatter_block(whole, own)
        comm.Allgather(MPI.IN_PLACE, whole)
        comm.Allgatherv(MPI.IN_PLACE, [whole, [1] * n])


if __name__ == "__main__":
    raise SystemExit(main())
