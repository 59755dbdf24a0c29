"""Messages between two ranks, as c10d's calls; ``messages.py`` has what they do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.distributed import Work

from lepton_mpi.torch import messages
from lepton_mpi.torch.group_life import GroupLife
from lepton_mpi.torch.tensors import Outputs, inputs_of, listed
from lepton_mpi.torch.work import seconds_of

_BARRIER_TAG = messages.TAG_MAX


class MessageVerbs(GroupLife):
    """Calls of one sender and one receiver."""

    def send(self, tensors: Any, to: int, tag: int = 0) -> Work:
        """A message to rank ``to`` of the group; the tensor must stay as it is until it is through."""
        tensors = listed(tensors)
        array = inputs_of(tensors)[0]
        requests = messages.start_send(self._group.comm, array, to, tag)
        what = f"send to rank {to} of process group {self._name}, tag {tag},"
        # The array is kept by the work: of a tensor that is not contiguous, it is a copy.
        return self._message(tensors, requests, what, lambda: array.size)

    def recv(self, tensors: Any, source: int | None, tag: int = 0) -> Work:
        """The message of rank ``source`` of the group; of one rank and tag in the order of sending."""
        tensors = listed(tensors)
        written = Outputs(tensors)
        requests = messages.start_receive(self._group.comm, written.arrays[0], source, tag)
        origin = "any rank" if source is None else f"rank {source}"
        what = f"recv from {origin} of process group {self._name}, tag {tag},"
        return self._message(tensors, requests, what, written.give_back)

    def recv_anysource(self, tensors: Any, tag: int = 0) -> Work:
        """The first message of any rank; ``_source_rank()`` of the work says whose."""
        return self.recv(tensors, None, tag)

    def _message(
        self, tensors: list[Tensor], requests: list[Any], what: str, after: Callable[[], Any]
    ) -> Work:
        work = messages.MessageWork(tensors, requests, what, self._timeout_seconds, after)
        if self._coalesced is not None:
            self._coalesced.append(work)
        return work

    def monitored_barrier(
        self, timeout: timedelta | None = None, wait_all_ranks: bool = False
    ) -> None:
        """A barrier after which rank 0, if it fails, knows who was not there: RuntimeError with the ranks, and on the others."""
        seconds = seconds_of(timeout, self._timeout_seconds)
        here = torch.zeros(1, dtype=torch.uint8)
        limit = timedelta(seconds=seconds)
        if self._me:
            self.send([here], 0, _BARRIER_TAG).wait(limit)
            self.recv([here], 0, _BARRIER_TAG).wait(limit * 2)
            return
        missing = []
        works = {
            rank: self.recv([here.clone()], rank, _BARRIER_TAG) for rank in range(1, self._ranks)
        }
        for rank, work in works.items():
            try:
                work.wait(limit)
            except RuntimeError:
                missing.append(rank)
                limit = timedelta(seconds=0.001)
                if not wait_all_ranks:
                    break
        if missing:
            raise RuntimeError(
                f"ranks {', '.join(map(str, missing))} of process group {self._name} did not come to monitored_barrier in {seconds:g} s"
            )
        for rank in works:
            self.send([here], rank, _BARRIER_TAG).wait()
