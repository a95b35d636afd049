"""Files of timed text: subtitles (SRT, VTT) and lists (CSV, JSON).

for start_s, end_s, text in read_cues(source, "spoken.srt"): ...

People write these files by hand and mend them by hand, so errors name the line (the first is 1).
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from primus_scale.storage.foreign import reason
from primus_scale.storage.names import nearest
from shards.files.source import Source
from shards.recording import Narration

MOST_BYTES = 64 * 2**20  # of a file that people write by hand

# CSV and JSON: accepted names of times and text; the first is that of the docs.
_NAMES = {
    "start_s": ("start_s", "start", "time_s", "time"),
    "end_s": ("end_s", "end"),
    "text": ("text",),
}
# Subtitles. A comma before the milliseconds is SRT's, a full stop VTT's; programs write either.
_CLOCK = r"(?:\d+:)?[0-5]?\d:[0-5]\d[,.]\d{1,3}"
_TIMES = re.compile(rf"\s*({_CLOCK})\s*-->\s*({_CLOCK})(?:\s.*)?")
_TAG = re.compile(
    r"</?(?:i|b|u|s|c|v|font|ruby|rt|lang)(?:[.\s][^<>]*)?>|<\d[\d:.]*>|\{\\[^{}]*\}", re.I
)
_ENTITIES = {"&nbsp;": " ", "&lrm;": "", "&rlm;": "", "&lt;": "<", "&gt;": ">", "&amp;": "&"}


class _Cue(NamedTuple):
    """A narration with the line where it begins. end_s None: a point in time."""

    line: int
    start_s: float
    end_s: float | None
    text: str


def read_cues(source: Source, path: str) -> tuple[Narration, ...]:
    """The texts of a file, unchanged, in order of start, then of end.

    By the extension:

    - ``.csv``: a header and rows; columns ``start_s``, ``end_s`` (or none, or empty cells: a point
      in time) and ``text``. ``start``, ``time``, ``time_s`` and ``end`` are taken too, other
      columns are ignored. Commas, semicolons or tabs separate.
    - ``.json``: a list of objects with these keys.
    - ``.srt`` and ``.vtt``: subtitles. Lines of a cue are joined; tags such as ``<i>`` go.

    Times are seconds; cues may overlap. ValueError naming file, line and the next step for another
    extension, text that is not UTF-8, a time that is missing or no number, an end before its start,
    and where there is no cue at all; FileNotFoundError where there is no file.
    """
    where = source.locate(path)
    extension = PurePosixPath(path).suffix.lower()
    if extension not in _PARSERS:
        raise ValueError(f"{where}: narrations are read from {', '.join(_PARSERS)}; convert it")
    text = _decode(source.read_whole(path, MOST_BYTES), where)
    cues = [_narration(cue, where) for cue in _PARSERS[extension](text, where)]
    if not cues:
        raise ValueError(f"{where} holds no narration; write some, or do not name the file")
    return tuple(sorted(cues, key=lambda cue: (cue.start_s, cue.end_s)))


def _narration(cue: _Cue, where: str) -> Narration:
    end_s = cue.start_s if cue.end_s is None else cue.end_s
    if end_s < cue.start_s:
        raise ValueError(
            f"{where}, line {cue.line}: ends at {end_s:g} s, before it starts at "
            f"{cue.start_s:g} s; correct the times"
        )
    return Narration(cue.start_s, end_s, cue.text)


def _decode(data: bytes, where: str) -> str:
    """Text in UTF-8, or in UTF-16 with a byte order mark, with lines that end in a line feed."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{where}, line {line}: no UTF-8 text; save the file as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _csv(text: str, where: str) -> Iterator[_Cue]:
    delimiter = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    line = 1  # of the row's beginning; quoted text may hold line feeds
    try:
        for cells in rows:
            place = f"{where}, line {line}"
            if names is None and cells:
                names = [cell.strip().lower() for cell in cells]
                _check_names(names, place)
            elif names is not None and any(map(str.strip, cells)):
                if len(cells) != len(names):
                    raise ValueError(
                        f"{place}: {len(cells)} cells, not {len(names)}; put text that holds "
                        f"{delimiter!r} in quotation marks"
                    )
                yield _cue(dict(zip(names, cells, strict=True)), line, place)
            line = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{where}, line {line}: {error}; correct its quotation marks") from None


def _json(text: str, where: str) -> Iterator[_Cue]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        fault = f"no JSON ({error.msg}); correct it"
        raise ValueError(f"{where}, line {error.lineno}: {fault}") from None
    except (RecursionError, ValueError) as error:  # ValueError: a number of 5,000 digits
        raise ValueError(f"{where}: no JSON ({reason(error)}); correct it") from None
    if not isinstance(entries, list):
        raise ValueError(f'{where} is no list; write [{{"start_s": 1.5, "text": "…"}}, …]')
    decoder, position = json.JSONDecoder(), text.index("[") + 1
    for entry in entries:
        while text[position] in ", \t\n":
            position += 1
        line = text.count("\n", 0, position) + 1
        place = f"{where}, line {line}"
        if not isinstance(entry, dict):
            raise ValueError(f"{place}: {entry!r} is no object with start_s and text; correct it")
        _check_names(list(entry), place)
        yield _cue(entry, line, place)
        _, position = decoder.raw_decode(text, position)


def _check_names(names: Sequence[str], place: str) -> None:
    """ValueError naming the nearest name where that of the start or of the text is missing."""
    for field in ("start_s", "text"):
        if not set(names).intersection(_NAMES[field]):
            raise ValueError(f"{place}: no {field}{nearest(field, names)}; name it {field}")


def _cue(entry: Mapping[str, Any], line: int, place: str) -> _Cue:
    """A cue from a row or an object, whose names were checked."""
    found = {
        field: next((name for name in known if name in entry), field)
        for field, known in _NAMES.items()
    }
    start_s = _seconds(entry, found["start_s"], place)
    if start_s is None:
        raise ValueError(f"{place}: {found['start_s']} is empty; write seconds, such as 83.5")
    text = entry["text"]
    if not isinstance(text, str):
        raise ValueError(f"{place}: text is {text!r}; write it in quotation marks")
    return _Cue(line, start_s, _seconds(entry, found["end_s"], place), text)


def _seconds(entry: Mapping[str, Any], name: str, place: str) -> float | None:
    value = entry.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"{place}: {name} is {value!r}; write seconds, such as 83.5")
    return seconds


def _srt(text: str, where: str) -> Iterator[_Cue]:
    for line, block in _blocks(text):
        yield _subtitle(block, line, where)


def _vtt(text: str, where: str) -> Iterator[_Cue]:
    blocks = _blocks(text)
    line, block = next(blocks, (1, [""]))
    if line != 1 or block[0].split()[:1] != ["WEBVTT"]:
        raise ValueError(f"{where}, line 1: a VTT file begins with WEBVTT; write it there")
    for line, block in blocks:
        if not re.match(r"(?:NOTE|STYLE|REGION)(?:\s|$)", block[0]):
            cue = _subtitle(block, line, where)
            pattern = "|".join(_ENTITIES)
            yield cue._replace(text=re.sub(pattern, lambda m: _ENTITIES[m[0]], cue.text))


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Lines between blank lines, with the number of the first."""
    block: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _subtitle(block: Sequence[str], line: int, where: str) -> _Cue:
    """A cue: a line with its number or name (or none), one with its times, lines of text."""
    at = 0 if "-->" in block[0] else 1
    place = f"{where}, line {line + at}"
    if len(block) <= at or "-->" not in block[at]:
        raise ValueError(
            f"{where}, line {line}: no times; a cue is its number, a line of times and lines of "
            "text, without a blank line between them"
        )
    times = _TIMES.fullmatch(block[at])
    if times is None:
        raise ValueError(
            f"{place}: {block[at].strip()!r} are no times; write them as "
            "00:01:23,500 --> 00:01:25,000"
        )
    for number, content in enumerate(block[at + 1 :], start=line + at + 1):
        if "-->" in content:
            raise ValueError(f"{where}, line {number}: times within text; put a blank line before")
    text = " ".join(_TAG.sub("", content).strip() for content in block[at + 1 :])
    return _Cue(line + at, _clock(times[1]), _clock(times[2]), text)


def _clock(text: str) -> float:
    """Seconds of ``hours:minutes:seconds,milliseconds``; hours may be left out."""
    hours, minutes, seconds = ("0:" + text.replace(",", ".")).split(":")[-3:]
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


_PARSERS = {".csv": _csv, ".json": _json, ".srt": _srt, ".vtt": _vtt}
