"""Writes files as Ego4D publishes them, and reads them back, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shards.readers import create_reader
from shards.recording import Recording, RecordingRef
from tests.reading import find_ref
from tests.recording_factory import acceleration, rotation
from tests.video_factory import numbered_pictures, write_video

UID = "3e08beb0-9108-4e77-b2ae-80f91ceac474"
OTHER = "77cc4654-4eec-44c6-af05-dbdf71f9a401"
HEADER = (
    "component_idx,component_timestamp_ms,canonical_timestamp_ms,"
    "gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"
)


def write_imu(
    root: Path,
    time_s: np.ndarray,
    *,
    uid: str = UID,
    component: np.ndarray | int = 0,
    canonical_ms: Sequence[object] | None = None,
    values: np.ndarray | None = None,
    blank: Sequence[int] = (),
) -> np.ndarray:
    """An IMU file; returns gyroscope and accelerometer (n, 6). blank: columns without values."""
    values = np.hstack([rotation(time_s), acceleration(time_s)]) if values is None else values
    components = np.broadcast_to(component, time_s.shape).tolist()
    canonical = (time_s * 1000).tolist() if canonical_ms is None else canonical_ms
    lines = [HEADER]
    for c, t, canon, row in zip(
        components, time_s.tolist(), canonical, values.tolist(), strict=True
    ):
        cells = ["" if n in blank else repr(value) for n, value in enumerate(row)]
        lines.append(",".join([str(c), repr(t * 1000), str(canon), *cells]))
    path = root / "v2" / "imu" / f"{uid}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return values


def video_entry(uid: str = UID, **fields: Any) -> dict[str, Any]:
    """A video as ego4d.json has it, with fields that do not matter here."""
    return {
        "video_uid": uid,
        "duration_sec": 12.5,
        "scenarios": ["Cooking"],
        "video_metadata": {"fps": 30.0, "num_frames": 375},
        "split_em": None,
        "device": "GoPro Hero 7",
        "fb_participant_id": 42,
        "is_stereo": False,
        "has_imu": True,
        "video_components": [{"component_idx": 0, "canonical_video_start_sec": 0.0}],
        "redacted_intervals": [],
        **fields,
    }


def write_metadata(root: Path, *videos: dict[str, Any]) -> None:
    content = {
        "date": "220216",
        "version": "v2",
        "videos": videos or (video_entry(),),
        "clips": [{"clip_uid": OTHER, "video_uid": UID}],
    }
    (root / "v2").mkdir(exist_ok=True)
    (root / "v2" / "ego4d.json").write_text(json.dumps(content, ensure_ascii=False))


def narration(time_s: object, text: object) -> dict[str, object]:
    return {
        "timestamp_sec": time_s,
        "timestamp_frame": 7,
        "_unmapped_timestamp_sec": 0.1,
        "narration_text": text,
        "annotation_uid": "a",
    }


def write_narrations(root: Path, content: object) -> None:
    path = root / "v2" / "annotations" / "narration.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def write_pictures(root: Path, folder: str = "video_540ss", count: int = 12) -> None:
    path = root / "v2" / folder / f"{UID}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, numbered_pictures(count), rate_fps=30)


def opened(root: Path, uid: str = UID, **options: str) -> Recording:
    reader = create_reader("ego4d", str(root), options)
    with reader.open(find_ref(reader, uid)) as recording:
        return recording


def refs_of(root: Path, **options: str) -> list[RecordingRef]:
    return create_reader("ego4d", str(root), options).recordings()
