import struct
from typing import Any

import numpy as np
import pytest

from shards.readers.gpmf import parse_telemetry_block
from tests.gopro_factory import floats, klv, nest, text

# The first samples that a GoPro MAX gave, and the matrix that it gave for their axes.
STORED = np.array([[198, -3593, 675], [227, -3557, 619], [247, -3533, 631], [252, -3501, 653]])
TURN = [0, -1, 0, 1, 0, 0, 0, 0, 1]


def samples(kind: str = "s", dtype: str = ">i2", stored: np.ndarray = STORED) -> bytes:
    return klv("ACCL", kind, 3 * np.dtype(dtype).itemsize, stored.astype(dtype).tobytes())


def stream(accl: bytes | None = None, **changed: Any) -> bytes:
    """A stream of a sensor as a MAX writes it, with entries changed, added, or (None) taken out."""
    entries = {
        "TSMP": klv("TSMP", "L", 4, struct.pack(">L", 1004)),
        "ORIN": text("ORIN", "XzY"),
        "SIUN": text("SIUN", "m/s²"),
        "SCAL": klv("SCAL", "s", 2, struct.pack(">h", 417)),
    } | changed
    given = [entry for entry in entries.values() if entry is not None]
    return nest("STRM", *given, samples() if accl is None else accl)


def device(*entries: bytes, name: str = "GoPro Max") -> bytes:
    return nest("DEVC", text("DVNM", name), *entries)


def values(data: bytes) -> np.ndarray:
    return parse_telemetry_block(data).sensors["ACCL"].values


def test_samples_are_scaled_and_turned() -> None:
    block = parse_telemetry_block(device(stream()))
    (series,) = block.sensors.values()
    assert (block.device, series.unit, series.total, series.note) == ("GoPro Max", "m/s2", 1004, "")
    x, minus_z, y = STORED.T / 417
    np.testing.assert_array_equal(series.values, np.stack([-minus_z, x, y], axis=1))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("b", "i1"),
        ("B", "u1"),
        ("s", ">i2"),
        ("S", ">u2"),
        ("l", ">i4"),
        ("L", ">u4"),
        ("f", ">f4"),
        ("d", ">f8"),
    ],
)
def test_samples_of_all_types(kind: str, dtype: str) -> None:
    stored = np.array([[1, 2, 3], [100, 0, 7], [5, 6, 4]])
    for scale in ([4.0], [2.0, 4.0, 0.5]):  # one, or one for each axis
        data = stream(
            samples(kind, dtype, stored), ORIN=text("ORIN", "ZXY"), SCAL=floats("SCAL", *scale)
        )
        np.testing.assert_array_equal(values(device(data)), stored / scale)


def test_floats_need_no_scale() -> None:
    data = device(stream(samples("f", ">f4"), SCAL=None, ORIN=text("ORIN", "ZXY")))
    np.testing.assert_array_equal(values(data), STORED)


@pytest.mark.parametrize(
    "unit",
    [
        klv("SIUN", "c", 5, b"rad/s" * 3),  # one for each axis
        klv("SIUN", "c", 1, b"rad/s"),
        klv("UNIT", "c", 6, b"rad/s\0"),
    ],
)
def test_units(unit: bytes) -> None:
    block = parse_telemetry_block(device(stream(SIUN=unit)))
    assert block.sensors["ACCL"].unit == "rad/s"


@pytest.mark.parametrize(
    ("name", "stated", "expected"),
    [
        # Where Z, X and Y of the camera stand among the stored axes, counted from 1.
        ("GoPro Max", {"ORIN": "XzY", "ORIO": "ZXY", "MTRX": TURN}, (-2, 1, 3)),
        ("HERO7 Black", {"ORIN": "YxZ", "ORIO": "ZXY"}, (3, -2, 1)),
        ("HERO8 Black", {"ORIN": "zxY"}, (-1, -2, 3)),
        ("HERO11 Black", {"ORIN": "ZXY"}, (1, 2, 3)),
        ("Drone", {"MTRX": TURN}, (-2, 1, 3)),
        ("Drone", {"ORIN": "XYZ", "ORIO": "XYZ", "MTRX": np.eye(3).ravel()}, (3, 1, 2)),
    ],
)
def test_axes_come_in_one_order(
    name: str, stated: dict[str, Any], expected: tuple[int, ...]
) -> None:
    keys: dict[str, Any] = {"ORIN": None}
    for key, value in stated.items():
        keys[key] = floats(key, *value) if key == "MTRX" else text(key, value)
    series = parse_telemetry_block(device(stream(**keys), name=name)).sensors["ACCL"]
    columns = [np.sign(place) * STORED[:, abs(place) - 1] for place in expected]
    np.testing.assert_allclose(series.values, np.stack(columns, axis=1) / 417, rtol=1e-15)
    assert series.note == ""


def test_a_matrix_may_hold_a_calibration() -> None:
    tilt = np.array([[1, 0.02, 0], [-0.02, 1, 0], [0, 0, 1]])
    matrix = (tilt @ np.reshape(TURN, (3, 3))).astype(np.float32)
    data = device(stream(MTRX=floats("MTRX", *matrix.ravel())))
    np.testing.assert_allclose(values(data), STORED / 417 @ matrix.T.astype(float), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "order", "expected"),
    [  # "Data order" in GoPro's document
        ("Camera", "ZXY", (1, 2, 3)),
        ("GoPro Hero5 Black", "ZXY", (1, 2, 3)),
        ("Hero6 Black", "YxZ", (3, -2, 1)),
        ("Fusion", "yXZ", (3, 2, -1)),
    ],
)
def test_older_models_do_not_state_their_axes(
    name: str, order: str, expected: tuple[int, ...]
) -> None:
    series = parse_telemetry_block(device(stream(ORIN=None), name=name)).sensors["ACCL"]
    columns = [np.sign(place) * STORED[:, abs(place) - 1] for place in expected]
    np.testing.assert_allclose(series.values, np.stack(columns, axis=1) / 417, rtol=1e-15)
    assert series.note == (
        f"order of axes not in its telemetry: {order}, as documented for {name} by GoPro"
    )


def test_what_is_told_of_one_stream_holds_for_no_other() -> None:
    with pytest.raises(ValueError, match=r"GYRO has no scale \(SCAL\)"):
        parse_telemetry_block(device(stream(), stream(klv("GYRO", "s", 6, bytes(6)), SCAL=None)))
    above = device(floats("SCAL", 2), stream(SCAL=None))
    np.testing.assert_array_equal(np.abs(values(above)).max(), 3593 / 2)


def test_of_several_devices_the_first_counts_and_other_keys_are_passed_over() -> None:
    foreign = klv("heRt", "B", 1, bytes(5)), nest("STRM", klv("GPS5", "?", 20, bytes(40)))
    block = parse_telemetry_block(
        device(*foreign, name="Belt")
        + device(stream())
        + device(stream(SCAL=floats("SCAL", 1)), name="Drone")
        + bytes(8)  # fills the block up
    )
    assert (block.device, list(block.sensors)) == ("GoPro Max", ["ACCL"])
    assert np.abs(block.sensors["ACCL"].values).max() == 3593 / 417
    assert parse_telemetry_block(device(*foreign)).sensors == {}


def test_stamps_and_full_scale() -> None:
    stamp = klv("STMP", "J", 8, struct.pack(">Q", 80577))
    (series,) = parse_telemetry_block(device(stream(STMP=stamp))).sensors.values()
    assert (series.stamp_s, series.limit) == (pytest.approx(0.080577), 32767 / 417)
    (series,) = parse_telemetry_block(device(stream())).sensors.values()
    assert series.stamp_s is None
    for entries in (
        {"SCAL": floats("SCAL", 1, 2, 3)},
        {"MTRX": floats("MTRX", 0.01, -1, 0, 1, 0.01, 0, 0, 0, 1)},
    ):
        (series,) = parse_telemetry_block(device(stream(**entries))).sensors.values()
        assert series.limit is None, "no one value for all axes"
    (series,) = parse_telemetry_block(device(stream(samples("f", ">f4")))).sensors.values()
    assert series.limit is None


def gps9(days: int, thousandths: int, fix: int) -> bytes:
    return klv("GPS9", "?", 32, struct.pack(">5l2l2H", 1, 2, 3, 4, 5, days, thousandths, 90, fix))


@pytest.mark.parametrize(
    ("entry", "clocks"),
    [
        (klv("TICK", "L", 4, struct.pack(">L", 10140)), {"TICK": 10.14}),
        (text("GPSU", "200229235959.500"), {"GPSU": (7305 + 59) * 86400 + 86399.5}),
        (text("GPSU", "2225525525425525"), {}),  # seen in a HERO7's file without satellites
        (text("GPSU", "200230000000.000"), {}),
        (klv("GPSF", "L", 4, bytes(4)) + text("GPSU", "200229235959.500"), {}),
        (gps9(7364, 86399500, 3), {"GPS9": 7364 * 86400 + 86399.5}),
        (gps9(7364, 86399500, 0), {}),
        (klv("GPS9", "?", 20, bytes(20)), {}),
    ],
)
def test_other_clocks(entry: bytes, clocks: dict[str, float]) -> None:
    """Days are counted from 2000: 29 February 2020 is day 20 * 365 + 5 + 59."""
    assert parse_telemetry_block(device(entry, stream())).clocks == clocks


def test_a_block_without_samples() -> None:
    series = parse_telemetry_block(device(stream(klv("ACCL", "s", 6, b"")))).sensors["ACCL"]
    assert series.values.shape == (0, 3)


def deep() -> bytes:
    data = stream()
    for _ in range(1000):
        data = nest("STRM", data)
    return device(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(64), "it is empty"),
        (device(stream())[:-4], r"DEVC is \d+ bytes long, and \d+ follow"),
        (device(stream()[:-4]), r"STRM is \d+ bytes long, and \d+ follow"),
        (device(stream(samples()[:-4])), "ACCL is 24 bytes long, and 20 follow"),
        (device(stream(), b"\1\2\3\4"), "4 bytes are left over"),
        (device(stream(), b"\xff\0\0\1" + bytes(4)), r"b'\\xff\\x00\\x00\\x01' is no key"),
        (stream(), r"STRM is where a device \(DEVC\) should begin"),
        (deep(), "its entries are nested more than 8 deep"),
        (device(stream(), stream()), "a device has ACCL twice"),
        (device(stream(klv("ACCL", "s", 4, bytes(8)))), "ACCL has 2 axes instead of 3"),
        (device(stream(klv("ACCL", "?", 6, bytes(6)))), r"ACCL has samples of type '\?' and 6 byt"),
        (device(stream(klv("ACCL", "l", 6, bytes(6)))), "ACCL has samples of type 'l' and 6 bytes"),
        (device(stream(SCAL=None)), r"ACCL has no scale \(SCAL\)"),
        (device(stream(SCAL=floats("SCAL", 0))), r"SCAL of ACCL is \[0\.0\]"),
        (device(stream(SCAL=floats("SCAL", 1, 2))), r"SCAL of ACCL is \[1\.0, 2\.0\]"),
        (device(stream(SIUN=None)), r"ACCL has no unit \(SIUN or UNIT\)"),
        (device(stream(SIUN=text("SIUN", "µT"))), "the unit of ACCL is 'µT'; known are m/s², rad/"),
        (device(stream(ORIN=text("ORIN", "XXY"))), "'XXY' is no order of axes"),
        (device(stream(MTRX=floats("MTRX", 1, 0))), "MTRX has 2 numbers instead of 9"),
        (device(stream(MTRX=floats("MTRX", *np.eye(3).ravel()))), "no rotation, or not that of OR"),
        (device(stream(MTRX=floats("MTRX", *[0] * 9), ORIN=None)), "is no rotation"),
        (device(stream(ORIN=None), name="HERO21"), "documents none for a camera called 'HERO21'"),
    ],
)
def test_damage_is_told(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_telemetry_block(data)


def test_any_damaged_byte_gives_samples_or_an_error() -> None:
    whole, rng = device(stream(MTRX=floats("MTRX", *TURN))), np.random.default_rng(3)
    for _ in range(2000):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        try:
            parse_telemetry_block(bytes(damaged))
        except ValueError as error:
            assert str(error)
