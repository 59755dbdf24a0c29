"""Rules of arithmetic that a later version changed: a run goes on by those with which it began.

A checkpoint says by which, in its attribute ``arithmetic``; without it, by the first. Whoever changes a rule adds a number here.
"""

from dataclasses import dataclass

from lepton_mpi.options.config import Config
from lepton_mpi.registry import is_own_file


@dataclass(frozen=True)
class Arithmetic:
    """What runs of one number do otherwise than those of another.

    Attributes
    ----------
    rates_count_from_1 : bool
        ``Schedule.counts_from_1``.
    decays_by_dimensions : bool
        Weight decay acts on arrays of two or more dimensions, whatever ``Model.decayed`` says.
    blocks_begin_whole : bool
        ``BlockShuffle.begins_whole``.
    """

    rates_count_from_1: bool
    decays_by_dimensions: bool
    blocks_begin_whole: bool


BY_NUMBER = {
    1: Arithmetic(rates_count_from_1=True, decays_by_dimensions=True, blocks_begin_whole=True),
    2: Arithmetic(rates_count_from_1=False, decays_by_dimensions=False, blocks_begin_whole=False),
}
FIRST, NEWEST = min(BY_NUMBER), max(BY_NUMBER)


def changed_options(number: int, config: Config, shuffle: str) -> list[str]:
    """Options of a run, as it would be typed, that a new run would follow by other rules; ``shuffle`` is "full" or "blocks"."""
    rules, newest = BY_NUMBER[number], BY_NUMBER[NEWEST]
    has_other_weights = config.model == "logistic" or is_own_file(config.model)
    differs = {
        f"--schedule {config.schedule}": config.schedule != "constant"
        and rules.rates_count_from_1 != newest.rates_count_from_1,
        f"--weight-decay {config.weight_decay:g}": config.weight_decay > 0
        and has_other_weights
        and rules.decays_by_dimensions != newest.decays_by_dimensions,
        "--shuffle blocks": shuffle == "blocks"
        and rules.blocks_begin_whole != newest.blocks_begin_whole,
    }
    return [option for option, is_other in differs.items() if is_other]
