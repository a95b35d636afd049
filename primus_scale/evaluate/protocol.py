"""The few-shot protocol: k labels a class from some people, tested on people never seen.

In each draw every arm learns from the same labelled windows; arms that train an encoder may use the
first few draws only. An arm's setting is chosen for each k by trials on held-out label people. The
test people decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from primus_scale.augment import Augment
from primus_scale.config import FewShotConfig
from primus_scale.evaluate.arm_table import PRETRAINED_ARMS
from primus_scale.evaluate.arms import METHOD, Arm, Setting, TaskWindows
from primus_scale.evaluate.build_arms import build_arms
from primus_scale.evaluate.classifiers import describe_computation
from primus_scale.evaluate.comparison import Comparison, compute_missing
from primus_scale.evaluate.draws import (
    LabelledWindows,
    check_sides,
    keyed_seed,
    possible_labels,
)
from primus_scale.evaluate.feature_arm import FeatureArm
from primus_scale.evaluate.feature_sets import PACKAGES, package_version
from primus_scale.evaluate.finished_work import FinishedWork, digest
from primus_scale.evaluate.results import SCHEMA, assemble
from primus_scale.evaluate.trained_arm import EncoderFactory

# Settings that no arm's answers depend on; an arm that is added does not change those of others.
NOT_OF_AN_ARM = {
    *("k", "arms", "own", "draws", "trained_draws", "threads"),
    *("mixed_model", "prompts", "retrieval", "task", "adapt"),
}


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
    jobs: int = 1,
) -> dict[str, Any]:
    """Compare the arms of ``build_arms``; returns what ``results.assemble`` describes.

    Computes on the device of ``pretrained``, whose weights do not change. fresh: makes an encoder
    of the same architecture with new weights from a seed. split (of people), pretraining_seed:
    identify this run among runs that are pooled. Another pretraining seed gives the arms other
    fresh weights, but the same labels. may_share: what both sides may have (``check_sides``).
    report: called with lines of progress. finished: keeps settings and draws; what it holds already
    is not computed again. jobs: processes at once, forks of this one; one on a GPU, and with
    several threads. Their number does not change the results. Raises ValueError where the sides
    make no task, or an arm fails.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    check_sides(label, test, may_share)
    all_k = possible_labels(label, config.k, report)
    device = next(pretrained.parameters()).device
    windows = _task_windows(label, test, device)
    marks = {"split": split, "pretraining_seed": pretraining_seed}
    records: list[dict[str, Any]] = []
    settings: dict[str, dict[str, Setting]] = {str(k): {} for k in all_k}
    cost: dict[str, dict[str, float | None]] = {str(k): {} for k in all_k}
    seed = keyed_seed("weights", config.seed, pretraining_seed)
    forks = device.type == "cpu" and config.threads <= 1  # OpenMP's threads do not survive a fork
    jobs = jobs if forks else 1
    arms = build_arms(windows, pretrained, fresh, augment, config, seed, report, jobs)
    keys = _identities(arms, seed, label, test, pretrained, fresh, augment, config)
    comparison = Comparison(arms, keys, label, test, config, seed)
    finished = finished or FinishedWork()
    with limited_threads(config.threads or 1):
        compute_missing(comparison, all_k, finished, jobs, report)
    for k in all_k:
        for name in arms:
            key, draws = comparison.setting_key(k, name), comparison.draw_keys(k, name)
            settings[str(k)][name] = finished.value(key)
            cost[str(k)][name] = finished.seconds([key, *draws])
            for draw, one in enumerate(draws):
                record = {**finished.value(one), "draw": draw}
                records.append({**marks, "k": str(k), "arm": name, **record})
    run = {**marks, **_describe_sides(label, test), "settings": settings}
    run |= {"cost": {"fitting_s": cost}, "computation": describe_computation(device)}
    return assemble([run], records, classes=label.classes, protocol=describe_protocol(config))


def describe_protocol(config: FewShotConfig) -> dict[str, Any]:
    """The settings; of the task what is not usual. Its data and split are of each run."""
    task = config.task.model_dump(mode="json", exclude_defaults=True, exclude={"seed", "data"})
    told = {"task": task} if task else {}
    return config.model_dump(mode="json", exclude={"task"}) | told


@contextmanager
def limited_threads(number: int) -> Iterator[None]:
    """torch, BLAS and OpenMP with ``number`` threads: the sizes here gain nothing by more.

    On a machine that is busy they lose: a fit of a probe then takes 15 to 25 times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpool_limits(number):
            yield
    finally:
        torch.set_num_threads(before)


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
        person=np.concatenate([label.person, test.person]),
        session=np.concatenate([label.session, test.session]),
        classes=len(label.classes),
        rate_hz=label.rate_hz,
        label_windows=len(label),
    )


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

    An encoder of ``few_shot.own`` may change and keep its name: its features stand for it.
    """
    sides = [
        (side.imu, side.label, side.person.astype(str), list(side.classes), side.rate_hz)
        for side in (label, test)
    ]
    operations = [op.model_dump(mode="json") for op in augment.ops]
    settings = config.model_dump(mode="json", exclude=NOT_OF_AN_ARM)
    device = next(pretrained.parameters()).device
    common = digest(
        SCHEMA, METHOD, *sides[0], *sides[1], operations, settings, describe_computation(device)
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
