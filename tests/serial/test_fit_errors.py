"""``fit`` in a program of one's own: what is wrong can be caught, and ends a program that does not."""

import subprocess
import sys

import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.errors import ConfigurationError, DataError, LeptonError, RankError, ending


@pytest.mark.parametrize(
    ("arrays", "options"),
    [((), {"epochs": 0}), ((np.ones((4, 2)), [0, 1, 0, 1]), {"data": "a.h5"})],
    ids=["file", "arrays"],
)
def test_wrong_options_are_a_line_and_an_exception(arrays, options, capfd):
    """Of the class that the documentation names, with the exit code of the command line; alone with ``raises``."""
    with pytest.raises(ConfigurationError) as caught:
        lepton_mpi.fit(*arrays, **options)
    assert isinstance(caught.value, SystemExit) and caught.value.code == 2
    assert capfd.readouterr().err == f"lepton_mpi: {caught.value}\n"
    with pytest.raises(ConfigurationError) as caught:
        lepton_mpi.fit(*arrays, **options, raises=True)
    assert not isinstance(caught.value, SystemExit) and capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [ConfigurationError, DataError, RankError])
def test_an_error_that_ends_a_program_keeps_class_text_and_code(kind):
    found = ending(kind("what came").on_all_ranks())
    assert isinstance(found, kind) and found.agreed and str(found) == "what came"
    assert found.code == kind.exit_code and type(found).__name__ == kind.__name__


_PROGRAM = """
import lepton_mpi
from lepton_mpi.errors import LeptonError
try:
    lepton_mpi.fit(data="none.h5", progress="none")
except LeptonError as error:
    print("caught", type(error).__name__, error.exit_code)
try:
    lepton_mpi.fit(recipe="digits", epochs=2, learning_rate=1e4, progress="none")
except Exception as error:
    print("caught", str(error)[:21])
lepton_mpi.fit(data="none.h5")
"""


def test_a_program_goes_on_after_it_or_ends_without_a_traceback():
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert ended.stdout.splitlines() == ["caught DataError 3", "caught the training loss is "]
    assert ended.returncode == 3 and "Traceback" not in ended.stderr
    lines = ended.stderr.splitlines()
    assert lines[0] == lines[-1] and lines[0].startswith("lepton_mpi: ")
    assert issubclass(DataError, LeptonError)
