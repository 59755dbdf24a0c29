"""A lost rank ends the waits of the others: by a thread, whatever their own threads are in, and as often as ranks are lost."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from lepton_mpi import launcher
from lepton_mpi.collectives.within_host import meeting_kernels
from lepton_mpi.collectives.within_host.atomics import FIRST_FREE_WORD, LINE_WORDS
from lepton_mpi.collectives.within_host.plan_words import control_block, encode_meeting
from lepton_mpi.world import members, rank_group
from lepton_mpi.world.host_links import LEFT, LOST
from lepton_mpi.world.losses import Losses, RankLostError
from tests.serial.plan_host import PlanHost


class _Comm:
    """What is asked of a communicator."""

    def __init__(self) -> None:
        self.revoked = 0

    def Revoke(self) -> None:  # MPI's name
        self.revoked += 1


class _Links:
    """What is asked of a leader's connections, none of which says anything."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, ...]] = []

    def descriptors(self) -> list[int]:
        return []

    def send(self, kind: int, value: int = 0) -> None:
        self.sent.append((kind, value))

    def close(self) -> None:
        self.sent.append((LEFT,))


class _News:
    """What is asked of a ``LossNews``: on one host, or of a leader."""

    bell = -1

    def __init__(self, flag: np.ndarray) -> None:
        self.flag, self.links, self.told = flag, _Links(), set[int]()

    def tell(self, numbers: set[int]) -> None:
        self.told |= numbers

    def said(self) -> set[int]:
        return set()

    def close(self) -> None:
        pass


def _member(process: subprocess.Popen) -> members.Member:
    return members.own()._replace(number=process.pid, process_id=process.pid)


@pytest.fixture
def losses():
    made = Losses()
    yield made
    made.close()


@pytest.fixture
def ranks():
    """Processes that can be killed."""
    made = [
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in "12"
    ]
    yield made
    for each in made:
        each.kill()
        each.wait()
        each.stdin.close()


def _until(is_so) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_all_that_waits_is_ended(losses, ranks):
    """Communicators of before and of afterwards; words from the second line on; whoever shares the flag is told."""
    comms, flag, words = [_Comm(), _Comm()], np.zeros(1, np.int64), np.arange(64)
    first = rank_group.CONTROL_AT
    losses.hear(_News(flag), lambda news: None)
    losses.revoke_with(comms[0])
    losses.fill_with(words, first)
    losses.watch([losses.me, *map(_member, ranks)])
    losses.check()
    ranks[1].kill()
    _until(lambda: flag[0])
    with pytest.raises(RankLostError):
        losses.check()
    assert losses.explain(ValueError("of worthless numbers"))
    _until(lambda: words[first] > 1 << 60)
    assert (words[:first] == np.arange(first)).all() and (words[first:] > 1 << 60).all()
    words[40] = 7  # by a rank that had come to a meeting before
    _until(lambda: words[40] > 1 << 60)
    losses.revoke_with(comms[1])
    assert [comm.revoked > 0 for comm in comms] == [True, True]
    assert losses.dead == {ranks[1].pid}


def test_it_begins_anew_and_ends_again(losses, ranks):
    """What belonged to the ranks before is left alone; one that MPI takes for alive though it is gone counts as lost at once."""
    losses.watch([*map(_member, ranks)])
    ranks[0].kill()
    _until(lambda: losses.dead)
    losses.begin_anew()
    losses.check()
    assert not losses.explain(ValueError())
    losses.watch([_member(ranks[1])])
    losses.check()
    ranks[1].kill()
    _until(lambda: losses.dead == {each.pid for each in ranks})
    _until(lambda: losses.explain(ValueError()))
    losses.begin_anew()
    losses.watch([_member(ranks[0])])
    assert losses.explain(ValueError())


def test_a_leader_tells_the_next_world_who_was_lost_before_it_listened(losses, ranks):
    """The other leaders may listen to that one alone by then."""
    before, after = _News(np.zeros(1, np.int64)), _News(np.zeros(1, np.int64))
    losses.watch([losses.me, *map(_member, ranks)])
    losses.hear(before, lambda news: None)
    ranks[0].kill()
    _until(lambda: before.told == {ranks[0].pid})
    losses.begin_anew()
    losses.watch([losses.me, _member(ranks[1])])
    ranks[1].kill()
    _until(lambda: ranks[1].pid in losses.dead)
    losses.hear(after, lambda news: None)
    assert after.told == {ranks[1].pid} and after.flag[0]


def test_a_leader_whose_world_cannot_begin_says_who_was_lost(losses, ranks):
    """Before it leaves; not those that were left behind before."""
    losses.watch([losses.me, *map(_member, ranks)])
    ranks[0].kill()
    _until(lambda: losses.dead)
    losses.begin_anew()
    losses.watch([losses.me, _member(ranks[1])])
    links = _Links()
    later = threading.Timer(0.05, ranks[1].kill)  # MPI may say it first
    later.start()
    losses.give_up(links)
    assert links.sent == [(LOST, ranks[1].pid), (LEFT,)]
    later.join()


def test_an_error_of_the_program_is_no_loss(losses, ranks):
    """It ends the job as without the option."""
    losses.watch([*map(_member, ranks)])
    assert not losses.explain(ValueError())
    losses.check()


def test_an_error_may_come_before_the_word_of_linux(losses, ranks):
    """Another rank had it, and has revoked what this one was in."""
    losses.watch([_member(ranks[0])])
    later = threading.Timer(0.05, ranks[0].kill)
    later.start()
    assert losses.explain(ValueError("of what was revoked"))
    later.join()


def _meeting() -> tuple[np.ndarray, np.ndarray]:
    """The words of a control block for two ranks, and the plan of one of them."""
    group = PlanHost(2).groups[0]
    words = control_block(group)
    plan, _ = encode_meeting(group, words, [], np.zeros((1, 8), np.float32), 0, 0, "sum", [])
    plan[meeting_kernels.WAITS] = 1
    return words, plan


@pytest.mark.parametrize("kernel", ["host_barrier", "host_allreduce"])
def test_a_rank_that_waits_in_a_kernel_comes_out(losses, ranks, kernel):
    """Of a meeting to which the other rank never comes, asleep or not."""
    words, plan = _meeting()
    losses.fill_with(words, rank_group.CONTROL_AT)
    losses.watch([_member(ranks[0])])
    typed = plan if kernel == "host_barrier" else plan.view(np.float32)
    meet = getattr(meeting_kernels, kernel)
    waiting = threading.Thread(target=meet, args=(typed,), daemon=True)
    waiting.start()
    time.sleep(0.1)
    assert waiting.is_alive()
    ranks[0].kill()
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_rank_that_comes_to_words_that_were_filled_goes_on(losses, ranks):
    """Where it takes itself for the last to arrive, and what was filled in for another call: that has no end of its own."""
    words, plan = _meeting()
    losses.fill_with(words, rank_group.CONTROL_AT)
    losses.watch([_member(ranks[0])])
    ranks[0].kill()
    _until(lambda: words[meeting_kernels.ARRIVED] > 1 << 60)
    plan[meeting_kernels.EXPECTED] = (1 << 16) - 1
    args = (plan.view(np.float32),)
    waiting = threading.Thread(target=meeting_kernels.host_allreduce, args=args, daemon=True)
    waiting.start()
    waiting.join(10)
    assert not waiting.is_alive()
    assert losses.is_told


def test_the_line_that_is_left_alone_is_that_of_the_longest_sleep():
    """Which the world cannot ask the collectives for."""
    assert rank_group.CONTROL_AT == FIRST_FREE_WORD == LINE_WORDS


def test_who_tolerates_losses():
    """Open MPI says it to the ranks."""
    assert launcher.tolerates_losses({"OMPI_MCA_mpi_ft_enable": "1"})
    assert not launcher.tolerates_losses({"OMPI_MCA_mpi_ft_enable": "0"})
    assert not launcher.tolerates_losses({})
