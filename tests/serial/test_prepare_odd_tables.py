"""Tables as other programs export them: titles, sums, units, months, names and ids; asked about, read, or warned of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.odd_columns import Numbered, different_in
from lepton_mpi.prepare.written_dates import orders_of, seconds_of, written_time
from tests.serial.raw_files import prepare, same_on_ranks, write_csv
from tests.serial.test_prepare import rows_of
from tests.serial.test_prepare_headers import features, same_rows
from tests.serial.test_prepare_notations import ALL, both_readers, table

ROWS = [[f"{i * 0.37:.2f}", i % 7, i % 2] for i in range(60)]


def text_of(rows: list[list] = ROWS, names: str = "a,b,y") -> str:
    return "\n".join([names, *(",".join(map(str, row)) for row in rows)]) + "\n"


def facts_of(folder, text: str, *words: str) -> dict:
    (folder / "t.csv").write_text(text)
    return same_on_ranks(folder / "t.h5", folder / "t.csv", *words, "--block", "300")


def as_without(folder, text: str, *words: str) -> dict:
    """The facts of a file that must have the rows of the plain one."""
    plain = write_csv(folder / "plain.csv", ROWS, "a", "b", "y")
    prepare(plain, folder / "plain.h5", "--force")
    facts = facts_of(folder, text, *words)
    assert same_rows(folder / "plain.h5", folder / "t.h5") and features(facts) == ["a", "b"]
    return facts


# -- lines around the table --------------------------------------------------------------------------


@pytest.mark.parametrize("blank", ["", "   ", " \t ", "\r"])
def test_lines_of_blanks_are_no_rows(tmp_path, blank):
    """Above, between and below the rows, and before the header."""
    as_without(tmp_path, f"{blank}\n" + text_of().replace("\n", f"\n{blank}\n"))
    rows = [[f"{i % 5}", "", i % 2] for i in range(20)]
    path = tmp_path / "tabs.tsv"
    path.write_text("a\tb\ty\n" + "".join("\t".join(map(str, row)) + "\n \n" for row in rows) + "\t\t\n")  # fmt: skip
    with pytest.raises(DataError, match=r"line 2, column 'b': expected a value, got none \(22 "):
        prepare(path, tmp_path / "tabs.h5")  # tabs alone are a row of empty cells


@pytest.mark.parametrize("sign", [";", "\t", ","])
def test_the_delimiter_that_excel_writes_is_obeyed(tmp_path, sign):
    """And is no header; as is said."""
    facts = as_without(tmp_path, f"sep={sign}\n" + text_of().replace(",", sign))
    assert "header in line 2 (names above values)" in facts["notes"]
    assert f"line 1 says that {sign!r} divides the cells" in facts["notes"]


@pytest.mark.parametrize(
    ("title", "lines"),
    [
        ("station,7\nheight,300\n\n", 3),
        ("station,7\n", 1),
        ("Report of 2020,,\nmade by us,,\n,,\n", 3),
        ("Report\n\n", 2),
    ],
)
def test_titles_above_the_table_are_offered(tmp_path, title, lines):
    """Also those of as many cells as the table has, of which most are empty, and of one less."""
    with pytest.raises(DataError, match=rf"--skip {lines} leaves what stands above the table out"):
        facts_of(tmp_path, title + text_of())
    as_without(tmp_path, title + text_of(), "--skip", str(lines))


@pytest.mark.parametrize("footer", ["Total,120,\n", "Total,120,60\n\n", "mean,3,\nsum,120,60\n"])
def test_sums_below_the_table_are_offered(tmp_path, footer):
    """Rows as wide as the table, with a word where numbers are."""
    count = len(footer.split())
    with pytest.raises(DataError, match=rf"line 62, column 'a'.*--footer {count} leaves out"):
        facts_of(tmp_path, text_of() + footer)
    as_without(tmp_path, text_of() + footer, "--footer", str(count))
    rows = [list(row) for row in ROWS]
    rows[20][0] = "odd"
    with pytest.raises(DataError, match=r"line 22, column 'a'(?!.*--footer)"):
        facts_of(tmp_path, text_of(rows))


def test_a_table_that_is_cut_wrongly_has_no_footer(tmp_path):
    """Where no row has as many cells as the header, the last lines are not what is wrong."""
    text = 'size,name,label\n1,"a, b",0\n1,"c, d",1\n3,"e, f",0\n'
    with pytest.raises(DataError, match=r"line 2: expected 3 cells(?!.*--footer)"):
        facts_of(tmp_path, text, "--quote", "none", "--header", "1")


def test_cells_in_single_quotes_are_asked_about(tmp_path):
    """Where they hold a delimiter, or a number; both answers are taken."""
    rows = [[f"'x, {i % 3}'", i % 7, i % 2] for i in range(60)]
    with pytest.raises(DataError, match=r"line 2: a cell in single quotes\?.*--quote \"'\" takes"):
        facts_of(tmp_path, text_of(rows))
    facts = facts_of(tmp_path, text_of(rows), "--quote", "'")
    assert features(facts) == ["a", "b"] and facts["columns"][0]["categories"] == 3
    rows = [[f"'{i % 9}'", i % 7, i % 2] for i in range(60)]
    with pytest.raises(DataError, match=r"line 2: a cell in single quotes\? got \"'0'\""):
        facts_of(tmp_path, text_of(rows))
    facts_of(tmp_path, text_of(rows), "--quote", "'", *ALL)
    assert rows_of(tmp_path / "t.h5")["train"][:, 0].tolist() == [i % 9 for i in range(60)]
    facts = facts_of(tmp_path, text_of(rows), "--quote", "none")
    assert facts["columns"][0]["categories"] == 9
    rows = [["\"it's, 'so'\"", i % 7, i % 2] for i in range(60)]
    assert facts_of(tmp_path, text_of(rows))["columns"][0]["categories"] == 1


# -- texts or tables ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [" ", ",", ";", "\t", "   "])
@pytest.mark.parametrize("width", [1, 3])
def test_a_txt_of_numbers_is_asked_about(tmp_path, cell, width):
    """A table would be read by its letters; both answers are taken, and a text is not asked about."""
    rows = [[f"{i % 7 + j * 0.5:.2f}" for j in range(width)] for i in range(60)]
    path = write_csv(tmp_path / "X_train.txt", rows, delimiter=cell)
    expected = f"{width} cells in each line" if width > 1 else "one number in each line"
    with pytest.raises(ConfigurationError, match=rf"{expected}: a table or a text\? --format csv"):
        prepare(path, tmp_path / "a.h5", ranks=2)
    if width > 1:
        words = ("--format", "csv", "--header", "none", "--label", "0", "--task", "regression")
        assert prepare(path, tmp_path / "a.h5", *words)["rows_read"] == 60
    assert prepare(path, tmp_path / "b.h5", "--format", "text")["format"] == "text"
    lines = ["one fish, two fish", "red fish, blue fish", "this one has a little star"]
    (tmp_path / "poem.txt").write_text("\n".join(lines * 9))
    assert prepare(tmp_path / "poem.txt", tmp_path / "c.h5")["format"] == "text"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.xlsx", b"PK\x03\x04", "a spreadsheet: save it as CSV"),
        ("a.csv.zip", b"PK\x03\x04", "a zip archive: unpack it"),
        ("a.json", b'{"a": 1}', "JSON: write it as CSV"),
        ("a.feather", b"ARROW1", "read_feather"),
        ("a.dat", b"a,b\n1,2\n", r"prepare \S*a.dat a.prepared.h5 --label NAME --format csv"),
        ("a.dat", b"\x89HDF\r\n\x1a\n", r"HDF5: .*prepare \S*a.dat .*--format hdf5"),
    ],
)
def test_suffixes_that_nothing_knows_are_told_by_the_content(tmp_path, name, content, words):
    """With what to do."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"cannot tell the format of .* it is .*{words}"):
        prepare(tmp_path / name, tmp_path / "o.h5")


def test_labels_of_a_second_table_are_told_the_way(tmp_path):
    """A file of one column beside one of several."""
    a = write_csv(tmp_path / "x.csv", [row[:2] for row in ROWS])
    b = write_csv(tmp_path / "y.csv", [row[2:] for row in ROWS])
    with pytest.raises(
        DataError,
        match=r"y.csv: expected the columns of .*; --labels \S*y.csv, if it holds the labels of",
    ):
        prepare(a, b, tmp_path / "o.h5", "--header", "none", "--label", "-1")


# -- units -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [("cm", "mm"), ("k", "M"), ("k", ""), ("%", "")])
@both_readers
def test_numbers_of_several_units_are_never_compared(tmp_path, kind, units):
    """3 cm is no 3 mm: asked about, and refused by --numbers; a bare 0 has any unit."""
    cells = [f"{i % 20 / 2:.1f} {units[i % 2]}".strip() for i in range(1, 61)]
    path = table(tmp_path / "a", ["size", "label"], [cells, [i % 2 for i in range(60)]], kind)
    if all(units):
        with pytest.raises(DataError, match=r"'size' with 20 texts .*: numbers of several units"):
            prepare(path, tmp_path / "a.h5", ranks=2)
    words = (path, tmp_path / "a.h5", "--numbers", "size", "--block", "300")
    with pytest.raises(DataError, match=r"column 'size': expected a number of the same unit as"):
        prepare(*words, ranks=3)
    facts = prepare(path, tmp_path / "a.h5", "--categorical", "size")
    assert facts["columns"][0]["kind"] == "category"


def test_an_id_with_a_letter_is_no_number_of_a_unit(tmp_path):
    """Among plain numbers it is named without --numbers, which would take the letter for a unit."""
    rows = [[f"{i}a" if i == 7 else i, i % 2] for i in range(60)]
    with pytest.raises(DataError, match=r"line 9, column 'id': .*got '7a'(?!.*--numbers)"):
        prepare(write_csv(tmp_path / "a.csv", rows, "id", "y"), tmp_path / "a.h5")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_labels_of_a_wide_text_are_read(tmp_path, encoding):
    """By the mark, as tables are."""
    np.save(tmp_path / "x.npy", np.arange(60.0)[:, None])
    (tmp_path / "y.txt").write_bytes("\r\n".join(["no", "yes", "Öl"] * 20).encode(encoding))
    words = ("--labels", tmp_path / "y.txt", *ALL)
    facts = prepare(tmp_path / "x.npy", tmp_path / "a.h5", *words)
    assert [one["name"] for one in facts["classes"]] == ["no", "yes", "Öl"]


@pytest.mark.parametrize(("cells", "numbers"), [(["$7", "8", "0"], [7, 8, 0]), (["7 %", "0", "9%"], [7, 0, 9]), (["1.5D+02", "2D-1", "0"], [150, 0.2, 0])])  # fmt: skip
@both_readers
def test_amounts_may_lack_their_sign(tmp_path, kind, cells, numbers):
    """Of money, and where they are 0; and numbers of Fortran are some."""
    labels = [i % 2 for i in range(60)]
    path = table(tmp_path / "a", ["n", "label"], [cells * 20, labels], kind)
    same_on_ranks(tmp_path / "a.h5", path, "--numbers", "n", "--block", "100", *ALL)
    assert rows_of(tmp_path / "a.h5")["train"][:3, 0] == pytest.approx(numbers, rel=1e-7)


@both_readers
def test_decimal_commas_and_words_for_splits_in_every_table(tmp_path, kind):
    """--decimal reads the numbers; dev and val are the validation rows."""
    cells = [f"{i // 2},{5 * (i % 2)}1" for i in range(60)]
    parts = [("train", "dev", "val", "test")[i % 4] for i in range(60)]
    columns = [cells, parts, [i % 2 for i in range(60)]]
    path = table(tmp_path / "a", ["n", "part", "label"], columns, kind)
    words = (path, tmp_path / "a.h5", "--decimal", ",", "--split-column", "part")
    if kind == "parquet":  # where texts are texts unless somebody says so
        with pytest.raises(DataError, match=r"'n' with 60 texts .*--numbers n reads numbers"):
            prepare(*words)
        words = (*words, "--numbers", "n")
    assert prepare(*words)["splits"] == {"train": 15, "validation": 30, "test": 15}
    expected = [i // 2 + 0.01 for i in range(0, 60, 4)]
    assert rows_of(tmp_path / "a.h5")["train"][:, 0] == pytest.approx(expected, rel=1e-12)


# -- dates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "day"),
    [
        (("2021-03", "2021/03", "03/2021", "Mar 2021", "March 2021", "mar-2021"), "2021-03-01"),
        (("2021Q2", "2021-Q2", "2021 Q2", "Q2 2021", "Q2-2021"), "2021-04-01"),
        (("Mon, 01 Mar 2021", "Monday 1 March 2021", "mon 2021-03-01"), "2021-03-01"),
        (("Mon, 01 Mar 2021 00:00:00 GMT", "1 Sept 2021 00:00"), None),
    ],
)
def test_months_quarters_and_weekdays_are_dates(texts, day):
    """A month and a quarter are their first day."""
    for text in texts:
        expected = day or ("2021-09-01" if "Sept" in text else "2021-03-01")
        assert written_time(seconds_of(text, "ymd")) == expected, text
    assert orders_of(texts) == ("ymd",)


@pytest.mark.parametrize("text", ["2019-20", "Mark 2000", "Model 2020", "13/2021", "2021Q5", "Q2", "2021", "Sunny 2021-03-01"])  # fmt: skip
def test_what_only_resembles_a_date_is_none(text):
    """Seasons, names, models."""
    assert seconds_of(text, "ymd") is None


@both_readers
def test_seconds_begin_where_they_are_said_to(tmp_path, kind):
    """In 1970, at the earliest date of the first row, or at another; and so in files made like it."""
    days = np.datetime64("2023-01-25") + np.arange(60)
    later = days + 3
    names, labels = ["from", "to", "at", "label"], [i % 2 for i in range(60)]
    columns = [later.astype(str).tolist(), days.astype(str).tolist(), ["0:10"] * 60, labels]
    path = table(tmp_path / "a", names, columns, kind)
    words = (path, tmp_path / "a.h5", "--force", "--dates", "from,to,at", *ALL)
    numbers = np.column_stack([later, days]).astype("datetime64[s]").astype(np.int64)
    for since, begin in ((None, "1970-01-01"), ("first", "2023-01-25"), ("2023-01-01 12:00", "2023-01-01 12:00:00")):  # fmt: skip
        facts = prepare(*words, *(["--dates-since", since] if since else []))
        stored = rows_of(tmp_path / "a.h5")["train"]
        assert np.array_equal(stored[:, :2], numbers - seconds_of(begin, "ymd"))
        assert (stored[:, 2] == 600).all()  # since midnight
        assert f"'from', 'to', 'at' in seconds since {begin}" in facts["notes"]
    other = table(tmp_path / "b", names, [columns[0][5:], columns[1][5:], columns[2][5:], labels[5:]], kind)  # fmt: skip
    prepare(*words, "--dates-since", "first")
    prepare(other, tmp_path / "b.h5", "--like", tmp_path / "a.h5")
    assert np.array_equal(rows_of(tmp_path / "b.h5")["test"], rows_of(tmp_path / "a.h5")["train"][5:])  # fmt: skip
    for wrong in ("0:10", "yesterday"):
        with pytest.raises(ConfigurationError, match="--dates-since: expected first, or a date"):
            prepare(*words, "--dates-since", wrong)
    with pytest.raises(ConfigurationError, match="--dates-since: is for --dates-as seconds"):
        prepare(*words, "--dates-since", "first", "--dates-as", "parts")


@both_readers
def test_days_that_are_written_as_numbers_are_told(tmp_path, kind):
    """20230131 stays a number, which its steps are wrong for, unless --dates reads it."""
    days = np.datetime64("2023-01-25") + np.arange(60)
    cells = [str(day).replace("-", "") for day in days]
    if kind == "csv":
        path = write_csv(
            tmp_path / "a.csv", [[c, i % 2] for i, c in enumerate(cells)], "d", "label"
        )
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        path = tmp_path / "a.parquet"
        made = {"d": list(map(int, cells)), "label": [i % 2 for i in range(60)]}
        parquet.write_table(pyarrow.table(made), path)
    assert "'d' may be dates: --dates d reads them" in prepare(path, tmp_path / "a.h5")["notes"]
    prepare(path, tmp_path / "b.h5", "--dates", "d", *ALL)
    expected = days.astype("datetime64[s]").astype(np.int64)
    assert np.array_equal(rows_of(tmp_path / "b.h5")["train"][:, 0], expected)


# -- names and ids -----------------------------------------------------------------------------------


@both_readers
def test_names_that_are_nearly_all_different_are_warned_of(tmp_path, kind, capsys):
    """In tables that are too small for a question."""
    columns = [[f"person {i % 38}" for i in range(40)], [i % 2 for i in range(40)]]
    path = table(tmp_path / "a", ["name", "label"], columns, kind)
    assert prepare(path, tmp_path / "a.h5")["names"] == ["name"]
    assert "'name' have nearly as many texts as there are rows" in capsys.readouterr().out
    assert prepare(path, tmp_path / "b.h5", "--categorical", "name")["names"] == []
    columns = [[f"kind {i % 9}" for i in range(40)], columns[1]]
    path = table(tmp_path / "c", ["name", "label"], columns, kind)
    assert prepare(path, tmp_path / "c.h5")["names"] == []


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 2**32 - 1), st.integers(1, 3))  # fmt: skip
def test_ids_are_found_in_blocks_of_any_length(lengths, seed, files):
    """Those of a shuffled column are, whatever the blocks; one that repeats once is not; ids may begin anew in each file."""
    random = np.random.default_rng(seed)
    lengths = [n + 10 for n in lengths]
    numbered = Numbered()
    for name in range(files):
        ids = random.permutation(sum(lengths)).astype(float)
        twice, ends = ids.copy(), np.cumsum(lengths)
        twice[0] = twice[-1]
        for start, stop in zip([0, *ends[:-1]], ends, strict=True):
            x = np.column_stack([ids, twice, ids + 0.5, -ids * 1000, np.sqrt(ids)])[start:stop]
            numbered.add(str(name), different_in(x))
    many = sum(lengths) > 25 or (files * (sum(lengths) - 1) / 2 > 12)
    assert numbered.columns() == ((0,) if many else ())
