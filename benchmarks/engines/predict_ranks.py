"""One measurement of ``bench predict``, under mpirun: seconds and the largest rank's memory of reading a file, or of predicting its rows.

    mpirun -n 2 python -m benchmarks.engines.predict_ranks --what read|predict --checkpoint FILE --input FILE --out FILE --json FILE

``read`` is the reading alone: all blocks that ``predict`` reads, by the same ranks, and nothing done with them.
"""

import argparse
import hashlib
import resource
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import write_rows
from lepton_mpi.prediction import sources
from lepton_mpi.prediction.request import Request
from lepton_mpi.prediction.streaming import predict
from lepton_mpi.prediction.subject import open_subject
from lepton_mpi.prepare.passes import Blocks
from lepton_mpi.run.trained import find
from lepton_mpi.world.world import World, run


def main() -> int:
    """Measure; returns the exit code."""
    options = _parser().parse_args()
    work = _read if options.what == "read" else _predict
    return run(lambda world: _measured(work, options, world), 3600.0)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="benchmarks.engines.predict_ranks", description=__doc__)
    made.add_argument("--what", choices=["read", "predict"], required=True)
    for name in ("--checkpoint", "--input", "--out", "--json"):
        made.add_argument(name, required=True)
    return made


def _measured(work: Any, options: argparse.Namespace, world: World) -> None:
    world.comm.Barrier()
    began = time.perf_counter()
    work(options, world)
    world.comm.Barrier()
    seconds = time.perf_counter() - began
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peaks = world.comm.allgather(peak)
    if world.rank == 0:
        row = {"what": options.what, "ranks": world.size, "seconds": seconds, "peak": max(peaks)}
        if options.what == "predict":
            with Path(options.out).open("rb") as file:
                row["digest"] = hashlib.file_digest(
                    file, lambda: hashlib.blake2b(digest_size=16)
                ).hexdigest()
        write_rows(options.json, [row])


def _predict(options: argparse.Namespace, world: World) -> None:
    asked = Request(
        checkpoint=options.checkpoint, inputs=(options.input,), out=options.out, proba=True
    )
    predict(asked, world)


def _read(options: argparse.Namespace, world: World) -> None:
    subject = open_subject(find(Path(options.checkpoint), world), None, world, None)
    opened = sources.open_raw(subject, (options.input,), world)
    try:
        blocks = Blocks(opened.source, world, 0)
        rows = 0
        for first in range(0, blocks.count, world.size):
            world.clock.enter("evaluation", first)
            if first + world.rank < blocks.count:
                rows += len(blocks.read(first + world.rank).x)
            world.comm.Barrier()  # as the rounds of ``predict``
    finally:
        opened.source.close()


if __name__ == "__main__":
    raise SystemExit(main())
