"""DDP without copies of its buckets: their memory is moved to where the ranks of a host share it, and summed there.

    first backward pass    DDP has made its buckets; each is moved as the hook first sees it (after the first pass DDP makes new ones)
    from then on           the ranks of the host read each other's buckets and write the sum: ``collectives/shared_arrays.py``

torch moves memory in place, as its ``Tensor.share_memory_`` does: all tensors that are views of a bucket (with
``gradient_as_bucket_view=True`` the gradients are) have the new memory. What knows the old address by other ways, such as
``gradient.numpy()`` of before, must not be used after that.
"""

# Annotations are objects here, not text: DDP compares those of a hook with its own classes.

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import GradBucket, ReduceOp, group

from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.collectives.shared_arrays import SharedArrays, Whereabouts
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.torch.process_group import CollectiveVerbs
from lepton_mpi.torch.tensors import numbers_of


class SharedBuckets:
    """The state of ``shared_hook``.

    Parameters
    ----------
    process_group : ProcessGroup, optional
        That of the module, of backend ``lepton``; by default the one of all ranks.

    Attributes
    ----------
    in_place : int
        Buckets that were summed without a copy so far; others are copied as by DDP without the hook: over several hosts, and where
        the system lets no process open another's files.

    Raises
    ------
    ConfigurationError
        Another backend.
    """

    def __init__(self, process_group: Any = None) -> None:
        process_group = process_group or group.WORLD
        if not isinstance(process_group, CollectiveVerbs):
            raise ConfigurationError(
                'SharedBuckets: expected a process group of backend lepton; call init_process_group("lepton")'
            )
        self._process_group = process_group
        self._ranks = dist.get_world_size(process_group)
        self._arrays: SharedArrays | None = None
        self.in_place = 0

    def reduce(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """The mean of a bucket over the ranks; it will be in the bucket's buffer."""
        buffer, index = bucket.buffer(), bucket.index()
        can_share = self._ranks > 1 and self._process_group.is_on_one_host
        where = _whereabouts(buffer) if can_share else None
        numbers = numbers_of(buffer, ReduceOp.AVG)

        def reduce(communicator: Communicator) -> None:
            if can_share:
                arrays = self._arrays = self._arrays or SharedArrays(communicator)
                is_in_place = arrays.allreduce(
                    *(index, numbers.array, where, numbers.operation, numbers.kind)
                )
                self.in_place += is_in_place
            else:
                communicator.allreduce(numbers.array, numbers.operation, numbers.kind)

        work = self._process_group.carry_out("all_reduce", reduce, [buffer])
        return work.get_future().then(lambda future: future.value()[0])


def shared_hook(state: SharedBuckets, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Communication hook of DDP: ``net.register_comm_hook(SharedBuckets(), shared_hook)``; the mean, as DDP's own.

    Collective over the process group of the module.
    """
    return state.reduce(bucket)


def _whereabouts(buffer: Tensor) -> Whereabouts | None:
    """The file of a tensor's memory, which is moved to one if it has none; None if it cannot be moved."""
    storage = buffer.untyped_storage()
    try:
        descriptor, _ = storage._share_fd_cpu_()
    except RuntimeError:  # memory that is not torch's own; no room for shared memory
        return None
    return Whereabouts(descriptor, buffer.storage_offset() * buffer.element_size())
