"""Threads of BLAS and Numba: as many as cores for each rank, or one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lepton_mpi.doctor.finding import Finding, fault, ok, plural

NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Facts:
    """Of one host: the thread counts that stand in the environment of its ranks, the ranks, and cores for all of them."""

    variables: Mapping[str, str]
    ranks: int
    cores: int


def variables_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The thread counts that a user has set."""
    return {name: environment[name] for name in NAMES if environment.get(name)}


def findings(facts: Facts) -> Iterator[Finding]:
    """One for all variables."""
    share = max(1, facts.cores // max(1, facts.ranks))
    wrong = {
        name: text
        for name, text in facts.variables.items()
        if not _counts(text) or max(_counts(text)) > share
    }
    cores = f"{plural(facts.cores, 'core')} for {plural(facts.ranks, 'rank')}"
    if wrong:
        given = ", ".join(f"{name}={text}" for name, text in wrong.items())
        many = any(_counts(text) for text in wrong.values())
        text = f"{given}: " + (
            f"more threads than {cores} have room for" if many else "expected whole numbers above 0"
        )
        yield fault("threads", text, "export " + " ".join(f"{name}={share}" for name in wrong))
    elif facts.variables:
        given = ", ".join(f"{name}={text}" for name, text in facts.variables.items())
        yield ok("threads", f"{given}; {cores}")
    else:
        yield ok("threads", "no thread counts are set: training gives each rank --threads of them")


def _counts(text: str) -> list[int]:
    """Of a list by levels such as ``4,2``; empty for what is none."""
    parts = [part.strip() for part in text.split(",")]
    is_list = all(part.isdigit() and int(part) > 0 for part in parts)
    return list(map(int, parts)) if is_list else []
