"""What a user writes of own recordings: ``recording.yaml``, and ``windows.yaml`` for other sensors.

described = load_yaml(RecordingFile, source, "anna/recording.yaml")

Every key is a field of a model below; `docs/folder.md` shows them. Keys are checked as those of a
run's configuration are: an unknown one is an error that names the nearest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from primus_scale.config import ConfigModel
from primus_scale.signal.units import UNIT_FACTORS
from primus_scale.storage.names import nearest, quoted
from primus_scale.storage.yaml_text import MOST_BYTES, read_yaml
from shards.files.source import Source
from shards.readers.name_patterns import (
    LABEL,
    PERSON,
    PLACEMENT,
    RECORDING,
    SESSION,
    check_pattern,
)
from shards.readers.table_yaml import FARTHEST_S, FilePath, LabelsFile, SensorFile
from shards.recording import WindowSchema

_MOST_FAULTS = 10  # faults of a file in one message


def _parse_placement(placement: object) -> str | Mapping[str, str]:
    return _texts(
        placement,
        "write where it is worn, such as left wrist, or a mapping of patterns of folders to "
        "that, such as {left: left wrist, right: right wrist}",
    )


def _parse_label(label: object) -> str | Mapping[str, str]:
    return _texts(
        label,
        "write the activity of the whole recording, such as walking, or a mapping of patterns of "
        "names to that, such as {wlk: walking, jog: jogging}",
    )


def _texts(given: object, advice: str) -> str | Mapping[str, str]:
    """A text, or texts by pattern; ValueError with the advice for anything else."""
    texts = list(given.values()) if isinstance(given, Mapping) else [given]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(advice)
    return given  # type: ignore[return-value]  # checked above


class DeviceFile(ConfigModel):
    """A body of sensors at one placement. rate_hz: nominal, for the report.

    placement: where it is worn; with ``{placement}`` in it, that of the recording's name; or, by a
    pattern of the names that have it (the first that fits).
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
    """One recording, or with ``recordings`` all of those that are laid out alike.

    recordings: pattern of the folders below that of the file, such as ``{person}/*`` or
    ``{person}/{placement}``; or of the part of files' names that they write ``{recording}`` for.
    label: activity of the whole recording, given as a placement is. session: name of the wearing
    that the recording is of, where it is one of several.
    """

    person: str | None = Field(None, min_length=1)
    session: str | None = Field(None, min_length=1)
    devices: tuple[DeviceFile, ...] = Field(min_length=1)
    name: str | None = Field(None, min_length=1)
    dataset: str = Field("folder", min_length=1)
    recordings: Annotated[str, Field(min_length=1), AfterValidator(check_pattern)] | None = None
    video: VideoFile | None = None
    narrations: NarrationsFile | None = None
    labels: LabelsFile | None = None
    label: Annotated[str | Mapping[str, str], PlainValidator(_parse_label)] | None = None

    @model_validator(mode="after")
    def _check_names(self) -> RecordingFile:
        by_name = self.recordings is not None and PERSON in self.recordings
        if (self.person is None) != by_name:
            raise ValueError(
                "give either person or, where folders or files are called after people, "
                f"recordings with {PERSON} in it"
            )
        if self.session is not None and SESSION in (self.recordings or ""):
            raise ValueError(f"give either session or recordings with {SESSION} in it")
        if self.recordings is not None and self.name is not None:
            raise ValueError("name is of one recording; those of recordings have their own")
        twice = _twice(device.name for device in self.devices)
        if twice:
            raise ValueError(f"two devices are called {twice}; give each its own name")
        if self.label is not None and self.labels is not None:
            raise ValueError("give either label (of the whole recording) or labels (a file)")
        return self

    @model_validator(mode="after")
    def _check_wildcards(self) -> RecordingFile:
        pattern = self.recordings or ""
        placements = [device.placement for device in self.devices]
        for wildcard, given in ((PLACEMENT, placements), (LABEL, self.label)):
            if wildcard not in pattern and wildcard in str(given):
                raise ValueError(f"write {wildcard} in recordings too, where names say it")
        if LABEL in pattern and self.label is None:
            raise ValueError(
                f'recordings has {LABEL}; write what it says, such as label: "{LABEL}"'
            )
        files = self.files()
        without = [field for field, file in files.items() if RECORDING not in file]
        if self.by_file and not pattern:
            raise ValueError(
                f"write recordings too, such as {PERSON}_*: what {RECORDING} in names stands for"
            )
        if self.by_file and without:
            raise ValueError(
                f"{without[0]}: {quoted(files[without[0]])} would be of all recordings; write "
                f"{RECORDING} in it, as in the names of the other files"
            )
        return self

    @property
    def by_file(self) -> bool:
        """Whether the files of one folder are several recordings."""
        return any(RECORDING in file for file in self.files().values())

    def of(self, recording: str) -> RecordingFile:
        """The description of one recording: ``{recording}`` in names of files is its name."""

        def named(file: Any) -> Any:
            name = file.file.replace(RECORDING, recording)
            return file.model_copy(update={"file": name})

        devices = tuple(
            device.model_copy(update={"sensors": tuple(map(named, device.sensors))})
            for device in self.devices
        )
        others = {
            field: named(file)
            for field in ("video", "narrations", "labels")
            if (file := getattr(self, field)) is not None
        }
        return self.model_copy(update={"devices": devices, **others})

    def sensors(self) -> dict[str, SensorFile]:
        """All sensors, each by the dotted name of its field."""
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

    Raises ValueError where it is no YAML, or a key is unknown (with the nearest known one),
    missing, there twice or has a wrong value. It names file, field and the next step.
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
        problems = _causes(error.errors())
        faults = [_explain(model, dict(problem)) for problem in problems[:_MOST_FAULTS]]
        if more := len(problems) - len(faults):
            faults.append(f"and {more} more")
        raise ValueError(f"{where}: {'; '.join(faults)}") from None


def _causes(problems: Sequence[Any]) -> list[Any]:
    """Without those of lists that seem too short because an entry of them is faulty."""
    places = [problem["loc"] for problem in problems]
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(place[: len(problem["loc"])] == problem["loc"] != place for place in places)
    ]


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
    if problem["input"] == "":
        return f"{location} has no value; write it, or take the key away"
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
