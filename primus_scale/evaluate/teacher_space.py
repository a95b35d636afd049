"""An encoder in the spaces of its teachers: its embeddings, and teachers that fit it.

What needs no labels is measured there: ``zero_shot`` and ``retrieval``.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from primus_scale.encoders.card import EncoderCard
from primus_scale.evaluate.classifiers import INFERENCE_BATCH
from primus_scale.teachers import Teacher, build_teacher


def embed_in_space(encoder: nn.Module, imu: torch.Tensor, modality: str) -> torch.Tensor:
    """The head's embeddings ``(n, D)`` float32 of windows ``(n, C, T)``, L2-normalised, on the CPU.

    Raises ValueError where some are not finite.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        parts = [
            encoder(part.to(device)).mm[modality].float().cpu()
            for part in imu.split(INFERENCE_BATCH)
        ]
    embeddings = torch.cat(parts)
    if bad := int((~embeddings.isfinite()).any(1).sum()):
        raise ValueError(
            f"the encoder's head for {modality} gives NaN or infinity for {bad} of {len(imu)} "
            "windows; export another checkpoint, or train again"
        )
    return functional.normalize(embeddings, dim=1)


def teacher_of(card: EncoderCard, modality: str, device: torch.device) -> Teacher:
    """The teacher that the encoder's head for ``modality`` was trained with.

    Raises ValueError where it cannot be built, or has other weights or preprocessing.
    """
    known = card.teachers[modality]
    teacher = build_teacher(modality, known.teacher, device)
    if teacher.key != known.key:
        raise ValueError(
            f"the encoder's head for {modality} was trained with teacher {known.teacher!r} of key "
            f"{known.key}, and the one here has key {teacher.key} (other weights or "
            "preprocessing); install the teacher that the encoder was pretrained with"
        )
    return teacher
