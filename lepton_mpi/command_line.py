"""Command lines whose mistakes are one line, and whose help is printed once per job. Imports no NumPy, no MPI."""

import argparse

from lepton_mpi import launch
from lepton_mpi.errors import ConfigurationError, did_you_mean


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
