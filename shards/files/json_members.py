"""The byte ranges of the members of a large JSON file, so that each can be read by itself.

for member in find_members(source, "narration.json", inside="videos"):
    ranges[member.keys[-1]] = member.span
narrations = read_member(source, "narration.json", ranges[uid])

Annotations of egocentric data sets come as one JSON file of up to hundreds of megabytes for
thousands of videos. Parsed as a whole it takes gigabytes, in every process that opens one video. So
the listing reads it once, in pieces, and keeps the byte range of each video's member for the
process that opens the video. ``json`` parses the values; streaming parsers such as ijson do not say
where in the file a value is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, NoReturn

from primus_scale.storage.foreign import reason
from shards.files.source import Source

MEMBER_BYTES = 64 * 2**20  # longest member; beyond it the file is taken to be damaged
_BLOCK_BYTES = 4 * 2**20
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()
_AGAIN = "download it again"
_KINDS = {str: "text", float: "number", int: "whole number", dict: "object", list: "list"}


class ByteRange(NamedTuple):
    """First byte of a value in its file, and its number of bytes."""

    offset: int
    size: int


class Member(NamedTuple):
    """A value of an object or list. keys: names or numbers that lead to it from the outermost."""

    keys: tuple[str | int, ...]
    span: ByteRange
    data: bytes
    where: str

    def value(self) -> Any:
        """The value itself; ValueError naming the file where a text of it is no UTF-8."""
        try:
            return json.loads(self.data)
        except UnicodeDecodeError as error:
            byte = self.span.offset + error.start
            raise ValueError(f"{self.where}, byte {byte}: no UTF-8 text; {_AGAIN}") from None


def find_members(source: Source, path: str, *, inside: str | None = None) -> Iterator[Member]:
    """The members of the outermost object or list of the JSON file at ``path``, in file order.

    inside: name of a member of the outermost object, whose own members are yielded instead of it.
    Memory holds one member and a few megabytes. ValueError naming the file, and the byte if it is
    known, where the file is empty, damaged, truncated, or neither an object nor a list. It is
    raised after the members before the fault were yielded.
    """
    with source.open(path) as stream:
        scanner = _Scanner(stream, source.locate(path))
        yield from scanner.members((), inside)
        if scanner.next():
            scanner.fail("text after the end")


def read_member(source: Source, path: str, span: ByteRange) -> Any:
    """The value at a ``Member.span``; ValueError where the file has changed."""
    with source.open(path) as stream:
        stream.seek(span.offset)
        data = stream.read(span.size)
    try:
        return json.loads(data)
    except (RecursionError, ValueError) as error:
        raise ValueError(
            f"{source.locate(path)}: its {span.size} bytes from {span.offset} on are no JSON "
            f"({reason(error)}); the file was damaged, or changed since it was listed: check it, "
            "and start again"
        ) from None


def field_of(record: Any, name: str, where: str, kind: type = object) -> Any:
    """The field of a JSON object; ValueError, saying where, if it has none or is no object.

    kind: what it should be, or ValueError: str, float (any finite number), int, dict or list.
    """
    if not isinstance(record, dict):
        raise ValueError(f"{where} is no object with a field {name}, but {record!r:.80}; {_AGAIN}")
    if name not in record:
        raise ValueError(f"{where} has no field {name}, but {', '.join(record)[:500]}; {_AGAIN}")
    value = record[name]
    number = kind is float and isinstance(value, int | float) and math.isfinite(value)
    if not number and (kind is float or not isinstance(value, kind)):
        raise ValueError(f"{where}: its field {name} is {value!r:.80}, no {_KINDS[kind]}; {_AGAIN}")
    return value


def optional_field(record: Any, name: str, where: str, kind: type) -> Any:
    """As ``field_of``, but None where the object has no such field, or null."""
    if isinstance(record, dict) and record.get(name) is None:
        return None
    return field_of(record, name, where, kind)


class _Scanner:
    """Reads JSON text in pieces.

    Bytes are taken as Latin-1, so an offset in the text is the offset in the file. This is safe:
    the characters that give JSON its structure are ASCII, and no byte of a longer UTF-8 character
    is.
    """

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self._stream = stream
        self._where = where
        self._text = ""
        self._at = 0  # in the text
        self._base = 0  # of the text in the file
        self._ended = False
        self._read()
        if self._text.startswith("\xef\xbb\xbf"):  # a byte order mark
            self._at = 3

    def members(self, keys: tuple[str | int, ...], inside: str | None = None) -> Iterator[Member]:
        """Those of the object or list that begins here."""
        opening = self.next()
        if opening not in ("{", "["):
            self.fail("neither an object nor a list begins here")
        self._at += 1
        closing, number = "}" if opening == "{" else "]", 0
        if self.next() == closing:
            self._at += 1
            return
        while True:
            key: str | int = self._name() if opening == "{" else number
            if inside is not None and key == inside:
                yield from self.members((*keys, key))
            else:
                self.next()
                offset = self._base + self._at
                text = self._value()
                data = text.encode("latin-1")
                yield Member((*keys, key), ByteRange(offset, len(data)), data, self._where)
            number += 1
            after = self.next()
            if after not in (",", closing):
                self.fail(f"neither a comma nor {closing} follows a value")
            self._at += 1
            if after == closing:
                return

    def next(self) -> str:
        """Go to the next character that is no white space; "" at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._read():
                return ""

    def fail(self, fault: str) -> NoReturn:
        """ValueError naming file and byte."""
        if self._ended and self._at >= len(self._text):
            fault = "it ends too early" if self._base + self._at else "it is empty"
        raise ValueError(f"{self._where}, byte {self._base + self._at}: {fault}; {_AGAIN}")

    def _name(self) -> str:
        if self.next() != '"':
            self.fail("no name in quotation marks")
        # A damaged letter makes another name, and costs the other members nothing.
        name = json.loads(self._value().encode("latin-1").decode("utf-8", "replace"))
        if self.next() != ":":
            self.fail("no colon after a name")
        self._at += 1
        return str(name)

    def _value(self) -> str:
        """The text of the value that begins here."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > MEMBER_BYTES or not self._read():
                    self.fail(error.msg)
                continue
            except (RecursionError, ValueError) as error:  # ValueError: a number of 5,000 digits
                self.fail(reason(error))
            # Of a number that the text ends in, such as 1.5e+, there may be more.
            if end > len(self._text) - 3 and self._read():
                continue
            text, self._at = self._text[self._at : end], end
            return text

    def _read(self) -> bool:
        """Take more of the file in, at least as much as is pending; False at its end."""
        pending = self._text[self._at :]
        block = self._stream.read(max(_BLOCK_BYTES, len(pending)))
        self._ended = not block
        if block:
            self._base, self._at = self._base + self._at, 0
            self._text = pending + block.decode("latin-1")
        return bool(block)
