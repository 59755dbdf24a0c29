"""The data files of ``benchmarks/loader.py``: made once a run, in a temporary folder, with rows that can be checked.

    layout       is
    contiguous   one piece, which can be mapped into memory
    chunked      chunks of about 1 MiB with Fletcher32: what ``python -m lepton_mpi prepare`` writes by default
    gzip         the same with gzip and shuffle (``prepare --compress gzip``)

A byte of a row is 3 random bits, 0, 32, 64, … 224, which gzip makes 2.2 times smaller, as it does to photographs that
are not packed yet; ``loader_rows.py`` tells the rest. The noise repeats after 8 MiB, far beyond the 32 KiB that gzip looks back.
"""

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.engines import loader_rows
from benchmarks.engines.loader_case import DataFile
from lepton_mpi.prepare.writing import RowWriter, new_file, write_facts
from lepton_mpi.wording import size_text

LAYOUTS = ("contiguous", "chunked", "gzip")
# The shape of a row by the name that the option --samples has for it.
SAMPLES = {"1K": (1024,), "150K": (224, 224, 3)}
_NOISE_BYTES, _NOISE_BITS = 8 << 20, 3
_BLOCK_BYTES = 4 << 20


def plan_files(
    folder: Path,
    samples: Iterable[str],
    layouts: Iterable[str],
    byte_counts: Iterable[int],
    rank_counts: Sequence[int],
) -> dict[DataFile, tuple[int, ...]]:
    """The files to be made, each with the shape of a row.

    The number of rows is a multiple of every number of ranks: torch's sampler would else give some rows twice.
    """
    multiple = math.lcm(*rank_counts)
    planned = {}
    layouts = list(layouts)
    for byte_count in byte_counts:
        for sample in samples:
            shape = SAMPLES[sample]
            for layout in layouts:
                rows = max(1, byte_count // math.prod(shape) // multiple) * multiple
                if rows > loader_rows.ROWS_MAX:
                    most = size_text(loader_rows.ROWS_MAX * math.prod(shape))
                    raise SystemExit(
                        f"--bytes: expected at most {most} of samples of {sample}, got {size_text(byte_count)}"
                    )
                planned[DataFile.named(folder, layout, math.prod(shape), rows)] = shape
    return planned


def space_problem(folder: Path, files: Iterable[DataFile]) -> str:
    """Why the files do not fit on the disk of ``folder``; empty if they do."""
    needed = sum(file.row_count * file.sample_bytes for file in files)
    free = shutil.disk_usage(folder).free
    if needed * 1.05 < free:
        return ""
    return (
        f"{folder}: expected {size_text(needed)} free for the data files, got {size_text(free)}; "
        "give fewer --bytes or another --folder"
    )


def write_file(file: DataFile, row_shape: tuple[int, ...]) -> None:
    """Make one."""
    with new_file(file.path) as opened:
        names = tuple(str(number) for number in range(loader_rows.CLASS_COUNT))
        arrays = {
            "normalisation/shift": np.array(loader_rows.SHIFT, np.float64),
            "normalisation/scale": np.array(loader_rows.SCALE, np.float64),
        }
        write_facts(opened, {}, arrays, names, 1)
        storage = (
            "contiguous" if file.layout == "contiguous" else "chunked",
            "gzip" if file.layout == "gzip" else "none",
        )
        shape = file.row_count, *row_shape
        x = RowWriter(opened, "train/x", shape, np.dtype(np.uint8), *storage)
        y = RowWriter(opened, "train/y", shape[:1], np.dtype(np.uint8), *storage)
        for first, rows in _blocks(file):
            x.append(rows.reshape(-1, *row_shape))
            y.append(loader_rows.labels_of(np.arange(first, first + len(rows))))
        x.close()
        y.close()
        # As prepare has them; without, rows of the training would be held out, and those left be picked one by one.
        for split in ("validation", "test"):
            opened[f"{split}/x"] = np.zeros((1, *row_shape), np.uint8)
            opened[f"{split}/y"] = np.zeros(1, np.uint8)
    # Dirty pages cannot be dropped, and writing them later would disturb what is measured.
    os.sync()


def _blocks(file: DataFile) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first row, rows) one after the other."""
    features = file.sample_bytes
    rows_of_block = max(1, _BLOCK_BYTES // features)
    noise = np.random.default_rng(0).integers(0, 1 << _NOISE_BITS, _NOISE_BYTES, np.uint8)
    noise <<= 8 - _NOISE_BITS
    noise = np.concatenate([noise, noise[: rows_of_block * features]])
    for first in range(0, file.row_count, rows_of_block):
        count = min(rows_of_block, file.row_count - first)
        start = first * features % _NOISE_BYTES
        rows = noise[start : start + count * features].reshape(count, features).copy()
        loader_rows.stamp(rows, first)
        yield first, rows
