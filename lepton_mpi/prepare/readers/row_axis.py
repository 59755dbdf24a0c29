"""Which dimension of an array counts rows: the first, unless the file says otherwise, or the labels of MATLAB's arrays.

MATLAB's own functions take rows of a matrix, but the last dimension of images, and of what its neural networks take. There
the number of labels tells, and where it does not, the user is asked.
"""

from typing import Literal

from lepton_mpi.errors import ConfigurationError, DataError

Axis = Literal["first", "last"]


def choose_axis(
    shape: tuple[int, ...], label_counts: set[int], asked: str, is_matlab: bool, name: str
) -> Axis:
    """The dimension of features of this shape that counts rows.

    Parameters
    ----------
    label_counts
        How many labels there may be; empty if that is not known.
    asked
        ``--rows``.

    Raises
    ------
    DataError
        If no dimension is that of the labels.
    ConfigurationError
        If both may be, in an array of MATLAB.

    >>> choose_axis((32, 32, 3, 500), {500}, "auto", True, "X")
    'last'
    >>> choose_axis((500, 16), {500}, "auto", True, "X")
    'first'
    """
    if asked != "auto":
        return asked
    if not is_matlab:
        return "first"
    fitting: list[Axis] = [
        axis for axis, place in (("first", 0), ("last", -1)) if shape[place] in label_counts
    ]
    if len(fitting) == 1 or (fitting and len(shape) == 1):
        return fitting[0]
    counts = " or ".join(map(str, sorted(label_counts)))
    if fitting:
        raise ConfigurationError(
            f"--rows: {name}: is it the first or the last dimension of {shape} that counts rows? Say --rows first or last"
        )
    raise DataError(
        f"{name}: expected a dimension of {counts} rows, as there are labels, got {shape}"
    )
