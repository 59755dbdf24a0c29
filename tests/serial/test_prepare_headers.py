"""What a header is, which columns only number the rows, and lines that are no part of the table."""

import gzip
import importlib.util
import json

import numpy as np
import pytest

from lepton_mpi.data.files.file_format import SPLITS
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.readers.csv_header import guess_header
from tests.serial.raw_files import prepare, same_on_ranks, write_csv
from tests.serial.test_prepare import rows_of

needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None,
    reason="pyarrow, the extra parquet, is not installed",
)


def features(facts: dict) -> list[str]:
    """Names of the features that were read."""
    return [column["name"] for column in facts["columns"]]


def same_rows(a, b) -> bool:
    """Whether two files have the same rows and labels in all splits."""
    return all(
        np.array_equal(rows_of(a, name)[split], rows_of(b, name)[split])
        for name in "xy"
        for split in SPLITS
    )


def flowers(rows: int = 60) -> list[list]:
    """Two numbers and a kind, sorted by kind as public tables often are."""
    random = np.random.default_rng(0)
    return [[f"{random.normal(i // 20, 1):.2f}", f"{random.normal():.2f}", "abc"[i // 20]] for i in range(rows)]  # fmt: skip


# -- pure --------------------------------------------------------------------------------------------

FRACTIONS = [["0.5", "-1.25", "3.5", "1"], ["0.1", "2.5", "-3.5", "0"], ["1.5", "0.25", "0.5", "1"]]
WHOLE = [["5", "3", "8", "1"], ["4", "7", "2", "0"], ["9", "1", "3", "1"]]


@pytest.mark.parametrize(
    ("first", "below", "expected"),
    [
        ("a,b,c,d", FRACTIONS, True),
        ("a,b,,d", FRACTIONS, True),
        (",a,b,c", FRACTIONS, True),
        ("a,a,b,c", FRACTIONS, True),
        ("NA,b,c,d", FRACTIONS, True),
        ("2023-01-01,a,b,c", FRACTIONS, True),
        ("2023-01-01,2023-01-02,2023-01-03,2023-01-04", FRACTIONS, True),
        ("2023-01,2023-02,2023-03,2023-04", WHOLE, True),
        ("2023-01-01,1", [["2023-01-02", "2"], ["2023-01-03", "0"]], False),
        ("0,1,2,3", FRACTIONS, True),
        ("1,2,3,4", FRACTIONS, True),
        ("400,402,404,class", FRACTIONS, True),
        ("1991,1995,1999,2010", [[*row[:3], "0.5"] for row in FRACTIONS], True),
        ("0.5,1.5,2.5,1", FRACTIONS, False),
        ("1,0.5,2.5,1", FRACTIONS, False),
        ("0,1,2,3", WHOLE, None),
        ("400,402,404,406", WHOLE, None),
        ("5,1,8,0", WHOLE, False),
        ("1,5,8,9", WHOLE, False),
        ("5,x,8,0", WHOLE, None),
        ("400,402,404,class", WHOLE, True),
        ("red,small", [["red", "large"], ["blue", "small"]], False),
        ("colour,size", [["red", "large"], ["blue", "small"]], True),
        ("red,size", [["red", "large"], ["blue", "small"]], None),
        ("day,n", [["2023-01-01", "1"], ["2023-01-02", "2"]], True),
        ("price,n", [["$1,000", "1"], ["$900", "2"]], True),
        ("0,1", [["1", "0"], ["0", "1"]], False),
    ],
)  # fmt: skip
def test_headers_are_told_from_the_rows_below(first, below, expected):
    """None is a question."""
    assert guess_header(first.split(","), below, ("NA",)).is_header is expected


# -- CSV ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["", '""', "Unnamed: 0", "rownames", '"row.names"'])
@pytest.mark.parametrize("names", ["numbers", "texts"])
def test_a_column_that_numbers_the_rows_is_left_out_and_said(tmp_path, first, names):
    """As pandas and R write it: it would be a perfect feature of a table that is sorted by class."""
    rows = [[i if names == "numbers" else f"flower {i}", *row] for i, row in enumerate(flowers())]
    path = write_csv(tmp_path / "a.csv", rows, first, "length", "width", "species")
    for label in ("species", "-1"):
        facts = same_on_ranks(tmp_path / "a.h5", path, "--label", label, "--block", "300")
        assert features(facts) == ["length", "width"] and facts["rows_read"] == 60
        assert [one["name"] for one in facts["classes"]] == ["a", "b", "c"]
        assert any("only numbers the rows" in note for note in facts["notes"])
        assert any("header in line 1" in note for note in facts["notes"])
    if names == "numbers":
        words = ("--label", "species", "--index-columns", "keep")
        assert len(features(prepare(path, tmp_path / "b.h5", *words))) == 3


def test_a_header_of_one_name_less_names_no_rows(tmp_path):
    """As R's write.table has it; where the last cell of all rows is empty, the name behind the last is the one that lacks."""
    rows = [[i, *row] for i, row in enumerate(flowers())]
    path = write_csv(tmp_path / "a.csv", rows, "length", "width", "species", delimiter=" ")
    facts = prepare(path, tmp_path / "a.h5", "--label", "species")
    assert features(facts) == ["length", "width"] and len(facts["classes"]) == 3
    path = write_csv(tmp_path / "b.csv", [[*row, ""] for row in flowers()], "length", "width", "species")  # fmt: skip
    facts = prepare(path, tmp_path / "b.h5", "--label", "species")
    assert features(facts) == ["length", "width"] and len(facts["classes"]) == 3
    path = write_csv(tmp_path / "c.csv", [[*row, ""] for row in flowers()], "length", "width", "species", "")  # fmt: skip
    assert features(prepare(path, tmp_path / "c.h5", "--label", "species")) == ["length", "width"]


def test_an_unnamed_column_that_repeats_is_a_feature(tmp_path):
    """It numbers nothing."""
    rows = [[i % 7, *row] for i, row in enumerate(flowers())]
    path = write_csv(tmp_path / "a.csv", rows, "", "length", "width", "species")
    facts = prepare(path, tmp_path / "a.h5", "--label", "species")
    assert features(facts) == ["column 0", "length", "width"]


@pytest.mark.parametrize(
    "names", [("0", "1", "2", "3", "4"), ("400", "402", "404", "406", "class")]
)
def test_names_that_are_numbers_are_no_row(tmp_path, names):
    """A frame made of an array, and wavelengths: two classes, as many rows as there are, and the numbers as they were."""
    x = np.random.default_rng(0).normal(size=(300, 4)).round(3)
    rows = [[*row, int(row[0] > 0)] for row in x.tolist()]
    path = write_csv(tmp_path / "a.csv", rows, *names)
    for label in ("-1", names[-1]):
        facts = prepare(path, tmp_path / "a.h5", "--label", label, "--split", "1", "--force")
        assert facts["rows_read"] == 300 and features(facts) == list(names[:4])
        assert [one["name"] for one in facts["classes"]] == ["0", "1"]
        assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], x)


def test_what_cannot_be_told_is_asked(tmp_path):
    """Both answers are taken."""
    rows = [[i * 7 % 10, i * 3 % 10, i * 9 % 10, i % 2] for i in range(40)]
    path = write_csv(tmp_path / "a.csv", rows, "0", "1", "2", "3")
    with pytest.raises(DataError, match=r"line 1: a header or a row\? 0, 1, 2, 3 may be.*--header 1 or --header none"):  # fmt: skip
        prepare(path, tmp_path / "a.h5", "--label", "-1", ranks=2)
    assert prepare(path, tmp_path / "a.h5", "--label", "3", "--header", "1")["rows_read"] == 40
    words = ("--label", "-1", "--header", "none")
    assert prepare(path, tmp_path / "b.h5", *words)["rows_read"] == 41


def test_a_name_that_the_first_line_holds_is_found_there(tmp_path):
    """Where the user says that there is no header."""
    path = write_csv(tmp_path / "a.csv", flowers(), "length", "width", "species")
    with pytest.raises(ConfigurationError, match=r"no column 'species'.*--header 1 takes it"):
        prepare(path, tmp_path / "a.h5", "--label", "species", "--header", "none")


def test_twins_among_the_names_are_numbered_and_said(tmp_path):
    """The names do not make the header a row."""
    path = write_csv(tmp_path / "a.csv", flowers(), "size", "size", "species")
    facts = prepare(path, tmp_path / "a.h5", "--label", "species")
    assert features(facts) == ["size", "size 1"] and facts["rows_read"] == 60
    assert any("several columns are called size" in note for note in facts["notes"])


def test_lines_above_the_table_are_offered(tmp_path):
    """--skip, or --comment where they begin by a sign; then the table is that of the file without them."""
    table = write_csv(tmp_path / "a.csv", flowers(), "length", "width", "species").read_text()
    prepare(tmp_path / "a.csv", tmp_path / "a.h5", "--label", "species")
    (tmp_path / "b.csv").write_text("Station 7\nmade in 2020, by us\n" + table)
    with pytest.raises(DataError, match=r"lines 1 to 2 hold 1 cells, most below hold 3: --skip 2"):
        prepare(tmp_path / "b.csv", tmp_path / "b.h5", "--label", "species")
    facts = prepare(tmp_path / "b.csv", tmp_path / "b.h5", "--label", "species", "--skip", "2")
    assert (
        same_rows(tmp_path / "a.h5", tmp_path / "b.h5") and "header in line 3" in facts["notes"][0]
    )
    lines = table.splitlines()
    lines[30:30] = ['# a remark with one "quote', "# and, commas, of, its, own"]
    (tmp_path / "c.csv").write_text("\n".join(["# Station 7", *lines]) + "\n")
    with pytest.raises(DataError, match=r"line 1: .*--comment '#'"):
        prepare(tmp_path / "c.csv", tmp_path / "c.h5", "--label", "species")
    words = ("--label", "species", "--comment", "#", "--block", "64")
    for packed in (False, True):
        path = tmp_path / ("d.csv.gz" if packed else "c.csv")
        if packed:
            path.write_bytes(gzip.compress((tmp_path / "c.csv").read_bytes()))
        facts = same_on_ranks(tmp_path / "d.h5", path, *words)
        assert same_rows(tmp_path / "a.h5", tmp_path / "d.h5")
        assert "header in line 2" in facts["notes"][0]


def test_a_remark_later_in_the_file_is_named(tmp_path):
    """With the option that leaves it out."""
    lines = write_csv(tmp_path / "a.csv", flowers(), "length", "width", "species").read_text()
    (tmp_path / "a.csv").write_text(lines + "# end\n")
    with pytest.raises(DataError, match=r"line 62: expected 3 cells.*--comment '#'"):
        prepare(tmp_path / "a.csv", tmp_path / "a.h5", "--label", "species")


def test_numpys_header_is_one(tmp_path):
    """np.savetxt writes names behind the sign of a remark."""
    rows = np.column_stack([np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2])
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header="a,b,label")
    facts = prepare(tmp_path / "a.csv", tmp_path / "a.h5", "--label", "label")
    assert features(facts) == ["a", "b"] and facts["rows_read"] == 40


def test_units_below_the_header_are_offered(tmp_path):
    """--units-line leaves them out."""
    table = write_csv(tmp_path / "a.csv", flowers(), "length", "width", "species").read_text()
    prepare(tmp_path / "a.csv", tmp_path / "a.h5", "--label", "species")
    names, rest = table.split("\n", 1)
    (tmp_path / "b.csv").write_text(f"{names}\ncm,mm,\n{rest}")
    with pytest.raises(DataError, match=r"line 2: .*'cm', 'mm': units\? --units-line"):
        prepare(tmp_path / "b.csv", tmp_path / "b.h5", "--label", "species")
    facts = prepare(tmp_path / "b.csv", tmp_path / "b.h5", "--label", "species", "--units-line")
    assert same_rows(tmp_path / "a.h5", tmp_path / "b.h5") and facts["rows_read"] == 60


@pytest.mark.parametrize("packed", [False, True])
def test_lines_below_the_table_are_offered(tmp_path, packed):
    """--footer leaves them out, whatever number of ranks reads the file."""
    table = write_csv(tmp_path / "a.csv", flowers(), "length", "width", "species").read_text()
    prepare(tmp_path / "a.csv", tmp_path / "a.h5", "--label", "species")
    raw = (table + "Total,60\n(c) somebody\n\n").encode()
    path = tmp_path / ("b.csv.gz" if packed else "b.csv")
    path.write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.raises(DataError, match=r"line 62: expected 3 cells.*--footer 2 leaves out"):
        prepare(path, tmp_path / "b.h5", "--label", "species")
    words = ("--label", "species", "--footer", "2", "--block", "200")
    facts = same_on_ranks(tmp_path / "b.h5", path, *words)
    assert same_rows(tmp_path / "a.h5", tmp_path / "b.h5") and facts["rows_read"] == 60
    with pytest.raises(DataError, match="--footer of 100 lines"):
        prepare(path, tmp_path / "c.h5", "--label", "species", "--footer", "100")


def test_a_table_of_one_column(tmp_path):
    """Has a label, and nothing to learn from; the message is about that."""
    (tmp_path / "a.csv").write_text("label\n1\n2\n1\n2\n")
    with pytest.raises(ConfigurationError, match="expected columns to learn from, got none besides label"):  # fmt: skip
        prepare(tmp_path / "a.csv", tmp_path / "a.h5", "--label", "label")


# -- Parquet -----------------------------------------------------------------------------------------


@needs_pyarrow
@pytest.mark.parametrize("index", ["__index_level_0__", "row"])
@pytest.mark.parametrize("says_so", [False, True])
def test_the_index_of_pandas_is_no_feature(tmp_path, index, says_so):
    """By the metadata of pandas, or by its name where another program has written the table again."""
    import pyarrow
    from pyarrow import parquet

    random = np.random.default_rng(0)
    order = random.permutation(2000)
    table = pyarrow.table({
        **{name: random.normal(size=2000) for name in "abcd"},
        "label": (order >= 1000).astype(int),
        index: order,
    })  # fmt: skip
    if says_so:
        table = table.replace_schema_metadata({"pandas": json.dumps({"index_columns": [index]})})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    facts = same_on_ranks(tmp_path / "a.h5", tmp_path / "a.parquet")
    if says_so or index != "row":
        assert features(facts) == [*"abcd"]
        assert any("only numbers the rows" in note for note in facts["notes"])
        facts = prepare(tmp_path / "a.parquet", tmp_path / "b.h5", "--index-columns", "keep")
    assert features(facts) == [*"abcd", index]


@needs_pyarrow
def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    """As Spark writes it: files without rows of their own, and a column in the names of the folders."""
    import pyarrow
    from pyarrow import parquet

    random = np.random.default_rng(0)
    folder, rows = tmp_path / "spark.parquet", {}
    for key in (0, 1):
        (folder / f"label={key}").mkdir(parents=True)
        rows[key] = random.normal(size=(50, 2)) + key
        table = pyarrow.table({"a": rows[key][:, 0], "b": rows[key][:, 1]})
        parquet.write_table(table, folder / f"label={key}" / "part-00000.snappy.parquet")
    (folder / "_SUCCESS").write_text("")
    (folder / "label=0" / ".part-00000.snappy.parquet.crc").write_bytes(b"crc")
    facts = same_on_ranks(tmp_path / "a.h5", folder, "--label", "label", "--split", "1")
    assert features(facts) == ["a", "b"]
    assert [(one["name"], sum(one["rows"])) for one in facts["classes"]] == [("0", 50), ("1", 50)]
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], np.vstack([rows[0], rows[1]]))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"expected \.parquet files in the folder"):
        prepare(tmp_path / "none", tmp_path / "b.h5", "--format", "parquet")


@needs_pyarrow
@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
def test_lists_of_one_length_are_features(tmp_path, kind):
    """Embeddings; lists of another length are named."""
    import pyarrow
    from pyarrow import parquet

    e = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    kinds = {
        "list": pyarrow.list_(pyarrow.float32()),
        "large_list": pyarrow.large_list(pyarrow.float32()),
        "fixed": pyarrow.list_(pyarrow.float32(), 8),
    }

    def table(lists):
        return pyarrow.table({
            "id": [f"id{i}" for i in range(100)],
            "emb": pyarrow.array(lists, kinds[kind]),
            "label": (e[:, 0] > 0).astype(int),
        })  # fmt: skip

    parquet.write_table(table([*e]), tmp_path / "a.parquet", row_group_size=30)
    words = ("--label", "label", "--drop-columns", "id", "--split", "1")
    facts = same_on_ranks(tmp_path / "a.h5", tmp_path / "a.parquet", *words)
    assert features(facts) == [f"emb {i}" for i in range(8)]
    assert np.array_equal(rows_of(tmp_path / "a.h5")["train"], e)
    with pytest.raises(ConfigurationError, match="expected columns to learn from"):
        prepare(tmp_path / "a.parquet", tmp_path / "c.h5", "--label", "label", "--drop-columns", "id,emb")  # fmt: skip
    if kind != "fixed":
        parquet.write_table(table([*e[:99], e[99, :5]]), tmp_path / "b.parquet")
        with pytest.raises(DataError, match=r"'emb': row 99: expected a list of 8 numbers.*got 5"):
            prepare(tmp_path / "b.parquet", tmp_path / "b.h5", *words)
