"""Which fault comes next: one of some kinds, at a step ahead, from a seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from lepton_mpi.fault_points import OF_CHECKPOINTS, Fault


@dataclass(frozen=True)
class Situation:
    """What is known before a start: the last step that is saved, the run's last step, ranks, faults that are still to come."""

    saved_step: int
    last_step: int
    ranks: int
    faults_left: int


def _at(draw: Random, now: Situation) -> int:
    """A step that leaves about as many for each of the faults that come after it."""
    ahead = max(1, now.last_step - now.saved_step - 1)
    return now.saved_step + draw.randint(1, max(1, min(ahead, 2 * ahead // (now.faults_left + 1))))


def _one_rank(action: str, point: str = "step") -> Callable[[Random, Situation], list[Fault]]:
    def faults(draw: Random, now: Situation) -> list[Fault]:
        return [Fault(point, action, _at(draw, now), draw.randrange(now.ranks))]

    return faults


def _all_ranks(draw: Random, now: Situation) -> list[Fault]:
    return [Fault("step", "kill", _at(draw, now))]


def _launcher(draw: Random, now: Situation) -> list[Fault]:
    return [Fault("step", "kill_launcher", _at(draw, now), draw.randrange(now.ranks))]


def _in_a_save(draw: Random, now: Situation) -> list[Fault]:
    """The next one, of whatever step."""
    return [Fault(draw.choice(OF_CHECKPOINTS), "kill")]


def _disk(action: str, seconds: float = 0.0) -> Callable[[Random, Situation], list[Fault]]:
    """Every save of this start, and a rank that is killed while the run goes on all the same."""

    def faults(draw: Random, now: Situation) -> list[Fault]:
        saves = Fault("checkpoint.before_rename", action, seconds=seconds)
        return [saves, *_one_rank("kill")(draw, now)]

    return faults


KINDS: Mapping[str, Callable[[Random, Situation], list[Fault]]] = {
    "kill": _one_rank("kill"),
    "kill_in_exchange": _one_rank("kill", "exchange"),
    "kill_all": _all_ranks,
    "kill_launcher": _launcher,
    "kill_in_save": _in_a_save,
    "stop": _one_rank("stop"),
    "crash": _one_rank("segv"),
    "raise": _one_rank("raise"),
    "preempt": _one_rank("term"),
    "slow_disk": _disk("sleep", 0.5),
    "full_disk": _disk("full"),
    "broken_disk": _disk("error"),
    "cut_network": _one_rank("cut"),
}
# A single host has no network to lose: there, ranks share memory.
ON_ONE_HOST = tuple(name for name in KINDS if name != "cut_network")
# A rank alone that is stopped keeps nobody waiting: it waits itself, for whoever has stopped it, and would do so for ever.
_OF_SEVERAL_RANKS = ("stop",)


def ranks_for(kind: str, ranks: Sequence[int]) -> list[int]:
    """Those numbers of ranks with which a start can have this kind of fault, or none with ``kind`` empty."""
    return [count for count in ranks if count > 1 or kind not in _OF_SEVERAL_RANKS]


def in_turn(kinds: Sequence[str], count: int, draw: Random) -> list[str]:
    """``count`` kinds: each as often as the others, give or take one, in random order."""
    found: list[str] = []
    while len(found) < count:
        found += draw.sample(kinds, len(kinds))
    found = found[:count]
    draw.shuffle(found)
    return found
