"""Wrong values: one line that names the option, what it takes and what came."""

import dataclasses

import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from tests.serial.command_line import parse, refusal

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
        (["--learning-rate", "0"], _POSITIVE, "'0'"),
        (["--learning-rate", "-1e-3"], _POSITIVE, "-1e-3"),
        (["--learning-rate", "fast"], _POSITIVE, "'fast'"),
        (["--momentum", "1"], _FRACTION, "'1'"),
        (["--validation-split", "1"], _FRACTION, "'1'"),
        (["--test-split", "-0.1"], _FRACTION, "-0.1"),
        (["--seed", "-1"], "expected a", "-1"),
        (["--threads", "two"], "expected a", "'two'"),
        (["--timeout", "0"], _POSITIVE, "'0'"),
        (["--time-limit", f"{'9' * 400}:00:00"], "expected a time with its unit", "inf"),
        (["--time-limit", "0s"], "expected a time above 0", "0 s"),
        (["--optimizer", "Adam"], "expected adam, adamw, sgd", "'Adam'"),
        (["--dtype", "float16"], "expected one of float32, float64", "'float16'"),
        (["--progress", "no"], "expected one of auto, bar, plain, none", "'no'"),
        (["--activation", "elu"], "expected one of relu, gelu, tanh, sigmoid, silu", "'elu'"),
        (["--dropout", "1"], _FRACTION, "'1'"),
        (["--dropout", "-0.1"], _FRACTION, "-0.1"),
        (["--loss", "l1"], "expected one of auto, cross_entropy, mse, huber", "'l1'"),
        (["--huber-delta", "0"], _POSITIVE, "'0'"),
        (["--augment", "rotate"], "expected flip, crop=PIXELS or noise=DEVIATION", "'rotate'"),
        (["--augment", "flip", "flip"], "expected each word once", "flip twice"),
        (["--augment", "crop=0"], "expected crop=PIXELS, a whole number of at least 1", "'crop=0'"),
        (["--checkpoint-steps", "-1"], "expected a whole number of at least 0", "-1"),
        (["--checkpoint-steps", "5"], "expected a folder for checkpoints, --checkpoint", "none"),
        (["--compress-after", "9"], "expected a codec, such as --compress sign", "none"),
        (["--compress-after", "-1"], "expected a whole number of at least 0", "-1"),
        (["--shuffle-buffer", "0"], _WHOLE, "0"),
        (["--shuffle-buffer", "64Q"], _WHOLE, "'64Q'"),
        (["--checkpoint", ""], "expected a path", "''"),
        (["--checkpoint", "--resume", "runs"], "expected a path", "none"),
        (["--report-memory=yes"], "expected true or false", "'yes'"),
        (["--hidden", "64", "--model", "logistic"], "expected --model mlp", "logistic"),
        (["--momentum", "0.5"], "expected --optimizer sgd or momentum or nesterov", "adam"),
        (["--data"], "expected names of files, one at least", "none"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_wrong_values_on_the_command_line(words, expected, got):
    """One line names the option, what it takes and what came."""
    line = refusal(*words)
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
        ("data = 5", "--data: expected names of files, one at least", "5"),
        ('data = ["a.h5", 5]', "--data: expected names of files, one at least", "5"),
        ("report_memory = 1", "--report-memory: expected true or false", "1"),
        ('augment = "rotate"', "--augment: expected flip, crop=PIXELS", "rotate"),
        ("metrics = 5", "--metrics: expected a path", "5"),
        ('optimizer = "adamax"', "--optimizer: expected adam, adamw, sgd", "'adamax'"),
        ("learning_rate = nan", f"--learning-rate: {_POSITIVE}", "nan"),
    ],
)
def test_wrong_values_in_a_file(toml, option, text, expected, got):
    """The same from a TOML file, whether it is given as configuration or as recipe."""
    path = toml(text + "\n")
    line = refusal(option, path)
    assert line.startswith(f"{option}: {path}: ") or "augment" in text
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
def test_files_that_are_no_good_toml(toml, option, text, words):
    """One line names the option, the file, and the line or key."""
    path = toml(text)
    line = refusal(option, path)
    assert line.startswith(f"{option}: ")
    for word in (path, *words):
        assert word in line


def test_files_that_cannot_be_read(tmp_path):
    """A missing file, a folder, and bytes that are no text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, reason in (
        ("none.toml", "No such file"),
        ("", "Is a directory"),
        ("binary", "utf-8"),
    ):
        line = refusal("--config", str(tmp_path / name))
        assert line.startswith(f"--config: cannot read {tmp_path / name}: ") and reason in line


def test_an_option_of_another_model_in_a_file(toml):
    """It is named with the file; one of a recipe whose model was exchanged goes with it."""
    path = toml('model = "logistic"\nhidden = [64]\n')
    line = refusal("--config", path)
    assert line.startswith(
        f"--config: {path}: --hidden: expected --model mlp or wide_and_deep, whose"
    )
    assert parse("--recipe", "digits", "--model", "logistic").model == "logistic"


@pytest.mark.parametrize(
    "word", ["a\nb", "\x1b[2J", "\x00", "é\u202e", "--\n", "--\x1b=1", "x" * 300]
)
@pytest.mark.parametrize(
    "words", [["--epochs"], ["--data", "a", "--optimizer"], [], ["--recipe"], ["--config"]]
)
def test_whatever_is_typed_ends_in_one_line(words, word):
    """Line breaks and what moves a terminal's cursor are shown, not done."""
    refusal(*words, word)


# -- paths -------------------------------------------------------------------------------------------

_PATHS = (
    "data",
    "recipe",
    "model",
    "strategy",
    "hook",
    "initial",
    "checkpoint",
    "resume",
    "metrics",
)


def test_the_home_folder_is_expanded_wherever_a_path_comes_from(toml, tmp_path, monkeypatch):
    """``~`` on the command line behind ``=``, in a file, and in a program."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.toml").write_text("epochs = 4\n")
    for name in _PATHS:
        file = "own.py:Own" if name in ("model", "strategy", "task", "optimizer") else "own.toml"
        path, expected = f"~/{file}", str(tmp_path / file)
        flag = f"--{name}"
        configs = [parse(f"{flag}={path}"), parse(flag, path), Config(**{name: path})]
        if name != "recipe":
            configs.append(parse("--config", toml(f'{name} = "{path}"\n')))
        for config in configs:
            assert getattr(config, name) in (expected, (expected,)), name
    assert parse("--config=~/own.toml").epochs == 4
    assert parse("--recipe=~/own.toml").epochs == 4


@pytest.mark.parametrize("path", ["~nobody-such/x", "~nobody-such"])
def test_a_home_that_is_not_there_is_one_line(toml, path):
    """The same on every Python, for every option that is a path."""
    for name in _PATHS:
        for line in (
            refusal(f"--{name}", path),
            refusal("--config", toml(f'{name} = "{path}"\n')),
        ):
            assert (
                f"{path}: no home folder of ~nobody-such; a file of that name is ./~nobody-such"
                in line
            )
    assert refusal("--config", path).startswith("--config: ~nobody-such")
    with pytest.raises(ConfigurationError, match=r"--data: ~nobody-such.*: no home folder"):
        Config(data=path)


def test_a_program_may_give_paths_as_objects(tmp_path):
    """Of pathlib, alone and in lists."""
    config = Config(data=tmp_path / "a.h5", checkpoint=tmp_path)
    assert (config.data, config.checkpoint) == ((str(tmp_path / "a.h5"),), str(tmp_path))
    assert Config(data=[tmp_path, "b.h5"]).data == (str(tmp_path), "b.h5")


def test_a_path_with_a_zero_byte_is_one_line(toml):
    """Only a file or a program can have one."""
    assert "zero byte" in refusal("--config", toml('checkpoint = "a\\u0000b"\n'))
    assert "zero byte" in refusal("--config", "a\0b")


# -- Config itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"epochs": "3"},
        {"epochs": 2.5},
        {"epochs": True},
        {"seed": None},
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
