"""Text as rows for the next token: x is a window of token ids, y the token behind it.

The text is divided in its order, training first, and no window crosses from one split into another: windows that were dealt
at random would share most of their tokens between training and test. With ``--tokens bytes`` files are mapped; with
characters every rank holds the ids of the whole text, 1 or 4 bytes a character.
"""

from pathlib import Path

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, RowPart, Source
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.prepare.splitting import DEFAULT

# What is no character of a text, though a file has it, and what the report says of it.
MARK = "\ufeff"
MARK_LEFT_OUT = "byte order mark left out"
RETURNS_READ = "line ends of other systems (carriage returns) read as one line end"


def open_text(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """All files, each divided by itself. Collective."""
    with world.agreeing():
        if options.task == "regression":
            raise ConfigurationError("--task regression: expected numbers to predict, got a text")
        notes: dict[str, None] = {}
        files = [(given, _read(given.path, options, notes)) for given in inputs]
        if options.tokens == "bytes":
            names = tuple(_shown(chr(b)) if b < 128 else f"0x{b:02x}" for b in range(256))
            vocabulary, ids = names, [codes for _, codes in files]
        else:
            points = np.unique(np.concatenate([np.unique(codes) for _, codes in files]))
            vocabulary = tuple(map(chr, points.tolist()))
            names = tuple(map(_shown, vocabulary))
            dtype = np.uint8 if len(points) <= 256 else np.int32
            ids = [np.searchsorted(points, codes).astype(dtype) for _, codes in files]
        parts = []
        for (given, _), tokens in zip(files, ids, strict=True):
            parts += _parts(given, tokens, inputs, options)
        if not any(part.block_count for part in parts):
            raise DataError(
                f"{inputs[0].path}: expected more than --context {options.context} tokens in a split, got "
                f"{sum(map(len, ids))} in all"
            )
    what = f"{len(vocabulary)} different {options.tokens}"
    return Source(
        tuple(sorted(parts, key=lambda part: ("train", "validation", "test").index(part.split))),
        "text",
        (options.context,),
        label="the next token",
        class_names=names,
        vocabulary=vocabulary,
        overlapping=True,
        notes=(
            f"{what}, windows of {options.context} every {options.stride}, divided in the order of the text",
            *notes,
        ),
    )


def _read(path: Path, options: Options, notes: dict[str, None]) -> np.ndarray:
    """Bytes, or code points; adds to the notes what was not taken as it is. Raises DataError."""
    try:
        if options.tokens == "bytes":
            return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        raw = path.read_bytes()
        text = raw.decode(options.encoding)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise not_decodable(path, error) from None
    except LookupError:
        raise ConfigurationError(
            f"--encoding: expected an encoding, got {options.encoding!r}"
        ) from None
    if text.startswith(MARK):
        text = text[1:]
        notes[MARK_LEFT_OUT] = None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        notes[RETURNS_READ] = None
    if "\0" in text:
        raise no_character_0(path)
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def not_decodable(path: Path, error: UnicodeDecodeError, lines_before: int = 0) -> DataError:
    """For bytes that are no text in the encoding; ``lines_before`` are those before what was decoded."""
    if not lines_before and error.object.startswith((b"\xff\xfe", b"\xfe\xff")):
        return DataError(f"{path}: text in UTF-16: --encoding utf-16 reads it")
    line = lines_before + error.object[: error.start].count(b"\n") + 1
    return DataError(
        f"{path}: line {line}: expected text in {error.encoding}, got byte {error.object[error.start]:#04x}; see "
        "--encoding, or --tokens bytes"
    )


def no_character_0(path: Path) -> DataError:
    """For what is no text."""
    return DataError(f"{path}: expected text, got a character 0; --tokens bytes takes any file")


def _shown(character: str) -> str:
    """A character as a report can print it."""
    return character if character.isprintable() and character != " " else repr(character)


def _parts(
    given: Input, tokens: np.ndarray, inputs: tuple[Input, ...], options: Options
) -> list["WindowPart"]:
    return [
        WindowPart(given.path.name, split, tokens[start:stop], options)
        for split, start, stop in division(given, len(tokens), inputs, options)
    ]


def division(
    given: Input, count: int, inputs: tuple[Input, ...], options: Options
) -> list[tuple[str, int, int]]:
    """(split, start, stop) of the ``count`` tokens of a file, in their order; only splits that get some."""
    fractions = np.array(options.split or DEFAULT)
    if given.split in ("validation", "test"):
        return [(given.split, 0, count)] if count else []
    others = {other.split for other in inputs}
    fractions[1] *= "validation" not in others
    fractions[2] *= "test" not in others and given.split is None
    if not fractions.any():  # all was for a split that other files are
        fractions[0 if given.split == "train" else 2] = 1
    stops = np.round(np.cumsum(fractions / fractions.sum()) * count).astype(int).tolist()
    cut = zip(("train", "validation", "test"), [0, *stops[:2]], stops, strict=True)
    return [(split, start, stop) for split, start, stop in cut if stop > start]


class WindowPart(RowPart):
    """Windows of a run of tokens; see ``Part``."""

    def __init__(self, name: str, split: str, tokens: np.ndarray, options: Options) -> None:
        rows = max(0, (len(tokens) - options.context - 1) // options.stride + 1)
        row_bytes = options.context * tokens.dtype.itemsize
        super().__init__(name, split, rows, row_bytes, options.block)
        self._tokens, self._context, self._stride = tokens, options.context, options.stride

    def read_rows(self, start: int, stop: int) -> Block:
        """Rows [start, stop)."""
        first = start * self._stride
        tokens = self._tokens[first : (stop - 1) * self._stride + self._context + 1]
        windows = np.lib.stride_tricks.sliding_window_view(tokens, self._context + 1)
        windows = windows[:: self._stride]
        x = np.ascontiguousarray(windows[:, :-1])
        return Block(x, windows[:, -1].astype(np.int64), {}, first_row=start)
