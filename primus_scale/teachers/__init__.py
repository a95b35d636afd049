"""Frozen encoders whose embeddings supervise the IMU encoder: of frames, of texts, of the signal.

teachers = build_teachers(config.teachers, windows, device)  # {"video": Teacher, "text": Teacher}
batch = attach_teacher_embeddings(batch, teachers)          # live mode, once a step
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from primus_scale.config import TeachersConfig
from primus_scale.sample import JOINT_MODALITIES, SIGNAL, WindowFormat
from primus_scale.storage.names import nearest
from primus_scale.teachers.base import (
    Teacher,
    UnreadableFrameError,
    attach_teacher_embeddings,
    check_teachers,
    embed_windows,
    spaces_of,
    window_samples,
)
from primus_scale.teachers.handcrafted import HandcraftedFeatures
from primus_scale.teachers.hub import build_hub_teacher
from primus_scale.teachers.packaged import EfficientNetLite0, MiniLM

__all__ = [
    "Teacher",
    "UnreadableFrameError",
    "attach_teacher_embeddings",
    "build_teacher",
    "build_teachers",
    "check_teachers",
    "embed_windows",
    "spaces_of",
    "window_samples",
]

PACKAGED: dict[str, dict[str, Callable[[str, torch.device | str, int], Teacher]]] = {
    "video": {"efficientnet-lite0": EfficientNetLite0},
    "text": {"minilm": MiniLM},
}


def build_teachers(
    config: TeachersConfig, windows: WindowFormat, device: torch.device | str
) -> dict[str, Teacher]:
    """The teachers that ``config`` names, by modality, on ``device``. Raises as `build_teacher`.

    windows: their format, which the signal teacher needs.
    """
    names = {modality: getattr(config, modality) for modality in JOINT_MODALITIES}
    teachers = {
        modality: build_teacher(modality, name, device, batch=config.batch)
        for modality, name in names.items()
        if name
    }
    if config.signal:
        teachers[SIGNAL] = HandcraftedFeatures(config.signal, windows, device, config.batch)
    return teachers


def build_teacher(
    modality: str, name: str, device: torch.device | str, *, batch: int = 64
) -> Teacher:
    """The teacher ``name`` of ``modality`` (``video`` or ``text``).

    ``name`` is one of the packaged teachers, a local folder of a ``transformers`` model, or a
    model of the Hugging Face hub (``owner/model``). ``batch``: units in one forward pass.
    Raises ValueError where there is no such teacher (naming the nearest), its package is absent,
    or its model is damaged or of a class that is not supported.
    """
    if name in PACKAGED[modality]:
        return PACKAGED[modality][name](name, device, batch)
    if Path(name).expanduser().is_dir() or (name.count("/") == 1 and name[0] not in "./~"):
        return build_hub_teacher(modality, name, device, batch)
    raise ValueError(
        f"teachers.{modality}: there is no {modality} teacher {name!r} and no folder of that "
        f"name{nearest(name, PACKAGED[modality], 'packaged one')}, others are models of the "
        "Hugging Face hub (owner/model) or local folders of them"
    )
