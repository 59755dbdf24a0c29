"""Text, sounds and pictures, and what training reads of them, from any number of ranks."""

import importlib.util

import h5py
import numpy as np
import pytest
from scipy.io import wavfile

from lepton_mpi.errors import DataError, LauncherError
from lepton_mpi.prepare import options
from lepton_mpi.prepare.readers import wav_folders
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.world.watchdog import PhaseClock
from tests.serial.data_files import load
from tests.serial.raw_files import (
    TEXT,
    prepare,
    same_on_ranks,
    write_pictures,
    write_sounds,
)
from tests.serial.test_prepare import rows_of
from tests.serial.thread_ranks import on_ranks

needs_pillow = pytest.mark.skipif(
    importlib.util.find_spec("PIL") is None, reason="Pillow, the extra images, is not installed"
)


# -- text --------------------------------------------------------------------------------------------


def test_characters_as_tokens(tmp_path):
    """x is a window of ids, y the next; the vocabulary gives the text back; no window crosses a split."""
    (tmp_path / "song.txt").write_text(TEXT)
    facts = same_on_ranks(
        tmp_path / "a.h5", tmp_path / "song.txt", "--context", "8", "--block", "999"
    )
    tokens = len(TEXT)
    stops = [round(tokens * 0.8), round(tokens * 0.9), tokens]
    lengths = np.diff([0, *stops])
    assert list(facts["splits"].values()) == [length - 8 for length in lengths]
    with h5py.File(tmp_path / "a.h5") as file:
        vocabulary = file["about/vocabulary"].asstr()[:]
        assert sorted(set(TEXT)) == vocabulary.tolist()
        assert file["train/x"].dtype == np.uint8
        assert (file["normalisation/shift"][()] == 0).all() and (file["normalisation/scale"][()] == 1).all()  # fmt: skip
        start = 0
        for split, stop in zip(("train", "validation", "test"), stops, strict=True):
            x, y = file[f"{split}/x"][()], file[f"{split}/y"][()]
            for i in range(len(x)):
                window = "".join(vocabulary[x[i]]) + vocabulary[y[i]]
                assert window == TEXT[start + i : start + i + 9]
            start = stop
    assert load(tmp_path / "a.h5").class_names[:2] == ("'\\n'", "' '")


def test_bytes_as_tokens_and_strides(tmp_path):
    """256 ids, whatever the file holds; windows further apart."""
    raw = bytes(range(256)) * 3
    (tmp_path / "a.txt").write_bytes(raw)
    words = (tmp_path / "a.txt", "--tokens", "bytes", "--context", "4", "--stride", "3", "--split", "1")  # fmt: skip
    same_on_ranks(tmp_path / "a.h5", *words, "--block", "100")
    x, y = rows_of(tmp_path / "a.h5")["train"], rows_of(tmp_path / "a.h5", "y")["train"]
    expected = [list(raw[i : i + 5]) for i in range(0, len(raw) - 4, 3)]
    assert np.array_equal(np.column_stack([x, y]), expected)


def test_text_of_many_characters_needs_more_than_bytes(tmp_path):
    """Ids above 255 are int32."""
    (tmp_path / "a.txt").write_text("".join(map(chr, range(0x4E00, 0x4E00 + 400))) * 2)
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--context", "2", "--split", "1")
    assert rows_of(tmp_path / "a.h5")["train"].dtype == np.int32
    assert rows_of(tmp_path / "a.h5", "y")["train"].dtype == np.int32


@pytest.mark.parametrize(
    ("raw", "words", "expected"),
    [
        (b"short", (), "expected more than --context 32 tokens"),
        (b"ab\n\xff" * 50, (), "line 2: expected text in utf-8, got byte 0xff"),
        (b"a\0b" * 50, (), "got a character 0; --tokens bytes"),
    ],
)
def test_texts_that_are_none(tmp_path, raw, words, expected):
    """Each is told why."""
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(DataError) as refused:
        prepare(tmp_path / "a.txt", tmp_path / "a.h5", *words)
    assert expected in str(refused.value)


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbfone\r\ntwo\r\n" * 1, b"one\ntwo\n", b"one\rtwo\r"])
def test_marks_and_line_ends_of_other_systems_are_no_characters(tmp_path, raw):
    """A byte order mark and carriage returns are left out and told; the tokens are those of the text without them."""
    (tmp_path / "a.txt").write_bytes(
        raw[:3] * raw.startswith(b"\xef") + raw.lstrip(b"\xef\xbb\xbf") * 20
    )
    words = ("--context", "4", "--split", "1")
    facts = same_on_ranks(tmp_path / "a.h5", tmp_path / "a.txt", *words)
    with h5py.File(tmp_path / "a.h5") as file:
        vocabulary = file["about/vocabulary"].asstr()[:].tolist()
    assert vocabulary == ["\n", *"enotw"] and facts["rows_read"] == 8 * 20 - 4
    assert any("carriage returns" in note for note in facts["notes"]) == (b"\r" in raw)
    assert ("byte order mark left out" in facts["notes"]) == raw.startswith(b"\xef")
    (tmp_path / "b.txt").write_bytes("one two three".encode("utf-16") * 9)
    with pytest.raises(DataError, match=r"b.txt: text in UTF-16: --encoding utf-16 reads it"):
        prepare(tmp_path / "b.txt", tmp_path / "b.h5", *words)


# -- sounds ------------------------------------------------------------------------------------------


def test_sounds_by_class(tmp_path):
    """Log-mel spectrograms: the tone is in its band; silence follows shorter files, and the report says so."""
    folder = write_sounds(tmp_path / "sounds")
    words = (folder, "--split", "1", "--seconds", "1", "--mel-bands", "20", "--block", "20000")
    facts = same_on_ranks(tmp_path / "a.h5", *words)
    assert facts["row_shape"] == [98, 20] and facts["dtype"] == "float32"
    assert "8 shorter files" in facts["notes"][0]
    x, y = rows_of(tmp_path / "a.h5")["train"], rows_of(tmp_path / "a.h5", "y")["train"]
    loudest = x[:, :40].mean(axis=1).argmax(axis=1)
    assert (loudest[y == 0] > 12).all() and (loudest[y == 1] < 6).all()
    assert np.allclose(x[:, 60:], np.log(1e-10))
    assert load(tmp_path / "a.h5").class_names == ("high", "low")


def test_mel_triangles_cover_the_spectrum():
    """Neighbours add up to 1 between the first and the last middle."""
    weights = wav_folders.mel_triangles(16000, 4096, 24)
    total = weights.sum(axis=0)
    middles = weights.argmax(axis=1)
    assert np.allclose(total[middles[0] + 1 : middles[-1]], 1)
    assert (np.diff(middles) > 0).all() and (weights >= 0).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
def test_samples_of_all_types_are_the_same_signal(kind):
    """From -1 to 1; of two channels the mean."""
    signal = np.array([-0.5, 0.0, 0.25])
    if kind == np.uint8:
        samples = (signal * 128 + 128).astype(kind)
    else:
        samples = (signal * (1 if kind == np.float32 else -float(np.iinfo(kind).min))).astype(kind)
    assert np.allclose(wav_folders.as_signal(samples), signal)
    assert np.allclose(wav_folders.as_signal(np.column_stack([samples, samples])), signal)


def test_looking_at_many_sounds_is_progress(tmp_path, monkeypatch):
    """For the time limit, on every rank, also on those that wait for the one that looks."""
    folder, entered = write_sounds(tmp_path / "sounds"), []
    chosen = options.parse([str(folder), "a.h5"])
    monkeypatch.setattr(wav_folders, "_FILES_OF_ROUND", 3)
    monkeypatch.setattr(PhaseClock, "enter", lambda _, phase, step=0: entered.append((phase, step)))
    on_ranks(2, lambda world: wav_folders.open_wav((Input(folder),), chosen, world))
    assert sorted(step for step in entered if step[0] != "start") == [
        ("compute", first) for first in (0, 0, 3, 3, 6, 6)
    ]


def test_sounds_that_differ(tmp_path):
    """Another rate is refused, or resampled if asked; damaged files are named."""
    folder = write_sounds(tmp_path / "sounds")
    wavfile.write(folder / "low" / "odd.wav", 16000, np.zeros(8000, np.int16))
    with pytest.raises(
        DataError, match=r"odd.wav: expected 8000 samples a second .* --sample-rate"
    ):
        prepare(folder, tmp_path / "a.h5")
    facts = prepare(folder, tmp_path / "a.h5", "--sample-rate", "8000", "--seconds", "0.5")
    assert facts["row_shape"] == [48, 40]
    (folder / "low" / "bad.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(DataError, match=r"bad.wav: not a readable .wav file"):
        prepare(folder, tmp_path / "b.h5")


# -- images ------------------------------------------------------------------------------------------


@needs_pillow
def test_images_by_class(tmp_path):
    """Pixels as they are, in the order of class and name."""
    x = write_pictures(tmp_path / "pictures")
    words = (tmp_path / "pictures", "--split", "1", "--block", "300")
    facts = same_on_ranks(tmp_path / "a.h5", *words)
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], x)
    assert [c["name"] for c in facts["classes"]] == ["kind0", "kind1", "kind2"]
    assert facts["normalisation"] == {"method": "pixels", "per": "channel"}


@needs_pillow
def test_images_by_split_and_class(tmp_path):
    """Folders train and test hold folders of classes; grey images have no channel."""
    train = write_pictures(tmp_path / "pictures" / "train", 12, (4, 4))
    write_pictures(tmp_path / "pictures" / "test", 6, (4, 4))
    facts = prepare(tmp_path / "pictures", tmp_path / "a.h5", "--split", "1")
    assert facts["splits"] == {"train": 12, "validation": 0, "test": 6}
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], train)


@needs_pillow
def test_images_that_differ(tmp_path):
    """In size, in colour, in being images; each is named, with what to do."""
    from PIL import Image

    folder = tmp_path / "pictures"
    write_pictures(folder)
    odd = folder / "kind2" / "odd.png"
    Image.new("RGB", (9, 9)).save(odd)
    with pytest.raises(
        DataError, match=r"odd.png: expected 6x5 pixels .* got 9x9; see --image-size"
    ):
        prepare(folder, tmp_path / "a.h5", ranks=2)
    assert prepare(folder, tmp_path / "a.h5", "--image-size", "7x8")["row_shape"] == [7, 8, 3]
    Image.new("L", (5, 6)).save(odd)
    with pytest.raises(DataError, match=r"odd.png: expected a rgb image .* got grey; see --colour"):
        prepare(folder, tmp_path / "b.h5")
    assert prepare(folder, tmp_path / "b.h5", "--colour", "grey")["row_shape"] == [6, 5]
    odd.write_bytes(b"\x89PNG no image")
    with pytest.raises(DataError, match=r"odd.png: not a readable image"):
        prepare(folder, tmp_path / "c.h5", ranks=3)


def test_images_without_pillow(tmp_path, monkeypatch):
    """Says what to install."""
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    (tmp_path / "pictures" / "a" / "1.png").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(LauncherError, match=r"pip install 'pillow>=10.0'"):
        prepare(tmp_path / "pictures", tmp_path / "a.h5")
