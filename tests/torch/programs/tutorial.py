"""DDP as in torch's tutorial: a small network, a loss, an optimizer; the same program once on lepton, once on gloo.

Also a network of convolutions and dropout as in torch's MNIST example. Losses of 100 steps must agree to a millionth.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import nll_loss
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import lepton_mpi.torch  # noqa: F401

STEPS = 100


class ToyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 10), nn.Linear(10, 5)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(rows)))


class Digits(nn.Module):
    """Two convolutions, pooling, dropout, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Dropout(0.25), nn.Flatten(), nn.Linear(16 * 16, 32), nn.ReLU(), nn.Linear(32, 10)),
            nn.LogSoftmax(1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


def toy_losses(**options: bool) -> list[float]:
    torch.manual_seed(dist.get_rank())  # DDP gives all ranks the weights of rank 0
    net = DistributedDataParallel(ToyModel(), **options)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.MSELoss()(net(torch.randn(20, 10)), torch.randn(20, 5))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def digits_losses() -> list[float]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(256, 1, 12, 12, generator=generator)
    data = TensorDataset(images, torch.randint(0, 10, (256,), generator=generator))
    sampler = DistributedSampler(data, shuffle=True, seed=5)
    torch.manual_seed(7 + dist.get_rank())
    net = DistributedDataParallel(Digits(), bucket_cap_mb=0.01)
    optimizer = torch.optim.Adadelta(net.parameters(), lr=0.5)
    losses: list[float] = []
    for epoch in range(STEPS):
        sampler.set_epoch(epoch)
        for rows, classes in DataLoader(data, batch_size=16, sampler=sampler):
            optimizer.zero_grad()
            loss = nll_loss(net(rows), classes)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == STEPS:
                return losses
    return losses


def run(backend: str) -> list[float]:
    dist.init_process_group(backend)
    losses = toy_losses() + toy_losses(gradient_as_bucket_view=True) + digits_losses()
    losses += toy_losses(static_graph=True)
    dist.destroy_process_group()
    return losses


def main() -> None:
    torch.set_num_threads(1)
    ours, peers = run("lepton"), run("gloo")
    apart = max(abs(one - other) for one, other in zip(ours, peers, strict=True))
    assert len(ours) == 4 * STEPS and apart < 1e-6, apart
    print("losses agree", flush=True)


if __name__ == "__main__":
    main()
