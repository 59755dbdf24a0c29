"""Names of classes as other programs write them: a list of texts under a usual name, beside the labels or as their attribute.

They are used where there are exactly as many as classes, and told in any case. A list that cannot be read safely is passed over,
since it is no reason to refuse the rows.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5l, h5s, h5t

from lepton_mpi.data.files import stored, trust
from lepton_mpi.errors import DataError

# In this order.
USUAL = (
    *("class_names", "label_names", "target_names", "classes", "class_labels", "labels_names"),
    *("classnames", "labelnames", "names_of_classes", "categories"),
)


@dataclass(frozen=True)
class Offered:
    """``texts``, and the data set, attribute or array ``where`` they stand; empty if there are none."""

    where: str = ""
    texts: tuple[str, ...] = ()

    def first_class(self, lowest: int, highest: int) -> int | None:
        """The label that the first text names, 0 or 1, if labels from ``lowest`` to ``highest`` are as many as texts.

        >>> Offered("names", ("a", "b", "c")).first_class(0, 2), Offered("names", ("a", "b")).first_class(1, 2)
        (0, 1)
        >>> Offered("names", ("a", "b", "c")).first_class(0, 1) is None
        True
        """
        is_fitting = lowest in (0, 1) and highest - lowest + 1 == len(self.texts)
        return lowest if is_fitting else None

    def used(self) -> str:
        """A note for the user."""
        return f"classes are named by {self.where}"

    def unused(self, lowest: int, highest: int) -> str:
        """A note for the user."""
        return (
            f"not used: {self.where}, {len(self.texts)} texts for labels from {lowest} to {highest}"
        )


NOTHING = Offered()


def offered_by(file: h5py.File, y_name: str) -> Offered:
    """What an HDF5 file has as names of the classes of a data set: its attributes, those around it, data sets beside it.

    Reads nothing but texts that are whole in the file. To be called by the process that looks first, see ``probe.py``.
    """
    group = y_name.strip("/").rpartition("/")[0]
    places = dict.fromkeys((y_name.strip("/"), group, ""))
    for place in places:
        thing = file if not place else file.get(place) if _is_hard(file, place) else None
        for key in USUAL if thing is not None else ():
            if texts := _of_attribute(thing, key):
                return Offered(f"the attribute {key}{f' of {place}' * bool(place)}", texts)
    for place in dict.fromkeys((group, "")):
        for key in USUAL:
            name = f"{place}/{key}".strip("/")
            if _is_hard(file, name) and (texts := _of_data_set(file, name)):
                return Offered(name, texts)
    return NOTHING


def offered_among(names: Collection[str], arrays: Mapping[str, np.ndarray]) -> Offered:
    """The same of an archive, whose arrays are read when they are asked for. Raises whatever they do."""
    for key in USUAL:
        if key in names and (texts := _different(arrays[key])):
            return Offered(key, texts)
    return NOTHING


def same_in_all(offers: Collection[Offered]) -> Offered:
    """What all parts of the data offer alike; nothing if they differ."""
    texts = {one.texts for one in offers}
    return next(iter(offers)) if len(texts) == 1 else NOTHING


def _is_hard(file: h5py.File, name: str) -> bool:
    """Whether a name leads through hard links alone, and so to something in the file itself."""
    group, parts = file.id, name.split("/")
    for number, part in enumerate(parts):
        link = part.encode()
        if link not in group or group.links.get_info(link).type != h5l.TYPE_HARD:
            return False
        if number < len(parts) - 1:
            if not isinstance(file.get("/".join(parts[: number + 1])), h5py.Group):
                return False
            group = file["/".join(parts[: number + 1])].id
    return True


def _of_attribute(thing: Any, key: str) -> tuple[str, ...]:
    if not h5a.exists(thing.id, key.encode()):
        return ()
    attribute = h5a.open(thing.id, key.encode())
    if not _is_list_of_texts(attribute.get_type(), attribute.get_space()):
        return ()
    return _different(thing.attrs[key])


def _of_data_set(file: h5py.File, name: str) -> tuple[str, ...]:
    thing = file.get(name)
    if not isinstance(thing, h5py.Dataset):
        return ()
    made = thing.id.get_create_plist()
    if made.get_layout() not in (h5d.CONTIGUOUS, h5d.COMPACT) or made.get_external_count():
        return ()
    if not _is_list_of_texts(thing.id.get_type(), thing.id.get_space()):
        return ()
    try:
        stored.check_places({name: thing.id}, file.id.get_filesize())
    except DataError:
        return ()
    return _different(thing[()])


def _is_list_of_texts(of: h5t.TypeID, space: h5s.SpaceID) -> bool:
    if not trust.is_text(of) or of.committed():
        return False
    if space.get_simple_extent_type() != h5s.SIMPLE or space.get_simple_extent_ndims() != 1:
        return False
    return of.get_size() * space.get_simple_extent_npoints() <= trust.TEXT_BYTES_MAX


def _different(values: Any) -> tuple[str, ...]:
    """Texts that are printable and all different; else nothing."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "SUO":
        return ()
    try:
        texts = [v.decode() if isinstance(v, bytes) else v for v in array.tolist()]
    except UnicodeDecodeError:
        return ()
    are_good = all(isinstance(text, str) and text and text.isprintable() for text in texts)
    return tuple(texts) if are_good and len({*texts}) == len(texts) > 1 else ()
