"""What the reader of the file would refuse, see ``data/trust.py``, found out before anything is written."""

import math
from typing import TYPE_CHECKING

from lepton_mpi.data.files import trust
from lepton_mpi.data.files.file_format import FORMAT
from lepton_mpi.errors import DataError

if TYPE_CHECKING:
    from lepton_mpi.prepare.last_pass import Plan

_NUMBER_BYTES_MAX = 8


def check_limits(plan: "Plan") -> None:
    """Raise DataError for a file that training and ``inspect`` would not read."""
    source = plan.source.parts[0].name
    _check_rows(source, "a row", plan.row_shape)
    if plan.labels.are_there:
        _check_rows(source, "the targets of a row", plan.y.shape[1:])
    names = plan.labels.class_names
    _check_objects(source, plan)
    bytes_of = {"class names": _bytes(names)}
    bytes_of |= {name: _bytes(texts) for name, texts in plan.texts.items()}
    total = sum(map(sum, bytes_of.values())) + len(FORMAT)
    if total > trust.TEXT_BYTES_MAX:
        most = max(bytes_of, key=lambda name: sum(bytes_of[name]))
        raise DataError(
            f"{source}: expected at most {trust.TEXT_BYTES_MAX} bytes of texts in a file, names of classes, columns and "
            f"categories, got {total}, {sum(bytes_of[most])} of them in {most}; --drop-columns leaves columns out"
        )
    for name, lengths in bytes_of.items():
        # Texts of fixed length take the room of the longest, class names in an attribute.
        room = trust.TEXT_BYTES_MAX if name == "class names" else trust.CHUNK_BYTES_MAX
        if len(lengths) * max(lengths, default=0) > room:
            raise DataError(
                f"{source}: {name}: expected {len(lengths)} texts of at most {room // len(lengths)} bytes each, got one of "
                f"{max(lengths)}; shorten it, or leave its column out"
            )


def _check_rows(source: str, what: str, shape: tuple[int, ...]) -> None:
    most = trust.CHUNK_BYTES_MAX // _NUMBER_BYTES_MAX
    if math.prod(shape) > most:
        raise DataError(
            f"{source}: expected at most {most} numbers in {what}, got {math.prod(shape)}; cut rows into several"
        )


def _check_objects(source: str, plan: "Plan") -> None:
    """Data sets, the groups that they are in, and the file's own group."""
    found = {"/"}
    for name in plan.data_sets:
        parts = name.split("/")
        found |= {"/".join(parts[: depth + 1]) for depth in range(len(parts))}
    if len(found) > trust.OBJECTS_MAX:
        raise DataError(
            f"{source}: expected at most {trust.OBJECTS_MAX} objects in a file, got {len(found)}, since each of "
            f"{len(plan.texts)} columns of texts has a list of its categories; --drop-columns leaves columns out"
        )


def _bytes(texts: tuple[str, ...]) -> list[int]:
    return [len(text.encode()) for text in texts]
