"""Checkpoints without a training: a model as it begins, moved a little at random, saved as a run saves it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi.data.loader import load
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi.run.build import wanted_of
from lepton_mpi.run.defaults import with_earlier
from lepton_mpi.run.resume import attributes
from lepton_mpi.vectors import Layout
from lepton_mpi.world.alone import Alone

SHAPES = {"layer0/weight": (7, 5), "layer0/bias": (5,), "scale": (), "none": (0, 3)}


def small_checkpoint(step: int, dtype=np.float32, shapes=SHAPES) -> checkpoint.Checkpoint:
    """Of no model: random vectors, which follow from the step."""
    layout = Layout(shapes)
    generator = np.random.default_rng(step)
    vectors = [generator.standard_normal(layout.size).astype(dtype) for _ in range(3)]
    normalisation = (
        generator.standard_normal(4).astype(dtype),
        generator.standard_normal(4).astype(dtype),
    )
    attributes = {
        "step": step,
        "epoch": 2,
        "seed": 3,
        "model": "mlp 7-5",
        "configuration": json.dumps({"global_batch": 64}),
    }
    state = {"first_moment": vectors[1], "second_moment": vectors[2]}
    return checkpoint.Checkpoint(layout, vectors[0], state, normalisation, attributes)


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
    return checkpoint_folder.save(folder, saved)
