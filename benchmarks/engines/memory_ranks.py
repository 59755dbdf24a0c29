"""The memory of a run, as predicted before its first step and as Linux counts it: ``mpirun -n 2 python -m benchmarks.engines.memory_ranks …``.

The same model on next to nothing is trained first, so that libraries and kernels are loaded. What the process takes then is the
baseline, and the peak of its resident memory is counted anew (``/proc/self/clear_refs``).
"""

import ctypes
import gc
import tempfile
from pathlib import Path

from benchmarks.engines.cases import CASES, parser
from benchmarks.engines.lepton import train_case, write_case
from benchmarks.engines.networks import NETWORKS
from benchmarks.harness import write_rows
from lepton_mpi import QuietHook, launcher

_RESET_PEAK = "5"


class _Watch(QuietHook):
    """Keeps what was predicted, and looks at the peak, and at what the host shares, while there is a run."""

    def __init__(self) -> None:
        self.peak = self.shared = 0
        self.forecast = None

    def before_epoch(self, run) -> None:
        from lepton_mpi.run.memory_forecast import forecast

        self.forecast = forecast(run)

    def at_end(self, run) -> None:
        from lepton_mpi.world.memory import shared_bytes

        # Before the text of all mappings is read, which takes memory itself.
        self.peak = _status("VmHWM")
        # What one of n ranks has given back is counted as the other's.
        run.world.host_barrier()
        self.shared = sum(shared_bytes().values())
        run.world.host_barrier()


def main() -> int:
    """Train twice, and write a row of the second."""
    made = parser(with_networks=True)
    made.add_argument("--allreduce", default="auto")
    made.add_argument("--micro-rows", type=int, default=0)
    made.add_argument("--validation", type=float, default=0.0, help="share of the rows")
    options = made.parse_args()
    launcher.limit_threads(options.threads)
    from lepton_mpi.world import world

    return world.run(lambda ranks: _measure(ranks, options), 600)


def _measure(world, options) -> None:
    case = CASES.get(options.case) or NETWORKS[options.case]
    rows = options.rows_per_rank * world.size
    micro = options.micro_rows or options.rows_per_rank
    made = tempfile.TemporaryDirectory(prefix="lepton-memory-") if world.rank == 0 else None
    folder = Path(world.comm.bcast(made and made.name))
    more = {"validation_split": options.validation}
    path = write_case(world, folder / "bare.h5", case.bare, world.size * 16)
    train_case(world, options, case.bare, (world.size, 1), path, 1, [], more)
    path = write_case(world, folder / "rows.h5", case, rows * options.steps)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    before, watch = _status("VmRSS"), _Watch()
    train_case(world, options, case, (rows, micro), path, options.epochs, [watch], more)
    # The result's copy of the parameters comes last.
    peak = max(watch.peak, _status("VmHWM")) - before
    predicted = watch.forecast
    parts = world.comm.allgather((peak, peak - _mapped_of(watch, world), watch.shared))
    own = world.comm.allgather(sum(predicted.own.values()))
    if world.rank == 0:
        host = sum(alone + shared for _, alone, shared in parts)
        write_rows(
            options.json,
            [
                {
                    "model": options.case,
                    "ranks": world.size,
                    "rows_per_rank": options.rows_per_rank,
                    "micro_rows": micro,
                    "validation": options.validation,
                    "allreduce": options.allreduce,
                    "predicted": predicted.resident,
                    "measured": max(part[0] for part in parts),
                    "predicted_host": sum(own) + sum(predicted.shared.values()),
                    "measured_host": host,
                    "own": dict(predicted.own),
                    "shared": dict(predicted.shared),
                    "baseline": before,
                }
            ],
        )
        made.cleanup()


def _mapped_of(watch: _Watch, world) -> int:
    """Bytes of the host's memory in this rank's resident memory: each page of it counts in full."""
    return watch.shared * world.local_size


def _status(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(name)


if __name__ == "__main__":
    raise SystemExit(main())
