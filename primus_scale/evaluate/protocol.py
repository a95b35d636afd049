"""The few-shot protocol: k labels a class from some people, tested on people never seen.

In each draw every arm learns from the same labelled windows; arms that train an encoder may use the
first few draws only. An arm's setting is chosen for each k by trials on held-out label people. The
test people decide nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from primus_scale.augment import Augment
from primus_scale.config import FewShotConfig
from primus_scale.evaluate.arm_table import PRETRAINED_ARMS
from primus_scale.evaluate.arms import CHOICE, Arm, Setting, TaskWindows, TrainingRows, Trial
from primus_scale.evaluate.build_arms import build_arms
from primus_scale.evaluate.classifiers import describe_computation
from primus_scale.evaluate.draws import (
    LabelledWindows,
    Labels,
    check_sides,
    choose_windows,
    hold_out_people,
    keyed_generator,
    keyed_seed,
    possible_labels,
)
from primus_scale.evaluate.feature_arm import FeatureArm
from primus_scale.evaluate.feature_sets import PACKAGES, package_version
from primus_scale.evaluate.finished_work import FinishedWork, digest
from primus_scale.evaluate.results import SCHEMA, assemble, format_setting
from primus_scale.evaluate.statistics import score_people
from primus_scale.evaluate.trained_arm import EncoderFactory

# Settings that no arm's answers depend on; an arm that is added does not change those of others.
NOT_OF_AN_ARM = {
    *("k", "arms", "own", "draws", "trained_draws", "threads"),
    *("mixed_model", "prompts", "retrieval", "task"),
}
DRAWS_OF_ALL = 3  # all draws of "all" are equal, so repeats show the spread of training only


def run_few_shot(
    label: LabelledWindows,
    test: LabelledWindows,
    pretrained: nn.Module,
    fresh: EncoderFactory,
    augment: Augment,
    config: FewShotConfig,
    *,
    split: int = 0,
    pretraining_seed: int = 0,
    may_share: Collection[str] = (),
    report: Callable[[str], None] = print,
    finished: FinishedWork | None = None,
) -> dict[str, Any]:
    """Compare the arms of ``build_arms``; returns what ``results.assemble`` describes.

    Computes on the device of ``pretrained``, whose weights do not change. fresh: makes an encoder
    of the same architecture with new weights from a seed. split (of people), pretraining_seed:
    identify this run among runs that are pooled. Another pretraining seed gives the arms other
    fresh weights, but the same labels. may_share: what both sides may have (``check_sides``).
    report: called with lines of progress. finished: keeps settings and draws; what it holds already
    is not computed again. Raises ValueError where the two sides make no task, or an arm fails.
    """
    check_sides(label, test, may_share)
    all_k = possible_labels(label, config.k, report)
    device = next(pretrained.parameters()).device
    windows = _task_windows(label, test, device)
    marks = {"split": split, "pretraining_seed": pretraining_seed}
    records: list[dict[str, Any]] = []
    settings: dict[str, dict[str, Setting]] = {str(k): {} for k in all_k}
    cost: dict[str, dict[str, float | None]] = {str(k): {} for k in all_k}
    seed = keyed_seed("weights", config.seed, pretraining_seed)
    arms = build_arms(windows, pretrained, fresh, augment, config, seed, report)
    keys = _identities(arms, seed, label, test, pretrained, fresh, augment, config)
    finished = finished or FinishedWork()
    for k in all_k:
        for name, arm in arms.items():
            started = time.monotonic()
            key = digest(keys[name], str(k))
            setting = finished.get(key, partial(_choose_setting, arm, label, k, config.seed))
            if arm.trains:  # its trials take minutes
                report(f"k={k:<4} {name:<21} chose {format_setting(setting)}")
            measure = partial(_measure_draw, arm, setting, label, test, k, config.seed, seed)
            draws = [digest(key, *parts) for parts in _draw_keys(arm, k, config, seed)]
            tested = [finished.get(one, partial(measure, draw)) for draw, one in enumerate(draws)]
            mean = 100 * np.mean([record["accuracy"] for record in tested])
            seconds = time.monotonic() - started
            report(f"k={k:<4} {name:<21} accuracy {mean:5.1f} %  ({seconds:.1f} s)")
            settings[str(k)][name] = setting
            cost[str(k)][name] = finished.seconds([key, *draws])
            for draw, record in enumerate(tested):
                records.append({**marks, "k": str(k), "arm": name, **record, "draw": draw})
    run = {**marks, **_describe_sides(label, test), "settings": settings}
    run |= {"cost": {"fitting_s": cost}, "computation": describe_computation(device)}
    return assemble([run], records, classes=label.classes, protocol=_protocol(config))


def _protocol(config: FewShotConfig) -> dict[str, Any]:
    """The settings; of the task what is not usual, without the split, which each run has."""
    task = config.task.model_dump(mode="json", exclude_defaults=True, exclude={"seed"})
    told = {"task": task} if task else {}
    return config.model_dump(mode="json", exclude={"task"}) | told


def _describe_sides(label: LabelledWindows, test: LabelledWindows) -> dict[str, Any]:
    return {
        "label_people": label.people,
        "test_people": test.people,
        "label_windows": len(label),
        "test_windows": len(test),
    }


def _task_windows(
    label: LabelledWindows, test: LabelledWindows, device: torch.device
) -> TaskWindows:
    return TaskWindows(
        imu=torch.cat([label.imu, test.imu]).to(device),
        label=np.concatenate([label.label, test.label]),
        session=np.concatenate([label.session, test.session]),
        classes=len(label.classes),
        rate_hz=label.rate_hz,
        label_windows=len(label),
    )


def count_draws(arm: Arm, k: Labels, config: FewShotConfig) -> int:
    """The number of draws of k labels a class for an arm."""
    draws = min(config.draws, config.trained_draws) if arm.trains else config.draws
    return min(draws, DRAWS_OF_ALL) if k == "all" else draws


def _draw_keys(arm: Arm, k: Labels, config: FewShotConfig, seed: int) -> list[tuple[Any, ...]]:
    """For each draw what its answers depend on, beside the arm and its setting.

    Without random choices of its own an arm answers the same for every pretraining seed and, where
    all windows are labelled, in every draw.
    """
    draws = range(count_draws(arm, k, config))
    if not arm.deterministic:
        return [(seed, draw) for draw in draws]
    return [(0 if k == "all" else draw,) for draw in draws]


def make_trials(label: LabelledWindows, k: Labels, seed: int, trials: int) -> list[Trial]:
    """Trials with k labels a class, each with other held-out label people."""
    made = []
    for trial in range(trials):
        generator = keyed_generator("trial", seed, trial)
        learning, validation = hold_out_people(label, generator)
        train = choose_windows(label, k, generator, learning)
        made.append(
            Trial(TrainingRows(train, learning, keyed_seed("trial", seed, trial)), validation)
        )
    return made


def _choose_setting(arm: Arm, label: LabelledWindows, k: Labels, seed: int) -> Setting:
    return arm.choose(make_trials(label, k, seed, arm.trials(k)))


def _measure_draw(
    arm: Arm,
    setting: Setting,
    label: LabelledWindows,
    test: LabelledWindows,
    k: Labels,
    label_seed: int,
    seed: int,
    draw: int,
) -> dict[str, Any]:
    """The record (draw, accuracy, macro_f1, people) of an arm on one draw of labels.

    label_seed: of the choice of labels. seed: of the random choices of training.
    """
    rows = np.arange(len(label))
    train = choose_windows(label, k, keyed_generator("draw", label_seed, draw), rows)
    target = np.arange(len(label), len(label) + len(test))
    predicted = arm.predict(
        TrainingRows(train, rows, keyed_seed("fit", seed, draw)), target, setting
    )
    scores = score_people(test.label, predicted, test.person, len(test.classes))
    return {"draw": draw, **scores}


def _identities(
    arms: Mapping[str, Arm],
    seed: int,
    label: LabelledWindows,
    test: LabelledWindows,
    pretrained: nn.Module,
    fresh: EncoderFactory,
    augment: Augment,
    config: FewShotConfig,
) -> dict[str, str]:
    """For each arm a digest of everything that its setting depends on, except k.

    An encoder of ``few_shot.own`` may change without our notice: its features stand for it.
    """
    sides = [
        (side.imu, side.label, side.person.astype(str), list(side.classes), side.rate_hz)
        for side in (label, test)
    ]
    operations = [op.model_dump(mode="json") for op in augment.ops]
    settings = config.model_dump(mode="json", exclude=NOT_OF_AN_ARM)
    device = next(pretrained.parameters()).device
    common = digest(
        SCHEMA, CHOICE, *sides[0], *sides[1], operations, settings, describe_computation(device)
    )
    weights = {name: digest(pretrained) for name in PRETRAINED_ARMS}
    weights |= {"random": digest(fresh(seed)), "scratch": digest(fresh(0))}
    weights |= {
        name: digest(arm.features)
        for name, arm in arms.items()
        if name in config.own and isinstance(arm, FeatureArm)
    }
    versions = {name: [package_version(name)] if name in PACKAGES else [] for name in arms}
    return {name: digest(common, name, weights.get(name, ""), *versions[name]) for name in arms}
