import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primus_scale.sample import CHANNELS, UNITS
from shards.readers import create_reader
from shards.readers.base import Reader
from shards.recording import Recording, RecordingRef
from shards.report import COPIED
from shards.signal.condition import condition
from shards.signal.gates import check_window
from tests.reading import find_ref, read_sensor, sensor_of, spans
from tests.recording_factory import acceleration, rotation, sample_times
from tests.video_factory import numbered_pictures, read_number, write_video

UID = "3e08beb0-9108-4e77-b2ae-80f91ceac474"
OTHER = "77cc4654-4eec-44c6-af05-dbdf71f9a401"
HEADER = (
    "component_idx,component_timestamp_ms,canonical_timestamp_ms,"
    "gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"
)
SYNC = (
    "canonical_timestamp_ms of the IMU taken as time in the video; "
    "video and IMU may be off by 0.5 to 1 s in some videos"
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
    assert spans(recording) == [(0.0, 12.5, "Cooking")]
    assert (recording.dataset, recording.name, recording.person) == ("ego4d", UID, "ego4d-42")
    assert recording.sync == SYNC
    assert recording.notes == (
        "narrations left out: 1, of another person",
        "narrations left out: 1, without text",
        "narrations left out: 1, without a time",
    )
    other = opened(tmp_path, OTHER)
    assert other.person == f"ego4d-{OTHER}"
    assert other.notes == ("no video file", "person unknown: taken to be in no other video")
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
    stretch = signal.stretches[0]
    assert (stretch.start, stretch.stop) == (0, 600)
    grid = np.arange(50, 548) / 50
    expected = np.hstack([acceleration(grid), rotation(grid)]).T
    np.testing.assert_allclose(stretch.values[:, 50:548], expected, atol=2e-3)
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
    assert (unknown.devices[0].name, unknown.person) == ("camera", f"ego4d-{uids[1]}")
    assert unknown.notes == (
        "not in ego4d.json: person, scenario and components unknown",
        "no video file",
        "no narration.json",
        "person unknown: taken to be in no other video",
    )
    without = opened(tmp_path, uids[2])
    assert without.devices == () and without.frames is not None
    assert without.notes[0] == "no IMU file; download it with --datasets imu"


def test_scenarios_and_what_the_metadata_say(tmp_path: Path) -> None:
    write_imu(tmp_path, sample_times(200, 1))
    write_metadata(
        tmp_path,
        video_entry(
            scenarios=["Cooking", "Putzen & Wäsche"],
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
    assert "no label, of several scenarios: Cooking; Putzen & Wäsche" in recording.notes
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


def test_narrations_that_are_not_there_are_told(tmp_path: Path) -> None:
    write_imu(tmp_path, sample_times(200, 1))
    write_metadata(tmp_path)
    assert "no narration.json" in opened(tmp_path).notes
    write_narrations(tmp_path, {OTHER: {}})
    assert "no narrations: not in narration.json" in opened(tmp_path).notes
    write_narrations(tmp_path, {UID: {"narration_pass_2": None, "status": "redacted"}})
    assert "no narrations in pass 1 or 2" in opened(tmp_path).notes
    write_narrations(tmp_path, {UID: {"narration_pass_1": {"narrations": [{"timestamp_sec": 1}]}}})
    message = rf"narration\.json: a narration of {UID} has no field narration_text, but timestamp"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_wrong_options_are_told(tmp_path: Path) -> None:
    for passes in ("3", "", "one"):
        with pytest.raises(ValueError, match=r"option passes=.*: write 1, 2 or 1,2"):
            create_reader("ego4d", str(tmp_path), {"passes": passes})


def test_damaged_files_are_named(tmp_path: Path) -> None:
    time_s = sample_times(200, 1)
    write_imu(tmp_path, time_s)
    write_metadata(tmp_path)
    write_narrations(tmp_path, {UID: {"narration_pass_1": {"narrations": []}}})
    for name in ("v2/ego4d.json", "v2/annotations/narration.json"):
        path = tmp_path / name
        whole = path.read_bytes()
        for data in (b"", whole[: len(whole) // 2], b"<html>"):
            path.write_bytes(data)
            with pytest.raises(ValueError, match=rf"{path.name}, byte \d+: .*download it again"):
                refs_of(tmp_path)
        path.write_bytes(whole)
    write_metadata(tmp_path, {"uid": UID})
    with pytest.raises(ValueError, match=r"ego4d\.json: video 0 has no field video_uid, but uid"):
        refs_of(tmp_path)
    write_metadata(tmp_path)
    path = tmp_path / "v2" / "imu" / f"{UID}.csv"
    lines = path.read_text().splitlines()
    for content, message in (
        ("", "no row, it is empty"),
        (HEADER, "no row below line 1"),
        ("\n".join([*lines[:9], lines[9][:30]]), r"line 10 has \d cells, not 9"),
        (
            "\n".join([*lines[:3], lines[3].replace("0,", "x,", 1)]),
            "column component_idx holds 'x'",
        ),
        ("\n".join([*lines[:3], lines[3].replace("0,", ",", 1)]), "component_idx is empty or neg"),
        ("\n".join([lines[0].replace("gyro_x", "gx"), *lines[1:]]), "has no column 'gyro_x'"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"{UID}\.csv.*{message}"):
            opened(tmp_path)


def test_missing_and_double_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no ego4d\.json below .*--metadata"):
        refs_of(tmp_path)
    write_metadata(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no imu/<video_uid>\.csv below"):
        refs_of(tmp_path)
    write_imu(tmp_path, sample_times(200, 1))
    write_imu(tmp_path / "ältere", sample_times(200, 1))
    with pytest.raises(ValueError, match=rf"video {UID} has two IMU files: .*v2/.* and .*ältere"):
        refs_of(tmp_path)
    (tmp_path / "ältere" / "v2" / "imu" / f"{UID}.csv").unlink()
    write_metadata(tmp_path / "ältere")
    with pytest.raises(ValueError, match=r"ego4d\.json and .*ego4d\.json are of two versions"):
        refs_of(tmp_path)
