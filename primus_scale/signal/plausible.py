"""Signals whose units, sensors or order of channels cannot be right.

Gravity is in every accelerometer's signal, and no body turns faster than some 70 rad/s. So signals
with the wrong unit, with accelerometer and gyroscope exchanged, or without gravity show themselves.
The thresholds are those of the gates of ``shards build``.
"""

from __future__ import annotations

import math

import numpy as np

from primus_scale.signal.gravity import (
    Turns,
    calm_lengths,
    find_turns,
    fit_turning,
    mean_lengths,
    visible_gravity,
)
from primus_scale.signal.units import DEGREE, UNIT_FACTORS

GRAVITY_RANGE = (8.0, 12.0)  # m/s2, over seconds in which a device is still or turns slowly
# By which |a| of a device that is never still may leave that range, and the mean of five seconds,
# in which motion averages out, may lie below it.
WIDE_FACTOR = 4.0
MOST_SPREAD = 0.15  # of gravity in those seconds: between quartiles, over its size
MOST_ROTATION = 70.0  # rad/s that one sample in a thousand may exceed (4,000 deg/s)
PEAK_SHARE = 0.999
TURNING_FACTOR = 3.0  # by which gravity may turn faster or slower than the gyroscope says
ACC_UNITS = ("m/s2", "g", "mg", "g/64")
LEAST_RATE_SHARE = 0.35  # of the windows' rate; slower sensors lack most of the windows' band
MOST_RATE_HZ = 10_000.0  # of a body-worn IMU


def explain_unlikely_rate(rate_hz: float, windows_hz: float) -> str | None:
    """Why samples of ``rate_hz`` cannot become windows of ``windows_hz``; None where they can."""
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        return "must be positive and finite: give samples a second"
    if rate_hz < (least := LEAST_RATE_SHARE * windows_hz):
        return (
            f"is too slow for windows of {windows_hz:g} Hz, below {least:g} Hz: correct it (it is "
            "samples a second, not seconds a sample), or take a faster recording"
        )
    if rate_hz > MOST_RATE_HZ:
        return f"is above {MOST_RATE_HZ:g} Hz, more than IMUs have: give samples a second"
    return None


def explain_implausible(
    acc: np.ndarray | None,
    gyr: np.ndarray | None,
    rate_hz: float,
    units: tuple[str, str],
    stretch: int,
) -> str | None:
    """Why the signal cannot be what it is said to be, with the remedy; None where it can be.

    acc, gyr: ``(n, 3)`` in SI units, without NaN; None for a sensor that is absent. units: as they
    were given, of accelerometer and gyroscope. stretch: samples that follow one another without
    a break, after which the next such stretch begins.
    """
    if acc is not None and (found := _explain_gravity(acc, gyr, rate_hz, units)):
        return found
    if gyr is None:
        return None
    return _explain_rotation(acc, gyr, rate_hz, units[1], stretch)


def _explain_gravity(
    acc: np.ndarray, gyr: np.ndarray | None, rate_hz: float, units: tuple[str, str]
) -> str | None:
    size = _gravity(acc, rate_hz)
    if size is None:
        return None
    unit = _unit_of_gravity(acc / UNIT_FACTORS[units[0]][1], rate_hz)
    if unit:
        return (
            f"the accelerometer shows a gravity of {size:.3g} m/s2; its values are in {unit}, "
            f"not in {units[0]}: give units={(unit, units[1])}"
        )
    if gyr is not None and _unit_of_gravity(gyr / UNIT_FACTORS[units[1]][1], rate_hz):
        return (
            "the channels of the gyroscope hold gravity, and those of the accelerometer do not: "
            "the sensors are exchanged, or the columns in another order; name the columns as they "
            'are, such as channels=("gyr_x", "gyr_y", "gyr_z", "acc_x", "acc_y", "acc_z")'
        )
    return (
        f"the accelerometer shows {size:.3g} m/s2 where gravity should be (9.8); if gravity was "
        "removed (linear acceleration), give the raw signal; if not, check its unit"
    )


def _gravity(acc: np.ndarray, rate_hz: float) -> float | None:
    """What stands in the place of gravity, m/s2; None where that is gravity."""
    time_s = np.arange(len(acc)) / rate_hz
    calm = visible_gravity(calm_lengths(time_s, acc))
    if calm is not None:
        return None if _in_range(calm) else calm
    low, high = GRAVITY_RANGE
    usual = float(np.median(np.linalg.norm(acc, axis=1)))
    if not low / WIDE_FACTOR <= usual <= high * WIDE_FACTOR:
        return usual
    length = float(np.median(mean_lengths(time_s, acc)))
    return length if length < low / WIDE_FACTOR else None


def _in_range(size: float) -> bool:
    return GRAVITY_RANGE[0] <= size <= GRAVITY_RANGE[1]


def _unit_of_gravity(values: np.ndarray, rate_hz: float) -> str | None:
    """The unit in which ``values (n, 3)`` are a signal with gravity; None where they are none.

    Gravity is of one size in all seconds, unlike rotation.
    """
    lengths = calm_lengths(np.arange(len(values)) / rate_hz, values)
    size = visible_gravity(lengths)
    if size is None:
        return None
    low, high = np.quantile(lengths, (0.25, 0.75))
    if high - low > MOST_SPREAD * size:
        return None
    return next((one for one in ACC_UNITS if _in_range(size * UNIT_FACTORS[one][1])), None)


def _explain_rotation(
    acc: np.ndarray | None, gyr: np.ndarray, rate_hz: float, unit: str, stretch: int
) -> str | None:
    peak = float(np.quantile(np.abs(gyr).max(axis=1), PEAK_SHARE))
    if peak > MOST_ROTATION:
        return (
            f"the gyroscope shows {peak:.3g} rad/s ({peak / DEGREE:,.0f} deg/s), more than a body "
            f"can turn; its values are not in {unit}: if they are in deg/s, say so in units"
        )
    if acc is None:
        return None
    parts = [slice(start, start + stretch) for start in range(0, len(gyr), stretch)]
    fit = fit_turning(Turns.cat([find_turns(acc[p].T, gyr[p].T, rate_hz) for p in parts]))
    if fit is None or max(fit.slope, 1 / fit.slope) <= TURNING_FACTOR:
        return None
    wrong = math.log(fit.slope) / math.log(DEGREE)  # 1: deg/s given as rad/s; -1: the reverse
    advice = "check the gyroscope's unit"
    if abs(wrong - 1) < 0.2:
        advice = f"its values are in deg/s, not in {unit}: say so in units"
    if abs(wrong + 1) < 0.2:
        advice = f"its values are in rad/s, not in {unit}: say so in units"
    return f"gravity turns {fit.slope:.3g} times as fast as the gyroscope says; {advice}"
