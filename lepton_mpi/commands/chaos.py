"""``python -m lepton_mpi chaos``: does a training of yours survive kills, stops, signals and bad disks? What does it cost?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_mpi.chaos.draw import KINDS, ON_ONE_HOST, ranks_for
from lepton_mpi.commands.command import Command
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.options import parser, sources
from lepton_mpi.options.kinds import OneOf, PathText, Several, Text
from lepton_mpi.options.option import (
    WHOLE_FROM_0,
    WHOLE_FROM_1,
    Check,
    Checked,
    option,
    options_of,
    position,
)
from lepton_mpi.wording import print_line, printable

if TYPE_CHECKING:
    from lepton_mpi.chaos.play import Plan, Verdict

# Under which a rank that is stopped counts as lost, where the user has not said it.
_TIMEOUT = "20"
_OWN = ("checkpoint", "resume", "metrics")
_RANKS: Check = ("numbers of ranks from 1", lambda ranks: bool(ranks) and min(ranks) >= 1)
_EPILOGUE = """The training runs once undisturbed, then under faults, one in each start, and goes on from its newest checkpoint until it is over.
Each start has one of the numbers of ranks of --ranks, drawn anew. After each start all checkpoints are read: none may be damaged, and no
saved step may be missing. Where --strategy is sync, the weights at the end must be those of the undisturbed run, bit for bit.

kinds of --faults: a rank killed after a step (kill) or before its gradients are summed (kill_in_exchange), all ranks (kill_all),
mpirun (kill_launcher), the rank that saves, before, in or after a save (kill_in_save); a rank stopped by SIGSTOP (stop; found after --timeout,
20 s unless it is given, by the others: on several ranks alone), crashed by SIGSEGV (crash), with an exception (raise), told to save and end by SIGTERM (preempt); each save slow
(slow_disk), without space (full_disk) or refused (broken_disk) with a rank killed meanwhile; the network of a rank's host cut (cut_network,
not drawn unless it is named: on one host ranks share memory, and need none).

Checkpoints after each epoch are what an end costs an epoch of; --checkpoint-steps behind -- writes more of them. A single fault of
your choice: LEPTON_FAULT="step@step=40:rank=1:kill" in the environment of any training; lepton_mpi/fault_points.py lists points and actions.

exit codes: 0 nothing was lost; 1 something was, and the last lines say what.

examples: python -m lepton_mpi chaos --kills 20 --seed 1 --ranks 4 -- --data train.h5 --epochs 5 --checkpoint-steps 20"""


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is played."""

    train: tuple[str, ...] = position(
        "behind --: options of train",
        kind=Several.of(Text("OPTION", "options of train")),
        default=(),
    )
    kills: int = option(20, "faults, of whatever kind", WHOLE_FROM_1)
    faults: tuple[str, ...] = option(
        ON_ONE_HOST, "kinds to draw from", kind=Several.of(OneOf.of(*KINDS))
    )
    ranks: tuple[int, ...] = option((2,), "numbers of ranks to draw from", _RANKS)
    seed: int = option(1, "of what is drawn", WHOLE_FROM_0)
    folder: str = option(
        "chaos", "folder for checkpoints, output and figures", kind=PathText("FOLDER")
    )
    json: str | None = option(None, "file for all figures", kind=PathText("FILE"))


def _run(chosen: Options) -> int:
    words = list(chosen.train)
    for name in _OWN:
        if parser.is_named(f"--{name}", words):
            raise ConfigurationError(
                f"--{name}: expected none behind --, since each start has its own in --folder, got one"
            )
    if not parser.is_named("--timeout", words):
        words += ["--timeout", _TIMEOUT]
    config = sources.from_command_line([*words, "--checkpoint", chosen.folder]).config
    kinds = tuple(kind for kind in chosen.faults if ranks_for(kind, chosen.ranks))
    if not kinds:
        raise ConfigurationError(
            f"--faults {' '.join(chosen.faults)}: expected --ranks above 1, since a rank alone keeps nobody waiting, got {max(chosen.ranks)}"
        )
    from lepton_mpi.chaos import play

    plan = play.Plan(
        words=tuple(words),
        faults=chosen.kills,
        kinds=kinds,
        ranks=chosen.ranks,
        seed=chosen.seed,
        folder=Path(chosen.folder),
        timeout_seconds=config.timeout,
        promises_bits=config.strategy == "sync" and config.compress == "none",
    )
    out = Path(chosen.json) if chosen.json else None
    if out and (out.is_dir() or not out.parent.is_dir()):
        raise ConfigurationError(
            f"--json: expected a file in a folder that exists, got {chosen.json}"
        )
    _say("chaos", f"{chosen.kills} faults, seed {chosen.seed}, in {chosen.folder}")
    try:
        found = play.play(plan, _say)
    except OSError as error:
        where = error.filename or chosen.folder
        raise LauncherError(f"{where}: {error.strerror or error}") from None
    _say_end(plan, found)
    if out:
        try:
            play.write_json(out, plan, found)
        except OSError as error:
            raise LauncherError(f"cannot write {out}: {error.strerror or error}") from None
    return int(not found.is_good(plan.promises_bits))


def _say(title: str, text: str) -> None:
    print_line(printable(f"{title:<11} {text}"))


def _say_end(plan: Plan, found: Verdict) -> None:
    _say(
        "lost",
        f"{found.lost_steps} saved steps, {len(found.damaged)} checkpoints damaged, {found.hung} starts hung, "
        f"{found.left_processes} processes and {len(found.left_files)} temporary files left behind",
    )
    for text in [*found.damaged, *found.left_files]:
        _say("", text)
    came = sum(bool(start["happened"]) for start in found.starts)
    if came < plan.faults:
        _say(
            "faults",
            f"{came} of {plan.faults} came before the last step: more steps have room for all",
        )
    same = "the same as undisturbed" if found.has_same_bits else "others than undisturbed"
    if not plan.promises_bits:
        same += "; only --strategy sync without --compress promises the same"
    _say("weights", f"{found.disturbed_digest}, {same}")
    count = len(found.starts)
    _say(
        "cost",
        f"{found.disturbed_seconds:.1f} s in {count} starts, undisturbed {found.undisturbed_seconds:.1f} s; {found.repeated_steps} steps "
        f"of {found.last_step} made again; from a fault to the end of all processes at most {found.longest_end_seconds:.1f} s",
    )


def _read(words: Sequence[str]) -> Options:
    return Options(**parser.read(words, options_of(Options)))


COMMAND = Command(
    "chaos",
    "see whether a training survives kills, stops and bad disks, and what that costs",
    "python -m lepton_mpi chaos [options] -- [options of train]",
    "Train under faults, start again until it is over, and say what was lost.",
    options_of(Options),
    _read,
    _run,
    _EPILOGUE,
)
