"""Whether the bytes that a data set claims are in the file, all of them, and unpack to what it claims.

HDF5 2.0 believes a packed chunk: one that unpacks to less than its shape takes is read past the end of its memory,
which ends in a crash or in other memory of the process taken for data, and one that unpacks to more is given all
the memory that it asks for. So each chunk that HDF5 will read is unpacked here first, by zlib and into nothing, by all
cores of the host, since zlib holds no lock, and must have the right length. Rows to train on are not: ``stored_rows.py``
reads them without HDF5, and makes the same checks when it unpacks them.

What must hold for a data set with elements:

- contiguous: as many bytes as the shape takes, within the file;
- chunked: every chunk of the shape is there once and lies within the file, so that rows that nobody wrote, and shapes
  of nothing but such rows, are refused; one that is not packed has the length that its shape takes;
- no two data sets or chunks have a byte in common, so that what a file holds is never more than it is long;
- the first and last elements of the last chunk, read by HDF5, are the bytes that lie there: both see it in the same way.
"""

import io
import os
import zlib
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import prod

import h5py
import numpy as np
from h5py import h5d, h5i, h5z

from lepton_mpi.data.files import trust
from lepton_mpi.data.files.filters import filters_of
from lepton_mpi.errors import DataError

_PIECE_BYTES = 1 << 20
# Each takes about a microsecond to find, on every rank.
CHUNKS_MAX = 5_000_000
# Elements of a chunk as it is advised.
_ADVISED_ELEMENTS = 1 << 17
CHECKSUM_BYTES = 4
_LAST_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class Chunks:
    """The chunks of a data set, in the order of its index.

    Attributes
    ----------
    size : int
        Bytes of a chunk that is not packed.
    filters : list of int
        Codes of the filters, in the order of writing.
    offsets : uint64, shape (chunks, dimensions)
        First element of each.
    starts, lengths : uint64, shape (chunks,)
        Its bytes in the file.
    masks : uint64, shape (chunks,)
        Bit i is set where filter i was left out, as happens to bytes that gzip would not shrink.
    """

    name: str
    size: int
    filters: list[int]
    offsets: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    masks: np.ndarray

    @property
    def last(self) -> int:
        """Number of the chunk with the last elements."""
        return int(np.lexsort(self.offsets.T[::-1])[-1])

    def filters_of(self, mask: int) -> list[int]:
        """Filters that chunks with this mask went through."""
        return [code for index, code in enumerate(self.filters) if not mask >> index & 1]


def check_places(data_sets: dict[str, h5d.DatasetID], file_bytes: int) -> dict[str, Chunks]:
    """Refuse data sets whose bytes are not in the file; returns the chunks of those that have some, by name.

    Reads the indices of all chunks. Raises DataError.
    """
    found: dict[str, Chunks] = {}
    places: list[tuple[str, np.ndarray, np.ndarray]] = []
    for name, data_set in data_sets.items():
        if prod(data_set.shape) == 0:
            continue
        with trust.naming(name):
            if data_set.get_create_plist().get_layout() == h5d.CHUNKED:
                found[name] = _find_chunks(name, data_set, file_bytes)
                _check_lengths(found[name], file_bytes)
                places.append((name, found[name].starts, found[name].lengths))
            else:
                start, length = _check_whole(name, data_set, file_bytes)
                places.append((name, np.array([start], np.uint64), np.array([length], np.uint64)))
    _check_apart(places)
    return found


def check_packed(chunks: Chunks, numbers: Sequence[int], descriptor: int, threads: int) -> None:
    """Refuse chunks that do not unpack to the length that their shape takes. Raises DataError.

    Unpacks those of these numbers, in pieces that are forgotten, without HDF5.
    """

    def first_wrong(numbers: Sequence[int]) -> int | None:
        """The first of some chunks that is wrong, if there is one."""
        for number in numbers:
            start, length = int(chunks.starts[number]), int(chunks.lengths[number])
            codes = chunks.filters_of(int(chunks.masks[number]))
            before, after = checksum_bytes(codes)
            if h5z.FILTER_DEFLATE in codes and not _unpacks_to(
                chunks.size + before, descriptor, start, length - after
            ):
                return number
        return None

    parts = 8 * threads
    with ThreadPoolExecutor(threads) as pool:
        for number in pool.map(first_wrong, [numbers[part::parts] for part in range(parts)]):
            if number is not None:
                raise DataError(
                    f"{chunks.name}: chunk at {chunks.offsets[number].tolist()}: damaged: expected gzip of "
                    f"{chunks.size} bytes, got something else"
                )


def check_last_elements(
    name: str, data_set: h5d.DatasetID, chunks: Chunks | None, descriptor: int
) -> None:
    """Refuse a data set of which HDF5 reads other last elements than lie in the file. Raises DataError."""
    shape = data_set.shape
    if prod(shape) == 0 or trust.is_text(data_set.get_type()):
        return
    length = min(_LAST_ELEMENTS, shape[-1] if shape else 1)
    runs: list[tuple[tuple[int | slice, ...], bytes]] = []
    if chunks is not None:
        runs = _ends_of_chunk(data_set, chunks, descriptor)
    elif (start := data_set.get_offset()) is not None:
        size, stop = length * trust.element_bytes(data_set), start + data_set.get_storage_size()
        last = (*(n - 1 for n in shape[:-1]), *(slice(n - length, n) for n in shape[-1:]))
        runs = [(last, os.pread(descriptor, size, stop - size))]
    for where, lie in runs:
        if np.asarray(h5py.Dataset(data_set)[where]).tobytes() != lie:
            raise DataError(
                f"{name}: expected HDF5 to read what lies in the file, got other elements"
            )


def _find_chunks(name: str, data_set: h5d.DatasetID, file_bytes: int) -> Chunks:
    made, shape = data_set.get_create_plist(), data_set.shape
    chunk = made.get_chunk()
    counts = [-(-length // part) for length, part in zip(shape, chunk, strict=True)]
    count, width = prod(counts), len(shape) + 3
    if count > CHUNKS_MAX and count <= file_bytes:
        raise DataError(
            f"{name}: expected at most {CHUNKS_MAX} chunks, got {count} of shape {chunk}: rewrite it with larger ones, as by "
            f"h5repack -l {name}:CHUNK={'x'.join(map(str, _larger(chunk, shape)))} OLD.h5 NEW.h5"
        )
    if count > file_bytes:
        raise DataError(
            f"{name}: shape {shape}: expected fewer than {count} chunks in {file_bytes} bytes"
        )
    numbers, before = array("Q"), _bytes_before_addresses(data_set)

    def note(info: h5d.StoreInfo) -> bool | None:
        start = info.byte_offset + before
        numbers.extend((*info.chunk_offset, start, info.size, info.filter_mask))
        return len(numbers) > count * width or None

    _for_each_chunk(data_set, note)
    table = np.frombuffer(numbers, np.uint64).reshape(-1, width)
    offsets, parts = table[:, :-3], np.array(chunk, np.uint64)
    places, rests = np.divmod(offsets, parts)
    seen = np.zeros(counts, bool)
    if not rests.any() and (places < np.array(counts, np.uint64)).all():
        seen[tuple(places.T.astype(np.int64))] = True
    if len(offsets) != count or not seen.all():
        raise DataError(
            f"{name}: shape {shape}: expected {count} chunks of {chunk}, all of them written, got {len(offsets)}"
        )
    codes = [code for code, _ in filters_of(made)]
    return Chunks(
        name, prod(chunk) * trust.element_bytes(data_set), codes, offsets, *table[:, -3:].T
    )


def chunk_count(data_set: h5d.DatasetID) -> int:
    """Chunks that its shape takes; 0 in one piece."""
    made = data_set.get_create_plist()
    if made.get_layout() != h5d.CHUNKED:
        return 0
    return prod(-(-n // part) for n, part in zip(data_set.shape, made.get_chunk(), strict=True))


def _larger(chunk: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of whole rows, about a MiB."""
    rows = max(chunk[0], _ADVISED_ELEMENTS // max(1, prod(shape[1:])), 1)
    return (min(rows, shape[0]), *shape[1:])


def _bytes_before_addresses(data_set: h5d.DatasetID) -> int:
    """Where the bytes that addresses of chunks count from begin in the file."""
    user_block = h5i.get_file_id(data_set).get_create_plist().get_userblock()
    return user_block if user_block and _leaves_out_user_block() else 0


@cache
def _leaves_out_user_block() -> bool:
    """Whether this HDF5 tells addresses of chunks without the user block, as those before 1.14.4 do.

    Found out with a file in memory: https://github.com/HDFGroup/hdf5/issues/3003
    """
    memory, content = io.BytesIO(), bytes(range(1, 65))
    with h5py.File(memory, "w", userblock_size=512) as file:
        made = file.create_dataset("x", data=np.frombuffer(content, np.uint8), chunks=(64,))
        file.flush()
        address = made.id.get_chunk_info(0).byte_offset
    return memory.getvalue().index(content) != address


def _for_each_chunk(data_set: h5d.DatasetID, note: Callable) -> None:
    """Call ``note`` with each chunk, until it returns True."""
    if hasattr(data_set, "chunk_iter"):
        data_set.chunk_iter(note)
        return
    for index in range(
        data_set.get_num_chunks()
    ):  # HDF5 before 1.12.3; each call looks through all of them
        if note(data_set.get_chunk_info(index)):
            return


def _check_lengths(chunks: Chunks, file_bytes: int) -> None:
    """Whether every chunk lies in the file and has a length that can be."""
    least, most = np.zeros_like(chunks.lengths), np.zeros_like(chunks.lengths)
    for mask in set(chunks.masks.tolist()):
        codes = chunks.filters_of(mask)
        before, after = checksum_bytes(codes)
        size = chunks.size + before
        is_packed = h5z.FILTER_DEFLATE in codes
        which = chunks.masks == mask
        least[which] = after + (size // trust.DEFLATE_RATIO_MAX if is_packed else size)
        most[which] = after + (2 * size + 64 if is_packed else size)
    is_outside = (chunks.starts > file_bytes) | (
        chunks.lengths > file_bytes - np.minimum(chunks.starts, file_bytes)
    )
    wrong = np.flatnonzero(is_outside | (chunks.lengths < least) | (chunks.lengths > most))
    if wrong.size:
        number = wrong[0]
        raise DataError(
            f"{chunks.name}: chunk at {chunks.offsets[number].tolist()}: expected {least[number]} to {most[number]} "
            f"bytes in a file of {file_bytes}, got {chunks.lengths[number]} from byte {chunks.starts[number]}"
        )


def _check_whole(name: str, data_set: h5d.DatasetID, file_bytes: int) -> tuple[int, int]:
    """First byte and length of data in one piece; of no length where they stand in the description."""
    size, shape = prod(data_set.shape) * trust.element_bytes(data_set), data_set.shape
    stored, start = data_set.get_storage_size(), data_set.get_offset()
    is_contiguous = data_set.get_create_plist().get_layout() == h5d.CONTIGUOUS
    if stored != size or (is_contiguous and start is None):
        came = "none" if is_contiguous and start is None else stored
        raise DataError(f"{name}: shape {shape}: expected {size} bytes in the file, got {came}")
    if not is_contiguous:
        return 0, 0
    if start + size > file_bytes:
        raise DataError(
            f"{name}: expected {size} bytes from byte {start}, got a file of {file_bytes} bytes"
        )
    return start, size


def _check_apart(places: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Whether no two places, (name, starts, lengths), have a byte in common."""
    if not places:
        return
    names, starts, lengths = zip(*places, strict=True)
    owners = np.repeat(np.arange(len(names)), [len(part) for part in starts])
    starts, lengths = np.concatenate(starts), np.concatenate(lengths)
    order = np.argsort(starts, kind="stable")
    common = np.flatnonzero(starts[order][:-1] + lengths[order][:-1] > starts[order][1:])
    if common.size:
        one, other = (names[owners[order[common[0] + step]]] for step in (0, 1))
        raise DataError(f"{other}: expected bytes of its own, got some that belong to {one}")


def checksum_bytes(codes: list[int]) -> tuple[int, int]:
    """Bytes of the checksums that were added before packing, and after it; all after it without packing."""
    place = codes.index(h5z.FILTER_DEFLATE) if h5z.FILTER_DEFLATE in codes else 0
    before = codes[:place].count(h5z.FILTER_FLETCHER32)
    return before * CHECKSUM_BYTES, (codes.count(h5z.FILTER_FLETCHER32) - before) * CHECKSUM_BYTES


def _unpacks_to(wanted: int, descriptor: int, start: int, length: int) -> bool:
    """Whether some bytes of the file are one whole zlib stream of ``wanted`` bytes."""
    unpacker, got, stop = zlib.decompressobj(), 0, start + length
    try:
        while start < stop and not unpacker.eof:
            piece = os.pread(descriptor, min(_PIECE_BYTES, stop - start), start)
            if not piece:
                return False  # the file has become shorter
            start += len(piece)
            out = b"?"
            while out and got <= wanted:  # until the unpacker wants more to unpack
                out = unpacker.decompress(piece, _PIECE_BYTES)
                piece, got = unpacker.unconsumed_tail, got + len(out)
            if got > wanted:
                return False
    except zlib.error:
        return False
    return unpacker.eof and got == wanted


def _ends_of_chunk(
    data_set: h5d.DatasetID, chunks: Chunks, descriptor: int
) -> list[tuple[tuple[int | slice, ...], bytes]]:
    """First and last elements of the last chunk, along the last dimension: where they are, and as they lie there.

    The first, too: if HDF5 took packed bytes as they are, what it read behind them could be anything.
    """
    number, element = chunks.last, trust.element_bytes(data_set)
    unpacked = np.frombuffer(_unpacked(chunks, number, element, descriptor), f"V{element}")
    whole = unpacked.reshape(data_set.get_create_plist().get_chunk())
    starts = chunks.offsets[number].tolist()
    counts = [n - start for n, start in zip(data_set.shape, starts, strict=True)]
    length = min(_LAST_ELEMENTS, counts[-1])
    runs = []
    for rest, part in (
        ([0] * (len(counts) - 1), slice(0, length)),
        ([n - 1 for n in counts[:-1]], slice(counts[-1] - length, counts[-1])),
    ):
        place = [start + offset for start, offset in zip(starts, rest, strict=False)]
        columns = slice(starts[-1] + part.start, starts[-1] + part.stop)
        runs.append(((*place, columns), whole[(*rest, part)].tobytes()))
    return runs


def _unpacked(chunks: Chunks, number: int, element: int, descriptor: int) -> bytes:
    """A chunk's elements, as they were before all filters; of a chunk that ``check_packed`` has let pass."""
    content = os.pread(descriptor, int(chunks.lengths[number]), int(chunks.starts[number]))
    for code in reversed(chunks.filters_of(int(chunks.masks[number]))):
        if code == h5z.FILTER_FLETCHER32:
            content = content[:-CHECKSUM_BYTES]
        elif code == h5z.FILTER_DEFLATE:
            content = zlib.decompressobj().decompress(content)
        else:
            content = sorted_back(np.frombuffer(content, np.uint8), element).tobytes()
    return content


def sorted_back(content: np.ndarray, element: int) -> np.ndarray:
    """Bytes before the filter shuffle: first bytes of all elements, second bytes of all, …; what is over follows."""
    whole = content.size // element * element
    result = np.empty_like(content)
    result[:whole].reshape(-1, element)[:] = content[:whole].reshape(element, -1).T
    result[whole:] = content[whole:]
    return result
