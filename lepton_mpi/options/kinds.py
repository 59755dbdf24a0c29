"""Kinds of options: how a word of the command line, or a value of a TOML file or a program, becomes a value.

Every kind has two readers, ``from_text`` for words and ``from_value`` for values that have a type already. Both raise
ValueError for what does not fit; ``Option`` makes one line of it for the user. Imports no NumPy.
"""

import re
import types
import typing
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, Protocol

from lepton_mpi.options.paths import expanded
from lepton_mpi.registry import is_own_file
from lepton_mpi.wording import did_you_mean

# Longer words would leave no room for the text of ``--help``, which then lists the names.
_WORD_LENGTH_MAX = 40


class Unexpected(ValueError):
    """A value that does not fit, with a reason that says more than what the kind expects."""


class Kind(Protocol):
    """What an option takes.

    Attributes
    ----------
    word : str
        Stands for a value in ``--help``.
    expected : str
        What fits, in words.
    """

    @property
    def word(self) -> str: ...

    @property
    def expected(self) -> str: ...

    def from_text(self, text: str) -> Any:
        """The value that one word means. Raises ValueError."""

    def from_value(self, value: Any) -> Any:
        """The value as the option holds it. Raises ValueError for another type."""

    def shown(self, value: Any) -> str:
        """How a user would type the value."""


@dataclass(frozen=True)
class Text:
    """Any text."""

    word: str = "TEXT"
    expected: str = "a text"

    def from_text(self, text: str) -> str:
        return text

    def from_value(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        return self.from_text(value)

    def shown(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class PathText(Text):
    """A path, or a name that may be one, in which ``~`` is expanded."""

    word: str = "PATH"
    expected: str = "a path"

    def from_text(self, text: str) -> str:
        if not text:
            raise ValueError
        try:
            return expanded(text)
        except ValueError as error:
            raise Unexpected(str(error)) from None

    def from_value(self, value: Any) -> str:
        """A program's may be an object of pathlib."""
        return super().from_value(str(value) if isinstance(value, PurePath) else value)


@dataclass(frozen=True)
class OneOf(Text):
    """One of some names."""

    names: tuple[str, ...] = ()

    @staticmethod
    def of(*names: str) -> "OneOf":
        """With its word and its sentence."""
        word = "|".join(names)
        short = word if len(word) <= _WORD_LENGTH_MAX else "NAME"
        return OneOf(short, f"one of {', '.join(names)}", names)

    def from_text(self, text: str) -> str:
        if text not in self.names:
            hint = did_you_mean(text, self.names)
            raise Unexpected(f"expected {self.expected}, got {text!r}{hint}")
        return text


@dataclass(frozen=True)
class NameOrFile(PathText):
    """One of some names, or ``FILE.py:NAME`` of the user's own."""

    names: Collection[str] = ()
    more: tuple[str, ...] = ()

    @staticmethod
    def of(names: Collection[str], *more: str) -> "NameOrFile":
        """With its word and its sentence."""
        return NameOrFile("NAME", f"{', '.join([*more, *names])} or FILE.py:NAME", names, more)

    def from_text(self, text: str) -> str:
        if text in self.names or text in self.more:
            return text
        path = super().from_text(text)
        if is_own_file(path):
            return path
        hint = did_you_mean(text, [*self.more, *self.names])
        raise Unexpected(f"expected {self.expected}, got {text!r}{hint}")


@dataclass(frozen=True)
class NameWithOption(NameOrFile):
    """One of some names, with ``:OPTION`` behind those that have one, or ``FILE.py:NAME`` of the user's own."""

    @staticmethod
    def of(names: Collection[str], *more: str) -> "NameWithOption":
        """With its word and its sentence."""
        expected = f"{', '.join([*more, *names])}, some with :OPTION behind, or FILE.py:NAME"
        return NameWithOption("NAME[:OPTION]", expected, names, more)

    def from_text(self, text: str) -> str:
        name, colon, _ = text.partition(":")
        if colon and (name in self.names or name in self.more):
            return text
        return super().from_text(text)


@dataclass(frozen=True)
class Whole:
    """A whole number; True is none."""

    word: str = "N"
    expected: str = "a whole number"

    def from_text(self, text: str) -> int:
        return int(text)

    def from_value(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError
        return value

    def shown(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True)
class Bytes(Whole):
    """A number of bytes, as 4096, 4K, 64M or 1GiB."""

    word: str = "BYTES"
    expected: str = "a size such as 8, 4K or 64M"

    def from_text(self, text: str) -> int:
        return parse_size(text)

    def from_value(self, value: Any) -> int:
        return self.from_text(value) if isinstance(value, str) else super().from_value(value)

    def shown(self, value: int) -> str:
        power = next((p for p in (3, 2, 1) if value and value % (1 << 10 * p) == 0), 0)
        return f"{value >> 10 * power}{'_KMG'[power] if power else ''}"


@dataclass(frozen=True)
class Number:
    """A number of any kind; True is none."""

    word: str = "X"
    expected: str = "a number"

    def from_text(self, text: str) -> float:
        return float(text)

    def from_value(self, value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError from error

    def shown(self, value: float) -> str:
        return f"{value:g}"


@dataclass(frozen=True)
class Switch:
    """True or false; on the command line the option alone is true."""

    word: str = "true|false"
    expected: str = "true or false"

    def from_text(self, text: str) -> bool:
        if text not in ("true", "false"):
            raise ValueError
        return text == "true"

    def from_value(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    def shown(self, value: bool) -> str:
        return str(value).lower()


@dataclass(frozen=True)
class Several:
    """Values of one kind: several words behind the option, or with a separator, parts of one word.

    ``from_text`` reads a word with its separator; without one it reads the only word.
    """

    item: Kind
    separator: str = ""
    expected: str = ""
    word: str = ""

    @staticmethod
    def of(item: Kind, separator: str = "") -> "Several":
        """With its word and its sentence."""
        word = f"{item.word}{separator}…" if separator else f"{item.word} …"
        return Several(item, separator, f"{item.expected}, or several", word)

    def from_text(self, text: str) -> tuple[Any, ...]:
        if not self.separator:
            return self.from_texts([text])
        return self.from_texts(
            [part.strip() for part in text.split(self.separator) if part.strip()]
        )

    def from_texts(self, texts: Sequence[str]) -> tuple[Any, ...]:
        """The value that these words mean."""
        return tuple(self.item.from_text(text) for text in texts)

    def from_value(self, value: Any) -> tuple[Any, ...]:
        """Of a list; a single text is a list of one, or what it means as a word."""
        if isinstance(value, str) and isinstance(self.item, Text):
            return self.from_text(value)
        if isinstance(value, PurePath):
            return (self.item.from_value(value),)
        if not isinstance(value, list | tuple):
            raise ValueError
        return tuple(self.item.from_value(each) for each in value)

    def shown(self, value: tuple[Any, ...]) -> str:
        return (self.separator or " ").join(map(self.item.shown, value)) or "none"


# What an option of ``OrAuto`` is called where nobody has chosen it.
AUTO = "auto"


@dataclass(frozen=True)
class OrAuto:
    """A value of another kind, or auto, which is None: what a rule makes of the data."""

    item: Kind
    word: str = ""
    expected: str = ""

    @staticmethod
    def of(item: Kind) -> "OrAuto":
        """With its word and its sentence."""
        return OrAuto(item, f"{item.word}|{AUTO}", f"{item.expected} or {AUTO}")

    def from_text(self, text: str) -> Any:
        return None if text == AUTO else self.item.from_text(text)

    def from_value(self, value: Any) -> Any:
        return None if isinstance(value, str) and value == AUTO else self.item.from_value(value)

    def shown(self, value: Any) -> str:
        return AUTO if value is None else self.item.shown(value)


@dataclass(frozen=True)
class SeveralOrAuto(Several):
    """``Several``, or the word auto alone, which is None: what a rule makes of the data."""

    @staticmethod
    def of(item: Kind, separator: str = "") -> "SeveralOrAuto":
        """With its word and its sentence."""
        plain = Several.of(item, separator)
        return SeveralOrAuto(
            item, separator, f"{plain.expected}, or {AUTO}", f"{plain.word}|{AUTO}"
        )

    def from_texts(self, texts: Sequence[str]) -> Any:
        return None if list(texts) == [AUTO] else super().from_texts(texts)

    def from_value(self, value: Any) -> Any:
        return None if isinstance(value, str) and value == AUTO else super().from_value(value)

    def shown(self, value: Any) -> str:
        return AUTO if value is None else super().shown(value)


@dataclass(frozen=True)
class Read:
    """What ``read`` makes of a word; a value that is no text must be one that ``fits``."""

    word: str
    expected: str
    read: Callable[[str], Any]
    fits: Callable[[Any], bool]
    show: Callable[[Any], str] = str

    def from_text(self, text: str) -> Any:
        return self.read(text)

    def from_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.read(value)
        if not self.fits(value):
            raise ValueError
        return value

    def shown(self, value: Any) -> str:
        return self.show(value)


def kind_of(annotation: Any) -> Kind:
    """The kind of an option whose field is annotated so: str, int, float, bool, Literal, or a tuple of one of these."""
    plain: dict[Any, Kind] = {str: Text(), int: Whole(), float: Number(), bool: Switch()}
    if annotation in plain:
        return plain[annotation]
    if typing.get_origin(annotation) is Literal:
        return OneOf.of(*typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return Several.of(kind_of(typing.get_args(annotation)[0]))
    if typing.get_origin(annotation) is types.UnionType:
        (kind,) = (part for part in typing.get_args(annotation) if part is not type(None))
        return kind_of(kind)
    raise TypeError(f"no kind of option for {annotation}")


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError.

    >>> [parse_size(text) for text in ("8", "4K", "64M", "1GiB")]
    [8, 4096, 67108864, 1073741824]
    """
    match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text)
    if not match:
        raise ValueError("expected a size such as 8, 4K or 64M")
    return int(match[1]) << 10 * "_KMG".index(match[2] or "_")
