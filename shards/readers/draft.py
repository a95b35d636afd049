"""Drafts of ``recording.yaml`` from the content of files; each guess is marked, to be checked.

for path, text in draft(source): ...   # one for all folders of one layout, or one for each folder
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from primus_scale.counted import counted
from primus_scale.storage.foreign import decoding
from primus_scale.storage.names import quoted
from shards.files.parquet_tables import parquet_batches
from shards.files.sniff import Sniffed, sniff
from shards.files.source import Source
from shards.files.tables import is_parquet, read_table
from shards.files.text_tables import TextForm, joined
from shards.readers.draft_columns import (
    Guessed,
    GuessedSensor,
    GuessedTime,
    Table,
    guess_columns,
    typed,
)
from shards.readers.draft_names import KINDS, NamedRecordings, guess_layout, placement_in
from shards.readers.folder_listing import DESCRIPTION
from shards.readers.form_advice import differing
from shards.readers.name_patterns import RECORDING
from shards.readers.table_yaml import TABLES
from shards.readers.unread import may_be_data

MOST_ROWS = 50_000  # read of a table
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*Hz|(?:sampl\w*|frequency)\D{0,20}?(\d+(?:\.\d+)?)", re.I)
_VIDEOS = (".mp4", ".mov", ".mkv", ".avi")
_MOST_NAMED = 3  # files in a message
OPEN_RATE = "write samples a second here"  # of a rate that nobody can guess


class Draft(NamedTuple):
    """A description to write. path: below the source."""

    path: str
    text: str


class _File(NamedTuple):
    """A table, how it is written (None: not as text), and its guessed content."""

    name: str
    found: Sniffed | None
    guessed: Guessed
    rate_hz: float | None  # of a line above the header that states one


def draft(source: Source) -> list[Draft]:
    """Descriptions of the tables below the source.

    ValueError naming the file and the next step where no table holds an accelerometer, or where it
    is not clear which files are one recording; FileNotFoundError where there is no table.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    found = source.find("**/*")
    for path in found:
        if path.lower().endswith((*TABLES, *_VIDEOS, ".srt", ".vtt")) and may_be_data(path):
            folders[posixpath.dirname(path)].append(posixpath.basename(path))
    tables = {
        folder: names
        for folder, names in sorted(folders.items())
        if any(name.lower().endswith(TABLES) for name in names)
    }
    if not tables:
        held = f"it holds {', '.join(found[:_MOST_NAMED])}" if found else "it holds no file"
        raise FileNotFoundError(
            f"no table ({', '.join(TABLES)}) below {source.url}: {held}; point --src at the folder "
            "that holds your files, or write them in one of these forms"
        )
    here = posixpath.basename(source.url)
    paths = [
        posixpath.join(folder, name) for folder, own in tables.items() for name in _tables(own)
    ]
    depths = {path.count("/") for path in paths}
    if len(depths) == 1 and (layout := guess_layout(paths, here)):
        return [Draft(DESCRIPTION, _of_layout(source, layout, paths, folders))]
    alike = {tuple(sorted(_tables(names))) for names in tables.values()}
    if "" not in tables and len(alike) == len(depths) == 1:
        first = next(iter(tables))
        head = _pattern(first, list(tables))
        return [Draft(DESCRIPTION, _of_folder(source, first, tables[first], head, ""))]
    drafts = []
    for folder, names in tables.items():
        path = posixpath.join(folder, DESCRIPTION)
        person = folder.split("/")[0] or here
        if layout := guess_layout(_tables(names), person):
            below = Source(source.locate(folder).rstrip("/"), inside=source.inside)
            drafts.append(Draft(path, _of_layout(below, layout, _tables(names), {"": names})))
            continue
        head = f"person: {quote_yaml(person)}  # guess: the folder's name"
        drafts.append(Draft(path, _of_folder(source, folder, names, head, folder)))
    return drafts


def quote_yaml(text: str) -> str:
    """A text as a YAML value on one line, also within a list or a mapping."""
    plain = re.fullmatch(r"[^\W\d_](?:[\w ./-]*\w)?", text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def _comment(names: Iterable[str]) -> str:
    """Names for a comment, on one line."""
    return " ".join(joined(names).split())[:120]


def _tables(names: list[str]) -> list[str]:
    return [name for name in names if name.lower().endswith(TABLES)]


def _pattern(folder: str, folders: list[str]) -> str:
    """The line ``recordings`` for all folders; the outermost are people's."""
    depth = len(folder.split("/"))
    parts = ["{person}", *["*"] * (depth - 1)]
    last = {one.rpartition("/")[2] for one in folders}
    if depth > 1 and all(placement_in(name) for name in last):
        parts[-1] = "{placement}"
    reason = "each folder is a person's" if depth == 1 else "the outermost folders are people's"
    found = counted(len(folders), "folder")
    return f'recordings: "{"/".join(parts)}"  # guess: {reason}; {found}'


def _of_folder(source: Source, folder: str, names: list[str], head: str, around: str) -> str:
    """The description of one folder's tables. around: its name, which may hold a placement."""
    files = [_read_head(source, posixpath.join(folder, name)) for name in sorted(_tables(names))]
    devices: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        if file.guessed.sensors:
            devices[KINDS.sub("", posixpath.splitext(file.name)[0]).strip(" _-.")].append(file)
    _check_sensors(source, folder, files)
    _check_devices(source, folder, devices, around)
    lines = [head, "devices:"]
    for key, own in devices.items():
        placement = "{placement}" if "{placement}" in head else placement_in(f"{around}/{key}")
        lines += _device(key or "device", _worn(placement), own)
    return _text(lines, files, names)


def _of_layout(
    source: Source, layout: NamedRecordings, paths: list[str], folders: Mapping[str, list[str]]
) -> str:
    """The description of recordings that are files in one folder. folders: files by folder."""
    recording, first = layout.first()
    files = [_read_head(source, path)._replace(name=name) for path, name in first.items()]
    _check_sensors(source, posixpath.dirname(recording), files)
    lines = [f'recordings: "{layout.recordings}"  # guess: {layout.why}']
    if layout.person is not None:
        reason = "one person's: no name says whose; write {person} for what does"
        lines.insert(0, f"person: {quote_yaml(layout.person)}  # guess: all files are {reason}")
    if layout.labelled:
        lines.append('label: "{label}"  # guess: names say what was done')
    lines.append("devices:")
    lines += _device("device", _worn_by_name(layout), [one for one in files if one.guessed.sensors])
    folder, key = posixpath.split(recording)
    companions = [name for name in folders.get(folder, []) if posixpath.splitext(name)[0] == key]
    text = _text(lines, files, [RECORDING + posixpath.splitext(name)[1] for name in companions])
    described = set(first.values())
    read = {p for own in layout.files.values() for p, name in own.items() if name in described}
    if left := [path for path in paths if path not in read]:
        text += f"# not described, since their names do not fit: {_comment(left)}\n"
    return text


def _text(lines: list[str], files: list[_File], names: list[str]) -> str:
    """The whole description: ``lines``, labels, and comments on other files."""
    lines = [
        "# Drafted by `primus-scale shards init folder`. Look at every guess and correct it, then",
        "# build: primus-scale shards build folder --src ... --out ...",
        *lines,
        *_labels(files, any(line.startswith("label:") for line in lines)),
    ]
    for name in sorted(names):
        if name.lower().endswith(_VIDEOS):
            lines.append(
                f"# video: {{file: {quote_yaml(name)}, start_s: 0}}  # when does it begin?"
            )
        elif name.lower().endswith((".srt", ".vtt")):
            lines.append(f"# narrations: {{file: {quote_yaml(name)}, offset_s: 0}}")
    for file in files:
        if not file.guessed.sensors and not _is_spans(file):
            lines.append(
                f"# not described: {quote_yaml(file.name)} ({_comment(file.guessed.others)})"
            )
    return "\n".join(lines) + "\n"


def _check_sensors(source: Source, folder: str, files: list[_File]) -> None:
    """ValueError where no file holds an accelerometer."""
    if not any(sensor.kind == "acc" for file in files for sensor in file.guessed.sensors):
        reason = "; ".join(f"{file.name}: {joined(file.guessed.others)}" for file in files[:3])
        raise ValueError(
            f"{source.locate(folder or '.')}: no columns of an accelerometer in {reason}; write "
            f"{DESCRIPTION} by hand, as docs/folder.md shows"
        )


def _check_devices(
    source: Source, folder: str, devices: Mapping[str, list[_File]], around: str
) -> None:
    """ValueError where several files may be recordings of several people."""
    unplaced = [key for key in devices if placement_in(key) is None]
    if len(unplaced) > 1:
        names = [own[0].name for own in devices.values()]
        raise ValueError(
            f"{source.locate(folder or '.')}: {joined(names[:4])} each hold a sensor, and no name "
            "says where it is worn, so they may be recordings of their own; put the files of each "
            "recording into a folder of its own, such as PERSON/RECORDING, or write "
            f"{DESCRIPTION} by hand"
        )


def _worn(placement: str | None) -> str:
    if placement is None:
        return "unknown  # guess: no name says where it is worn; write it"
    if placement == "{placement}":
        return '"{placement}"  # guess: the innermost folder says where it is worn'
    return f"{placement}  # guess: by its name"


def _worn_by_name(layout: NamedRecordings) -> str:
    worn = layout.placements
    if len(worn) < 2:
        return _worn(next(iter(worn.values()), None))
    pairs = ", ".join(f"{json.dumps(pattern)}: {name}" for pattern, name in worn.items())
    return f"{{{pairs}}}  # guess: by the names"


def _device(name: str, worn: str, files: list[_File]) -> Iterator[str]:
    yield f"  - name: {quote_yaml(name)}"
    yield f"    placement: {worn}"
    yield "    sensors:"
    seen: set[str] = set()
    for file in files:
        for sensor in file.guessed.sensors:
            if sensor.kind not in seen:
                seen.add(sensor.kind)
                yield from _sensor(file, sensor)


def _sensor(file: _File, sensor: GuessedSensor) -> Iterator[str]:
    others = _comment(file.guessed.others)
    yield f"      - file: {quote_yaml(file.name)}{f'  # not used: {others}' if others else ''}"
    for key, value in _form(file):
        yield f"        {key}: {value}"
    columns = ", ".join(f"{channel}: {quote_yaml(one)}" for channel, one in sensor.columns.items())
    named = file.found is None or file.found.names is not None
    reason = "by their names" if named and not file.name.endswith(".npy") else "by their positions"
    yield f"        columns: {{{columns}}}  # guess: {reason}"
    yield f"        unit: {sensor.unit}  # guess: {sensor.why}"
    yield f"        {_clock(file)}"


def _form(file: _File) -> list[tuple[str, str]]:
    return differing(file.found, TextForm(), header=True) if file.found else []


def _clock(file: _File) -> str:
    time = file.guessed.time
    if time is None:
        if file.rate_hz is None:
            return f"rate_hz:  # {OPEN_RATE}: no column of times, and nothing states it"
        return (
            f"rate_hz: {file.rate_hz:g}  # guess: the file says so; no times, so rows are taken as "
            "evenly spaced"
        )
    return f"time: {_time(time)}  # guess: {time.why}{_measured(time)}"


def _time(time: GuessedTime) -> str:
    names = [quote_yaml(column) for column in time.columns]
    column = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
    form = f", format: {quote_yaml(time.format)}" if time.format else ""
    return f"{{column: {column}, unit: {time.unit}{form}}}"


def _measured(time: GuessedTime) -> str:
    return f"; {time.rate_hz:.4g} rows a second" if time.rate_hz and time.unit == "iso" else ""


def _is_spans(file: _File) -> bool:
    """Whether a file lists spans of activities."""
    return file.guessed.label == "label" and {"start_s", "end_s"} <= set(file.guessed.others)


def _labels(files: list[_File], by_name: bool) -> Iterator[str]:
    """The labels of the first file that has some; none where names have the labels (by_name)."""
    for file in files:
        if file.guessed.label is None or by_name:
            continue
        if _is_spans(file):
            yield f"labels: {{file: {quote_yaml(file.name)}}}  # guess: by the columns' names"
            return
        form = "".join(f", {key}: {value}" for key, value in _form(file))
        time = file.guessed.time
        clock = f"time: {_time(time)}" if time else f"rate_hz: {file.rate_hz or ''}"
        yield (
            f"labels: {{file: {quote_yaml(file.name)}, "
            f"column: {quote_yaml(file.guessed.label)}{form}, {clock}}}"
            "  # guess: by the column's name"
        )
        return


def _read_head(source: Source, path: str) -> _File:
    """What a table seems to hold, by its first rows."""
    name = posixpath.basename(path)
    if name.lower().endswith(".npy"):
        return _File(name, None, guess_columns(Table(name, _array(source, path), False)), None)
    if is_parquet(path):
        return _File(name, None, guess_columns(Table(name, _parquet(source, path))), None)
    found = sniff(source, path)
    if found is None:
        return _File(name, None, Guessed([], None, None, ["no table is found in it"]), None)
    columns = _texts(source, path, found)
    guessed = guess_columns(Table(name, columns, found.names is not None))
    return _File(name, found, guessed, _stated_rate(source, path, found.form.skip_lines))


def _texts(source: Source, path: str, found: Sniffed) -> dict[str, np.ndarray | list[str]]:
    names = found.names or tuple(str(number) for number in range(len(found.rows[0])))
    once = [name for name in names if name and names.count(name) == 1]
    pieces = read_table(
        source,
        path,
        columns=(),
        text_columns=once,
        form=found.form,
        header=found.names is not None,
    )
    texts: dict[str, list[str]] = {name: [] for name in once}
    for piece in pieces:  # several: a recording may begin with minutes of rest
        for name, column in texts.items():
            column += piece[name].tolist()
        if all(len(column) >= MOST_ROWS for column in texts.values()):
            break
    return {name: typed(column[:MOST_ROWS], found.form.decimal) for name, column in texts.items()}


def _stated_rate(source: Source, path: str, lines: int) -> float | None:
    """A rate that the lines above the header state."""
    with source.open(path) as stream:
        head = b"".join(stream.readline(10_000) for _ in range(min(lines, 200)))
    match = _RATE.search(head.decode("utf-8", "replace"))
    rate_hz = float(match[1] or match[2]) if match else 0.0
    return rate_hz if 1 <= rate_hz <= 10_000 else None


def _parquet(source: Source, path: str) -> dict[str, np.ndarray | list[str] | pa.Array]:
    batch = next(parquet_batches(source, path, list)).slice(0, MOST_ROWS)
    columns: dict[str, np.ndarray | list[str] | pa.Array] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            columns[name] = np.asarray(numbers, dtype=np.float64)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            columns[name] = [text or "" for text in column.to_pylist()]
        else:
            columns[name] = column
    return columns


def _array(source: Source, path: str) -> dict[str, np.ndarray]:
    where = source.locate(path)
    with source.local(path) as local, decoding(where, in_memory=True):
        rows = np.lib.format.open_memmap(local, mode="r")[:MOST_ROWS]
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise ValueError(f"{where} holds {quoted(str(rows.dtype))} of shape {rows.shape}")
    return {str(column): rows[:, column].astype(np.float64) for column in range(rows.shape[1])}
