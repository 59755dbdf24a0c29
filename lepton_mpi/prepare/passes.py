"""Passes over the blocks of a source, in rounds of one block a rank."""

from collections.abc import Callable, Iterator
from typing import Any

from lepton_mpi.prepare.readers import Block, Part, Source, Words


class Blocks:
    """All blocks of a source by number; those of this rank stay in memory while they fit.

    Parameters
    ----------
    source : Source
    world : World
        Block b is read by rank b mod ``world.size``.
    memory_bytes : int
        For the blocks that this rank keeps.
    """

    def __init__(self, source: Source, world: Any, memory_bytes: int) -> None:
        self.world = world
        self.places = [(part, index) for part in source.parts for index in range(part.block_count)]
        self._room, self._kept = memory_bytes, {}
        self._open: Part | None = None

    @property
    def count(self) -> int:
        return len(self.places)

    def read(self, number: int) -> Block:
        """Block ``number``. Raises DataError."""
        if number in self._kept:
            return self._kept[number]
        part, index = self.places[number]
        if self._open is not None and self._open is not part:
            self._open.close()  # a process may have only so many files open
        self._open = part
        block = part.read(index)
        size = _bytes_of(block)
        if size <= self._room:
            self._room -= size
            self._kept[number] = block
        return block

    def rounds(self, visit: Callable[[int], Any]) -> Iterator[tuple[range, Any]]:
        """Call ``visit(b)`` for each own block b; yields the round's blocks and this rank's result.

        The result is None where this rank has no block. A LeptonError of ``visit`` is raised on all ranks. Collective.
        """
        size, rank = self.world.size, self.world.rank
        for first in range(0, self.count, size):
            self.world.clock.enter("compute", first)
            blocks = range(first, min(first + size, self.count))
            with self.world.agreeing():
                result = visit(first + rank) if first + rank in blocks else None
            yield blocks, result

    def all_results(self, visit: Callable[[int], Any]) -> Iterator[Any]:
        """Results of ``visit`` of all blocks, in their order, on every rank. Collective."""
        for blocks, result in self.rounds(visit):
            yield from self.world.comm.allgather(result)[: len(blocks)]


def _bytes_of(block: Block) -> int:
    words = [*block.words.values(), block.y, block.group, block.split]
    texts = sum(w.codes.nbytes + 80 * len(w.texts) for w in words if isinstance(w, Words))
    return block.x.nbytes + texts + (0 if isinstance(block.y, Words) else block.y.nbytes)
