"""Names of classes in the files of other programs: where they may stand, when they fit, and what is passed over."""

import h5py
import numpy as np
import pytest

from lepton_mpi.data.files import class_names
from lepton_mpi.errors import DataError
from tests.serial.data_files import load, table, write
from tests.serial.raw_files import prepare, same_on_ranks
from tests.serial.test_prepare import rows_of

X, Y = table(60, (4,))
NAMES = ["eel", "dog", "cat"]  # not in the order of letters


def _with_names(path, y, place: str, names=NAMES):
    """``place``: ``attribute KEY``, ``attribute KEY of y``, or the name of a data set."""
    write(path, {"g/x": X, "g/y": y})
    with h5py.File(path, "r+") as file:
        if not place.startswith("attribute"):
            file[place] = names
        elif place.endswith("of y"):
            file["g/y"].attrs[place.split()[1]] = names
        else:
            file.attrs[place.split()[1]] = np.array(names, "S5")
    return path


_PLACES = [
    *(f"attribute {key}" for key in class_names.USUAL if key != "classes"),
    *("attribute classes of y", "class_names", "g/label_names", "categories"),
]
_ARRAYS = ("g/x", "g/y")


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("place", _PLACES)
def test_names_beside_the_labels_are_those_of_the_classes(tmp_path, place):
    """In the order of the list, for training and prepare, and said."""
    path = _with_names(tmp_path / "a.h5", Y, place)
    data = load(path, arrays=_ARRAYS)
    assert data.class_names == tuple(NAMES)
    assert data.splits["train"].y.tolist() == Y.tolist()
    (note,) = data.notes
    assert note.startswith("classes are named by") and place.removesuffix(" of y") in note
    facts = prepare(path, tmp_path / "b.h5", "--x", "g/x", "--y", "g/y", "--split", "1")
    assert [one["name"] for one in facts["classes"]] == NAMES and note in facts["notes"]
    assert rows_of(tmp_path / "b.h5", "y")["train"].tolist() == Y.tolist()
    assert load(tmp_path / "b.h5").class_names == tuple(NAMES)


def test_names_of_one_hot_rows_and_of_archives(tmp_path):
    """A class without a row keeps its place; in an archive the list is no array of rows."""
    y = np.eye(4, dtype="i1")[Y + 1]
    names = ["none", *NAMES]
    path = write(tmp_path / "a.h5", {"x": X, "y": y, "label_names": names})
    data = load(path)
    assert data.class_names == tuple(names)
    assert "classes are named by label_names" in data.notes
    assert not any("not used" in note for note in data.notes)
    np.savez(tmp_path / "a.npz", x=X, y=y, label_names=np.array(names))
    for given in (path, tmp_path / "a.npz"):
        facts = same_on_ranks(tmp_path / "b.h5", given, "--split", "1", "--force")
        assert [one["name"] for one in facts["classes"]] == names
        assert rows_of(tmp_path / "b.h5", "y")["train"].tolist() == (Y + 1).tolist()


def test_labels_from_1_are_named_by_prepare_which_training_says(tmp_path):
    """With as many names as labels; and with a label that means none, which has no name."""
    path = write(tmp_path / "a.h5", {"x": X, "y": Y + 1, "class_names": NAMES})
    data = load(path)
    assert data.class_names == ("0", "1", "2", "3")
    assert data.notes[0].startswith("not used: class_names, 3 texts for labels from 1 to 3; from 1")
    facts = prepare(path, tmp_path / "b.h5", "--split", "1")
    assert [one["name"] for one in facts["classes"]] == NAMES
    assert "classes are named by class_names, from 1 up" in facts["notes"]
    assert rows_of(tmp_path / "b.h5", "y")["train"].tolist() == Y.tolist()
    y = Y.copy()
    y[7] = -1
    path = write(tmp_path / "c.h5", {"x": X, "y": y, "class_names": NAMES})
    words = ("--no-label=-1", "--missing", "drop", "--split", "1")
    facts = prepare(path, tmp_path / "d.h5", *words)
    assert [one["name"] for one in facts["classes"]] == NAMES
    assert rows_of(tmp_path / "d.h5", "y")["train"].tolist() == np.delete(Y, 7).tolist()


@pytest.mark.parametrize("names", [NAMES[:2], [*NAMES, "ant"], ["a", "a", "b"], [1, 2, 3], "eel"])
def test_a_list_that_does_not_fit_is_told_and_not_used(tmp_path, names):
    """Fewer and more than classes; what are no different texts is not even a list of names."""
    path = write(tmp_path / "a.h5", {"x": X, "y": Y, "class_names": names})
    np.savez(tmp_path / "a.npz", x=X, y=Y, class_names=np.array(names))
    told = f"not used: class_names, {len(names)} texts for labels from 0 to 2"
    is_list = names in (NAMES[:2], [*NAMES, "ant"])
    assert load(path).class_names == ("0", "1", "2")
    assert load(path).notes == ((told,) if is_list else ())
    for given in (path, tmp_path / "a.npz"):
        facts = prepare(given, tmp_path / "b.h5", "--force")
        assert [one["name"] for one in facts["classes"]] == ["0", "1", "2"]
        assert (told in facts["notes"]) is is_list


def test_names_of_several_files_are_used_if_they_are_the_same(tmp_path):
    """Else neither is; targets have none; --like keeps its own."""
    one = write(tmp_path / "1.h5", {"x": X, "y": Y, "class_names": NAMES})
    two = write(tmp_path / "2.h5", {"x": X + 300, "y": Y, "class_names": NAMES})
    other = write(tmp_path / "3.h5", {"x": X + 600, "y": Y, "class_names": NAMES[::-1]})
    assert load([str(one), str(two)]).class_names == tuple(NAMES)
    assert load([str(one), str(other)]).class_names == ("0", "1", "2")
    assert "named" not in " ".join(load(one, y_kind="targets").notes)
    plain = write(tmp_path / "4.h5", {"x": X, "y": Y})
    prepare(plain, tmp_path / "p.h5")
    prepare(one, tmp_path / "like.h5", "--like", tmp_path / "p.h5")
    assert rows_of(tmp_path / "like.h5", "y")["test"].tolist() == Y.tolist()
    prepare(one, tmp_path / "named.h5")
    prepare(two, tmp_path / "like2.h5", "--like", tmp_path / "named.h5")
    assert rows_of(tmp_path / "like2.h5", "y")["test"].tolist() == Y.tolist()
    with pytest.raises(DataError, match=r"expected classes of the file of --like, eel, dog, cat"):
        prepare(plain, tmp_path / "no.h5", "--like", tmp_path / "named.h5")


@pytest.mark.parametrize(
    "kind", ["soft link", "external link", "external storage", "long", "packed"]
)
def test_names_that_are_not_safe_to_read_are_passed_over(tmp_path, kind):
    """Rows are read all the same where the user names them; elsewhere what leads out of the file is refused."""
    path = write(tmp_path / "a.h5", {"x": X, "y": Y})
    secret = write(tmp_path / "secret.h5", {"class_names": NAMES})
    raw = np.array(NAMES, "S3")
    with h5py.File(path, "r+") as file:
        if kind == "soft link":
            file["names"] = NAMES
            file["class_names"] = h5py.SoftLink("/names")
        elif kind == "external link":
            file["class_names"] = h5py.ExternalLink(str(secret), "/class_names")
        elif kind == "external storage":
            (tmp_path / "raw").write_bytes(raw.tobytes())
            file.create_dataset("class_names", (3,), "S3", external=[(tmp_path / "raw", 0, 9)])
        elif kind == "long":
            file.create_dataset("class_names", (10**9,), "S100")
        else:
            file.create_dataset("class_names", data=raw, compression="lzf", chunks=(3,))
    data = load(path, arrays=("x", "y"))
    assert data.class_names == ("0", "1", "2")
    facts = prepare(path, tmp_path / "b.h5", "--x", "x", "--y", "y")
    assert [one["name"] for one in facts["classes"]] == ["0", "1", "2"]
