"""More than a thousand files that no training should survive, or survive unharmed; the same on every call.

``cases(secret)`` lists them, each with a function that writes it and what must happen to it:

``refused``
    One line that names the file, and nothing of the secret.
``whole``
    Refused, or the rows that the file had before: where all bytes are under a checksum, damage is never silent.
``unread``
    Refused, or the rows that are beside it: what is wrong is in something that training does not read.
``any``
    Refused or taken, since a changed number without a checksum is as good as another; but no crash, no hang.

``hostile_outcomes.py`` tells what came of them.
"""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from tests.serial import attacks

SECRET_TEXT = "the-secret-of-the-user"
ROWS, FEATURES, CLASSES = 60, 4, 3
REFUSED, WHOLE, UNREAD, ANY = "refused", "whole", "unread", "any"


@dataclass(frozen=True)
class Case:
    """One file: what is wrong with it, how it is written to a path, and what must happen to it."""

    name: str
    write: Callable[[Path], None]
    must: str


def make_secret(folder: Path) -> Path:
    """A file of the user that no other file may cause to be read, a good one; the same if it is there."""
    path = folder / "secret0.h5"
    if path.exists():
        return path
    x, y = _rows()
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = x + 1, y
        file.attrs["text"] = SECRET_TEXT
    return path


def cases(secret: Path) -> list[Case]:
    """All of them, in an order that is the same every time."""
    return [*_no_hdf5(), *_attacks(secret), *_wrong_rows(), *_damaged()]


# -- good files, which damage is done to -------------------------------------------------------------


def _rows() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(7).standard_normal((ROWS, FEATURES))
    return x, np.arange(ROWS) % CLASSES


def write_good(
    path: Path,
    libver: str = "earliest",
    user_block: int = 0,
    flat: bool = False,
    growing: bool = False,
    dtype="f8",
    inputs: bool = False,
    text: bool = False,
    **storage,
) -> None:
    """Rows in the groups of a prepared file, or in the flat layout, with all that may stand beside them; or a text."""
    if text:
        _write_text(path, libver, storage)
        return
    x, y = _rows()
    x = x.astype(dtype) if np.dtype(dtype).kind == "f" else (100 + 20 * x).astype(dtype)
    with h5py.File(path, "w", libver=libver, userblock_size=user_block) as file:
        for split, rows in (
            ("train", slice(0, 40)),
            ("validation", slice(40, 50)),
            ("test", slice(50, 60)),
        ):
            for name, values in (("x", x[rows]), ("y", y[rows])):
                place = f"{name}_{split}" if flat else f"{split}/{name}"
                most = (None, *values.shape[1:]) if growing else None
                file.create_dataset(place, data=values, maxshape=most, **storage)
            if inputs:
                _add_inputs(file, split, x[rows], y[rows], storage)
        file["normalisation/shift"], file["normalisation/scale"] = (
            np.zeros(FEATURES),
            np.ones(FEATURES),
        )
        file.create_dataset("about/columns", data=["width", "height", "depth", "Länge"])
        file["about/units"] = np.array([b"mm", b"mm", b"mm", b"mm"])
        file.attrs["classes"] = ["red", "green", "blue"]
        file.attrs["version"], file.attrs["missing"] = 1, h5py.Empty("f8")
        file["about"].attrs["dropped"] = np.arange(5)


def _add_inputs(file: h5py.File, split: str, x: np.ndarray, y: np.ndarray, storage: dict) -> None:
    """An input of numbers, with its normalisation, and one of two categories."""
    ages = file.create_dataset(f"{split}/inputs/ages", data=x[:, 0], **storage)
    kinds = file.create_dataset(
        f"{split}/inputs/kinds", data=np.stack([y, y % 2], axis=1).astype("u2"), **storage
    )
    ages.attrs["kind"], kinds.attrs["kind"] = "numbers", np.bytes_(b"categories")
    kinds.attrs["values"] = [CLASSES, 2]
    if split == "train":
        file.create_dataset("normalisation/inputs/ages/shift", data=0.5)


def _write_text(path: Path, libver: str, storage: dict) -> None:
    """Streams of tokens with documents and a vocabulary."""
    with h5py.File(path, "w", libver=libver) as file:
        for split, count in (("train", 300), ("test", 60)):
            tokens = np.random.default_rng(count).integers(0, 5, count).astype("u2")
            made = file.create_dataset(f"{split}/tokens", data=tokens, **storage)
            made.attrs["values"], made.attrs["context"] = 5, 6
            file.create_dataset(f"{split}/document_starts", data=[0, 20, 45], **storage)
        for name, values in (("bytes", np.arange(9, dtype="u1")), ("ends", [1, 2, 5, 8, 9])):
            file.create_dataset(f"vocabulary/{name}", data=values, **storage)
        file["about/vocabulary"] = np.array([b"a", b"b"])


_PACKED = {"compression": "gzip", "shuffle": True, "fletcher32": True}
GOOD: dict[str, dict] = {
    "contiguous": {},
    "contiguous, big-endian, user block": {"user_block": 512, "dtype": ">f4"},
    "chunks": {"chunks": True},
    "chunks with checksums": {"fletcher32": True},
    "packed": _PACKED,
    "packed bytes, flat": {"compression": "gzip", "flat": True, "dtype": "u1"},
    "latest, contiguous": {"libver": "latest"},
    "latest, checksums": {"libver": "latest", "fletcher32": True},
    "latest, packed, growing": {"libver": "latest", "growing": True, **_PACKED},
    "latest, packed, user block": {"libver": "latest", "user_block": 1024, **_PACKED},
    "named inputs": {"inputs": True},
    "latest, packed, named inputs": {"libver": "latest", "inputs": True, **_PACKED},
    "text": {"text": True},
    "latest, packed text": {"libver": "latest", "text": True, **_PACKED},
}
# Where every byte that means something has a checksum.
CHECKED = {
    name for name, made in GOOD.items() if made.get("libver") == "latest" and "fletcher32" in made
}


def _damaged() -> Iterator[Case]:
    for number, (good, made) in enumerate(GOOD.items()):
        for index in range(14):
            yield Case(
                f"{good}: truncated {index}", partial(_truncated, good, made, index), REFUSED
            )
        must = WHOLE if good in CHECKED else ANY
        for change in CHANGES:
            for seed in range(22):
                name = f"{good}: {_words(change)} {seed}"
                yield Case(name, partial(_changed, good, made, change, 1000 * number + seed), must)


def _truncated(_good_name: str, made: dict, index: int, path: Path) -> None:
    write_good(path, **made)
    truncate(path, index)


def truncate(path: Path, index: int) -> None:
    """At the ends, at the borders of the first structures, and at random."""
    content = path.read_bytes()
    places = [0, 4, 8, 48, 96, 600, len(content) - 1, len(content) - 8, len(content) // 2]
    random_places = random.Random(index).sample(range(len(content)), 14)
    path.write_bytes(content[: [*places, *random_places][index]])


def _changed(good: str, made: dict, change: Callable, seed: int, path: Path) -> None:
    write_good(path, **made)
    change_bytes(path, change, f"{good} {change.__name__} {seed}")


def change_bytes(path: Path, change: Callable, seed: str) -> None:
    """One of ``CHANGES`` to the bytes of a file."""
    content = bytearray(path.read_bytes())
    change(content, random.Random(seed))
    path.write_bytes(content)


def _somewhere(content: bytearray, chance: random.Random) -> int:
    """A byte: in one case of four near the begin, else anywhere that is not 0, which most of what is unused is."""
    if chance.random() < 0.25:
        return chance.randrange(min(len(content), 2048))
    return chance.choice([place for place, byte in enumerate(content) if byte])


def _flip(content: bytearray, chance: random.Random) -> None:
    """One bit."""
    content[_somewhere(content, chance)] ^= 1 << chance.randrange(8)


def _flip_some(content: bytearray, chance: random.Random) -> None:
    """Up to 20 bytes, each to any other."""
    for _ in range(chance.randint(2, 20)):
        content[_somewhere(content, chance)] ^= chance.randint(1, 255)


def _other_word(content: bytearray, chance: random.Random) -> None:
    """A number of 2, 4 or 8 bytes becomes one that programs stumble over."""
    width, form = chance.choice([(2, "<H"), (4, "<I"), (8, "<Q")])
    place = min(_somewhere(content, chance), len(content) - width)
    most = (1 << 8 * width) - 1
    number = chance.choice(
        [0, 1, most, most >> 1, (most >> 1) + 1, most - 1, len(content), chance.randint(0, most)]
    )
    content[place : place + width] = struct.pack(form, number)


def _other_address(content: bytearray, chance: random.Random) -> None:
    """A pointer to something in the file points to something else in it: circles, and one thing taken for another."""
    found = [
        (place, value)
        for place in range(len(content) - 7)
        if 48 <= (value := int.from_bytes(content[place : place + 8], "little")) < len(content)
    ]
    place, _ = chance.choice(found)
    _, target = chance.choice(found)
    content[place : place + 8] = struct.pack("<Q", target)


CHANGES = (_flip, _flip_some, _other_word, _other_address)


# -- what is no HDF5 file ----------------------------------------------------------------------------


def _no_hdf5() -> Iterator[Case]:
    contents = {
        "empty": b"",
        "a byte": b"\x89",
        "text": b"1,2,3\n" * 100,
        "signature": b"\x89HDF\r\n\x1a\n",
        "signature and zeros": b"\x89HDF\r\n\x1a\n" + bytes(4096),
        "signature and ones": b"\x89HDF\r\n\x1a\n" + b"\xff" * 4096,
        "zeros": bytes(100_000),
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(1000),
        "pickle": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
        "array": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }",
        "archive": b"PK\x03\x04" + bytes(200),
        "program": b"#!/bin/sh\necho " + SECRET_TEXT.encode(),
        "escapes": b"\x1b[2J\x1b]0;title\x07\r\n" * 10,
    }
    for name, content in contents.items():
        yield Case(f"no HDF5: {name}", partial(_write_bytes, content), REFUSED)


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


# -- files that want something -----------------------------------------------------------------------

PLACES = (
    "train/x",
    "train/y",
    "validation/x",
    "test/y",
    "normalisation/shift",
    "about/units",
    "other/deeper/x",
    "train/inputs/ages",
    "normalisation/inputs/ages/shift",
    "train/tokens",
    "train/document_starts",
    "vocabulary/ends",
)


def _attacks(secret: Path) -> Iterator[Case]:
    """Every attack in every place, also where training does not read: what leads out of the file is refused there too."""
    for attack in attacks.ANYWHERE:
        for number, place in enumerate(PLACES):
            write = partial(_with_attack, attack, secret, place, number % 2 == 1)
            must = UNREAD if _is_unread(attack, place) else REFUSED
            yield Case(f"{_words(attack)} at {place}", write, must)
    for attack in attacks.ON_FILES:
        for latest in (False, True):
            write = partial(_with_attack, attack, secret, "", latest)
            yield Case(f"{_words(attack)}{', latest' * latest}", write, REFUSED)
    for attack in attacks.ON_PATHS:
        yield Case(_words(attack), partial(attack, secret=secret), REFUSED)


def _is_unread(attack: Callable, place: str) -> bool:
    """Whether what an attack makes lies where it is not read: attributes, and what other programs put beside the rows."""
    if attack.__module__.endswith("other_files"):
        return False
    # There is no text in one piece, to which starts of documents would belong.
    beside = ["other", "train/document_starts"]
    if attack.__name__.startswith("attribute"):
        beside += ["normalisation", "about", "vocabulary", "train/tokens"]
    if attack.__name__ in ("texts", "texts_of_fixed_length", "stored_type"):
        beside += ["about", "train/tokens"]  # they make it in another group, or no data set
    return place.startswith(tuple(beside))


def _words(function: Callable) -> str:
    return function.__name__.strip("_").replace("_", " ")


def _with_attack(attack: Callable, secret: Path, place: str, latest: bool, path: Path) -> None:
    libver = "latest" if latest else "earliest"
    write_good(path, libver)
    with h5py.File(path, "r+", libver=libver) as file:
        if place in file:
            del file[place]
        attack(file, place, secret)


# -- files of the right kind with wrong contents -----------------------------------------------------


def _wrong_rows() -> Iterator[Case]:
    """Types, ranks, lengths and values that are not those of rows and classes."""
    x, y = _rows()
    wrong: dict[str, dict[str, object]] = {}
    for name, value in {
        "scalar": 3.0,
        "no rows": x[:0],
        "no columns": x[:, :0],
        "one row more": np.vstack([x, x[:1]]),
        "one row less": x[:-1],
        "text": np.full(x.shape, b"1"),
        "complex": x + 1j,
        "records": np.zeros(ROWS, "f4,f4"),
        "NaN": np.where(np.arange(FEATURES) == 2, np.nan, x),
        "infinite": np.where(x == x.max(), np.inf, x),
        "minus infinite": np.where(x == x.min(), -np.inf, x),
        "too large": np.where(x == x.max(), 1e300, x),
        "nothing": None,
    }.items():
        wrong[f"x is {name}"] = {"x": value}
    for name, value in {
        "scalar": 1,
        "no rows": y[:0],
        "one row more": np.append(y, 0),
        "one row less": y[:-1],
        "text": y.astype("S1"),
        "floats and NaN": np.where(y == 1, np.nan, y),
        "two-hot": 1 - np.eye(CLASSES, dtype=int)[y],
        "of rank 3": np.stack([y, y], axis=1)[:, None],
        "negative": np.where(y == 1, -1, y),
        "far negative": np.where(y == 1, -(2**62), y),
        "large": np.where(y == 1, 10**6, y),
        "largest": np.where(y == 1, 2**63 - 1, y),
        "unsigned": np.where(y == 1, np.uint64(2**64 - 1), y.astype(np.uint64)),
        "nothing": None,
    }.items():
        wrong[f"y is {name}"] = {"y": value}
    for name, changes in wrong.items():
        for split in ("train", "test", ""):
            for storage in ({}, _PACKED):
                title = f"{name}, {split or 'unsplit'}{', packed' * bool(storage)}"
                yield Case(title, partial(_with_rows, changes, split, storage), REFUSED)


def _with_rows(changes: dict, split: str, storage: dict, path: Path) -> None:
    x, y = _rows()
    with h5py.File(path, "w") as file:
        for place in ("train", "test") if split else ("",):
            for name, values in ({"x": x, "y": y} | (changes if place == split else {})).items():
                if values is not None:
                    has_chunks = np.ndim(values) > 0 and np.size(values) > 0
                    file.create_dataset(
                        f"{place}/{name}", data=values, **(storage if has_chunks else {})
                    )
