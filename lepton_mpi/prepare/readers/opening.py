"""Which reader opens the inputs: by --format, or by the names of the files and what a folder holds."""

import dataclasses
import re
from importlib import import_module
from pathlib import Path

from lepton_mpi.data.files import probe
from lepton_mpi.data.files.array_names import prepare_line
from lepton_mpi.data.files.other_files import UNKNOWN, what_it_is
from lepton_mpi.errors import ConfigurationError, DataError, same_on_all_ranks
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source, file_table
from lepton_mpi.prepare.readers.cifar import PICKLED
from lepton_mpi.prepare.readers.class_folders import IMAGES, SOUNDS, files_below
from lepton_mpi.prepare.readers.csv_header import is_value
from lepton_mpi.prepare.readers.inputs import Input

# Format: module of this package and function in it.
_READERS = {
    "csv": ("csv_table", "open_csv"),
    "numpy": ("numpy_files", "open_numpy"),
    "idx": ("idx", "open_idx"),
    "hdf5": ("hdf5_files", "open_hdf5"),
    "cifar": ("cifar", "open_cifar"),
    "images": ("image_folders", "open_images"),
    "wav": ("wav_folders", "open_wav"),
    "parquet": ("parquet", "open_parquet"),
    "text": ("text", "open_text"),
}
_TABLES = ("csv", "parquet", "numpy")
# Options that only some formats know.
_OPTIONS_OF = {
    "label": (*_TABLES, "cifar"),
    "split_column": _TABLES,
    "group": (*_TABLES, "images", "wav"),
    "categorical": _TABLES,
    "categories": _TABLES,
    "columns": _TABLES,
    "drop_columns": _TABLES,
    "missing_words": _TABLES,
    "only_missing_words": _TABLES,
    "header": ("csv",),
    "delimiter": ("csv",),
    "decimal": ("csv", "parquet"),
    "quote": ("csv",),
    "escape": ("csv",),
    "comment": ("csv",),
    "skip": ("csv",),
    "footer": ("csv",),
    "units_line": ("csv",),
    "index_columns": ("csv", "parquet"),
    "numbers": ("csv", "parquet"),
    "dates": ("csv", "parquet"),
    "dates_as": ("csv", "parquet"),
    "dates_since": ("csv", "parquet"),
    "encoding": ("csv", "text"),
    "x": ("numpy", "hdf5"),
    "y": ("numpy", "hdf5"),
    "rows": ("numpy", "hdf5"),
    "context": ("text",),
    "stride": ("text",),
    "tokens": ("text",),
    "vocabulary": ("text",),
    "tokenizer": ("text",),
    "document_separator": ("text",),
    "stream": ("text",),
    "drop_duplicates": tuple(name for name in _READERS if name != "text"),
    "image_size": ("images",),
    "colour": ("images",),
    "sample_rate": ("wav",),
    "seconds": ("wav",),
    "mel_bands": ("wav",),
    "labels": (*_TABLES, "hdf5"),
    "drop_classes": ("images", "wav"),
    "unreadable": ("images", "wav"),
}
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".data": "csv",
    ".tra": "csv",
    ".tes": "csv",
    ".npy": "numpy",
    ".npz": "numpy",
    ".idx": "idx",
    ".bin": "cifar",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
    ".h5": "hdf5",
    ".mat": "hdf5",
    ".h5ad": "hdf5",
    ".nc4": "hdf5",
    ".loom": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".he5": "hdf5",
    ".nc": "hdf5",
}


# A text is told from a table by its beginning.
_TEXT_BYTES = 16384
_CELLS_APART = re.compile(r"\s*[,;|\t]\s*|\s+")


def open_inputs(options: Options, world) -> Source:
    """The source of all inputs. Collective over ``world``. Raises DataError and ConfigurationError on every rank."""
    inputs, format_name = find_inputs(options, world)
    module, function = _READERS[format_name]
    reader = import_module(f"lepton_mpi.prepare.readers.{module}")
    open_source = getattr(reader, function)
    if options.files:
        return file_table.open_files(inputs, options, world, open_source)
    source = open_source(inputs, options, world)
    return _with_labels(source, options, world) if options.labels else source


def find_inputs(options: Options, world) -> tuple[tuple[Input, ...], str]:
    """The inputs and their format. Collective. Raises DataError and ConfigurationError on every rank."""
    with world.agreeing():
        inputs = tuple(Input.of(word) for word in options.inputs)
        for given in inputs:
            if not given.path.exists():
                raise DataError(f"{given.path}: no such file or folder")
            if not given.path.is_dir():
                probe.check_regular(given.path)
        formats = [
            options.format if options.format != "auto" else _format(given.path) for given in inputs
        ]
        for given, name in zip(inputs, formats, strict=True):
            if name != formats[0]:
                raise ConfigurationError(
                    f"expected inputs of one format, got {formats[0]} of {inputs[0].path} and {name} of {given.path}"
                )
        file_table.check_options(options, formats[0])
        _check_options(options, formats[0])
    return inputs, formats[0]


def _with_labels(source: Source, options: Options, world) -> Source:
    """The source with the labels of ``--labels``. Collective. Raises DataError."""
    files = import_module("lepton_mpi.prepare.readers.label_files")
    labels = files.read_labels(options, world)
    with same_on_all_ranks():
        names = files.class_names_of(labels)
    told = f"labels of {', '.join(file.name for file in labels)}"
    return dataclasses.replace(
        source, labels=labels, class_names=names, label="the label", notes=(*source.notes, told)
    )


def _check_options(options: Options, format_name: str) -> None:
    """Raise ConfigurationError for an option that this format knows nothing of: it must not be ignored silently."""
    for field in dataclasses.fields(options):
        formats = _OPTIONS_OF.get(field.name)
        if options.files and formats and {"images", "wav"} & set(formats):
            continue  # a table of files
        if field.name in options.from_like:
            continue  # of a file that was made of another format
        if formats and format_name not in formats and getattr(options, field.name) != field.default:
            raise ConfigurationError(
                f"--{field.name.replace('_', '-')}: is for {', '.join(formats)}, got inputs of format {format_name}"
            )


def _format(path: Path) -> str:
    if path.is_dir():
        return _format_of_folder(path)
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(("-ubyte", ".ubyte", "-int")):
        return "idx"
    if path.name in PICKLED:
        return "cifar"
    found = _SUFFIXES.get(Path(name).suffix)
    if found is None:
        raise ConfigurationError(
            f"--format: cannot tell the format of {path} by its name; {_by_first_bytes(path)}"
        )
    if found == "text":
        _check_is_no_table(path)
    return found


def _by_first_bytes(path: Path) -> str:
    """What a file seems to be, with the command that reads it; else all formats that there are. Raises DataError."""
    try:
        probe.check_regular(path)
        what = what_it_is(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not what:
        what = f"HDF5: {prepare_line(path, '--format hdf5')}"
    return f"expected one of {', '.join(_READERS)}" if what == UNKNOWN else f"it is {what}"


def _check_is_no_table(path: Path) -> None:
    """Raise ConfigurationError for a .txt of equally many cells a line, most of them numbers: it would be read by its letters."""
    try:
        with path.open("rb") as file:
            head = file.read(_TEXT_BYTES)
    except OSError:
        return  # which its reader tells
    lines = [line.strip() for line in head.decode("utf-8", "replace").splitlines()[1:-1]]
    rows = [_CELLS_APART.split(line) for line in lines if line]
    widths = {len(row) for row in rows}
    numbers = sum(is_value(cell) for row in rows for cell in row)
    if len(rows) < 3 or len(widths) != 1 or 2 * numbers < len(rows) * max(widths):
        return
    cells = f"{max(widths)} cells" if max(widths) > 1 else "one number"
    raise ConfigurationError(
        f"--format: {path}: {cells} in each line: a table or a text? --format csv reads a table, --format text letters"
        + ("; --labels takes a file with a label a line" if widths == {1} else "")
    )


def _format_of_folder(folder: Path) -> str:
    """By the first file that a reader of folders takes. Raises DataError."""
    names = set()
    for file in files_below(folder):
        name, suffix = file.name.lower(), file.suffix.lower()
        if suffix in IMAGES:
            return "images"
        if suffix in SOUNDS:
            return "wav"
        if suffix in (".parquet", ".pq"):
            return "parquet"
        if suffix == ".bin" or name in PICKLED:
            return "cifar"
        if name.removesuffix(".gz").endswith(("-ubyte", ".ubyte", "-int", ".idx")):
            return "idx"
        names.add(suffix)
    raise DataError(
        f"{folder}: expected images or .wav files by class, CIFAR's .bin files, IDX files, or .parquet files; got "
        f"{', '.join(sorted(names)) or 'none'}; see --format"
    )
