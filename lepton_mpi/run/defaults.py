"""Epochs where nobody has chosen them: a function of the training rows, so that small tables are trained and not learnt by heart.

The rule, for ``mlp`` and ``logistic``: 400 divided by the fourth root of the training rows, at least 30 and at most 200.

    rows      16    120    400   1 000   4 000   10 000   31 607 and more
    epochs   200    121     89      71      50       40                30

Adam moves a weight by about the learning rate a step, whatever the rows, so the number of steps counts: 30 epochs of 120 rows
are 60 steps, in which no weight of order 1 is learnt. Five hundred steps over 400 rows are enough; with 2 000 the
network knows them by heart, and r2 falls from 0.65 to 0.51 on prices of houses. Between the two the steps grow with the rows.
All other models have long steps and keep 30. ``benchmarks/public_tables.py`` holds the rule against another program's.
"""

import dataclasses

from lepton_mpi.options.config import Config
from lepton_mpi.wording import grouped

EPOCHS_MIN, EPOCHS_MAX = 30, 200
# Epochs of a single row, before the limits.
_EPOCHS_OF_ONE = 400
_BY_ROWS = ("mlp", "logistic")


def epochs_for(model: str, row_count: int) -> int:
    """Epochs of ``row_count`` training rows.

    >>> [epochs_for("mlp", rows) for rows in (1, 16, 120, 400, 1000, 4000, 10000, 31606, 31607, 10**9)]
    [200, 200, 121, 89, 71, 50, 40, 30, 30, 30]
    >>> epochs_for("gpt", 100)
    30
    """
    if model not in _BY_ROWS:
        return EPOCHS_MIN
    return min(EPOCHS_MAX, max(EPOCHS_MIN, round(_EPOCHS_OF_ONE / max(1, row_count) ** 0.25)))


def settle(config: Config, row_count: int, is_own_model: bool) -> tuple[Config, str]:
    """``config`` with ``epochs``, and how they came about, for the head of the run; empty where they were chosen."""
    if config.epochs is not None:
        return config, ""
    epochs = epochs_for("" if is_own_model else config.model, row_count)
    by_rows = f" for {grouped(row_count)} rows" if epochs > EPOCHS_MIN else ""
    return dataclasses.replace(config, epochs=epochs), f"{epochs} epochs{by_rows} (--epochs)"
