"""DDP whose buckets are summed where they lie: the values, moved buckets, ranks that cannot share, and what is left behind."""

import gc
import os
import sys

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lepton_mpi.torch import SharedBuckets, shared_buckets, shared_hook

STEPS = 3


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    layers = (nn.Linear(20, 300), nn.ReLU(), nn.Linear(300, 200), nn.GELU(), nn.Linear(200, 5))
    return nn.Sequential(*layers).to(dtype)


def train(state: SharedBuckets | None, dtype=torch.float32, group=None, **options) -> nn.Module:
    net = DistributedDataParallel(network(dtype), process_group=group, **options)
    if state is not None:
        net.register_comm_hook(state, shared_hook)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(2 + dist.get_rank())
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        x = torch.randn(6, 20, generator=generator).to(dtype)
        net(x).float().square().mean().backward()
        optimizer.step()
    return net.module


def same(one: nn.Module, other: nn.Module, tolerance: float = 1e-6) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def on_one_host() -> bool:
    return dist.get_world_size() > 1 and dist.group.WORLD.is_on_one_host


def values() -> None:
    plain = train(None, bucket_cap_mb=0.1)
    for options in (
        {},
        {"bucket_cap_mb": 0.1, "gradient_as_bucket_view": True},
        {"bucket_cap_mb": 0.1, "find_unused_parameters": True},
    ):
        state = SharedBuckets()
        same(train(state, **options), plain)
        # After the first pass DDP makes more buckets, where they are small.
        least = STEPS + len(options) if on_one_host() else 0
        assert least <= state.in_place <= 4 * least, state.in_place
    same(train(SharedBuckets(), torch.bfloat16), train(None, torch.bfloat16), 0.03)
    print("values", flush=True)


def moved() -> None:
    """Buckets that come and go, at addresses that come again; several groups and modules at once."""
    plain, state = train(None), SharedBuckets()
    for _ in range(3):
        same(train(state), plain)
        gc.collect()
    group = dist.new_group(list(range(dist.get_world_size())))
    same(train(SharedBuckets(group), group=group), plain)
    dist.destroy_process_group(group)
    print("moved", flush=True)


def not_shared() -> None:
    """One rank cannot: no rank does, and all go on."""
    whereabouts, last = shared_buckets._whereabouts, dist.get_rank() == dist.get_world_size() - 1
    for is_missing in (False, True):
        if last:
            shared_buckets._whereabouts = lambda buffer, gone=is_missing: (
                None if gone else whereabouts(buffer)._replace(descriptor=1)
            )
        state = SharedBuckets()
        same(train(state), train(None))
        assert state.in_place == 0
        shared_buckets._whereabouts = whereabouts
    print("not shared", flush=True)


def left_behind() -> None:
    process, files = psutil.Process(), set(os.listdir("/dev/shm"))
    used = []
    for number in range(4):
        train(SharedBuckets())
        gc.collect()
        if number:
            used.append((process.num_fds(), len(process.memory_maps(grouped=False))))
    assert len({fds for fds, _ in used}) == 1, used
    assert max(maps for _, maps in used) - min(maps for _, maps in used) < 10, used
    dist.barrier()
    assert not {name for name in set(os.listdir("/dev/shm")) - files if name.startswith("torch")}
    print("left behind", flush=True)


def killed() -> None:
    """For the test of a rank that dies: steps without end."""
    state, net = SharedBuckets(), DistributedDataParallel(network())
    net.register_comm_hook(state, shared_hook)
    for step in range(1 << 30):
        net(torch.randn(6, 20)).square().mean().backward()
        if step == 50 and dist.get_rank() == 1:
            os.kill(os.getpid(), 9)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("lepton")
    for part in [killed] if "killed" in sys.argv else [values, moved, not_shared, left_behind]:
        part()
    dist.destroy_process_group()
