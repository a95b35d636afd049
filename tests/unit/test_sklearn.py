"""The encoder in scikit-learn: pipelines, searches, clones, pickles."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags, estimator_checks
from sklearn.utils.estimator_checks import check_estimator

from primus_scale.encoders.pretrained import load_encoder
from primus_scale.signal.units import GRAVITY
from primus_scale.sklearn import ImuEncoder
from tests.encoder_factory import export_small_encoder, motion

PEOPLE = 4
# Of scikit-learn's checks of an estimator, by what they do.
APPLY = {
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_fit1d",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_n_features_in_after_fitting",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_transformer_n_iter",
    "check_transformers_unfitted",
    "check_valid_tag_types",
}
FIT_A_TABLE = {
    "check_complex_data",
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_estimators_dtypes",
    "check_estimators_empty_data_messages",
    "check_estimators_fit_returns_self",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit2d_predict1d",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_transformer_data_not_an_array",
    "check_transformer_general",
    "check_transformer_preserve_dtypes",
}


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


class _Tabular(ImuEncoder):
    """It says that it takes tables, so that scikit-learn names the checks that it has for them."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def test_checks_of_scikit_learn_that_apply(folder: str) -> None:
    """All but those that fit a table (n, features), which is refused by name."""
    encoder = encoder_of(folder)
    with pytest.warns(UserWarning, match="Can't test estimator ImuEncoder"):
        check_estimator(encoder)  # it runs only what needs no data: the others are for tables
    checks = {
        getattr(check, "func", check).__name__: check
        for check in estimator_checks._yield_all_checks(_Tabular(folder), legacy=True)
    }
    assert checks.keys() == APPLY | FIT_A_TABLE | {"check_array_api_input"}, "sort new ones in"
    for name in sorted(APPLY):
        checks[name]("ImuEncoder", clone(encoder))
    for name in sorted(FIT_A_TABLE):
        with pytest.raises((ValueError, AssertionError)):
            checks[name]("ImuEncoder", clone(encoder))


def test_what_these_checks_ask_of_tables_holds_of_windows(
    folder: str, task: tuple[np.ndarray, ...]
) -> None:
    windows = task[0][:6].copy()
    encoder = encoder_of(folder)
    assert encoder.fit(windows) is encoder
    before = dict(vars(encoder))
    found = encoder.transform(windows)
    assert vars(encoder) == before, "transform changes nothing"
    np.testing.assert_array_equal(encoder.fit(windows).transform(windows), found)
    np.testing.assert_array_equal(encoder.fit_transform(windows, task[1][:6]), found)
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(encoder.transform(windows[order]), found[order], atol=1e-5)
    parts = np.concatenate([encoder.transform(windows[:1]), encoder.transform(windows[1:])])
    np.testing.assert_allclose(parts, found, atol=1e-5)
    for same in (np.asfortranarray(windows), windows.tolist(), windows.astype(object)):
        np.testing.assert_array_equal(encoder.transform(same), found)
    windows.flags.writeable = False
    np.testing.assert_array_equal(encoder.transform(windows), found)
    with pytest.raises(NotFittedError):
        clone(encoder).transform(windows)
    with pytest.raises(ValueError, match="complex"):
        encoder.transform(windows + 1j)


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
