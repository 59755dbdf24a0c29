"""Raw files of every kind, in their true formats, and ``prepare`` run on them by threads as ranks."""

import gzip
import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lepton_mpi.prepare import options
from tests.serial.thread_ranks import on_ranks


def prepare(*words: object, ranks: int = 1) -> dict:
    """``python -m lepton_mpi prepare WORDS`` on threads; returns the facts. Raises what the command would say."""
    from lepton_mpi.prepare import (
        pipeline,  # not above: under MPI the first rank imports kernels first
    )

    chosen = options.parse([str(word) for word in words])
    return on_ranks(ranks, lambda world: pipeline.prepare(chosen, world))[0]


def digest(path: Path) -> str:
    """Of the file's bytes."""
    return hashlib.blake2b(path.read_bytes()).hexdigest()


def write_csv(path: Path, rows: list, *header: str, end: str = "\n", delimiter: str = ",") -> Path:
    """Rows of cells as they are; gzipped if the name says so."""
    lines = [delimiter.join(header)] if header else []
    lines += [delimiter.join(map(str, row)) for row in rows]
    raw = (end.join(lines) + end).encode()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def write_idx(path: Path, array: np.ndarray) -> Path:
    """As MNIST is published: magic number, dimensions, numbers, all big endian."""
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    head = bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    raw = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def images(rows: int, shape: tuple[int, ...] = (8, 8), classes: int = 10, seed: int = 0):
    """uint8 images that a model can learn: noise over a pattern of the class."""
    random = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    patterns = np.random.default_rng(99).integers(0, 200, (classes, *shape))
    x = patterns[y] + random.integers(0, 56, (rows, *shape))
    return x.astype(np.uint8), y.astype(np.uint8)


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """A block in which no file can be longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
