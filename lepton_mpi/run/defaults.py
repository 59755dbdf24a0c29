"""Epochs where nobody has chosen them: a function of the training rows, so that small tables are trained to the end.

The rule, for ``mlp`` and ``logistic``: as many epochs as make 128 000 rows, at least 30 and at most 200.

    rows      120    640   1 000   2 000   4 000   54 000
    epochs    200    200     128      64      32       30

Adam moves a weight by about the learning rate a step, whatever the rows, so what counts is the number of steps: 30 epochs
of 120 rows are 60 steps, in which no weight of order 1 can be learnt. 200 is where scikit-learn's networks end, too.
All other models have long steps and keep 30. ``benchmarks/public_tables.py`` holds the rule against other programs.
"""

import dataclasses

from lepton_mpi.options.config import Config
from lepton_mpi.wording import grouped

EPOCHS_MIN, EPOCHS_MAX = 30, 200
# What the epochs add up to, between these limits.
ROWS_TRAINED = 128_000
_BY_ROWS = ("mlp", "logistic")


def epochs_for(model: str, row_count: int) -> int:
    """Epochs of ``row_count`` training rows.

    >>> [epochs_for("mlp", rows) for rows in (1, 640, 641, 1000, 4266, 4267, 54000)]
    [200, 200, 200, 128, 31, 30, 30]
    >>> epochs_for("gpt", 100)
    30
    """
    if model not in _BY_ROWS:
        return EPOCHS_MIN
    return min(EPOCHS_MAX, max(EPOCHS_MIN, -(-ROWS_TRAINED // max(1, row_count))))


def settle(config: Config, row_count: int, is_own_model: bool) -> tuple[Config, str]:
    """``config`` with ``epochs``, and how they came about, for the head of the run; empty where they were chosen."""
    if config.epochs is not None:
        return config, ""
    epochs = epochs_for("" if is_own_model else config.model, row_count)
    how = f"{epochs} epochs"
    if epochs > EPOCHS_MIN:
        how += f" by {grouped(row_count)} training rows"
    return dataclasses.replace(config, epochs=epochs), f"{how} (--epochs)"
