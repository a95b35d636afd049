"""Results of few-shot evaluations that are made up, as good as a test says."""

import base64
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from primus_scale.config import FewShotConfig
from primus_scale.evaluate.results import assemble
from tests.shard_factory import make_jpeg

CLASSES = ("lying", "walking upstairs", "a|b *c* <i>")
ARMS = {"pretrained": 8, "scratch": 6, "random": 6, "features": 5, "minirocket": 3}  # right of 10
PEOPLE = ("set/p1", "set/p2", "set/p3", "set/p4")
COLUMNS = ("1", "2", "5", "10", "50", "100", "500", "all")
SETTING = {"strength": 0.1, "scaling": "none"}


def answers(correct: int) -> dict[str, Any]:
    """Of 10 windows of each class so many right; the others are said to be of the next class."""
    right = np.eye(len(CLASSES), dtype=int)
    confusion = correct * right + (10 - correct) * np.roll(right, 1, axis=1)
    return {"correct": 3 * correct, "total": 30, "confusion": confusion.tolist()}


def made_up(
    arms: dict[str, int],
    columns: tuple[str, ...] = COLUMNS,
    splits: Sequence[int] = (1,),
    data: str = "set",
) -> dict[str, Any]:
    """Results in which each arm is as good as ``arms`` says, and a bit better on later people."""
    records = []
    for split, k in itertools.product(splits, columns):
        for arm, right in arms.items():
            for draw in range(1 if arm == "scratch" else 2):
                level = right + (draw if k != "all" else 0)
                people = {name: answers(min(level, 7) + i % 3) for i, name in enumerate(PEOPLE)}
                accuracy = np.mean([one["correct"] / one["total"] for one in people.values()])
                fit = {"split": split, "pretraining_seed": 0, "draw": draw, "k": k, "arm": arm}
                records.append(
                    {**fit, "accuracy": accuracy, "macro_f1": accuracy, "people": people}
                )
    run = {
        **{"pretraining_seed": 0, "label_people": ["set/q"], "test_people": PEOPLE},
        **{"label_windows": 100, "test_windows": 120},
        "settings": {k: dict.fromkeys(arms, SETTING) for k in columns},
        "computation": {"precision": "fp32", "device": "cpu", "capability": "x", "torch": "2"},
        "cost": {
            "pretraining_s": 240.0,
            "fitting_s": {k: dict.fromkeys(arms, 0.5) | {"minirocket": 30.0} for k in columns},
        },
    }
    protocol = FewShotConfig().model_dump(mode="json")
    return {
        **assemble(
            [{**run, "split": split} for split in splits],
            records,
            classes=CLASSES,
            protocol=protocol,
        ),
        "encoder": {"name": "small", "parameters": 880, "datasets": {}, "pretraining": "a"},
        "data": {"rate_hz": 50, "window_s": 5, "datasets": {data: "SYNTHETIC sines"}},
    }


def made_up_map() -> dict[str, Any]:
    """A map of 60 windows."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 60)).round(3).tolist()
    label, person = (np.arange(60) % len(CLASSES)).tolist(), (np.arange(60) % 4).tolist()
    people = [*PEOPLE[:3], "set/a person of a long name that goes on and on"]
    return {
        **{"x": x, "y": y, "label": label, "person": person, "people": people},
        "explained": [0.31, 0.12],
    }


def made_up_retrieval() -> dict[str, Any]:
    """Retrieval with examples that have pictures and texts."""
    recall = {"mean": 0.2, "low": 0.1, "high": 0.3, "people": 4, "chance": 0.01}
    picture = base64.b64encode(make_jpeg(90)).decode()
    shown = {"text": "C walks <up>", "label": "lying", "person": "set/p1", "picture": picture}
    found = [shown | {"right": n == 1, "text": f"C does {n}"} for n in range(3)]
    direction = {"recall": dict.fromkeys(("1", "5", "10"), recall), "windows": 100}
    return {
        **{"data": ["a"], "split": 1, "pretraining_seed": 0},
        "directions": {"imu_to_text": direction | {"median_rank": 9, "median_rank_chance": 50}},
        "examples": {"text": [{"own": shown, "rank": 2, "found": found}] * 2},
    }
