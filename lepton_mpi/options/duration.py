"""Times as people and batch systems write them. Imports no NumPy."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(sec|min|[smhd])")
# As Slurm has them: the days may be left out.
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError.

    A number alone and ``2:00`` are refused: they are hours, minutes or seconds, as the batch system has it.

    >>> [parse_duration(text) for text in ("90s", "1.5min", "2h", "1h30min", "2:00:30", "1-12:00:00")]
    [90.0, 90.0, 7200.0, 5400.0, 7230.0, 129600.0]
    """
    if clock := _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def duration_text(seconds: float) -> str:
    """For people, two units at most.

    >>> [duration_text(seconds) for seconds in (0.25, 40, 300, 312, 7200, 9000, 200000)]
    ['0.25 s', '40 s', '5 min', '5 min 12 s', '2 h', '2 h 30 min', '2 d 7 h']
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.2g} s"
    rest = round(seconds)
    names = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(index for index, (_, size) in enumerate(names) if rest >= size)
    found = []
    for name, size in names[first : first + 2]:
        found += [f"{rest // size} {name}"] * (rest >= size)
        rest %= size
    return " ".join(found)


@dataclass(frozen=True)
class Duration:
    """A time in seconds, from 0: a text that ``parse_duration`` takes, or a program's number."""

    word: str = "TIME"
    expected: str = "a time with its unit, as in 90s, 5min, 1h30min, 2:00:00 or 1-12:00:00"

    def from_text(self, text: str) -> float:
        return parse_duration(text)

    def from_value(self, value: Any) -> float:
        if isinstance(value, str):
            return parse_duration(value)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError
        if not 0 <= value < math.inf:
            raise ValueError
        return float(value)

    def shown(self, value: float) -> str:
        return f"{value:g}s" if value % 60 else f"{value / 60:g}min"
