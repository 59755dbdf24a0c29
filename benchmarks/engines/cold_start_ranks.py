"""A default run that tells which kernels its ranks have compiled: ``mpirun -n 8 python -m benchmarks.engines.cold_start_ranks FILE``."""

import json
import resource
import sys
from pathlib import Path
from typing import Any

from lepton_mpi import QuietHook, fit


class _Told(QuietHook):
    """Writes what the ranks have done, on rank 0."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def at_end(self, run: Any) -> None:
        from lepton_mpi.kernels.compiling import MADE

        compiled = [
            (made.kernel.__module__, made.kernel.__name__, str(made.signature), made.cpu_seconds)
            for made in MADE
            if made.is_compiled
        ]
        usage = resource.getrusage(resource.RUSAGE_SELF)
        told = run.world.comm.gather((compiled, usage.ru_utime + usage.ru_stime))
        if run.world.rank == 0:
            facts = {
                "compiled": [each for of_rank, _ in told for each in of_rank],
                "cpu_seconds": sum(seconds for _, seconds in told),
                "weights": run.layout.digest(run.strategy.consensus()),
            }
            self._path.write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    fit(hooks=[_Told(Path(sys.argv[1]))])
