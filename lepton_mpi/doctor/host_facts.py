"""All facts of one host: each check in a thread of its own, under a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_mpi.doctor import (
    core_latency,
    cores,
    kernel_cache,
    memory,
    network,
    pages,
    storage,
    versions,
)
from lepton_mpi.wording import one_line


@dataclass(frozen=True)
class Wanted:
    """What the first rank of a host is asked.

    Attributes
    ----------
    ranks : dict of int to list of int
        The ranks of the host and their cores.
    folder : str
        Whose file system is tried.
    data : str
        A file to read; empty for none.
    environment : mapping
        As it was at the start.
    limit_seconds : float
        For each check.
    remove_leftovers : bool
        Whether to remove what dead jobs have left in /dev/shm.
    """

    ranks: Mapping[int, list[int]]
    folder: str
    data: str
    environment: Mapping[str, str]
    limit_seconds: float
    remove_leftovers: bool = False


@dataclass(frozen=True)
class HostFacts:
    """What each check found, by its name; ``late`` are those that took too long, ``failed`` those that raised."""

    found: Mapping[str, Any]
    late: list[str] = field(default_factory=list)
    failed: Mapping[str, str] = field(default_factory=dict)


def gather(wanted: Wanted) -> HostFacts:
    """Takes a second or two; no longer than ``seconds_at_most``, whatever is stuck."""
    ranks = dict(wanted.ranks)
    union = sorted({core for own in ranks.values() for core in own})
    data = Path(wanted.data) if wanted.data else None
    checks: dict[str, Callable[[], Any]] = {
        "cores": lambda: cores.gather(ranks),
        "memory": lambda: memory.gather(len(ranks), wanted.remove_leftovers),
        "pages": pages.gather,
        "network": network.gather,
        "storage": lambda: storage.gather(
            Path(wanted.folder), data, wanted.environment, wanted.limit_seconds
        ),
        "versions": versions.gather,
        "kernel cache": kernel_cache.gather,
        "core latency": lambda: core_latency.gather(union),
    }
    return examine(checks, wanted.limit_seconds)


def examine(checks: Mapping[str, Callable[[], Any]], limit_seconds: float) -> HostFacts:
    """Carry the checks out in turn; a check that is late is left behind in its thread.

    So are all that the time is too short for, where several are late.
    """
    end = time.monotonic() + seconds_at_most(limit_seconds)
    found: dict[str, Any] = {}
    late: list[str] = []
    failed: dict[str, str] = {}
    for name, check in checks.items():
        result: list[Any] = []
        errors: list[Exception] = []
        thread = threading.Thread(target=_call, args=(check, result, errors), daemon=True)
        thread.start()
        thread.join(min(limit_seconds, max(0.0, end - time.monotonic())))
        if result:
            found[name] = result[0]
        elif errors and not isinstance(errors[0], TimeoutError):
            failed[name] = f"{type(errors[0]).__name__}: {one_line(errors[0])}"
        else:
            late.append(name)
    return HostFacts(found, late, failed)


def _call(check: Callable[[], Any], result: list[Any], errors: list[Exception]) -> None:
    try:
        result.append(check())
    except Exception as error:
        errors.append(error)


def seconds_at_most(limit_seconds: float) -> float:
    """How long ``gather`` may take if its checks are stuck."""
    return 3 * limit_seconds
