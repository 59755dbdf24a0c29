"""torch.distributed's gloo, started by plain processes: ``python -m benchmarks.peers.gloo --ranks 4 --cases …``.

Runs in an environment that has torch and need not have MPI.
"""

import argparse
import multiprocessing
import tempfile
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.harness import die_with_parent
from benchmarks.peers.cases import measure_cases, parse_arguments
from lepton_mpi.collectives.timing import Call


class GlooRanks:
    """See ``timing.Ranks``."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def barrier(self) -> None:
        dist.barrier()

    def maximum(self, values: np.ndarray) -> np.ndarray:
        result = torch.from_numpy(values.copy())
        dist.all_reduce(result, dist.ReduceOp.MAX)
        return result.numpy()


def in_place(form: str, vector: np.ndarray) -> Call:
    """The only form gloo has."""
    assert form == "in_place", form
    tensor = torch.from_numpy(vector)
    return Call(vector, lambda: dist.all_reduce(tensor), vector)


def run_rank(rank: int, arguments: argparse.Namespace, meeting_file: str) -> None:
    """One rank's whole life."""
    die_with_parent()
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting_file}",
        rank=rank,
        world_size=arguments.ranks,
        timeout=timedelta(seconds=120),
    )
    measure_cases(arguments, GlooRanks(), in_place, f"torch {torch.__version__}")
    dist.destroy_process_group()


def main() -> int:
    """Start the ranks; returns the worst of their exit codes."""
    arguments = parse_arguments("--ranks")
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            spawn.Process(target=run_rank, args=(rank, arguments, f"{folder}/meeting"), daemon=True)
            for rank in range(arguments.ranks)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
    return max(abs(process.exitcode or 0) for process in ranks)


if __name__ == "__main__":
    raise SystemExit(main())
