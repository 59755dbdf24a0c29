"""Kinds of end of a job, and what is seen of one: who is named, how long it takes, what is left. ``table_of_ends.py`` runs them all.

Each is a training on three ranks by ``./run_local.sh train``, as users start it. A model of its own does on rank 1, in its ninth call, what the
kind is about, or only says that it is there, and a signal comes from outside.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import psutil

from benchmarks.emulated_hosts import EmulatedHosts
from lepton_mpi.starting import foreground
from tests.faults.jobs import clean_environment

ROOT = Path(__file__).parents[2]
RANKS = 3
# In the environment of every process of a job.
_MARK = "LEPTON_ENDS"
_LAUNCHERS = ("prterun", "mpirun", "mpiexec.hydra", "mpiexec")
# Two micro-batches for each rank in a step.
_EQUAL = ("--global-batch", "192", "--micro-batch", "32")
# A job that has not ended by then is hung; processes that outlive it so long are left behind.
_LIMIT_SECONDS, _GRACE_SECONDS = 100.0, 10.0
_LOOK_SECONDS = 0.02
_GROUP_BYTES = 1 << 30

_MODEL = """
import ctypes, os, signal, sys, time
import numpy as np
from lepton_mpi.launcher import launched_rank


class Failing:
    reads_in_place = True

    def __init__(self, feature_shape, class_count):
        self.shapes = {{"weight": (int(np.prod(feature_shape)), class_count)}}
        self.calls = 0

    def loss_and_gradient(self, parameters, batch, gradient, sync):
        self.calls += 1
        if self.calls == 9 and ({everywhere} or launched_rank() == 1):
            with open("happened.txt", "a") as file:
                file.write(f"{{time.monotonic()}}\\n")
            {action}
        gradient["weight"][:] = 0
        return 0.0
"""


@dataclass(frozen=True)
class Kind:
    """One kind of end.

    Attributes
    ----------
    name, action : str
        What happens, for people and in Python.
    codes : set of int
        Exit codes that are promised.
    says : str
        A pattern of what names the culprit.
    everywhere : bool
        Whether all ranks do it.
    options : tuple of str
        Of train.
    number, to : int, {"launcher", "script"}
        A signal from outside, and who gets it.
    fault : str
        A value of LEPTON_FAULT.
    epochs : int
        How long the training would be.
    around : tuple of str
        Words before the command.
    has_limit : bool
        Whether the job is in a control group with little memory.
    """

    name: str
    codes: set[int]
    says: str
    action: str = "pass"
    everywhere: bool = False
    options: tuple[str, ...] = ()
    number: int = 0
    to: str = ""
    fault: str = ""
    epochs: int = 100_000
    around: tuple[str, ...] = ()
    has_limit: bool = False


def _died(cause: str) -> str:
    return rf"lepton_mpi: rank 1 of 3 \(process \d+\) died: \w+ in step \d of \w+ for [\d.]+ s, {cause}"


_HUNG = r"lepton_mpi: rank 1 of 3 made no progress for 3 s"
_SHORT = ("--timeout", "3")
_BUS = "os.truncate('rows.h5', 8192); float(batch.x[batch.places].sum())"
_FORK = "os.fork() or (_ for _ in ()).throw(ValueError('in a child')); os.wait()"

KINDS = (
    Kind("a rank gets SIGKILL", {5}, _died("SIGKILL"), "os.kill(os.getpid(), signal.SIGKILL)"),
    Kind("a rank crashes (SIGSEGV)", {5}, _died("SIGSEGV"), "ctypes.string_at(0)"),
    Kind("a rank aborts (SIGABRT)", {5}, _died("SIGABRT"), "os.abort()"),
    Kind("a mapped file is cut in a batch (SIGBUS)", {3}, r"lepton_mpi: rank 1 of 3: \S*rows.h5: /?train/x: row \d+: the file",
         _BUS, options=("--data", "rows.h5", "--loader", "mapped")),
    Kind("out of memory in a control group", {5}, _died("SIGKILL, out of memory: the job's control group may take 1024 MiB"),
         "kept = [np.ones(1 << 24) for _ in range(64)]", has_limit=True),
    Kind("a rank is stopped (SIGSTOP)", {5}, _HUNG, "os.kill(os.getpid(), signal.SIGSTOP)", options=_SHORT),
    Kind("a rank loops", {5}, _HUNG, "while True: pass", options=_SHORT),
    Kind("a rank loops with the interpreter lock", {5}, _HUNG, "ctypes.PyDLL(None).sleep(1000)", options=_SHORT),
    Kind("all ranks are stopped", {5, 9, 137}, "", "os.kill(os.getpid(), signal.SIGSTOP)", True, _SHORT),
    Kind("a forked child raises", {0}, r"lepton_mpi: a process that a rank has forked failed, process \d+", _FORK, epochs=3),
    Kind("an exception on one rank", {5}, r"lepton_mpi: rank 1 of 3 failed: process \d+, compute in step \d.*\n(.*\n)*ValueError: on purpose",
         "raise ValueError('on purpose')"),
    Kind("an exception on all ranks", {5}, r"lepton_mpi: rank \d of 3 failed: process \d+, compute in step \d.*\n(.*\n)*ValueError: on purpose",
         "raise ValueError('on purpose')", True),
    Kind("sys.exit on one rank", {5}, r"lepton_mpi: rank 1 of 3 left by sys.exit\(7\)", "sys.exit(7)"),
    Kind("os._exit on one rank", {5}, _died("exit code 0"), "os._exit(0)"),
    Kind("the launcher gets SIGKILL", {137}, "", number=signal.SIGKILL, to="launcher"),
    Kind("the launcher gets SIGTERM", {1, 15, 75, 143}, "", number=signal.SIGTERM, to="launcher"),
    Kind("the script gets SIGTERM", {75}, r"lepton_mpi: \S+: stopped after step \d+", number=signal.SIGTERM, to="script"),
    Kind("Ctrl-C", {75}, r"lepton_mpi: \S+: stopped after step \d+", number=signal.SIGINT, to="script"),
    Kind("wrong options", {2}, r"--epochs.*'abc'|--epochs.*abc", options=("--epochs", "abc")),
    Kind("wrong data", {3}, r"lepton_mpi: \S*damaged.h5: ", options=("--data", "damaged.h5")),
    Kind("the disk is full", {4}, r"lepton_mpi: .*No space left on device", options=("--checkpoint", "saved"), fault="checkpoint.before_write:full", epochs=3),
    Kind("standard output is closed", {0, 4}, "", epochs=3, around=("sh", "-c", 'exec "$@" >&-', "sh")),
)  # fmt: skip


@dataclass
class Seen:
    """What was seen of an end.

    Attributes
    ----------
    seconds : float
        From what happened to the end of the last process.
    code : int
    is_named : bool
        Whether the culprit is.
    lines : list of str
        What was printed.
    processes, files : list of str
        What was left behind.
    stay : list of str
        Those of the files that the next start, more than a minute later, has not removed.
    """

    kind: Kind
    seconds: float = 0.0
    code: int = 0
    is_named: bool = False
    is_hung: bool = False
    lines: list[str] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    stay: list[str] = field(default_factory=list)

    def faults(self, lines_max: int = 12) -> list[str]:
        """What is not as promised."""
        found = ["hung"] if self.is_hung else []
        if self.code not in self.kind.codes:
            found.append(f"exit code {self.code}, expected {sorted(self.kind.codes)}")
        if not self.is_named:
            found.append(f"not named: {self.kind.says}")
        if len(self.lines) > lines_max:
            found.append(f"{len(self.lines)} lines")
        return found + [f"left: {what}" for what in self.processes + self.stay]


def see(kind: Kind, mpi: str, folder: Path) -> Seen:
    """Have a job end so, in a new ``folder``; whatever happens, nothing of it goes on running."""
    prepare(kind, folder)
    mark, shared = f"{os.getpid()}-{time.monotonic_ns()}", _shared()
    variables = clean_environment("LEPTON_", "VIRTUAL_ENV") | {
        _MARK: mark,
        "LEPTON_MPI": mpi,
        "LEPTON_RANKS": str(RANKS),
    }
    variables |= {"TMPDIR": str(folder / "tmp"), "LEPTON_FAULT": kind.fault}
    model = ("--model", f"{folder}/failing.py:Failing")
    words = [*kind.around, str(ROOT / "run_local.sh"), "train", *(() if kind.fault else model)]
    words += ["--progress", "none", "--epochs", str(kind.epochs), *_EQUAL, *kind.options]
    with _memory_limit(kind.has_limit) as group, (folder / "said.txt").open("w") as said:
        job = subprocess.Popen(
            [*group, *words], cwd=folder, env=variables, stdin=subprocess.DEVNULL,
            stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            seen = _wait(kind, job, mark, folder)
        finally:
            for process in _living(mark):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            job.wait()
    text = (folder / "said.txt").read_text(errors="replace")
    seen.lines = [line for line in text.splitlines() if line.strip()]
    seen.is_named = bool(re.search(kind.says, text))
    seen.files = _left(shared, folder)
    if seen.files:
        _start_again(variables, folder)
        seen.stay = [path for path in seen.files if os.path.lexists(path)]
    return seen


def _left(shared: set[str], folder: Path) -> list[str]:
    """Files that were not there before, but for the user's folder of locks of kernels, which all jobs share."""
    found = [path for path in _shared() - shared if not _is_mapped(path)]
    found += map(str, (folder / "tmp").rglob("*"))
    return sorted(path for path in found if "/lepton_mpi-kernels-" not in path)


def _start_again(variables: dict[str, str], folder: Path) -> None:
    """The next job of the same user, as if a minute had passed."""
    before = time.time() - 100
    for path in [*map(Path, _shared()), *(folder / "tmp").rglob("*")]:
        if not _is_mapped(str(path)):
            os.utime(path, (before, before))
    words = [str(ROOT / "run_local.sh"), "train", "--epochs", "1", "--progress", "none"]
    variables = variables | {"LEPTON_FAULT": "", "LEPTON_RANKS": "2"}
    subprocess.run(
        words, cwd=folder, env=variables, stdout=subprocess.DEVNULL, timeout=_LIMIT_SECONDS
    )


LOST_HOST = Kind(
    "a host of 3 loses its network",
    set(range(1, 256)),
    r"lepton_mpi: host \S+ \(ranks 4, 5 of 6\) cannot be reached from \S+ for 6 s \(--peer-timeout\)",
)


def see_lost_host(folder: Path) -> Seen:
    """Three emulated hosts with two ranks each, of which the last one's link goes down; as root, with Open MPI. Raises HostsUnavailableError.

    ``seconds`` are those behind the limit of 6 s.
    """
    prepare(LOST_HOST, folder)
    metrics, said, shared = folder / "m.jsonl", folder / "said.txt", _shared()
    words = ("-m", "lepton_mpi.train", "--progress", "none", "--epochs", "100000")
    words += ("--peer-timeout", "6", "--metrics", str(metrics))
    with EmulatedHosts([2, 2, 2], "1gbit") as hosts, said.open("w") as out:
        command = hosts.mpirun([sys.executable, *words])
        command = [sys.executable, "-I", "-S", foreground.__file__, *command]
        job = hosts.start(command, stdout=out, stderr=out, cwd=ROOT)
        _until(lambda: metrics.exists() and metrics.read_text().count("\n") > 1, 60)
        hosts.cut_network(2)
        began = time.monotonic()
        _until(lambda: not hosts.processes(), 40)
        seconds, left = time.monotonic() - began, [*map(str, hosts.processes())]
        code = job.wait(10)
    text = said.read_text(errors="replace")
    lines = [line for line in text.splitlines() if line.strip("\0 ")]
    named = bool(re.search(LOST_HOST.says, text))
    files = _left(shared, folder)
    return Seen(LOST_HOST, seconds - 6, code, named, False, lines, left, files, files)


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


def _wait(kind: Kind, job: subprocess.Popen, mark: str, folder: Path) -> Seen:
    """Until the last process has gone; send the signal of the kind meanwhile."""
    happened, began, ended = folder / "happened.txt", time.monotonic(), 0.0
    began_at = began
    is_sent = not kind.number
    while (living := _living(mark)) or job.poll() is None:
        now = time.monotonic()
        if not is_sent and happened.exists():
            is_sent = True
            time.sleep(0.2)
            began_at = time.monotonic()
            os.kill(job.pid if kind.to == "script" else _launcher(job), kind.number)
        if job.poll() is not None and not ended:
            ended = now
        if now - began > _LIMIT_SECONDS or (ended and now - ended > _GRACE_SECONDS):
            break
        time.sleep(_LOOK_SECONDS)
    gone = time.monotonic()
    if not kind.number and happened.exists():
        began_at = float(happened.read_text().split()[0])
    is_hung = job.poll() is None
    code = -1 if is_hung else job.wait()
    names = [name for process in living if (name := _name(process))]
    return Seen(
        kind, gone - began_at, 128 - code if code < 0 else code, is_hung=is_hung, processes=names
    )


def prepare(kind: Kind, folder: Path) -> None:
    """The files of a job."""
    (folder / "tmp").mkdir(parents=True)
    (folder / "failing.py").write_text(
        _MODEL.format(action=kind.action, everywhere=kind.everywhere)
    )
    if "rows.h5" in kind.options:
        draw = np.random.default_rng(0)
        with h5py.File(folder / "rows.h5", "w") as file:
            for split, count in (("train", 20_000), ("validation", 1_000)):
                file[f"{split}/x"] = draw.standard_normal((count, 64)).astype(np.float32)
                file[f"{split}/y"] = draw.integers(0, 4, count).astype(np.int32)
    (folder / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"?" * 500)


@contextmanager
def _memory_limit(is_wanted: bool):
    """Words before a command that put it into a control group of its own, inside of this process's."""
    if not is_wanted:
        yield []
        return
    place = group_folder()
    assert place is not None
    place.mkdir()
    try:
        (place / "memory.limit_in_bytes").write_text(str(_GROUP_BYTES))
        yield ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(place / "cgroup.procs")]
    finally:
        for _ in range(100):
            with suppress(OSError):
                place.rmdir()
                break
            time.sleep(0.05)


def group_folder() -> Path | None:
    """Where a control group with a limit of memory can be made (version 1, as root); None if nowhere."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        own = Path("/sys/fs/cgroup/memory", path.strip("/"))
        if "memory" in kinds.split(",") and os.access(own / "cgroup.procs", os.W_OK):
            return own / f"lepton-ends-{os.getpid()}"
    return None


def _launcher(job: subprocess.Popen) -> int:
    children = psutil.Process(job.pid).children(recursive=True)
    names = {process.pid: process.name() for process in [psutil.Process(job.pid), *children]}
    return next(pid for pid, name in names.items() if name in _LAUNCHERS)


def _living(mark: str) -> list[int]:
    """Processes of a job; one that has ended, and waits for its parent to look, has no environment."""
    wanted, found = f"{_MARK}={mark}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def _name(process: int) -> str:
    with suppress(OSError):
        return f"process {Path(f'/proc/{process}/comm').read_text().strip()}"
    return ""


def _shared() -> set[str]:
    return {str(path) for path in Path("/dev/shm").iterdir()}


def _is_mapped(path: str) -> bool:
    """By another job on the machine."""
    for place in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if path in place.read_text(errors="replace"):
                return True
    return False


def by_name(pattern: str) -> list[Kind]:
    """Kinds whose names match, and that can be had on this machine."""
    can_limit = group_folder() is not None
    named = [kind for kind in KINDS if re.search(pattern, kind.name)]
    return [kind for kind in named if can_limit or not kind.has_limit]
