from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from primus_scale.sample import CHANNELS, UNITS
from shards.files.source import Source
from shards.files.vrs import VrsFile, imu_labels, open_vrs
from shards.signal.condition import condition
from tests.reading import read_sensor, sensor_of
from tests.recordings import recording_path
from tests.vrs_factory import IMU_LEFT, IMU_RIGHT, make_imu, write_vrs

data_provider = pytest.importorskip("projectaria_tools.core.data_provider")

HEAD = dict.fromkeys(imu_labels("both"), "head")
GENERATIONS = ("aria_gen1.vrs", "aria_gen2.vrs")
AT_800_HZ = 10**11 + 1_250_000 * np.arange(400)  # device times, ns


@contextmanager
def opened(path: Path) -> Iterator[VrsFile]:
    with open_vrs(Source(str(path.parent)), path.name) as file:
        yield file


def provider_of(path: Path) -> Any:
    """The library's own reader, to compare with."""
    return data_provider.create_vrs_data_provider(str(path))


@pytest.mark.parametrize(
    ("name", "ids", "rates_hz", "samples", "limits_g"),
    [
        ("aria_gen1.vrs", ("1202-2", "1202-1"), (800.0, 1000.0), (319, 400), (4, 8)),
        ("aria_gen2.vrs", ("1202-1", "1202-2"), (800.0, 800.0), (239, 238), (8, 16)),
    ],
)
def test_imus_are_found_by_label(
    name: str,
    ids: tuple[str, str],
    rates_hz: tuple[float, float],
    samples: tuple[int, int],
    limits_g: tuple[float, float],
) -> None:
    path = recording_path(name)
    provider = provider_of(path)
    with opened(path) as file:
        devices = file.imu_devices(HEAD)
        assert [device.name for device in devices] == ["imu-left", "imu-right"]
        for device, number, rate_hz, count, limit_g in zip(
            devices, ids, rates_hz, samples, limits_g, strict=True
        ):
            stream = provider.get_stream_id_from_label(device.name)
            assert str(stream) == number
            records = [provider.get_imu_data_by_index(stream, i) for i in range(count)]
            assert device.placement == "head"
            assert device.nominal_rate_hz == rate_hz
            acc, gyr = (sensor_of(device, first) for first in ("acc_x", "gyr_x"))
            assert (acc.unit, gyr.unit) == ("m/s2", "rad/s")
            assert acc.limit == pytest.approx(limit_g * 9.80665)
            for sensor, field in ((acc, "accel_msec2"), (gyr, "gyro_radsec")):
                time_s, values = read_sensor(sensor)
                expected = [getattr(record, field) for record in records]
                np.testing.assert_array_equal(values, expected)
                ns = [record.capture_timestamp_ns for record in records]
                np.testing.assert_array_equal(np.rint(time_s * 1e9).astype(np.int64), ns)
            assert count / (time_s[-1] - time_s[0]) == pytest.approx(rate_hz, rel=0.01)


@pytest.mark.parametrize("name", GENERATIONS)
def test_gravity_and_rates_after_the_signal_path(name: str) -> None:
    with opened(recording_path(name)) as file:
        for device in file.imu_devices(HEAD):
            signal = condition(device, channels=CHANNELS, units=UNITS, rate_hz=50.0)
            assert signal.median_acc is not None
            assert 9.5 <= signal.median_acc <= 10.1
            for sensor in signal.sensors:
                assert sensor.rate_hz == pytest.approx(device.nominal_rate_hz, rel=0.01)
                assert sensor.saturated == sensor.invalid == sensor.gaps == 0
            (segment,) = signal.segments
            gravity = np.linalg.norm(segment.values[:3], axis=0)
            assert 9.5 <= np.median(gravity) <= 10.1


@pytest.mark.parametrize("name", GENERATIONS)
def test_rectification_is_the_librarys(name: str) -> None:
    path = recording_path(name)
    provider = provider_of(path)
    with opened(path) as file:
        for device in file.imu_devices(HEAD):
            stream = provider.get_stream_id_from_label(device.name)
            imu = provider.get_sensor_calibration(stream).imu_calibration()
            for first, one in (
                ("acc_x", imu.raw_to_rectified_accel),
                ("gyr_x", imu.raw_to_rectified_gyro),
            ):
                sensor = sensor_of(device, first)
                assert sensor.rectify is not None
                _, raw = read_sensor(sensor)
                expected = np.array([one(row).ravel() for row in raw])
                assert np.abs(expected - raw).max() > 1e-3
                np.testing.assert_allclose(sensor.rectify(raw), expected, atol=1e-12)


def up_in_picture(provider: Any) -> np.ndarray:
    """Where the accelerometer says up is, in the stored picture: x to the right, y down."""
    stream = provider.get_stream_id_from_label("imu-left")
    force = [
        provider.get_imu_data_by_index(stream, i).accel_msec2
        for i in range(provider.get_num_data(stream))
    ]
    calibration = provider.get_device_calibration()
    imu = calibration.get_imu_calib("imu-left").get_transform_device_imu()
    camera = calibration.get_camera_calib("camera-rgb").get_transform_device_camera()
    device = imu.rotation().to_matrix() @ np.median(force, axis=0)
    up = camera.rotation().to_matrix().T @ device
    return up[:2] / np.linalg.norm(up[:2])


@pytest.mark.parametrize("name", GENERATIONS)
def test_pictures_are_upright_and_of_their_moment(name: str) -> None:
    path = recording_path(name)
    provider = provider_of(path)
    stream = provider.get_stream_id_from_label("camera-rgb")
    count = provider.get_num_data(stream)
    with opened(path) as file:
        camera = file.camera()
        assert camera is not None
        times_s = camera.times_s()
        assert times_s.shape == (count,)
        assert file.start_s() == times_s[0]
        numbers = [0, count - 1]
        (first, last), stored = list(camera.pictures(numbers)), []
        for number in numbers:
            data, record = provider.get_image_data_by_index(stream, number)
            stored.append(data.to_numpy_array().copy())
            assert times_s[number] == pytest.approx(record.capture_timestamp_ns * 1e-9, abs=1e-9)
        (turns,) = (k for k in range(4) if np.array_equal(np.rot90(stored[0], k), first))
        np.testing.assert_array_equal(np.rot90(stored[1], turns), last)
        assert not np.array_equal(first, last)
        x, y = up_in_picture(provider)
        for _ in range(turns):  # anticlockwise
            x, y = y, -x
        assert y < -np.cos(np.radians(30))
        assert first.dtype == np.uint8 and first.flags.c_contiguous
        # One alone is the same as in a sequence, though they may be coded by their differences.
        (alone,) = camera.pictures([count - 1])
        np.testing.assert_array_equal(alone, last)
        step = {1408: 22, 1512: 24}[min(first.shape[:2])]
        height, width = (side // step for side in first.shape[:2])
        (small,) = camera.pictures([0], short_side=min(height, width))
        assert small.shape == (height, width, 3)
        means = first.reshape(height, step, width, step, 3).mean((1, 3))
        assert np.abs(small - means).mean() < 2


def test_ppg_is_noted(capfd: pytest.CaptureFixture[str]) -> None:
    notes = []
    for name in GENERATIONS:
        with opened(recording_path(name)) as file:
            file.imu_devices(HEAD)
            notes.append(file.notes)
    assert notes == [[], ["PPG stream left out: its windows would have no IMU channels"]]
    assert capfd.readouterr().err == ""  # what the library reports is no user's business


def test_truncated_recordings_are_refused(tmp_path: Path) -> None:
    whole = recording_path("aria_gen1.vrs").read_bytes()
    path = tmp_path / "cut.vrs"
    # In the description, the index, the first records, and just before the end.
    for size in (40, 3_000, 35_000, 60_000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        message = r"cut\.vrs is empty, truncated, .*download it again"
        with pytest.raises(ValueError, match=message), opened(path):
            pass


def test_empty_foreign_and_missing_files_are_refused(tmp_path: Path) -> None:
    for name, content in (("empty.vrs", b""), ("foreign.vrs", b"RIFF" + bytes(5000))):
        (tmp_path / name).write_bytes(content)
        message = rf"{name} is empty, .*or no VRS file \(.*\); download it again"
        with pytest.raises(ValueError, match=message), opened(tmp_path / name):
            pass
    path, message = tmp_path / "absent.vrs", r"no .*/absent\.vrs; download it again"
    with pytest.raises(FileNotFoundError, match=message), opened(path):
        pass


def test_damage_within_a_recording_is_told(tmp_path: Path) -> None:
    content = bytearray(recording_path("aria_gen1.vrs").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200_000] = np.random.default_rng(0).bytes(200_000)
    path = tmp_path / "damaged.vrs"
    path.write_bytes(content)
    with opened(path) as file:
        for device in file.imu_devices(HEAD):
            for sensor in device.sensors:
                message = rf"damaged\.vrs: record \d+ of {device.name} is damaged; download it"
                with pytest.raises(ValueError, match=message):
                    read_sensor(sensor)
        camera = file.camera()
        assert camera is not None
        with pytest.raises(ValueError, match=r"damaged\.vrs: picture 4 of camera-rgb is damaged"):
            list(camera.pictures(range(8)))
        with pytest.raises(ValueError, match=r"damaged\.vrs: picture 4 of camera-rgb is damaged"):
            camera.times_s()


def test_invalid_records_are_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.files.vrs.CHUNK_RECORDS", 128)
    imu = make_imu(AT_800_HZ)
    imu.accelerometer_valid[[3, 10]] = False
    imu.gyroscope_valid[5:8] = False
    write_vrs(tmp_path / "a.vrs", {IMU_LEFT: imu, IMU_RIGHT: make_imu(AT_800_HZ[:0])})
    with opened(tmp_path / "a.vrs") as file:
        (device,) = file.imu_devices(HEAD)
        assert file.notes == [
            "no calibration of imu-left: its values are not rectified",
            "no imu-right stream",
        ]
        assert file.camera() is None
        assert file.start_s() == 100.0
        for first, values, valid in (
            ("acc_x", imu.accelerometer, imu.accelerometer_valid),
            ("gyr_x", imu.gyroscope, imu.gyroscope_valid),
        ):
            sensor = sensor_of(device, first)
            assert sensor.rectify is None
            assert len(list(sensor.read())) == 4
            time_s, read = read_sensor(sensor)
            np.testing.assert_array_equal(time_s, AT_800_HZ / 1e9)
            np.testing.assert_array_equal(read, np.where(valid[:, None], values, np.nan))


def test_unknown_glasses_are_noted(tmp_path: Path) -> None:
    write_vrs(tmp_path / "a.vrs", {IMU_LEFT: make_imu(AT_800_HZ)}, device_type="Quest")
    with opened(tmp_path / "a.vrs") as file:
        (device,) = file.imu_devices({"imu-left": "head"})
        assert [sensor.limit for sensor in device.sensors] == [None, None]
    assert file.notes[0] == (
        "device_type 'Quest' is of no known glasses: full scale of the IMUs not known, pictures as "
        "stored"
    )


def test_recordings_of_other_devices_are_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    others = [(300, 1), (400, 2)]
    write_vrs(tmp_path / "lidar.vrs", {}, device_type="Robot", foreign=others)
    message = r"lidar\.vrs is a VRS file without any stream of Project Aria's glasses; take it out"
    with pytest.raises(ValueError, match=message), opened(tmp_path / "lidar.vrs"):
        pass
    imus = {IMU_LEFT: make_imu(AT_800_HZ)}
    write_vrs(tmp_path / "both.vrs", imus, device_type="Robot", foreign=[(300, 1), (400, 2)])
    with opened(tmp_path / "both.vrs") as file:
        (device,) = file.imu_devices({"imu-left": "head"})
        assert len(read_sensor(device.sensors[0])[0]) == len(AT_800_HZ)
        assert (device.axes, file.camera()) == ("", None), "no calibration, no pictures"
        with pytest.raises(
            ValueError, match=r"no record of imu-right; its streams are: imu-left\."
        ):
            file.imu_devices({"imu-right": "head"})
    assert capfd.readouterr() == ("", "")


def test_a_recording_without_imus_is_told(tmp_path: Path) -> None:
    write_vrs(tmp_path / "a.vrs", {IMU_LEFT: make_imu(AT_800_HZ[:0])})
    with opened(tmp_path / "a.vrs") as file:
        message = r"a\.vrs has no record of imu-left or imu-right; its streams are: imu-left\."
        with pytest.raises(ValueError, match=message):
            file.imu_devices(HEAD)
        with pytest.raises(ValueError, match=r"a\.vrs has no record of camera-rgb or imu-left"):
            file.start_s()


def test_records_out_of_order_are_no_damage(tmp_path: Path) -> None:
    time_ns = AT_800_HZ.copy()
    time_ns[[50, 51]] = time_ns[[51, 50]]
    write_vrs(tmp_path / "a.vrs", {IMU_LEFT: make_imu(time_ns)}, sort=False)
    with opened(tmp_path / "a.vrs") as file:
        (device,) = file.imu_devices({"imu-left": "head"})
        time_s, _ = read_sensor(device.sensors[0])
        np.testing.assert_array_equal(np.sort(time_s), AT_800_HZ / 1e9)


def test_another_clock_by_time_code(tmp_path: Path) -> None:
    """Clock of the code: head - 100 s + 2000 s; the wrist's clock runs 1e-4 faster from 7 s on."""
    second = 10**9
    head = [(100 * second + k * second, 2000 * second + k * second) for k in range(4)]
    wrist = [(7 * second + k * (second + 100_000), 2000 * second + k * second) for k in range(4)]
    write_vrs(tmp_path / "head.vrs", {IMU_LEFT: make_imu(AT_800_HZ)}, time_code=head)
    true_ns = 500_000_000 + 1_250_000 * np.arange(1600)  # after the code's 2000 s
    wrist_ns = 7 * second + np.rint(true_ns * 1.0001).astype(np.int64)
    write_vrs(tmp_path / "wrist.vrs", {IMU_LEFT: make_imu(wrist_ns)}, time_code=wrist)
    write_vrs(tmp_path / "alone.vrs", {IMU_LEFT: make_imu(wrist_ns)})
    with opened(tmp_path / "head.vrs") as on_head, opened(tmp_path / "wrist.vrs") as on_wrist:
        assert on_head.has_time_code() and on_wrist.has_time_code()
        (own,) = on_wrist.imu_devices({"imu-left": "left wrist"})
        (tied,) = on_wrist.imu_devices({"imu-left": "left wrist"}, clock=on_head)
        own_s, values = read_sensor(own.sensors[0])
        tied_s, same = read_sensor(tied.sensors[0])
    np.testing.assert_array_equal(own_s, wrist_ns / 1e9)
    np.testing.assert_array_equal(same, values)
    # To 0.1 ms: the library keeps a pair's offset, or a line between two of them.
    np.testing.assert_allclose(tied_s, 100 + true_ns / 1e9, atol=1e-4)
    with opened(tmp_path / "alone.vrs") as file:
        assert not file.has_time_code()
    with opened(recording_path("aria_gen1.vrs")) as file:
        assert not file.has_time_code()


def test_a_remote_recording_is_copied(tmp_path: Path) -> None:
    write_vrs(tmp_path / "a.vrs", {IMU_LEFT: make_imu(AT_800_HZ)})
    with fsspec.open("memory://glasses/a.vrs", "wb") as stream:
        stream.write((tmp_path / "a.vrs").read_bytes())
    with open_vrs(Source("memory://glasses"), "a.vrs") as file:
        (device,) = file.imu_devices({"imu-left": "head"})
        assert len(read_sensor(device.sensors[0])[0]) == 400


def test_choice_of_imus() -> None:
    assert imu_labels("both") == ("imu-left", "imu-right")
    assert imu_labels("right") == ("imu-right",)
    with pytest.raises(ValueError, match=r"option imu=top: expected both, left, right"):
        imu_labels("top")
