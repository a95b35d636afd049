import json
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from shards.files.source import Source
from shards.files.vrs import open_vrs
from shards.readers import create_reader
from shards.readers.people import UNKNOWN
from shards.recording import RecordingRef
from tests.egoexo4d_factory import (
    CAPTURE,
    FRAMES,
    START,
    TAKE,
    TIMES_NS,
    annotation,
    copy_vrs,
    describe,
    device_s,
    opened,
    refs_of,
    take_entry,
    texts,
    write_descriptions,
    write_pictures,
    write_takes,
    write_timesync,
)
from tests.reading import find_ref, read_sensor, spans
from tests.recordings import recording_path
from tests.video_factory import numbered_pictures, read_number, write_video

SYNC = (
    "device time of the glasses; frame i of the video taken as row timesync_start_idx + 1 + i of "
    "timesync.csv, descriptions (right to 1 or 2 s) as seconds of the video at 30 fps"
)


@cache
def real_camera() -> tuple[np.ndarray, list[np.ndarray]]:
    """Times, ns, of the pictures in the real recording, and the pictures, upright and small."""
    folder = recording_path(".").resolve()
    with open_vrs(Source(str(folder)), "aria_gen1.vrs") as file:
        camera = file.camera()
        assert camera is not None
        times_ns = np.round(camera.times_s() * 1e9).astype(np.int64)
        return times_ns, list(camera.pictures(range(FRAMES), short_side=96))


def test_a_take_of_real_glasses(tmp_path: Path) -> None:
    """The frame, the narration and the IMU of a moment come out at that moment of device time."""
    copy_vrs(tmp_path, "aria02_noimagestreams.vrs")
    times_ns, pictures = real_camera()
    write_takes(tmp_path)
    write_timesync(tmp_path, times_ns.tolist())
    path = tmp_path / "takes" / TAKE / "frame_aligned_videos" / "aria02_214-1.mp4"
    path.parent.mkdir()
    write_video(path, pictures, rate_fps=30)
    write_descriptions(
        tmp_path,
        annotation(describe(6 / 30, "C plucks the Saite №2"), describe(3 / 30)),
        annotation(describe(4.5 / 30, "C taps with C's right foot"), annotator_id="2"),
    )
    reader = create_reader("egoexo4d", str(tmp_path))
    reader = pickle.loads(pickle.dumps(reader))  # noqa: S301 - what the line itself pickled
    (ref,) = reader.recordings()
    assert ref.files == (
        f"takes/{TAKE}/frame_aligned_videos/aria02_214-1.mp4",
        f"takes/{TAKE}/aria02_noimagestreams.vrs",
        f"captures/{CAPTURE}/timesync.csv",
        "annotations/atomic_descriptions_train.json",
    )
    # Details are JSON: they are written to a run's journal and come back as lists.
    ref = RecordingRef(ref.name, ref.files, json.loads(json.dumps(ref.details)))
    with reader.open(ref) as recording:
        left, right = recording.devices
        assert (left.name, left.placement, right.name) == ("imu-left", "head", "imu-right")
        for device, samples, rate_hz in ((left, 319, 800), (right, 400, 1000)):
            times, values = read_sensor(device.sensors[0])
            assert (len(times), device.nominal_rate_hz) == (samples, rate_hz)
            assert times[0] < times_ns[0] / 1e9 and times_ns[-1] / 1e9 < times[-1] + 0.02
            assert 9 < np.median(np.linalg.norm(values, axis=1)) < 11
        assert recording.frames is not None
        np.testing.assert_allclose(recording.frames.times_s(), times_ns / 1e9, atol=1e-9)
        for number, picture in zip((2, 7), recording.frames.pictures([2, 7]), strict=True):
            difference = [np.abs(picture.astype(int) - other).mean() for other in pictures]
            assert int(np.argmin(difference)) == number
            assert difference[number] < 3
    assert texts(recording) == [
        (round(times_ns[3] / 1e9, 6), "A person nods"),
        (round(times_ns[4:6].mean() / 1e9, 6), "A person taps with the person's right foot"),
        (round(times_ns[6] / 1e9, 6), "A person plucks the Saite №2"),
    ]
    assert spans(recording) == [(round(times_ns[0] / 1e9, 6), round(times_ns[7] / 1e9, 6), "music")]
    assert (recording.dataset, recording.name) == ("egoexo4d", TAKE)
    assert (recording.person, recording.sync) == ("egoexo4d-657", SYNC)
    assert recording.capture == CAPTURE
    assert recording.notes == ()


def test_descriptions_that_are_not_to_be_used_are_counted(tmp_path: Path) -> None:
    """Rejected, unsure, of others, outside; flags as true, 1 and "1"; "0" is not set."""
    write_takes(tmp_path)
    write_timesync(tmp_path)
    write_pictures(tmp_path)
    write_descriptions(
        tmp_path,
        annotation(describe(0.1), describe(0.12), rejected=True, reject_reason="poor"),
        annotation(describe(0.1), rejected="1"),
        annotation(describe(0.1), describe(0.1, unsure=True), describe(0.1, unsure=1)),
        annotation(
            describe(0.1, unsure="1"),
            describe(0.1, "The man X walks", subject="O"),
            describe(0.1, subject=None),
            describe(-0.01),
            describe(FRAMES / 30),
            describe(None),
            describe("0.1"),
            describe(0.1, None),
            describe(0.1, " "),
            describe(0.1, "C plays C major", ego_visible="0", unsure=False),
            rejected="0",
        ),
        annotation(
            describe(0, "C bows", ego_visible=None),
            {**describe(0.2, "C waves"), "ego_visible": False},
        ),
    )
    # As the documentation's sample names the subject.
    older = {"text": "C jumps", "timestamp": 0.2, "narration_subject": "C", "unsure": "0"}
    write_descriptions(tmp_path, annotation(older), split="val")
    recording = opened(tmp_path)
    assert texts(recording) == [
        (device_s(0), "A person bows"),
        (device_s(3), "A person nods"),
        (device_s(3), "A person plays C major"),
        (device_s(6), "A person jumps"),
        (device_s(6), "A person waves"),
    ]
    assert recording.notes == (
        "no VRS file; download it with --parts take_vrs_noimagestream",
        "descriptions left out: 1, of another person",
        "descriptions left out: 2, outside the frames",
        "descriptions left out: 3, rejected",
        "descriptions left out: 3, unsure",
        "descriptions left out: 1, without a subject",
        "descriptions left out: 2, without a time",
        "descriptions left out: 1, without text",
        "narrations left out: 1, without text",
        "descriptions kept: 2, not visible to the wearer's camera",
    )
    visible = opened(tmp_path, only_visible="true")
    assert texts(visible) == [
        (device_s(0), "A person bows"),
        (device_s(3), "A person nods"),
        (device_s(6), "A person jumps"),
    ]
    assert "descriptions left out: 2, not visible to the wearer's camera" in visible.notes
    assert not any(note.startswith("descriptions kept") for note in visible.notes)


def test_the_offset_is_an_option(tmp_path: Path) -> None:
    write_takes(tmp_path)
    write_timesync(tmp_path)
    write_pictures(tmp_path)
    write_descriptions(tmp_path, annotation(describe(2 / 30)))
    for offset, frame in ((1, 2), (2, 3), (4, 5)):
        recording = opened(tmp_path, timesync_offset=str(offset))
        assert texts(recording) == [(device_s(frame), "A person nods")]
        assert f"timesync_start_idx + {offset} + i" in recording.sync
        assert recording.frames is not None
        np.testing.assert_allclose(
            recording.frames.times_s(), np.array(TIMES_NS[offset - 1 :]) / 1e9, atol=1e-9
        )
    with pytest.raises(ValueError, match=r"begin before its first row; .*timesync_offset=-21"):
        opened(tmp_path, timesync_offset=str(-START - 1))


def test_frames_without_times_or_after_a_jump_of_the_clock(tmp_path: Path) -> None:
    """Missing times, a time twice, a jump forward by 100 s, and a jump back."""
    times: list[object] = [*TIMES_NS]
    times[1] = ""
    times[3] = times[2]
    for n in (4, 5, 6):
        times[n] = TIMES_NS[n] + 100 * 10**9
    write_takes(tmp_path)
    write_timesync(tmp_path, times)
    write_pictures(tmp_path)
    write_descriptions(tmp_path, annotation(describe(1 / 30), describe(5 / 30, "C sits down")))
    recording = opened(tmp_path)
    assert recording.frames is not None
    usable = np.array([times[n] for n in (0, 2, 4, 5, 6)], np.float64) / 1e9
    np.testing.assert_allclose(recording.frames.times_s(), usable, atol=1e-9)
    numbers = [read_number(picture) for picture in recording.frames.pictures([1, 2, 4])]
    assert numbers == [2, 4, 6]
    assert texts(recording) == [
        (device_s(1), "A person nods"),
        (device_s(5) + 100, "A person sits down"),
    ]
    assert recording.notes[:2] == (
        "frames left out: 2, not later than a frame before",
        "frames left out: 1, without a device time",
    )


def test_a_timesync_that_ends_early(tmp_path: Path) -> None:
    write_takes(tmp_path)
    write_timesync(tmp_path, TIMES_NS[:5], after=0)
    write_pictures(tmp_path)
    recording = opened(tmp_path)
    assert recording.frames is not None and len(recording.frames.times_s()) == 5
    assert "frames left out: 3, after the end of timesync.csv" in recording.notes
    write_timesync(tmp_path, [""] * FRAMES)
    recording = opened(tmp_path)
    assert recording.frames is None and recording.labels == ()
    assert "no frame of the take has a device time" in recording.notes


def test_only_the_imu(tmp_path: Path) -> None:
    """As ``egoexo --parts metadata take_vrs_noimagestream`` downloads: labels all the same."""
    copy_vrs(tmp_path, "aria02_noimagestreams.vrs")
    write_takes(tmp_path, take_entry(participant_uid=None))
    with_images = create_reader("egoexo4d", str(tmp_path))
    with with_images.open(find_ref(with_images, TAKE)) as recording:
        times, _ = read_sensor(recording.devices[0].sensors[0])
        assert spans(recording) == [(round(times[0], 6), round(times[-1], 6), "music")]
    assert recording.narrations == ()
    assert (recording.person, recording.sync) == (
        "egoexo4d-unknown",
        "device time of the glasses",
    )
    assert recording.notes[0] == (
        "no timesync.csv of its capture: no times of frames and descriptions"
    )
    assert UNKNOWN in recording.notes


def test_pictures_of_the_vrs_file_where_there_is_no_video(tmp_path: Path) -> None:
    copy_vrs(tmp_path, "aria02_noimagestreams.vrs")
    copy_vrs(tmp_path)
    write_takes(tmp_path)
    times_ns, pictures = real_camera()
    reader = create_reader("egoexo4d", str(tmp_path))
    (ref,) = reader.recordings()
    assert ref.files == (f"takes/{TAKE}/aria02.vrs",)
    with reader.open(ref) as recording:
        assert recording.frames is not None
        np.testing.assert_allclose(recording.frames.times_s(), times_ns / 1e9, atol=1e-9)
        (picture,) = recording.frames.pictures([3], short_side=96)
        np.testing.assert_array_equal(picture, pictures[3])
    assert "no aligned video; pictures of the VRS file" in recording.notes


def test_which_takes_are_listed(tmp_path: Path) -> None:
    """Those of which a file is here, without those dropped."""
    names = ["a_1", "b_2", "c_3", "d_4"]
    for name in ("d_4", "a_1", "c_3"):
        (tmp_path / "takes" / name).mkdir(parents=True)
        (tmp_path / "takes" / name / "aria01_noimagestreams.vrs").write_bytes(b"not read")
    write_takes(tmp_path, *(take_entry(name, is_dropped=name == "c_3") for name in names[::-1]))
    assert [ref.name for ref in refs_of(tmp_path)] == ["a_1", "d_4"]


def test_the_smaller_video_and_the_smaller_vrs_are_taken_unless_asked(tmp_path: Path) -> None:
    write_takes(tmp_path)
    for name in ("aria02.vrs", "aria02_noimagestreams.vrs"):
        path = tmp_path / "takes" / TAKE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read")
    write_pictures(tmp_path)
    folder = f"takes/{TAKE}"
    (ref,) = refs_of(tmp_path)
    large = f"{folder}/frame_aligned_videos/aria02_214-1.mp4"
    assert ref.files == (large, f"{folder}/aria02_noimagestreams.vrs")
    write_pictures(tmp_path, "downscaled/448")
    (ref,) = refs_of(tmp_path)
    assert ref.files[0] == f"{folder}/frame_aligned_videos/downscaled/448/aria02_214-1.mp4"
    assert refs_of(tmp_path, full_scale="true")[0].files[0] == large


def test_pictures_are_turned_as_asked(tmp_path: Path) -> None:
    write_takes(tmp_path)
    write_timesync(tmp_path)
    path = tmp_path / "takes" / TAKE / "frame_aligned_videos" / "aria02_214-1.mp4"
    path.parent.mkdir(parents=True)
    write_video(path, (np.rot90(p) for p in numbered_pictures(FRAMES)), rate_fps=30)
    frames = opened(tmp_path, quarter_turns="3").frames
    assert frames is not None
    assert [read_number(picture) for picture in frames.pictures([5])] == [5]


@pytest.mark.parametrize(
    ("task", "label"),
    [
        (1000, "cooking"),
        (2000, "health"),
        (4000, "bike repair"),
        (5000, "music"),
        (6000, "basketball"),
        (7000, "climbing"),
        (8000, "soccer"),
        (9000, "dance"),
        (3000, None),
        (None, None),
    ],
)
def test_labels(tmp_path: Path, task: int | None, label: str | None) -> None:
    write_takes(tmp_path, take_entry(parent_task_id=task))
    write_timesync(tmp_path)
    write_pictures(tmp_path)
    recording = opened(tmp_path)
    expected = [(device_s(0), device_s(FRAMES - 1), label)] if label else []
    assert spans(recording) == expected
    told = f"no label: parent_task_id is {task}, known are 1000, 2000, 4000"
    assert any(note.startswith(told) for note in recording.notes) == (label is None)
