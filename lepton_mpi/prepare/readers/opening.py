"""Which reader opens the inputs: by --format, or by the names of the files and what a folder holds."""

import dataclasses
from importlib import import_module
from pathlib import Path

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.class_folders import IMAGES
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
    "group": _TABLES,
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
    "encoding": ("csv", "text"),
    "x": ("numpy", "hdf5"),
    "y": ("numpy", "hdf5"),
    "rows": ("numpy", "hdf5"),
    "context": ("text",),
    "stride": ("text",),
    "tokens": ("text",),
    "drop_duplicates": tuple(name for name in _READERS if name != "text"),
    "image_size": ("images",),
    "colour": ("images",),
    "sample_rate": ("wav",),
    "seconds": ("wav",),
    "mel_bands": ("wav",),
}
_OF_FOLDERS = {".wav": "wav", ".bin": "cifar", ".parquet": "parquet", ".pq": "parquet"}
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


def open_inputs(options: Options, world) -> Source:
    """The source of all inputs. Collective over ``world``. Raises DataError and ConfigurationError on every rank."""
    with world.agreeing():
        inputs = tuple(Input.of(word) for word in options.inputs)
        for given in inputs:
            if not given.path.exists():
                raise DataError(f"{given.path}: no such file or folder")
        formats = [
            options.format if options.format != "auto" else _format(given.path) for given in inputs
        ]
        for given, name in zip(inputs, formats, strict=True):
            if name != formats[0]:
                raise ConfigurationError(
                    f"expected inputs of one format, got {formats[0]} of {inputs[0].path} and {name} of {given.path}"
                )
        _check_options(options, formats[0])
    module, function = _READERS[formats[0]]
    reader = import_module(f"lepton_mpi.prepare.readers.{module}")
    return getattr(reader, function)(inputs, options, world)


def _check_options(options: Options, format_name: str) -> None:
    """Raise ConfigurationError for an option that this format knows nothing of: it must not be ignored silently."""
    for field in dataclasses.fields(options):
        formats = _OPTIONS_OF.get(field.name)
        if formats and format_name not in formats and getattr(options, field.name) != field.default:
            raise ConfigurationError(
                f"--{field.name.replace('_', '-')}: is for {', '.join(formats)}, got inputs of format {format_name}"
            )


def _format(path: Path) -> str:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in IMAGES:
                return "images"
            if file.suffix.lower() in _OF_FOLDERS:
                return _OF_FOLDERS[file.suffix.lower()]
        raise DataError(
            f"{path}: expected images or .wav files by class, CIFAR's .bin files, or .parquet files; got none; see --format"
        )
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(("-ubyte", ".ubyte")):
        return "idx"
    found = _SUFFIXES.get(Path(name).suffix)
    if found is None:
        raise ConfigurationError(
            f"--format: cannot tell the format of {path} by its name; expected one of "
            f"{', '.join(_READERS)}"
        )
    return found
