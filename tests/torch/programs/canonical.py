"""DDP with the canonical hook: prints a digest of the weights, which must not depend on the number of ranks."""

import hashlib
import sys

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from lepton_mpi.torch import CanonicalGradients, canonical_hook

ROWS = 6


def network() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        *(torch.nn.Linear(20, 300), torch.nn.ReLU(), torch.nn.Linear(300, 200)),
        *(torch.nn.LayerNorm(200), torch.nn.GELU(), torch.nn.Linear(200, 5)),
    )


def main(micro_batches: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("lepton")
    net = DistributedDataParallel(network(), bucket_cap_mb=0.1)
    gradients = CanonicalGradients(net, micro_batches)
    net.register_comm_hook(gradients, canonical_hook)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(micro_batches, ROWS, 20, generator=generator)
    y = torch.randint(0, 5, (micro_batches, ROWS), generator=generator)
    whole = torch.autograd.grad(
        cross_entropy(net.module(x.reshape(-1, 20)), y.reshape(-1)), list(net.module.parameters())
    )
    for step in range(25):
        for index in gradients.micro_batches():
            cross_entropy(net(x[index]), y[index]).backward()
        if step == 0:
            for expected, parameter in zip(whole, net.parameters(), strict=True):
                torch.testing.assert_close(parameter.grad, expected, atol=1e-7, rtol=1e-4)
        optimizer.step()
        optimizer.zero_grad()
    digest = hashlib.blake2b(digest_size=16)
    for parameter in net.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    print(f"weights {micro_batches} {digest.hexdigest()}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    for word in sys.argv[1:]:
        main(int(word))
