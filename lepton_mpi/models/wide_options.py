"""Options of ``--model wide_and_deep`` alone. Imports no NumPy: ``--help wide_and_deep`` reads them."""

from dataclasses import dataclass
from typing import Literal

from lepton_mpi.options.kinds import Several, Text
from lepton_mpi.options.option import WHOLE_FROM_0, WHOLE_FROM_1, Checked, option


def columns_of(cross: str) -> tuple[str, ...]:
    """Names of the columns of a cross.

    >>> columns_of("age band * plan")
    ('age band', 'plan')
    """
    return tuple(name.strip() for name in cross.split("*"))


def _are_crosses(crosses: tuple[str, ...]) -> bool:
    """Whether each has two columns or more, each once, and none is there twice."""
    named = [columns_of(cross) for cross in crosses]
    each = all(len(set(names)) == len(names) >= 2 and all(names) for names in named)
    return each and len({frozenset(names) for names in named}) == len(named)


@dataclass(frozen=True, kw_only=True)
class WideOptions(Checked):
    """For tables with categories."""

    crosses: tuple[str, ...] = option(
        (),
        "of the wide part: columns of categories that count together, such as plan*region,plan*device",
        ("two different columns or more with * between them, each cross once", _are_crosses),
        kind=Several.of(Text("NAME*NAME"), ","),
    )
    cross_buckets: int = option(
        1000,
        "rows that a cross has at most; one of more values than that is hashed, so that some share a row",
        WHOLE_FROM_1,
    )
    embedding_width: int = option(
        0,
        "of the deep part: numbers for each category of a column; 0: min(50, 1.6 * categories^0.56) rounded up",
        WHOLE_FROM_0,
    )
    norm: Literal["none", "batch", "sync_batch", "layer"] = option(
        "none",
        "of the deep part: normalisation between a dense layer and its activation, over a micro-batch, all of a step or a row",
    )
