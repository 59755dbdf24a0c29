"""What a file is that is not HDF5, by its first bytes, and the command that makes a file to train on of it."""

import os
from pathlib import Path

from lepton_mpi.data.files.array_names import prepare_line

UNKNOWN = "file signature not found"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAD_BYTES = 4096
_TABLE_WORDS = "--label NAME"
# First bytes: what it is, suffixes that ``prepare`` knows it by, its --format, what else it asks for.
_KINDS: tuple[tuple[bytes, str, tuple[str, ...], str, str], ...] = (
    (b"PAR1", "a Parquet file", (".parquet",), "parquet", _TABLE_WORDS),
    (b"\x93NUMPY", "a NumPy array", (".npy",), "numpy", "--label NUMBER"),
)
# First bytes: what it is, and what makes something of it that is read.
_WAYS: tuple[tuple[bytes, str], ...] = (
    (
        b"MATLAB 5.0",
        "a file of MATLAB before v7.3: save(name, '-v7.3') in MATLAB writes one that is read",
    ),
    (b"CDF", "NetCDF-3: nccopy -k nc4 OLD NEW makes NetCDF-4 of it"),
    (
        b"\x80\x02",
        "pickled, which is not read because reading it could run a program: numpy.savez writes arrays",
    ),
    (
        b"\x80\x03",
        "pickled, which is not read because reading it could run a program: numpy.savez writes arrays",
    ),
    (
        b"\x80\x04",
        "pickled, which is not read because reading it could run a program: numpy.savez writes arrays",
    ),
    (
        b"\x80\x05",
        "pickled, which is not read because reading it could run a program: numpy.savez writes arrays",
    ),
    (b"ARROW1", "a Feather file: pandas.read_feather(OLD).to_parquet(NEW) makes Parquet of it"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet or document of an old Office: save it as CSV"),
    (b"SQLite format 3", "a SQLite database: write its table as CSV"),
    (b"\x89PNG", "a picture: prepare takes a folder with a folder of pictures for each class"),
    (b"\xff\xd8\xff", "a picture: prepare takes a folder with a folder of pictures for each class"),
    (b"RIFF", "a sound or a picture: prepare takes a folder with a folder of them for each class"),
    (b"BZh", "packed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "packed by xz: unpack it first"),
)
_TEXTS = {".csv": "csv", ".tsv": "csv", ".data": "csv", ".txt": "csv"}


def what_it_is(path: Path) -> str:
    """In words, with the command that would read it; empty for what may be HDF5, ``UNKNOWN`` for what nobody knows.

    Raises OSError. ``path`` is a folder or a regular file.
    """
    if path.is_dir():
        return f"a folder: {prepare_line(path)}"
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if _has_signature(file.fileno()):
            return ""
    for start, kind, suffixes, format_name, words in _KINDS:
        if head.startswith(start):
            known = path.suffix.lower() in suffixes
            return f"{kind}: {prepare_line(path, words + (f' --format {format_name}' if not known else ''))}"
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if way := next((way for start, way in _WAYS if head.startswith(start)), ""):
        return way
    if head.startswith(b"\x1f\x8b"):
        is_table = Path(path.stem).suffix.lower() in _TEXTS
        return f"gzipped: {prepare_line(path, _TABLE_WORDS if is_table else '')}"
    if len(head) > 4 and head[:2] == b"\0\0" and head[2] in range(8, 15) and 0 < head[3] < 9:
        return f"an IDX file: {prepare_line(path, '--labels LABELS --format idx')}"
    if head[:1] in (b"{", b"["):
        return "perhaps JSON: write it as CSV"
    if head and _is_text(head):
        known = path.suffix.lower() in _TEXTS and path.suffix.lower() != ".txt"
        return f"a text: {prepare_line(path, _TABLE_WORDS + ' --format csv' * (not known))}"
    return UNKNOWN


def _archive(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in (".xlsx", ".ods"):
        return "a spreadsheet: save it as CSV"
    if suffix == ".npz":
        return f"a NumPy archive: {prepare_line(path)}"
    return "a zip archive: unpack it, and prepare what is in it"


def _has_signature(descriptor: int) -> bool:
    """At the begin, or behind a block of the user's, of 512 bytes or a power of 2 of them."""
    size = os.fstat(descriptor).st_size
    places = [0, *(512 << power for power in range(40) if 512 << power < size)]
    return any(os.pread(descriptor, len(_SIGNATURE), place) == _SIGNATURE for place in places)


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    try:
        head[: max(1, len(head) - 3)].decode()  # a letter may be cut at the end
    except UnicodeDecodeError:
        return False
    return not any(byte < 9 or 13 < byte < 32 for byte in head)
