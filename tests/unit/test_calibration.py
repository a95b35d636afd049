"""The calibration of features against a calculation by hand."""

import numpy as np
import pytest

from primus_scale.encoders.calibration import fit_calibration


def drawn(windows=240, width=5, sessions=6):
    generator = np.random.default_rng(0)
    session = np.repeat([f"s{n}" for n in range(sessions)], windows // sessions)
    shift = generator.normal(0, 5, (sessions, width))[np.arange(windows) * sessions // windows]
    return generator.normal(3, [1, 2, 3, 4, 5], (windows, width)) + shift, session


def test_scaling_standardises_each_feature():
    features, session = drawn()
    scaled = fit_calibration(features, session, "scaling").apply(features)
    assert np.allclose(scaled, (features - features.mean(0)) / features.std(0))


def test_whitening_is_the_inverse_root_of_the_sessions_covariance():
    features, session = drawn()
    z = (features - features.mean(0)) / features.std(0)
    means = np.array([z[session == name].mean(0) for name in sorted(set(session))])
    between = (means - means.mean(0)).T @ (means - means.mean(0)) / len(means)
    within = between + np.trace(between) / 5 * np.eye(5)
    whitened = fit_calibration(features, session, "whitening").apply(features)
    # Any root of the inverse gives the same distances, so it is compared by those.
    assert np.allclose(whitened @ whitened.T, z @ np.linalg.inv(within) @ z.T)


def test_sessions_differ_less_after_whitening():
    features, session = drawn()

    def share_between(z):
        means = np.array([z[session == name].mean(0) for name in sorted(set(session))])
        return means.var(axis=0).sum() / z.var(axis=0).sum()

    scaled, whitened = (
        share_between(fit_calibration(features, session, kind).apply(features))
        for kind in ("scaling", "whitening")
    )
    assert whitened < 0.8 * scaled


def test_a_constant_feature_becomes_zero():
    features, session = drawn()
    features[:, 2] = 7.0
    for kind in ("scaling", "whitening"):
        calibrated = fit_calibration(features, session, kind).apply(features)
        assert np.isfinite(calibrated).all()
    scaled = fit_calibration(features, session, "scaling").apply(features)
    assert np.array_equal(scaled[:, 2], np.zeros(len(features)))


def test_whitening_needs_two_sessions():
    features, session = drawn()
    with pytest.raises(ValueError, match="use scaling"):
        fit_calibration(features, np.full(len(session), "one"), "whitening")
