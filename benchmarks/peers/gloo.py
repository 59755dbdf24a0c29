"""torch.distributed's gloo, started by plain processes: ``python -m benchmarks.peers.gloo --ranks 4 --cases …``.

Runs in an environment that has torch and need not have MPI.
"""

import argparse

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.peers.cases import measure_cases, parse_arguments
from benchmarks.peers.torch_ranks import run_on_ranks
from lepton_mpi.collectives.choosing.timing import Call


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


def measure(rank: int, arguments: argparse.Namespace) -> None:
    """What every rank does."""
    measure_cases(arguments, GlooRanks(), in_place, f"torch {torch.__version__}")


if __name__ == "__main__":
    given = parse_arguments("--ranks")
    raise SystemExit(run_on_ranks(given.ranks, 1, measure, given))
