"""Estimators at work, in processes of their own, since training starts MPI: scikit-learn's checks, pipelines, ranks, the command line."""

import json

import pytest

from tests.faults import jobs

pytest.importorskip("sklearn", minversion="1.6", reason="pip install 'scikit-learn>=1.6'")

_HEAD = """
import json, os, pickle, sys, threading
import numpy as np
import lepton_mpi
from lepton_mpi import LeptonClassifier, LeptonRegressor

random = np.random.default_rng(0)
X = random.normal(size=(300, 5))
y = np.where(X[:, 0] + X[:, 1] ** 2 > 0.5, "yes", "no")
t = X[:, 0] * 1000 + 5000

def say(**values):
    print("found", json.dumps(values), flush=True)
"""


def _found(tmp_path, program, ranks=0, warnings="error", **variables):
    """What the program says, merged."""
    path = tmp_path / "program.py"
    path.write_text(_HEAD + program)
    ended = jobs.run(ranks, "-W", warnings, str(path), cwd=tmp_path, **variables)
    assert ended.code == 0, ended.text
    found = {}
    for line in ended.lines("found "):
        found |= json.loads(line.partition(" ")[2])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LeptonClassifier", "LeptonRegressor"])
@pytest.mark.timeout(300)
def test_the_checks_of_scikit_learn(name, tmp_path):
    """All pass; left out are those that need other libraries, which scikit-learn itself skips."""
    program = f"""
import warnings
from sklearn.utils.estimator_checks import check_estimator
warnings.simplefilter("ignore")
made = {name}(epochs=60, learning_rate=0.003, hidden=(32,))
results = check_estimator(made, on_fail=None)
say(count=len(results), others=[[r["check_name"], r["status"], str(r["exception"])] for r in results if r["status"] != "passed"])
"""
    path = tmp_path / "program.py"
    path.write_text(_HEAD + program)
    ended = jobs.run(0, str(path), cwd=tmp_path, limit_seconds=280)
    found = json.loads(ended.lines("found ")[0].partition(" ")[2])
    assert found["count"] > 45
    for check, status, why in found["others"]:
        assert status == "skipped", (check, why)
        assert "SCIPY_ARRAY_API" in why or "pandas is not installed" in why, (check, why)


def test_pipelines_and_searches(tmp_path):
    program = """
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pipe = make_pipeline(StandardScaler(), LeptonClassifier(epochs=20, learning_rate=0.01))
search = GridSearchCV(pipe, {"leptonclassifier__hidden": [(1,), (32,)]}, cv=3).fit(X, y)
scores = cross_val_score(LeptonRegressor(epochs=100, learning_rate=0.01), X, t, cv=3)
say(best=search.best_params_["leptonclassifier__hidden"], score=search.best_score_, r2=scores.min(), classes=search.classes_.tolist())
"""
    found = _found(tmp_path, program)
    assert found["best"] == [32] and found["score"] > 0.85 and found["r2"] > 0.9
    assert found["classes"] == ["no", "yes"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_same_bits_on_any_number_of_ranks_and_by_the_command_line(tmp_path):
    program = """
from lepton_mpi.estimators import rows
made, _ = rows.rows_of(X, y)
rows.write(made, rows.options_for(made, {"validation": 0.0, "test": 0.0}, 7, {}), "same.h5")
parameters = {"hidden": (16,), "epochs": 4, "random_state": 7, "global_batch": 32}
digests = [LeptonClassifier(n_ranks=n, **parameters).fit(X, y).figures_["weights_digest"] for n in (1, 2, 4)]
reference = LeptonClassifier(**parameters).fit(X, y).predict_proba(X)
ranks = LeptonClassifier(n_ranks=2, **parameters).fit(X, y)
say(digests=digests, equal=bool((ranks.predict_proba(X) == reference).all()), ranks=ranks.figures_["world_size"], epochs=len(ranks.history_))
"""
    found = _found(tmp_path, program)
    words = ("--hidden", "16", "--epochs", "4", "--seed", "7", "--global-batch", "32")
    ended = jobs.run(2, *jobs.TRAIN, "--data", "same.h5", *words, cwd=tmp_path)
    (line,) = ended.lines("weights")
    assert found["digests"] == [line.split()[1]] * 3
    assert found["equal"] and found["ranks"] == 2 and found["epochs"] == 4


@pytest.mark.slow
def test_errors_of_ranks_come_back_to_the_program(tmp_path):
    """And the estimator can be fitted afterwards."""
    program = """
from lepton_mpi.errors import ConfigurationError
made = LeptonRegressor(n_ranks=2, learning_rate=1e30, optimizer="sgd", epochs=3)
try:
    made.fit(X, t)
except ConfigurationError as error:
    say(error=str(error), notes="".join(error.__notes__), has_model=hasattr(made, "figures_"))
try:
    made.set_params(n_ranks=1).fit(X, t)
except ConfigurationError as error:
    say(alone=str(error))
say(score=made.set_params(learning_rate=0.01, optimizer="adam", epochs=100).fit(X, t).score(X, t))
"""
    found = _found(tmp_path, program, warnings="ignore")  # NumPy's, of numbers without bounds
    assert "try a smaller --learning-rate" in found["error"] and "on rank " in found["notes"]
    assert "try a smaller --learning-rate" in found["alone"] and not found["has_model"]
    assert found["score"] > 0.9


def test_a_fitted_estimator(tmp_path):
    """Predicts without a file, survives a pickle, saves a checkpoint that the commands take; BLAS and hooks are as before."""
    program = """
import tempfile, threadpoolctl
from lepton_mpi.data.files import probe
before = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
hook = sys.excepthook
made = LeptonClassifier(epochs=30, learning_rate=0.01).fit(X, y)
say(threads=before == [pool["num_threads"] for pool in threadpoolctl.threadpool_info()], hook=sys.excepthook is hook)
os.makedirs("tmp")
tempfile.tempdir = os.path.abspath("tmp")
opened = []
sys.addaudithook(lambda event, args: opened.append(args[:2]) if event == "open" and made_now else None)
made_now = True
proba = made.predict_proba(X)
labels = made.predict(X)
made_now = False
say(opened=[str(name) for name, mode in opened], score=float((labels == y).mean()), sums=float(abs(proba.sum(axis=1) - 1).max()))
other = pickle.loads(pickle.dumps(made))
say(pickle=bool((other.predict_proba(X) == proba).all()), again=bool((made.fit(X, y).predict_proba(X) == proba).all()))
made.save("saved.h5")
say(loaded=bool((lepton_mpi.load("saved.h5").predict(X) == labels).all()), left=os.listdir("tmp"), threads_left=threading.active_count())
"""
    found = _found(tmp_path, program, OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2")
    assert found["threads"] and found["hook"] and found["opened"] == []
    assert found["score"] > 0.85 and found["sums"] < 1e-5
    assert found["pickle"] and found["again"] and found["loaded"] and found["left"] == []
    assert found["threads_left"] == 1
    ended = jobs.run(0, "-m", "lepton_mpi", "export", "saved.h5", "saved.npz", cwd=tmp_path)
    assert ended.code == 0, ended.text


@pytest.mark.slow
def test_early_stopping_takes_the_best_epoch(tmp_path):
    program = """
made = LeptonClassifier(early_stopping=True, n_iter_no_change=4, learning_rate=0.02, epochs=200, validation_fraction=0.25).fit(X, y)
scores = [epoch["val_accuracy"] for epoch in made.history_]
ranks = LeptonClassifier(early_stopping=True, n_iter_no_change=4, learning_rate=0.02, epochs=200, validation_fraction=0.25, n_ranks=2).fit(X, y)
say(epochs=made.n_iter_, best=int(np.argmax(scores)) + 1, same=made.figures_["weights_digest"] == ranks.figures_["weights_digest"])
"""
    found = _found(tmp_path, program)
    assert found["epochs"] == found["best"] + 4 < 200 and found["same"]


def test_images_take_models_of_images(tmp_path):
    program = """
pictures = random.integers(0, 255, size=(64, 8, 8, 1)).astype(np.uint8)
which = (np.arange(64) % 2)
pictures[which == 1, :4] //= 8
made = LeptonClassifier("cnn", epochs=8).fit(pictures, which)
say(score=made.score(pictures, which), shape=made.predict_proba(pictures[:3]).shape)
"""
    found = _found(tmp_path, program)
    assert found["score"] > 0.9 and found["shape"] == [3, 2]


@pytest.mark.slow(but_every=2)
@pytest.mark.parametrize("ranks", [3, 0])
def test_fit_of_arrays_in_a_job(ranks, tmp_path):
    """Alone and on ranks: the same bits, history and confusion matrix, an exception, and an estimator in each rank."""
    program = """
from lepton_mpi.errors import ConfigurationError
result = lepton_mpi.fit(X, y, epochs=3, hidden=(8,), raises=True, progress="none")
say(digest=result["weights_digest"], epochs=[epoch["epoch"] for epoch in result["history"]], rows=int(np.sum(result["test_confusion"])), ranks=result["world_size"])
try:
    lepton_mpi.fit(X, y, epochs=3, raises=True, model="logistic", hidden=(8,))
except ConfigurationError as error:
    say(error=str(error))
try:
    lepton_mpi.fit(X, y, raises=True, model="gpt", progress="none")
except lepton_mpi.errors.LeptonError as error:
    say(later=str(error))
say(score=LeptonClassifier(epochs=30, learning_rate=0.01).fit(X, y).score(X, y))
"""
    found = _found(tmp_path, program, ranks)
    assert found["epochs"] == [1, 2, 3] and found["rows"] == 60 and found["ranks"] == max(1, ranks)
    assert found["error"].startswith("--hidden: expected --model mlp") and found["later"]
    assert found["score"] > 0.85
    _digests.add(found["digest"])
    assert len(_digests) == 1


_digests: set[str] = set()


def test_pandas_frames(tmp_path):
    """Categories, texts, dates, gaps; columns in any order are refused, as scikit-learn has it."""
    pytest.importorskip("pandas", reason="pip install pandas")
    program = """
import pandas
frame = pandas.DataFrame({
    "a": X[:, 0], "colour": pandas.Categorical(random.choice(["red", "green"], 300)), "text": random.choice(["x", "y"], 300),
    "day": pandas.date_range("2020-01-01", periods=300), "zip": random.integers(0, 3, 300),
})
classes = np.where((frame["a"] > 0) ^ (frame["colour"] == "red"), "yes", "no")
holes = frame.copy()
holes.loc[3, "a"], holes.loc[4, "text"] = None, None
made = LeptonClassifier(categorical=["zip"], missing="median", epochs=60, learning_rate=0.01).fit(holes, classes)
say(score=made.score(frame, classes), names=made.feature_names_in_.tolist(), part=made.predict(frame[5:9]).tolist() == made.predict(frame)[5:9].tolist())
ranks = LeptonClassifier(categorical=["zip"], missing="median", epochs=60, learning_rate=0.01, n_ranks=2).fit(holes, classes)
say(same=bool((ranks.predict_proba(frame) == made.predict_proba(frame)).all()))
try:
    LeptonClassifier().fit(holes, classes)
except lepton_mpi.errors.DataError as error:
    say(missing=str(error))
for wrong in (frame[["colour", "a", "text", "day", "zip"]], frame.assign(text="z")):
    try:
        made.predict(wrong)
    except ValueError as error:
        say(order=str(error))
    except lepton_mpi.errors.DataError as error:
        say(unknown=str(error))
"""
    found = _found(tmp_path, program)
    assert found["score"] > 0.95 and found["same"] and found["part"]
    assert found["missing"].startswith("X: row 3, column 'a': expected a value, got none")
    assert "; missing='mean'" in found["missing"] and "unknown='missing'" in found["unknown"]
    assert found["names"] == ["a", "colour", "text", "day", "zip"]
    assert "should match" in found["order"] and "expected one of the 2 categories" in found["unknown"]  # fmt: skip


def test_ctrl_c_is_keyboard_interrupt(tmp_path):
    """Training in the program itself stops after a step or two, and the program goes on."""
    program = """
import signal
class Interrupt(lepton_mpi.QuietHook):
    steps = 0
    def after_step(self, run):
        self.steps += 1
        if self.steps == 3:
            os.kill(os.getpid(), signal.SIGINT)

hook = Interrupt()
try:
    lepton_mpi.fit(X, y, hooks=[hook], epochs=100000, raises=True, progress="none")
except KeyboardInterrupt as error:
    say(steps=hook.steps, text=str(error))
say(score=LeptonClassifier(epochs=30, learning_rate=0.01).fit(X, y).score(X, y), is_usual=signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    found = _found(tmp_path, program)
    assert found["text"].startswith("SIGINT: stopped after step") and found["steps"] >= 3
    assert found["score"] > 0.85 and found["is_usual"]
