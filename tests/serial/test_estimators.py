"""Rows of a program as prepared files, and the parameters of the estimators. ``tests/faults/test_estimators.py`` trains."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.estimators import rows as rows_module
from lepton_mpi.estimators.rows import class_weights_of, rows_of
from lepton_mpi.options import sources
from tests.serial.raw_files import prepare, write_csv

NAMES = ("a", "colour", "zip", "label")


class Frame:
    """As little of a data frame as is needed."""

    def __init__(self, columns: dict):
        self._columns, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return self._columns[name]

    def __len__(self):
        return len(next(iter(self._columns.values())))


def _cells(count=60):
    return [
        [i * 0.37 - 3, ["red", "green", "blue"][i % 3], [10, 20][i // 2 % 2], ["no", "yes"][i % 2]]
        for i in range(count)
    ]


def _written(rows, path, held_out=(0.1, 0.2), seed=3, **given):
    validation, test = held_out
    chosen = rows_module.options_for(rows, {"validation": validation, "test": test}, seed, given)
    rows_module.write(rows, chosen, path)
    return _contents(path)


def _contents(path):
    """Data sets by name, but for what says where the rows were."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return {name: value for name, value in found.items() if not name.startswith("about/")}


def _assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name
        assert a[name].dtype == b[name].dtype, name


def test_a_frame_is_prepared_as_a_file_of_its_cells(tmp_path):
    """Split, categories, normalisation, class names: every data set."""
    table = write_csv(tmp_path / "t.csv", _cells(), *NAMES)
    fractions = f"{0.8 * 0.9},{0.8 * 0.1},0.2"
    prepare(table, tmp_path / "file.h5", "--label", "label", "--categorical", "zip", "--split", fractions, "--seed", "3")  # fmt: skip
    columns = dict(zip(NAMES, map(np.array, zip(*_cells(), strict=True)), strict=True))
    rows, classes = rows_of(Frame({name: columns[name] for name in NAMES[:-1]}), columns["label"])
    assert classes.tolist() == ["no", "yes"]
    made = _written(rows, tmp_path / "frame.h5", categorical=["zip"])
    _assert_equal(made, _contents(tmp_path / "file.h5"))
    assert {"train/x", "validation/x", "test/x", "normalisation/shift"} <= made.keys()


def test_parameters_that_are_left_to_the_rule_and_weights_of_classes(estimators):
    """``auto`` and None are no option of training, also of a model without widths; weights are in the order of the classes."""
    made = estimators.LeptonClassifier()
    assert made.get_params()["hidden"] == made.get_params()["learning_rate"] == "auto"
    assert "class_weight" not in estimators.LeptonRegressor().get_params()
    names = {"hidden", "epochs", "global_batch", "learning_rate"}
    for left in ("auto", None):
        given = dict.fromkeys(names, left)
        for model in ("logistic", None):
            made = estimators.LeptonClassifier(model, **given, class_weight="balanced")
            assert not made._training_options().keys() & names
    classes = np.array(["no", "yes"])
    assert class_weights_of(None, classes) == {}
    assert class_weights_of("balanced", classes) == {"class_weights": "balanced"}
    assert class_weights_of({"yes": 8}, classes) == {"class_weights": [1.0, 8.0]}
    for wrong, text in (("evenly", "expected 'balanced'"), ({"maybe": 1}, "got 'maybe'")):
        with pytest.raises(ConfigurationError, match=text):
            class_weights_of(wrong, classes)


def test_a_column_of_the_frame_called_label_is_a_feature(tmp_path):
    """Answers come beside the frame."""
    cells = np.arange(20.0)
    rows, _ = rows_of(Frame({"label": cells, "b": cells % 3}), cells.astype(int) % 2)
    assert _written(rows, tmp_path / "a.h5")["train/x"].shape == (14, 2)


@pytest.mark.parametrize("kind", ["classes", "targets"])
def test_arrays_are_prepared_as_an_archive_of_them(kind, tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 4))
    y = np.arange(50) % 3 if kind == "classes" else x[:, 0] * 1e6
    task = "classification" if kind == "classes" else "regression"
    np.savez(tmp_path / "a.npz", x=x, y=y)
    prepare(tmp_path / "a.npz", tmp_path / "file.h5", "--task", task, "--split", "0.72,0.08,0.2", "--seed", "3")  # fmt: skip
    rows, _ = rows_of(x, y)
    assert bool(rows.class_names) == (kind == "classes")
    _assert_equal(_written(rows, tmp_path / "own.h5"), _contents(tmp_path / "file.h5"))


@pytest.mark.parametrize(
    ("y", "names", "codes"),
    [
        ([2, 10, 2], ("2", "10"), [0, 1, 0]),
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        (np.array(["x", "y", "x"], object), ("x", "y"), [0, 1, 0]),
        (np.array([[1], [5], [1]]), ("1", "5"), [0, 1, 0]),
        (np.array([1.0, 0.5, 1.0]), ("0.5", "1"), [1, 0, 1]),
    ],
)
def test_classes_keep_their_order(y, names, codes):
    rows, classes = rows_of(np.zeros((3, 1)), y, "classes")
    assert rows.class_names == names and rows.y.tolist() == codes
    assert classes[rows.y].tolist() == np.asarray(y).reshape(-1).tolist()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 2)), [1, 2], r"y: expected 3 answers, one for each row of X, got \(2,\)"),
        (np.zeros((0, 2)), [], r"X: expected rows, got none"),
        (np.zeros((3, 2)), [1, 1, 1], r"y: expected at least 2 classes, got 1 class"),
        (np.zeros((3, 2)), [1.0, np.nan, 2.0], r"y: row 1: expected finite numbers, got \[nan\]"),
        (np.zeros((2, 2)), np.array([1, "a"], object), r"y: expected classes of one kind"),
        (np.zeros((2, 2)), np.array([1j, 2j]), r"y: expected a class for each row.*complex128"),
        (np.array([["a"], ["b"]]), [0, 1], r"X: expected numbers of shape \(rows, ...\), got <U1"),
    ],
)
def test_wrong_rows_are_refused(x, y, message):
    with pytest.raises(DataError, match=message):
        rows_of(x, y)


def test_wrong_options_of_prepare_are_refused():
    rows, _ = rows_of(np.zeros((4, 1)), [0, 1, 0, 1])
    for name in ("label", "split", "like", "norm"):
        with pytest.raises(ConfigurationError, match=f"prepare: expected options of .* got '{name}'"):  # fmt: skip
            rows_module.options_for(rows, {"validation": 0, "test": 0}, 0, {name: "a"})


def test_fit_takes_a_model_or_x_and_y():
    x, y = np.zeros((4, 1)), [0, 1, 0, 1]
    with pytest.raises(TypeError, match=r"expected fit\(model, …\) or fit\(X, y, …\).* got 3 values"):  # fmt: skip
        lepton_mpi.fit(x, y, None)
    with pytest.raises(TypeError, match=r"got 1 values and model="):
        lepton_mpi.fit("mlp", model="mlp")
    with pytest.raises(ConfigurationError, match="data: expected none beside X and y"):
        lepton_mpi.fit(x, y, raises=True, data="a.h5")
    with pytest.raises(ConfigurationError, match="prepare: is for X and y"):
        lepton_mpi.fit(raises=True, prepare={"missing": "mean"})
    with pytest.raises(ConfigurationError, match="unknown option 'epoch', did you mean epochs"):
        lepton_mpi.fit(x, y, raises=True, epoch=3)
    with pytest.raises(ConfigurationError, match="unknown option 'epoch', did you mean epochs"):
        lepton_mpi.fit(data="digits", raises=True, epoch=3)


def test_fit_without_raises_ends_the_process(capsys):
    """In one line, as the command line does."""
    with pytest.raises(SystemExit) as ended:
        lepton_mpi.fit(np.zeros((4, 1)), [0, 1])
    assert ended.value.code == 3
    assert capsys.readouterr().err.startswith("lepton_mpi: y: expected 4 answers")


# -- estimators, not fitted ------------------------------------------------------------------------------


@pytest.fixture
def estimators():
    sklearn = pytest.importorskip("sklearn", reason="pip install 'scikit-learn>=1.6'")
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 6):
        pytest.skip("pip install 'scikit-learn>=1.6'")
    from lepton_mpi.estimators import estimator

    return estimator


def test_parameters_are_kept_as_they_are(estimators):
    from sklearn.base import clone

    given = {"hidden": (3, 4), "epochs": 2, "options": {"momentum": 0.5}, "random_state": 5}
    made = lepton_mpi.LeptonClassifier("mlp", **given)
    copy = clone(made.set_params(epochs=7))
    assert copy.get_params()["epochs"] == 7 and copy.get_params()["hidden"] == (3, 4)
    assert repr(copy).startswith("LeptonClassifier(epochs=7")
    with pytest.raises(ValueError, match="Invalid parameter 'epoch'"):
        made.set_params(epoch=1)


def test_parameters_become_options_of_training(estimators):
    made = estimators.LeptonClassifier(
        hidden=np.array([5, 6]),
        learning_rate=0.01,
        early_stopping=True,
        tol=0.001,
        options={"clip_norm": 1.0},
        random_state=np.random.RandomState(0),
    )
    config = sources.from_program({"data": "X", **made._training_options()}).config
    assert (config.hidden, config.learning_rate, config.clip_norm) == ((5, 6), 0.01, 1.0)
    assert (config.early_stop, config.restore_best, config.test_split) == ("10,0.001", True, 0.0)
    assert config.validation_split == 0.1 and config.seed == 209652396
    config = sources.from_program(
        {"data": "X", **estimators.LeptonRegressor()._training_options()}
    ).config
    assert (config.loss, config.seed, config.validation_split, config.epochs) == ("mse", 0, 0, None)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"options": {"epochs": 3}}, "options: expected options without a parameter of their own, got 'epochs'"),
        ({"options": {"data": "a"}}, "got 'data'"),
        ({"options": {"epoch": 3}}, "unknown option 'epoch'"),
        ({"prepare": {"missing": "mean"}}, "prepare: missing: is a parameter of LeptonClassifier"),
        ({"prepare": {"label": "a"}}, "prepare: expected options of the command prepare for rows in memory, got 'label'"),
        ({"missing": "drop"}, "missing: expected error, mean"),
        ({"early_stopping": True, "validation_fraction": 0}, "validation_fraction: expected a number between 0 and 1"),
        ({"n_ranks": 0}, "ranks: expected a whole number of at least 1, got 0"),
        ({"n_ranks": 2.5}, "ranks: expected a whole number of at least 1, got 2.5"),
        ({"unknown": "what"}, "unknown: expected error or missing"),
        ({"learning_rate": -1}, "--learning-rate: expected a number above 0"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused_by_fit(parameters, message, estimators):
    """Before anything starts."""
    made = estimators.LeptonClassifier(**parameters)
    with pytest.raises(ConfigurationError, match=message):
        made.fit(np.zeros((4, 1)), [0, 1, 0, 1])
    assert "mpi4py.MPI" not in sys.modules


def test_what_is_not_there_is_said(estimators):
    x, y = np.zeros((4, 1)), [0, 1, 0, 1]
    with pytest.raises(TypeError, match="'sample_weight': rows have no weights: repeat rows"):
        estimators.LeptonClassifier().fit(x, y, sample_weight=[1, 1, 1, 1])
    with pytest.raises(ValueError, match="at least 2 classes in y, got 1 class"):
        estimators.LeptonClassifier().fit(x, [1, 1, 1, 1])
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        estimators.LeptonClassifier().predict(x)
    with pytest.raises(NotFittedError):
        estimators.LeptonRegressor().save("a.h5")


def test_without_scikit_learn_the_rest_works():
    """And the error says what to install; the package imports it for nothing else."""
    code = (
        "import sys; sys.modules['sklearn'] = None; import lepton_mpi, lepton_mpi.estimators.arrays_fit\n"
        "try: lepton_mpi.LeptonClassifier\n"
        "except lepton_mpi.errors.LauncherError as error: print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'scikit-learn>=1.6'" in ended.stdout, ended.stderr
