"""Where this process says that it has reported why the job ends: for code that runs when nothing else can any more.

``world`` puts the address of a word there that the ranks of a host share (``world/heartbeats.py``); it is 0 without a world.
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


def reported_with(exit_code: int) -> int:
    """What the word is after a report that ends the job with this code; 0 before.

    >>> code_of(reported_with(3)), code_of(0), code_of(reported_with(0))
    (3, 0, 0)
    """
    return 1 + 256 * (exit_code & 255)


def code_of(word: int) -> int:
    """The exit code in the word; 0 where none has reported."""
    return word // 256
