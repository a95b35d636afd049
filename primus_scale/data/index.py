"""``index.json``: what a shard folder must contain.

It describes the windows (shape, units, rate, teachers), and gives for every tar file its size, its
sha256 and the position of each record. So a shard that is missing, short or altered is detected,
and never shortens an epoch silently. In the JSON a record is the row ``[offset, length, windows,
crc32]``, and a part of a session is the row ``[session, windows, step_s]``. Everything else has the
names of the fields below. Very many records are in a file of columns instead (``record_columns``),
which the field ``record_file`` describes. The last field, ``sha256``, is the *seal*: the digest of
the text before it. An index whose seal does not fit is refused, and so is one of another schema.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationInfo

from primus_scale.data.record_columns import (
    RECORDS_NAME,
    Count,
    RecordColumns,
    RecordEntry,
    RecordFileEntry,
    TailEntry,
    check_positions,
    check_tails,
    columns_of,
    pack_records,
    read_records,
    write_records,
)
from primus_scale.sample import TEACHER_MODALITIES, WindowFormat
from primus_scale.storage.folder import Folder, explain_write_errors
from primus_scale.storage.foreign import parse_json, reason
from primus_scale.storage.names import check_name, quoted
from primus_scale.storage.patience import Patience

SCHEMA_VERSION = 4
_READABLE = (3, SCHEMA_VERSION)  # 3: packed blocks without the column start_s
INDEX_NAME = "index.json"

RECORDS_IN_JSON = 65_536  # if there are more, they go into the file of columns; 30 to 40 bytes each

_SEAL, _FILE = "sha256", "record_file"  # fields of the JSON that ``ShardIndex`` lacks
_LEFT_OUT = ("tails", "sessions")  # fields of a shard that are left out of the JSON where empty
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class SessionPart(NamedTuple):
    """Windows of a record that follow each other in one session, by recording and start time.

    session: ``session_id``. windows: how many. step_s: the median spacing of their starts within
    one recording, in seconds; 0 where no two of them are of one recording.
    """

    session: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    windows: Annotated[int, Field(ge=1, lt=2**63)]
    step_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _rows_or_columns(rows: tuple[Any, ...], info: ValidationInfo) -> Sequence[Any]:
    """Records or tails of a shard: those in the JSON, or from the file of columns if there is one.

    The context of the validation is the content of that file.
    """
    if info.context is None:
        return rows
    if rows:
        raise ValueError("stands in the index, which has a record_file as well")
    columns = cast(RecordColumns, info.context)
    return columns.next_records() if info.field_name == "records" else columns.tails()


if TYPE_CHECKING:
    _Records: TypeAlias = Sequence[RecordEntry]
    _Tails: TypeAlias = Sequence[TailEntry]
else:
    _Records = Annotated[tuple[RecordEntry, ...], AfterValidator(_rows_or_columns)]
    _Tails = Annotated[tuple[TailEntry, ...], AfterValidator(_rows_or_columns)]


@dataclass(frozen=True)
class ShardEntry:
    """One tar file: its name in the folder, size in bytes, sha256 (hex) and records in order.

    tails: the part of each record after its pictures, for readers that need no pictures. Empty
    where no record begins with pictures. sessions: the parts of sessions that each record consists
    of, in their order. Empty in window shards, and where windows were packed in shuffled order.
    Records and tails are tuples, or ``Columns`` where they come from a file of columns.
    """

    __pydantic_config__ = _STRICT

    name: str
    size: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    records: _Records
    tails: _Tails = ()
    sessions: tuple[tuple[SessionPart, ...], ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, "shards", plain=True)
        check_positions(self.records, self.size)
        for name in ("tails", "sessions"):
            count = len(getattr(self, name))
            if count not in (0, len(self.records)):
                raise ValueError(f"has {count} {name} for {len(self.records)} records")
        if len(self.tails):
            check_tails(self.records, self.tails)
        for number, parts in enumerate(self.sessions):
            windows, record = sum(part.windows for part in parts), self.records[number]
            if windows != record.windows:
                raise ValueError(f"sessions[{number}] has {windows} of {record.windows} windows")


@dataclass(frozen=True)
class TeacherSpace:
    """Teacher and width of the embeddings of one modality.

    key: the embedding key, a digest of the teacher's weights and preprocessing. space: the joint
    space; video and text of one CLIP have the same. teacher: the teacher's name.
    """

    __pydantic_config__ = _STRICT

    dim: Annotated[int, Field(ge=1)]
    key: str
    space: str
    teacher: str


@dataclass(frozen=True)
class ShardIndex:
    """The content of ``index.json``.

    kind: "window" (one window a record) or "packed" (a block of windows a record). mean and std
    are those of each channel over all samples, in ``units``; std is 0 for a constant channel.
    labels: class names, which label ids index. teachers: by modality, packed shards only.
    provenance: free JSON (seed, sources, whether the data is synthetic).
    """

    __pydantic_config__ = _STRICT

    kind: Literal["window", "packed"]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float
    window_samples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shards: tuple[ShardEntry, ...]
    labels: tuple[str, ...] = ()
    teachers: dict[str, TeacherSpace] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("units", "mean", "std"):
            if len(getattr(self, name)) != len(self.channels):
                raise ValueError(f"{name} must have one value for each of channels {self.channels}")
        if not all(map(math.isfinite, self.mean + self.std)) or min(self.std, default=0) < 0:
            raise ValueError("mean and std must be finite, std not negative")
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0 and self.window_samples > 0):
            raise ValueError("rate_hz and window_samples must be positive")
        if not self.windows:
            raise ValueError("shards hold no window")
        if self.teachers and self.kind != "packed":
            raise ValueError("teachers must be empty unless kind is packed")
        with_sessions = {bool(shard.sessions) for shard in self.shards if shard.records}
        if True in with_sessions and self.kind != "packed":
            raise ValueError("shards: sessions must be empty unless kind is packed")
        if len(with_sessions) > 1:
            raise ValueError("shards: some have sessions, others have none")
        unknown = set(self.teachers) - set(TEACHER_MODALITIES)
        if unknown:
            raise ValueError(f"teachers: {sorted(unknown)} are none of {TEACHER_MODALITIES}")
        _check_different("channels", self.channels)
        _check_different("labels", self.labels)
        _check_different("shards: names", [shard.name for shard in self.shards])
        _check_different("shards: sha256", [s.sha256 for s in self.shards if s.records])
        self._check_lengths()

    def _check_lengths(self) -> None:
        """Check that records are long enough for their windows.

        So a forged count cannot make a reader allocate more memory than the record has bytes.
        """
        samples = 4 * len(self.channels) * self.window_samples
        window = samples + 2 * sum(space.dim for space in self.teachers.values())
        for shard in self.shards:
            _, length, windows, _ = columns_of(shard.records, 4)
            most = int(windows.max()) if len(windows) else 0
            fit = not most or most * window <= int(length.min())
            if fit and (self.kind == "packed" or most <= 1):
                continue
            if self.kind == "window" and (windows > 1).any():
                number = int(np.argmax(windows > 1))
                raise ValueError(f"{shard.name}: records[{number}] holds more than one window")
            short = windows > length // min(window, 2**62)
            if short.any():
                record = shard.records[number := int(np.argmax(short))]
                raise ValueError(
                    f"{shard.name}: records[{number}] is {record.length} bytes long, too few "
                    f"for {record.windows} windows of {window} bytes"
                )

    @cached_property
    def windows(self) -> int:
        """Number of windows in the folder."""
        return sum(int(columns_of(s.records, 4)[2].sum(dtype=np.int64)) for s in self.shards)

    @property
    def window_format(self) -> WindowFormat:
        """What the samples of the windows mean."""
        return WindowFormat(self.channels, self.units, self.window_samples, self.rate_hz)

    @property
    def window_s(self) -> float:
        """Length of a window in seconds."""
        return self.window_samples / self.rate_hz

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of the whole content of the index, the shards' checksums included."""
        return _digest(_dump(_contents(self)[0]))


_ADAPTER = TypeAdapter(ShardIndex)
_ENTRY_ADAPTER = TypeAdapter(ShardEntry)
_FILE_ADAPTER = TypeAdapter(RecordFileEntry)


@dataclass(frozen=True)
class IndexFile:
    """An index as read from ``source``. seal: "broken" where its text was altered."""

    source: str
    index: ShardIndex
    seal: Literal["whole", "broken"]

    def check_seal(self) -> None:
        """ValueError where the seal is broken."""
        if self.seal == "broken":
            raise ValueError(
                f"{self.source} is not what was written: its text does not fit its field {_SEAL}; "
                "copy it again from where it is whole, or write the shards again"
            )


def read_index(url: str, patience: Patience | None = None) -> ShardIndex:
    """Read and check ``index.json`` of the shard folder at ``url``.

    Errors as ``read_index_file``; ValueError also where the seal is broken.
    """
    file = read_index_file(url, patience)
    file.check_seal()
    return file.index


def read_index_file(url: str, patience: Patience | None = None) -> IndexFile:
    """Read ``index.json`` of the shard folder at ``url``, and check all but its seal.

    Raises FileNotFoundError where there is none, and OSError where it cannot be read
    (ConnectionError or TimeoutError after ``patience``). Raises ValueError, with the file and the
    field, where it is damaged or of another schema version.
    """
    folder = Folder(url, patience or Patience())
    source = folder.locate(INDEX_NAME)
    try:
        data = folder.read(INDEX_NAME)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no {source}; check the URL, or write the folder with primus-scale shards build "
            "(a folder whose writing was interrupted has no index)"
        ) from None
    except (ConnectionError, TimeoutError):
        raise  # its message is complete, and a retry may help
    except OSError as error:
        raise OSError(f"cannot read {source}: {error}; check the URL and credentials") from error
    tree = parse_json(data, source, advice="write the shards again")
    if not isinstance(tree, dict):
        raise ValueError(f"{source} holds no JSON object; write the shards again")
    schema = tree.pop("schema", None)
    if schema not in _READABLE or type(schema) is not int:
        raise ValueError(
            f"{source}: field schema is {quoted(schema)}, this version of primus-scale reads "
            f"{' and '.join(map(str, _READABLE))}; {_how_to_write_again(folder.url, tree)}, or use "
            "the version that wrote them"
        )
    tree.pop(_SEAL, None)
    try:
        content = _dump(tree)
        index = _parse(tree, lambda entry: read_records(entry, folder))
    except ValueError as error:
        if folder.locate(RECORDS_NAME) in str(error):
            raise  # it names the file of columns already
        raise ValueError(f"{source}: {reason(error)}; write the shards again") from None
    vars(index)["digest"] = _digest(content)  # fills the cache: to dump many records takes long
    return IndexFile(source, index, "whole" if data == _sealed(content, schema) else "broken")


def _parse(tree: Mapping[str, Any], read: Callable[[RecordFileEntry], RecordColumns]) -> ShardIndex:
    """The index that a JSON object describes. read: reads the file of columns, if it names one."""
    rest = {name: value for name, value in tree.items() if name != _FILE}
    columns = None
    if _FILE in tree:
        try:
            entry = _FILE_ADAPTER.validate_json(_dump(tree[_FILE]), strict=True)
        except ValueError as error:
            raise ValueError(f"{_FILE}: {reason(error)}") from None
        columns = read(entry)
    index = _ADAPTER.validate_json(_dump(rest), strict=True, context=columns)
    if columns is not None:
        columns.check_all_taken()
    return index


def _how_to_write_again(url: str, tree: Mapping[str, Any]) -> str:
    """The commands that write the folder at ``url``, whose index is of another schema."""
    build = "primus-scale shards build"
    if tree.get("kind") != "packed":
        return f"write the shards again ({build} NAME --out {url} --overwrite)"
    embed = f"primus-scale shards embed --src WINDOWS --out {url} --overwrite"
    return (
        f"write the shards again ({embed}; its window shards first, with {build}, where they are "
        "of that schema too)"
    )


def parse_shard_entry(tree: Any) -> ShardEntry:
    """The entry of the JSON value ``tree`` (``dataclasses.asdict``); ValueError if damaged."""
    return _ENTRY_ADAPTER.validate_python(tree)


def write_index(index: ShardIndex, url: str) -> None:
    """Write ``index.json`` into the folder at ``url``, whole or not at all.

    If there are more than ``RECORDS_IN_JSON`` records, a file with their columns is written first.
    ValueError or TypeError, before anything is written, where it could not be read again.
    """
    tree, columns = _contents(index)
    # What is written is what a reader would make of it, so a wrong index fails here.
    as_read = _parse(json.loads(_dump(tree)), lambda _: cast(RecordColumns, columns))
    tree, columns = _contents(as_read)
    folder = Folder(url)
    with explain_write_errors(folder.url):
        folder.create()
        if columns is not None:
            write_records(columns, folder)
        with folder.staging(INDEX_NAME) as path:
            path.write_bytes(_sealed(_dump(tree), SCHEMA_VERSION))


def _contents(index: ShardIndex) -> tuple[dict[str, Any], RecordColumns | None]:
    """Fields of an index as JSON values (records as tuples), and columns that go into a file."""
    tree = {each.name: getattr(index, each.name) for each in fields(index)}
    tree["shards"] = shards = [
        {name: value for name, value in vars(shard).items() if name not in _LEFT_OUT or len(value)}
        for shard in index.shards
    ]
    tree["teachers"] = {modality: vars(space) for modality, space in index.teachers.items()}
    if sum(len(shard.records) for shard in index.shards) <= RECORDS_IN_JSON:
        for shard in shards:
            shard |= {name: tuple(shard[name]) for name in ("records", "tails") if name in shard}
        return tree, None
    columns = pack_records([(shard.records, shard.tails) for shard in index.shards])
    emptied = {"records": (), "tails": ()} if columns.entry.tails else {"records": ()}
    for shard in shards:
        shard |= emptied
    return {**tree, _FILE: vars(columns.entry)}, columns


def _dump(tree: Any) -> str:
    return json.dumps(tree, separators=(",", ":"), allow_nan=False)


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _sealed(content: str, schema: int) -> bytes:
    """The text of the index file whose other fields are the JSON object ``content``."""
    text = f'{{"schema":{schema},{content[1:-1]}'
    seal = _digest(content if schema == 3 else text)  # schema 3 left its number out of the seal
    return f'{text},"{_SEAL}":"{seal}"}}\n'.encode()


def _check_different(name: str, values: Iterable[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{name}: {quoted(twice[0])} is there twice")
