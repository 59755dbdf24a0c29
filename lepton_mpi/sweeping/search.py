"""A sweep's TOML file, and the options of its runs. Imports no NumPy.

    [sweep]
    method = "random"                  # or "grid", every combination
    runs = 20                          # of random
    score = "accuracy"                 # of the validation rows; "auto" is accuracy, r2 or loss
    seeds = [0, 1, 2]                  # every setting with each of them

    [options]                          # of every run
    data = "table.h5"

    [search]
    optimizer = ["adam", "sgd"]        # values in turn; at random, one of them
    learning_rate = {log_uniform = [1e-4, 1e-1]}
    dropout = {uniform = [0.0, 0.5]}

A draw depends on the seed, the number of the setting and the option's name alone: more runs, or another option, change no other.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import own, sources
from lepton_mpi.options.config import OPTIONS
from lepton_mpi.options.kinds import Number, OneOf, OrAuto, Several, Text, Whole
from lepton_mpi.options.option import (
    WHOLE_FROM_0,
    WHOLE_FROM_1,
    Checked,
    Option,
    option,
    options_of,
)
from lepton_mpi.options.toml_file import TomlFile
from lepton_mpi.wording import did_you_mean, printable

# What sweep itself says to every run.
_TAKEN = {"checkpoint", "resume", "metrics", "metrics_append", "keep_best", "progress"}
_RUNS_MAX = 100_000
# Of numbers that are drawn: legible, and closer together than any result could tell apart.
_DIGITS = 4
_DRAWS = ("uniform", "log_uniform")


@dataclass(frozen=True, kw_only=True)
class Method(Checked):
    """The table ``[sweep]``."""

    method: str = option("grid", "how options are chosen", kind=OneOf.of("grid", "random"))
    runs: int | None = option(None, "settings that are drawn at random", WHOLE_FROM_1)
    seed: int = option(0, "of the draws", WHOLE_FROM_0)
    seeds: tuple[int, ...] = option(
        (), "of training: every setting with each", kind=Several.of(Whole())
    )
    score: str = option("auto", "figure on the validation rows", kind=Text("SCORE"))

    def check_together(self) -> None:
        """Raises ConfigurationError."""
        if self.method == "random" and self.runs is None:
            raise ConfigurationError("runs: expected how many settings are drawn, got none")
        if self.method == "grid" and self.runs is not None:
            raise ConfigurationError('runs: expected method = "random", which it is for, got grid')
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds, default=0) < 0:
            raise ConfigurationError(
                f"seeds: expected different whole numbers of at least 0, got {list(self.seeds)}"
            )


@dataclass(frozen=True)
class Planned:
    """One run.

    Attributes
    ----------
    setting : int
        Number of its setting, which runs of other seeds share.
    chosen : dict
        What distinguishes it: the options of ``[search]``, and the seed where there are several.
    options : dict
        All of them.
    """

    setting: int
    chosen: dict[str, Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its folder: the same for the same options, whatever file they come from."""
        text = json.dumps(self.options, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    def shown(self) -> str:
        """What distinguishes it, for people."""
        return "  ".join(f"{key} {value_text(value)}" for key, value in self.chosen.items())


@dataclass(frozen=True)
class Plan:
    """A sweep: its file, how options are chosen, the runs in their order, and settings that were drawn twice."""

    path: Path
    method: Method
    runs: list[Planned]
    repeated: int


def read_plan(path: str, flag: str = "") -> Plan:
    """Of a TOML file, which ``flag`` names; the options of every run are checked as train would. Raises ConfigurationError with the key."""
    file = TomlFile(flag, path)
    with file.naming_it():
        tables = _tables(file.values)
        method = _method(tables["sweep"])
        axes = {key: _axis(key, value, method) for key, value in tables["search"].items()}
        _check_keys(tables, method)
        settings = list(_settings(axes, method))
        planned = list(_with_seeds(settings, tables["options"], method))
        for run in planned:
            _check(run)
    runs = _distinct(planned)
    return Plan(Path(path), method, runs, len(planned) - len(runs))


def value_text(value: Any) -> str:
    """A value as it is shown in lines and tables."""
    if isinstance(value, list):
        return " ".join(map(value_text, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


def _tables(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    known = ("sweep", "options", "search")
    for key, value in values.items():
        if key not in known:
            place = (
                ": options of every run stand in [options], those that are searched in [search]"
                if key in _known_options()
                else did_you_mean(key, known)
            )
            raise ConfigurationError(f"unknown table or key {key!r}{place}")
        if not isinstance(value, dict):
            raise ConfigurationError(f"{key}: expected a table, [{key}], got {value!r}")
    if not values.get("search"):
        raise ConfigurationError("[search]: expected options with the values to try, got none")
    return {key: values.get(key, {}) for key in known}


def _known_options() -> dict[str, Option]:
    return {each.name: each for each in [*OPTIONS.values(), *own.all_own_options()]}


def _method(values: Mapping[str, Any]) -> Method:
    for key in values.keys() - options_of(Method).keys():
        hint = did_you_mean(key, list(options_of(Method)))
        raise ConfigurationError(f"[sweep]: unknown key {key!r}{hint}")
    try:
        return Method(**values)
    except ConfigurationError as error:
        raise ConfigurationError(f"[sweep]: {str(error).removeprefix('--')}") from None


def _check_keys(tables: Mapping[str, Mapping[str, Any]], method: Method) -> None:
    known = _known_options()
    for table in ("options", "search"):
        for key in tables[table]:
            if key in _TAKEN:
                raise ConfigurationError(
                    f"[{table}]: unexpected key {key!r}: sweep says it to every run"
                    f"{'; score in [sweep] is the figure' if key == 'keep_best' else ''}"
                )
            if key not in known:
                hint = did_you_mean(key, list(known))
                raise ConfigurationError(f"[{table}]: unknown key {key!r}{hint}")
    for key in tables["options"].keys() & tables["search"].keys():
        raise ConfigurationError(f"{key!r} stands in [options] and in [search]: expected one")
    if method.seeds and "seed" in {**tables["options"], **tables["search"]}:
        raise ConfigurationError("'seed': expected either it or seeds in [sweep], got both")


def _check(run: Planned) -> None:
    try:
        sources.from_values(run.options)
    except ConfigurationError as error:
        raise ConfigurationError(f"with {run.shown()}: {error}") from None


# -- settings ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    """Values in turn, or a range to draw from."""

    values: tuple[Any, ...] = ()
    kind: str = ""
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False

    def draw(self, chance: float) -> Any:
        """The value for a number from 0 up to 1."""
        if not self.kind:
            return self.values[int(chance * len(self.values))]
        # A whole number's share of the range reaches half way to its neighbours.
        low, high = (self.low - 0.5, self.high + 0.5) if self.is_whole else (self.low, self.high)
        if self.kind == "log_uniform":
            low = max(low, self.low / 2) if self.is_whole else low
            found = math.exp(math.log(low) + chance * (math.log(high) - math.log(low)))
        else:
            found = low + chance * (high - low)
        if self.is_whole:
            return int(min(self.high, max(self.low, math.floor(found + 0.5))))
        return min(self.high, max(self.low, float(f"{found:.{_DIGITS}g}")))


def _axis(key: str, value: Any, method: Method) -> _Axis:
    """Raises ConfigurationError."""
    expected = "a list of values, or {uniform = [low, high]}, {log_uniform = [low, high]} or {choice = [values]}"
    if isinstance(value, dict) and len(value) == 1 and "choice" in value:
        value = value["choice"]
    if isinstance(value, list) and value:
        return _Axis(tuple(value))
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in _DRAWS:
        raise ConfigurationError(f"[search] {key}: expected {expected}, got {value!r}")
    ((kind, ends),) = value.items()
    is_range = isinstance(ends, list) and len(ends) == 2
    if not is_range or not all(
        isinstance(e, int | float) and not isinstance(e, bool) for e in ends
    ):
        raise ConfigurationError(f"[search] {key}: expected {kind} = [low, high], got {ends!r}")
    low, high = ends
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigurationError(
            f"[search] {key}: expected a low end below the high one, got {low:g} and {high:g}"
        )
    if kind == "log_uniform" and low <= 0:
        raise ConfigurationError(
            f"[search] {key}: expected ends of log_uniform above 0, got {low:g}"
        )
    if method.method == "grid":
        raise ConfigurationError(
            f'[search] {key}: expected a list of values for a grid, got {kind}; method = "random" in [sweep] draws from it'
        )
    declared = _known_options().get(key)
    of_value = None if declared is None else declared.kind
    if isinstance(of_value, OrAuto):
        of_value = of_value.item
    if of_value is not None and not isinstance(of_value, Whole | Number):
        raise ConfigurationError(
            f"[search] {key}: expected a list of values, since it is no number, got {kind}"
        )
    return _Axis((), kind, low, high, isinstance(of_value, Whole))


def _settings(axes: Mapping[str, _Axis], method: Method) -> Iterator[dict[str, Any]]:
    if method.method == "grid":
        count = math.prod(len(axis.values) for axis in axes.values())
        if count * max(1, len(method.seeds)) > _RUNS_MAX:
            raise ConfigurationError(f"[search]: expected at most {_RUNS_MAX} runs, got {count}")
        for values in itertools.product(*(axis.values for axis in axes.values())):
            yield dict(zip(axes, values, strict=True))
        return
    assert method.runs is not None
    for number in range(min(method.runs, _RUNS_MAX)):
        yield {
            key: axis.draw(random.Random(f"{method.seed}/{number}/{key}").random())
            for key, axis in axes.items()
        }


def _with_seeds(
    settings: list[dict[str, Any]], fixed: Mapping[str, Any], method: Method
) -> Iterator[Planned]:
    for number, setting in enumerate(settings):
        for seed in method.seeds or (None,):
            chosen = setting if seed is None else setting | {"seed": seed}
            yield Planned(number, chosen, {**fixed, **chosen})


def _distinct(runs: Sequence[Planned]) -> list[Planned]:
    """Each name once: two draws may be alike."""
    found: dict[str, Planned] = {}
    for run in runs:
        found.setdefault(run.name, run)
    return list(found.values())
