"""What is missing is named by the libraries' own names, which pip finds wherever the package came from."""

import configparser
import re
from pathlib import Path

import pytest

import lepton_mpi
from lepton_mpi.extras import LIBRARIES, pip_install

_PACKAGE = Path(lepton_mpi.__file__).parent
# For those who work on the package: no message of it asks for them.
_OF_DEVELOPERS = {"test", "torch-tests", "benchmarks", "plot", "dev"}


def _declared() -> dict[str, list[str]]:
    read = configparser.ConfigParser()
    read.read(_PACKAGE.parent / "setup.cfg", "utf-8")
    return {
        name: [line for line in value.splitlines() if line and not line.startswith("#")]
        for name, value in read["options.extras_require"].items()
    }


def test_the_libraries_are_those_of_the_extras():
    """All of them, with the versions that setup.cfg asks for."""
    declared = _declared()
    assert declared.keys() - LIBRARIES.keys() == _OF_DEVELOPERS
    assert {name: tuple(declared[name]) for name in LIBRARIES} == LIBRARIES


@pytest.mark.parametrize("extra", LIBRARIES)
def test_the_command_names_libraries(extra):
    """Each quoted for a shell, which would take ``>=`` for a file to write."""
    command = pip_install(extra)
    assert command.startswith("pip install '") and "lepton_mpi" not in command
    assert re.findall(r"'([^']+)'", command) == list(LIBRARIES[extra])


def test_no_message_asks_an_index_for_this_package():
    """It need not be there; a clone has it already."""
    asking = re.compile(r"pip install\W+lepton_mpi")
    assert [path for path in _PACKAGE.rglob("*.py") if asking.search(path.read_text("utf-8"))] == []
