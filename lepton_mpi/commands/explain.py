"""python -m lepton_mpi explain: what a collective does, step by step, and what it costs.

Everything printed is read off the schedule that the real run carries out. Starts neither NumPy nor MPI.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lepton_mpi import launch
from lepton_mpi.collectives.explaining import trace_text
from lepton_mpi.collectives.explaining.trace import trace
from lepton_mpi.collectives.explaining.trace_picture import svg
from lepton_mpi.collectives.schedules.algorithms import COLLECTIVES
from lepton_mpi.collectives.schedules.schedule import Algorithm, Collective
from lepton_mpi.collectives.schedules.two_level import halves, two_level
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.command_line import Parser
from lepton_mpi.wording import did_you_mean

_PROGRAM = "lepton_mpi explain"
# Up to so many ranks all of them are shown, and drawn; more do not fit on a page.
_RANKS_SHOWN, _CHUNKS_SHOWN = 16, 26
# Up to so many ranks a schedule is run on symbols; the ring takes 1 s then.
_RANKS_TRACED = 64


def explain_command(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command; returns the exit code. Only the launcher's rank 0 prints."""
    try:
        text = explain(sys.argv[1:] if arguments is None else arguments)
    except ConfigurationError as error:
        launch.complain(f"{_PROGRAM}: {error}")
        return error.exit_code
    if launch.launched_rank() == 0:
        print(text)
    return 0


def explain(arguments: Sequence[str]) -> str:
    """The text for these command-line words. Raises ConfigurationError; ``--help`` ends the process."""
    options = _parse(arguments)
    ranks, collective = options.ranks, Collective(options.collective)
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
    if ranks <= _RANKS_TRACED:
        traced = trace(algorithm, ranks)
        parts += trace_text.all_steps(traced) if shows_all else []
        parts.append(trace_text.end(traced))
    parts.append(trace_text.costs(algorithm, ranks, options.count))
    return "\n\n".join(parts)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog=f"python -m {_PROGRAM}",
        description="Show what a collective does step by step and what it costs; without ALGORITHM, compare all.",
        allow_abbrev=False,
    )
    parser.add_argument("algorithm", nargs="?", metavar="ALGORITHM", help=_names_help())
    parser.add_argument("--ranks", metavar="P", default=None, help="number of ranks (default: 4)")
    parser.add_argument(
        "--collective", default="allreduce", help=", ".join(c.value for c in Collective)
    )
    parser.add_argument(
        "--hosts", metavar="N,N,…", default=None, help="ranks on each host, for two_level"
    )
    parser.add_argument(
        "--count", metavar="N", default=None, help="length of the vector; prints elements and bytes"
    )
    parser.add_argument("--svg", metavar="FILE", default=None, help="draw it")
    options = parser.parse(list(arguments), "one algorithm")
    collectives = [collective.value for collective in Collective]
    if options.collective not in collectives:
        raise ConfigurationError(_expected_one_of("--collective", collectives, options.collective))
    options.hosts = _hosts(options.hosts)
    ranks = sum(options.hosts) if options.hosts else 4
    options.ranks = (
        _whole_number("--ranks", options.ranks, 1) if options.ranks is not None else ranks
    )
    if options.count is not None:
        options.count = _whole_number("--count", options.count, 0)
    if options.hosts and options.ranks != sum(options.hosts):
        raise ConfigurationError(
            f"--hosts: expected numbers that add up to {options.ranks}, got {options.hosts}"
        )
    return options


def _names_help() -> str:
    return "; ".join(
        f"{collective.value}: {', '.join(names)}" for collective, names in COLLECTIVES.items()
    )


def _hosts(text: str | None) -> list[int] | None:
    if text is None:
        return None
    return [_whole_number("--hosts", number, 1) for number in text.split(",")]


def _whole_number(flag: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ConfigurationError(
            f"{flag}: expected a whole number of at least {least}, got {text!r}"
        )
    return int(text)


def _named(name: str, collective: Collective) -> Algorithm:
    known = COLLECTIVES[collective]
    if name.replace("-", "_") not in known:
        raise ConfigurationError(
            _expected_one_of(f"{collective.value} algorithm", list(known), name)
        )
    return known[name.replace("-", "_")]


def _on_hosts(algorithm: Algorithm, options: argparse.Namespace) -> Algorithm:
    """``algorithm`` itself, or if it is about hosts, that for the hosts asked for."""
    if algorithm.name == "two_level":
        return two_level(options.hosts or halves(options.ranks))
    if options.hosts and options.algorithm is not None:
        raise ConfigurationError(f"--hosts: expected the algorithm two_level, got {algorithm.name}")
    return algorithm


def _expected_one_of(what: str, known: Sequence[str], got: str) -> str:
    return f"{what}: expected one of {', '.join(known)}, got {got!r}{_did_you_mean(got, known)}"


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    return did_you_mean(word if word.startswith("-") else word.replace("-", "_"), known)


def _draw(path: Path, algorithm: Algorithm, ranks: int) -> None:
    if ranks > _RANKS_SHOWN:
        raise ConfigurationError(f"--svg: expected --ranks of at most {_RANKS_SHOWN}, got {ranks}")
    if launch.launched_rank() > 0:
        return
    try:
        path.write_text(svg(trace(algorithm, ranks)), "utf-8")
    except OSError as error:
        raise ConfigurationError(f"--svg: cannot write {path}: {error.strerror}") from None
