"""The page of ``report``: what is read of metrics files, what of it is shown, and that no text of a user becomes a part of the page."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from lepton_mpi.__main__ import main
from lepton_mpi.commands import explain_model
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.errors import DataError
from lepton_mpi.reporting import metrics, page, tested
from lepton_mpi.reporting.classes import classes
from lepton_mpi.reporting.configurations import configurations, versions
from lepton_mpi.reporting.curves import ranking
from lepton_mpi.reporting.ranks import time_and_memory
from lepton_mpi.reporting.results import heading, results
from lepton_mpi.run import evaluation
from lepton_mpi.run.trained import load_trained
from lepton_mpi.tasks.registry import make_task
from lepton_mpi.world.alone import Alone
from lepton_mpi.world.heartbeats import PHASES
from tests.serial.made_checkpoints import save_random

_HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{a}$ & ' </svg>")


def _start(**more) -> dict:
    about = {"world_size": 2, "hosts": 1, "mpi": "Open MPI 5", "data": "d.h5", "model": "mlp 4-3-2"}
    configuration = {"data": ["d.h5"], "epochs": 3, "learning_rate": 0.1, "resume": None}
    return {"event": "start", **about, "configuration": configuration | more}


def _epoch(number: int, **more) -> dict:
    figures = {"loss": 1.0 / number, "accuracy": 0.5, "val_loss": 2.0 / number, "val_accuracy": 0.4}
    times = {"seconds": 0.1, "samples_per_second": 1000.0, "learning_rate": 0.1}
    return {"event": "epoch", "epoch": number, **figures, **times, **more}


def _rank(number: int, **seconds) -> dict:
    all_seconds = dict.fromkeys(PHASES, 0.1) | seconds
    return {"rank": number, "host": f"node{number}", "seconds": all_seconds, "memory_peak": 1 << 28}


def _end(names=("cat", "dog"), ranks=2, **more) -> dict:
    count = len(names)
    per_class = [{"name": name, "precision": 0.9, "recall": 0.8, "f1": 0.85} for name in names]
    figures = {"test_loss": 0.3, "test_accuracy": 0.8125, "test_classes": per_class}
    figures |= {"test_confusion": (np.eye(count, dtype=int) * 7 + 1).tolist()}
    about = {"seconds": 1.5, "samples_per_second": 900.0, "time_split": {"compute": 0.6}}
    accounts = [_rank(rank) for rank in range(ranks)]
    return {"event": "end", **about, **figures, "ranks": accounts, "slow_rank": None} | more


def _write(path: Path, *records: dict) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _whole(path: Path, **more) -> Path:
    return _write(path, _start(), _epoch(1), _epoch(2), _epoch(3), _end(**more))


class _Page(HTMLParser):
    """Tags with their attributes, and all text outside of the style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.words, self._inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _page(*paths: Path) -> _Page:
    runs = [run for path in paths for run in metrics.read(path)]
    return _Page(page.html_of(runs, ["no rows"] * len(runs)))


# -- reading -------------------------------------------------------------------------------------


def test_parts_of_a_resumed_run_are_joined(tmp_path):
    """Epochs behind the checkpoint that was resumed count as they were trained last."""
    parts = [_start(), _epoch(1), _epoch(2), _epoch(3, loss=9.0)]
    more = [_start(resume="runs"), _epoch(3, loss=0.3), _epoch(4), _end()]
    (run,) = metrics.read(_write(tmp_path / "m.jsonl", *parts, *more))
    assert [epoch["epoch"] for epoch in run.epochs] == [1, 2, 3, 4]
    assert run.curve("loss")[2] == (3.0, 0.3)
    assert run.end and run.notes == [
        "2 parts, one resumed from the other, are joined; times and memory are of the last"
    ]


def test_a_run_that_begins_anew_is_another(tmp_path):
    """As ``--metrics-append`` without ``--resume`` writes it."""
    path = _write(tmp_path / "m.jsonl", _start(), _epoch(1), _end(), _start(), _epoch(1), _end())
    runs = metrics.read(path)
    assert [run.name for run in runs] == ["m.jsonl #1", "m.jsonl #2"]


@pytest.mark.parametrize("left", [0.1, 0.5, 0.95])
def test_a_file_that_is_cut_is_read_as_far_as_it_goes(tmp_path, left):
    """With a note, also where a run that goes on has written behind the cut line."""
    path = _whole(tmp_path / "m.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    cut = lines[3][: int(left * len(lines[3]))]
    path.write_text("".join(lines[:3]) + cut)
    (run,) = metrics.read(path)
    assert len(run.epochs) == 2 and not run.end
    assert "line 4 is cut" in run.notes[0]
    page_of_it = _page(path)
    assert "line 4 is cut" in page_of_it.text and "no line end" in page_of_it.text
    with path.open("a") as file:
        file.write("".join(json.dumps(r) + "\n" for r in (_start(resume="r"), _epoch(3), _end())))
    (run,) = metrics.read(path)
    assert len(run.epochs) == 3 and run.end and run.parts == 2


def test_a_file_of_an_earlier_version_makes_a_page(tmp_path):
    """Without ranks, confusion, versions, names of data and model, best epoch."""
    end, start = _end(), _start()
    for key in ("ranks", "slow_rank", "test_confusion"):
        del end[key]
    for key in ("data", "model"):
        del start[key]
    made = _page(_write(tmp_path / "m.jsonl", start, _epoch(1), _epoch(2), end))
    assert "earlier version" in made.text and "mean of all ranks" in made.text
    assert "0.8125" in made.text


@pytest.mark.parametrize(
    "text", ["", "\n\n", "no JSON\n", '{"a": 1}\n', "[1]\n", "\x00\xff", '{"event": "else"}\n']
)
def test_other_files_are_refused(tmp_path, text):
    """In one line that says what was expected."""
    path = tmp_path / "m.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"m\.jsonl: expected a file that train --metrics"):
        metrics.read(path)
    with pytest.raises(DataError, match="cannot be read"):
        metrics.read(tmp_path / "none.jsonl")


_VALUES = [None, "text", -1, 1e400, [1], {"a": 1}, True, [[None]], 10**400, [{"rank": 0}], ["x"]]


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("value", _VALUES, ids=repr)
def test_values_of_any_type_make_a_page(tmp_path, value):
    """Whoever wrote the file may have written anything in the place of anything."""
    records = [_start(), _epoch(1), _epoch(2), _end(hidden_share=0.5, sent_bytes_per_step=1e6)]
    for place, record in enumerate(records):
        for key in list(record)[1:]:
            changed = [dict(each) for each in records]
            changed[place][key] = value
            runs = metrics.read(_write(tmp_path / "m.jsonl", *changed))
            for part in (heading, results, classes, time_and_memory, configurations, versions):
                part(runs)
    everywhere = [{k: v if k == "event" else value for k, v in r.items()} for r in records]
    _page(_write(tmp_path / "all.jsonl", *everywhere))
    figures = [{k: value if "loss" in k else v for k, v in r.items()} for r in records]
    _page(_write(tmp_path / "figures.jsonl", *figures))


# -- the page ------------------------------------------------------------------------------------


def test_the_page_says_what_the_file_says(tmp_path):
    """The result, the best epoch, per class, times, memory, versions, options."""
    slow = {"rank": 1, "host": "node1", "phase": "input", "seconds": 3.5, "median_seconds": 0.1}
    path = _whole(tmp_path / "m.jsonl", slow_rank=slow, hidden_share=0.75)
    text = _page(path).text
    assert "d.h5: mlp 4-3-2" in text
    assert "3 epochs on 2 ranks; test rows: accuracy 0.8125, loss 0.3000" in text
    assert "best epoch 1 by val_accuracy" in text
    assert (
        "The others waited for rank 1, input: 3.5 s, the others 0.1 s (median); host node1." in text
    )
    assert "rank 1, node1 – slowest" in text
    assert "75% of the exchange between hosts was hidden" in text
    assert "256 MiB to 256 MiB" in text
    assert "16 of 18 right" in text


def test_runs_stand_side_by_side(tmp_path):
    """Their results, and the options in which they differ, marked."""
    first = _whole(tmp_path / "a.jsonl")
    second = _write(tmp_path / "b.jsonl", _start(learning_rate=0.7), _epoch(1), _end())
    made = _page(first, second)
    assert "Options in which the runs differ: a.jsonl b.jsonl learning_rate 0.1 0.7" in made.text
    marked = [tag for tag in made.tags if tag[1].get("class") == "differs"]
    assert len(marked) == 1


@pytest.mark.parametrize("ranks", [1, 32, 33, 1000])
def test_many_ranks_have_bars_for_some(tmp_path, ranks):
    """The slowest and the fastest of them."""
    end = _end(ranks=ranks)
    end["ranks"][-1] = _rank(ranks - 1, compute=50.0)
    made = _page(_write(tmp_path / "m.jsonl", _start(), _epoch(1), end))
    bars = [attrs for tag, attrs in made.tags if attrs.get("class") == "rank"]
    assert len(bars) == (ranks if ranks <= 32 else 28)
    assert f"rank {ranks - 1}, node{ranks - 1}" in made.text


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("count", [2, 30, 31, 100, 101])
def test_confusion_of_any_size(tmp_path, count):
    """With counts in cells, or drawn with the largest errors listed; a matrix that there is not is not invented."""
    names = tuple(f"class {number}" for number in range(count))
    more = {} if count <= 100 else {"test_confusion": None}
    made = _page(_write(tmp_path / "m.jsonl", _start(), _epoch(1), _end(names, **more)))
    tables = [attrs for tag, attrs in made.tags if attrs.get("class") == "confusion"]
    assert len(tables) == (count <= 30)
    assert ("shares of true classes" in made.text) == (30 < count <= 100)
    assert f"class {count - 1}" in made.text


@pytest.mark.parametrize("text", _HOSTILE)
def test_texts_of_the_user_stay_texts(tmp_path, text):
    """Names of classes, files, hosts, options, figures and versions: no tag and no attribute comes of them."""
    path = tmp_path / re.sub("/", "_", f"{text}.jsonl")
    start = _start(**{text: text, "data": [text], "metrics": text})
    start |= {"data": text, "model": text, "mpi": text, "versions": {text: text}}
    end = _end((text, "dog"), **{f"test_{text}": 1.0, "checkpoint": text, "best_score": text})
    end["ranks"][0]["host"] = text
    end |= {"best_epoch": 1, "slow_rank": {"rank": 0, "phase": text, "host": text}}
    made = _page(_write(path, start, _epoch(1, **{text: 1.0, f"val_{text}": 2.0}), end))
    plain = _page(_whole(tmp_path / "plain.jsonl"))
    assert {tag for tag, _ in made.tags} <= {tag for tag, _ in plain.tags} | {"p"}
    assert " ".join(text.split()) in made.text
    names = {name for _, attrs in made.tags for name in attrs}
    assert not [name for name in names if name.startswith("on")]


def test_the_page_asks_for_nothing(tmp_path):
    """No script, no address, and a policy that allows none."""
    made = _page(_whole(tmp_path / "m.jsonl"))
    assert "script" not in {tag for tag, _ in made.tags}
    policies = [a["content"] for t, a in made.tags if a.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    for _, attrs in made.tags:
        for name in ("src", "href", "xlink:href"):
            assert attrs.get(name, "#").startswith(("#", "data:")), attrs
    ids = [attrs["id"] for _, attrs in made.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


# -- single rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_curves_are_those_of_scikit_learn(ties):
    """Area, average precision and the curve itself."""
    random = np.random.default_rng(3)
    scores = random.random(200).round(1 if ties else 9)
    is_positive = random.random(200) < 0.3 + 0.4 * scores
    found = ranking(scores, is_positive)
    assert found.auc == pytest.approx(roc_auc_score(is_positive, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(is_positive, scores))
    precision, recall, _ = precision_recall_curve(is_positive, scores)
    np.testing.assert_allclose(found.recall, recall[::-1])
    np.testing.assert_allclose(found.precision, precision[::-1])


@pytest.mark.parametrize("kinds", [[], [True], [False, False]])
def test_no_curve_of_one_kind_of_rows(kinds):
    """Nothing is ranked."""
    assert ranking(np.linspace(0, 1, len(kinds)), np.array(kinds, bool)) is None


def _evaluated(checkpoint: Path) -> dict:
    found = load_trained(checkpoint, None, Alone())
    reader = BatchReader(found.data, evaluation.batch_rows(found.data))
    task = make_task(found.data.y_kind, found.data)
    rows = found.data.splits["test"]
    return evaluation.evaluate(found.model, found.parameters, rows, task, reader, Alone())


def test_losses_of_classes_are_those_of_evaluation(tmp_path):
    """Their mean, the share that is right, and the worst first; images are seen."""
    checkpoint = save_random(tmp_path, "digits", hidden=(8,))
    found, figures = tested.look(checkpoint, None, None), _evaluated(checkpoint)
    assert found.losses.mean() == pytest.approx(figures["loss"], rel=1e-5)
    assert (found.predicted == found.y).mean() == pytest.approx(figures["accuracy"])
    losses = [found.losses[row.place] for row in found.worst]
    assert losses == sorted(losses, reverse=True) and losses[0] == found.losses.max()
    assert found.worst[0].picture.shape == (8, 8)
    raw = load_trained(checkpoint, None, Alone()).data.splits["test"]
    number = raw.indices[found.worst[0].number]
    stored = raw.x[number].reshape(8, 8)
    np.testing.assert_allclose(found.worst[0].picture, stored, atol=1e-4)


def test_residuals_of_targets_are_those_of_evaluation(tmp_path, monkeypatch):
    """In the units of the file; of many rows some, evenly spread."""
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        for split, count in (("train", 60), ("test", 40)):
            file[f"{split}/x"] = random.standard_normal((count, 3)).astype(np.float32)
            file[f"{split}/y"] = (1000 + 50 * random.standard_normal((count, 2))).astype(np.float32)
    checkpoint = save_random(tmp_path, tmp_path / "d.h5", hidden=(4,))
    found, figures = tested.look(checkpoint, None, None), _evaluated(checkpoint)
    assert ((found.predicted - found.y) ** 2).mean() == pytest.approx(figures["mse"], rel=1e-5)
    monkeypatch.setattr(tested, "ROWS_MAX", 7)
    some = tested.look(checkpoint, None, None)
    np.testing.assert_array_equal(some.y, found.y[np.linspace(0, 39, 7).astype(int)])
    for row in some.worst:
        np.testing.assert_array_equal(found.y[row.number], some.y[row.place])


def _report(*words: object) -> int:
    return main(["report", *map(str, words)])


def test_the_command_writes_the_page(tmp_path, capsys):
    """With test rows by the checkpoint that the file names, beside the file."""
    checkpoint = save_random(tmp_path, "digits", hidden=(8,))
    path = _whole(tmp_path / "m.jsonl", checkpoint=checkpoint.name)
    out = tmp_path / "page.html"
    assert _report(path, "--out", out) == 0
    assert "wrote" in capsys.readouterr().out
    made = _Page(out.read_text())
    assert "All of 359 test rows" in made.text and "ROC" in made.text
    assert len([tag for tag, attrs in made.tags if attrs.get("class") == "worst"]) == 12
    assert _report(path, "--out", out, "--rows", "false") == 0  # writes over its own
    assert "as --rows false asks for" in _Page(out.read_text()).text


def test_the_command_says_what_helps(tmp_path, capsys):
    """A checkpoint that is gone or damaged leaves a line on the page; a file that is no page is not written over."""
    path, out = _whole(tmp_path / "m.jsonl", checkpoint="gone/step.h5"), tmp_path / "page.html"
    assert _report(path, "--out", out) == 0
    assert "--checkpoint PATH" in _Page(out.read_text()).text
    assert "--checkpoint PATH" in capsys.readouterr().out
    (tmp_path / "bad.h5").write_text("nothing")
    assert _report(path, "--out", out, "--checkpoint", tmp_path / "bad.h5") == 0
    assert "Not looked at: " in _Page(out.read_text()).text
    assert _report(path, "--out", path) == 2
    assert "one that report has written" in capsys.readouterr().err
    assert _report(path, "--out", out, "--checkpoint", "a", "b") == 2
    assert _report(tmp_path / "none.jsonl", "--out", out) == 3


def test_a_wrong_path_is_named_before_a_missing_library(tmp_path, capsys, monkeypatch):
    """Without matplotlib, too: only a file that is there needs it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "page.html"
    assert _report(tmp_path / "none.jsonl", "--out", out) == 3
    assert "none.jsonl: cannot be read: No such file" in capsys.readouterr().err
    assert _report(_whole(tmp_path / "m.jsonl"), "--out", out) == 2
    assert "expected matplotlib, got none" in capsys.readouterr().err
    chosen = explain_model.Options(checkpoint=str(tmp_path / "none.h5"), out=str(out))
    with pytest.raises(DataError, match=r"none\.h5"):
        explain_model.explain(chosen, Alone())
