"""Does gravity turn as fast as the gyroscope says? Wrong units, signs and axes show here.

report = measure_tilt(conditioned)  # None: no gyroscope, or too little turning

The calculation is ``primus_scale.signal.gravity``'s; here it goes over a recording in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

from primus_scale.signal.gravity import TURN_CELL_S, Turns, find_turns, fit_turning
from shards.recording import ACCELEROMETER, GYROSCOPE
from shards.report import TiltReport
from shards.signal.condition import Conditioned, Segment

BLOCK_SAMPLES = 2**15  # grid points at once


def measure_tilt(signal: Conditioned) -> TiltReport | None:
    """Gravity's turning against the gyroscope's; None where there is too little turning."""
    if not {*ACCELEROMETER, *GYROSCOPE} <= {*signal.channels} or not signal.segments:
        return None
    fit = fit_turning(
        Turns.cat([turns for segment in signal.segments for turns in _turns(signal, segment)])
    )
    if fit is None:
        return None
    x, y, z = (f"{'+' if sign > 0 else '-'}{'xyz'[axis]}" for axis, sign in fit.axes)
    return TiltReport(
        slope=float(f"{fit.slope:.4g}"),
        correlation=round(fit.correlation, 4),
        axes=(x, y, z),
        best_correlation=round(fit.best_correlation, 4),
        turned_deg=round(fit.turned_deg, 1),
    )


def _turns(signal: Conditioned, segment: Segment) -> Iterator[Turns]:
    """Pairs of calm cells of a segment, in blocks, so that no whole recording is in memory."""
    acc = [signal.channels.index(name) for name in ACCELEROMETER]
    gyr = [signal.channels.index(name) for name in GYROSCOPE]
    length = max(round(TURN_CELL_S * signal.rate_hz), 4)
    block = BLOCK_SAMPLES // length * length
    for start in range(0, segment.values.shape[1], block):
        values = segment.values[:, start : start + block]
        yield find_turns(values[acc], values[gyr], signal.rate_hz)
