"""New rows for a model that is trained: which cells are a category, whatever the format makes of them, and that no other is passed over."""

import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.errors import DataError
from lepton_mpi.prepare.known_categories import CategoryCodes, Unknown, together
from lepton_mpi.prepare.readers import Words
from tests.serial.made_checkpoints import save_random
from tests.serial.predicted import Frame, records, run
from tests.serial.raw_files import prepare, write_csv

NAMES = ("n", "grade", "member", "label")
WORDS = ("--label", "label", "--categorical", "grade,member", "--normalise", "none")
GRADES, MEMBERS = ("1", "2", "3", "A"), ("False", "True")


@pytest.fixture
def made(tmp_path):
    """A table with a column of texts of which some are numbers, and one of truth, and what was made of it."""
    rows = [[i % 7, GRADES[i % 4], MEMBERS[i % 2], ["no", "yes"][i % 3 == 0]] for i in range(80)]
    prepare(write_csv(tmp_path / "a.csv", rows, *NAMES), tmp_path / "a.h5", *WORDS)
    return tmp_path / "a.h5"


def _stored(path):
    import h5py

    with h5py.File(path) as file:
        return file["test/x"][:]


# Each table's cells mean the rows 3, 1, 2 of GRADES and True, False, True.
_MEANT = [["3", "True"], ["1", "False"], ["2", "True"]]
_WRITTEN = {
    "decimals": [["3.0", "1"], ["1.0", "0"], ["2.0", "1"]],
    "numbers": [[3, 1], [1, 0], [2, 1]],
    "zeros": [["03", "true"], ["01", "FALSE"], ["+2", "True"]],
}


@pytest.mark.parametrize("how", _WRITTEN)
def test_numbers_are_matched_with_texts_of_a_csv_file(made, tmp_path, how):
    """A column that is numbers alone, here, and texts there."""
    stored = []
    for name, cells in (("meant", _MEANT), (how, _WRITTEN[how])):
        path = write_csv(tmp_path / f"{name}.csv", [[5, *row] for row in cells], *NAMES[:3])
        facts = prepare(path, tmp_path / f"{name}.h5", "--like", made)
        assert "unknown" not in facts
        stored.append(_stored(tmp_path / f"{name}.h5"))
    assert np.array_equal(*stored)
    assert stored[0][:, 1:5].tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert stored[0][:, 5].tolist() == [1, 0, 1]


@pytest.mark.parametrize("kind", ["int64", "double", "bool and string"])
def test_numbers_are_matched_with_texts_of_a_parquet_file(made, tmp_path, kind):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    grades, members = ["3", "1", "2"], [True, False, True]
    if kind != "bool and string":
        grades = pyarrow.array([3, 1, 2], kind)
        members = pyarrow.array([1, 0, 1], kind)
    table = pyarrow.table({"n": [5, 5, 5], "grade": grades, "member": members})
    parquet.write_table(table, tmp_path / "b.parquet")
    prepare(tmp_path / "b.parquet", tmp_path / "b.h5", "--like", made)
    x = _stored(tmp_path / "b.h5")
    assert x[:, 1:].tolist() == [[0, 0, 1, 0, 1], [1, 0, 0, 0, 0], [0, 1, 0, 0, 1]]


@pytest.mark.parametrize("number", [7, "7.5"])
def test_numbers_that_are_no_category_are_said(made, tmp_path, number):
    """They were taken as missing without a word: an error, or counted by ``--unknown missing``, alike on any ranks."""
    rows = [[5, number, "True"], [5, 3, "True"], [5, number, "False"], [5, 9, "no"]]
    path = write_csv(tmp_path / "b.csv", rows, *NAMES[:3])
    words = (path, tmp_path / "b.h5", "--like", made)
    with pytest.raises(DataError, match=rf"column 'grade': '{number}', '9'; column 'member': 'no'; --unknown missing"):  # fmt: skip
        prepare(*words)
    found = [prepare(*words, "--unknown", "missing", "--force", ranks=n)["unknown"] for n in (1, 3)]
    assert found[0] == found[1]
    assert found[0] == [
        f"column 'grade': 3 cells of categories that the model's rows had not, taken as missing: '{number}', '9'",
        "column 'member': 1 cell of categories that the model's rows had not, taken as missing: 'no'",
    ]


def test_predict_counts_them_on_any_ranks(made, tmp_path, capfd):
    """The same file, and the same line, from files in which the category is a text, a number and a decimal."""
    checkpoint = save_random(tmp_path / "runs", made, hidden=(5,))
    outputs = []
    for name, cells in _WRITTEN.items():
        rows = [[i % 7, *cells[i % 3]] for i in range(3000)]
        path = write_csv(tmp_path / f"{name}.csv", rows, *NAMES[:3])
        outputs.append(records(run(checkpoint, path, out=tmp_path / f"{name}-p.csv", proba=True)))
    assert outputs[0] == outputs[1] == outputs[2]
    assert "unknown" not in capfd.readouterr().out
    rows = [[1, 8 if i % 1000 == 0 else 2, "True"] for i in range(3000)]
    path = write_csv(tmp_path / "odd.csv", rows, *NAMES[:3])
    run(checkpoint, path, out=tmp_path / "odd-p.csv", unknown="missing", prepare="--block 4000")
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("unknown")]
    assert said == [
        "unknown    column 'grade': 3 cells of categories that the model's rows had not, taken as missing: '8'"
    ]


@pytest.mark.parametrize(
    ("grade", "member"),
    [
        (np.array([3, 1, 2]), np.array([True, False, True])),
        (np.array([3.0, 1.0, 2.0]), np.array([1, 0, 1])),
        (np.array(["3", "1.0", "2"], object), np.array([True, "False", 1], object)),
        (np.array([3, "1", 2.0], object), np.array(["True", "False", "True"])),
    ],
    ids=["whole", "float", "objects", "mixed"],
)
def test_frames_of_a_program(made, tmp_path, grade, member):
    model = lepton_mpi.load(save_random(tmp_path / "runs", made, hidden=(5,)))
    meant = Frame(
        {
            "n": np.array([5, 5, 5]),
            "grade": np.array(["3", "1", "2"]),
            "member": np.array(["True", "False", "True"]),
        }
    )
    frame = Frame({"n": np.array([5, 5, 5]), "grade": grade, "member": member})
    assert np.array_equal(model.predict_proba(meant), model.predict_proba(frame))


def test_a_program_is_warned_of_what_was_taken_as_missing(made, tmp_path):
    checkpoint = save_random(tmp_path / "runs", made, hidden=(5,))
    frame = Frame({name: np.array([3, 3, 8]) for name in NAMES[:3]})
    with pytest.raises(DataError, match="column 'grade': expected one of the 4 categories"):
        lepton_mpi.load(checkpoint).predict(frame)
    model = lepton_mpi.load(checkpoint, unknown="missing")
    for _ in range(2):  # each call counts its own
        with pytest.warns(UserWarning, match=r"column 'grade': 1 cell|column 'member': 3 cells") as said:  # fmt: skip
            model.predict(frame)
        assert len(said) == 2


def test_labels_are_matched_likewise(tmp_path):
    """Classes 0 and 1 of a file whose program writes them with a point."""
    rows = [[i % 7, i % 2] for i in range(40)]
    prepare(write_csv(tmp_path / "a.csv", rows, "n", "label"), tmp_path / "a.h5")
    rows = [[5, "1.0"], [5, "0.0"]]
    path = write_csv(tmp_path / "b.csv", rows, "n", "label")
    facts = prepare(path, tmp_path / "b.h5", "--like", tmp_path / "a.h5", "--label", "label")
    assert [(each["name"], sum(each["rows"])) for each in facts["classes"]] == [("0", 1), ("1", 1)]


def test_codes():
    """The text decides before the number; what two categories write is neither; missing is not unknown."""
    codes = CategoryCodes(("1", "01", "b", "2.50"))
    assert [codes.of_number(value) for value in (1.0, 2.5)] == [0, 3]
    assert np.isnan([codes.of_text("1.0"), codes.of_text("c"), codes.of_number(np.nan)]).all()
    words = Words.of(["01", None, None, "1e0", "b"])
    found = codes.of_cells(np.array([np.nan, 2.5, np.nan, np.nan, 1.0]), words)
    assert np.array_equal(found, [1, 3, np.nan, np.nan, 2], equal_nan=True)


def test_examples_are_the_first_by_letters_however_blocks_are_dealt():
    parts = [{0: Unknown(2, ("q", "x"))}, {1: Unknown(1, ("7",))}, {0: Unknown(9, tuple("abcdef"))}]
    found = together(parts)
    assert (
        found == together(parts[::-1]) == {0: Unknown(11, tuple("abcdef")), 1: Unknown(1, ("7",))}
    )
    assert found[0].examples.endswith("'f' …") and found[1].examples == "'7'"
