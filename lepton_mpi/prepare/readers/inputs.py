"""The words of the command line that name inputs."""

from dataclasses import dataclass
from pathlib import Path

from lepton_mpi.data.files.array_names import split_of_word


@dataclass(frozen=True)
class Input:
    """A path, and the split that its rows belong to if the user says so by ``train=PATH``."""

    path: Path
    split: str | None = None

    @staticmethod
    def of(word: str) -> "Input":
        """From a word; a file whose name begins so is itself.

        >>> Input.of("test=b.csv")
        Input(path=PosixPath('b.csv'), split='test')
        """
        word_of_split, sign, path = word.partition("=")
        split = split_of_word(word_of_split)
        if sign and split and not Path(word).exists():
            return Input(Path(path), split)
        return Input(Path(word))
