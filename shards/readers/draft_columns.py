"""Guesses of what the columns of a table hold, by their names and numbers, for a draft.

found = guess_columns(table)   # Table: names and the first rows, as text or numbers
found.sensors   # [GuessedSensor("acc", {"acc_x": "ax", ...}, unit="g", why="median |a| is 1.01")]
found.time      # GuessedTime("t", "ms", why="20 between rows makes 50 Hz")

Every guess has its reason, which the draft writes next to it for the person who checks it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from primus_scale.signal.gravity import find_turns, fit_turning
from primus_scale.signal.plausible import TURNING_FACTOR
from shards.files.text_tables import NULLS, is_number
from shards.files.times import NOT_A_TIME, TimeReader, looks_like_time

SENSORS = {"acc": "acc", "gyr": "gyr"}
_TIME = re.compile(
    r"t|.*time.*|.*date.*|.*epoch.*|.*clock.*|unix.*|utc|ms|us|ns|sec|secs|seconds|elapsed|.*zeit|"
    r".*datum.*|ts",
    re.I,
)
_LABEL = re.compile(
    r"(.*_)?(label|labels|activity|activities|activity_?id|class|annotation|target|gt)", re.I
)
_SLOWEST_HZ, _FASTEST_HZ = 4.0, 4000.0
_EVEN_SHARE = 0.95  # of the steps between rows; the others are gaps, or a clock that was set
_LONGEST_STEP = 1.9  # medians
_GRAVITY = {"m/s2": 9.80665, "g": 1.0, "mg": 1000.0, "g/64": 64.0}
_COUNTS = (*(2**power for power in range(7, 16)), 1000, 10_000)  # usual numbers of counts in 1 g
_UNIT_ERROR = 0.2  # of gravity, for a median over movements
_USUAL_ROTATION = 6.0  # the median rotation of a body is below it in rad/s, above it in deg/s
_FASTEST_ROTATION = 35.0  # rad/s, of usual sensors; 2,000 deg/s
_FORMATS = (
    "%d.%m.%Y %H:%M:%S.%f",
    "%d.%m.%Y %H:%M:%S,%f",
    "%d.%m.%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S.%f",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S.%f",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M:%S.%f %p",
)


@dataclass(frozen=True)
class Table:
    """The first rows of a file. columns: by name, float64 ``(n,)``, or texts, or Arrow's times.

    named: whether a line of the file names the columns; otherwise these are numbered.
    """

    name: str
    columns: Mapping[str, Any]
    named: bool = True


@dataclass(frozen=True)
class GuessedSensor:
    """A sensor: kind "acc" or "gyr", channel to column, unit as YAML writes it, and why."""

    kind: str
    columns: Mapping[str, str]
    unit: str
    why: str


@dataclass(frozen=True)
class GuessedTime:
    """Times: column or two, unit, format (None: none needed), rate in Hz (None: unknown), why."""

    columns: tuple[str, ...]
    unit: str
    why: str
    format: str | None = None
    rate_hz: float | None = None


@dataclass(frozen=True)
class Guessed:
    """What a table seems to hold. others: columns that are not used."""

    sensors: list[GuessedSensor]
    time: GuessedTime | None
    label: str | None
    others: list[str] = field(default_factory=list)


def guess_columns(table: Table) -> Guessed:
    """Sensors, times and labels among the columns of a table."""
    time = _time(table)
    left = {
        name: column
        for name, column in table.columns.items()
        if time is None or name not in time.columns
    }
    label = next((name for name in left if table.named and _LABEL.fullmatch(name.strip())), None)
    numbers = {
        name: column
        for name, column in left.items()
        if name != label and isinstance(column, np.ndarray) and column.dtype.kind == "f"
    }
    triples = _by_names(table.name, numbers) if table.named else _by_positions(numbers)
    signals = {
        kind: np.stack([numbers[name] for name in columns], axis=1)
        for kind, columns in triples.items()
    }
    turning = _turning(signals, time)
    sensors = [_sensor(kind, columns, signals[kind], turning) for kind, columns in triples.items()]
    used = {name for sensor in sensors for name in sensor.columns.values()}
    others = [name for name in left if name not in used and name != label]
    return Guessed(sensors, time, label, others)


def _by_names(file: str, numbers: Mapping[str, np.ndarray]) -> dict[str, tuple[str, ...]]:
    """Three columns for each kind of sensor, by the names of columns."""
    heads: dict[str, dict[str, str]] = defaultdict(dict)
    for name in numbers:
        head, axis = _axis(name)
        if axis:
            heads[head].setdefault(axis, name)
    triples = {
        head: tuple(axes[axis] for axis in "xyz") for head, axes in heads.items() if len(axes) == 3
    }
    found: dict[str, tuple[str, ...]] = {}
    for head, columns in triples.items():
        kind = _kind(head)
        if kind in SENSORS:
            found.setdefault(kind, columns)
    for head, columns in triples.items():
        if _kind(head) == "" and columns not in found.values():
            kind = _kind(file.rpartition(".")[0].lower()) or "acc"
            if kind in SENSORS:
                found.setdefault(kind, columns)
    return found


def _axis(name: str) -> tuple[str, str]:
    """A column's name without its axis, and the axis, "" if it names none."""
    plain = re.sub(r"[\[(].*?[\])]", "", name)
    plain = re.sub(r"[^a-z]", "", plain.lower())
    if match := re.fullmatch(r"(.*?)([xyz])(?:axis|value|data|cal)?", plain):
        return match[1], match[2]
    if match := re.fullmatch(r"([xyz])(?:axis)?(.*)", plain):
        return match[2], match[1]
    return plain, ""


def _kind(head: str) -> str:
    """The sensor that a name means: acc, gyr, a description of another one, or "" if none."""
    if re.search(r"lin|user|body|grav", head):
        return "part of the acceleration"
    if "acc" in head or head in ("a", "axis"):
        return "acc"
    if re.search(r"gyr|rot|angular|angvel|omega", head) or head in ("g", "w", "av"):
        return "gyr"
    if re.search(r"mag|orient|quat|euler|pitch|roll|yaw|pos|vel", head) or head in ("m", "b", "q"):
        return "another sensor"
    return ""


def _by_positions(numbers: Mapping[str, np.ndarray]) -> dict[str, tuple[str, ...]]:
    """The first three columns and the next three, for files without names of columns."""
    names = list(numbers)
    return {
        kind: tuple(names[first : first + 3])
        for kind, first in (("acc", 0), ("gyr", 3))
        if len(names) >= first + 3
    }


def _turning(signals: Mapping[str, np.ndarray], time: GuessedTime | None) -> float | None:
    """How much faster the gyroscope's numbers say that gravity turns than it does, in rad/s.

    None where one of both sensors, or the rate, is unknown, or gravity hardly turns.
    """
    if set(signals) != set(SENSORS) or time is None or not time.rate_hz:
        return None
    acc, gyr = (signals[kind] for kind in ("acc", "gyr"))
    rows = np.isfinite(acc).all(axis=1) & np.isfinite(gyr).all(axis=1)
    fit = fit_turning(find_turns(acc[rows].T, gyr[rows].T, time.rate_hz))
    return None if fit is None or fit.slope <= 0 else 1 / fit.slope


def _sensor(
    kind: str, columns: Sequence[str], values: np.ndarray, turning: float | None
) -> GuessedSensor:
    size = np.linalg.norm(values[np.isfinite(values).all(axis=1)], axis=1)
    size = size[size > 0]
    named = {f"{kind}_{axis}": column for axis, column in zip("xyz", columns, strict=True)}
    if not len(size):
        unit = "m/s2" if kind == "acc" else "rad/s"
        return GuessedSensor(kind, named, unit, "it has no values")
    median = float(np.median(size))
    unit, why = _acc_unit(median) if kind == "acc" else _gyr_unit(columns, size, turning)
    return GuessedSensor(kind, named, unit, why)


def _acc_unit(median: float) -> tuple[str, str]:
    evidence = f"median |a| is {median:.4g}"
    for unit, gravity in _GRAVITY.items():
        if abs(median / gravity - 1) < _UNIT_ERROR:
            return unit, f"{evidence}, and gravity {gravity:.4g} {unit}"
    near = min(_COUNTS, key=lambda count: abs(np.log(median / count)))
    if abs(median / near - 1) < _UNIT_ERROR:
        return f"{{lsb_per_g: {near}}}", f"{evidence}, so these seem to be counts"
    return "m/s2", f"{evidence}, which is gravity in no usual unit; without it, in m/s2?"


def _gyr_unit(columns: Sequence[str], size: np.ndarray, turning: float | None) -> tuple[str, str]:
    median, high = float(np.median(size)), float(np.quantile(size, 0.99))
    evidence = f"median rotation is {median:.3g}, 99 % below {high:.3g}"
    name = columns[0].lower()
    if re.search(r"deg|dps|°", name):
        return "deg/s", f"by its name; {evidence}"
    if "rad" in name:
        return "rad/s", f"by its name; {evidence}"
    if turning is not None:
        for unit, factor in (("rad/s", 1.0), ("deg/s", 180 / np.pi)):
            if 1 / TURNING_FACTOR < turning / factor < TURNING_FACTOR:
                return unit, f"gravity turns as fast as these numbers say in {unit}; {evidence}"
    if high > _FASTEST_ROTATION * 180 / np.pi:
        return "{lsb_per_deg_s: 131}", f"{evidence}, so these seem to be counts; see the data sheet"
    if median > _USUAL_ROTATION or high > _FASTEST_ROTATION:
        return "deg/s", f"{evidence}: too fast for rad/s"
    return "rad/s", f"{evidence}; if nothing moved much it may be deg/s"


def _time(table: Table) -> GuessedTime | None:
    """The column of times: dates, or else rising numbers in a column with a name for times."""
    dated = [name for name, column in table.columns.items() if _is_dated(column)]
    if dated:
        return _dates(table, dated)
    for name, column in table.columns.items():
        if table.named and not _TIME.fullmatch(name.strip().split("(")[0].split("[")[0].strip()):
            continue
        if isinstance(column, np.ndarray) and column.dtype.kind == "f" and _is_rising(column):
            return _numbered(name, column)
    return None


def _is_dated(column: Any) -> bool:
    if isinstance(column, pa.Array):
        kind = column.type
        return any(
            test(kind) for test in (pa.types.is_timestamp, pa.types.is_time, pa.types.is_duration)
        )
    if not isinstance(column, list):
        return False
    text = _first(column)
    return looks_like_time(text) or _format(text) is not None


def _first(texts: Sequence[str]) -> str:
    return next((text.strip() for text in texts if text.strip() not in NULLS), "")


def _format(text: str) -> str | None:
    """The first usual format of dates that fits a text."""
    for one in _FORMATS:
        try:
            datetime.strptime(text, one)
        except ValueError:
            continue
        return one
    return None


def _dates(table: Table, names: Sequence[str]) -> GuessedTime:
    """The first column of dates, with a time of day next to it, if any."""
    first = table.columns[names[0]]
    columns: tuple[str, ...] = (names[0],)
    form = None
    if isinstance(first, list):
        text = _first(first)
        form = None if looks_like_time(text) else _format(text)
        of_day = [
            name
            for name in names[1:]
            if isinstance(table.columns[name], list) and ":" in _first(table.columns[name])[:3]
        ]
        if ":" not in text and of_day:
            columns = (names[0], of_day[0])
            first = [" ".join(pair) for pair in zip(first, table.columns[of_day[0]], strict=True)]
    rate_hz = None
    try:
        cells = pa.array(first) if isinstance(first, list) else first
        ns = TimeReader("", form=form).read(cells)
        rate_hz = _rate(ns[ns != NOT_A_TIME] * 1e-9)
    except ValueError:
        pass
    why = "day and month might be the other way round" if form else "dates or times of day"
    return GuessedTime(columns, "iso", why, form, rate_hz)


def _is_rising(column: np.ndarray) -> bool:
    steps = np.diff(column[np.isfinite(column)])
    return len(steps) > 0 and float(np.mean(steps >= 0)) > 0.9 and bool((steps > 0).any())


def _numbered(name: str, column: np.ndarray) -> GuessedTime:
    per_unit = _rate(column) or 1.0
    step = 1 / per_unit
    for unit, one in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        rate_hz = per_unit / one
        if _SLOWEST_HZ <= rate_hz <= _FASTEST_HZ:
            why = f"{step:.4g} between rows makes {rate_hz:.4g} Hz"
            return GuessedTime((name,), unit, why, None, rate_hz)
    return GuessedTime((name,), "s", f"{step:.4g} between rows fits no usual rate", None, per_unit)


def _rate(times: np.ndarray) -> float | None:
    """Rows for each unit of time, also if several rows share a time; without a few gaps."""
    times = times[np.isfinite(times)]
    span = float(times.max() - times.min()) if len(times) else 0.0
    if not span:
        return None
    steps = np.diff(times)
    even = steps[(steps > 0) & (steps < _LONGEST_STEP * np.median(steps))]
    if len(even) > _EVEN_SHARE * len(steps):
        return 1 / float(even.mean())
    return (len(times) - 1) / span


def typed(texts: list[str], decimal: str) -> np.ndarray | list[str]:
    """A column of text as numbers, if most of its cells are numbers; otherwise unchanged."""
    filled = [text for text in texts if text.strip() not in NULLS]
    if sum(is_number(text, decimal) for text in filled) < 0.9 * max(len(filled), 1):
        return texts
    return np.array(
        [
            float(text.strip().replace(decimal, ".")) if is_number(text, decimal) else np.nan
            for text in texts
        ]
    )
