"""Plain processes as ranks of torch.distributed over gloo. Runs where there is torch and need not be MPI."""

import multiprocessing
import tempfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from lepton_mpi.starting.parents import end_with_parent


def run_on_ranks(
    ranks: int, threads: int, function: Callable[[int, Any], None], options: Any
) -> int:
    """Call ``function(rank, options)`` in ``ranks`` processes; returns the worst of their exit codes.

    With one rank there is no process group. ``function`` must be importable.
    """
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        shared = ranks, threads, function, options, f"{folder}/meeting"
        processes = [
            spawn.Process(target=_run_rank, args=(rank, *shared), daemon=True)
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    return max(abs(process.exitcode or 0) for process in processes)


def _run_rank(
    rank: int,
    ranks: int,
    threads: int,
    function: Callable[[int, Any], None],
    options: Any,
    meeting_file: str,
) -> None:
    """One rank's whole life."""
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid
    end_with_parent(parent.pid)()
    torch.set_num_threads(threads)
    if ranks > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting_file}",
            rank=rank,
            world_size=ranks,
            # Ranks that compile a model wait for each other.
            timeout=timedelta(minutes=30),
        )
    function(rank, options)
    if ranks > 1:
        dist.destroy_process_group()
