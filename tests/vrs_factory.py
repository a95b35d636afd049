"""Writes small Project Aria recordings (VRS) with two IMUs and, if asked, time code.

Written from the VRS documentation (facebookresearch.github.io/vrs: file, description and index
records, data layouts); the fields of a stream are those that real recordings name in their tags.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

IMU_RIGHT, IMU_LEFT = (1202, 1), (1202, 2)  # of Gen 1
TIME_CODE = (285, 1)
CONFIGURATION, DATA = 2, 3
_HEADER, _RECORD = "<4s4sQIIqqqQQQ4s4s", "<IIiIdHBBI"
_FIRST, _LAST = 5e-324, 1.7976931348623157e308  # times of configurations, and of the last records
_TYPES = {"uint32_t": "I", "uint64_t": "Q", "int64_t": "q", "double": "d", "Bool": "?"}

_IMU_CONFIGURATION = {
    "stream_index": "uint32_t",
    "device_id": "uint64_t",
    "nominal_rate": "double",
    "has_accelerometer": "Bool",
    "has_gyroscope": "Bool",
    "has_magnetometer": "Bool",
    "device_type": "string",
    "device_version": "string",
    "device_serial": "string",
    "sensor_model": "string",
    "factory_calibration": "string",
    "online_calibration": "string",
    "description": "string",
}
_IMU_DATA = {
    "accelerometer_valid": "Bool",
    "gyroscope_valid": "Bool",
    "magnetometer_valid": "Bool",
    "temperature_deg_c": "double",
    "capture_timestamp_ns": "int64_t",
    "arrival_timestamp_ns": "int64_t",
    "processing_start_timestamp_ns": "int64_t",
    "accelerometer": "float3",
    "gyroscope": "float3",
    "magnetometer": "float3",
}
_TIME_CONFIGURATION = {"stream_id": "uint32_t", "sample_rate_hz": "double", "mode": "string"}
_TIME_DATA = {"monotonic_timestamp_ns": "int64_t", "real_timestamp_ns": "int64_t"}


class Imu(NamedTuple):
    """Samples of an IMU: device times in ns ``(n,)``, m/s2 and rad/s ``(n, 3)``, valid ``(n,)``."""

    time_ns: np.ndarray
    accelerometer: np.ndarray
    gyroscope: np.ndarray
    accelerometer_valid: np.ndarray
    gyroscope_valid: np.ndarray


def make_imu(time_ns: np.ndarray, *, seed: int = 0) -> Imu:
    """Gravity along z with some noise, all valid."""
    noise = np.random.default_rng(seed).normal(0, 0.1, (2, len(time_ns), 3)).astype(np.float32)
    valid = np.ones(len(time_ns), bool)
    return Imu(time_ns, noise[0] + np.float32([0, 0, 9.8]), noise[1], valid, valid.copy())


def write_vrs(
    path: Path,
    imus: Mapping[tuple[int, int], Imu],
    *,
    time_code: Sequence[tuple[int, int]] = (),
    sort: bool = True,
    device_type: str = "Aria",
    foreign: Sequence[tuple[int, int]] = (),
) -> None:
    """A recording without calibration, of Gen 1 by default.

    time_code: pairs of device time and time code, both in ns. sort: records by time. foreign:
    streams that no Aria has.
    """
    streams, records = {}, []
    for stream, imu in imus.items():
        rate_hz = 800.0 if stream == IMU_LEFT else 1000.0
        values = {"nominal_rate": rate_hz, "has_accelerometer": True, "has_gyroscope": True}
        streams[stream] = ("IMU Data (SLAM)", _IMU_CONFIGURATION, _IMU_DATA)
        records.append((_FIRST, CONFIGURATION, stream, _pack(_IMU_CONFIGURATION, values)))
        for row in zip(*imu, strict=True):
            fields = dict(zip(("capture_timestamp_ns", *Imu._fields[1:]), row, strict=True))
            records.append((row[0] / 1e9, DATA, stream, _pack(_IMU_DATA, fields)))
    if time_code:
        streams[TIME_CODE] = ("Time Domain Mapping", _TIME_CONFIGURATION, _TIME_DATA)
        mode = _pack(_TIME_CONFIGURATION, {"sample_rate_hz": 1.0, "mode": "TIMECODE"})
        records.append((_FIRST, CONFIGURATION, TIME_CODE, mode))
        for device_ns, code_ns in time_code:
            pair = {"monotonic_timestamp_ns": device_ns, "real_timestamp_ns": code_ns}
            records.append((device_ns / 1e9, DATA, TIME_CODE, _pack(_TIME_DATA, pair)))
    for stream in foreign:
        streams[stream] = ("Lidar", _TIME_CONFIGURATION, _TIME_DATA)
        records.append((_FIRST, CONFIGURATION, stream, _pack(_TIME_CONFIGURATION, {})))
        records += [(k / 10, DATA, stream, _pack(_TIME_DATA, {})) for k in range(10)]
    if sort:
        records.sort(key=lambda record: (record[0], record[2]))
    tags = {"device_type": device_type}
    _write(path, streams, records, tags)


def _write(path: Path, streams: Mapping[Any, Any], records: list[Any], tags: Any) -> None:
    """The file: header, description, records, index."""
    count, ids = struct.pack("<I", len(streams)), [struct.pack("<iH", *key) for key in streams]
    described = [_map({}) + _map(_stream_tags(*stream)) for stream in streams.values()]
    description = b"".join(part for pair in zip(ids, described, strict=True) for part in pair)
    index = [count, *ids, struct.pack("<I", len(records))]
    body, before = [], 0
    for time_s, kind, stream, payload in records:
        body.append(_record(payload, before, stream, kind, time_s))
        before = len(body[-1])
        index.append(struct.pack("<dIBiH", time_s, before, kind, *stream))
    parts = [_record(count + description + _map(tags), 0, (0, 0), DATA, _LAST, 2), *body]
    parts.append(_record(b"".join(index), before, (1, 0), DATA, _LAST, 2))
    first = 80 + len(parts[0])
    end = first + sum(map(len, body))
    header = struct.pack(
        _HEADER, b"Visi", b"onRe", 1, 80, 32, end, 80, first, 0, 0, 0, b"cord", b"VRS1"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + b"".join(parts))


def _record(
    payload: bytes, before: int, stream: Any, kind: int, time_s: float, version: int = 1
) -> bytes:
    """A record after one of ``before`` bytes, not compressed."""
    header = (32 + len(payload), before, stream[0], version, time_s, stream[1], kind, 0, 0)
    return struct.pack(_RECORD, *header) + payload


def _stream_tags(kind: str, configuration: Any, data: Any) -> dict[str, str]:
    return {
        "DL:Configuration:1:0": _layout(configuration),
        "DL:Data:1:0": _layout(data),
        "RF:Configuration:1": "data_layout",
        "RF:Data:1": "data_layout",
        "VRS_Original_Recordable_Name": kind,
        "VRS_Recordable_Flavor": "device/aria",
    }


def _layout(fields: Mapping[str, str]) -> str:
    pieces: list[dict[str, Any]] = []
    offset = index = 0
    for name, kind in fields.items():
        if kind == "string":
            pieces.append({"name": name, "type": "DataPieceString", "index": index})
            index += 1
        elif kind == "float3":
            array = {"type": "DataPieceArray<float>", "offset": offset, "size": 3}
            pieces.append({"name": name, **array})
            offset += 12
        else:
            value = {"type": f"DataPieceValue<{kind}>", "offset": offset}
            pieces.append({"name": name, **value})
            offset += struct.calcsize(f"<{_TYPES[kind]}")
    return json.dumps({"data_layout": pieces})


def _pack(fields: Mapping[str, str], values: Mapping[str, Any]) -> bytes:
    """A record's content: fields of fixed size, then places of the texts, then the texts."""
    fixed, places, texts = b"", b"", b""
    for name, kind in fields.items():
        if kind == "string":
            text = values.get(name, "").encode()
            places += struct.pack("<II", len(texts), len(text))
            texts += text
        elif kind == "float3":
            fixed += struct.pack("<3f", *values.get(name, (0, 0, 0)))
        else:
            fixed += struct.pack(f"<{_TYPES[kind]}", values.get(name, 0))
    return fixed + places + texts


def _map(pairs: Mapping[str, str]) -> bytes:
    data = struct.pack("<I", len(pairs))
    for text in (text for pair in pairs.items() for text in pair):
        data += struct.pack("<I", len(text.encode())) + text.encode()
    return data
