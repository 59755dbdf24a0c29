"""A copy of a run's parameters and state in memory that the ranks of a host share, made at the speed of memory.

a vector that the host holds once    each local rank copies its share
any other                            local rank 0 copies its own: no other rank need hold the same bits
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lepton_mpi.chunks import share
from lepton_mpi.collectives.within_host.vectors import map_pages
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi.kernels.copy_kernels import copy_and_look
from lepton_mpi.run.hook import weak
from lepton_mpi.wording import size_text
from lepton_mpi.world.pages import file_length

if TYPE_CHECKING:
    from lepton_mpi.options.config import Config
    from lepton_mpi.run.checkpoint import Checkpoint
    from lepton_mpi.run.run import Run

_PARAMETERS = "/parameters"  # no name of a state


class _Source(NamedTuple):
    """What local rank 0 tells the others of a vector; ``held_at`` is its place among those of the host, or None."""

    name: str
    size: int
    dtype: str
    held_at: int | None


def memory_bytes(run: Run) -> int:
    """What a snapshot takes of a host."""
    vectors = run.strategy.parameters, *run.strategy.state().values()
    return sum(file_length(max(1, vector.nbytes)) for vector in vectors)


def kernels_for(config: Config) -> list[Kernel]:
    """What copies."""
    return [copy_and_look] if config.async_save or config.elastic else []


def check_memory(run: Run, option: str, copies: int = 1) -> None:
    """Is there room for so many on this host? Raises ConfigurationError, on this rank alone."""
    needed, free = copies * memory_bytes(run), run.world.memory_available()
    if needed > free:
        what = "a copy" if copies == 1 else f"{copies} copies"
        raise ConfigurationError(
            f"{option}: expected {size_text(needed)} of memory for {what} of parameters and state, got a host with {size_text(free)} free"
        )


class Snapshot:
    """Memory for one copy. Making one and ``take`` are collective over the host.

    The memory is made and touched at once, so that the first copy costs what the others do.

    Parameters
    ----------
    run : Run
    rooms : dict of str to vector, optional
        Memory of a snapshot of an earlier run of the same model, on the same host; gets what is missing. What a lost rank has kept the
        others from making together is made anew.
    are_fixed : bool
        Whether parameters and state are in the same memory as long as the run lives: then the ranks tell each other once.
    """

    def __init__(
        self, run: Run, rooms: dict[str, np.ndarray] | None = None, are_fixed: bool = False
    ) -> None:
        self._run, self._fixed = weak(run), list[_Source]()
        self._rooms: dict[str, np.ndarray] = {} if rooms is None else rooms
        self._taken: list[str] = []
        self._forget_half_made()
        sources = self._sources()
        for source in sources:
            self._room(source)
        if are_fixed:
            self._fixed = sources

    def take(self) -> bool:
        """Copy what is there now; after ``Strategy.finish`` and ``collect``.

        What is copied must stay as it is until all ranks of the host have returned. Returns whether any of the parameters that this
        rank has copied is not finite.
        """
        world = self._run.world
        held = self._held()
        sources = self._fixed or self._sources()
        own, wrong = self._own() if world.local_rank == 0 else {}, False
        for source in sources:
            room, vector = self._room(source), own.get(source.name)
            if source.held_at is not None:
                first, last = share(0, source.size, world.local_size, world.local_rank)
                room, vector = room[first:last], held[source.held_at][first:last]
            if vector is not None and source.name == _PARAMETERS:
                wrong = bool(copy_and_look(room, vector))
            elif vector is not None:
                room[:] = vector
        self._taken = [source.name for source in sources]
        return wrong

    def copied(self, checkpoint: Checkpoint) -> Checkpoint:
        """``checkpoint`` with the vectors of the copy, which ``take`` writes over."""
        state = {name: self._rooms[name] for name in self._taken if name != _PARAMETERS}
        return dataclasses.replace(checkpoint, parameters=self._rooms[_PARAMETERS], state=state)

    def _forget_half_made(self) -> None:
        """Keep rooms that all ranks of the host have: else some would make one, which is collective, and others would not."""
        everybodys = self._run.world.host_comm.allgather(list(self._rooms))
        for name in self._rooms.keys() - set.intersection(*map(set, everybodys)):
            del self._rooms[name]

    def _own(self) -> dict[str, np.ndarray]:
        strategy = self._run.strategy
        return {_PARAMETERS: strategy.consensus(), **strategy.state()}

    def _held(self) -> list[np.ndarray]:
        """Vectors in memory of the host, in the same order on all of its ranks."""
        return [copy.vector for copy in self._run.strategy.copies_at_end() if copy.is_of_host]

    def _sources(self) -> list[_Source]:
        """As local rank 0 has them."""
        world, found = self._run.world, list[_Source]()
        if world.local_rank == 0:
            held = {_extent(vector): number for number, vector in enumerate(self._held())}
            for name, vector in self._own().items():
                number = held.get(_extent(vector))
                found.append(_Source(name, vector.size, vector.dtype.str, number))
        sources: list[_Source] = world.host_comm.bcast(found)
        return sources

    def _room(self, source: _Source) -> np.ndarray:
        """Where the copy of a vector is. Collective where it is new."""
        found = self._rooms.get(source.name)
        if found is None:
            world = self._run.world
            found = world.host_array((source.size,), source.dtype, "snapshot")
            first, last = share(0, source.size, world.local_size, world.local_rank)
            map_pages(world, found, [found[first:last]])
            self._rooms[source.name] = found
        return found


def _extent(vector: np.ndarray) -> tuple[int, int]:
    """Which memory a vector is."""
    return vector.ctypes.data, vector.nbytes
