"""What arms choose on held-out people, against every fit done by itself."""

import copy
import itertools
import statistics
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from primus_scale.augment import build_augment
from primus_scale.config import ArmName, FewShotConfig
from primus_scale.config.augment import Jitter
from primus_scale.encoders.calibration import fit_calibration
from primus_scale.evaluate import feature_sets
from primus_scale.evaluate.arm_table import ARMS, FIXED_BASELINES
from primus_scale.evaluate.arms import (
    HeldOutTrial,
    TaskWindows,
    TrainingRows,
    best_setting,
    clearly_better,
)
from primus_scale.evaluate.build_arms import build_arms
from primus_scale.evaluate.classifiers import Classifier, Training, TrainingSettings, fit_probe
from primus_scale.evaluate.comparison import make_trials
from primus_scale.evaluate.feature_arm import SCALINGS
from primus_scale.evaluate.feature_sets import tsfel_features
from primus_scale.evaluate.probe_arm import PROBE_STRENGTHS, ProbeArm
from primus_scale.evaluate.trained_arm import (
    FINETUNE_LR_SHARE,
    PATIENCE,
    TrainedArm,
    judged_steps,
)
from primus_scale.signal.features import hand_features
from tests.few_shot_task import CLASSES, RATE_HZ, SmallEncoder, make_side

LABEL = make_side(range(6), windows_each=4)
WINDOWS = TaskWindows(
    LABEL.imu, LABEL.label, LABEL.person, LABEL.session, len(CLASSES), RATE_HZ, len(LABEL)
)
AUGMENT = build_augment((Jitter(sd=0.05),))
FEATURES = hand_features(LABEL.imu.numpy(), RATE_HZ)


def test_the_table_of_arms_is_that_of_the_configuration():
    assert tuple(ARMS) == get_args(ArmName)


def hits(arm, trial, setting):
    answers = arm.predict(trial.given, trial.target, setting)
    return np.mean(answers == LABEL.label[trial.target])


def test_a_training_is_judged_at_steps_that_grow_up_to_the_limit():
    assert judged_steps(1) == [1]
    assert judged_steps(45) == [20, 30, 45]
    steps = judged_steps(1000)
    assert (steps[0], steps[-1]) == (20, 1000)
    assert all(1.2 < later / step < 1.9 for step, later in itertools.pairwise(steps))


def test_rate_and_steps_are_the_best_of_trainings_done_one_by_one():
    config = FewShotConfig(steps=45, lrs=(1e-4, 3e-3), batch=8)
    arm = TrainedArm(WINDOWS, SmallEncoder, AUGMENT, config)
    trials = make_trials(LABEL, 1, seed=0, trials=2)
    found = {
        (lr, steps): np.mean([hits(arm, trial, {"lr": lr, "steps": steps}) for trial in trials])
        for lr in config.lrs
        for steps in (20, 30, 45)
    }
    chosen = arm.choose(trials)
    assert found[chosen["lr"], chosen["steps"]] == max(found.values())
    fewer = [accuracy for (_, steps), accuracy in found.items() if steps < chosen["steps"]]
    assert all(accuracy < max(found.values()) for accuracy in fewer)
    assert chosen["at_limit"] == (chosen["steps"] == 45)


def test_a_training_ends_when_accuracy_has_stopped_rising():
    """The task is solved in some dozen steps; a limit far away costs no more."""
    config = FewShotConfig(steps=100_000, lrs=(1e-2,), batch=16)
    arm = TrainedArm(WINDOWS, SmallEncoder, AUGMENT, config)
    chosen = arm.choose(make_trials(LABEL, 4, seed=0, trials=1))
    assert not chosen["at_limit"]
    assert chosen["steps"] * PATIENCE < 1000


def test_a_rate_that_diverges_is_not_chosen_and_none_else_is_said():
    trials = make_trials(LABEL, 1, seed=0, trials=1)
    both = TrainedArm(WINDOWS, SmallEncoder, AUGMENT, FewShotConfig(steps=2, lrs=(1e30, 1e-3)))
    assert both.choose(trials)["lr"] == 1e-3
    lone = TrainedArm(WINDOWS, SmallEncoder, AUGMENT, FewShotConfig(steps=20, lrs=(1e30,)))
    with pytest.raises(ValueError, match=r"training diverges at rates of 1e\+30; give smaller"):
        lone.choose(trials)
    with pytest.raises(ValueError, match=r"rate of 1e\+30 diverges .* smaller values of lrs"):
        lone.predict(trials[0].given, trials[0].target, {"lr": 1e30, "steps": 20})


def usual_unless_clearly_worse(found, usual=(0.1, "whitened")):
    """The best of those that are better than the usual by a standard error of the difference."""
    better = {}
    for setting, accuracy in found.items():
        gains = [one - other for one, other in zip(accuracy, found[usual], strict=True)]
        if statistics.mean(gains) > statistics.stdev(gains) / len(gains) ** 0.5:
            better[setting] = statistics.mean(accuracy)
    return max(better, key=better.get) if better else usual


def test_the_usual_setting_stays_unless_another_is_clearly_better():
    class Table:
        """Answers rightly in as many of ten rows as its setting says for the trial."""

        def predict(self, given, target, setting):
            right = setting["right"][given.seed]
            return np.where(np.arange(len(target)) < right, WINDOWS.label[target], -1)

    rows = np.arange(10)
    trials = [HeldOutTrial(TrainingRows(rows, rows, seed), rows) for seed in range(4)]
    usual = {"right": [5, 6, 5, 6]}
    lucky = {"right": [10, 4, 5, 6]}  # mean gain 0.75, standard error 1.5
    clear, best = {"right": [6, 7, 6, 6]}, {"right": [8, 9, 7, 9]}
    for settings, chosen in (
        ([usual, lucky], usual),
        ([usual, clear, lucky], clear),
        ([usual, clear, best], best),
        ([best, usual, clear], best),
    ):
        assert best_setting(Table(), WINDOWS, trials, settings) == chosen
    assert best_setting(Table(), WINDOWS, trials[:1], [usual, clear]) == clear
    assert best_setting(Table(), WINDOWS, trials[:1], [usual, {"right": [5]}]) == usual


def test_penalty_and_scaling_are_chosen_together_from_the_same_values_for_every_probe():
    trials = make_trials(LABEL, 1, seed=3, trials=3)
    for features in (FEATURES, LABEL.imu.numpy().mean(axis=2)):
        arm = ProbeArm("features", WINDOWS, features.copy)
        found = {}
        for strength, scaling in itertools.product(PROBE_STRENGTHS, SCALINGS):
            accuracy = []
            for trial in trials:
                given, scaled = trial.given, features
                rows = {"labelled": given.train, "unlabelled": given.unlabelled}.get(scaling)
                if scaling == "whitened":
                    seen = given.unlabelled
                    whitening = fit_calibration(features[seen], LABEL.session[seen], "whitening")
                    scaled = whitening.apply(features)
                probe = fit_probe(
                    scaled[given.train],
                    LABEL.label[given.train],
                    len(CLASSES),
                    strength,
                    None if rows is None else features[rows],
                )
                target = trial.target
                accuracy.append(np.mean(probe.predict(scaled[target]) == LABEL.label[target]))
            found[strength, scaling] = accuracy
        chosen = arm.choose(trials)
        assert (chosen["strength"], chosen["scaling"]) == usual_unless_clearly_worse(found)


def test_windows_looked_at_without_labels_are_those_of_people_learned_from():
    for trial in make_trials(LABEL, 2, seed=0, trials=4):
        seen = set(LABEL.person[trial.given.unlabelled])
        assert seen.isdisjoint(LABEL.person[trial.target])
        assert seen | set(LABEL.person[trial.target]) == set(LABEL.people)
        assert set(trial.given.train) <= set(trial.given.unlabelled)


def tuned_arm(encoder, lr=1e-2):
    """The arm that fine-tunes ``encoder``, and the probe that it starts at."""
    with torch.no_grad():
        features = encoder(LABEL.imu).features.numpy()
    probe = ProbeArm("pretrained", WINDOWS, lambda: features)
    config = FewShotConfig(steps=45, lrs=(lr,), batch=8)
    return TrainedArm(WINDOWS, SmallEncoder, AUGMENT, config, (encoder, probe)), probe


def test_tuning_begins_at_the_probe_on_the_pretrained_encoder():
    arm, probe = tuned_arm(SmallEncoder(1))
    rows = np.arange(len(LABEL))
    given = TrainingRows(rows[::3], rows, seed=0)
    tuned = arm.predict(given, rows, {"lr": 1e-2, "steps": 0})
    frozen = probe.predict(given, rows, {"strength": 0.1, "scaling": "whitened"})
    assert np.mean(tuned == frozen) > 0.95  # bfloat16 may round an answer over


@pytest.mark.parametrize("seed", range(4))
def test_steps_of_tuning_are_the_best_where_they_clearly_gain_on_the_held_out_people(seed):
    trials = make_trials(LABEL, 4, seed=seed, trials=1)
    arm, _ = tuned_arm(SmallEncoder(1))
    rate, target = FINETUNE_LR_SHARE * 1e-2, trials[0].target
    right = {
        steps: arm.predict(trials[0].given, target, {"lr": rate, "steps": steps})
        == LABEL.label[target]
        for steps in (0, 20, 30, 45)
    }
    best = max(right, key=lambda steps: (right[steps].sum(), -steps))
    gains = [
        (right[best].astype(float) - right[0])[LABEL.person[target] == person].mean()
        for person in sorted(set(LABEL.person[target]))
    ]
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    assert arm.choose(trials)["steps"] == (best if statistics.mean(gains) > error else 0)


def test_a_tuning_that_diverges_is_left_out():
    diverging, _ = tuned_arm(SmallEncoder(1), lr=1e30)
    assert diverging.choose(make_trials(LABEL, 4, seed=0, trials=1))["steps"] == 0


def test_a_gain_is_clear_where_its_mean_is_above_its_standard_error():
    gains = np.array([[1.0, 1.0, 1.0], [3.0, -0.5, 0.0], [3.0, 0.5, 0.0], [-1.0, -1.0, -1.0]])
    assert clearly_better(gains).tolist() == [True, False, True, False]
    assert clearly_better(np.array([0.1]))
    assert not clearly_better(np.array([0.0]))


def test_a_classifier_keeps_its_share_of_the_first_weights():
    encoder, imu = SmallEncoder(1), LABEL.imu
    label, width = torch.from_numpy(LABEL.label), encoder(imu[:1]).features.shape[1]
    first = Classifier(encoder, torch.nn.Linear(width, len(CLASSES)))
    ends = {}
    for kept in (0.0, 0.25, 1.0):
        settings = TrainingSettings(8, 1e-2, AUGMENT, seed=0, kept=kept)
        ends[kept] = Training(copy.deepcopy(first), imu, label, settings).advance(30).state_dict()
    for name, weight in first.named_parameters():
        moved = ends[0.0][name]
        assert not torch.equal(moved, weight)
        torch.testing.assert_close(ends[1.0][name], weight.detach())
        torch.testing.assert_close(ends[0.25][name], 0.25 * weight.detach() + 0.75 * moved)


def test_features_that_are_not_finite_are_refused():
    features = FEATURES.copy()
    features[3, 0], features[5, 1] = np.nan, np.inf
    arm = ProbeArm("random", replace(WINDOWS), features.copy)
    with pytest.raises(ValueError, match=r"arm random: features of 2 of 72 windows are NaN"):
        arm.choose(make_trials(LABEL, 1, seed=0, trials=1))


def test_a_whitened_probe_is_a_probe_on_whitened_features():
    rows = np.arange(len(LABEL))
    given = TrainingRows(rows[::5], rows, seed=0)
    arm = ProbeArm("features_whitened", WINDOWS, FEATURES.copy, scalings=("whitened",))
    whitened = fit_calibration(FEATURES, LABEL.session, "whitening").apply(FEATURES)
    probe = fit_probe(whitened[::5], LABEL.label[::5], len(CLASSES), 0.1)
    answers = arm.predict(given, rows, {"strength": 0.1, "scaling": "whitened"})
    assert np.array_equal(answers, probe.predict(whitened))
    assert arm.choose(make_trials(LABEL, 1, seed=0, trials=1))["scaling"] == "whitened"


def test_where_sessions_do_not_differ_a_whitened_probe_scales_only():
    rows = np.arange(len(LABEL))
    given = TrainingRows(rows[::5], rows, seed=0)
    setting = {"strength": 0.1, "scaling": "whitened"}
    one_session = replace(WINDOWS, session=np.full(len(LABEL), "one"))
    arm = ProbeArm("features", one_session, FEATURES.copy)
    scaled = fit_calibration(FEATURES, LABEL.session, "scaling").apply(FEATURES)
    probe = fit_probe(scaled[::5], LABEL.label[::5], len(CLASSES), 0.1)
    assert np.array_equal(arm.predict(given, rows, setting), probe.predict(scaled))
    collapsed = ProbeArm("pretrained", WINDOWS, lambda: np.ones((len(LABEL), 3)))
    assert len(np.unique(collapsed.predict(given, rows, setting))) == 1


@pytest.mark.parametrize("name", FIXED_BASELINES)
def test_every_baseline_learns_an_easy_task_and_repeats_exactly(name):
    config = FewShotConfig(arms=(name,), steps=1)
    side = make_side(range(6), windows_each=3)  # features of tsfel take 60 ms a window
    windows = replace(
        WINDOWS, imu=side.imu, label=side.label, session=side.session, label_windows=len(side)
    )
    arm = build_arms(windows, SmallEncoder(1), SmallEncoder, AUGMENT, config, seed=0)[name]
    rows = np.arange(len(side))
    given = TrainingRows(rows[::2], rows, seed=0)
    setting = arm.choose(make_trials(side, 4, seed=0, trials=1))
    answers = arm.predict(given, rows, setting)
    assert np.mean(answers == side.label) > 0.8
    assert np.array_equal(answers, arm.predict(given, rows, setting))
    other = arm.predict(replace(given, seed=1), rows, setting)
    assert not arm.deterministic or np.array_equal(answers, other)


def test_features_of_tsfel_do_not_depend_on_the_number_of_processes(monkeypatch):
    monkeypatch.setattr(feature_sets, "PART_WINDOWS", 2)
    imu, lines = WINDOWS.imu.numpy()[:5], []
    one, two = (tsfel_features(imu, 50.0, lines.append, jobs) for jobs in (1, 2))
    assert np.array_equal(one, two) and len(np.unique(one, axis=0)) == 5
    assert lines[2] == lines[5] == "tsfel features of 5 of 5 windows"
