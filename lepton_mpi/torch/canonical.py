"""DDP in the canonical order: the same bits of gradients, and so of weights, on any number of ranks.

A step has a fixed number of micro-batches over all ranks. Rank r computes a contiguous run of them, one backward pass each. The
gradient of each is a leaf of one fixed binary tree (``collectives/summation_tree.py``), whatever rank computed it:

    8 micro-batches, 2 ranks     rank 0: ((0+1)+(2+3))   rank 1: ((4+5)+(6+7))      then the two sums, in this order
    8 micro-batches, 3 ranks     rank 0: 0+1, 2   rank 1: 3, 4+5   rank 2: 6+7      then the tree over these five

    for index in gradients.micro_batches():      takes each finished gradient away, so that DDP does not add it to the next
    the last backward pass of a step             DDP calls ``canonical_hook`` for each bucket, with the last gradient in it
    within a rank                                whole nodes of the tree are added as soon as they can be: log2(run) + 1 are kept
    between ranks                                each rank gets its slice of all nodes, adds them in the tree's order, divides,
                                                 and all gather the slices: 2 (n - 1) / n of a bucket on the wire, if a run is a node

The bits are the same if those of a micro-batch's gradient are: one thread (``torch.set_num_threads(1)``), no BatchNorm and no
random numbers that depend on the rank, and the same arithmetic on each host.
"""

# Annotations are objects here, not text: DDP compares those of a hook with its own classes.

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import GradBucket, group
from torch.nn.parallel import DistributedDataParallel

from lepton_mpi.chunks import chunk_bounds, share
from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.collectives.summation_tree import EagerSum, additions, whole_nodes
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.torch.process_group import CollectiveVerbs
from lepton_mpi.torch.tensors import bytes_of


class CanonicalGradients:
    """The gradients of a step's micro-batches; the state of ``canonical_hook``.

    Parameters
    ----------
    module : DistributedDataParallel
        On a process group of backend ``lepton``.
    micro_batches : int
        Of a step, over all ranks; at least as many as ranks. The result depends on it.
    divisor : float, optional
        What the sum is divided by: ``micro_batches`` where each loss is a mean over as many rows; 1 for losses that are sums.

    Attributes
    ----------
    mine : range
        Numbers of this rank's micro-batches.

    Raises
    ------
    ConfigurationError
        Fewer micro-batches than ranks; another backend.
    """

    def __init__(
        self, module: DistributedDataParallel, micro_batches: int, divisor: float | None = None
    ) -> None:
        process_group = module.process_group or group.WORLD
        if not isinstance(process_group, CollectiveVerbs):
            raise ConfigurationError(
                'CanonicalGradients: expected DistributedDataParallel on backend lepton; call init_process_group("lepton")'
            )
        size, rank = dist.get_world_size(process_group), dist.get_rank(process_group)
        if micro_batches < size:
            raise ConfigurationError(
                f"micro_batches: expected at least {size}, one a rank, got {micro_batches}"
            )
        self._module, self._process_group = module, process_group
        self.count = micro_batches
        self.divisor = float(micro_batches if divisor is None else divisor)
        self._shares = [share(0, micro_batches, size, one) for one in range(size)]
        self.mine = range(*self._shares[rank])
        self._parameters = [one for one in module.parameters() if one.requires_grad]
        self._start_step()

    def micro_batches(self) -> Iterator[int]:
        """Numbers of this rank's micro-batches of one step, to be iterated over once a step to the end.

        The body computes the loss of the micro-batch by the module and calls ``backward()`` once. Gradients from before the
        step are dropped; after the last one, ``grad`` of each parameter is that of the step.
        """
        self._start_step()
        for index in self.mine:
            for parameter in self._parameters:
                parameter.grad = None
            is_last = index == self.mine.stop - 1
            with nullcontext() if is_last else self._module.no_sync():
                yield index
            if not is_last:
                self._keep(index)

    def _start_step(self) -> None:
        self._nodes = whole_nodes(self.mine.start, self.mine.stop, self.count)
        self._trees = [EagerSum(range(start, stop)) for start, stop in self._nodes]
        self._kept: dict[int, list[Tensor | None]] = {}

    def _keep(self, index: int) -> None:
        """Take the gradient of a micro-batch away, and add what can be added."""
        self._kept[index] = [parameter.grad for parameter in self._parameters]
        for left, right in self._tree_of(index).arrive(index):
            sums, added = self._kept[left], self._kept.pop(right)
            self._kept[left] = [_sum(*pair) for pair in zip(sums, added, strict=True)]

    def _tree_of(self, index: int) -> EagerSum:
        return self._trees[[start <= index < stop for start, stop in self._nodes].index(True)]

    # -- the last micro-batch, bucket by bucket ---------------------------------------------------

    def reduce(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """The sum of a bucket over all micro-batches, divided; it will be in the bucket's buffer."""
        buffer = bucket.buffer()
        nodes = self._node_sums(bucket)
        work = self._process_group.carry_out(
            *("all_reduce", lambda communicator: self._exchange(communicator, nodes, buffer)),
            [buffer],
        )
        return work.get_future().then(lambda future: future.value()[0])

    def _node_sums(self, bucket: GradBucket) -> Tensor:
        """This rank's nodes, each as long as the bucket, in rows."""
        number_of = {id(one): number for number, one in enumerate(self._parameters)}
        numbers = [number_of[id(parameter)] for parameter in bucket.parameters()]
        buffer, last = bucket.buffer(), self.mine.stop - 1
        values = {leaf: self._flat(leaf, numbers, bucket) for leaf in self._kept}
        values[last] = buffer.clone()
        # Each bucket completes the same additions, so the tree is asked once more for each.
        start, stop = self._nodes[-1]
        tree = EagerSum(range(start, stop))
        for leaf in range(start, stop):
            for left, right in tree.arrive(leaf):
                if leaf == last:
                    values[left] = values[left].add_(values[right])
        return torch.stack([values[start] for start, _ in self._nodes])

    def _flat(self, leaf: int, numbers: Sequence[int], bucket: GradBucket) -> Tensor:
        flat = torch.zeros_like(bucket.buffer())
        offset = 0
        for number, parameter in zip(numbers, bucket.parameters(), strict=True):
            gradient, length = self._kept[leaf][number], parameter.numel()
            if gradient is not None:
                flat[offset : offset + length] = gradient.detach().reshape(-1)
            offset += length
        return flat

    def _exchange(self, communicator: Communicator, nodes: Tensor, buffer: Tensor) -> None:
        """Collective: every rank adds its slice of all nodes, and gets the slices of the others."""
        bounds = chunk_bounds(buffer.numel(), communicator.size)
        slices = [slice(*pair) for pair in pairwise(bounds)]
        firsts = [[start for start, _ in whole_nodes(*run, self.count)] for run in self._shares]
        mine = bounds[communicator.rank + 1] - bounds[communicator.rank]
        came = [nodes.new_empty((len(rows), mine)) for rows in firsts]
        sent = [nodes[:, part].contiguous() for part in slices]
        communicator.alltoallv([bytes_of(one) for one in came], [bytes_of(one) for one in sent])
        leaves = [first for rows in firsts for first in rows]
        values = dict(zip(leaves, (row for rows in came for row in rows), strict=True))
        for left, right in additions(leaves):
            values[left].add_(values[right])
        total = values[leaves[0]].div_(self.divisor)
        communicator.allgatherv([bytes_of(buffer[part]) for part in slices], bytes_of(total))


def canonical_hook(state: CanonicalGradients, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Communication hook of DDP: ``net.register_comm_hook(CanonicalGradients(net, 8), canonical_hook)``.

    Collective over the process group of the module. Usable only within ``state.micro_batches()``.
    """
    return state.reduce(bucket)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one.add_(other)
