"""Where rows are while a run uses them: three ways, and which is taken.

memory     a copy once per host, that its ranks share; any row at once, in pages of 2 MiB
mapped     the file itself, as the system keeps it in memory for all its readers; only for rows in one piece, in one file
           and of a type that kernels take. Takes no memory that the system cannot have back, but rows that it has given
           up are read again one page at a time. Bytes start at once; floats are read through once, to see that all are
           finite. A file that is cut short meanwhile ends the job by SIGBUS (files/mapped_rows.py)
streamed   windows of the file, read ahead in long runs; any size of file
"""

from dataclasses import dataclass
from typing import Literal

from lepton_mpi.wording import size_text

WayName = Literal["auto", "memory", "mapped", "streamed"]

# Of the memory that is free: the ranks' own vectors, other jobs and the system's cache of files want some too.
_MEMORY_SHARE, _MAPPED_SHARE = 0.5, 0.8


@dataclass(frozen=True)
class Way:
    """``name``, one of memory, mapped and streamed, and why."""

    name: str
    reason: str


def choose(wanted: WayName, table_bytes: int, why_not_mapped: str, available_bytes: int) -> Way:
    """The way to take for rows of ``table_bytes`` bytes on a host with ``available_bytes`` free.

    ``why_not_mapped`` is empty where they can be mapped.

    >>> choose("auto", 100, "", 300).name, choose("auto", 200, "", 300).name, choose("auto", 300, "", 300).name
    ('memory', 'mapped', 'streamed')
    """
    sizes = f"{size_text(table_bytes)} of rows, {size_text(available_bytes)} of memory free"
    if wanted != "auto":
        return Way(wanted, f"as asked for; {sizes}")
    if table_bytes <= _MEMORY_SHARE * available_bytes:
        return Way("memory", sizes)
    if table_bytes <= _MAPPED_SHARE * available_bytes and not why_not_mapped:
        return Way("mapped", sizes)
    return Way("streamed", sizes)
