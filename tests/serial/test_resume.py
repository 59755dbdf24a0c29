"""Where a run goes on: which file, which epoch and row; and that no file, whoever wrote it, ends in more than a line."""

import dataclasses
import json
import math
import threading

import h5py
import numpy as np
import pytest

from lepton_mpi.data.files import probe
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options import sources
from lepton_mpi.options.by_rule import EARLIER
from lepton_mpi.options.config import OPTIONS, Config
from lepton_mpi.run import checkpoint, checkpoint_folder, resume, resumed_options, row_order
from lepton_mpi.run.arithmetic import BY_NUMBER
from lepton_mpi.vectors import Layout
from tests.serial.thread_ranks import on_ranks

_ORDER = {"shuffle": "full", "rows": 100}


@pytest.fixture(autouse=True)
def _unprobed(monkeypatch):
    """All files are this module's own; a look at each would take 0.1 s."""
    monkeypatch.setattr(probe, "check", lambda path: None)


def _save(folder, config=None, step=12, epoch=2, row=64, without=(), **attributes):
    """A checkpoint of a run in batches of 32 rows, of which 100 are an epoch, with some attributes changed."""
    config = config or Config(global_batch=32)
    found = resume.attributes(config, epoch, row, step, (1.5, 60.0), _ORDER)
    found |= {"seed": 0, "model": "any", **attributes}
    for name in without:
        del found[name]
    layout, vector = Layout({"w": (2,)}), np.ones(2, np.float32)
    saved = checkpoint.Checkpoint(layout, vector, {}, (vector, vector), found)
    return checkpoint_folder.save(folder, saved)


def _find(place, **options) -> resume.Start:
    # What the rule would settle is given, unless a test leaves it out by None.
    config = Config(**{**EARLIER} | {"global_batch": 32, "resume": str(place)} | options)
    (start,) = on_ranks(1, lambda world: resume.find(config, world))
    return start


def _refused(place, kind=DataError, **options) -> str:
    with pytest.raises(kind) as caught:
        _find(place, **options)
    text = str(caught.value)
    assert caught.value.agreed
    assert text.isprintable() and len(text) < 1000, text
    return text


# -- where -------------------------------------------------------------------------------------------


def test_in_the_middle_of_an_epoch(tmp_path):
    path = _save(tmp_path)
    start = _find(tmp_path)
    assert (start.epoch, start.row, start.step, start.path) == (2, 64, 12, path)
    assert (start.loss, start.correct, start.order) == (1.5, 60.0, _ORDER)


@pytest.mark.parametrize("without", [(), ("row", "order", "loss_sum", "correct_sum")])
def test_at_the_end_of_an_epoch(tmp_path, without):
    """The next epoch is begun; so it is after a checkpoint of the version that knew no other place."""
    _save(tmp_path, row=100, without=without)
    start = _find(tmp_path)
    assert (start.epoch, start.row, start.step, start.loss, start.correct) == (3, 0, 12, 0, 0)
    assert start.order == ({} if without else _ORDER)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_epochs_that_nobody_has_chosen_are_those_of_the_checkpoint(tmp_path, schedule):
    """Not those of the rule, which may be another by now; nor is it a mistake to have given all other options."""
    _save(tmp_path, Config(global_batch=32, epochs=77, schedule=schedule))
    start = _find(tmp_path, schedule=schedule, epochs=None)
    assert start.config and start.config.epochs == 77
    assert "takes from it what is not given: --epochs 77" in start.notes


def test_a_model_that_counts_nothing_has_no_sum(tmp_path):
    _save(tmp_path, correct_sum=math.nan)
    assert math.isnan(_find(tmp_path).correct)


def test_nothing_there(tmp_path):
    """A folder that is empty, or not there yet, is that of a first run; a file that is not there is a mistake."""
    for place in (tmp_path, tmp_path / "not yet"):
        start = _find(place)
        assert (start.epoch, start.row, start.step, start.path) == (1, 0, 0, None)
        assert str(place) in start.notes[0]
    assert "none.h5: no such checkpoint" in _refused(tmp_path / "none.h5")


def test_a_place_that_cannot_be_looked_at(tmp_path):
    """No traceback where the system does not even answer whether it is there."""
    assert "not readable" in _refused(tmp_path / ("long" * 100))


def test_what_is_no_checkpoint_is_skipped_in_a_folder_only(tmp_path):
    """Damage, other files, a folder of such a name: the newest that is whole is taken, and the rest is named."""
    good = _save(tmp_path, step=3)
    (tmp_path / "step-00000004.h5").write_text("text")
    (tmp_path / "step-00000005.h5").mkdir()
    (tmp_path / "step-00000006.tmp").write_text("half of one")
    damaged = tmp_path / "step-00000007.h5"
    damaged.write_bytes(good.read_bytes()[:-1])
    start = _find(tmp_path)
    assert start.path == good
    assert [note.split()[0] for note in start.notes] == ["skipped"] * 3 + ["goes"]
    for name in ("step-00000004.h5", "step-00000007.h5"):
        assert name in _refused(tmp_path / name)
    good.unlink()
    assert "expected a checkpoint that is whole, got none" in _refused(tmp_path)


# -- hosts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_it", [True, False])
def test_hosts_that_do_not_see_the_same_files(tmp_path, monkeypatch, has_it):
    """Rank 2 is the first of a second host, which may lack the file: all ranks say so, and none waits."""
    path, verify, asked = _save(tmp_path), checkpoint.verify, []
    on_host = threading.local()

    def verify_on_host(wanted):
        asked.append(on_host.rank)
        verify(wanted if on_host.rank < 2 or has_it else tmp_path / "elsewhere" / wanted.name)

    def find(world):
        world.local_rank = on_host.rank = world.rank % 2
        on_host.rank = world.rank
        return resume.find(Config(global_batch=32, resume=str(tmp_path)), world)

    monkeypatch.setattr(checkpoint, "verify", verify_on_host)
    if has_it:
        assert {start.path for start in on_ranks(4, find)} == {path}
    else:
        with pytest.raises(DataError, match=r"no such checkpoint.*host of rank 2.*all hosts"):
            on_ranks(4, find)
    assert sorted(asked) == [0, 2]


# -- options -----------------------------------------------------------------------------------------

# Another value of every option but those that need none.
_OTHER = {
    **{"augment": ("noise=0.1",), "model": "logistic", "hidden": (7,), "activation": "tanh"},
    **{
        "dropout": 0.5,
        "class_weights": "balanced",
        "loss": "huber",
        "huber_delta": 2.0,
        "dtype": "float64",
    },
    **{"global_batch": 64, "micro_batch": 2, "optimizer": "lion", "learning_rate": 0.5},
    **{"momentum": 0.5, "weight_decay": 0.1, "clip_value": 1.0, "clip_norm": 1.0},
    **{"schedule": "step", "warmup_epochs": 1, "schedule_epochs": 3, "schedule_factor": 0.5},
    **{"base_batch": 64, "validation_split": 0.1, "test_split": 0.1, "seed": 1},
    **{"strategy": "own.py:Own", "context": 16, "stride": 4, "activations": "bfloat16"},
    **{"freeze": ("layer0/*",), "compress": "int8", "compress_after": 9},
}
_FREE = {
    **{"recipe": "breast_cancer", "data": ("elsewhere.h5",), "loader": "mapped", "shuffle": "full"},
    **{"shuffle_buffer": 1, "initial": "any.h5", "epochs": 2, "allreduce": "ring", "threads": 2},
    **{
        "bucket_bytes": 1,
        "segment_bytes": 1,
        "checkpoint": "runs",
        "checkpoint_steps": 9,
        "save_every": 60.0,
        "async_save": True,
        "elastic": True,
        "find_learning_rate": False,
        "find_steps": 30,
        "find_out": None,
        "keep": 5,
    },
    **{
        "report_memory": True,
        "metrics": "m",
        "metrics_append": True,
        "csv": "c",
        "tensorboard": "t",
        "trace": "t.json",
        "trace_steps": 7,
        "progress": "none",
        "timeout": 9.0,
        "peer_timeout": 9.0,
        "resume": None,
    },
    "hook": ("own.py:Own",),
    "initial_strict": False,
    "task": "own.py:Own",
    "check_model": True,
    "recompute": 1,
    "balance": "auto",
    "keep_best": "loss",
    "restore_best": True,
    "early_stop": "3",
    "stop_before": 60.0,
    "time_limit": 3600.0,
    "prepare": "--label y",
    "x": "features",
    "y": "labels",
    "on_nan": "skip",
    "io_retry": 9.0,
    "check_every": 10,
    "on_drift": "repair",
}


def test_every_option_either_decides_or_is_free():
    """An option that is new has to be put into one of the two lists, here and in ``resumed_options.py``."""
    assert _OTHER.keys() | _FREE.keys() == OPTIONS.keys()
    assert not _OTHER.keys() & _FREE.keys()


def test_options_that_decide_must_be_the_same(tmp_path):
    """Each is named, with what it was and what came; the folder's older files are not tried instead."""
    _save(tmp_path, step=3)
    path = _save(tmp_path, step=4)
    coded = {"compress": "int8"}  # without which there is no warm-up of it
    other = _save(tmp_path / "coded", Config(global_batch=32, **coded))
    for name, value in _OTHER.items():
        also, place = (coded, other) if name == "compress_after" else ({}, tmp_path)
        text = _refused(place, ConfigurationError, **{name: value}, **also)
        assert text.startswith(f"--{name.replace('_', '-')}: expected "), text
        assert str(other if also else path) in text and f"got {value}" in text


def test_what_nobody_has_given_is_that_of_the_checkpoint(tmp_path):
    """Defaults that have become others change no run; so do those of a recipe that was taken unasked before."""
    before = Config(
        recipe="digits",
        data=("a.h5",),
        global_batch=32,
        learning_rate=0.003,
        epochs=7,
        seed=5,
        hidden=(9,),
    )
    path = _save(tmp_path, before)
    for words in ([], ["--data", "a.h5"], ["--global-batch", "32", "--seed", "5"]):
        chosen = sources.from_command_line(["--resume", str(tmp_path), *words])
        (start,) = on_ranks(1, lambda world, c=chosen: resume.find(c.config, world, c.given))
        assert start.path == path
        asked = {"resume": str(tmp_path), "metrics": None}
        assert start.config == dataclasses.replace(before, **asked)
        assert "--epochs 7" in start.notes[1]
        # Of a recipe that nothing but the absence of data has chosen it is the same number.
        assert ("--learning-rate 0.003" in start.notes[1]) == ("--data" in words)
    chosen = sources.from_command_line(["--resume", str(tmp_path), "--learning-rate", "0.001"])
    with pytest.raises(ConfigurationError, match=r"--learning-rate: expected 0\.003 as in"):
        on_ranks(1, lambda world: resume.find(chosen.config, world, chosen.given))


@pytest.mark.parametrize("name", ["model", "strategy"])
def test_a_checkpoint_s_program_is_not_run(tmp_path, name):
    """Unless the user names it, too."""
    _save(tmp_path, Config(global_batch=32, **{name: "evil.py:Net"}))
    words = ["--resume", str(tmp_path), "--data", "digits", "--global-batch", "32"]
    chosen = sources.from_command_line(words)
    with pytest.raises(
        ConfigurationError, match=f"--{name}: expected evil.py:Net as in .*got none"
    ):
        on_ranks(1, lambda world: resume.find(chosen.config, world, chosen.given))
    chosen = sources.from_command_line([*words, f"--{name}", "evil.py:Net"])
    (start,) = on_ranks(1, lambda world: resume.find(chosen.config, world, chosen.given))
    assert start.step == 12


def test_other_options_may_change(tmp_path):
    _save(tmp_path)
    free = {name: value for name, value in _FREE.items() if name not in ("resume", "elastic")}
    assert _find(tmp_path, **free).step == 12
    assert _find(tmp_path, elastic=True).step == 12  # which does not go with some of them


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        ({"allreduce": "two_level", "bucket_bytes": 1}, 0),
        ({"allreduce": "ring"}, 1),
        ({"threads": 2}, 1),
        ({"threads": 2, "allreduce": "mpi"}, 2),
    ],
)
def test_what_rounds_otherwise_is_said(tmp_path, options, notes):
    """The end is then not that of one run, bit for bit."""
    _save(tmp_path)
    (_, *found) = _find(tmp_path, **options).notes
    assert len(found) == notes
    assert all("rounds otherwise" in note for note in found)


def test_epochs_may_change_but_along_a_cosine(tmp_path):
    """There, other epochs are other learning rates from the first step on, and the end is nobody's."""
    for schedule, kind in (("constant", None), ("step", None), ("cosine", ConfigurationError)):
        _save(tmp_path, Config(global_batch=32, epochs=5, schedule=schedule))
        assert _find(tmp_path, epochs=5, schedule=schedule).step == 12
        if kind is None:
            assert _find(tmp_path, epochs=9, schedule=schedule).step == 12
        else:
            text = _refused(tmp_path, kind, epochs=9, schedule=schedule)
            assert text.startswith("--epochs: expected 5")


@pytest.mark.parametrize(
    ("options", "order", "named"),
    [
        ({}, _ORDER, []),
        ({"schedule": "step"}, _ORDER, ["--schedule step"]),
        ({"weight_decay": 0.5}, _ORDER, []),
        ({"model": "logistic", "weight_decay": 0.5}, _ORDER, ["--weight-decay 0.5"]),
        ({"schedule": "cosine"}, {"shuffle": "blocks", "rows": 100}, ["--schedule cosine", "--shuffle blocks"]),
    ],
)  # fmt: skip
def test_a_run_keeps_the_rules_with_which_it_began(tmp_path, options, order, named):
    """Those of the first version where no number is written; what a new run would do otherwise is said."""
    for number, written in ((1, {}), (1, {"arithmetic": 1}), (2, {"arithmetic": 2})):
        path = _save(
            tmp_path, Config(global_batch=32, **options), order=json.dumps(order), **written
        )
        start = _find(path, **options)
        assert start.arithmetic == number
        notes = [note for note in start.notes if "keeps the rules" in note]
        assert len(notes) == (number == 1 and bool(named))
        assert all(option in note for note in notes for option in named)


@pytest.mark.parametrize("number", [0, 3, -1, 1.0, True, "1", [1]])
def test_rules_that_are_not_known_are_refused(tmp_path, number):
    _save(tmp_path, arithmetic=number)
    assert "attribute arithmetic: expected 1 or 2, got" in _refused(tmp_path / "step-00000012.h5")


def test_a_new_run_follows_the_newest_rules(tmp_path):
    """So does one that begins with the parameters of an older run."""
    old = _save(tmp_path)
    (start,) = on_ranks(1, lambda world: resume.find(Config(initial=str(old)), world))
    assert start.arithmetic == resume.Start().arithmetic == max(BY_NUMBER) == 2


# -- strangers' files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [
        *({"row": row} for row in (-32, 33, 128, 2**62, 64.0, "64", [64], True)),
        *({"loss_sum": loss} for loss in (math.nan, math.inf, "1", 1, [1.0])),
        *({"correct_sum": correct} for correct in (math.inf, -math.inf, "1", [1.0])),
        *({"order": text} for text in ("", "{", "[]", "7", "null", "{}", "[" * 50_000)),
        *({"order": value} for value in (7, 1.5, [1, 2], b"\xff")),
        *(
            {"order": json.dumps(_ORDER | {"rows": rows})}
            for rows in (-1, 0, "100", True, 1e9, None)
        ),
        *({"order": json.dumps(_ORDER | {"shuffle": shuffle})} for shuffle in (None, 1, ["full"])),
        *({"step": step} for step in (-1, 1.5, "12")),
        *({"epoch": epoch} for epoch in (-1, 1.5, "2")),
        *({"configuration": text} for text in ("", "{}", "7", "[" * 50_000)),
    ],
    ids=lambda attributes: str(attributes)[:40],
)
def test_hostile_attributes(tmp_path, attributes):
    """One line that names the file; in a folder it is like damage."""
    name, step = next(iter(attributes)), attributes.get("step", 12)
    path = _save(tmp_path, **attributes) if name != "step" else _with_step(tmp_path, step)
    text = _refused(path)
    assert str(path) in text and name in text
    assert "expected a checkpoint that is whole" in _refused(tmp_path)


def _with_step(folder, step):
    """``save`` names a file by its step, so that another is put into it afterwards."""
    path = _save(folder)
    with h5py.File(path, "r+") as file:
        file.attrs["step"] = step
    content = bytearray(path.read_bytes())
    head = checkpoint._head(path)
    content[: len(head)] = head
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("missing", ["order", "loss_sum", "correct_sum"])
def test_a_place_without_all_that_belongs_to_it(tmp_path, missing):
    assert missing in _refused(_save(tmp_path, without=(missing,)))


def test_an_order_that_is_another(tmp_path):
    """Only what differs is named, on one line whatever stands in the file."""
    _save(tmp_path, order=json.dumps(_ORDER | {"blocks": "a\nb" * 3, "\x1b": 1}))
    with pytest.raises(DataError) as caught:
        row_order.check_order(_find(tmp_path), _ORDER, None)
    assert str(caught.value).isprintable()
    assert "rows" not in str(caught.value).split(";")[0].partition("changed")[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_nan": "rollback"}, "expected --on-nan stop, got rollback"),
        ({"compress": "int8"}, "expected --compress none, got int8"),
        ({"balance": "auto"}, "expected --balance none, got auto"),
        ({"find_learning_rate": True}, "--find-learning-rate goes without it"),
    ],
)
def test_what_does_not_go_with_elastic(options, said):
    """It is refused with the other options, before ranks begin."""
    with pytest.raises(ConfigurationError, match=f"--elastic: .*{said}"):
        Config(elastic=True, **options)


def test_elastic_does_not_go_with_what_a_checkpoint_brings(tmp_path):
    """An option that nobody has given is that of the file, and is checked like one that is given."""
    now, before = Config(elastic=True), Config(on_nan="rollback")
    with pytest.raises(ConfigurationError, match="--elastic: expected --on-nan stop, got rollback"):
        resumed_options.choose(now, frozenset({"elastic"}), before, tmp_path / "step-00000001.h5")
