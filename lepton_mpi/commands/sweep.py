"""``python -m lepton_mpi sweep FILE.toml``: train with many options, and say which were the best."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lepton_mpi import launcher
from lepton_mpi.commands.command import command
from lepton_mpi.errors import ConfigurationError, LauncherError, Preempted
from lepton_mpi.options.kinds import PathText, Text
from lepton_mpi.options.option import WHOLE_FROM_0, WHOLE_FROM_1, Checked, option, position
from lepton_mpi.starting.mpirun import find_launcher
from lepton_mpi.sweeping import results
from lepton_mpi.sweeping.carry_out import Signals, carry_out
from lepton_mpi.sweeping.results import Result
from lepton_mpi.sweeping.runs import Outcome, Score, SweepRun
from lepton_mpi.sweeping.search import Plan, read_plan
from lepton_mpi.wording import print_line

_SOME_FAILED = 1
# In the folder of a sweep: its file as it was last.
COPY = "sweep.toml"


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is trained, how, and what stays."""

    file: str = position(
        "a TOML file that says which options are tried", kind=PathText("FILE.toml", "a file")
    )
    out: str | None = option(
        None,
        "folder of the runs and of the table; none: that of FILE's name without .toml",
        kind=PathText("FOLDER"),
    )
    ranks: int = option(1, "ranks of each run, on this machine", WHOLE_FROM_1)
    launcher: str | None = option(
        None,
        "words that start the ranks of a run, in place of --ranks, as in 'srun --mpi=pmix'",
        kind=Text("WORDS"),
    )
    task: int | None = option(
        None,
        "make this run alone, counted from 0: that of a task of an array of jobs",
        WHOLE_FROM_0,
    )
    keep_best: int = option(
        0,
        "keep the checkpoints of so many runs, the best ones, and remove those of other finished runs; 0: keep all",
        WHOLE_FROM_0,
    )
    retry: bool = option(
        False,
        "make those runs again, too, that have ended with wrong options, wrong data or a loss that is no number",
    )
    show: bool = option(
        False, "train nothing: print the table as it is, or the runs that there would be"
    )


def _run(chosen: Options) -> int:
    if launcher.launched_size() > 1:
        raise ConfigurationError(
            f"expected one process, which starts the ranks of each run (--ranks 8, or --launcher), got rank {launcher.launched_rank()} "
            f"of {launcher.launched_size()}"
        )
    plan = read_plan(chosen.file)
    folder = Path(chosen.out or plan.path.with_suffix(""))
    if chosen.out is None and folder == plan.path:
        raise ConfigurationError(
            f"--out: expected a folder for the runs, since {plan.path} has no .toml at its end, got none"
        )
    runs = [SweepRun(planned, folder) for planned in plan.runs]
    print_line(f"sweep     {_title(plan, runs)}")
    if chosen.show:
        return _show(runs)
    launch, environment = _launch(chosen)
    _take(folder, plan)
    signals = Signals()
    with signals.caught():
        _make(chosen, plan, runs, launch, environment, signals)
    return _end(runs, folder, chosen)


def _take(folder: Path, plan: Plan) -> None:
    """Put the plan's file into the sweep's folder; another folder with files in it is refused. Raises LeptonError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / COPY
        if not copy.exists() and any(folder.iterdir()):
            raise ConfigurationError(
                f"--out: expected a folder that is new, empty, or of a sweep, got {folder} with other files; --out names another"
            )
        # From beside it: another process that starts with this one sees no folder with other files.
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        temporary.write_bytes(plan.path.read_bytes())
        os.replace(temporary, copy)
    except OSError as error:
        raise LauncherError(f"cannot write to {folder}: {error.strerror}") from None


def _title(plan: Plan, runs: Sequence[SweepRun]) -> str:
    before = sum(run.state == "finished" for run in runs)
    text = f"{plan.path}: {len(runs)} runs by {plan.method.method}"
    if plan.repeated:
        text += f", {plan.repeated} more that were drawn twice"
    return f"{text}, {before} of them finished before" if before else text


def _show(runs: Sequence[SweepRun]) -> int:
    for line in results.table(results.results(runs)):
        print_line(line)
    return 0


def _launch(chosen: Options) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Words in front of the program, and its environment. Raises LeptonError."""
    if chosen.launcher is not None:
        try:
            return tuple(shlex.split(chosen.launcher)), os.environ
        except ValueError as error:
            raise ConfigurationError(
                f"--launcher: expected words of a shell, got {chosen.launcher!r}: {error}"
            ) from None
    if chosen.ranks == 1:
        return (), os.environ
    found = find_launcher(chosen.ranks)
    return found.words, found.variables


def _make(
    chosen: Options,
    plan: Plan,
    runs: Sequence[SweepRun],
    launch: tuple[str, ...],
    environment: Mapping[str, str],
    signals: Signals,
) -> None:
    """All runs that are left. Raises Preempted if a run or this process was told to stop."""
    asked = range(len(runs)) if chosen.task is None else [chosen.task]
    if chosen.task is not None and chosen.task >= len(runs):
        raise ConfigurationError(
            f"--task: expected a run from 0 to {len(runs) - 1}, got {chosen.task}"
        )
    for number in asked:
        run = runs[number]
        if signals.count:
            raise Preempted(f"stopped before run {number + 1} of {len(runs)}; {_again(chosen)}")
        if not run.is_left(chosen.retry):
            continue
        try:
            with run.held() as lock:
                if lock is None or not run.is_left(chosen.retry):
                    continue  # another process makes it, or has made it meanwhile
                print_line(
                    f"run       {number + 1}/{len(runs)} {run.planned.name}  {run.planned.shown()}"
                )
                outcome = carry_out(run, lock, launch, environment, plan.method.score, signals)
        except OSError as error:
            raise LauncherError(f"cannot write to {run.folder}: {error.strerror}") from None
        print_line(f"          {_said(run, outcome)}")
        if outcome.code == Preempted.exit_code or signals.count:
            raise Preempted(f"stopped in run {number + 1} of {len(runs)}; {_again(chosen)}")
        _write(runs, run.folder.parent, chosen.keep_best)


def _again(chosen: Options) -> str:
    return f"the same command goes on: python -m lepton_mpi sweep {shlex.quote(chosen.file)}"


def _said(run: SweepRun, outcome: Outcome) -> str:
    seconds = f"{outcome.seconds:.1f} s"
    if outcome.code == Preempted.exit_code:
        return f"stopped, {seconds}"
    if outcome.code:
        return f"failed, {seconds}: {outcome.error}"
    score = Score.of(run.record())
    if score is None:
        return f"finished without a score, {seconds}"
    return f"validation {score.name} {score.value:.4f} in epoch {score.epoch}, {seconds}"


def _write(runs: Sequence[SweepRun], folder: Path, keep_best: int) -> list[Result]:
    """The table's files, after checkpoints that need not stay are gone. Raises LauncherError."""
    found = results.results(runs)
    try:
        if keep_best:
            results.remove_others(found, keep_best)
        folder.mkdir(parents=True, exist_ok=True)
        results.write(found, folder)
    except OSError as error:
        raise LauncherError(f"cannot write to {folder}: {error.strerror}") from None
    return found


def _end(runs: Sequence[SweepRun], folder: Path, chosen: Options) -> int:
    found = _write(runs, folder, chosen.keep_best)
    for line in results.table(found):
        print_line(line)
    print_line(f"wrote     {folder / 'results.csv'}, {folder / 'results.json'}")
    best = found[0]
    if best.score and best.run.checkpoint.is_dir():
        print_line(f"best      {best.run.checkpoint / 'best.h5'}")
    asked = runs if chosen.task is None else [runs[chosen.task]]
    return _SOME_FAILED if any(run.state == "failed" for run in asked) else 0


COMMAND = command(
    "sweep",
    "train with many options, by a grid or drawn at random, and say which were the best",
    "FILE.toml [options]",
    Options,
    _run,
    """The file has up to three tables: [sweep] with method = "grid" or "random", runs = 20 (of random), score = "accuracy", seeds = [0, 1];
[options] with options of train for every run; [search] with the options that are searched, each with a list of values, or, at random,
with {uniform = [low, high]} or {log_uniform = [low, high]}. All of them are checked before the first run.

Runs that have finished are not made again, and those that were interrupted go on: after Ctrl-C, or a kill, start the same command once
more. A run that fails stands in the table and does not end the others; then the exit code is 1.""",
)
