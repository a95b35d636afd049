"""``index.json``: the truth about a shard folder.

It says what the windows are (shape, units, rate, teachers), and for every tar file its size, its
sha256 and where each record lies, so that a shard which is missing, short or altered is detected
and never shortens an epoch silently. In the JSON a record is the row ``[offset, length, windows,
crc32]``; everything else goes by the names of the fields below.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError

from primus_scale.data.patience import Patience
from primus_scale.data.storage import Folder, explain_write_errors
from primus_scale.names import check_name
from primus_scale.sample import TEACHER_MODALITIES

SCHEMA_VERSION = 1
INDEX_NAME = "index.json"

_STRICT = ConfigDict(extra="forbid")


class RecordEntry(NamedTuple):
    """Where a record lies in its shard.

    ``offset`` and ``length`` (bytes) span all tar members of the record with their headers and
    padding, so one ranged read brings the record. ``crc32`` is that of these bytes.
    """

    offset: int
    length: int
    windows: int
    crc32: int


@dataclass(frozen=True)
class ShardEntry:
    """One tar file: its name in the folder, size in bytes, sha256 (hex) and records in order."""

    __pydantic_config__ = _STRICT

    name: str
    size: int
    sha256: str
    records: tuple[RecordEntry, ...]

    def __post_init__(self) -> None:
        check_name(self.name, "shards", plain=True)
        position = 0
        for number, record in enumerate(self.records):
            if record.offset != position or record.length <= 0 or record.windows <= 0:
                raise ValueError(f"records[{number}] {tuple(record)} is not at byte {position}")
            position += record.length
        if position > self.size:
            raise ValueError(f"records end at byte {position}, beyond size {self.size}")


@dataclass(frozen=True)
class TeacherSpace:
    """What the embeddings of one modality are.

    ``key`` is the embedding key (digest of the teacher's weights and preprocessing), ``space`` the
    joint space it belongs to (the same for video and text of one CLIP), ``teacher`` its name.
    """

    __pydantic_config__ = _STRICT

    dim: int
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
        if not all(map(math.isfinite, self.mean + self.std)):
            raise ValueError("mean and std must be finite")
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0 and self.window_samples > 0):
            raise ValueError("rate_hz and window_samples must be positive")
        if not self.windows:
            raise ValueError("shards hold no window")
        if self.teachers and self.kind != "packed":
            raise ValueError("teachers must be empty unless kind is packed")
        unknown = set(self.teachers) - set(TEACHER_MODALITIES)
        if unknown:
            raise ValueError(f"teachers: {sorted(unknown)} are none of {TEACHER_MODALITIES}")

    @cached_property
    def windows(self) -> int:
        """Number of windows in the folder."""
        return sum(record.windows for shard in self.shards for record in shard.records)

    @property
    def window_s(self) -> float:
        """Length of a window in seconds."""
        return self.window_samples / self.rate_hz


_ADAPTER = TypeAdapter(ShardIndex)
_ENTRY_ADAPTER = TypeAdapter(ShardEntry)


def read_index(url: str, patience: Patience | None = None) -> ShardIndex:
    """Read and check ``index.json`` of the shard folder at ``url``.

    Raises FileNotFoundError where there is none, OSError where it cannot be read (ConnectionError
    or TimeoutError after ``patience``), ValueError naming the file and the field where it is
    damaged or of another schema version.
    """
    folder = Folder(url, patience or Patience())
    source = folder.locate(INDEX_NAME)
    try:
        text = folder.read(INDEX_NAME)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no {source}; check the URL, or write the folder with primus-scale shards build "
            "(a folder whose writing was interrupted has no index)"
        ) from None
    except (ConnectionError, TimeoutError):
        raise  # says it all, and may pass
    except OSError as error:
        raise OSError(f"cannot read {source}: {error}; check the URL and credentials") from error
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{source} is damaged ({error}); write the shards again") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{source} holds no JSON object; write the shards again")
    schema = tree.pop("schema", None)
    if schema != SCHEMA_VERSION:
        raise ValueError(
            f"{source}: field schema is {schema!r}, this version of primus-scale reads "
            f"{SCHEMA_VERSION}; write the shards again, or use the version that wrote them"
        )
    try:
        return _ADAPTER.validate_python(tree)
    except ValidationError as error:
        raise ValueError(f"{source}: {_explain(error)}; write the shards again") from None


def parse_shard_entry(tree: Any) -> ShardEntry:
    """The entry that was kept as JSON (``dataclasses.asdict``); ValueError where it is damaged."""
    return _ENTRY_ADAPTER.validate_python(tree)


def write_index(index: ShardIndex, url: str) -> None:
    """Write ``index.json`` into the folder at ``url``, in one step: whole or not at all."""
    tree = {"schema": SCHEMA_VERSION, **asdict(index)}
    folder = Folder(url)
    with explain_write_errors(folder.url):
        folder.create()
        with folder.staging(INDEX_NAME) as path:
            path.write_text(json.dumps(tree, separators=(",", ":"), allow_nan=False) + "\n")


def _explain(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"field {where}: {problem['msg']}" if where else str(problem["msg"])
