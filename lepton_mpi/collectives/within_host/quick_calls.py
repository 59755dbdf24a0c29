"""Calls of a communicator by one kernel, without Python between: what it has to know, and when it knows it."""

from __future__ import annotations

from collections.abc import Callable
from sys import intern

import numpy as np

from lepton_mpi.collectives.calls import Combination
from lepton_mpi.collectives.group import Clock
from lepton_mpi.collectives.within_host import quick_kernels as kernels
from lepton_mpi.collectives.within_host.row_folds import fold_words
from lepton_mpi.collectives.within_host.staging import StagedCollectives
from lepton_mpi.errors import LeptonError
from lepton_mpi.kernels.python_functions import arrays_fit, python_function

DECLINED = kernels.DECLINED


class QuickCalls:
    """The way for short calls, and moves of any length, that were made before with arrays of the same dtype, operation and kind.

    Parameters
    ----------
    clock : Clock
        Of this rank.
    host : StagedCollectives or None
        Whose short calls these are; None where there is no such way.

    Attributes
    ----------
    call : callable
        ``(verb, output, input, root, op, kind) -> int``: 0 for done, DECLINED if the call is still to be made; else who differs, see
        ``short_kernels.short_move``. ``op`` and ``kind`` are None for verbs that combine nothing.
    """

    def __init__(self, clock: Clock, host: StagedCollectives | None) -> None:
        self._clock, self._host = clock, host
        self._words = words = np.zeros(kernels.FUNCTION_WORDS, np.int64)
        self._memory = memoryview(words)
        self._learned: set[tuple[int, int, int]] = set()
        # Addresses of these are compared: they must stay.
        self._kept: list[object] = []
        self._can_learn = host is not None and arrays_fit()
        self.call: Callable[..., int] = _declined
        if host is None or not self._can_learn:
            return
        plan = host.plan
        words[kernels.PLAN], words[kernels.PLAN_WORDS] = plan.ctypes.data, plan.size
        words[kernels.ROW] = clock.row.ctypes.data
        words[kernels.COMPUTE] = clock.number_of("compute")
        words[kernels.COMMUNICATION] = clock.number_of("communication")
        words[kernels.OF_ARRAY], words[kernels.OF_INTEGER] = id(np.ndarray), id(int)
        self.call = python_function(kernels.quick_call, words)

    def next_number(self) -> int:
        """Of a call that is made in another way."""
        self._memory[kernels.CALLS] += 1
        return self._memory[kernels.CALLS]

    def learn(
        self, dtype: np.dtype, op: str | None, kind: str | None, how: Combination | None
    ) -> None:
        """Calls with arrays of ``dtype`` may be quick from now on; ``how`` is None for verbs that combine nothing."""
        key = id(dtype), id(op), id(kind)
        if key in self._learned or not self._can_learn:
            return
        texts = [text for text in (op, kind) if text is not None]
        if len(self._kept) == kernels.LEARNED_MAX or any(
            intern(text) is not text for text in texts
        ):
            return
        at = kernels.FIRST + kernels.LEARNED_WORDS * len(self._kept)
        self._kept.append((dtype, op, kind))
        self._learned.add(key)
        fold = (how.code, how.operation_code, *fold_words(how, False)[:2]) if how else (0, 0, 0, 0)
        self._words[at : at + kernels.LEARNED_WORDS] = (*key, dtype.itemsize, *fold)
        self._memory[kernels.LEARNED] += 1

    def error(self, verdict: int) -> LeptonError:
        """What ``call`` has found; the same on all ranks."""
        assert self._host
        return self._host.quick_error(verdict)

    def book(self) -> None:
        """Have the clock count the time of quick calls as communication."""
        spent, self._memory[kernels.NANOSECONDS] = self._memory[kernels.NANOSECONDS], 0
        if spent:
            self._clock.move("compute", "communication", spent * 1e-9)


def _declined(*arguments: object) -> int:
    return DECLINED
