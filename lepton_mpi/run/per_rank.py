"""Where the time and the memory of every rank went, and which rank made the others wait.

Nothing is measured for it: phases are timed anyway (``world.watchdog.PhaseClock``), and ranks tell each other once, at the end.

A rank works for itself in the phases ``OWN_WORK``; what it needs more of them than the others they spend waiting. The slowest
rank is the one of the most own work, and it is called slow where that is clearly more than the median of the others; the phase
is the one of the largest difference. Ranks that take turns on a core differ by chance, so the spread of the others counts, too.
"""

from __future__ import annotations

import platform
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lepton_mpi.run.run import Run

OWN_WORK = ("compute", "input")
STEP_PHASES = ("compute", "communication", "waiting", "input")

# More than the median of the others by so much of it, so much of the time in steps, so many median deviations and seconds.
_OF_MEDIAN, _OF_STEPS, _DEVIATIONS, _SECONDS = 0.5, 0.1, 3.0, 0.1


@dataclass(frozen=True)
class RankAccount:
    """What one rank says at the end.

    Attributes
    ----------
    rank, host : int, str
    seconds : mapping of str to float
        In each of ``world.heartbeats.PHASES`` of the run.
    memory_peak : int
        Bytes in memory at most (``ru_maxrss``), those among them that the host's ranks share.
    micro_batches : int
        Of a step, in the last epoch.
    """

    rank: int
    host: str
    seconds: Mapping[str, float]
    memory_peak: int
    micro_batches: int

    def record(self) -> dict[str, Any]:
        """For the metrics file."""
        return asdict(self)


@dataclass(frozen=True)
class SlowRank:
    """A rank that is clearly slower than the others.

    Attributes
    ----------
    rank, host, phase : int, str, str
        ``phase`` is one of ``OWN_WORK``.
    seconds, median_seconds : float
        Of the rank in that phase; the median of the others.
    micro_batches, median_micro_batches
        Likewise: a rank may have more to do.
    """

    rank: int
    host: str
    phase: str
    seconds: float
    median_seconds: float
    micro_batches: int
    median_micro_batches: float

    def __str__(self) -> str:
        text = (
            f"rank {self.rank}, {self.phase}: {self.seconds:.2f} s, the others {self.median_seconds:.2f} s (median)"
            f"; host {self.host}"
        )
        if self.micro_batches > self.median_micro_batches:
            text += f"; it has {self.micro_batches} micro-batches of a step, the others {self.median_micro_batches:g}"
        return text

    def record(self) -> dict[str, Any]:
        """For the metrics file."""
        return asdict(self)


def gather(run: Run) -> list[RankAccount]:
    """The accounts of all ranks, on every rank. Collective, once."""
    seconds = {name: round(value, 6) for name, value in run.phase_seconds().items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    batches = len(run.strategy.numbers)
    own = RankAccount(run.world.rank, platform.node(), seconds, peak, batches)
    found: list[RankAccount] = run.world.comm.allgather(own)
    return found


def slow_rank(accounts: Sequence[RankAccount]) -> SlowRank | None:
    """The slowest rank and its phase, if it is clearly slower than the others. None of a single rank."""
    if len(accounts) < 2:
        return None
    slowest = max(accounts, key=_own_work)
    others = [account for account in accounts if account is not slowest]
    works = [_own_work(account) for account in others]
    usual = median(works)
    spread = median(abs(work - usual) for work in works)
    in_steps = sum(account.seconds[name] for account in accounts for name in STEP_PHASES)
    limit = max(
        *(_OF_MEDIAN * usual, _OF_STEPS * in_steps / len(accounts)),
        *(_DEVIATIONS * spread, _SECONDS),
    )
    if _own_work(slowest) - usual <= limit:
        return None
    usual_of = {name: median(account.seconds[name] for account in others) for name in OWN_WORK}
    phase = max(OWN_WORK, key=lambda name: slowest.seconds[name] - usual_of[name])
    return SlowRank(
        *(slowest.rank, slowest.host, phase, slowest.seconds[phase], usual_of[phase]),
        *(slowest.micro_batches, median(account.micro_batches for account in others)),
    )


def _own_work(account: RankAccount) -> float:
    return sum(account.seconds[name] for name in OWN_WORK)
