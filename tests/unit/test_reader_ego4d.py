import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from primus_scale.sample import CHANNELS, UNITS
from shards.readers import create_reader
from shards.readers.base import Reader
from shards.readers.people import UNKNOWN
from shards.recording import RecordingRef
from shards.report import COPIED
from shards.signal.condition import condition
from shards.signal.gates import check_window
from tests.ego4d_factory import (
    OTHER,
    UID,
    narration,
    opened,
    refs_of,
    video_entry,
    write_imu,
    write_metadata,
    write_narrations,
    write_pictures,
)
from tests.reading import find_ref, read_sensor, sensor_of, spans
from tests.recording_factory import acceleration, rotation, sample_times
from tests.video_factory import read_number

SYNC = (
    "canonical_timestamp_ms of the IMU taken as time in the video; "
    "video and IMU may be off by 0.5 to 1 s in some videos"
)


def test_a_video(tmp_path: Path) -> None:
    time_s = sample_times(200, 12, jitter=0.2)
    values = write_imu(tmp_path, time_s)
    write_imu(tmp_path, time_s[:10], uid=OTHER)
    write_metadata(tmp_path, video_entry(), video_entry(OTHER, fb_participant_id=None))
    write_pictures(tmp_path)
    narrations = [
        narration(9.5, "#C C dices #unsure with C's left hand"),
        narration(2.25, "#C C reads the CPR poster, Plakat „Erste Hilfe“ 心肺蘇生"),
        narration(3.0, "#O A man X walks past C"),
        narration(4.0, "#unsure"),
        narration(None, "#C C looks around"),
    ]
    second = {"narrations": [narration(2.0, "#C C looks at a poster")], "summaries": []}
    summaries = [{"start_sec": 0, "end_sec": 300, "summary_text": "#summary C was in a kitchen"}]
    write_narrations(
        tmp_path,
        {
            OTHER: {"narration_pass_1": {"narrations": [narration(1, "#C C hums")]}},
            UID: {
                "narration_pass_1": {"narrations": narrations, "summaries": summaries},
                "narration_pass_2": second,
                "status": "complete",
            },
        },
    )
    (tmp_path / "v2" / "imu" / "manifest.csv").write_text("video_uid,type\n")
    # As Ray sends it to workers.
    reader: Reader = pickle.loads(pickle.dumps(create_reader("ego4d", str(tmp_path))))  # noqa: S301
    assert [ref.name for ref in reader.recordings()] == [UID, OTHER]
    ref = find_ref(reader, UID)
    assert ref.files == (
        f"v2/imu/{UID}.csv",
        f"v2/video_540ss/{UID}.mp4",
        "v2/annotations/narration.json",
    )
    # Details are JSON: they are written to a run's journal and come back as lists.
    ref = RecordingRef(ref.name, ref.files, json.loads(json.dumps(ref.details)))
    with reader.open(ref) as recording:
        (device,) = recording.devices
        acc, gyr = sensor_of(device, "acc_x"), sensor_of(device, "gyr_x")
        assert (acc.unit, gyr.unit) == ("m/s2", "rad/s")
        for sensor, expected in ((acc, values[:, 3:]), (gyr, values[:, :3])):
            times, samples = read_sensor(sensor)
            np.testing.assert_allclose(times, time_s, atol=1e-9)
            np.testing.assert_array_equal(samples, expected)
        assert recording.frames is not None
        np.testing.assert_allclose(recording.frames.times_s(), np.arange(12) / 30, atol=1e-9)
        assert [read_number(p) for p in recording.frames.pictures([3, 11])] == [3, 11]
    assert (device.name, device.placement, device.nominal_rate_hz) == ("GoPro Hero 7", "head", None)
    assert [tuple(n) for n in recording.narrations] == [
        (2.0, 2.0, "A person looks at a poster"),
        (2.25, 2.25, "A person reads the CPR poster, Plakat „Erste Hilfe“ 心肺蘇生"),
        (9.5, 9.5, "A person dices something with the person's left hand"),
    ]
    assert spans(recording) == [(0.0, 12.5, "cooking")]
    assert (recording.dataset, recording.name, recording.person) == ("ego4d", UID, "ego4d-42")
    assert recording.sync == SYNC
    assert recording.notes == (
        "narrations left out: 1, of another person",
        "narrations left out: 1, without text",
        "narrations left out: 1, without a time",
    )
    other = opened(tmp_path, OTHER)
    assert other.person == "ego4d-unknown"
    assert other.notes == ("no video file", UNKNOWN)
    assert [n.text for n in other.narrations] == ["A person hums"]


def test_rows_in_any_order_and_absurd_times_make_one_signal(tmp_path: Path) -> None:
    """The reader hands on what stands there; the signal path makes of it what was recorded."""
    time_s = sample_times(200, 12)
    values = np.hstack([rotation(time_s), acceleration(time_s)])
    shuffled = np.random.default_rng(5).permutation(len(time_s))
    rows = np.concatenate([shuffled, shuffled[:50], [0, 1, 2, 3]])
    times = (time_s[rows] * 1000).tolist()
    times[-4:] = [1e300, -1e300, 1e18, 4.3e9]
    write_imu(tmp_path, time_s[rows], canonical_ms=times, values=values[rows])
    write_metadata(tmp_path)
    (device,) = opened(tmp_path).devices
    signal = condition(device, channels=CHANNELS, units=UNITS, rate_hz=50)
    segment = signal.segments[0]
    assert (segment.start, segment.stop) == (0, 600)
    grid = np.arange(50, 548) / 50
    expected = np.hstack([acceleration(grid), rotation(grid)]).T
    np.testing.assert_allclose(segment.values[:, 50:548], expected, atol=2e-3)
    acc, gyr = signal.sensors
    for report in (acc, gyr):
        assert (report.samples, report.untimed, report.duplicates) == (2454, 3, 50)
        assert report.out_of_order > 1000
    assert signal.median_acc == pytest.approx(9.8, abs=0.2)


def test_copied_channels_are_caught(tmp_path: Path) -> None:
    """As in the sample of Ego4D's documentation, where accl_y is accl_z."""
    time_s = sample_times(200, 8)
    values = np.hstack([rotation(time_s), acceleration(time_s)])
    values[:, 4] = values[:, 5]
    write_imu(tmp_path, time_s, values=values)
    write_metadata(tmp_path)
    (device,) = opened(tmp_path).devices
    signal = condition(device, channels=CHANNELS, units=UNITS, rate_hz=50)
    assert check_window(signal, 50, 250) == COPIED


@pytest.mark.parametrize("empty", ["", "NULL", "nan"])
def test_the_only_component_gives_the_time_where_canonical_times_are_empty(
    tmp_path: Path, empty: str
) -> None:
    time_s = sample_times(200, 2, start_s=0.5)
    write_imu(tmp_path, time_s, canonical_ms=[empty] * len(time_s))
    write_metadata(tmp_path)
    recording = opened(tmp_path)
    times, _ = read_sensor(recording.devices[0].sensors[0])
    np.testing.assert_allclose(times, time_s, atol=1e-9)
    note = "canonical_timestamp_ms is empty: component_timestamp_ms taken, of the only component"
    assert note in recording.notes
    assert recording.sync.startswith("component_timestamp_ms of the IMU taken as time in the video")


def test_rows_cut_off_the_video_have_no_time(tmp_path: Path) -> None:
    """Some canonical times: the others are no reason to take another clock for all."""
    time_s = sample_times(200, 2)
    canonical = ["" if n < 100 else (t - 0.5) * 1000 for n, t in enumerate(time_s.tolist())]
    write_imu(tmp_path, time_s, canonical_ms=canonical)
    write_metadata(tmp_path)
    recording = opened(tmp_path)
    times, _ = read_sensor(recording.devices[0].sensors[1])
    assert np.isnan(times[:100]).all()
    np.testing.assert_allclose(times[100:], time_s[:300], atol=1e-9)
    assert recording.sync == SYNC


def test_components_without_a_place_in_the_video_are_left_out(tmp_path: Path) -> None:
    time_s = np.concatenate([sample_times(200, 2)] * 2)
    component = np.repeat([0, 2], 400)
    canonical = [t * 1000 if n < 400 else "" for n, t in enumerate(time_s.tolist())]
    write_imu(tmp_path, time_s, component=component, canonical_ms=canonical)
    four = [{"component_idx": n} for n in range(4)]
    write_metadata(tmp_path, video_entry(video_components=four))
    recording = opened(tmp_path)
    times, _ = read_sensor(recording.devices[0].sensors[0])
    np.testing.assert_allclose(times[:400], time_s[:400], atol=1e-9)
    assert np.isnan(times[400:]).all()
    assert recording.notes[:2] == (
        "no IMU in components 1, 3 of 4",
        "IMU of component 2 left out: canonical_timestamp_ms of its 400 rows is empty, and where "
        "it begins in the video is unknown",
    )


@pytest.mark.parametrize("known", [2, 0, None])
def test_component_times_are_never_guessed_to_be_those_of_the_video(
    tmp_path: Path, known: int | None
) -> None:
    """Component 0 alone is in the file, but the video has two, or nobody says how many."""
    time_s = sample_times(200, 2)
    write_imu(tmp_path, time_s, canonical_ms=[""] * len(time_s))
    if known is None:
        write_metadata(tmp_path, video_entry(OTHER))
    else:
        write_metadata(tmp_path, video_entry(video_components=[{}] * known))
    recording = opened(tmp_path)
    assert recording.devices == ()
    assert any("IMU of component 0 left out" in note for note in recording.notes)
    assert (known is None) == ("not in ego4d.json" in recording.notes[0])


def test_a_sensor_without_values_is_left_out(tmp_path: Path) -> None:
    write_imu(tmp_path, sample_times(200, 1), blank=(3, 4, 5))
    write_metadata(tmp_path)
    recording = opened(tmp_path)
    assert [sensor.channels[0] for sensor in recording.devices[0].sensors] == ["gyr_x"]
    assert "no values of the accelerometer" in recording.notes


def test_which_videos_are_listed(tmp_path: Path) -> None:
    """Those with an IMU file here, and those that should have one and whose video is here."""
    uids = [f"{n:08d}-9108-4e77-b2ae-80f91ceac474" for n in range(5)]
    write_imu(tmp_path, sample_times(200, 1), uid=uids[0])
    write_imu(tmp_path, sample_times(200, 1), uid=uids[1])  # not in ego4d.json
    for uid in (uids[2], uids[3]):
        path = tmp_path / "v2" / "full_scale" / f"{uid}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not read by the listing")
    entries = [video_entry(uid, has_imu=uid != uids[3]) for uid in (uids[0], *uids[2:])]
    write_metadata(tmp_path, *entries)
    assert [ref.name for ref in refs_of(tmp_path)] == uids[:3]
    unknown = opened(tmp_path, uids[1])
    assert (unknown.devices[0].name, unknown.person) == ("camera", "ego4d-unknown")
    assert unknown.notes == (
        "not in ego4d.json: person, scenario and components unknown",
        "no video file",
        "no narration.json",
        UNKNOWN,
    )
    without = opened(tmp_path, uids[2])
    assert without.devices == () and without.frames is not None
    assert without.notes[0] == "no IMU file; download it with --datasets imu"


def test_scenarios_and_what_the_metadata_say(tmp_path: Path) -> None:
    write_imu(tmp_path, sample_times(200, 1))
    write_metadata(
        tmp_path,
        video_entry(
            scenarios=["Cooking", " Putzen  & Wäsche"],
            is_stereo=True,
            redacted_intervals=[{"start_sec": 1.0, "end_sec": 2.5}, {"start_sec": 5, "end_sec": 6}],
        ),
    )
    recording = opened(tmp_path)
    assert recording.labels == ()
    assert recording.notes[:2] == (
        "stereoscopic: each frame holds two pictures side by side",
        "2.5 s of the video are redacted",
    )
    assert "no label, of several scenarios: cooking; putzen & wäsche" in recording.notes
    write_metadata(tmp_path, video_entry(scenarios=None, redacted_intervals=None))
    assert opened(tmp_path).labels == ()


def test_the_smaller_video_is_taken_unless_asked(tmp_path: Path) -> None:
    write_imu(tmp_path, sample_times(200, 1))
    write_metadata(tmp_path)
    write_pictures(tmp_path, "full_scale")
    assert refs_of(tmp_path)[0].details["video"] == f"v2/full_scale/{UID}.mp4"
    write_pictures(tmp_path, "video_540ss")
    assert refs_of(tmp_path)[0].details["video"] == f"v2/video_540ss/{UID}.mp4"
    (ref,) = refs_of(tmp_path / "v2")
    assert ref.files == (f"imu/{UID}.csv", f"video_540ss/{UID}.mp4")
    (full,) = refs_of(tmp_path, full_scale="true")
    assert full.details["video"] == f"v2/full_scale/{UID}.mp4"


@pytest.mark.parametrize(
    ("passes", "texts"),
    [("1", ["A person a"]), ("2", ["A person b"]), ("2, 1", ["A person a", "A person b"])],
)
def test_wrapped_narrations_and_passes(tmp_path: Path, passes: str, texts: list[str]) -> None:
    write_imu(tmp_path, sample_times(200, 1))
    write_metadata(tmp_path)
    entry = {
        f"narration_pass_{n}": {"narrations": [narration(n, f"#C C {letter}")]}
        for n, letter in ((1, "a"), (2, "b"))
    }
    write_narrations(tmp_path, {"version": "2", "videos": {OTHER: {}, UID: entry}, "n": [UID]})
    assert [n.text for n in opened(tmp_path, passes=passes).narrations] == texts
