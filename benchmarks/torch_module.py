"""What does a step of a torch module by ``fit`` cost, beside a plain torch loop on one rank?

    ./run_local.sh bench torch_module --json FILE

In an environment with torch. Both loops train modules of the same values on the same micro-batches with Adam, torch with its fused one,
on one thread, a step of one and a step of the other in turn; times are medians over steps. The ratio of CPU times stays true beside other work. The plain loop is given its rows as tensors; the engine's
step includes reading its rows, and a look at how many were predicted correctly. ``#wrong`` counts losses that differ by more than 1 %, of the first steps.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.harness import (
    Column,
    Row,
    machine,
    print_header,
    print_row,
    print_titles,
    write_rows,
)
from lepton_mpi.options.config import Config
from lepton_mpi.world.world import World, run

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

_COLUMNS = (
    Column("case", "case", 18),
    Column("rows", "rows", 5),
    Column("steps", "steps", 6),
    Column("torch_us", "torch us", 10, ".0f"),
    Column("fit_us", "fit us", 10, ".0f"),
    Column("ratio", "fit/torch", 10, ".3f"),
    Column("cpu_ratio", "of CPU time", 12, ".3f"),
    Column("wrong", "#wrong", 7),
)
_RATE = 1e-4
# Steps that are not timed; of as many the losses are compared, before roundings have grown.
_WARM_UP = 3


def main() -> int:
    """Print the table; exit code 1 for wrong losses, 4 without torch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--cases", nargs="+", metavar="NAME")
    parser.add_argument("--steps", type=int, help="of each case; default: by case")
    options = parser.parse_args()
    if torch is None:
        print(
            f"torch_module: {sys.executable} has no torch; run it where torch is", file=sys.stderr
        )
        return 4
    from benchmarks.engines.torch_modules import CASES

    unknown = set(options.cases or ()) - set(CASES)
    if unknown:
        parser.error(f"--cases: expected {', '.join(CASES)}, got {', '.join(sorted(unknown))}")
    print_header("torch modules by fit, one rank", machine() | {"torch": torch.__version__})
    print_titles(_COLUMNS)
    rows: list[Row] = []

    def measure_all(world: World) -> None:
        for name in options.cases or CASES:
            rows.append({"case": name, **_measured(_limited(CASES[name], options.steps), world)})
            print_row(_COLUMNS, rows[-1])

    code = run(measure_all)
    if options.json:
        write_rows(options.json, [machine() | {"torch": torch.__version__}, *rows])
    return code or int(any(row["wrong"] for row in rows))


def _limited(case: Any, steps: int | None) -> Any:
    return case._replace(steps=max(steps, 2 * _WARM_UP)) if steps else case


def _measured(case: Any, world: World) -> Row:
    from lepton_mpi.run.build import build

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.h5")
        with h5py.File(path, "w") as file:
            for name, array in case.arrays().items():
                file[name] = array
        config = Config(
            **{"data": str(path), "epochs": 1, "progress": "none", "threads": 1},
            **{"global_batch": case.rows, "micro_batch": case.rows, "learning_rate": _RATE},
            context=64,
        )
        made = build(config, world, case.make)
        try:
            return {"rows": case.rows, **_interleaved(made, case)}
        finally:
            made.model.release(made.parameters)
            made.close()


def _interleaved(made: Any, case: Any) -> Row:
    """Seconds and losses of both loops."""
    times: dict[str, list[float]] = {"torch": [], "fit": []}
    cpu: dict[str, list[float]] = {"torch": [], "fit": []}
    losses: list[tuple[float, float]] = []
    plain = _plain_step(made, case)
    for _ in made.epochs():
        for step in made.steps():
            began, began_cpu = time.perf_counter(), time.process_time()
            for _, _, gradient, sync in made.strategy.shares(step.number):
                batch = made.inputs.next(step.draw)
                sums = made.model.loss_and_gradient(made.parameters, batch, gradient, sync)
            made.strategy.step(step.number, step.weight)
            times["fit"].append(time.perf_counter() - began)
            cpu["fit"].append(time.process_time() - began_cpu)
            tensors = torch.from_numpy(batch.x.copy()), torch.from_numpy(batch.y.copy()).long()
            began, began_cpu = time.perf_counter(), time.process_time()
            loss = plain(*tensors)
            times["torch"].append(time.perf_counter() - began)
            cpu["torch"].append(time.process_time() - began_cpu)
            losses.append((sums[0] / step.weight, loss))
            if len(losses) == case.steps:
                break
        break
    made.strategy.finish()
    wrong = sum(abs(a - b) > 0.01 * abs(b) for a, b in losses[:_WARM_UP])
    found = {name: 1e6 * statistics.median(all_[_WARM_UP:]) for name, all_ in times.items()}
    return {
        "steps": len(losses) - _WARM_UP,
        **{f"{name}_us": value for name, value in found.items()},
        "ratio": found["fit"] / found["torch"],
        "cpu_ratio": statistics.median(cpu["fit"][_WARM_UP:])
        / statistics.median(cpu["torch"][_WARM_UP:]),
        "wrong": wrong,
    }


def _plain_step(made: Any, case: Any) -> Callable[[Any, Any], float]:
    """The loop of torch's tutorials, on a module that begins with the run's values."""
    module = case.make(made.data.feature_shape, made.data.output_count)
    state = {name: torch.from_numpy(np.array(array)) for name, array in made.parameters.items()}
    module.load_state_dict(state, strict=False)
    module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=_RATE, fused=True)
    criterion = torch.nn.CrossEntropyLoss()

    def step(x: Any, y: Any) -> float:
        x = x if x.is_floating_point() else x.long()
        optimizer.zero_grad()
        outputs = module(x)
        loss = criterion(outputs.reshape(-1, outputs.shape[-1]), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


if __name__ == "__main__":
    raise SystemExit(main())
