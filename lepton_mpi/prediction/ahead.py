"""Blocks read ahead: the next one by a thread, while this one is predicted. Files and kernels let other threads go on."""

from concurrent.futures import Future, ThreadPoolExecutor

from lepton_mpi.prepare.passes import Blocks
from lepton_mpi.prepare.readers import Block


class BlocksAhead:
    """``blocks``, every ``stride``-th of which is asked for. The thread alone reads them; ``close`` waits for it."""

    def __init__(self, blocks: Blocks, stride: int) -> None:
        self._blocks, self._stride = blocks, stride
        self._thread = ThreadPoolExecutor(1, "lepton_mpi reader")
        self._begun: dict[int, Future[Block]] = {}

    def read(self, number: int) -> Block:
        """Block ``number``; another one is begun. Raises DataError, of this block alone."""
        this = self._begun.pop(number, None) or self._thread.submit(self._blocks.read, number)
        block = this.result()
        following = number + self._stride
        if following < self._blocks.count:
            self._begun[following] = self._thread.submit(self._blocks.read, following)
        return block

    def close(self) -> None:
        """Read no more."""
        self._thread.shutdown(wait=True, cancel_futures=True)
