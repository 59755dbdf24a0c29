"""The losses of torch's first steps, with which ``test_torch_losses.py`` compares this engine's.

    .venv-peers/bin/python -m tests.parallel.torch_losses

writes them anew to ``torch_losses.json`` beside this file; ``./run_local.sh bench training --peers torch`` makes that environment.
Rows, initial parameters and the order of rows are those of ``benchmarks/engines/cases.py``, functions of fixed numbers that
need NumPy only.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines.cases import Case, order

FILE = Path(__file__).with_suffix(".json")
BATCH, STEPS_PER_EPOCH, EPOCHS = 64, 25, 4


@dataclass(frozen=True)
class Run:
    """100 steps of a model by an optimizer, in 4 epochs."""

    case: Case
    optimizer: str
    learning_rate: float
    dtype: str

    def __str__(self) -> str:
        return f"{self.case.name} {self.optimizer} {self.dtype}"


# The network that the recipe for the digits trains, and a logistic regression.
_MODELS = (Case("mlp", (64, 128, 10)), Case("logistic", (30,)))
# "momentum" is SGD with momentum 0.9.
_OPTIMIZERS = (("adam", 3e-3), ("momentum", 5e-2))
RUNS = [
    Run(case, optimizer, rate, dtype)
    for case in _MODELS
    for optimizer, rate in _OPTIMIZERS
    for dtype in ("float32", "float64")
]


def main() -> None:
    """Train all of them with torch and write the file."""
    import torch

    losses = {str(run): _losses(run) for run in RUNS}
    FILE.write_text(json.dumps({"torch": torch.__version__, "losses": losses}, indent=1) + "\n")


def _losses(run: Run) -> list[float]:
    """Mean loss of every batch before the step on it."""
    import torch

    from benchmarks.engines.torch_engine import loss_and_targets, network

    x, y = (torch.from_numpy(values) for values in run.case.rows(BATCH * STEPS_PER_EPOCH))
    x, model = x.to(getattr(torch, run.dtype)), network(run.case, run.dtype)
    loss_of, targets = loss_and_targets(run.case, y, run.dtype)
    if run.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), run.learning_rate)
    else:
        optimizer = torch.optim.SGD(model.parameters(), run.learning_rate, momentum=0.9)
    losses = []
    for epoch in range(1, EPOCHS + 1):
        for rows in torch.from_numpy(order(len(x), epoch)).split(BATCH):
            loss = loss_of(model(x[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


if __name__ == "__main__":
    main()
