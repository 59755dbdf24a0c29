"""The lists of attacks, to which the other modules add theirs, and what several of them need."""

from collections.abc import Callable
from pathlib import Path

import h5py
from h5py import h5d

SHAPE = (40, 4)
SECRET_SHAPE = (60, 4)  # of x in the secret

# In whatever place of a file; on an open file as a whole; on a path, to which they write.
ANYWHERE: list[Callable[[h5py.File, str, Path], None]] = []
ON_FILES: list[Callable[[h5py.File, str, Path], None]] = []
ON_PATHS: list[Callable[[Path, Path], None]] = []


def anywhere(attack):
    """Add an attack that works in any place of a file."""
    ANYWHERE.append(attack)
    return attack


def on_file(attack):
    """Add an attack on a file as a whole."""
    ON_FILES.append(attack)
    return attack


def on_path(attack):
    """Add an attack that writes the file itself."""
    ON_PATHS.append(attack)
    return attack


def low_level(file: h5py.File, place: str, kind, space, made=None) -> h5d.DatasetID:
    """A data set of a kind that h5py's own functions would not make."""
    group, _, name = place.rpartition("/")
    return h5d.create(file.require_group(group or "/").id, name.encode(), kind, space, made)
