"""A run that is killed or told to stop leaves a checkpoint from which it goes on."""

import json
import os
import random
import signal
import time
from pathlib import Path

from tests.integration.tiny import (
    LAUNCHER,
    checkpoints,
    losses,
    newest_checkpoint,
    start_ranks,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)


def test_sigkill_at_any_time_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    shards, output = write_shards(tmp_path / "shards"), tmp_path / "out"
    endless = tiny_config(output, shards, "train.steps=100000", "train.checkpoint_every=1")
    file = str(write_config(endless, tmp_path / "endless.yaml"))
    for seed in range(3):
        before = newest_checkpoint(output)
        (rank,) = start_ranks(1, LAUNCHER, "--config", file)
        wait_until(lambda before=before: newest_checkpoint(output) != before)
        time.sleep(random.Random(seed).uniform(0.0, 0.5))
        rank.kill()
        assert wait_for([rank]) == [-signal.SIGKILL]

    done = newest_checkpoint(output)
    (rank,) = start_ranks(1, LAUNCHER, "--config", file, f"train.steps={done + 1}")
    assert wait_for([rank]) == [0]
    assert json.loads((output / "train.json").read_text())["steps"] == done + 1
    assert len(losses(output)) == done + 1, "no kill has cost a line of the log"
    assert not list(output.glob("checkpoints/.*")), "what the kill left is cleared away"


def test_sigterm_to_one_rank_stops_all_after_a_checkpoint(tmp_path: Path) -> None:
    shards, output = write_shards(tmp_path / "shards"), tmp_path / "out"
    config = tiny_config(output, shards, "train.steps=100000", "train.pictures_every=100000")
    file = str(write_config(config, tmp_path / "run.yaml"))
    ranks = start_ranks(2, LAUNCHER, "--config", file)
    wait_until((output / "metrics.jsonl").is_file)
    ranks[1].send_signal(signal.SIGTERM)
    assert wait_for(ranks) == [os.EX_TEMPFAIL] * 2
    assert len(checkpoints(output)) == 1
    assert not (output / "encoder").exists(), "only a finished run exports its encoder"
