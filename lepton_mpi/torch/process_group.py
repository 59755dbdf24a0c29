"""A process group of torch that carries out c10d's calls by a ``Communicator``.

    torch             this file                        Communicator
    dist.all_reduce   allreduce([tensor], options)     allreduce(array, op, kind)
    FSDP2, DTensor    _allgather_base(out, in)         allgather(out, in) of bytes
    DDP, in C++       allreduce, broadcast, allgather, by the same methods: torch finds the ones that a subclass has
    pipelines         send, recv, recv_anysource       none: messages.py, so that both sides may send first

Torch before ``BackendBase`` has ``ProcessGroup`` as the class that Python may derive from; later there is ``BackendBase``, whose
methods have the same names and arguments. Both are served by ``CollectiveVerbs``; ``backend.py`` makes the class.

Names come in pairs, since torch 2.13 renames the calls on one tensor, such as ``_allgather_base`` to ``all_gather_single``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp, Work

from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.torch import messages
from lepton_mpi.torch.monitor import Calls
from lepton_mpi.torch.tensors import (
    Outputs,
    check_same_type,
    inputs_of,
    numbers_of,
)
from lepton_mpi.torch.work import DoneWork, HelpedWork, JointWork, Turns, seconds_of

if TYPE_CHECKING:
    from lepton_mpi.torch.job import Job
    from lepton_mpi.world.rank_group import RankGroup

_BARRIER_TAG = messages.TAG_MAX


class CollectiveVerbs:
    """c10d's calls. Making one is collective over its ranks.

    Every call of a collective is collective over the group; ``opts`` are torch's options of the call, whose ``asyncOp`` says
    whether the caller goes on (torch before it had that: always).

    Parameters
    ----------
    job : Job
    group : RankGroup
        Whose ranks these are; belongs to the process group from now on.
    name : str
        What reports call it.
    timeout_seconds : float
        Of a call, after which the job ends with a report.
    """

    def _open(self, job: Job, group: RankGroup, name: str, timeout_seconds: float) -> None:
        self._job, self._group, self._name = job, group, name
        self._timeout_seconds = timeout_seconds
        self._communicator: Communicator | None = Communicator(group)
        self._me, self._ranks = group.rank, group.size
        # Torch's ranks in the job.
        self._members: list[int] = group.comm.allgather(job.ranks.index(job.world.rank))
        self._calls = Calls(group, self._members, name, timeout_seconds)
        job.monitor.watch(self._calls)
        self._turns = Turns(name)
        job.turns.append(self._turns)
        self._coalesced: list[Any] | None = None

    # -- carrying out ----------------------------------------------------------------------------

    def _carry_out(
        self, verb: str, call: Callable[[Communicator], Any], tensors: list[Tensor], opts: Any
    ) -> Work:
        """Now or by the helper, as ``opts`` has it."""
        communicator, calls = self._communicator, self._calls
        if communicator is None:
            raise RuntimeError(f"process group {self._name} was destroyed; {verb} came after that")
        seconds = seconds_of(getattr(opts, "timeout", None), self._timeout_seconds)

        def carry_out() -> None:
            calls.begin(verb, seconds)
            try:
                call(communicator)
            finally:
                calls.end()

        if getattr(opts, "asyncOp", True):
            work: Any = self._turns.later(carry_out, HelpedWork(tensors))
        else:
            self._turns.now(carry_out)
            work = DoneWork(tensors)
        if self._coalesced is not None:
            self._coalesced.append(work)
        return work

    def _move(
        self,
        verb: str,
        outputs: Sequence[Tensor],
        inputs: Sequence[Tensor],
        opts: Any,
        call: Callable[[Communicator, list[Any], list[Any]], None],
    ) -> Work:
        """A call that writes ``outputs`` and reads ``inputs``, as bytes."""
        check_same_type([*outputs, *inputs])
        written, read = Outputs(outputs), inputs_of(inputs)

        def move(communicator: Communicator) -> None:
            call(communicator, written.arrays, read)
            written.give_back()

        return self._carry_out(verb, move, list(outputs), opts)

    # -- reductions ------------------------------------------------------------------------------

    def allreduce(self, tensors: Any, opts: Any = None) -> Work:
        """Every rank's tensor becomes the combination of all of them."""
        tensors = _listed(tensors)
        parts = [numbers_of(*_scaled(tensor, opts)) for tensor in tensors]

        def reduce(communicator: Communicator) -> None:
            for part in parts:
                communicator.allreduce(part.array, part.operation, part.kind)
                if part.give_back:
                    part.give_back()

        return self._carry_out("all_reduce", reduce, tensors, opts)

    def allreduce_coalesced(self, tensors: Any, opts: Any = None) -> Work:
        """The same of several tensors in one call."""
        return self.allreduce(tensors, opts)

    def reduce(self, tensors: Any, opts: Any) -> Work:
        """The same on ``opts.rootRank`` alone."""
        tensors, root = _listed(tensors), opts.rootRank
        parts = [numbers_of(*_scaled(tensor, opts), root == self._me) for tensor in tensors]

        def reduce(communicator: Communicator) -> None:
            for part in parts:
                communicator.reduce(part.array, root, part.operation, part.kind)
                if part.give_back:
                    part.give_back()

        return self._carry_out("reduce", reduce, tensors, opts)

    def reduce_scatter(self, outputs: Any, inputs: Any, opts: Any = None) -> Work:
        """``outputs[i]`` is the combination of what the ranks have for this one in ``inputs[i]``, a list by rank."""
        outputs = _listed(outputs)
        lists = [inputs] if isinstance(inputs[0], Tensor) else inputs
        for output, parts in zip(outputs, lists, strict=True):
            _check_count("reduce_scatter: input tensors", len(parts), self._ranks)
            _check_count("elements for this rank", parts[self._me].numel(), output.numel())
            check_same_type([output, *parts])
        pairs = [
            (numbers_of(*_scaled(output, opts)), [numbers_of(*_scaled(part, opts), False) for part in parts])
            for output, parts in zip(outputs, lists, strict=True)
        ]

        def reduce(communicator: Communicator) -> None:
            for out, parts in pairs:
                arrays = [part.array for part in parts]
                communicator.reduce_scatterv(out.array, arrays, out.operation, out.kind)
                if out.give_back:
                    out.give_back()

        return self._carry_out("reduce_scatter", reduce, outputs, opts)

    def reduce_scatter_tensor_coalesced(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], opts: Any = None
    ) -> Work:
        """``outputs[i]`` is this rank's part of the combination of all ``inputs[i]``."""
        for output, whole in zip(outputs, inputs, strict=True):
            _check_count("elements of the input", whole.numel(), output.numel() * self._ranks)
            check_same_type([output, whole])
        pairs = [
            (numbers_of(*_scaled(output, opts)), numbers_of(*_scaled(whole, opts), False))
            for output, whole in zip(outputs, inputs, strict=True)
        ]

        def reduce(communicator: Communicator) -> None:
            for out, whole in pairs:
                communicator.reduce_scatter(out.array, whole.array, out.operation, out.kind)
                if out.give_back:
                    out.give_back()

        return self._carry_out("reduce_scatter", reduce, list(outputs), opts)

    def _reduce_scatter_base(self, output: Tensor, input: Tensor, opts: Any = None) -> Work:
        """The same of one tensor."""
        return self.reduce_scatter_tensor_coalesced([output], [input], opts)

    reduce_scatter_single = _reduce_scatter_base
    reduce_scatter_single_coalesced = reduce_scatter_tensor_coalesced

    # -- moves -----------------------------------------------------------------------------------

    def broadcast(self, tensors: Any, opts: Any) -> Work:
        """Fill every rank's tensor with that of ``opts.rootRank``."""
        tensors, root = _listed(tensors), opts.rootRank

        def move(communicator: Communicator, outputs: list[Any], _: list[Any]) -> None:
            for array in outputs:
                communicator.broadcast(array, root)

        return self._move("broadcast", tensors, [], opts, move)

    def allgather(self, outputs: Any, inputs: Any, opts: Any = None) -> Work:
        """``outputs[i][r]`` is ``inputs[i]`` of rank r; the ranks' tensors may have different lengths."""
        lists = [outputs] if isinstance(outputs[0], Tensor) else outputs
        inputs = _listed(inputs)
        for parts, tensor in zip(lists, inputs, strict=True):
            _check_count("all_gather: output tensors", len(parts), self._ranks)
            _check_count("elements for this rank", parts[self._me].numel(), tensor.numel())
        count = self._ranks

        def move(communicator: Communicator, arrays: list[Any], read: list[Any]) -> None:
            for number, array in enumerate(read):
                communicator.allgatherv(arrays[number * count : (number + 1) * count], array)

        flat = [part for parts in lists for part in parts]
        return self._move("all_gather", flat, inputs, opts, move)

    def allgather_coalesced(
        self, output_lists: Sequence[Sequence[Tensor]], inputs: Sequence[Tensor], opts: Any = None
    ) -> Work:
        """``output_lists[r][i]`` is ``inputs[i]`` of rank r."""
        _check_count("all_gather: lists of output tensors", len(output_lists), self._ranks)
        by_input = [[parts[number] for parts in output_lists] for number in range(len(inputs))]
        return self.allgather(by_input, list(inputs), opts)

    def allgather_into_tensor_coalesced(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], opts: Any = None
    ) -> Work:
        """``outputs[i]`` is the ranks' ``inputs[i]``, one after the other."""
        for output, part in zip(outputs, inputs, strict=True):
            _check_count("elements of the output", output.numel(), part.numel() * self._ranks)

        def move(communicator: Communicator, arrays: list[Any], read: list[Any]) -> None:
            for array, part in zip(arrays, read, strict=True):
                communicator.allgather(array, part)

        return self._move("all_gather", outputs, inputs, opts, move)

    def _allgather_base(self, output: Tensor, input: Tensor, opts: Any = None) -> Work:
        """The same of one tensor."""
        return self.allgather_into_tensor_coalesced([output], [input], opts)

    all_gather_single = _allgather_base
    all_gather_single_coalesced = allgather_into_tensor_coalesced

    def gather(self, outputs: Any, inputs: Any, opts: Any) -> Work:
        """On ``opts.rootRank``, ``outputs[0][r]`` is ``inputs[0]`` of rank r; no outputs on the others."""
        root, parts = opts.rootRank, _flat(outputs)
        if root == self._me:
            _check_count("gather: output tensors", len(parts), self._ranks)

        def move(communicator: Communicator, arrays: list[Any], read: list[Any]) -> None:
            communicator.gather(arrays if root == communicator.rank else None, read[0], root)

        return self._move("gather", parts, _listed(inputs), opts, move)

    def scatter(self, outputs: Any, inputs: Any, opts: Any) -> Work:
        """``outputs[0]`` of rank r is ``inputs[0][r]`` of ``opts.rootRank``; no inputs on the others."""
        root, parts = opts.rootRank, _flat(inputs)
        if root == self._me:
            _check_count("scatter: input tensors", len(parts), self._ranks)

        def move(communicator: Communicator, arrays: list[Any], read: list[Any]) -> None:
            communicator.scatter(arrays[0], read if root == communicator.rank else None, root)

        return self._move("scatter", _listed(outputs), parts, opts, move)

    def alltoall(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], opts: Any = None) -> Work:
        """``outputs[r]`` is what rank r has for this one in its ``inputs``."""
        _check_count("all_to_all: output tensors", len(outputs), self._ranks)
        _check_count("all_to_all: input tensors", len(inputs), self._ranks)
        return self._move("all_to_all", outputs, inputs, opts, Communicator.alltoallv)

    def alltoall_base(
        self,
        output: Tensor,
        input: Tensor,
        output_split_sizes: Sequence[int],
        input_split_sizes: Sequence[int],
        opts: Any = None,
    ) -> Work:
        """The same of one tensor, cut along its first dimension; into equal parts where no sizes are given."""
        if not output_split_sizes and not input_split_sizes:
            for tensor in (output, input):
                _check_divides("all_to_all_single", tensor, self._ranks)
            return self._move(
                *("all_to_all", [output], [input], opts),
                lambda communicator, out, read: communicator.alltoall(out[0], read[0]),
            )
        cuts = [_cut(output, output_split_sizes, self._ranks), _cut(input, input_split_sizes, self._ranks)]

        def move(communicator: Communicator, arrays: list[Any], read: list[Any]) -> None:
            parts = [
                [array[start * step : stop * step] for start, stop in bounds]
                for array, (bounds, step) in zip((arrays[0], read[0]), cuts, strict=True)
            ]
            communicator.alltoallv(*parts)

        return self._move("all_to_all", [output], [input], opts, move)

    all_to_all_single = alltoall_base

    def barrier(self, opts: Any = None) -> Work:
        """Until all ranks have called it."""
        return self._carry_out("barrier", Communicator.barrier, [], opts)

    # -- messages --------------------------------------------------------------------------------

    def send(self, tensors: Any, to: int, tag: int = 0) -> Work:
        """A message to rank ``to`` of the group; the tensor must stay as it is until it is through."""
        tensors = _listed(tensors)
        array = inputs_of(tensors)[0]
        requests = messages.start_send(self._group.comm, array, to, tag)
        what = f"send to rank {to} of process group {self._name}, tag {tag},"
        # The array is kept by the work: of a tensor that is not contiguous, it is a copy.
        return self._message(tensors, requests, what, lambda: array.size)

    def recv(self, tensors: Any, source: int | None, tag: int = 0) -> Work:
        """The message of rank ``source`` of the group; of one rank and tag in the order of sending."""
        tensors = _listed(tensors)
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
        works = {rank: self.recv([here.clone()], rank, _BARRIER_TAG) for rank in range(1, self._ranks)}
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

    # -- several calls as one --------------------------------------------------------------------

    def _start_coalescing(self, device: Any = None) -> None:
        self._coalesced = []

    def _end_coalescing(self, device: Any = None) -> Work:
        works, self._coalesced = self._coalesced or [], None
        return JointWork(works)

    # -- the end, and what torch asks ------------------------------------------------------------

    def shutdown(self) -> None:
        """Give back what the group holds. Collective over it; does nothing the second time."""
        if self._communicator is None:
            return
        communicator, self._communicator = self._communicator, None
        self._turns.close(self._timeout_seconds)
        self._job.turns.remove(self._turns)
        self._job.keep_mpi_free()
        communicator.close()
        self._job.monitor.forget(self._calls)
        self._job.drop(self._group)

    def abort(self) -> None:
        """The same: calls that are under way end first, or the job does."""
        self.shutdown()

    def set_timeout(self, timeout: timedelta) -> None:
        """Of the calls from now on."""
        self._timeout_seconds = timeout.total_seconds()
        self._calls.timeout_seconds = self._timeout_seconds

    _set_default_timeout = set_timeout

    def _get_sequence_number_for_group(self) -> int:
        return self._calls.count

    def _set_sequence_number_for_group(self) -> None:
        """Calls are counted from 0 on all ranks."""


def _scaled(tensor: Tensor, opts: Any) -> tuple[Tensor, Any]:
    return tensor, ReduceOp.SUM if opts is None else getattr(opts, "reduceOp", opts)


def _listed(tensors: Any) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _flat(tensors: Any) -> list[Tensor]:
    """Tensors of a list, or of the one list in it; c10d has both forms."""
    if len(tensors) and not isinstance(tensors[0], Tensor):
        return list(tensors[0])
    return list(tensors)


def _check_count(what: str, came: int, expected: int) -> None:
    if came != expected:
        raise ValueError(f"{what}: expected {expected}, got {came}")


def _check_divides(verb: str, tensor: Tensor, ranks: int) -> None:
    if (tensor.shape[0] if tensor.dim() else 0) % ranks:
        raise ValueError(
            f"{verb}: expected tensors whose first dimension is a multiple of {ranks} ranks, got shape {tuple(tensor.shape)}"
        )


def _cut(tensor: Tensor, sizes: Sequence[int], ranks: int) -> tuple[list[tuple[int, int]], int]:
    """Bounds of the ranks' parts along the first dimension, and bytes of one of its elements."""
    length = tensor.shape[0] if tensor.dim() else 0
    if not sizes:
        _check_divides("all_to_all_single", tensor, ranks)
        sizes = [length // ranks] * ranks
    _check_count("split sizes", len(sizes), ranks)
    _check_count("sum of the split sizes", sum(sizes), length)
    step = tensor.numel() // length * tensor.element_size() if length else 0
    bounds, start = [], 0
    for size in sizes:
        bounds.append((start, start + size))
        start += size
    return bounds, step
