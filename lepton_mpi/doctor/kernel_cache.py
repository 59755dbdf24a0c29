"""The folder of compiled kernels: writable by this user, and by nobody else, since it holds code."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from lepton_mpi.doctor.finding import Finding, fault, ok


@dataclass(frozen=True)
class Facts:
    """Of one host: the folder that is tried first, what is wrong with it, and the one that is used; empty if none is."""

    first: str
    wrong: str
    used: str


def gather() -> Facts:
    """Makes the folder if it is not there."""
    from lepton_mpi.kernels import cache

    places = list(cache.candidates())
    wrong = cache.unusable(places[0])
    used = next((str(place) for place in places if not cache.unusable(place)), "")
    return Facts(str(places[0]), wrong, used)


def findings(facts: Facts) -> Iterator[Finding]:
    """One."""
    if not facts.wrong:
        yield ok("kernel cache", f"compiled kernels are kept in {facts.first}")
        return
    first = shlex.quote(facts.first)
    remedies = ['export LEPTON_CACHE_DIR="$HOME/.cache/lepton_mpi"']
    if "others may write" in facts.wrong:
        remedies = [f"chmod go-w {first}", *remedies]
    elif "another user" in facts.wrong:
        remedies = [f"sudo chown -R $USER {first}", *remedies]
    instead = (
        f"they are kept in {facts.used} instead" if facts.used else "every start compiles them anew"
    )
    yield fault(
        "kernel cache",
        f"{facts.first} cannot keep compiled kernels ({facts.wrong}): {instead}",
        *remedies,
    )
