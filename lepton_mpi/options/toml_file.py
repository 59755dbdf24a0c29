"""TOML files with options: ``--config FILE`` and recipes. Raises ConfigurationError that names option, file and key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.option import Option
from lepton_mpi.wording import did_you_mean, one_line, printable


class TomlFile:
    """The keys and values of a file, read when it is made. ``flag`` is the option that named it, empty for a word of the command line.

    Attributes
    ----------
    values : dict
        As TOML has them, unchecked.
    """

    def __init__(self, flag: str, path: str) -> None:
        of = f"{flag}: " if flag else ""
        self.name = f"{of}{printable(path)}"
        try:
            if Path(path).is_fifo():  # it would wait for a writer, and every rank reads the file
                raise ValueError("expected a file, got a pipe")
            self.values: dict[str, Any] = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigurationError(
                f"{of}cannot read {printable(path)}: {one_line(reason)}"
            ) from None

    @staticmethod
    def of(name: str, values: Mapping[str, Any]) -> TomlFile:
        """As if a file had these values; ``name`` is what errors name."""
        file = object.__new__(TomlFile)
        file.name, file.values = name, dict(values)
        return file

    def read(self, options: Mapping[str, Option]) -> dict[str, Any]:
        """Checked values by name, every key one of ``options``."""
        with self.naming_it():
            for key in self.values.keys() - options.keys():
                hint = did_you_mean(key, list(options))
                raise ConfigurationError(f"unknown key {key!r}{hint}")
            return {key: options[key].read_value(value) for key, value in self.values.items()}

    @contextmanager
    def naming_it(self) -> Iterator[None]:
        """A block whose errors name the option and the file."""
        try:
            yield
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.name}: {error}") from None
