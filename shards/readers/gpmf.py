"""A block of GoPro's telemetry (GPMF), as it is in an MP4 file: samples of the IMU in SI units.

block = parse_telemetry_block(packet)
block.sensors["ACCL"].values  # (n, 3)

Source: GoPro, "GPMF Introduction" (github.com/gopro/gpmf-parser, docs/README.md); for the order of
axes also the answers of its author there (issues 56, 132 and 165). A block holds entries, which may
hold entries themselves. An entry begins with 8 bytes: a key of four letters, a type, the size of a
sample and the number of samples. The samples follow, big-endian, padded to 4 bytes. An entry may
describe those that follow it at the same level, and those within them: SCAL (a divisor), SIUN or
UNIT, ORIN (axes as stored, small letters reversed), ORIO (axes as GoPro means them to be used) and
MTRX (a matrix from the former to the latter).

From any order that a camera stores, values are put into the order Z, X, Y of the axes in that
document. All GoPro cameras recommend this order, and HERO5 stores it: right-handed, Z up (it reads
9.81 m/s2 at rest), X along the camera's width, Y along its line of sight. These become x, y, z of
the windows.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from datetime import date
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SENSORS = ("ACCL", "GYRO")
CLOCKS = ("TICK", "GPSU", "GPS9")

_NESTED = "\0"
_MOST_LEVELS = 8  # of nested entries; cameras use two
_DESCRIPTIONS = 128  # keys, units and axes, which all blocks of a file repeat, kept
_TYPES = {"b": "i1", "B": "u1", "s": ">i2", "S": ">u2", "l": ">i4", "L": ">u4"}
_TYPES |= {"j": ">i8", "J": ">u8"}
_SIGNED = "bsl"
_FLOATS = {"f": ">f4", "d": ">f8"}
_DTYPES = {kind: np.dtype(name) for kind, name in (_TYPES | _FLOATS).items()}
_UNITS = {"m/s²": "m/s2", "rad/s": "rad/s"}
_AXES = "ZXY"
# Orders of axes that the document gives for models that do not state theirs, by the beginning of
# the device's name. HERO5 is called "Camera" there.
_ORDERS = {"CAMERA": "ZXY", "HERO5": "ZXY", "HERO6": "YxZ", "FUSION": "yXZ"}
_UTC = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d(?:\.\d+)?)")  # yymmddhhmmss.sss
_HEADER = struct.Struct(">4scBH")
_GPS9 = struct.Struct(">5l2l2H")  # of HERO11 on: five, days since 2000, thousandths, two
_FIXED = 2  # GPSF, and the last of GPS9: enough satellites for a position
_CALIBRATION = 0.1  # largest difference between a matrix and the stated axes


class Series(NamedTuple):
    """A sensor's samples in a block.

    values: float64 ``(n, 3)`` in ``unit``. total: samples since the recording began, these included
    (TSMP; None: not stated). note: what was assumed of the axes, or empty. stamp_s: when the
    first was taken, on the camera's clock (STMP, in microseconds; None: not stated). limit: the
    largest value that its integers can hold, which is full scale (None: not known).
    """

    values: np.ndarray
    unit: str
    total: int | None
    note: str
    stamp_s: float | None = None
    limit: float | None = None


class TelemetryBlock(NamedTuple):
    """device: the camera's own name. sensors: those of ``SENSORS`` in the block.

    clocks: s on other clocks than the video's: ``TICK`` of the camera, ``GPSU`` or ``GPS9`` of
    satellites in sight.
    """

    device: str
    sensors: dict[str, Series]
    clocks: dict[str, float]


class _Entry(NamedTuple):
    key: str
    kind: str
    size: int
    repeat: int
    data: bytes


def parse_telemetry_block(data: bytes) -> TelemetryBlock:
    """The IMU samples of a block; where several devices have a sensor, those of the first.

    ValueError (without the file's name) where the block is damaged, or does not say what its
    samples mean.
    """
    device, sensors, clocks = "", dict[str, Series](), dict[str, float]()
    devices = list(_entries(data))
    for item in devices:
        if (item.key, item.kind) != ("DEVC", _NESTED):
            raise ValueError(f"{item.key} is where a device (DEVC) should begin")
        own_sensors = dict[str, Series]()
        for entry, context in _walk(item.data, {}):
            if entry.key in CLOCKS:
                if (time_s := _clock_s(entry, context)) is not None:
                    clocks.setdefault(entry.key, time_s)
                continue
            if entry.key in own_sensors:
                raise ValueError(f"a device has {entry.key} twice")
            name = _text(context.get("DVNM"))
            own_sensors[entry.key] = _series(entry, context, name)
            device = device or name
        sensors = own_sensors | sensors
    if not devices:
        raise ValueError("it is empty")
    return TelemetryBlock(device, sensors, clocks)


def _entries(data: bytes) -> Iterator[_Entry]:
    """The entries in ``data``, without those within them."""
    position, end = 0, len(data.rstrip(b"\0"))  # zeros may pad the end
    while position < end:
        if position + 8 > len(data):
            raise ValueError(f"{len(data) - position} bytes are left over")
        letters, kind, size, repeat = _HEADER.unpack_from(data, position)
        start = position + 8
        stop = start + size * repeat
        key = _key(letters)
        if stop > len(data):
            raise ValueError(f"{key} is {stop - start} bytes long, and {len(data) - start} follow")
        yield _Entry(key, kind.decode("latin-1"), size, repeat, data[start:stop])
        position = stop + (start - stop) % 4


@lru_cache(_DESCRIPTIONS)
def _key(letters: bytes) -> str:
    if not letters.isascii() or not letters.decode("ascii").isprintable():
        raise ValueError(f"{letters!r} is no key")
    return letters.decode("ascii")


def _walk(
    data: bytes, above: Mapping[str, _Entry], depth: int = 1
) -> Iterator[tuple[_Entry, dict[str, _Entry]]]:
    """The entries of sensors and clocks, each with its context.

    The context of an entry: those before it at its level, and those above it, by key.
    """
    if depth > _MOST_LEVELS:
        raise ValueError(f"its entries are nested more than {_MOST_LEVELS} deep")
    context = dict(above)
    for entry in _entries(data):
        if entry.kind == _NESTED:
            yield from _walk(entry.data, context, depth + 1)
        elif entry.key in SENSORS or entry.key in CLOCKS:
            yield entry, context
        else:
            context[entry.key] = entry


def _series(entry: _Entry, context: Mapping[str, _Entry], device: str) -> Series:
    stored = _numbers(entry)
    if stored.shape[1] != 3:
        raise ValueError(f"{entry.key} has {stored.shape[1]} axes instead of 3")
    if scale := context.get("SCAL"):
        divisor = _numbers(scale).ravel()
        if len(divisor) not in (1, 3) or not divisor.all():
            raise ValueError(f"SCAL of {entry.key} is {divisor.tolist()}")
        stored = stored / divisor
    elif entry.kind not in _FLOATS:
        raise ValueError(f"{entry.key} has no scale (SCAL)")
    turn = _turn(context.get("ORIN"), context.get("ORIO"), context.get("MTRX"), device)
    total = int(_numbers(context["TSMP"]).max(initial=0)) if "TSMP" in context else None
    stamp_s = _first(context["STMP"]) * 1e-6 if "STMP" in context else None
    limit = None
    # With a scale for each axis, or a turn that is not by quarters, axes have no common full scale.
    if entry.kind in _SIGNED and scale and divisor.size == 1 and turn.by_quarters:
        limit = float(np.iinfo(_TYPES[entry.kind]).max / abs(divisor[0]))
    unit = _unit(entry.key, context.get("SIUN") or context.get("UNIT"))
    return Series(stored @ turn.matrix.T, unit, total, turn.note, stamp_s, limit)


def _clock_s(entry: _Entry, context: Mapping[str, _Entry]) -> float | None:
    """Seconds on the clock of the entry; None where it has no time, as without satellites."""
    if entry.key == "TICK":
        return _first(entry) * 1e-3
    if entry.key == "GPSU":
        fixed = "GPSF" not in context or _numbers(context["GPSF"]).max(initial=0) >= _FIXED
        text = _text(entry)
        match = _UTC.fullmatch(text) if fixed else None
        return _seconds(match) if match else None
    if entry.size != _GPS9.size or not entry.repeat:
        return None
    *_, days, thousandths, _, fix = _GPS9.unpack_from(entry.data)
    return days * 86400.0 + thousandths / 1000 if fix >= _FIXED else None


def _seconds(match: re.Match[str]) -> float | None:
    """Seconds since 2000 of a date and time by GPSU; None where there is no such day."""
    year, month, day, hour, minute = (int(part) for part in match.groups()[:5])
    try:
        days = date(2000 + year, month, day).toordinal() - date(2000, 1, 1).toordinal()
    except ValueError:
        return None
    return days * 86400.0 + hour * 3600 + minute * 60 + float(match[6])


@lru_cache(_DESCRIPTIONS)
def _unit(key: str, stated: _Entry | None) -> str:
    """The unit of a sensor, which all axes share."""
    if stated is None:
        raise ValueError(f"{key} has no unit (SIUN or UNIT)")
    text = stated.data.decode("latin-1")
    length = stated.size if stated.size > 1 else max(len(text), 1)  # one unit, or one for each axis
    units = {text[start : start + length].strip("\0 ") for start in range(0, len(text), length)}
    if len(units) != 1 or not units <= _UNITS.keys():
        raise ValueError(f"the unit of {key} is {text!r}; known are {', '.join(_UNITS)}")
    return _UNITS[units.pop()]


class _Turn(NamedTuple):
    """matrix: ``(3, 3)``, from the stored axes to ``_AXES``. note: where no axes are stated.

    by_quarters: whether axes only change places and signs.
    """

    matrix: np.ndarray
    note: str
    by_quarters: bool


@lru_cache(_DESCRIPTIONS)
def _turn(orin: _Entry | None, orio: _Entry | None, mtrx: _Entry | None, device: str) -> _Turn:
    """What the entries say of the axes of a sensor."""
    order, note = _text(orin), ""
    if not order and mtrx is None:
        model = device.upper().removeprefix("GOPRO").strip()
        order = next((o for name, o in _ORDERS.items() if model.startswith(name)), "")
        if not order:
            raise ValueError(
                f"neither ORIN nor MTRX states the order of axes, and GoPro documents none for a "
                f"camera called {device!r}"
            )
        note = f"order of axes not in its telemetry: {order}, as documented for {device} by GoPro"
    turn = _axes(order).T if order else None
    if mtrx is not None:
        matrix = _numbers(mtrx).ravel()
        if matrix.size != 9:
            raise ValueError(f"MTRX has {matrix.size} numbers instead of 9")
        given = _axes(_text(orio) or _AXES).T @ matrix.reshape(3, 3)
        apart = given @ given.T - np.eye(3) if turn is None else given - turn
        if not (np.abs(apart) < _CALIBRATION).all():
            raise ValueError(f"MTRX {matrix.tolist()} is no rotation, or not that of ORIN {order}")
        turn = given
    assert turn is not None
    return _Turn(turn, note, bool(np.isin(turn, (-1, 0, 1)).all()))


def _axes(order: str) -> np.ndarray:
    """Unit vectors ``(3, 3)`` of the axes that letters name, a row each, in terms of ``_AXES``."""
    if sorted(order.upper()) != sorted(_AXES):
        raise ValueError(f"{order!r} is no order of axes")
    rows = np.eye(3)[[_AXES.index(letter) for letter in order.upper()]]
    return rows * np.where([letter.islower() for letter in order], -1.0, 1.0)[:, None]


def _numbers(entry: _Entry) -> np.ndarray:
    """The entry's samples, float64 ``(repeat, axes)``."""
    dtype = _DTYPES.get(entry.kind)
    if dtype is None or not entry.size or entry.size % dtype.itemsize:
        raise ValueError(f"{entry.key} has samples of type {entry.kind!r} and {entry.size} bytes")
    samples = np.frombuffer(entry.data, dtype).astype(np.float64)
    return samples.reshape(entry.repeat, entry.size // dtype.itemsize)


def _first(entry: _Entry) -> float:
    """The first number of the entry."""
    numbers = _numbers(entry)
    if not numbers.size:
        raise ValueError(f"{entry.key} is empty")
    return float(numbers.flat[0])


def _text(entry: _Entry | None) -> str:
    """The text of an entry; empty where there is none."""
    return "" if entry is None else entry.data.decode("latin-1").strip("\0 ")
