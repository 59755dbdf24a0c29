"""What an HDF5 file may hold before anything of it is read: files come from strangers.

An HDF5 file can name other files of the machine to be read in its place, lead in circles, promise more rows than
any disk holds, and ask for code that this program did not bring. All of it is refused by name:

- links that are not hard links, external storage, virtual data sets: what is read must lie in the file itself;
- groups that can be reached on two ways, which includes every circle; more than 10 000 objects, 32 groups deep;
- data sets of anything but plain numbers, such as references, records, opaque or variable-length types;
  texts are data sets in the group ``about``, and attributes;
- filters other than gzip, shuffle and Fletcher32, the ones that every HDF5 has and that ``stored.py`` can undo by
  itself; LZF, SZIP, N-bit and scale-offset believe what a file says of the length of their result;
- shapes that the file has no bytes for, see ``stored.py``.

Nothing is followed to find out: a link is judged by its kind, a data set by its description.
The library that reads the description is itself at risk; ``probe.py`` is about that.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from math import prod

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z

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

FILTERS = {
    h5z.FILTER_DEFLATE: "gzip",
    h5z.FILTER_SHUFFLE: "shuffle",
    h5z.FILTER_FLETCHER32: "fletcher32",
}
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


def check(
    file: h5py.File, file_bytes: int, only: Collection[str] | None = None
) -> dict[str, Thing]:
    """Refuse what a file must not hold; returns its groups and data sets by name. Raises DataError.

    Opens the objects of the file and reads descriptions only, no data and no attribute's value.

    Parameters
    ----------
    only
        Names of data sets, if nothing else of the file will be touched, as in one that an instrument wrote:
        then the rest may be what it likes, attributes too, and these data sets may be texts.
    """
    found = {}
    for name, thing in _walk(h5g.open(file.id, b"/"), only):
        with naming(name):
            if only is None:
                _check_attributes(name, thing)
            if is_data_set(thing):
                may_be_text = only is not None or name.startswith("/about/")
                _check_data_set(name, thing, file_bytes, may_be_text)
        found[name] = thing
    return found


def check_texts(things: dict[str, Thing], attributes: bool = True) -> None:
    """Read all attributes, and the data sets that are texts, and refuse what is not UTF-8 or too long. Raises DataError."""
    left = TEXT_BYTES_MAX
    for name, thing in things.items():
        whole = h5py.Dataset(thing) if is_data_set(thing) else h5py.Group(thing)
        with naming(name):
            pairs = whole.attrs.items() if attributes else ()
            values = [(f"{name}: attribute {key}", value) for key, value in pairs]
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


def _walk(root: h5g.GroupID, only: Collection[str] | None) -> Iterator[tuple[str, Thing]]:
    """Every group and data set, or those on the way to some; ends at the first that is wrong."""
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
                thing, address = _open(name, group, link)
            is_new = address not in known
            known.add(address)
            if is_data_set(thing):
                if is_new:  # else looked at by its other name
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


def _check_attributes(name: str, thing: Thing) -> None:
    count = h5a.get_num_attrs(thing)
    if count > _ATTRIBUTES_MAX:
        raise DataError(f"{name}: expected at most {_ATTRIBUTES_MAX} attributes, got {count}")
    for index in range(count):
        attribute = h5a.open(thing, index=index)
        label = f"{name}: attribute {_name(attribute.name, name)}"
        of, space = attribute.get_type(), attribute.get_space()
        if not is_text(of) or of.committed():
            _check_numbers(label, of, "numbers or texts")
        size = of.get_size() * space.get_simple_extent_npoints()
        if size > TEXT_BYTES_MAX:
            raise DataError(f"{label}: expected at most {TEXT_BYTES_MAX} bytes, got {size}")


def _check_numbers(label: str, of: h5t.TypeID, expected: str = "numbers") -> None:
    kind = of.get_class()
    if of.committed():
        raise DataError(
            f"{label}: expected {expected}, got a type that is stored elsewhere in the file"
        )
    if kind == h5t.ENUM and of.get_nmembers() == 2 and of.dtype == bool:  # as h5py writes it
        return
    if not any(of.equal(number) for number in _NUMBERS):
        raise DataError(
            f"{label}: expected {expected}, got {_TYPES.get(kind, 'elements of an unknown kind')}"
        )


def _check_data_set(name: str, data_set: h5d.DatasetID, file_bytes: int, may_be_text: bool) -> None:
    made = data_set.get_create_plist()
    layout = made.get_layout()
    # Asked for before the shape, which a virtual data set may look up in other files.
    if layout == h5d.VIRTUAL or made.get_external_count():
        came = "a virtual data set" if layout == h5d.VIRTUAL else "external storage"
        raise DataError(f"{name}: expected data in the file itself, got {came}")
    of, space = data_set.get_type(), data_set.get_space()
    if not (may_be_text and is_text(of) and not of.committed()):
        _check_numbers(name, of)
    if space.get_simple_extent_type() not in (h5s.SIMPLE, h5s.SCALAR):
        raise DataError(f"{name}: expected rows, got a data set without a shape")
    _check_filters(name, made, element_bytes(data_set))
    size = prod(data_set.shape) * element_bytes(data_set)
    packed = h5z.FILTER_DEFLATE in (code for code, _ in filters(made))
    most = file_bytes * (DEFLATE_RATIO_MAX if packed else 1)
    if size > most:
        raise DataError(
            f"{name}: shape {data_set.shape}: expected at most the {most} bytes that a file of {file_bytes} bytes "
            f"can hold, got {size}"
        )
    if layout == h5d.CHUNKED:
        _check_chunk_shape(name, made.get_chunk(), data_set)


def filters(made: h5py.h5p.PropDCID) -> list[tuple[int, tuple[int, ...]]]:
    """Code and parameters of each filter, in the order of writing."""
    found = (made.get_filter(index) for index in range(made.get_nfilters()))
    return [(code, tuple(values)) for code, _, values, _ in found]


def _check_filters(name: str, made: h5py.h5p.PropDCID, element: int) -> None:
    met = set()
    for code, values in filters(made):
        if code not in FILTERS or code in met:
            known = ", ".join(FILTERS.values())
            came = f"{FILTERS[code]} twice" if code in met else f"filter {code}"
            raise DataError(f"{name}: expected no filters but {known}, got {came}")
        is_late = h5z.FILTER_DEFLATE in met
        if code == h5z.FILTER_SHUFFLE and (values != (element,) or is_late):
            raise DataError(
                f"{name}: expected elements of {element} bytes to be shuffled before gzip, got "
                f"{one_line(values)}{' after it' * is_late}"
            )
        met.add(code)


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
