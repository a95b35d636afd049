"""The gates of sensors and devices: one table that summary, ``ingest.json`` and card are made from.

findings = judge_sensor(report, limits, rate_hz=50.0, nominal_rate_hz=None, where="device watch")
findings = judge_device(report, limits)

A gate holds a figure against a threshold. Where the figure is beyond it, the gate flags (the data
are used, and the finding is told) or refuses. Gates of single windows are those of
``shards.signal.gates``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shards.report import FLAG, REFUSE, DeviceReport, Finding, SensorReport
from shards.settings import SensorLimits

FEWEST_WINDOWS = 5  # of a label, for a share of them to say something
UNITS_OF_TIME = {1e-9: "ns", 1e-6: "us", 1e-3: "ms", 1e3: "ks", 1e6: "Ms"}
SENSIBLE_HZ = (5.0, 5000.0)  # rates that a body-worn sensor has


@dataclass(frozen=True)
class Subject:
    """What gates judge: a sensor's report, or a device's. rate_hz: of the windows."""

    where: str
    limits: SensorLimits
    sensor: SensorReport | None = None
    device: DeviceReport | None = None
    rate_hz: float = 0.0
    nominal_rate_hz: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Gate:
    """One gate. name, what: of its figure, for headings. setting: its threshold's field.

    verdict: of figures beyond the threshold. figure: None where there is nothing to judge.
    threshold: of the figure (a setting may be a share of something). text: the finding's sentence,
    without where and flag. below: figures below the threshold are the bad ones.
    """

    name: str
    what: str
    setting: str
    verdict: str
    figure: Callable[[Subject], float | None]
    text: Callable[[Subject, float, float], str]
    threshold: Callable[[Subject], float] | None = None
    below: bool = False

    @property
    def flag(self) -> str:
        """The flag of ``shards build`` that changes the threshold."""
        return "--" + self.setting.replace("_", "-")

    def judge(self, subject: Subject) -> Finding | None:
        """What there is to say, if anything."""
        figure = self.figure(subject)
        if figure is None:
            return None
        limits = subject.limits
        threshold = self.threshold(subject) if self.threshold else getattr(limits, self.setting)
        if not (figure < threshold if self.below else figure > threshold):
            return None
        text = f"{subject.where}: {self.text(subject, figure, threshold)} ({self.flag})"
        return Finding(
            self.name,
            subject.where,
            self.verdict,
            float(f"{figure:.6g}"),
            float(threshold),
            self.setting,
            self.flag,
            text,
        )


def judge_sensor(
    report: SensorReport,
    limits: SensorLimits,
    *,
    rate_hz: float,
    nominal_rate_hz: float | None,
    where: str,
) -> tuple[Finding, ...]:
    """Findings on one sensor. rate_hz: of the windows."""
    subject = Subject(
        where, limits, sensor=report, rate_hz=rate_hz, nominal_rate_hz=nominal_rate_hz
    )
    return tuple(finding for gate in SENSOR_GATES if (finding := gate.judge(subject)))


def judge_device(report: DeviceReport, limits: SensorLimits) -> tuple[Finding, ...]:
    """Findings on a device as a whole, its sensors' left out."""
    return tuple(finding for finding in _of_device(report, limits) if finding)


def _of_device(report: DeviceReport, limits: SensorLimits) -> Iterator[Finding | None]:
    where = f"device {report.name}"
    for gate in DEVICE_GATES:
        yield gate.judge(Subject(where, limits, device=report))
    for label in sorted(report.refused_by_label):
        yield LABEL_GATE.judge(Subject(where, limits, device=report, label=label))


def _sensor(subject: Subject) -> SensorReport:
    assert subject.sensor is not None
    return subject.sensor


def _device(subject: Subject) -> DeviceReport:
    assert subject.device is not None
    return subject.device


def _share(rows: Callable[[SensorReport], int]) -> Callable[[Subject], float]:
    """Figure: a share of the sensor's rows."""
    return lambda subject: rows(_sensor(subject)) / max(_sensor(subject).samples, 1)


def _percent(what: str, rows: Callable[[SensorReport], int]) -> Callable[..., str]:
    def text(subject: Subject, figure: float, threshold: float) -> str:
        sensor = _sensor(subject)
        return (
            f"{rows(sensor):,} of {sensor.samples:,} rows ({100 * figure:.3g} %) {what}, more "
            f"than {100 * threshold:.3g} %"
        )

    return text


def _dropped_text(subject: Subject, figure: float, threshold: float) -> str:
    sensor = _sensor(subject)
    reasons = {
        "without a time": sensor.untimed,
        "invalid": sensor.invalid,
        "duplicates": sensor.duplicates,
        "laid over time already recorded": sensor.overlapping,
        "zeros": sensor.zeros,
        "repetitions": sensor.repeated,
        "spikes": sensor.spikes,
    }
    told = ", ".join(f"{rows:,} {reason}" for reason, rows in reasons.items() if rows)
    text = _percent("were dropped", lambda one: one.dropped)(subject, figure, threshold)
    return f"{text}: {told}"


def unit_that_fits(rate_hz: float, nominal_rate_hz: float | None) -> str:
    """The unit of time that would make a rate sensible, for messages; empty where none would."""
    candidates = {}
    for factor, unit in UNITS_OF_TIME.items():
        found = rate_hz / factor
        if SENSIBLE_HZ[0] <= found <= SENSIBLE_HZ[1]:
            candidates[unit] = found
    if not candidates:
        return ""
    wished = nominal_rate_hz or 100.0
    unit, found = min(candidates.items(), key=lambda pair: abs(pair[1] - wished))
    return f"{unit} for each unit that was read as s would be {found:.4g} Hz"


def _rate_text(subject: Subject, figure: float, threshold: float) -> str:
    fits = unit_that_fits(figure, subject.nominal_rate_hz)
    step = f"correct the unit of its times ({fits})" if fits else "choose a --rate-hz that suits it"
    return (
        f"a sample each {1 / figure:.6g} s is {figure:.4g} Hz, {{}} {threshold:.6g} Hz; {step}, or "
        "change the limit"
    )


def _slow_text(subject: Subject, figure: float, threshold: float) -> str:
    than = f"too slow for windows of {subject.rate_hz:g} Hz: below"
    return _rate_text(subject, figure, threshold).format(than)


def _fast_text(subject: Subject, figure: float, threshold: float) -> str:
    return _rate_text(subject, figure, threshold).format("above")


def _rate_error(subject: Subject) -> float | None:
    nominal = subject.nominal_rate_hz
    return abs(_sensor(subject).rate_hz / nominal - 1) if nominal else None


def _peak(subject: Subject) -> float | None:
    return _sensor(subject).usual_peak if _sensor(subject).unit == "rad/s" else None


def _rotation_text(subject: Subject, figure: float, threshold: float) -> str:
    return (
        f"rotation of {figure:.4g} rad/s ({figure * 57.29578:,.0f} deg/s) in one row of a thousand "
        f"is more than {threshold:g}; are its values in deg/s? Correct the unit"
    )


def _rate(subject: Subject) -> float | None:
    return _sensor(subject).rate_hz or None


SENSOR_GATES = (
    Gate(
        "low rate",
        "samples a second",
        "min_rate_share",
        REFUSE,
        _rate,
        _slow_text,
        threshold=lambda subject: subject.limits.min_rate_share * subject.rate_hz,
        below=True,
    ),
    Gate("high rate", "samples a second", "max_rate_hz", REFUSE, _rate, _fast_text),
    Gate(
        "nominal rate",
        "share off the nominal rate",
        "max_rate_error",
        FLAG,
        _rate_error,
        lambda subject, figure, threshold: (
            f"measured {_sensor(subject).rate_hz:.4g} Hz, {100 * figure:.3g} % off its nominal "
            f"{subject.nominal_rate_hz:g} Hz, more than {100 * threshold:.3g} %"
        ),
    ),
    Gate(
        "rows dropped",
        "share of rows",
        "max_dropped",
        FLAG,
        _share(lambda sensor: sensor.dropped),
        _dropped_text,
    ),
    Gate(
        "shared times",
        "share of rows",
        "max_shared",
        FLAG,
        _share(lambda sensor: sensor.shared_times),
        _percent(
            "shared a time with other rows and were put on one clock",
            lambda sensor: sensor.shared_times,
        ),
    ),
    Gate(
        "clock steps",
        "number",
        "max_clock_steps",
        FLAG,
        lambda subject: float(_sensor(subject).clock_steps),
        lambda subject, figure, threshold: (
            f"its clock was set forward or back {figure:.0f} times, more than {threshold:.0f}; no "
            "window lies across one"
        ),
    ),
    Gate(
        "repeated values",
        "share of rows",
        "max_repeated",
        FLAG,
        _share(lambda sensor: sensor.zeros + sensor.repeated),
        _percent(
            "were zeros or one value held: the recorder slept or stood",
            lambda sensor: sensor.zeros + sensor.repeated,
        ),
    ),
    Gate(
        "spikes",
        "share of rows",
        "max_spikes",
        FLAG,
        _share(lambda sensor: sensor.spikes),
        _percent("were lone spikes", lambda sensor: sensor.spikes),
    ),
    Gate(
        "high rotation", "rad/s of one row in 1,000", "high_rotation", FLAG, _peak, _rotation_text
    ),
    Gate(
        "impossible rotation",
        "rad/s of one row in 1,000",
        "max_rotation",
        REFUSE,
        _peak,
        _rotation_text,
    ),
)


def _gravity_miss(subject: Subject) -> float | None:
    """How far gravity lies outside its range, m/s2: beyond zero is refused."""
    gravity = _device(subject).gravity
    if gravity is None:
        return None
    low, high = subject.limits.acc_range
    return max(low - gravity, gravity - high)


def _gravity_text(subject: Subject, _figure: float, _threshold: float) -> str:
    low, high = subject.limits.acc_range
    return (
        f"gravity is {_device(subject).gravity:.4g} m/s2 where it was still, outside {low:g} to "
        f"{high:g}; check the unit of the accelerometer"
    )


def _tilt_miss(subject: Subject) -> float | None:
    """By what factor gravity's turning and the gyroscope differ; None where they do not agree."""
    tilt = _device(subject).tilt
    if tilt is None or not tilt.slope:
        return None
    return max(abs(tilt.slope), 1 / abs(tilt.slope)) if tilt.axes == ("+x", "+y", "+z") else None


def _tilt_text(subject: Subject, figure: float, threshold: float) -> str:
    tilt = _device(subject).tilt
    assert tilt is not None
    guess = ""
    if 30 < tilt.slope < 110:
        guess = ": its values may be rad/s declared as deg/s"
    if 30 < 1 / tilt.slope < 110:
        guess = ": its values may be deg/s declared as rad/s"
    return (
        f"gravity turns {tilt.slope:.3g} times as fast as the gyroscope says, more than a factor "
        f"of {threshold:g} off{guess}"
    )


def _axes_miss(subject: Subject) -> float | None:
    tilt = _device(subject).tilt
    return None if tilt is None or tilt.axes == ("+x", "+y", "+z") else float("inf")


DEVICE_GATES = (
    Gate(
        "gravity",
        "m/s2 where still",
        "acc_range",
        REFUSE,
        _gravity_miss,
        _gravity_text,
        threshold=lambda _subject: 0.0,
    ),
    Gate(
        "tilt",
        "gravity's turning over the gyroscope's",
        "tilt_factor",
        FLAG,
        _tilt_miss,
        _tilt_text,
    ),
)


def _label_share(subject: Subject) -> float | None:
    report = _device(subject)
    planned = report.planned_by_label.get(subject.label, 0)
    refused = sum(report.refused_by_label[subject.label].values())
    return refused / planned if planned >= FEWEST_WINDOWS else None


def _label_text(subject: Subject, figure: float, threshold: float) -> str:
    reasons = _device(subject).refused_by_label[subject.label]
    told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return (
        f"{100 * figure:.3g} % of the windows of label {subject.label} were refused, more than "
        f"{100 * threshold:.3g} %: {told}"
    )


LABEL_GATE = Gate(
    "refused windows", "share of a label's windows", "max_refused", FLAG, _label_share, _label_text
)
GATES = (*SENSOR_GATES, *DEVICE_GATES, LABEL_GATE)
