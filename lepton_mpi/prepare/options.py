"""The options of ``prepare``, checked before NumPy and MPI are loaded."""

import argparse
import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.command_line import Parser, parse_size

FORMATS = (
    "auto",
    "csv",
    "numpy",
    "idx",
    "cifar",
    "images",
    "parquet",
    "text",
    "wav",
    "hdf5",
)
MISSING_WORDS = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "#N/A", "?")


def _option(default: Any, help_text: str, **keywords: Any) -> Any:
    """A field; ``keywords`` are argparse's."""
    return dataclasses.field(default=default, metadata={"help": help_text, "keywords": keywords})


def _choice(default: str, help_text: str, *names: str) -> Any:
    return _option(default, help_text, choices=(default, *names))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _fractions(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    fits = 1 <= len(values) <= 3 and all(0 <= value <= 1 for value in values)
    if not fits or values[0] <= 0 or abs(sum(values) - 1) > 1e-9:
        raise argparse.ArgumentTypeError(
            f"expected fractions for train,validation,test that add up to 1, such as 0.8,0.1,0.1, got {text!r}"
        )
    return (*values, 0.0, 0.0)[:3]


def _image_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 32x32, got {text!r}")
    return int(match[1]), int(match[2])


def _positive(kind: type) -> Any:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            what = "a whole number of at least 1" if kind is int else "a number above 0"
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
        return value

    return parse


_WHOLE, _NUMBER = {"type": _positive(int)}, {"type": _positive(float)}
_LIST = {"type": _names, "metavar": "NAME,…"}
_NAME = {"metavar": "NAME"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What decides the file, beside the inputs; equal on every rank."""

    inputs: tuple[str, ...]
    output: str

    format: str = _option("auto", "of the inputs; auto: by their names", choices=FORMATS)
    label: tuple[str, ...] = _option(
        (),
        "column with the label, by name or number from 0, from the end if negative; several for regression",
        type=_names,
        metavar="NAME|NUMBER",
    )
    task: str = _choice(
        "auto",
        "auto: whole numbers and texts are classes, other labels are asked about",
        "classification",
        "regression",
    )
    header: str = _option(
        "auto", "auto, none, or the number of the line, from 1", metavar="auto|none|LINE"
    )
    delimiter: str = _option(
        "auto", "of a CSV file: auto, a character, tab or space", metavar="CHARACTER"
    )
    decimal: str = _choice(".", "sign before the decimals of a CSV file", ",")
    quote: str = _choice('"', "none: quotes are ordinary characters", "'", "none")
    encoding: str = _option("utf-8", "of CSV and text files", metavar="NAME")
    x: str | None = _option(
        None,
        "data set or array of the features; {split} stands for train, validation, test",
        **_NAME,
    )
    y: str | None = _option(None, "data set or array of the labels; likewise", **_NAME)

    split: tuple[float, ...] | None = _option(
        None,
        "fractions for train,validation,test; default: 0.8,0.1,0.1, for rows that the inputs put nowhere",
        type=_fractions,
        metavar="F,F,F",
    )
    split_column: str | None = _option(
        None, "column whose cells are train, validation or test", **_NAME
    )
    group: str | None = _option(None, "column whose equal cells stay in one split", **_NAME)
    no_stratify: bool = _option(False, "split without regard to the classes")
    seed: int = _option(0, "decides the split and the balance", type=int)

    categorical: tuple[str, ...] = _option(
        (), "columns that are categories although they look like numbers", **_LIST
    )
    drop_columns: tuple[str, ...] = _option((), "columns to leave out", **_LIST)
    missing_words: tuple[str, ...] = _option(
        MISSING_WORDS,
        f"cells of a table that are missing, beside empty ones, such as -999; default: {','.join(MISSING_WORDS)}",
        type=_names,
        metavar="WORD,…",
    )
    missing: str = _option(
        "error",
        "cells: error, drop the row, mean, median (of categories: the most frequent), or constant=VALUE",
        metavar="error|drop|mean|median|constant=VALUE",
    )
    drop_duplicates: bool = _option(False, "drop rows that stand in the data before")
    constant_columns: str = _choice(
        "keep", "drop columns with one value in all training rows", "drop"
    )
    outliers: str = _option(
        "none",
        "numbers are clipped to the quantiles Q and 1-Q, or to Z standard deviations around the mean, before gaps are "
        "filled",
        metavar="none|quantile=Q|zscore=Z",
    )
    balance: str = _choice(
        "none",
        "as many training rows of each class as of the rarest (undersample), of the commonest (oversample)",
        "undersample",
        "oversample",
    )  # fmt: skip
    normalise: str = _choice(
        "auto",
        "auto: pixels for images, rows of 2 or 3 dimensions of bytes that are not only 0 and 1, none for tokens, else "
        "standard; pixels: by 255",
        "standard",
        "minmax",
        "robust",
        "pixels",
        "none",
    )
    per: str = _choice(
        "auto",
        "what has statistics of its own; auto: a channel of rows of 2 or 3 dimensions, else a feature",
        "feature",
        "channel",
        "all",
    )

    context: int = _option(32, "text: tokens of a row", **_WHOLE, metavar="N")
    stride: int = _option(1, "text: tokens from one row to the next", **_WHOLE, metavar="N")
    tokens: str = _choice("characters", "text: what a token is", "bytes")
    image_size: tuple[int, int] | None = _option(
        None, "images: resize to; default: all must have one size", type=_image_size, metavar="HxW"
    )
    colour: str = _choice("auto", "images; auto: as the first image", "grey", "rgb")
    sample_rate: int | None = _option(
        None, "sound: resample to; default: all must have one rate", **_WHOLE, metavar="HZ"
    )
    seconds: float = _option(
        1.0, "sound: length of a row; longer is cut, shorter gets silence", **_NUMBER, metavar="S"
    )
    mel_bands: int = _option(40, "sound: bands of the spectrogram", **_WHOLE, metavar="N")

    dtype: str = _choice(
        "auto", "of x; auto: the smallest that holds every number unchanged", "uint8", "float32", "float64"
    )  # fmt: skip
    compress: str = _choice(
        "none", "gzip takes less space, none reads fastest; of chunks only", "gzip"
    )
    layout: str = _choice("chunked", "contiguous has no checksums, and can be mapped", "contiguous")
    block: int = _option(
        1 << 20, "unit of work of a rank, and of the sums; default: 1M", type=parse_size, metavar="BYTES"
    )  # fmt: skip
    memory: int = _option(
        1 << 30,
        "rows that a host keeps between passes; default: 1G; others are read again",
        type=parse_size,
        metavar="BYTES",
    )
    dry_run: bool = _option(False, "write nothing, say what would be written")
    force: bool = _option(False, "replace OUTPUT if it exists")
    timeout: float = _option(
        300.0, "seconds without progress that end the job", **_NUMBER, metavar="S"
    )

    def __post_init__(self) -> None:
        """Check what argparse cannot. Raises ConfigurationError."""
        _ = self.missing_constant, self.outlier_limit
        if self.header not in ("auto", "none") and not re.fullmatch(r"[1-9]\d*", self.header):
            raise ConfigurationError(
                f"--header: expected auto, none or the number of a line from 1, got {self.header!r}"
            )
        if self.delimiter not in ("auto", "tab", "space") and len(self.delimiter) != 1:
            raise ConfigurationError(
                f"--delimiter: expected auto, tab, space or one character, got {self.delimiter!r}"
            )
        if self.seed < 0:
            raise ConfigurationError(f"--seed: expected at least 0, got {self.seed}")
        if self.block < 64:
            raise ConfigurationError(f"--block: expected at least 64 bytes, got {self.block}")
        if self.split_column and (self.split or self.group):
            raise ConfigurationError(
                "--split-column: expected neither --split nor --group beside it"
            )
        if self.compress != "none" and self.layout == "contiguous":
            raise ConfigurationError(
                f"--compress {self.compress}: packs chunks, got --layout contiguous"
            )
        if self.balance != "none" and self.task == "regression":
            raise ConfigurationError("--balance: expected classes, got --task regression")

    @property
    def missing_constant(self) -> str | None:
        """VALUE of ``--missing constant=VALUE``."""
        kind, _, value = self.missing.partition("=")
        if (kind == "constant") != bool(value) or kind not in (
            "error",
            "drop",
            "mean",
            "median",
            "constant",
        ):
            raise ConfigurationError(
                f"--missing: expected error, drop, mean, median or constant=VALUE, got {self.missing!r}"
            )
        return value or None

    @property
    def outlier_limit(self) -> tuple[str, float]:
        """Kind (none, quantile, zscore) and number of ``--outliers``."""
        kind, _, text = self.outliers.partition("=")
        try:
            limit = float(text) if text else 0.0
        except ValueError:
            limit = math.nan
        good = {"none": not text, "quantile": 0 < limit < 0.5, "zscore": 0 < limit < math.inf}
        if not good.get(kind, False):
            raise ConfigurationError(
                f"--outliers: expected none, quantile=Q with Q between 0 and 0.5, or zscore=Z with Z above 0, "
                f"got {self.outliers!r}"
            )
        return kind, limit


_EPILOG = """An INPUT written as train=PATH, validation=PATH or test=PATH holds the rows of that split. An OUTPUT that
exists is kept unless --force is given. A file is the same, bit for bit, from any number of ranks."""


def parse(arguments: list[str]) -> Options:
    """Options from the command line's words. Raises ConfigurationError; ``--help`` ends the process."""
    parser = Parser(
        prog="python -m lepton_mpi prepare",
        description="Make an HDF5 file to train on from CSV, Parquet, .npy, .npz, IDX, CIFAR, HDF5, text files, "
        "or folders of images or sounds by class.",
        epilog=_EPILOG,
        usage="%(prog)s INPUT… OUTPUT.h5 [options]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="one or more inputs, then the output"
    )
    for field in dataclasses.fields(Options):
        if "help" in field.metadata:
            flag = "--" + field.name.replace("_", "-")
            keywords = dict(field.metadata["keywords"])
            if field.default is False:
                keywords["action"] = "store_true"
            help_text = field.metadata["help"].replace("%", "%%")
            parser.add_argument(flag, default=field.default, help=help_text, **keywords)
    values = vars(parser.parse(arguments, "inputs and an output"))
    *inputs, output = values.pop("paths")
    if not inputs:
        raise ConfigurationError(
            f"expected at least one INPUT before the OUTPUT, got {output!r} only"
        )
    return Options(inputs=tuple(inputs), output=output, **values)
