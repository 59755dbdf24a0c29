"""Wrong values: one line that names the option, what it takes and what came."""

import dataclasses

import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from tests.serial.command_line import refusal

_WHOLE = "expected a whole number of at least 1"
_POSITIVE = "expected a number above 0"
_FRACTION = "expected a number from 0 up to, not including, 1"


@pytest.mark.parametrize(
    ("words", "expected", "got"),
    [
        (["--epochs", "x"], _WHOLE, "'x'"),
        (["--epochs", "1.5"], _WHOLE, "'1.5'"),
        (["--epochs", "0"], _WHOLE, "0"),
        (["--epochs", "-1"], _WHOLE, "-1"),
        (["--epochs="], _WHOLE, "''"),
        (["--epochs"], _WHOLE, "none"),
        (["--global-batch", "0"], _WHOLE, "0"),
        (["--hidden", "64,32"], "expected whole numbers of at least 1", "'64,32'"),
        (["--hidden", "64", "foo"], "expected whole numbers of at least 1", "foo"),
        (["--hidden", "0"], "expected whole numbers of at least 1", "0"),
        (["--learning-rate", "nan"], _POSITIVE, "nan"),
        (["--learning-rate", "inf"], _POSITIVE, "inf"),
        (["--learning-rate", "0"], _POSITIVE, "0.0"),
        (["--learning-rate", "-1e-3"], _POSITIVE, "-1e-3"),
        (["--learning-rate", "fast"], _POSITIVE, "'fast'"),
        (["--momentum", "1"], _FRACTION, "1.0"),
        (["--validation-split", "1"], _FRACTION, "1.0"),
        (["--test-split", "-0.1"], _FRACTION, "-0.1"),
        (["--seed", "-1"], "expected a", "-1"),
        (["--threads", "two"], "expected a", "'two'"),
        (["--timeout", "0"], _POSITIVE, "0.0"),
        (["--optimizer", "Adam"], "expected one of adam, adamw, sgd", "'Adam'"),
        (["--dtype", "float16"], "expected one of float32, float64", "'float16'"),
        (["--progress", "no"], "expected one of auto, bar, plain, none", "'no'"),
        (["--activation", "elu"], "expected one of relu, gelu, tanh, sigmoid, silu", "'elu'"),
        (["--dropout", "1"], _FRACTION, "1.0"),
        (["--dropout", "-0.1"], _FRACTION, "-0.1"),
        (["--loss", "l1"], "expected one of auto, cross_entropy, mse, huber", "'l1'"),
        (["--huber-delta", "0"], _POSITIVE, "0.0"),
        (["--augment", "rotate"], "expected flip, crop=PIXELS or noise=DEVIATION", "'rotate'"),
        (["--augment", "flip", "flip"], "expected each word once", "flip twice"),
        (["--augment", "crop=0"], "expected crop=PIXELS, a whole number of at least 1", "'crop=0'"),
        (["--checkpoint-steps", "-1"], "expected a number of at least 0", "-1"),
        (["--checkpoint-steps", "5"], "expected a folder for checkpoints, --checkpoint", "none"),
        (["--shuffle-buffer", "0"], _WHOLE, "0"),
        (["--data"], "expected names of files, one at least", "()"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_values_on_the_command_line(capsys, words, expected, got):
    """One line names the option, what it takes and what came."""
    line = refusal(capsys, *words)
    flag = words[0].split("=")[0]
    assert line.startswith(f"{flag}: {expected}")
    assert got in line.split(", got ", 1)[1]


@pytest.mark.parametrize("option", ["--config", "--recipe"])
@pytest.mark.parametrize(
    ("text", "expected", "got"),
    [
        ('epochs = "five"', f"--epochs: {_WHOLE}", "five"),
        ("epochs = 2.5", f"--epochs: {_WHOLE}", "2.5"),
        ("epochs = true", f"--epochs: {_WHOLE}", "True"),
        ("epochs = -3", f"--epochs: {_WHOLE}", "-3"),
        ("global_batch = {size = 3}", f"--global-batch: {_WHOLE}", "size"),
        ("hidden = 64", "--hidden: expected whole numbers of at least 1", "64"),
        ('hidden = ["a"]', "--hidden: expected whole numbers of at least 1", "a"),
        ("data = 5", "--data: expected names of files, one at least in a list", "5"),
        ("metrics = 5", "--metrics: expected a text", "5"),
        ('optimizer = "adamax"', "--optimizer: expected one of adam, adamw, sgd", "'adamax'"),
        ("learning_rate = nan", f"--learning-rate: {_POSITIVE}", "nan"),
    ],
)
def test_wrong_values_in_a_file(capsys, toml, option, text, expected, got):
    """The same from a TOML file, whether it is given as configuration or as recipe."""
    line = refusal(capsys, option, toml(text + "\n"))
    assert expected in line
    assert got in line.split(", got ", 1)[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs = \n", ["cannot read", "line 1"]),
        ("epochs = 5\nepochs = 6\n", ["cannot read", "line 2"]),
        ("[train]\nepochs = 3\n", ["unknown key 'train'"]),
        ("learning-rate = 1\n", ["unknown key 'learning-rate'", "did you mean learning_rate?"]),
    ],
    ids=["no value", "twice", "section", "hyphen"],
)
@pytest.mark.parametrize("option", ["--config", "--recipe"])
def test_files_that_are_no_good_toml(capsys, toml, option, text, words):
    """One line names the option, the file, and the line or key."""
    path = toml(text)
    line = refusal(capsys, option, path)
    assert line.startswith(f"{option}: ")
    for word in (path, *words):
        assert word in line


def test_files_that_cannot_be_read(capsys, tmp_path):
    """A missing file, a folder, and bytes that are no text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, reason in (
        ("none.toml", "No such file"),
        ("", "Is a directory"),
        ("binary", "utf-8"),
    ):
        line = refusal(capsys, "--config", str(tmp_path / name))
        assert line.startswith(f"--config: cannot read {tmp_path / name}: ") and reason in line


# -- Config itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"epochs": "3"},
        {"epochs": 2.5},
        {"epochs": True},
        {"global_batch": None},
        {"hidden": 128},
        {"hidden": (1.5,)},
        {"hidden": ("a",)},
        {"learning_rate": "fast"},
        {"seed": 1.5},
        {"data": None},
        {"optimizer": ["adam"]},
        {"timeout": float("nan")},
    ],
    ids=str,
)
def test_values_from_a_program_are_checked_like_those_of_the_command_line(options):
    """``Config`` refuses a wrong type or value with a ConfigurationError that names the option."""
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"--{name.replace('_', '-')}: expected .*, got "):
        Config(**options)


def test_a_configuration_cannot_be_changed():
    """It is the same from the first step to the last."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().epochs = 3
