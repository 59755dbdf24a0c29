"""A thread that has the next rows ready before they are asked for.

    jobs    ──► thread: fill(slot) ──► ready ──► take() … give_back(slot) ──► free slots ──► thread

Jobs are filled and taken in one order. There are a few slots, memory that is made once; the thread waits where none
is free. What it raises is raised by the ``take`` that would have had its result.
"""

import queue
import threading
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any


class Prefetch:
    """Jobs that a thread does ahead. ``close`` ends the thread; so does the end of the process.

    Parameters
    ----------
    jobs : iterable
        Taken by the thread one after the other.
    slots : list
        At least one more than are kept taken at the same time.
    fill : callable (job, slot) -> result

    Attributes
    ----------
    wait_seconds : float
        Time that ``take`` has waited.
    """

    def __init__(
        self, jobs: Iterable[Any], slots: list[Any], fill: Callable[[Any, Any], Any]
    ) -> None:
        self.wait_seconds = 0.0
        self._jobs, self._fill, self._is_over = jobs, fill, False
        self._free: queue.SimpleQueue = queue.SimpleQueue()
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def take(self) -> tuple[Any, Any]:
        """(result, slot) of the next job; raises what its ``fill`` raised, or the iterator of the jobs.

        LookupError if there is no job left.
        """
        began = perf_counter()
        result, slot, error = self._ready.get()
        self.wait_seconds += perf_counter() - began
        if error is not None:
            self._ready.put(
                (None, None, error)
            )  # nothing else comes: who asks again must not wait for ever
            raise error
        return result, slot

    def give_back(self, slot: Any) -> None:
        """The slot may be filled again."""
        self._free.put(slot)

    def close(self) -> None:
        """End the thread, after the job that it is doing."""
        self._is_over = True
        self._free.put(None)  # should it be waiting for a slot
        self._thread.join()

    def _work(self) -> None:
        try:
            for job in self._jobs:
                slot = self._free.get()
                if self._is_over:
                    return
                self._ready.put((self._fill(job, slot), slot, None))
            raise LookupError("every job has been taken")
        except BaseException as error:  # told to whoever waits, which is the rank's own thread
            self._ready.put((None, None, error))
