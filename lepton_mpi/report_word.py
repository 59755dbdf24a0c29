"""Where this process says that it has reported why the job ends: for code that runs when nothing else can any more.

``world`` puts the address of a word there that the ranks of a host share (``world/heartbeats.py``); it is 0 without a world.

A rank that is about to report says so, and says so again behind it: it may be killed in between, and then nobody has reported.
"""

import ctypes

# One int64: the address of the word.
_place = ctypes.c_int64(0)


def place() -> int:
    """Address of the int64 that holds the address of the word, as long as this process lives."""
    return ctypes.addressof(_place)


def set_address(address: int) -> None:
    """The word is there from now on; 0: nowhere."""
    _place.value = address


def reporting_with(exit_code: int) -> int:
    """What the word is from the begin of a report that ends the job with this code; 0 before."""
    return 2 + 256 * (exit_code & 255)


def reported_with(exit_code: int) -> int:
    """What the word is after it.

    >>> code_of(reported_with(3)), code_of(reporting_with(3)), code_of(0), code_of(reported_with(0))
    (3, 3, 0, 0)
    """
    return 1 + 256 * (exit_code & 255)


def has_reported(word: int) -> bool:
    """Whether the report is over.

    >>> has_reported(0), has_reported(reporting_with(3)), has_reported(reported_with(3))
    (False, False, True)
    """
    return word % 2 == 1


def code_of(word: int) -> int:
    """The exit code in the word; 0 where nobody has begun to report."""
    return word // 256
