"""A job of DDP in which one rank does what its argument says: kill, raise, leave, skip, other, torchrun."""

import os
import signal
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import lepton_mpi.torch  # noqa: F401


def misbehave(how: str) -> None:
    print(f"now {time.time()}", flush=True)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "raise":
        raise ZeroDivisionError("of rank 1")
    elif how == "leave":
        sys.exit(0)
    elif how == "skip":
        time.sleep(60)
    elif how == "other":
        dist.broadcast(torch.ones(3), 0)


def main(how: str) -> None:
    dist.init_process_group("lepton", timeout=timedelta(seconds=100))
    # Loads much of torch, for longer on one rank than on another.
    net = DistributedDataParallel(torch.nn.Linear(10, 10))
    dist.barrier()
    dist.group.WORLD.set_timeout(timedelta(seconds=3))
    for step in range(1000):
        if step == 5 and dist.get_rank() == 1:
            misbehave(how)
        net(torch.ones(4, 10)).sum().backward()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
