"""The options of ``prepare``, checked before NumPy and MPI are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import parser
from lepton_mpi.options.kinds import Bytes, OneOf, PathText, Several, Text
from lepton_mpi.options.option import (
    ABOVE_0,
    WHOLE_FROM_0,
    WHOLE_FROM_1,
    Checked,
    option,
    options_of,
    position,
)
from lepton_mpi.prepare import option_kinds, text_options
from lepton_mpi.prepare.written_dates import is_time_of_day, seconds_of

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
MISSING_WORDS = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "#N/A", "?", "\\N")

# Tokens of byte-level BPE, if nobody says.
VOCABULARY = 4096

_NAME = Text("NAME", "a name")
_NAMES = Several.of(_NAME, ",")
_HEADER = (
    "auto, none or the number of a line from 1",
    lambda text: text in ("auto", "none") or (text.isdecimal() and text[0] != "0"),
)
_DELIMITER = (
    "auto, tab, space or one character",
    lambda text: text in ("auto", "tab", "space") or len(text) == 1,
)
_COMMENT = (
    "none or one character of ASCII",
    lambda text: text == "none" or (len(text) == 1 and text.isascii()),
)
_MISSING = (
    "error, drop, mean, median or constant=VALUE",
    option_kinds.is_read_by(option_kinds.missing_constant),
)
_SINCE = (
    "first, or a date such as 2020-01-31",
    lambda text: (
        text == "first" or (seconds_of(text, "ymd") is not None and not is_time_of_day(text))
    ),
)
_OUTLIERS = (
    "none, quantile=Q with Q between 0 and 0.5, or zscore=Z with Z above 0",
    option_kinds.is_read_by(option_kinds.outlier_limit),
)


def _choice(default: str, help_text: str, *names: str) -> str:
    return option(default, help_text, kind=OneOf.of(default, *names))


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What decides the file, beside the inputs; equal on every rank."""

    inputs: tuple[str, ...] = position(
        "what to read", kind=Several.of(option_kinds.InputPath("INPUT"))
    )
    output: str = position("file to write", kind=PathText("OUTPUT"))

    format: str = option("auto", "of the inputs; auto: by their names", kind=OneOf.of(*FORMATS))
    label: tuple[str, ...] = option(
        (),
        "column with the label, by name or number from 0, from the end if negative; several for regression",
        kind=Several.of(Text("NAME|NUMBER", "a name or number"), ","),
    )
    task: str = _choice(
        "auto",
        "auto: whole numbers and texts are classes, other labels are asked about",
        "classification",
        "regression",
    )
    header: str = option(
        "auto", "auto, none, or the number of the line, from 1", _HEADER, kind=Text("LINE")
    )
    delimiter: str = option(
        "auto",
        "of a CSV file: auto, a character, tab or space",
        _DELIMITER,
        kind=Text("CHARACTER"),
    )
    decimal: str = _choice(
        "auto", "sign before the decimals of numbers in texts; auto: as the first rows have it", ".", ","
    )  # fmt: skip
    quote: str = _choice('"', "none: quotes are ordinary characters", "'", "none")
    escape: str = _choice(
        "none", "sign that takes the meaning from a quote behind it, as Spark and MySQL write it", "\\"
    )  # fmt: skip
    comment: str = option(
        "none",
        "lines of a CSV file that begin with this sign are left out",
        _COMMENT,
        kind=Text("CHARACTER"),
    )
    skip: int = option(0, "lines to leave out at the beginning of a CSV file", WHOLE_FROM_0)
    footer: int = option(0, "lines to leave out at the end of a CSV file", WHOLE_FROM_0)
    units_line: bool = option(False, "leave out the line below the header, which holds units")
    encoding: str = option("utf-8", "of CSV and text files", kind=_NAME)
    x: str | None = option(
        None,
        "data set or array of the features; {split} stands for train, validation, test",
        kind=_NAME,
    )
    y: str | None = option(None, "data set or array of the labels; likewise", kind=_NAME)
    rows: str = _choice(
        "auto",
        "dimension of an array that counts rows; auto: the first, of MATLAB's as labels tell",
        "first",
        "last",
    )
    labels: tuple[str, ...] = option(
        (),
        "files of the labels, one for each input: .npy, .npz, .h5, .mat, IDX, or a text with a label a line",
        kind=Several.of(PathText("FILE"), ","),
    )

    like: str | None = option(
        None,
        "a file that prepare made, a checkpoint, or a folder of checkpoints, of which the newest that is whole is taken: its columns, "
        "codes, fills, classes and normalisation are applied, and all rows are for testing if nothing says more",
        kind=PathText("FILE"),
    )
    unknown: str = _choice(
        "error", "with --like: categories that its file has not are an error, or missing", "missing"
    )
    split: tuple[float, ...] | None = option(
        None,
        "fractions for train,validation,test; none: 0.8,0.1,0.1, for rows that the inputs put nowhere",
        kind=option_kinds.FRACTIONS,
    )
    split_column: str | None = option(
        None, "column whose cells are train, validation or test", kind=_NAME
    )
    group: str | None = option(
        None,
        "column whose equal cells stay in one split; fold: of folders, each of the folders fold1, fold2, …",
        kind=_NAME,
    )
    no_stratify: bool = option(False, "split without regard to the classes")
    seed: int = option(0, "decides the split and the balance", WHOLE_FROM_0)

    categorical: tuple[str, ...] = option(
        (), "columns that are categories although they look like numbers", kind=_NAMES
    )
    categories: str = _choice(
        "auto",
        "one-hot: a column each, by itself up to 100 of them; codes: numbers among the features; inputs: whole numbers in an "
        "input of their own, for models that embed them",
        "one-hot",
        "codes",
        "inputs",
    )
    columns: tuple[str, ...] = option(
        (),
        "features of a table, in this order; none: all columns that are nothing else",
        kind=_NAMES,
    )
    drop_columns: tuple[str, ...] = option((), "columns to leave out", kind=_NAMES)
    index_columns: str = _choice(
        "drop", "columns that only number the rows, unnamed ones and those of pandas: keep makes features of them", "keep"
    )  # fmt: skip
    numbers: tuple[str, ...] = option(
        (),
        "columns of texts to read as numbers: with thousands, currency, percent, a unit",
        kind=_NAMES,
    )
    dates: tuple[str, ...] = option(
        (),
        "columns of dates or times; NAME=dmy or NAME=mdy where they are like 03/04/2023",
        kind=_NAMES,
    )
    dates_as: str = _choice(
        "seconds", "since --dates-since, or year, month, day, weekday, hour and minute", "parts"
    )
    dates_since: str = option(
        "1970-01-01",
        "where the seconds begin, so that other files count alike; first: the earliest date in the first row",
        _SINCE,
        kind=Text("DATE"),
    )
    missing_words: tuple[str, ...] = option(
        (),
        f"cells of a table that are missing, such as -999, beside empty ones and {','.join(MISSING_WORDS)}",
        kind=Several.of(Text("WORD"), ","),
    )
    only_missing_words: bool = option(
        False, "cells such as NA are texts unless --missing-words has them"
    )
    no_label: tuple[str, ...] = option(
        (),
        "numbers in place of a label that mean none, such as -1 or 255; none: they are classes; default: asked about",
        kind=Several.of(Text("NUMBER"), ","),
    )
    missing: str = option(
        "error",
        "cells: error, drop the row, mean, median (of categories: the most frequent), or constant=VALUE",
        _MISSING,
        kind=Text("WAY"),
    )
    drop_duplicates: bool = option(False, "drop rows that stand in the data before")
    constant_columns: str = _choice(
        "keep", "drop columns with one value in all training rows", "drop"
    )
    outliers: str = option(
        "none",
        "none; quantile=Q, zscore=Z: numbers are clipped to the quantiles Q and 1-Q, or to Z standard deviations around "
        "the mean, before gaps are filled",
        _OUTLIERS,
        kind=Text("WAY"),
    )
    balance: str = _choice(
        "none",
        "as many training rows of each class as of the rarest (undersample), of the commonest (oversample: rows are repeated, and all "
        "that is fitted and reported counts their repeats)",
        "undersample",
        "oversample",
    )
    normalise: str = _choice(
        "auto",
        "auto: pixels for images, rows of 2 or 3 dimensions of bytes of which some are above 127, none for tokens, else "
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

    target_scale: str = _choice(
        "standard",
        "of a regression: targets are trained on with mean 0 and deviation 1, those of log(1 + target), or as they are; "
        "figures and predictions are in their own units",
        "log",
        "none",
    )

    context: int = option(32, "text: tokens of a row", WHOLE_FROM_1)
    stride: int = option(1, "text: tokens from one row to the next", WHOLE_FROM_1)
    tokens: str = _choice(
        "characters", "text: what a token is; bpe: byte-level byte pair encoding, in one piece as by --stream", "bytes", "bpe"
    )  # fmt: skip
    vocabulary: int | None = option(
        None,
        f"text: with --tokens bpe, how many tokens are made of the training text, from 257 up; none: {VOCABULARY}",
        ("a whole number from 257 up, the 256 bytes and more", lambda count: count > 256),
    )
    tokenizer: str | None = option(
        None,
        "text: a tokenizer.json, such as GPT-2's, whose tokens are taken instead (--tokens bpe)",
        kind=PathText("FILE"),
    )
    stream: bool = option(
        False,
        "text: write it in one piece, of which training cuts rows of --context tokens, for models of every next token",
    )
    document_separator: str | None = option(
        None,
        "text: with --stream, what stands between the documents of a file, such as '<|endoftext|>'; each file is one at least",
        kind=Text("TEXT"),
    )
    image_size: tuple[int, int] | None = option(
        None,
        "images: resize to; none: all must have one size",
        kind=option_kinds.IMAGE_SIZE,
    )
    colour: str = _choice("auto", "images; auto: as the first image", "grey", "rgb")
    sample_rate: int | None = option(
        None, "sound: samples a second to convert to; none: all must have one rate", WHOLE_FROM_1
    )
    seconds: float = option(
        1.0, "sound: length of a row; longer is cut, shorter gets silence", ABOVE_0
    )
    files: str | None = option(
        None, "images, sounds: column of a table with their names, in --folder", kind=_NAME
    )
    folder: str | None = option(
        None, "images, sounds: where the files are that --files names", kind=PathText("FOLDER")
    )
    drop_classes: tuple[str, ...] = option(
        (),
        "images, sounds: folders that are no class, such as _background_noise_; none: all that there are are classes",
        kind=_NAMES,
    )
    unreadable: str = _choice("error", "images, sounds: files that cannot be read", "drop")
    mel_bands: int = option(40, "sound: bands of the spectrogram", WHOLE_FROM_1)

    dtype: str = _choice(
        "auto",
        "of x; auto: the smallest that holds every number unchanged",
        "uint8",
        "float32",
        "float64",
    )
    compress: str = _choice(
        "none", "gzip takes less space, none reads fastest; of chunks only", "gzip"
    )
    layout: str = _choice(
        "chunked", "contiguous can be mapped, and has its checksums beside it", "contiguous"
    )
    block: int = option(
        1 << 20,
        "unit of work of a rank, and of the sums",
        ("at least 64 bytes, such as 1M", lambda byte_count: byte_count >= 64),
        kind=Bytes(),
    )
    memory: int = option(
        1 << 30,
        "rows that a host keeps between passes; others are read again",
        ("a size such as 0, 64M or 1G", lambda byte_count: byte_count >= 0),
        kind=Bytes(),
    )
    dry_run: bool = option(False, "write nothing, say what would be written")
    force: bool = option(False, "replace OUTPUT if it exists")
    timeout: float = option(300.0, "seconds without progress that end the job", ABOVE_0)

    # No options: whether inputs may be without the labels of the file of --like, so that they are rows to be scored; and
    # options that were taken from it, which another format passes over.
    may_lack_labels: bool = False
    from_like: tuple[str, ...] = ()

    def check_together(self) -> None:
        """Raises ConfigurationError for options that contradict each other."""
        text_options.check(self)
        if self.split_column and (self.split or self.group):
            raise ConfigurationError(
                "--split-column: expected neither --split nor --group beside it"
            )
        if self.unknown != "error" and self.like is None:
            raise ConfigurationError(f"--unknown {self.unknown}: expected --like FILE beside it")
        if self.dates_as == "parts" and self.dates_since != "1970-01-01":
            raise ConfigurationError("--dates-since: is for --dates-as seconds, got parts")
        if self.skip and self.header not in ("auto", "none"):
            raise ConfigurationError("--skip: expected no --header LINE beside it")
        if self.compress != "none" and self.layout == "contiguous":
            raise ConfigurationError(
                f"--compress {self.compress}: packs chunks, got --layout contiguous"
            )
        if self.target_scale != "standard" and self.task != "regression":
            raise ConfigurationError(
                f"--target-scale {self.target_scale}: expected --task regression, got {self.task}"
            )
        if self.balance != "none" and self.task == "regression":
            raise ConfigurationError("--balance: expected classes, got --task regression")

    @property
    def words_for_missing(self) -> tuple[str, ...]:
        """Texts of cells that are missing: the usual ones and those of ``--missing-words``."""
        usual = () if self.only_missing_words else MISSING_WORDS
        return (*usual, *self.missing_words)

    @property
    def missing_constant(self) -> str | None:
        """VALUE of ``--missing constant=VALUE``."""
        return option_kinds.missing_constant(self.missing)

    @property
    def outlier_limit(self) -> tuple[str, float]:
        """Kind (none, quantile, zscore) and number of ``--outliers``."""
        return option_kinds.outlier_limit(self.outliers)


def parse(words: Sequence[str]) -> Options:
    """Options from the command line's words. Raises ConfigurationError."""
    return text_options.completed(Options(**parser.read(words, options_of(Options))))
