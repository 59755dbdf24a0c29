"""Numbers as people write them for people: groups of thousands, currencies, percent signs, units."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

# Of a column's texts, so many must be numbers for it to be a column of numbers.
NEARLY_ALL = 0.9
# Texts that are looked at to find out what a column holds.
LOOKED_AT = 10_000

_CURRENCY = r"(?:[$€£¥₹₩₽₺₪฿]|USD|EUR|GBP|CHF|JPY|CNY|INR|Rs\.?)"
_UNIT = r"(?:[^\W\d_]|[°%‰²³/·µ])+"
_ORDINAL = {"st", "nd", "rd", "th"}
_SPACES = " \u00a0\u202f"
_OTHER = {".": ",", ",": "."}


@dataclass(frozen=True)
class Written:
    """A number, and what stood before and behind it, such as ``$`` or ``cm``."""

    value: float
    affix: str


def written_number(text: str, decimal: str = ".") -> Written | None:
    """The number that a text writes in one of these ways, or None. Parentheses are a minus, as accountants write it.

    >>> [written_number(text).value for text in ("$1,234.50", "12 %", "4.0 cm", "(7)", "1e3", "−2")]
    [1234.5, 12.0, 4.0, -7.0, 1000.0, -2.0]
    >>> written_number("1.234,5", ",").value, written_number("12-b"), written_number("1,23")
    (1234.5, None, None)
    """
    found = _pattern(decimal).fullmatch(text.strip())
    if not found or (found["open"] is None) != (found["close"] is None):
        return None
    digits = found["number"]
    for sign in (*_SPACES, "'", "’", "_", _OTHER[decimal]):
        digits = digits.replace(sign, "")
    power = (found["power"] or "").lower().replace("d", "e")  # as Fortran writes double precision
    value = float(digits.replace(decimal, ".") + power)
    minus = found["open"] or (found["sign"] or found["sign2"]) in ("-", "−")
    return Written(-value if minus else value, (found["before"] or "") + (found["behind"] or ""))


def are_written_numbers(texts: Sequence[str], decimal: str) -> bool:
    """Whether nearly all of them are such numbers, all of one unit.

    >>> are_written_numbers(["$1,200", "$900"], "."), are_written_numbers(["3 cm", "1 km"], ".")
    (True, False)
    """
    return is_one_unit(_units_of_most(texts, decimal))


def are_of_several_units(texts: Sequence[str], decimal: str) -> bool:
    """Whether nearly all of them are such numbers, but of several units, each of several numbers.

    >>> are_of_several_units(["3 cm", "4 cm", "4 mm", "7 mm"], "."), are_of_several_units(["1st", "2nd"], ".")
    (True, False)
    """
    units = _units_of_most(texts, decimal)
    return len(units - _ORDINAL) > 1 and 2 * len(units) <= len(texts) and not is_one_unit(units)


def unit_of(number: Written) -> str | None:
    """What stands before or behind a number; nothing, as opposed to an empty text, for a bare 0, which is 0 in any unit."""
    return None if not number.value and not number.affix else number.affix


def is_one_unit(units: Collection[str]) -> bool:
    """Whether numbers with these affixes can be compared: an amount of money may stand without its currency.

    >>> [is_one_unit(units) for units in ({"cm"}, {"$", ""}, {"%", ""}, {"k", "M"}, {})]
    [True, True, False, False, False]
    """
    named = {*units} - {""}
    if len(named) > 1 or not units:
        return False
    return "" not in units or not named or bool(re.fullmatch(_CURRENCY, *named))


def _units_of_most(texts: Sequence[str], decimal: str) -> set[str]:
    """Units of the numbers, if nearly all of the texts are some."""
    step = max(1, len(texts) // LOOKED_AT)
    found = [written_number(text, decimal) for text in texts[::step]]
    numbers = [number for number in found if number is not None]
    if len(numbers) < NEARLY_ALL * len(found):
        return set()
    return {unit for unit in map(unit_of, numbers) if unit is not None}


_PATTERNS: dict[str, re.Pattern] = {}


def _pattern(decimal: str) -> re.Pattern:
    if decimal not in _PATTERNS:
        point, group = re.escape(decimal), f"[{re.escape(_OTHER[decimal])}{_SPACES}'’_]"
        number = rf"(?:\d{{1,3}}(?P<group>{group})\d{{3}}(?:(?P=group)\d{{3}})*|\d+)(?:{point}\d*)?|{point}\d+"
        _PATTERNS[decimal] = re.compile(
            rf"(?P<open>\()?(?P<sign>[+−-])?\s?(?P<before>{_CURRENCY})?\s?(?P<sign2>[+−-])?"
            rf"(?P<number>{number})(?P<power>[eEdD][+-]?\d{{1,3}})?\s?(?P<behind>{_CURRENCY}|{_UNIT})?(?P<close>\))?"
        )
    return _PATTERNS[decimal]
