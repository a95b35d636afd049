"""What goes wrong on rank 0 ends all ranks with one clear line, and leaves the output as it was."""

from pathlib import Path

import pytest

from primus_scale.train.trainer import pretrain
from tests.integration.tiny import (
    LAUNCHER,
    errors_of,
    start_ranks,
    tiny_config,
    write_config,
    write_shards,
)

RECORDS = ("config.yaml", "environment.json", "metrics.jsonl", "train.json")


@pytest.mark.parametrize(
    ("blocked", "problem"),
    [
        ("config.yaml", "cannot write {}/config.yaml"),
        ("train.json", "cannot write {}/train.json"),
        ("checkpoints/step-00000009", "none of the checkpoints in {}/checkpoints is whole"),
    ],
)
def test_failure_of_rank_0_is_told_by_all_ranks(tmp_path: Path, blocked: str, problem: str) -> None:
    output = tmp_path / "out"
    (output / blocked).mkdir(parents=True)  # a folder where a file should go, or nothing in it
    config = tiny_config(output, write_shards(tmp_path / "shards", windows=16), "train.steps=1")
    file = write_config(config, tmp_path / "run.yaml")
    for error in errors_of(start_ranks(2, LAUNCHER, "--config", str(file))):
        assert problem.format(output) in error


def test_refused_run_leaves_the_records_of_the_good_one(tmp_path: Path) -> None:
    output, shards = tmp_path / "out", write_shards(tmp_path / "shards", windows=16)
    assert pretrain(tiny_config(output, shards, "train.steps=2")) == 0
    before = {name: (output / name).read_bytes() for name in RECORDS}
    with pytest.raises(ValueError, match=r"checkpoint of another run: encoder\.ss_dim is 16"):
        pretrain(tiny_config(output, shards, "train.steps=4", "encoder.ss_dim=8"))
    assert {name: (output / name).read_bytes() for name in RECORDS} == before
