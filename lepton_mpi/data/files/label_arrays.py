"""Classes as other programs store them: numbers of shape (rows,) or (rows, 1, …, 1), floats too, or one-hot rows."""

from collections.abc import Collection
from math import prod

import numpy as np

# What people write for no label; 255 and 65535 are -1 without a sign.
_FOR_NONE = (-1, -9, -99, -999, -9999, 255, 65535)


def width(shape: tuple[int, ...]) -> int:
    """Numbers that make the label of a row, of an array of this shape: more than 1 for one-hot rows, and targets.

    >>> width((60,)), width((60, 1, 1, 1)), width((60, 24))
    (1, 1, 24)
    """
    return prod(shape[1:])


def classes_of(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class of each row of ``y``, numbers of shape (rows, width), and whether it is none: int64 or as they are, bool (rows,).

    Of one column the numbers, which must be whole; of several the place of the only 1 among zeros.

    >>> classes_of(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
    (array([1, 0, 0]), array([False, False,  True]))
    >>> classes_of(np.array([[2.0], [0.5], [np.nan]]))
    (array([2, 0, 0]), array([False,  True,  True]))
    """
    if y.shape[1] > 1:
        is_one = y == 1
        return is_one.argmax(axis=1), (is_one.sum(axis=1) != 1) | ((y != 0).sum(axis=1) != 1)
    flat = y[:, 0]
    if flat.dtype.kind != "f":
        return flat, np.zeros(len(flat), bool)
    wrong = ~np.isfinite(flat) | (flat != np.floor(flat)) | (np.abs(flat) > 2**53)
    return np.where(wrong, 0, flat).astype(np.int64), wrong


def number_apart(numbers: Collection[int | float]) -> int | None:
    """The number that may mean no label: one of the usual ones, far from others that count from 0 or 1; None without one.

    >>> number_apart([0, 1, 2, 255]), number_apart([-1, 1, 2]), number_apart([-1, 1]), number_apart(range(256))
    (255, -1, None, None)
    """
    odd = [value for value in _FOR_NONE if value in numbers]
    others = sorted({*numbers} - {*odd}) if len(odd) == 1 else []
    if len(others) < 2 or others[0] not in (0, 1):
        return None
    is_counting = others == list(range(int(others[0]), int(others[0]) + len(others)))
    return odd[0] if is_counting and not 0 < odd[0] < 2 * len(others) else None


def notes_on_labels(
    y: np.ndarray, class_names: tuple[str, ...], is_prepared: bool
) -> tuple[str, ...]:
    """What may not be meant so: targets that look like classes, and classes that no training row has.

    ``y`` of training rows are classes of shape (rows,), or targets, floats of shape (rows, targets).
    """
    if y.ndim == 2:
        like = "" if is_prepared else look_like_classes(y)
        hint = f"targets, floats that are all {like}: --loss cross_entropy takes them as classes"
        return (hint,) if like else ()
    there = np.bincount(y, minlength=len(class_names)) > 0
    absent = np.flatnonzero(~there)
    if not absent.size:
        return ()
    names = [class_names[code] if class_names else str(code) for code in absent[:12]]
    more = f" and {absent.size - 12} more" if absent.size > 12 else ""
    return (f"no training row of {absent.size} of {there.size} classes: {', '.join(names)}{more}",)


def look_like_classes(targets: np.ndarray) -> str:
    """What of targets, floats of shape (rows, k), makes one think of classes; empty for others.

    >>> look_like_classes(np.array([[0.0], [1.0], [1.0]]))
    'whole numbers from 0 to 1'
    >>> look_like_classes(np.eye(3)), look_like_classes(np.array([[0.5], [1.0]]))
    ('one-hot rows', '')
    """
    if not len(targets):
        return ""
    codes, wrong = classes_of(targets)
    if wrong.any():
        return ""
    if targets.shape[1] > 1:
        return "one-hot rows"
    highest = int(codes.max())
    is_dense = codes.min() >= 0 and highest < len(codes) // 2 + 2
    return f"whole numbers from {int(codes.min())} to {highest}" if is_dense else ""
