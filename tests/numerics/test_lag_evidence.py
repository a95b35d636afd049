"""What confidence promises, on series of noise with a known lag."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from shards.lag.evidence import REACH_S, MotionPair, find_lag

LAG_S = 0.3
RATE_HZ = 100.0
FRAME_S = 1 / 30


def pair(rng: np.random.Generator, related: float, *, seconds: float = 20.0) -> MotionPair:
    """Smooth noise about three axes, and a picture's motion: ``related`` times it, and noise."""
    grid_s = np.arange(-REACH_S - 1, seconds + REACH_S + 1, 1 / RATE_HZ)
    rates = gaussian_filter1d(rng.normal(size=(len(grid_s), 3)), 0.1 * RATE_HZ, axis=0)
    rates /= rates.std()
    angle = np.zeros((len(grid_s), 4))
    angle[1:, :3] = np.cumsum(rates[1:] + rates[:-1], axis=0) / (2 * RATE_HZ)
    time_s = np.arange(0, seconds, FRAME_S)
    turned = [np.interp(time_s - LAG_S, grid_s, each) for each in angle[:, :3].T]
    seen = np.diff(turned).T @ rng.normal(size=(3, 3)) / FRAME_S
    noise = gaussian_filter1d(rng.normal(size=seen.shape), 0.1 / FRAME_S, axis=0)
    return MotionPair(time_s, related * seen / seen.std() + noise / noise.std(), grid_s, angle)


@pytest.mark.parametrize("related", [0.0, 0.5, 1.0, 2.0])
def test_confidence_is_the_share_of_right_lags(related: float) -> None:
    found = [find_lag([pair(np.random.default_rng(seed), related)]) for seed in range(8)]
    right = np.array([abs(one.lag_s - LAG_S) <= 0.1 for one in found if one])
    confidence = np.array([one.confidence for one in found if one])
    assert len(right) == 8
    assert right[confidence >= 0.95].all()
    # Cautious rather than bold; 0.2 is what chance does to eight.
    assert confidence.mean() <= right.mean() + 0.2
    if related == 0:
        assert confidence.max() < 0.1
    if related == 2:
        assert confidence.min() > 0.95


def test_more_video_gives_more_confidence() -> None:
    def confidence(videos: int) -> float:
        found = find_lag([pair(np.random.default_rng(0), 0.8, seconds=10.0)] * videos)
        assert found
        return found.confidence

    assert confidence(1) < 0.8 < 0.99 < confidence(6)


def test_a_lag_beyond_those_tried_has_no_confidence() -> None:
    one = pair(np.random.default_rng(1), 2.0)
    late = MotionPair(one.time_s + 5.0, one.motion, one.grid_s + 0.27, one.angle)  # by 5.03 s
    found = find_lag([late])
    assert found is not None and found.lag_s == pytest.approx(5.0)
    assert found.confidence == 0


def test_one_jerk_decides_nothing() -> None:
    """Gyroscope and picture have nothing in common but one jerk each, at different times."""
    rng = np.random.default_rng(5)
    one = pair(rng, 0.0)
    jerk = 30 * np.exp(-np.square((one.time_s[1:] - 8.0) / 0.2) / 2)[:, None]
    angle = one.angle.copy()
    angle[:, :3] += 10 / (1 + np.exp(-(one.grid_s - 9.0) / 0.1))[:, None]
    found = find_lag([MotionPair(one.time_s, one.motion + jerk, one.grid_s, angle)])
    assert found is not None and found.confidence < 0.5
