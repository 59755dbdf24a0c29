"""A training in which no rank occurs, written out: what runs on any number of ranks must end with, bit for bit."""

from fnmatch import fnmatchcase

import numpy as np

from lepton_mpi.data import augmentation, order
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.loader import load
from lepton_mpi.data.order import MicroBatches, draws
from lepton_mpi.models.registry import make_model
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options.config import Config
from lepton_mpi.run import class_weights
from lepton_mpi.run.build import wanted_of
from lepton_mpi.run.defaults import Facts, settle
from lepton_mpi.strategies.clipping import ReplicatedNorm, clipped_scale
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.tasks.registry import make_task
from lepton_mpi.vectors import Layout, aligned_zeros
from lepton_mpi.world.alone import Alone
from tests import reference
from tests.serial.data_files import OneRank


def trained_alone(config: Config) -> str:
    """Digest of the weights after a training in this process alone; full shuffle, constant learning rate."""
    data = load(config.data, wanted_of(config), OneRank())
    config, _ = settle(config, Facts.of(data), is_own_model=False)
    model, task = (
        make_model(config.model, config.for_model(threads=1), data),
        make_task(data.y_kind, data),
    )
    class_weights.weigh(config.class_weights, model, data, Alone())
    layout, dtype = Layout(model.shapes), np.dtype(config.dtype)
    parameters = aligned_zeros(layout.size, dtype)
    model.initialise(layout.views(parameters), config.seed)
    rate, decay = config.learning_rate, config.weight_decay
    settings = Settings(config.optimizer, lambda step: rate, config.momentum, decay)
    state = np.zeros((len(rule_of(settings).state), layout.size), dtype)
    optimizer = Optimizer(
        *(settings, layout, dtype, state),
        averaged=model.averaged,
        decayed=model.decayed,
    )
    micro_rows = config.micro_batch or -(-config.global_batch // 8)
    micro_batches = MicroBatches(config.global_batch, micro_rows)
    rows, step = data.splits["train"], 0
    augment = augmentation.parse(config.augment, data.augmented_shape)
    reader = BatchReader(data, micro_batches.rows, augment)
    for epoch in range(1, config.epochs + 1):
        in_order = rows.indices[order.epoch_order(rows.row_count, config.seed, epoch)]
        for start, stop in reference.step_bounds(rows.row_count, config.global_batch):
            gradients, weight = [], 0
            for number in range(micro_batches.count):
                gradients.append(np.zeros(layout.size, dtype))
                own = in_order[slice(*micro_batches.bounds(number, start, stop))]
                if own.size:
                    draw = draws(config.seed, step, 1)[0]
                    batch = reader.read_for_training(rows.read_of(own), draw)
                    views = layout.views(parameters), layout.views(gradients[-1])
                    model.loss_and_gradient(views[0], batch, views[1], NO_SYNC)
                    weight += task.weight(batch)
            gradient, scale = _tree_sum(gradients), 1.0 / weight
            for name, view in layout.views(gradient).items():
                if any(fnmatchcase(name, pattern) for pattern in config.freeze):
                    view[...] = 0
            if config.clip_norm:
                norm = ReplicatedNorm(gradient, [(0, layout.size)]).compute()
                scale = clipped_scale(scale, norm, config.clip_norm)
            step += 1
            optimizer.begin_step(step, scale, 1.0 / weight)
            optimizer.update(parameters, gradient, 0, layout.size)
    model.release(layout.views(parameters))
    return layout.digest(parameters)


def _tree_sum(vectors: list[np.ndarray]) -> np.ndarray:
    """Neighbours are added in pairs, level by level; one without a neighbour goes up unchanged."""
    while len(vectors) > 1:
        pairs = [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
        vectors = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return vectors[0]
