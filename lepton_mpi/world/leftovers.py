"""Files that MPI libraries of dead jobs have left on this machine: a launcher that gets SIGKILL cannot remove them.

    /dev/shm                   shared memory of ranks: nobody maps it any more
    the temporary folder       Open MPI's folders ompi.PID, of launchers: no process has that number any more

Of this user alone, at least a minute old, since a job that begins may not have mapped its files yet; and of this host by the name in them
where there is one, since containers with processes of their own may share a folder.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_YOUNG_SECONDS = 60.0
# Names that MPI libraries and their transports give.
_SHARED = re.compile(r"(sm_segment|vader_segment|mpich_|Intel_MPI|psm\d?_shm|ucx_shm|osc_rdma)")
_SESSION = re.compile(r"ompi\.(\d+)")


def shared_files(root: Path = Path("/")) -> list[Path]:
    """Those in ``/dev/shm``; ``root`` is where proc and dev are, another one is for tests."""
    found = [path for path in _mine_and_old(root / "dev/shm") if _SHARED.match(path.name)]
    if not found:
        return []
    used = set()
    for entry in (root / "proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                used |= set(re.findall(r"/dev/shm/(\S+)", (entry / "maps").read_text()))
    return sorted(path for path in found if path.name not in used)


def session_folders(folder: Path, processes: Path = Path("/proc")) -> list[Path]:
    """Those of launchers in ``folder``."""
    host, found = socket.gethostname().partition(".")[0], []
    for path in _mine_and_old(folder):
        name = _SESSION.fullmatch(path.name)
        if name and path.is_dir() and not path.is_symlink():
            is_ours = any(path.glob(f"pmix.{host}.*"))
            if is_ours and not (processes / name[1]).exists():
                found.append(path)
    return sorted(found)


def remove() -> None:
    """All of them; what cannot be removed stays. Takes less than a millisecond where there is nothing."""
    for path in shared_files():
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):  # no temporary folder
        for path in session_folders(Path(tempfile.gettempdir())):
            shutil.rmtree(path, ignore_errors=True)


def _mine_and_old(folder: Path) -> Iterator[Path]:
    now = time.time()
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                state = path.lstat()
                if state.st_uid == os.geteuid() and now - state.st_mtime > _YOUNG_SECONDS:
                    yield path
