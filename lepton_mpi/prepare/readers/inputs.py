"""The words of the command line that name inputs."""

from dataclasses import dataclass
from pathlib import Path

from lepton_mpi.data.files.file_format import SPLITS


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
        split, sign, path = word.partition("=")
        if sign and split in SPLITS and not Path(word).exists():
            return Input(Path(path), split)
        return Input(Path(word))
