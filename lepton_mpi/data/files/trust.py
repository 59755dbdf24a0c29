"""What an HDF5 file may hold before anything of it is read: files come from strangers.

An HDF5 file can name other files of the machine to be read in its place, lead in circles, promise more rows than
any disk holds, and ask for code that this program did not bring. All of it is refused by name:

- links that are not hard links, external storage, virtual data sets: what is read must lie in the file itself;
- groups that can be reached on two ways, which includes every circle; more than 10 000 objects, 32 groups deep;
- data sets to read of anything but plain numbers, such as references, records, opaque or variable-length types;
  texts are data sets in the group ``about``, labels, and attributes;
- filters of these other than gzip, shuffle and Fletcher32, the ones that every HDF5 has and that ``stored.py`` can undo by
  itself; LZF, SZIP, N-bit and scale-offset believe what a file says of the length of their result;
- shapes of these that the file has no bytes for, see ``stored.py``.

Nothing is followed to find out: a link is judged by its kind, a data set by its description.
A checkpoint is judged as a whole. Of a file with rows, links, virtual data and external storage are refused wherever they
are, and all else of what is to be read, since other programs put texts, references and records beside the rows.
The library that reads the description is itself at risk; ``probe.py`` is about that.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from math import prod

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z

from lepton_mpi.data.files.filters import check_filters, filters_of
from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

Thing = h5g.GroupID | h5d.DatasetID

# A file of this program has about 10 objects, of one group depth. The limits keep the look at a hostile one short.
OBJECTS_MAX, _DEPTH_MAX, _ATTRIBUTES_MAX = 10_000, 32, 1_000

# Class names, units, vocabularies. Every rank reads them, and a few bytes of a file can promise much text.
TEXT_BYTES_MAX = 16 << 20

# The whole chunk is unpacked for any of its rows, by every rank that needs one.
CHUNK_BYTES_MAX = 256 << 20

# The most that deflate shrinks anything, 258 bytes in 2 bits; https://zlib.net/zlib_tech.html
DEFLATE_RATIO_MAX = 1032

# Of files of other programs: those of this one, of MATLAB, NetCDF and AnnData that decide how rows are read.
ATTRIBUTES_READ = {
    *("classes", "format", "format_version", "kind", "values", "context"),
    *("MATLAB_class", "_NCProperties", "encoding-type", "shape"),
    *("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned"),
    *("valid_range", "valid_min", "valid_max", "rows"),
}
# Where other programs put nothing.
_OWN = re.compile(r"/(normalisation/|about/|vocabulary/|[^/]+/(inputs/|tokens$|document_starts$))")
_LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}
_ORDERS = ("LE", "BE")
_NUMBERS = [
    getattr(h5t, f"{kind}{bits}{order}")
    for kind, sizes in (
        ("STD_I", (8, 16, 32, 64)),
        ("STD_U", (8, 16, 32, 64)),
        ("IEEE_F", (16, 32, 64)),
    )
    for bits in sizes
    for order in _ORDERS
]
_TYPES = {
    h5t.INTEGER: "whole numbers of an unusual kind",
    h5t.FLOAT: "floats of an unusual kind",
    h5t.TIME: "times",
    h5t.STRING: "texts",
    h5t.BITFIELD: "bit fields",
    h5t.OPAQUE: "opaque values",
    h5t.COMPOUND: "records",
    h5t.REFERENCE: "references",
    h5t.ENUM: "an enumeration",
    h5t.VLEN: "values of variable length",
    h5t.ARRAY: "arrays as elements",
}


def data_set_names(file: h5py.File, only: Collection[str] | None = None) -> list[str]:
    """Names of all data sets, or of those of ``only`` that are there, without the first slash. Raises DataError.

    Refuses what leads out of the file, in circles, or nowhere; reads no data, no attribute, and no type.
    """
    found = []
    try:
        for name, thing in _walk(h5g.open(file.id, b"/"), only, is_whole=False):
            if is_data_set(thing):
                with naming(name):
                    _check_is_inside(name, thing)
                found.append(name.strip("/"))
    except DataError as error:
        hint = "; with --x and --y nothing is looked at but what they name" if only is None else ""
        raise DataError(f"{error}{hint}") from None
    return found


def check(
    file: h5py.File, file_bytes: int, only: Collection[str] | None = None
) -> dict[str, Thing]:
    """Refuse what a file must not hold; returns its groups and data sets by name. Raises DataError.

    Opens the objects of the file and reads descriptions only, no data and no attribute's value.

    Parameters
    ----------
    only
        Names of data sets, if nothing else of the file will be touched: then the rest may be what it likes, attributes
        other than ``ATTRIBUTES_READ`` too, and these data sets may be texts.
    """
    found = {}
    for name, thing in _walk(h5g.open(file.id, b"/"), only):
        with naming(name):
            _check_attributes(name, thing, None if only is None else ATTRIBUTES_READ)
            if is_data_set(thing):
                may_be_text = name.startswith("/about/") or not (only is None or _OWN.match(name))
                _check_data_set(name, thing, file_bytes, may_be_text)
        found[name] = thing
    return found


def check_texts(things: dict[str, Thing], attributes: Collection[str] | None = None) -> None:
    """Read these attributes, by default all, and the data sets that are texts; refuse what is not UTF-8 or too long.

    Raises DataError.
    """
    left = TEXT_BYTES_MAX
    for name, thing in things.items():
        whole = h5py.Dataset(thing) if is_data_set(thing) else h5py.Group(thing)
        with naming(name):
            keys = (
                whole.attrs if attributes is None else [k for k in attributes if k in whole.attrs]
            )
            values = [(f"{name}: attribute {key}", whole.attrs[key]) for key in sorted(keys)]
            if isinstance(whole, h5py.Dataset) and is_text(thing.get_type()):
                values.append((name, whole[()]))
        for label, value in values:
            left -= _text_bytes(label, value)
            if left < 0:
                raise DataError(
                    f"{label}: expected at most {TEXT_BYTES_MAX} bytes of texts in a file, got more"
                )


def _text_bytes(label: str, value: object) -> int:
    """Length of a text or of several, in whichever form h5py returns them; 0 for anything else."""
    texts = [
        text for text in np.asarray(value, object).reshape(-1) if isinstance(text, (str, bytes))
    ]
    try:
        return sum(len(text.encode() if isinstance(text, str) else text.decode()) for text in texts)
    except UnicodeError:
        raise DataError(f"{label}: expected texts in UTF-8, got other bytes") from None


@contextmanager
def naming(name: str) -> Iterator[None]:
    """A block in which whatever h5py raises about damage becomes a DataError that names an object."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # OSError, RuntimeError, KeyError, ValueError, TypeError and more
        reason = (
            error.args[0] if isinstance(error, KeyError) and error.args else error
        )  # str() quotes it
        raise DataError(f"{name}: damaged: {one_line(reason)}") from None


def is_data_set(thing: Thing) -> bool:
    """Whether it is none of the groups."""
    return isinstance(thing, h5d.DatasetID)


def is_text(of: h5t.TypeID) -> bool:
    """Whether elements of this type are texts."""
    return of.get_class() == h5t.STRING


def element_bytes(data_set: h5d.DatasetID) -> int:
    """Bytes of an element in the file: a text of variable length is a length, an address and a number there."""
    of = data_set.get_type()
    return 16 if is_text(of) and of.is_variable_str() else of.get_size()


def _walk(
    root: h5g.GroupID, only: Collection[str] | None, is_whole: bool = True
) -> Iterator[tuple[str, Thing]]:
    """Every group and data set, or those on the way to some; ends at the first that is wrong.

    Where the file must be good as a whole, a stored type is wrong, else it is passed over, and data sets of several names
    come by each of them.
    """
    ways = None if only is None else {f"/{part}" for name in only for part in _ways(name)}
    groups, known, count = [("", root)], {h5o.get_info(root).addr}, 1
    while groups:
        place, group = groups.pop()
        yield place or "/", group
        with naming(place or "/"):
            links = _link_names(group, OBJECTS_MAX - count)
        count += len(links)
        if count > OBJECTS_MAX:
            raise DataError(
                f"{place or '/'}: expected at most {OBJECTS_MAX} objects in a file, got more"
            )
        for link in links:
            if ways is not None and f"{place}/{link.decode(errors='replace')}" not in ways:
                continue
            name = f"{place}/{_name(link, place or '/')}"
            with naming(name):
                if not is_whole and not _OWN.match(name) and _is_type(group, link):
                    continue
                thing, address = _open(name, group, link)
            is_new = address not in known
            known.add(address)
            if is_data_set(thing):
                if is_new or not is_whole:  # else looked at by its other name
                    yield name, thing
                continue
            if not is_new:
                raise DataError(
                    f"{name}: expected a group of its own, got one that has another name too"
                )
            if name.count("/") > _DEPTH_MAX:
                raise DataError(
                    f"{name}: expected at most {_DEPTH_MAX} groups in each other, got more"
                )
            groups.append((name, thing))


def _ways(name: str) -> list[str]:
    """The groups on the way to an object, and the object: of ``a/b/c``, ``a``, ``a/b`` and ``a/b/c``."""
    parts = name.strip("/").split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _open(name: str, group: h5g.GroupID, link: bytes) -> tuple[Thing, int]:
    """What a link leads to, if it is a group or a data set of this file, and its address."""
    kind = group.links.get_info(link).type
    if kind != h5l.TYPE_HARD:
        came = _LINKS.get(kind, "a link of an unknown kind")
        raise DataError(f"{name}: expected data in the file itself, got {came}")
    info = h5o.get_info(group, link)
    if info.type not in (h5o.TYPE_GROUP, h5o.TYPE_DATASET):
        raise DataError(f"{name}: expected a group or a data set, got a stored type")
    open_it = h5g.open if info.type == h5o.TYPE_GROUP else h5d.open
    return open_it(group, link), info.addr


def _is_type(group: h5g.GroupID, link: bytes) -> bool:
    is_hard = group.links.get_info(link).type == h5l.TYPE_HARD
    return is_hard and h5o.get_info(group, link).type == h5o.TYPE_NAMED_DATATYPE


def _link_names(group: h5g.GroupID, most: int) -> list[bytes]:
    """Names in a group, up to one more than ``most``."""
    names: list[bytes] = []

    def note(name: bytes) -> bool | None:
        names.append(name)
        return len(names) > most or None

    group.links.iterate(note)
    return names


def _name(raw: bytes, place: str) -> str:
    """A name as text that can stand in a message."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise DataError(f"{place}: expected names in UTF-8, got {raw[:80]!r}") from None
    if not text.isprintable() or len(text) > 255:
        raise DataError(
            f"{place}: expected printable names of up to 255 letters, got {text[:80]!r}"
        )
    return text


def _check_attributes(name: str, thing: Thing, only: Collection[str] | None) -> None:
    """All of them, or those of these names that there are."""
    for attribute in _attributes(name, thing, only):
        label = f"{name}: attribute {_name(attribute.name, name)}"
        of, space = attribute.get_type(), attribute.get_space()
        if not is_text(of) or of.committed():
            _check_numbers(label, of, "numbers or texts")
        size = of.get_size() * space.get_simple_extent_npoints()
        if size > TEXT_BYTES_MAX:
            raise DataError(f"{label}: expected at most {TEXT_BYTES_MAX} bytes, got {size}")


def _attributes(name: str, thing: Thing, only: Collection[str] | None) -> Iterator[h5a.AttrID]:
    if only is not None:
        wanted = (key.encode() for key in sorted(only))
        yield from (h5a.open(thing, key) for key in wanted if h5a.exists(thing, key))
        return
    count = h5a.get_num_attrs(thing)
    if count > _ATTRIBUTES_MAX:
        raise DataError(f"{name}: expected at most {_ATTRIBUTES_MAX} attributes, got {count}")
    yield from (h5a.open(thing, index=index) for index in range(count))


def _check_numbers(label: str, of: h5t.TypeID, expected: str = "numbers") -> None:
    kind = of.get_class()
    if of.committed():
        raise DataError(
            f"{label}: expected {expected}, got a type that is stored elsewhere in the file"
        )
    if kind == h5t.ENUM and of.get_nmembers() == 2 and of.dtype == bool:  # as h5py writes it
        return
    if not any(of.equal(number) for number in _NUMBERS):
        came = _TYPES.get(kind, "elements of an unknown kind")
        hint = ", which are not followed, as in a cell array of MATLAB" * (kind == h5t.REFERENCE)
        raise DataError(f"{label}: expected {expected}, got {came}{hint}")


def _check_is_inside(name: str, data_set: h5d.DatasetID) -> None:
    made = data_set.get_create_plist()
    if made.get_layout() == h5d.VIRTUAL or made.get_external_count():
        is_virtual = made.get_layout() == h5d.VIRTUAL
        came = "a virtual data set" if is_virtual else "external storage"
        raise DataError(f"{name}: expected data in the file itself, got {came}")


def _check_data_set(name: str, data_set: h5d.DatasetID, file_bytes: int, may_be_text: bool) -> None:
    _check_is_inside(name, data_set)  # before the shape, which a virtual one may look up elsewhere
    made = data_set.get_create_plist()
    layout = made.get_layout()
    of, space = data_set.get_type(), data_set.get_space()
    if not (may_be_text and is_text(of) and not of.committed()):
        _check_numbers(name, of)
    if space.get_simple_extent_type() not in (h5s.SIMPLE, h5s.SCALAR):
        raise DataError(f"{name}: expected rows, got a data set without a shape")
    check_filters(name, made, element_bytes(data_set))
    size = prod(data_set.shape) * element_bytes(data_set)
    packed = h5z.FILTER_DEFLATE in (code for code, _ in filters_of(made))
    most = file_bytes * (DEFLATE_RATIO_MAX if packed else 1)
    if size > most:
        raise DataError(
            f"{name}: shape {data_set.shape}: expected at most the {most} bytes that a file of {file_bytes} bytes "
            f"can hold, got {size}"
        )
    if layout == h5d.CHUNKED:
        _check_chunk_shape(name, made.get_chunk(), data_set)


def _check_chunk_shape(name: str, chunk: tuple[int, ...], data_set: h5d.DatasetID) -> None:
    if len(chunk) != len(data_set.shape) or 0 in chunk:
        raise DataError(
            f"{name}: expected chunks of {len(data_set.shape)} dimensions, got {one_line(chunk)}"
        )
    size = prod(chunk) * element_bytes(data_set)
    if size > CHUNK_BYTES_MAX:
        raise DataError(
            f"{name}: expected chunks of at most {CHUNK_BYTES_MAX} bytes, got {size}: write it with smaller ones"
        )
