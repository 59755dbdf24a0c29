"""Backends gloo and lepton in the same processes: ``mpirun -n 4 python -m benchmarks.engines.torch_backend --parts verbs steps --json FILE``.

Each case runs on a process group of the one and then of the other, some rounds in turn, so that what drifts meets both. Rank 0
writes the rows; ``wrong`` counts ranks on which results (losses: to a thousandth) of the two differ.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import lepton_mpi.torch  # noqa: F401
from benchmarks.engines.torch_modules import CASES, Gpt, Mlp
from benchmarks.harness import Row, write_rows
from benchmarks.wire import sent_bytes
from lepton_mpi.options.kinds import parse_size
from lepton_mpi.torch import SharedBuckets, shared_hook

BACKENDS = ("gloo", "lepton")
VERBS = ("all_reduce", "broadcast", "reduce", "all_gather", "reduce_scatter", "all_to_all")
STEPS = {"mlp": "mlp-784-128-10", "resnet-18": "resnet-18, 64x64", "gpt": "gpt-6x384"}
# Bytes of a vector that is exchanged under matrix products, and rows of their matrices.
_OVERLAPPED_BYTES, _PRODUCT_ROWS = (1 << 20, 16 << 20), 256
_ROUNDS = 5
_CALLS_MAX = 200


class Side(NamedTuple):
    """One backend's group, and seconds of a call or step in each round."""

    name: str
    group: Any
    seconds: list[float]


def main() -> None:
    """All parts; rows of rank 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", default=["verbs", "steps", "fsdp"])
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=VERBS)
    parser.add_argument("--sizes", nargs="+", type=parse_size)
    parser.add_argument("--models", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--seconds", type=float, default=0.1, help="of a case in a round")
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("lepton")
    groups = dict(zip(BACKENDS, (dist.new_group(backend="gloo"), dist.new_group()), strict=True))
    rows: list[Row] = []
    measures = {"verbs": _verbs, "steps": _steps, "fsdp": _fsdp, "overlap": _overlap}
    for part in options.parts:
        for row in measures[part](options, groups):
            rows.append({"part": part, "ranks": dist.get_world_size(), **row})
            if dist.get_rank() == 0:
                print(rows[-1], flush=True)
                write_rows(options.json, rows)
    dist.destroy_process_group()


def _verbs(options: argparse.Namespace, groups: dict[str, Any]) -> Iterator[Row]:
    for verb in options.verbs:
        for size in options.sizes:
            results, calls = [], {}
            for name, group in groups.items():
                calls[name], result = _call(verb, size, group)
                calls[name]()
                results.append(result.clone())
            # Whatever a collective leaves on other ranks than the root is its own affair.
            differs = verb != "reduce" or dist.get_rank() == 0
            wrong = _on_ranks(differs and not torch.equal(*results))
            yield {"case": verb, "bytes": size, **_in_turn(calls, options.seconds), "wrong": wrong}


def _call(verb: str, size: int, group: Any) -> tuple[Callable[[], Any], torch.Tensor]:
    """A call whose longer buffer has ``size`` bytes, and where its result is."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    count = max(1, size // 4 // ranks) * ranks
    whole = torch.arange(count, dtype=torch.float32).remainder_(1000) + rank
    part, other = whole[: count // ranks].clone(), torch.zeros(count)
    if verb == "all_reduce":
        return lambda: dist.all_reduce(whole, dist.ReduceOp.MAX, group=group), whole
    if verb == "broadcast":
        return lambda: dist.broadcast(whole, 0, group=group), whole
    if verb == "reduce":
        return lambda: dist.reduce(whole, 0, dist.ReduceOp.MAX, group=group), whole
    if verb == "all_gather":
        return lambda: dist.all_gather_into_tensor(other, part, group=group), other
    if verb == "reduce_scatter":
        return lambda: dist.reduce_scatter_tensor(part, whole, group=group), part
    return lambda: dist.all_to_all_single(other, whole, group=group), other


def _in_turn(calls: dict[str, Callable[[], Any]], seconds: float) -> Row:
    """Median and least microseconds of a call of each, over rounds, and their ratio."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    counts = {}
    for name, call in calls.items():
        began = time.perf_counter()
        call()
        counts[name] = _same(min(_CALLS_MAX, 1 + seconds / (time.perf_counter() - began)))
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            dist.barrier()
            began = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - began) / counts[name])
    found = {f"{name}_us": 1e6 * statistics.median(each) for name, each in times.items()}
    least = {f"{name}_min_us": 1e6 * min(each) for name, each in times.items()}
    return {**found, **least, **_ratios(times)}


def _ratios(times: dict[str, list[float]]) -> Row:
    gloo, lepton = (times[name] for name in BACKENDS)
    ratios = [one / other for one, other in zip(gloo, lepton, strict=True)]
    return {"times_faster": statistics.median(gloo) / statistics.median(lepton), "ratios": ratios}


def _same(number: float) -> int:
    """Rank 0's, on all ranks."""
    told = torch.tensor([int(number)])
    dist.broadcast(told, 0)
    return int(told)


def _on_ranks(is_so: bool) -> int:
    told = torch.tensor([int(is_so)])
    dist.all_reduce(told)
    return int(told)


def _steps(options: argparse.Namespace, groups: dict[str, Any]) -> Iterator[Row]:
    for name in options.models:
        steps = {}
        for backend, group in groups.items():
            net, x, y = _network(name)
            net = DistributedDataParallel(net, process_group=group)
            steps[backend] = _step(net, x, y)
        # On lepton once more, with buckets that are summed where they lie.
        net, x, y = _network(name)
        net = DistributedDataParallel(net, process_group=groups["lepton"])
        net.register_comm_hook(SharedBuckets(groups["lepton"]), shared_hook)
        steps["shared"] = _step(net, x, y)
        # All ranks at the same time, without an exchange: what no backend can be faster than.
        steps["alone"] = _step(*_network(name))
        row = _alternating(steps, options)
        most = row["gloo_us"] / row["alone_us"]
        yield {"case": f"DDP {name}", "bytes": _gradient_bytes(net), **row, "most": most}


def _fsdp(options: argparse.Namespace, groups: dict[str, Any]) -> Iterator[Row]:
    steps = {}
    for backend, group in groups.items():
        net, x, y = _network("gpt")
        mesh = DeviceMesh.from_group(group, "cpu")
        for block in net.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(net, mesh=mesh)
        steps[backend] = _step(net, x, y)
        size = _gradient_bytes(net)
    yield {"case": "FSDP2 gpt", "bytes": size, **_alternating(steps, options)}


def _overlap(options: argparse.Namespace, groups: dict[str, Any]) -> Iterator[Row]:
    """Which share of an exchange is hidden under matrix products that take as long as it does."""
    matrix = torch.randn(_PRODUCT_ROWS, _PRODUCT_ROWS)
    out = torch.empty_like(matrix)
    product = min(_seconds_of(lambda: torch.mm(matrix, matrix, out=out)) for _ in range(20))
    for size in _OVERLAPPED_BYTES:
        row: Row = {"case": "overlap", "bytes": size, "wrong": 0}
        for name, group in groups.items():
            row |= _hidden(name, group, size, lambda: torch.mm(matrix, matrix, out=out), product)
        yield row


def _hidden(name: str, group: Any, size: int, multiply: Callable[[], Any], product: float) -> Row:
    vector = torch.zeros(size // 4)

    def begin() -> Any:
        return dist.all_reduce(vector, group=group, async_op=True)

    exchange = min(_seconds_of(lambda: begin().wait()) for _ in range(_ROUNDS))
    products = _same(max(1, round(exchange / product)))

    def compute() -> None:
        for _ in range(products):
            multiply()

    def both() -> None:
        work = begin()
        compute()
        work.wait()

    rounds = _same(max(_ROUNDS, min(_CALLS_MAX, 1.0 / exchange)))
    times: dict[str, list[float]] = {"exchange": [], "compute": [], "both": []}
    for _ in range(rounds):
        for what, call in (
            ("exchange", lambda: begin().wait()),
            ("compute", compute),
            ("both", both),
        ):
            dist.barrier()
            times[what].append(_seconds_of(call))
    found = {what: statistics.median(each) for what, each in times.items()}
    alone = found["exchange"] + found["compute"]
    share = (alone - found["both"]) / min(found["exchange"], found["compute"])
    return {
        f"{name}_us": 1e6 * found["both"],
        f"{name}_alone_us": 1e6 * alone,
        f"{name}_hidden": share,
    }


def _seconds_of(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _gradient_bytes(net: nn.Module) -> int:
    return sum(4 * each.numel() for each in net.parameters())


def _network(name: str) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The same values on all ranks, and rows of this one."""
    case = CASES[STEPS[name]]
    torch.manual_seed(0)
    is_text = case.make is Gpt
    shape = (64,) if is_text else (784,) if case.make is Mlp else (3, 64, 64)
    net = case.make(shape, 256 if is_text else 10)
    torch.manual_seed(1 + dist.get_rank())
    if is_text:
        tokens = torch.randint(0, 256, (case.rows, 65))
        return net, tokens[:, :-1], tokens[:, 1:].reshape(-1)
    return net, torch.randn(case.rows, *shape), torch.randint(0, 10, (case.rows,))


def _step(net: Any, x: torch.Tensor, y: torch.Tensor) -> Callable[[], float]:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad()
        outputs = net(x)
        loss = criterion(outputs.reshape(-1, outputs.shape[-1]), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def _alternating(steps: dict[str, Callable[[], float]], options: argparse.Namespace) -> Row:
    """A step of the one, a step of the other; bytes that a host sends, where there are several."""
    losses = {name: [step() for _ in range(3)] for name, step in steps.items()}
    first = losses["gloo"]
    compared = [each for name, each in losses.items() if name != "alone"]
    wrong = _on_ranks(not all(np.allclose(first, each, rtol=1e-3) for each in compared))
    began = time.perf_counter()
    for step in steps.values():
        step()
    rounds = _same(max(5, min(_CALLS_MAX, 20 * options.seconds / (time.perf_counter() - began))))
    times: dict[str, list[float]] = {name: [] for name in steps}
    sent = dict.fromkeys(steps, 0)
    for _ in range(rounds):
        for name, step in steps.items():
            dist.barrier()
            before, began = _sent_bytes(), time.perf_counter()
            step()
            times[name].append(time.perf_counter() - began)
            sent[name] += _sent_bytes() - before
    found = {f"{name}_us": 1e6 * statistics.median(each) for name, each in times.items()}
    wire = {f"{name}_sent_bytes": each / rounds for name, each in sent.items()}
    return {**found, **wire, "steps": rounds, **_ratios(times), "wrong": wrong}


def _sent_bytes() -> int:
    table = Path("/proc/net/dev").read_text()
    return sent_bytes(table) if "eth0:" in table else 0


if __name__ == "__main__":
    main()
