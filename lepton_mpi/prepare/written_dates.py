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

_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september"),
    *("october", "november", "december"),
)
_WEEKDAY = r"(?:(?i:(?:mon|tue|tues|wed|wednes|thu|thur|thurs|fri|sat|satur|sun)(?:day)?)\.?,?\s)?"
_DATE = (
    r"(?P<y>\d{4})(?P<s1>[-/.])(?P<m>\d{1,2})(?P=s1)(?P<d>\d{1,2})"
    r"|(?P<a>\d{1,2})(?P<s2>[-/.])(?P<b>\d{1,2})(?P=s2)(?P<c>\d{4}|\d{2})"
    r"|(?P<d2>\d{1,2})[- ](?P<n2>[A-Za-z]{3,9})\.?,?[- ](?P<y2>\d{4}|\d{2})"
    r"|(?P<n3>[A-Za-z]{3,9})\.? (?P<d3>\d{1,2}),? (?P<y3>\d{4})"
    r"|(?P<y4>\d{4})(?P<m4>\d{2})(?P<d4>\d{2})"
    r"|(?P<y5>\d{4})[-/](?P<m5>\d{1,2})|(?P<m6>\d{1,2})[-/](?P<y6>\d{4})"
    r"|(?P<n7>[A-Za-z]{3,9})\.?[- ](?P<y7>\d{4})"
    r"|(?P<y8>\d{4})[- ]?Q(?P<q8>[1-4])|Q(?P<q9>[1-4])[- ](?P<y9>\d{4})"
)
_TIME = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s?(?P<half>[AaPp]\.?[Mm]\.?)?\s?(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?"
)
_PATTERN = re.compile(rf"{_WEEKDAY}(?:{_DATE})(?:[T ,]\s?{_TIME})?")
_TIME_ALONE = re.compile(_TIME)
_EPOCH = datetime(1970, 1, 1)


def seconds_of(text: str, order: str) -> float | None:
    """Seconds since 1970, or of a time alone since midnight; None for what is neither.

    A month or a quarter without a day is its first day.

    >>> seconds_of("1970-01-02", "dmy"), seconds_of("02/01/1970 01:00", "dmy"), seconds_of("0:30", "dmy")
    (86400.0, 90000.0, 1800.0)
    >>> seconds_of("Jan 2, 1970 12:30 AM", "mdy"), seconds_of("30/02/2023", "dmy")
    (88200.0, None)
    >>> seconds_of("1970-02", "dmy") == seconds_of("Feb 1970", "dmy") == seconds_of("Sun, 1 Feb 1970", "dmy")
    True
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
    elif found["n2"] or found["n3"] or found["n7"]:
        name = found["n2"] or found["n3"] or found["n7"]
        day, year = found["d2"] or found["d3"] or 1, found["y2"] or found["y3"] or found["y7"]
        month = _month(name)
    elif found["q8"] or found["q9"]:
        day, year = 1, found["y8"] or found["y9"]
        month = 3 * int(found["q8"] or found["q9"]) - 2
    else:
        day, year, month = 1, found["y5"] or found["y6"], found["m5"] or found["m6"]
    return datetime(_full_year(year), int(month), int(day))


def _month(name: str) -> int:
    """Of a name, or its beginning. Raises ValueError."""
    name = "sep" if name.lower() == "sept" else name.lower()
    return next((n for n, month in enumerate(_MONTHS, 1) if month.startswith(name)), 0)


def written_time(seconds: float) -> str:
    """A time since 1970 as ``seconds_of`` reads it; without its hour at midnight.

    >>> written_time(0.0), written_time(90000.5)
    ('1970-01-01', '1970-01-02 01:00:00.500000')
    """
    time = _EPOCH + timedelta(seconds=seconds)
    return str(time if seconds % 86400 else time.date())


def is_time_of_day(text: str) -> bool:
    """Whether it has no date.

    >>> is_time_of_day("12:30"), is_time_of_day("2023-01-01 12:30")
    (True, False)
    """
    return bool(_TIME_ALONE.fullmatch(text.strip()))


def day_numbers(texts: Sequence[str]) -> bool:
    """Whether all are whole numbers that may be days, such as 20230131, and not all one.

    >>> day_numbers(["20230131", "20230201"]), day_numbers(["20230131", "20230199"]), day_numbers([])
    (True, False, False)
    """
    days = {*texts}
    if not all(len(day) == 8 and day.isdecimal() and 1900 <= int(day[:4]) <= 2100 for day in days):
        return False
    return len(days) > 1 and all(seconds_of(day, "ymd") is not None for day in days)


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
