"""Names of arrays as people write them: which hold features, which labels, of which split. Of ``train`` and ``prepare``.

A name is a data set's path in an HDF5 file, or an array of an archive. Case does not matter. Tried in this order::

    train/x    x_train    train_x    train_set_x    x/train    xTrain    trainX        x

with the other words of ``_PAIRS`` in place of x and y, and those of ``SPLIT_WORDS`` in place of train. Rows without a split stand
under the key None; beside them there may be rows for validation and test. Two names for one split are an error, and so is a
name of features without labels: whoever wrote the file meant something by it.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from lepton_mpi.data.files.file_format import SPLITS
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.wording import one_line

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_PATTERNS = (
    "{split}/{name}",
    "{name}_{split}",
    "{split}_{name}",
    "{split}_set_{name}",
    "{name}/{split}",
    "{name}{split}",
    "{split}{name}",
)
_PAIRS = (
    ("x", "y"),
    ("data", "target"),
    ("data", "targets"),
    ("images", "labels"),
    ("image", "label"),
    ("features", "labels"),
    ("features", "targets"),
    ("data", "labels"),
    ("data", "label"),
    ("inputs", "targets"),
    ("inputs", "labels"),
)
# Of names that are not used, those with such a word are told: they may be meant to be.
_WORDS_OF_ROWS = {
    *(word for pair in _PAIRS for word in pair),
    *(word for words in SPLIT_WORDS.values() for word in words),
    *("extra", "eval", "holdout", "unlabelled", "unlabeled", "fold"),
}
_SHOWN = 12

Pairs = dict[str | None, tuple[str, str]]


def split_of_word(word: str) -> str | None:
    """The split that a word of a file, folder, column or array means.

    >>> split_of_word(" Val"), split_of_word("fold 3")
    ('validation', None)
    """
    word = word.strip().lower()
    return next((split for split, words in SPLIT_WORDS.items() if word in words), None)


def find_pairs(
    names: Collection[str], x: str | None = None, y: str | None = None, where: str = "the file"
) -> Pairs:
    """Names of features and labels by split; the key None stands for rows that are in no split.

    Parameters
    ----------
    names
        All that there are.
    x, y
        What the user calls them, exactly, with ``{split}`` for the words of a split; None: usual names; the empty
        text: they are not wanted, and the name given for them is empty.
    where
        The file, for messages.

    Raises
    ------
    DataError
        Without usual names, or with two that mean the same.
    ConfigurationError
        For a name given that is not there.

    >>> find_pairs(["X_train", "y_train", "X_val", "y_val", "ids"])
    {'train': ('X_train', 'y_train'), 'validation': ('X_val', 'y_val')}
    >>> find_pairs(["a", "b", "c"], "a", "c")
    {None: ('a', 'c')}
    >>> find_pairs(["x", "ids"], y=""), find_pairs(["labels_of_mine"], x="")
    ({None: ('x', '')}, {None: ('', 'labels_of_mine')})
    """
    if "" in (x, y):
        return _halves(names, x, y, where)
    if x or y:
        return _given_pairs(names, (x or "x").strip("/"), (y or "y").strip("/"), where)
    spelt = defaultdict(list)
    for name in names:
        spelt[name.lower()].append(name)
    for pattern in _PATTERNS:
        for pair in _PAIRS:
            if _has_both(spelt, pattern, pair, SPLIT_WORDS["train"]):
                return {
                    split: found
                    for split in SPLITS
                    if (found := _pair_of(spelt, pattern, pair, split, where))
                }
    for pair in _PAIRS:
        if all(word in spelt for word in pair):
            found: Pairs = {None: tuple(_only(spelt[word], where) for word in pair)}
            return found | _beside(spelt, pair, where)
    for pattern in ("{split}/{name}", "{name}_{split}", "{name}"):
        _pair_of(spelt, pattern, _PAIRS[0], "train", where)  # one without the other
    raise DataError(
        f"{where}: expected arrays such as train/x and train/y, or x_train and y_train, or x and y"
        f"{_asking(where, names)}"
    )


def unused(names: Iterable[str], pairs: Pairs) -> list[str]:
    """Names that look like rows, or like a split, and are not among those used.

    >>> unused(["x", "y", "x_extra", "image_name", "weather"], {None: ("x", "y")})
    ['x_extra', 'image_name']
    """
    used = {name for pair in pairs.values() for name in pair}
    return [name for name in names if name not in used and _words(name) & _WORDS_OF_ROWS]


def listed(names: Collection[str]) -> str:
    """Names for a message, the first of many."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return one_line(", ".join(sorted(names)[:_SHOWN]) or "nothing") + more


def prepare_line(path: Path | str, words: str = "") -> str:
    """The command that makes a file to train on of another file.

    >>> prepare_line("runs/a.csv", "--label NAME")
    'python -m lepton_mpi prepare runs/a.csv a.prepared.h5 --label NAME'
    """
    return f"python -m lepton_mpi prepare {path} {Path(path).stem}.prepared.h5 {words}".rstrip()


def pattern_of(pairs: Pairs) -> tuple[str, str]:
    """``--x`` and ``--y`` for names that were found: of several splits with ``{split}``.

    >>> pattern_of({"train": ("train/x", "train/y"), "test": ("test/x", "test/y")})
    ('{split}/x', '{split}/y')
    """
    split, names = next(iter(pairs.items()))
    for word in SPLIT_WORDS.get(split or "", ()):
        templates = tuple(re.sub(word, "{split}", name, count=1) for name in names)
        if len(pairs) > 1 and all("{split}" in template for template in templates):
            return templates
    return names


def candidates(x: str | None, y: str | None) -> list[str]:
    """All names that ``--x`` and ``--y`` may mean."""
    return [
        name.replace("{split}", word).strip("/")
        for name in ("x" if x is None else x, "y" if y is None else y)
        if name
        for words in SPLIT_WORDS.values()
        for word in words
    ]


def _words(name: str) -> set[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return {word.lower() for word in re.split(r"[^A-Za-z]+", apart)}


def _given_pairs(names: Collection[str], x: str, y: str, where: str) -> Pairs:
    pairs: Pairs = {}
    if "{split}" not in x:
        pairs = {None: (x, y)} if x in names and y in names else {}
    else:
        for split in SPLITS:
            both = [
                (x.replace("{split}", word), y.replace("{split}", word))
                for word in SPLIT_WORDS[split]
            ]
            found = [pair for pair in both if all(name in names for name in pair)]
            if found:
                pairs[split] = _one_of(found, split, where)
    if not pairs:
        hint = f"; {_labels_apart(where)}" * (x in names and y not in names)
        raise ConfigurationError(
            f"--x, --y: {where} has no pair {x!r} and {y!r}; it has {listed(names)}{hint}"
        )
    return pairs


def _halves(names: Collection[str], x: str | None, y: str | None, where: str) -> Pairs:
    """Features alone, where ``y`` is empty, or labels alone."""
    place, flag, given = (0, "--x", x) if y == "" else (1, "--y", y)
    found: dict[str | None, str] = {}
    if given and "{split}" not in given:
        found = {None: given} if given in names else {}
    elif given:
        found = {
            split: given.replace("{split}", word)
            for split, words in SPLIT_WORDS.items()
            for word in words
            if given.replace("{split}", word) in names
        }
    elif len(names) == 1:
        found = {None: next(iter(names))}
    else:
        usual = [pair[place] for pair in _PAIRS]
        found = _usual(names, usual)
    if not found:
        what = "features" if place == 0 else "labels"
        raise ConfigurationError(
            f"{flag}: which array of {where} holds the {what}? It has {listed(names)}"
        )
    return {split: (name, "") if place == 0 else ("", name) for split, name in found.items()}


def _usual(names: Collection[str], words: list[str]) -> dict[str | None, str]:
    """By split the array that has one of these names, by the first pattern of which training rows have one."""
    spelt = {name.lower(): name for name in names}
    for pattern in (*_PATTERNS, "{name}"):
        for word in words:
            found = {
                split_of_word(alias): spelt[name]
                for split in SPLITS
                for alias in SPLIT_WORDS[split]
                if (name := pattern.format(split=alias, name=word)) in spelt
            }
            if pattern == "{name}" and found:
                return {None: next(iter(found.values()))}
            if "train" in found:
                return found
    return {}


def _has_both(
    spelt: dict[str, list[str]], pattern: str, pair: tuple[str, str], words: tuple[str, ...]
) -> bool:
    return any(all(pattern.format(split=s, name=n) in spelt for n in pair) for s in words)


def _pair_of(
    spelt: dict[str, list[str]], pattern: str, pair: tuple[str, str], split: str, where: str
) -> tuple[str, str] | None:
    """Features and labels of a split by one pattern, if there are any. Raises DataError."""
    found = []
    for word in SPLIT_WORDS[split]:
        wanted = [pattern.format(split=word, name=name) for name in pair]
        there = [name for name in wanted if name in spelt]
        if len(there) == 1:
            missing = next(name for name in wanted if name not in spelt)
            hint = f"; or {_labels_apart(where)}" * (missing == wanted[1])
            asking = _asking(
                where, _all(spelt), _likely(spelt, there[0]) if "/" not in pattern else None
            )
            raise DataError(
                f"{where}: {spelt[there[0]][0]}: expected {missing} beside it{asking}{hint}"
            )
        if there:
            found.append(tuple(_only(spelt[name], where) for name in wanted))
    return _one_of(found, split, where) if found else None


def _beside(spelt: dict[str, list[str]], pair: tuple[str, str], where: str) -> Pairs:
    """Rows for validation and test beside ``x`` and ``y``, as in x_test and y_test."""
    found: Pairs = {}
    for pattern in _PATTERNS:
        for split in ("validation", "test"):
            if split not in found and (names := _pair_of(spelt, pattern, pair, split, where)):
                found[split] = names
    return found


def _one_of(found: list[tuple[str, str]], split: str, where: str) -> tuple[str, str]:
    if len(found) > 1:
        several = " and ".join(pair[0] for pair in found)
        raise DataError(
            f"{where}: expected one array of {split} rows, got {several}{_asking(where)}"
        )
    return found[0]


def _likely(spelt: dict[str, list[str]], word: str) -> tuple[str, str] | None:
    """The array of this name and the only other one, if it is that of features; beside AnnData's names of rows."""
    others = [n for n in _all(spelt) if n.lower() != word and n.rpartition("/")[2] != "_index"]
    is_features = word in {pair[0] for pair in _PAIRS}
    return (spelt[word][0], others[0]) if is_features and len(others) == 1 else None


def _labels_apart(where: str) -> str:
    return f"{prepare_line(where, '--labels FILE')}, if labels have a file of their own"


def _all(spelt: dict[str, list[str]]) -> list[str]:
    return [name for spellings in spelt.values() for name in spellings]


def _asking(
    where: str,
    names: Collection[str] | None = None,
    likely: tuple[str, str] | None = None,
) -> str:
    """Behind what was expected: what there is, and the command that names what is meant, or what may be."""
    got = "" if names is None else f", got {listed(names)}"
    x, y = likely or ("NAME", "NAME")
    return f"{got}; --x NAME --y NAME say what is meant, as in {prepare_line(where, f'--x {x} --y {y}')}"


def _only(spellings: list[str], where: str) -> str:
    if len(spellings) > 1:
        raise DataError(
            f"{where}: expected one name of an array, got {' and '.join(sorted(spellings))}{_asking(where)}"
        )
    return spellings[0]
