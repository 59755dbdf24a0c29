"""scikit-learn's run of a case, in one process, by its ``MLPClassifier`` with Adam.

Runs in an environment that has it and need not have MPI. ``partial_fit`` gets the rows of an epoch in order and goes over
them once, a batch a step: that is its own loop, as ``fit`` runs it, without the checks of a call for every batch.
Without a hidden layer and with two classes that classifier is logistic regression. scikit-learn's others have no Adam:
``LogisticRegression`` takes all rows at each step, ``SGDClassifier`` one, so that their losses could not be compared.

scikit-learn adds epsilon where Keras does (``keras_engine.py``).
"""

import argparse
import time

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

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


def network(case: Case, batch: int, x: np.ndarray, y: np.ndarray) -> MLPClassifier:
    """The case's model with its initial parameters."""
    model = MLPClassifier(
        case.widths[1:-1],
        solver="adam",
        alpha=0,
        batch_size=batch,
        learning_rate_init=LEARNING_RATE,
        epsilon=EPSILON,
        shuffle=False,
    )
    # Arrays are made by the first step only. Then parameters are set, and what Adam remembers of the step is forgotten.
    model.partial_fit(x[:batch], y[:batch], classes=np.arange(case.class_count))
    arrays = [
        array for layer in zip(model.coefs_, model.intercepts_, strict=True) for array in layer
    ]
    for array, initial in zip(arrays, case.initial().values(), strict=True):
        assert array.dtype == np.float32
        array[...] = initial.reshape(array.shape)
    del model._optimizer
    return model


def train(options: argparse.Namespace) -> list[tuple[float, float]]:
    """(seconds, mean loss) of every epoch."""
    case, batch = CASES[options.case], options.rows_per_rank
    x, y = case.rows(batch * options.steps)
    model, epochs = network(case, batch, x, y), []
    for epoch in range(1, options.epochs + 1):
        rows = order(len(x), epoch)
        began = time.perf_counter()
        model.partial_fit(x[rows], y[rows])
        epochs.append((time.perf_counter() - began, float(model.loss_)))
    return epochs


def main() -> None:
    """Train and write the row."""
    options = parser().parse_args()
    with threadpool_limits(options.threads):
        epochs = train(options)
    row = training_row(options, "sklearn", 1, epochs, version=sklearn.__version__)
    write_rows(options.json, [row])


if __name__ == "__main__":
    main()
