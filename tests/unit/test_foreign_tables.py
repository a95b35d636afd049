"""Damaged and forged files of readers: a ValueError that names the file, and nothing else."""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from shards.files.cues import read_cues
from shards.files.json_members import find_members, read_member
from shards.files.source import Source
from shards.files.tables import read_table
from shards.readers import create_reader
from tests.folder_factory import NUMBERED, describe, description, first_sensor, read, sensor

DEEP = "[" * 100_000
LONG = "9" * 10_000


@pytest.mark.parametrize("value", [DEEP, '{"a": ' * 100_000, LONG])
def test_json_that_its_library_cannot_read_is_told(value: str, tmp_path: Path) -> None:
    source = Source(str(tmp_path))
    (tmp_path / "a.json").write_text(f'{{"one": 1, "two": {value}}}')
    members = find_members(source, "a.json")
    span = next(members).span
    with pytest.raises(ValueError, match=r"a\.json, byte \d+: "):
        list(members)
    (tmp_path / "a.json").write_text(value)
    with pytest.raises(ValueError, match=r"a\.json: its 9999 bytes from 0 on are no JSON"):
        read_member(source, "a.json", span._replace(offset=0, size=9999))
    (tmp_path / "c.json").write_text(f'[{{"start_s": {value}, "text": "a"}}]')
    with pytest.raises(ValueError, match=r"c\.json"):
        read_cues(source, "c.json")


def parquet(folder: Path) -> str:
    rows = {
        "t": pa.array(np.arange(300) * 20_000_000).cast(pa.timestamp("ns")),
        "x": np.linspace(0, 1, 300),
        "s": pa.array([f"l{row % 3}" for row in range(300)]).dictionary_encode(),
    }
    pa.parquet.write_table(pa.table(rows), folder / "t.parquet", row_group_size=100)
    return "t.parquet"


def read_parquet(folder: Path) -> None:
    pieces = read_table(
        Source(str(folder)), "t.parquet", columns=("x",), text_columns=("s",), raw_columns=("t",)
    )
    assert sum(len(piece["x"]) for piece in pieces) >= 0


def npy(folder: Path) -> str:
    np.save(folder / "wrist.npy", np.linspace(0, 1, 300).reshape(100, 3))
    describe(folder, description(sensor(file="wrist.npy", columns=NUMBERED)))
    return "wrist.npy"


def read_npy(folder: Path) -> None:
    read(folder, first_sensor)


@pytest.mark.parametrize(("write", "use"), [(parquet, read_parquet), (npy, read_npy)])
def test_any_damage_is_read_or_told(
    write: Callable[[Path], str], use: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / write(tmp_path)
    content = path.read_bytes()
    draw = random.Random(9)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        start = draw.choice((0, max(len(content) - 1500, 0)))
        for _ in range(draw.choice((1, 4))):
            damaged[draw.randrange(start, min(start + 1500, len(content)))] = draw.randrange(256)
        path.write_bytes(damaged[: draw.choice((None, draw.randrange(len(content))))])
        try:
            use(tmp_path)
        except ValueError as error:
            refused += 1
            assert path.name in str(error) and len(str(error)) < 1500
    assert refused > 50


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999999, 3), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3), }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 3), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': " + b"(" * 900 + b")" * 900 + b"}",
        b"[" * 9000,
        b"",
    ],
)
def test_forged_heads_of_npy_are_told(header: bytes, tmp_path: Path) -> None:
    npy(tmp_path)
    head = b"\x93NUMPY\x02\x00" + len(header + b"\n").to_bytes(4, "little") + header + b"\n"
    (tmp_path / "wrist.npy").write_bytes(head + bytes(24))
    with pytest.raises(ValueError, match=r"sensors\.0: .*wrist\.npy"):
        read(tmp_path)


def zipped(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def nested() -> bytes:
    content = zipped("acc_walking_chest.csv", b"id,attr_time,attr_x,attr_y,attr_z\n1,5,0,0,1\n")
    for level in range(6):
        content = zipped(f"{level}.zip", content)
    return content


def altered(place: bytes, offset: int, value: bytes) -> bytes:
    """A zip in whose entries of one kind some bytes are others."""
    content = bytearray(zipped("acc_walking_chest.csv", b"id,attr_time,attr_x,attr_y,attr_z\n" * 9))
    at = content.index(place) + offset
    content[at : at + len(value)] = value
    return bytes(content)


ZIPS = {
    "encrypted": altered(b"PK\x01\x02", 8, b"\x01"),
    "an unknown method": altered(b"PK\x01\x02", 10, b"\x63"),
    "a wrong place": altered(b"PK\x01\x02", 42, b"\xff\xff"),
    "zips in zips": nested(),
    "a name that leads out": zipped("../../acc_walking_chest.csv", b"id\n"),
    "a bomb of one line": zipped("acc_walking_chest.csv", bytes(50 * 2**20)),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_forged_zips_are_told(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "proband1/data/acc_walking_csv.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(ZIPS[kind])
    reader = create_reader("realworld", str(tmp_path))
    (ref,) = reader.recordings()
    with pytest.raises(ValueError, match=r"acc_walking_csv\.zip"), reader.open(ref) as recording:
        first_sensor(recording)
