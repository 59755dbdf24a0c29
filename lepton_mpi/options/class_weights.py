"""What ``--class-weights`` takes. Imports no NumPy."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_mpi.options.kinds import Text, Unexpected
from lepton_mpi.options.paths import expanded

BALANCED = "balanced"
_SUFFIX = ".json"
# By class, or one for each class in their order.
Weights = Mapping[str, float] | tuple[float, ...]


@dataclass(frozen=True)
class ClassWeightsText(Text):
    """A text that ``is_file`` or ``read`` takes; a program may give a dict of class to weight, or a list."""

    word: str = "WEIGHTS"
    expected: str = "balanced, NAME=WEIGHT,…, a weight for each class as in 1,2.5, or a .json file with such an object or list"

    def from_text(self, text: str) -> str:
        if is_file(text):
            return expanded(text)
        read(text)
        return text

    def from_value(self, value: Any) -> str:
        try:
            if isinstance(value, Mapping):
                value = json.dumps({str(name): weight for name, weight in value.items()})
            elif isinstance(value, list | tuple):
                value = json.dumps(list(value))
        except TypeError:  # of what is in it
            raise ValueError from None
        return super().from_value(value)


def is_file(text: str) -> bool:
    """Whether the weights stand in a file of this name."""
    return text.endswith(_SUFFIX)


def read(text: str) -> Weights | None:
    """The weights that a text says, or the contents of a file; None for balanced ones. Raises ValueError.

    >>> read("no=1,yes=8.5"), read("1,8.5"), read('{"no": 1}'), read("balanced")
    ({'no': 1.0, 'yes': 8.5}, (1.0, 8.5), {'no': 1.0}, None)
    """
    text = text.strip()
    if text == BALANCED:
        return None
    if text.startswith(("{", "[")):
        found: Any = json.loads(text)
    elif "=" in text:
        pairs = [part.rpartition("=") for part in text.split(",")]
        found = {name.strip(): float(weight) for name, _, weight in pairs}
    else:
        found = [float(part) for part in text.split(",")]
    values = list(found.values()) if isinstance(found, dict) else found
    are_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not values or not are_numbers or not all(0 <= v < math.inf for v in values):
        raise Unexpected(
            f"expected weights that are finite numbers of at least 0, got {text[:80]!r}"
        )
    if isinstance(found, dict):
        return {name: float(weight) for name, weight in found.items()}
    return tuple(float(weight) for weight in found)


def read_file(name: str) -> Weights | None:
    """Of a .json file. Raises OSError and ValueError."""
    return read(Path(name).read_text(encoding="utf-8"))
