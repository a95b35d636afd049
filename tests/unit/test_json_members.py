import json
import math
from pathlib import Path
from typing import Any

import pytest

from shards.files import json_members
from shards.files.json_members import ByteRange, Member, field_of, find_members, read_member
from shards.files.source import Source

TEXTS = ("ascii", "Tomaten würfeln", "切る 🍅", 'a "quoted" \\ [brace} {', "tab\\tline\\n")


def members(folder: Path, inside: str | None = None) -> list[Member]:
    return list(find_members(Source(str(folder)), "big.json", inside=inside))


def write(folder: Path, data: bytes) -> None:
    (folder / "big.json").write_bytes(data)


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("block", [1, 7, 4096])
def test_members_are_what_json_reads(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ascii_only: bool,
    indent: int | None,
    block: int,
) -> None:
    monkeypatch.setattr(json_members, "_BLOCK_BYTES", block)
    videos = {
        f"{text} {n}": [text, {"n": n * 1234.5, "deep": [[], {}]}] for n, text in enumerate(TEXTS)
    }
    content: dict[str, Any] = {
        "date": "heute – 今日",
        "number": 123456,
        "none": None,
        "small": -1.5e-30,
        "large": 1.25e300,
        "videos": videos,
        "last": [-1.5e-3],
    }
    text = json.dumps(content, ensure_ascii=ascii_only, indent=indent) + "\n"
    write(tmp_path, text.encode())
    found = {member.keys: member for member in members(tmp_path, "videos")}
    others = {(key,): value for key, value in content.items() if key != "videos"}
    expected = others | {("videos", key): value for key, value in videos.items()}
    assert {keys: member.value() for keys, member in found.items()} == expected
    source = Source(str(tmp_path))
    for keys, member in found.items():
        assert read_member(source, "big.json", member.span) == expected[keys]
    whole = {member.keys: member.value() for member in members(tmp_path)}
    assert whole == {(key,): value for key, value in content.items()}


def test_lists_have_numbers(tmp_path: Path) -> None:
    write(tmp_path, b'\xef\xbb\xbf [ {"a": 1}, 2 ,"x"]')
    assert [(m.keys, m.value()) for m in members(tmp_path)] == [
        ((0,), {"a": 1}),
        ((1,), 2),
        ((2,), "x"),
    ]
    write(tmp_path, b'{"videos": [5, 6], "x": 7}')
    assert [m.keys for m in members(tmp_path, "videos")] == [("videos", 0), ("videos", 1), ("x",)]
    for empty in (b"[]", b"{}", b" { } ", b'{"videos": {}}'):
        write(tmp_path, empty)
        assert members(tmp_path, "videos") == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "byte 0: it is empty"),
        (b"  ", "it ends too early"),
        (b"17", "byte 0: neither an object nor a list begins here"),
        (b'{"a": 1', "byte 7: it ends too early"),
        (b'{"a": [1, 2', "byte 6: Expecting ',' delimiter"),
        (b'{"a": "x', "byte 6: Unterminated string"),
        (b'{"a": {"b": nothing}}', "byte 6: Expecting value"),
        (b'{"a" 1}', "byte 5: no colon after a name"),
        (b"{1: 2}", "byte 1: no name in quotation marks"),
        (b'{"a": 1 "b": 2}', "byte 8: neither a comma nor } follows a value"),
        (b"[1, 2}", "byte 5: neither a comma nor ] follows a value"),
        (b'{"a": 1} {}', "byte 9: text after the end"),
        (b'{"videos": 3}', "byte 11: neither an object nor a list begins here"),
    ],
)
def test_damage_is_placed(tmp_path: Path, data: bytes, message: str) -> None:
    write(tmp_path, data)
    with pytest.raises(ValueError, match=r"big\.json, byte \d+: .*download it again") as caught:
        members(tmp_path, "videos")
    assert message in str(caught.value)


def test_damage_early_in_a_large_file_does_not_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_members, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(json_members, "MEMBER_BYTES", 20_000)
    write(tmp_path, b'{"a": [1, 2, ' + b'"x", ' * 100_000)
    source = Source(str(tmp_path))
    with source.open("big.json") as stream:
        scanner = json_members._Scanner(stream, "big.json")
        with pytest.raises(ValueError, match=r"byte 6: "):
            list(scanner.members(()))
        assert stream.tell() < 50_000


@pytest.mark.parametrize("block", [1, 10, 4096])
def test_what_python_writes_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(json_members, "_BLOCK_BYTES", block)
    content: dict[str, Any] = {
        "a, NaN, ": math.inf,
        "b": [-math.inf, {"NaN": math.inf}, 12345678901234567890123, 1e400],
        "NaN": "x: NaN, Infinity",
        "half": ["\udc00 [,", "\ud83c", "\\ud800 \\", "🍅"],
        "🍅\ud83c": 1,
    }
    write(tmp_path, json.dumps(content).encode())
    found = {member.keys[0]: member.value() for member in members(tmp_path)}
    assert list(found.values()) == list(content.values())
    assert list(found) == list(content)
    write(tmp_path, b"[NaN, \n NaN ,[NaN]]")
    assert [member.span for member in members(tmp_path)] == [(1, 3), (8, 3), (13, 5)]


@pytest.mark.parametrize("block", [1, 10, 4096])
def test_a_damaged_text_costs_its_member_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(json_members, "_BLOCK_BYTES", block)
    write(
        tmp_path,
        '{"ü": "ö, ü", "b": ["Z\xff", 1], "c": "ß", "d\xff": 5}'.encode().replace(
            b"\xc3\xbf", b"\xff"
        ),
    )
    first, second, third, fourth = members(tmp_path)
    assert (fourth.keys, fourth.value()) == (("d\ufffd",), 5)
    assert (first.keys, first.value()) == (("ü",), "ö, ü")
    assert (third.keys, third.value()) == (("c",), "ß")
    with pytest.raises(ValueError, match=r"big\.json, byte 25: no UTF-8 text; download it again"):
        second.value()
    with pytest.raises(ValueError, match=r"big\.json: its 9 bytes from 22 on are no JSON"):
        read_member(Source(str(tmp_path)), "big.json", second.span)


def test_a_changed_file_is_told(tmp_path: Path) -> None:
    write(tmp_path, b'{"uid": [1, 2, 3], "other": 4}')
    span = members(tmp_path)[0].span
    assert span == ByteRange(8, 9)
    write(tmp_path, b'{"other": 4, "uid": [1, 2, 3]}')
    with pytest.raises(ValueError, match=r"big\.json: its 9 bytes from 8 on are no JSON .*changed"):
        read_member(Source(str(tmp_path)), "big.json", span)
    write(tmp_path, b'{"uid": ["\xff\xff\xff")]}')
    with pytest.raises(ValueError, match=r"big\.json: its 9 bytes from 8 on are no JSON"):
        read_member(Source(str(tmp_path)), "big.json", span)


def test_a_field_that_is_not_there_is_named() -> None:
    assert field_of({"a": None}, "a", "x.json") is None
    with pytest.raises(ValueError, match=r"x\.json has no field a, but b, c; download it again"):
        field_of({"b": 1, "c": 2}, "a", "x.json")
    with pytest.raises(ValueError, match=r"x\.json is no object with a field a, but \[1\]"):
        field_of([1], "a", "x.json")
