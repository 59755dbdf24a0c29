"""Elements that are no numbers, and filters that this program has not."""

import h5py
import numpy as np
from h5py import h5p, h5s, h5t, h5z

from tests.serial.attacks.registry import SHAPE, anywhere, low_level

# -- elements that are no numbers --------------------------------------------------------------------


@anywhere
def references(file, place, secret):
    values = np.array([file.ref] * 40, h5py.ref_dtype)
    file.create_dataset(place, data=values, dtype=h5py.ref_dtype)


@anywhere
def region_references(file, place, secret):
    source = file.create_dataset("other/rows", data=np.zeros(4))
    values = np.array([source.regionref[:2]] * 40, h5py.regionref_dtype)
    file.create_dataset(place, data=values, dtype=h5py.regionref_dtype)


@anywhere
def variable_length(file, place, secret):
    data_set = file.create_dataset(place, (40,), h5py.vlen_dtype("f8"))
    data_set[0] = np.arange(3.0)


@anywhere
def records(file, place, secret):
    file[place] = np.zeros(40, [("a", "f4"), ("b", "i4")])


@anywhere
def complex_numbers(file, place, secret):
    file[place] = np.zeros((40, 4), complex)


@anywhere
def opaque(file, place, secret):
    file[place] = np.zeros(40, "V8")


@anywhere
def times_of_numpy(file, place, secret):
    file[place] = np.zeros(40, "M8[s]").astype(h5py.opaque_dtype("M8[s]"))


@anywhere
def times(file, place, secret):
    low_level(file, place, h5t.UNIX_D32LE, h5s.create_simple((40,)))


@anywhere
def bit_field(file, place, secret):
    low_level(file, place, h5t.STD_B8LE, h5s.create_simple((40,)))


@anywhere
def enumeration(file, place, secret):
    file.create_dataset(
        place, data=np.zeros(40, "i1"), dtype=h5py.enum_dtype({"red": 0, "blue": 1}, "i1")
    )


@anywhere
def array_elements(file, place, secret):
    file.create_dataset(place, (40,), np.dtype("(4,)f8"))


@anywhere
def whole_numbers_of_12_bits(file, place, secret):
    kind = h5t.STD_I16LE.copy()
    kind.set_precision(12)
    low_level(file, place, kind, h5s.create_simple((40,)))


@anywhere
def floats_of_another_make(file, place, secret):
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 24, 7, 0, 24)
    low_level(file, place, kind, h5s.create_simple((40, 4)))


@anywhere
def long_doubles(file, place, secret):
    file[place] = np.zeros((40, 4), np.longdouble)


@anywhere
def type_kept_elsewhere(file, place, secret):
    file["kind"] = np.dtype("f8")
    file.create_dataset(place, (40, 4), dtype=file["kind"])


@anywhere
def texts_of_fixed_length(file, place, secret):
    file[place.replace("about", "other")] = np.array([b"a"] * 40)


@anywhere
def texts(file, place, secret):
    file[place.replace("about", "other")] = ["a"] * 40


@anywhere
def texts_that_are_no_utf8(file, place, secret):
    file.create_dataset("about/wrong", (2,), h5py.string_dtype())[0] = b"\xff\xfe"


@anywhere
def stored_type(file, place, secret):
    file[place] = np.dtype("f8")


# -- filters -----------------------------------------------------------------------------------------


def _filtered(file, place, *filters) -> None:
    """Chunked rows with these filters, (code, parameters) each, whether the library has them or not."""
    made = h5p.create(h5p.DATASET_CREATE)
    made.set_chunk((10, 4))
    for code, parameters in filters:
        made.set_filter(code, h5z.FLAG_OPTIONAL, parameters)
    data_set = low_level(file, place, h5t.IEEE_F64LE, h5s.create_simple(SHAPE), made)
    for row in range(0, 40, 10):
        data_set.write_direct_chunk((row, 0), bytes(320), (1 << len(filters)) - 1)


@anywhere
def lzf(file, place, secret):
    file.create_dataset(place, data=np.zeros(SHAPE), compression="lzf")


@anywhere
def scale_offset(file, place, secret):
    file.create_dataset(place, data=np.zeros(SHAPE, int), scaleoffset=4)


@anywhere
def szip(file, place, secret):
    _filtered(file, place, (h5z.FILTER_SZIP, (141, 32, 64, 40)))


@anywhere
def n_bit(file, place, secret):
    _filtered(file, place, (h5z.FILTER_NBIT, (8, 0, 40, 1, 8, 0, 64, 0)))


@anywhere
def filter_of_a_plug_in(file, place, secret):
    _filtered(file, place, (32001, ()))


@anywhere
def filter_of_nobody(file, place, secret):
    _filtered(file, place, (65000, (1, 2, 3)))


@anywhere
def packed_twice(file, place, secret):
    _filtered(file, place, (h5z.FILTER_DEFLATE, (4,)), (h5z.FILTER_DEFLATE, (4,)))


@anywhere
def shuffled_after_packing(file, place, secret):
    _filtered(file, place, (h5z.FILTER_DEFLATE, (4,)), (h5z.FILTER_SHUFFLE, ()))
