"""Checkpoints without a training: a model as it begins, moved a little at random, saved as a run saves it."""

from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi.data.loader import load
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.run import checkpoint
from lepton_mpi.run.build import wanted_of
from lepton_mpi.run.defaults import with_earlier
from lepton_mpi.run.resume import attributes
from lepton_mpi.vectors import Layout
from lepton_mpi.world.alone import Alone


def save_random(folder: Path, data: Any, **options: Any) -> Path:
    """A file in ``folder`` of a model of these options for ``data``, a path or the name of an embedded set."""
    config = with_earlier(Config(data=(str(data),), progress="none", **options))
    rows = load(config.data, wanted_of(config), Alone())
    model = make_model(config.model, config.for_model(threads=1), rows)
    layout, dtype = Layout(model.shapes), np.dtype(config.dtype)
    parameters = np.empty(layout.size, dtype)
    model.initialise(layout.views(parameters), 1)
    random = np.random.default_rng(7)
    for name, array in layout.views(parameters).items():
        # Running variances stay above 0.
        if "running" not in name and "norm" not in name:
            array += 0.2 * random.standard_normal(array.shape).astype(dtype)
    about = {"seed": 0, "model": model.name, "arithmetic": 1, "y_kind": rows.y_kind}
    about |= checkpoint.target_scale_attribute(rows.target_scale)
    place = attributes(config, 1, 0, 1, np.zeros(2), {})
    saved = checkpoint.Checkpoint(
        layout, parameters, {}, rows.normalisation, place | about, rows.encodings
    )
    return checkpoint.save(folder, saved)
