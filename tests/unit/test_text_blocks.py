"""Blocks of whole rows, held against the csv module, and that no thread calls a stream."""

import csv
import io
import random
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import shards.files.text_tables
from shards.files.source import Source
from shards.files.tables import read_matrix, read_table
from shards.files.text_blocks import MOST_ROW, OpenQuoteError, RowError, row_blocks
from shards.files.text_tables import TextForm


def rows_of(text: bytes, delimiter: str) -> list[list[str]]:
    lines = io.StringIO(text.decode(), newline="")
    return [row for row in csv.reader(lines, delimiter=delimiter) if row]


@pytest.mark.parametrize("delimiter", [",", ";", "^", "]", "\\", "|"])
def test_blocks_end_where_rows_end(delimiter: str) -> None:
    draw = random.Random(ord(delimiter))
    parts = ('"', '"', '""', "\n", "\r\n", "\r", delimiter, delimiter, "1.5", "ü", " ")
    blocks_of_all = closed = 0
    for _ in range(1200):
        text = "".join(draw.choices(parts, k=draw.randrange(60))).encode()
        blocks: list[bytes] = []
        whole = rows_of(text + b"\nend", delimiter)[-1] == ["end"]
        try:
            size = draw.randrange(1, 40)
            blocks.extend(row_blocks(io.BytesIO(text), size=size, quotes_after=delimiter))
        except OpenQuoteError:
            assert not whole, text
            continue
        assert whole, text
        closed += 1
        blocks_of_all += len(blocks)
        found = [row for block in blocks for row in rows_of(block, delimiter)]
        assert found == rows_of(text, delimiter), text
    assert closed > 400 and blocks_of_all > 2 * closed


@pytest.mark.parametrize("size", [3, 4, 5, 7, 1000])
def test_lines_are_left_out_whatever_they_hold(size: int) -> None:
    text = '\ufeffmade by "X\r\n\rat 5"\n\r\n1,"a\nb"\r\n2,c'.encode()
    for skip, left in ((0, text[3:]), (2, b'at 5"\n\r\n1,"a\nb"\r\n2,c'), (5, b'b"\r\n2,c')):
        blocks = row_blocks(io.BytesIO(text), size=size, skip=skip)
        lines = b"".join(blocks).splitlines()
        assert list(filter(None, lines)) == list(filter(None, left.splitlines()))
    blocks = row_blocks(io.BytesIO(text), size=size, skip=4, quotes_after=",")
    assert b"".join(blocks).strip() == b'1,"a\nb"\r\n2,c'
    for skip in (7, 8, 99):
        assert list(row_blocks(io.BytesIO(text), size=size, skip=skip)) == []


def test_a_row_without_an_end_is_not_held_whole() -> None:
    class Endless(io.RawIOBase):
        read_bytes = 0

        def read(self, size: int = -1) -> bytes:
            self.read_bytes += size
            return b'1,"' + b"x" * (size - 3)

    for options in ({}, {"quotes_after": ","}, {"skip": 3}):
        stream = Endless()
        with pytest.raises(RowError, match="a row has more than 4,194,304 bytes"):
            list(row_blocks(stream, size=2**20, **options))  # type: ignore[arg-type]
        assert stream.read_bytes <= MOST_ROW + 2**20


@pytest.mark.parametrize(
    "content",
    [
        't,x,note\n0,1,a\n1,2,"walking\n2,3,b\n3,4,c\n',  # rows would end up in a cell
        't,x,note\n0,1,5" disk\n1,2,"walking\n2,3,b\n',
        't,x,note\n0,1,a\n1,2,"',
    ],
)
def test_a_quotation_mark_that_is_never_closed_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    pieces = read_table(Source(str(tmp_path)), "t.csv", columns=("t",), text_columns=("note",))
    with pytest.raises(ValueError, match=r"t\.csv: line 3: a quotation mark is never closed; corr"):
        list(pieces)


def test_quotation_marks_within_cells_are_part_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards.files.text_tables, "_BLOCK_BYTES", 50)
    notes = ['5" disk', "", 'a "b" c', 'say ""', "two\nlines", 'with "marks"\nin, them'] * 20
    written = [
        f'"{note.replace(chr(34), chr(34) * 2)}"' if "\n" in note else note for note in notes
    ]
    (tmp_path / "t.csv").write_text(
        "t,note\n" + "".join(f"{n},{w}\n" for n, w in enumerate(written))
    )
    pieces = list(read_table(Source(str(tmp_path)), "t.csv", text_columns=("note",)))
    assert len(pieces) > 20
    assert [note for piece in pieces for note in piece["note"]] == notes
    np.testing.assert_array_equal(np.concatenate([piece["t"] for piece in pieces]), range(120))


class Noting(Source):
    """A folder that notes which threads read its files."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.threads: set[int] = set()

    def open(self, path: str) -> BinaryIO:
        threads = self.threads

        class Stream(io.FileIO):
            def readinto(self, buffer: Any) -> int | None:
                threads.add(threading.get_ident())
                return super().readinto(buffer)

        return io.BufferedReader(Stream(self.url.removeprefix("file://") + f"/{path}"))


def test_files_are_read_by_the_thread_that_asks_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards.files.text_tables, "_BLOCK_BYTES", 1000)
    values = np.random.default_rng(4).normal(size=(2000, 12))
    names = [f"c{number}" for number in range(12)]
    for name, between in (("t.csv", ","), ("m.dat", " ")):
        np.savetxt(
            tmp_path / name, values, delimiter=between, header=between.join(names), comments=""
        )
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "u.csv").write_text(text, encoding="utf-16")
    pa.parquet.write_table(
        pa.table(dict(zip(names, values.T, strict=True))),
        tmp_path / "t.parquet",
        row_group_size=500,
    )
    source = Noting(str(tmp_path))
    for name, form in (
        ("t.csv", None),
        ("u.csv", None),
        ("m.dat", TextForm(" ")),
        ("t.parquet", None),
    ):
        pieces = list(read_table(source, name, form=form))
        np.testing.assert_array_equal(
            np.concatenate([piece["c7"] for piece in pieces]), values[:, 7]
        )
    assert read_matrix(source, "m.dat", 12, skip_rows=1).shape == (2000, 12)
    assert source.threads == {threading.get_ident()}
