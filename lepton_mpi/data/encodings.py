"""What the numbers of a data set stand for, by name: columns, categories, classes, targets, tokens.

A data file says it as far as it knows, and a checkpoint keeps it: codes of one file mean nothing in another, and shapes tell
them apart only by chance. Names are compared where both sides have them; where one has none, shapes are all there is.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, get_args

from lepton_mpi.batch import Input, Kind
from lepton_mpi.wording import one_line, printable

# Names that a message shows.
_SHOWN, _LETTERS = 6, 40
# Of an input of a row: what data files may have, so that no checkpoint asks for more.
_ELEMENTS_MAX = {"numbers": 1 << 28, "categories": 1 << 28, "tokens": 1 << 24}


@dataclass(frozen=True)
class Encodings:
    """Inputs and outputs of a data set, and the names of both; a name is empty where nobody has given it.

    Attributes
    ----------
    inputs : mapping of str to Input
        What a row has.
    class_count, target_count : int
        What is to be predicted of a row; 0 and 0 for a text.
    columns, input_columns : tuple of str
        Of the features of ``x``, and of the input of categories, in order.
    categories : mapping of str to tuple of str
        By column, both kinds of them: the texts, in the order of their codes.
    class_names, target_names : tuple of str
        In the order of their numbers.
    vocabulary : tuple of bytes
        Of a text: what each token stands for.
    prepared : bytes
        All that ``prepare`` has fitted and was told, which ``prepare --like`` applies to other files: JSON, see
        ``prepare/encoding.py``.
    """

    inputs: Mapping[str, Input] = field(default_factory=dict)
    class_count: int = 0
    target_count: int = 0
    columns: tuple[str, ...] = ()
    input_columns: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    vocabulary: tuple[bytes, ...] = ()
    prepared: bytes = b""

    def as_json(self) -> bytes:
        """What ``from_json`` takes; of ``prepared`` nothing, which is JSON itself."""
        facts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del facts["prepared"]
        facts["vocabulary"] = [token.decode("latin-1") for token in self.vocabulary]
        return json.dumps({"version": 1, **facts}).encode()

    @staticmethod
    def from_json(raw: bytes, prepared: bytes) -> "Encodings":
        """Raises ValueError, LookupError, TypeError or AttributeError for what ``as_json`` has not made."""
        facts: dict[str, Any] = json.loads(raw)
        of_prepared(prepared)
        if facts["version"] != 1:
            raise ValueError(f"expected version 1, got {facts['version']}")
        named = ("columns", "input_columns", "class_names", "target_names")
        return Encodings(
            {str(name): _input(*spec) for name, spec in facts["inputs"].items()},
            *(_count(facts[name]) for name in ("class_count", "target_count")),
            **{name: _texts(facts[name]) for name in named},
            categories={str(name): _texts(texts) for name, texts in facts["categories"].items()},
            vocabulary=tuple(token.encode("latin-1") for token in _texts(facts["vocabulary"])),
            prepared=prepared,
        )

    @property
    def tokenizer(self) -> Any:
        """Of a text that was encoded by BPE: the content of a ``tokenizer.json``, not checked; else None."""
        return _facts(self.prepared).get("tokenizer")

    @property
    def has_names(self) -> bool:
        """Whether anything is named."""
        return any(self._named().values())

    def differences(self, other: "Encodings") -> list[str]:
        """Where ``other`` has other names, or the same in another order: what, and how; empty where it has not."""
        mine, others = self._named(), other._named()
        found = [
            f"{what}: {_difference(names, others[what])}"
            for what, names in mine.items()
            if names and others[what] and names != others[what]
        ]
        if self.tokenizer and other.tokenizer and self.tokenizer != other.tokenizer and not found:
            found = ["tokenizer: the same tokens, but other words or merges"]
        have_columns = (self.columns and other.columns) or (
            self.input_columns and other.input_columns
        )
        return found if found or not have_columns else self._differences_in_columns(other)

    def not_named(self, other: "Encodings") -> list[str]:
        """What ``other`` does not name although it is named here."""
        others = other._named()
        return [what for what, names in self._named().items() if names and not others[what]]

    def fitted_otherwise(self, other: "Encodings") -> list[str]:
        """How cells of ``other`` were made of the same texts in another way, so that one row is two: in words."""
        mine, came = _facts(self.prepared), _facts(other.prepared)
        if not mine or not came:
            return []
        found = []
        if came.get("fill") and mine.get("fill") != came.get("fill"):
            found.append("missing cells filled by other values")
        if any(mine.get(bound) != came.get(bound) for bound in ("low", "high")):
            found.append("numbers clipped to other bounds")
        return found

    def _differences_in_columns(self, other: "Encodings") -> list[str]:
        """Of columns of the same names."""
        found = []
        for name in [*self.columns, *self.input_columns]:
            texts, came = self.categories.get(name, ()), other.categories.get(name, ())
            if texts != came:
                how = _difference(texts, came) if texts and came else _other_kind(texts, came)
                found.append(f"categories of column {_shown(name)}: {how}")
        return found + _other_dates(_options(self.prepared), _options(other.prepared))

    def _named(self) -> dict[str, tuple[str, ...]]:
        return {
            "columns": self.columns,
            "columns of categories": self.input_columns,
            "classes": self.class_names,
            "targets": self.target_names,
            "tokens": tuple(token.decode("utf-8", "backslashreplace") for token in self.vocabulary),
        }


def of_prepared(raw: bytes) -> dict[str, Any]:
    """Fields of ``Encodings`` that are told by what ``prepare`` has kept. Raises ValueError for what it has not made."""
    facts = _facts(raw)
    if not facts:
        return {"prepared": raw}
    try:
        target_count, label = len(facts["target"]["shift"]), facts["options"].get("label", [])
        targets = _texts(label) if target_count == len(label) else ()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"expected what prepare writes: {one_line(error)}") from None
    return {"prepared": raw, "target_names": targets}


def target_count_of(raw: bytes) -> int:
    """How many targets a row has by what ``prepare`` has kept; 0 for classes."""
    return len(_facts(raw)["target"]["shift"]) if raw else 0


def refusal(expected: Encodings, came: Encodings, origin: str, is_file: bool = True) -> str:
    """Why rows with codes ``came`` do not fit what was trained on ``expected``; empty if nothing says so.

    ``origin`` is where the latter come from: a checkpoint most often, and a file if ``is_file``.
    """
    found = expected.differences(came)
    if not found:
        return ""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    hint = "give it data with the names in its order"
    if expected.prepared and is_file:
        hint = f"python -m lepton_mpi prepare NEW OUT.h5 --like {origin} gives new rows its codes"
    return f"expected the codes of {origin}, got others: {'; '.join(found[:3])}{more}: {hint}"


def _difference(expected: Sequence[str], came: Sequence[str]) -> str:
    """How two lists of names differ."""
    if sorted(expected) == sorted(came):
        place = next(i for i, name in enumerate(expected) if name != came[i])
        return (
            f"the same in another order, number {place} is {_shown(expected[place])} there and "
            f"{_shown(came[place])} here"
        )
    here, there = set(came), set(expected)
    lost = [name for name in expected if name not in here]
    new = [name for name in came if name not in there]
    parts = [f"{_listed(lost)} missing"] * bool(lost) + [f"{_listed(new)} unknown"] * bool(new)
    return ", ".join(parts) or f"{len(expected)} expected, got {len(came)}"


def _other_kind(texts: Sequence[str], came: Sequence[str]) -> str:
    numbers = "numbers"
    return (
        f"expected {_listed(texts) if texts else numbers}, got {_listed(came) if came else numbers}"
    )


def _other_dates(expected: Mapping[str, Any], came: Mapping[str, Any]) -> list[str]:
    """Dates of a column that were read with day and month in another order."""
    before, now = (_orders(options) for options in (expected, came))
    return [
        f"dates of column {_shown(name)}: read as {before[name]} there and as {now[name]} here"
        for name in before.keys() & now.keys()
        if before[name] != now[name]
    ]


def _orders(options: Mapping[str, Any]) -> dict[str, str]:
    words = options.get("dates")
    pairs = (str(word).rpartition("=") for word in (words if isinstance(words, list) else ()))
    return {name: order for name, sign, order in pairs if sign}


def _facts(raw: bytes) -> dict[str, Any]:
    """Empty where there is nothing. Raises ValueError for no JSON of an object."""
    if not raw:
        return {}
    try:
        facts = json.loads(raw)
    except RecursionError as error:
        raise ValueError(one_line(error)) from None
    if not isinstance(facts, dict):
        raise ValueError(f"expected an object of JSON, got {one_line(type(facts).__name__)}")
    return facts


def _options(raw: bytes) -> dict[str, Any]:
    found = _facts(raw).get("options")
    return found if isinstance(found, dict) else {}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(_shown, names[:_SHOWN])) + more


def _shown(name: str) -> str:
    return f"'{printable(name)[:_LETTERS]}'"


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"expected a list of texts, got {one_line(values)[:80]}")
    return tuple(values)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ValueError(f"expected a whole number, got {one_line(value)[:80]}")
    return value


def _input(kind: Any, shape: Any, values: Any) -> Input:
    """As ``as_json`` writes it, a list of the three."""
    if kind not in get_args(Kind):
        raise ValueError(f"expected an input of {', '.join(get_args(Kind))}, got {one_line(kind)}")
    sizes = tuple(map(_count, shape))
    of_each = tuple(map(_count, values)) if isinstance(values, list) else _count(values)
    if prod(sizes) > _ELEMENTS_MAX[kind]:
        raise ValueError(f"expected at most {_ELEMENTS_MAX[kind]} {kind} in a row, got {sizes}")
    if isinstance(of_each, tuple) and len(of_each) != prod(sizes):
        raise ValueError(f"expected a number of values for each of {sizes}, got {len(of_each)}")
    return Input(kind, sizes, of_each)
