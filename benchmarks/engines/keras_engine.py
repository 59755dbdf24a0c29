"""Keras' run of a case, on TensorFlow and the CPU, in one process.

Runs in an environment that has both and need not have MPI. There are three ways to write it (``--way``):

fit        what Keras' tutorials show: ``fit`` on the rows in the epoch's order, not shuffled again
epoch      a loop over the steps of an epoch inside one ``tf.function``: gather, ``GradientTape``, ``Adam.apply``
epoch-xla  the same, with the step compiled by XLA (``jit_compile``), the gather not

Without ``--way`` both loops are tried for a few epochs, and the faster one runs; which one it is differs from model to model
and with the threads. ``fit`` is slower for every model here, so that it is run on demand only
(``.venv-keras/bin/python -m benchmarks.engines.keras_engine --case … --way fit``). Also tried, and slower than the loops: ``fit`` with XLA,
with one step a call of TensorFlow, or from a ``tf.data`` pipeline that gathers; a ``tf.function`` of one step that Python calls;
and XLA for the gather or for the whole epoch.

Keras adds Adam's epsilon to the root of the second moment before the bias of that is corrected, where this engine and
torch do so after it. Where gradients are small, its first steps are shorter. On mlp-10m that, and nothing else, is a difference of
6e-4 after 18 steps: torch with epsilon / sqrt(1 - 0.999 ** step) has Keras' loss.
"""

import argparse
import os
import time

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}

import keras
import numpy as np
import tensorflow as tf

from benchmarks.engines.cases import (
    CASES,
    EPSILON,
    LEARNING_RATE,
    Case,
    order,
    parser,
    training_row,
)
from benchmarks.harness import write_rows

_LOOPS = ("epoch", "epoch-xla")
# Of a trial: one to compile, and of the others the fastest counts.
_TRIAL_EPOCHS = 4

Epochs = list[tuple[float, float]]


def network(case: Case) -> tuple[keras.Model, keras.losses.Loss]:
    """The case's model with its initial parameters, and its loss."""
    widths = (*case.widths, 1) if case.is_logistic else case.widths
    layers = [keras.layers.Dense(width, activation="relu") for width in widths[1:-1]]
    model = keras.Sequential([keras.Input((widths[0],)), *layers, keras.layers.Dense(widths[-1])])
    shapes = [weight.shape for weight in model.get_weights()]
    initial = case.initial().values()
    model.set_weights([array.reshape(shape) for array, shape in zip(initial, shapes, strict=True)])
    losses = keras.losses
    kind = losses.BinaryCrossentropy if case.is_logistic else losses.SparseCategoricalCrossentropy
    return model, kind(from_logits=True)


def adam() -> keras.optimizers.Adam:
    """With the numbers of the other engines."""
    return keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON)


def run_fit(case: Case, x: np.ndarray, y: np.ndarray, batch: int, epochs: int) -> Epochs:
    """(seconds, mean loss) of every epoch by ``fit``; all steps of an epoch are one call of TensorFlow."""
    model, loss = network(case)
    model.compile(adam(), loss, steps_per_execution=len(x) // batch, jit_compile=False)
    measured = []
    for epoch in range(1, epochs + 1):
        rows = order(len(x), epoch)
        began = time.perf_counter()
        history = model.fit(x[rows], y[rows], batch_size=batch, shuffle=False, verbose=0)
        measured.append((time.perf_counter() - began, history.history["loss"][0]))
    return measured


def run_loop(
    case: Case, x: np.ndarray, y: np.ndarray, batch: int, epochs: int, with_xla: bool
) -> Epochs:
    """(seconds, mean loss) of every epoch by a loop of its own."""
    (model, loss_of), optimizer, steps = network(case), adam(), len(x) // batch
    weights = model.trainable_variables
    optimizer.build(weights)
    features, classes = tf.constant(x), tf.constant(y)

    @tf.function(jit_compile=with_xla)
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    @tf.function
    def train_epoch(rows):
        total = tf.zeros(())
        for step in tf.range(steps):
            mine = rows[step * batch : (step + 1) * batch]
            total += train_step(tf.gather(features, mine), tf.gather(classes, mine))
        return total

    measured = []
    for epoch in range(1, epochs + 1):
        rows = tf.constant(order(len(x), epoch))
        began = time.perf_counter()
        total = float(train_epoch(rows))
        measured.append((time.perf_counter() - began, total / steps))
    return measured


def train(options: argparse.Namespace) -> tuple[Epochs, str]:
    """(seconds, mean loss) of every epoch, and the way that was taken."""
    case, batch = CASES[options.case], options.rows_per_rank
    x, y = case.rows(batch * options.steps)
    y = y.astype(np.float32).reshape(-1, 1) if case.is_logistic else y.astype(np.int32)

    def run(way: str, epochs: int) -> Epochs:
        if way == "fit":
            return run_fit(case, x, y, batch, epochs)
        return run_loop(case, x, y, batch, epochs, with_xla=way == "epoch-xla")

    way = options.way or min(_LOOPS, key=lambda way: min(run(way, _TRIAL_EPOCHS)[1:]))
    return run(way, options.epochs), way


def main() -> None:
    """Train and write the row."""
    made = parser()
    made.add_argument("--way", choices=("fit", *_LOOPS), help="default: the faster loop")
    options = made.parse_args()
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    epochs, way = train(options)
    version = f"Keras {keras.__version__}, TensorFlow {tf.__version__}"
    write_rows(options.json, [training_row(options, "keras", 1, epochs, version=version, way=way)])


if __name__ == "__main__":
    main()
