"""A real TensorBoard server answers for the log folder of a run."""

import io
import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from primus_scale.monitor import LOG_FOLDER, Monitor
from tests.monitored_run import RATE_HZ, make_config, make_report, make_views

START_TIMEOUT_S = 60
PNG_HEAD = b"\x89PNG\r\n"


def log_run(output: Path) -> None:
    monitor = Monitor(make_config(output), rate_hz=RATE_HZ, stream=io.StringIO())
    for step in range(1, 21):
        monitor.step(step, make_report(10.0 - 0.1 * step))
    monitor.pictures(20, make_views(), make_report(8.0))
    monitor.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of a TensorBoard server on a run's logs; stopped whatever happens."""
    output = tmp_path_factory.mktemp("run")
    log_run(output)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tensorboard.main", "--load_fast=false"),
            *("--logdir", str(output / LOG_FOLDER), "--host", "127.0.0.1", "--port", "0"),
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


def test_scalars_answer_with_tags_and_values(server):
    tags = fetch_json(f"{server}/data/plugin/scalars/tags")["."]
    assert {
        "loss/total",
        "loss/imu_video",
        "temperature/mm",
        "optimizer/grad_norm",
        "optimizer/lr",
        "speed/windows_per_s",
        "speed/waited_s",
        "support/fill",
        "neighbours/score",
        "neighbours/age",
        "neighbours/same_recording",
        "collapse/effective_rank",
    } <= set(tags)
    points = fetch_json(f"{server}/data/plugin/scalars/scalars?run=.&tag=loss/imu_video")
    assert [(step, round(value, 3)) for _, step, value in points] == [
        (1, 9.9),
        (10, 9.0),
        (20, 8.0),
    ]


def test_pictures_are_there(server):
    tags = fetch_json(f"{server}/data/plugin/images/tags")["."]
    # No window of this run has a text, so there is no similarity with it.
    assert set(tags) == {"windows/views", "similarity/view0_view1", "similarity/imu_video"}
    for tag in tags:
        (entry,) = fetch_json(f"{server}/data/plugin/images/images?run=.&tag={tag}&sample=0")
        assert entry["step"] == 20
        picture = fetch(f"{server}/data/plugin/images/individualImage?{entry['query']}")
        assert picture.startswith(PNG_HEAD)
