"""What torch's GRU gives, with which ``test_torch_gru.py`` compares this engine's.

    .venv-peers/bin/python -m tests.serial.torch_gru

writes ``torch_gru.npz`` beside this file; ``./run_local.sh bench training --peers torch`` makes that environment. Inputs are functions
of a case's name and are not stored. Arrays have this engine's order: outputs of a weight last.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
NAMES = "weight_ih", "weight_hh", "bias_ih", "bias_hh"


class Case(NamedTuple):
    """Shape of x, width, layers, and whether there are two directions."""

    x: tuple[int, int, int]
    width: int
    layers: int = 1
    bidirectional: bool = False


CASES = {
    "one": Case((4, 9, 5), 7),
    "one step": Case((3, 1, 2), 3),
    "wide": Case((2, 5, 3), 18),
    "bidirectional": Case((3, 6, 4), 5, bidirectional=True),
    "two layers": Case((3, 6, 4), 5, layers=2),
    "two layers, bidirectional": Case((2, 7, 3), 4, layers=2, bidirectional=True),
}


def units(case: Case) -> Iterator[tuple[str, int]]:
    """Torch's ending of the names of each layer and direction, in its order, and the features that it takes."""
    directions = 2 if case.bidirectional else 1
    for layer in range(case.layers):
        features = case.width * directions if layer else case.x[2]
        for ending in ("", "_reverse")[:directions]:
            yield f"l{layer}{ending}", features


def inputs(name: str) -> dict[str, np.ndarray]:
    """x; the parameters by torch's names; the gradients by all states of the top layer, and by its last ones."""
    case, generator = CASES[name], np.random.default_rng(zlib.crc32(name.encode()))
    gates, outputs = 3 * case.width, case.width * (2 if case.bidirectional else 1)
    shapes: dict[str, tuple[int, ...]] = {"x": case.x}
    for unit, features in units(case):
        of_unit = (features, gates), (case.width, gates), (gates,), (gates,)
        shapes |= {f"{key}_{unit}": shape for key, shape in zip(NAMES, of_unit, strict=True)}
    shapes |= {"grad all": (*case.x[:2], outputs), "grad last": (case.x[0], outputs)}
    found = {key: generator.standard_normal(shape) for key, shape in shapes.items()}
    return {
        key: (array * (1 if "grad" in key or key == "x" else 0.4)).astype("f4")
        for key, array in found.items()
    }


def main() -> None:
    """Run all of them in torch and write the file."""
    found = {}
    for name in CASES:
        for end in ("all", "last"):
            results = _results(name, end)
            found.update({f"{name}/{end}/{key}": array for key, array in results.items()})
    np.savez_compressed(FILE, **found)


def _results(name: str, end: str) -> dict[str, np.ndarray]:
    import torch

    case, given = CASES[name], inputs(name)
    gru: Any = torch.nn.GRU(
        case.x[2],
        case.width,
        case.layers,
        batch_first=True,
        bidirectional=case.bidirectional,
    )
    for key, parameter in gru.named_parameters():
        parameter.data.copy_(torch.from_numpy(given[key].T.copy()))
    x = torch.from_numpy(given["x"]).requires_grad_()
    out, last = gru(x)
    if end == "last":
        directions = 2 if case.bidirectional else 1
        out = torch.cat(list(last[-directions:]), dim=1)
    out.backward(torch.from_numpy(given[f"grad {end}"]))
    results = {"out": out.detach().numpy(), "grad x": x.grad.numpy()}
    for key, parameter in gru.named_parameters():
        results[f"grad {key}"] = parameter.grad.numpy().T.copy()
    return results


if __name__ == "__main__":
    main()
