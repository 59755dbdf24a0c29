"""Python and the libraries: the same on every host, and able to work with each other."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata

from lepton_mpi import __version__
from lepton_mpi.doctor.finding import Finding, fault, ok
from lepton_mpi.wording import one_line

_PACKAGES = ("numpy", "numba", "scipy", "h5py", "mpi4py")


@dataclass(frozen=True)
class Facts:
    """Of one host: version by package, empty if it is missing, and why Numba cannot be imported."""

    packages: Mapping[str, str] = field(default_factory=dict)
    numba_error: str = ""


def gather() -> Facts:
    """Imports NumPy and Numba."""
    found = {"lepton_mpi": __version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = ""
    try:
        from lepton_mpi.doctor import core_latency_kernels  # noqa: F401
    except Exception as error:  # ImportError, and what libraries raise that do not fit each other
        return Facts(found, one_line(error))
    return Facts(found)


def findings(hosts: Mapping[str, Facts]) -> Iterator[Finding]:
    """Of all hosts together."""
    first_host, first = next(iter(hosts.items()))
    missing = sorted(
        {name for facts in hosts.values() for name, v in facts.packages.items() if not v}
    )
    if missing:
        yield fault(
            "versions", f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}"
        )
    for host, facts in hosts.items():
        if facts.numba_error and not missing:
            where = f" on {host}" if len(hosts) > 1 else ""
            yield fault(
                "versions",
                f"Numba cannot be imported{where}: {facts.numba_error}",
                "pip install --upgrade numba numpy scipy",
            )
            return
    for host, facts in hosts.items():
        differing = [
            f"{name} {first.packages.get(name)} and {version}"
            for name, version in facts.packages.items()
            if version and first.packages.get(name, version) not in (version, "")
        ]
        if differing:
            yield fault(
                "versions",
                f"{first_host} and {host} have different ones: {', '.join(differing)}",
                "pip install "
                + " ".join(
                    f"{name}=={first.packages[name]}"
                    for name in _PACKAGES
                    if first.packages.get(name)
                ),
            )
            return
    if not missing:
        text = ", ".join(f"{name} {version}" for name, version in first.packages.items())
        yield ok("versions", text)
