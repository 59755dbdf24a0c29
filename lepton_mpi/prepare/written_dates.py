"""Dates and times as people write them, as seconds since 1970 or as their parts.

A date such as 03/04/2023 can be read in two ways; ``orders`` tells in which a text can be, and whoever reads a column
must know the one that holds for all of it. Times without a zone are taken as they are; a time alone counts from midnight.
"""

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from lepton_mpi.prepare.written_numbers import LOOKED_AT, NEARLY_ALL

ORDERS = ("ymd", "dmy", "mdy")
PARTS = ("year", "month", "day", "weekday", "hour", "minute")

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = (
    r"(?P<y>\d{4})(?P<s1>[-/.])(?P<m>\d{1,2})(?P=s1)(?P<d>\d{1,2})"
    r"|(?P<a>\d{1,2})(?P<s2>[-/.])(?P<b>\d{1,2})(?P=s2)(?P<c>\d{4}|\d{2})"
    r"|(?P<d2>\d{1,2})[- ](?P<n2>[A-Za-z]{3,9})\.?,?[- ](?P<y2>\d{4}|\d{2})"
    r"|(?P<n3>[A-Za-z]{3,9})\.? (?P<d3>\d{1,2}),? (?P<y3>\d{4})"
    r"|(?P<y4>\d{4})(?P<m4>\d{2})(?P<d4>\d{2})"
)
_TIME = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s?(?P<half>[AaPp]\.?[Mm]\.?)?\s?(?P<zone>Z|UTC|[+-]\d{2}:?\d{2})?"
)
_PATTERN = re.compile(rf"(?:{_DATE})(?:[T ,]\s?{_TIME})?")
_TIME_ALONE = re.compile(_TIME)
_EPOCH = datetime(1970, 1, 1)


def seconds_of(text: str, order: str) -> float | None:
    """Seconds since 1970, or of a time alone since midnight; None for what is neither.

    >>> seconds_of("1970-01-02", "dmy"), seconds_of("02/01/1970 01:00", "dmy"), seconds_of("0:30", "dmy")
    (86400.0, 90000.0, 1800.0)
    >>> seconds_of("Jan 2, 1970 12:30 AM", "mdy"), seconds_of("30/02/2023", "dmy")
    (88200.0, None)
    """
    text = text.strip()
    found = _PATTERN.fullmatch(text)
    alone = None if found else _TIME_ALONE.fullmatch(text)
    if not (found or alone):
        return None
    try:
        date = _date(found, order) if found else _EPOCH
        return (date - _EPOCH).total_seconds() + _seconds_of_day(found or alone)
    except ValueError:  # such as February 30
        return None


def orders_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The orders in which nearly all of the texts are dates or times; several if nothing tells.

    >>> orders_of(["01/02/2023", "13/02/2023"]), orders_of(["01/02/2023"]), orders_of(["red"])
    (('dmy',), ('dmy', 'mdy'), ())
    """
    seen = texts[:: max(1, len(texts) // LOOKED_AT)]
    counts = {order: sum(seconds_of(text, order) is not None for text in seen) for order in ORDERS}
    most = max(counts.values())
    if not seen or most < NEARLY_ALL * len(seen):
        return ()
    best = tuple(order for order in ORDERS if counts[order] == most)
    return ("ymd",) if len(best) == len(ORDERS) else best


def parts_of(seconds: float) -> tuple[float, ...]:
    """``PARTS`` of a time since 1970; a Monday is weekday 0. NaN gives NaN.

    >>> parts_of(90000.0)
    (1970, 1, 2, 4, 1, 0)
    """
    if math.isnan(seconds):
        return (math.nan,) * len(PARTS)
    time = _EPOCH + timedelta(seconds=seconds)
    return time.year, time.month, time.day, time.weekday(), time.hour, time.minute


def _date(found: re.Match, order: str) -> datetime:
    """Raises ValueError."""
    if found["y"]:
        year, month, day = found["y"], found["m"], found["d"]
    elif found["y4"]:
        year, month, day = found["y4"], found["m4"], found["d4"]
    elif found["a"]:
        if order == "ymd":
            raise ValueError
        year = found["c"]
        day, month = (found["a"], found["b"]) if order == "dmy" else (found["b"], found["a"])
    else:
        name, day, year = (found["n2"], found["d2"], found["y2"]) if found["n2"] else (
            found["n3"], found["d3"], found["y3"]
        )  # fmt: skip
        month = _MONTHS.index(name[:3].lower()) + 1
    return datetime(_full_year(year), int(month), int(day))


def _full_year(text: str) -> int:
    """Of two digits the one from 1970 to 2069, as POSIX has it, within a year."""
    year = int(text)
    return year if len(text) == 4 else year + (1900 if year >= 70 else 2000)


def _seconds_of_day(found: re.Match) -> float:
    """Raises ValueError."""
    if not found["hour"]:
        return 0.0
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    if found["half"]:
        if not 1 <= hour <= 12:
            raise ValueError
        hour = hour % 12 + (12 if found["half"][0] in "Pp" else 0)
    if hour > 24 or minute > 59 or second > 60:
        raise ValueError
    seconds = hour * 3600 + minute * 60 + second + float(f"0.{found['part'] or 0}")
    zone = found["zone"]
    if zone and zone[0] in "+-":
        offset = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds
