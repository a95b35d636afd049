import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from primus_scale.sample import window_uid
from shards.files.video import Video
from shards.ingest.windows import RecordingWindows
from shards.recording import Device, LabelSpan, Narration, Recording
from shards.report import GAP, GRAVITY, NO_NARRATION, NO_SENSOR, NO_VIDEO, LagReport
from tests.recording_factory import (
    acceleration,
    make_device,
    make_recording,
    make_sensor,
    make_settings,
    rotation,
    sample_times,
)
from tests.turning_camera import TurningCamera, gyroscope_of, wander
from tests.video_factory import numbered_pictures, read_number, write_video


@pytest.fixture
def video(tmp_path: Path) -> Video:
    """Ten seconds at 10 frames/s, from 20 s on."""
    path = tmp_path / "video.mp4"
    write_video(path, numbered_pictures(100), rate_fps=10)
    return Video(lambda: path.open("rb"), str(path), start_s=20.0)


def starts(made: RecordingWindows) -> list[float]:
    return [window.meta.start_s for window in made]


def test_windows_say_all_that_is_known_of_them() -> None:
    recording = make_recording(
        10.0,
        labels=(LabelSpan(0.0, 6.5, "walking"),),
        sync="one clock",
        capture="capture 7",
        clock_zero="2024-05-01T10:00:00",
        devices=(
            replace(
                make_device(10.0, name="band", placement="left wrist"), axes="z out of the dial"
            ),
        ),
    )
    made = RecordingWindows(recording, make_settings())
    windows = list(made)
    assert [window.meta.start_s for window in windows] == [0.0, 2.0, 4.0]
    meta = windows[1].meta
    assert meta.uid == window_uid("analytic", "recording", "band", 2.0)
    assert (meta.dataset, meta.recording, meta.person) == ("analytic", "recording", "someone")
    assert (meta.device, meta.placement, meta.label) == ("band", "left wrist", "walking")
    assert (meta.sync, meta.axes) == ("one clock", "z out of the dial")
    assert (meta.capture, meta.clock_zero) == ("capture 7", "2024-05-01T10:00:00")
    time_s = 2.0 + np.arange(100) / 50
    assert pytest.approx(acceleration(time_s), abs=0.02) == windows[1].imu[:3].T
    assert pytest.approx(rotation(time_s), abs=0.01) == windows[1].imu[3:].T
    (device,) = made.report.devices
    assert (made.report.windows, device.windows, device.refused) == (3, 3, {})
    assert device.median_acc == pytest.approx(9.8, abs=0.3)
    assert device.axes == "z out of the dial"
    assert device.gravity_direction == pytest.approx((0.0, 0.0, 1.0), abs=0.02)


@pytest.mark.parametrize(
    ("session_by", "told", "person", "session"),
    [
        ("auto", "worn", "someone", "worn"),
        ("auto", "", "someone", "recording"),
        ("person", "worn", "someone", "someone"),
        ("person", "", "someone", "someone"),
        ("person", "worn", "analytic-unknown", "recording"),
        ("person", "worn", "", "recording"),
        ("recording", "worn", "someone", "recording"),
    ],
)
def test_a_session_is_what_is_asked_for(
    session_by: str, told: str, person: str, session: str
) -> None:
    """Recordings of unknown people are never joined: they may be of several."""
    recording = make_recording(4.0, session=told, person=person)
    made = RecordingWindows(recording, make_settings(session_by=session_by))
    assert [window.meta.session for window in made] == [session, session]
    assert made.report.session == session


def test_devices_share_moments_and_their_pictures(video: Video) -> None:
    devices = tuple(make_device(40.0, name=name) for name in ("left", "right"))
    made = RecordingWindows(
        make_recording(devices=devices, frames=video), make_settings(frames=2, require=("video",))
    )
    windows = list(made)
    order = [(window.meta.start_s, window.meta.device) for window in windows]
    assert order == [(s, d) for s in (20.0, 22.0, 24.0, 26.0, 28.0) for d in ("left", "right")]
    for left, right in zip(windows[::2], windows[1::2], strict=True):
        assert left.frames == right.frames
        assert len(left.frames) == 2
        for jpeg, time_s in zip(left.frames, left.meta.frame_times_s, strict=True):
            number = read_number(np.asarray(Image.open(io.BytesIO(jpeg))))
            assert 20 + number / 10 == pytest.approx(time_s)
        wanted = (left.meta.start_s + 0.5, left.meta.start_s + 1.5)
        assert left.meta.frame_times_s == pytest.approx(wanted, abs=0.051)
    assert [dict(device.refused) for device in made.report.devices] == [{NO_VIDEO: 15}] * 2


def test_without_require_windows_are_kept_without_video_or_narration(video: Video) -> None:
    narrations = (Narration(25.0, 25.0, "A person waves"),)
    recording = make_recording(40.0, frames=video, narrations=narrations)
    windows = list(RecordingWindows(recording, make_settings(frames=2)))
    kinds = {(bool(window.frames), bool(window.meta.texts)) for window in windows}
    assert kinds == {(False, False), (True, False), (True, True)}
    (narrated,) = (window for window in windows if window.meta.texts)
    assert narrated.meta.start_s == 24.0, "a window is centred on its narration"

    strict = RecordingWindows(recording, make_settings(frames=2, require=("text", "video")))
    assert starts(strict) == [24.0]
    (device,) = strict.report.devices
    assert device.refused[NO_NARRATION] + device.refused[NO_VIDEO] == len(windows) - 1


def test_refused_windows_are_counted_by_reason() -> None:
    time_s = sample_times(100.0, 20.0)
    kept = (time_s < 7.0) | (time_s > 7.5)
    acc = make_sensor(("acc_x", "acc_y", "acc_z"), "m/s2", time_s[kept], acceleration(time_s[kept]))
    gyr = make_sensor(("gyr_x", "gyr_y", "gyr_z"), "rad/s", time_s, rotation(time_s))
    device = make_device(20.0)
    recording = make_recording(devices=(type(device)("imu", "chest", (acc, gyr), 100.0),))
    made = RecordingWindows(recording, make_settings())
    assert made.report.devices[0].refused == {GAP: 1}
    assert 6.0 not in starts(made)


def test_all_windows_of_a_device_with_implausible_gravity_are_refused() -> None:
    in_g = make_device(10.0, signals=(lambda t: acceleration(t) / 9.8, rotation))
    made = RecordingWindows(make_recording(devices=(in_g,)), make_settings())
    assert list(made) == []
    assert made.report.devices[0].refused == {GRAVITY: 5}


def test_windows_of_a_device_that_lacks_a_sensor_are_counted() -> None:
    time_s = sample_times(100.0, 10.0, start_s=4.0)
    gyr = make_sensor(("gyr_x", "gyr_y", "gyr_z"), "rad/s", time_s, rotation(time_s))
    devices = (
        make_device(20.0, name="whole"),
        make_device(10.0, name="no gyroscope", start_s=4.0, gyroscope=False),
        Device("no accelerometer", "chest", (gyr,), 100.0),
    )
    made = RecordingWindows(make_recording(devices=devices), make_settings())
    assert {window.meta.device for window in made} == {"whole"}
    assert [dict(device.refused) for device in made.report.devices] == [
        {},
        {NO_SENSOR: 5},
        {NO_SENSOR: 5},
    ]
    lacking = made.report.devices[1]
    assert (lacking.start_s, lacking.end_s) == (4.0, pytest.approx(13.99))


def test_a_device_of_other_sensors_is_noted() -> None:
    time_s = sample_times(100.0, 4.0)
    strap = Device("strap", "chest", (make_sensor(("ecg",), "mV", time_s, time_s[:, None]),))
    devices = (strap, make_device(4.0))
    made = RecordingWindows(make_recording(devices=devices), make_settings())
    assert len(list(made)) == 2
    (note,) = made.report.notes
    assert note.startswith("device strap left out: device strap has no sensor for any of acc_x, ")
    with pytest.raises(ValueError, match="device strap has no sensor for any of acc_x, "):
        RecordingWindows(make_recording(devices=(strap,)), make_settings())


def test_a_device_without_samples_is_noted_and_the_others_are_used() -> None:
    empty = make_device(4.0, name="broken", signals=(lambda t: acceleration(t) * np.nan, rotation))
    made = RecordingWindows(
        make_recording(devices=(empty, make_device(4.0, name="whole"))), make_settings()
    )
    assert {window.meta.device for window in made} == {"whole"}
    assert any("broken" in note for note in made.report.notes)
    with pytest.raises(ValueError, match="broken"):
        RecordingWindows(make_recording(devices=(empty,)), make_settings())


def late_recording(lag_s: float) -> Recording:
    """A turning camera whose pictures come late, and a narration by the clock of the pictures."""
    motion = wander(seed=1)
    return make_recording(
        devices=(gyroscope_of(motion, seconds=30.0),),
        frames=TurningCamera(motion, np.arange(1.0, 29.0, 1 / 15), lag_s=lag_s),
        narrations=(Narration(15.0 + lag_s, 15.0 + lag_s, "A person turns"),),
        sync="assumed",
    )


def test_a_lag_is_corrected_only_if_asked() -> None:
    recording = late_recording(0.5)
    told = RecordingWindows(recording, make_settings(max_lag_s=0.2, frames=2))
    assert isinstance(told.report.lag, LagReport)
    assert told.report.lag.lag_s == pytest.approx(0.5, abs=0.02)
    assert (told.report.lag.flagged, told.report.lag.corrected) == (True, False)
    assert told.report.sync == "assumed"

    corrected = RecordingWindows(
        recording, make_settings(max_lag_s=0.2, frames=2, correct_lag=True)
    )
    assert corrected.report.lag is not None
    assert corrected.report.lag.corrected
    assert "-0.5" in corrected.report.sync
    assert narrated_start(told) == pytest.approx(14.5)
    assert narrated_start(corrected) == pytest.approx(14.0, abs=0.02)


def narrated_start(made: RecordingWindows) -> float:
    def narrated() -> Iterator[float]:
        for window in made:
            if window.meta.texts:
                yield window.meta.start_s

    (start_s,) = narrated()
    return start_s
