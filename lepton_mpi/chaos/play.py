"""A training without faults, then the same under faults, started again until it is over, and what was lost and spent on the way.

data       FOLDER/undisturbed and FOLDER/disturbed, each with checkpoints/; the output of each start beside them
a start    goes on from the newest checkpoint; its faults are drawn from what is saved by then
after it   every checkpoint is read and verified; the highest step of a whole one must not be below that of before
the end    the last start comes without a fault, or after the last step; its weights are those of the undisturbed run, where the strategy promises it
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from lepton_mpi.chaos.draw import KINDS, Situation, in_turn, ranks_for
from lepton_mpi.chaos.start import Ended, start
from lepton_mpi.errors import ConfigurationError, DataError, LeptonError, RankError
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi.run.best import FILE as BEST

# A start without progress may be drawn again, but not for ever.
_STARTS_PER_FAULT = 4
# Of the output of a training that failed by itself.
_SHOWN_LINES = 12
# The plan, in its folder.
_MARK = "chaos.json"

Say = Callable[[str, str], None]


@dataclass(frozen=True)
class Plan:
    """What is asked for; ``words`` are options of train, without --checkpoint and --resume."""

    words: tuple[str, ...]
    faults: int
    kinds: tuple[str, ...]
    ranks: tuple[int, ...]
    seed: int
    folder: Path
    timeout_seconds: float
    promises_bits: bool


@dataclass
class Verdict:
    """What came out; ``starts`` has a dict for each."""

    undisturbed_seconds: float = 0.0
    disturbed_seconds: float = 0.0
    last_step: int = 0
    digest: str = ""
    disturbed_digest: str = ""
    lost_steps: int = 0
    damaged: list[str] = field(default_factory=list)
    left_processes: int = 0
    left_files: list[str] = field(default_factory=list)
    hung: int = 0
    repeated_steps: int = 0
    longest_end_seconds: float = 0.0
    starts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def has_same_bits(self) -> bool:
        """Whether both runs ended with the same weights."""
        return self.digest == self.disturbed_digest

    def is_good(self, promises_bits: bool) -> bool:
        """Whether nothing was lost."""
        lost = self.lost_steps or self.damaged or self.left_processes or self.left_files
        return not lost and not self.hung and (self.has_same_bits or not promises_bits)


def play(plan: Plan, say: Say) -> Verdict:
    """The whole of it. Raises LeptonError if the training fails without a fault."""
    _clear(plan)
    found, draw = Verdict(), Random(plan.seed)
    _play_undisturbed(plan, found, say)
    limit = 4 * found.undisturbed_seconds + plan.timeout_seconds + 120
    folder = plan.folder / "disturbed"
    kinds, came, saved = in_turn(plan.kinds, plan.faults, draw), 0, 0
    for number in range(1, _STARTS_PER_FAULT * (plan.faults + 1) + 1):
        kind = kinds[came] if came < plan.faults else ""
        ranks = draw.choice(ranks_for(kind, plan.ranks))
        now = Situation(saved, found.last_step, ranks, plan.faults - came)
        faults = KINDS[kind](draw, now) if kind else []
        words = _with_folder(plan.words, folder, number)
        ended = start(words, ranks, faults, folder / f"start-{number:03d}", limit)
        before, (saved, damaged) = saved, _saved(folder / "checkpoints")
        came += bool(ended.happened)
        _count(found, ended, before, saved, damaged)
        record = {"number": number, "ranks": ranks, "kind": kind, "faults": [*map(str, faults)]}
        record |= asdict(ended) | {"output": str(ended.output), "saved_step": saved}
        found.starts.append(record)
        say(f"start {number}", _line(record, ended, before))
        if ended.code == 0 and (not faults or saved >= found.last_step):
            break  # with faults left: there is no step in which they could come
        if ended.code and not faults:
            raise _failed(ended)
    else:
        raise RankError(f"the run was not over after {len(found.starts)} starts")
    _finish(found, folder)
    return found


def _clear(plan: Plan) -> None:
    """Remove what an earlier play has left, and nothing else. Raises LeptonError, OSError."""
    mark = plan.folder / _MARK
    if plan.folder.exists() and any(plan.folder.iterdir()) and not mark.is_file():
        raise ConfigurationError(
            f"--folder: expected a new folder, or one of an earlier play, got {plan.folder} with other files"
        )
    for name in ("undisturbed", "disturbed"):
        shutil.rmtree(plan.folder / name, ignore_errors=True)
    plan.folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(asdict(plan) | {"folder": str(plan.folder)}) + "\n", "utf-8")


def _play_undisturbed(plan: Plan, found: Verdict, say: Say) -> None:
    folder = plan.folder / "undisturbed"
    words = _with_folder(plan.words, folder, 1)
    ended = start(words, max(plan.ranks), (), folder / "start-001", float("inf"))
    if ended.code:
        raise _failed(ended)
    found.undisturbed_seconds = ended.seconds
    found.last_step, found.digest = _last(folder / "checkpoints")
    say("undisturbed", f"{found.last_step} steps, {ended.seconds:.1f} s, weights {found.digest}")


def _with_folder(words: Sequence[str], folder: Path, number: int) -> list[str]:
    checkpoints = str(folder / "checkpoints")
    own = ["--checkpoint", checkpoints, "--resume", checkpoints]
    return [*words, *own, "--metrics", str(folder / f"start-{number:03d}" / "run.jsonl")]


def _failed(ended: Ended) -> LeptonError:
    lines = ended.output.read_text("utf-8", errors="replace").splitlines()
    error = RankError(
        f"the training failed without a fault, exit code {ended.code}; {ended.output} ends with:"
    )
    error.details = [line.expandtabs() for line in lines[-_SHOWN_LINES:]]
    return error


def _last(folder: Path) -> tuple[int, str]:
    path, _ = checkpoint_folder.newest_whole(folder)
    attributes, _ = checkpoint.read_attributes(path)
    return int(attributes["step"]), str(attributes["weights_digest"])


def _saved(folder: Path) -> tuple[int, list[str]]:
    """The highest step of whole checkpoints, 0 for none, and what is wrong with others, and with that of the best epoch."""
    steps, damaged = [0], []
    for path in checkpoint_folder.newest_first(folder):
        try:
            steps.append(int(checkpoint.load(path).attributes["step"]))
        except DataError as error:
            damaged.append(str(error))
    best = folder / BEST
    if best.exists():
        try:
            checkpoint.load(best)
        except DataError as error:
            damaged.append(str(error))
    return max(steps), damaged


def _count(found: Verdict, ended: Ended, before: int, saved: int, damaged: list[str]) -> None:
    found.disturbed_seconds += ended.seconds
    found.lost_steps += max(0, before - saved)
    found.damaged += [text for text in damaged if text not in found.damaged]
    found.left_processes += ended.left
    found.hung += ended.is_hung
    reached = max((fact["step"] or 0 for fact in ended.happened), default=0)
    found.repeated_steps += max(0, reached - saved)
    if ended.happened:
        found.longest_end_seconds = max(found.longest_end_seconds, ended.fault_seconds)


def _line(record: dict[str, Any], ended: Ended, before: int) -> str:
    what = ", ".join(record["faults"]) or "no fault"
    if record["faults"] and not ended.happened:
        what += " (did not come)"
    how = "hung, killed" if ended.is_hung else f"exit {ended.code}"
    since = f", {ended.fault_seconds:.1f} s after it" if ended.happened else ""
    left = f", {ended.left} processes left" if ended.left else ""
    return (
        f"{record['ranks']} ranks from step {before}: {what}; {how}{since}{left}; saved to step {record['saved_step']}, "
        f"{ended.seconds:.1f} s"
    )


def _finish(found: Verdict, folder: Path) -> None:
    step, found.disturbed_digest = _last(folder / "checkpoints")
    found.lost_steps += max(0, found.last_step - step)
    found.left_files = sorted(map(str, (folder / "checkpoints").glob("*.tmp")))


def write_json(path: Path, plan: Plan, found: Verdict) -> None:
    """All of it. Raises OSError."""
    facts = asdict(plan) | {"folder": str(plan.folder)} | asdict(found)
    path.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
