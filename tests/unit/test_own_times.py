"""Times of own files as they are: dates, times of day, zones, and the types of Parquet."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from shards.recording import Recording
from tests.folder_factory import (
    ACC,
    GYR,
    describe,
    described,
    description,
    first_sensor,
    motion,
    read,
    sensor,
    text_table,
)
from tests.reading import read_sensor, spans

COLUMNS = (*ACC.values(), *GYR.values())


def spelled(kind: str) -> Callable[[datetime], str]:
    """How a moment is written."""
    berlin = ZoneInfo("Europe/Berlin")
    return {
        "space": lambda t: t.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "T, Z": lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "offset": lambda t: t.astimezone(berlin).isoformat(),
        "offset, name": lambda t: t.astimezone(berlin).strftime(
            "%Y-%m-%d %H:%M:%S.%f%z [Europe/X]"
        ),
        "slashes, UTC": lambda t: t.strftime("%Y/%m/%d %H:%M:%S.%f UTC"),
        "comma": lambda t: t.strftime('"%Y-%m-%d %H:%M:%S,%f"'),
        "of day": lambda t: t.strftime("%H:%M:%S.%f"),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["space", "T, Z", "offset", "offset, name", "slashes, UTC", "comma", "of day"]
)
def test_times_as_text_are_seconds_from_the_first_row(kind: str, tmp_path: Path) -> None:
    time_s, values = motion(12)
    # Over midnight, and with offsets over the end of summer time (01:00 UTC).
    start = datetime(2022, 10, 30, 0, 59, 55, tzinfo=UTC)
    start -= timedelta(hours=1) if kind == "of day" else timedelta()
    write = spelled(kind)
    times = [write(start + timedelta(seconds=t)) for t in time_s.tolist()]
    (tmp_path / "w.csv").write_text(text_table(times, values))
    for unit in ("iso", "s"):
        describe(tmp_path, described(time={"column": "t", "unit": unit}))
        found, sensed = read(
            tmp_path, lambda recording: read_sensor(recording.devices[0].sensors[0])
        )
        np.testing.assert_allclose(found, time_s, atol=1e-9)
        np.testing.assert_allclose(sensed, values[:, :3], atol=1e-6)


def test_times_of_day_go_on_after_midnight_and_may_have_a_date_beside_them(
    tmp_path: Path,
) -> None:
    time_s, values = motion(4)
    start = datetime(2022, 10, 30, 23, 59, 58, tzinfo=UTC)
    moments = [start + timedelta(seconds=t) for t in time_s.tolist()]
    for write, column in (
        ("%H:%M:%S.%f", "t"),
        ("%d.%m.%Y %H:%M:%S.%f", "t"),
        ("%Y-%m-%d;%H:%M:%S.%f", ["day", "t"]),
    ):
        table = text_table([t.strftime(write) for t in moments], values, ";")
        two = isinstance(column, list)
        (tmp_path / "w.csv").write_text(f"day;{table}" if two else table)
        time = {"column": column, "unit": "iso"}
        time |= {"format": write} if "%d.%m" in write else {}
        describe(tmp_path, described(time=time, delimiter="semicolon"))
        found, _ = read(tmp_path, first_sensor)
        np.testing.assert_allclose(found, time_s, atol=1e-9)


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "Asia/Tokyo")]
    + [pa.time32("ms"), pa.time64("us"), pa.duration("ms"), pa.string()],
    ids=str,
)
def test_times_of_parquet_have_their_own_unit(kind: pa.DataType, tmp_path: Path) -> None:
    step_ns = 10**9 if kind in (pa.timestamp("s"), pa.timestamp("s", "Asia/Tokyo")) else 20 * 10**6
    zero_ns = 0 if pa.types.is_duration(kind) else 43_200 * 10**9
    ns = pa.array(zero_ns + np.arange(100) * step_ns)
    own = pa.duration("ns") if pa.types.is_duration(kind) else pa.time64("ns")
    own = pa.timestamp("ns") if pa.types.is_timestamp(kind) or pa.types.is_string(kind) else own
    times = ns.cast(own)
    if pa.types.is_timestamp(kind) and kind.tz:
        times = times.cast(pa.timestamp("ns", kind.tz))
    values = dict.fromkeys(COLUMNS, np.arange(100.0))
    table = pa.table({"t": times.cast(kind), **values})
    pa.parquet.write_table(table, tmp_path / "w.parquet")
    describe(tmp_path, described(file="w.parquet", time={"column": "t", "unit": "s"}))
    found, _ = read(tmp_path, first_sensor)
    np.testing.assert_allclose(found, np.arange(100) * step_ns / 1e9, atol=1e-9)


def two_files(tmp_path: Path, first: list[str], second: list[str], **time: Any) -> None:
    values = np.zeros((len(first), 6))
    (tmp_path / "a.csv").write_text(text_table(first, values))
    (tmp_path / "g.csv").write_text(text_table(second, values))
    both = {"column": "t", "unit": "iso"}
    acc = sensor(file="a.csv", unit="m/s2", rate_hz=None, time=both)
    gyr = sensor(file="g.csv", columns=GYR, unit="rad/s", rate_hz=None, time=both | time)
    describe(tmp_path, description(acc, gyr))


def test_files_of_one_recording_are_on_one_clock(tmp_path: Path) -> None:
    def starts(recording: Recording) -> list[float]:
        return [read_sensor(one)[0][0] for one in recording.devices[0].sensors]

    two_files(tmp_path, ["2022-01-27T12:00:01Z"] * 2, ["2022-01-27 13:00:00.5+01:00"] * 2)
    assert read(tmp_path, starts) == [0.5, 0.0]
    recording = read(tmp_path)
    assert "0 s is 2022-01-27 12:00:00.5 UTC" in recording.sync
    assert recording.clock_zero == "2022-01-27T12:00:00.500000+00:00"
    two_files(tmp_path, ["2022-01-27T12:00:01Z"] * 2, ["2022-01-27 13:00:03"] * 2)
    with pytest.raises(
        ValueError, match=r"a\.csv has dates with a time zone, but g\.csv dates with"
    ):
        read(tmp_path)
    two_files(tmp_path, ["2022-01-27T12:00:01Z"] * 2, ["2022-01-27 13:00:03"] * 2, zone="+01:00")
    assert read(tmp_path, starts) == [0.0, 2.0]
    unix = f"{datetime(2022, 1, 27, 12, 0, 3, tzinfo=UTC).timestamp():.2f}"
    two_files(tmp_path, ["2022-01-27T12:00:01Z"] * 2, [unix] * 2, unit="s")
    with pytest.raises(ValueError, match=r"with time.offset_s \(-1643284801\.000, if they are"):
        read(tmp_path)
    two_files(tmp_path, ["2022-01-27T12:00:01Z"] * 2, [unix] * 2, unit="s", offset_s=-1643284801)
    assert read(tmp_path, starts) == [0.0, 2.0]


@pytest.mark.parametrize(
    ("times", "time", "message"),
    [
        (["2022-01-27 12:00:00", "2022-02-30 12:00:00"], {}, "row 2 holds '2022-02-30"),
        (["2022-01-27 12:00:00", "yesterday"], {}, "row 2 holds 'yesterday', which is no time"),
        (["2022-01-27 12:00:00", "2022-01-27 12:00:00Z"], {}, "row 2 holds"),
        (["12:00:00", "2022-01-27 12:00:00"], {}, "row 2 holds"),
        (["27.01.2022 12:00:00"] * 2, {}, r"row 1 holds '27\.01.* format: '%d\.%m"),
        (["27.01.2022 12:00:00"] * 2, {"format": "%d/%m/%Y"}, "no time of the format %d/%m/%Y"),
        (["0.5", "0.6"], {}, r"holds the number '0\.5', no date; write its unit: s, ms, us"),
        (["2022-01-27 12:00:00"] * 2, {"zone": "Mars"}, "unknown time zone 'Mars'"),
        (["0.5", "x"], {"unit": "s"}, "line 3, column t holds 'x', which is no number"),
        (["x", "0.5"], {"unit": "s"}, "line 2, column t holds 'x', which is no number"),
    ],
)
def test_times_that_are_none_are_told(
    times: list[str], time: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "w.csv").write_text(text_table(times, np.zeros((2, 6))))
    describe(tmp_path, described(time={"column": "t", "unit": "iso"} | time))
    with pytest.raises(ValueError, match=message):
        read(tmp_path, first_sensor)


def test_empty_times_are_rows_without_a_time(tmp_path: Path) -> None:
    times = ["", "2022-01-27 12:00:00", "NaN", "2022-01-27 12:00:01"]
    (tmp_path / "w.csv").write_text(text_table(times, np.zeros((4, 6))))
    describe(tmp_path, described(time={"column": "t", "unit": "iso"}))
    found, _ = read(tmp_path, first_sensor)
    np.testing.assert_array_equal(found, [np.nan, 0, np.nan, 1])


def test_labels_beside_each_row_and_with_dates(tmp_path: Path) -> None:
    start = "2022-01-27 12:00:"
    times = [f"{start}{second:02d}" for second in range(6)]
    rows = [
        f"{time},1,2,3,{label}"
        for time, label in zip(times, ["walk", "walk ", "", "sit", "sit", "sit"], strict=True)
    ]
    (tmp_path / "w.csv").write_text("\n".join(["t,ax,ay,az,what", *rows]))
    time = {"column": "t", "unit": "iso"}
    keys = sensor(file="w.csv", rate_hz=None, time=time)
    labels = {"file": "w.csv", "column": "what", "time": time, "offset_s": 10}
    describe(tmp_path, description(keys, labels=labels))
    assert spans(read(tmp_path)) == [(10, 11, "walk"), (13, 15, "sit")]
    (tmp_path / "l.csv").write_text(
        f"start_s;end_s;label\n{start}01,5;{start}02;sit\n{start}00;{start}01;walk\n"
    )
    describe(tmp_path, description(keys, labels={"file": "l.csv", "delimiter": ";"}))
    assert spans(read(tmp_path)) == [(0, 1, "walk"), (1.5, 2, "sit")]
    (tmp_path / "l.csv").write_text("start_s;end_s;label\n0,5;1,5;sit\n")
    describe(
        tmp_path, description(keys, labels={"file": "l.csv", "delimiter": ";", "decimal": ","})
    )
    assert spans(read(tmp_path)) == [(0.5, 1.5, "sit")]
    (tmp_path / "l.csv").write_text("start_s,end_s,label\n12:00:01,12:00:02,sit\n")
    describe(tmp_path, description(keys, labels={"file": "l.csv"}))
    with pytest.raises(ValueError, match="labels have times of day, but the samples have not"):
        read(tmp_path)
