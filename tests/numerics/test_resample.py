"""The resampler against analytic signals: band, aliases, jitter, ends, and grids of any phase."""

import numpy as np
import pytest

from primus_scale.signal.resample import Resampler
from tests.recording_factory import sample_times

NEW_HZ = 50.0
SECONDS = 20.0
# Outputs this near to an end of the samples see less than the whole filter: 10 / band.
END_S = 0.6


def resample(
    time_s: np.ndarray, values: np.ndarray, native_hz: float, new_hz: float = NEW_HZ
) -> tuple[np.ndarray, np.ndarray]:
    """All outputs for one channel and their times."""
    resampler = Resampler(1 / native_hz, new_hz)
    grid = range(resampler.first(time_s[0]), resampler.stop(time_s[-1]))
    outputs = resampler(time_s, values[:, None], grid)
    assert outputs.shape == (len(grid), 1)
    return np.array(grid) / new_hz, outputs[:, 0]


def chirp(time_s: np.ndarray, highest_hz: float) -> np.ndarray:
    """From 0 Hz to ``highest_hz`` over ``SECONDS``, amplitude one."""
    return np.sin(np.pi * highest_hz / SECONDS * time_s**2)


def inner(time_s: np.ndarray) -> np.ndarray:
    return (time_s > time_s[0] + END_S) & (time_s < time_s[-1] - END_S)


def decibels(outputs: np.ndarray) -> float:
    """Power of the outputs, compared with a tone of amplitude one."""
    return float(10 * np.log10(2 * np.square(outputs).mean()))


@pytest.mark.parametrize("jitter", [0.0, 0.1])
@pytest.mark.parametrize("native_hz", [1000.0, 800.0, 201.0, 100.0])
def test_chirp_within_one_percent(native_hz: float, jitter: float) -> None:
    time_s = sample_times(native_hz, SECONDS, start_s=0.0037, jitter=jitter)
    at_s, outputs = resample(time_s, chirp(time_s, 20.0), native_hz)
    error = np.abs(outputs - chirp(at_s, 20.0))[inner(at_s)]
    assert error.max() < (0.01 if jitter else 0.002)


TONES_HZ = (30.0, 31.0, 34.0, 37.0, 47.0, 50.0, 53.0, 69.0, 80.0, 99.0, 149.0, 220.0, 380.0)


@pytest.mark.parametrize("jitter", [0.0, 0.1])
@pytest.mark.parametrize("native_hz", [1000.0, 800.0, 201.0, 100.0])
def test_tones_above_the_band_are_40_db_down(native_hz: float, jitter: float) -> None:
    # Jittered, a tone near the native Nyquist rate is noise to any method.
    highest_hz = native_hz / 2 * (0.75 if jitter else 0.99)
    time_s = sample_times(native_hz, SECONDS, jitter=jitter)
    for tone_hz in (tone for tone in TONES_HZ if tone <= highest_hz):
        at_s, outputs = resample(time_s, np.cos(2 * np.pi * tone_hz * time_s + 0.4), native_hz)
        outputs = outputs[inner(at_s)]
        assert decibels(outputs) < (-40.0 if jitter else -50.0), tone_hz
        assert np.abs(outputs).max() < (0.03 if jitter else 0.005), tone_hz


def test_transition_band_is_as_documented() -> None:
    time_s = sample_times(1000.0, SECONDS)
    at_s, outputs = resample(time_s, np.cos(2 * np.pi * 25.0 * time_s), 1000.0)
    assert np.abs(outputs[inner(at_s)]).max() == pytest.approx(0.5, abs=0.01)
    at_s, outputs = resample(time_s, np.cos(2 * np.pi * 27.5 * time_s), 1000.0)
    assert -40.0 < decibels(outputs[inner(at_s)]) < -15.0


@pytest.mark.parametrize(
    ("native_hz", "jitter", "limit"),
    [
        (20.0, 0.0, 0.01),
        (20.0, 0.05, 0.02),
        (50.0, 0.0, 0.01),
        (50.0, 0.05, 0.02),
        (60.0, 0.1, 0.01),
    ],
)
def test_native_rates_near_or_below_the_new_one(
    native_hz: float, jitter: float, limit: float
) -> None:
    highest_hz = 0.4 * min(native_hz, NEW_HZ)
    time_s = sample_times(native_hz, SECONDS, start_s=0.0071, jitter=jitter)
    at_s, outputs = resample(time_s, chirp(time_s, highest_hz), native_hz)
    error = np.abs(outputs - chirp(at_s, highest_hz))[inner(at_s)]
    assert error.max() < limit


def test_slow_signals_keep_their_ends() -> None:
    for native_hz in (1000.0, 100.0, 50.0):
        time_s = sample_times(native_hz, 2.56)
        values = 9.8 + np.sin(2 * np.pi * 1.5 * time_s + 0.3)
        at_s, outputs = resample(time_s, values, native_hz)
        assert len(at_s) == 128
        expected = 9.8 + np.sin(2 * np.pi * 1.5 * at_s + 0.3)
        assert np.abs(outputs - expected).max() < 0.01


def test_constant_and_line_are_exact() -> None:
    for native_hz in (800.0, 100.0, 33.0):
        time_s = sample_times(native_hz, 3.0, jitter=0.3)
        for values in (np.full_like(time_s, -9.8), 2.0 - 3.0 * time_s):
            at_s, outputs = resample(time_s, values, native_hz)
            expected = np.interp(at_s, time_s, values)
            assert np.abs(outputs - expected).max() < 1e-9


def test_nothing_is_shifted() -> None:
    time_s = sample_times(1000.0, 10.0)
    pulse = np.exp(-0.5 * ((time_s - 5.0) / 0.04) ** 2)
    at_s, outputs = resample(time_s, pulse, 1000.0)
    assert (at_s * outputs).sum() / outputs.sum() == pytest.approx(5.0, abs=1e-6)


def test_epoch_times_are_as_exact() -> None:
    start_s = 1.7e9
    time_s = start_s + sample_times(200.0, 10.0)
    at_s, outputs = resample(time_s, np.sin(2 * np.pi * 3.0 * (time_s - start_s)), 200.0)
    expected = np.sin(2 * np.pi * 3.0 * (at_s - start_s))
    assert np.abs(outputs - expected)[inner(at_s)].max() < 1e-3


@pytest.mark.parametrize("native_hz", [1000.0, 201.0, 100.0, 50.0])
def test_parts_with_margins_equal_the_whole(native_hz: float) -> None:
    time_s = sample_times(native_hz, 30.0, jitter=0.2)
    values = np.random.default_rng(1).standard_normal((len(time_s), 3))
    resampler = Resampler(1 / native_hz, NEW_HZ)
    whole = resampler(time_s, values, range(50, 1450))
    rows = np.searchsorted(time_s, [500 / NEW_HZ, 620 / NEW_HZ])
    rows += [-resampler.margin, resampler.margin]
    part = resampler(time_s[slice(*rows)], values[slice(*rows)], range(500, 620))
    assert np.abs(part - whole[450:570]).max() < 1e-6


def test_missing_samples_are_led_over() -> None:
    time_s = sample_times(200.0, SECONDS)
    rng = np.random.default_rng(2)
    kept = rng.random(len(time_s)) > 0.05
    hole = (time_s < 10.0) | (time_s > 10.04)
    time_s = time_s[kept & hole]
    values = 9.8 + np.sin(2 * np.pi * 2.0 * time_s)
    at_s, outputs = resample(time_s, values, 200.0)
    expected = 9.8 + np.sin(2 * np.pi * 2.0 * at_s)
    assert np.abs(outputs - expected)[inner(at_s)].max() < 0.06
    far = inner(at_s) & (np.abs(at_s - 10.02) > 0.25)
    assert np.abs(outputs - expected)[far].max() < 0.01


def test_bursts_do_not_swing() -> None:
    # Times of a Poisson process: many samples nearly coincide, with noise of 0.1 on each.
    rng = np.random.default_rng(3)
    time_s = np.sort(rng.uniform(0, SECONDS, int(100 * SECONDS)))
    values = 5.0 + 0.1 * rng.standard_normal(len(time_s))
    _, outputs = resample(time_s, values, 100.0)
    assert np.abs(outputs - 5.0).max() < 1.5


def test_few_samples() -> None:
    for count in (1, 2, 3):
        time_s = np.arange(count) / 100.0
        _, outputs = resample(time_s, np.full(count, 2.0), 100.0)
        assert len(outputs) == (1 if count < 3 else 2)
        assert outputs == pytest.approx(2.0)
    resampler = Resampler(0.01, NEW_HZ)
    assert resampler(np.array([0.013]), np.ones((1, 3)), range(1, 1)).shape == (0, 3)
