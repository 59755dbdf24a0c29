"""2 000 calls in flight, 200 subgroups, 20 times init and destroy: memory, files and threads stay as they are."""

import contextlib
import os
import re
import resource
import threading
import time

import torch
import torch.distributed as dist

import lepton_mpi.torch  # noqa: F401


def counts() -> tuple[list[str], int]:
    """Open files, without what differs from one to the next of a kind, and threads of this process.

    The fewest of several looks: the watchdog has files of /proc open for a moment.
    """
    looks = []
    for _ in range(10):
        looks.append(open_files())
        time.sleep(0.02)
    return min(looks, key=len), threading.active_count()


def open_files() -> list[str]:
    files = []
    for file in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            files.append(re.sub(r"\d+", "", os.readlink(f"/proc/self/fd/{file}")))
    return sorted(files)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def many_calls() -> None:
    tensors = [torch.ones(8) for _ in range(2000)]
    works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
    for work in works:
        work.wait()
    assert all((tensor == dist.get_world_size()).all() for tensor in tensors)


def many_groups(count: int) -> None:
    ranks = list(range(dist.get_world_size()))
    for number in range(count):
        members = ranks if number % 2 else ranks[number % len(ranks) :] or ranks
        group = dist.new_group(members)
        if dist.get_rank() in members:
            tensor = torch.ones(4)
            dist.all_reduce(tensor, group=group)
            if number % 3 == 0:
                dist.all_reduce(tensor, group=group, async_op=True).wait()
            dist.destroy_process_group(group)


def cycle() -> None:
    dist.init_process_group("lepton")
    tensor = torch.ones(3)
    dist.all_reduce(tensor, async_op=True).wait()
    assert tensor[0] == dist.get_world_size()
    dist.destroy_process_group()


def main() -> None:
    cycle()
    dist.init_process_group("lepton")
    rank = dist.get_rank()
    many_calls()
    many_groups(20)
    before, memory = counts(), resident_bytes()
    many_calls()
    many_groups(200)
    assert counts() == before, (before, counts())
    assert resident_bytes() - memory < 24 << 20, (memory, resident_bytes())
    dist.destroy_process_group()
    if rank == 0:
        print("groups", flush=True)
    for _ in range(4):
        cycle()
    before, memory = counts(), resident_bytes()
    for _ in range(20):
        cycle()
    assert counts() == before, (before, counts())
    assert resident_bytes() - memory < 16 << 20, (memory, resident_bytes())
    if rank == 0:
        print("cycles", flush=True)


if __name__ == "__main__":
    main()
