"""torch's run of a case: in one process, or with ``--ranks`` and DistributedDataParallel over gloo.

Runs in an environment that has torch and need not have MPI. The loop is what its tutorials show, with the
faster of Adam's implementations that torch has for CPUs (``fused``). Networks of layers (``torch_networks.py``) are trained in
the fastest of several ways, see ``ways_of``.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from benchmarks.engines.cases import CASES, LEARNING_RATE, Case, order, parser, training_row
from benchmarks.engines.networks import NETWORKS, Network, ResNet
from benchmarks.engines.torch_networks import Batches, module_of, optimizer_of
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


# -- networks of layers ------------------------------------------------------------------------------------

_TRIAL_SECONDS, _TRIAL_STEPS_MAX = 0.5, 50
_COMPILED, _CHANNELS_LAST, _STATIC = "compiled", "channels-last", "static"


def ways_of(network: Network, ranks: int) -> list[str]:
    """What is tried: words of compiled, channels-last and, of DistributedDataParallel, static; "eager" has none of them.

    compiled        ``torch.compile``
    channels-last   images and weights of convolutions in that layout
    static          ``static_graph=True``, and gradients that are views of the buckets
    """
    layouts = ["", _CHANNELS_LAST] if isinstance(network, ResNet) else [""]
    extras = ["", _STATIC] if ranks > 1 else [""]
    return [
        " ".join(filter(None, (layout, compiled, extra))) or "eager"
        for compiled in ("", _COMPILED)
        for layout in layouts
        for extra in extras
    ]


class NetworkRun:
    """A network's training, begun anew, in one way."""

    def __init__(self, network: Network, batches: Batches, way: str, ranks: int) -> None:
        self._batches, self._ranks = batches, ranks
        module = module_of(network)
        if _CHANNELS_LAST in way:
            module = module.to(memory_format=torch.channels_last)
        self._optimizer = optimizer_of(network, module)
        self._loss: Callable[..., torch.Tensor] = module
        if ranks > 1:
            of_way = {"static_graph": True, "gradient_as_bucket_view": True}
            wrapped = nn.parallel.DistributedDataParallel
            self._loss = wrapped(module, **(of_way if _STATIC in way else {}))
        if _COMPILED in way:
            self._loss = torch.compile(self._loss)

    def step(self, rows: torch.Tensor) -> torch.Tensor:
        """One on these rows of this rank; the mean loss of them."""
        loss = self._loss(*self._batches.take(rows))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return loss.detach()


def train_network(
    options: argparse.Namespace, rank: int, ranks: int
) -> tuple[list[tuple[float, float]], str]:
    """(seconds, mean loss) of every epoch, and the way that was taken: the one of ``--way``, or the fastest in a trial."""
    network, per_rank = NETWORKS[options.case], options.rows_per_rank
    batch = per_rank * ranks
    count = batch * options.steps
    ways = [options.way] if options.way else ways_of(network, ranks)
    arrays = {layout: Batches(network, count, layout) for layout in {_layout(way) for way in ways}}
    positions = torch.from_numpy(order(count, 1))
    rows = [positions[s * batch + rank * per_rank :][:per_rank] for s in range(options.steps)]
    way = _fastest(network, arrays, ways, ranks, rows) if len(ways) > 1 else ways[0]
    run = NetworkRun(network, arrays[_layout(way)], way, ranks)
    epochs = []
    for epoch in range(1, options.epochs + 1):
        positions = torch.from_numpy(order(count, epoch))
        if ranks > 1:
            dist.barrier()
        began, total = time.perf_counter(), torch.zeros(())
        for step in range(options.steps):
            start = step * batch + rank * per_rank
            total += run.step(positions[start : start + per_rank])
        if ranks > 1:
            dist.all_reduce(total)
        epochs.append((time.perf_counter() - began, float(total) / options.steps / ranks))
    return epochs, way


def _layout(way: str) -> str:
    return _CHANNELS_LAST if _CHANNELS_LAST in way else ""


def _fastest(
    network: Network,
    arrays: Mapping[str, Batches],
    ways: Sequence[str],
    ranks: int,
    rows: Sequence[torch.Tensor],
) -> str:
    """The way with the fastest step; one to warm up, or to be compiled, is left out."""
    times = torch.full((len(ways),), torch.inf)
    for number, way in enumerate(ways):
        try:
            run = NetworkRun(network, arrays[_layout(way)], way, ranks)
            seconds = [_timed_step(run, ranks, rows[step % len(rows)]) for step in range(2)]
            count = min(_TRIAL_STEPS_MAX, max(1, int(_TRIAL_SECONDS / seconds[-1])))
            seconds += [_timed_step(run, ranks, rows[step % len(rows)]) for step in range(count)]
            times[number] = min(seconds[1:])
        except torch._dynamo.exc.BackendCompilerFailed as error:
            # Without a C++ compiler, on every rank alike.
            print(f"{way} left out: {error}")
    return ways[int(times.argmin())]


def _timed_step(run: NetworkRun, ranks: int, rows: torch.Tensor) -> float:
    """Seconds of a step, on the slowest rank: the same number on all of them."""
    if ranks > 1:
        dist.barrier()
    began = time.perf_counter()
    run.step(rows)
    seconds = torch.tensor([time.perf_counter() - began], dtype=torch.float64)
    if ranks > 1:
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return float(seconds)


# -- the row -----------------------------------------------------------------------------------------------


def measure(rank: int, options: argparse.Namespace) -> None:
    """What every rank does; rank 0 writes the row."""
    if options.case in NETWORKS:
        epochs, way = train_network(options, rank, options.ranks)
    else:
        epochs, way = train(options, rank, options.ranks), "eager"
    if rank == 0:
        engine = "torch-ddp" if options.ranks > 1 else "torch"
        row = training_row(options, engine, options.ranks, epochs, version=torch.__version__)
        write_rows(options.json, [{**row, "way": way}])


if __name__ == "__main__":
    made = parser(with_networks=True)
    made.add_argument("--ranks", type=int, default=1)
    made.add_argument(
        "--way",
        help="of a network, such as 'channels-last compiled'; default: the fastest in a trial",
    )
    given = made.parse_args()
    raise SystemExit(run_on_ranks(given.ranks, given.threads, measure, given))
