import pickle
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
import telemetry_parser

from primus_scale.sample import CHANNELS, UNITS
from shards.readers import create_reader
from shards.readers.gopro_track import read_track
from shards.readers.people import UNKNOWN
from shards.recording import ACCELEROMETER, GYROSCOPE, Narration, Recording
from shards.signal.condition import condition
from tests.reading import read_sensor, sensor_of
from tests.recordings import recording_path
from tests.video_factory import numbered_pictures, write_video

SAMPLE = "gopro_max_hero.mp4"  # 10.543 s: 315 frames, 2082 samples in 11 blocks of telemetry


@pytest.fixture
def sample() -> bytes:
    return recording_path(SAMPLE).read_bytes()


def read(source: Path | str, use: Any = lambda recording: recording, **options: str) -> Any:
    """What ``use`` makes of the only recording of the source."""
    reader = pickle.loads(pickle.dumps(create_reader("gopro", str(source), options)))  # noqa: S301 (made here)
    (ref,) = reader.recordings()
    with reader.open(ref) as recording:
        return use(recording)


def test_the_imu_of_a_real_camera() -> None:
    def use(recording: Recording) -> None:
        (device,) = recording.devices
        acc, gyr = device.sensors
        assert (device.name, device.placement) == ("GoPro Max", "head")
        assert (acc.channels, acc.unit) == (ACCELEROMETER, "m/s2")
        assert (gyr.channels, gyr.unit) == (GYROSCOPE, "rad/s")
        time_s, values = read_sensor(acc)
        # The first stored sample is 198, -3593, 675 at 417 units per m/s2, axes turned by -y, x, z.
        np.testing.assert_allclose(values[0], np.array([3593, 198, 675]) / 417, rtol=1e-9)
        _, rotation = read_sensor(gyr)
        np.testing.assert_allclose(rotation[0], np.array([-209, 68, -146]) / 939, rtol=1e-9)
        # The stamp of the first sample is 80577 microseconds, that of sample 1977 10092993.
        assert len(time_s) == 2082
        step_s = (10.092993 - 0.080577) / 1977
        np.testing.assert_allclose(time_s, np.arange(2082) * step_s, atol=5e-5)
        assert time_s[0] == 0
        assert device.nominal_rate_hz == pytest.approx(1 / step_s, rel=1e-5)
        # 16 bits over 417 and 939: 8 g, and 2000 deg/s.
        assert (acc.limit, gyr.limit) == (32767 / 417, 32767 / 939)

        signal = condition(device, channels=CHANNELS, units=UNITS, rate_hz=50.0)
        assert 9.5 < (signal.median_acc or 0) < 10.1
        for sensor in signal.sensors:
            assert sensor.rate_hz == pytest.approx(device.nominal_rate_hz, rel=0.01)
            assert (sensor.invalid, sensor.out_of_order, sensor.duplicates) == (0, 0, 0)
        (segment,) = signal.segments
        assert segment.values.shape == (6, 527) and signal.gaps == ()
        expected = np.abs(rotation).mean(axis=0)
        np.testing.assert_allclose(np.abs(segment.values[3:]).mean(axis=1), expected, rtol=0.1)
        assert recording.sync.startswith("a clock for each sensor from counts of samples (their st")
        assert (recording.dataset, recording.narrations) == ("gopro", ())
        assert recording.notes == (UNKNOWN,)

    read(recording_path(SAMPLE), use)


def test_values_are_those_of_an_independent_library() -> None:
    path = recording_path(SAMPLE)
    rows = telemetry_parser.Parser(str(path)).normalized_imu()

    def use(recording: Recording) -> None:
        (time_s, acc), (_, gyr) = map(read_sensor, recording.devices[0].sensors)
        # It too takes the rate from the stamps, of the first block and the last, and begins at 0.
        np.testing.assert_allclose(time_s * 1000, [row["timestamp_ms"] for row in rows], atol=0.05)
        np.testing.assert_allclose(acc, [row["accl"] for row in rows], rtol=1e-12, atol=1e-12)
        expected = np.radians([row["gyro"] for row in rows])
        np.testing.assert_allclose(gyr, expected, rtol=1e-12, atol=1e-12)

    read(path, use)


def test_the_pictures_of_a_real_camera() -> None:
    def use(recording: Recording) -> list[np.ndarray]:
        assert recording.frames is not None
        times_s = recording.frames.times_s()
        np.testing.assert_allclose(times_s, np.arange(315) * 1001 / 30000, atol=1e-9)
        assert next(recording.frames.pictures([0], short_side=120)).shape == (120, 212, 3)
        return list(recording.frames.pictures([0, 77, 314]))

    pictures = read(recording_path(SAMPLE), use)
    with av.open(str(recording_path(SAMPLE))) as file:
        decoded = [frame.to_ndarray(format="rgb24")[::8, ::8] for frame in file.decode(video=0)]
    for number, picture in zip((0, 77, 314), pictures, strict=True):
        apart = [np.abs(other.astype(float) - picture[::8, ::8]).mean() for other in decoded]
        assert np.argmin(apart) == number and apart[number] < 2
        blue, below = picture[:120, :, 2].mean(), picture[-120:, :, 2].mean()
        assert blue > below + 40  # the sky is at the top


def test_names_people_and_narrations(tmp_path: Path, sample: bytes) -> None:
    folder = tmp_path / "Zoë"
    folder.mkdir()
    for name in ("fahrt 1.MP4", "two.360", "._two.360"):
        (folder / name).write_bytes(sample)
    (folder / "notes.txt").write_text("no recording")
    (folder / "fahrt 1.srt").write_text("1\n00:00:01,500 --> 00:00:03,000\n#C C öffnet die Tür\n")
    reader = create_reader("gopro", str(tmp_path), {"placement": "chest"})
    one, two = reader.recordings()
    assert (one.name, two.name) == ("Zoë/fahrt 1.MP4", "Zoë/two.360")
    assert one.files == ("Zoë/fahrt 1.MP4", "Zoë/fahrt 1.srt") and two.files == ("Zoë/two.360",)
    with reader.open(one) as recording:
        assert recording.narrations == (Narration(1.5, 3.0, "A person öffnet die Tür"),)
        assert (recording.person, recording.devices[0].placement) == ("gopro-Zoë", "chest")
    (folder / "two.csv").write_text("start_s,text\n1,one\n")
    (folder / "two.json").write_text('[{"start_s": 1, "text": "one"}]')
    with (
        pytest.raises(ValueError, match=r"two\.csv and .*two\.json are both named as narrations"),
        reader.open(reader.recordings()[1]),
    ):
        pass


def test_people_are_the_first_folders(tmp_path: Path, sample: bytes) -> None:
    """Never a file: two chapters of a ride are of one person, whatever the split."""
    for path in ("GX010001.MP4", "GX020001.MP4", "anna/GX01.MP4", "anna/monday/GX01.MP4"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(sample)

    def people(source: Path, **options: str) -> dict[str, tuple[str, bool]]:
        reader, found = create_reader("gopro", str(source), options), {}
        for ref in reader.recordings():
            with reader.open(ref) as recording:
                found[ref.name] = recording.person, UNKNOWN in recording.notes
        return found

    assert people(tmp_path) == {
        "GX010001.MP4": ("gopro-unknown", True),
        "GX020001.MP4": ("gopro-unknown", True),
        "anna/GX01.MP4": ("gopro-anna", False),
        "anna/monday/GX01.MP4": ("gopro-anna", False),
    }
    single = tmp_path / "anna" / "GX01.MP4"
    assert people(single) == {"GX01.MP4": ("gopro-unknown", True)}
    assert people(single, person="007") == {"GX01.MP4": ("gopro-007", False)}


def test_chapters_of_one_video_are_one_session(tmp_path: Path, sample: bytes) -> None:
    sessions = {
        "GX010042.MP4": "video 0042",
        "GX020042.MP4": "video 0042",
        "GOPR0007.MP4": "video 0007",
        "GP010007.MP4": "video 0007",
        "anna/gh010042.mp4": "anna/video 0042",
        "GXAA0001.MP4": "",
        "ride.MP4": "",
    }
    for path in sessions:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(sample)
    reader, found = create_reader("gopro", str(tmp_path)), {}
    for ref in reader.recordings():
        with reader.open(ref) as recording:
            found[ref.name] = recording.session
    assert found == sessions


def test_a_remote_file(sample: bytes) -> None:
    fsspec.filesystem("memory").pipe("/gopro/anna/GX01.MP4", sample)

    def use(recording: Recording) -> tuple[int, int]:
        assert recording.frames is not None
        time_s, _ = read_sensor(recording.devices[0].sensors[0])
        return len(time_s), len(list(recording.frames.pictures([3, 4], short_side=32)))

    assert read("memory://gopro", use) == (2082, 2)


def entries(data: bytes, key: bytes) -> Iterator[tuple[int, int]]:
    """Where the entries of a sensor begin in the file, and those of TSMP before them."""
    start = data.find(key)
    while start >= 0:
        yield start, data.rindex(b"TSMP", 0, start)
        start = data.find(key, start + 1)


def test_the_way_of_other_makers_files(sample: bytes) -> None:
    """There is no file of theirs; the library reads this one, whose track has a foreign type."""
    foreign = sample.replace(b"gpmd", b"xpmd")
    fsspec.filesystem("memory").pipe("/sony/ben/C0001.MP4", foreign)

    def use(recording: Recording) -> None:
        (device,) = recording.devices
        acc, gyr = device.sensors
        assert (device.name, device.nominal_rate_hz) == ("GoPro Max", None)
        assert (acc.channels, acc.unit) == (ACCELEROMETER, "m/s2")
        assert (gyr.channels, gyr.unit) == (GYROSCOPE, "deg/s")
        time_s, values = read_sensor(acc)
        assert len(time_s) == 2082 and time_s[0] == 0 and 10.53 < time_s[-1] < 10.543
        np.testing.assert_allclose(values[0], np.array([3593, 198, 675]) / 417, rtol=1e-9)
        _, rotation = read_sensor(gyr)
        first = np.degrees(np.array([-209, 68, -146]) / 939)
        np.testing.assert_allclose(rotation[0], first, rtol=1e-9)
        assert recording.sync.startswith("sample times of telemetry-parser taken to be")

    read("memory://sony", use)


def halve(data: bytes, key: bytes) -> bytes:
    """Telemetry in which a sensor has the first half of each block's samples, behind a filler."""
    changed, total = bytearray(data), 0
    for start, count in entries(data, key):
        kind, size, repeat = struct.unpack_from(">cBH", data, start + 4)
        kept = repeat // 4 * 2  # so that 6 bytes a sample need no padding
        total += kept
        struct.pack_into(">L", changed, count + 8, total)
        stop = start + 8 + -(-size * repeat // 4) * 4
        samples = data[start + 8 : start + 8 + kept * size]
        entry = struct.pack(">4scBH", key, kind, size, kept) + samples
        filler = stop - start - len(entry)
        changed[start:stop] = (
            struct.pack(">4scBH", b"FILL", b"b", 1, filler - 8).ljust(filler, b"\0") + entry
        )
    return bytes(changed)


def test_sensors_of_different_rates(tmp_path: Path, sample: bytes) -> None:
    path = tmp_path / "half.mp4"
    path.write_bytes(halve(sample, b"ACCL"))

    def use(recording: Recording) -> None:
        (device,) = recording.devices
        acc_s, acc = read_sensor(sensor_of(device, "acc_x"))
        gyr_s, gyr = read_sensor(sensor_of(device, "gyr_x"))
        assert (len(acc_s), len(gyr_s)) == (1032, 2082)
        assert np.isfinite(acc).all() and np.isfinite(gyr).all()
        for time_s in (acc_s, gyr_s):  # both over the whole recording
            assert abs(time_s[0]) < 0.006 and 10.52 < time_s[-1] < 10.543
        np.testing.assert_allclose(acc[0], np.array([3593, 198, 675]) / 417, rtol=1e-9)
        assert device.nominal_rate_hz is None
        signal = condition(device, channels=CHANNELS, units=UNITS, rate_hz=50.0)
        rates = [sensor.rate_hz for sensor in signal.sensors]
        assert rates == pytest.approx([98.0, 197.5], rel=0.02)
        assert len(signal.segments) == 1

    read(path, use)


def test_rows_of_other_makers_files_that_lack_a_sensor(tmp_path: Path, sample: bytes) -> None:
    """The library gives a row for each moment of either sensor, and nothing for the other one."""
    path = tmp_path / "C0001.MP4"
    path.write_bytes(halve(sample, b"ACCL").replace(b"gpmd", b"xpmd"))
    rows = telemetry_parser.Parser(str(path)).normalized_imu()
    held = [row for row in rows if row["accl"] is not None]
    assert 0 < len(held) < len(rows), "some rows are without acceleration"

    def use(recording: Recording) -> None:
        (device,) = recording.devices
        acc_s, acc = read_sensor(sensor_of(device, "acc_x"))
        gyr_s, gyr = read_sensor(sensor_of(device, "gyr_x"))
        np.testing.assert_allclose(acc_s, [row["timestamp_ms"] / 1000 for row in held])
        np.testing.assert_array_equal(acc, [row["accl"] for row in held])
        assert len(gyr_s) == 2082
        assert np.isfinite(acc).all() and np.isfinite(gyr).all()

    read(path, use)


def test_other_makers_videos_that_are_not_in_real_time(tmp_path: Path, sample: bytes) -> None:
    """The pictures were slowed down: their track says that it lasts four times as long."""
    path = tmp_path / "C0001.MP4"
    header = sample.rindex(b"mdhd", 0, sample.index(b"vmhd"))
    edits = sample.rindex(b"elst", 0, header)
    slow = bytearray(sample.replace(b"gpmd", b"xpmd"))
    for place, factor in ((header + 16, 0.25), (edits + 12, 4)):  # ticks a second, edit's length
        (number,) = struct.unpack_from(">L", sample, place)
        struct.pack_into(">L", slow, place, round(number * factor))
    path.write_bytes(slow)
    told = "its telemetry lasts 10.5 s, and the video 42.0 s, where 25% is allowed"
    with pytest.raises(ValueError, match=rf"C0001\.MP4: the video is not in real time: {told}"):
        read(path)


def test_sonys_videos_that_were_slowed_down(tmp_path: Path, sample: bytes) -> None:
    """Picture and telemetry last as long, at half the pace: only the camera's own text tells."""
    path = tmp_path / "C0001.MP4"
    text = b'<NonRealTimeMeta><VideoFrame captureFps="59.94p" formatFps="29.97p"/>'
    box = struct.pack(">I4sI", 12 + len(text), b"meta", 0) + text
    path.write_bytes(sample.replace(b"gpmd", b"xpmd") + box)
    told = "59.94 pictures a second were taken and 29.97 are shown"
    with pytest.raises(ValueError, match=rf"C0001\.MP4: the video is not in real time: {told}"):
        read(path)


def test_a_missing_sensor_is_noted(tmp_path: Path, sample: bytes) -> None:
    path = tmp_path / "one.mp4"
    for key, called, first in (
        (b"GYRO", "gyroscope", "acc_x"),
        (b"ACCL", "accelerometer", "gyr_x"),
    ):
        path.write_bytes(sample.replace(key, b"XXXX"))
        recording = read(path)
        assert recording.notes == (f"no {called} in its telemetry", UNKNOWN)
        assert [sensor.channels[0] for sensor in recording.devices[0].sensors] == [first]


def rename(data: bytes, key: bytes, name: bytes, blocks: slice) -> bytes:
    """Telemetry in which a sensor's key is another one in these blocks."""
    changed = bytearray(data)
    for start, _ in [*entries(data, key)][blocks]:
        changed[start : start + 4] = name
    return bytes(changed)


def test_a_camera_that_does_not_state_its_axes(tmp_path: Path, sample: bytes) -> None:
    path = tmp_path / "old.mp4"
    untold = sample.replace(b"ORIN", b"XXXX").replace(b"MTRX", b"XXXX")
    path.write_bytes(untold.replace(b"GoPro Max\0", b"Hero5 Blk\0"))

    def use(recording: Recording) -> None:
        _, values = read_sensor(recording.devices[0].sensors[0])
        np.testing.assert_allclose(values[0], np.array([198, -3593, 675]) / 417)
        assert recording.devices[0].name == "GoPro Hero5 Blk"
        assert recording.notes == (
            "order of axes not in its telemetry: ZXY, as documented for Hero5 Blk by GoPro",
            UNKNOWN,
        )

    read(path, use)
    path.write_bytes(untold)
    with pytest.raises(
        ValueError,
        match=r"old\.mp4: the telemetry block at 0\.000 s cannot be read: "
        "neither ORIN nor MTRX states the order of axes, and GoPro documents none for a camera "
        "called 'GoPro Max'",
    ):
        read(path)


def test_damaged_files_are_named(tmp_path: Path, sample: bytes) -> None:
    path = tmp_path / "ride.mp4"
    write_video(tmp_path / "plain.mp4", numbered_pictures(5))
    second = sample.index(b"DEVC", sample.index(b"ACCL"))
    lost = "; copy the file from the camera again"
    for content, message in (
        (b"", r" is empty; download it again"),
        (sample[: len(sample) // 2], r" is truncated: its index \(moov\) is missing or damaged"),
        (b"no video " * 200, r" is no video that FFmpeg reads"),
        (
            (tmp_path / "plain.mp4").read_bytes(),
            r" has no telemetry that can be read \(Unsupported file format\); take the file as",
        ),
        (
            sample.replace(b"ACCL", b"XXXX").replace(b"GYRO", b"XXXX"),
            r": the telemetry of this GoPro holds no IMU samples; leave it out",
        ),
        (  # a block that was never written
            sample[:second] + bytes(6200) + sample[second + 6200 :],
            rf": the telemetry block at 1\.001 s cannot be read: it is empty{lost}",
        ),
        (
            sample[: second + 3000] + b"\xff" * 64 + sample[second + 3064 :],
            r": the telemetry block at 1\.001 s cannot be read: .* is no key",
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"ride\.mp4{message}"):
            read(path)


def test_blocks_without_a_sensor_are_a_gap(tmp_path: Path, sample: bytes) -> None:
    """What other blocks hold is not lost with them, and lies where it lay."""
    path = tmp_path / "ride.mp4"

    def use(recording: Recording) -> tuple[list[tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
        return [read_sensor(sensor) for sensor in recording.devices[0].sensors], recording.notes

    whole, _ = read(recording_path(SAMPLE), use)
    for key, which, gone, counted in (
        (b"ACCL", slice(3, 4), slice(593, 791), True),
        (b"GYRO", slice(9, 11), slice(1779, 2082), False),  # at the end: no later block counts them
    ):
        path.write_bytes(rename(sample, key, b"XXXX", which))
        parts, notes = read(path, use)
        for number, name in enumerate((b"ACCL", b"GYRO")):
            left = gone if name == key else slice(0, 0)
            for part, all_of_it in zip(parts[number], whole[number], strict=True):
                np.testing.assert_allclose(part, np.delete(all_of_it, left, axis=0), atol=5e-5)
        lost = len(range(*gone.indices(2082)))
        assert any("telemetry blocks; they came with another block" in note for note in notes)
        assert (f"{key.decode()}: {lost:,} samples lost in 1 place, by TSMP" in notes) == counted


def test_a_track_that_ends_early_is_named(tmp_path: Path) -> None:
    path = tmp_path / "track.mp4"
    faststart = {"movflags": "faststart"}  # its index comes first, so it opens when cut
    with (
        av.open(str(recording_path(SAMPLE))) as file,
        av.open(str(path), "w", format="mp4", options=faststart) as copy,
    ):
        (track,) = (stream for stream in file.streams.data if stream.name == "bin_data")
        copied = copy.add_stream_from_template(track)
        for packet in file.demux(track):
            if packet.size:
                packet.stream = copied
                copy.mux(packet)
    opener = partial(path.open, "rb")
    whole = read_track(opener, "track.mp4")
    assert whole is not None and whole.sensors["ACCL"].samples == 2082
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"track\.mp4: its telemetry cannot be read \(it is trunc"):
        read_track(opener, "track.mp4")


def test_sources_and_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no video file \(\.mp4, \.360, \.insv\) below"):
        create_reader("gopro", str(tmp_path)).recordings()
    with pytest.raises(ValueError, match="no option place; the nearest is 'placem"):
        create_reader("gopro", str(tmp_path), {"place": "chest"})
