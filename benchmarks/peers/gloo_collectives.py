"""Collectives of torch.distributed over gloo: ``python -m benchmarks.peers.gloo_collectives --ranks 4 …``, in torch's environment."""

import argparse
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.peers.collective_cases import measure_all, parse_arguments
from benchmarks.peers.gloo import GlooRanks
from benchmarks.peers.torch_ranks import run_on_ranks


class GlooLibrary:
    """See ``collective_cases.Library``. Tensors are made once for an array, as torch's users have them."""

    def __init__(self) -> None:
        self._tensors: dict[int, torch.Tensor] = {}
        self._parts: dict[int, list[torch.Tensor]] = {}

    def allreduce(self, array: np.ndarray) -> None:
        dist.all_reduce(self._of(array))

    def reduce(self, array: np.ndarray, root: int) -> None:
        dist.reduce(self._of(array), root)

    def broadcast(self, array: np.ndarray, root: int) -> None:
        dist.broadcast(self._of(array), root)

    def allgather(self, output: np.ndarray, input: np.ndarray) -> None:
        dist.all_gather_into_tensor(self._of(output), self._of(input))

    def reduce_scatter(self, output: np.ndarray, input: np.ndarray) -> None:
        dist.reduce_scatter_tensor(self._of(output), self._of(input))

    def alltoall(self, output: np.ndarray, input: np.ndarray) -> None:
        dist.all_to_all_single(self._of(output), self._of(input))

    def gather(self, outputs: Any, input: np.ndarray, root: int) -> None:
        dist.gather(self._of(input), self._list(outputs), root)

    def scatter(self, output: np.ndarray, inputs: Any, root: int) -> None:
        dist.scatter(self._of(output), self._list(inputs), root)

    def send(self, array: np.ndarray, to: int) -> None:
        dist.send(self._of(array), to)

    def receive(self, array: np.ndarray, source: int) -> None:
        dist.recv(self._of(array), source)

    def _of(self, array: np.ndarray) -> torch.Tensor:
        # With the array, whose number is another's when it is gone.
        if id(array) not in self._tensors:
            self._tensors[id(array)] = torch.from_numpy(array)
        return self._tensors[id(array)]

    def _list(self, arrays: Any) -> list[torch.Tensor] | None:
        if arrays is None:
            return None
        if id(arrays) not in self._parts:
            self._parts[id(arrays)] = [torch.from_numpy(array) for array in arrays]
        return self._parts[id(arrays)]


class _FreshGloo(GlooLibrary):
    """Of each case another one: what is remembered is of arrays that live as long."""


def _measure(rank: int, arguments: argparse.Namespace) -> None:
    facts = {"library": "gloo", "version": f"torch {torch.__version__}"}
    measure_all(arguments, GlooRanks(), _FreshGloo(), facts)


if __name__ == "__main__":
    given = parse_arguments("--ranks")
    raise SystemExit(run_on_ranks(int(given.ranks), 1, _measure, given))
