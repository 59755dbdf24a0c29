"""Statistics over the training rows, by all ranks together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lepton_mpi.prepare import statistics
from lepton_mpi.prepare.passes import Blocks
from lepton_mpi.prepare.readers import Block


@dataclass(frozen=True)
class TrainingRows:
    """The rows to fit on, as ``transform`` makes them of a block, cut into units.

    Attributes
    ----------
    blocks : Blocks
    bounds : int64, shape (blocks + 1,)
        First row of each block.
    repeats : int, shape (rows,)
        How often a row is written to the training rows: 0 for all others.
    transform : callable
        From a block to rows (rows, features), NaN missing.
    unit_count : int
        Numbers of a row with statistics of their own: number i of a row belongs to unit ``i % unit_count``.
    """

    blocks: Blocks
    bounds: np.ndarray
    repeats: np.ndarray
    transform: Callable[[Block], np.ndarray]
    unit_count: int

    def moments(self) -> statistics.Moments:
        """Of each unit. Collective."""
        parts = self.blocks.all_results(lambda b: statistics.moments_of(self._values(b)))
        return statistics.moments(parts)

    def quantiles(self, fractions: tuple[float, ...], counts: np.ndarray) -> np.ndarray:
        """Exact, float64 (fractions, units); ``counts`` is that of the moments. Collective."""
        return statistics.quantiles(fractions, counts, self._own_values, self._summed)

    def most_frequent(self, categories: dict[int, tuple[str, ...]]) -> dict[int, int]:
        """Of each feature that is categories, the commonest code; of several the lowest. Collective."""
        counts = {feature: np.zeros(len(texts), np.int64) for feature, texts in categories.items()}
        for values in self._own_values():
            for feature, count in counts.items():
                codes = values[:, feature]
                known = codes[~np.isnan(codes)].astype(np.int64)
                count += np.bincount(known, minlength=len(count))
        return {feature: int(np.argmax(self._summed(c))) for feature, c in sorted(counts.items())}

    def _values(self, number: int) -> np.ndarray:
        repeats = self.repeats[self.bounds[number] : self.bounds[number + 1]]
        rows = np.repeat(np.arange(len(repeats)), repeats)
        x = self.transform(self.blocks.read(number))
        x = x if len(rows) == len(x) and (repeats == 1).all() else x[rows]
        # A table of categories alone has no unit.
        return x.astype(np.float64).reshape(-1 if self.unit_count else len(x), self.unit_count)

    def _own_values(self) -> Iterator[np.ndarray]:
        for _, values in self.blocks.rounds(self._values):
            if values is not None:
                yield values

    def _summed(self, values: np.ndarray) -> np.ndarray:
        out = np.empty_like(values)
        self.blocks.world.comm.Allreduce(values, out)
        return out
