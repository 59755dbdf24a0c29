"""What a ``tokenizer.json`` of byte-level BPE may say, and which bytes each of its tokens stands for. Needs no library.

The format is Hugging Face's (https://huggingface.co/docs/tokenizers). A file may come from a stranger, within a checkpoint
too, so only what is listed here is handed on to the library, which is native code: byte pair encoding, a published rule that
splits a text into words, tokens that are added to the vocabulary, and no normaliser but NFC, which leaves most texts alone.
Every such rule ends a word between a letter or digit and white space, so a text may be encoded in pieces cut there.

A token of the vocabulary is written in letters that stand for bytes (Radford et al., 2019; ``bytes_to_unicode`` of GPT-2),
an added one as it is.
"""

from typing import Any

from lepton_mpi.data.files.trust import TEXT_BYTES_MAX
from lepton_mpi.wording import one_line

# Ids of a token are whole numbers below.
_TOKENS_MAX = 1 << 24
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS_OF_GPT_4 = (
    rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_WORDS_OF_GPT_4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%(short)s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%(short)s|%(digits)s"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
# Rules that split a text into words, as they are published.
_PATTERNS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    _WORDS_OF_GPT_4 % r"\p{N}{1,3}",  # GPT-4, Llama 3
    _WORDS_OF_GPT_4 % r"\p{N}",  # Qwen
    _WORDS_OF_GPT_4O % {"short": rf"{_SHORT}?", "digits": r"\p{N}{1,3}"},  # GPT-4o
    _WORDS_OF_GPT_4O % {"short": "", "digits": r"\p{N}"},  # Mistral NeMo
}
# Of an added token.
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_EXPECTED = "expected byte-level BPE as GPT-2, GPT-4, Llama 3 and Qwen have it"


def checked(facts: Any) -> dict[str, Any]:
    """The content of a ``tokenizer.json``, without what adds tokens to a text, cuts it, or pads it. Raises ValueError."""
    if not isinstance(facts, dict) or not isinstance(facts.get("model"), dict):
        raise ValueError(f"expected the content of a tokenizer.json, got {one_line(facts)[:60]}")
    normaliser, words, added = (
        facts.get(name) for name in ("normalizer", "pre_tokenizer", "added_tokens")
    )
    if normaliser not in (None, {"type": "NFC"}):
        raise ValueError(f"{_EXPECTED}, got the normalizer {one_line(normaliser)[:80]}")
    _check_words(words)
    made = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added([] if added is None else added),
        "normalizer": normaliser,
        "pre_tokenizer": words,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _model(facts["model"]),
    }  # fmt: skip
    vocabulary_of(made)
    return made


def vocabulary_of(facts: dict[str, Any]) -> tuple[bytes, ...]:
    """The bytes of each token in the order of their ids. Raises ValueError if ids do not run from 0 without a gap."""
    byte_of = {letter: byte for byte, letter in enumerate(letters())}
    added = {token["content"] for token in facts["added_tokens"]}
    texts: dict[int, bytes] = {}
    for token, number in facts["model"]["vocab"].items():
        if token in added:
            continue
        try:
            texts[number] = bytes(byte_of[letter] for letter in token)
        except KeyError:
            raise ValueError(f"{_EXPECTED}, got the token {one_line(token)[:40]!r}") from None
    for token in facts["added_tokens"]:
        texts[token["id"]] = token["content"].encode()
    count = len(texts)
    distinct = len(facts["model"]["vocab"].keys() | added)
    if count != distinct or not count or min(texts) != 0 or max(texts) != count - 1:
        raise ValueError(f"expected ids from 0 to {distinct - 1}, each once, got others")
    if sum(map(len, texts.values())) > TEXT_BYTES_MAX:
        raise ValueError(f"expected tokens of {TEXT_BYTES_MAX} bytes in all at most, got more")
    return tuple(texts[number] for number in range(count))


def letters() -> list[str]:
    """The letter that stands for each byte: itself where it is printable, else one of those from U+0100 on.

    >>> "".join(letters()[byte] for byte in b"a b!\\n")
    'aĠb!Ċ'
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _model(model: dict[str, Any]) -> dict[str, Any]:
    """What decides ids, of plain BPE; the library holds merges against the vocabulary. Raises ValueError."""
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"{_EXPECTED}, got a model {one_line(model['type'])[:40]}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise ValueError(f"{_EXPECTED}, got {name} {one_line(model[name])[:40]}")
    vocabulary, merges = model.get("vocab"), model.get("merges")
    is_good = isinstance(vocabulary, dict) and len(vocabulary) <= _TOKENS_MAX
    if not is_good or not all(_is_id(number) for number in vocabulary.values()):
        raise ValueError("model: expected a vocab of tokens and their ids, got none")
    if not isinstance(merges, list) or not all(map(_is_merge, merges)):
        raise ValueError("model: expected merges, pairs of tokens, got none")
    takes_whole_words = model.get("ignore_merges") is True
    return {
        "type": "BPE",
        "ignore_merges": takes_whole_words,
        "vocab": vocabulary,
        "merges": merges,
    }


def _check_words(words: Any) -> None:
    """Raise ValueError for a rule of words that is not one of the published ones."""
    steps = words.get("pretokenizers") if _kind(words) == "Sequence" else [words]
    if not isinstance(steps, list) or not all(_kind(step) for step in steps):
        raise ValueError(f"{_EXPECTED}, got the pre_tokenizer {one_line(words)[:80]}")
    does_split = False
    for step in steps:
        if step["type"] == "Split":
            pattern = step.get("pattern")
            regex = pattern.get("Regex") if isinstance(pattern, dict) else None
            wanted = isinstance(regex, str) and regex in _PATTERNS
            if not wanted or step.get("behavior") != "Isolated" or step.get("invert", False):
                raise ValueError(f"{_EXPECTED}, got words by the rule {one_line(pattern)[:80]}")
            does_split = True
        elif step["type"] == "ByteLevel":
            if step.get("add_prefix_space", True):
                raise ValueError("expected add_prefix_space false, got true: it adds to the text")
            does_split |= step.get("use_regex", True) is True
        elif step["type"] != "Digits":
            raise ValueError(f"{_EXPECTED}, got a step {one_line(step['type'])[:40]}")
    if not does_split or steps[-1]["type"] != "ByteLevel":
        raise ValueError(f"{_EXPECTED}, got no rule for words, with ByteLevel as the last step")


def _added(tokens: Any) -> list[dict[str, Any]]:
    """Added tokens with all that the library asks for. Raises ValueError for those without a text or an id."""
    made = []
    for token in tokens if isinstance(tokens, list) else [None]:
        text = token.get("content") if isinstance(token, dict) else None
        if not isinstance(text, str) or not text or not _is_id(token.get("id")):
            raise ValueError("added_tokens: expected texts with ids, got others")
        text.encode()  # a lone surrogate is no text: a UnicodeEncodeError is a ValueError
        flags = {name: token.get(name) is True for name in _FLAGS}
        made.append({"id": token["id"], "content": text, **flags})
    return made


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < _TOKENS_MAX


def _is_merge(merge: Any) -> bool:
    """As the library writes it since version 0.20, a list of two, or as before, with a space between them."""
    if isinstance(merge, str):
        return merge.count(" ") == 1
    return (
        isinstance(merge, list) and len(merge) == 2 and all(isinstance(half, str) for half in merge)
    )


def _kind(step: Any) -> str:
    found = step.get("type") if isinstance(step, dict) else None
    return found if isinstance(found, str) else ""
