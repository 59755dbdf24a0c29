"""CSV files: cells and numbers against the standard library, cuts into blocks, and what dirty files are told."""

import io
import random
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.errors import ConfigurationError, DataError, LeptonError
from lepton_mpi.prepare.readers import csv_cuts, csv_kernels, long_number_kernels
from tests import reference
from tests.serial.data_files import load
from tests.serial.raw_files import prepare, write_csv

_POWERS = 10.0 ** np.arange(23)

plain = st.text(st.sampled_from("ab1 .é"), max_size=5).map(str.strip)
quoted = st.text(st.sampled_from('ab,"\n\r;1 '), max_size=6)
records = st.lists(
    st.lists(st.one_of(plain, quoted), min_size=2, max_size=4), min_size=1, max_size=12
)


def _written(rows: list[list[str]], end: str = "\n") -> bytes:
    def cell(text: str) -> str:
        needs = text != text.strip() or any(c in text for c in ',"\n\r')
        return '"' + text.replace('"', '""') + '"' if needs else text

    return "".join(",".join(map(cell, row)) + end for row in rows).encode()


def _split(raw: bytes, delimiter: str = ",", quote: int = ord('"')):
    """Records of cells by the kernel, and what it found."""
    text = np.frombuffer(raw, np.uint8).copy()
    space = raw.count(b"\n") + raw.count(delimiter.encode()) + 2
    starts, stops, cells, begins = (np.empty(space, np.int64) for _ in range(4))
    doubled, found = np.empty(space, np.bool_), np.zeros(4, np.int64)
    csv_kernels.split_cells(
        text, ord(delimiter), quote, starts, stops, doubled, cells, begins, found
    )

    def cell(i: int) -> str:
        text = raw[starts[i] : stops[i]].decode()
        return text.replace('""', '"') if doubled[i] else text

    rows = [[cell(i) for i in range(cells[r], cells[r + 1])] for r in range(found[1])]
    return rows, found


@given(records, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_cells_are_those_of_the_standard_library(rows, end, ends):
    """Quotes, doubled quotes, newlines in quotes, empty cells, both line ends, with or without the last one."""
    raw = _written(rows, end)
    raw = raw if ends else raw.removesuffix(end.encode())
    found = _split(raw)
    assert found[1][2] == csv_kernels.FINE
    assert found[0] == reference.split_cells(raw)


def test_spaces_around_cells_and_empty_lines_count_for_nothing():
    """So do several spaces, where a space divides."""
    assert _split(b'\n a , "b, c" ,\t3 \r\n\r\n1,2,3')[0] == [["a", "b, c", "3"], ["1", "2", "3"]]
    assert _split(b"  1   2 3  \n 4 5  6\n", " ")[0] == [["1", "2", "3"], ["4", "5", "6"]]
    assert _split(b"1,2,\n3,4,\n")[0] == [["1", "2", ""], ["3", "4", ""]]


@pytest.mark.parametrize(
    ("raw", "wrong", "where"),
    [
        (b'1,"2\n3,4\n', csv_kernels.UNCLOSED, 2),
        (b'1,"2"3\n', csv_kernels.AFTER_QUOTE, 5),
        (b'1,5"\n', csv_kernels.INSIDE_CELL, 3),
    ],
)
def test_wrong_quotes_are_found(raw, wrong, where):
    """With the byte where they are."""
    assert _split(raw)[1][2:].tolist() == [wrong, where]
    assert _split(raw, quote=0)[1][2] == csv_kernels.FINE


def _numbers() -> list[str]:
    rng = random.Random(0)
    texts = [
        "0",
        "-0",
        "+1",
        "1.",
        ".5",
        "-.5e3",
        "1e22",
        "1e23",
        "1e-22",
        "1e-23",
        "9007199254740993",
        "1e400",
    ]
    texts += ["", "-", ".", "e5", "1e", "1e+", "1_000", "0x1", "nan", "inf", "1 2", "1.2.3", "--1"]
    texts += [repr(rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300)) for _ in range(2000)]
    texts += [f"{rng.randint(0, 10 ** rng.randint(1, 22))}" for _ in range(500)]
    return texts + [f"{rng.uniform(-1000, 1000):.{rng.randint(0, 12)}f}" for _ in range(2000)]


def test_numbers_are_those_of_python():
    """To the last bit, or left to Python; what is no number is a text."""
    texts = _numbers()
    raw = "\n".join(texts).encode()
    ends = np.cumsum([len(text) + 1 for text in texts])
    starts = np.concatenate([[0], ends[:-1]])
    numbers, kinds = np.empty(len(texts)), np.empty(len(texts), np.uint8)
    csv_kernels.parse_numbers(
        np.frombuffer(raw, np.uint8).copy(), starts, ends - 1, ord("."), _POWERS, numbers, kinds
    )
    for text, number, kind in zip(texts, numbers, kinds, strict=True):
        expected = reference.parse_number(text)
        if expected is None:
            assert kind == (csv_kernels.TEXT if text else csv_kernels.EMPTY), text
        else:
            assert kind in (csv_kernels.NUMBER, csv_kernels.LONG_NUMBER), text
            assert kind == csv_kernels.LONG_NUMBER or (number, np.signbit(number)) == (
                expected,
                np.signbit(expected),
            ), text
    assert (kinds[-2000:] == csv_kernels.NUMBER).mean() > 0.9  # the fast way is the usual one


def _rounded(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of texts by the kernel for long ones, and which it has rounded."""
    raw = "\n".join(texts).encode()
    ends = np.cumsum([len(text) + 1 for text in texts])
    starts = np.concatenate([[0], ends[:-1]])
    numbers, done = np.zeros(len(texts)), np.zeros(len(texts), np.bool_)
    long_number_kernels.round_long_numbers(
        np.frombuffer(raw, np.uint8).copy(), np.arange(len(texts)), starts, ends - 1, ord("."),
        long_number_kernels.powers_of_five(), numbers.view(np.uint64), done,
    )  # fmt: skip
    return numbers, done


def _long_numbers() -> list[str]:
    """Of any size, as programs print them, with a thousand that lie halfway between two floats, or next to that."""
    rng = random.Random(0)
    texts = [repr(rng.uniform(-1, 1) * 10.0 ** rng.randint(-320, 308)) for _ in range(3000)]
    texts += [f"{rng.gauss(0, 1):.18e}" for _ in range(3000)]
    texts += [f"{rng.getrandbits(64)}e{rng.randint(-345, 310)}" for _ in range(3000)]
    texts += [f"{rng.randint(0, 10 ** rng.randint(17, 40))}" for _ in range(1000)]
    for _ in range(1000):
        halfway, power = 2 * (rng.getrandbits(52) | 1 << 52) + 1, rng.randint(-15, 15)
        with localcontext(prec=80):
            digits = Decimal(halfway) * Decimal(2) ** power
        texts += [f"{digits:f}", f"{digits:f}" + ("" if power < 0 else ".") + "0000001"]
    edges = [
        "2.2250738585072011e-308",
        "2.2250738585072014e-308",
        "4.9e-324",
        "2.4703282292062327e-324",
        "1e400",
    ]
    edges += [
        "2.4703282292062328e-324",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "-0.0",
        "1e-400",
    ]
    return [*texts, *edges, "0000000000000000000000000.5", "9007199254740993", "1e23"]


def test_long_numbers_are_rounded_as_python_does():
    """To the last bit; what the kernel is not sure of it leaves, which is next to nothing."""
    texts = _long_numbers()
    numbers, done = _rounded(texts)
    expected = np.array([float(text) for text in texts])
    assert np.array_equal(numbers[done], expected[done])
    assert np.array_equal(np.signbit(numbers[done]), np.signbit(expected[done]))
    printed = slice(0, 6000)
    assert done[printed].all() and done.mean() > 0.85


@given(records, st.integers(1, 40))
def test_blocks_are_cut_between_records(rows, piece_bytes):
    """Wherever the pieces end: the blocks together are the file, each holds whole records, and the lines are right."""
    raw = _written(rows)
    pieces = [
        csv_cuts.look_at_piece(raw[at : at + piece_bytes], ord('"'))
        for at in range(0, len(raw), piece_bytes)
    ]
    blocks, inside = csv_cuts.cut(pieces, 0, piece_bytes, 1)
    assert not inside
    texts = [raw[start : stop if stop >= 0 else None] for start, stop, _ in blocks]
    assert b"".join(texts) == raw
    assert [row for text in texts for row in reference.split_cells(text)] == reference.split_cells(
        raw
    )
    for (start, _, line), _ in zip(blocks, texts, strict=True):
        assert line == 1 + raw[:start].count(b"\n")


# -- dirty files -------------------------------------------------------------------------------------

GOOD = "size,colour,label\n1,red,a\n2,blue,b\n3,red,a\n4,blue,b\n5,red,a\n6,blue,b\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("4,blue", "four,blue"), ("line 5", "'size'", "expected a number", "'four'", "--missing-words")),
        (("4,blue", ",blue"), ("line 5", "'size'", "got none (1 missing", "--missing drop")),
        (("4,blue,b", "4,blue"), ("line 5", "expected 3 cells", "got 2", "'label'")),
        (("4,blue,b", "4,blue,b,c"), ("line 5", "expected 3 cells", "got 4")),
        (("4,blue,b", "4,blue,"), ("line 5", "expected a label", "got none")),
        (("4,blue", '4,"blue'), ("line 5", "'colour'", "closing quote")),
        (("4,blue", '4,bl"ue'), ("line 5", "'colour'", "quotes around the whole cell")),
        (("4,blue", "1e999,blue"), ("line 5", "'size'", "finite", "inf")),
        (("4,blue", "4,12"), ("'colour'", "line 2", "expected a number as in 1 other", "'red'")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ranks", [1, 3])
def test_dirty_cells_are_named(tmp_path, change, words, ranks):
    """File, line and column, what came and what to do; on all ranks the same, wherever the blocks end."""
    assert change[0] in GOOD
    (tmp_path / "dirty.csv").write_text(GOOD.replace(*change))
    with pytest.raises(DataError) as refused:
        prepare(tmp_path / "dirty.csv", tmp_path / "out.h5", "--block", "64", ranks=ranks)
    for word in ("dirty.csv", *words):
        assert word in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["dirty.csv"]


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_the_first_of_many_mistakes_is_named_on_any_number_of_ranks(tmp_path, ranks):
    """The file is read side by side, and still the message is that of reading it from the top."""
    rows = [[i, i % 2] for i in range(500)]
    for row in (300, 417, 499):
        rows[row].append("surplus")
    path = write_csv(tmp_path / "many.csv", rows, "x", "y")
    with pytest.raises(DataError, match=r"many\.csv: line 302: expected 2 cells"):
        prepare(path, tmp_path / "out.h5", "--block", "100", ranks=ranks)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty file"),
        (b"a,b\n1,\xff\n", "line 2: expected text in utf-8, got byte 0xff"),
        (b"a,b\n1,2\n\x00\x01\n", "bytes of 0"),
        (b"ab c\nd e f\ng h i j\n", "divided by a comma"),
        (b"abc\n1\n", "which column is the label"),
        (b"x,y\n", "expected rows, got none"),
    ],
)
def test_files_that_are_no_tables(tmp_path, raw, words):
    """Each is told what it is."""
    (tmp_path / "odd.csv").write_bytes(raw)
    with pytest.raises(LeptonError) as refused:
        prepare(tmp_path / "odd.csv", tmp_path / "out.h5")
    assert words in str(refused.value)


def test_a_late_byte_of_another_encoding_names_its_cell(tmp_path):
    """Deep in the file, where no head is looked at; --encoding reads it."""
    rows = b"".join(b"%d,name%d,%d\n" % (i, i % 5, i % 2) for i in range(2000))
    raw = b"n,name,label\n" + rows.replace(b"1500,name0", b"1500,nam\xe9")
    (tmp_path / "latin.csv").write_bytes(raw)
    with pytest.raises(DataError, match=r"byte 0xe9; see --encoding"):
        prepare(tmp_path / "latin.csv", tmp_path / "out.h5")
    facts = prepare(tmp_path / "latin.csv", tmp_path / "out.h5", "--encoding", "latin-1")
    assert facts["columns"][1]["categories"] == 6


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--label", "colr"), "no column 'colr', did you mean colour?"),
        (("--label", "7"), "no column '7'"),
        (("--group", "nobody"), "--group"),
        (("--delimiter", "ab"), "--delimiter"),
        (("--encoding", "klingon"), "--encoding"),
        (("--header", "0"), "--header"),
        (("--missing", "constant"), "--missing"),
        (("--outliers", "quantile=0.7"), "--outliers"),
        (("--split", "0.5,0.6"), "--split"),
        (("--compress", "gzip", "--layout", "contiguous"), "--compress gzip"),
        (("--format", "klingon"), "--format"),
    ],
)
def test_wrong_options_are_named(tmp_path, words, expected):
    """All are the user's to correct, so exit code 2."""
    (tmp_path / "good.csv").write_text(GOOD)
    with pytest.raises(ConfigurationError) as refused:
        prepare(tmp_path / "good.csv", tmp_path / "out.h5", *words)
    assert expected in str(refused.value) and "\n" not in str(refused.value)


def test_a_label_that_nothing_names_is_asked_for(tmp_path):
    """With the columns there are."""
    path = write_csv(tmp_path / "t.csv", [[1, 2, 3], [4, 5, 6]], "a", "b", "c")
    with pytest.raises(ConfigurationError, match=r"which column is the label.*a, b, c"):
        prepare(path, tmp_path / "out.h5")


def test_a_label_of_fractions_is_asked_about(tmp_path):
    """Classes or targets: --task says."""
    path = write_csv(tmp_path / "t.csv", [[i, i + 0.5] for i in range(20)], "a", "y")
    with pytest.raises(DataError, match=r"classes or targets.*--task regression"):
        prepare(path, tmp_path / "out.h5")
    facts = prepare(path, tmp_path / "out.h5", "--task", "regression")
    assert facts["task"] == "regression"
    path = write_csv(tmp_path / "u.csv", [[1, 0.5], [2, "much"]], "a", "y")
    with pytest.raises(DataError, match="line 3, column 'y': expected a number as the target"):
        prepare(path, tmp_path / "out2.h5", "--task", "regression")


def test_labels_that_only_resemble_numbers_are_texts(tmp_path):
    """Python takes an underscore between digits; nobody who writes a label means that."""
    rows = [[i, ["2020_01", "202001", "nine", "1_0"][i % 4]] for i in range(40)]
    facts = prepare(write_csv(tmp_path / "a.csv", rows, "a", "y"), tmp_path / "a.h5")
    assert [one["name"] for one in facts["classes"]] == ["1_0", "202001", "2020_01", "nine"]
    rows = [[i, ["1_0", "10"][i % 2]] for i in range(40)]
    facts = prepare(write_csv(tmp_path / "b.csv", rows, "a", "y"), tmp_path / "b.h5")
    assert [one["name"] for one in facts["classes"]] == ["10", "1_0"]


def test_labels_that_are_numbers_are_classes_by_their_value(tmp_path):
    """However they are written; whole ones to the last digit, beyond what float64 holds."""
    big = 2**53
    rows = [[i, ["7", "7.0", "+7", "-3", f"{big}", f"{big + 1}"][i % 6]] for i in range(60)]
    words = (tmp_path / "a.h5", "--task", "classification")
    facts = prepare(write_csv(tmp_path / "a.csv", rows, "a", "y"), *words)
    names = [one["name"] for one in facts["classes"]]
    assert names == ["-3", "7", f"{big}", f"{big + 1}"]
    assert [sum(one["rows"]) for one in facts["classes"]] == [10, 30, 10, 10]
    np.save(tmp_path / "a.npy", np.array([[i, big + i % 3] for i in range(30)]))
    facts = prepare(tmp_path / "a.npy", tmp_path / "b.h5", *words[1:], "--label", "1")
    assert [one["name"] for one in facts["classes"]] == [str(big + i) for i in range(3)]


def test_dialects(tmp_path):
    """Semicolons with decimal commas, tabs, spaces, a byte order mark, a header below a remark."""
    rows = [[0.5, 1], [1.5, 0], [2.5, 1], [3.5, 0]]
    wanted = prepare(write_csv(tmp_path / "a.csv", rows, "x", "y"), tmp_path / "a.h5")["units"]
    comma = [[str(x).replace(".", ","), y] for x, y in rows]
    german = write_csv(tmp_path / "b.csv", comma, "x", "y", delimiter=";", end="\r\n")
    tabs = write_csv(tmp_path / "c.tsv", rows, "x", "y", delimiter="\t")
    spaces = write_csv(tmp_path / "d.data", rows, "x", "y", delimiter="   ")
    marked = tmp_path / "e.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.csv").read_bytes())
    remark = tmp_path / "f.csv"
    remark.write_bytes(b"made by, an instrument, of ours\n" + (tmp_path / "a.csv").read_bytes())
    for path, words in ((german, ("--decimal", ",")), (tabs, ()), (spaces, ()), (marked, ()), (remark, ("--header", "2"))):  # fmt: skip
        facts = prepare(path, path.with_suffix(".h5"), "--force", *words)
        assert facts["units"] == wanted, path
        assert [column["name"] for column in facts["columns"]] == ["x"]


def test_long_numbers_are_exact(tmp_path):
    """Numbers of 17 digits, as np.savetxt writes them, come back to the last bit."""
    import h5py

    x = np.random.default_rng(0).standard_normal((50, 3))
    text = io.StringIO()
    np.savetxt(text, np.column_stack([x, np.arange(50) % 2]), delimiter=",")
    (tmp_path / "long.csv").write_text(text.getvalue())
    prepare(tmp_path / "long.csv", tmp_path / "long.h5", "--label", "-1", "--split", "1,0,0")
    with h5py.File(tmp_path / "long.h5") as file:
        assert np.array_equal(file["train/x"][()], x)


def test_names_that_cannot_be_printed(tmp_path):
    """Columns and classes are shown as Python writes them, and training reads the file."""
    (tmp_path / "t.csv").write_text('"a\nb",label\n1,"x\ny"\n2,z\n3,"x\ny"\n4,z\n')
    facts = prepare(tmp_path / "t.csv", tmp_path / "a.h5", "--split", "1")
    assert [column["name"] for column in facts["columns"]] == ["a\\nb"]
    assert load(tmp_path / "a.h5").class_names == ("x\\ny", "z")


def test_a_packed_file_of_many_rounds(tmp_path, monkeypatch):
    """Rank 0 cuts it, some pieces at a time."""
    monkeypatch.setattr(csv_cuts, "_PIECES_PER_ROUND", 2)
    rows = [[i, i % 2] for i in range(500)]
    seen = set()
    for name in ("t.csv", "t.csv.gz"):
        path = write_csv(tmp_path / name, rows, "x", "y")
        facts = prepare(path, tmp_path / "a.h5", "--block", "100", "--force", ranks=3)
        assert facts["rows_read"] == 500
        seen.add(str(facts["units"]))
    assert len(seen) == 1
