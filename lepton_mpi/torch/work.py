"""``Work``: a call of a process group, done or under way; ``Turns``: in which thread, and in which order, calls are carried out.

    dist.all_reduce(x)                  in the caller, once all calls before it are done: no change of threads
    dist.all_reduce(x, async_op=True)   by a helper thread of the process group, which is started with the first such call

The calls of one process group are carried out one at a time and in the order in which they were made, whichever thread does it;
those of different groups side by side. So two groups may be used in any order by each rank, as with gloo.
An error of a call is raised by its ``wait``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from torch.distributed import Work


class CallWork(Work):
    """What all kinds of work have in common; ``wait`` and ``is_completed`` are a kind's own.

    Parameters
    ----------
    tensors : list of Tensor
        What ``result`` gives.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self._tensors, self._source = tensors, -1

    def synchronize(self) -> None:
        """The same as ``wait``."""
        self.wait()

    def is_success(self) -> bool:
        """Whether it has ended; an error was raised by the call, or ends the job."""
        return self.is_completed()

    def exception(self) -> BaseException | None:
        """None: an error was raised by the call, or ends the job."""
        return None

    def result(self) -> list[Tensor]:
        """Where the result is; waits for it."""
        self.wait()
        return self._tensors

    def source_rank(self) -> int:
        """Rank in the group that a message came from; collectives have none."""
        return self._source

    _source_rank = source_rank

    def get_future(self) -> Any:
        """A future that is done: this waits."""
        future: torch.futures.Future[list[Tensor]] = torch.futures.Future()
        future.set_result(self.result())
        return future


class DoneWork(CallWork):
    """A call that ended before it returned."""

    def wait(self, timeout: timedelta | None = None) -> bool:
        """At once."""
        return True

    def is_completed(self) -> bool:
        """Always."""
        return True


class HelpedWork(CallWork):
    """A call that the helper thread carries out."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__(tensors)
        self._is_done = threading.Event()
        self._error: BaseException | None = None
        # Not by set_exception: it gives C++, DDP's reducer among it, the exception as a value, of which that makes a tensor.
        self._ended: torch.futures.Future[None] = torch.futures.Future()
        self._future = self._ended.then(self._outcome)

    def _outcome(self, _: Any) -> list[Tensor]:
        if self._error is not None:
            raise self._error
        return self._tensors

    def finish(self, error: BaseException | None) -> None:
        """The call has ended; called once, by the helper."""
        self._error = error
        self._is_done.set()
        self._ended.set_result(None)

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Until the call has ended; RuntimeError after ``timeout``, if it is above 0, and whatever the call raised."""
        seconds = timeout.total_seconds() if timeout else 0.0
        if not self._is_done.wait(seconds if seconds > 0 else None):
            raise RuntimeError(f"the call did not end in {seconds:g} s (timeout of wait)")
        if self._error is not None:
            raise self._error
        return True

    def is_completed(self) -> bool:
        """Whether it has ended, with an error or without."""
        return self._is_done.is_set()

    def is_success(self) -> bool:
        """Whether it has ended without an error."""
        return self._is_done.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        """What it raised."""
        return self._error

    def get_future(self) -> Any:
        """A future of ``result``; its callbacks run in the helper thread."""
        return self._future


class JointWork(CallWork):
    """Several calls as one."""

    def __init__(self, works: list[Any]) -> None:
        super().__init__([])
        self._works = works

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Until all have ended."""
        return all([work.wait(timeout) if timeout else work.wait() for work in self._works])

    def is_completed(self) -> bool:
        """Whether all have ended."""
        return all(work.is_completed() for work in self._works)

    def is_success(self) -> bool:
        """Whether all have ended without an error."""
        return all(work.is_success() for work in self._works)

    def result(self) -> list[Tensor]:
        """All their results."""
        return [tensor for work in self._works for tensor in work.result()]

    def get_future(self) -> Any:
        """Of all of them."""
        return torch.futures.collect_all([work.get_future() for work in self._works])


class Turns:
    """Carries out the calls of one process group, one at a time, in the order in which they were made."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._caller = threading.Lock()
        self._communicator = threading.Lock()
        self._idle = threading.Condition()
        self._waiting = 0
        self._queue: SimpleQueue[tuple[Callable[[], None], HelpedWork] | None] = SimpleQueue()
        self._helper: threading.Thread | None = None

    def now(self, call: Callable[[], None]) -> None:
        """In this thread, after all calls before it."""
        with self._caller:
            if self._waiting:
                self.drain()
            with self._communicator:
                call()

    def later(self, call: Callable[[], None], work: HelpedWork) -> HelpedWork:
        """In the helper thread, which then finishes ``work``."""
        with self._caller:
            with self._idle:
                self._waiting += 1
            if self._helper is None:
                name = f"lepton_mpi {self._name}"
                self._helper = threading.Thread(target=self._help, name=name, daemon=True)
                self._helper.start()
            self._queue.put((call, work))
        return work

    def close(self, timeout_seconds: float) -> None:
        """After the calls that were made; those that do not end in time are left behind."""
        if self._helper is None:
            return
        self._queue.put(None)
        self._helper.join(timeout_seconds)
        self._helper = None

    def drain(self) -> None:
        """Return once the helper has nothing to do."""
        with self._idle:
            while self._waiting:
                self._idle.wait()

    def _help(self) -> None:
        while (item := self._queue.get()) is not None:
            call, work = item
            error = None
            try:
                with self._communicator:
                    call()
            except BaseException as raised:
                error = raised
            with self._idle:
                self._waiting -= 1
                if not self._waiting:
                    self._idle.notify_all()
            work.finish(error)
            del item, call, work, error


def seconds_of(timeout: timedelta | None, otherwise: float) -> float:
    """Seconds of an option of torch, in which a negative time stands for none."""
    seconds = timeout.total_seconds() if timeout is not None else -1.0
    return seconds if seconds > 0 else otherwise
