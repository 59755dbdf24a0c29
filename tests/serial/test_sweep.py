"""Sweeps: which runs a file means, and that every run is made once, whatever ends in between.

In place of the ranks of a run stands a program that writes what train writes, quickly: what it finds follows from the learning rate.
``tests/faults/test_sweeps.py`` trains.
"""

import csv
import json
import math
import os
import random
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.__main__ import main
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import sources
from lepton_mpi.processes import look_at
from lepton_mpi.sweeping.runs import SweepRun, toml_text
from lepton_mpi.sweeping.search import Planned, read_plan
from tests import pages

_GRID = """
[options]
epochs = 5
[search]
learning_rate = [0.5, 0.1, 0.2]
hidden = [[16], [64, 32]]
"""


def _plan(tmp_path, text):
    path = tmp_path / "tune.toml"
    path.write_text(text)
    return read_plan(str(path))


# -- which runs --------------------------------------------------------------------------------------


def test_a_grid_has_every_combination_once(tmp_path):
    plan = _plan(tmp_path, _GRID)
    assert [run.options for run in plan.runs] == [
        {"epochs": 5, "learning_rate": rate, "hidden": hidden}
        for rate in (0.5, 0.1, 0.2)
        for hidden in ([16], [64, 32])
    ]
    assert len({run.name for run in plan.runs}) == 6
    assert plan.runs[1].shown() == "learning_rate 0.5  hidden 64 32"


def _random(search: str, runs: int = 200, seed: int = 0, more: str = "") -> str:
    return f'[sweep]\nmethod = "random"\nruns = {runs}\nseed = {seed}\n{more}\n[search]\n{search}\n'


def test_draws_are_those_of_the_seed_whatever_stands_beside_them(tmp_path):
    """More runs and more options change no draw; another seed changes them."""
    rate = "learning_rate = {log_uniform = [1e-4, 1e-1]}"
    first = [run.chosen for run in _plan(tmp_path, _random(rate, 5)).runs]
    assert [run.chosen for run in _plan(tmp_path, _random(rate, 9)).runs][:5] == first
    both = _plan(tmp_path, _random(f"dropout = {{uniform = [0.0, 0.5]}}\n{rate}", 5)).runs
    assert [run.chosen["learning_rate"] for run in both] == [c["learning_rate"] for c in first]
    other = [run.chosen for run in _plan(tmp_path, _random(rate, 5, seed=1)).runs]
    assert not [c for c in other if c in first]
    # These very numbers: a sweep that goes on with another version would begin anew with others.
    assert first[:2] == [{"learning_rate": 0.04852}, {"learning_rate": 0.009271}]
    for number, chosen in enumerate(first):
        chance = random.Random(f"0/{number}/learning_rate").random()
        assert math.isclose(chosen["learning_rate"], 1e-4 * 1000**chance, rel_tol=5e-4)


def test_draws_fill_their_range_evenly(tmp_path):
    """By the mean of 2000: within five standard errors of the middle, of the logarithm where that is drawn."""
    runs = _plan(
        tmp_path,
        _random(
            "learning_rate = {log_uniform = [1e-4, 1e-1]}\ndropout = {uniform = [0.2, 0.6]}\n"
            'global_batch = {uniform = [8, 11]}\noptimizer = {choice = ["adam", "sgd"]}\nschedule = ["constant", "cosine"]',
            2000,
        ),
    ).runs
    drawn = {key: [run.chosen[key] for run in runs] for key in runs[0].chosen}
    count = len(runs)
    assert count > 1990

    def mean_is(values, middle, width):
        assert abs(sum(values) / count - middle) < 5 * width / math.sqrt(12 * count)

    logs = [math.log10(rate) for rate in drawn["learning_rate"]]
    assert -4 <= min(logs) < -3.9 and -1.1 < max(logs) <= -1
    mean_is(logs, -2.5, 3.0)
    mean_is(drawn["dropout"], 0.4, 0.4)
    assert set(map(type, drawn["global_batch"])) == {int}
    for value in (8, 9, 10, 11):
        assert abs(drawn["global_batch"].count(value) / count - 0.25) < 0.05
    for key in ("optimizer", "schedule"):
        assert abs(drawn[key].count(drawn[key][0]) / count - 0.5) < 0.06


def test_whole_numbers_by_their_logarithm_keep_their_ends(tmp_path):
    runs = _plan(tmp_path, _random("epochs = {log_uniform = [1, 8]}", 300)).runs
    assert {run.chosen["epochs"] for run in runs} == set(range(1, 9))


def test_what_is_drawn_twice_is_made_once(tmp_path):
    plan = _plan(tmp_path, _random('optimizer = ["adam", "sgd"]', 50))
    assert len(plan.runs) == 2 and plan.repeated == 48


def test_seeds_make_runs_of_one_setting(tmp_path):
    plan = _plan(tmp_path, f"[sweep]\nseeds = [3, 4]\n{_GRID}")
    assert [(run.setting, run.options["seed"]) for run in plan.runs[:3]] == [(0, 3), (0, 4), (1, 3)]
    assert len(plan.runs) == 12


def test_the_page_s_file_is_one(tmp_path):
    """``test_readme.py`` parses the command beside it."""
    plan = _plan(
        tmp_path, pages.programs(pages.ROOT / "lepton_mpi/run/README.md", "toml")["tune.toml"]
    )
    assert len(plan.runs) == 20 and set(plan.runs[0].chosen) == {
        "learning_rate",
        "dropout",
        "hidden",
    }


_SEARCH = "[search]\nepochs = [1]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs = 3", "unknown table or key 'epochs': options of every run stand in [options]"),
        (f"[serach]\nx = 1\n{_SEARCH}", "unknown table or key 'serach', did you mean search?"),
        ("[options]\nepochs = 3", "[search]: expected options with the values to try, got none"),
        ("sweep = 3", "sweep: expected a table, [sweep], got 3"),
        (
            f'[sweep]\nmetod = "grid"\n{_SEARCH}',
            "[sweep]: unknown key 'metod', did you mean method?",
        ),
        (f'[sweep]\nmethod = "gird"\n{_SEARCH}', "[sweep]: method: expected one of grid, random"),
        (f'[sweep]\nmethod = "random"\n{_SEARCH}', "[sweep]: runs: expected how many settings"),
        (f"[sweep]\nruns = 3\n{_SEARCH}", '[sweep]: runs: expected method = "random"'),
        (f"[sweep]\nseeds = [1, 1]\n{_SEARCH}", "[sweep]: seeds: expected different whole numbers"),
        (f"[sweep]\nseeds = [1, 2]\n{_SEARCH}seed = [1]\n", "'seed': expected either it or seeds"),
        (
            f"[options]\nepoch = 3\n{_SEARCH}",
            "[options]: unknown key 'epoch', did you mean epochs?",
        ),
        ("[search]\nlerning_rate = [0.1]", "[search]: unknown key 'lerning_rate', did you mean"),
        (
            f'[options]\ncheckpoint = "x"\n{_SEARCH}',
            "[options]: unexpected key 'checkpoint': sweep says",
        ),
        ('[search]\nkeep_best = ["loss"]', "score in [sweep] is the figure"),
        (f"[options]\nepochs = 3\n{_SEARCH}", "'epochs' stands in [options] and in [search]"),
        ("[search]\nepochs = 3", "[search] epochs: expected a list of values, or {uniform"),
        ("[search]\nepochs = []", "[search] epochs: expected a list of values"),
        ("[search]\nepochs = {unifrom = [1, 2]}", "[search] epochs: expected a list of values, or"),
        (
            "[search]\nepochs = {uniform = [1, 2]}",
            "expected a list of values for a grid, got uniform",
        ),
        (_random("epochs = {uniform = [1]}"), "[search] epochs: expected uniform = [low, high]"),
        (
            _random("epochs = {uniform = [3, 2]}"),
            "expected a low end below the high one, got 3 and 2",
        ),
        (_random("dropout = {log_uniform = [0.0, 0.5]}"), "expected ends of log_uniform above 0"),
        (
            _random("hidden = {uniform = [8, 9]}"),
            "expected a list of values, since it is no number",
        ),
        (
            "[search]\nepochs = [1, 0]",
            "with epochs 0: options: --epochs: expected a whole number of at",
        ),
        (
            "[search]\nbeta_1 = [0.5]\n[options]\noptimizer = 'sgd'",
            "beta_1 0.5: options: --beta-1: expected",
        ),
        ("[search]\nepochs = [2026-01-01]", "with epochs 2026-01-01: options: --epochs: expected"),
        ("[search\n", "cannot read"),
    ],
)
def test_what_is_wrong_is_refused_with_its_key_before_the_first_run(tmp_path, capsys, text, said):
    (tmp_path / "tune.toml").write_text(text)
    assert main(["sweep", str(tmp_path / "tune.toml")]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert said in line and "tune.toml" in line and not out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tune.toml"]


@given(
    st.dictionaries(
        st.sampled_from(["data", "epochs", "learning_rate", "hidden", "check_model", "metrics"]),
        st.recursive(
            st.one_of(
                st.text(),
                st.integers(-(2**63), 2**63 - 1),
                st.floats(allow_nan=False),
                st.booleans(),
            ),
            lambda values: st.lists(values, max_size=3),
            max_leaves=4,
        ),
    )
)
def test_options_are_the_same_after_they_were_written(values):
    """As TOML has them, whatever is in a text."""
    text = "\n".join(f"{key} = {toml_text(value)}" for key, value in values.items())
    assert tomllib.loads(text) == values


def test_values_are_read_as_a_file_of_config_is(tmp_path):
    """Recipes too, whose values a file of ``--config`` replaces."""
    values = {"recipe": "breast_cancer", "epochs": 3}
    path = tmp_path / "a.toml"
    path.write_text('recipe = "breast_cancer"\nepochs = 3\n')
    assert sources.from_values(values) == sources.from_command_line(["--config", str(path)])
    with pytest.raises(ConfigurationError, match="options: unknown key 'epoch'"):
        sources.from_values({"epoch": 3})


# -- what is made ------------------------------------------------------------------------------------

# As train: --metrics with a start, an epoch and an end, SIGUSR1 ends it with 75, rates of 0.5 fail.
_TRAINER = """
import json, os, signal, sys, time, tomllib
from pathlib import Path

word = lambda flag: sys.argv[sys.argv.index(flag) + 1]
options = tomllib.loads(Path(word("--config")).read_text())
with open(os.environ["MADE"], "a") as made:
    made.write(f"{options['learning_rate']} {os.getpid()}\\n")
folder = Path(word("--checkpoint"))
assert word("--resume") == str(folder)
folder.mkdir(exist_ok=True)

def record(**values):
    with open(word("--metrics"), "a") as file:
        file.write(json.dumps(values) + "\\n")

def stop(number, frame):
    print("lepton_mpi: SIGUSR1: stopped", flush=True)
    sys.exit(75)

signal.signal(signal.SIGUSR1, stop)
record(event="start", configuration={"resume": word("--resume")})
if os.environ.get("WAITS") == str(options["learning_rate"]) and not (folder / "step").exists():
    (folder / "step").touch()
    Path(os.environ["MADE"] + ".waits").touch()
    time.sleep(60)
if options["learning_rate"] == 0.5:
    print("lepton_mpi: the loss became nan", file=sys.stderr)
    sys.exit(int(os.environ.get("CODE", "2")))
(folder / "best.h5").touch()
value = options["learning_rate"] + options.get("seed", 0)
record(event="epoch", epoch=1, val_loss=value)
record(event="end", best_epoch=1, best_value=value, best_score="loss", best_is=os.environ.get("IS", "lower"), test_loss=-value)
"""


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """The words that start the stand-in; what it has made stands in the file ``made``."""
    path = tmp_path / "trainer.py"
    path.write_text(_TRAINER)
    monkeypatch.setenv("MADE", str(tmp_path / "made"))
    monkeypatch.chdir(tmp_path)
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))}"


def _words(trainer, *more):
    return ["sweep", "tune.toml", "--launcher", trainer, *more]


def _sweep(trainer, text, *more):
    Path("tune.toml").write_text(text)
    return main(_words(trainer, *more))


def _made(tmp_path):
    """Learning rates of the runs that were begun, in their order."""
    path = tmp_path / "made"
    return (
        [float(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []
    )


_RATES = "[search]\nlearning_rate = [0.3, 0.1, 0.2]\n"


def test_finished_runs_are_sorted_and_not_made_again(trainer, tmp_path, capsys):
    """By the validation score; the test's would be the other way round. A file with more values adds runs."""
    assert _sweep(trainer, _RATES) == 0
    assert _made(tmp_path) == [0.3, 0.1, 0.2]
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[:3] for line in lines[-5:-2]]
    assert rows == [["0.1000", "1", "0.1"], ["0.2000", "1", "0.2"], ["0.3000", "1", "0.3"]]
    assert lines[-1].startswith("best      tune/") and lines[-1].endswith("/checkpoint/best.h5")
    assert _sweep(trainer, _RATES.replace("0.3,", "0.05, 0.3,")) == 0
    assert _made(tmp_path) == [0.3, 0.1, 0.2, 0.05]
    assert "4 runs by grid, 3 of them finished before" in capsys.readouterr().out
    with open("tune/results.csv") as file:
        found = list(csv.DictReader(file))
    assert [float(row["value"]) for row in found] == [0.05, 0.1, 0.2, 0.3]
    assert {row["state"] for row in found} == {"finished"} and found[0]["score"] == "loss"
    found = json.loads(Path("tune/results.json").read_text())
    assert [row["options"]["learning_rate"] for row in found] == [0.05, 0.1, 0.2, 0.3]
    assert found[0]["test"] == {"test_loss": -0.05}


def test_a_score_of_which_more_is_better(trainer, monkeypatch, capsys):
    monkeypatch.setenv("IS", "higher")
    assert _sweep(trainer, _RATES) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-5:-2]] == [
        *("0.3000", "0.2000", "0.1000")
    ]


def test_seeds_are_ranked_by_the_mean_of_their_setting(trainer, capsys):
    """0.1 and 0.2 with seeds 0 and 5."""
    text = "[sweep]\nseeds = [0, 5]\n[search]\nlearning_rate = [0.2, 0.1]\n"
    assert _sweep(trainer, text) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-6:-2]]
    assert rows == [
        *(["0.1000", "2.6000"], ["5.1000", "2.6000"]),
        *(["0.2000", "2.7000"], ["5.2000", "2.7000"]),
    ]


@pytest.mark.parametrize(("code", "again"), [(2, 0), (3, 0), (5, 1), (137, 1)])
def test_a_run_that_fails_is_in_the_table_and_ends_no_other(
    trainer, tmp_path, monkeypatch, capsys, code, again
):
    """It is tried again unless it would fail again, or --retry asks for that."""
    monkeypatch.setenv("CODE", str(code))
    text = "[search]\nlearning_rate = [0.5, 0.1]\n"
    assert _sweep(trainer, text) == 1
    assert _made(tmp_path) == [0.5, 0.1]
    out = capsys.readouterr().out
    assert "failed: the loss became nan" in out.splitlines()[-3]
    assert _sweep(trainer, text) == 1
    assert _made(tmp_path) == [0.5, 0.1] + again * [0.5]
    assert _sweep(trainer, text, "--retry") == 1
    assert _made(tmp_path) == [0.5, 0.1] + (again + 1) * [0.5]
    found = json.loads(Path("tune/results.json").read_text())
    assert found[1]["error"] == "lepton_mpi: the loss became nan" and found[1]["value"] is None


def test_a_run_that_cannot_be_started_is_said(trainer, capsys):
    assert _sweep("/nowhere/srun", _RATES) == 4
    assert "cannot start /nowhere/srun" in capsys.readouterr().err


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_best_checkpoints_stay(trainer, keep):
    assert _sweep(trainer, _RATES, "--keep-best", str(keep)) == 0
    found = json.loads(Path("tune/results.json").read_text())
    assert [row["value"] for row in found] == [0.1, 0.2, 0.3]
    assert [row["checkpoint"] is not None for row in found] == [place < keep for place in range(3)]
    assert len(list(Path("tune").glob("*/checkpoint/best.h5"))) == keep


def test_a_task_of_an_array_makes_its_run(trainer, tmp_path, capsys):
    assert _sweep(trainer, _RATES, "--task", "1") == 0
    assert _made(tmp_path) == [0.1]
    assert _sweep(trainer, _RATES, "--task", "3") == 2
    assert "--task: expected a run from 0 to 2, got 3" in capsys.readouterr().err


def test_a_folder_of_other_files_is_refused(trainer, tmp_path, capsys):
    """Also one with results of the user's; an empty one is taken."""
    Path("tune").mkdir()
    Path("tune/results.csv").write_text("mine")
    assert _sweep(trainer, _RATES) == 2
    assert "--out: expected a folder that is new, empty, or of a sweep" in capsys.readouterr().err
    assert Path("tune/results.csv").read_text() == "mine" and not _made(tmp_path)
    Path("empty").mkdir()
    assert _sweep(trainer, _RATES, "--out", "empty") == 0
    assert Path("empty/sweep.toml").read_text() == _RATES
    assert {path.name for path in tmp_path.iterdir()} >= {"empty", "tune", "tune.toml"}
    assert not list(tmp_path.glob(".*"))


def test_show_makes_nothing(trainer, tmp_path, capsys):
    assert _sweep(trainer, _RATES, "--show") == 0
    out = capsys.readouterr().out
    assert out.count("waiting") == 3 and not _made(tmp_path) and not Path("tune").exists()


def _started(trainer, monkeypatch, waits: str) -> subprocess.Popen:
    """A sweep whose run with this learning rate waits, and has begun to."""
    monkeypatch.setenv("WAITS", waits)
    Path("tune.toml").write_text(_RATES)
    sweep = subprocess.Popen(
        [sys.executable, "-m", "lepton_mpi", *_words(trainer)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _until(Path("made.waits").exists)
    return sweep


def _until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _is_alive(process_id: int) -> bool:
    found = look_at(process_id)
    return found is not None and not found.has_ended


def _is_stopped(process_id: int) -> bool:
    found = look_at(process_id)
    return found is not None and found.state == "T"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_stops_the_run_and_the_next_start_goes_on(trainer, tmp_path, monkeypatch, number):
    sweep = _started(trainer, monkeypatch, "0.1")
    sweep.send_signal(number)
    out, _ = sweep.communicate(timeout=30)
    assert sweep.returncode == 75, out
    assert "lepton_mpi sweep: stopped in run 2 of 3; the same command goes on" in out
    assert _made(tmp_path) == [0.3, 0.1]
    assert main(_words(trainer)) == 0
    assert _made(tmp_path) == [0.3, 0.1, 0.1, 0.2]


def test_a_kill_ends_the_run_too_and_the_next_start_goes_on(trainer, tmp_path, monkeypatch):
    sweep = _started(trainer, monkeypatch, "0.1")
    process_id = int((tmp_path / "made").read_text().splitlines()[-1].split()[1])
    assert _is_alive(process_id)
    # One that does not end by itself holds its lock.
    os.kill(process_id, signal.SIGSTOP)
    _until(lambda: _is_stopped(process_id))
    sweep.kill()
    sweep.communicate(timeout=30)
    assert SweepRun(read_plan("tune.toml").runs[1], Path("tune")).state == "running"
    os.kill(process_id, signal.SIGCONT)
    _until(lambda: not _is_alive(process_id))
    assert main(_words(trainer)) == 0
    assert _made(tmp_path) == [0.3, 0.1, 0.1, 0.2]


def test_two_processes_share_the_runs(trainer, tmp_path, monkeypatch, capsys):
    """The second one makes what the first does not hold, and says that it is running."""
    first = _started(trainer, monkeypatch, "0.3")
    assert main(_words(trainer)) == 0
    assert _made(tmp_path) == [0.3, 0.1, 0.2]
    assert capsys.readouterr().out.splitlines()[-3].split()[-1] == "running"
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    assert first.returncode == 75


def test_a_damaged_outcome_is_made_once_more(trainer, tmp_path):
    assert _sweep(trainer, _RATES) == 0
    run = SweepRun(read_plan("tune.toml").runs[1], Path("tune"))
    (run.folder / "outcome.json").write_text('{"code": 0')
    assert main(_words(trainer)) == 0
    assert _made(tmp_path) == [0.3, 0.1, 0.2, 0.1]


def test_a_rank_of_a_job_is_refused(trainer, monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert _sweep(trainer, _RATES) == 2
    assert "expected one process, which starts the ranks" in capsys.readouterr().err
    assert os.environ["OMPI_COMM_WORLD_SIZE"] == "2"


# -- as an array of jobs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "count", "lines"),
    [
        ("slurm", 3, ["#SBATCH --array=0-2%2", "#SBATCH --output=lepton-%A_%a.out"]),
        ("pbs", 3, ["# Submit it with: qsub -J 0-2%2 job.sh"]),
        ("pbs", 1, ["# Submit it with: qsub -v LEPTON_TASK=0 job.sh"]),
        ("lsf", 3, ['#BSUB -J "lepton[1-3]%2"']),
    ],
)
def test_scripts_of_arrays(tmp_path, capsys, system, count, lines):
    path = tmp_path / "tune.toml"
    path.write_text(f"[search]\nlearning_rate = {[0.3, 0.1, 0.2][:count]}\n")
    size = ["--ranks-per-node", "2", "--time", "1h", "--at-once", "2"]
    assert main([system, "--sweep", str(path), *size]) == 0
    out = capsys.readouterr().out
    assert set(lines) <= set(out.splitlines())
    assert f"options=(\n    {path}\n)" in out


@pytest.mark.parametrize(
    ("system", "variable"), [("slurm", "SLURM_ARRAY_TASK_ID"), ("pbs", "PBS_ARRAY_INDEX")]
)
def test_an_array_makes_the_runs_of_the_sweep(trainer, tmp_path, capsys, system, variable):
    """Each task its own; the launcher's words are those of the script."""
    Path("tune.toml").write_text(_RATES)
    words = [system, "--sweep", "tune.toml", "--ranks-per-node", "2", "--time", "1h"]
    assert main([*words, "--launcher", trainer, "--out", "job.sh"]) == 0
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for task in range(3):
        ended = subprocess.run(
            ["bash", "job.sh"],
            env=os.environ | {variable: str(task), "PATH": path},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
    assert _made(tmp_path) == [0.3, 0.1, 0.2]
    assert [row["value"] for row in json.loads(Path("tune/results.json").read_text())] == [
        0.1,
        0.2,
        0.3,
    ]


def test_a_sweep_and_options_of_train_exclude_each_other(capsys):
    size = ["--ranks-per-node", "2", "--time", "1h"]
    assert main(["slurm", "--sweep", "a.toml", *size, "--", "--epochs", "3"]) == 2
    assert "--sweep: expected no options of train" in capsys.readouterr().err
    assert main(["slurm", "--at-once", "2", *size]) == 2
    assert "--at-once: expected a sweep" in capsys.readouterr().err


def test_whoever_looks_takes_no_lock(tmp_path):
    """A table that is asked for all the time keeps no process from making a run."""
    run = SweepRun(Planned(0, {}, {}), tmp_path)
    look = f"""
import pathlib, sys
from lepton_mpi.sweeping.runs import SweepRun
from lepton_mpi.sweeping.search import Planned
run = SweepRun(Planned(0, {{}}, {{}}), pathlib.Path({str(tmp_path)!r}))
seen = set()
while len(seen) < 2 or not pathlib.Path({str(tmp_path / "over")!r}).exists():
    seen.add(run.state)
print(*sorted(seen))
"""
    with subprocess.Popen([sys.executable, "-c", look], stdout=subprocess.PIPE, text=True) as job:
        try:
            got = 0
            end = time.monotonic() + 2
            while time.monotonic() < end:
                with run.held() as lock:
                    got += 1
                    assert lock is not None, f"refused after {got} times"
            with run.held():
                (tmp_path / "over").touch()
                assert job.communicate(timeout=30)[0].split() == ["running", "waiting"]
        finally:
            job.kill()
    assert got > 1000
