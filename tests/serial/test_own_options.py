"""Options that one model alone has: one class beside it, one line in ``own.OWN``; typed, listed, checked and stored."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from lepton_mpi.commands.train import COMMAND
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import names, own, sources
from lepton_mpi.options.config import OPTIONS, Config, make_config
from lepton_mpi.options.option import WHOLE_FROM_1, Checked, option
from lepton_mpi.run import resumed_options
from tests.serial.command_line import parse, refusal


@dataclass(frozen=True, kw_only=True)
class GptOptions(Checked):
    """As a model's file has them."""

    layers: int = option(4, "blocks of attention and mlp", WHOLE_FROM_1)
    width: int = option(128, "of the residual stream", WHOLE_FROM_1)
    heads: int = option(4, "of attention", WHOLE_FROM_1)
    positions: Literal["learned", "rotary"] = option("learned", "how places are told apart")

    def check_together(self) -> None:
        if self.width % self.heads:
            raise ConfigurationError(
                f"--heads: expected a divisor of {self.width}, got {self.heads}"
            )


@dataclass(frozen=True, kw_only=True)
class TcnOptions(Checked):
    """Another model, with an option of the same name and another default."""

    layers: int = option(8, "dilated convolutions", WHOLE_FROM_1)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    here = "tests.serial.test_own_options"
    models = {"gpt": f"{here}:GptOptions", "tcn": f"{here}:TcnOptions"}
    monkeypatch.setitem(own.OWN, "model", models)
    for name in models:
        monkeypatch.setitem(names.MODELS, name, "")


def test_they_are_typed_like_any_other(toml):
    """On the command line, in a file and a recipe, and by a program; the model has a checked object."""
    chosen = GptOptions(layers=6, positions="rotary")
    text = 'model = "gpt"\npositions = "rotary"\n'
    program = {"model": "gpt", "layers": 6, "positions": "rotary"}
    for config in (
        parse("--model", "gpt", "--layers", "6", "--positions=rotary"),
        parse("--layers", "6", "--config", toml(text)),
        parse("--config", toml(f"{text}layers = 6\n")),
        parse("--recipe", toml(f"{text}layers = 6\n")),
        sources.from_program(program).config,
    ):
        assert config.own["model"] == chosen
    assert sources.from_program(program).given == program.keys()
    assert parse("--model", "gpt").own["model"] == GptOptions()
    assert "model" not in parse().own and Config(model="tcn").own["model"] == TcnOptions()


def test_another_model_takes_its_options_with_it(toml):
    """Those of a file are for the file's model; an option of the same name does not go over."""
    path = toml('model = "gpt"\nlayers = 6\nwidth = 256\n')
    assert parse("--config", path, "--model", "tcn").own["model"] == TcnOptions()
    assert "model" not in parse("--config", path, "--model", "mlp").own
    assert parse("--config", path, "--width", "64").own["model"] == GptOptions(layers=6, width=64)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model", "gpt", "--layers", "0"], "--layers: expected a whole number of at least 1, got '0'"),
        (["--model", "gpt", "--heads", "3"], "--heads: expected a divisor of 128, got 3"),
        (["--model", "gpt", "--layer", "3"], "unknown option --layer, did you mean --layers? (see --help)"),
        (["--width", "3"], "--width: expected --model gpt, whose option it is, got --model mlp"),
        (["--model", "tcn", "--width=3"], "--width: expected --model gpt, whose option it is, got --model tcn"),
        (["--model", "gpt", "--hidden", "3"], "--hidden: expected --model mlp or wide_and_deep, whose option it is, got --model gpt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_they_are_refused_like_any_other(words, line):
    assert refusal(*words) == line


def test_a_file_and_a_program_are_refused_likewise(toml):
    path = toml("width = 3\n")
    line = "--width: expected --model gpt, whose option it is, got --model mlp"
    assert refusal("--config", path) == f"--config: {path}: {line}"
    with pytest.raises(ConfigurationError, match="--width: expected --model gpt"):
        sources.from_program({"width": 3})


def test_help_lists_them():
    """``--help gpt``, and nothing of them by ``--help``."""
    text = COMMAND.help("gpt")
    assert "--layers N" in text and "(default: 128)" in text and "--epochs" not in text
    assert "--width" not in COMMAND.help()


def test_a_checkpoint_holds_them_all():
    """Whatever the defaults become, a run that goes on has what it began with."""
    config = parse("--model", "gpt", "--layers", "6")
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    assert stored["own"]["model"]["width"] == 128
    assert make_config(stored) == config


@pytest.mark.parametrize(
    "stored",
    [7, "text", {"model": 3}, {"model": {"depth": 3}}, {"model": {"layers": 0}}, {"data": {}}, []],
    ids=str,
)
def test_a_hostile_checkpoint_is_refused(stored):
    """Each in one line."""
    with pytest.raises(ConfigurationError) as raised:
        make_config({"model": "gpt", "own": stored})
    assert str(raised.value).isprintable()


def test_a_run_that_goes_on_keeps_them():
    """What is given must be the same, what is not is taken."""
    before = parse("--model", "gpt", "--layers", "6")
    now = sources.from_command_line(["--model", "gpt", "--width", "256"])
    with pytest.raises(ConfigurationError, match=r"--layers, --width: expected .*runs"):
        resumed_options.choose(now.config, now.given, before, Path("runs"))
    for words in (["--model", "gpt"], ["--layers", "6", "--model", "gpt"], ["--seed", "0"]):
        now = sources.from_command_line(words)
        config, _ = resumed_options.choose(now.config, now.given, before, Path("runs"))
        assert config.own == before.own


def test_no_name_means_two_things():
    """An own option is none of ``Config``, and two choices that go together share no name."""
    for chooser, choices in own.OWN.items():
        for choice in choices:
            names = own.own_options({chooser: choice}).keys()
            assert not names & OPTIONS.keys()
            for other in own.OWN.keys() - {chooser}:
                for name in own.OWN[other]:
                    assert not names & own.own_options({other: name}).keys()
