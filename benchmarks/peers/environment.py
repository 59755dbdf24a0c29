"""The command that starts a peer, and the environment that it runs in."""

import subprocess
import sys
from collections.abc import Sequence

from benchmarks.harness import ROOT, Launch, mpi_command, run
from benchmarks.peers import Variant, variants

FOLDER = ROOT / ".venv-peers"
_TORCH = "torch==2.13.0"
_SET_UP_LIMIT_SECONDS = 1800.0


def peer_launch(
    variant: Variant, ranks: int, cases: Sequence[str], *options: str, limit_seconds: float
) -> Launch:
    """Launch of a peer's program for ``cases``, as ``peers/cases.py`` tells them."""
    arguments = (*options, "--cases", *cases)
    if variant.library == "gloo":
        python = str(FOLDER / "bin" / "python")
        command = (python, "-m", "benchmarks.peers.gloo", "--ranks", str(ranks), *arguments)
    else:
        command = mpi_command(ranks, "-m", "benchmarks.peers.mpi", *arguments)
    label = f"{variant.library} {variant.tuning}"
    return Launch(label, command, variant.environment, limit_seconds)


def set_up(library: str) -> str | None:
    """Make the peer's environment if need be and try it out.

    Returns its version, or None after printing why it has to be left out.
    """
    if library == "gloo" and (problem := _install_torch()):
        print(f"gloo left out: pip could not install torch: {problem}", file=sys.stderr)
        return None
    default = variants(library, ranks=2, cores=2)[0]
    trial = peer_launch(
        default, 2, ["8:in_place"], "--seconds", "0.01", limit_seconds=_SET_UP_LIMIT_SECONDS
    )
    outcome = run(trial)
    if not outcome.rows:
        problem = outcome.problem or "gave no result"
        print(f"{library} left out: its trial launch {problem}", file=sys.stderr)
        return None
    return outcome.rows[0]["version"]


def _install_torch() -> str:
    """Why it failed; empty if it did not, or had been done before."""
    # Written last, so that an interrupted installation is taken up again.
    complete = FOLDER / ".complete"
    if complete.exists():
        return ""
    print(f"setting up {FOLDER.name} with torch for gloo; a few minutes", file=sys.stderr)
    python = str(FOLDER / "bin" / "python")
    for command in (
        (sys.executable, "-m", "venv", str(FOLDER)),
        (python, "-m", "pip", "install", "--quiet", "numpy", _TORCH),
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no message"])[-1]
    complete.touch()
    return ""
