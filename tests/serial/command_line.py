"""Command lines parsed in this process."""

import pytest

from lepton_mpi.commands.train import COMMAND
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config


def parse(*words: str) -> Config:
    """The configuration that these words give."""
    return COMMAND.read(words).config


def refusal(*words: str) -> str:
    """The one line with which a command line is refused."""
    with pytest.raises(ConfigurationError) as raised:
        COMMAND.read(words)
    line = str(raised.value)
    assert line.isprintable(), line
    return line
