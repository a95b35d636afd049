"""Writes files as Ego-Exo4D publishes them, and reads them back, for tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shards.readers import create_reader
from shards.recording import Recording, RecordingRef
from tests.reading import find_ref
from tests.recordings import recording_path
from tests.video_factory import numbered_pictures, write_video

TAKE, CAPTURE = "unc_müsik_03_2", "unc_müsik_03"
UID = "3c489f86-8896-4c86-8a5a-929999799d36"
START = 20  # timesync_start_idx of TAKE
FRAMES = 8
COLUMN = "aria02_214-1_capture_timestamp_ns"
TIMES_NS = [86_385_000_000 + 33_333_333 * n for n in range(FRAMES)]


def take_entry(name: str = TAKE, **fields: Any) -> dict[str, Any]:
    """A take as takes.json has it, with fields that do not matter here."""
    videos = {
        "aria02": {"rgb": {"cam_id": "aria02", "relative_path": "frame_aligned_videos/aria02.mp4"}},
        "cam01": {"0": {"cam_id": "cam01", "relative_path": "frame_aligned_videos/cam01.mp4"}},
    }
    return {
        "root_dir": f"takes/{name}",
        "take_name": name,
        "take_uid": UID,
        "participant_uid": 657,
        "is_dropped": False,
        "is_narrated": False,
        "task_id": 5001,
        "parent_task_id": 5000,
        "parent_task_name": "Music",
        "duration_sec": FRAMES / 30,
        "timesync_start_idx": START,
        "timesync_end_idx": START + 1 + FRAMES,
        "capture": {"capture_name": CAPTURE, "cameras": []},
        "frame_aligned_videos": videos,
        **fields,
    }


def write_takes(root: Path, *takes: dict[str, Any]) -> None:
    (root / "takes.json").write_text(json.dumps(takes or [take_entry()], ensure_ascii=False))


def write_timesync(root: Path, times_ns: Sequence[object] = TIMES_NS, after: int = 9) -> None:
    """The take's rows among those of others, which are an hour away, and columns of others."""
    hour_ns = 3600 * 10**9
    column = [hour_ns + n for n in range(START + 1)]
    column += [*times_ns, *(2 * hour_ns + n for n in range(after))]
    lines = [f"cam01_pts,aria01_214-1_capture_timestamp_ns,{COLUMN},{COLUMN[:12]}_frame_number"]
    lines += [f"{n},{n * 1000},{time},{n}" for n, time in enumerate(column)]
    path = root / "captures" / CAPTURE / "timesync.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_pictures(
    root: Path, where: str = "", camera: str = "aria02", count: int = FRAMES
) -> None:
    path = root / "takes" / TAKE / "frame_aligned_videos" / where / f"{camera}_214-1.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, numbered_pictures(count), rate_fps=30)


def copy_vrs(root: Path, name: str = "aria02.vrs") -> None:
    target = root / "takes" / TAKE / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(recording_path("aria_gen1.vrs"), target)


def describe(time_s: object, text: object = "C nods", **fields: object) -> dict[str, object]:
    """A description as the data have it: flags as text or numbers, times as numbers."""
    best = {"cam_id": "cam01"}
    entry = {"text": text, "timestamp": time_s, "subject": "C", "ego_visible": "1"}
    return {**entry, "unsure": "0", "best_exo": best, **fields}


def annotation(*descriptions: object, **fields: object) -> dict[str, object]:
    entry = {"annotation_uid": "a", "annotator_id": "1", "rejected": False, "reject_reason": None}
    return {**entry, "descriptions": descriptions, **fields}


def write_descriptions(root: Path, *annotations: object, split: str = "train") -> None:
    path = root / "annotations" / f"atomic_descriptions_{split}.json"
    path.parent.mkdir(exist_ok=True)
    content = {"version": "v2", "annotations": {"other": [], UID: annotations}, "ds": "231205"}
    path.write_text(json.dumps(content, ensure_ascii=False))


def opened(root: Path, **options: str) -> Recording:
    reader = create_reader("egoexo4d", str(root), options)
    with reader.open(find_ref(reader, TAKE)) as recording:
        return recording


def refs_of(root: Path, **options: str) -> list[RecordingRef]:
    return create_reader("egoexo4d", str(root), options).recordings()


def texts(recording: Recording) -> list[tuple[float, str]]:
    assert all(n.start_s == n.end_s for n in recording.narrations)
    return [(round(n.start_s, 6), n.text) for n in recording.narrations]


def device_s(frame: float) -> float:
    """Device time of a (fractional) frame of the take."""
    return round(float(np.interp(frame, range(FRAMES), TIMES_NS)) / 1e9, 6)
