"""Options of a run that goes on: those that decide the weights stay, and what nobody has given is as it was.

So a job may be submitted again with the words that began it, whatever the defaults have become meanwhile, and
``--resume FOLDER`` alone is enough. A checkpoint may come from anybody: no program that it names is run.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.by_rule import EARLIER
from lepton_mpi.options.config import OPTIONS, Config
from lepton_mpi.registry import is_own_file
from lepton_mpi.wording import one_line

# Options that do not decide what the weights become, or only how far training goes, along a cosine apart.
_FREE = {
    *(
        "recipe",
        "data",
        "prepare",
        "x",
        "y",
        "hook",
        "initial",
        "initial_strict",
        "epochs",
        "loader",
        "shuffle",
        "shuffle_buffer",
    ),
    *(
        "checkpoint",
        "checkpoint_steps",
        "save_every",
        "async_save",
        "elastic",
        "find_learning_rate",
        "find_steps",
        "find_out",
        "keep",
        "resume",
        "report_memory",
        "metrics",
        "metrics_append",
    ),
    *("csv", "tensorboard", "trace", "trace_steps"),
    *(
        "progress",
        "check_model",
        "task",
        "threads",
        "recompute",
        "balance",
        "keep_best",
        "restore_best",
        "early_stop",
        "timeout",
        "peer_timeout",
        "stop_before",
        "time_limit",
        "allreduce",
        "bucket_bytes",
        "segment_bytes",
        "io_retry",
        "on_nan",
        "check_every",
        "on_drift",
    ),
}
# Those of them that a run goes on with all the same, unless it is told otherwise.
_KEPT = {"recipe", "data", "prepare", "x", "y", "epochs"} | {
    *("keep_best", "restore_best", "early_stop", "on_nan", "check_every", "on_drift")
}
_OF_FOLDER = ("keep_best", "restore_best")
# All of these add in the canonical order; threads and other ways of summing round otherwise, which is no mistake.
_CANONICAL = ("auto", "host", "two_level")


def choose(
    now: Config, given: frozenset[str] | None, before: Config, path: Path
) -> tuple[Config, list[str]]:
    """``now``, with what is not given as it was ``before``, and these options for people.

    Parameters
    ----------
    given
        Names of the options that somebody has chosen; None for all.
    before, path
        The configuration of the checkpoint, and the file.

    Raises
    ------
    ConfigurationError
        For a given option that decides the weights and was another, and for a program that only the checkpoint names.
    """
    taken: dict[str, Any] = {}
    for name in [*OPTIONS, "own"]:
        mine, theirs = getattr(now, name), getattr(before, name)
        if mine == theirs or not (_decides(name, before) or name in _KEPT):
            continue
        if not _is_given(name, given, mine, theirs):
            taken[name] = theirs
        elif _decides(name, before):
            raise _another(name, mine, theirs, path)
    if now.checkpoint is None:  # the folder of best.h5, which is not taken from the file
        taken = {name: value for name, value in taken.items() if name not in _OF_FOLDER}
    for name in taken.keys() & {"model", "strategy"}:
        if is_own_file(taken[name]):
            raise ConfigurationError(
                f"--{name}: expected {one_line(taken[name])} as in {path}, got none; a file that names a program is not "
                "reason enough to run it"
            )
    shown = [f"{OPTIONS[name].flag} {_shown(name, taken[name])}" for name in taken if name != "own"]
    return dataclasses.replace(now, **taken), shown


def rounding_notes(now: Config, before: Config) -> list[str]:
    """What keeps the end from being that of a run that never stopped, though only by the last digits."""
    ways: dict[str, tuple[object, object]] = {"--threads": (before.threads, now.threads)}
    if {before.allreduce, now.allreduce} - {*_CANONICAL}:
        ways["--allreduce"] = (before.allreduce, now.allreduce)
    return [
        f"{flag} was {theirs}, is {mine}: rounds otherwise, so that not all bits are those of one run"
        for flag, (theirs, mine) in ways.items()
        if theirs != mine
    ]


def _decides(name: str, before: Config) -> bool:
    """Whether an option decides what the weights become."""
    # Every learning rate along a cosine follows from how many steps there will be.
    return name not in _FREE or (name == "epochs" and before.schedule == "cosine")


def _is_given(name: str, given: frozenset[str] | None, mine: Any, theirs: Any) -> bool:
    """Whether somebody has chosen an option or, of the models' own ones, one that differs."""
    if (
        name in EARLIER and mine is None
    ):  # left to the rule, also by a program that gives all options
        return False
    if given is None or name != "own":
        return given is None or name in given
    return bool(_differing(mine, theirs) & given)


def _another(name: str, mine: Any, theirs: Any, path: Path) -> ConfigurationError:
    flag = f"--{name.replace('_', '-')}"
    if name == "own":
        flag = ", ".join(f"--{own.replace('_', '-')}" for own in sorted(_differing(mine, theirs)))
        mine, theirs = _values(mine), _values(theirs)
    return ConfigurationError(
        f"{flag}: expected {one_line(theirs)} as in {path}, got {one_line(mine)}; a run that goes on keeps its "
        "options, and --initial takes the parameters alone"
    )


def _differing(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """Names of the options that one model alone has and that are others."""
    now, before = _values(mine), _values(theirs)
    return {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}


def _values(own: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for chosen in own.values() for name, value in vars(chosen).items()}


def _shown(name: str, value: Any) -> str:
    return one_line(OPTIONS[name].shown(value))
