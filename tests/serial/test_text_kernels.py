"""Numbers as text: the same letters as printf's, whatever the number."""

import numpy as np
import pytest

from lepton_mpi.prediction.fields import Field
from lepton_mpi.prediction.files import text_kernels
from lepton_mpi.prediction.files.csv_file import CsvFormat

_RANDOM = np.random.default_rng(5)
_ODD = [
    *(0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1.7976931348623157e308, 2.2250738585072014e-308),
    *(1.0, 10.0, 0.1, 1e-4, 1e-5, 9.9999999995e-5, 9.99999999949e-5, 0.00012345678912),
    *(123456789.0, 1234567890.0, 999999999.5, 999999999.4, 99999999.95, 12345678.25, 0.5, 2.5),
    *(1e15, 1e16, 1e17, 1e18, 99999999999999999.0, 1e22, 1e23, 1e100, -1e-100, 1e270, 1e-270),
]
_SETS = {
    "odd": np.array(_ODD),
    "probabilities": _RANDOM.random(20_000).astype(np.float32).astype(np.float64),
    "float64": _RANDOM.random(20_000),
    "small": np.exp(-_RANDOM.uniform(0, 100, 20_000)).astype(np.float32).astype(np.float64),
    "any size": np.exp(_RANDOM.uniform(-700, 700, 20_000)),
    "whole": _RANDOM.integers(-(10**9), 10**9, 20_000).astype(np.float64),
    "large whole": _RANDOM.integers(0, 1 << 53, 20_000).astype(np.float64),
    "few decimals": _RANDOM.integers(1, 10**9, 20_000) / 10.0 ** _RANDOM.integers(0, 12, 20_000),
    "halves": _RANDOM.integers(0, 10**9, 20_000) + 0.5,  # in the middle between two of 9 digits
    "any bits": _RANDOM.integers(0, 1 << 64, 20_000, dtype=np.uint64).view(np.float64),
}


def _lines(field: Field, array: np.ndarray, digits: int = 9) -> list[str]:
    (text,) = CsvFormat(digits).packed([field], [array])
    return text.tobytes().decode().splitlines()


@pytest.mark.parametrize("digits", [9, 17])
@pytest.mark.parametrize("name", _SETS)
def test_floats_are_those_of_printf(name, digits):
    values = _SETS[name]
    found = _lines(Field("a", "numbers", ("a",)), values[:, None], digits)
    assert found == [f"%.{digits}g" % value for value in values.tolist()]


def test_nearly_all_are_written_by_the_kernel():
    """Not by Python, which takes ten times as long."""
    from lepton_mpi.prediction.files import csv_file

    for digits in (9, 17):
        for name in ("probabilities", "float64", "small", "few decimals", "whole"):
            values = _SETS[name]
            numbers, exponents = np.empty((2, len(values), 1), np.int64)
            args = values[:, None], digits, *csv_file.powers(), 0, numbers, exponents
            text_kernels.round_floats(*args)
            assert (exponents == text_kernels.UNDECIDED).mean() < 0.01, (name, digits)


def test_whole_numbers():
    values = [0, 1, -1, 9, 10, -10, 99, 100, 1 << 62, -(1 << 62), 2**63 - 1, -(2**63)]
    assert _lines(Field("row", "number", ("row",)), np.array(values)) == list(map(str, values))


def test_lines_of_all_kinds_stand_side_by_side():
    """Empty and quoted texts too, over several rooms of numbers."""
    count = 60_000
    fields = [
        Field("row", "number", ("row",)),
        Field("name", "text", ("name",)),
        Field("class", "choice", ("class",), texts=("", 'a "b"', "c,d")),
        Field("p", "numbers", ("p", "q"), np.dtype("f4")),
    ]
    names = np.array([b"x", b"", "ä,".encode(), b"long name"])[np.arange(count) % 4]
    numbers = _RANDOM.standard_normal((count, 2)).astype(np.float32)
    arrays = [np.arange(count) + 7, names, (np.arange(count) % 3).astype(np.int32), numbers]
    (text,) = CsvFormat(9).packed(fields, arrays)
    texts, choices = ("x", "", '"ä,"', "long name"), ("", '"a ""b"""', '"c,d"')
    expected = [
        f"{row + 7},{texts[row % 4]},{choices[row % 3]},{p:.9g},{q:.9g}"
        for row, (p, q) in enumerate(numbers.tolist())
    ]
    assert text.tobytes().decode().splitlines() == expected


def test_no_rows_are_no_lines():
    assert _lines(Field("p", "numbers", ("p", "q")), np.zeros((0, 2))) == []


def test_names_are_made_into_cells_once():
    """For all rows together, of which there are more than become lines at a time."""
    looks = []

    class Name(str):
        def __iter__(self):
            looks.append(str(self))
            return super().__iter__()

    fields = [
        Field("class", "choice", ("class",), texts=(Name("a"), Name("b"))),
        Field("p", "numbers", ("p", "q")),
    ]
    codes = np.arange(90_000, dtype=np.int32) % 2
    (text,) = CsvFormat(9).packed(fields, [codes, np.full((len(codes), 2), 0.5)])
    assert text.tobytes() == b"a,0.5,0.5\nb,0.5,0.5\n" * 45_000
    assert looks == ["a", "b"]
