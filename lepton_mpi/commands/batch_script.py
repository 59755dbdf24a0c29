"""``python -m lepton_mpi slurm``, ``pbs`` and ``lsf``: print a batch script for a run that saves before its time limit and starts again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lepton_mpi.batch_systems.job import Job, Mpi
from lepton_mpi.batch_systems.lsf import lsf_script
from lepton_mpi.batch_systems.pbs import pbs_script
from lepton_mpi.batch_systems.shell import MARK
from lepton_mpi.batch_systems.slurm import slurm_script
from lepton_mpi.commands.command import Command
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.options import parser, sources
from lepton_mpi.options.config import OPTIONS, Config
from lepton_mpi.options.duration import Duration, duration_text
from lepton_mpi.options.kinds import PathText, Several, Text
from lepton_mpi.options.option import (
    WHOLE_FROM_0,
    WHOLE_FROM_1,
    Check,
    Checked,
    option,
    options_of,
    position,
)
from lepton_mpi.options.toml_file import TomlFile
from lepton_mpi.sweeping.search import read_plan
from lepton_mpi.wording import print_line

# Of Slurm's --signal.
_WARN_SECONDS_MAX = 65535

_NAME: Check = (
    "letters, digits, _ and -, 15 at most",
    lambda text: 0 < len(text) < 16 and text.replace("_", "a").replace("-", "a").isalnum(),
)
_ONE_LINE: Check = ("a text on one line", lambda text: text.isprintable())
_WORDS: Check = (
    "words of a shell, without any of ; & | < > ( )",
    lambda text: _is_words(text),
)
_LINES: Check = ("texts on one line", lambda texts: all(map(str.isprintable, texts)))

_EPILOGUE = """The options of train behind -- are checked before anything is printed. Without --checkpoint the run is saved in the folder
--name; --resume is added, so that the job goes on where it was stopped.

Before the time limit the ranks are told to stop: they finish a step, save, and end with exit code 75; the job is then started again
until the run is over. The first lines of the script hold what another cluster would need otherwise.

With --sweep the script is for an array of jobs, of which each makes one run; the table is written anew after every one.

examples: python -m lepton_mpi {name} --nodes 4 --ranks-per-node 16 --time 2:00:00 --out job.sh -- --data train.h5 --epochs 50"""


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What a script is written from."""

    train: tuple[str, ...] = position(
        "behind --: options of train",
        kind=Several.of(Text("OPTION", "options of train")),
        default=(),
    )
    out: str | None = option(
        None, "file for the script; none: it is printed", kind=PathText("FILE")
    )
    sweep: str | None = option(
        None,
        "file of the command sweep, in place of options of train: an array of jobs, one for each of its runs",
        kind=PathText("FILE.toml"),
    )
    at_once: int = option(0, "of --sweep: runs that may run at the same time; 0: all", WHOLE_FROM_0)
    nodes: int = option(1, "nodes of the job", WHOLE_FROM_1)
    ranks_per_node: int | None = option(
        None, "ranks on each node: as many as it has cores, as a rule; must be given", WHOLE_FROM_1
    )
    cores_per_rank: int = option(
        0, "cores of each rank; 0: as many as it has threads, by train --threads", WHOLE_FROM_0
    )
    time: float | None = option(
        None, "time limit of the job, as in 2:00:00 or 90min; must be given", kind=Duration()
    )
    warn: float = option(300.0, "how long before the limit the ranks save and end", kind=Duration())
    requeue: bool = option(True, "start a job again that was stopped before the run's end")
    name: str = option("lepton", "of the job, and of its output", _NAME)
    queue: str | None = option(None, "queue, or partition of Slurm", _ONE_LINE)
    account: str | None = option(None, "account, or project of LSF", _ONE_LINE)
    directives: tuple[str, ...] = option(
        (),
        "more options of the batch system, one behind the other with ; between, as in --directives='--mem=64G; --qos=long'",
        _LINES,
        kind=Several.of(Text(), ";"),
    )
    modules: tuple[str, ...] = option((), "modules to load, as in openmpi python", _LINES)
    environment: str | None = option(
        None,
        "folder of the Python environment that has lepton_mpi; none: what the modules bring",
        _ONE_LINE,
        kind=Text("FOLDER"),
    )
    mpi: Mpi = option("openmpi", "whose launcher's options are written")
    launcher: str | None = option(
        None, "words that start the ranks, in place of srun or mpirun with their options", _WORDS
    )

    def check_together(self) -> None:
        """Raises ConfigurationError."""
        if self.sweep is not None and self.train:
            raise ConfigurationError(
                f"--sweep: expected no options of train, which stand in {self.sweep}, got {' '.join(self.train)}"
            )
        if self.at_once and self.sweep is None:
            raise ConfigurationError(
                "--at-once: expected a sweep of several runs, --sweep, got none"
            )
        if self.ranks_per_node is None:
            raise ConfigurationError(
                "--ranks-per-node: expected the ranks of each node, as in --ranks-per-node 16, got none"
            )
        if self.time is None:
            raise ConfigurationError(
                "--time: expected the job's time limit, as in --time 2:00:00, got none"
            )
        if not 60 <= self.time < 1000 * 86400:
            raise ConfigurationError(
                f"--time: expected a time from 1 minute to 1000 days, got {duration_text(self.time)}"
            )
        if not 1 <= self.warn < min(self.time, _WARN_SECONDS_MAX):
            raise ConfigurationError(
                f"--warn: expected a time from 1 s that is shorter than --time, {duration_text(self.time)}, and than 18 h, got "
                f"{duration_text(self.warn)}"
            )


def _is_words(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return text.isprintable() and not set(text) & set(";&|<>()`")


def _run(chosen: Options, name: str, write: Callable[[Job], str]) -> int:
    run_count = 0
    if chosen.sweep is not None:
        plan = read_plan(chosen.sweep, "--sweep")
        words, run_count = [chosen.sweep], len(plan.runs)
        configs = [sources.from_values(run.options).config for run in plan.runs]
    else:
        words, config = _with_checkpoints(list(chosen.train), chosen.name)
        configs = [config]
    for note in dict.fromkeys(note for config in configs for note in _notes(chosen, config)):
        print(f"lepton_mpi {name}: {note}", file=sys.stderr)
    threads = max(config.threads for config in configs)
    text = write(_job(chosen, words, threads, run_count, name))
    if chosen.out is None:
        print_line(text.rstrip("\n"))
    else:
        _write(Path(chosen.out), text)
    return 0


def _write(path: Path, text: str) -> None:
    """A new file, or in place of another script of these commands. Raises LeptonError."""
    try:
        if path.exists() and MARK not in path.read_text("utf-8", errors="replace")[:200]:
            raise ConfigurationError(
                f"--out: expected a new file, or a script that was written so before, got {path}, which is another file"
            )
        path.write_text(text, "utf-8")
    except OSError as error:
        raise LauncherError(f"cannot write {path}: {error.strerror}") from None
    print_line(f"wrote     {path}")


def _job(chosen: Options, words: list[str], threads: int, run_count: int, name: str) -> Job:
    assert chosen.ranks_per_node is not None and chosen.time is not None
    return Job(
        name=chosen.name,
        nodes=chosen.nodes,
        ranks_per_node=chosen.ranks_per_node,
        cores_per_rank=chosen.cores_per_rank or max(1, threads),
        seconds=chosen.time,
        warning_seconds=chosen.warn,
        is_requeued=chosen.requeue,
        queue=chosen.queue or "",
        account=chosen.account or "",
        directives=chosen.directives,
        modules=chosen.modules,
        environment=chosen.environment or "",
        mpi=chosen.mpi,
        launcher=chosen.launcher or "",
        options=tuple(words),
        run_count=run_count,
        at_once=chosen.at_once,
        written_by=_written_by(chosen, name),
    )


def _written_by(chosen: Options, name: str) -> str:
    """The command, on one line whatever is in it."""
    given = []
    for each in options_of(Options).values():
        value = getattr(chosen, each.name)
        if not each.is_position and each.name != "out" and value != each.default:
            shown = each.kind.shown(value)
            given += (
                [f"{each.flag}={shown}"]
                if shown.startswith("-")
                else [each.flag, *_split(each.name, shown)]
            )
    behind = ["--", *chosen.train] if chosen.train else []
    text = shlex.join(["python", "-m", "lepton_mpi", name, *given, *behind])
    return text if text.isprintable() else f"python -m lepton_mpi {name}"


def _split(name: str, shown: str) -> list[str]:
    return shown.split() if name == "modules" else [shown]


def _with_checkpoints(words: list[str], name: str) -> tuple[list[str], Config]:
    """Options of train that save and go on, and what they mean. Raises ConfigurationError, as train would."""
    checkpoint = _given("checkpoint", words)
    resume = _given("resume", words)
    if checkpoint is None:
        checkpoint = resume if resume and not resume.endswith(".h5") else name
        words = [*words, "--checkpoint", checkpoint]
    if resume is None:
        words = [*words, "--resume", checkpoint]
    elif Path(resume) != Path(checkpoint):
        raise ConfigurationError(
            f"--resume: expected the folder of --checkpoint, {checkpoint}, so that a job that is started again goes on with its own "
            f"newest checkpoint, got {resume}; --initial begins with the parameters of another one"
        )
    return words, sources.from_command_line(words).config


def _given(name: str, words: Sequence[str]) -> str | None:
    """What the command line, or else the file of ``--config``, says of an option of train."""
    found = parser.word_after(f"--{name}", words)
    path = parser.word_after("--config", words)
    if found is None and path is not None:
        file = TomlFile("--config", sources.CONFIG_FILE.read_words([path]))
        with file.naming_it():
            value = file.values.get(name)
            found = None if value is None else OPTIONS[name].read_value(value)
    return found


def _notes(chosen: Options, config: Config) -> list[str]:
    """What a user would want to know before the job has waited in the queue."""
    assert chosen.ranks_per_node is not None
    if config.global_batch is None:  # it follows from the data, which may not be there yet
        return []
    found = []
    ranks = chosen.nodes * chosen.ranks_per_node
    micro_batch = config.micro_batch or -(-config.global_batch // 8)
    parts = -(-config.global_batch // micro_batch)
    if parts < ranks:
        rows = config.global_batch // ranks
        helps = f"--micro-batch {rows}" if rows else f"--global-batch {8 * ranks} --micro-batch 8"
        found.append(
            f"{ranks} ranks, but a step has {parts} micro-batches: {ranks - parts} ranks would have no work; {helps} gives all of them some"
        )
    return found


def _read(words: Sequence[str]) -> Options:
    options = options_of(Options)
    of_train = [f for f in OPTIONS.values() if f.name not in options]
    before = words[: words.index("--")] if "--" in words else words
    for each in of_train:
        if parser.is_named(each.flag, before):
            raise ConfigurationError(
                f"{each.flag} is an option of train: it stands behind --, as in -- {each.flag} …"
            )
    return Options(**parser.read(words, options))


def _command(name: str, system: str, submit: str, write: Callable[[Job], str]) -> Command[Options]:
    return Command(
        name,
        f"print a batch script for {system}, which saves before the time limit and starts again",
        f"python -m lepton_mpi {name} --ranks-per-node N --time TIME [options] -- [options of train]; {submit}",
        f"Print a batch script for {system}.",
        options_of(Options),
        _read,
        lambda chosen: _run(chosen, name, write),
        _EPILOGUE.format(name=name),
    )


SLURM = _command("slurm", "Slurm", "sbatch job.sh", slurm_script)
PBS = _command("pbs", "OpenPBS and PBS Professional", "qsub job.sh", pbs_script)
LSF = _command("lsf", "LSF", "bsub < job.sh", lsf_script)
