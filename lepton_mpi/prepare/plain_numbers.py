"""Which texts are numbers: cells of labels and categories, and words of the command line."""

import math
import re

_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def plain_number(text: str) -> int | float | None:
    """The number that a text writes in decimal notation, or None: not all that ``float`` takes is meant as one.

    Whole numbers are int, of any length, as long as they are written out or float64 counts that far.

    >>> [plain_number(text) for text in ("7", "1.0", "-.5", "9007199254740993", "2020_01", "nan")]
    [7, 1, -0.5, 9007199254740993, None, None]
    """
    text = text.strip()
    if _WHOLE.fullmatch(text):
        try:
            return int(text)
        except ValueError:  # thousands of digits, which Python does not convert
            return None
    if not _DECIMAL.fullmatch(text):
        return None
    value = float(text)
    if value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if math.isfinite(value) else None
