"""Command lines: from words to checked values, by one rule for every command.

A word that begins with two dashes names an option; all others are values, also those that begin with one dash, such as
``-1`` and ``-2,-1``. An option takes the word behind it or behind ``=``; one that takes several takes all words up to the
next option; a switch takes ``true`` or ``false`` if it stands there. Of an option that comes twice the last counts. Names
cannot be shortened. Words behind ``--`` are not options. Raises ConfigurationError, one line. Imports no NumPy.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.option import Option
from lepton_mpi.wording import did_you_mean, printable

Given = dict[str, list[str]]


def read(words: Sequence[str], options: Mapping[str, Option]) -> dict[str, Any]:
    """Values of the options and positions that ``words`` give, by name; nothing of the others."""
    positions = [option for option in options.values() if option.is_position]
    by_flag = {option.flag: option for option in options.values() if not option.is_position}
    given, free = _sorted_words(words, by_flag)
    values = {name: options[name].read_words(texts) for name, texts in given.items()}
    return values | _positions(free, positions)


def word_after(flag: str, words: Sequence[str]) -> str | None:
    """The value of the last ``flag`` in ``words``, before it is known which options there are."""
    found = None
    for index, word in enumerate(_before_dashes(words)):
        if word.startswith(flag + "="):
            found = word.removeprefix(flag + "=")
        elif word == flag:
            found = next(iter(_values(words[index + 1 : index + 2])), None)
    return found


def is_named(flag: str, words: Sequence[str]) -> bool:
    """Whether an option is among the words."""
    return any(word.partition("=")[0] == flag for word in _before_dashes(words))


def _sorted_words(words: Sequence[str], by_flag: Mapping[str, Option]) -> tuple[Given, list[str]]:
    """Words behind each option that is named, by its name, and the words that belong to none."""
    given: Given = {}
    free: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return given, free + rest
        if not _names_an_option(word):
            free.append(word)
            continue
        flag, equals, text = word.partition("=")
        if flag not in by_flag:
            hint = did_you_mean(flag, [*by_flag, "--help", "--version"])
            raise ConfigurationError(f"unknown option {printable(flag)}{hint} (see --help)")
        option = by_flag[flag]
        texts = [text] if equals else _values(rest)[: _word_count(option, rest)]
        if not equals:
            del rest[: len(texts)]
        given[option.name] = texts
    return given, free


def _names_an_option(word: str) -> bool:
    """Whether a word where no value is wanted is meant as an option: ``--epochs`` and ``-epochs``, not ``-1``."""
    return word.startswith("--") or re.match(r"-[^\W\d]", word) is not None


def _word_count(option: Option, rest: Sequence[str]) -> int:
    """How many of the words ``rest`` the option takes at most."""
    if option.takes_several_words:
        return len(rest)
    return int(not option.is_switch or rest[:1] in (["true"], ["false"]))


def _values(words: Sequence[str]) -> list[str]:
    """``words`` up to the next one that begins with two dashes."""
    stop = next((index for index, word in enumerate(words) if word.startswith("--")), len(words))
    return list(words[:stop])


def _before_dashes(words: Sequence[str]) -> Sequence[str]:
    return words[: words.index("--")] if "--" in words else words


def _positions(free: Sequence[str], positions: Sequence[Option]) -> dict[str, Any]:
    """Values of the words without an option: one for each position, and all that are left for the one of several."""
    least = sum(position.default is MISSING for position in positions)
    several = any(position.takes_several_words for position in positions)
    usage = " ".join(position.flag for position in positions) or "options only"
    if len(free) < least:
        got = f"only {' '.join(free)!r}" if free else "none"
        raise ConfigurationError(f"expected {usage}, got {got}")
    if len(free) > len(positions) and not several:
        raise ConfigurationError(f"expected {usage}, got also {free[len(positions)]!r}")
    values = {}
    rest = list(free)
    for index, position in enumerate(positions):
        behind = len(positions) - index - 1
        count = len(rest) - behind if position.takes_several_words else min(1, len(rest))
        if count:
            values[position.name] = position.read_words(rest[:count])
        del rest[:count]
    return values
