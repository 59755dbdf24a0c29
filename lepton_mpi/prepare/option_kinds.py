"""Kinds of options that ``prepare`` alone has: fractions, sizes of images, words with a number behind ``=``."""

import math
import re
from collections.abc import Callable
from typing import Any

from lepton_mpi.options.kinds import PathText, Read


class InputPath(PathText):
    """A path that may have ``train=``, ``validation=`` or ``test=`` in front of it."""

    def from_text(self, text: str) -> str:
        split, _, path = text.partition("=")
        # The splits of data/files/file_format.py, which imports NumPy.
        if split in ("train", "validation", "test") and path.startswith("~"):
            return f"{split}={super().from_text(path)}"
        return super().from_text(text)


def _fractions(text: str) -> tuple[float, float, float]:
    train, validation, test = (*map(float, text.split(",")), 0.0, 0.0)[:3]
    if text.count(",") > 2 or not _are_fractions((train, validation, test)):
        raise ValueError
    return train, validation, test


def _are_fractions(values: Any) -> bool:
    is_three = isinstance(values, tuple | list) and len(values) == 3
    return is_three and min(values) >= 0 and abs(sum(values) - 1) <= 1e-9


def _image_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise ValueError
    return int(match[1]), int(match[2])


def _is_image_size(values: Any) -> bool:
    is_two = isinstance(values, tuple | list) and len(values) == 2
    return is_two and all(isinstance(value, int) and value > 0 for value in values)


FRACTIONS = Read(
    "F,F,F",
    "fractions for train,validation,test that add up to 1, such as 0.8,0.1,0.1",
    _fractions,
    _are_fractions,
    lambda values: ",".join(f"{value:g}" for value in values),
)
IMAGE_SIZE = Read(
    "HxW",
    "HEIGHTxWIDTH such as 32x32",
    _image_size,
    _is_image_size,
    lambda size: f"{size[0]}x{size[1]}",
)


def missing_constant(text: str) -> str | None:
    """VALUE of ``constant=VALUE``, None of error, drop, mean and median. Raises ValueError for anything else."""
    kind, _, value = text.partition("=")
    if (kind == "constant") != bool(value) or kind not in (
        "error",
        "drop",
        "mean",
        "median",
        "constant",
    ):
        raise ValueError
    return value or None


def outlier_limit(text: str) -> tuple[str, float]:
    """Kind (none, quantile, zscore) and number of ``quantile=Q`` and ``zscore=Z``. Raises ValueError."""
    kind, _, number = text.partition("=")
    limit = float(number) if number else 0.0
    good = {"none": not number, "quantile": 0 < limit < 0.5, "zscore": 0 < limit < math.inf}
    if not good.get(kind, False):
        raise ValueError
    return kind, limit


def is_read_by(read: Callable[[str], Any]) -> Callable[[str], bool]:
    """A check: whether ``read`` raises no ValueError."""

    def is_read(text: str) -> bool:
        try:
            read(text)
        except ValueError:
            return False
        return True

    return is_read
