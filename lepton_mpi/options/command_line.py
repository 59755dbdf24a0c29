"""Command lines whose mistakes are one line, and whose help is printed once per job. Imports no NumPy, no MPI."""

import argparse
import math
import re

from lepton_mpi import launch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.wording import did_you_mean


def above_0(text: str) -> float:
    """A number; raises what ``argparse`` shows to the user."""
    value = _number(float, text)
    if value is None or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def at_least_0(text: str) -> int:
    """A whole number; raises what ``argparse`` shows to the user."""
    value = _number(int, text)
    if value is None or value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return value


def _number(kind: type, text: str) -> float | None:
    try:
        return kind(text)
    except ValueError:
        return None


class Parser(argparse.ArgumentParser):
    """Raises ConfigurationError where argparse would print a usage and end the process."""

    def error(self, message: str) -> None:
        """One line instead of usage and message."""
        raise ConfigurationError(message.removeprefix("argument "))

    def print_help(self, file=None) -> None:
        """Print once per job, not once per rank."""
        if launch.launched_rank() == 0:
            super().print_help(file)

    def parse(self, arguments: list[str], expected: str) -> argparse.Namespace:
        """``arguments``, all of them known; ``expected`` says which words go without an option.

        Raises ConfigurationError.
        """
        options, unknown = self.parse_known_intermixed_args(arguments)
        if unknown and not unknown[0].startswith("-"):
            raise ConfigurationError(f"expected {expected}, got also {unknown[0]!r}")
        if unknown:
            word = unknown[0].split("=")[0]
            known = [flag for action in self._actions for flag in action.option_strings]
            raise ConfigurationError(
                f"unknown option {word}{did_you_mean(word, known)} (see --help)"
            )
        return options


def parse_size(text: str) -> int:
    """Bytes; raises what ``argparse`` shows to the user.

    >>> [parse_size(text) for text in ("8", "4K", "64M", "1GiB")]
    [8, 4096, 67108864, 1073741824]
    """
    match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected a size such as 8, 4K or 64M, got {text!r}")
    return int(match[1]) << 10 * "_KMG".index(match[2] or "_")
