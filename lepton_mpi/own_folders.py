"""Folders of a process in the temporary folder. One that is killed cannot remove its own: the next one of the same user does.

    lepton_mpi-START-SPACE-PROCESS-BEGAN-…     start of the machine, and the process (``processes.py``): who can say that it has ended may remove it

Containers and hosts that share the folder have other process numbers, and other names: theirs stay.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lepton_mpi.processes import is_there, look_at, number_space, start_of_machine

_PROCESS = re.compile(r"(\d+)-(\d+)-\w+")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """One that nobody else can read, and that goes at the end of the block. Raises OSError where there can be none."""
    remove_left()
    with tempfile.TemporaryDirectory(prefix=_prefix(), ignore_cleanup_errors=True) as name:
        yield Path(name)


def remove_left() -> None:
    """Those of this user's processes that have ended without it; what cannot be removed stays."""
    if not (here := _here()):
        return
    with suppress(OSError):  # no temporary folder
        for path in Path(tempfile.gettempdir()).glob(f"{here}-*"):
            found = _PROCESS.fullmatch(path.name.removeprefix(f"{here}-"))
            with suppress(OSError):
                is_mine = path.lstat().st_uid == os.geteuid()
                if is_mine and found and not is_there(int(found[1]), int(found[2])):
                    shutil.rmtree(path, ignore_errors=True)


def _here() -> str:
    """Where process numbers mean the same; empty where Linux does not say it."""
    start, space = start_of_machine()[:8], re.sub(r"\D", "", number_space())
    return f"lepton_mpi-{start}-{space}" if start and space else ""


def _prefix() -> str:
    here, me = _here(), look_at("self")
    return f"{here}-{os.getpid()}-{me.began}-" if here and me else "lepton_mpi-"
