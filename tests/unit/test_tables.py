import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import shards.files.text_tables
from shards.files.source import Source
from shards.files.tables import read_matrix, read_table
from shards.files.text_tables import TextForm

RNG = np.random.default_rng(5)


def table(folder: Path, content: str | bytes, name: str = "t.csv", **options: Any) -> dict:
    """All pieces of a table of this content, put together."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return joined(read_table(Source(str(folder)), name, **options))


def joined(pieces: Iterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    pieces = list(pieces)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def matrix(folder: Path, content: str | bytes, columns: int, **options: Any) -> np.ndarray:
    (folder / "m.dat").write_bytes(content.encode() if isinstance(content, str) else content)
    return read_matrix(Source(str(folder)), "m.dat", columns, **options)


PLAIN = "time,x,note\n0,1.5,a\n0.02,-2e3,b\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.rstrip("\n"),
        PLAIN + "\n\n",
        "\n" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r\n").rstrip(),
        "\ufeff" + PLAIN,
        "\ufeff" + PLAIN.replace("\n", "\r\n") + "\r\n",
        PLAIN.replace("\n0", "\n\n0"),
        PLAIN.encode("utf-16"),
        PLAIN.replace("\n", "\r\n").encode("utf-16"),
        "sep=,\n" + PLAIN,
        "\ufeffsep=;\r\n" + PLAIN.replace(",", ";"),
        '"sep=\t"\n' + PLAIN.replace(",", "\t"),
        ("SEP=|\n" + PLAIN.replace(",", "|")).encode("utf-16"),
        PLAIN.replace("time,x,note", '"time", x ,"note"').replace("1.5", " 1.5 "),
    ],
)
def test_one_table_written_in_many_ways(tmp_path: Path, content: str | bytes) -> None:
    rows = table(tmp_path, content, columns=("x", "time"), text_columns=("note",))
    assert list(rows) == ["x", "time", "note"]
    assert rows["time"].dtype == rows["x"].dtype == np.float64
    np.testing.assert_array_equal(rows["time"], [0.0, 0.02])
    np.testing.assert_array_equal(rows["x"], [1.5, -2000.0])
    assert rows["note"].dtype == object
    assert rows["note"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (PLAIN.replace(",", ";").replace(".", ","), TextForm(";", ",")),
        (PLAIN.replace(",", "\t").replace(".", ","), TextForm("\t", ",")),
        (PLAIN.replace(",", "|"), TextForm("|")),
        (PLAIN.replace(",", "   ").replace("\n", " \n  "), TextForm(" ")),
        (PLAIN.replace(",", "\t ").replace(".", ","), TextForm(" ", ",")),
        ('"time","x","note"\n"0","1,5","a"\n"0,02","-2e3","b"\n', TextForm(",", ",")),
        ('Made by "X\nat 1,2,3,4\n\n' + PLAIN, TextForm(skip_lines=3)),
        ("Made by X\nsep=;\n" + PLAIN.replace(",", ";"), TextForm(skip_lines=1)),
        ("Made by X\n\n" + PLAIN, TextForm(skip_lines=1)),
        (PLAIN.replace("note\n", "note\ns,g,'none\nt,x,\"\n"), TextForm(skip_below=2)),
        (("größe\n" + PLAIN).encode("latin-1"), TextForm(skip_lines=1, encoding="latin-1")),
    ],
)
def test_a_table_in_a_form_that_is_said(
    tmp_path: Path, content: str | bytes, form: TextForm
) -> None:
    rows = table(tmp_path, content, columns=("x", "time"), text_columns=("note",), form=form)
    np.testing.assert_array_equal(rows["time"], [0.0, 0.02])
    np.testing.assert_array_equal(rows["x"], [1.5, -2000.0])
    assert rows["note"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        (PLAIN, TextForm(decimal=","), "line 2, column x holds '1.5', which is no number"),
        (PLAIN, TextForm(skip_lines=3), "no row below line 3"),
        (PLAIN, TextForm(skip_lines=9999), "no row below line 9999"),
        (PLAIN, TextForm(skip_below=2), "no row below line 3"),
        ("a\nb\n" + PLAIN + "1,x,c\n", TextForm(skip_lines=2), "line 6, column x holds 'x'"),
    ],
)
def test_what_does_not_fit_its_form_is_told(
    tmp_path: Path, content: str, form: TextForm, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        table(tmp_path, content, columns=("time", "x"), form=form)


def test_all_columns_unless_some_are_asked_for(tmp_path: Path) -> None:
    rows = table(tmp_path, PLAIN, text_columns=("note",))
    assert list(rows) == ["time", "x", "note"]
    assert list(table(tmp_path, PLAIN, columns=("x",))) == ["x"]
    assert list(table(tmp_path, PLAIN, columns=(), text_columns=("note",))) == ["note"]


def test_empty_cells_and_nan_are_nan_and_empty_texts_are_empty(tmp_path: Path) -> None:
    content = 'a,b\n1,\n,NaN\nnan,nan\nNA,""\nnull,"x, ""y"",\nz"\n'
    rows = table(tmp_path, content, columns=("a",), text_columns=("b",))
    np.testing.assert_array_equal(rows["a"], [1, np.nan, np.nan, np.nan, np.nan])
    assert rows["b"].tolist() == ["", "NaN", "nan", "", 'x, "y",\nz']
    rows = table(tmp_path, "a;b\n-;2\n3;?\n", form=TextForm(";"), null_values=("-", "?"))
    np.testing.assert_array_equal(rows["a"], [np.nan, 3])
    np.testing.assert_array_equal(rows["b"], [2, np.nan])


def test_files_without_a_header(tmp_path: Path) -> None:
    content = "1,A,2.5\n2,,3.5\n"
    options: dict[str, Any] = {"columns": ("n", "letter", "v"), "text_columns": ("letter",)}
    rows = table(tmp_path, "\ufeff" + content, header=("n", "letter", "v"), **options)
    np.testing.assert_array_equal(rows["n"], [1, 2])
    np.testing.assert_array_equal(rows["v"], [2.5, 3.5])
    assert rows["letter"].tolist() == ["A", ""]
    rows = table(tmp_path, content, header=False, columns=("0", "2"), text_columns=("1",))
    np.testing.assert_array_equal(np.stack([rows["0"], rows["2"]]), [[1, 2], [2.5, 3.5]])
    assert rows["1"].tolist() == ["A", ""]
    with pytest.raises(ValueError, match=r"has no column '3'.* Its columns are: 0, 1, 2"):
        table(tmp_path, content, header=False, columns=("3",))
    rows = table(tmp_path, content, header=("n", "letter", "v"), columns=("v",))
    assert list(rows) == ["v"]


def test_names_of_any_script(tmp_path: Path) -> None:
    folder = tmp_path / "Übung 手"
    folder.mkdir()
    rows = table(folder, "zeit,größe\n1,2\n", name="linke hand ✋.csv", columns=("größe",))
    np.testing.assert_array_equal(rows["größe"], [2.0])
    with pytest.raises(ValueError, match=r"手/linke hand ✋\.csv has no column 'grösse'.*'größe'"):
        table(folder, "zeit,größe\n1,2\n", name="linke hand ✋.csv", columns=("grösse",))


def test_long_tables_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards.files.text_tables, "_BLOCK_BYTES", 1000)
    values = RNG.normal(size=(500, 3))
    lines = [",".join(map(repr, row)) for row in values.tolist()]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,z", *lines]))
    pieces = list(read_table(Source(str(tmp_path)), "t.csv"))
    assert len(pieces) > 10
    rows = joined(iter(pieces))
    np.testing.assert_array_equal(np.stack([rows[c] for c in "xyz"], axis=1), values)
    lines[400] = lines[400].replace(",", ",oops,", 1)
    (tmp_path / "t.csv").write_text("\n".join(["x,y,z", *lines]))
    pieces = read_table(Source(str(tmp_path)), "t.csv")
    assert len(next(pieces)["x"]) > 10  # what is whole comes first
    with pytest.raises(ValueError, match=r"t\.csv: line 402 has 4 cells, not 3; correct the file"):
        list(pieces)


def test_texts_with_newlines_may_stand_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards.files.text_tables, "_BLOCK_BYTES", 200)
    texts = [f"line {number}\nand, {'more ' * (number % 9)}" for number in range(200)]
    content = "t,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(texts))
    rows = table(tmp_path, content, text_columns=("text",))
    assert rows["text"].tolist() == texts
    np.testing.assert_array_equal(rows["t"], np.arange(200))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"t\.csv: no row, it is empty; correct the file, or"),
        ("\n \r\n\n", r"t\.csv: no row, it is empty; correct the file, or"),
        ("\ufeff", r"t\.csv: no row, it is empty"),
        ("time,x,note\n", r"t\.csv: no row below line 1; correct"),
        ("\ntime,x,note\n\n\n", r"t\.csv: no row below line 2"),
        (PLAIN + "0.04,oops,c\n", r"line 4, column x holds 'oops', which is no number; correct"),
        (PLAIN + "\n0.04,1_000,c\n", r"line 5, column x holds '1_000'"),
        (PLAIN.replace("b", '"b\nb"') + "x,1,c\n", r"line 5, column time holds 'x'"),
        (PLAIN + "0.04,1,5,c\n", r"line 4 has 4 cells, not 3; correct the file, or download"),
        (PLAIN + "0.04", r"line 4 has 1 cells, not 3"),
        ("time,X,note\n0,1,a\n", r"has no column 'x'; the nearest is '.*'. Its columns are: time"),
        ("0,1,a\n0.1,1,b\n", r"has no column 'time'.*Its columns are: 0, 1, a"),
        ("time,x,x,note\n0,1,2,a\n", r"has 2 columns called 'x'; rename them"),
        (PLAIN + '0.04,"1,c\n' + "1,2,c\n" * 30_000, r"t\.csv: line 4: field larger than"),
        (b"PK\x03\x04\x00\x00\xff\xfe binary", r"t\.csv is no table of UTF-8 text; correct"),
        (PLAIN.encode("utf-16-le"), r"t\.csv is no table of UTF-8 text"),
        (PLAIN.encode("utf-16")[:-1], r"t\.csv is no table of utf-16 text"),
        (PLAIN + "x" * 2**21, r"line 4 has more than 1,048,576 characters, so it is no table"),
        ("x" * 2**21, r"line 1 has more than 1,048,576 characters"),
        (
            PLAIN.encode() + b"1,2,\xe9\n",
            r"line 4, column note holds '.*', which is no UTF-8 text; c",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_told(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        table(tmp_path, content, columns=("time", "x"), text_columns=("note",))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(FileNotFoundError, match=name):
            next(read_table(Source(str(tmp_path)), name))
    with pytest.raises(FileNotFoundError, match=r"none\.dat"):
        read_matrix(Source(str(tmp_path)), "none.dat", 3)


def write_parquet(folder: Path, columns: dict[str, Any], rows: int = 2) -> Source:
    pa.parquet.write_table(pa.table(columns), folder / "t.parquet", row_group_size=rows)
    return Source(str(folder))


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    source = write_parquet(
        tmp_path,
        {
            "ns": pa.array([1_700_000_000_123_456_789, None, 5], pa.int64()),
            "x": pa.array([1.5, np.nan, -2], pa.float32()),
            "note": pa.array(["a", None, "ü"]),
            "label": pa.array(["b", "b", None]).dictionary_encode(),
        },
    )
    texts = ("note", "label")
    rows = joined(read_table(source, "t.parquet", columns=("x", "ns", "note"), text_columns=texts))
    assert list(rows) == ["x", "ns", "note", "label"]
    np.testing.assert_array_equal(rows["x"], [1.5, np.nan, -2])
    np.testing.assert_array_equal(rows["ns"], [1_700_000_000_123_456_789.0, np.nan, 5])
    assert rows["ns"].dtype == np.float64
    assert rows["note"].tolist() == ["a", "", "ü"]
    assert rows["label"].tolist() == ["b", "b", ""]


def test_what_is_wrong_with_a_parquet_file_is_told(tmp_path: Path) -> None:
    source = write_parquet(tmp_path, {"time": np.arange(1e4), "text": ["1"] * 10_000}, 1000)
    with pytest.raises(ValueError, match=r"t\.parquet has no column 'tme'; the nearest is 'time'"):
        next(read_table(source, "t.parquet", columns=("tme",)))
    with pytest.raises(ValueError, match=r"t\.parquet: column 'text' is of type string, not of"):
        next(read_table(source, "t.parquet"))
    with pytest.raises(ValueError, match=r"t\.parquet: column 'time' is of type double, not of"):
        next(read_table(source, "t.parquet", columns=(), text_columns=("time",)))
    content = (tmp_path / "t.parquet").read_bytes()
    for damaged in (b"", b"PAR1", content[:-200], content[:100] + bytes(8000) + content[8100:]):
        (tmp_path / "t.parquet").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"t\.parquet is (no Parquet file|damaged) .*download"):
            list(read_table(source, "t.parquet", columns=("time",)))
    write_parquet(tmp_path, {"time": pa.array([], pa.float64())})
    with pytest.raises(ValueError, match=r"t\.parquet: no row; correct"):
        list(read_table(source, "t.parquet"))


@pytest.mark.parametrize(
    "content",
    [
        "1 2.5 NaN\n-4 5e-2 6\n",
        "1 2.5 nan\n-4 5e-2 6",
        "\t1\t2.5\tNaN\r\n\r\n-4\t5e-002\t6\r\n\n",
        "  1.0000000e+000  2.5000000e+000            NaN  \n -4  5.0e-02 6\n \n",
        "\ufeff 1 2.5 NaN\n-4 .05 6.\n",
    ],
)
def test_one_matrix_written_in_many_ways(tmp_path: Path, content: str) -> None:
    expected = np.array([[1, 2.5, np.nan], [-4, 0.05, 6]])
    values = matrix(tmp_path, content, 3)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(matrix(tmp_path, content, 3, use=(2, 0)), expected[:, [2, 0]])


def test_some_rows_of_a_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards.files.text_tables, "_BLOCK_BYTES", 100)
    values = RNG.normal(size=(300, 4))
    content = "\n".join(" ".join(map(repr, row)) for row in values.tolist())
    np.testing.assert_array_equal(matrix(tmp_path, content, 4), values)
    np.testing.assert_array_equal(matrix(tmp_path, content, 4, skip_rows=290), values[290:])
    some = matrix(tmp_path, content, 4, use=(3,), skip_rows=17, max_rows=150)
    np.testing.assert_array_equal(some, values[17:167, [3]])
    with pytest.raises(ValueError, match=r"m\.dat ends after 10 of the 11 rows from line 291 on"):
        matrix(tmp_path, content, 4, skip_rows=290, max_rows=11)
    with pytest.raises(ValueError, match=r"m\.dat: no row below line 300; correct"):
        matrix(tmp_path, content, 4, skip_rows=300, max_rows=5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"m\.dat: no row, it is empty; correct the file, or"),
        (" \n\n", r"m\.dat: no row, it is empty"),
        ("1 2 3\n\n4 5\n", r"m\.dat: line 3 has 2 cells, not 3; correct the file, or download"),
        ("1 2 3\n4 5 6 7\n", r"line 2 has 4 cells, not 3"),
        ("1 2 3\n4 oops 6\n", r"line 2, column 2 holds 'oops', which is no number; correct"),
        ('1 2 3\n4 "5" 6\n', r"line 2, column 2 holds '\"5\"', which is no number"),
        ("1,2,3\n4,5,6\n", r"line 1 has 1 cells, not 3"),
        ("x y z\n4 5 6\n", r"line 1, column 1 holds 'x'"),
        (bytes(range(1, 256)), r"m\.dat: line \d has \d+ cells, not 3"),
    ],
)
def test_what_is_wrong_with_a_matrix_is_told(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        matrix(tmp_path, content, 3)


def test_columns_that_are_not_used_may_hold_text(tmp_path: Path) -> None:
    np.testing.assert_array_equal(matrix(tmp_path, "1 a 3\n4 b 6\n", 3, use=(2,)), [[3], [6]])


MEASURE = """
import resource, sys
from shards.files.source import Source
from shards.files.tables import read_matrix
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert read_matrix(Source(sys.argv[1]), "m.dat", 250, use=(0, 7)).shape == (50_000, 2)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_does_not_hold_the_text(tmp_path: Path) -> None:
    line = " ".join(["0.123456789"] * 250) + "\n"
    (tmp_path / "m.dat").write_text(line * 50_000)  # 150 MB
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    grown_mb = float(subprocess.run(command, check=True, capture_output=True).stdout)
    assert grown_mb < 100


def test_tables_in_object_storage() -> None:
    source = Source("memory://tables/of ü")
    file_system = fsspec.filesystem("memory")
    file_system.pipe("/tables/of ü/t.csv", PLAIN.encode())
    file_system.pipe("/tables/of ü/m.dat", b"1 2\n3 oops\n")
    rows = joined(read_table(source, "t.csv", columns=("time",)))
    np.testing.assert_array_equal(rows["time"], [0.0, 0.02])
    np.testing.assert_array_equal(read_matrix(source, "m.dat", 2, use=(0,)), [[1], [3]])
    with pytest.raises(ValueError, match=r"of ü/m\.dat: line 2, column 2 holds 'oops'"):
        read_matrix(source, "m.dat", 2)
