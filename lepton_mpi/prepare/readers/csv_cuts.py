"""Where a CSV file is cut into blocks: at newlines that are in no quotes.

Whether a newline is in quotes depends on all quotes before it, but only on whether their number is odd. So every rank
counts the quotes of its own pieces of a file and notes the first newline of each piece for both cases; from the notes of all
pieces, every rank knows where the lines begin at which blocks are cut, and their numbers. (The idea is that of Ge, Li,
Eilebrecht, Chandramouli and Kossmann, "Speculative distributed CSV data parsing", SIGMOD 2019, without speculation.)
A gzipped file has to be unpacked from its beginning: rank 0 cuts it, and each rank unpacks it once in a pass.
"""

from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.prepare.readers.csv_dialect import Dialect
from lepton_mpi.prepare.readers.csv_raw import RawFile

# So that ranks that wait for rank 0 to unpack a file hear from it.
_PIECES_PER_ROUND = 64
# A footer is looked for in so many bytes at the end.
_FOOTER_BYTES = 1 << 20


class Piece(NamedTuple):
    """What a piece of a file tells of where its lines begin."""

    quotes: int
    newlines: int
    # First byte behind a newline, and newlines up to it, if the piece begins outside quotes, or inside; -1: none.
    begins: tuple[int, int]
    lines: tuple[int, int]


def block_bounds(
    path: Path, dialect: Dialect, block_bytes: int, world
) -> list[tuple[int, int, int]]:
    """(start, stop, line of the first record) of each block. Collective."""
    pieces: dict[int, Piece] = {}
    with ExitStack() as stack:
        with world.agreeing():
            file = stack.enter_context(closing(RawFile(path, dialect.notation)))
        first, per_round = 0, _PIECES_PER_ROUND * world.size
        while len(pieces) == first:
            world.clock.enter("compute", first)  # a round is progress; the whole file may take long
            numbers = range(first, first + per_round)
            own = numbers[world.rank :: world.size]
            if file.must_be_read_in_order:
                own = numbers if world.rank == 0 else range(0)
            with world.agreeing():
                mine = _pieces(file, dialect, block_bytes, own)
            for some in world.comm.allgather(mine):
                pieces |= some
            first += per_round
    in_order = [pieces[number] for number in sorted(pieces)]
    blocks = cut(in_order, dialect.start, block_bytes, dialect.first_line)[0]
    return [*blocks[:-1], (blocks[-1][0], dialect.stop, blocks[-1][2])] if blocks else []


def without_footer(path: Path, dialect: Dialect, lines: int) -> Dialect:
    """The same with the end before the last ``lines`` lines that are not empty. Raises DataError."""
    with closing(RawFile(path, dialect.notation)) as file:
        start, tail = file.tail(_FOOTER_BYTES)
    stop = len(tail.rstrip())
    for _ in range(lines):
        stop = len(tail[: tail.rfind(b"\n", 0, stop) + 1].rstrip())
    if start + stop <= dialect.start:
        raise DataError(f"{path}: expected rows above the --footer of {lines} lines, got none")
    end = tail.find(b"\n", stop) + 1
    return replace(dialect, stop=start + end)


def _pieces(file: RawFile, dialect: Dialect, block_bytes: int, numbers: range) -> dict[int, Piece]:
    """Pieces by their numbers, as far as the file goes."""
    pieces = {}
    for number in numbers:
        start = dialect.start + number * block_bytes
        count = block_bytes if dialect.stop < 0 else min(block_bytes, dialect.stop - start)
        raw = file.read(start, count, begins_line=number == 0) if count > 0 else b""
        if not raw:
            break
        pieces[number] = look_at_piece(raw, dialect.quote)
    return pieces


def look_at_piece(raw: bytes, quote: int) -> Piece:
    """Quotes, newlines, and the first newline outside quotes for both cases."""
    newlines, mark = raw.count(b"\n"), bytes([quote])
    quotes = raw.count(mark) if quote else 0
    if not quotes:
        begin = raw.find(b"\n") + 1
        return Piece(0, newlines, (begin or -1, -1), (1 if begin else 0, 0))
    data = np.frombuffer(raw, np.uint8)
    at = np.flatnonzero(data == 10)
    odd = np.searchsorted(np.flatnonzero(data == quote), at) % 2 == 1
    begins, lines = [], []
    for inside in (False, True):
        outside = np.flatnonzero(odd == inside)
        begins.append(int(at[outside[0]]) + 1 if outside.size else -1)
        lines.append(int(outside[0]) + 1 if outside.size else 0)
    return Piece(quotes, newlines, tuple(begins), tuple(lines))


def cut(
    pieces: list[Piece], start: int, piece_bytes: int, first_line: int
) -> tuple[list[tuple[int, int, int]], bool]:
    """(start, stop, first line) of each block, and whether the file ends in quotes. Pure.

    A block begins behind the first newline outside quotes of its piece, and ends where the next begins; a piece without
    such a newline belongs to the block before. The last block's stop is -1, for the end of the file.
    """
    begins, inside, line = [(start, first_line)] if pieces else [], False, first_line
    for number, piece in enumerate(pieces):
        if number and piece.begins[inside] >= 0:
            begins.append(
                (start + number * piece_bytes + piece.begins[inside], line + piece.lines[inside])
            )
        inside ^= piece.quotes % 2 == 1
        line += piece.newlines
    stops = [begin for begin, _ in begins[1:]] + [-1]
    return [(begin, stop, at) for (begin, at), stop in zip(begins, stops, strict=False)], inside
