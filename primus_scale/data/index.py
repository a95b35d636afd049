"""``index.json``: what a shard folder must contain.

It describes the windows (shape, units, rate, teachers), and gives for every tar file its size, its
sha256 and the position of each record. So a shard that is missing, short or altered is detected,
and never shortens an epoch silently. In the JSON a record is the row ``[offset, length, windows,
crc32]`` and a part of a session the row ``[session, windows, step_s]``; everything else has the
names of the fields below. The last field, ``sha256``, is the *seal*: the digest of the text before
it. An index whose seal does not fit is refused, and so is one of another schema.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter

from primus_scale.sample import TEACHER_MODALITIES, WindowFormat
from primus_scale.storage.folder import Folder, explain_write_errors
from primus_scale.storage.foreign import parse_json, reason
from primus_scale.storage.names import check_name, quoted
from primus_scale.storage.patience import Patience

SCHEMA_VERSION = 4
_READABLE = (3, SCHEMA_VERSION)  # 3: packed blocks without the column start_s
INDEX_NAME = "index.json"

_SEAL = "sha256"
_LEFT_OUT = ("tails", "sessions")  # fields of a shard that are left out of the JSON where empty
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class RecordEntry(NamedTuple):
    """Position of a record in its shard.

    ``offset`` and ``length`` (bytes) span all tar members of the record with their headers and
    padding, so one ranged read loads the record. ``crc32``: of these bytes. ``windows``: in it.
    """

    offset: _Count
    length: _Count
    windows: _Count
    crc32: Annotated[int, Field(ge=0, lt=2**32)]


class TailEntry(NamedTuple):
    """The end of a record, all members after its pictures: length in bytes, and ``crc32``."""

    length: _Count
    crc32: Annotated[int, Field(ge=0, lt=2**32)]


class SessionPart(NamedTuple):
    """Windows of a record that follow each other in one session, by recording and start time.

    session: ``session_id``. windows: how many. step_s: the median spacing of their starts within
    one recording, in seconds; 0 where no two of them are of one recording.
    """

    session: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    windows: Annotated[int, Field(ge=1, lt=2**63)]
    step_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class ShardEntry:
    """One tar file: its name in the folder, size in bytes, sha256 (hex) and records in order.

    tails: the part of each record after its pictures, for readers that need no pictures. Empty
    where no record begins with pictures. sessions: the parts of sessions that each record consists
    of, in its order. Empty in window shards, and where windows were packed in shuffled order.
    """

    __pydantic_config__ = _STRICT

    name: str
    size: _Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    records: tuple[RecordEntry, ...]
    tails: tuple[TailEntry, ...] = ()
    sessions: tuple[tuple[SessionPart, ...], ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, "shards", plain=True)
        position = 0
        for number, record in enumerate(self.records):
            if record.offset != position or record.length <= 0 or record.windows <= 0:
                raise ValueError(f"records[{number}] {tuple(record)} is not at byte {position}")
            position += record.length
        if position > self.size:
            raise ValueError(f"records end at byte {position}, beyond size {self.size}")
        for name in ("tails", "sessions"):
            count = len(getattr(self, name))
            if count not in (0, len(self.records)):
                raise ValueError(f"has {count} {name} for {len(self.records)} records")
        for number, (record, tail) in enumerate(zip(self.records, self.tails, strict=False)):
            if not 0 < tail.length <= record.length:
                raise ValueError(f"tails[{number}] is {tail.length} of {record.length} bytes long")
        for number, (record, parts) in enumerate(zip(self.records, self.sessions, strict=False)):
            windows = sum(part.windows for part in parts)
            if windows != record.windows:
                raise ValueError(f"sessions[{number}] has {windows} of {record.windows} windows")


@dataclass(frozen=True)
class TeacherSpace:
    """Teacher and width of the embeddings of one modality.

    ``key`` is the embedding key (digest of the teacher's weights and preprocessing), ``space`` the
    joint space it belongs to (the same for video and text of one CLIP), ``teacher`` its name.
    """

    __pydantic_config__ = _STRICT

    dim: Annotated[int, Field(ge=1)]
    key: str
    space: str
    teacher: str


@dataclass(frozen=True)
class ShardIndex:
    """Everything ``index.json`` says.

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
            for number, record in enumerate(shard.records):
                if self.kind == "window" and record.windows > 1:
                    raise ValueError(f"{shard.name}: records[{number}] holds more than one window")
                if record.windows * window > record.length:
                    raise ValueError(
                        f"{shard.name}: records[{number}] is {record.length} bytes long, too few "
                        f"for {record.windows} windows of {window} bytes"
                    )

    @cached_property
    def windows(self) -> int:
        """Number of windows in the folder."""
        return sum(record.windows for shard in self.shards for record in shard.records)

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
        return _digest(_dump(_tree(self)))


_ADAPTER = TypeAdapter(ShardIndex)
_ENTRY_ADAPTER = TypeAdapter(ShardEntry)


@dataclass(frozen=True)
class IndexFile:
    """An index that was read. seal: "broken" where the text differs from what was written."""

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

    Raises FileNotFoundError where there is none, OSError where it cannot be read (ConnectionError
    or TimeoutError after ``patience``), ValueError naming the file and the field where it is
    damaged or of another schema version.
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
        index = _ADAPTER.validate_json(content, strict=True)
    except ValueError as error:
        raise ValueError(f"{source}: {reason(error)}; write the shards again") from None
    return IndexFile(source, index, "whole" if data == _sealed(content, schema) else "broken")


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

    ValueError or TypeError, before anything is written, where it could not be read again.
    """
    content = _dump(_tree(_ADAPTER.validate_json(_dump(_tree(index)), strict=True)))
    folder = Folder(url)
    with explain_write_errors(folder.url):
        folder.create()
        with folder.staging(INDEX_NAME) as path:
            path.write_bytes(_sealed(content, SCHEMA_VERSION))


def _tree(index: ShardIndex) -> dict[str, Any]:
    """The fields of an index as JSON values (a record is a tuple)."""
    tree = {each.name: getattr(index, each.name) for each in fields(index)}
    tree["shards"] = [
        {name: value for name, value in vars(shard).items() if name not in _LEFT_OUT or value}
        for shard in index.shards
    ]
    tree["teachers"] = {modality: vars(space) for modality, space in index.teachers.items()}
    return tree


def _dump(tree: Any) -> str:
    return json.dumps(tree, separators=(",", ":"), allow_nan=False)


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _sealed(content: str, schema: int) -> bytes:
    """The text of the file whose fields are the JSON object ``content``."""
    text = f'{{"schema":{schema},{content[1:-1]}'
    seal = _digest(content if schema == 3 else text)  # which left the schema out
    return f'{text},"{_SEAL}":"{seal}"}}\n'.encode()


def _check_different(name: str, values: Iterable[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{name}: {quoted(twice[0])} is there twice")
