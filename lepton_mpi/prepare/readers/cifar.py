"""CIFAR-10 and CIFAR-100 in their binary version: records of one or two labels and 3072 bytes, colour by colour.

Rows become (32, 32, 3), the layout of other images (Krizhevsky, "Learning multiple layers of features from tiny images", 2009).
"""

from pathlib import Path

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.arrays import ArrayPart, Pair, array_source
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import did_you_mean

_PIXELS = 3 * 32 * 32
# Files of the Python version, of CIFAR-10 and of CIFAR-100.
PICKLED = {
    *(f"data_batch_{i}" for i in range(1, 6)),
    "test_batch",
    "batches.meta",
    "train",
    "test",
    "meta",
}


def open_cifar(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Files, or a folder of them; names that begin by test are the test rows. ``--label coarse`` takes the 20 classes of
    CIFAR-100. Collective."""
    with world.agreeing():
        files = [one for given in inputs for one in _files(given)]
        records = [(given, *_records(given.path)) for given in files]
        label_bytes = records[0][2]
        _check_label(options, label_bytes)
        for given, _, count in records:
            if count != label_bytes:
                raise DataError(
                    f"{given.path}: expected records of {label_bytes + _PIXELS} bytes as in {files[0].path}"
                )
        coarse = label_bytes == 2 and options.label == ("coarse",)
        names = _class_names(files[0].path.parent, label_bytes, coarse)
        parts = []
        for given, array, count in sorted(records, key=lambda r: _split(r[0]) == "test"):
            x = array[:, count:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            y = array[:, 0 if coarse else count - 1]
            parts.append(ArrayPart(given.path.name, _split(given), Pair(x, y, names), options))
        return array_source(
            parts, "CIFAR-100" if label_bytes == 2 else "CIFAR-10", options, class_names=names
        )


def _check_label(options: Options, label_bytes: int) -> None:
    if options.label and label_bytes == 1:
        raise ConfigurationError(f"--label: CIFAR-10 has one label, got {options.label[0]!r}")
    if options.label not in ((), ("coarse",), ("fine",)):
        got = ",".join(options.label)
        raise ConfigurationError(
            f"--label: expected coarse or fine of CIFAR-100, got {got!r}{did_you_mean(got, ('coarse', 'fine'))}"
        )


def _files(given: Input) -> list[Input]:
    if not given.path.is_dir():
        _refuse_pickled([given.path])
        return [given]
    found = [Input(path, given.split) for path in sorted(given.path.glob("*.bin"))]
    if not found:
        _refuse_pickled(sorted(given.path.iterdir()))
        inside = [path for path in sorted(given.path.iterdir()) if path.is_dir()]
        if len(inside) == 1:
            return _files(Input(inside[0], given.split))
        raise DataError(f"{given.path}: expected .bin files in it, got none")
    return found


def _refuse_pickled(paths: list[Path]) -> None:
    """Raise DataError for the Python version, with the way on."""
    for path in paths:
        if path.name in PICKLED and _first_byte(path) == b"\x80":
            hundred = path.name in ("train", "test", "meta")
            raise DataError(
                f"{path}: CIFAR's Python version, which is pickled and not read, since reading it could run a program: take "
                f"the binary version, cifar-{100 if hundred else 10}-binary.tar.gz, from the same page"
            )


def _first_byte(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1)
    except OSError:  # whoever reads it says why
        return b""


def _split(given: Input) -> str:
    return given.split or ("test" if given.path.name.startswith("test") else "train")


def _records(path: Path) -> tuple[np.ndarray, int]:
    """Records of a file, mapped, uint8 (rows, bytes), and the bytes of their labels. Raises DataError."""
    try:
        size = path.stat().st_size
        for label_bytes in (1, 2):
            if size and size % (label_bytes + _PIXELS) == 0:
                shape = (size // (label_bytes + _PIXELS), label_bytes + _PIXELS)
                return np.memmap(path, np.uint8, "r", shape=shape), label_bytes
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    raise DataError(
        f"{path}: expected whole records of {1 + _PIXELS} or {2 + _PIXELS} bytes, got {size} bytes"
    )


def _class_names(folder: Path, label_bytes: int, coarse: bool) -> tuple[str, ...]:
    """As the file beside the data lists them; else their numbers."""
    file = (
        "batches.meta.txt"
        if label_bytes == 1
        else f"{'coarse' if coarse else 'fine'}_label_names.txt"
    )
    count = 10 if label_bytes == 1 else 20 if coarse else 100
    path = folder / file
    names = path.read_text("utf-8").split() if path.is_file() else [str(i) for i in range(count)]
    if len(names) != count:
        raise DataError(f"{path}: expected {count} names of classes, got {len(names)}")
    return tuple(names)
