"""Plain processes as ranks, for peers that need no messages: they wait for each other, and tell each other numbers."""

import multiprocessing
import pickle
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from lepton_mpi.starting.parents import end_with_parent

_BARRIER_SECONDS = 300


class PlainRanks:
    """One process's place among ``size``; values go through files of ``folder``."""

    def __init__(self, rank: int, size: int, meeting: Barrier, folder: Path) -> None:
        self.rank, self.size = rank, size
        self._meeting, self._folder, self._calls = meeting, folder, 0

    def barrier(self) -> None:
        """Wait for all."""
        self._meeting.wait(_BARRIER_SECONDS)

    def allgather(self, value: Any) -> list:
        """Everybody's value, by rank. Collective."""
        self._calls += 1
        names = [self._folder / f"{self._calls}-{rank}" for rank in range(self.size)]
        names[self.rank].write_bytes(pickle.dumps(value))
        self.barrier()
        values = [pickle.loads(name.read_bytes()) for name in names]
        self.barrier()
        names[self.rank].unlink()
        return values


def run_on_plain_ranks(size: int, function: Callable[[PlainRanks, Any], None], options: Any) -> int:
    """Call ``function(ranks, options)`` in ``size`` processes; returns the worst of their exit codes.

    One that fails ends the others. ``function`` must be importable. The processes may have children of their own.
    """
    spawn = multiprocessing.get_context("spawn")
    meeting = spawn.Barrier(size)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            spawn.Process(target=_run, args=(rank, size, meeting, folder, function, options))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        running = {process.sentinel: process for process in processes}
        while running:
            ended = [running.pop(sentinel) for sentinel in wait(running)]
            if any(process.exitcode for process in ended):
                for process in running.values():
                    process.terminate()
    return max(abs(process.exitcode or 0) for process in processes)


def _run(rank: int, size: int, meeting: Barrier, folder: str, function, options) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid
    end_with_parent(parent.pid)()
    try:
        function(PlainRanks(rank, size, meeting, Path(folder)), options)
    except Exception as error:
        # In one line: it becomes the reason why the peer has no row.
        print(f"rank {rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error
