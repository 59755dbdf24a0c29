"""Numbers, dates and texts as people and other programs write them: read rightly, or asked about."""

import importlib.util
from contextlib import closing
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.readers import csv_raw
from lepton_mpi.prepare.written_dates import orders_of, seconds_of
from lepton_mpi.prepare.written_numbers import are_written_numbers, written_number
from tests.serial.raw_files import prepare, same_on_ranks, write_csv
from tests.serial.test_prepare import rows_of

needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None,
    reason="pyarrow, the extra parquet, is not installed",
)
ALL = ("--split", "1")


def table(path, names: list[str], columns: list[list], kind: str):
    """The same cells as a CSV file, each in quotes, or as a Parquet table of texts; a column "label" is of numbers."""
    if kind == "csv":
        rows = [[f'"{cell}"' for cell in row] for row in zip(*columns, strict=True)]
        return write_csv(path.with_suffix(".csv"), rows, *names)
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    made = {n: c if n == "label" else [str(v) for v in c] for n, c in zip(names, columns, strict=True)}  # fmt: skip
    parquet.write_table(pyarrow.table(made), path.with_suffix(".parquet"), row_group_size=37)
    return path.with_suffix(".parquet")


both_readers = pytest.mark.parametrize("kind", ["csv", "parquet"])


# -- pure --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "decimal", "value"),
    [
        ("1,234", ".", 1234),
        ("1,234,567.25", ".", 1234567.25),
        ("1.234.567,25", ",", 1234567.25),
        ("1 234 567", ".", 1234567),
        ("1\u00a0234,5", ",", 1234.5),
        ("1'234.5", ".", 1234.5),
        ("$1,234.50", ".", 1234.5),
        ("-$5", ".", -5),
        ("$-5", ".", -5),
        ("(1,000)", ".", -1000),
        ("12%", ".", 12),
        ("12,5 %", ",", 12.5),
        ("4.0 cm", ".", 4),
        ("10 km/h", ".", 10),
        ("EUR 12", ".", 12),
        ("12 €", ".", 12),
        ("+7", ".", 7),
        ("−3", ".", -3),
        ("1e3", ".", 1000),
        (".5 %", ".", 0.5),
        ("1,23", ".", None),
        ("12,3456", ".", None),
        ("1,234.5", ",", None),
        ("A12", ".", None),
        ("12-13", ".", None),
        ("(1", ".", None),
        ("", ".", None),
        ("cm", ".", None),
        ("1.2.3", ".", None),
    ],
)
def test_written_numbers(text, decimal, value):
    """What is no number in this notation is None, never another number."""
    found = written_number(text, decimal)
    assert (None if found is None else found.value) == value


def test_columns_of_written_numbers():
    """Of one unit, nearly all of them."""
    assert are_written_numbers(["3 cm", "4 cm", "12 cm"], ".")
    assert not are_written_numbers(["3 cm", "4 mm"], ".")
    assert not are_written_numbers(["1st", "2nd", "3rd"], ".")
    assert not are_written_numbers(["red", "blue", "12"], ".")


@given(st.datetimes(datetime(1971, 1, 1), datetime(2068, 1, 1)))
def test_dates_are_read_in_every_notation(time):
    """As Python's own calendar has them."""
    time = time.replace(microsecond=0)
    expected = (time - datetime(1970, 1, 1)).total_seconds()
    for notation, order in (
        ("%Y-%m-%d %H:%M:%S", "ymd"),
        ("%Y-%m-%dT%H:%M:%SZ", "ymd"),
        ("%d/%m/%Y %H:%M:%S", "dmy"),
        ("%d.%m.%Y %H:%M:%S", "dmy"),
        ("%m/%d/%y %I:%M:%S %p", "mdy"),
        ("%d-%b-%Y %H:%M:%S", "dmy"),
        ("%B %d, %Y %H:%M:%S", "mdy"),
        ("%Y%m%d %H:%M:%S", "ymd"),
    ):
        text = time.strftime(notation)
        assert seconds_of(text, order) == expected, text
        assert seconds_of(text + "1x", order) is None


def test_orders_that_dates_can_have():
    """Several only if nothing tells."""
    assert orders_of(["31/01/2023", "01/02/2023"]) == ("dmy",)
    assert orders_of(["01/31/2023", "02/01/2023"]) == ("mdy",)
    assert orders_of(["03/04/2023"]) == ("dmy", "mdy")
    assert orders_of(["2023-02-01", "2023-03-01"]) == ("ymd",)
    assert orders_of(["12:30", "23:59:59.5"]) == ("ymd",)
    assert orders_of(["red", "2023-03-01"]) == () == orders_of([])
    assert seconds_of("2023-06-01T00:00:00+02:00", "ymd") == seconds_of("2023-05-31 22:00", "ymd")


# -- numbers -----------------------------------------------------------------------------------------


def prices() -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Numbers from 2.0 to 11.9, whole ones from 0 to 29, and classes."""
    random = np.random.default_rng(0)
    a = random.integers(20, 120, 400) / 10
    return a, random.integers(0, 30, 400), (a > 7).astype(int).tolist()


@pytest.mark.parametrize("words", [(), ("--decimal", ",")])
def test_a_decimal_comma_is_read(tmp_path, words):
    """Also where nobody says so, since semicolons divide and no number has a point; and it is said."""
    a, b, y = prices()
    rows = [[f"{v:.1f}".replace(".", ","), w, k] for v, w, k in zip(a, b, y, strict=True)]
    path = write_csv(tmp_path / "a.csv", rows, "a", "b", "y", delimiter=";")
    facts = same_on_ranks(tmp_path / "a.h5", path, *words, *ALL)
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], np.column_stack([a, b]))
    assert "decimal comma" in facts["notes"]
    assert [column["kind"] for column in facts["columns"]] == ["number", "number"]


def test_a_comma_before_three_digits_is_asked_about(tmp_path):
    """Thousands or decimals: a factor of 1000."""
    rows = [[f"{i % 9},{i % 1000:03}", i % 2] for i in range(40)]
    path = write_csv(tmp_path / "a.csv", rows, "a", "y", delimiter=";")
    with pytest.raises(DataError, match=r"'0,000'.*--decimal , or --decimal \."):
        prepare(path, tmp_path / "a.h5", *ALL)
    prepare(path, tmp_path / "a.h5", *ALL, "--decimal", ",")
    x = rows_of(tmp_path / "a.h5")["train"][:, 0]
    assert np.array_equal(x, [i % 9 + i / 1000 for i in range(40)])
    prepare(path, tmp_path / "b.h5", *ALL, "--decimal", ".", "--numbers", "a")
    x = rows_of(tmp_path / "b.h5")["train"][:, 0]
    assert np.array_equal(x, [i % 9 * 1000 + i for i in range(40)])


@both_readers
def test_prices_and_percent_are_asked_about_and_read(tmp_path, kind):
    """Never categories in the order of their letters; the question names all such columns at once."""
    a, b, y = prices()
    columns = [[f"${v * 1000:,.0f}" for v in a], [f"{w}%" for w in b], [f"{v} cm" for v in a], y]
    path = table(tmp_path / "a", ["price", "off", "size", "label"], columns, kind)
    with pytest.raises(DataError, match=r"'price' with \d+ texts such as '\$10,000', 'off'.*'size'.*--numbers price,off,size"):  # fmt: skip
        prepare(path, tmp_path / "a.h5", ranks=2)
    same_on_ranks(tmp_path / "a.h5", path, "--numbers", "price,off,size", *ALL)
    x = rows_of(tmp_path / "a.h5")["train"]
    assert np.array_equal(x, np.column_stack([np.round(a * 1000), b, a]))
    words = ("--categorical", "price,off,size", "--categories", "codes")
    facts = prepare(path, tmp_path / "b.h5", *words)
    assert [column["kind"] for column in facts["columns"]] == ["category"] * 3


@both_readers
def test_a_few_numbers_in_another_notation(tmp_path, kind):
    """Among plain ones they are named, with the option that reads them; other texts in such a column are no numbers."""
    values = [900 + i * 10 for i in range(30)]
    cells = [f"{v:,}" for v in values]
    path = table(tmp_path / "a", ["n", "label"], [cells, [i % 2 for i in range(30)]], kind)
    if kind == "csv":
        with pytest.raises(DataError, match=r"line 12, column 'n': expected a number as in 10 other rows, got '1,000'; --numbers n reads"):  # fmt: skip
            prepare(path, tmp_path / "a.h5")
    prepare(path, tmp_path / "a.h5", "--numbers", "n", *ALL)
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"][:, 0], values)
    cells[7] = "many"
    path = table(tmp_path / "b", ["n", "label"], [cells, [i % 2 for i in range(30)]], kind)
    with pytest.raises(DataError, match="expected a number as in 29 other rows, got 'many'"):
        prepare(path, tmp_path / "b.h5", "--numbers", "n")


@both_readers
def test_targets_in_another_notation(tmp_path, kind):
    """Likewise."""
    columns = [[i * 0.5 for i in range(30)], [f"${1000 * i:,}" for i in range(30)]]
    path = table(tmp_path / "a", ["a", "price"], columns, kind)
    words = ("--label", "price", "--task", "regression", *ALL)
    with pytest.raises(DataError, match=r"expected a number as the target.*'\$0'; --numbers price"):
        prepare(path, tmp_path / "a.h5", *words, "--numbers", "a")
    prepare(path, tmp_path / "a.h5", *words, "--numbers", "a,price")
    assert np.array_equal(rows_of(tmp_path / "a.h5", "y")["train"], np.arange(30) * 1000.0)


# -- dates -------------------------------------------------------------------------------------------

DAYS = np.datetime64("2023-01-25") + np.arange(60)
SECONDS = DAYS.astype("datetime64[s]").astype(np.int64).astype(np.float64)


@both_readers
def test_dates_are_asked_about_and_read(tmp_path, kind):
    """As seconds, in the order of time and not of letters; or by their parts."""
    days = [f"{str(day)[8:]}/{str(day)[5:7]}/{str(day)[:4]}" for day in DAYS]
    path = table(tmp_path / "a", ["day", "label"], [days, [i % 2 for i in range(60)]], kind)
    with pytest.raises(DataError, match=r"'day' with 60 texts such as '01/02/2023': categories or dates\? --dates day reads"):  # fmt: skip
        prepare(path, tmp_path / "a.h5")
    same_on_ranks(tmp_path / "a.h5", path, "--dates", "day", *ALL)
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"][:, 0], SECONDS)
    facts = same_on_ranks(tmp_path / "b.h5", path, "--dates", "day", "--dates-as", "parts", *ALL)
    names = [column["name"] for column in facts["columns"]]
    assert names == [f"day {part}" for part in ("year", "month", "day", "weekday", "hour", "minute")]  # fmt: skip
    parts = rows_of(tmp_path / "b.h5")["train"]
    assert parts[7].tolist() == [2023, 2, 1, 2, 0, 0]  # a Wednesday


@both_readers
def test_days_and_months_that_nothing_tells_apart(tmp_path, kind):
    """Are asked about."""
    days = [f"{1 + i % 12:02}/{1 + i // 12:02}/2023" for i in range(60)]
    path = table(tmp_path / "a", ["day", "label"], [days, [i % 2 for i in range(60)]], kind)
    with pytest.raises(DataError, match=r"--dates day=dmy\|mdy reads"):
        prepare(path, tmp_path / "a.h5")
    with pytest.raises(ConfigurationError, match="expected day=dmy or day=mdy"):
        prepare(path, tmp_path / "a.h5", "--dates", "day")
    firsts = {}
    for order in ("dmy", "mdy"):
        prepare(path, tmp_path / "a.h5", "--dates", f"day={order}", *ALL, "--force")
        firsts[order] = rows_of(tmp_path / "a.h5")["train"][1, 0]
    second = {o: np.datetime64(d).astype("datetime64[s]").astype(float) for o, d in (("dmy", "2023-01-02"), ("mdy", "2023-02-01"))}  # fmt: skip
    assert firsts == second


@needs_pyarrow
def test_times_of_parquet_are_asked_about_and_read(tmp_path):
    """Every type of time that Arrow has."""
    import pyarrow
    from pyarrow import parquet

    kinds = [pyarrow.timestamp(unit) for unit in ("s", "ms", "us", "ns")]
    kinds += [pyarrow.timestamp("us", "Europe/Berlin"), pyarrow.date32(), pyarrow.date64()]
    for kind in kinds:
        made = {"t": pyarrow.array(DAYS.astype("datetime64[s]")).cast(kind), "label": [0, 1] * 30}
        parquet.write_table(pyarrow.table(made), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"column 't': expected numbers or texts.*--dates t"):
            prepare(tmp_path / "a.parquet", tmp_path / "a.h5", "--force")
        prepare(tmp_path / "a.parquet", tmp_path / "a.h5", "--dates", "t", *ALL, "--force")
        assert np.array_equal(rows_of(tmp_path / "a.h5")["train"][:, 0], SECONDS), kind


# -- warnings ----------------------------------------------------------------------------------------


@both_readers
def test_columns_that_count_the_rows_are_warned_of(tmp_path, kind, capsys):
    """By name, with the way to leave them out; and constant ones."""
    n = 150
    columns = [list(range(1, n + 1)), [7] * n, [0.5 * (i % 9) for i in range(n)], ["abc"[i // 50] for i in range(n)]]  # fmt: skip
    if kind == "csv":
        path = write_csv(tmp_path / "a.csv", list(zip(*columns, strict=True)), "Id", "unit", "a", "Species")  # fmt: skip
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        path = tmp_path / "a.parquet"
        made = pyarrow.table(dict(zip(("Id", "unit", "a", "Species"), columns, strict=True)))
        parquet.write_table(made, path, row_group_size=40)
    facts = same_on_ranks(tmp_path / "a.h5", path, "--label", "Species", "--block", "300")
    assert facts["counting"] == ["Id"]
    printed = capsys.readouterr().out
    assert "warning: 'Id' count the rows" in printed and "--drop-columns Id" in printed
    assert "'unit': one value in all training rows" in printed


# -- bytes -------------------------------------------------------------------------------------------

RAW = "name,size,label\n" + "".join(f'"Käfer, {i % 4}",{i / 4},{i % 2}\n' for i in range(200))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_texts_of_wide_letters_are_read(tmp_path, encoding):
    """By their mark, or by --encoding; on any number of ranks and without memory, and said."""
    (tmp_path / "a.csv").write_text(RAW, encoding="utf-8")
    (tmp_path / "b.csv").write_bytes(RAW.encode(encoding))
    words = ("--block", "500", "--memory", "0", *ALL)
    wanted = prepare(tmp_path / "a.csv", tmp_path / "a.h5", *words)
    if encoding in ("utf-16-le", "utf-16-be"):
        with pytest.raises(DataError, match=f"bytes of 0.*--encoding {encoding}"):
            prepare(tmp_path / "b.csv", tmp_path / "b.h5", *words)
        words = (*words, "--encoding", encoding)
    facts = same_on_ranks(tmp_path / "b.h5", tmp_path / "b.csv", *words)
    assert facts["columns"] == wanted["columns"] and facts["units"] == wanted["units"]
    assert encoding == "utf-8-sig" or any(encoding[:6] in note for note in facts["notes"])


def test_texts_of_wide_letters_that_are_damaged(tmp_path):
    """Name the file."""
    (tmp_path / "b.csv").write_bytes(RAW.encode("utf-16") + b"\x00\xd8\x41")
    with pytest.raises(DataError, match=r"b\.csv: expected text in utf-16"):
        prepare(tmp_path / "b.csv", tmp_path / "b.h5")


def test_carriage_returns_alone_end_lines(tmp_path):
    """As old programs of Macs write them."""
    (tmp_path / "a.csv").write_bytes(RAW.encode())
    (tmp_path / "b.csv").write_bytes(RAW.replace("\n", "\r").encode())
    words = ("--block", "500", *ALL)
    wanted = prepare(tmp_path / "a.csv", tmp_path / "a.h5", *words)
    facts = same_on_ranks(tmp_path / "b.h5", tmp_path / "b.csv", *words)
    assert facts["columns"] == wanted["columns"] and facts["units"] == wanted["units"]


def test_backslashes_before_quotes(tmp_path):
    """--escape is suggested, and reads what Spark wrote: quotes, commas and backslashes within texts."""
    texts = ['a "big" box, blue', "plain", 'b "x" y', "c\\d", 'e"', "\\"]
    cells = ['"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts]
    rows = [[i, cells[i % 6], i % 2] for i in range(120)]
    path = write_csv(tmp_path / "spark.csv", rows, "size", "name", "label")
    with pytest.raises(DataError, match=r"column 'name'.*--escape"):
        prepare(path, tmp_path / "a.h5", "--drop-columns", "name")
    words = ("--escape", "\\", "--categories", "codes", *ALL)
    facts = same_on_ranks(tmp_path / "a.h5", path, *words, "--block", "64")
    assert facts["rows_read"] == 120
    with h5py.File(tmp_path / "a.h5") as file:
        assert sorted(file["about/categories/1"].asstr()[:]) == sorted(texts)
    facts = prepare(path, tmp_path / "b.h5", *words, "--drop-columns", "name")
    assert np.array_equal(rows_of(tmp_path / "b.h5")["train"][:, 0], np.arange(120))


@given(st.text(st.sampled_from('a"\\\n#\r'), max_size=40), st.integers(1, 9))
def test_pieces_of_a_file_are_those_of_the_whole(text, piece):
    """Wherever they are cut, in remarks and behind backslashes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_bytes(text.encode())
        notation = csv_raw.Notation(comment=ord("#"), escape=True, quote=ord('"'))
        with closing(csv_raw.RawFile(path, notation)) as file:
            whole = file.read(0, -1)
            starts = range(0, len(whole) + piece, piece)
            in_order = b"".join(file.read(start, piece) for start in starts)
            backwards = [file.read(start, piece) for start in reversed(starts)]
        assert in_order == whole == b"".join(reversed(backwards))
        assert len(whole) == len(text)
