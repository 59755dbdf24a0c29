"""Files that MPI libraries of dead jobs have left on this machine: a launcher that gets SIGKILL cannot remove them.

    /dev/shm                   shared memory of ranks: nobody maps it any more
    the temporary folder       Open MPI's folders ompi.PID, of launchers: no process has that number any more
                               MPICH's files hydra_hwloc_xmlfile_…, of launchers: all that live began later

Of this user alone, at least a minute old, since a job that begins may not have mapped its files yet, and of this host by the name in them, or in
their names, where there is one. Containers may share both folders, and processes outside a container cannot be seen from within: there
what belongs to processes stays, and so do files without a host's name, and all files where the container has the machine's name.

``World`` removes them when ranks begin, which is behind MPI's own start: where ``/dev/shm`` is so full that MPI cannot start, ``doctor
--remove-leftovers`` does it without MPI. Nobody does it between two jobs.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lepton_mpi.processes import look_at, seconds_since

_YOUNG_SECONDS = 60.0
# Names that MPI libraries and their transports give; the first ones have the host's behind a dot.
_OF_HOST = re.compile(r"(sm_segment|vader_segment|osc_rdma)\.(.*)")
_WITHOUT_HOST = re.compile(r"(mpich_|Intel_MPI|psm\d?_shm|ucx_shm)")
_SESSION = re.compile(r"ompi\.(\d+)")
_TOPOLOGY = re.compile(r"hydra_hwloc_xmlfile_\w{6}")
# Beginnings of names of the processes that make the latter, as /proc/PID/comm has them.
_HYDRA = ("hydra_", "mpiexec")
_TOPOLOGY_BYTES_MAX = 16 << 20
# The namespaces that a machine begins with, as /proc/self/ns has them: of process numbers, and of the host's name.
_FIRST = {"pid": "pid:[4026531836]", "uts": "uts:[4026531838]"}


def shared_files(root: Path = Path("/")) -> list[Path]:
    """Those in ``/dev/shm``; ``root`` is where proc and dev are, another one is for tests."""
    sees_all = _namespace(root / "proc", "pid") == _FIRST["pid"]
    has_name = sees_all or _namespace(root / "proc", "uts") not in ("", _FIRST["uts"])
    found = [
        path
        for path in _mine_and_old(root / "dev/shm")
        if (has_name and _is_of_host(path.name)) or (sees_all and _WITHOUT_HOST.match(path.name))
    ]
    if not found:
        return []
    used = _mapped(root / "proc")
    return sorted(path for path in found if _identity(path) not in used)


def session_folders(folder: Path, processes: Path = Path("/proc")) -> list[Path]:
    """Those of launchers in ``folder``."""
    found = [
        path
        for path in _mine_and_old(folder)
        if _SESSION.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        if any(path.glob(f"pmix.{_host()}.*"))
    ]
    if not found or _namespace(processes, "pid") != _FIRST["pid"]:
        return []
    used = _numbers(processes)
    return sorted(path for path in found if path.name.removeprefix("ompi.") not in used)


def topology_files(folder: Path, processes: Path = Path("/proc")) -> list[Path]:
    """Those of MPICH's launchers in ``folder``, whose ranks read them as they begin."""
    found = [
        path
        for path in _mine_and_old(folder)
        if _TOPOLOGY.fullmatch(path.name) and path.is_file() and not path.is_symlink()
        if _has_own_topology(path)
    ]
    if not found or _namespace(processes, "pid") != _FIRST["pid"]:
        return []
    oldest = max((_age(entry, processes) for entry in _launchers(processes)), default=0.0)
    return sorted(path for path in found if time.time() - path.lstat().st_mtime > oldest + 1)


def remove() -> None:
    """All of them; what cannot be removed stays. Where there is nothing it lists the two folders."""
    for path in shared_files():
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):  # no temporary folder
        temporary = Path(tempfile.gettempdir())
        for path in session_folders(temporary):
            shutil.rmtree(path, ignore_errors=True)
        for path in topology_files(temporary):
            with suppress(OSError):
                path.unlink()


def _mine_and_old(folder: Path) -> Iterator[Path]:
    now = time.time()
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                state = path.lstat()
                if state.st_uid == os.geteuid() and now - state.st_mtime > _YOUNG_SECONDS:
                    yield path


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _is_of_host(name: str) -> bool:
    """Whether the host's name in the name of a file is this one's, with its domain or without."""
    found = _OF_HOST.fullmatch(name)
    return found is not None and found[2].startswith(f"{_host()}.")


def _has_own_topology(path: Path) -> bool:
    """Whether hwloc has written it on this host."""
    with suppress(OSError):
        text = path.read_bytes()[:_TOPOLOGY_BYTES_MAX].decode(errors="replace")
        found = re.search(r'name="HostName" value="([^"]*)"', text)
        return found is not None and found[1].partition(".")[0] == _host()
    return False


def _launchers(processes: Path) -> Iterator[Path]:
    for entry in _entries(processes):
        with suppress(OSError):
            if (entry / "comm").read_text(errors="replace").startswith(_HYDRA):
                yield entry


def _age(entry: Path, processes: Path) -> float:
    """Of a process, in seconds; as old as can be where Linux does not say it."""
    found = look_at(entry.name, processes)
    return seconds_since(found.began) if found else math.inf


def _namespace(processes: Path, kind: str) -> str:
    """The one that this process is in; empty where Linux does not say it."""
    with suppress(OSError):
        return os.readlink(processes / "self/ns" / kind)
    return ""


def _mapped(processes: Path) -> set[tuple[int, int, int]]:
    """What files processes have in their memory, containers' among them, which may have other paths for the same files."""
    used = set()
    for entry in _entries(processes):
        with suppress(OSError):
            for line in (entry / "maps").read_text(errors="replace").splitlines():
                device, number = line.split()[3:5]
                major, minor = device.split(":")
                used.add((int(major, 16), int(minor, 16), int(number)))
    return used


def _identity(path: Path) -> tuple[int, int, int]:
    """As in ``_mapped``; of a file that has gone no file's."""
    with suppress(OSError):
        state = path.stat()
        return os.major(state.st_dev), os.minor(state.st_dev), state.st_ino
    return -1, -1, -1


def _numbers(processes: Path) -> set[str]:
    """Of all processes, those that containers have for theirs, too."""
    used = set()
    for entry in _entries(processes):
        used.add(entry.name)
        with suppress(OSError):
            found = re.search(r"^NSpid:(.*)$", (entry / "status").read_text(errors="replace"), re.M)
            used |= set(found[1].split()) if found else set()
    return used


def _entries(processes: Path) -> Iterator[Path]:
    return (entry for entry in processes.iterdir() if entry.name.isdigit())
