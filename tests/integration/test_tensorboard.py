"""A real TensorBoard server answers for the log folder of a training run."""

import json
import re
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from primus_scale.evaluate import log_few_shot
from primus_scale.evaluate.arm_table import ARMS
from primus_scale.monitor.log import LOG_FOLDER
from primus_scale.objective.terms import TERMS
from primus_scale.train.trainer import pretrain
from tests.integration.tiny import (
    SIGNAL,
    SIGNAL_TEACHER,
    TEACHERS,
    losses,
    tiny_config,
    write_shards,
)

START_TIMEOUT_S = 60
PICTURES_STEP, LAST_STEP = 4, 6
PNG_HEAD = b"\x89PNG\r\n"


def train(folder: Path) -> Path:
    """A run of six steps with validation; returns its output folder."""
    teachers = {**TEACHERS, **SIGNAL_TEACHER}
    data = {
        "train": [write_shards(folder / "train", teachers=teachers, sessions=True)],
        "validation": [write_shards(folder / "validation", 16, seed=1, teachers=teachers)],
        "session_windows": 4,
    }
    every = ("train.validate_every=3", f"train.pictures_every={PICTURES_STEP}")
    output = folder / "run"
    terms = ("objective.weights.imu_near=1", *SIGNAL)
    assert pretrain(tiny_config(output, "", *every, *terms, data=data)) == 0
    return output


def evaluate(output: Path) -> None:
    """What ``primus-scale evaluate --run`` adds, with made-up results."""
    confusion = {arm: [[3, 1], [0, 4]] for arm in ARMS}
    results = {
        "classes": ["sit", "walk"],
        "few_shot": {"5": {arm: {"mean": 0.75} for arm in ARMS}},
        "paired": {"5": {}},
        "confusion": {"5": confusion},
    }
    log_few_shot(output, results, {"optimizer": {"lr": 0.5}})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The output folder of a training run that has been evaluated."""
    output = train(tmp_path_factory.mktemp("training"))
    evaluate(output)
    return output


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[str]:
    """The address of a TensorBoard server on a run's logs; stopped whatever happens."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tensorboard.main", "--load_fast=false"),
            *("--logdir", str(run / LOG_FOLDER), "--host", "127.0.0.1", "--port", "0"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield _announced_address(process)
    finally:
        process.kill()
        process.communicate()


def _announced_address(process: subprocess.Popen[str]) -> str:
    """The address that the server prints: it has chosen a free port itself."""
    assert process.stdout is not None
    seen = []
    timer = threading.Timer(START_TIMEOUT_S, process.kill)  # ends the loop below
    timer.start()
    try:
        for line in process.stdout:
            seen.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                return found.group()
    finally:
        timer.cancel()
    raise RuntimeError("TensorBoard did not start: " + "".join(seen))


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def fetch_json(url: str) -> Any:
    return json.loads(fetch(url))


def points(server: str, tag: str) -> dict[int, float]:
    """Values of a scalar by step."""
    answer = fetch_json(f"{server}/data/plugin/scalars/scalars?run=.&tag={tag}")
    return {step: value for _, step, value in answer}


def test_scalars_answer_with_tags(server):
    tags = fetch_json(f"{server}/data/plugin/scalars/tags")["."]
    assert {
        "loss/total",
        *(f"loss/{term.name}" for term in TERMS),
        "temperature/mm",
        "temperature/ss",
        "temperature/near",
        "optimizer/grad_norm",
        "optimizer/lr",
        "speed/windows_per_s",
        "speed/retries",
        "speed/waited_s",
        "support/fill",
        "neighbours/score",
        "neighbours/age",
        "neighbours/same_recording",
        "neighbours/same_session",
        "neighbours/same_moment",
        "collapse/alignment",
        "collapse/uniformity",
        "collapse/effective_rank",
        "retrieval/imu_to_video",
        "retrieval/video_to_imu",
        "retrieval/imu_to_text",
        "retrieval/text_to_imu",
    } <= set(tags)


def test_scalars_answer_with_the_values_of_the_run(server, run):
    assert points(server, "loss/total") == pytest.approx(
        dict(enumerate(losses(run), start=1)), rel=1e-6
    )
    # A ring of 20 takes 8 windows a step.
    fill = {1: 8, 2: 16, **dict.fromkeys(range(3, 7), 20)}
    assert points(server, "support/fill") == fill
    recall = points(server, "retrieval/imu_to_video")
    assert list(recall) == [3, 6]
    assert all(0 <= share <= 1 for share in recall.values())
    summary = json.loads((run / "train.json").read_text(encoding="utf-8"))
    assert recall[6] == pytest.approx(summary["retrieval"]["imu_to_video"])


def test_pictures_are_there(server):
    steps = {
        "windows/views": PICTURES_STEP,
        "similarity/view0_view1": PICTURES_STEP,
        "similarity/imu_video": PICTURES_STEP,
        "similarity/imu_text": PICTURES_STEP,
        "similarity/imu_signal": PICTURES_STEP,
        **{f"confusion/{arm}": LAST_STEP for arm in ARMS},
    }
    assert set(fetch_json(f"{server}/data/plugin/images/tags")["."]) == set(steps)
    for tag, step in steps.items():
        (entry,) = fetch_json(f"{server}/data/plugin/images/images?run=.&tag={tag}&sample=0")
        assert entry["step"] == step
        picture = fetch(f"{server}/data/plugin/images/individualImage?{entry['query']}")
        assert picture.startswith(PNG_HEAD)


def test_settings_stand_beside_few_shot_figures_so_that_runs_compare(server):
    asked = {"experimentName": "", "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS"]}
    asked |= {"colParams": [], "startIndex": 0, "sliceSize": 10}
    query = urllib.parse.quote(json.dumps(asked))
    answer = fetch_json(f"{server}/data/plugin/hparams/session_groups?request={query}")
    (group,) = answer["sessionGroups"]
    assert group["hparams"] == {"optimizer/lr": 0.5}
    values = {one["name"]["tag"]: one["value"] for one in group["metricValues"]}
    assert values["few_shot/accuracy/pretrained/k=5"] == pytest.approx(75)
