"""A job that is asked to stop by a signal, or by the time: all ranks agree on the step after which they do, without a message in any other step.

    word 0      number of the signal, once a rank of the host got one; 1000 if the time is over
    word 1, 2   the step proposed; whether all hosts have agreed to it
    from 3 on   per local rank: steps made, -1 before training begins

After each step a rank writes its number and compares word 1 with it: a store and a load in shared memory. The rest is done by the
watchdogs' threads of the leaders, over the connections of ``host_links.py``:

    any rank         signal -> word 0, and its leader is woken by the same signal
    leader           tells the leader of host 0
    leader of host 0 proposes a step that is two behind the last one made, or more where that was too late, to all hosts
    every leader     writes it and then looks at its ranks: none may have come so far. It says yes, or no and how far they are.
    leader of host 0 after yes from all: decided; after a no: proposes a later step

A rank may ask for it, too, without a signal. If the ranks then end their run by an error, and the job goes on, they forget it: the leader of
host 0 says so to all others, and has their answers behind all that they said before.

A rank that comes to a proposed step waits until it is decided or replaced. Two steps, since a rank's last store may still be on its
way to the leader's core; it is not when the rank has made another step.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from lepton_mpi import early_signals
from lepton_mpi.errors import LeptonError
from lepton_mpi.world.host_links import (
    DECIDED,
    FORGOTTEN,
    NO,
    PROPOSED,
    WANTED,
    YES,
    HostLinks,
    News,
)

if TYPE_CHECKING:
    from lepton_mpi.world.rank_group import RankGroup

SIGNALS = (*early_signals.SIGNALS, signal.SIGINT)

# In place of a signal's number: the time is over.
_TIME_LIMIT = 1000

_SIGNAL, _STEP, _IS_DECIDED, _MADE = 0, 1, 2, 3
# In place of a signal's number.
_ASKED = 1 << 16
_WAIT_SECONDS = 0.001
# Of steps, between the last one made and the next one proposed, which doubles while that is too late.
_MARGIN_MAX = 1024
# Of the blocks of ``caught_signals`` that this process is in, the inner ones last.
_RELEASES: list[Callable[[], None]] = []


class Stopping:
    """The agreement of a job on where to stop. Collective over the job to make.

    Parameters
    ----------
    group : RankGroup
        All ranks.
    links : HostLinks
    leader_process_id : int
        Of the host's local rank 0.
    """

    def __init__(self, group: RankGroup, links: HostLinks, leader_process_id: int) -> None:
        words: Any = group.host_array((_MADE + group.local_size,), "int64")
        # Faster than an array's.
        self._words: memoryview[int] = memoryview(words)
        self._own, self._stop = _MADE + group.local_rank, _MADE + group.local_size
        self._words[self._own] = -1
        group.host_barrier()
        self._losses = group.losses
        self._links, self._leader = links, leader_process_id
        self._is_leader = group.local_rank == 0
        self._is_root = self._is_leader and group.host_index == 0
        self._others = group.host_count - 1
        self._fence = threading.Lock()
        self._agreed: set[int] = set()
        self._is_open, self._margin = False, 2
        self._stop_at = math.inf
        self._lock, self._answers, self._is_forgetting = threading.Lock(), 0, False

    def begin(self, step: int) -> None:
        """Training begins with step ``step + 1``."""
        self._words[self._own] = step

    def is_due(self, step: int) -> bool:
        """Whether all ranks stop after ``step``, which this rank has just made. Call it after every step."""
        words = self._words
        words[self._own] = step
        while words[_STEP] == step:
            if words[_IS_DECIDED]:
                return True
            if self._losses:
                self._losses.check()
            time.sleep(_WAIT_SECONDS)
        return False

    def stop_at(self, seconds: float) -> None:
        """Have the ranks stop when ``time.monotonic()`` of rank 0 is ``seconds``; others need not be told, nor may they tell.

        Any thread may call it, also again with another time.
        """
        self._stop_at = seconds

    @property
    def is_by_time(self) -> bool:
        """Whether it is the time that stops them, and not a signal; known on rank 0."""
        return self._words[_SIGNAL] == _TIME_LIMIT

    def ask(self) -> None:
        """This rank wants all to stop, soon: the leader's watchdog looks about once a second. Does nothing where hosts cannot agree."""
        if not self._links.unwatched:
            self._words[_SIGNAL] = self._words[_SIGNAL] or _ASKED

    @property
    def has_signal(self) -> bool:
        """Whether this host knows of a signal."""
        return self._words[_SIGNAL] not in (0, _ASKED)

    @property
    def wanted(self) -> int:
        """The signal, or 0: what another ``Stopping`` is to be asked for in place of this one."""
        return int(self._words[_SIGNAL]) if self.has_signal else 0

    def forget(self) -> None:
        """All that was asked for. Collective over the job, which meets afterwards."""
        if not self._is_leader or self._links.unwatched:
            return
        if self._is_root:
            with self._lock:
                self._is_forgetting = True
                self._links.send(FORGOTTEN)
        is_over = self._all_have_forgotten if self._is_root else self._has_forgotten
        while not is_over():
            time.sleep(_WAIT_SECONDS)
        with self._lock:
            self._begin_anew()

    def _all_have_forgotten(self) -> bool:
        return self._answers == self._others

    def _has_forgotten(self) -> bool:
        return self._answers > 0

    def _begin_anew(self) -> None:
        for word in (_SIGNAL, _STEP, _IS_DECIDED):
            self._words[word] = 0
        self._is_open, self._margin, self._answers, self._is_forgetting = False, 2, 0, False

    @property
    def reason(self) -> str:
        """Name of the signal; ``a signal`` where another host got it."""
        number = self._words[_SIGNAL]
        if number == _ASKED:
            return "a rank's request"
        return signal.Signals(number).name if number in SIGNALS else "a signal"

    # -- the watchdog's thread ---------------------------------------------------------------------

    def want(self, number: int) -> None:
        """This rank got a signal."""
        is_first = not self._words[_SIGNAL]
        self._words[_SIGNAL] = self._words[_SIGNAL] or number
        if self._is_leader:
            self.look()
        elif is_first:
            os.kill(self._leader, signal.SIGUSR1)

    def look(self) -> None:
        """What is to be done by a leader; called about once a second, too."""
        if self._is_root and time.monotonic() >= self._stop_at and not self._words[_SIGNAL]:
            self._words[_SIGNAL] = _TIME_LIMIT
        with self._lock:
            self._look()

    def _look(self) -> None:
        if not self._is_leader or not self._words[_SIGNAL] or self._words[_IS_DECIDED]:
            return
        if not self._is_root:
            self._links.send(WANTED, self._words[_SIGNAL])
        elif not self._is_open and not self._is_forgetting:
            self._propose(self._last_made())

    def heard(self, news: News) -> None:
        """From the leader of another host."""
        with self._lock:
            self._heard(news)

    def _heard(self, news: News) -> None:
        step = self._words[_STEP]
        if news.kind == FORGOTTEN:
            self._answers += 1
            if not self._is_root:
                self._links.send(FORGOTTEN)
        if self._is_forgetting:
            return
        if news.kind == WANTED:
            self._words[_SIGNAL] = self._words[_SIGNAL] or news.value
            self._look()
        elif news.kind == PROPOSED:
            answer = (YES, news.value) if self._write(news.value) else (NO, self._last_made())
            self._links.send(*answer)
        elif news.kind == DECIDED:
            self._words[_IS_DECIDED] = 1
        elif news.kind == YES and news.value == step and self._is_open:
            self._agreed.add(news.host)
            if len(self._agreed) == self._others:
                self._decide()
        elif news.kind == NO and self._is_open:
            self._is_open = False
            if news.value >= 0:  # else that host has not begun: ask again in a second
                self._propose(max(news.value, self._last_made()))

    def _propose(self, last_made: int) -> None:
        if last_made < 0:
            return
        step = last_made + self._margin
        self._margin = min(2 * self._margin, _MARGIN_MAX)
        while not self._write(step):
            if min(self._words[_MADE : self._stop]) < 0:
                return
            step = self._last_made() + self._margin
        self._agreed.clear()
        self._is_open = True
        if self._others:
            self._links.send(PROPOSED, step)
        else:
            self._decide()

    def _write(self, step: int) -> bool:
        """Have the ranks of this host wait after ``step``; whether all of them will come to it."""
        self._words[_STEP] = step
        with self._fence:  # the store is seen before the loads
            made = self._words[_MADE : self._stop]
        return min(made) >= 0 and max(made) <= step - 2

    def _decide(self) -> None:
        self._words[_IS_DECIDED] = 1
        self._links.send(DECIDED)

    def _last_made(self) -> int:
        made = self._words[_MADE : self._stop]
        return max(made) if min(made) >= 0 else -1


@contextmanager
def caught_signals(file: int, goes_on: bool = False) -> Iterator[None]:
    """A block in which the signals are written to ``file``, a byte each, and do nothing else; so are those that ``early_signals`` has.

    With ``goes_on`` an error that leaves the block, but one that all ranks agree on, is no end, so that ``early_signals`` has the signals from then on.
    Does nothing outside the main thread, in an interactive Python, and where somebody else handles a signal.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or hasattr(sys, "ps1") or file < 0:
        yield
        return
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before: dict[int, Any] = {number: early_signals.handler(number) for number in SIGNALS}
    taken = [number for number in SIGNALS if before[number] in usual]
    wakeup = signal.set_wakeup_fd(file, warn_on_full_buffer=False)
    process = os.getpid()

    def release(is_end: bool = True) -> None:
        signal.set_wakeup_fd(wakeup)
        for number in taken:
            if signal.getsignal(number) is _noted:
                signal.signal(number, before[number] if is_end else early_signals.keep)

    for number in taken:
        signal.signal(number, _noted)
    os.write(file, bytes(early_signals.taken()))
    _release_in_children()
    _RELEASES.append(release)
    is_end = True
    try:
        yield
    except Exception as error:
        is_end = not goes_on or (isinstance(error, LeptonError) and error.agreed)
        raise
    finally:
        if os.getpid() == process:
            _RELEASES.pop()
            release(is_end)


@cache
def _release_in_children() -> None:
    """One hook for the whole process: Python cannot take one back."""
    os.register_at_fork(after_in_child=_release_all)


def _release_all() -> None:
    """A child ends by SIGTERM, as others do."""
    while _RELEASES:
        _RELEASES.pop()()


def _noted(number: int, frame: object) -> None:
    """Python has written the number already."""
