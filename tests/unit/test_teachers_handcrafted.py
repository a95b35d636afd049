"""The signal teacher: hand-crafted features of the window, scaled by constants."""

import numpy as np
import pytest

from primus_scale.config import TeachersConfig
from primus_scale.sample import CHANNELS, UNITS, WindowFormat
from primus_scale.signal.features import hand_features
from primus_scale.teachers import build_teachers, embed_windows, handcrafted, window_samples

WINDOWS = WindowFormat(CHANNELS, UNITS, 100, 50.0)
SIGNALS = 8  # six channels and the magnitudes of two sensors


def make_teacher(windows: WindowFormat = WINDOWS):
    return build_teachers(TeachersConfig(signal="handcrafted", batch=4), windows, "cpu")["signal"]


def make_imu(count: int = 6, channels: int = 6) -> np.ndarray:
    imu = np.random.default_rng(0).standard_normal((count, channels, 100))
    imu[:, 1] += 9.81
    return imu.astype(np.float32)


def embed(imu: np.ndarray, windows: WindowFormat = WINDOWS) -> np.ndarray:
    vectors, present = embed_windows(make_teacher(windows), window_samples(imu))
    assert present.all()
    return vectors.numpy()


def test_embedding_is_that_of_the_formula_window_by_window():
    imu = make_imu()
    found = embed(imu)
    for window, vector in zip(imu, found, strict=True):
        in_units = window.astype(float) / np.array([[9.81]] * 3 + [[1.0]] * 3)
        features = iter(hand_features(in_units[None], 50.0)[0])
        expected: list[float] = []
        for centre, spread, count, amplitude in (
            (0.3, 0.5, SIGNALS, True),  # mean
            (0.4, 0.4, SIGNALS, True),  # deviation
            (0.3, 0.8, 7 * SIGNALS, True),  # quantiles
            (-2.0, 3.0, SIGNALS, False),  # logarithm of the energy
            (-3.0, 4.0, 8 * SIGNALS, False),  # of the power in eight bands
            (1.5, 2.0, SIGNALS, False),  # main frequency
            (2.8, 0.8, SIGNALS, False),  # entropy
            (0.0, 0.35, SIGNALS * (SIGNALS - 1) // 2, False),  # correlations
        ):
            for _ in range(count):
                value = next(features)
                if amplitude:
                    value = np.sign(value) * np.log(abs(value) + np.hypot(value, 1))
                expected.append((value - centre) / spread / np.sqrt(count))
        assert next(features, None) is None
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)


def test_a_window_is_embedded_alike_whatever_is_embedded_with_it():
    imu = make_imu()
    np.testing.assert_array_equal(embed(imu)[3:4], embed(imu[3:4]))


def test_one_blow_does_not_outweigh_all_else():
    quiet, moving = make_imu(2) * np.array([0.02, 1.0], np.float32)[:, None, None]
    struck = moving.copy()
    struck[0, 50] = 300.0  # 30 g, for one sample
    one, other, third = embed(np.stack([moving, struck, quiet]))
    assert one @ other > one @ third + 0.2


@pytest.mark.parametrize(
    "windows",
    [
        WINDOWS._replace(rate_hz=100.0),
        WINDOWS._replace(samples=50),
        WINDOWS._replace(units=("g",) * 6),
        WINDOWS._replace(channels=tuple("abcdef")),
    ],
)
def test_key_follows_the_windows_and_the_space_does_not(windows):
    ours, theirs = make_teacher(), make_teacher(windows)
    assert ours.key == make_teacher().key != theirs.key
    assert ours.space == theirs.space


@pytest.mark.parametrize("constant", ["VERSION", "GROUPS", "USUAL_SIZES"])
def test_key_follows_every_constant(monkeypatch, constant):
    before = make_teacher()
    changed = {
        "VERSION": 2,
        "GROUPS": handcrafted.GROUPS | {"mean": handcrafted.Group(0.3, 0.6, amplitude=True)},
        "USUAL_SIZES": {"m/s2": 9.8, "rad/s": 1.0},
    }
    monkeypatch.setattr(handcrafted, constant, changed[constant])
    assert make_teacher().key != before.key
    assert make_teacher().space != before.space


def test_blank_windows_and_other_channels_have_an_embedding_of_unit_length():
    emg = WindowFormat(tuple(f"emg_{n}" for n in range(8)), ("mV",) * 8, 100, 200.0)
    for vectors in (embed(np.zeros((2, 6, 100))), embed(make_imu(channels=8), emg)):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_a_window_with_a_sample_that_is_not_finite_has_no_finite_embedding():
    """In live mode its step then has no finite loss, and is skipped."""
    imu = make_imu(2)
    imu[0, 0, 0] = np.nan
    vectors = embed(imu)
    assert np.isnan(vectors[0]).any()
    assert np.isfinite(vectors[1]).all()
