"""Tokenizers from strangers, in a file, a data file or a checkpoint: what is none is refused in one line and never run."""

import copy
import dataclasses
import json
import sys
from collections.abc import Callable

import h5py
import numpy as np
import pytest

from lepton_mpi.data import tokenizer_facts
from lepton_mpi.data.byte_pairs import BytePairs, Training
from lepton_mpi.data.encodings import Encodings
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError
from lepton_mpi.prepare.stream_encoding import StreamEncoding
from lepton_mpi.run import generation
from tests.serial.raw_files import prepare

TEXT = "Where there is a will there is a way, so they say; the way is there. \U0001f600 äöü\n" * 9


def _made(size: int = 280) -> BytePairs:
    with Training(size) as training:
        training.feed([TEXT])
        while not training.end():
            pass
        return training.result()


PAIRS = _made()
_TOKEN = {"id": 280, "content": "<end>", "special": True}


def _changed(*path: object, value: object) -> Callable[[dict], None]:
    def change(facts: dict) -> None:
        place = facts
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


def _split(pattern: object, **more: object) -> dict:
    last = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    step = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False} | more
    return {"type": "Sequence", "pretokenizers": [step, last]}


_GPT_2 = {"Regex": next(p for p in tokenizer_facts._PATTERNS if p.startswith("'s|"))}
HOSTILE = {
    "no model": (_changed("model", value=None), "expected the content of a tokenizer.json"),
    "another model": (_changed("model", "type", value="Unigram"), "got a model Unigram"),
    "a model that is a list": (_changed("model", "type", value=["BPE"] * 9), "got a model"),
    "tokens by chance": (_changed("model", "dropout", value=0.5), "got dropout 0.5"),
    "SentencePiece": (_changed("model", "byte_fallback", value=True), "got byte_fallback True"),
    "ends of words": (_changed("model", "end_of_word_suffix", value="</w>"), "got end_of_word_suffix"),
    "no vocabulary": (_changed("model", "vocab", value=[]), "expected a vocab"),
    "an empty vocabulary": (_changed("model", "vocab", value={}), "expected ids from 0 to -1"),
    "an id that is a text": (_changed("model", "vocab", "!", value="0"), "expected a vocab"),
    "a negative id": (_changed("model", "vocab", "!", value=-1), "expected a vocab"),
    "a huge id": (_changed("model", "vocab", "!", value=1 << 40), "expected a vocab"),
    "a gap": (_changed("model", "vocab", "!", value=5000), "expected ids from 0 to 279, each once"),
    "an id twice": (_changed("model", "vocab", "!", value=1), "expected ids from 0 to 279, each once"),
    "a word for bytes": (_changed("model", "vocab", "a b", value=280), "got the token 'a b'"),
    "a lone surrogate": (_changed("model", "vocab", "\ud800", value=280), "got the token"),
    "no merges": (_changed("model", "merges", value=7), "expected merges"),
    "merges of three": (_changed("model", "merges", 0, value=["a", "b", "c"]), "expected merges"),
    "a merge without a space": (_changed("model", "merges", 0, value="ab"), "expected merges"),
    "merges of what there is not": (_changed("model", "merges", 0, value=["ab", "zq"]), "out of vocabulary"),
    "a program as words": (_changed("pre_tokenizer", value={"type": "Custom", "code": "import os"}), "got a step Custom"),
    "words of a list": (_changed("pre_tokenizer", value=[1]), "got the pre_tokenizer"),
    "no words": (_changed("pre_tokenizer", value=None), "got the pre_tokenizer None"),
    "nested words": (_changed("pre_tokenizer", value={"type": "Sequence", "pretokenizers": [_split(_GPT_2)]}), "got a step Sequence"),
    "all one word": (_changed("pre_tokenizer", "use_regex", value=False), "got no rule for words"),
    "bytes before words": (_changed("pre_tokenizer", value={"type": "Sequence", "pretokenizers": _split(_GPT_2)["pretokenizers"][::-1]}), "with ByteLevel as the last"),
    "a pattern that takes for ever": (_changed("pre_tokenizer", value=_split({"Regex": "(a+)+$"})), "got words by the rule"),
    "a pattern that is no text": (_changed("pre_tokenizer", value=_split({"Regex": {}})), "got words by the rule"),
    "a pattern that takes away": (_changed("pre_tokenizer", value=_split(_GPT_2, behavior="Removed")), "got words by the rule"),
    "a space before": (_changed("pre_tokenizer", "add_prefix_space", value=True), "it adds to the text"),
    "another text": (_changed("normalizer", value={"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": "x"}), "got the normalizer"),
    "added tokens of numbers": (_changed("added_tokens", value=7), "added_tokens: expected texts with ids"),
    "an added token of nothing": (_changed("added_tokens", value=[_TOKEN | {"content": ""}]), "added_tokens: expected texts"),
    "an added token far away": (_changed("added_tokens", value=[_TOKEN | {"id": 9000}]), "expected ids from 0 to 280"),
    "an added token of another": (_changed("added_tokens", value=[_TOKEN | {"id": 7}]), "expected ids from 0 to 280"),
    "added tokens in another order": (_changed("added_tokens", value=[_TOKEN | {"id": 281}, _TOKEN | {"content": "<b>"}]), "in the order of their ids"),
    "an added token twice": (_changed("added_tokens", value=[_TOKEN, _TOKEN | {"id": 281}]), "expected ids from 0 to 280"),
    "an added surrogate": (_changed("added_tokens", value=[_TOKEN | {"content": "\udfff"}]), "surrogates not allowed"),
    "digits of a list": (_changed("pre_tokenizer", value={"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": [1]}, PAIRS.facts["pre_tokenizer"]]}), ""),
}  # fmt: skip


def _hostile(name: str) -> tuple[dict, str]:
    change, message = HOSTILE[name]
    facts = copy.deepcopy(PAIRS.facts)
    change(facts)
    return facts, message


def _refused(message: str, error: BaseException) -> None:
    assert message in str(error) and "\n" not in str(error) and len(str(error)) < 500


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, name):
    facts, message = _hostile(name)
    (tmp_path / "t.json").write_text(json.dumps(facts))
    (tmp_path / "a.txt").write_text(TEXT)
    with pytest.raises(DataError, match=r"t\.json: not a tokenizer\.json to use: ") as refused:
        prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--tokenizer", tmp_path / "t.json", ranks=2)
    _refused(message, refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"[]", b"1e999", b"\xff\xfe", b"9" * 9000, b'{"model": {}}'])  # fmt: skip
def test_a_file_that_is_no_json_of_one_is_refused(tmp_path, content):
    (tmp_path / "t.json").write_bytes(content)
    (tmp_path / "a.txt").write_text(TEXT)
    with pytest.raises(DataError, match=r"t\.json: not a tokenizer\.json to use: ") as refused:
        prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--tokenizer", tmp_path / "t.json")
    _refused("", refused.value)
    for place, message in (
        ("none.json", "not a readable file"),
        ("", "expected a file, got a folder"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--tokenizer", tmp_path / place)


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("name", HOSTILE)
def test_one_in_a_data_file_is_refused(tmp_path, name):
    """By --like, which alone of prepare uses it."""
    facts, message = _hostile(name)
    (tmp_path / "a.txt").write_text(TEXT)
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", "--tokens", "bpe", "--vocabulary", "280")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        kept = json.loads(file["about/encoding"][()].tobytes())
        del file["about/encoding"]
        raw = json.dumps(kept | {"tokenizer": facts}).encode()
        file["about/encoding"] = np.frombuffer(raw, np.uint8)
    with pytest.raises(DataError, match=r"a\.h5: ") as refused:
        prepare(tmp_path / "a.txt", tmp_path / "b.h5", "--stream", "--like", tmp_path / "a.h5")
    _refused(message, refused.value)


def _known(facts: object, vocabulary: tuple[bytes, ...] = PAIRS.vocabulary) -> Encodings:
    kept = StreamEncoding("bpe", 8, PAIRS.vocabulary, "", PAIRS.facts).as_bytes()
    raw = json.dumps(json.loads(kept) | {"tokenizer": facts}).encode()
    return Encodings(vocabulary=vocabulary, prepared=raw)


@pytest.mark.parametrize("name", HOSTILE)
def test_one_in_a_checkpoint_is_refused(name):
    """By ``generate``, whose prompt it would encode."""
    facts, message = _hostile(name)
    with pytest.raises(DataError, match="runs: tokenizer: ") as refused:
        generation.tokens_of("a way", _known(facts), "runs")
    _refused(message, refused.value)


@pytest.mark.parametrize("facts", [7, "x", [], {}, True])
def test_what_is_no_tokenizer_at_all_is_refused(facts):
    with pytest.raises(DataError, match=r"expected the content of a tokenizer\.json"):
        generation.tokens_of("a way", _known(facts), "runs")


def test_a_prompt_is_encoded_by_the_tokenizer():
    """Not by the longest tokens that fit; of another vocabulary, without its library, or of no text it is refused."""
    known = _known(PAIRS.facts)
    assert generation.tokens_of(TEXT, known, "runs") == PAIRS.encode([TEXT])[0].tolist()
    assert generation.text_of(generation.tokens_of(TEXT, known, ""), PAIRS.vocabulary) == TEXT
    other = dataclasses.replace(known, vocabulary=(*PAIRS.vocabulary[:-1], b"other"))
    with pytest.raises(DataError, match="runs: tokenizer: expected the tokens of the vocabulary"):
        generation.tokens_of("a way", other, "runs")
    for prompt, message in (
        ("", "expected a token at least"),
        ("\udc80", "expected a text in UTF-8"),
    ):
        for encodings in (known, Encodings(vocabulary=(b"a", b"b"))):
            with pytest.raises(ConfigurationError, match=message):
                generation.tokens_of(prompt, encodings, "runs")


def test_a_prompt_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(LauncherError, match=r"pip install 'tokenizers>=0.21'"):
        generation.tokens_of("a way", _known(PAIRS.facts), "runs")
    assert generation.tokens_of("ab", Encodings(vocabulary=(b"a", b"b")), "runs") == [0, 1]


def test_a_text_that_ends_within_a_character_ends_before_it():
    """What is no UTF-8 elsewhere is U+FFFD."""
    smile = "\U0001f600".encode()
    vocabulary = tuple(bytes([byte]) for byte in range(256))
    for left in range(1, 5):
        expected = "ä" + ("\U0001f600" if left == 4 else "")
        assert generation.text_of([*"ä".encode(), *smile[:left]], vocabulary) == expected
    assert generation.text_of([*smile[:2], *b"a\xff"], vocabulary) == "\ufffda\ufffd"
    assert generation.text_of([], vocabulary) == ""


@pytest.mark.parametrize("name", ["lstrip", "NFC"])
def test_a_tokenizer_that_changes_the_text_is_told(tmp_path, name):
    """Tokens that do not spell it are no tokens of it; where nothing is to be changed it is taken."""
    facts = copy.deepcopy(PAIRS.facts)
    if name == "NFC":
        facts["normalizer"] = {"type": "NFC"}
    else:
        facts["added_tokens"] = [_TOKEN | {"lstrip": True}]
    (tmp_path / "t.json").write_text(json.dumps(facts))
    (tmp_path / "a.txt").write_text(TEXT + TEXT + "e\u0301 <end> " * 3)
    words = ("--tokenizer", tmp_path / "t.json", "--split", "1")
    with pytest.raises(
        DataError, match=r"a\.txt: characters 0 up: expected tokens that spell the text"
    ):
        prepare(tmp_path / "a.txt", tmp_path / "a.h5", *words)
    (tmp_path / "a.txt").write_text(f"{TEXT}.<end>")
    prepare(tmp_path / "a.txt", tmp_path / "a.h5", *words)


def test_letters_are_those_of_gpt_2():
    """As its encoder.py has them: printable bytes as they are, the others from 256 on, in their order."""
    letters = tokenizer_facts.letters()
    assert len(set(letters)) == 256 and letters[0] == "Ā" and letters[0x7F] == "ġ"
    assert letters[0xA0] == "ł" and letters[0xAD] == "Ń" and letters[0xFF] == "ÿ"
    assert [letters[byte] for byte in b" \n\t!~"] == ["Ġ", "Ċ", "ĉ", "!", "~"]
    import tokenizers

    assert sorted(letters) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def test_tokenizers_of_the_same_tokens_are_two_if_they_split_otherwise():
    """A model that has learned from the one is no model of the other."""
    other = copy.deepcopy(PAIRS.facts)
    other["pre_tokenizer"] = _split(_GPT_2)
    known, came = _known(PAIRS.facts), _known(other)
    assert known.differences(came) == ["tokenizer: the same tokens, but other words or merges"]
    assert known.differences(_known(PAIRS.facts)) == []
    assert known.differences(Encodings(vocabulary=PAIRS.vocabulary)) == []
