"""A rank that hangs is named by the others, and all end so that a launcher starts them again."""

import re
import signal
import socket
import time
from pathlib import Path

import pytest

from primus_scale.train.trainer import REQUEUE
from tests.integration.tiny import (
    LAUNCHER,
    ROOT,
    said_by,
    start_ranks,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)

STUCK_AFTER_S = 6
HURRY = (
    "train.pictures_every=100000",
    "train.steps=100000",
    f"train.stuck_after_s={STUCK_AFTER_S}",
    "data.timeout_s=1",
    "data.patience_s=1",
)


@pytest.mark.parametrize("halted", [0, 1])
def test_halted_rank_is_named_by_the_other(tmp_path: Path, halted: int) -> None:
    output = tmp_path / "out"
    config = tiny_config(output, write_shards(tmp_path / "shards"), *HURRY)
    ranks = start_ranks(2, LAUNCHER, "--config", str(write_config(config, tmp_path / "run.yaml")))
    wait_until((output / "metrics.jsonl").is_file)
    ranks[halted].send_signal(signal.SIGSTOP)
    start = time.monotonic()
    (said,), codes = said_by([ranks[1 - halted]], timeout_s=60)
    print(f"named {time.monotonic() - start:.1f} s after it was halted")
    assert codes == [REQUEUE]
    assert f"rank {1 - halted}: no progress for {STUCK_AFTER_S} s: " in said
    name = rf"rank {halted} \({re.escape(socket.gethostname())}, pid {ranks[halted].pid}\)"
    where = r"last seen at step \d+ in: " if halted else "it holds the store that all ranks use"
    assert re.search(rf"{name} is halted or lost, {where}", said), said
    ranks[halted].send_signal(signal.SIGCONT)
    assert wait_for([ranks[halted]], timeout_s=60) != [0]


def test_rank_that_waits_for_ever_is_named_with_its_stack(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "out", write_shards(tmp_path / "shards", 320), *HURRY, "data.shuffle_blocks=1"
    )
    file = str(write_config(config, tmp_path / "run.yaml"))
    program = ROOT / "tests" / "integration" / "train_on_pipe.py"
    ranks = start_ranks(2, program, "8", "--config", file)
    said, codes = said_by(ranks)
    assert codes == [REQUEUE] * 2
    name = rf"rank 1 \({re.escape(socket.gethostname())}, pid {ranks[1].pid}\)"
    for text in said:
        assert re.search(rf"{name} is stuck, last seen at step \d+ in: waiting for data", text), (
            text
        )
    assert "in read_or_block" in said[1], "the stuck rank shows where it is"
