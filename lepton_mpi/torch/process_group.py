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
from typing import Any

from torch import Tensor
from torch.distributed import ReduceOp, Work

from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.torch.message_verbs import MessageVerbs
from lepton_mpi.torch.tensors import Outputs, check_same_type, inputs_of, listed, numbers_of


class CollectiveVerbs(MessageVerbs):
    """c10d's collectives. Each is collective over the group.

    ``opts`` are torch's options of the call, whose ``asyncOp`` says whether the caller goes on (torch before it had that: always).
    """

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
        tensors = listed(tensors)
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
        tensors, root = listed(tensors), opts.rootRank
        parts = [numbers_of(*_scaled(tensor, opts), root == self._me) for tensor in tensors]

        def reduce(communicator: Communicator) -> None:
            for part in parts:
                communicator.reduce(part.array, root, part.operation, part.kind)
                if part.give_back:
                    part.give_back()

        return self._carry_out("reduce", reduce, tensors, opts)

    def reduce_scatter(self, outputs: Any, inputs: Any, opts: Any = None) -> Work:
        """``outputs[i]`` is the combination of what the ranks have for this one in ``inputs[i]``, a list by rank."""
        outputs = listed(outputs)
        lists = [inputs] if isinstance(inputs[0], Tensor) else inputs
        for output, parts in zip(outputs, lists, strict=True):
            _check_count("reduce_scatter: input tensors", len(parts), self._ranks)
            _check_count("elements for this rank", parts[self._me].numel(), output.numel())
            check_same_type([output, *parts])
        pairs = [
            (
                numbers_of(*_scaled(output, opts)),
                [numbers_of(*_scaled(part, opts), False) for part in parts],
            )
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
        tensors, root = listed(tensors), opts.rootRank

        def move(communicator: Communicator, outputs: list[Any], _: list[Any]) -> None:
            for array in outputs:
                communicator.broadcast(array, root)

        return self._move("broadcast", tensors, [], opts, move)

    def allgather(self, outputs: Any, inputs: Any, opts: Any = None) -> Work:
        """``outputs[i][r]`` is ``inputs[i]`` of rank r; the ranks' tensors may have different lengths."""
        lists = [outputs] if isinstance(outputs[0], Tensor) else outputs
        inputs = listed(inputs)
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

        return self._move("gather", parts, listed(inputs), opts, move)

    def scatter(self, outputs: Any, inputs: Any, opts: Any) -> Work:
        """``outputs[0]`` of rank r is ``inputs[0][r]`` of ``opts.rootRank``; no inputs on the others."""
        root, parts = opts.rootRank, _flat(inputs)
        if root == self._me:
            _check_count("scatter: input tensors", len(parts), self._ranks)

        def move(communicator: Communicator, arrays: list[Any], read: list[Any]) -> None:
            communicator.scatter(arrays[0], read if root == communicator.rank else None, root)

        return self._move("scatter", listed(outputs), parts, opts, move)

    def alltoall(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], opts: Any = None
    ) -> Work:
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
        cuts = [
            _cut(output, output_split_sizes, self._ranks),
            _cut(input, input_split_sizes, self._ranks),
        ]

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


def _scaled(tensor: Tensor, opts: Any) -> tuple[Tensor, Any]:
    return tensor, ReduceOp.SUM if opts is None else getattr(opts, "reduceOp", opts)


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
