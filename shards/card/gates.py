"""What the gates found, over all recordings: every figure against its threshold, by sensor.

``ingest.json`` has a report of each device of each recording. Here they are joined by the name of
the device, as JSON for ``card.json`` and the page. The gates are the tables ``SENSOR_GATES`` and
``DEVICE_GATES`` of ``shards.signal``, so a new gate appears on the card by itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from shards.recording import ACCELEROMETER, GYROSCOPE
from shards.report import DeviceReport, Finding, IngestReport, SensorReport
from shards.settings import SensorLimits
from shards.signal.device_gates import DEVICE_GATES, LABEL_GATE
from shards.signal.gate import Gate, Subject
from shards.signal.sensor_gates import SENSOR_GATES

REPORT = TypeAdapter(IngestReport)
# Kinds of rows that a sensor's file may hold: words on the card, and the field of SensorReport that
# counts them.
ROW_KINDS = {
    "a duplicate": "duplicates",
    "without a time": "untimed",
    "invalid": "invalid",
    "laid over time already recorded": "overlapping",
    "of zeros": "zeros",
    "of one value held": "repeated",
    "a spike": "spikes",
    "out of order (kept)": "out_of_order",
    "at the time of another (kept)": "shared_times",
    "saturated (kept)": "saturated",
}


@dataclass
class _GateFigures:
    """One gate's figures of one sensor or device over all recordings."""

    gate: Gate
    thresholds: set[float] = field(default_factory=set)
    figures: list[tuple[float, str]] = field(default_factory=list)  # each with its recording
    beyond: int = 0

    def add(self, subject: Subject, recording: str) -> Finding | None:
        """Take in the figure of a recording; the finding, if it is beyond the threshold."""
        figure = self.gate.figure(subject)
        if figure is None or not np.isfinite(figure):
            return None
        own = self.gate.threshold
        self.thresholds.add(
            float(own(subject) if own else getattr(subject.limits, self.gate.setting))
        )
        self.figures.append((float(figure), recording))
        finding = self.gate.judge(subject)
        self.beyond += finding is not None
        return finding

    def as_dict(self) -> dict[str, Any] | None:
        """None where there was nothing to judge."""
        if not self.figures:
            return None
        worst, recording = (min if self.gate.below else max)(self.figures)
        return {
            "gate": self.gate.name,
            "what": self.gate.what,
            "flag": self.gate.flag,
            "verdict": self.gate.verdict,
            "below": self.gate.below,
            "thresholds": sorted(self.thresholds),
            "median": float(np.median([figure for figure, _ in self.figures])),
            "worst": worst,
            "worst_in": recording,
            "beyond": self.beyond,
            "of": len(self.figures),
        }


class _GateTable:
    """The figures of all gates of a table for one sensor or device."""

    def __init__(self, table: Sequence[Gate]) -> None:
        self._gathered = [_GateFigures(gate) for gate in table]

    def add(self, subject: Subject, recording: str) -> list[Finding]:
        """Findings on the subject."""
        found = [gathered.add(subject, recording) for gathered in self._gathered]
        return [finding for finding in found if finding]

    def as_list(self) -> list[dict[str, Any]]:
        """Those that had something to judge."""
        return [row for gathered in self._gathered if (row := gathered.as_dict())]


@dataclass
class _SensorFigures:
    gates: _GateTable = field(default_factory=lambda: _GateTable(SENSOR_GATES))
    rates_hz: list[float] = field(default_factory=list)
    nominal_hz: set[float] = field(default_factory=set)
    samples: int = 0
    seconds: float = 0.0
    gaps: int = 0
    gap_s: float = 0.0
    filled: int = 0
    rows: Counter[str] = field(default_factory=Counter)

    def add(self, sensor: SensorReport, device: DeviceReport) -> None:
        """Take in a sensor of a recording."""
        self.rates_hz.append(sensor.rate_hz)
        if device.nominal_rate_hz:
            self.nominal_hz.add(device.nominal_rate_hz)
        self.samples += sensor.samples
        self.seconds += max(device.end_s - device.start_s, 0.0)
        self.gaps += sensor.gaps
        self.gap_s += sensor.gap_s
        self.filled += sensor.filled
        self.rows.update({name: getattr(sensor, count) for name, count in ROW_KINDS.items()})

    def as_dict(self) -> dict[str, Any]:
        return {
            "recordings": len(self.rates_hz),
            "rate_hz": _median_and_ends(self.rates_hz),
            "nominal_rate_hz": sorted(self.nominal_hz),
            "samples": self.samples,
            "gaps": self.gaps,
            "gap_share": self.gap_s / max(self.seconds, self.gap_s, 1e-9),
            "filled": self.filled,
            "rows": {name: self.rows[name] / max(self.samples, 1) for name in ROW_KINDS},
            "gates": self.gates.as_list(),
        }


@dataclass
class _DeviceFigures:
    gates: _GateTable = field(default_factory=lambda: _GateTable(DEVICE_GATES))
    devices: list[DeviceReport] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        directions = [d.gravity_direction for d in self.devices if d.gravity_direction]
        return {
            "recordings": len(self.devices),
            "placements": sorted({device.placement for device in self.devices}),
            "axes": sorted({device.axes for device in self.devices}),
            "gravity_direction": np.mean(directions, axis=0).tolist() if directions else None,
            "gravity": _median_and_ends([d.gravity for d in self.devices if d.gravity is not None]),
            "tilt": _median_and_ends([d.tilt.slope for d in self.devices if d.tilt]),
            "agreement": _median_and_ends([d.tilt.correlation for d in self.devices if d.tilt]),
            "windows": sum(device.windows for device in self.devices),
            "refused": sum(sum(device.refused.values()) for device in self.devices),
            "gates": self.gates.as_list(),
        }


def _median_and_ends(values: Sequence[float]) -> list[float] | None:
    """Median, smallest and largest."""
    return [float(np.median(values)), min(values), max(values)] if values else None


def describe_gates(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of the gates over the trees of one or several ``ingest.json``, as JSON.

    sensors, devices: by name. labels: windows planned, and refused by reason. findings: what gates
    flag or refuse, with the recording. left_out: devices that were not used, and why. Raises
    pydantic's ValidationError where a tree is no report.
    """
    sensors: dict[str, _SensorFigures] = defaultdict(_SensorFigures)
    devices: dict[str, _DeviceFigures] = defaultdict(_DeviceFigures)
    labels = _Labels()
    findings: list[dict[str, Any]] = []
    left_out: list[tuple[str, str]] = []
    for report in map(REPORT.validate_python, reports):
        limits, rate_hz = _limits(report.settings), float(str(report.settings.get("rate_hz", 0)))
        for recording in report.recordings:
            left_out += [(recording.name, why) for why in recording.left_out]
            for device in recording.devices:
                found = [*device.findings]
                for subject in _sensor_subjects(device, limits, rate_hz):
                    assert subject.sensor is not None
                    sensor = sensors[f"{device.name} · {kind_of(subject.sensor)}"]
                    sensor.add(subject.sensor, device)
                    found += sensor.gates.add(subject, recording.name)
                devices[device.name].devices.append(device)
                subject = Subject(f"device {device.name}", limits, device=device)
                found += devices[device.name].gates.add(subject, recording.name)
                found += labels.add(device, limits)
                findings += _with_recording(found, recording.name)
    return {
        "sensors": {name: figures.as_dict() for name, figures in sorted(sensors.items())},
        "devices": {name: figures.as_dict() for name, figures in sorted(devices.items())},
        "labels": labels.as_dict(),
        "findings": findings,
        "left_out": left_out,
    }


class _Labels:
    """Windows planned and refused by label, over all devices."""

    def __init__(self) -> None:
        self._planned: Counter[str] = Counter()
        self._refused: dict[str, Counter[str]] = defaultdict(Counter)
        self._limits: set[float] = set()

    def add(self, device: DeviceReport, limits: SensorLimits) -> Iterator[Finding]:
        """Take in a device; findings on its labels."""
        self._limits.add(limits.max_refused)
        self._planned.update(device.planned_by_label)
        for label, reasons in device.refused_by_label.items():
            self._refused[label].update(reasons)
            subject = Subject(f"device {device.name}", limits, device=device, label=label)
            if finding := LABEL_GATE.judge(subject):
                yield finding

    def as_dict(self) -> dict[str, Any]:
        most = min(self._limits, default=1.0)
        return {
            label: {
                "planned": count,
                "refused": dict(self._refused[label].most_common()),
                "beyond": self._refused[label].total() > most * count,
                "threshold": most,
            }
            for label, count in sorted(self._planned.items(), key=lambda pair: (-pair[1], pair[0]))
        }


def _sensor_subjects(
    device: DeviceReport, limits: SensorLimits, rate_hz: float
) -> Iterator[Subject]:
    for sensor in device.sensors:
        yield Subject(
            f"device {device.name}, sensor {' '.join(sensor.channels)}",
            limits,
            sensor=sensor,
            rate_hz=rate_hz,
            nominal_rate_hz=device.nominal_rate_hz,
        )


def kind_of(sensor: SensorReport) -> str:
    """What a sensor is called on the card."""
    known: dict[tuple[str, ...], str] = {ACCELEROMETER: "accelerometer", GYROSCOPE: "gyroscope"}
    return known.get(sensor.channels, ", ".join(sensor.channels))


def _limits(settings: Mapping[str, object]) -> SensorLimits:
    """The limits of a report's settings; the default of a gate that is newer than the report."""
    names = {one.name for one in fields(SensorLimits)} & settings.keys()
    build: Callable[..., SensorLimits] = SensorLimits
    said = {name: settings[name] for name in names}
    return build(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    )


def _with_recording(found: Sequence[Finding], recording: str) -> Iterator[dict[str, Any]]:
    """``found`` as JSON, each finding once: the report holds some of those judged here again."""
    seen: set[tuple[str, str, str]] = set()
    for finding in found:
        key = (finding.gate, finding.where, f"{finding.figure:.4g}")
        if key not in seen:
            seen.add(key)
            yield {"recording": recording, **asdict(finding)}
