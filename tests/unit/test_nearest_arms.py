"""Neighbours and prototypes against loops over windows, as their definitions read."""

import math
from collections import defaultdict

import numpy as np
import pytest

from primus_scale.encoders.calibration import fit_calibration
from primus_scale.evaluate.arms import TaskWindows, TrainingRows
from primus_scale.evaluate.comparison import make_trials
from primus_scale.evaluate.nearest_arms import NEIGHBOURS, NeighboursArm, PrototypesArm
from tests.few_shot_task import CLASSES, RATE_HZ, make_side

LABEL = make_side(range(5), windows_each=3)
WINDOWS = TaskWindows(
    LABEL.imu, LABEL.label, LABEL.person, LABEL.session, len(CLASSES), RATE_HZ, len(LABEL)
)
FEATURES = np.random.default_rng(0).normal(size=(len(LABEL), 7)) + LABEL.label[:, None]
ROWS = np.arange(len(LABEL))
GIVEN = TrainingRows(ROWS[::4], ROWS[:30], seed=0)


def scaled(scaling: str) -> np.ndarray:
    if scaling == "none":
        return FEATURES
    if scaling == "whitened":
        seen = GIVEN.unlabelled
        return fit_calibration(FEATURES[seen], LABEL.session[seen], "whitening").apply(FEATURES)
    by = FEATURES[GIVEN.train if scaling == "labelled" else GIVEN.unlabelled]
    return (FEATURES - by.mean(axis=0)) / by.std(axis=0)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("scaling", ["labelled", "unlabelled", "whitened", "none"])
@pytest.mark.parametrize("neighbours", [1, 5, 500])
def test_neighbours_vote_by_their_cosine(scaling: str, neighbours: int) -> None:
    features = scaled(scaling)
    arm = NeighboursArm("knn", WINDOWS, lambda: FEATURES)
    answers = arm.predict(GIVEN, ROWS, {"neighbours": neighbours, "scaling": scaling})
    for row, answer in zip(ROWS, answers, strict=True):
        near = sorted(GIVEN.train, key=lambda one: -cosine(features[row], features[one]))
        votes: dict[int, float] = defaultdict(float)
        for one in near[:neighbours]:
            votes[LABEL.label[one]] += math.exp(cosine(features[row], features[one]) / 0.07)
        assert votes[answer] == max(votes.values())


def test_prototypes_are_means_of_unit_vectors_of_the_classes_that_have_labels() -> None:
    features = scaled("unlabelled")
    train = GIVEN.train[LABEL.label[GIVEN.train] != 1]
    arm = PrototypesArm("prototypes", WINDOWS, lambda: FEATURES)
    answers = arm.predict(
        TrainingRows(train, GIVEN.unlabelled, seed=0), ROWS, {"scaling": "unlabelled"}
    )
    means = {}
    for one in (0, 2):
        unit = [
            features[row] / np.linalg.norm(features[row])
            for row in train[LABEL.label[train] == one]
        ]
        means[one] = sum(unit) / len(unit)
    expected = [max(means, key=lambda one: cosine(features[row], means[one])) for row in ROWS]
    assert answers.tolist() == expected


def test_neighbours_are_chosen_by_the_trials_and_never_more_than_there_are_windows() -> None:
    trials = make_trials(LABEL, 1, seed=1, trials=3)
    arm = NeighboursArm("knn", WINDOWS, lambda: FEATURES)
    found = {}
    for number in NEIGHBOURS[:2]:  # of three labelled windows
        for scaling in ("labelled", "unlabelled", "whitened", "none"):
            setting = {"neighbours": number, "scaling": scaling}
            hits = [
                arm.predict(t.given, t.target, setting) == LABEL.label[t.target] for t in trials
            ]
            found[number, scaling] = np.mean([one.mean() for one in hits])
    chosen = arm.choose(trials)
    assert found[chosen["neighbours"], chosen["scaling"]] == max(found.values())


@pytest.mark.parametrize("arm", [NeighboursArm, PrototypesArm])
def test_constant_features_are_marked_as_collapsed(arm: type) -> None:
    rng = np.random.default_rng(0)
    constant = 3 + 1e-7 * rng.normal(size=(len(LABEL), 4))  # up to rounding
    trials = make_trials(LABEL, 1, seed=0, trials=1)
    assert arm("knn", WINDOWS, lambda: constant).choose(trials)["collapsed"]
    assert "collapsed" not in arm("knn", WINDOWS, lambda: FEATURES).choose(trials)
