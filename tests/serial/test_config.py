"""The command line: precedence, every default in --help, and one line for everything that is wrong."""

import dataclasses
import random
import re
import string

import pytest

from lepton_mpi import launch
from lepton_mpi.options.config import Config
from lepton_mpi.options.parser import RECIPES
from tests.serial.command_line import parse, refusal

NAMES = [field.name for field in dataclasses.fields(Config)]
FLAGS = ["--" + name.replace("_", "-") for name in NAMES]


# -- where values come from --------------------------------------------------------------------------


def test_the_recipe_comes_first_then_the_file_then_the_command_line(toml):
    """Each source replaces what the ones before it say, and leaves the rest."""
    path = toml("epochs = 5\nglobal_batch = 16\n")
    assert parse().global_batch == 64 and parse().learning_rate == 0.003
    config = parse("--recipe", "breast_cancer", "--config", path, "--global-batch", "8")
    assert (config.model, config.epochs, config.global_batch) == ("logistic", 5, 8)
    assert config.momentum == Config().momentum


def test_a_file_may_name_the_recipe(toml):
    """``recipe`` in a TOML file is taken unless the command line names one."""
    path = toml('recipe = "breast_cancer"\nepochs = 7\n')
    assert (parse("--config", path).model, parse("--config", path).epochs) == ("logistic", 7)
    config = parse("--config", path, "--recipe", "digits")
    assert (config.recipe, config.model, config.epochs) == ("digits", "mlp", 7)


def test_the_recipe_that_is_named_is_the_recipe_that_is_used(toml):
    """Of two recipes the later one gives all values, and its name is the one that is reported."""
    config = parse("--recipe", "digits", "--recipe", "breast_cancer")
    assert (config.recipe, config.model) == ("breast_cancer", "logistic")
    config = parse("--recipe", "breast_cancer", "--recipe", "digits")
    assert (config.recipe, config.model) == ("digits", "mlp")


def test_a_recipe_may_be_a_file_of_ones_own(toml):
    """``--recipe FILE`` takes a TOML file, whose values are checked like all others."""
    assert parse("--recipe", toml("epochs = 4\n")).epochs == 4


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_that_come_with_the_package_are_good(path):
    """Each has only known keys of the right types."""
    assert parse("--recipe", path.stem).recipe == path.stem


def test_the_mnist_recipe_is_the_classic_network():
    """784-128-10 with Adam at 1e-3, batches of 64, a fifth for validation, 10 epochs."""
    config = parse("--recipe", "mnist")
    assert (config.hidden, config.optimizer, config.learning_rate) == ((128,), "adam", 1e-3)
    assert (config.global_batch, config.validation_split, config.epochs) == (64, 0.2, 10)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--hidden"], "hidden", ()),
        (["--hidden", "64", "32", "--epochs", "3"], "hidden", (64, 32)),
        (["--hidden=64"], "hidden", (64,)),
        (["--learning-rate", "5"], "learning_rate", 5.0),
        (["--learning-rate=.5"], "learning_rate", 0.5),
        (["--epochs", "3", "--epochs", "4"], "epochs", 4),
        (["--data", "5"], "data", ("5",)),
        (["--data", "null"], "data", ("null",)),
        (["--data", "{a: 1}"], "data", ("{a: 1}",)),
        (["--metrics", "1e3"], "metrics", "1e3"),
        (["--metrics", "with space.jsonl"], "metrics", "with space.jsonl"),
        (["--checkpoint", "2024-01-01"], "checkpoint", "2024-01-01"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_values_are_what_was_typed(words, name, value):
    """Lists, numbers in any notation, and texts that look like something else."""
    assert getattr(parse(*words), name) == value
    assert type(getattr(parse(*words), name)) is type(value)


# -- help --------------------------------------------------------------------------------------------


def test_help_shows_every_option_and_every_default(capsys):
    """``--help`` ends with 0 and lists each option with the value it has without being named."""
    with pytest.raises(SystemExit) as ended:
        parse("--help")
    printed = capsys.readouterr()
    assert ended.value.code == 0 and printed.err == ""
    options = printed.out[printed.out.index("\noptions:") :]
    described = {
        text.split()[0]: " ".join(text.split()) for text in re.split(r"\n  (?=-)", options)
    }
    used = dataclasses.asdict(parse())
    for name, flag in zip(NAMES, FLAGS, strict=True):
        value = (
            list(used[name])
            if isinstance(used[name], tuple)
            else "null"
            if used[name] is None
            else used[name]
        )
        assert f"default: {value})" in described[flag]


def test_every_option_in_the_help_works(capsys):
    """Whatever --help lists can be used, be it an option of Config or not."""
    with pytest.raises(SystemExit):
        parse("--help")
    listed = {
        word.split("[")[0].strip("[],") for word in capsys.readouterr().out.split() if "--" in word
    }
    listed = {word.split("=")[0] for word in listed if word.startswith("--")}
    assert listed == {*FLAGS, "--help", "--config"}


@pytest.mark.parametrize(
    "words", [["--help"], ["--epoch", "3"], ["--epochs", "x"], ["--config", "none.toml"]], ids=str
)
def test_only_one_rank_speaks(capsys, monkeypatch, words):
    """Other ranks end with the same code and print nothing."""
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setattr(launch, "_COMPLAINT_SECONDS", 0.0)
    with pytest.raises(SystemExit) as ended:
        parse(*words)
    printed = capsys.readouterr()
    assert ended.value.code == (0 if words == ["--help"] else 2)
    assert printed.out == printed.err == ""


# -- unknown names -----------------------------------------------------------------------------------


def _typo(word: str, generator: random.Random) -> str:
    """One letter dropped, doubled, replaced or swapped with the next."""
    place = generator.randrange(len(word))
    kind = generator.randrange(4)
    if kind == 0:
        return word[:place] + word[place + 1 :]
    if kind == 1:
        return word[:place] + word[place] + word[place:]
    if kind == 2:
        return word[:place] + generator.choice(string.ascii_lowercase) + word[place + 1 :]
    place = min(place, len(word) - 2)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _typos(count: int) -> list[tuple[str, str]]:
    """Pairs (what was meant, what was typed)."""
    generator, pairs = random.Random(0), []
    while len(pairs) < count:
        meant = generator.choice(FLAGS)
        typed = "--" + _typo(meant.removeprefix("--"), generator)
        if typed not in FLAGS:
            pairs.append((meant, typed))
    return pairs


def test_misspelt_options_are_recognised(capsys):
    """Of 50 options with one wrong letter, 48 or more are answered with the one that was meant."""
    right = 0
    for meant, typed in _typos(50):
        line = refusal(capsys, typed, "1")
        assert line.startswith(f"unknown option {typed}")
        right += f", did you mean {meant}?" in line
    assert right >= 48


def test_misspelt_keys_are_recognised(capsys, toml):
    """Of 50 keys with one wrong letter in a TOML file, 48 or more are answered with the one that was meant."""
    right = 0
    for meant, typed in _typos(50):
        meant, typed = (word.removeprefix("--").replace("-", "_") for word in (meant, typed))
        line = refusal(capsys, "--config", toml(f"{typed} = 1\n"))
        assert f"options.toml: unknown key {typed!r}" in line
        right += f", did you mean {meant}?" in line
    assert right >= 48


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--learning_rate", "1"],
            "unknown option --learning_rate, did you mean --learning-rate? (see --help)",
        ),
        (["-epochs", "3"], "unknown option -epochs, did you mean --epochs? (see --help)"),
        (["--epoch=3"], "unknown option --epoch, did you mean --epochs? (see --help)"),
        (["--zzz"], "unknown option --zzz (see --help)"),
        (
            ["--recipe", "brest_cancer"],
            "--recipe: expected one of breast_cancer, digits, mnist or a TOML file, got 'brest_cancer', "
            "did you mean breast_cancer?",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_unknown_names_in_other_forms(capsys, words, line):
    """Underscores, a single dash, a value after ``=``, nothing like it, and a recipe."""
    assert refusal(capsys, *words) == line


def test_options_cannot_be_abbreviated(capsys):
    """A shortened option would change its meaning with the next version."""
    assert "unknown option --learn, did you mean --learning-rate?" in refusal(
        capsys, "--learn", "1"
    )


@pytest.mark.parametrize("file_first", [True, False])
def test_the_command_line_wins_over_the_file_wherever_it_stands(toml, file_first):
    """Options overrule the TOML file before it and behind it; the file overrules the recipe."""
    file = ["--config", toml("epochs = 7\nglobal_batch = 11\n")]
    options = ["--epochs", "3"]
    config = parse(*file, *options) if file_first else parse(*options, *file)
    assert (config.epochs, config.global_batch) == (3, 11)
