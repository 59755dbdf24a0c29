"""Epochs, batch, learning rate and width where nobody has chosen them: a function of the training rows, features and outputs.

The rule, of ``mlp`` and ``logistic``; ranks, cores and time have no part in it, so it is the same for any number of ranks:

    epochs         400 / rows^(1/4), at least 30 and at most 200
    global batch   64; 32 below 200 rows
    learning rate  0.001
    hidden         128; from 65 classes on the power of two that is at least twice as many, at most 1024

    rows     16    120    400   1 000   4 000   10 000   31 607 and more       classes   2 to 64   65 to 128   129 to 256   257 and more
    epochs  200    121     89      71      50       40                30       hidden        128         256          512          1 024

Adam moves a weight by about the learning rate a step, whatever the rows, so the number of steps counts: 30 epochs of 120 rows
are 60 steps, in which no weight of order 1 is learnt. Five hundred steps over 400 rows are enough; with 2 000 the
network knows them by heart, and r2 falls from 0.65 to 0.51 on prices of houses. Between the two the steps grow with the rows.
Tables below 200 rows get twice the steps by half the batch: the loss on iris' test rows goes from 0.18 to 0.11 (means of 3 splits), and on
g100, of 100 rows, from 0.20 to 0.19. A hundred classes do not go through 128 units: of 10 000 rows with 40 features accuracy goes
from 0.37 to 0.43 with 256.
All other models have long steps, and what earlier versions took: 30 epochs, batch 64, learning rate 0.001.
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
_BATCH_OF_FEW, _FEW_ROWS = 32, 200
_WIDTH_MAX = 1024


@dataclass(frozen=True)
class Facts:
    """What the rule goes by: training rows, numbers of a row, and classes, 0 for targets; in words what is to be predicted."""

    rows: int
    features: int
    classes: int
    outputs_text: str

    @staticmethod
    def of(data: DataSet) -> "Facts":
        """Of the rows of every epoch."""
        features = sum(spec.size for spec in data.inputs.values())
        rows = data.splits["train"].row_count
        return Facts(rows, features, len(data.class_names), data.outputs_text)

    def __str__(self) -> str:
        return f"{grouped(self.rows)} rows, {grouped(self.features)} features, {self.outputs_text}"


def epochs_for(rows: int) -> int:
    """Epochs of ``rows`` training rows.

    >>> [epochs_for(rows) for rows in (1, 16, 120, 400, 1000, 4000, 10000, 31606, 31607, 10**9)]
    [200, 200, 121, 89, 71, 50, 40, 30, 30, 30]
    """
    return min(EPOCHS_MAX, max(EPOCHS_MIN, round(_EPOCHS_OF_ONE / max(1, rows) ** 0.25)))


def width_for(classes: int) -> int:
    """Units of the hidden layer.

    >>> [width_for(classes) for classes in (0, 2, 64, 65, 128, 129, 10**6)]
    [128, 128, 128, 256, 256, 512, 1024]
    """
    least = 1 << (2 * max(1, classes) - 1).bit_length()
    return min(_WIDTH_MAX, max(EARLIER["hidden"][0], least))


def rule(facts: Facts) -> dict[str, Any]:
    """Values of the options in ``EARLIER``, of ``mlp`` and ``logistic``."""
    batch = _BATCH_OF_FEW if facts.rows < _FEW_ROWS else EARLIER["global_batch"]
    return {
        **EARLIER,
        "hidden": (width_for(facts.classes),),
        "epochs": epochs_for(facts.rows),
        "global_batch": batch,
    }


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
