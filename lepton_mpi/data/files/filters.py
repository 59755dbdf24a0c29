"""What chunks of a data set went through: gzip, shuffle and Fletcher32, which are undone here; others are named.

LZF, SZIP, N-bit and scale-offset believe what a file says of the length of their result, and the others ask for code that this
program did not bring.
"""

import h5py
from h5py import h5z

from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

FILTERS = {
    h5z.FILTER_DEFLATE: "gzip",
    h5z.FILTER_SHUFFLE: "shuffle",
    h5z.FILTER_FLETCHER32: "fletcher32",
}
# Registered ones, https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_OTHER_FILTERS = {
    h5z.FILTER_SZIP: "szip",
    h5z.FILTER_NBIT: "nbit",
    h5z.FILTER_SCALEOFFSET: "scaleoffset",
    h5z.FILTER_LZF: "lzf",
    305: "lzo",
    307: "bzip2",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstandard",
    32026: "blosc2",
}
_IN_H5PY = (h5z.FILTER_SZIP, h5z.FILTER_NBIT, h5z.FILTER_SCALEOFFSET, h5z.FILTER_LZF)


def filters_of(made: h5py.h5p.PropDCID) -> list[tuple[int, tuple[int, ...]]]:
    """Code and parameters of each filter, in the order of writing."""
    found = (made.get_filter(index) for index in range(made.get_nfilters()))
    return [(code, tuple(values)) for code, _, values, _ in found]


def check_filters(name: str, made: h5py.h5p.PropDCID, element: int) -> None:
    """Refuse filters that are not undone here. Raises DataError with the line that rewrites the data set."""
    met = set()
    for code, values in filters_of(made):
        if code not in FILTERS or code in met:
            known = ", ".join(FILTERS.values())
            if code in met:
                raise DataError(
                    f"{name}: expected no filters but {known}, got {FILTERS[code]} twice"
                )
            came = f"{_OTHER_FILTERS.get(code, 'filter')} ({code})"
            load = "h5py" if code in _IN_H5PY else "h5py, hdf5plugin"
            raise DataError(
                f"{name}: expected no filters but {known}, got {came}; this rewrites it, and likewise the others: python -c "
                f"\"import {load}; a = h5py.File('OLD.h5'); b = h5py.File('NEW.h5', 'a'); b['{name}'] = a['{name}'][:]\""
            )
        is_late = h5z.FILTER_DEFLATE in met
        if code == h5z.FILTER_SHUFFLE and (values != (element,) or is_late):
            raise DataError(
                f"{name}: expected elements of {element} bytes to be shuffled before gzip, got "
                f"{one_line(values)}{' after it' * is_late}"
            )
        met.add(code)
