"""A configuration from words: defaults, then recipe, then TOML file, then command line."""

import dataclasses
import re
import tomllib
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from jsonargparse import ArgumentParser

from lepton_mpi import launch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import FIELDS, LISTS, Config, expected_of, flag_of
from lepton_mpi.wording import did_you_mean, one_line

RECIPES = Path(__file__).parent / "recipes"


def parse_command_line(arguments: Sequence[str], program: str) -> Config:
    """Configuration from command-line words. ``--help`` and errors end the process (codes 0 and 2).

    Every rank parses its own words; only the one that the launcher calls rank 0 prints.
    """
    try:
        parser = _Parser(prog=program, description=_DESCRIPTION, **_PARSER_OPTIONS)
        parser.add_argument(
            "--config", action="config", help="TOML file with options; the command line wins"
        )
        for field in dataclasses.fields(Config):
            parser.add_argument(flag_of(field.name), **_argument(field))
        parser.set_defaults(_recipe_values(arguments))
        return _parse(parser, list(arguments))
    except ConfigurationError as error:
        launch.complain(f"{program}: {error}")
        raise SystemExit(error.exit_code) from None


_DESCRIPTION = "Train one model on all ranks: mpirun -n 8 python -m lepton_mpi.train [options]"


_PARSER_OPTIONS = {
    "parser_mode": "toml",
    "exit_on_error": False,
    "allow_abbrev": False,
    "print_config": None,
}


class _Parser(ArgumentParser):
    def print_help(self, file=None) -> None:
        """Print once per job, not once per rank."""
        if launch.launched_rank() == 0:
            super().print_help(file)


def _argument(field: dataclasses.Field) -> dict[str, Any]:
    """Arguments of ``add_argument`` for one field of Config."""
    default = field.default
    keywords = {"help": field.metadata["help"], "default": default, "type": field.type}
    if field.type is bool:
        return {"help": field.metadata["help"], "default": default, "action": "store_true"}
    if field.name in LISTS:
        keywords |= {"type": get_args(field.type)[0], "nargs": "*", "default": list(default)}
    return keywords


def _recipe_values(arguments: Sequence[str]) -> dict[str, Any]:
    """Options of the recipe that the command line names, else the TOML file, else of the default one."""
    config_path = _after("--config", arguments)
    config = _read_toml("--config", Path(config_path)) if config_path is not None else {}
    name = _after("--recipe", arguments) or str(config.get("recipe", Config.recipe))
    known = sorted(path.stem for path in RECIPES.glob("*.toml"))
    if name not in known and not Path(name).exists():
        choices = ", ".join(known)
        hint = did_you_mean(name, known)
        raise ConfigurationError(
            f"--recipe: expected one of {choices} or a TOML file, got {name!r}{hint}"
        )
    return _read_toml("--recipe", RECIPES / f"{name}.toml" if name in known else Path(name))


def _read_toml(flag: str, path: Path) -> dict[str, Any]:
    """Keys and values of a TOML file, every key a known option."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{flag}: cannot read {path}: {one_line(reason)}") from None
    for key in values.keys() - FIELDS.keys():
        raise ConfigurationError(
            f"{flag}: {path}: unknown key {key!r}{did_you_mean(key, list(FIELDS))}"
        )
    for name in LISTS & values.keys():
        if isinstance(values[name], str) and FIELDS[name].type == tuple[str, ...]:
            values[name] = [values[name]]  # as the parser wants it
        if not isinstance(values[name], list):
            expected = f"{expected_of(FIELDS[name])} in a list"
            raise ConfigurationError(f"{flag_of(name)}: expected {expected}, got {values[name]!r}")
    return values


def _parse(parser: ArgumentParser, arguments: list[str]) -> Config:
    config_path = _after("--config", arguments)
    # The parser takes options in their order; a file put first is overruled by all others.
    first = [] if config_path is None else ["--config", config_path]
    try:
        parsed = parser.parse_args(first + _without("--config", arguments))
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigurationError(_explain(str(error), arguments)) from None
    values = {field.name: parsed[field.name] for field in dataclasses.fields(Config)}
    return Config(**values)


def _without(flag: str, arguments: list[str]) -> list[str]:
    """``arguments`` without ``flag`` and its word, in either of its spellings."""
    kept, skip = [], False
    for index, word in enumerate(arguments):
        takes_next = word == flag and index + 1 < len(arguments)
        if not skip and not takes_next and not word.startswith(flag + "="):
            kept.append(word)
        skip = takes_next and not skip
    return kept


def _explain(message: str, arguments: list[str]) -> str:
    """One line for the user from the parser's message: the option, what it takes, what came."""
    if match := re.match(r"unrecognized arguments: (\S+)", message):
        word = match[1].split("=")[0]
        return f"unknown option {word}{did_you_mean(word, [flag_of(name) for name in FIELDS])} (see --help)"
    if match := re.search(r'(?:Parser key "|argument --)([\w-]+)', message):
        name = match[1].replace("-", "_")
        if name in FIELDS:
            return f"{flag_of(name)}: expected {expected_of(FIELDS[name])}{_got(name, arguments)}"
    return one_line(message)


def _got(name: str, arguments: list[str]) -> str:
    """``, got 'x'``: what stands behind the option, or else in the TOML file that was named."""
    flag = flag_of(name)
    words = _words_after(flag, arguments)
    if words is not None:
        return f", got {' '.join(words)!r}" if words else ", got none"
    for file_flag in ("--config", "--recipe"):
        path = _after(file_flag, arguments)
        if path is not None and Path(path).is_file():
            values = _read_toml(file_flag, Path(path))
            if name in values:
                return f", got {values[name]!r}"
    return ""


def _words_after(flag: str, arguments: list[str]) -> list[str] | None:
    """All words between the last ``flag`` and the next option; None without the flag."""
    found = None
    for index, word in enumerate(arguments):
        if word.startswith(flag + "="):
            found = [word.removeprefix(flag + "=")]
        elif word == flag:
            rest = arguments[index + 1 :]
            stop = next((i for i, other in enumerate(rest) if other.startswith("--")), len(rest))
            found = rest[:stop]
    return found


def _after(flag: str, arguments: list[str]) -> str | None:
    """The word that stands after the last ``flag``, in either of its spellings."""
    found = None
    for index, word in enumerate(arguments):
        if word.startswith(flag + "="):
            found = word.removeprefix(flag + "=")
        elif word == flag and index + 1 < len(arguments):
            found = arguments[index + 1]
    return found
