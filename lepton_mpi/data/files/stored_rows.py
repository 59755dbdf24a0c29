"""Rows of a data set, read from its file without asking HDF5 for them.

HDF5 says once where the bytes lie; they are then read by ``pread`` into the caller's memory, checked and unpacked here.
That spares the way through its chunk cache and its slow checksum, holds neither its lock nor Python's while bytes are read and unpacked, and never unpacks more than a chunk can hold, whatever the file claims
(``stored.py`` tells why HDF5 cannot be trusted with that).

    in one piece            read to where they are wanted; with checksums by block (block_sums.py), as the next
    chunks of whole rows    the same, and their checksum is computed there
    packed, cut in columns, of another type, or wanted in part
                            into a chunk's scratch first, from which they are copied and converted

The chunk in the scratch is kept: the next run of rows often begins in it.
"""

import copy
import mmap
import os

import h5py
import numpy as np
from h5py import h5d, h5z

from lepton_mpi.data.files import block_sums, mapped_rows, stored, trust
from lepton_mpi.data.files.checksum_kernels import fletcher32
from lepton_mpi.data.files.stored_file import StoredFile
from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

try:
    from isal import isal_zlib as zlib  # takes half the time
except ImportError:  # not made for this processor
    import zlib

_MAP_NORESERVE = 0x4000  # not in Python's own list before 3.13


class StoredRows:
    """Rows of a data set with a shape of at least one dimension; of a file that ``trust.check`` has let pass.

    A thread needs one of its own, see ``twin``.

    Parameters
    ----------
    file : StoredFile
    dataset : h5py.Dataset
        Not used any more afterwards.

    Attributes
    ----------
    row_count : int
    row_shape : tuple of int
    chunk_rows : int
        Rows that can only be read together; 1 where they lie in one piece and have no checksums.
    map_offset : int or None
        Byte of the file where the rows begin, if they lie in one piece.
    """

    def __init__(self, file: StoredFile, dataset: h5py.Dataset) -> None:
        self.path, self.name, self.dtype = file.path, dataset.name, dataset.dtype
        self.row_count, self.row_shape = dataset.shape[0], dataset.shape[1:]
        self._file = file
        try:
            with trust.naming(self.name):
                places = stored.check_places({self.name: dataset.id}, file.size)
        except DataError as error:
            raise DataError(f"{file.path}: {error}") from None
        self._chunks = places.get(self.name)
        layout = dataset.id.get_create_plist().get_layout()
        self.map_offset = dataset.id.get_offset() if layout == h5d.CONTIGUOUS else None
        self.chunk_rows = 1
        self._whole, self._sums, self._reading = None, None, (0, 0)
        if self.map_offset is not None:
            self._sums = block_sums.sums_of(file.path, dataset, file.size)
            self.chunk_rows = self._sums.rows if self._sums else 1
        self.forget()
        if self._chunks is not None:
            self._lay_out(dataset.chunks)
        elif self.map_offset is None:  # in the description itself: a few KiB
            self._whole = dataset[()]

    def twin(self) -> "StoredRows":
        """The same rows, for another thread."""
        other = copy.copy(self)
        other.forget()
        return other

    def forget(self) -> None:
        """Have no chunk in the scratch, and no scratch."""
        self._raw = np.empty(0, np.uint8)
        self._scratch: np.ndarray | None = None
        self._scratch_number = -1

    def read(self, start: int, stop: int, out: np.ndarray) -> None:
        """Rows [start, stop) into ``out``, C-contiguous, of shape (stop - start, elements of a row) and any type of number.

        Raises DataError for damage.
        """
        if start >= stop or 0 in self.row_shape:
            return
        shaped = out.reshape(stop - start, *self.row_shape)
        self._reading = start, stop
        if self._whole is not None:
            _convert(self._whole[start:stop], shaped)
        elif self._sums is not None:
            for number in range(start // self.chunk_rows, -(-stop // self.chunk_rows)):
                self._read_block(number, start, stop, shaped)
        elif self._chunks is None:
            self._read_piece(start, stop, shaped)
        else:
            for group in range(start // self.chunk_rows, -(-stop // self.chunk_rows)):
                self._read_group(group, start, stop, shaped)
        if not self._has_checksums and (text := self._file.changed()):
            raise self._unreadable(text)

    def check_sums(self, start: int, rows: np.ndarray) -> None:
        """Compare rows from ``start`` on, as they lie in the file, with the checksums of whole blocks of them. Raises DataError."""
        if self._sums is None:
            return
        for number in range(-(-start // self.chunk_rows), -(-self.row_count // self.chunk_rows)):
            first, last = self._rows_of_block(number)
            if last - start > len(rows):
                return
            self._check_block(number, rows[first - start : last - start])

    def check_there(self, row: int) -> None:
        """That what is mapped may be touched: of a file that was cut short Linux ends who does. ``row`` is for the message.

        Raises DataError.
        """
        if text := self._file.changed():
            raise DataError(f"{self.path}: {self.name}: row {row}: {text}")

    def mapped(self, shape: tuple[int, ...]) -> np.ndarray:
        """All rows where the system has them in memory, or reads them when they are touched; not to be written to.

        Only for rows that lie in one piece, some at least. Raises DataError.
        """
        spare = self.map_offset % mmap.ALLOCATIONGRANULARITY
        size = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        try:
            # Kernels take no memory that is read-only; nothing is reserved for copies that nobody makes.
            memory = mmap.mmap(
                self._file.descriptor,
                spare + size,
                mmap.MAP_PRIVATE | _MAP_NORESERVE,
                mmap.PROT_READ | mmap.PROT_WRITE,
                offset=self.map_offset - spare,
            )
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: {self.name}: cannot be mapped: {one_line(error)}"
            ) from None
        rows = np.frombuffer(memory, self.dtype, offset=spare)
        mapped_rows.name_rows(memory, rows, size // self.row_count, f"{self.path}: {self.name}")
        return rows.reshape(shape)

    def will_need(self, start: int, stop: int) -> None:
        """Have the system read the bytes of rows [start, stop) ahead of their use."""
        if start >= stop:
            return
        if self.map_offset is not None:
            row_bytes = self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))
            first, length = self.map_offset + start * row_bytes, (stop - start) * row_bytes
            os.posix_fadvise(self._file.descriptor, first, length, os.POSIX_FADV_WILLNEED)
        elif self._chunks is not None:
            for number in self._numbers_of(start // self.chunk_rows, -(-stop // self.chunk_rows)):
                place = int(self._chunks.starts[number]), int(self._chunks.lengths[number])
                os.posix_fadvise(self._file.descriptor, *place, os.POSIX_FADV_WILLNEED)

    def _lay_out(self, chunk_shape: tuple[int, ...]) -> None:
        chunks = self._chunks
        self.chunk_rows, self._chunk_shape = chunk_shape[0], chunk_shape
        # Chunks by their rows, then by their columns: those of the same rows are neighbours.
        self._order = np.lexsort(chunks.offsets.T[::-1])
        self._chunks_per_group = len(self._order) // -(-self.row_count // self.chunk_rows)
        self._is_whole_rows = chunk_shape[1:] == self.row_shape
        is_plain = set(chunks.filters) <= {h5z.FILTER_FLETCHER32}
        self._is_direct = self._is_whole_rows and is_plain

    def _numbers_of(self, first: int, stop: int) -> np.ndarray:
        """Numbers of the chunks of groups [first, stop); a group is the chunks of the same rows."""
        return self._order[first * self._chunks_per_group : stop * self._chunks_per_group]

    def _read_piece(self, start: int, stop: int, out: np.ndarray) -> None:
        row_bytes = self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))
        is_same = out.dtype == self.dtype
        wanted = out if is_same else np.empty(out.shape, self.dtype)
        self._pread(wanted.reshape(-1).view(np.uint8), self.map_offset + start * row_bytes)
        if not is_same:
            _convert(wanted, out)

    @property
    def _has_checksums(self) -> bool:
        is_checked = self._chunks is not None and h5z.FILTER_FLETCHER32 in self._chunks.filters
        return self._sums is not None or is_checked

    def _rows_of_block(self, number: int) -> tuple[int, int]:
        first = number * self.chunk_rows
        return first, min(first + self.chunk_rows, self.row_count)

    def _read_block(self, number: int, start: int, stop: int, out: np.ndarray) -> None:
        """Those of rows [start, stop) that lie in a block with a checksum; out[0] is row ``start``."""
        first, last = self._rows_of_block(number)
        begin, end = max(start, first), min(stop, last)
        is_all = (begin, end) == (first, last)
        if is_all and out.dtype == self.dtype and not self._has(number):
            self._read_checked_block(number, out[begin - start : end - start])
            return
        if not self._has(number):
            self._scratch_number = -1
            if self._scratch is None:
                self._scratch = np.empty((self.chunk_rows, *self.row_shape), self.dtype)
            self._read_checked_block(number, self._scratch[: last - first])
            self._scratch_number = number
        _convert(self._scratch[begin - first : end - first], out[begin - start : end - start])

    def _read_checked_block(self, number: int, out: np.ndarray) -> None:
        row_bytes = self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))
        target = out.reshape(-1).view(np.uint8)
        self._pread(target, self.map_offset + number * self.chunk_rows * row_bytes)
        self._check_block(number, target)

    def _check_block(self, number: int, content: np.ndarray) -> None:
        if not self._sums.fits(number, content):
            first, last = self._rows_of_block(number)
            changed = self._file.changed() or "its checksum does not fit"
            raise DataError(
                f"{self.path}: {self.name}: rows {first} to {last - 1}: damaged: {changed}"
            )

    def _read_group(self, group: int, start: int, stop: int, out: np.ndarray) -> None:
        """Those of rows [start, stop) that lie in the chunks of ``group``; out[0] is row ``start``."""
        first = group * self.chunk_rows
        begin, end = max(start, first), min(stop, first + self.chunk_rows)
        numbers = self._numbers_of(group, group + 1)
        is_all = end - begin == self.chunk_rows
        if self._is_direct and is_all and out.dtype == self.dtype and not self._has(numbers[0]):
            self._read_checked(numbers[0], out[begin - start : end - start].reshape(-1))
            return
        for number in numbers:
            chunk = self._unpacked(number)
            columns = tuple(
                slice(int(offset), min(int(offset) + length, limit))
                for offset, length, limit in zip(
                    self._chunks.offsets[number][1:],
                    self._chunk_shape[1:],
                    self.row_shape,
                    strict=True,
                )
            )
            part = (slice(begin - first, end - first), *(slice(c.stop - c.start) for c in columns))
            _convert(chunk[part], out[(slice(begin - start, end - start), *columns)])

    def _has(self, number: int) -> bool:
        return self._scratch_number == number

    def _unpacked(self, number: int) -> np.ndarray:
        """A chunk in its shape, in memory that the next one overwrites."""
        if self._has(number):
            return self._scratch
        self._scratch_number = -1
        if self._scratch is None:
            self._scratch = np.empty(self._chunk_shape, self.dtype)
        codes = self._chunks.filters_of(int(self._chunks.masks[number]))
        if set(codes) <= {h5z.FILTER_FLETCHER32}:
            self._read_checked(number, self._scratch.reshape(-1))
        else:
            self._unpack(number, codes)
        self._scratch_number = number
        return self._scratch

    def _read_checked(self, number: int, out: np.ndarray) -> None:
        """A chunk that is not packed into ``out``, flat and of the type of the data set."""
        target, start = out.view(np.uint8), int(self._chunks.starts[number])
        if len(self._chunks.filters_of(int(self._chunks.masks[number]))) == 0:
            self._pread(target, start)
            return
        tail = np.empty(stored.CHECKSUM_BYTES, np.uint8)
        self._pread(target, start, tail)
        self._check_sum(number, target, tail)

    def _unpack(self, number: int, codes: list[int]) -> None:
        length = int(self._chunks.lengths[number])
        if self._raw.size < length:
            self._raw = np.empty(length, np.uint8)
        content = self._raw[:length]
        self._pread(content, int(self._chunks.starts[number]))
        for code in reversed(codes):
            if code == h5z.FILTER_FLETCHER32:
                self._check_sum(
                    number, content[: -stored.CHECKSUM_BYTES], content[-stored.CHECKSUM_BYTES :]
                )
                content = content[: -stored.CHECKSUM_BYTES]
            elif code == h5z.FILTER_DEFLATE:
                content = self._inflate(number, content, codes)
            else:
                content = stored.sorted_back(content, self.dtype.itemsize)
        self._scratch.reshape(-1).view(np.uint8)[:] = content

    def _inflate(self, number: int, content: np.ndarray, codes: list[int]) -> np.ndarray:
        """The bytes of a zlib stream, which must be those of a chunk, with a checksum that may follow them."""
        size = self._chunks.size + stored.checksum_bytes(codes)[0]
        unpacker = zlib.decompressobj()
        try:
            unpacked = unpacker.decompress(content, size)
            if len(unpacked) == size and not unpacker.eof:  # the end of the stream is still to come
                unpacked += unpacker.decompress(unpacker.unconsumed_tail, 1)
        except zlib.error:
            unpacked = b""
        if len(unpacked) != size or not unpacker.eof:
            raise self._damaged(number, f"expected gzip of {size} bytes, got something else")
        return np.frombuffer(bytearray(unpacked), np.uint8)

    def _check_sum(self, number: int, content: np.ndarray, tail: np.ndarray) -> None:
        is_odd = content.size % 2
        words = content[: content.size - is_odd].view(np.uint16)
        computed = int(fletcher32(words, int(content[-1]) if is_odd else -1))
        written = int.from_bytes(tail.tobytes(), "little")
        if _residues(written) != _residues(computed):
            # HDF5 up to 1.6.2 wrote the sums of words with their bytes exchanged, and later ones accept them.
            exchanged = int.from_bytes(tail.reshape(2, 2)[:, ::-1].tobytes(), "little")
            if _residues(exchanged) != _residues(computed):
                raise self._damaged(number, "its checksum does not fit")

    def _pread(self, out: np.ndarray, start: int, tail: np.ndarray | None = None) -> None:
        """Fill ``out``, bytes, from byte ``start`` of the file, and ``tail`` with what follows."""
        parts = [memoryview(out), *([] if tail is None else [memoryview(tail)])]
        wanted, got = sum(map(len, parts)), 0
        while got < wanted:
            try:
                count = self._file.read(parts, start + got)
            except OSError as error:
                raise self._unreadable(one_line(error)) from None
            if count == 0:
                raise self._unreadable(self._file.changed() or "the file ends before them")
            got += count
            while parts and count >= len(parts[0]):
                count -= len(parts.pop(0))
            if parts:
                parts[0] = parts[0][count:]

    def _unreadable(self, reason: str) -> DataError:
        start, stop = self._reading
        return DataError(f"{self.path}: {self.name}: rows {start} to {stop - 1}: {reason}")

    def _damaged(self, number: int, reason: str) -> DataError:
        first = int(self._chunks.offsets[number][0])
        last = min(first + self.chunk_rows, self.row_count) - 1
        return DataError(f"{self.path}: {self.name}: rows {first} to {last}: damaged: {reason}")


def _residues(checksum: int) -> tuple[int, int]:
    return checksum % 0x10000 % 0xFFFF, (checksum >> 16) % 0xFFFF


def _convert(source: np.ndarray, out: np.ndarray) -> None:
    # What is too large becomes infinite, and is refused by whoever asks for finite numbers.
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, source, casting="unsafe")
