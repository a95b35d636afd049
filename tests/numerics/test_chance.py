"""Where labels are drawn by chance, no arm answers better than chance: nothing leaks into it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from primus_scale.augment import build_augment
from primus_scale.config import ArmName, FewShotConfig
from primus_scale.evaluate import run_few_shot
from tests.few_shot_task import CLASSES, LinearEncoder, few_penalties, make_side  # noqa: F401

pytestmark = pytest.mark.usefixtures("few_penalties")


def test_every_arm_is_at_chance_where_labels_are_permuted() -> None:
    """Labels of both sides are permuted, so windows are right or wrong independently of each other.

    96 test windows: the accuracy of any answers deviates from 1/3 by 4.8 points (one deviation).
    """
    rng = np.random.default_rng(4)
    label, test = make_side(range(4), windows_each=3), make_side(range(10, 14))
    sides = [replace(side, label=rng.permutation(side.label)) for side in (label, test)]
    config = FewShotConfig(
        k=(4,), draws=2, trained_draws=1, steps=10, batch=16, lrs=(1e-3,), arms=get_args(ArmName)
    )
    results = run_few_shot(
        *sides, LinearEncoder(1), LinearEncoder, build_augment(()), config, report=lambda _: None
    )
    chance = 1 / len(CLASSES)
    deviation = math.sqrt(chance * (1 - chance) / len(test))
    found = {arm: row["mean"] for arm, row in results["few_shot"]["4"].items()}
    assert list(found) == list(config.arms)
    assert {a: x for a, x in found.items() if abs(x - chance) > 3.5 * deviation} == {}
