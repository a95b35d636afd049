"""The encoder under aeon's own checks of transformers, on windows that it takes.

aeon 1.6 needs pandas below 3.1 and, by numba, numpy below 2.4, and constraints.txt has newer ones.
So neither `make setup` nor .ci/run installs it, and the test is skipped without it, in CI too. It
passed with aeon 1.6.0, pandas 3.0.6 and numpy 2.3.5 in a virtual environment of their own.
"""

import importlib
from types import ModuleType

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from primus_scale.signal.units import GRAVITY
from primus_scale.sklearn import ImuEncoder
from tests.encoder_factory import export_small_encoder, motion

pytest.importorskip("aeon", reason="aeon is not installed: it needs pandas < 3.1 and numpy < 2.4")

KIND = "imu-windows"  # of data, in aeon's table of them
CHECKING = "aeon.testing.estimator_checking"
APPLY = {
    "check_fit_deterministic",
    "check_get_params",
    "check_persistence_via_pickle",
    "check_repr",
    "check_transformer_output",
}
DO_NOT_APPLY = {
    "check_create_test_instance": "asks for aeon's class method that makes instances for tests",
    "check_set_params": "the same; scikit-learn's check_set_params is run",
    "check_constructor": "the same; scikit-learn's checks of constructors are run",
    "check_inheritance": "asks for aeon's base class",
    "check_has_common_interface": "asks for methods of aeon's base class",
    "check_estimator_class_tags": "asks for aeon's tags; scikit-learn's are set",
    "check_estimator_tags": "the same",
    "check_transformer_overrides_and_tags": "asks for _fit and _transform of aeon's base class",
    "check_fit_updates_state_and_cloning": "asks for aeon's clone() and is_fitted",
    "check_non_state_changing_method": "asks for aeon's tags; test_sklearn.py has the like",
    "check_raises_not_fitted_error": "asks for the words of aeon's error; NotFittedError is raised",
    "check_dl_constructor_initializes_deeply": "is of aeon's own networks",
    "check_channel_selectors": "is of transformers that choose channels",
    "check_transform_inverse_transform_equivalent": "features do not give windows back",
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ImuEncoder:
    folder = export_small_encoder(tmp_path_factory.mktemp("encoder"))
    return ImuEncoder(folder, rate_hz=100.0, units=("g", "rad/s"))


@pytest.fixture(scope="module")
def checks() -> dict[str, object]:
    """aeon's checks by name, with windows in its table of data."""
    modules = [
        importlib.import_module(f"{CHECKING}._yield_{kind}_checks")
        for kind in ("estimator", "transformation")
    ]
    signal = motion(100.0, 40.0)
    signal[:, :3] /= GRAVITY
    windows = signal.T.reshape(6, 8, 500).transpose(1, 0, 2).copy()
    data = importlib.import_module("aeon.testing.testing_data").FULL_TEST_DATA_DICT
    labels = np.array([0, 1, 0, 1])
    data[KIND] = {"train": (windows[:4], labels), "test": (windows[4:], labels)}
    return {name: check for module in modules for name, check in checks_of(module)}


def checks_of(module: ModuleType) -> list[tuple[str, object]]:
    own = {name: one for name, one in vars(module).items() if name.startswith("check_")}
    return [(name, one) for name, one in own.items() if one.__module__ == module.__name__]


def test_each_check_applies_or_has_a_reason(checks: dict[str, object]) -> None:
    assert checks.keys() == APPLY | DO_NOT_APPLY.keys(), "sort new ones in"
    assert not APPLY & DO_NOT_APPLY.keys()


@pytest.mark.parametrize("name", sorted(APPLY))
def test_checks_of_aeon_that_apply(
    name: str, checks: dict[str, object], encoder: ImuEncoder
) -> None:
    check = checks[name]
    assert callable(check)
    takes_data = "datatype" in check.__code__.co_varnames[: check.__code__.co_argcount]
    check(estimator=encoder, **({"datatype": KIND} if takes_data else {}))


def test_the_checks_can_fail(checks: dict[str, object], encoder: ImuEncoder) -> None:
    """On an encoder whose answers change from call to call."""
    check = checks["check_fit_deterministic"]
    assert callable(check)
    with pytest.raises(ValueError, match="different results"):
        check(estimator=Unsteady(encoder.path, rate_hz=100.0, units=("g", "rad/s")), datatype=KIND)


def test_a_classifier_of_aeon_takes_its_features(
    encoder: ImuEncoder, checks: dict[str, object]
) -> None:
    """In scikit-learn's pipeline; aeon's own asks for its tags where there are several channels."""
    from aeon.classification.sklearn import RotationForestClassifier
    from aeon.testing.testing_data import FULL_TEST_DATA_DICT

    windows, labels = FULL_TEST_DATA_DICT[KIND]["train"]
    model = make_pipeline(encoder, RotationForestClassifier(n_estimators=2))
    assert model.fit(windows, labels).predict(windows).shape == labels.shape


class Unsteady(ImuEncoder):
    """Counts its calls, and adds the count to the features."""

    calls = 0

    def transform(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        self.calls += 1
        return super().transform(X) + self.calls
