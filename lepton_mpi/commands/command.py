"""What a command is: its words, what ``--help`` and ``--version`` print, and how its mistakes end. Imports no NumPy, no MPI."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lepton_mpi import launcher
from lepton_mpi.errors import ConfigurationError, LauncherError, LeptonError
from lepton_mpi.options import parser
from lepton_mpi.options.help_text import help_text
from lepton_mpi.options.option import Checked, Option, options_of
from lepton_mpi.wording import did_you_mean, print_line

Options = TypeVar("Options")
Declared = TypeVar("Declared", bound=Checked)


@dataclass(frozen=True)
class Command(Generic[Options]):
    """One command of ``python -m lepton_mpi``, each in a file of its own.

    Attributes
    ----------
    name, summary : str
        For the list of commands.
    usage, description, epilogue : str
        For ``--help``; usage is what stands behind the command, paragraphs of the epilogue are parted by an empty line.
    options : mapping of str to Option
    read : callable
        From the command line's words to checked options. Raises ConfigurationError.
    run : callable
        Carries the command out and returns the exit code. Raises LeptonError as long as MPI is not started.
    topics : callable
        For ``--help NAME``: what has options of its own, and which.
    topic_texts : mapping of str to str
        What some of them are, for the same.
    """

    name: str
    summary: str
    usage: str
    description: str
    options: Mapping[str, Option]
    read: Callable[[Sequence[str]], Options]
    run: Callable[[Options], int]
    epilogue: str = ""
    topics: Callable[[], Mapping[str, Sequence[Option]]] = dict
    topic_texts: Mapping[str, str] = field(default_factory=dict)

    def start(self, words: Sequence[str]) -> int:
        """The whole command; returns the exit code. Every rank calls it, the launcher's rank 0 prints."""
        try:
            _check_output()
            if parser.is_named("--help", words) or parser.is_named("-h", words):
                return _print_once(self.help(parser.word_after("--help", words)))
            if parser.is_named("--version", words):
                return print_versions()
            return self.run(self.read(words))
        except LeptonError as error:
            launcher.complain(f"lepton_mpi {self.name}: {error}", *error.details)
            return error.exit_code

    def help(self, topic: str | None = None) -> str:
        """What ``--help`` prints, or ``--help`` with the name of a model or another choice that has options of its own."""
        if topic is None:
            options = self.options.values()
            return help_text(self.usage, self.description, options, self.epilogue)
        topics = self.topics()
        if topic not in topics:
            names = f"nothing or one of {', '.join(topics)}" if topics else "nothing behind it"
            hint = did_you_mean(topic, list(topics))
            raise ConfigurationError(f"--help: expected {names}, got {topic!r}{hint}")
        description = f"Options of {topic} alone; --help lists those that it shares with others."
        return help_text(self.usage, description, topics[topic], self.topic_texts.get(topic, ""))


def _check_output() -> None:
    """Raise LauncherError if standard output was closed before the start: other files would take its number."""
    if sys.stdout is None:
        raise LauncherError("standard output is closed: redirect it to a file, or to /dev/null")


def command(
    name: str,
    summary: str,
    usage: str,
    declared: type[Declared],
    run: Callable[[Declared], int],
    epilogue: str = "",
) -> Command[Declared]:
    """A command whose options come from its words alone."""
    options = options_of(declared)
    usage = f"python -m lepton_mpi {name} {usage}"

    def read(words: Sequence[str]) -> Declared:
        return declared(**parser.read(words, options))

    return Command(name, summary, usage, f"{summary}.", options, read, run, epilogue)


def print_versions() -> int:
    """What ``--version`` prints; returns the exit code."""
    from lepton_mpi.commands.versions import versions

    return _print_once(versions()) if launcher.launched_rank() == 0 else 0


def _print_once(text: str) -> int:
    if launcher.launched_rank() == 0:
        print_line(text)
    return 0
