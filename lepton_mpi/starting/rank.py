"""A rank that ``launch`` has started: ``python -m lepton_mpi.starting.rank FOLDER``."""

import os
import select
import sys
import threading
from pathlib import Path
from typing import NoReturn

from lepton_mpi import launcher
from lepton_mpi.errors import LeptonError, RankError
from lepton_mpi.starting import task


def main(folder: Path) -> None:
    """Call the function of the folder. Collective over the job, as far as the function is."""
    launcher.die_with_launcher()
    rank = launcher.launched_rank()
    try:
        caller, function, args, kwargs = task.read_task(folder)
        _end_with_caller(caller)
        task.write_pid(folder, rank)
        from lepton_mpi.world.mpi import check_launcher

        check_launcher()
        result = function(*args, **kwargs)
        if rank == 0:
            task.write_result(folder, result)
    except SystemExit as error:
        if error.code in (None, 0):
            error = SystemExit("sys.exit() in place of a result")
        _fail(folder, rank, error)
    except BaseException as error:
        _fail(folder, rank, error)
    task.write_done(folder, rank)


def _fail(folder: Path, rank: int, error: BaseException) -> NoReturn:
    """Leave the error and end all ranks: they would wait for this one."""
    code = RankError.exit_code
    try:
        code = task.write_error(folder, rank, error)
    except OSError:
        print(f"lepton_mpi: rank {rank}: {error}", file=sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.COMM_WORLD.Abort(code)
    os._exit(code)


def _end_with_caller(process_id: int) -> None:
    """End the job when the caller ends, however it does: a launcher goes on without it."""
    if not hasattr(os, "pidfd_open"):
        return
    try:
        caller = os.pidfd_open(process_id)
    except ProcessLookupError:
        os._exit(LeptonError.exit_code)

    def wait() -> None:
        select.select([caller], [], [])
        os._exit(LeptonError.exit_code)  # the launcher ends the other ranks

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
