"""The environments that peers run in, and the command that starts a peer of an allreduce."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT, Launch, mpi_command, run
from benchmarks.peers import Variant, variants

SET_UP_LIMIT_SECONDS = 1800.0


@dataclass(frozen=True)
class Environment:
    """A folder of Python packages, which pip fills once; ``marker`` is the file that then says so."""

    folder: Path
    packages: tuple[str, ...]
    marker: str = ".complete"

    @property
    def python(self) -> str:
        """What runs programs in it."""
        return str(self.folder / "bin" / "python")


# One each, so that what cannot be installed takes no other with it.
TORCH = Environment(ROOT / ".venv-peers", ("numpy", "torch==2.13.0"))
# The same folder, since torch is large, and a marker of its own, since it may have been filled before.
TORCH_WITH_HDF5 = Environment(TORCH.folder, (*TORCH.packages, "h5py==3.16.0"), ".complete-h5py")
# TensorFlow asks for any Keras from 3.12 on, which would be another one every month.
KERAS = Environment(ROOT / ".venv-keras", ("tensorflow-cpu==2.21.0", "keras==3.15.1"))
SKLEARN = Environment(ROOT / ".venv-sklearn", ("scikit-learn==1.9.1",))


def peer_launch(
    variant: Variant, ranks: int, cases: Sequence[str], *options: str, limit_seconds: float
) -> Launch:
    """Launch of a peer's program for ``cases``, as ``peers/cases.py`` tells them."""
    arguments = (*options, "--cases", *cases)
    if variant.library == "gloo":
        command = (TORCH.python, "-m", "benchmarks.peers.gloo", "--ranks", str(ranks), *arguments)
    else:
        command = mpi_command(ranks, "-m", "benchmarks.peers.mpi", *arguments)
    label = f"{variant.library} {variant.tuning}"
    return Launch(label, command, variant.environment, limit_seconds)


def set_up(library: str) -> str | None:
    """Make the environment of an allreduce's peer if need be, and try it out.

    Returns its version, or None after printing why it has to be left out.
    """
    default = variants(library, ranks=2, cores=2)[0]
    trial = peer_launch(
        default, 2, ["8:in_place"], "--seconds", "0.01", limit_seconds=SET_UP_LIMIT_SECONDS
    )
    return try_out(library, TORCH if library == "gloo" else None, trial)


def try_out(name: str, environment: Environment | None, trial: Launch) -> str | None:
    """Install ``environment``, if there is one to be installed, and run ``trial`` in it.

    Returns the ``version`` in the trial's first row, or None after printing why ``name`` has to be left out.
    """
    if environment and (problem := install(environment)):
        wanted = " ".join(environment.packages)
        print(f"{name} left out: pip could not install {wanted}: {problem}", file=sys.stderr)
        return None
    outcome = run(trial)
    if not outcome.rows:
        problem = outcome.problem or "gave no result"
        print(f"{name} left out: its trial launch {problem}", file=sys.stderr)
        return None
    return outcome.rows[0]["version"]


def install(environment: Environment) -> str:
    """Fill the folder; why it failed, or empty if it did not or had been done before."""
    # Written last, so that an interrupted installation is taken up again.
    complete = environment.folder / environment.marker
    if complete.exists():
        return ""
    wanted = " ".join(environment.packages)
    print(f"setting up {environment.folder.name} with {wanted}; a few minutes", file=sys.stderr)
    for command in (
        (sys.executable, "-m", "venv", str(environment.folder)),
        (environment.python, "-m", "pip", "install", "--quiet", *environment.packages),
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no message"])[-1]
    complete.touch()
    return ""
