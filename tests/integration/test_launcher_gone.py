"""Ranks of the deepspeed launcher end with it, after a checkpoint."""

import json
import signal
import sys
from pathlib import Path

import psutil
import pytest

from primus_scale.trainer import pretrain
from tests.conftest import require
from tests.integration.tiny import (
    LAUNCHER,
    free_port,
    losses,
    started,
    tiny_config,
    wait_until,
    write_config,
    write_shards,
)

DEEPSPEED = Path(sys.executable).with_name("deepspeed")


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        ("command", signal.SIGTERM),  # which it does not hand on
        ("command", signal.SIGKILL),
        ("process that started the ranks", signal.SIGKILL),
    ],
)
def test_ranks_do_not_outlive_their_launcher(
    tmp_path: Path, part: str, sent: signal.Signals
) -> None:
    require(DEEPSPEED.is_file(), "the deepspeed command is not installed")
    output, shards = tmp_path / "out", write_shards(tmp_path / "shards")
    options = ("train.pictures_every=100000", "optimizer.schedule=constant")
    config = tiny_config(output, shards, "train.steps=100000", *options)
    arguments = ("--num_gpus", "2", "--master_port", str(free_port()), str(LAUNCHER), "--config")
    file = str(write_config(config, tmp_path / "run.yaml"))
    with started(sys.executable, str(DEEPSPEED), *arguments, file) as launcher:
        command = psutil.Process(launcher.pid)
        wait_until((output / "metrics.jsonl").is_file, timeout_s=240)
        (middle,) = command.children()
        ranks = middle.children()
        assert len(ranks) == 2
        (command if part == "command" else middle).send_signal(sent)
        psutil.wait_procs([command, middle, *ranks], timeout=120)
        assert not any(each.is_running() for each in (command, middle, *ranks))
    (checkpoint,) = output.glob("checkpoints/step-*")
    done = json.loads((checkpoint / "manifest.json").read_text())["progress"]["step"]
    assert done == len(losses(output)), "all that was done is kept"

    assert pretrain(tiny_config(output, shards, f"train.steps={done + 2}", *options)) == 0
    assert len(losses(output)) == done + 2
