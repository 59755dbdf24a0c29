"""The command line: precedence, every default in --help, and one line for everything that is wrong."""

import dataclasses
import random
import re
import string

import pytest

from lepton_mpi import launcher
from lepton_mpi.commands.train import COMMAND
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import sources
from lepton_mpi.options.config import OPTIONS, Config
from tests.serial.command_line import parse, refusal

NAMES = list(OPTIONS)
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


@pytest.mark.parametrize("name", sources.recipes())
def test_recipes_that_come_with_the_package_are_good(name):
    """By name and by ``--config`` each gives the same options, but for the name; so does a program's."""
    by_name = parse("--recipe", name)
    assert by_name.recipe == name
    by_file = parse("--config", str(sources.RECIPES / f"{name}.toml"))
    assert by_file.recipe is None
    assert dataclasses.replace(by_file, recipe=name) == by_name
    assert sources.from_program({"recipe": name}).config == by_name


LISTS = {
    **{"data": '"digits"', "augment": '"flip"', "hook": '"a.py:b"', "hidden": "[3, 4]"},
    "freeze": '"a/*"',
}


@pytest.mark.parametrize("source", ["--config", "--recipe"])
def test_every_list_may_come_from_a_file(toml, source):
    """One text may stand for a list of it; a list is one."""
    several = {name for name, option in OPTIONS.items() if option.takes_several_words}
    assert several == LISTS.keys()
    expected = {"data": ("digits",), "augment": ("flip",), "hook": ("a.py:b",), "hidden": (3, 4)}
    expected["freeze"] = ("a/*",)
    for name, text in LISTS.items():
        config = parse(source, toml(f"{name} = {text}\n"))
        assert getattr(config, name) == expected[name]
        listed = text if text[0] == "[" else f"[{text}]"
        assert getattr(parse(source, toml(f"{name} = {listed}\n")), name) == expected[name]


# -- which recipe ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "keywords"),
    [
        ([], {}),
        (["--epochs", "3"], {"epochs": 3}),
        (["--model", "logistic"], {"model": "logistic"}),
        (["--data", "digits"], {"data": "digits"}),
        (["--data", "a.h5", "b.h5"], {"data": ["a.h5", "b.h5"]}),
        (["--recipe", "mnist", "--data", "a.h5"], {"recipe": "mnist", "data": "a.h5"}),
        (["--data=a.h5", "--learning-rate=1"], {"data": "a.h5", "learning_rate": 1}),
    ],
    ids=str,
)
def test_a_program_has_the_defaults_of_the_command_line(words, keywords):
    """``fit(…)`` and the same options as words make the same run."""
    by_words, by_program = sources.from_command_line(words), sources.from_program(keywords)
    assert by_words.config == by_program.config
    recipe = {"recipe"} if "recipe" in keywords else set()
    assert keywords.keys() <= by_words.given and recipe <= by_words.given
    assert by_words.given == by_program.given


def test_a_recipe_is_taken_only_where_nothing_says_what_to_train_on(toml):
    """Without data and file it is digits; ``--data FILE`` alone has the defaults that --help shows."""
    assert (parse().recipe, parse().learning_rate) == ("digits", 0.003)
    assert parse("--epochs", "2").recipe == "digits"
    for words in (["--data", "a.h5"], ["--data=digits"], ["--config", toml("epochs = 3\n")]):
        config = parse(*words)
        assert (config.recipe, config.learning_rate) == (None, Config().learning_rate)
    config = parse("--recipe", "mnist", "--data", "a.h5")
    assert (config.recipe, config.data, config.epochs) == ("mnist", ("a.h5",), 10)


def test_a_recipe_names_no_other(toml):
    """What is meant for --config is told so, rather than half used."""
    line = refusal("--recipe", toml('recipe = "mnist"\n'))
    assert line.startswith("--recipe: ") and "give it by --config" in line


def test_what_was_given_is_known(toml):
    """Defaults, and those of a recipe that nobody named, are nobody's choice."""
    assert sources.from_command_line([]).given == set()
    chosen = sources.from_command_line(["--config", toml("epochs = 3\n"), "--seed", "1"])
    assert chosen.given == {"epochs", "seed"}
    assert "learning_rate" in sources.from_command_line(["--recipe", "digits"]).given


# -- values ------------------------------------------------------------------------------------------


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
        (["--metrics", "-1"], "metrics", "-1"),
        (["--metrics=--odd"], "metrics", "--odd"),
        (["--metrics", "a=b"], "metrics", "a=b"),
        (["--data", "-a.h5", "-", "-1"], "data", ("-a.h5", "-", "-1")),
        (["--shuffle-buffer", "64M"], "shuffle_buffer", 64 << 20),
        (["--bucket-bytes", "4096"], "bucket_bytes", 4096),
        (["--report-memory"], "report_memory", True),
        (["--report-memory", "false"], "report_memory", False),
        (["--report-memory=true", "--seed", "3"], "report_memory", True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_values_are_what_was_typed(words, name, value):
    """Lists, numbers in any notation, and texts that look like something else."""
    assert getattr(parse(*words), name) == value
    assert type(getattr(parse(*words), name)) is type(value)


# -- help --------------------------------------------------------------------------------------------


def test_help_shows_every_option_and_every_default():
    """Each option stands there with the value that it has without being named."""
    text = COMMAND.help()
    options = text[text.index("\noptions:") :]
    described = {
        text.split()[0]: " ".join(text.split()) for text in re.split(r"\n  (?=-)", options)
    }
    assert described.keys() - {"options:"} == {*FLAGS, "--config", "--help", "--version"}
    for option in OPTIONS.values():
        assert f"(default: {option.shown_default()})" in described[option.flag]
    shown = {
        name: OPTIONS[name].shown_default() for name in ("global_batch", "hidden", "shuffle_buffer")
    }
    assert shown == {"global_batch": "auto", "hidden": "auto", "shuffle_buffer": "64M"}


def test_help_of_a_choice_lists_what_it_alone_has():
    """``--help mlp``: its options and no others; what is no choice is named, with those that there are."""
    text = COMMAND.help("mlp")
    assert "--hidden" in text and "--dropout" in text and "--epochs" not in text
    assert "--momentum" in COMMAND.help("sgd")
    with pytest.raises(ConfigurationError, match=r"one of mlp, .*got 'mpl', did you mean mlp\?"):
        COMMAND.help("mpl")


@pytest.mark.parametrize(
    "words", [["--help"], ["--epoch", "3"], ["--epochs", "x"], ["--config", "none.toml"]], ids=str
)
def test_only_one_rank_speaks(capsys, monkeypatch, words):
    """Other ranks end with the same code and print nothing."""
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setattr(launcher, "_COMPLAINT_SECONDS", 0.0)
    code = COMMAND.start(words)
    printed = capsys.readouterr()
    assert code == (0 if words == ["--help"] else 2)
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


def test_misspelt_options_are_recognised():
    """Of 50 options with one wrong letter, 48 or more are answered with the one that was meant."""
    right = 0
    for meant, typed in _typos(50):
        line = refusal(typed, "1")
        assert line.startswith(f"unknown option {typed}")
        right += f", did you mean {meant}?" in line
    assert right >= 48


def test_misspelt_keys_are_recognised(toml):
    """Of 50 keys with one wrong letter in a TOML file, 48 or more are answered with the one that was meant."""
    right = 0
    for meant, typed in _typos(50):
        meant, typed = (word.removeprefix("--").replace("-", "_") for word in (meant, typed))
        line = refusal("--config", toml(f"{typed} = 1\n"))
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
            "--recipe: expected one of breast_cancer, digits, digits_resnet8, loans, mnist, text_gpt, words_cnn, words_gru or a TOML file, got 'brest_cancer', "
            "did you mean breast_cancer?",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_unknown_names_in_other_forms(words, line):
    """Underscores, a single dash, a value after ``=``, nothing like it, and a recipe."""
    assert refusal(*words) == line


def test_options_cannot_be_abbreviated():
    """A shortened option would change its meaning with the next version."""
    assert "unknown option --learn, did you mean --learning-rate?" in refusal("--learn", "1")


@pytest.mark.parametrize("file_first", [True, False])
def test_the_command_line_wins_over_the_file_wherever_it_stands(toml, file_first):
    """Options overrule the TOML file before it and behind it; the file overrules the recipe."""
    file = ["--config", toml("epochs = 7\nglobal_batch = 11\n")]
    options = ["--epochs", "3"]
    config = parse(*file, *options) if file_first else parse(*options, *file)
    assert (config.epochs, config.global_batch) == (3, 11)
