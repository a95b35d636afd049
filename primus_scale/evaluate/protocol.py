"""The few-shot protocol: k labels a class from some people, tested on people never seen.

Every arm learns from the same labelled windows in each draw. An arm's setting is chosen for each
k by trials in which some of the label people stand in for the test people; the test people decide
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from primus_scale.augment import Augment
from primus_scale.config import FewShotConfig
from primus_scale.evaluate.arms import Arm, EncoderFactory, Pool, build_arms
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
from primus_scale.evaluate.results import assemble
from primus_scale.evaluate.statistics import accuracy, confusion_counts, macro_f1

DRAWS_OF_ALL = 3  # every draw of "all" is the same set: repeats show the spread of training alone


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
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compare the arms of ``build_arms``; returns what ``results.assemble`` describes.

    Computes on the device of ``pretrained``, whose weights stay as they are. ``fresh`` makes an
    encoder of the same architecture with new weights from a seed. ``split`` (of people) and
    ``pretraining_seed`` name this run among those that are pooled. Another
    pretraining seed gives the arms other fresh weights, and the same labels. ``report`` takes
    lines of progress. Raises ValueError where the two sides make no task (``check_sides``).
    """
    check_sides(label, test)
    all_k = possible_labels(label, config.k, report)
    pool = Pool(
        imu=torch.cat([label.imu, test.imu]).to(next(pretrained.parameters()).device),
        label=np.concatenate([label.label, test.label]),
        classes=len(label.classes),
        rate_hz=label.rate_hz,
    )
    records: list[dict[str, Any]] = []
    settings: dict[str, dict[str, float]] = {str(k): {} for k in all_k}
    seed = keyed_seed("weights", config.seed, pretraining_seed)
    arms = build_arms(pool, pretrained, fresh, augment, config, seed)
    for k in all_k:
        for name, arm in arms.items():
            started = time.monotonic()
            setting = choose_setting(arm, label, k, config.seed)
            tested = measure_arm(name, arm, setting, label, test, k, config, seed)
            mean = np.mean([record["accuracy"] for record in tested])
            seconds = time.monotonic() - started
            report(f"k={k:<4} {name:<21} accuracy {100 * mean:5.1f} %  ({seconds:.1f} s)")
            settings[str(k)][name] = setting
            records += tested
    run = {
        "split": split,
        "pretraining_seed": pretraining_seed,
        "label_people": label.people,
        "test_people": test.people,
        "label_windows": len(label),
        "test_windows": len(test),
        "settings": settings,
    }
    marks = {"split": split, "pretraining_seed": pretraining_seed}
    return assemble(
        [run],
        [{**marks, **record} for record in records],
        classes=label.classes,
        protocol=config.model_dump(mode="json"),
    )


def choose_setting(arm: Arm, label: LabelledWindows, k: Labels, seed: int) -> float:
    """The arm's setting of best accuracy at k labels a class on held-out label people."""
    scores = np.zeros(len(arm.settings))
    for trial in range(arm.trials(k)):
        generator = keyed_generator("trial", seed, trial)
        learning, validation = hold_out_people(label, generator)
        train = choose_windows(label, k, generator, learning)
        for i, setting in enumerate(arm.settings):
            predicted = arm.predict(train, validation, setting, keyed_seed("trial", seed, trial))
            scores[i] += np.mean(predicted == label.label[validation])
    return arm.settings[int(scores.argmax())]


def measure_arm(
    name: str,
    arm: Arm,
    setting: float,
    label: LabelledWindows,
    test: LabelledWindows,
    k: Labels,
    config: FewShotConfig,
    seed: int,
) -> list[dict[str, Any]]:
    """One record (k, arm, draw, accuracy, macro_f1, confusion) for each draw of labels.

    ``config.seed`` decides the labels, ``seed`` what training leaves to chance.
    """
    target = np.arange(len(label), len(label) + len(test))
    records = []
    for draw in range(min(config.draws, DRAWS_OF_ALL) if k == "all" else config.draws):
        generator = keyed_generator("draw", config.seed, draw)
        train = choose_windows(label, k, generator, np.arange(len(label)))
        predicted = arm.predict(train, target, setting, keyed_seed("fit", seed, draw))
        counts = confusion_counts(test.label, predicted, len(label.classes))
        records.append(
            {
                "k": str(k),
                "arm": name,
                "draw": draw,
                "accuracy": accuracy(counts),
                "macro_f1": macro_f1(counts),
                "confusion": counts.tolist(),
            }
        )
    return records
