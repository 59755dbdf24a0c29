"""``python_topics``: the help topics of Python's own documentation as a text to learn, made from the standard library at run time.

Some 470 kB of English and code, ``pydoc_data.topics``, which comes with Python and differs between its versions a little. Tokens are
characters; every tenth topic, by name, is for validation, and every tenth for testing.
"""

import hashlib
from pathlib import Path

import h5py
import numpy as np

from lepton_mpi.durable import replacing
from lepton_mpi.errors import LauncherError
from lepton_mpi.kernels import cache

NAME = "python_topics"
_CONTEXT = 64


def locate() -> Path:
    """The file, in the user's cache, which is made if it is not there. Raises LauncherError."""
    topics = _topics()
    characters = sorted(set("".join(topics)))
    digest = hashlib.blake2b("\0".join(topics).encode(), digest_size=8).hexdigest()
    folder = (cache.folder() or cache.private_temporary()).parent / "data"
    path = folder / f"{NAME}-{digest}.h5"
    if not path.exists():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(path) as temporary:
                _write(temporary, topics, characters)
        except OSError as error:
            raise LauncherError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _topics() -> list[str]:
    """In the order of their names."""
    from pydoc_data.topics import topics

    return [f"{topics[name].strip()}\n\n" for name in sorted(topics)]


def _write(path: Path, topics: list[str], characters: list[str]) -> None:
    """The layout of texts that ``file_format.py`` describes."""
    numbers = {character: number for number, character in enumerate(characters)}
    kind = np.uint8 if len(characters) <= 1 << 8 else np.uint16
    encoded = [character.encode() for character in characters]
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for split, remainders in (
            ("train", range(8)),
            ("validation", (8,)),
            ("test", (9,)),
        ):
            own = [topic for n, topic in enumerate(topics) if n % 10 in remainders]
            tokens = np.array([numbers[character] for character in "".join(own)], kind)
            made = file.create_dataset(f"{split}/tokens", data=tokens)
            made.attrs["kind"] = np.bytes_("tokens")
            made.attrs["values"] = np.int64(len(characters))
            made.attrs["context"] = np.int64(_CONTEXT)
            starts = np.cumsum([0, *map(len, own)])[:-1].astype(np.int64)
            file.create_dataset(f"{split}/document_starts", data=starts)
        # Data sets that are assigned would have the time in them.
        ends = np.cumsum(list(map(len, encoded))).astype(np.int64)
        file.create_dataset("vocabulary/bytes", data=np.frombuffer(b"".join(encoded), np.uint8))
        file.create_dataset("vocabulary/ends", data=ends)
