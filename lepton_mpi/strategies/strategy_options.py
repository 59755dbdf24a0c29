"""Options that one strategy alone has. Imports neither NumPy nor Numba: ``--help`` reads it."""

from dataclasses import dataclass
from typing import Literal

from lepton_mpi.options.option import (
    ABOVE_0,
    AT_LEAST_0,
    FRACTION,
    WHOLE_FROM_0,
    WHOLE_FROM_1,
    Check,
    Checked,
    option,
)

_UP_TO_1: Check = ("a number above 0, up to 1", lambda value: 0 < value <= 1)
_EVERY = "steps that a worker makes by itself between two meetings"
_WORKERS = (
    "who makes steps by itself: each rank, or the ranks of a host together, as with --strategy sync"
)


@dataclass(frozen=True, kw_only=True)
class LocalOptions(Checked):
    """Local SGD: Stich, ICLR 2019; post-local: Lin et al., ICLR 2020; growing: Gu et al., ICLR 2024."""

    sync_every: int = option(8, _EVERY, WHOLE_FROM_1)
    sync_first: int = option(
        0,
        "steps at the run's beginning after each of which workers meet (post-local)",
        WHOLE_FROM_0,
    )
    sync_growth: float = option(
        0.0,
        "let meetings become rarer as the learning rate falls, every (this / rate)^2 steps; 0: never",
        AT_LEAST_0,
    )
    workers: Literal["ranks", "hosts"] = option("ranks", _WORKERS)


@dataclass(frozen=True, kw_only=True)
class DilocoOptions(Checked):
    """Defaults: Douillard et al., "DiLoCo", 2023, with meetings for runs of fewer steps than theirs, of 500; overlap: their "Streaming DiLoCo", 2025."""

    sync_every: int = option(50, _EVERY, WHOLE_FROM_1)
    outer_rate: float = option(0.7, "learning rate of the outer step, at a meeting", ABOVE_0)
    outer_momentum: float = option(0.9, "of the outer step, Nesterov's", FRACTION)
    fragments: int = option(
        1, "parts of the parameters that meet in turn, so that less is sent at once", WHOLE_FROM_1
    )
    overlap_steps: int = option(
        0,
        "steps that a worker goes on making while its part of the mean is on its way; fewer than --sync-every; 0: it waits",
        WHOLE_FROM_0,
    )
    overlap_mixing: float = option(
        0.5,
        "with --overlap-steps: part of a worker's own parameters that stays when the mean has come",
        FRACTION,
    )
    across_epochs: bool = option(
        False,
        "an epoch's end without a checkpoint is no meeting; what is evaluated there are the parameters of the last one",
    )
    workers: Literal["ranks", "hosts"] = option("ranks", _WORKERS)


@dataclass(frozen=True, kw_only=True)
class HierarchicalOptions(Checked):
    """Of synchronous hosts that meet as ``between`` says."""

    between: Literal["local", "diloco"] = option("local", "how hosts meet")
    sync_every: int = option(
        8, "steps that a host makes by itself between two meetings", WHOLE_FROM_1
    )


@dataclass(frozen=True, kw_only=True)
class ElasticOptions(Checked):
    """Defaults: Zhang, Choromanska and LeCun, "Deep learning with elastic averaging SGD", NeurIPS 2015."""

    sync_every: int = option(4, _EVERY, WHOLE_FROM_1)
    elasticity: float = option(
        0.9, "how far the centre moves towards the workers' mean at a meeting", _UP_TO_1
    )


@dataclass(frozen=True, kw_only=True)
class GossipOptions(Checked):
    """Who averages with whom after a step; asynchronous: Lian et al., ICML 2018."""

    topology: Literal["ring", "exponential", "one_peer", "random", "random_push", "complete"] = (
        option("one_peer", "of each step's exchange")
    )
    sync_every: int = option(1, "steps that a worker makes between two exchanges", WHOLE_FROM_1)
    asynchronous: bool = option(
        False,
        "take what others have published last, and wait for nobody before the epoch's end (AD-PSGD); other bits each time",
    )


@dataclass(frozen=True, kw_only=True)
class BoundedOptions(Checked):
    """Stale-synchronous parallel, and Hogwild."""

    staleness: int = option(
        4,
        "steps that a rank may be ahead of the slowest; 0: none, as with --strategy sync",
        WHOLE_FROM_0,
    )
    locks: bool = option(True, "ranks update a slice one after the other; false: at once (Hogwild)")
