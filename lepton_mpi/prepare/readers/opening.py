"""Which reader opens the inputs: by --format, or by the names of the files and what a folder holds."""

from importlib import import_module
from pathlib import Path

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.inputs import Input

# Format: module of this package and function in it.
_READERS = {
    "csv": ("csv_table", "open_csv"),
    "numpy": ("numpy_files", "open_numpy"),
    "idx": ("idx", "open_idx"),
    "hdf5": ("hdf5_files", "open_hdf5"),
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
    ".txt": "text",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".he5": "hdf5",
    ".nc": "hdf5",
}
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


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
    module, function = _READERS[formats[0]]
    opened = getattr(import_module(f"lepton_mpi.prepare.readers.{module}"), function)
    return opened(inputs, options, world)


def _format(path: Path) -> str:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in _IMAGES:
                return "images"
            if file.suffix.lower() == ".wav":
                return "wav"
        raise DataError(
            f"{path}: expected a folder of images or .wav files by class, got none; see --format"
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
