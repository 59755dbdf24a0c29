"""Marks that other programs leave on an array, and that decide what its numbers mean. Only attributes of ``trust.py`` are read.

MATLAB writes every array with its dimensions in reverse order. NetCDF packs numbers as ``value * scale_factor + add_offset``,
writes one number in place of those that are missing, and says between which limits numbers are valid; others are missing, too
(https://docs.unidata.ucar.edu/nug/current/attribute_conventions.html). Training takes arrays as they are, and so refuses these;
``prepare`` turns and unpacks them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

# What NetCDF-4 writes where nobody wrote; numbers of one byte have none.
_NETCDF_FILL = {
    "i2": -32767,
    "u2": 65535,
    "i4": -2147483647,
    "u4": 4294967295,
    "i8": -9223372036854775806,
    "u8": 18446744073709551614,
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
}


@dataclass(frozen=True)
class Packing:
    """How numbers of NetCDF are stored.

    Attributes
    ----------
    missing : tuple
        Numbers, as stored, that stand for none.
    scale, offset : float
    unsigned : bool
        The bits are those of unsigned numbers.
    least, most : float or None
        Limits of valid numbers, as stored, or as unpacked if ``limits_unpacked``; None for no limit.
    limits_unpacked : bool
        As the convention has it where the limits are floats and the stored numbers are not.
    """

    missing: tuple[Any, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    unsigned: bool = False
    least: float | int | None = None
    most: float | int | None = None
    limits_unpacked: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether numbers mean what they say."""
        return self == Packing()

    @property
    def text(self) -> str:
        """In words, for a note."""
        parts = ["read without a sign"] if self.unsigned else []
        if (self.scale, self.offset) != (1.0, 0.0):
            parts.append(f"value = number * {self.scale:g} + {self.offset:g}")
        if self.missing:
            parts.append(f"{', '.join(f'{value:g}' for value in self.missing)} is missing")
        kind = "a value" if self.limits_unpacked else "a number"
        if self.least is not None:
            parts.append(f"{kind} below {self.least:g} is missing")
        if self.most is not None:
            parts.append(f"{kind} above {self.most:g} is missing")
        return ", ".join(parts)

    def unpacked(self, raw: np.ndarray) -> np.ndarray:
        """Numbers as they are meant, NaN where missing; float64 if anything had to be done but for the sign."""
        if self.unsigned and raw.dtype.kind == "i":
            raw = raw.view(raw.dtype.str.replace("i", "u"))
        has_limits = (self.least, self.most) != (None, None)
        if not self.missing and not has_limits and (self.scale, self.offset) == (1.0, 0.0):
            return raw
        values = raw.astype(np.float64)
        values[np.isin(raw, np.array(self.missing, raw.dtype))] = np.nan
        values = values * self.scale + self.offset
        if has_limits:
            values[self._is_beyond(values if self.limits_unpacked else raw)] = np.nan
        return values

    def _is_beyond(self, numbers: np.ndarray) -> np.ndarray:
        wrong = np.zeros(numbers.shape, bool)
        if self.least is not None:
            wrong |= numbers < self.least
        if self.most is not None:
            wrong |= numbers > self.most
        return wrong


def is_of_matlab(thing: h5py.Dataset | h5py.Group) -> bool:
    """Whether MATLAB wrote an array, turned round."""
    return "MATLAB_class" in thing.attrs


def frame_among(names: Collection[str]) -> str:
    """Key of the first frame that pandas' to_hdf wrote, by the names of its data sets; empty without one.

    >>> frame_among(["df/axis0", "df/axis1", "df/block0_items", "df/block0_values"]), frame_among(["x", "y"])
    ('df', '')
    """
    for name in names:
        group, _, last = name.rpartition("/")
        if last == "block0_values" and f"{group}/axis0" in names:
            return group
        if last == "table" and any(other.startswith(f"{group}/_i_table/") for other in names):
            return group
    return ""


def packing_of(array: h5py.Dataset) -> Packing:
    """How the numbers of an array are packed, by its attributes."""
    attributes, dtype = array.attrs, array.dtype
    if dtype.kind not in "iuf":
        return Packing()
    fill = _numbers(attributes.get("_FillValue"))
    if not fill.size and "_NCProperties" in array.file.attrs:
        fill = np.array([_NETCDF_FILL[dtype.str[1:]]] if dtype.str[1:] in _NETCDF_FILL else [])
    with np.errstate(invalid="ignore", over="ignore"):
        missing = np.concatenate([fill, _numbers(attributes.get("missing_value"))]).astype(dtype)
    scale, offset = (_numbers(attributes.get(name)) for name in ("scale_factor", "add_offset"))
    unsigned = attributes.get("_Unsigned", b"")
    is_unsigned = str(unsigned.decode() if isinstance(unsigned, bytes) else unsigned) == "true"
    return Packing(
        tuple(np.unique(missing[~np.isnan(missing)]).tolist()),  # NaN is missing anyway
        float(scale[0]) if len(scale) else 1.0,
        float(offset[0]) if len(offset) else 0.0,
        is_unsigned and dtype.kind == "i",
        *_limits(attributes, dtype, is_unsigned and dtype.kind == "i"),
    )


def _limits(
    attributes: Mapping[str, Any], dtype: np.dtype, unsigned: bool
) -> tuple[float | int | None, float | int | None, bool]:
    """Least and most valid number, and whether they are those of unpacked numbers: ``valid_range``, or one limit of it."""
    both = _numbers(attributes.get("valid_range"))
    ends = [both[:1], both[1:2]] if both.size == 2 else [np.empty(0), np.empty(0)]
    for place, name in enumerate(("valid_min", "valid_max")):
        if (given := _numbers(attributes.get(name))).size == 1:
            ends[place] = given
    are_unpacked = dtype.kind != "f" and any(end.size and end.dtype.kind == "f" for end in ends)
    if unsigned:  # the limits are stored with the bits of the numbers
        ends = [e.view(e.dtype.str.replace("i", "u")) if e.dtype.kind == "i" else e for e in ends]
    least, most = (end[0].item() if end.size and not np.isnan(end[0]) else None for end in ends)
    return least, most, are_unpacked


def _numbers(value: Any) -> np.ndarray:
    """The numbers of an attribute; none of a text, or without it."""
    if value is None or isinstance(value, h5py.Empty):
        return np.empty(0)
    array = np.asarray(value).reshape(-1)
    return array if array.dtype.kind in "iuf" else np.empty(0)
