"""What torch gives for the layers of tables, and its first losses with a wide and deep model: for ``test_torch_wide_and_deep.py``.

    .venv-peers/bin/python -m tests.serial.torch_wide_and_deep

writes ``torch_wide_and_deep.json`` beside this file; ``./run_local.sh bench training --peers torch`` makes that environment.
Rows, classes and initial weights are functions of fixed numbers and need NumPy only. A cross is one column more for torch.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).with_suffix(".json")
STEPS, BATCH, NUMBERS, CLASSES, LEARNING_RATE = 50, 24, 5, 3, 0.2
VALUES, WIDTHS, HIDDEN = (4, 7, 2, 30), (4, 5, 3, 11), (16, 8)
# Numbers of columns; the second and third have more values than rows and are hashed.
CROSSES, BUCKETS = ((0, 1), (1, 3), (3, 0, 2)), 40


class Rows(NamedTuple):
    """A batch: numbers (rows, NUMBERS), categories (rows, columns) and classes."""

    x: np.ndarray
    categories: np.ndarray
    y: np.ndarray


def batches() -> Iterator[Rows]:
    """Classes depend on a number and on two categories together."""
    generator = np.random.default_rng(3)
    effects = generator.standard_normal((VALUES[0], VALUES[1], CLASSES))
    for _ in range(STEPS):
        x = generator.standard_normal((BATCH, NUMBERS))
        codes = generator.integers(0, VALUES, (BATCH, len(VALUES)))
        scores = 3 * effects[codes[:, 0], codes[:, 1]] + x[:, :1] * [1, 0, -1]
        scores += generator.gumbel(size=scores.shape)
        yield Rows(x.astype("f4"), codes.astype("i4"), scores.argmax(axis=1).astype("i4"))


def weight(number: int, shape: tuple[int, ...]) -> np.ndarray:
    """The initial values of the model's parameter ``number``, in forward order."""
    return 0.3 * np.random.default_rng(number).standard_normal(shape)


def weight_rows(codes: np.ndarray) -> np.ndarray:
    """Rows of the wide part's weight, (rows, columns and crosses), with one number after the other made by Python."""
    sizes = [
        *VALUES,
        *(min(int(np.prod([VALUES[c] for c in cross])), BUCKETS) for cross in CROSSES),
    ]
    starts, found = np.cumsum([0, *sizes]), []
    for row in codes.tolist():
        numbers = list(row)
        for cross in CROSSES:
            number, count = 0, 1
            for column in cross:
                number, count = number * VALUES[column] + row[column], count * VALUES[column]
            numbers.append(number if count <= BUCKETS else _hashed(number) % BUCKETS)
        found.append([start + number for start, number in zip(starts, numbers, strict=False)])
    return np.array(found)


def _hashed(number: int) -> int:
    """Steele, Lea and Flood's SplitMix64, its last part."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
    return number ^ number >> 31


WIDE_ROWS = sum(VALUES) + 28 + 2 * BUCKETS


def main() -> None:
    """Compute, train and write the file."""
    import torch

    kinds = ("float32", "float64")
    losses = {kind: _losses(getattr(torch, kind)) for kind in kinds}
    stored = {"torch": torch.__version__, "losses": losses, "layers": _layers()}
    FILE.write_text(json.dumps(stored) + "\n")


def _layers() -> dict[str, dict[str, Any]]:
    """What comes out of each layer of the first batch, and the gradients of its parameters for a slope of ``weight(99, …)``."""
    import torch

    rows, found = next(batches()), {}
    tables = [
        torch.tensor(weight(n, s), dtype=torch.float32, requires_grad=True)
        for n, s in enumerate(_tables())
    ]
    codes, wide = (
        torch.from_numpy(rows.categories).long(),
        torch.from_numpy(weight_rows(rows.categories)),
    )
    table = torch.tensor(weight(9, (WIDE_ROWS, CLASSES)), dtype=torch.float32, requires_grad=True)
    outs = {
        "column embedding": (torch.cat([torch.nn.functional.embedding(codes[:, j], t) for j, t in enumerate(tables)], 1), tables),
        "crossed linear": (torch.nn.functional.embedding_bag(wide, table, mode="sum"), [table]),
    }  # fmt: skip
    for name, (out, parameters) in outs.items():
        slope = torch.tensor(weight(99, tuple(out.shape)), dtype=torch.float32)
        gradients = torch.autograd.grad(out, parameters, slope)
        found[name] = {"out": out.tolist(), "gradients": [each.tolist() for each in gradients]}
    return found


def _tables() -> list[tuple[int, int]]:
    return list(zip(VALUES, WIDTHS, strict=True))


def _losses(dtype: Any) -> list[float]:
    import torch
    from torch.nn import functional

    widths = (NUMBERS + sum(WIDTHS), *HIDDEN, CLASSES)
    shapes = [(NUMBERS, CLASSES), (WIDE_ROWS, CLASSES), *_tables()]
    for inputs, outputs in pairwise(widths):
        shapes += [(inputs, outputs), (outputs,)]
    parameters = [
        torch.tensor(weight(number, shape), dtype=dtype, requires_grad=True)
        for number, shape in enumerate(shapes)
    ]
    linear, wide, *tables = parameters[: 2 + len(VALUES)]
    dense, losses = parameters[2 + len(VALUES) :], []
    for rows in batches():
        x, codes = torch.from_numpy(rows.x).to(dtype), torch.from_numpy(rows.categories).long()
        shallow = functional.embedding_bag(
            torch.from_numpy(weight_rows(rows.categories)), wide, mode="sum"
        )
        deep = torch.cat(
            [x, *(functional.embedding(codes[:, j], t) for j, t in enumerate(tables))], 1
        )
        for layer in range(0, len(dense), 2):
            deep = deep @ dense[layer] + dense[layer + 1]
            deep = torch.relu(deep) if layer < len(dense) - 2 else deep
        loss = functional.cross_entropy(
            x @ linear + shallow + deep, torch.from_numpy(rows.y).long()
        )
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= LEARNING_RATE * gradient
        losses.append(float(loss.detach()))
    return losses


if __name__ == "__main__":
    main()
