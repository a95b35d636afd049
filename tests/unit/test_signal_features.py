import numpy as np
import pytest

from primus_scale.signal.features import BAND_EDGES_HZ, hand_features

RATE_HZ = 50.0
CHANNELS = 8  # six and the magnitudes of two sensors


def windows(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 6, 250)).astype(np.float32)


def test_mean_deviation_and_quantiles_stand_first():
    imu = windows()
    features = hand_features(imu, RATE_HZ)
    magnitude = np.sqrt((imu[:, :3].astype(float) ** 2).sum(axis=1))
    assert features[:, :6] == pytest.approx(imu.mean(axis=2), abs=1e-6)
    assert features[:, 6] == pytest.approx(magnitude.mean(axis=1))
    assert features[:, CHANNELS : CHANNELS + 6] == pytest.approx(imu.std(axis=2), rel=1e-5)
    assert features[:, 2 * CHANNELS] == pytest.approx(imu[:, 0].min(axis=1))


def test_main_frequency_and_its_band_are_found():
    time_s = np.arange(250) / RATE_HZ
    imu = np.zeros((1, 6, 250))
    imu[0, 0] = 5 + np.sin(2 * np.pi * 3.0 * time_s)
    features = hand_features(imu, RATE_HZ)[0]
    spectrum = features[CHANNELS * 10 :]  # after mean, deviation, seven quantiles, energy
    bands = spectrum[: CHANNELS * (len(BAND_EDGES_HZ) - 1)].reshape(-1, CHANNELS)
    main_hz = spectrum[bands.size : bands.size + CHANNELS]
    assert main_hz[0] == pytest.approx(3.0, abs=0.2)
    assert BAND_EDGES_HZ[bands[:, 0].argmax()] == 2.5


def test_correlations_equal_numpys_and_a_constant_channel_gives_zero():
    imu = windows(1)
    pairs = hand_features(imu, RATE_HZ)[0, -CHANNELS * (CHANNELS - 1) // 2 :]
    assert pairs[:5] == pytest.approx(np.corrcoef(imu[0].astype(float))[0, 1:], abs=1e-9)
    imu[0, 0] = 9.8
    constant = hand_features(imu, RATE_HZ)[0, -CHANNELS * (CHANNELS - 1) // 2 :]
    assert np.all(constant[:5] == 0)


def test_still_and_magnitude_less_windows_stay_finite():
    assert np.isfinite(hand_features(np.zeros((2, 6, 250)), RATE_HZ)).all()
    assert np.isfinite(hand_features(windows()[:, :4], RATE_HZ)).all()
    assert np.isfinite(hand_features(windows(), 20.0)).all()
