"""The encoder in scikit-learn: pipelines, searches, clones, pickles."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from primus_scale.encoders.pretrained import load_encoder
from primus_scale.signal.units import GRAVITY
from primus_scale.sklearn import ImuEncoder
from tests.encoder_factory import export_small_encoder, motion

PEOPLE = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return export_small_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def task() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows of two activities (shaken or not) of some people at 100 Hz in g, classes, people."""
    windows, label, person = [], [], []
    for who in range(PEOPLE):
        for activity, shake in enumerate((0.1, 3.0)):
            signal = motion(100.0, 20.0, turns=1 + 0.1 * who, shake=shake)
            signal[:, :3] /= GRAVITY
            cut = signal.T.reshape(6, 4, 500).transpose(1, 0, 2)
            windows.append(cut)
            label += [activity] * len(cut)
            person += [who] * len(cut)
    return np.concatenate(windows), np.array(label), np.array(person)


def encoder_of(folder: str) -> ImuEncoder:
    return ImuEncoder(folder, rate_hz=100.0, units=("g", "rad/s"))


def test_features_are_those_of_encode(folder: str, task: tuple[np.ndarray, ...]) -> None:
    found = encoder_of(folder).fit(task[0]).transform(task[0])
    expected = load_encoder(folder).encode(task[0], 100.0, ("g", "rad/s")).features
    np.testing.assert_array_equal(found, expected)
    names = encoder_of(folder).fit(task[0]).get_feature_names_out()
    assert names[0] == "imu0"
    assert len(names) == found.shape[1]
    frame = encoder_of(folder).set_output(transform="pandas").fit_transform(task[0])
    assert list(frame.columns) == list(names)


def test_it_works_in_pipelines_searches_and_folds_of_people(
    folder: str, task: tuple[np.ndarray, ...]
) -> None:
    windows, label, person = task
    model = make_pipeline(encoder_of(folder), StandardScaler(), LogisticRegression())
    scores = cross_val_score(model, windows, label, groups=person, cv=GroupKFold(PEOPLE))
    assert scores.mean() > 0.9
    grid = {"imuencoder__calibrated": [True, False], "logisticregression__C": [0.1, 1.0]}
    search = GridSearchCV(model, grid, cv=GroupKFold(2)).fit(windows, label, groups=person)
    assert search.best_score_ > 0.9


def test_clones_and_pickles_are_by_path(folder: str, task: tuple[np.ndarray, ...]) -> None:
    fitted = encoder_of(folder).fit(task[0])
    stored = pickle.dumps(fitted)
    assert len(stored) < 2000, "no weights"
    again = pickle.loads(stored)  # noqa: S301 - our own
    np.testing.assert_array_equal(again.transform(task[0]), fitted.transform(task[0]))
    assert clone(fitted).get_params() == fitted.get_params()


def test_checks_of_scikit_learn_that_apply(folder: str) -> None:
    """Those on tables are for estimators of two dimensions; it says that it is none."""
    with pytest.warns(UserWarning, match="Can't test estimator ImuEncoder"):
        check_estimator(encoder_of(folder))


def test_bad_windows_are_refused(folder: str, task: tuple[np.ndarray, ...]) -> None:
    encoder, windows = encoder_of(folder).fit(task[0]), task[0].copy()
    windows[3, 2, 10:40] = np.nan
    with pytest.raises(ValueError, match=r"1 of 32 windows have no features.*window 3 \(gap\)"):
        encoder.transform(windows)
    with pytest.raises(ValueError, match=r"\(32, 3000\); give \(windows, channels, time\)"):
        encoder.transform(windows.reshape(32, -1))
    with pytest.raises(ValueError, match="are in g, not in m/s2"):
        ImuEncoder(folder, rate_hz=100.0).fit_transform(task[0])
    with pytest.raises(FileNotFoundError, match="holds no complete exported encoder"):
        ImuEncoder("nowhere").fit(task[0])
