"""Exported encoders: a folder with ``encoder.safetensors`` and ``card.json``, free of DeepSpeed.

Users of a pretrained encoder call ``load_encoder``. The card describes the input of the encoder,
its training data, the calibration of its features and its licence.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import Field

from primus_scale.config import ConfigModel, EncoderConfig
from primus_scale.config_file import parse_config
from primus_scale.encoders import build_encoder
from primus_scale.encoders.base import ImuEncoder
from primus_scale.encoders.calibration import FeatureCalibration
from primus_scale.encoders.pretrained import PretrainedEncoder
from primus_scale.sample import CHANNELS, TEACHER_MODALITIES, UNITS, WindowFormat
from primus_scale.storage.foreign import decoding, parse_json
from primus_scale.storage.names import quoted

SCHEMA_VERSION = 1  # of card.json
WEIGHTS_FILE = "encoder.safetensors"
CARD_FILE = "card.json"
ENCODER_FOLDER = "encoder"  # of a run


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

    ``data`` and ``objective`` are free JSON for people; all else is needed to use the encoder.
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


def save_encoder(encoder: ImuEncoder, directory: str | Path, card: EncoderCard) -> None:
    """Write ``encoder`` (as float32) and its card into the local folder ``directory``.

    An earlier export in the folder is replaced after the new one is completely written. Raises
    ValueError where a weight is not finite, OSError naming the folder where it cannot be written;
    an earlier export does not change then.
    """
    assert (encoder.calibration is None) == (card.calibration.kind == "none")
    tensors = {}
    for name, tensor in encoder.state_dict().items():
        assert tensor.numel(), f"{name} is partitioned by ZeRO-3: gather the weights first"
        if not torch.isfinite(tensor).all():
            raise ValueError(f"weight {name} is not finite; export an earlier checkpoint")
        tensors[name] = tensor.detach().float().cpu().contiguous()
    weights = safetensors.torch.save(tensors)
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    text = json.dumps(card.model_dump(mode="json"), indent=2) + "\n"
    try:
        _replace_export(Path(directory), weights, text.encode("utf-8"))
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the encoder to {directory} ({error.strerror}); "
            "free some space there or choose another output folder",
        ) from error


def read_card(directory: str | Path) -> EncoderCard:
    """The card of an exported encoder.

    Raises FileNotFoundError where ``directory`` holds no export, ValueError naming file and field
    where the card is damaged or of another schema version.
    """
    path = _existing(Path(directory), CARD_FILE)
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


def load_encoder(directory: str | Path, *, calibrated: bool = True) -> PretrainedEncoder:
    """The exported encoder in ``directory``, or in ``encoder`` below a run's folder.

    It is on the CPU, float32, in evaluation mode. ``encoder(imu)`` takes imu ``(B, C, T)`` float32
    in the units of its card and gives ``Embeddings``; ``encoder.encode`` takes arrays of other
    rates and units. In evaluation mode it raises ValueError where a sample is not finite.
    calibrated: ``features`` take the calibration that the export holds, if any. False gives the
    features that the heads read; the outputs of the heads are the same in both cases.

    Raises FileNotFoundError where a file is missing, ValueError naming the file where it is
    damaged or does not fit its card.
    """
    directory = find_export(directory)
    card = read_card(directory)
    path = _existing(directory, WEIGHTS_FILE)
    weights = path.read_bytes()
    if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
        raise ValueError(
            f"{path} is damaged or of another export (its sha256 is not weights_sha256 of "
            f"{CARD_FILE}); copy or export the encoder again"
        )
    with decoding(
        f"{path} does not fit encoder {card.encoder.name!r} of {CARD_FILE}",
        advice="export the encoder again",
        in_memory=True,
    ):
        encoder = _empty_encoder(card)
        encoder.load_state_dict(safetensors.torch.load(weights), assign=True)
    if not calibrated:
        encoder.calibration = None
        encoder.card = card.model_copy(update={"calibration": CalibrationCard()})
    return encoder.eval()


def find_export(directory: str | Path) -> Path:
    """``directory``, or the folder of the encoder below it where it is the folder of a run."""
    directory = Path(directory)
    below = directory / ENCODER_FOLDER
    if not (directory / CARD_FILE).exists() and (below / CARD_FILE).exists():
        return below
    return directory


def _empty_encoder(card: EncoderCard) -> PretrainedEncoder:
    """The card's encoder without memory for its weights; mean and std are among the weights."""
    with torch.device("meta"):
        encoder = build_encoder(
            card.encoder,
            channels=len(card.channels),
            samples=card.window_samples,
            rate_hz=card.rate_hz,
            teacher_dims={modality: teacher.dim for modality, teacher in card.teachers.items()},
            shared=card.shared_head,
            near=card.near_head,
            mean=(0.0,) * len(card.channels),
            std=(1.0,) * len(card.channels),
        )
        made = card.calibration
        if made.kind != "none":
            encoder.calibration = FeatureCalibration(made.features, made.kind)
        return PretrainedEncoder(encoder, card)


def _existing(directory: Path, name: str) -> Path:
    path = directory / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} holds no complete exported encoder: {name} is missing; give the folder "
            "that a run, `primus-scale export` or `primus-scale import-weights` wrote"
        )
    return path


def _replace_export(directory: Path, weights: bytes, card: bytes) -> None:
    """Write both files under temporary names, then rename them.

    The old card is deleted before the weights are replaced, and the new card is renamed last. So
    after a kill at any moment the folder loads, or is reported as incomplete; it is never mixed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    content = {WEIGHTS_FILE: weights, CARD_FILE: card}
    partial = {name: directory / f"{name}.partial" for name in content}
    try:
        for name, path in partial.items():
            with path.open("wb") as file:
                file.write(content[name])
                file.flush()
                os.fsync(file.fileno())
        (directory / CARD_FILE).unlink(missing_ok=True)
        for name, path in partial.items():
            path.replace(directory / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
