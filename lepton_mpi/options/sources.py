"""Where the options of a training run come from: each source replaces what the one before it says.

1. The defaults of ``Config`` and of the chosen model's own options.
2. A recipe, if one is named, or if nothing says what to train on: without ``data`` and without a configuration file it is
   the recipe ``digits``. The head of a run names the recipe that was taken.
3. The TOML file of ``--config``.
4. The command line, or a program's keywords.

The same rule holds for ``python -m lepton_mpi.train --data FILE`` and ``fit(data="FILE")``: neither takes a recipe.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import own, parser
from lepton_mpi.options.config import OPTIONS, Config, make_config
from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.option import Option
from lepton_mpi.options.toml_file import TomlFile
from lepton_mpi.wording import did_you_mean, printable

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "digits"
CONFIG_FILE = Option(
    "config",
    PathText("FILE"),
    None,
    is_optional=True,
    help="TOML file with options; the command line wins",
)


@dataclass(frozen=True)
class Chosen:
    """A configuration, and the names of the options that somebody has chosen: all others are defaults."""

    config: Config
    given: frozenset[str]


def from_command_line(words: Sequence[str]) -> Chosen:
    """Options of ``python -m lepton_mpi.train``. Raises ConfigurationError."""
    path = parser.word_after("--config", words)
    file = None if path is None else TomlFile("--config", CONFIG_FILE.read_words([path]))
    recipe = parser.word_after("--recipe", words)
    if recipe is None and file:
        recipe = file.values.get("recipe")
    sources = _Sources()
    sources.take_recipe(recipe, parser.is_named("--data", words) or file is not None)
    if file:
        sources.take_file(file)
    sources.take_words(words)
    return sources.chosen()


def from_values(values: Mapping[str, Any]) -> Chosen:
    """Options as a file of ``--config`` with these values has them. Raises ConfigurationError."""
    sources = _Sources()
    sources.take_recipe(values.get("recipe"), has_data=True)
    sources.take_file(TomlFile.of("options", values))
    return sources.chosen()


def from_program(options: Mapping[str, Any]) -> Chosen:
    """Options of ``fit``. Raises ConfigurationError, also for unknown names."""
    sources = _Sources()
    sources.take_recipe(options.get("recipe"), "data" in options)
    sources.take_keywords(options)
    return sources.chosen()


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


class _Sources:
    """The values of the sources so far, and which of them somebody has given."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._given: set[str] = set()
        self._choices = {chooser: OPTIONS[chooser].default for chooser in own.CHOOSERS}
        self._options = OPTIONS

    def take_recipe(self, recipe: Any, has_data: bool) -> None:
        """The recipe that is named, or the default one where nothing says what to train on."""
        is_named = recipe is not None
        if is_named or not has_data:
            name = OPTIONS["recipe"].read_value(recipe if is_named else DEFAULT_RECIPE)
            given = set(self._given)
            self.take_file(_recipe(name))
            self._values["recipe"] = name
            if not is_named:
                self._given = given

    def take_file(self, file: TomlFile) -> None:
        """A file's keys."""
        self._choose({chooser: file.values.get(chooser) for chooser in own.CHOOSERS})
        with file.naming_it():
            self._refuse_options_of_others(file.values.keys())
        self._add(file.read(self._options))

    def take_words(self, words: Sequence[str]) -> None:
        """The command line."""
        self._choose({c: parser.word_after(f"--{c}", words) for c in own.CHOOSERS})
        of_others = [o for o in own.all_own_options() if o.name not in self._options]
        self._refuse_options_of_others(o.name for o in of_others if parser.is_named(o.flag, words))
        values = parser.read(words, {"config": CONFIG_FILE, **self._options})
        values.pop("config", None)
        self._refuse_options_of_others(values)
        self._add(values)

    def take_keywords(self, options: Mapping[str, Any]) -> None:
        """A program's keywords."""
        self._choose({chooser: options.get(chooser) for chooser in own.CHOOSERS})
        self._refuse_options_of_others(options)
        for name in options.keys() - self._options.keys():
            hint = did_you_mean(name, list(self._options))
            raise ConfigurationError(f"unknown option {name!r}{hint}")
        self._add({name: self._options[name].read_value(v) for name, v in options.items()})

    def chosen(self) -> Chosen:
        """What has come together."""
        common = {name: value for name, value in self._values.items() if name in OPTIONS}
        of_choices: dict[str, dict[str, Any]] = {chooser: {} for chooser in own.CHOOSERS}
        for name in self._values.keys() - OPTIONS.keys():
            of_choices[self._options[name].of[0]][name] = self._values[name]
        return Chosen(make_config(common | {"own": of_choices}), frozenset(self._given))

    def _choose(self, choices: Mapping[str, Any]) -> None:
        """Another model takes away the own options of the one before."""
        choices = self._choices | {c: choice for c, choice in choices.items() if choice is not None}
        changed = [
            chooser for chooser in own.CHOOSERS if choices[chooser] != self._choices[chooser]
        ]
        for name in self._values.keys() - OPTIONS.keys():
            if self._options[name].of[0] in changed:
                del self._values[name]
                self._given.discard(name)
        self._choices = choices
        self._options = OPTIONS | own.own_options(choices)

    def _refuse_options_of_others(self, names: Iterable[str]) -> None:
        """Raises ConfigurationError for an option that another model than the chosen one has."""
        everybodys = own.all_own_options()
        of_others = {option.name: option for option in everybodys}
        for name in names:
            option = self._options.get(name) or of_others.get(name)
            if option and option.of and self._choices[option.of[0]] not in option.of[1:]:
                chooser, *choices = option.of
                # Several choices may have an option of this name, each with its own defaults.
                alike = [each.of for each in everybodys if each.name == name]
                choices = [of[1] for of in alike if of[0] == chooser] or choices
                raise ConfigurationError(
                    f"{option.flag}: expected --{chooser} {' or '.join(choices)}, whose option it is, "
                    f"got --{chooser} {printable(str(self._choices[chooser]))}"
                )

    def _add(self, values: Mapping[str, Any]) -> None:
        self._values |= values
        self._given |= values.keys()


def _recipe(name: str) -> TomlFile:
    """The file of a recipe. Raises ConfigurationError."""
    known = recipes()
    if name not in known and not os.path.exists(name):
        hint = did_you_mean(name, known)
        raise ConfigurationError(
            f"--recipe: expected one of {', '.join(known)} or a TOML file, got {name!r}{hint}"
        )
    path = str(RECIPES / f"{name}.toml") if name in known else name
    file = TomlFile("--recipe", path)
    if "recipe" in file.values:
        raise ConfigurationError(
            f"{file.name}: expected options, got another recipe: give it by --config {printable(path)}"
        )
    return file
