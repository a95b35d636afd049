"""Small exported encoders, and motion that an accelerometer and a gyroscope agree on."""

from pathlib import Path

import numpy as np
import torch

from primus_scale.config import EncoderConfig
from primus_scale.encoders import build_encoder
from primus_scale.encoders.card import describe_encoder
from primus_scale.encoders.export import save_encoder
from primus_scale.signal.units import GRAVITY


def export_small_encoder(folder: Path, samples: int = 250, **settings: object) -> str:
    """Write a ``conv_stats`` of six channels at 50 Hz, by default 5 s, with fresh weights."""
    torch.manual_seed(0)
    config = {"name": "conv_stats", "size": "XS", "features": "all", **settings}
    encoder = build_encoder(
        EncoderConfig.model_validate(config),
        channels=6,
        samples=samples,
        rate_hz=50.0,
        teacher_dims={},
        shared=False,
        mean=(0, 0, 9, 0, 0, 0),
        std=(3, 3, 3, 1, 1, 1),
    )
    card = describe_encoder(encoder, teachers={}, data={}, objective={}, licence="none")
    save_encoder(encoder, folder, card)
    return str(folder)


def motion(rate_hz: float, seconds: float, turns: float = 1.0, shake: float = 0.4) -> np.ndarray:
    """A device that turns to and fro and is shaken: ``(n, 6)`` in SI units, below 5 Hz."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    angle = turns * (0.9 * np.sin(0.7 * time_s) + 0.4 * np.sin(1.9 * time_s + 1))
    rate = turns * (0.63 * np.cos(0.7 * time_s) + 0.76 * np.cos(1.9 * time_s + 1))
    acc = GRAVITY * np.stack([np.sin(angle), 0.1 * np.cos(time_s), np.cos(angle)], axis=1)
    gyr = np.stack([0.02 * np.sin(3 * time_s), -rate, 0.03 * np.cos(2 * time_s)], axis=1)
    acc[:, 1] += shake * np.sin(2 * np.pi * 3 * time_s)
    return np.concatenate([acc, gyr], axis=1)
