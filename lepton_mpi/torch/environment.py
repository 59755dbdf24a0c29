"""What torch reads of a job, from the launcher: RANK and its like, and the store through which ranks find each other.

torch's ``env://`` asks for RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, which torchrun sets. mpirun and srun set their own
names for the first two, and MPI itself can carry the address:

    import lepton_mpi.torch      RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE are set from the launcher's, where they are not set
    init_process_group(...)      without MASTER_ADDR, rank 0 starts a ``TCPStore`` on a free port, and MPI tells the others where
    torchrun's variables         are taken as they are, as is any other ``init_method`` and ``store``

Ranks that cannot reach rank 0's host by any of its addresses get an error that lists what was tried.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlparse

from torch.distributed import Store, TCPStore, rendezvous

from lepton_mpi import launcher
from lepton_mpi.errors import LauncherError

if TYPE_CHECKING:
    from lepton_mpi.world.world import World

# A try of one address of rank 0's host; an address of a network that a rank is not on would take minutes.
_CONNECT_SECONDS = 3.0


def describe_job_to_torch() -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE from the launcher's variables, unless they are set."""
    if not launcher.is_launched() or "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        return
    os.environ["RANK"] = str(launcher.launched_rank())
    os.environ["WORLD_SIZE"] = str(launcher.launched_size())
    os.environ.setdefault("LOCAL_RANK", str(launcher.launched_local_rank()))
    os.environ.setdefault("LOCAL_WORLD_SIZE", str(launcher.launched_local_size()))


def take_over_rendezvous() -> None:
    """Have ``env://`` ask MPI where MASTER_ADDR is not set. Does nothing the second time."""
    handlers = rendezvous.__globals__["_rendezvous_handlers"]
    torchs_own = handlers["env"]
    if torchs_own.__module__ == __name__:
        return

    def by_mpi(url: str, timeout: timedelta, **options: Any) -> Iterator[tuple[Store, int, int]]:
        if "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ:
            yield from torchs_own(url, timeout=timeout, **options)
            return
        from lepton_mpi.torch.job import join

        world = join().world
        rank, size = _asked_for(url, world)
        yield make_store(world, timeout), rank, size
        raise RuntimeError("env:// with MPI: the ranks of a job cannot meet again")

    handlers["env"] = by_mpi


def _asked_for(url: str, world: World) -> tuple[int, int]:
    """Rank and size that ``init_process_group`` was given, those of MPI where it was given none."""
    query = parse_qs(urlparse(url).query)
    rank = int(query.get("rank", [os.environ.get("RANK", str(world.rank))])[0])
    size = int(query.get("world_size", [os.environ.get("WORLD_SIZE", str(world.size))])[0])
    return rank, size


def make_store(world: World, timeout: timedelta) -> TCPStore:
    """A ``TCPStore`` of rank 0 that all ranks are connected to. Collective over the job.

    Raises LauncherError, on all ranks, where one cannot reach rank 0's host.
    """
    store = told = None
    if world.rank == 0:
        store = TCPStore("127.0.0.1", 0, None, True, timeout, wait_for_workers=False)
        told = ["127.0.0.1"] if world.host_count == 1 else _addresses(), store.port
    addresses, port = world.broadcast(told)
    with world.agreeing():
        if store is None:
            address = _first_reachable(addresses, port)
            store = TCPStore(address, port, None, False, timeout, wait_for_workers=False)
    return store


def _addresses() -> list[str]:
    """Addresses by which other hosts may reach this one, its name first; the loopback, which means another host there, not."""
    name = socket.gethostname()
    found = [name]
    with suppress(OSError):
        infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        found += [str(info[4][0]) for info in infos]
    # Sends nothing: the system only chooses the interface that leads out.
    with suppress(OSError), closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect(("192.0.2.1", 9))
        found.append(probe.getsockname()[0])
    return [one for one in dict.fromkeys(found) if not one.startswith(("127.", "::1"))]


def _first_reachable(addresses: list[str], port: int) -> str:
    reasons = []
    for address in addresses:
        try:
            socket.create_connection((address, port), _CONNECT_SECONDS).close()
            return address
        except OSError as error:
            reasons.append(f"{address}: {error}")
    raise LauncherError(
        f"{socket.gethostname()} cannot reach the store of rank 0, port {port}, at any of its addresses "
        f"({'; '.join(reasons)}): set MASTER_ADDR to an address of rank 0's host that every host reaches, and MASTER_PORT to a "
        "free port there"
    )
