"""Rows read without HDF5 are those that HDF5 reads, and damage is told by file, data set and rows."""

import os
import tracemalloc
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_mpi.data.files import checksum_kernels, stored_rows
from lepton_mpi.data.files.stored_file import StoredFile
from lepton_mpi.data.files.stored_rows import StoredRows
from lepton_mpi.errors import DataError
from tests import reference

DTYPES = ["u1", "i1", "i2", "u2", "i4", "i8", "f2", "f4", "f8", ">f4", ">i2", ">f8", "?"]
FILTERS = {
    "plain": {},
    "checksum": {"fletcher32": True},
    "shuffle": {"shuffle": True},
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "gzip, shuffle": {"compression": "gzip", "shuffle": True},
    "all": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "shuffle, checksum": {"shuffle": True, "fletcher32": True},
}
SHAPES = [(23,), (23, 7), (23, 3, 5), (23, 2, 3, 2)]


def content(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers that differ from row to row, so that a wrong one shows, and compress to some degree."""
    numbers = np.random.default_rng(len(shape)).integers(-3, 100, shape)
    numbers = np.abs(numbers) if np.dtype(dtype).kind in "ub" else numbers
    return (numbers % 2).astype(dtype) if dtype == "?" else numbers.astype(dtype)


def open_rows(path: Path, name: str = "x") -> StoredRows:
    """Rows of a data set of a file that HDF5 has closed."""
    with h5py.File(path, "r", locking=False) as file:
        return StoredRows(StoredFile(path, file), file[name])


def written(path: Path, x: np.ndarray, **storage: object) -> StoredRows:
    """The same of rows that are written first."""
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=x, **storage)
    return open_rows(path)


def read(rows: StoredRows, start: int, stop: int, dtype: object) -> np.ndarray:
    """Rows [start, stop) in memory that held something else, in the shape that they have in the file."""
    features = int(np.prod(rows.row_shape))
    out = np.full((stop - start, features), 77, dtype)
    rows.read(start, stop, out)
    return out.reshape(stop - start, *rows.row_shape)


def check(rows: StoredRows, x: np.ndarray, dtypes: tuple[str, ...] = ("f4", "f8")) -> None:
    """All rows, one, none, some across chunks and up to the end; forwards and backwards."""
    count = len(x)
    spans = [(0, count), (0, 1), (3, 3), (count - 1, count), (4, 17), (5, 6), (2, count), (1, 9)]
    for dtype in (*dtypes, x.dtype):
        for start, stop in spans + spans[::-1]:
            start, stop = min(start, count), min(stop, count)
            np.testing.assert_array_equal(
                read(rows, start, stop, dtype), x[start:stop].astype(dtype)
            )
    for row in (*range(count), *reversed(range(count))):
        np.testing.assert_array_equal(read(rows, row, row + 1, x.dtype)[0], x[row])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("filters", FILTERS)
def test_rows_of_every_type_and_filter(tmp_path, filters, dtype):
    """Chunks of whole rows, the last of which is not full, whose bytes are even and odd."""
    for number, shape in enumerate(SHAPES[:2]):
        x = content(shape, dtype)
        rows = written(tmp_path / f"{number}.h5", x, chunks=(5, *shape[1:]), **FILTERS[filters])
        assert rows.chunk_rows == 5 and rows.map_offset is None
        check(rows, x)


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("cut", ["guessed", "columns", "edges", "longer"])
def test_chunks_of_any_shape(tmp_path, shape, filters, cut):
    """As h5py guesses them, that cut columns, that reach beyond the last column, and with more rows than there are."""
    chunks = {
        "guessed": True,
        "columns": (5, *(1 for _ in shape[1:])),
        "edges": (4, *(max(1, n - 1) for n in shape[1:])),
        "longer": (50, *shape[1:]),
    }[cut]
    limit = (None, *shape[1:]) if cut == "longer" else None
    x = content(shape, "i2")
    check(
        written(tmp_path / "a.h5", x, chunks=chunks, maxshape=limit, **FILTERS[filters]), x, ("f4",)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("user_block", [0, 512])
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_rows_in_one_piece(tmp_path, dtype, shape, user_block):
    """Read, and mapped; also where something else stands at the beginning of the file."""
    x, path = content(shape, dtype), tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=user_block) as file:
        file["before"], file["x"] = np.arange(3), x
    rows = open_rows(path)
    assert rows.chunk_rows == 1
    check(rows, x)
    mapped = rows.mapped((len(x), x[0].size))
    assert mapped.dtype == x.dtype
    np.testing.assert_array_equal(mapped.reshape(x.shape), x)
    mapped[0] = 1  # changes nothing but the copy
    np.testing.assert_array_equal(read(open_rows(path), 0, 1, x.dtype), x[:1])


@pytest.mark.parametrize("filters", ["plain", "checksum", "all"])
def test_chunks_of_a_file_with_a_user_block(tmp_path, filters):
    """Their places count from its beginning."""
    x, path = content((23, 4), "f4"), tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=1024) as file:
        file.create_dataset("x", data=x, chunks=(5, 4), **FILTERS[filters])
    check(open_rows(path), x)


def test_rows_in_the_description_itself(tmp_path):
    """A compact data set has no bytes of its own."""
    x, path = content((23, 4), ">i4"), tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_layout(h5d.COMPACT)
        space = h5py.h5s.create_simple(x.shape)
        h5d.create(file.id, b"x", h5py.h5t.STD_I32BE, space, kind).write(
            h5py.h5s.ALL, h5py.h5s.ALL, x
        )
    rows = open_rows(path)
    assert rows.map_offset is None
    check(rows, x)


@pytest.mark.parametrize("storage", [{}, {"chunks": (5, 3), "maxshape": (None, 3)}], ids=str)
def test_no_rows(tmp_path, storage):
    """There is nothing to read, ask for or cut into blocks."""
    rows = written(tmp_path / "a.h5", np.zeros((0, 3)), **storage)
    assert rows.row_count == 0 and rows.row_shape == (3,)
    rows.read(0, 0, np.zeros((0, 3)))
    rows.will_need(0, 0)


@st.composite
def layouts(draw):
    """(rows, how they are stored, what is read of them)."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    chunks = draw(
        st.none() | st.tuples(*(st.integers(1, n + 3 * (i == 0)) for i, n in enumerate(shape)))
    )
    storage = {}
    if chunks:
        storage = {"chunks": chunks, **FILTERS[draw(st.sampled_from(sorted(FILTERS)))]}
        storage["maxshape"] = (None, *shape[1:])
    x = content(shape, draw(st.sampled_from(DTYPES)))
    spans = draw(
        st.lists(st.tuples(st.integers(0, shape[0]), st.integers(0, shape[0])), min_size=1)
    )
    return x, storage, [(min(span), max(span)) for span in spans]


@settings(max_examples=60)
@given(layouts())
def test_any_layout_in_any_order(tmp_path_factory, layout):
    """What is read does not depend on what was read before."""
    x, storage, spans = layout
    rows = written(tmp_path_factory.mktemp("any") / "a.h5", x, **storage)
    for start, stop in spans:
        rows.will_need(start, stop)
        np.testing.assert_array_equal(read(rows, start, stop, "f4"), x[start:stop].astype("f4"))


@pytest.mark.parametrize("filters", FILTERS)
def test_bytes_that_gzip_would_not_shrink(tmp_path, filters):
    """HDF5 stores such chunks without that filter and says so in their masks."""
    x = np.random.default_rng(0).integers(0, 256, (40, 30)).astype("u1")
    x[10:20] = 7
    check(written(tmp_path / "a.h5", x, chunks=(10, 30), **FILTERS[filters]), x, ("u1",))


@pytest.mark.parametrize(
    "order",
    [("shuffle", "fletcher32", "deflate"), ("fletcher32", "deflate"), ("fletcher32", "shuffle")],
    ids=str,
)
@pytest.mark.parametrize("mask", [0, 1, 2, 3])
def test_filters_in_another_order_and_left_out(tmp_path, order, mask):
    """A checksum may be packed with the rows; any filter may be left out of a chunk."""
    x, path = content((20, 3), "i2"), tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_chunk((5, 3))
        for name in order:
            getattr(kind, f"set_{name}")(*([4] if name == "deflate" else []))
        kind_of = h5py.h5t.STD_I16LE
        dataset = h5d.create(file.id, b"x", kind_of, h5py.h5s.create_simple(x.shape), kind)
        for start in range(0, 20, 5):
            dataset.write_direct_chunk(
                (start, 0), _filtered(x[start : start + 5], order, mask), mask
            )
        np.testing.assert_array_equal(file["x"][()], x)  # HDF5 takes it so
    check(open_rows(path), x)


def _filtered(x: np.ndarray, order: tuple[str, ...], mask: int) -> bytes:
    content = x.tobytes()
    for index, name in enumerate(order):
        if mask >> index & 1:
            continue
        if name == "deflate":
            content = zlib.compress(content)
        elif name == "fletcher32":
            odd = len(content) % 2
            words = np.frombuffer(content[: len(content) - odd], np.uint16)
            value = reference.fletcher32(words, content[-1] if odd else -1)
            content += value.to_bytes(4, "little")
        else:
            whole = len(content) // 2 * 2
            content = content[0:whole:2] + content[1:whole:2] + content[whole:]
    return content


def test_a_twin_has_its_own_scratch(tmp_path):
    """Two readers of one data set in turn, each in the middle of a chunk, do not disturb each other."""
    x = content((40, 6), "f4")
    one = written(tmp_path / "a.h5", x, chunks=(10, 6), **FILTERS["all"])
    other = one.twin()
    for start in range(0, 36, 3):
        np.testing.assert_array_equal(read(one, start, start + 3, "f4"), x[start : start + 3])
        back = 36 - start
        np.testing.assert_array_equal(read(other, back, back + 3, "f4"), x[back : back + 3])


def test_the_file_may_be_gone(tmp_path):
    """Rows are read from the file that was opened, whatever its name stands for now; at the end it is closed."""
    x = content((20, 6), "f4")
    before = len(os.listdir("/proc/self/fd"))
    rows = written(tmp_path / "a.h5", x, chunks=(5, 6))
    written(tmp_path / "b.h5", x + 1, chunks=(5, 6))
    (tmp_path / "b.h5").rename(tmp_path / "a.h5")
    check(rows, x)
    del rows
    assert len(os.listdir("/proc/self/fd")) == before


# -- damage ------------------------------------------------------------------------------------------


def _chunk_place(path: Path, index: int) -> tuple[int, int]:
    with h5py.File(path) as file:
        info = file["x"].id.get_chunk_info(index)
        return info.byte_offset, info.size


@pytest.mark.parametrize("filters", ["checksum", "all", "shuffle, checksum"])
def test_any_changed_byte_under_a_checksum_is_told(tmp_path, filters):
    """By file, data set and rows; the rows of other chunks are still read."""
    x, path = content((23, 3), "i2"), tmp_path / "a.h5"
    rows = written(path, x, chunks=(5, 3), **FILTERS[filters])
    start, length = _chunk_place(path, 2)
    good = path.read_bytes()
    for place in range(start, start + length):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        for first, stop in ((10, 15), (0, 23), (12, 13)):
            with pytest.raises(DataError) as error:
                read(rows.twin(), first, stop, "i2")
            assert str(error.value).startswith(f"{path}: /x: rows 10 to 14: damaged: ")
        np.testing.assert_array_equal(read(rows, 15, 23, "i2"), x[15:])


@pytest.mark.parametrize("filters", ["checksum", "all"])
def test_a_read_that_failed_leaves_nothing_behind(tmp_path, filters):
    """The damaged chunk is not taken from the scratch the next time, and the last one holds the file's last rows."""
    x, path = content((23, 3), "i2"), tmp_path / "a.h5"
    rows = written(path, x, chunks=(5, 3), **FILTERS[filters])
    start, length = _chunk_place(path, 4)
    damaged = bytearray(path.read_bytes())
    damaged[start + length - 5] ^= 1
    path.write_bytes(damaged)
    for _ in range(3):
        with pytest.raises(DataError, match="rows 20 to 22: damaged: its checksum does not fit"):
            read(rows, 21, 22, "f4")
        np.testing.assert_array_equal(read(rows, 19, 20, "i2"), x[19:20])


@pytest.fixture(params=["isal", "zlib"])
def unpacker(request, monkeypatch):
    """What unpacks gzip: where there is no isal it is the standard library."""
    module = zlib if request.param == "zlib" else pytest.importorskip("isal.isal_zlib")
    monkeypatch.setattr(stored_rows, "zlib", module)


def _repacked(
    path: Path, unpacked: bytes, stream: bytes | None = None, **filters: object
) -> StoredRows:
    """Rows of int16 (20, 50) in chunks of 10 rows, the second of which holds these bytes, or this stream."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "x", data=content((20, 50), "i2"), chunks=(10, 50), compression="gzip", **filters
        )
        dataset.id.write_direct_chunk(
            (10, 0), zlib.compress(unpacked) if stream is None else stream
        )
    return open_rows(path)


@pytest.mark.parametrize("length", [0, 1, 999, 1001, 1004, 2000])
@pytest.mark.parametrize("shuffle", [False, True])
def test_gzip_of_another_length_is_told(unpacker, tmp_path, length, shuffle):
    """Less than a chunk or more."""
    rows = _repacked(tmp_path / "a.h5", bytes(length), shuffle=shuffle)
    with pytest.raises(
        DataError, match=r"a\.h5: /x: rows 10 to 19: damaged: expected gzip of 1000 bytes"
    ):
        read(rows, 10, 11, "f4")
    np.testing.assert_array_equal(read(rows, 0, 10, "i2"), content((20, 50), "i2")[:10])


STREAM = zlib.compress(content((10, 50), "i2").tobytes())


@pytest.mark.parametrize("stop", [2, 10, len(STREAM) // 2, -5, -4, -3, -1])
def test_gzip_without_its_end_is_told(unpacker, tmp_path, stop):
    """Also where only its own checksum is cut."""
    rows = _repacked(tmp_path / "a.h5", b"", STREAM[:stop])
    with pytest.raises(DataError, match="rows 10 to 19: damaged: expected gzip of 1000 bytes"):
        read(rows, 0, 20, "f4")


@pytest.mark.parametrize("stream", [bytes(100), STREAM[:-1] + b"?", b"\x1f\x8b" + STREAM])
def test_what_is_no_gzip_is_told(unpacker, tmp_path, stream):
    """Zeros, a wrong checksum of the stream, and the kind of gzip that HDF5 does not use."""
    rows = _repacked(tmp_path / "a.h5", b"", stream)
    with pytest.raises(DataError, match="rows 10 to 19: damaged"):
        read(rows, 15, 16, "f4")


def test_a_bomb_takes_the_memory_of_a_chunk(unpacker, tmp_path):
    """One that would unpack to 64 MB, in chunks of 1 000 bytes, is told before it has filled 100 kB."""
    rows = _repacked(tmp_path / "a.h5", b"", None)
    bomb = zlib.compress(bytes(64_000_000), 9)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        # As long as a chunk may be at most: it says that it is gzip, and the rest is never asked for.
        file["x"].id.write_direct_chunk((10, 0), bomb[:2000])
    rows = open_rows(tmp_path / "a.h5")
    tracemalloc.start()
    with pytest.raises(DataError, match="rows 10 to 19: damaged: expected gzip of 1000 bytes"):
        read(rows, 10, 20, "f4")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100_000


@pytest.mark.parametrize(
    "storage", [{}, {"chunks": (5, 50)}, {"chunks": (5, 50), **FILTERS["all"]}]
)
def test_a_file_that_has_become_shorter_is_told(tmp_path, storage):
    """Instead of zeros, or what the memory held."""
    x, path = content((20, 50), "f8"), tmp_path / "a.h5"
    rows = written(path, x, **storage)
    os.truncate(path, 1000)
    with pytest.raises(
        DataError, match=r"a\.h5: /x: rows 0 to 19: the file has become shorter: 1000 bytes"
    ):
        read(rows, 0, 20, "f4")


def test_a_file_whose_places_do_not_fit_is_told_by_name(tmp_path):
    """File and data set, also where nothing looked at the file before."""
    x, path = content((20, 50), "f8"), tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=x.shape, chunks=(5, 50), dtype="f8")[:5] = 1
    with pytest.raises(DataError, match=r"a\.h5: /x: .*expected 4 chunks"):
        open_rows(path)


# -- the checksum --------------------------------------------------------------------------------------


def _words(content: bytes) -> tuple[np.ndarray, int]:
    odd = len(content) % 2
    words = np.frombuffer(bytearray(content[: len(content) - odd]), np.uint16)
    return words, content[-1] if odd else -1


@pytest.mark.parametrize("length", range(0, 2001, 400))
def test_the_checksum_matches_its_twin(length):
    """For all lengths 0 to 2 000, of random bytes, of the largest words, and of words that make sums of 65535."""
    random = np.random.default_rng(length)
    for size in range(length, min(length + 400, 2001)):
        for content in (random.bytes(size), b"\xff" * size if size % 50 < 2 else b"\x80"):
            ours = int(checksum_kernels.fletcher32(*_words(content)))
            assert ours == reference.fletcher32(*_words(content))


@given(st.binary(max_size=3000))
def test_the_checksum_matches_its_twin_on_any_bytes(content):
    """Whatever they are."""
    words, last = _words(content)
    assert int(checksum_kernels.fletcher32(words, last)) == reference.fletcher32(words, last)


@pytest.mark.parametrize("fill", [0, 1, 127, 255])
def test_long_chunks_do_not_overflow(fill):
    """1 MB of the same word, whose sums have a closed form, and of which the largest ones fill the registers."""
    count = 500_003
    word = fill << 8 | fill
    sums = word * count % 65535, word * (count * (count + 1) // 2) % 65535
    words = np.full(count, word, np.uint16)
    assert int(checksum_kernels.fletcher32(words, -1)) == sums[1] << 16 | sums[0]


@pytest.mark.parametrize("size", [1, 2, 7, 360, 719, 720, 721, 1442, 5001])
def test_hdf5_writes_the_same_checksum(tmp_path, size):
    """In the bytes of the file; 0 and 65535 are the same sum, which HDF5 writes in either way."""
    for name, x in (("random", np.random.default_rng(size).bytes(size)), ("ones", b"\xff" * size)):
        path = tmp_path / f"{name}.h5"
        x = np.frombuffer(x, np.uint8)
        written(path, x, chunks=(size,), fletcher32=True)
        start, length = _chunk_place(path, 0)
        tail = path.read_bytes()[start : start + length][-4:]
        stored = int.from_bytes(tail, "little")
        twin = reference.fletcher32(*_words(x.tobytes()))
        assert (stored % 65536 % 65535, (stored >> 16) % 65535) == (twin & 65535, twin >> 16)


def test_checksums_of_old_files_are_taken(tmp_path):
    """HDF5 up to 1.6.2 exchanged the bytes of each sum; the bytes of both sums at once are wrong."""
    x, path = content((20, 3), "i2"), tmp_path / "a.h5"
    rows = written(path, x, chunks=(5, 3), fletcher32=True)
    start, length = _chunk_place(path, 1)
    raw = bytearray(path.read_bytes())
    a, b, c, d = raw[start + length - 4 : start + length]
    assert len({a, b, c, d}) == 4
    raw[start + length - 4 : start + length] = bytes([b, a, d, c])
    path.write_bytes(raw)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["x"][()], x)
    check(rows, x)
    raw[start + length - 4 : start + length] = bytes([d, c, b, a])
    path.write_bytes(raw)
    with pytest.raises(DataError, match="rows 5 to 9: damaged: its checksum does not fit"):
        read(rows.twin(), 5, 10, "i2")
