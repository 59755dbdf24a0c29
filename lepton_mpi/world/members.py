"""Who the ranks of an elastic job are, whatever their numbers become: process numbers are those of a host, and ranks those of a world."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, NamedTuple

from lepton_mpi.processes import number_space, start_of_machine
from lepton_mpi.world.pmix import Name, own_name

if TYPE_CHECKING:
    from mpi4py import MPI

_NUMBER_BITS = 62  # of int64, and never 0


class Member(NamedTuple):
    """A process that is a rank of the job, or has been.

    Attributes
    ----------
    number : int
        Drawn by it; no two of a job have the same.
    host : str
        Where ``process_id`` means this process: one start of a machine, and a namespace of process numbers.
    process_id : int
    name : Name
        For the launcher.
    """

    number: int
    host: str
    process_id: int
    name: Name


def own() -> Member:
    """This process; another number each time."""
    host = f"{start_of_machine()} {number_space()}"
    return Member(1 + secrets.randbits(_NUMBER_BITS), host, os.getpid(), own_name())


def of(comm: MPI.Intracomm, mine: Member) -> list[Member]:
    """The members of a communicator, by rank. Collective over it."""
    return comm.allgather(mine)
