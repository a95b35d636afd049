"""The gates of sensors and devices: one table that summary, ``ingest.json`` and card are made from.

findings = judge_sensor(report, limits, rate_hz=50.0, nominal_rate_hz=None, where="device watch")

A gate holds a figure against a threshold. Where the figure is beyond it, the gate flags (the data
are used, and the finding is reported) or refuses. Gates of single windows are those of
``shards.signal.gates``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from primus_scale.counted import counted
from shards.report import FLAG, REFUSE, Finding, SensorReport
from shards.settings import SensorLimits
from shards.signal.gate import Gate, Subject

SENSIBLE_HZ = (15.0, 5000.0)  # rates that a body-worn sensor has
USUAL_HZ = 60.0
# By the factor that a rate is wrong by.
CONFUSED_TIMES = {
    1e-9: "times in ns, read as s,",
    1e-6: "times in us, read as s, or in ns, read as ms,",
    1e-3: "times in ms, read as s,",
    1e3: "times in s, read as ms,",
    1e6: "times in s, read as us,",
    1e9: "times in s, read as ns,",
}


def judge_sensor(
    report: SensorReport,
    limits: SensorLimits,
    *,
    rate_hz: float,
    nominal_rate_hz: float | None,
    where: str,
    clock: str = "",
) -> tuple[Finding, ...]:
    """Findings on one sensor. rate_hz: of the windows. clock: as ``Sensor.clock``."""
    subject = Subject(
        where,
        limits,
        sensor=report,
        rate_hz=rate_hz,
        nominal_rate_hz=nominal_rate_hz,
        clock=clock,
    )
    return tuple(finding for gate in SENSOR_GATES if (finding := gate.judge(subject)))


def _sensor(subject: Subject) -> SensorReport:
    assert subject.sensor is not None
    return subject.sensor


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
    counts = ", ".join(f"{rows:,} {reason}" for reason, rows in reasons.items() if rows)
    text = _percent("were dropped", lambda one: one.dropped)(subject, figure, threshold)
    return f"{text}: {counts}"


def unit_that_fits(rate_hz: float, nominal_rate_hz: float | None) -> str:
    """Which confusion of units of time would explain the rate, for messages; empty where none."""
    candidates = {
        mixed: rate_hz / factor
        for factor, mixed in CONFUSED_TIMES.items()
        if SENSIBLE_HZ[0] <= rate_hz / factor <= SENSIBLE_HZ[1]
    }
    if not candidates:
        return ""
    wished = nominal_rate_hz or USUAL_HZ
    mixed = min(candidates, key=lambda one: abs(math.log(candidates[one] / wished)))
    return f"{mixed} would be {candidates[mixed]:.4g} Hz"


def _rate_text(than: str) -> Callable[[Subject, float, float], str]:
    def text(subject: Subject, figure: float, threshold: float) -> str:
        fits = unit_that_fits(figure, subject.nominal_rate_hz)
        step = f"correct the unit ({fits})" if fits else "choose a --rate-hz that suits it"
        limit = than.format(windows=f"{subject.rate_hz:g}")
        clock = f" ({subject.clock})" if subject.clock else ""
        return (
            f"its times{clock} have a sample each {1 / figure:.6g} s, which is {figure:.4g} Hz, "
            f"{limit} {threshold:.6g} Hz; {step}, or change the limit"
        )

    return text


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
        _rate_text("too slow for windows of {windows} Hz, below"),
        threshold=lambda subject: subject.limits.min_rate_share * subject.rate_hz,
        below=True,
    ),
    Gate("high rate", "samples a second", "max_rate_hz", REFUSE, _rate, _rate_text("above")),
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
            f"its clock was set forward or back {counted(round(figure), 'time')}, more than "
            f"{threshold:.0f}; no window lies across one"
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
