"""Folders as people have them: what is left out is counted, what may mean two things is asked about."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from lepton_mpi.errors import ConfigurationError, DataError
from tests.serial.raw_files import prepare, same_on_ranks
from tests.serial.test_prepare import rows_of

needs_pillow = pytest.mark.skipif(
    importlib.util.find_spec("PIL") is None, reason="Pillow, the extra images, is not installed"
)
KINDS = [pytest.param("images", marks=needs_pillow), "wav"]


def write_file(kind: str, path: Path, number: int) -> None:
    """A file of a row of its own, told by its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "images":
        from PIL import Image

        Image.fromarray(np.full((4, 4), number, np.uint8)).save(path.with_suffix(".png"))
    else:
        samples = np.sin(np.arange(800) * 0.02 * (number + 1)) * 9000
        wavfile.write(path.with_suffix(".wav"), 8000, samples.astype(np.int16))


def _classes(kind: str, folder: Path, *names: str, rows: int = 4) -> Path:
    for place, name in enumerate(names):
        for number in range(rows):
            write_file(kind, folder / name / f"{number}", 10 * place + number)
    return folder


def suffix_of(kind: str) -> str:
    return ".png" if kind == "images" else ".wav"


WORDS = {"images": (), "wav": ("--seconds", "0.1")}


def _prepare(kind: str, folder: Path, *words: str) -> dict:
    out = folder.parent / "out.h5"
    return prepare(folder, out, "--force", "--split", "1", *WORDS[kind], *words)


@pytest.mark.parametrize("kind", KINDS)
def test_what_systems_put_beside_files_is_left_out_and_counted(tmp_path, kind):
    """In folders of classes, around them, and with the suffixes of files that are read; the rows are those without them."""
    clean = _prepare(kind, _classes(kind, tmp_path / "clean", "a", "b"))
    expected = rows_of(tmp_path / "out.h5")["train"]
    folder, suffix = _classes(kind, tmp_path / "full", "a", "b"), suffix_of(kind)
    (folder / "a" / f"._0{suffix}").write_bytes(b"\0\5\x16\7Mac OS X        ")
    (folder / "__MACOSX" / "a").mkdir(parents=True)
    (folder / "__MACOSX" / "a" / f"._0{suffix}").write_bytes(b"\0\5\x16\7")
    write_file(kind, folder / "a" / ".ipynb_checkpoints" / "0-checkpoint", 0)
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "b" / ".DS_Store").write_bytes(b"x")
    facts = _prepare(kind, folder)
    assert np.array_equal(rows_of(tmp_path / "out.h5")["train"], expected)
    assert [one["name"] for one in facts["classes"]] == ["a", "b"]
    (note,) = (note for note in facts["notes"] if "hidden" in note)
    assert (
        note == "5 hidden files left out (.DS_Store, ._*, .ipynb_checkpoints, Thumbs.db, __MACOSX)"
    )
    assert not any("left out" in note for note in clean["notes"])


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_files_beside_splits_are_counted(tmp_path, kind):
    """As a zip of a Mac leaves them."""
    for split in ("train", "test"):
        _classes(kind, tmp_path / "full" / split, "a", "b")
    (tmp_path / "full" / "__MACOSX" / "train").mkdir(parents=True)
    (tmp_path / "full" / "__MACOSX" / "train" / f"._0{suffix_of(kind)}").write_bytes(b"\0")
    facts = _prepare(kind, tmp_path / "full")
    assert facts["splits"] == {"train": 8, "validation": 0, "test": 8}
    assert "1 hidden file left out (__MACOSX)" in facts["notes"]


@pytest.mark.parametrize("kind", KINDS)
def test_files_with_other_suffixes_are_counted_by_suffix(tmp_path, kind):
    """Also those beside the folders of the classes."""
    folder = _classes(kind, tmp_path / "full", "a", "b")
    for name in ("a/x.flac", "b/y.flac", "b/z.MP4", "notes.txt", "b/LICENSE"):
        (folder / name).write_bytes(b"x")
    write_file(kind, folder / "top", 3)
    facts = _prepare(kind, folder)
    assert (
        "5 files of other kinds left out: 1 without suffix, 2 .flac, 1 .mp4, 1 .txt"
        in facts["notes"]
    )
    assert "1 file beside the folders of classes left out" in facts["notes"]
    assert facts["rows_read"] == 8


@needs_pillow
def test_other_suffixes_of_images_are_read(tmp_path):
    """As browsers save them."""
    folder = _classes("images", tmp_path / "full", "a", "b")
    from PIL import Image

    for name in ("a/x.jfif", "b/y.jpe", "b/z.JPG"):
        Image.fromarray(np.full((4, 4), 9, np.uint8)).save(folder / name, format="JPEG")
    assert _prepare("images", folder)["rows_read"] == 11


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_a_file_to_read_is_no_class(tmp_path, kind):
    """And is told."""
    folder = _classes(kind, tmp_path / "full", "a", "b")
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.md").write_text("hello")
    facts = _prepare(kind, folder)
    assert [one["name"] for one in facts["classes"]] == ["a", "b"]
    assert "no file to read in notes: no class" in facts["notes"]


@pytest.mark.parametrize("kind", KINDS)
def test_splits_among_classes_are_asked_about_and_the_remedies_work(tmp_path, kind):
    """Three splits and another folder would be four classes; both ways on are in the message."""
    root = tmp_path / "xray"
    for split in ("train", "val", "test"):
        _classes(kind, root / split, "a", "b")
    for number in range(4):
        write_file(kind, root / "models" / f"{number}", number)
    with pytest.raises(
        DataError, match=r"test, train, val are names of splits, models of none"
    ) as asked:
        _prepare(kind, root)
    words = str(asked.value).partition("? ")[2].split(" takes")[0].split()
    assert [word.split("=")[0] for word in words] == ["train", "validation", "test"]
    facts = prepare(*words, tmp_path / "a.h5", *WORDS[kind])
    assert facts["splits"] == {"train": 8, "validation": 8, "test": 8}
    assert [one["name"] for one in facts["classes"]] == ["a", "b"]
    facts = prepare(f"train={root}", tmp_path / "b.h5", *WORDS[kind])
    assert [one["name"] for one in facts["classes"]] == ["models", "test", "train", "val"]
    (root / "models").rename(tmp_path / "models")
    (root / "weights").mkdir()
    (root / "weights" / "net.pt").write_bytes(b"x")
    assert _prepare(kind, root)["splits"] == {"train": 8, "validation": 8, "test": 8}


@pytest.mark.parametrize("kind", KINDS)
def test_classes_one_folder_deeper_are_found(tmp_path, kind):
    """As archives unpack, also below each split."""
    _classes(kind, tmp_path / "one" / "data" / "sets", "a", "b")
    facts = _prepare(kind, tmp_path / "one")
    assert [one["name"] for one in facts["classes"]] == ["a", "b"]
    assert "classes are one folder deeper, in data" in facts["notes"]
    for split in ("train", "test"):
        _classes(kind, tmp_path / "two" / "data" / split / "all", "a", "b")
    facts = _prepare(kind, tmp_path / "two")
    assert facts["splits"] == {"train": 8, "validation": 0, "test": 8}


@pytest.mark.parametrize("kind", KINDS)
def test_folders_that_look_like_no_class_are_asked_about(tmp_path, kind):
    """_background_noise_ of Speech Commands: left out, or kept."""
    folder = _classes(kind, tmp_path / "speech", "_background_noise_", "no", "yes")
    with pytest.raises(
        DataError, match=r"_background_noise_: a class\? --drop-classes _background_noise_"
    ):
        _prepare(kind, folder)
    facts = _prepare(kind, folder, "--drop-classes", "_background_noise_")
    assert [one["name"] for one in facts["classes"]] == ["no", "yes"] and facts["rows_read"] == 8
    assert len(_prepare(kind, folder, "--drop-classes", "none")["classes"]) == 3
    with pytest.raises(ConfigurationError, match=r"--drop-classes: no class is called maybe"):
        _prepare(kind, folder, "--drop-classes", "maybe")


@pytest.mark.parametrize("kind", KINDS)
def test_folds_are_no_classes(tmp_path, kind):
    """Flat ones need a table; those with classes in them stay together with --group fold."""
    flat = _classes(kind, tmp_path / "flat", "fold1", "fold2", "fold10")
    with pytest.raises(
        DataError, match=r"fold1, fold10, fold2 are folds, no classes: .* --files COLUMN --folder"
    ):
        _prepare(kind, flat)
    for fold in range(1, 6):
        _classes(kind, tmp_path / "deep" / f"fold{fold}", "a", "b")
    with pytest.raises(DataError, match=r"--group fold"):
        _prepare(kind, tmp_path / "deep")
    out = tmp_path / "a.h5"
    words = ("--group", "fold", "--split", "0.6,0.2,0.2", *WORDS[kind])
    facts = same_on_ranks(out, tmp_path / "deep", *words, "--block", "100")
    assert facts["splits"] == {"train": 24, "validation": 8, "test": 8}
    assert [one["rows"] for one in facts["classes"]] == [[12, 4, 4], [12, 4, 4]]
    with pytest.raises(ConfigurationError, match=r"--group: of folders it is fold"):
        _prepare(kind, tmp_path / "deep", "--group", "speaker")


# -- files that cannot be read -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_cannot_be_read_are_left_out_if_asked(tmp_path, kind):
    """With a count, the same on any number of ranks, also the first of all, and all of a block."""
    folder = _classes(kind, tmp_path / "full", "a", "b")
    expected = _prepare(kind, folder) and rows_of(tmp_path / "out.h5")["train"]
    for name in ("a/0", "b/2"):
        (folder / name).with_suffix(suffix_of(kind)).write_bytes(b"no such thing")
    with pytest.raises(DataError, match=r"0\.\w+: not a readable .*--unreadable drop"):
        _prepare(kind, folder)
    words = (folder, "--unreadable", "drop", "--split", "1", *WORDS[kind])
    facts = same_on_ranks(tmp_path / "a.h5", *words, "--block", "64")
    assert "2 x file that cannot be read left out" in facts["notes"] and facts["rows_read"] == 6
    kept = [1, 2, 3, 4, 5, 7]
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], expected[kept])
    assert rows_of(tmp_path / "a.h5", "y")["train"].tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (
            lambda good: good[: len(good) // 3],
            "expected 1600 bytes of samples as its head says, got ",
        ),
        (lambda good: good[:44].replace((1600).to_bytes(4, "little"), bytes(4)), "no sample"),
        (lambda good: good[:40], "not a readable .wav file"),
    ],
    ids=["truncated", "empty", "head only"],
)
def test_sounds_that_are_not_whole_are_named(tmp_path, raw, words):
    """They were filled up with silence."""
    folder = _classes("wav", tmp_path / "speech", "no", "yes")
    path = folder / "no" / "1.wav"
    path.write_bytes(raw(path.read_bytes()))
    with pytest.raises(DataError) as refused:
        _prepare("wav", folder)
    assert str(refused.value).startswith(f"{path}: ") and words in str(refused.value)
    assert _prepare("wav", folder, "--unreadable", "drop")["rows_read"] == 7


def test_sounds_of_a_length_that_was_not_known_are_whole(tmp_path):
    """Programs that write into a pipe leave the largest number, or none, in the head."""
    folder = _classes("wav", tmp_path / "speech", "no", "yes")
    expected = _prepare("wav", folder) and rows_of(tmp_path / "out.h5")["train"]
    path = folder / "no" / "1.wav"
    good = path.read_bytes()
    path.write_bytes(good[:40] + b"\xff" * 4 + good[44:])
    _prepare("wav", folder)
    assert np.array_equal(rows_of(tmp_path / "out.h5")["train"], expected)


@needs_pillow
def test_warnings_of_pillow_are_counted(tmp_path, recwarn):
    """A palette with transparency, EXIF that is cut: images that every viewer shows."""
    from PIL import Image

    folder = tmp_path / "web"
    for number, name in enumerate(("a/0", "a/1", "b/0", "b/1")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number * 40, 9, 9)).save(folder / f"{name}.png")
    palette = Image.new("P", (16, 16), 3)
    palette.putpalette([value for colour in range(256) for value in (colour, 30, 30)])
    palette.save(folder / "a" / "sprite.png", transparency=bytes([0, 64, 128, 255] * 64))
    exif = Image.Exif()
    exif[0x010F] = "camera maker" * 8
    Image.new("RGB", (16, 16)).save(folder / "b" / "phone.jpg", exif=exif.tobytes()[:-60])
    facts = same_on_ranks(tmp_path / "a.h5", folder, "--split", "1", "--block", "900")
    assert facts["rows_read"] == 6
    assert rows_of(tmp_path / "a.h5")["train"][2, 0, 0].tolist() == [3, 30, 30]
    notes = [note for note in facts["notes"] if note.startswith("1 x")]
    assert "1 x image whose transparency is left out" in notes
    assert any("Palette images with Transparency" in note for note in notes)
    assert [warning for warning in recwarn if "PIL" in str(warning.filename)] == []


@needs_pillow
def test_images_too_large_to_be_meant_well_stay_refused(tmp_path, monkeypatch):
    """Whatever is done with other warnings."""
    from PIL import Image

    folder = _classes("images", tmp_path / "full", "a", "b")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    with pytest.raises(DataError, match=r"decompression bomb"):
        _prepare("images", folder)


@needs_pillow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_photographs_are_upright(tmp_path, orientation, suffix):
    """In each of the eight orientations of EXIF, as viewers show them."""
    from PIL import Image

    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[8:, :8] = 240, 120
    for name in ("a", "b"):
        (tmp_path / "phone" / name).mkdir(parents=True)
        Image.fromarray(upright).save(tmp_path / "phone" / name / f"0{suffix}", quality=95)
    # What a camera stores: turning it as the number says must give the upright one.
    undo = {1: [], 2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}[orientation]
    stored = Image.fromarray(upright)
    for method in undo:
        stored = stored.transpose(Image.Transpose(method))
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {"compression": "tiff_lzw"} if suffix == ".tif" else {"quality": 95}
    stored.save(tmp_path / "phone" / "b" / f"1{suffix}", exif=exif, **more)
    facts = prepare(tmp_path / "phone", tmp_path / "a.h5", "--split", "1")
    rows = rows_of(tmp_path / "a.h5")["train"].astype(int)
    assert np.abs(rows - upright).max() < 30
    if suffix != ".tif":  # Pillow turns those itself
        assert ("1 x image turned as its EXIF says" in facts["notes"]) == (orientation > 1)


@pytest.mark.parametrize("kind", KINDS)
def test_small_classes_are_in_validation_and_test(tmp_path, kind):
    """Not both files from one class; and a class that a split has no file of is named."""
    for number in range(12):
        folder = tmp_path / "files" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        write_file(kind, folder / f"{number}", number)
    facts = prepare(tmp_path / "files", tmp_path / "a.h5")
    assert [one["rows"] for one in facts["classes"]] == [[5, 1, 0], [5, 0, 1]]
