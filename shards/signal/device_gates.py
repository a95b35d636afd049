"""The gates of devices and of their labels (those of sensors: ``shards.signal.sensor_gates``).

findings = judge_device(report, limits)
findings = judge_labels(report, limits)
"""

from __future__ import annotations

from primus_scale.signal.plausible import WIDE_FACTOR
from shards.report import FLAG, REFUSE, DeviceReport, Finding
from shards.settings import SensorLimits
from shards.signal.gate import Gate, Subject

FEWEST_WINDOWS = 5  # of a label; a share of fewer says nothing


def judge_device(report: DeviceReport, limits: SensorLimits) -> tuple[Finding, ...]:
    """Findings on a device as a whole, before its windows are judged."""
    subject = Subject(f"device {report.name}", limits, device=report)
    return tuple(finding for gate in DEVICE_GATES if (finding := gate.judge(subject)))


def judge_labels(report: DeviceReport, limits: SensorLimits) -> tuple[Finding, ...]:
    """Findings on the share of a device's windows that were refused, label by label."""
    where = f"device {report.name}"
    subjects = [
        Subject(where, limits, device=report, label=label)
        for label in sorted(report.refused_by_label)
    ]
    return tuple(found for subject in subjects if (found := LABEL_GATE.judge(subject)))


def _device(subject: Subject) -> DeviceReport:
    assert subject.device is not None
    return subject.device


def _gravity_miss(subject: Subject) -> float | None:
    """Gravity's distance from its range, m/s2; that of |a| from a wider one if never still."""
    device = _device(subject)
    low, high = subject.limits.acc_range
    if device.gravity is not None:
        return max(low - device.gravity, device.gravity - high)
    if device.median_acc is None:
        return None
    least = device.median_acc if device.mean_acc is None else device.mean_acc
    return max(low / WIDE_FACTOR - least, device.median_acc - high * WIDE_FACTOR)


def _gravity_text(subject: Subject, _figure: float, _threshold: float) -> str:
    device = _device(subject)
    low, high = subject.limits.acc_range
    if device.gravity is not None:
        return (
            f"gravity is {device.gravity:.4g} m/s2 where it was still, outside {low:g} to "
            f"{high:g}; check the unit of the accelerometer"
        )
    assert device.median_acc is not None
    never = f"it was never still, and the median of |a| is {device.median_acc:.4g} m/s2"
    low, high = low / WIDE_FACTOR, high * WIDE_FACTOR
    if device.mean_acc is None or not low <= device.median_acc <= high:
        return f"{never}, outside {low:g} to {high:g}; check the unit of the accelerometer"
    return (
        f"{never}, but the mean of five seconds only {device.mean_acc:.4g}, below {low:g}: gravity "
        "is not in it; are the columns of accelerometer and gyroscope exchanged, or was gravity "
        "removed?"
    )


def _tilt_miss(subject: Subject) -> float | None:
    """By what factor gravity's turning and the gyroscope's differ."""
    tilt = _device(subject).tilt
    return max(tilt.slope, 1 / tilt.slope) if tilt else None


def _tilt_text(subject: Subject, figure: float, threshold: float) -> str:
    tilt = _device(subject).tilt
    assert tilt is not None
    guess = ""
    if 57.3 / 2 < tilt.slope < 57.3 * 2:
        guess = ": are its values rad/s, declared as deg/s?"
    if 57.3 / 2 < 1 / tilt.slope < 57.3 * 2:
        guess = ": are its values deg/s, declared as rad/s?"
    return (
        f"gravity turns {tilt.slope:.3g} times as fast as the gyroscope says, more than a factor "
        f"of {threshold:g} off{guess}"
    )


def _axes_agreement(subject: Subject) -> float | None:
    """Correlation with the axes as they are named, where others agree better."""
    tilt = _device(subject).tilt
    return None if tilt is None or tilt.axes == ("+x", "+y", "+z") else tilt.correlation


def _axes_text(subject: Subject, figure: float, threshold: float) -> str:
    tilt = _device(subject).tilt
    assert tilt is not None
    return (
        f"gravity does not turn as the gyroscope says (correlation {figure:.2f}, below "
        f"{threshold:g}), but with {', '.join(tilt.axes)} of the gyroscope as x, y, z it does "
        f"({tilt.best_correlation:.2f}): correct the axes or their signs"
    )


DEVICE_GATES = (
    Gate(
        "gravity",
        "m/s2 outside the range, where still",
        "acc_range",
        REFUSE,
        _gravity_miss,
        _gravity_text,
        threshold=lambda _subject: 0.0,
    ),
    Gate(
        "turning of gravity",
        "times that of the gyroscope, or less",
        "tilt_factor",
        FLAG,
        _tilt_miss,
        _tilt_text,
    ),
    Gate(
        "axes of the gyroscope",
        "correlation with gravity's turning",
        "min_agreement",
        FLAG,
        _axes_agreement,
        _axes_text,
        below=True,
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
