"""Large pages: 2 MiB for NumPy's arrays (transparent huge pages), and for memory that ranks share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lepton_mpi.doctor.finding import Finding, note, ok
from lepton_mpi.world import pages

_FOLDER = "sys/kernel/mm/transparent_hugepage"


@dataclass(frozen=True)
class Facts:
    """Of one host: the settings of Linux, empty if it has none, and whether shared memory got large pages when asked."""

    enabled: str
    shared: str
    collapses: bool


def gather(root: Path = Path("/")) -> Facts:
    """``root`` is where sys is; another one is for tests."""
    return Facts(
        _chosen(root / _FOLDER / "enabled"), _chosen(root / _FOLDER / "shmem_enabled"), _try()
    )


def _chosen(path: Path) -> str:
    """The word in brackets."""
    try:
        found = re.search(r"\[(\w+)\]", path.read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def _try() -> bool:
    length = 2 * pages.LARGE_PAGE_BYTES
    file = os.memfd_create("lepton_mpi:doctor")
    try:
        os.ftruncate(file, length)
        return pages.collapse(pages.map_file(file, length))
    except OSError:
        return False
    finally:
        os.close(file)


def findings(facts: Facts) -> Iterator[Finding]:
    """Those of arrays and those of shared memory."""
    if facts.enabled == "never":
        yield note(
            "huge pages",
            "transparent huge pages are off (never): large arrays lie in pages of 4 KiB, and reading them is slower",
            f"echo madvise | sudo tee /{_FOLDER}/enabled",
        )
    elif facts.enabled:
        yield ok("huge pages", f"transparent huge pages are on ({facts.enabled})")
    else:
        yield note("huge pages", "this Linux has no transparent huge pages")
    if facts.collapses:
        yield ok("shared pages", "memory that ranks share gets pages of 2 MiB")
    else:
        yield note(
            "shared pages",
            "memory that ranks share stays in pages of 4 KiB: Linux before 6.1, no free page of 2 MiB, or a container forbids it",
            f"echo advise | sudo tee /{_FOLDER}/shmem_enabled",
        )
