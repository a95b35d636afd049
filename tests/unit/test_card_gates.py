"""The gates on the data card: every figure against its threshold, over recordings."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primus_scale.sample import CHANNELS
from shards.card.attention import attention
from shards.card.gates import describe_gates
from shards.card.page import write_card
from shards.card.stats import _sample, collect_statistics
from shards.report import (
    DeviceReport,
    Finding,
    IngestReport,
    RecordingReport,
    SensorReport,
    TiltReport,
)
from shards.signal.sensor_gates import SENSOR_GATES
from tests.recording_factory import make_settings
from tests.shard_factory import SAMPLES, make_windows, write_windows

SETTINGS = asdict(make_settings())


def sensor(kind: str = "accelerometer", **found: Any) -> SensorReport:
    """A sensor of 100 Hz in which nothing is wrong, but for what is said."""
    channels, unit = {
        "accelerometer": (CHANNELS[:3], "m/s2"),
        "gyroscope": (CHANNELS[3:], "rad/s"),
    }[kind]
    counts = dict.fromkeys(
        ("untimed", "invalid", "duplicates", "out_of_order", "saturated", "gaps"), 0
    )
    plain = {"samples": 10_000, "rate_hz": 100.0, "gap_s": 0.0, "usual_peak": 12.0}
    return SensorReport(channels=channels, unit=unit, **(counts | plain | found))


def device(*sensors: SensorReport, name: str = "watch", **found: Any) -> DeviceReport:
    plain: dict[str, Any] = {
        "placement": "left wrist",
        "nominal_rate_hz": None,
        "start_s": 0.0,
        "end_s": 100.0,
        "median_acc": 9.8,
        "gravity": 9.8,
        "windows": 50,
        "planned_by_label": {"walking": 30, "running": 20},
        "refused_by_label": {},
    }
    return DeviceReport(name=name, sensors=sensors, **(plain | found))


def tree(*devices: DeviceReport, **settings: Any) -> dict[str, Any]:
    """``ingest.json`` of as many recordings of one device each."""
    recordings = tuple(
        RecordingReport("own", f"day {number}", "anna", windows=50, devices=(one,))
        for number, one in enumerate(devices)
    )
    report = IngestReport("folder", "src", {**SETTINGS, **settings}, recordings)
    parsed: dict[str, Any] = json.loads(json.dumps(asdict(report)))
    return parsed


def gate(sensors: dict[str, Any], name: str, of: str = "watch · gyroscope") -> dict[str, Any]:
    (found,) = [gate for gate in sensors[of]["gates"] if gate["gate"] == name]
    assert isinstance(found, dict)
    return found


def test_every_gate_of_a_sensor_has_a_figure_and_a_threshold() -> None:
    both = device(sensor(), sensor("gyroscope", usual_peak=3.0), nominal_rate_hz=100.0)
    sensors = describe_gates([tree(both)])["sensors"]
    assert [one["gate"] for one in sensors["watch · gyroscope"]["gates"]] == [
        gate.name for gate in SENSOR_GATES
    ]
    slow = gate(sensors, "low rate")
    assert (slow["thresholds"], slow["worst"], slow["beyond"]) == ([0.35 * 50.0], 100.0, 0)
    turn = gate(sensors, "impossible rotation")
    assert (turn["thresholds"], turn["worst"], turn["flag"]) == ([70.0], 3.0, "--max-rotation")


def test_the_worst_and_the_median_recording_are_told() -> None:
    devices = [
        device(sensor("gyroscope", rate_hz=rate, spikes=spikes))
        for rate, spikes in ((100.0, 0), (16.0, 0), (90.0, 500), (80.0, 0))
    ]
    sensors = describe_gates([tree(*devices)])["sensors"]
    slow = gate(sensors, "low rate")
    assert (slow["worst"], slow["worst_in"], slow["median"]) == (16.0, "day 1", 85.0)
    assert (slow["beyond"], slow["of"]) == (1, 4)
    spikes = gate(sensors, "spikes")
    assert (spikes["worst"], spikes["worst_in"], spikes["beyond"]) == (0.05, "day 2", 1)
    assert sensors["watch · gyroscope"]["rate_hz"] == [85.0, 16.0, 100.0]
    assert sensors["watch · gyroscope"]["rows"]["a spike"] == 500 / 40_000


def test_thresholds_are_those_of_the_settings() -> None:
    spiky = device(sensor("gyroscope", spikes=500))
    assert gate(describe_gates([tree(spiky)])["sensors"], "spikes")["beyond"] == 1
    loose = describe_gates([tree(spiky, max_spikes=0.1)])
    assert gate(loose["sensors"], "spikes")["beyond"] == 0
    assert loose["findings"] == []
    pooled = describe_gates([tree(spiky), tree(spiky, max_spikes=0.1)])["sensors"]
    assert gate(pooled, "spikes")["thresholds"] == [0.001, 0.1]
    assert (gate(pooled, "spikes")["beyond"], gate(pooled, "spikes")["of"]) == (1, 2)


def test_rows_and_gaps_are_told_where_no_nominal_rate_is_given() -> None:
    gappy = device(sensor(duplicates=200, gaps=4, gap_s=25.0, filled=7, untimed=100))
    (found,) = describe_gates([tree(gappy)])["sensors"].values()
    assert found["nominal_rate_hz"] == []
    assert (found["gaps"], found["gap_share"], found["filled"]) == (4, 0.25, 7)
    assert (found["rows"]["a duplicate"], found["rows"]["without a time"]) == (0.02, 0.01)


def test_gravity_of_devices_is_the_mean_of_their_recordings() -> None:
    devices = [
        device(sensor(), axes="x up", gravity_direction=direction)
        for direction in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    ]
    (found,) = describe_gates([tree(*devices)])["devices"].values()
    assert found["gravity_direction"] == [0.5, 0.5, 0.0]
    assert found["axes"] == ["x up"]
    assert found["placements"] == ["left wrist"]


def folder_of(path: Path, report: dict[str, Any], count: int = 30) -> str:
    """Calm windows, of which a page draws up to twelve, and the report on them."""
    still = np.zeros((6, SAMPLES), np.float32)
    still[1] = 9.8
    windows = [
        replace(
            w,
            imu=still + np.float32(0.01 * n),
            meta=replace(w.meta, person=f"person {n}", placement="chest", session="worn"),
        )
        for n, w in enumerate(make_windows(count, frames=0))
    ]
    write_windows(str(path), windows)
    (path / "ingest.json").write_text(json.dumps(report), encoding="utf-8")
    return str(path)


SLOW_TILT = TiltReport(1 / 57.3, 0.9, ("+x", "+y", "+z"), 0.9, 400.0)
BAD = {
    "high rotation": device(sensor(), sensor("gyroscope", usual_peak=40.0)),
    "rows dropped": device(sensor(duplicates=900)),
    "shared times": device(sensor(shared_times=9_000)),
    "clock steps": device(sensor(clock_steps=1)),
    "repeated values": device(sensor(zeros=2_000)),
    "spikes": device(sensor(), sensor("gyroscope", spikes=20)),
    "nominal rate": device(sensor(rate_hz=80.0), nominal_rate_hz=100.0),
    "gravity": device(sensor(), gravity=3.0),
    "refused windows": device(
        sensor(), refused={"gap": 9}, refused_by_label={"running": {"gap": 9}}
    ),
    "times as fast": device(sensor(), sensor("gyroscope"), tilt=SLOW_TILT),
    "a gate of a later version": device(
        sensor(),
        findings=(
            Finding(
                "later", "device watch", "flag", 2.0, 1.0, "x", "--x", "a gate of a later version"
            ),
        ),
    ),
}


@pytest.mark.parametrize("gate", BAD)
def test_nothing_is_calm_where_a_gate_flags(tmp_path: Path, gate: str) -> None:
    good = device(sensor(), sensor("gyroscope", usual_peak=3.0))
    url = folder_of(tmp_path, tree(good, BAD[gate], good))
    figures, _ = collect_statistics([url], report=lambda _line: None)
    found = [line for line in attention(figures) if gate.lower() in line.lower()]
    assert found, attention(figures)
    assert any("1 of 3 recordings, as in day 1" in line for line in found)


def test_a_page_shows_findings_and_what_was_left_out_and_is_not_calm(tmp_path: Path) -> None:
    report = tree(BAD["spikes"], device(sensor(), sensor("gyroscope")))
    report["recordings"][0]["left_out"] = ["device ankle: 3 of 4 rows are zeros <b>"]
    url = folder_of(tmp_path, report, count=2)
    figures = write_card([url], report=lambda _line: None)
    page = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert 'class="calm"' not in page
    (cell,) = re.findall(r'<td class="beyond">(.*?)</td>', page)
    assert cell.startswith("0.2 % <small>(0.1 %)</small>")
    assert "1 of 2 recordings, worst day 0" in cell
    assert any("left out, as in day 0: device ankle" in line for line in attention(figures))
    assert "3 of 4 rows are zeros &lt;b&gt;" in page


def test_all_is_calm_where_no_gate_flags(tmp_path: Path) -> None:
    good = device(sensor(), sensor("gyroscope", usual_peak=3.0), nominal_rate_hz=100.0)
    write_card([folder_of(tmp_path, tree(good, good))], report=lambda _line: None)
    page = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert "Nothing here stands out" in page
    for told in ("--max-spikes", "at least 17.5", "Every gate of the sensors", "Refusals by label"):
        assert told in page


def test_windows_without_a_report_are_not_called_sound(tmp_path: Path) -> None:
    url = folder_of(tmp_path, {})
    (tmp_path / "ingest.json").unlink()
    write_card([url], report=lambda _line: None)
    page = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert "Nothing here stands out" not in page
    assert "there is no ingest.json" in page


@pytest.mark.parametrize("text", ["{", "[]", '{"recordings": 3}', "[" * 100_000])
def test_a_report_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    url = folder_of(tmp_path, {})
    (tmp_path / "ingest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"ingest\.json is damaged \(.*\); build the shards again"):
        collect_statistics([url], report=lambda _line: None)


def test_a_sample_of_many_windows_holds_all_devices_of_a_moment_alike() -> None:
    """Three devices stand side by side, and a third of the windows is read."""
    numbers = _sample(records=30_000, most=10_000, windows=30_000, seed=0)
    assert len(set(numbers.tolist())) == 10_000
    shares = [float((numbers % 3 == device).mean()) for device in range(3)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
    assert _sample(5, 100, 5, 0).tolist() == [0, 1, 2, 3, 4]
