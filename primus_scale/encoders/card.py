"""The card of an exported encoder, ``card.json``: what it takes and where it is from.

It tells the encoder's input, its training data, the calibration of its features and its licence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from primus_scale.config import ConfigModel, EncoderConfig
from primus_scale.config_file import parse_config
from primus_scale.encoders.about import AboutCard
from primus_scale.encoders.base import ImuEncoder
from primus_scale.sample import CHANNELS, TEACHER_MODALITIES, UNITS, WindowFormat
from primus_scale.storage.foreign import parse_json
from primus_scale.storage.names import quoted

SCHEMA_VERSION = 1  # of card.json
CARD_FILE = "card.json"


class TeacherCard(ConfigModel):
    """The teacher behind a modality: width, embedding key, joint space, and name."""

    dim: int = Field(ge=1)
    key: str
    space: str
    teacher: str


class CalibrationCard(ConfigModel):
    """The calibration in the weights: its kind, the windows and sessions that it is from.

    features: their number, D of ``Embeddings``.
    """

    kind: Literal["none", "scaling", "whitening"] = "none"
    windows: int = Field(0, ge=0)
    sessions: int = Field(0, ge=0)
    features: int = Field(0, ge=0)


class EncoderCard(ConfigModel):
    """The content of ``card.json``; ``describe_encoder`` makes it, ``read_card`` reads it.

    ``data``, ``objective``, ``licence`` and ``about`` are for people; all else is needed to use the
    encoder.
    """

    schema_version: Literal[1] = 1
    rate_hz: float = Field(gt=0)
    window_samples: int = Field(ge=1)
    channels: tuple[str, ...]
    units: tuple[str, ...]
    encoder: EncoderConfig
    shared_head: bool
    near_head: bool = False
    teachers: dict[str, TeacherCard]
    calibration: CalibrationCard = CalibrationCard()  # cards of earlier versions have none
    parameters: int
    data: dict[str, Any]
    objective: dict[str, Any]
    licence: str
    about: AboutCard = AboutCard()  # a run leaves it empty
    weights_sha256: str = ""  # filled in when the weights are written

    def check_windows(self, found: WindowFormat, url: str) -> None:
        """ValueError naming ``url`` and the field where its windows are not the encoder's."""
        wanted = WindowFormat(self.channels, self.units, self.window_samples, self.rate_hz)
        names = ("channels", "units", "window_samples", "rate_hz")
        for name, theirs, own in zip(names, found, wanted, strict=True):
            if theirs != own:
                raise ValueError(
                    f"{url}: {name} is {theirs}, but the encoder takes {own} (its card.json); "
                    "write the shards that way, or give an encoder that fits"
                )


def describe_encoder(
    encoder: ImuEncoder,
    *,
    teachers: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, Any],
    objective: Mapping[str, Any],
    licence: str,
    channels: Sequence[str] = CHANNELS,
    units: Sequence[str] = UNITS,
) -> EncoderCard:
    """The card of ``encoder``.

    teachers: by modality the fields of ``TeacherCard``. data, objective: JSON values that tell
    where the weights come from. Raises ValueError where a field has a wrong type.
    """
    spec = encoder.spec
    tree = {
        "rate_hz": spec.rate_hz,
        "window_samples": spec.samples,
        "channels": tuple(channels),
        "units": tuple(units),
        "encoder": spec.config,
        "shared_head": spec.shared_head,
        "near_head": spec.near_head,
        "teachers": {modality: dict(teacher) for modality, teacher in teachers.items()},
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "data": dict(data),
        "objective": dict(objective),
        "licence": licence,
    }
    card = parse_config(EncoderCard, tree, source="encoder card")
    assert {name: t.dim for name, t in card.teachers.items()} == dict(spec.teacher_dims)
    assert len(card.channels) == len(card.units) == spec.channels
    return card


def read_card(directory: str | Path) -> EncoderCard:
    """The card of an exported encoder.

    Raises FileNotFoundError where ``directory`` holds no export, ValueError naming file and field
    where the card is damaged or of another schema version.
    """
    path = existing_file(Path(directory), CARD_FILE)
    tree = parse_json(path.read_bytes(), str(path), advice="export the encoder again")
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: schema_version is {version!r}, this program reads {SCHEMA_VERSION}; "
            "export the encoder again with this version of primus-scale"
        )
    card = parse_config(EncoderCard, tree, source=str(path))
    unknown = card.teachers.keys() - set(TEACHER_MODALITIES)
    if unknown:
        raise ValueError(
            f"{path}: teachers: {quoted(min(unknown))} is none of {TEACHER_MODALITIES}; "
            "export the encoder again"
        )
    return card


def existing_file(directory: Path, name: str) -> Path:
    """The file ``name`` of an export; FileNotFoundError where ``directory`` holds none."""
    path = directory / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} holds no complete exported encoder: {name} is missing; give the folder "
            "that a run, `primus-scale export` or `primus-scale import-weights` wrote, the name "
            "demo for the encoder in this package, or hf://OWNER/NAME"
        )
    return path
