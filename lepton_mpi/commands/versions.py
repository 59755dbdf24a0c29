"""What ``--version`` prints: the versions of this package and of all that a run depends on. Starts no MPI."""

import platform
import subprocess
import sys
from importlib import metadata

from lepton_mpi import __version__
from lepton_mpi.wording import one_line

_PACKAGES = {"NumPy": "numpy", "Numba": "numba", "h5py": "h5py", "mpi4py": "mpi4py"}
_MISSING = "not installed"
_LIMIT_SECONDS = 20.0


def versions() -> str:
    """A line for each: what it is, and its version."""
    lines = {"lepton_mpi": __version__, "Python": platform.python_version()}
    lines |= {title: _version(package) for title, package in _PACKAGES.items()}
    lines["MPI library"] = _mpi_library()
    return "\n".join(f"{title:<11} {text}" for title, text in lines.items())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return _MISSING


def _mpi_library() -> str:
    """Which library mpi4py finds. Another process loads it, since that may fail in any way; MPI is not started."""
    if _version("mpi4py") == _MISSING:
        return "found by mpi4py, which is not installed"
    command = [sys.executable, "-m", "mpi4py", "--mpi-lib-version"]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_LIMIT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return "mpi4py does not say"
    lines = (ended.stdout if ended.returncode == 0 else ended.stderr).strip().splitlines()
    if ended.returncode:
        return f"none that mpi4py can load: {one_line(lines[-1])}" if lines else "none"
    # Open MPI goes on with who built it; a library may end with a zero byte.
    return one_line(lines[0].split(",")[0].strip("\0")) if lines else "mpi4py does not say"
