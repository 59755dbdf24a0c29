"""``python -m lepton_mpi prepare INPUT… OUTPUT.h5``: from raw files to a data file; the work is ``prepare/pipeline.py``."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from lepton_mpi import launcher
from lepton_mpi.commands.command import Command
from lepton_mpi.options.option import options_of
from lepton_mpi.prepare import options


def _run(chosen: options.Options) -> int:
    launcher.limit_threads(1)
    from lepton_mpi.world import world

    def prepare(ranks: Any) -> None:
        from lepton_mpi.prepare import pipeline

        pipeline.prepare(with_newest_checkpoint(chosen, ranks), ranks)

    return world.run(prepare, chosen.timeout)


def with_newest_checkpoint(chosen: options.Options, world: Any) -> options.Options:
    """The options, with the newest whole checkpoint where --like names a folder of them. Collective. Raises DataError."""
    if chosen.like is None or not world.comm.bcast(os.path.isdir(chosen.like)):
        return chosen
    from lepton_mpi.run import trained

    return dataclasses.replace(chosen, like=str(trained.find(Path(chosen.like), world)))


COMMAND = Command(
    "prepare",
    "make an HDF5 file to train on from CSV, images, text and other files",
    "python -m lepton_mpi prepare INPUT… OUTPUT.h5 [options]",
    "Make an HDF5 file to train on from CSV, Parquet, .npy, .npz, IDX, CIFAR, HDF5, text files, or folders of images or "
    "sounds by class.",
    options_of(options.Options),
    options.parse,
    _run,
    "An INPUT written as train=PATH, validation=PATH or test=PATH holds the rows of that split. An OUTPUT that exists is "
    "kept unless --force is given. A file is the same, bit for bit, from any number of ranks.",
)
