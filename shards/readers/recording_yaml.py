"""What a user writes of own recordings: ``recording.yaml``, and ``windows.yaml`` for other sensors.

described = load_yaml(RecordingFile, source, "anna/recording.yaml")

Every key is a field of a model below; `docs/folder.md` shows them. Keys are checked as those of a
run's configuration are: an unknown one is an error that names the nearest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    BaseModel,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from primus_scale.config import ConfigModel
from primus_scale.storage.names import check_name, quoted
from primus_scale.storage.yaml_text import MOST_BYTES, read_yaml
from shards.files.source import Source
from shards.nearest import nearest
from shards.readers.table_yaml import FARTHEST_S, FilePath, LabelsFile, SensorFile
from shards.recording import WindowSchema
from shards.signal.condition import UNIT_FACTORS

PERSON = "{person}"
PLACEMENT = "{placement}"
_MOST_TOLD = 10  # faults of a file in one message


def _parse_placement(placement: object) -> str | Mapping[str, str]:
    texts = list(placement.values()) if isinstance(placement, Mapping) else [placement]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(
            "write where it is worn, such as left wrist, or a mapping of patterns of folders to "
            "that, such as {left: left wrist, right: right wrist}"
        )
    return placement  # type: ignore[return-value]  # checked above


class DeviceFile(ConfigModel):
    """A body of sensors at one placement. rate_hz: nominal, for the report.

    placement: where it is worn; with ``{placement}`` in it, that of the folder; or, by a pattern
    of the folders that have it (the first that fits).
    """

    name: str = Field(min_length=1)
    placement: Annotated[str | Mapping[str, str], PlainValidator(_parse_placement)]
    sensors: tuple[SensorFile, ...] = Field(min_length=1)
    rate_hz: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _check_channels(self) -> DeviceFile:
        twice = _twice(channel for sensor in self.sensors for channel in sensor.columns)
        if twice:
            raise ValueError(f"two of its sensors have the channel {twice}; name each once")
        return self


class VideoFile(ConfigModel):
    """A video. start_s: time of its beginning; quarter_turns: anticlockwise, to make it upright.

    quarter_turns come after the rotation that the file itself states.
    """

    file: FilePath
    start_s: float = Field(0.0, ge=-FARTHEST_S, le=FARTHEST_S)
    quarter_turns: int = Field(0, ge=0, le=3)


class NarrationsFile(ConfigModel):
    """Narrations; ``offset_s`` is added to their times."""

    file: FilePath
    offset_s: float = Field(0.0, ge=-FARTHEST_S, le=FARTHEST_S)


class RecordingFile(ConfigModel):
    """One recording, or with ``recordings`` all of those folders that are laid out alike.

    recordings: pattern of the folders below that of the file, such as ``{person}/*`` or
    ``{person}/{placement}``.
    """

    person: str | None = Field(None, min_length=1)
    devices: tuple[DeviceFile, ...] = Field(min_length=1)
    name: str | None = Field(None, min_length=1)
    dataset: str = Field("folder", min_length=1)
    recordings: str | None = Field(None, min_length=1)
    video: VideoFile | None = None
    narrations: NarrationsFile | None = None
    labels: LabelsFile | None = None

    @model_validator(mode="after")
    def _check_names(self) -> RecordingFile:
        by_folder = self.recordings is not None and PERSON in self.recordings
        if (self.person is None) != by_folder:
            raise ValueError(
                f"give either person or, where people have folders, recordings with {PERSON} in it"
            )
        if self.recordings is not None and self.name is not None:
            raise ValueError("name is of one recording; those of recordings are named by folder")
        placed = self.recordings is not None and PLACEMENT in self.recordings
        if not placed and any(PLACEMENT in str(device.placement) for device in self.devices):
            raise ValueError(f"write {PLACEMENT} in recordings too, where folders are called so")
        twice = _twice(device.name for device in self.devices)
        if twice:
            raise ValueError(f"two devices are called {twice}; give each its own name")
        return self

    @field_validator("recordings")
    @classmethod
    def _check_pattern(cls, pattern: str) -> str:
        names = pattern.replace(PERSON, "").replace(PLACEMENT, "")
        twice = pattern.count(PERSON) > 1 or pattern.count(PLACEMENT) > 1
        if twice or "**" in pattern or pattern.count("*") > 8 or set(names) & set("{}[]?\\"):
            raise ValueError(
                f"{quoted(pattern)} may hold names, * and one {PERSON} and {PLACEMENT}, such as "
                f"{PERSON}/*"
            )
        return check_name(pattern.removeprefix("./").rstrip("/"), "recordings")

    def sensors(self) -> dict[str, SensorFile]:
        """All sensors, by the dotted field that each stands at."""
        return {
            f"devices.{d}.sensors.{s}": sensor
            for d, device in enumerate(self.devices)
            for s, sensor in enumerate(device.sensors)
        }

    def files(self) -> dict[str, str]:
        """All files it names, by the dotted field that does."""
        named = {f"{field}.file": sensor.file for field, sensor in self.sensors().items()}
        for field in ("video", "narrations", "labels"):
            if (entry := getattr(self, field)) is not None:
                named[f"{field}.file"] = entry.file
        return named


class WindowsFile(ConfigModel):
    """The windows to make. channels: each with its unit, in the order of the windows' rows."""

    channels: dict[str, str] = Field(min_length=1)
    rate_hz: float = Field(WindowSchema.rate_hz, gt=0)
    window_s: float = Field(WindowSchema.window_s, gt=0)

    @field_validator("channels")
    @classmethod
    def _check_units(cls, channels: dict[str, str]) -> dict[str, str]:
        for channel, unit in channels.items():
            kept, _ = UNIT_FACTORS.get(unit, ("", 1.0))
            if unit != kept:
                known = dict.fromkeys(kept for kept, _ in UNIT_FACTORS.values())
                hint = f"write {kept}" if kept else f"known are {', '.join(known)}"
                raise ValueError(f"{channel} cannot be in {unit!r} in windows; {hint}")
        return channels


ModelT = TypeVar("ModelT", bound=ConfigModel)


def load_yaml(model: type[ModelT], source: Source, path: str) -> ModelT:
    """The YAML file at ``path`` as ``model``.

    ValueError naming file, field and the next step where it is no YAML, or a key is unknown (with
    the nearest known one), missing, there twice or has a wrong value.
    """
    where = source.locate(path)
    try:
        tree = read_yaml(source.read_whole(path, MOST_BYTES), texts_only=True)
    except ValueError as error:
        raise ValueError(f"{where} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{where} holds no keys with values; docs/folder.md shows an example")
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = error.errors()
        told = [_explain(model, dict(problem)) for problem in problems[:_MOST_TOLD]]
        if more := len(problems) - len(told):
            told.append(f"and {more} more")
        raise ValueError(f"{where}: {'; '.join(told)}") from None


def _twice(names: Any) -> str:
    """The first name that is there more than once, or nothing."""
    return next((name for name, count in Counter(names).items() if count > 1), "")


def _explain(model: type[BaseModel], problem: dict[str, Any]) -> str:
    *around, last = problem["loc"] or ("",)
    location = ".".join([*map(str, around), quoted(str(last))[1:-1]])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {location}{nearest(str(last), list(_model_at(model, around)))}"
    if problem["type"] == "missing":
        return f"{location} is missing; write it"
    message = str(problem["msg"]).removeprefix("Value error, ")
    got = "" if problem["type"] == "value_error" else f" (got {quoted(problem['input'])})"
    return f"{location}: {message:.500}{got}" if location else f"{message:.500}{got}"


def _model_at(model: type[BaseModel], location: list[str | int]) -> Mapping[str, object]:
    """Fields of the model that stands at ``location``, which goes through tuples and options."""
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            model = next(
                kind
                for kind in (annotation, *get_args(annotation))
                if isinstance(kind, type) and issubclass(kind, BaseModel)
            )
    return model.model_fields
