"""A file that is there in full or not at all, also after a power cut."""

import os
from pathlib import Path


def replace_durably(temporary: Path, path: Path) -> None:
    """Put the written file ``temporary`` in the place of ``path``, both of one folder. Raises OSError."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
