"""``prepare --stream``: texts in one piece, and what training makes of them."""

import h5py
import numpy as np
import pytest

from lepton_mpi.data.loader import Wanted
from lepton_mpi.data.loader import load as load_data
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare import inspection, text_pieces
from tests.serial.data_files import OneRank
from tests.serial.raw_files import TEXT, digest, prepare

UMLAUTS = "Äpfel und Öl — 日本語\r\n" * 30


def _load(path, **wanted):
    return load_data(str(path), Wanted(np.dtype(np.float32), **wanted), OneRank())


def _text_of(path, split: str) -> str:
    """What the tokens of a split stand for."""
    with h5py.File(path) as file:
        tokens = file[f"{split}/tokens"][()]
        content, ends = file["vocabulary/bytes"][()].tobytes(), file["vocabulary/ends"][()]
    starts = [0, *ends[:-1]]
    return b"".join(content[starts[t] : ends[t]] for t in tokens).decode()


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
@pytest.mark.parametrize("layout", ["chunked", "contiguous"])
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_the_stream_is_the_text(tmp_path, monkeypatch, tokens, layout, ranks, piece):
    """Divided in its order, each token once; the same from any number of ranks, in pieces of any length."""
    monkeypatch.setattr(text_pieces, "PIECE_BYTES", piece)
    source = tmp_path / "song.txt"
    source.write_bytes(UMLAUTS.encode())
    path = tmp_path / "a.h5"
    words = ("--stream", "--tokens", tokens, "--context", "16", "--layout", layout)
    facts = prepare(source, path, *words, ranks=ranks)
    whole = UMLAUTS.replace("\r\n", "\n") if tokens == "characters" else UMLAUTS.encode()
    stops = [round(len(whole) * 0.8), round(len(whole) * 0.9), len(whole)]
    assert facts["splits"] == {
        "train": stops[0],
        "validation": stops[1] - stops[0],
        "test": stops[2] - stops[1],
    }
    if tokens == "characters":
        assert [_text_of(path, split) for split in facts["splits"]] == [
            whole[: stops[0]], whole[stops[0] : stops[1]], whole[stops[1] :]
        ]  # fmt: skip
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 2 and file.attrs["format"] == b"lepton_mpi data"
        assert file["train/tokens"].dtype == np.uint8 and "document_starts" not in file["train"]
        assert file["train/tokens"].attrs["values"] == facts["values"]
        if tokens == "bytes":
            assert file["train/tokens"][()].tobytes() == whole[: stops[0]]
    data = _load(path, way="mapped" if layout == "contiguous" else "auto")
    assert data.y_kind == "tokens" and data.feature_shape == (16,)
    assert data.splits["train"].row_count == -(-(stops[0] - 1) // 16)
    assert len(data.vocabulary) == facts["values"] == data.output_count


def test_the_file_depends_on_the_text_alone(tmp_path, monkeypatch):
    """Neither on the length of pieces nor on the number of ranks."""
    (tmp_path / "a.txt").write_text(UMLAUTS)
    found = set()
    for piece, ranks in ((5, 1), (1 << 20, 1), (100, 2)):
        monkeypatch.setattr(text_pieces, "PIECE_BYTES", piece)
        path = tmp_path / f"{piece}.h5"
        prepare(tmp_path / "a.txt", path, "--stream", ranks=ranks)
        found.add(digest(path))
    assert len(found) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("piece", [1, 5, 1 << 20])
def test_marks_and_line_ends_of_other_systems_are_no_characters(
    tmp_path, monkeypatch, end, mark, piece
):
    """Of each file, wherever pieces are cut; the tokens are those of the text without them, and it is told."""
    monkeypatch.setattr(text_pieces, "PIECE_BYTES", piece)
    text = "eins Ä\n\nzwei\n\ufeffdrei\n" * 4  # a mark within a text is a character
    raw = (mark + text.replace("\n", end)).encode()
    for name in "ab":
        (tmp_path / f"{name}.txt").write_bytes(raw)
    words = (tmp_path / "a.txt", f"test={tmp_path / 'b.txt'}", tmp_path / "a.h5")
    facts = prepare(*words, "--stream", "--context", "8", "--split", "1", ranks=2)
    assert _text_of(tmp_path / "a.h5", "train") == text == _text_of(tmp_path / "a.h5", "test")
    assert facts["splits"] == {"train": len(text), "validation": 0, "test": len(text)}
    told = {"byte order mark left out": bool(mark), "line ends of other systems": "\r" in end}
    for words, expected in told.items():
        assert any(note.startswith(words) for note in facts["notes"]) == expected
    (tmp_path / "c.txt").write_bytes(text.encode("utf-16"))
    if piece > 1:  # of one byte it cannot be told
        with pytest.raises(DataError, match=r"c.txt: text in UTF-16: --encoding utf-16 reads it"):
            prepare(tmp_path / "c.txt", tmp_path / "c.h5", "--stream")
    prepare(tmp_path / "c.txt", tmp_path / "c.h5", "--stream", "--encoding", "utf-16", "--split", "1")  # fmt: skip
    assert _text_of(tmp_path / "c.h5", "train") == text


def test_files_are_documents(tmp_path):
    """Of a split, one behind the other: the first token of each does not count, but for that of the split."""
    for name, text in (("a", "abc" * 20), ("b", "bcd" * 10), ("c", "cde" * 15), ("d", "abe" * 9)):
        (tmp_path / f"{name}.txt").write_text(text)
    words = [f"train={tmp_path}/{name}.txt" for name in "abc"] + [f"test={tmp_path}/d.txt"]
    prepare(*words, tmp_path / "out.h5", "--stream", "--context", "8", "--split", "1")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["train/document_starts"][()].tolist() == [0, 60, 90]
        assert "document_starts" not in file["test"]
    data = _load(tmp_path / "out.h5")
    assert data.splits["train"].weights(np.arange(data.splits["train"].row_count)).sum() == 134 - 2
    assert data.splits["validation"].row_count == 0
    assert _text_of(tmp_path / "out.h5", "train") == "abc" * 20 + "bcd" * 10 + "cde" * 15


@pytest.mark.parametrize("values", [256, 257, 65_536, 65_537])
def test_ids_take_as_little_as_they_can(tmp_path, values):
    """uint8 up to 256 different characters, uint16 up to 65 536, int32 beyond."""
    points = [p for p in range(1, values + 5_000) if p != 13 and not 0xD800 <= p < 0xE000][:values]
    text = "".join(map(chr, points))
    (tmp_path / "a.txt").write_bytes(text.encode())
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--stream", "--split", "1")
    kind = "uint8" if values == 256 else "uint16" if values <= 65_536 else "int32"
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["train/tokens"].dtype == kind and file["train/tokens"].attrs["values"] == values
    assert _text_of(tmp_path / "a.h5", "train") == text
    assert len(_load(tmp_path / "a.h5").vocabulary) == values


def test_what_is_printed_is_what_inspect_prints(tmp_path, capsys):
    (tmp_path / "song.txt").write_text(TEXT)
    prepare(tmp_path / "song.txt", tmp_path / "a.h5", "--stream")
    said = capsys.readouterr().out
    assert said.splitlines()[:2] == [
        "source     song.txt: 1 140 characters",
        "format     text in one piece, 21 different characters, stored as uint8; rows of 32, unless training asks for others",
    ]
    assert (
        "splits     912 train, 114 validation, 114 test; divided in the order of the text" in said
    )
    assert inspection.text(tmp_path / "a.h5", 10) == said.split("wrote")[0].rstrip()
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["about"]
    assert "text in one piece, 21 different tokens, stored as uint8" in inspection.text(
        tmp_path / "a.h5", 3
    )


@pytest.mark.parametrize("options", [("--dry-run",), ("--compress", "gzip")])
def test_options_of_the_file(tmp_path, options):
    (tmp_path / "a.txt").write_text(TEXT)
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--stream", *options)
    assert (tmp_path / "a.h5").exists() == (options != ("--dry-run",))
    if "gzip" in options:
        with h5py.File(tmp_path / "a.h5") as file:
            assert file["train/tokens"].compression == "gzip"
        assert _text_of(tmp_path / "a.h5", "train") == TEXT[:912]


@pytest.mark.parametrize(
    ("content", "words", "error", "message"),
    [
        (b"short", (), DataError, "expected more than --context 32 tokens to train on, got 4"),
        (b"", (), DataError, "expected more than --context 32 tokens to train on, got 0"),
        (b"a\0b" * 50, (), DataError, "got a character 0; --tokens bytes"),
        (b"a\nb\xff" * 50, (), DataError, r"line 2: expected text in utf-8, got byte 0xff; see"),
        (b"a\nb" * 50 + b"\xc3", (), DataError, r"line 51: expected text in utf-8, got byte 0xc3"),
        (b"abc" * 50, ("--encoding", "klingon"), ConfigurationError, "expected an encoding"),
        (b"abc" * 50, ("--stride", "2"), ConfigurationError, "--stride: is for rows, got --stream"),
        (b"abc" * 50, ("--normalise", "none"), ConfigurationError, "--normalise: is for rows"),
    ],
)
@pytest.mark.parametrize("piece", [4, 1 << 20])
def test_texts_that_cannot_be(tmp_path, monkeypatch, content, words, error, message, piece):
    """One line each, on every rank, and no file."""
    monkeypatch.setattr(text_pieces, "PIECE_BYTES", piece)
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(error, match=message):
        prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--stream", *words, ranks=2)
    assert not list(tmp_path.glob("*a.h5*"))


def test_streams_are_of_texts(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigurationError, match="--stream: is for text, got inputs of format csv"):
        prepare(tmp_path / "a.csv", tmp_path / "a.h5", "--stream")


def test_another_text_with_the_ids_of_the_file(tmp_path):
    """By the file that was trained on; its context, all tokens for testing; the same bits on any number of ranks."""
    (tmp_path / "a.txt").write_text("abcdeäfgh\n" * 40)
    (tmp_path / "b.txt").write_text("häg" * 30)
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--stream", "--context", "7")
    words = (tmp_path / "b.txt", "--stream", "--like", tmp_path / "a.h5")
    facts = prepare(*words, tmp_path / "b.h5")
    prepare(*words, tmp_path / "c.h5", ranks=3)
    assert digest(tmp_path / "b.h5") == digest(tmp_path / "c.h5")
    assert facts["splits"] == {"train": 0, "validation": 0, "test": 90}
    opened = load_data(str(tmp_path / "b.h5"), Wanted(np.dtype("f4"), for_training=False), OneRank())  # fmt: skip
    known = opened.vocabulary
    assert known == tuple(letter.encode() for letter in sorted("abcdeäfgh\n"))
    assert opened.y_kind == "tokens" and opened.feature_shape == (7,)
    with h5py.File(tmp_path / "b.h5") as file:
        assert b"".join(known[token] for token in file["test/tokens"][:6]).decode() == "häghäg"
        assert "train" not in file
    facts = prepare(*words, "--split", "0.5,0,0.5", tmp_path / "d.h5", "--context", "4")
    assert facts["splits"]["train"] == 45 and facts["options"]["context"] == 4
    facts = prepare(f"train={tmp_path / 'b.txt'}", *words[1:], tmp_path / "e.h5")
    assert facts["splits"]["train"] == 90


def test_what_cannot_be_taken_from_the_file(tmp_path):
    """Characters that it has not; rows of a table for a text, and the other way round."""
    (tmp_path / "a.txt").write_text("abcdefgh" * 40)
    (tmp_path / "b.txt").write_text("abc xyz" * 40)
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--stream")
    prepare(tmp_path / "a.txt", tmp_path / "rows.h5")
    out = tmp_path / "b.h5"
    with pytest.raises(DataError, match="the 8 tokens of the file of --like, got others: ' ', 'x', 'y', 'z'"):  # fmt: skip
        prepare(tmp_path / "b.txt", out, "--stream", "--like", tmp_path / "a.h5", ranks=2)
    with pytest.raises(DataError, match="rows were prepared, no text in one piece: leave out --stream"):  # fmt: skip
        prepare(tmp_path / "a.txt", out, "--stream", "--like", tmp_path / "rows.h5")
    with pytest.raises(DataError, match="a text in one piece was prepared; add --stream"):
        prepare(tmp_path / "a.txt", out, "--like", tmp_path / "a.h5")
    assert not out.exists()
