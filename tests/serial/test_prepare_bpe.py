"""``prepare --tokens bpe``: the ids are those of the library on the whole text, whatever the pieces, ranks and texts are."""

import json
import sys

import h5py
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from lepton_mpi.data import tokenizer_facts
from lepton_mpi.data.byte_pairs import BytePairs, Training
from lepton_mpi.data.loader import Wanted
from lepton_mpi.data.loader import load as load_data
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError
from lepton_mpi.prepare import byte_pair_streams, inspection, text_pieces
from tests.serial.data_files import OneRank
from tests.serial.raw_files import TEXT, digest, prepare, same_on_ranks

WORDS = (
    "Ein Text, den es zweimal gibt; it's two of 12 things.\n\n  Indented — ja? «Öl»!\n"
    "日本語の文。\n次の行 です \U0001f600\U0001f468\u200d\U0001f469 e\u0301e\u0301 We'LL see\t3.14159.\n"
)
ODD = {
    "plain": WORDS * 12,
    "emoji": "Go \U0001f600\U0001f680! \U0001f468\u200d\U0001f469\u200d\U0001f467 yes " * 30,
    "CRLF": "one line\r\nand another \r\n\r\n" * 30,
    "character 0": "a\0b c\0\0 d\nab cab\n" * 40,
    "white space": "a  \t b\n \n\n\u3000 c \u00a0\u2003 d\x1c e\x85 f\u2028 g   " * 20,
    "numbers": "12 3456 78901,5 ½ Ⅷ ٣٤ 9_000 " * 30,
}


def _library(words: list) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(words)
    made.decoder = decoders.ByteLevel()
    return made


def _trained(text: str, size: int, pattern: str | None = None) -> Tokenizer:
    """By the library alone, on the whole text."""
    words = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)]
    if pattern is not None:
        words.insert(0, pre_tokenizers.Split(Regex(pattern), "isolated"))
    made = _library(words)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    how = {"initial_alphabet": alphabet, "min_frequency": 2, "show_progress": False}
    made.train_from_iterator([text], trainers.BpeTrainer(vocab_size=size, **how))
    return made


def _ids(path) -> list[int]:
    """Of all splits, one behind the other."""
    with h5py.File(path) as file:
        splits = (split for split in ("train", "validation", "test") if split in file)
        return [token for split in splits for token in file[f"{split}/tokens"][()].tolist()]


def _text(path, split: str) -> bytes:
    with h5py.File(path) as file:
        tokens, ends = file[f"{split}/tokens"][()], file["vocabulary/ends"][()]
        content = file["vocabulary/bytes"][()].tobytes()
    starts = [0, *ends[:-1]]
    return b"".join(content[starts[token] : ends[token]] for token in tokens)


def _stored(path) -> Tokenizer:
    with h5py.File(path) as file:
        facts = json.loads(file["about/encoding"][()].tobytes())
    return Tokenizer.from_str(json.dumps(facts["tokenizer"]))


@pytest.fixture
def small_pieces(monkeypatch):
    """Of 20 characters, with as many to find an end of a word, from a file that is read by 7 bytes."""
    monkeypatch.setattr(text_pieces, "_LENGTH", 20)
    monkeypatch.setattr(text_pieces, "_SEARCH", 200)
    monkeypatch.setattr(text_pieces, "PIECE_BYTES", 7)
    monkeypatch.setattr(byte_pair_streams, "_BATCH_LENGTH", 100)


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("split", ["1", "0.7,0.2,0.1"])
def test_vocabulary_and_ids_are_those_of_the_library(tmp_path, name, split, small_pieces):
    """Trained on the whole training text, and of the whole text encoded at once; text and tokens give each other."""
    raw = ODD[name].encode()
    (tmp_path / "a.txt").write_bytes(raw)
    words = ("--tokens", "bpe", "--vocabulary", "260", "--split", split, "--context", "8")
    facts = same_on_ranks(tmp_path / "a.h5", tmp_path / "a.txt", *words)
    splits = [name for name, count in facts["splits"].items() if count]
    texts = [_text(tmp_path / "a.h5", name) for name in splits]
    assert b"".join(texts) == raw and len(texts) == split.count(",") + 1
    expected = _trained(texts[0].decode(), 260)
    assert _stored(tmp_path / "a.h5").get_vocab() == expected.get_vocab()
    assert _ids(tmp_path / "a.h5") == expected.encode(ODD[name]).ids
    assert facts["values"] == 260 and not facts["notes"] and facts["bytes"] == len(raw)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["train/tokens"].dtype == np.uint16
    data = load_data(str(tmp_path / "a.h5"), Wanted(np.dtype("f4")), OneRank())
    assert data.output_count == 260 and data.y_kind == "tokens"


@pytest.mark.parametrize("number", range(5))
@settings(max_examples=60)
@given(data=st.data())
def test_pieces_have_the_tokens_of_the_whole(number, data):
    """By each rule of words that there is, of texts that are cut as often as they can be."""
    signs = st.sampled_from([*"ab Zß日 \n\r\t\u3000\u00a0\x1c.,!'’/-_19½\u0301\U0001f600", "'s", "'LL", "\r\n", "  "])  # fmt: skip
    text = "".join(data.draw(st.lists(signs, max_size=60)))
    pattern = sorted(tokenizer_facts._PATTERNS)[number]
    pairs = BytePairs(json.loads(_WITH_RULE[pattern].to_str()))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text_pieces, "_LENGTH", 1)
        pieces = list(text_pieces.cut(iter(text), [], ""))
    assert "".join(piece.text for piece in pieces) == text
    whole = _WITH_RULE[pattern].encode(text).ids
    if not any(piece.is_within_word for piece in pieces):
        found = pairs.encode([piece.text for piece in pieces])
        assert [token for ids in found for token in ids.tolist()] == whole


_WITH_RULE = {p: _trained(WORDS * 3, 330, p) for p in tokenizer_facts._PATTERNS}


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("writes_pairs", [True, False])
def test_ids_of_a_tokenizer_json_are_its_own(tmp_path, number, writes_pairs, small_pieces):
    """Of every published rule, as older versions of the library wrote it, too; with a special token in the text."""
    given = _WITH_RULE[sorted(tokenizer_facts._PATTERNS)[number]]
    given = Tokenizer.from_str(given.to_str())
    given.add_special_tokens(["<|endoftext|>"])
    given.post_processor = tokenizers.processors.TemplateProcessing("<|endoftext|> $A", special_tokens=[("<|endoftext|>", 330)])  # fmt: skip
    given.enable_truncation(7)
    given.enable_padding(length=99)
    facts = json.loads(given.to_str())
    if not writes_pairs:
        facts["model"]["merges"] = [" ".join(pair) for pair in facts["model"]["merges"]]
        del facts["model"]["type"]
        facts["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    (tmp_path / "tokenizer.json").write_text(json.dumps(facts))
    text = f"{WORDS * 2}<|endoftext|>{WORDS}"
    (tmp_path / "a.txt").write_bytes(text.encode())
    words = ("--tokenizer", tmp_path / "tokenizer.json", "--document-separator", "<|endoftext|>")
    facts = prepare(tmp_path / "a.txt", tmp_path / "a.h5", *words, "--split", "1", ranks=2)
    given.no_truncation()
    given.no_padding()
    ids = given.encode(text, add_special_tokens=False).ids
    assert _ids(tmp_path / "a.h5") == ids and 330 in ids and facts["values"] == 331
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["train/document_starts"][()].tolist() == [0, ids.index(330) + 1]
    assert "331 different tokens of byte-level BPE of tokenizer.json" in inspection.text(tmp_path / "a.h5", 9)  # fmt: skip


def test_a_line_without_an_end_of_a_word_is_cut_all_the_same(tmp_path, small_pieces):
    """Which the report says; no byte of it is lost. With the usual pieces it is one word."""
    text = "ab" * 3000 + "日本" * 500
    (tmp_path / "a.txt").write_text(text)
    words = ("--tokens", "bpe", "--vocabulary", "257", "--split", "0.5,0.5,0", "--context", "4")
    facts = same_on_ranks(tmp_path / "a.h5", tmp_path / "a.txt", *words)
    assert (_text(tmp_path / "a.h5", "train") + _text(tmp_path / "a.h5", "validation")).decode() == text  # fmt: skip
    assert [note.split(" where")[0] for note in facts["notes"]] == ["cut 328 times"]


@pytest.mark.parametrize("tokens", ["characters", "bytes", "bpe"])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_documents_of_a_file_begin_behind_a_separator(tmp_path, monkeypatch, tokens, piece):
    """Of one sign or several, empty documents too; the separator ends the one before. Files are documents as well."""
    monkeypatch.setattr(text_pieces, "PIECE_BYTES", piece)
    texts = [
        "erstes Stück, ~Ö~ ja\n~~",
        "~~",
        "und ein zweites ~ Stück\n~~",
        "a b c a b c und ein Stück",
    ]
    (tmp_path / "a.txt").write_text("".join(texts) + "~~")
    (tmp_path / "b.txt").write_text("ein Stück, das noch fehlt ~~ja")
    (tmp_path / "c.txt").write_text("")
    inputs = [tmp_path / f"{name}.txt" for name in "acb"]
    words = ("--stream", "--tokens", tokens, "--split", "1", "--context", "4", "--document-separator", "~~")  # fmt: skip
    words += ("--vocabulary", "270") * (tokens == "bpe")
    facts = prepare(*inputs, tmp_path / "a.h5", *words, ranks=2)
    ends = np.cumsum([len(text.encode()) for text in [*texts[:-1], texts[-1] + "~~", "ein Stück, das noch fehlt ~~"]])  # fmt: skip
    with h5py.File(tmp_path / "a.h5") as file:
        starts, ids = file["train/document_starts"][()], file["train/tokens"][()]
        lengths = np.diff([0, *file["vocabulary/ends"][()]])
    assert [lengths[ids[:start]].sum() for start in starts] == [0, *ends]
    assert facts["documents"]["train"] == 6
    if tokens == "bpe":
        known = _stored(tmp_path / "a.h5")
        assert known.token_to_id("~~") == 0 and facts["values"] == 270
        assert (ids == 0).sum() == 5 and known.encode("x~~~").ids.count(0) == 1
    # All tokens but the first of each document count in the loss.
    data = load_data(str(tmp_path / "a.h5"), Wanted(np.dtype("f4"), held_out={"validation": 0, "test": 0}), OneRank())  # fmt: skip
    rows = data.splits["train"]
    assert rows.weights(np.arange(rows.row_count)).sum() == len(ids) - 6


def test_a_separator_is_found_at_any_place(tmp_path, monkeypatch):
    """Also over the end of a piece, and one that holds an end of a word; the text stays whole."""
    for name, length in (("_LENGTH", 6), ("_SEARCH", 5), ("PIECE_BYTES", 3)):
        monkeypatch.setattr(text_pieces, name, length)
    for shift in range(8):
        text = (
            "x" * shift + "".join(f"ab cd{'e' * k} END OF TEXT" for k in range(9)) + "aaa bbb aaa"
        )
        (tmp_path / "a.txt").write_text(text)
        words = ("--tokens", "bpe", "--document-separator", " END OF TEXT", "--vocabulary", "260")
        facts = prepare(tmp_path / "a.txt", tmp_path / "a.h5", *words, "--context", "2", "--split", "1", "--force")  # fmt: skip
        assert facts["documents"]["train"] == 10
        assert _text(tmp_path / "a.h5", "train").decode() == text
        assert _ids(tmp_path / "a.h5").count(0) == 9


def test_another_text_by_the_tokenizer_of_the_file(tmp_path):
    """With --like, by the file or a checkpoint of it: the same ids, its context and separator; all for testing."""
    (tmp_path / "a.txt").write_text(WORDS * 9 + "|" + WORDS)
    (tmp_path / "b.txt").write_text("Two of Öl, 日本|語 gibt es! ☃ " * 5)
    words = (
        "--tokens",
        "bpe",
        "--vocabulary",
        "280",
        "--context",
        "7",
        "--document-separator",
        "|",
    )
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", *words)
    like = (tmp_path / "b.txt", "--stream", "--like", tmp_path / "a.h5")
    facts = same_on_ranks(tmp_path / "b.h5", *like)
    known = _stored(tmp_path / "a.h5")
    assert _ids(tmp_path / "b.h5") == known.encode((tmp_path / "b.txt").read_text()).ids
    assert facts["splits"]["train"] == 0 and facts["options"]["context"] == 7
    assert facts["documents"]["test"] == 6
    assert _stored(tmp_path / "b.h5").to_str() == known.to_str()
    for more, message in (
        (("--vocabulary", "300"), "--vocabulary: is decided by the file of --like"),
        (("--tokenizer", "t.json"), "--tokenizer: is decided by the file of --like"),
        (("--tokens", "bytes"), "--tokens: is decided by the file of --like, bpe, got bytes"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            prepare(*like, *more, tmp_path / "c.h5")
    with pytest.raises(DataError, match="a text in one piece was prepared; add --stream"):
        prepare(tmp_path / "b.txt", tmp_path / "c.h5", "--like", tmp_path / "a.h5")


def test_a_byte_order_mark_is_no_token_and_other_encodings_are_read(tmp_path):
    words = ("--tokens", "bpe", "--vocabulary", "300", "--split", "1")
    (tmp_path / "a.txt").write_bytes((TEXT + WORDS).encode("utf-8-sig"))
    (tmp_path / "b.txt").write_bytes((TEXT + WORDS).encode("utf-16"))
    facts = prepare(tmp_path / "a.txt", tmp_path / "a.h5", *words)
    prepare(tmp_path / "b.txt", tmp_path / "b.h5", *words, "--encoding", "utf-16")
    assert _ids(tmp_path / "a.h5") == _ids(tmp_path / "b.h5")
    assert _text(tmp_path / "a.h5", "train").decode() == TEXT + WORDS
    assert facts["notes"] == ["byte order mark left out"]


def test_the_report_says_how_long_a_token_is(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXT * 4)
    facts = prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--tokens", "bpe", "--vocabulary", "280")
    said = capsys.readouterr().out
    count = sum(facts["splits"].values())
    assert (
        "280 different tokens of byte-level BPE trained on the training text, "
        f"{len(TEXT) * 4 / count:.2f} bytes each on average, stored as uint16"
    ) in said
    assert inspection.text(tmp_path / "a.h5", 10) == said.split("wrote")[0].rstrip()
    again = prepare(tmp_path / "a.txt", tmp_path / "b.h5", "--tokens", "bpe", "--vocabulary", "280", "--dry-run")  # fmt: skip
    assert again == facts and not (tmp_path / "b.h5").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.txt"]


@pytest.mark.parametrize(
    ("content", "words", "error", "message"),
    [
        (b"short", (), DataError, "expected a training text for --vocabulary 4096, got one of 256 tokens, in which no other pair occurs twice: --tokens bytes, or more text"),
        (TEXT.encode(), (), DataError, r"got one of 296 tokens, in which no other pair occurs twice: --vocabulary 296, or"),
        (b"", ("--vocabulary", "257"), DataError, "got one of 256 tokens"),
        (b"ab " * 20, ("--vocabulary", "258", "--split", "1"), DataError, "expected more than --context 32 tokens to train on, got 21"),
        (b"a\nb\xff" * 50, (), DataError, r"line 2: expected text in utf-8, got byte 0xff; see"),
        (b"abc" * 50, ("--vocabulary", "256"), ConfigurationError, "--vocabulary: expected a whole number from 257 up, the 256 bytes and more, got '256'"),
        (b"abc" * 50, ("--stride", "2"), ConfigurationError, "--stride: is for rows, got --tokens bpe"),
        (b"abc" * 50, ("--document-separator", ""), ConfigurationError, "--document-separator: expected a text"),
        (b"abc" * 50, ("--tokenizer", "t.json", "--vocabulary", "300"), ConfigurationError, "--vocabulary: is that of the file of --tokenizer"),
    ],
)  # fmt: skip
def test_texts_and_options_that_cannot_be(tmp_path, content, words, error, message):
    """One line each, on every rank, and no file."""
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(error, match=message):
        prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--tokens", "bpe", *words, ranks=2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_options_of_bpe_are_for_bpe(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    for name, words, message in (
        ("a.txt", ("--vocabulary", "300"), "--vocabulary: is for --tokens bpe, got characters"),
        (
            "a.txt",
            ("--tokenizer", "t.json", "--tokens", "bytes"),
            "--tokenizer: is for --tokens bpe",
        ),
        ("a.txt", ("--document-separator", "|"), "--document-separator: expected --stream"),
        ("a.csv", ("--tokens", "bpe"), "--tokens: is for text, got inputs of format csv"),
        ("a.csv", ("--tokenizer", "t.json"), "is for text, got inputs of format csv"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            prepare(tmp_path / name, tmp_path / "a.h5", *words)


def test_without_the_library(tmp_path, monkeypatch):
    """Says what to install, on every rank; a file of other tokens needs it not."""
    (tmp_path / "a.txt").write_text(TEXT)
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--tokens", "bpe", "--vocabulary", "280")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for words in (("--tokens", "bpe"), ("--stream", "--like", tmp_path / "a.h5")):
        with pytest.raises(LauncherError, match=r"pip install 'tokenizers>=0.21'"):
            prepare(tmp_path / "a.txt", tmp_path / "b.h5", *words, ranks=2)
    load_data(str(tmp_path / "a.h5"), Wanted(np.dtype("f4")), OneRank())


def test_training_gives_up_when_it_is_told_to():
    """Its thread ends, whatever it waits for, and does not keep a program that has failed."""
    with pytest.raises(KeyError), Training(300) as training:
        training.feed(["some text"])
        raise KeyError
    training._thread.join(10)
    assert not training._thread.is_alive()


def test_a_vocabulary_of_a_long_text_is_of_a_part_of_it(tmp_path, monkeypatch):
    """Of every second piece, which the report says, so that memory has a bound; the ids are those of all the text."""
    monkeypatch.setattr(byte_pair_streams, "_TRAINED_LENGTH", 400)
    monkeypatch.setattr(text_pieces, "_LENGTH", 100)
    (tmp_path / "a.txt").write_text("".join(f"{TEXT[:90]} {k % 2 * 'qqq xx '}" for k in range(8)))
    facts = same_on_ranks(tmp_path / "a.h5", tmp_path / "a.txt", "--tokens", "bpe", "--vocabulary", "260", "--split", "1")  # fmt: skip
    assert facts["notes"] == ["vocabulary of one of 2 pieces of the training text"]
    assert _text(tmp_path / "a.h5", "train") == (tmp_path / "a.txt").read_bytes()


def test_the_file_depends_on_the_text_alone(tmp_path, monkeypatch):
    """Neither on how it is read nor on how many pieces are encoded at a time."""
    (tmp_path / "a.txt").write_text(WORDS * 30)
    found = set()
    for piece, batch, length in ((5, 1, 30), (1 << 20, 1 << 20, 1 << 20), (100, 500, 77)):
        monkeypatch.setattr(text_pieces, "PIECE_BYTES", piece)
        monkeypatch.setattr(text_pieces, "_LENGTH", length)
        monkeypatch.setattr(byte_pair_streams, "_BATCH_LENGTH", batch)
        prepare(
            tmp_path / "a.txt", tmp_path / f"{piece}.h5", "--tokens", "bpe", "--vocabulary", "300"
        )
        found.add(digest(tmp_path / f"{piece}.h5"))
    assert len(found) == 1
