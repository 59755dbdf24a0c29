"""``--save-every``: a checkpoint when so much time has passed since the last one, after the same step on every rank.

Clocks of ranks differ, and so does how far they are, so rank 0 decides. All ranks ask it after the same steps, and its answer says which step they
ask after next: about twenty times in an interval, and when it is over. No message is in any other step.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lepton_mpi.world.world import World

# Of the interval, between two questions.
_SHARE = 0.05


class SaveTimer:
    """Counts from when it is made, and from every ``saved``."""

    def __init__(self, world: World, seconds: float) -> None:
        self._world, self._seconds = world, seconds
        self._left = self._asked = 1
        self._since = self._looked = monotonic()

    def saved(self) -> None:
        """A checkpoint was written, for whatever reason, after the same step on all ranks."""
        self._since = monotonic()

    def is_due(self) -> bool:
        """Whether to save now. Every rank calls it after every step; collective after some of them."""
        self._left -= 1
        if self._left:
            return False
        clock = self._world.clock
        clock.enter("waiting")
        is_due, self._asked = self._world.broadcast(self._decided())
        clock.enter("compute")
        self._left = self._asked
        return bool(is_due)

    def _decided(self) -> tuple[bool, int]:
        """Whether the time is over, and after how many more steps to ask again; what rank 0 says counts."""
        now = monotonic()
        step_seconds = max((now - self._looked) / self._asked, 1e-9)
        self._looked = now
        rest = self._since + self._seconds - now
        pause = self._seconds * _SHARE if rest <= 0 else min(rest, self._seconds * _SHARE)
        # Twice as many at most: steps may become longer.
        return rest <= 0, max(1, min(math.ceil(pause / step_seconds), 2 * self._asked))
