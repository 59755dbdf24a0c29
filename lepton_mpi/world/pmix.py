"""PMIx, through which Open MPI's processes speak with their launcher, where MPI has no word for what is to be said.

Standard: PMIx 4.1, https://pmix.github.io/standard. Does nothing with an MPI that has none.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from lepton_mpi.processes import loaded_library

_NSPACE_BYTES, _KEY_BYTES, _DATA_BYTES = 256, 512, 24
# Names and numbers of the standard: an event of one process, which was ended by a signal, for this process alone.
_AFFECTED, _PROC, _ABORTED_BY_SIGNAL, _RANGE_PROC_LOCAL = b"pmix.evproc", 22, -402, 7


class Name(NamedTuple):
    """What PMIx calls a process; of no job where there is no PMIx."""

    job: str
    rank: int


def own_name(environment: Mapping[str, str] = os.environ) -> Name:
    """Of this process."""
    rank = environment.get("PMIX_RANK", "")
    return Name(environment.get("PMIX_NAMESPACE", ""), int(rank) if rank.isdigit() else -1)


def leave_launcher() -> None:
    """Tell it that this process ends well."""
    with suppress(OSError, AttributeError):
        _library().PMIx_Finalize(None, ctypes.c_size_t(0))


def tell_own_mpi(lost: Name) -> None:
    """Have the MPI of this process know that a process is lost, as if its launcher had said so; any thread.

    Open MPI's launcher learns nothing of a host that has lost its power or its network, and MPI itself waits for it for 40 s and more.
    """
    if not lost.job or lost.rank < 0:
        return
    process = _Proc(lost.job.encode(), lost.rank)
    info = _Info(_AFFECTED, 0, _Value(_PROC, _Data(ctypes.pointer(process))))
    with suppress(OSError, AttributeError):
        _library().PMIx_Notify_event(
            *(ctypes.c_int(_ABORTED_BY_SIGNAL), ctypes.byref(process)),
            *(ctypes.c_uint8(_RANGE_PROC_LOCAL), ctypes.byref(info), ctypes.c_size_t(1)),
            *(None, None),  # returns when it is said
        )


def _library() -> ctypes.CDLL:
    """The one that Open MPI has loaded. Raises OSError where there is none."""
    if not (path := loaded_library("libpmix")):
        raise OSError("no PMIx is loaded")
    return ctypes.CDLL(path)


class _Proc(ctypes.Structure):
    """``pmix_proc_t``."""

    _fields_ = (("nspace", ctypes.c_char * _NSPACE_BYTES), ("rank", ctypes.c_uint32))


class _Data(ctypes.Union):
    """Of ``pmix_value_t``."""

    _fields_ = (("proc", ctypes.POINTER(_Proc)), ("room", ctypes.c_byte * _DATA_BYTES))


class _Value(ctypes.Structure):
    """``pmix_value_t``."""

    _fields_ = (("type", ctypes.c_uint16), ("data", _Data))


class _Info(ctypes.Structure):
    """``pmix_info_t``."""

    _fields_ = (
        ("key", ctypes.c_char * _KEY_BYTES),
        ("flags", ctypes.c_uint32),
        ("value", _Value),
    )
