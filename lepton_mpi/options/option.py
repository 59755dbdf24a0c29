"""Declared options: a frozen dataclass whose fields carry help text, kind and check.

    @dataclass(frozen=True, kw_only=True)
    class Options(Checked):
        file: str = position("FILE", "what to read", kind=PathText())
        epochs: int = option(30, "passes over the rows", AT_LEAST_1)

Adding an option is adding a field. ``--help``, the keys of TOML files, a program's keywords and all error messages follow
from it; a value is checked by the same rule wherever it comes from. Imports no NumPy.
"""

import dataclasses
import typing
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.kinds import (
    AUTO,
    Kind,
    OrAuto,
    Several,
    SeveralOrAuto,
    Switch,
    Unexpected,
    kind_of,
)

# What a value must be, in words, and whether it is.
Check = tuple[str, Callable[[Any], bool]]
ABOVE_0: Check = ("a number above 0", lambda value: 0 < value < float("inf"))
AT_LEAST_0: Check = ("a number of at least 0", lambda value: value >= 0)
WHOLE_FROM_0: Check = ("a whole number of at least 0", lambda value: value >= 0)
WHOLE_FROM_1: Check = ("a whole number of at least 1", lambda value: value >= 1)
FRACTION: Check = ("a number from 0 up to, not including, 1", lambda value: 0 <= value < 1)

_KEY = "lepton_mpi option"


@dataclasses.dataclass(frozen=True)
class Option:
    """One option or, with ``is_position``, one word or several that go without an option's name.

    Attributes
    ----------
    name : str
        Of the field, and in TOML files; ``flag`` is the one of the command line.
    kind : Kind
    default : Any
        ``dataclasses.MISSING`` where there is none.
    is_optional : bool
        Whether None is a value.
    help : str
        What it decides, for ``--help``.
    check : Check or None
        Beyond the kind.
    of : tuple of str
        Whose option it is: the option that chooses, and the choices that have it; empty for everybody's.
    is_position : bool
    """

    name: str
    kind: Kind
    default: Any
    is_optional: bool
    help: str
    check: Check | None = None
    of: tuple[str, ...] = ()
    is_position: bool = False

    @property
    def flag(self) -> str:
        """``--an-option`` of the field ``an_option``; the word that stands for a position."""
        return self.kind.word if self.is_position else "--" + self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """What it takes, in words."""
        has_auto = isinstance(self.kind, OrAuto | SeveralOrAuto)
        return self.check[0] + f" or {AUTO}" * has_auto if self.check else self.kind.expected

    @property
    def takes_several_words(self) -> bool:
        """Whether all words up to the next option belong to it."""
        return isinstance(self.kind, Several) and not self.kind.separator

    @property
    def is_switch(self) -> bool:
        """Whether it may go without a word."""
        return isinstance(self.kind, Switch)

    def read_words(self, texts: Sequence[str]) -> Any:
        """The value that words of the command line mean. Raises ConfigurationError with the words as they were typed."""
        got = repr(" ".join(texts)) if texts else "none"
        if isinstance(self.kind, Several) and self.takes_several_words:
            several = self.kind
            return self._checked(lambda: several.from_texts(texts), got)
        if self.is_switch and not texts:
            return True
        if not texts:
            raise self.wrong(got)
        return self._checked(lambda: self.kind.from_text(texts[0]), got)

    def read_value(self, value: Any) -> Any:
        """The value of a TOML file or a program. Raises ConfigurationError."""
        if value is None and self.is_optional:
            return None
        return self._checked(lambda: self.kind.from_value(value), repr(value))

    def wrong(self, got: str) -> ConfigurationError:
        """What to raise for a value that does not fit."""
        return ConfigurationError(f"{self.flag}: expected {self.expected}, got {got}")

    def shown_default(self) -> str:
        """How a user would type the default."""
        return self.shown(self.default)

    def shown(self, value: Any) -> str:
        """How a user would type a value; ``none`` where nothing is one."""
        has_auto = isinstance(self.kind, OrAuto | SeveralOrAuto)
        return "none" if value is None and not has_auto else self.kind.shown(value)

    def _checked(self, read: Callable[[], Any], got: str) -> Any:
        try:
            value = read()
        except Unexpected as error:
            raise ConfigurationError(f"{self.flag}: {error}") from None
        except ValueError:
            raise self.wrong(got) from None
        is_none = value is None and self.is_optional
        if self.check and not is_none and not self.check[1](value):
            raise self.wrong(got)
        return value


def option(
    default: Any,
    help_text: str,
    check: Check | None = None,
    *,
    kind: Kind | None = None,
    of: tuple[str, ...] = (),
) -> Any:
    """A field that is an option; without ``kind`` its annotation says what it takes."""
    declared = {"help": help_text, "check": check, "kind": kind, "of": of}
    return dataclasses.field(default=default, metadata={_KEY: declared})


def position(help_text: str, *, kind: Kind, default: Any = dataclasses.MISSING) -> Any:
    """A field for a word without an option's name, or for several with a kind of several; ``kind.word`` names it."""
    declared = {"help": help_text, "kind": kind, "is_position": True}
    return dataclasses.field(default=default, metadata={_KEY: declared})


def options_of(declared: type) -> dict[str, Option]:
    """Options and positions of a dataclass by name, in its order."""
    return _found(declared)


@cache
def _found(declared: Any) -> dict[str, Option]:
    annotations = typing.get_type_hints(declared)
    found = {}
    for field in dataclasses.fields(declared):
        if _KEY in field.metadata:
            annotation = annotations[field.name]
            keywords = dict(field.metadata[_KEY])
            kind = keywords.pop("kind") or kind_of(annotation)
            is_optional = type(None) in typing.get_args(annotation)
            found[field.name] = Option(field.name, kind, field.default, is_optional, **keywords)
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """Base of declared options: every value is checked when an object is made, and then those that must go together."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError that names option, expectation and value."""
        for name, declared in options_of(type(self)).items():
            object.__setattr__(self, name, declared.read_value(getattr(self, name)))
        self.check_together()

    def check_together(self) -> None:
        """Raise ConfigurationError for values that are good alone and not together."""
