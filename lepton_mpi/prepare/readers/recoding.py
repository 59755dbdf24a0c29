"""Windows of a text with the ids that its tokens have in another file, the one of ``--like``."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.prepare.readers import Block, Part, Source

# Tokens that a message names.
_SHOWN = 12


def recoded(source: Source, vocabulary: tuple[str, ...]) -> Source:
    """The source with ids by ``vocabulary``; ``y`` stays, since classes have names. Raises DataError for unknown tokens."""
    if source.vocabulary == vocabulary:
        return source
    if not vocabulary:
        raise DataError(
            f"{source.parts[0].name}: a text, but the file of --like keeps no tokens; prepare it anew"
        )
    ids = {token: number for number, token in enumerate(vocabulary)}
    unknown = [token for token in source.vocabulary if token not in ids]
    if unknown or not source.vocabulary:
        shown = ", ".join(map(ascii, unknown[:_SHOWN])) + " …" * (len(unknown) > _SHOWN)
        raise DataError(
            f"{source.parts[0].name}: expected a text of the {len(vocabulary)} tokens of the file of --like, got others"
            f"{': ' * bool(shown)}{shown}"
        )
    dtype = np.uint8 if len(vocabulary) <= 256 else np.int32
    places = np.array([ids[token] for token in source.vocabulary], dtype)
    parts = tuple(_RecodedPart(part, places) for part in source.parts)
    return dataclasses.replace(source, parts=parts, vocabulary=vocabulary)


@dataclass(frozen=True)
class _RecodedPart:
    """See ``Part``; ``places`` are the new ids by the old ones."""

    part: Part
    places: np.ndarray

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def split(self) -> str | None:
        return self.part.split

    @property
    def block_count(self) -> int:
        return self.part.block_count

    def read(self, index: int) -> Block:
        """Block ``index`` of the part. Raises DataError."""
        block = self.part.read(index)
        return dataclasses.replace(block, x=self.places[block.x])

    def close(self) -> None:
        """Let go of the file."""
        self.part.close()
