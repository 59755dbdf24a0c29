"""What a finding is: a check, a level, one sentence and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """``FAULT``: fails, is wrong or loses much of the speed. ``NOTE``: good to know, may cost some speed."""

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes
    ----------
    check : str
        Its name, one or two words.
    level : Level
    text : str
        One sentence.
    remedies : tuple of str
        Commands or variables, in the order in which to try them; COMMAND stands for the program to start.
    hosts : tuple of str
        Where it was found; empty for the whole job, or if there is one host.
    """

    check: str
    level: Level
    text: str
    remedies: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def ok(check: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Level.OK, text)


def note(check: str, text: str, *remedies: str) -> Finding:
    """Something to know."""
    return Finding(check, Level.NOTE, text, remedies)


def fault(check: str, text: str, *remedies: str) -> Finding:
    """Something to put right."""
    return Finding(check, Level.FAULT, text, remedies)


def numbers_text(numbers: list[int]) -> str:
    """Sorted whole numbers in short.

    >>> numbers_text([0, 1, 2, 3, 8, 10, 11])
    '0-3, 8, 10, 11'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def plural(count: int, word: str) -> str:
    """Such as ``1 rank`` or ``2 ranks``."""
    return f"{count} {word}{'s' * (count != 1)}"
