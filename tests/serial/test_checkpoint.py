"""Checkpoints: what is saved comes back, and damage is never silent.

LEPTON_DAMAGED=1000 python -m pytest tests/serial/test_checkpoint.py -k never_silent      flips, and a fifth as many truncations
"""

import dataclasses
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_mpi.errors import DataError
from lepton_mpi.run import checkpoint, checkpoint_folder
from tests.serial import attacks, hostile_files, hostile_outcomes, raw_files
from tests.serial.made_checkpoints import small_checkpoint

_DAMAGED = int(os.environ.get("LEPTON_DAMAGED", "300"))


def _same(a: checkpoint.Checkpoint, b: checkpoint.Checkpoint) -> bool:
    """Whether all that a run depends on is equal, to the bit."""
    pairs = [(a.parameters, b.parameters), *zip(a.normalisation, b.normalisation, strict=True)]
    if (
        list(a.layout.shapes.items()) != list(b.layout.shapes.items())
        or a.state.keys() != b.state.keys()
    ):
        return False
    pairs += [(a.state[name], b.state[name]) for name in a.state]
    own = {"format", "version", "weights_digest", "content_digest", "names"}
    attributes = [
        {key: value for key, value in c.attributes.items() if key not in own} for c in (a, b)
    ]
    return attributes[0] == attributes[1] and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loading_gives_what_was_saved(tmp_path, dtype):
    """Names, their order, shapes, types, bits of all vectors and attributes come back."""
    saved = small_checkpoint(12, dtype)
    path = checkpoint_folder.save(tmp_path, saved)
    assert path.name == "step-00000012.h5"
    assert _same(checkpoint.load(path), saved)


@pytest.mark.parametrize(
    "shape", [(np.int64(2), np.int64(3)), [2, 3]], ids=["NumPy numbers", "list"]
)
def test_shapes_of_a_users_model_come_back_however_they_are_written(tmp_path, shape):
    """A checkpoint of a model whose shapes are lists or NumPy integers is not taken for a damaged one."""
    path = checkpoint_folder.save(tmp_path, small_checkpoint(1, shapes={"w": shape}))
    assert dict(checkpoint.load(path).layout.shapes) == {"w": (2, 3)}


def test_an_optimizer_without_state(tmp_path):
    """Plain SGD: a checkpoint without any vector of state can be read."""
    saved = dataclasses.replace(small_checkpoint(1), state={})
    assert _same(checkpoint.load(checkpoint_folder.save(tmp_path, saved)), saved)


def test_not_finite_numbers_come_back(tmp_path):
    """NaN, infinities and negative zero keep their bits."""
    saved = small_checkpoint(1)
    saved.parameters[:4] = np.nan, np.inf, -np.inf, -0.0
    assert _same(checkpoint.load(checkpoint_folder.save(tmp_path, saved)), saved)


def test_the_last_two_of_a_run_are_kept(tmp_path):
    """Older checkpoints of the run are removed, and nothing else: files of other runs may be somebody's best."""
    (tmp_path / "notes.txt").write_text("mine")
    earlier = [
        checkpoint_folder.save(tmp_path, small_checkpoint(step)).name for step in (7, 8, 900)
    ]
    own = []
    for step in (1, 5, 30, 200):
        checkpoint_folder.save(tmp_path, small_checkpoint(step), own)
    kept = ["step-00000030.h5", "step-00000200.h5"]
    assert [path.name for path in own] == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["notes.txt", *earlier, *kept]
    )


def test_what_a_run_has_kept_is_found_again(tmp_path):
    """To be removed when the run goes on: the file it goes on from and an older one of a lower step."""
    paths = [checkpoint_folder.save(tmp_path, small_checkpoint(step)) for step in (540, 1, 2, 3)]
    assert checkpoint_folder.of_the_same_run(paths[3]) == paths[2:]
    assert checkpoint_folder.of_the_same_run(paths[2]) == paths[1:3]
    assert checkpoint_folder.of_the_same_run(paths[1]) == paths[1:2]
    moved = paths[3].rename(tmp_path / "best.h5")
    assert checkpoint_folder.of_the_same_run(moved) == []


def test_a_new_run_in_an_old_folder_keeps_what_it_saves(tmp_path):
    """Files of an earlier, longer run do not push out the checkpoint that was just written."""
    for step in (500, 600):
        checkpoint_folder.save(tmp_path, small_checkpoint(step))
    path = checkpoint_folder.save(tmp_path, small_checkpoint(10))
    assert path.exists()
    assert checkpoint.load(path).attributes["step"] == 10


def test_a_clock_that_is_put_back_loses_nothing(tmp_path):
    """What was written last stays and is the newest, whatever the clock said when the others were."""
    own = []
    for step in (1, 2):
        path = checkpoint_folder.save(tmp_path, small_checkpoint(step), own)
        os.utime(path, (2e9 + step, 2e9 + step))
    paths = [checkpoint_folder.save(tmp_path, small_checkpoint(step), own) for step in (3, 4, 4)]
    assert checkpoint_folder.newest_first(tmp_path) == [paths[2], paths[0]]
    assert checkpoint.load(paths[2]).attributes["step"] == 4


@pytest.mark.parametrize(
    ("where", "function", "error"),
    [
        (os, "replace", OSError),
        (os, "fsync", OSError),
        (h5py.File, "create_dataset", RuntimeError),
    ],
    ids=["replace", "fsync", "create_dataset"],
)
def test_an_interrupted_save_leaves_the_earlier_file(tmp_path, monkeypatch, where, function, error):
    """If writing fails, the checkpoint of that name is the earlier one, whole, and nothing of the new one is left."""
    earlier = small_checkpoint(7)
    path = checkpoint_folder.save(tmp_path, earlier)

    def fail(*_, **__):
        raise error("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(where, function, fail)
        other = small_checkpoint(8)
        with pytest.raises(OSError, match="disk full"):
            checkpoint_folder.save(
                tmp_path, checkpoint.Checkpoint(**{**vars(other), "attributes": earlier.attributes})
            )
    assert _same(checkpoint.load(path), earlier)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("limit_bytes", [100, 1500, 7000])
def test_a_disk_that_is_full_is_an_error_that_can_be_caught(tmp_path, limit_bytes):
    """Not one of HDF5's from where nobody can catch it, which pytest would show as a warning."""
    with raw_files.full_disk(limit_bytes), pytest.raises(OSError, match="File too large"):
        checkpoint_folder.save(tmp_path, small_checkpoint(1, shapes={"w": (1000,)}))
    assert list(tmp_path.iterdir()) == []


def test_what_others_write_stays(tmp_path):
    """Half of a checkpoint may be that of a run that is writing it; who owns the folder removes it."""
    left = tmp_path / "step-00000006.h5.abc.tmp"
    left.write_text("half of one")
    path = checkpoint_folder.save(tmp_path, small_checkpoint(7))
    assert sorted(file.name for file in tmp_path.iterdir()) == [left.name, path.name]
    checkpoint_folder.remove_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


class _File:
    """A checkpoint and the bytes of its file; prints short, as Hypothesis wants it."""

    def __init__(self, folder) -> None:
        self.saved = small_checkpoint(3)
        self.content = checkpoint_folder.save(folder, self.saved).read_bytes()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> _File:
    return _File(tmp_path_factory.mktemp("whole"))


def _load_bytes(folder, content: bytes) -> checkpoint.Checkpoint:
    path = folder / "damaged.h5"
    path.write_bytes(content)
    return checkpoint.load(path)


@settings(max_examples=_DAMAGED, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), length=st.integers(1, 4)
)
def test_flipped_bytes_are_never_silent(tmp_path, file, position, flip, length):
    """A file with a few changed bytes raises DataError, or the bytes meant nothing and all comes back."""
    content = bytearray(file.content)
    start = int(position * len(content))
    for index in range(start, min(start + length, len(content))):
        content[index] ^= flip
    try:
        loaded = _load_bytes(tmp_path, bytes(content))
    except DataError as error:
        assert "damaged.h5" in str(error)
    else:
        assert _same(loaded, file.saved)


def test_damage_that_a_fletcher_sum_cannot_see_is_found(tmp_path):
    """A Fletcher sum takes 0x0000 for 0xffff; parameters and optimizer state have a checksum that does not."""
    saved = small_checkpoint(3)
    for name, vector in {"parameters": saved.parameters, **saved.state}.items():
        vector[:] = np.arange(1, vector.size + 1)
        vector[5:35] = 0
        content = checkpoint_folder.save(tmp_path, saved).read_bytes()
        place = content.index(vector[3:10].tobytes()) + 12
        with pytest.raises(DataError):
            _load_bytes(tmp_path, content[:place] + b"\xff\xff" + content[place + 2 :])
            pytest.fail(f"a changed element of {name} was not noticed")
        vector[:] = 0.5


@settings(max_examples=_DAMAGED // 5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_never_silent(tmp_path, file, part):
    """A file that ends early raises DataError naming it."""
    with pytest.raises(DataError, match=r"damaged\.h5"):
        _load_bytes(tmp_path, file.content[: int(part * len(file.content))])


def _other_format(file: h5py.File) -> None:
    file.attrs["format"] = "of somebody else"


def _no_format(file: h5py.File) -> None:
    del file.attrs["format"]


def _future_version(file: h5py.File) -> None:
    file.attrs["version"] = 99


def _version_in_words(file: h5py.File) -> None:
    file.attrs["version"] = "one"


def _no_digest(file: h5py.File) -> None:
    del file.attrs["weights_digest"]


def _no_names(file: h5py.File) -> None:
    del file.attrs["names"]


def _names_are_no_list(file: h5py.File) -> None:
    file.attrs["names"] = "3"


def _parameter_missing(file: h5py.File) -> None:
    del file["parameters/layer0/bias"]


def _parameter_is_a_group(file: h5py.File) -> None:
    del file["parameters/scale"]
    file.create_group("parameters/scale")


def _optimizer_is_a_data_set(file: h5py.File) -> None:
    del file["optimizer"]
    file["optimizer"] = np.zeros(3)


def _state_is_too_short(file: h5py.File) -> None:
    del file["optimizer/first_moment"]
    file["optimizer/first_moment"] = np.zeros(3, np.float32)


def _no_normalisation(file: h5py.File) -> None:
    del file["normalisation"]


CHANGES = [
    _other_format,
    _no_format,
    _future_version,
    _version_in_words,
    _no_digest,
    _no_names,
    _names_are_no_list,
    _parameter_missing,
    _parameter_is_a_group,
    _optimizer_is_a_data_set,
    _state_is_too_short,
    _no_normalisation,
]


def _changed(folder, file: _File, change, *rest) -> Path:
    """A changed copy of a checkpoint, with a digest that fits, as anybody can write one."""
    path = folder / "changed.h5"
    path.write_bytes(file.content)
    with h5py.File(path, "r+") as opened:
        change(opened, *rest)
    with path.open("r+b") as raw:
        raw.write(checkpoint._head(path))
    return path


def _refusal(path: Path) -> str:
    """The one line in which a checkpoint is refused, without its beginning, the path."""
    with pytest.raises(DataError) as caught:
        checkpoint.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_files_of_another_kind_are_refused(tmp_path, file, change):
    """A valid HDF5 file that is no checkpoint, or one with parts missing or of another kind, raises DataError."""
    assert "digest does not fit" not in _refusal(_changed(tmp_path, file, change))


def _set(place: str, value):
    def change(file: h5py.File) -> None:
        del file[place]
        file[place] = value

    return change


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("parameters/layer0/bias", np.zeros(5, int), "parameters: expected numbers of one type"),
        ("parameters/layer0/bias", np.zeros(5, "S1"), "expected numbers, got texts"),
        (
            "optimizer/first_moment",
            np.zeros((1, 2), np.float32),
            "optimizer/first_moment: expected",
        ),
        ("optimizer/first_moment", np.zeros(3, np.float32), "optimizer/first_moment: expected"),
        ("normalisation/shift", np.float32(0), "normalisation/shift: expected"),
        ("normalisation/shift", np.zeros((2, 2), np.float32), "normalisation/shift: expected"),
        ("normalisation/scale", np.zeros(3, np.float32), "normalisation/scale: expected"),
        ("normalisation/scale", np.full(4, np.nan, np.float32), "expected finite float32"),
        ("normalisation/scale", np.full(4, 1e300), "expected finite float32"),
        ("normalisation/scale", np.zeros(4, int), "normalisation/scale: expected float32"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, file, place, value, words):
    """Kernels check neither types nor lengths, so a file from elsewhere must not decide them."""
    assert words in _refusal(_changed(tmp_path, file, _set(place, value)))


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("attack", attacks.ANYWHERE, ids=lambda attack: attack.__name__)
def test_hostile_checkpoints_are_refused(tmp_path, file, attack):
    """What must not be in a data file must not be in a checkpoint, whatever its digest says."""
    secret = hostile_files.make_secret(tmp_path)
    with hostile_outcomes.watched(secret) as events:
        path = _changed(tmp_path, file, attack, "optimizer/mine", secret)
        assert "secret" not in _refusal(path) and events() == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("[1, 2]", "TypeError"),
        ("{}", "hidden"),
        ('{"hidden": 3}', "--hidden: expected"),
        ('{"hidden": [], "epoch": 3}', "did you mean epochs"),
        ('{"hidden": [], "data": 3}', "--data: expected"),
        ('{"hidden": [], "model": "mlp", "seed": -1}', "--seed"),
        ("[" * 100_000, "recursion"),
    ],
    ids=["empty", "list", "nothing", "number", "unknown", "no path", "negative", "deep"],
)
def test_configurations_of_another_kind_are_refused(file, text, words):
    """Of a checkpoint that is a good one in all else."""
    saved = dataclasses.replace(
        file.saved, attributes=file.saved.attributes | {"configuration": text}
    )
    with pytest.raises(DataError, match=r"a\.h5: attribute configuration: ") as caught:
        checkpoint.configuration(saved.attributes, Path("a.h5"))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text\n", None], ids=["empty", "text", "missing"])
def test_what_is_no_hdf5_file_is_refused(tmp_path, content):
    """No file, an empty one and a text raise DataError in one line naming the path."""
    path = tmp_path / "none.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"none\.h5: ") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)
