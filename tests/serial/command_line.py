"""Command lines parsed in this process, and TOML files for them."""

import pytest

from lepton_mpi.options.config import Config
from lepton_mpi.options.parser import parse_command_line


def parse(*words: str) -> Config:
    """The configuration that these words give."""
    return parse_command_line(words, "lepton_mpi.train")


def refusal(capsys, *words: str) -> str:
    """The one line with which a command line is refused, without its beginning, the program."""
    with pytest.raises(SystemExit) as ended:
        parse(*words)
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.out == ""
    assert printed.err.startswith("lepton_mpi.train: ") and printed.err.count("\n") == 1
    return printed.err.removeprefix("lepton_mpi.train: ").removesuffix("\n")
