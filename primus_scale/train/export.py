"""The exported encoder of a run, with a calibration fitted on the run's training windows.

The calibration is fitted when a run has done its last step, and by ``primus-scale export``. The
encoders inside checkpoints have none: each would need a pass over windows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from primus_scale.checkpoint.folder import newest_encoder
from primus_scale.config import CalibrationConfig, Config
from primus_scale.data.fraction import open_training
from primus_scale.data.reader import sample_windows
from primus_scale.data.shard_set import ShardSet
from primus_scale.encoders import ImuEncoder
from primus_scale.encoders.calibration import FeatureCalibration, fit_calibration
from primus_scale.encoders.card import CalibrationCard, EncoderCard, read_card
from primus_scale.encoders.export import save_encoder
from primus_scale.encoders.pretrained import load_encoder

INFERENCE_BATCH = 512  # windows, about


def export_run(run_dir: str | Path, out: str | Path, config: Config) -> Path:
    """Write the encoder of a run's newest whole checkpoint to the folder ``out``; returns ``out``.

    config: of the run; see ``calibrate``. FileNotFoundError where the run has no checkpoint,
    ValueError where all are damaged or as ``calibrate``, OSError where ``out`` cannot be written.
    """
    source = newest_encoder(run_dir)
    encoder, card = load_encoder(source), read_card(source)
    save_encoder(encoder, out, calibrate(encoder, card, config))
    return Path(out)


def export_finished(
    run_dir: str | Path, out: str | Path, config: Config, data: ShardSet, device: torch.device
) -> None:
    """As ``export_run``, at the end of a run that has opened ``data``; encodes on ``device``.

    If the calibration fails, the encoder is exported without one, and stderr tells why: hours of
    training are not lost for that.
    """
    source = newest_encoder(run_dir)
    encoder, card = load_encoder(source).to(device), read_card(source)
    try:
        card = calibrate(encoder, card, config, data)
    except ValueError as error:
        print(
            f"{out} is exported without calibration: {error}; the same command, or "
            "primus-scale export, then calibrates it without training again",
            file=sys.stderr,
        )
    save_encoder(encoder, out, card)


def calibrate(
    encoder: ImuEncoder, card: EncoderCard, config: Config, data: ShardSet | None = None
) -> EncoderCard:
    """Give ``encoder`` the calibration that ``config.calibration`` asks for; returns its card.

    It is fitted on windows of ``data``, by default those of the run (``open_training``): as
    recorded, without labels, in float32 on the encoder's device. Windows that are not finite are
    left out.
    ValueError where that fails; the encoder is unchanged then.
    """
    kind = config.calibration.kind
    if kind == "none":
        return card
    try:
        if data is None:
            data = open_training(config.data)
        card.check_windows(data.index.window_format, data.folders[0].url)
        features, session = _encode_sample(encoder, data, config.calibration.windows)
        fitted = fit_calibration(features, session, kind)
    except (OSError, ValueError, RuntimeError) as error:  # the last: no memory on the device
        raise ValueError(
            f"the calibration could not be fitted ({error}); mend that, or set "
            "calibration.kind=none"
        ) from error
    encoder.calibration = FeatureCalibration.of(fitted, kind)
    made = CalibrationCard(
        kind=kind,
        windows=len(session),
        sessions=len(np.unique(session)),
        features=features.shape[1],
    )
    return card.model_copy(update={"calibration": made})


def check_calibration(config: CalibrationConfig, data: ShardSet) -> None:
    """ValueError where ``whitening`` would find one session only; reads up to the second one."""
    if config.kind != "whitening":
        return
    seen: set[int] = set()
    with closing(sample_windows(data, config.windows)) as parts:
        for _, session in parts:
            seen.update(session.tolist())
            if len(seen) > 1:
                return
    raise ValueError(
        "calibration.kind=whitening compares sessions, and the windows of data.train are of one; "
        "set calibration.kind=scaling, or write the shards again with sessions (--session-by)"
    )


def _encode_sample(
    encoder: ImuEncoder, data: ShardSet, windows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features ``(n, D)`` float32 and sessions ``(n,)`` of finite windows spread over ``data``."""
    device = next(encoder.parameters()).device
    features, sessions = [], []
    with closing(sample_windows(data, windows)) as parts, torch.inference_mode():
        for imu, session in _in_batches(parts):
            finite = np.isfinite(imu).all(axis=(1, 2))
            batch = torch.from_numpy(imu[finite]).to(device)
            features.append(encoder(batch).features.float().cpu().numpy())
            sessions.append(session[finite])
    found = np.concatenate(features)
    if not len(found) or not np.isfinite(found).all():
        raise ValueError(f"the encoder's features of {len(found)} training windows are not finite")
    return found, np.concatenate(sessions)


def _in_batches(
    parts: Iterator[tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Parts joined to batches of at least ``INFERENCE_BATCH`` windows; the last is what is left."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    for part in parts:
        waiting.append(part)
        if sum(len(session) for _, session in waiting) >= INFERENCE_BATCH:
            yield _join(waiting)
            waiting = []
    if waiting:
        yield _join(waiting)


def _join(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    imu, session = zip(*parts, strict=True)
    return np.concatenate(imu), np.concatenate(session)
