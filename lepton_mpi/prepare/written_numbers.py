"""Numbers as people write them for people: groups of thousands, currencies, percent signs, units."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Of a column's texts, so many must be numbers for it to be a column of numbers.
NEARLY_ALL = 0.9
# Texts that are looked at to find out what a column holds.
LOOKED_AT = 10_000

_CURRENCY = r"(?:[$€£¥₹₩₽₺₪฿]|USD|EUR|GBP|CHF|JPY|CNY|INR|Rs\.?)"
_UNIT = r"(?:[^\W\d_]|[°%‰²³/·µ])+"
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
    value = float(digits.replace(decimal, ".") + (found["power"] or ""))
    minus = found["open"] or (found["sign"] or found["sign2"]) in ("-", "−")
    return Written(-value if minus else value, (found["before"] or "") + (found["behind"] or ""))


def are_written_numbers(texts: Sequence[str], decimal: str) -> bool:
    """Whether nearly all of them are such numbers, all with the same sign or unit about them.

    >>> are_written_numbers(["$1,200", "$900"], "."), are_written_numbers(["3 cm", "1 km"], ".")
    (True, False)
    """
    step = max(1, len(texts) // LOOKED_AT)
    found = [written_number(text, decimal) for text in texts[::step]]
    numbers = [number for number in found if number is not None]
    same = len({number.affix for number in numbers}) == 1
    return same and len(numbers) >= NEARLY_ALL * len(found)


_PATTERNS: dict[str, re.Pattern] = {}


def _pattern(decimal: str) -> re.Pattern:
    if decimal not in _PATTERNS:
        point, group = re.escape(decimal), f"[{re.escape(_OTHER[decimal])}{_SPACES}'’_]"
        number = rf"(?:\d{{1,3}}(?P<group>{group})\d{{3}}(?:(?P=group)\d{{3}})*|\d+)(?:{point}\d*)?|{point}\d+"
        _PATTERNS[decimal] = re.compile(
            rf"(?P<open>\()?(?P<sign>[+−-])?\s?(?P<before>{_CURRENCY})?\s?(?P<sign2>[+−-])?"
            rf"(?P<number>{number})(?P<power>[eE][+-]?\d{{1,3}})?\s?(?P<behind>{_CURRENCY}|{_UNIT})?(?P<close>\))?"
        )
    return _PATTERNS[decimal]
