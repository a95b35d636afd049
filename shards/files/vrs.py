"""Project Aria recordings (VRS) of both generations of glasses: IMUs and pictures, by label.

with open_vrs(source, "take/aria01.vrs") as file:
    devices = file.imu_devices(dict.fromkeys(imu_labels("both"), "head"))
    frames = file.camera()  # upright

Read through projectaria-tools; source of all facts here is its documentation
(facebookresearch.github.io/projectaria_tools). All times are device time: seconds on the one clock
of a device.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from projectaria_tools.core import data_provider
from projectaria_tools.core.calibration import DeviceVersion, from_device_class_name
from projectaria_tools.core.sensor_data import TimeDomain

from primus_scale.signal.units import DEGREE, GRAVITY
from primus_scale.storage.foreign import decoding, reason
from shards.files.library_output import library_lines
from shards.files.source import Source
from shards.files.vrs_calibration import axes_in_words, rectification
from shards.files.vrs_records import UnusualFileError, stream_records
from shards.placements import HEAD
from shards.recording import ACCELEROMETER, GYROSCOPE, Device, FrameSource, Samples, Sensor
from shards.signal.sample_buffer import Column

SYNC = "IMU records and pictures carry capture times of one clock, the device's"
CHUNK_RECORDS = 2**14
CAMERA = "camera-rgb"
_IMUS = {
    "both": ("imu-left", "imu-right"),
    "left": ("imu-left",),
    "right": ("imu-right",),
}

# The read-out of accelerometer (g) and gyroscope (deg/s) at which they saturate: "Sensor
# Measurement Models in Project Aria Devices", one page for each generation. That of Gen 1 has 5000
# for the left gyroscope; the steps of its values are those of 16 bits over 500.
_FULL_SCALE = {
    (DeviceVersion.Gen1, "imu-left"): (4.0, 500.0),
    (DeviceVersion.Gen1, "imu-right"): (8.0, 1000.0),
    (DeviceVersion.Gen2, "imu-left"): (8.0, 2000.0),
    (DeviceVersion.Gen2, "imu-right"): (16.0, 2000.0),
}
# The camera of Gen 1 is mounted on its side, so that the sky is at the left of its pictures.
_QUARTER_TURNS = {DeviceVersion.Gen1: 3, DeviceVersion.Gen2: 0}
# Lines in which the library reports damage. It goes on after them: it drops records or guesses an
# index. Only records out of order are no damage.
_DAMAGE = re.compile(
    r"\[(?:VRS\w+|RecordFileReader)\]\[(?:WARNING|ERROR)\]: "
    r"(?!\d+ record\(s\) not sorted)([^\x1b]+)"
)
_FOREIGN = "No stream activated"  # the library's words where it knows none of a file's streams
_ROW = np.dtype([("time_s", "f8"), ("accelerometer", "f8", (3,)), ("gyroscope", "f8", (3,))])
# Of a record, by its name in the file: numpy's type, how many values, and the library's name.
_FIELDS = {
    "capture_timestamp_ns": ("<i8", 1, "capture_timestamp_ns"),
    "accelerometer": ("<f4", 3, "accel_msec2"),
    "accelerometer_valid": ("?", 1, "accel_valid"),
    "gyroscope": ("<f4", 3, "gyro_radsec"),
    "gyroscope_valid": ("?", 1, "gyro_valid"),
}
_STORED = {name: (kind, count) for name, (kind, count, _) in _FIELDS.items()}
_RECORD = np.dtype([(name, kind, (n,) if n > 1 else ()) for name, (kind, n) in _STORED.items()])
_AGAIN = "download it again, or copy it off the device again"


def imu_labels(choice: str) -> tuple[str, ...]:
    """Labels of the IMUs by the readers' option ``imu``: both, left or right; or ValueError."""
    if choice not in _IMUS:
        raise ValueError(f"option imu={choice}: expected {', '.join(_IMUS)}")
    return _IMUS[choice]


@contextmanager
def open_vrs(source: Source, path: str) -> Iterator[VrsFile]:
    """The file at ``path``, usable inside the ``with`` block; a remote one is copied to a disk.

    FileNotFoundError where there is none. ValueError naming the file and the next step where it is
    empty, no VRS, truncated, or damaged in its description or index.
    """
    where = source.locate(path)
    if not source.exists(path):
        raise FileNotFoundError(f"no {where}; {_AGAIN}")
    with source.local(path) as local:
        file = VrsFile(_open(str(local), where), local, where)
        try:
            yield file
        finally:
            file.close()


class VrsFile:
    """An open VRS file; ``open_vrs`` makes it. notes: for the report of the recording."""

    def __init__(self, provider: Any, path: Path, where: str) -> None:
        """path: on a disk; where: for messages."""
        self.notes: list[str] = []
        self._path, self._where = path, where
        self._provider = provider
        kind = provider.get_file_tags().get("device_type", "")
        with library_lines():
            self._generation = from_device_class_name(kind)
            labels = map(provider.get_label_from_stream_id, provider.get_all_streams())
            # Streams of other makers have none.
            self._labels = sorted(label for label in labels if label is not None)
        if not self._labels:
            raise _foreign(where)
        if self._generation not in _QUARTER_TURNS:
            self.notes.append(
                f"device_type {kind!r} is of no known glasses: full scale of the IMUs not known, "
                "pictures as stored"
            )
        if "ppg" in self._labels:
            self.notes.append("PPG stream left out: its windows would have no IMU channels")

    def close(self) -> None:
        """Close the file; devices and pictures cannot be read any more."""
        self._provider = None

    def imu_devices(
        self, placements: Mapping[str, str], *, clock: VrsFile | None = None
    ) -> tuple[Device, ...]:
        """The IMUs of these labels ("imu-left", "imu-right"), each at the placement given for it.

        Values are in m/s2 and rad/s, NaN where the record says they are invalid, to be rectified
        with the calibration in the file. Times are this device's, or those of the device of
        ``clock``, by time code, which both must have. Notes name a label or a calibration that
        is missing. ValueError where the file has none of the labels; reading the samples raises
        one where a record is damaged.
        """
        devices = []
        for label, placement in placements.items():
            stream = self._stream(label)
            if stream is None:
                self._note(f"no {label} stream")
                continue
            sensors = self._sensors(label, stream, clock)
            rate_hz = self._provider.get_nominal_rate_hz(stream)
            axes = self._axes(label) if placement == HEAD else ""
            devices.append(
                Device(label, placement, sensors, rate_hz if rate_hz > 0 else None, axes)
            )
        if not devices:
            raise self._lacks(placements)
        return tuple(devices)

    def camera(self, label: str = CAMERA) -> FrameSource | None:
        """Pictures of the camera of this label, upright; None where the file has none."""
        stream = self._stream(label)
        if stream is None:
            return None
        return _VrsCamera(self, label, stream, _QUARTER_TURNS.get(self._generation, 0))

    def start_s(self) -> float:
        """Device time of the first picture; of the first IMU record where there is no picture.

        ValueError where there is neither.
        """
        for label in (CAMERA, *_IMUS["both"]):
            if (stream := self._stream(label)) is not None:
                return float(self._provider.get_first_time_ns(stream, TimeDomain.DEVICE_TIME) / 1e9)
        raise self._lacks((CAMERA, *_IMUS["both"]))

    def has_time_code(self) -> bool:
        """Whether device time can be converted to time code, the clock that devices share."""
        return any(
            self._provider.supports_time_domain(stream, TimeDomain.TIME_CODE)
            for stream in self._provider.get_all_streams()
        )

    def _on_clock_of(self, other: VrsFile, time_ns: np.ndarray) -> np.ndarray:
        """Device times of this file, int64 ``(n,)``, as device times of another."""
        to_code = self._provider.convert_from_device_time_to_timecode_ns
        from_code = other._provider.convert_from_timecode_to_device_time_ns
        return np.array([from_code(to_code(time)) for time in time_ns.tolist()], np.int64)

    def _stream(self, label: str) -> Any:
        """The stream of this label, None where there is none or it is empty."""
        if label not in self._labels:  # the library complains of labels that it does not know
            return None
        stream = self._provider.get_stream_id_from_label(label)
        return stream if self._provider.get_num_data(stream) else None

    def _lacks(self, labels: Iterable[str]) -> ValueError:
        return ValueError(
            f"{self._where} has no record of {' or '.join(labels)}; its streams are: "
            f"{', '.join(self._labels) or 'none'}. Record with a profile that has them"
        )

    def _sensors(self, label: str, stream: Any, clock: VrsFile | None) -> tuple[Sensor, ...]:
        limits = _FULL_SCALE.get((self._generation, label))
        calibration = self._provider.get_sensor_calibration(stream)
        if calibration is None:
            self._note(f"no calibration of {label}: its values are not rectified")
            models: tuple[Any, ...] = (None, None)
        else:
            imu = calibration.imu_calibration()
            with decoding(self._where, f"its calibration of {label}", advice=_AGAIN):
                models = tuple(map(rectification, (imu.get_accel_model(), imu.get_gyro_model())))
        decode = cache(partial(self._decode, label, stream, clock))
        return (
            Sensor(
                ACCELEROMETER,
                "m/s2",
                partial(_samples, decode, "accelerometer"),
                limit=limits and limits[0] * GRAVITY,
                rectify=models[0],
            ),
            Sensor(
                GYROSCOPE,
                "rad/s",
                partial(_samples, decode, "gyroscope"),
                limit=limits and limits[1] * DEGREE,
                rectify=models[1],
            ),
        )

    def _axes(self, label: str) -> str:
        """Where the IMU's axes point on a wearer's head; empty where no calibration says so."""
        calibration = self._provider.get_device_calibration()
        pose = calibration.get_transform_cpf_sensor(label) if calibration is not None else None
        if pose is None:
            return ""
        return f"{axes_in_words(pose.rotation().to_matrix())} (by the recording's calibration)"

    def _decode(self, label: str, stream: Any, clock: VrsFile | None) -> Column:
        """The records of an IMU, decoded once for both of its sensors, since decoding is slow."""
        column = self._at_once(label, stream, clock)
        if column is not None:
            return column
        column, count = Column(_ROW), self._provider.get_num_data(stream)
        for start in range(0, count, CHUNK_RECORDS):
            numbers = range(start, min(start + CHUNK_RECORDS, count))
            records = self._one_by_one(label, stream, numbers)
            # For a record that it cannot read the library returns one of zeros.
            if not (known := records["capture_timestamp_ns"] != 0).all():
                number = start + int(known.argmin())
                raise ValueError(f"{self._where}: record {number} of {label} is damaged; {_AGAIN}")
            column.append(self._rows(records, clock))
        return column

    def _at_once(self, label: str, stream: Any, clock: VrsFile | None) -> Column | None:
        """The records of an IMU, read without the library; None where it must read them.

        They must be as many as it counts, and some of them must be as it reads them.
        """
        column, count = Column(_ROW), self._provider.get_num_data(stream)
        number = stream.get_type_id().value, stream.get_instance_id()
        try:
            for records in stream_records(self._path, number, _STORED):
                if not records["capture_timestamp_ns"].all():
                    return None  # the library tells the number of the damaged one
                column.append(self._rows(records, clock))
        except UnusualFileError:
            return None
        if len(column) != count:
            return None
        some = [*range(0, count, CHUNK_RECORDS), count - 1]
        expected = self._rows(self._one_by_one(label, stream, some), clock)
        for number, row in zip(some, expected, strict=True):
            (found,) = column.read(number, number + 1)
            same = (np.array_equal(*pair, equal_nan=True) for pair in zip(found, row, strict=True))
            if not all(same):
                return None
        return column

    def _one_by_one(self, label: str, stream: Any, numbers: Iterable[int]) -> np.ndarray:
        """The records ``numbers`` of an IMU, read by the library."""
        with decoding(self._where, f"a record of {label}", advice=_AGAIN):
            found = [self._provider.get_imu_data_by_index(stream, number) for number in numbers]
        records = np.empty(len(found), _RECORD)
        for name, (_, _, attribute) in _FIELDS.items():
            records[name] = [getattr(record, attribute) for record in found]
        return records

    def _rows(self, records: np.ndarray, clock: VrsFile | None) -> np.ndarray:
        """Records with the fields of ``_FIELDS`` as rows of ``_ROW``."""
        time_ns = records["capture_timestamp_ns"]
        if clock is not None:
            time_ns = self._on_clock_of(clock, time_ns)
        rows = np.empty(len(records), _ROW)
        rows["time_s"] = time_ns / 1e9
        for sensor in ("accelerometer", "gyroscope"):
            rows[sensor] = records[sensor]
            rows[sensor][~records[f"{sensor}_valid"]] = np.nan
        return rows

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _samples(decode: Callable[[], Column], sensor: str) -> Iterator[Samples]:
    """One sensor of an IMU's records."""
    for rows in decode().blocks(CHUNK_RECORDS):
        yield Samples(rows["time_s"], rows[sensor])


class _VrsCamera:
    """A `shards.recording.FrameSource` over one camera of an open file."""

    def __init__(self, file: VrsFile, label: str, stream: Any, quarter_turns: int) -> None:
        self._file = file
        self._label = label
        self._stream = stream
        self._quarter_turns = quarter_turns  # anticlockwise

    def times_s(self) -> np.ndarray:
        """Capture time of every picture, float64 ``(frames,)``, ascending."""
        provider = self._file._provider
        times = provider.get_timestamps_ns(self._stream, TimeDomain.DEVICE_TIME)
        times_s = np.array(times, np.int64) / 1e9
        # A record that cannot be read has the time of the one before it.
        if not (np.diff(times_s) > 0).all():
            number = int(np.flatnonzero(np.diff(times_s) <= 0)[0]) + 1
            raise ValueError(self._damaged(number))
        return times_s

    def pictures(
        self, numbers: Iterable[int], *, short_side: int | None = None
    ) -> Iterator[np.ndarray]:
        """The pictures with these numbers, upright, uint8 RGB ``(height, width, 3)``.

        short_side: scale so that the shorter side has that many pixels (None: as stored).
        ValueError naming file and picture where one is damaged.
        """
        for number in numbers:
            part = f"picture {number} of {self._label} is damaged"
            with decoding(self._file._where, part, advice=_AGAIN, in_memory=True):
                data, _ = self._file._provider.get_image_data_by_index(self._stream, number)
                picture = Image.fromarray(data.to_numpy_array()).convert("RGB")
            if short_side is not None:
                scale = short_side / min(picture.size)
                width, height = (round(side * scale) for side in picture.size)
                picture = picture.resize((width, height), Image.Resampling.BICUBIC)
            yield np.ascontiguousarray(np.rot90(np.asarray(picture), self._quarter_turns))

    def _damaged(self, number: int) -> str:
        return f"{self._file._where}: picture {number} of {self._label} is damaged; {_AGAIN}"


def _open(path: str, where: str) -> Any:
    """The library's reader of a file; ValueError where it says that the file is damaged."""
    with library_lines() as lines:
        try:
            provider, why = data_provider.create_vrs_data_provider(path), "no VRS file"
        except Exception as error:
            provider, why = None, reason(error)
    damage = [match[1].strip() for line in lines if (match := _DAMAGE.search(line))]
    if provider is None and not damage and _FOREIGN in why:
        raise _foreign(where)
    if provider is None or damage:
        fault = damage[0] if damage else why
        raise ValueError(f"{where} is empty, truncated, damaged or no VRS file ({fault}); {_AGAIN}")
    return provider


def _foreign(where: str) -> ValueError:
    return ValueError(
        f"{where} is a VRS file without any stream of Project Aria's glasses; take it out, or give "
        "its data to the reader folder as tables"
    )
