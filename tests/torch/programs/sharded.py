"""FSDP2 on a small Transformer, ZeroRedundancyOptimizer, DTensor and torch's distributed checkpoint, on lepton."""

import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoint
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import lepton_mpi.torch  # noqa: F401


def transformer() -> nn.Module:
    torch.manual_seed(11)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.Sequential(
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3)
    )


def batches(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [
        torch.randn(4 * dist.get_world_size(), 6, 16, generator=generator) for _ in range(steps)
    ]


def step(net: nn.Module, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> float:
    optimizer.zero_grad()
    loss = net(rows).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def losses(net: nn.Module, optimizer: torch.optim.Optimizer, is_shared: bool) -> list[float]:
    """Of 8 steps; each rank has its part of the rows, or all of them."""
    rank, found = dist.get_rank(), []
    for rows in batches(8):
        loss = torch.tensor(
            step(net, optimizer, rows[4 * rank : 4 * rank + 4] if is_shared else rows)
        )
        if is_shared:
            dist.all_reduce(loss, dist.ReduceOp.AVG)
        found.append(loss.item())
    return found


def fsdp(folder: str) -> None:
    net = transformer()
    for layer in net[0].layers:
        fully_shard(layer)
    fully_shard(net)
    found = losses(net, torch.optim.AdamW(net.parameters(), lr=1e-2), True)
    alone = transformer()
    expected = losses(alone, torch.optim.AdamW(alone.parameters(), lr=1e-2), False)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-5, (found, expected)
    state = get_model_state_dict(net)
    checkpoint.save(state, checkpoint_id=folder)
    other = transformer()
    fully_shard(other)
    loaded = get_model_state_dict(other)
    checkpoint.load(loaded, checkpoint_id=folder)
    set_model_state_dict(other, loaded)
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.full_tensor(), two.full_tensor())


def zero() -> None:
    net = DistributedDataParallel(transformer())
    optimizer = ZeroRedundancyOptimizer(net.parameters(), torch.optim.Adam, lr=1e-2)
    found = losses(net, optimizer, True)
    alone = transformer()
    expected = losses(alone, torch.optim.Adam(alone.parameters(), lr=1e-2), False)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-5, (found, expected)
    optimizer.consolidate_state_dict(0)


def dtensor() -> None:
    size = dist.get_world_size()
    mesh = init_device_mesh("cpu", (size,))
    matrix = torch.arange(4.0 * size * size).reshape(2 * size, 2 * size)
    rows = distribute_tensor(matrix, mesh, [Shard(0)])
    columns = distribute_tensor(matrix, mesh, [Shard(1)])
    product = rows.redistribute(mesh, [Shard(1)]) @ columns.redistribute(mesh, [Shard(0)])
    torch.testing.assert_close(product.full_tensor(), matrix @ matrix)
    assert torch.equal(columns.redistribute(mesh, [Replicate()]).to_local(), matrix)


def main(folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("lepton")
    for part in (dtensor, zero):
        part()
        dist.barrier()
        if dist.get_rank() == 0:
            print(part.__name__, flush=True)
    fsdp(folder)
    if dist.get_rank() == 0:
        print("fsdp", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
