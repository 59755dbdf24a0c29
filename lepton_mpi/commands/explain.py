"""python -m lepton_mpi explain: what a collective does, step by step, and what it costs.

Everything printed is read off the schedule that the real run carries out. Starts neither NumPy nor MPI.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lepton_mpi import launcher
from lepton_mpi.collectives.explaining import trace_text
from lepton_mpi.collectives.explaining.trace import trace
from lepton_mpi.collectives.explaining.trace_picture import svg
from lepton_mpi.collectives.schedules.algorithms import COLLECTIVES
from lepton_mpi.collectives.schedules.schedule import Algorithm, Collective
from lepton_mpi.collectives.schedules.two_level import halves, two_level
from lepton_mpi.commands.command import command
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import parser
from lepton_mpi.options.kinds import OneOf, PathText, Several, Text, Whole
from lepton_mpi.options.option import (
    WHOLE_FROM_0,
    WHOLE_FROM_1,
    Checked,
    option,
    options_of,
    position,
)
from lepton_mpi.wording import did_you_mean, print_line

# Up to so many ranks all of them are shown, and drawn; more do not fit on a page.
_RANKS_SHOWN, _CHUNKS_SHOWN = 16, 26
# Up to so many ranks a schedule is run on symbols; the ring takes 1 s then.
_RANKS_TRACED = 64
# An all-to-all has as many chunks as pairs of ranks: so many chunks of all ranks are traced, 32 ranks of it.
_CELLS_TRACED = 1 << 15
_RANKS_DEFAULT = 4


def _names() -> str:
    return "; ".join(
        f"{collective.value}: {', '.join(names)}" for collective, names in COLLECTIVES.items()
    )


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is explained, for how many ranks."""

    algorithm: str | None = position(
        f"the schedule to explain, none to compare all; {_names()}",
        kind=Text("[ALGORITHM]"),
        default=None,
    )
    ranks: int | None = option(
        None, f"number of ranks; none: those of --hosts, or {_RANKS_DEFAULT}", WHOLE_FROM_1
    )
    collective: str = option(
        "allreduce", "what the ranks do together", kind=OneOf.of(*(c.value for c in Collective))
    )
    hosts: tuple[int, ...] | None = option(
        None,
        "ranks on each host, for two_level",
        ("whole numbers of at least 1, such as 2,2", lambda hosts: min(hosts, default=0) >= 1),
        kind=Several.of(Whole(), ","),
    )
    count: int | None = option(
        None, "length of the vector; prints elements and bytes, too", WHOLE_FROM_0
    )
    svg: str | None = option(None, "draw it", kind=PathText("FILE"))

    def check_together(self) -> None:
        """Raises ConfigurationError for hosts that are not those of the ranks."""
        if self.hosts and self.rank_count != sum(self.hosts):
            raise ConfigurationError(
                f"--hosts: expected numbers that add up to {self.rank_count}, got {list(self.hosts)}"
            )

    @property
    def rank_count(self) -> int:
        """How many ranks it is explained for."""
        return self.ranks or sum(self.hosts or ()) or _RANKS_DEFAULT


def explain(words: Sequence[str]) -> str:
    """The text for these command-line words. Raises ConfigurationError."""
    return _text(Options(**parser.read(words, options_of(Options))))


def _text(options: Options) -> str:
    ranks, collective = options.rank_count, Collective(options.collective)
    if options.algorithm is None:
        return trace_text.comparison(
            [_on_hosts(a, options) for a in COLLECTIVES[collective].values()], ranks
        )
    algorithm = _on_hosts(_named(options.algorithm, collective), options)
    if options.svg is not None:
        _draw(Path(options.svg), algorithm, ranks)
    parts = [trace_text.head(algorithm, ranks, options.count)]
    shows_all = ranks <= _RANKS_SHOWN and algorithm.chunk_count(ranks) <= _CHUNKS_SHOWN
    if not shows_all:
        parts.append(trace_text.steps_of_rank_0(algorithm, ranks))
    if ranks <= _RANKS_TRACED and ranks * algorithm.chunk_count(ranks) <= _CELLS_TRACED:
        traced = trace(algorithm, ranks)
        parts += trace_text.all_steps(traced) if shows_all else []
        parts.append(trace_text.end(traced))
    parts.append(trace_text.costs(algorithm, ranks, options.count))
    return "\n\n".join(parts)


def _named(name: str, collective: Collective) -> Algorithm:
    known, wanted = COLLECTIVES[collective], name.replace("-", "_")
    if wanted not in known:
        raise ConfigurationError(
            f"{collective.value} algorithm: expected one of {', '.join(known)}, got {name!r}"
            f"{did_you_mean(wanted, list(known))}"
        )
    return known[wanted]


def _on_hosts(algorithm: Algorithm, options: Options) -> Algorithm:
    """``algorithm`` itself, or if it is about hosts, that for the hosts asked for."""
    if algorithm.name == "two_level":
        return two_level(list(options.hosts or halves(options.rank_count)))
    if options.hosts and options.algorithm is not None:
        raise ConfigurationError(f"--hosts: expected the algorithm two_level, got {algorithm.name}")
    return algorithm


def _draw(path: Path, algorithm: Algorithm, ranks: int) -> None:
    if ranks > _RANKS_SHOWN:
        raise ConfigurationError(f"--svg: expected --ranks of at most {_RANKS_SHOWN}, got {ranks}")
    if launcher.launched_rank() > 0:
        return
    try:
        path.write_text(svg(trace(algorithm, ranks)), "utf-8")
    except OSError as error:
        raise ConfigurationError(f"--svg: cannot write {path}: {error.strerror}") from None


def _run(options: Options) -> int:
    text = _text(options)
    if launcher.launched_rank() == 0:
        print_line(text)
    return 0


COMMAND = command(
    "explain",
    "show what a collective does, step by step, and what it costs",
    "[ALGORITHM] [options]",
    Options,
    _run,
)
