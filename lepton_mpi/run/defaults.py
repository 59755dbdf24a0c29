"""Epochs, batch, learning rate and width where nobody has chosen them: a function of the training rows, features and outputs.

The rule, of ``mlp`` and ``logistic``; ranks, cores and time have no part in it, so it is the same for any number of ranks:

    epochs         400 / rows^(1/4), at least 30 and at most 200
    global batch   64
    learning rate  0.001
    hidden         128

All other models have long steps, and numbers of their own: 30 epochs, batch 64, learning rate 0.001, as every model had in earlier versions.
``benchmarks/default_tables.py`` holds the rule against those versions' and against other programs.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lepton_mpi.data.dataset import DataSet
from lepton_mpi.options.by_rule import EARLIER
from lepton_mpi.options.config import OPTIONS, Config
from lepton_mpi.wording import grouped

EPOCHS_MIN, EPOCHS_MAX = 30, 200
# Epochs of a single row, before the limits.
_EPOCHS_OF_ONE = 400
_BY_RULE = ("mlp", "logistic")


@dataclass(frozen=True)
class Facts:
    """What the rule goes by: training rows, numbers of a row, classes or targets."""

    rows: int
    features: int
    outputs: int
    outputs_text: str

    @staticmethod
    def of(data: DataSet) -> "Facts":
        """Of the rows of every epoch."""
        features = sum(spec.size for spec in data.inputs.values())
        rows = data.splits["train"].row_count
        return Facts(rows, features, data.output_count, data.outputs_text)

    def __str__(self) -> str:
        return f"{grouped(self.rows)} rows, {grouped(self.features)} features, {self.outputs_text}"


def epochs_for(rows: int) -> int:
    """Epochs of ``rows`` training rows.

    >>> [epochs_for(rows) for rows in (1, 16, 120, 400, 1000, 4000, 10000, 31606, 31607, 10**9)]
    [200, 200, 121, 89, 71, 50, 40, 30, 30, 30]
    """
    return min(EPOCHS_MAX, max(EPOCHS_MIN, round(_EPOCHS_OF_ONE / max(1, rows) ** 0.25)))


def rule(facts: Facts) -> dict[str, Any]:
    """Values of the options in ``EARLIER``, of ``mlp`` and ``logistic``."""
    return {**EARLIER, "epochs": epochs_for(facts.rows)}


@dataclass(frozen=True)
class Derived:
    """Options that nobody has chosen: their values by name, and where they come from.

    Those that the model does not have are not among them.
    """

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    origin: str = ""

    def __str__(self) -> str:
        """For the head of a run."""
        options = (
            f"{OPTIONS[name].flag} {OPTIONS[name].shown(v)}" for name, v in self.values.items()
        )
        return f"{' '.join(options)}, {self.origin}; an option that is given counts instead"


def settle(config: Config, facts: Facts, is_own_model: bool) -> tuple[Config, Derived]:
    """``config`` with a value of every option of ``EARLIER``, and which of them nobody has chosen."""
    is_by_rule = config.model in _BY_RULE and not is_own_model
    values = rule(facts) if is_by_rule else EARLIER
    left = {name: v for name, v in values.items() if getattr(config, name) is None}
    settled = dataclasses.replace(config, **left)
    if is_own_model or config.model not in OPTIONS["hidden"].of:  # which has no such widths
        left.pop("hidden", None)
    return settled, Derived(left, f"by rule from {facts}" if is_by_rule else "for any data")


def with_earlier(config: Config) -> Config:
    """``config`` with what earlier versions took for every option that it has no value of: of a checkpoint, whose run had one."""
    left = {name: value for name, value in EARLIER.items() if getattr(config, name) is None}
    return dataclasses.replace(config, **left) if left else config
