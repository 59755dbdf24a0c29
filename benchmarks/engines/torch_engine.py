"""torch's run of a case: in one process, or with ``--ranks`` and DistributedDataParallel over gloo.

Runs in an environment that has torch and need not have MPI. The loop is what its tutorials show, with the
faster of Adam's implementations that torch has for CPUs (``fused``).
"""

import argparse
import time

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from benchmarks.engines.cases import CASES, LEARNING_RATE, Case, order, parser, training_row
from benchmarks.harness import write_rows
from benchmarks.peers.torch_ranks import run_on_ranks


def network(case: Case, dtype: str = "float32") -> nn.Module:
    """The case's model with its initial parameters."""
    parameters, kind = case.initial(np.dtype(dtype).type), getattr(torch, dtype)
    if case.is_logistic:
        layer = nn.Linear(case.widths[0], 1, dtype=kind)
        _fill(layer, parameters["weight"].reshape(-1, 1), parameters["bias"])
        return layer
    modules: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(zip(case.widths[:-1], case.widths[1:], strict=True)):
        layer = nn.Linear(inputs, outputs, dtype=kind)
        _fill(layer, parameters[f"layer{number}/weight"], parameters[f"layer{number}/bias"])
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def _fill(layer: nn.Linear, weight, bias) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight).T)
        layer.bias.copy_(torch.from_numpy(bias))


def loss_and_targets(case: Case, y: torch.Tensor, dtype: str = "float32"):
    """The case's mean loss, and the classes as it takes them."""
    if case.is_logistic:
        return nn.BCEWithLogitsLoss(), y.to(getattr(torch, dtype)).reshape(-1, 1)
    return nn.CrossEntropyLoss(), y


def train(options: argparse.Namespace, rank: int, ranks: int) -> list[tuple[float, float]]:
    """(seconds, mean loss) of every epoch."""
    case = CASES[options.case]
    per_rank, batch = options.rows_per_rank, options.rows_per_rank * ranks
    x, y = (torch.from_numpy(values) for values in case.rows(batch * options.steps))
    model: nn.Module = network(case)
    if ranks > 1:
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    loss_of, targets = loss_and_targets(case, y)
    epochs = []
    for epoch in range(1, options.epochs + 1):
        rows = torch.from_numpy(order(len(x), epoch))
        if ranks > 1:
            dist.barrier()
        began, total = time.perf_counter(), torch.zeros(())
        for step in range(options.steps):
            start = step * batch + rank * per_rank
            mine = rows[start : start + per_rank]
            loss = loss_of(model(x[mine]), targets[mine])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if ranks > 1:
            dist.all_reduce(total)
        epochs.append((time.perf_counter() - began, float(total) / options.steps / ranks))
    return epochs


def measure(rank: int, options: argparse.Namespace) -> None:
    """What every rank does; rank 0 writes the row."""
    epochs = train(options, rank, options.ranks)
    if rank == 0:
        engine = "torch-ddp" if options.ranks > 1 else "torch"
        row = training_row(options, engine, options.ranks, epochs, version=torch.__version__)
        write_rows(options.json, [row])


if __name__ == "__main__":
    made = parser()
    made.add_argument("--ranks", type=int, default=1)
    given = made.parse_args()
    raise SystemExit(run_on_ranks(given.ranks, given.threads, measure, given))
