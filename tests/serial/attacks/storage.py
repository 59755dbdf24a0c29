"""Shapes without bytes, and chunks that are not what they say."""

import ctypes
import zlib

import h5py
import numpy as np
from h5py import h5p, h5s, h5t

from tests.serial.attacks.registry import SHAPE, anywhere, low_level

# -- shapes without bytes ----------------------------------------------------------------------------


@anywhere
def rows_that_nobody_wrote(file, place, secret):
    file.create_dataset(place, (2**40, 4), "f8", chunks=(1024, 4))


@anywhere
def rows_that_nobody_wrote_packed(file, place, secret):
    file.create_dataset(place, (2**40, 4), "f8", chunks=(1024, 4), compression="gzip")


@anywhere
def few_rows_that_nobody_wrote(file, place, secret):
    file.create_dataset(place, SHAPE, "f8", chunks=(10, 4), fillvalue=1.0)


@anywhere
def contiguous_rows_that_nobody_wrote(file, place, secret):
    file.create_dataset(place, SHAPE, "f8")


@anywhere
def a_whole_disk(file, place, secret):
    file.create_dataset(place, (2**50,), "f8")


@anywhere
def more_than_can_be_counted(file, place, secret):
    file.create_dataset(place, (2**31, 2**31), "u1", chunks=(2**15, 2**15))


@anywhere
def one_chunk_of_many(file, place, secret):
    file.create_dataset(place, (1000, 4), "f8", chunks=(10, 4))[:10] = 1.0


@anywhere
def a_chunk_of_2_gigabytes(file, place, secret):
    file.create_dataset(
        place, (1, 4), "f8", maxshape=(None, 4), chunks=(2**26, 4), compression="gzip"
    )


@anywhere
def dimensions_without_end(file, place, secret):
    file.create_dataset(place, (2,) * 32, "f8", chunks=(1,) * 32)


@anywhere
def no_shape(file, place, secret):
    file[place] = h5py.Empty("f8")


# -- chunks that are not what they say ---------------------------------------------------------------


def _chunk(
    file, place, content: bytes, mask: int = 0, rows: int = 10, latest_edge=False, **storage
) -> None:
    """Rows in chunks of 10, the last of which has this content."""
    storage = storage or {"compression": "gzip"}
    data_set = file.create_dataset(place, (rows, 4), "f8", chunks=(10, 4), **storage)
    data_set[:] = 1.0
    data_set.id.write_direct_chunk(((rows - 1) // 10 * 10, 0), content, mask)


@anywhere
def unpacks_to_less(file, place, secret):
    _chunk(file, place, zlib.compress(bytes(100)))


@anywhere
def unpacks_to_nothing(file, place, secret):
    _chunk(file, place, zlib.compress(b""))


@anywhere
def unpacks_to_more(file, place, secret):
    _chunk(file, place, zlib.compress(bytes(320 * 3)))


@anywhere
def unpacks_to_far_more(file, place, secret):
    _chunk(file, place, zlib.compress(bytes(100_000_000), 9))


@anywhere
def unpacks_not_to_its_end(file, place, secret):
    _chunk(file, place, zlib.compress(np.random.default_rng(0).bytes(320))[:200])


@anywhere
def unpacks_not_at_all(file, place, secret):
    _chunk(file, place, bytes(range(200)))


@anywhere
def packed_with_a_dictionary(file, place, secret):
    packer = zlib.compressobj(zdict=b"abc" * 10)
    _chunk(file, place, packer.compress(bytes(320)) + packer.flush())


@anywhere
def less_than_its_shape(file, place, secret):
    _chunk(file, place, bytes(100), mask=1)


@anywhere
def less_than_its_shape_shuffled(file, place, secret):
    _chunk(file, place, bytes(100), shuffle=True)


@anywhere
def less_than_a_checksum(file, place, secret):
    _chunk(file, place, b"ab", fletcher32=True)


@anywhere
def wrong_checksum(file, place, secret):
    _chunk(file, place, bytes(320) + b"abcd", fletcher32=True)


@anywhere
def last_of_many_unpacks_to_less(file, place, secret):
    _chunk(file, place, zlib.compress(bytes(8)), rows=200)


@anywhere
def last_chunk_is_taken_as_it_is(file, place, secret):
    """By an option of the format, chunks that stick out of the shape are not packed; this one says so and is."""
    made = h5p.create(h5p.DATASET_CREATE)
    made.set_chunk((1000, 400))
    made.set_deflate(4)
    set_options = ctypes.CDLL(h5p.__file__).H5Pset_chunk_opts  # h5py has no name for it
    set_options.argtypes = [ctypes.c_int64, ctypes.c_uint]
    assert set_options(made.id, 2) >= 0  # H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS
    space = h5s.create_simple((1500, 400))
    data_set = low_level(file, place, h5t.IEEE_F64LE, space, made)
    data_set.write(h5s.ALL, h5s.ALL, np.zeros((1500, 400)))
    data_set.write_direct_chunk((1000, 0), zlib.compress(bytes(3_200_000)))
